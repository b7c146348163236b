//! Who takes part in a group: voters, learners, and the two majorities of a change.
//!
//! A membership is an entry of the log, and binds a replica as soon as it is in its log, committed or not (section 4.1 of
//! Ongaro's thesis): a replica that is cut off from the commit must not go on counting the old majority alone.
//! Where such an entry is cut off again, the membership before it binds again.
//!
//! ```text
//!   {1,2,3}  ── change ──▶  {1,2,4} and {1,2,3}  ── committed by both ──▶  {1,2,4}
//!              the leader   joint: everything is decided by a majority       the leader appends it
//!              appends it   of each of the two                               by itself
//! ```
//!
//! Two memberships that follow each other thus never have majorities without a common member, however many voters change at
//! once (section 6 of the Raft paper). **Learners** take entries and count for nothing; a voter is made of a learner
//! that has caught up, so that a majority does not wait for one that has not.
//!
//! # Invariants
//! - There is always a voter. No replica is both a voter and a learner; only while joint, one that is about to be a learner
//!   may still be a voter that goes.
//! - A change begins when the one before it is over, and an entry of the leader's own term is committed: otherwise two
//!   leaders could change one membership in two ways that have no majority in common (Ongaro, 2015).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, ReplicaId};

use super::quorum::{Tally, VOTERS_MAX, reached_by_majority, tally};

/// Learners that one group may have: as many as a cluster has nodes at most.
pub const LEARNERS_MAX: usize = 32;

/// Who takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// They elect and commit.
    pub voters: BTreeSet<ReplicaId>,
    /// While joint: the voters before, whose majority is needed beside that of `voters`. Else empty.
    pub outgoing: BTreeSet<ReplicaId>,
    /// They take entries, and count for nothing.
    pub learners: BTreeSet<ReplicaId>,
}

impl Membership {
    /// Nodes of a group's beginning.
    pub fn founders(voters: &[NodeId]) -> Self {
        Self { voters: voters.iter().copied().map(ReplicaId::founder).collect(), ..Self::default() }
    }

