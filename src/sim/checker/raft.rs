//! What consensus promises, checked from above all replicas at once.
//!
//! - *Election safety*: at most one leader in a term. - *One vote*: a node grants its vote to one candidate in a term,
//!   across restarts. - *Log matching*: an index and a term name one entry, on every node and for ever. - *Leader
//!   completeness*: a new leader has every entry that was committed before its term. - *State machine safety*: whatever
//!   index two replicas have committed, it is the same entry; and at the same applied index they have the same state.

use std::collections::BTreeMap;

use xxhash_rust::xxh64::xxh64;

use super::Check;
use crate::ids::{GroupId, Index, Term};
use crate::raft::{Entry, HardState};
use crate::sim::network::Place;

/// One entry, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) term: Term,
    /// Of everything that the entry says.
    pub(crate) hash: u64,
}

impl Mark {
    /// The mark of an entry.
    pub(crate) fn of(entry: &Entry) -> Self {
        let hash = xxh64(&entry.data, entry.stamp_ms ^ entry.wall_ms.rotate_left(32) ^ entry.term.rotate_left(48));
        Self { term: entry.term, hash }
    }
}

/// A replica's log, as the checks need it.
pub(crate) trait LogView {
    fn term(&self) -> Term;
    fn is_leader(&self) -> bool;
    fn commit_index(&self) -> Index;
    /// Term of the entry; None where the log has it no longer, or not yet.
    fn term_at(&self, index: Index) -> Option<Term>;
    /// Mark of the entry; None where the log has it no longer, or not yet.
    fn mark_at(&self, index: Index) -> Option<Mark>;
    /// The log begins after this index.
    fn base_index(&self) -> Index;
}

/// What all replicas of all groups have shown.
#[derive(Debug, Default)]
pub(crate) struct RaftChecker {
    groups: BTreeMap<GroupId, Group>,
}

#[derive(Debug, Default)]
struct Group {
    leaders: BTreeMap<Term, Place>,
    votes: BTreeMap<(Place, Term), Place>,
    entries: BTreeMap<(Index, Term), u64>,
    /// Entry `i + 1`, and the term of the replica that first showed it committed.
    committed: Vec<(Mark, Term)>,
    /// Up to where each replica's commits are compared.
    compared: BTreeMap<Place, Index>,
    durable: BTreeMap<Place, HardState>,
    states: BTreeMap<Index, (Place, u64)>,
}

/// A replica that has just become leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewLeader {
    pub(crate) term: Term,
    pub(crate) place: Place,
    /// The leader of the term before differs.
    pub(crate) changed: bool,
}

impl RaftChecker {
    fn group(&mut self, group: GroupId) -> &mut Group {
        self.groups.entry(group).or_default()
    }

    /// A vote has left a node.
    pub(crate) fn voted(&mut self, group: GroupId, voter: Place, term: Term, candidate: Place) -> Check {
        let first = *self.group(group).votes.entry((voter, term)).or_insert(candidate);
        if first != candidate {
            return Err(format!("{group}: node {voter} voted in term {term} for nodes {first} and {candidate}"));
        }
        Ok(())
    }

    /// A node has written entries.
    pub(crate) fn wrote(&mut self, group: GroupId, place: Place, entries: &[Entry]) -> Check {
        let known = &mut self.group(group).entries;
        for entry in entries {
            let mark = Mark::of(entry);
            let first = *known.entry((entry.index, entry.term)).or_insert(mark.hash);
            if first != mark.hash {
                let (index, term) = (entry.index, entry.term);
                return Err(format!(
                    "{group}: node {place} has another entry {index} of term {term} than those before"
                ));
            }
        }
        Ok(())
    }

    /// The node's disk is gone, and another life of it begins: what the first one promised does not bind it.
    pub(crate) fn forget(&mut self, place: Place) {
        for group in self.groups.values_mut() {
            group.votes.retain(|(voter, _), _| *voter != place);
            group.durable.remove(&place);
            group.compared.remove(&place);
        }
    }

    /// A hard state is on disk.
    pub(crate) fn made_durable(&mut self, group: GroupId, place: Place, hard_state: HardState) {
        self.group(group).durable.insert(place, hard_state);
    }

