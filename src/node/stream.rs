//! The order of commands on their way to the leader.
//!
//! What one connection enqueues to one queue keeps its order, although commands are lost on the way, sent again, and refused by a
//! leader that has too much to do. So a node numbers what it sends to a leader: a *stream*, and a position in it from 1. The leader
//! takes a position only when it has taken every one before it, and refuses the rest with
//! [`GroupMessage::OutOfOrder`](super::message::GroupMessage::OutOfOrder); then the node begins a new stream with all that it has no answer to, oldest first.
//!
//! ```text
//!   node ── 7.1 A, 7.2 B (lost), 7.3 C ──▶ leader: takes A, C is out of order
//!   node ◀── out of order: 7 ──            pauses
//!   node ── 8.1 B, 8.2 C, 8.3 D ──▶        takes B, C, D
//! ```
//!
//! # Invariants
//! - A leader has taken every position of a stream below the one it takes; a new leader knows of no stream, so each begins anew.
//! - Where a command was refused for good, its stream takes nothing more: no copy of it does what its client was told is not done.
//! - A position that was taken is taken again: its command has a place in a session, and the log executes it once.
//!
//! # Caveats
//! - One lost command holds up all that its node has sent to the group since, for a pause and a round trip.
//! - Commands under a client's own session and those under the node's have no order among each other while the node opens its own.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::NodeId;
use crate::rules::{Rule, Rules};

/// Where a command stands among those that its node sends to one leader. Position 0 stands nowhere, and is taken at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The stream; the node's next one has another number.
    pub stream: u64,
    /// From 1.
    pub position: u64,
}

/// The stream that a node sends.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    last: Position,
    /// When the next stream begins, because this one has lost its order.
    restart_us: Option<u64>,
}

impl Outgoing {
    /// `first` tells the streams of this life of the node from those of earlier ones.
    pub(super) fn new(first: u64) -> Self {
        Self { last: Position { stream: first, position: 0 }, restart_us: None }
    }

    /// The position of the next command; None where the stream is about to end, and it waits for the next one.
    pub(super) fn next(&mut self) -> Option<Position> {
        if self.restart_us.is_some() {
            return None;
        }
        self.last.position += 1;
        Some(self.last)
    }

    /// Whether that position is of the stream that is sent now.
    pub(super) fn is_current(&self, position: Position) -> bool {
        self.restart_us.is_none() && position.stream == self.last.stream
    }

    /// Begins a new stream.
    pub(super) fn begin(&mut self) {
        *self = Self::new(self.last.stream + 1);
    }

    /// The leader lacks something of that stream: the next one begins at that time.
    pub(super) fn lost(&mut self, stream: u64, restart_us: u64) {
        if stream == self.last.stream {
            self.restart_us.get_or_insert(restart_us);
        }
    }

    /// Whether it is time to begin the next stream.
    pub(super) fn is_due(&self, now_us: u64) -> bool {
        self.restart_us.is_some_and(|restart_us| restart_us <= now_us)
    }
}

/// Streams of one node that are remembered as closed: copies of what was refused come no later than that.
const CLOSED_MAX: usize = 16;

/// What a leader has taken of each node's stream. At most one entry a node.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    taken: BTreeMap<NodeId, Position>,
    /// The last streams of each node in which a command was refused, which its client was told.
    closed: BTreeMap<NodeId, VecDeque<u64>>,
}

impl Incoming {
    /// Whether a command is to be taken now.
    pub(super) fn admits<R: Rules>(&self, from: NodeId, at: Position) -> bool {
        let taken = self.taken.get(&from).filter(|taken| taken.stream == at.stream);
        let closed = self.closed.get(&from).is_some_and(|streams| streams.contains(&at.stream));
        let next = taken.map_or(0, |taken| taken.position) + u64::from(!closed);
        R::without(Rule::CommandsTakenOutOfOrder) || at.position <= next
    }

    /// Whether that very command has its place in the log already.
    pub(super) fn has(&self, from: NodeId, at: Position) -> bool {
        let taken = self.taken.get(&from).filter(|taken| taken.stream == at.stream);
        taken.is_some_and(|taken| (1..=taken.position).contains(&at.position))
    }

