//! What a leader knows of one follower, and how much it dares to send it.
//!
//! ```text
//!             match found                  needs what is compacted
//!   Probe ------------------> Replicate        any state ---------> Snapshot
//!     ^                           |                                    |
//!     +---------------------------+                Replicate <---------+
//!        an append was rejected                           installed
//! ```
//! *Probe* does not know where the logs agree: one append at a time, then wait. *Replicate* sends ahead of the
//! answers, up to a window of messages. *Snapshot* sends chunks, one at a time, and no entries.
//!
//! Nothing here is retried by a timer. A heartbeat names the entry before `next`, so its answer tells whether what was
//! sent before it arrived: a rejection starts a probe, an acknowledgement frees the window. A follower that cannot be reached costs a
//! heartbeat, and no more.

use std::collections::VecDeque;

use crate::ids::Index;
use crate::marks::{Rare, mark};

/// How to send.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Where the logs agree is not known; `waiting` for the answer to a probe.
    Probe { waiting: bool },
    /// Optimistic.
    Replicate,
    /// Sending the snapshot at index `snapshot`, which the follower has up to `offset`. A chunk is in flight where `sent` names the round it
    /// was sent in.
    Snapshot { snapshot: Index, offset: u64, sent: Option<u64> },
}

/// One follower. Invariant: `matched < next`.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// The follower's log agrees durably up to here.
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    pub(super) state: State,
    /// Last entry of each append that waits for its answer, in *Replicate*.
    in_flight: VecDeque<Index>,
    /// The newest round it acknowledged.
    pub(super) acknowledged_round: u64,
    /// When it last said anything in this term.
    pub(super) heard_us: u64,
    /// The highest commit index it was told.
    pub(super) commit_sent: Index,
    /// Since when there has been a commit that it was not told of.
    pub(super) commit_news_us: Option<u64>,
    /// The current round has not been sent to it.
    pub(super) round_due: bool,
}

impl Progress {
    /// At the election: the follower is given the time of a first answer.
    pub(super) fn new(next: Index, now_us: u64) -> Self {
        Self {
            matched: 0,
            next,
            state: State::Probe { waiting: false },
            in_flight: VecDeque::new(),
            acknowledged_round: 0,
            heard_us: now_us,
            commit_sent: 0,
            commit_news_us: None,
            round_due: true,
        }
    }

    /// May entries be sent now?
    pub(super) fn may_send(&self, in_flight_max: usize) -> bool {
        match self.state {
            State::Probe { waiting } => !waiting,
            State::Replicate => self.in_flight.len() < in_flight_max,
            State::Snapshot { .. } => false,
        }
    }

    /// Entries up to `last` were sent.
    pub(super) fn sent(&mut self, last: Index) {
        match &mut self.state {
            // `next` stays: until the answer comes, the probe says where we are.
            State::Probe { waiting } => *waiting = true,
            State::Replicate => {
                self.next = last + 1;
                self.in_flight.push_back(last);
            }
            State::Snapshot { .. } => unreachable!("no entries are sent beside a snapshot"),
        }
    }

    /// The follower agrees, durably, up to `index`. Returns whether that is news.
    pub(super) fn acknowledged(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        let answered = self.in_flight.partition_point(|last| *last <= index);
        self.in_flight.drain(..answered);
        match &mut self.state {
            // Its log agrees before `next`, or further than we knew. The answer to an older append is neither.
            State::Probe { .. } if news || index + 1 >= self.next => self.replicate(),
            State::Probe { waiting } => *waiting = false,
            State::Replicate => self.next = self.next.max(self.matched + 1),
            State::Snapshot { snapshot, .. } if index >= *snapshot => self.replicate(),
            State::Snapshot { .. } => self.next = self.next.max(self.matched + 1),
        }
        news
    }

    /// The follower has no entry `(prev_index, its term)`; the logs may agree up to `hint`, not beyond.
    pub(super) fn rejected(&mut self, prev_index: Index, hint: Index) {
        // The answer to an append that later ones have overtaken proves nothing about `next`. A follower that rejects what it has
        // acknowledged has lost it: no answer of its is news, and to ask at once again would be to ask as fast as the network goes.
        let stale = match self.state {
            State::Probe { .. } => prev_index + 1 != self.next || prev_index <= self.matched,
            State::Replicate => prev_index <= self.matched || prev_index >= self.next,
            State::Snapshot { .. } => true,
        };
        if !stale {
            self.next = (hint + 1).min(prev_index).max(self.matched + 1);
            self.state = State::Probe { waiting: false };
            self.in_flight.clear();
        }
    }

    /// Nothing was heard from it for so long that sending ahead is a waste: heartbeats will find it.
    pub(super) fn unreachable(&mut self) {
        if !matches!(self.state, State::Snapshot { .. }) {
            mark(Rare::FollowerUnreachable);
            self.next = self.matched + 1;
            self.state = State::Probe { waiting: true };
            self.in_flight.clear();
        }
    }

    /// The entries that it needs are compacted.
    pub(super) fn needs_snapshot(&mut self, snapshot: Index) {
        self.state = State::Snapshot { snapshot, offset: 0, sent: None };
        self.in_flight.clear();
    }

    /// The follower answered a message of this round. A chunk that went out before that round and was not answered is lost.
    pub(super) fn acknowledged_round(&mut self, round: u64) -> bool {
        if let State::Snapshot { sent, .. } = &mut self.state
            && sent.is_some_and(|sent_round| sent_round < round)
        {
            mark(Rare::ChunkLost);
            *sent = None;
        }
        let news = round > self.acknowledged_round;
        self.acknowledged_round = self.acknowledged_round.max(round);
        news
    }