    /// A node has read its disk again: nothing that was durable is gone.
    pub(crate) fn restarted(&mut self, group: GroupId, place: Place, found: HardState) -> Check {
        let state = self.group(group);
        state.compared.remove(&place);
        let durable = state.durable.get(&place).copied().unwrap_or_default();
        let forgotten = found.term == durable.term && durable.vote.is_some() && found.vote != durable.vote;
        if found.term < durable.term || forgotten {
            return Err(format!("{group}: node {place} had {durable:?} on disk and came back with {found:?}"));
        }
        Ok(())
    }

    /// Looks at a replica after a step.
    pub(crate) fn observe(
        &mut self,
        group: GroupId,
        place: Place,
        log: &impl LogView,
    ) -> Result<Option<NewLeader>, String> {
        let state = self.group(group);
        let new_leader = if log.is_leader() { state.lead(place, log) } else { Ok(None) };
        let checked = new_leader.and_then(|leader| state.compare(place, log).map(|()| leader));
        checked.map_err(|what| format!("{group}: {what}"))
    }

    /// The newest term that had a leader.
    pub(crate) fn newest_term(&self, group: GroupId) -> Term {
        self.groups.get(&group).and_then(|group| group.leaders.last_key_value()).map_or(0, |(term, _)| *term)
    }

    /// The state of a replica that has applied the log up to `index`.
    pub(crate) fn state(&mut self, group: GroupId, place: Place, index: Index, hash: u64) -> Check {
        let (first, expected) = *self.group(group).states.entry(index).or_insert((place, hash));
        if expected != hash {
            return Err(format!("{group}: nodes {first} and {place} have different states at index {index}"));
        }
        Ok(())
    }

    /// The highest index that any replica has shown committed.
    pub(crate) fn committed(&self, group: GroupId) -> Index {
        self.groups.get(&group).map_or(0, |group| group.committed.len() as Index)
    }

    /// How many terms had a leader, over all groups.
    pub(crate) fn elections(&self) -> u64 {
        self.groups.values().map(|group| group.leaders.len() as u64).sum()
    }
}

impl Group {
    fn lead(&mut self, place: Place, log: &impl LogView) -> Result<Option<NewLeader>, String> {
        let term = log.term();
        match self.leaders.get(&term) {
            Some(leader) if *leader == place => return Ok(None),
            Some(leader) => return Err(format!("nodes {leader} and {place} both lead term {term}")),
            None => {}
        }
        if let Some(vote) = self.votes.get(&(place, term)).filter(|vote| **vote != place) {
            return Err(format!("node {place} leads term {term}, in which it voted for node {vote}"));
        }
        self.votes.insert((place, term), place);
        let before = self.leaders.range(..term).next_back().map(|(_, leader)| *leader);
        self.leaders.insert(term, place);
        for (position, (mark, seen_in)) in self.committed.iter().enumerate().skip(log.base_index() as usize) {
            let index = position as Index + 1;
            if *seen_in < term && log.term_at(index) != Some(mark.term) {
                let has = log.term_at(index);
                return Err(format!(
                    "node {place} leads term {term} without the committed entry {index} of term {}; it has {has:?} there",
                    mark.term
                ));
            }
        }
        Ok(Some(NewLeader { term, place, changed: before.is_some_and(|leader| leader != place) }))
    }

