//! What waits for one replica: a bounded inbox whose every kind of input has a bound and a rule of its own.
//!
//! | input | bound | what happens above it |
//! | --- | --- | --- |
//! | `Persisted`, `Checkpointed` | one each: a later one says all that an earlier one said | merged |
//! | `Roster` | one: the newest | replaced |
//! | `Fetched` | one per ticket that the replica handed out | cannot happen |
//! | `MainMemory` | one per call that the home made, and the pushes that Redis' connection holds | cannot happen |
//! | `Peer` | [`PEER_MESSAGES_MAX`] and [`PEER_BYTES_MAX`] | dropped and counted; losing one is allowed |
//! | `Request` | [`REQUESTS_MAX`] | refused with `Overloaded` |
//!
//! # Invariants
//! - Nothing that is put in ever waits. So the threads of the disk cannot be held up by a replica that waits for them.
//! - What storage says comes first: it is what answers wait for. Peers and clients then take turns, so that neither can
//!   shut the other out; within each kind the order of arrival is kept.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use trine_protocol::Request;

use crate::ids::{Index, NodeId, Term};
use crate::node::Roster;
use crate::node::behind::MainMemoryEvent;
use crate::node::effect::{Input, RequestId, SessionRef};
use crate::node::message::GroupMessage;

/// Messages of peers that wait. A follower's window is 64 appends; the rest is bus messages, answered one by one.
pub(super) const PEER_MESSAGES_MAX: usize = 16_384;
/// Bytes of them, as they came: a full window of appends of 1 MiB.
pub(super) const PEER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests of clients that wait: a quarter of a second's worth for a replica that does 30,000 a second.
pub(super) const REQUESTS_MAX: usize = 8_192;

/// A request on its way to a replica.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) id: RequestId,
    pub(super) session: Option<SessionRef>,
    pub(super) deadline_us: u64,
    pub(super) request: Request,
}

/// There is no room for another request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A record that was asked for; None where there is none.
pub(super) type Fetched = (Vec<u8>, Option<Bytes>);

#[derive(Debug, Default)]
struct State {
    persisted: Option<u64>,
    checkpointed: Option<Index>,
    drain: bool,
    roster: Option<Roster>,
    main_memory: VecDeque<(Term, MainMemoryEvent)>,
    fetched: VecDeque<(u64, Vec<Fetched>)>,
    peers: VecDeque<(NodeId, GroupMessage, usize)>,
    peer_bytes: usize,
    requests: VecDeque<Queued>,
}

/// The inbox of one replica.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Notify,
}

impl Inbox {
    /// Everything up to this write is durable.
    pub(super) fn persisted(&self, sequence: u64) {
        self.change(|state| state.persisted = state.persisted.max(Some(sequence)));
    }

    /// The checkpoint up to this index is durable.
    pub(super) fn checkpointed(&self, index: Index) {
        self.change(|state| state.checkpointed = state.checkpointed.max(Some(index)));
    }

    /// Records that were asked for.
    pub(super) fn fetched(&self, ticket: u64, records: Vec<Fetched>) {
        self.change(|state| state.fetched.push_back((ticket, records)));
    }

    /// The node is about to stop.
    pub(super) fn drain(&self) {
        self.change(|state| state.drain = true);
    }

    /// The newest list of nodes.
    pub(super) fn roster(&self, roster: Roster) {
        self.change(|state| state.roster = Some(roster));
    }

    /// Something that came of what was done with Redis.
    pub(super) fn main_memory(&self, term: Term, event: MainMemoryEvent) {
        self.change(|state| state.main_memory.push_back((term, event)));
    }

    /// A message of a peer, of about so many bytes. False where it was dropped.
    pub(super) fn peer(&self, from: NodeId, message: GroupMessage, bytes: usize) -> bool {
        self.change(|state| {
            let room = state.peers.len() < PEER_MESSAGES_MAX && state.peer_bytes + bytes <= PEER_BYTES_MAX;
            if room {
                state.peer_bytes += bytes;
                state.peers.push_back((from, message, bytes));
            }
            room
        })
    }

