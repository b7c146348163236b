//! Changing who takes part, from the leader's side. What a membership is stands in [`membership`](super::membership).
//!
//! The caller names the voters and learners that there are to be; the leader appends the entry that leads there, and when both
//! majorities have committed it, the entry that leaves the joint state, without being asked again. A new leader that finds
//! the joint state in its log goes on with it once its own no-op is committed, and with that the joint entry.
//!
//! # Invariants
//! - One change at a time, and none before an entry of the leader's own term is committed (Ongaro, 2015).
//! - The joint state is left only when it is committed (camunda 60086 left it at a restart).
//! - A replica that its newest membership removes still campaigns, and leads without counting itself, until that is committed
//!   (section 4.2.2 of Ongaro's thesis): the majority before may need it.
//! - A leader that is no voter any more goes on until the entry that says so is committed, without counting itself, and then hands
//!   over to a voter that has everything.
//! - A replica that is no member any more is sent entries until it has heard of it, or is silent; and again when it asks whether it
//!   could be elected. So one that was away when it was removed does not ask for ever.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Index, NodeId, Now, ReplicaId};
use crate::rules::{Rule, Rules};

use super::membership::Membership;
use super::message::Body;
use super::node::{Node, RoleState};
use super::progress::Progress;

/// Why a membership was not changed. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another replica leads, or none.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    Transferring,
    /// No entry of this leader's term is committed yet.
    #[error("the leader has just been elected, and does not know yet what is committed")]
    NotSettled,
    /// The change before this one is not over.
    #[error("another change is under way")]
    InProgress,
    /// No voter, too many, or a replica that is to vote and to learn.
    #[error("that is no membership")]
    Unsound,
    /// It is so already.
    #[error("nothing would change")]
    Unchanged,
}

impl<R: Rules> Node<R> {
    pub(super) fn change(
        &mut self,
        now: Now,
        voters: BTreeSet<ReplicaId>,
        learners: BTreeSet<ReplicaId>,
    ) -> Result<Index, ChangeError> {
        self.advance(now);
        let RoleState::Leader(leader) = &self.role else {
            return Err(ChangeError::NotLeader { leader: self.leader.map(|leader| leader.node) });
        };
        if leader.transfer.is_some() {
            return Err(ChangeError::Transferring);
        }
        let settled = self.log.term_at(self.commit) == Some(self.hard_state.term);
        if !settled {
            return Err(ChangeError::NotSettled);
        }
        let (index, current) = self.log.membership();
        if (index > self.commit || current.is_joint()) && !R::without(Rule::ChangeDuringAChange) {
            return Err(ChangeError::InProgress);
        }
        let target = Membership::new(voters, learners);
        if !target.is_sound() {
            return Err(ChangeError::Unsound);
        }
        if target == **current {
            return Err(ChangeError::Unchanged);
        }
        let next = if R::without(Rule::VotersChangedAtOnce) { target } else { current.towards(target) };
        Ok(self.append_membership(next))
    }

    fn append_membership(&mut self, membership: Membership) -> Index {
        let membership = Arc::new(membership);
        let index = self.append_entry(Bytes::new(), Some(Arc::clone(&membership)));
        self.follow_membership();
        index
    }

    /// The leader knows of every replica that takes part.
    pub(super) fn follow_membership(&mut self) {
        let (now_us, next) = (self.now.mono_us, self.log.last_index() + 1);
        let replicas = self.log.membership().1.replicas();
        let own = self.id;
        let RoleState::Leader(leader) = &mut self.role else { return };
        for id in replicas.into_iter().filter(|id| *id != own) {
            leader.followers.entry(id).or_insert_with(|| Progress::new(next, now_us));
        }
    }

    /// The commit index has moved: a joint state that is committed is left, and a leader that is no voter any more goes. While
    /// leadership is handed over nothing is appended, or the successor's log would be behind: it leaves the joint state itself.
    pub(super) fn membership_committed(&mut self) {
        let (index, membership) = self.log.membership();
        let committed = index <= self.commit;
        let is_handing_over = matches!(&self.role, RoleState::Leader(leader) if leader.transfer.is_some());
        if membership.is_joint() && (committed || R::without(Rule::JointLeftEarly)) {
            if is_handing_over {
                return;
            }
            let left = membership.left();
            self.append_membership(left);
        } else if committed && !membership.is_voter(self.id) {
            self.hand_over_for_good();
        }
    }

    /// The entry that removes this leader is committed: it tells the voter that is furthest to campaign, unless one was told before,
    /// and follows. What the successor lacks was not committed.
    fn hand_over_for_good(&mut self) {
        let membership = Arc::clone(self.log.membership().1);
        let RoleState::Leader(leader) = &self.role else { return };
        let matched = |id: &ReplicaId| leader.followers.get(id).map_or(0, |it| it.matched);
        let furthest = membership.voters.iter().max_by_key(|id| (matched(id), std::cmp::Reverse(**id))).copied();
        let told = leader.transfer.is_some_and(|transfer| transfer.told);
        if let (false, Some(successor)) = (told, furthest) {
            self.send(successor, Body::TimeoutNow);
        }
        self.become_follower(self.term());
    }

    /// A replica that takes part no more does not know it, and would like to be elected: it is sent the log until it does.
    pub(super) fn tell_the_removed(&mut self, from: ReplicaId) {
        let (now_us, next) = (self.now.mono_us, self.log.last_index() + 1);
        if let RoleState::Leader(leader) = &mut self.role {
            leader.followers.entry(from).or_insert_with(|| Progress::new(next, now_us));
        }
    }

    /// Forgets replicas that take part no more, when they have heard of it or are silent.
    pub(super) fn forget_the_removed(&mut self) {
        let (now_us, silence_us) = (self.now.mono_us, self.config.election_us_max);
        let (index, membership) = self.log.membership();
        let membership = Arc::clone(membership);
        let RoleState::Leader(leader) = &mut self.role else { return };
        leader.followers.retain(|id, progress| {
            let told = progress.matched >= index && progress.commit_sent >= index;
            membership.contains(*id) || !(told || now_us.saturating_sub(progress.heard_us) > silence_us)
        });
    }

    /// The highest value that a majority has reached (a majority of each, while joint); `own` is that of this replica.
    pub(super) fn reached(&self, own: u64, of: impl Fn(ReplicaId) -> u64) -> u64 {
        let value = |id| if id == self.id { own } else { of(id) };
        let membership = self.log.membership().1;
        if R::without(Rule::LearnersCounted) {
            let all = Membership::new(membership.replicas(), BTreeSet::new());
            return all.reached(value);
        }
        membership.reached(value)
    }
}