    /// The follower has the bytes of the snapshot before `next_offset`. Where those are all of them, there is nothing to send before it
    /// had time to install them: what is sent next is a question, not before the round after `ask_after`.
    pub(super) fn has_chunk(&mut self, index: Index, next_offset: u64, ask_after: Option<u64>) {
        match &mut self.state {
            State::Snapshot { snapshot, offset, sent } if *snapshot == index && *offset != next_offset => {
                *offset = next_offset;
                *sent = ask_after;
            }
            // Nothing new: the chunk in flight is still on its way, or a heartbeat will find it lost.
            _ => {}
        }
    }

    fn replicate(&mut self) {
        self.state = State::Replicate;
        self.next = self.matched + 1;
        self.in_flight.clear();
    }

    /// The module's invariants, against a leader whose log ends at `last_index`.
    pub(super) fn check(&self, last_index: Index, in_flight_max: usize) {
        let (matched, next) = (self.matched, self.next);
        assert!(matched < next && next <= last_index + 1, "{matched} < {next} <= {last_index} + 1");
        assert!(self.in_flight.len() <= in_flight_max, "{} of {in_flight_max} in flight", self.in_flight.len());
        assert!(self.in_flight.is_empty() || self.state == State::Replicate, "in flight in {:?}", self.state);
        assert!(self.in_flight.back().is_none_or(|last| *last < next), "{:?} in flight, next {next}", self.in_flight);
    }
}

/// What the model checker tells states by: all of it but the instant, which no choice depends on there.
#[cfg(test)]
impl std::hash::Hash for Progress {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        let Self {
            matched,
            next,
            state,
            in_flight,
            acknowledged_round,
            heard_us: _,
            commit_sent,
            commit_news_us: _,
            round_due,
        } = self;
        (matched, next, state, in_flight, acknowledged_round, commit_sent, round_due).hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicating(matched: Index, next: Index) -> Progress {
        let mut progress = Progress::new(matched + 1, 0);
        assert!(matched == 0 || progress.acknowledged(matched));
        progress.state = State::Replicate;
        for last in matched + 1..next {
            progress.sent(last);
        }
        progress
    }

    #[test]
    fn a_probe_sends_once_and_waits() {
        let mut progress = Progress::new(8, 0);
        assert!(progress.may_send(4));
        progress.sent(9);
        assert!(!progress.may_send(4));
        assert_eq!(progress.next, 8);
        progress.acknowledged(9);
        assert_eq!((progress.matched, progress.next, progress.state), (9, 10, State::Replicate));
    }

    #[test]
    fn an_old_acknowledgement_does_not_end_a_probe() {
        let mut progress = replicating(5, 9);
        progress.rejected(8, 7);
        progress.sent(8);
        progress.acknowledged(5);
        assert_eq!((progress.next, progress.state), (8, State::Probe { waiting: false }));
    }

    #[test]
    fn the_window_fills_and_is_freed_by_the_newest_acknowledgement() {
        let mut progress = replicating(3, 7);
        assert!(!progress.may_send(3));
        progress.acknowledged(5);
        assert!(progress.may_send(3));
        assert_eq!(progress.in_flight, [6]);
        progress.acknowledged(4);
        assert_eq!((progress.matched, progress.in_flight.len()), (5, 1), "an older answer takes nothing back");
    }

    #[test]
    fn rejections() {
        // (state, matched, next) x (prev, hint) -> next; a next that stays means that the answer was stale.
        let probe = State::Probe { waiting: true };
        let table = [
            (probe.clone(), 0, 10, (9, 4), 5),
            (probe.clone(), 0, 10, (9, 9), 9),
            (probe.clone(), 0, 10, (8, 4), 10),
            (probe.clone(), 6, 10, (9, 2), 7),
            (probe.clone(), 9, 10, (9, 2), 10),
            (State::Replicate, 3, 10, (9, 5), 6),
            (State::Replicate, 3, 10, (3, 1), 10),
            (State::Replicate, 3, 10, (10, 5), 10),
        ];
        for (state, matched, next, (prev_index, hint), expected) in table {
            let mut progress = Progress { matched, state: state.clone(), ..Progress::new(next, 0) };
            progress.rejected(prev_index, hint);
            assert_eq!(progress.next, expected, "{state:?} {matched}..{next}: rejected {prev_index}, hint {hint}");
        }
    }

    #[test]
    fn a_follower_that_rejects_what_it_acknowledged_is_not_asked_again_at_once() {
        let mut progress = replicating(9, 10);
        progress.unreachable();
        progress.rejected(9, 2);
        assert_eq!((progress.next, progress.state), (10, State::Probe { waiting: true }));
    }

    #[test]
    fn a_lost_chunk_is_found_by_a_later_round() {
        let mut progress = Progress::new(1, 0);
        progress.state = State::Snapshot { snapshot: 50, offset: 10, sent: Some(7) };
        progress.acknowledged_round(7);
        assert_eq!(progress.state, State::Snapshot { snapshot: 50, offset: 10, sent: Some(7) });
        progress.acknowledged_round(8);
        assert_eq!(progress.state, State::Snapshot { snapshot: 50, offset: 10, sent: None });
    }

    #[test]
    fn a_snapshot_ends_when_the_log_reaches_it_by_whatever_way() {
        let mut progress = Progress::new(1, 0);
        progress.needs_snapshot(50);
        progress.acknowledged(49);
        assert!(matches!(progress.state, State::Snapshot { .. }));
        progress.acknowledged(50);
        assert_eq!((progress.next, progress.state), (51, State::Replicate));
    }
}