    /// A request of a client.
    pub(super) fn request(&self, queued: Queued) -> Result<(), Full> {
        self.change(|state| {
            if state.requests.len() >= REQUESTS_MAX {
                return Err(Full);
            }
            state.requests.push_back(queued);
            Ok(())
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.wake.notify_one();
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up to about `inputs_max` inputs; storage's words come on top. True where more wait.
    pub(super) fn take(&self, inputs_max: usize, inputs: &mut Vec<Input>) -> bool {
        let mut state = self.lock();
        inputs.extend(state.persisted.take().map(|sequence| Input::Persisted { sequence }));
        inputs.extend(state.checkpointed.take().map(|index| Input::Checkpointed { index }));
        inputs.extend(state.fetched.drain(..).map(|(ticket, records)| Input::Fetched { ticket, records }));
        inputs.extend(state.roster.take().map(Input::Roster));
        inputs.extend(state.main_memory.drain(..).map(|(term, event)| Input::MainMemory { term, event }));
        if std::mem::take(&mut state.drain) {
            inputs.push(Input::Drain);
        }
        for _ in 0..inputs_max.div_ceil(2) {
            if let Some((from, message, bytes)) = state.peers.pop_front() {
                state.peer_bytes -= bytes;
                inputs.push(Input::Peer { from, message });
            }
            if let Some(Queued { id, session, deadline_us, request }) = state.requests.pop_front() {
                inputs.push(Input::Request { id, session, deadline_us, request });
            }
        }
        !state.peers.is_empty() || !state.requests.is_empty()
    }

    /// Returns when something may have been put in since the last call.
    pub(super) async fn filled(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::cluster::KeepAlive;

    use crate::raft;

    use super::*;

    fn message(term: u64) -> GroupMessage {
        GroupMessage::Raft(raft::Message::new(term, raft::Body::TimeoutNow))
    }

    fn request(id: u64) -> Queued {
        Queued { id: RequestId(id), session: None, deadline_us: 1, request: KeepAlive { group: 0 }.into() }
    }

    fn names(inputs: &[Input]) -> Vec<String> {
        let name = |input: &Input| match input {
            Input::Peer { message: GroupMessage::Raft(message), .. } => format!("peer {}", message.term),
            Input::Request { id, .. } => format!("request {}", id.0),
            Input::Persisted { sequence } => format!("persisted {sequence}"),
            Input::Checkpointed { index } => format!("checkpointed {index}"),
            Input::Fetched { ticket, .. } => format!("fetched {ticket}"),
            Input::Drain => "drain".to_owned(),
            other => format!("{other:?}"),
        };
        inputs.iter().map(name).collect()
    }

    #[test]
    fn storage_comes_first_and_is_merged_and_the_rest_takes_turns_in_order() {
        let inbox = Inbox::default();
        for id in 1..=3 {
            assert_eq!(inbox.request(request(id)), Ok(()));
            assert!(inbox.peer(NodeId::numbered(2), message(id), 10));
        }
        inbox.persisted(4);
        inbox.persisted(9);
        inbox.persisted(7);
        inbox.checkpointed(5);
        inbox.fetched(1, Vec::new());
        inbox.fetched(2, Vec::new());
        inbox.drain();
        let mut inputs = Vec::new();
        assert!(inbox.take(4, &mut inputs), "more wait");
        let expected = [
            "persisted 9",
            "checkpointed 5",
            "fetched 1",
            "fetched 2",
            "drain",
            "peer 1",
            "request 1",
            "peer 2",
            "request 2",
        ];
        assert_eq!(names(&inputs), expected);
        inputs.clear();
        assert!(!inbox.take(4, &mut inputs));
        assert_eq!(names(&inputs), ["peer 3", "request 3"]);
    }

    #[test]
    fn each_kind_has_its_bound_and_taking_makes_room() {
        let inbox = Inbox::default();
        for id in 0..REQUESTS_MAX as u64 {
            assert_eq!(inbox.request(request(id)), Ok(()));
        }
        assert_eq!(inbox.request(request(0)), Err(Full));
        let from = NodeId::numbered(2);
        assert!(inbox.peer(from, message(1), PEER_BYTES_MAX - 1));
        assert!(!inbox.peer(from, message(2), 2), "over the bytes");
        assert!(inbox.peer(from, message(3), 1), "exactly at the bytes");
        let mut inputs = Vec::new();
        inbox.take(2, &mut inputs);
        assert!(inbox.peer(from, message(4), 2) && inbox.request(request(0)).is_ok());
    }

    #[test]
    fn messages_are_bounded_by_count_as_well() {
        let inbox = Inbox::default();
        let taken = (0..2 * PEER_MESSAGES_MAX).filter(|_| inbox.peer(NodeId::numbered(2), message(1), 0)).count();
        assert_eq!(taken, PEER_MESSAGES_MAX);
    }

    #[tokio::test]
    async fn what_is_put_in_before_the_wait_is_not_slept_over() {
        let inbox = Inbox::default();
        inbox.persisted(1);
        inbox.filled().await;
        let mut inputs = Vec::new();
        inbox.take(1, &mut inputs);
        assert_eq!(inputs.len(), 1);
    }
}
