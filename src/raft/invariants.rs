//! What must hold between any two calls, as assertions with numbers. The simulator calls them after every event.

use crate::rules::Rules;

use super::node::{Node, RoleState};

impl<R: Rules> Node<R> {
    pub(super) fn check_invariants(&self) {
        self.log.check();
        let (base, applied, commit) = (self.log.base().index, self.applied, self.commit);
        let (stable, last) = (self.log.stable(), self.log.last_index());
        assert!(base <= applied && applied <= commit && commit <= last, "{base} <= {applied} <= {commit} <= {last}");
        assert!(applied <= stable, "applied {applied}, but only {stable} is durable");
        let (term, last_term) = (self.term(), self.log.last_term());
        assert!(last_term <= term, "an entry of term {last_term} in term {term}");
        let durable = self.writes.durable();
        assert!(durable.term <= term, "term {term}, but {} is on disk", durable.term);
        let id = self.id;
        let (index, membership) = self.log.membership();
        assert!(index <= last && base <= index.max(base), "{membership:?} stands at {index} of {base}..={last}");
        match &self.role {
            RoleState::Follower(follower) => {
                assert!(self.leader != Some(id), "{id} follows itself");
                assert!(follower.matched <= last, "matched {} of {last}", follower.matched);
            }
            RoleState::PreCandidate(_) => assert_eq!(self.leader, None, "a pre-candidate has a leader"),
            RoleState::Candidate(_) => {
                assert_eq!((self.leader, self.hard_state.vote), (None, Some(id)), "a candidate votes for itself");
            }
            RoleState::Leader(leader) => {
                assert_eq!((self.leader, self.hard_state.vote), (Some(id), Some(id)), "a leader voted for itself");
                assert_eq!(durable.term, term, "a leader whose vote is not durable");
                assert_eq!(self.installing, None, "a leader installs a snapshot");
                let known = |other: &crate::ids::ReplicaId| *other == id || leader.followers.contains_key(other);
                assert!(membership.replicas().iter().all(known), "a leader does not know all of {membership:?}");
                for progress in leader.followers.values() {
                    progress.check(last, self.config.in_flight_max);
                    assert!(progress.acknowledged_round <= leader.round, "round {}", progress.acknowledged_round);
                }
            }
        }
    }
}
