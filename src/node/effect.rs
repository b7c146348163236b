//! What goes into one group's replica, and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;
use trine_protocol::{Error, Push, Request, Response};

use crate::cache::{JournalRecord, LineChange};
use crate::ids::{GroupId, Index, NodeId, Term};
use crate::raft::{self, SnapshotMeta};
use crate::record::Change;

use super::behind::{MainMemory, MainMemoryEvent};
use super::message::{GroupMessage, Roster};

/// Number that the shell gives a client's request, to find the client again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A client's own session, as its request's header names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// The session.
    pub session: u64,
    /// The request's number in it, from 1.
    pub sequence: u64,
    /// Answers below this number have arrived.
    pub acked_below: u64,
}

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed. At least every 50 ms.
    Tick,
    /// A message of the same group's replica on another node.
    Peer { from: NodeId, message: GroupMessage },
    /// A client of this node asks. Each is answered exactly once, at `deadline_us` of the monotonic clock at the latest.
    Request { id: RequestId, session: Option<SessionRef>, deadline_us: u64, request: Request },
    /// The write with this sequence, and all before it, are durable.
    Persisted { sequence: u64 },
    /// The checkpoint up to this index is durable in the state store.
    Checkpointed { index: Index },
    /// The records asked for by [`Fetch`]; a missing one is None.
    Fetched { ticket: u64, records: Vec<(Vec<u8>, Option<Bytes>)> },
    /// The newest list of nodes that this node knows.
    Roster(Roster),
    /// Something has come of what was done with Redis in that term.
    MainMemory { term: Term, event: MainMemoryEvent },
    /// The node is about to stop: give leadership away, write dirty lines back, take nothing new.
    Drain,
}

/// What is to be done, **in the order of the fields**. What waits for the disk is not here yet: it comes out of the
/// [`Input::Persisted`] that it waits for.
#[derive(Debug, Default)]
pub struct Effects {
    /// 1. Take these lines out of the table that readers see, before anything else leaves the node.
    pub retract: Vec<LineChange>,
    /// 2. Hand to the log's writer, in order.
    pub persist: Vec<Write>,
    /// 3. Put these lines into the table that readers see.
    pub publish: Vec<LineChange>,
    /// 4. Send to the same group's replica on these nodes. Losing one is allowed.
    pub send: Vec<(NodeId, Arc<GroupMessage>)>,
    /// 5. Push to the clients with these numbers for their copies.
    pub push: Vec<(u64, Push)>,
    /// 6. Answer these requests.
    pub reply: Vec<(RequestId, Result<Response, Error>)>,
    /// Hand to the state store; [`Input::Checkpointed`] follows.
    pub checkpoint: Vec<Checkpoint>,
    /// Read from the state store; [`Input::Fetched`] follows.
    pub fetch: Vec<Fetch>,
    /// To do with Redis, in order; [`Input::MainMemory`] follows.
    pub main_memory: Vec<MainMemory>,
    /// A newer list of nodes: keep it beside the identity, and give it to every replica of this node ([`Input::Roster`]).
    pub roster: Option<Roster>,
    /// The replica cannot go on, for this reason: the node must stop, without doing anything of the above.
    pub fatal: Option<String>,
}

/// One write of one group to the log: applied as a whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The group.
    pub group: GroupId,
    /// Grows by one with each write of this replica since it was made; comes back in [`Input::Persisted`].
    pub sequence: u64,
    /// What consensus must not forget. Where it carries a snapshot, the state store holds that state before this is durable.
    pub raft: Option<raft::Persist>,
    /// Local writes of the cache, and their ends.
    pub journal: Vec<JournalRecord>,
    /// Entries up to here are in the state store: the log may forget them.
    pub compact: Option<SnapshotMeta>,
}

/// State of one group on its way to the state store.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The group.
    pub group: GroupId,
    /// Where in the log the state stands.
    pub meta: SnapshotMeta,
    /// What changed since the last checkpoint.
    pub changes: Vec<Change>,
    /// With it the state store has the bodies of all waiting messages, not only of those that compaction overtakes: all of the state.
    pub whole: bool,
}

/// Records that are to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetch {
    /// The group.
    pub group: GroupId,
    /// Comes back in [`Input::Fetched`].
    pub ticket: u64,
    /// The keys.
    pub keys: Vec<Vec<u8>>,
}