    /// These and no others, when nothing changes.
    pub fn new(voters: BTreeSet<ReplicaId>, learners: BTreeSet<ReplicaId>) -> Self {
        Self { voters, outgoing: BTreeSet::new(), learners }
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether it votes, as one that comes, stays or goes.
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether it takes part at all.
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Everybody who takes part, each once, in order.
    pub fn replicas(&self) -> BTreeSet<ReplicaId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Everybody who votes, each once, in order.
    pub fn all_voters(&self) -> BTreeSet<ReplicaId> {
        self.voters.union(&self.outgoing).copied().collect()
    }

    /// Where it leads to from `self`: at once where the voters stay, else by way of both majorities.
    pub(super) fn towards(&self, target: Self) -> Self {
        let outgoing = if target.voters == self.voters { BTreeSet::new() } else { self.voters.clone() };
        Self { outgoing, ..target }
    }

    /// What follows when both majorities have committed it.
    pub(super) fn left(&self) -> Self {
        Self { outgoing: BTreeSet::new(), ..self.clone() }
    }

    /// The highest value that a majority has reached; while joint, a majority of each.
    pub(super) fn reached(&self, value: impl Fn(ReplicaId) -> u64) -> u64 {
        if self.voters.is_empty() {
            return 0;
        }
        let of = |voters: &BTreeSet<ReplicaId>| reached_by_majority(voters.iter().map(|id| value(*id)));
        let reached = of(&self.voters);
        if self.is_joint() { reached.min(of(&self.outgoing)) } else { reached }
    }

    /// Counts an election: won with a majority, or two; lost as soon as one cannot be had any more. Answers of others count for nothing.
    pub(super) fn tally(&self, granted: &BTreeSet<ReplicaId>, refused: &BTreeSet<ReplicaId>) -> Tally {
        let of = |voters: &BTreeSet<ReplicaId>| {
            tally(voters.len(), granted.intersection(voters).count(), refused.intersection(voters).count())
        };
        if self.voters.is_empty() {
            return Tally::Lost;
        }
        let outgoing = if self.is_joint() { of(&self.outgoing) } else { Tally::Won };
        match (of(&self.voters), outgoing) {
            (Tally::Won, Tally::Won) => Tally::Won,
            (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
            _ => Tally::Open,
        }
    }

    /// Whether a replica of ours could have put this into a log.
    pub(super) fn is_sound(&self) -> bool {
        !self.voters.is_empty()
            && self.voters.len() <= VOTERS_MAX
            && self.outgoing.len() <= VOTERS_MAX
            && self.learners.len() <= LEARNERS_MAX
            && self.voters.is_disjoint(&self.learners)
    }
}

/// A membership that entries and snapshots share, on the wire and on disk: as if each had its own.
pub(super) mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Membership;

    pub(in super::super) fn serialize<S: Serializer>(
        membership: &Option<Arc<Membership>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        membership.as_deref().serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<Membership>>, D::Error> {
        Ok(Option::<Membership>::deserialize(deserializer)?.map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> ReplicaId {
        ReplicaId::founder(NodeId::numbered(number))
    }

    fn ids(numbers: &[usize]) -> BTreeSet<ReplicaId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    fn joint(voters: &[usize], outgoing: &[usize]) -> Membership {
        Membership { voters: ids(voters), outgoing: ids(outgoing), learners: ids(&[9]) }
    }

    #[test]
    fn a_change_of_voters_goes_by_way_of_both_and_one_of_learners_does_not() {
        let three = Membership::new(ids(&[1, 2, 3]), ids(&[4]));
        let learners = three.towards(Membership::new(ids(&[1, 2, 3]), ids(&[5])));
        assert!(!learners.is_joint() && learners.contains(id(5)) && !learners.contains(id(4)));
        let both = three.towards(Membership::new(ids(&[1, 2, 4]), ids(&[3])));
        assert_eq!((&both.voters, &both.outgoing), (&ids(&[1, 2, 4]), &ids(&[1, 2, 3])));
        assert!(both.is_voter(id(3)), "a voter that is about to be a learner votes until the end");
        assert_eq!(both.left(), Membership::new(ids(&[1, 2, 4]), ids(&[3])));
    }

    #[test]
    fn while_joint_the_slower_majority_decides() {
        let value = |at: ReplicaId| u64::try_from(at.node.as_str()[4..].parse::<usize>().unwrap() * 10).unwrap();
        assert_eq!(Membership::new(ids(&[1, 2, 3]), ids(&[9])).reached(value), 20);
        assert_eq!(joint(&[4, 5, 6], &[1, 2, 3]).reached(value), 20);
        assert_eq!(joint(&[1, 2, 3], &[4, 5, 6]).reached(value), 20);
        assert_eq!(Membership::default().reached(value), 0);
    }

    #[test]
    fn an_election_needs_both_and_is_lost_with_one() {
        let both = joint(&[1, 2, 4], &[1, 2, 3]);
        let count = |granted: &[usize], refused: &[usize]| both.tally(&ids(granted), &ids(refused));
        assert_eq!(count(&[1, 2], &[]), Tally::Won);
        assert_eq!(count(&[1, 4], &[]), Tally::Open, "one of the two is missing");
        assert_eq!(count(&[1, 4, 3], &[]), Tally::Won);
        assert_eq!(count(&[1, 4], &[2, 3]), Tally::Lost);
        assert_eq!(count(&[1, 9], &[]), Tally::Open, "a learner's vote counts for nothing");
        assert_eq!(Membership::default().tally(&ids(&[1]), &ids(&[])), Tally::Lost);
    }

    #[test]
    fn what_no_leader_of_ours_would_append_is_not_sound() {
        assert!(joint(&[1, 2], &[2, 3]).is_sound());
        assert!(!Membership::default().is_sound(), "nobody votes");
        assert!(!Membership::new(ids(&[1, 2]), ids(&[2])).is_sound(), "a learner that votes");
        assert!(!Membership::new((1..=VOTERS_MAX + 1).map(id).collect(), ids(&[])).is_sound(), "too many");
    }

    proptest! {
        /// Whatever is decided under the old membership, the joint one, or the new one: two decisions that follow each other share a replica.
        #[test]
        fn majorities_of_neighbours_meet(
            old in prop::collection::btree_set(1usize..8, 1..6),
            new in prop::collection::btree_set(1usize..8, 1..6),
            one in prop::collection::btree_set(1usize..8, 0..8),
            other in prop::collection::btree_set(1usize..8, 0..8),
        ) {
            let set = |numbers: &BTreeSet<usize>| numbers.iter().map(|number| id(*number)).collect::<BTreeSet<_>>();
            let old = Membership::new(set(&old), BTreeSet::new());
            let both = old.towards(Membership::new(set(&new), BTreeSet::new()));
            let wins = |membership: &Membership, granted: &BTreeSet<usize>| {
                membership.tally(&set(granted), &BTreeSet::new()) == Tally::Won
            };
            for (first, second) in [(&old, &both), (&both, &both.left()), (&both, &both)] {
                if wins(first, &one) && wins(second, &other) {
                    prop_assert!(!one.is_disjoint(&other), "{one:?} decides in {first:?}, {other:?} in {second:?}");
                }
            }
        }
    }
}