    /// A command that was admitted has its place in the log.
    pub(super) fn take(&mut self, from: NodeId, at: Position) {
        if at.position == 0 {
            return;
        }
        let taken = self.taken.entry(from).or_default();
        if taken.stream != at.stream || taken.position < at.position {
            *taken = at;
        }
    }

    /// A command of that stream was refused for good: neither it, by a late copy, nor what follows is taken. What follows comes in the
    /// next stream.
    pub(super) fn close(&mut self, from: NodeId, at: Position) {
        if at.position == 0 {
            return;
        }
        let closed = self.closed.entry(from).or_default();
        if !closed.contains(&at.stream) {
            closed.push_back(at.stream);
        }
        if closed.len() > CLOSED_MAX {
            closed.pop_front();
        }
    }

    /// This node leads no more.
    pub(super) fn clear(&mut self) {
        self.taken.clear();
        self.closed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Faithful;

    fn node() -> NodeId {
        NodeId::numbered(1)
    }

    fn at(stream: u64, position: u64) -> Position {
        Position { stream, position }
    }

    #[test]
    fn after_a_refusal_a_stream_takes_nothing_new_and_the_next_does() {
        let mut incoming = Incoming::default();
        incoming.take(node(), at(7, 1));
        incoming.close(node(), at(7, 2));
        assert!(!incoming.admits::<Faithful>(node(), at(7, 2)), "a late copy");
        assert!(incoming.admits::<Faithful>(node(), at(7, 1)), "it is in the log");
        assert!(incoming.admits::<Faithful>(node(), at(8, 1)));
        incoming.take(node(), at(8, 1));
        incoming.close(node(), at(9, 1));
        assert!(!incoming.admits::<Faithful>(node(), at(9, 1)), "a late copy of a stream's first");
        assert!(!incoming.admits::<Faithful>(node(), at(7, 1)), "of a stream before the last");
        for stream in 20..40 {
            incoming.close(node(), at(stream, 1));
        }
        assert_eq!(incoming.closed[&node()].len(), CLOSED_MAX);
    }

    #[test]
    fn a_leader_takes_positions_in_order_and_again_but_never_one_too_early() {
        let mut incoming = Incoming::default();
        assert!(!incoming.admits::<Faithful>(node(), at(7, 2)));
        for position in 1..=3 {
            assert!(incoming.admits::<Faithful>(node(), at(7, position)));
            incoming.take(node(), at(7, position));
        }
        assert!(incoming.admits::<Faithful>(node(), at(7, 1)));
        incoming.take(node(), at(7, 1));
        assert!(incoming.has(node(), at(7, 3)) && !incoming.has(node(), at(7, 4)) && !incoming.has(node(), at(6, 1)));
        assert!(incoming.admits::<Faithful>(node(), at(7, 4)) && !incoming.admits::<Faithful>(node(), at(7, 5)));
        assert!(incoming.admits::<Faithful>(node(), at(0, 0)));
        incoming.take(node(), at(0, 0));
        assert!(incoming.admits::<Faithful>(node(), at(7, 4)));
        incoming.clear();
        assert!(!incoming.admits::<Faithful>(node(), at(7, 4)));
    }

    #[test]
    fn a_new_stream_begins_at_its_first_position() {
        let mut incoming = Incoming::default();
        incoming.take(node(), at(7, 1));
        assert!(!incoming.admits::<Faithful>(node(), at(8, 2)));
        assert!(incoming.admits::<Faithful>(node(), at(8, 1)));
        incoming.take(node(), at(8, 1));
        assert!(!incoming.admits::<Faithful>(node(), at(7, 2)));
    }

    #[test]
    fn a_stream_that_lost_its_order_waits_and_a_word_about_an_older_one_is_nothing() {
        let mut outgoing = Outgoing::new(5);
        assert_eq!((outgoing.next(), outgoing.next()), (Some(at(5, 1)), Some(at(5, 2))));
        outgoing.lost(4, 10);
        assert!(outgoing.is_current(at(5, 2)) && !outgoing.is_due(u64::MAX));
        outgoing.lost(5, 10);
        outgoing.lost(5, 30);
        assert!(!outgoing.is_current(at(5, 2)) && outgoing.next().is_none());
        assert!(!outgoing.is_due(9) && outgoing.is_due(10));
        outgoing.begin();
        assert_eq!(outgoing.next(), Some(at(6, 1)));
    }
}