    fn compare(&mut self, place: Place, log: &impl LogView) -> Check {
        let commit = log.commit_index();
        let from = self.compared.get(&place).copied().unwrap_or(0).max(log.base_index());
        if commit <= from {
            return Ok(());
        }
        for index in from + 1..=commit {
            let Some(mark) = log.mark_at(index) else {
                return Err(format!("node {place} committed {index}, which its log does not have"));
            };
            match self.committed.get(index as usize - 1) {
                Some((first, _)) if *first != mark => {
                    let (terms, same) = ((first.term, mark.term), first.term == mark.term);
                    return Err(format!("node {place} committed another entry {index}: terms {terms:?}, same {same}"));
                }
                Some(_) => {}
                None if self.committed.len() as Index == index - 1 => self.committed.push((mark, log.term())),
                None => return Err(format!("node {place} commits {index}, but nobody committed the entry before")),
            }
        }
        self.compared.insert(place, commit);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{NodeId, ReplicaId};

    const G: GroupId = GroupId(0);

    struct Log {
        term: Term,
        leads: bool,
        commit: Index,
        terms: Vec<Term>,
    }

    impl LogView for Log {
        fn term(&self) -> Term {
            self.term
        }
        fn is_leader(&self) -> bool {
            self.leads
        }
        fn commit_index(&self) -> Index {
            self.commit
        }
        fn term_at(&self, index: Index) -> Option<Term> {
            self.terms.get(index as usize - 1).copied()
        }
        fn mark_at(&self, index: Index) -> Option<Mark> {
            self.term_at(index).map(|term| Mark { term, hash: index * 100 + term })
        }
        fn base_index(&self) -> Index {
            0
        }
    }

    fn leader(term: Term, commit: Index, terms: &[Term]) -> Log {
        Log { term, leads: true, commit, terms: terms.to_vec() }
    }

    fn rejected<T: std::fmt::Debug>(checked: Result<T, String>, why: &str) {
        let what = checked.expect_err("a violation");
        assert!(what.contains(why), "{what}");
    }

    #[test]
    fn a_faithful_change_of_leader_passes() {
        let mut checker = RaftChecker::default();
        checker.voted(G, 1, 1, 0).unwrap();
        checker.observe(G, 0, &leader(1, 2, &[1, 1, 1])).unwrap().unwrap();
        assert_eq!(checker.observe(G, 0, &leader(1, 2, &[1, 1, 1])).unwrap(), None);
        let second = checker.observe(G, 1, &leader(2, 3, &[1, 1, 2])).unwrap();
        assert_eq!(second, Some(NewLeader { term: 2, place: 1, changed: true }));
        checker.observe(G, 0, &Log { leads: false, ..leader(2, 3, &[1, 1, 2]) }).unwrap();
        assert_eq!((checker.committed(G), checker.elections()), (3, 2));
    }

    #[test]
    fn two_leaders_and_two_votes_are_rejected() {
        let mut checker = RaftChecker::default();
        checker.observe(G, 0, &leader(1, 0, &[1])).unwrap();
        rejected(checker.observe(G, 1, &leader(1, 0, &[1])), "both lead");
        checker.voted(G, 2, 1, 0).unwrap();
        rejected(checker.voted(G, 2, 1, 1), "voted in term 1");
        rejected(checker.voted(G, 0, 1, 1), "voted in term 1");
        checker.voted(G, 1, 2, 2).unwrap();
        rejected(checker.observe(G, 1, &leader(2, 0, &[1])), "in which it voted");
    }

    #[test]
    fn a_committed_entry_neither_changes_nor_vanishes() {
        let mut checker = RaftChecker::default();
        checker.observe(G, 0, &leader(1, 2, &[1, 1])).unwrap();
        rejected(checker.observe(G, 1, &leader(2, 1, &[1, 2])), "without the committed entry 2");
        rejected(checker.observe(G, 2, &Log { leads: false, ..leader(3, 2, &[1, 3]) }), "another entry 2");
        rejected(checker.observe(G, 2, &Log { leads: false, ..leader(3, 3, &[1, 1]) }), "does not have");
    }

    #[test]
    fn one_index_and_term_is_one_entry() {
        let entry = |data: &'static [u8]| Entry {
            index: 1,
            term: 1,
            stamp_ms: 0,
            wall_ms: 0,
            data: Bytes::from_static(data),
            membership: None,
        };
        let mut checker = RaftChecker::default();
        checker.wrote(G, 0, &[entry(b"a")]).unwrap();
        checker.wrote(G, 1, &[entry(b"a")]).unwrap();
        rejected(checker.wrote(G, 2, &[entry(b"b")]), "another entry 1 of term 1");
    }

    #[test]
    fn what_was_on_disk_comes_back() {
        let durable = HardState { term: 3, vote: Some(ReplicaId::founder(NodeId::numbered(1))) };
        let mut checker = RaftChecker::default();
        checker.made_durable(G, 0, durable);
        checker.restarted(G, 0, durable).unwrap();
        checker.restarted(G, 0, HardState { term: 4, vote: None }).unwrap();
        rejected(checker.restarted(G, 0, HardState { term: 2, vote: None }), "came back with");
        rejected(checker.restarted(G, 0, HardState { term: 3, vote: None }), "came back with");
    }

    #[test]
    fn replicas_have_the_same_state_at_the_same_index() {
        let mut checker = RaftChecker::default();
        checker.state(G, 0, 7, 1).unwrap();
        checker.state(G, 1, 8, 2).unwrap();
        rejected(checker.state(G, 1, 7, 2), "different states at index 7");
    }
}
