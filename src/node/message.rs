//! What the replicas of one group on different nodes say to each other: consensus, the snoop bus, forwarded commands.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trine_protocol::{Error, Request, Response};

use crate::cache::BusMessage;
use crate::ids::GroupId;
use crate::raft;

pub use super::roster::Roster;
pub use super::stream::Position;

/// A message within one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupMessage {
    /// Consensus.
    Raft(raft::Message),
    /// The snoop bus.
    Bus(BusMessage),
    /// A client's command on its way to the leader.
    Forward(Forward),
    /// Its answer on the way back.
    Answer(Answer),
    /// From the leader: a command of that stream was left out, so what follows it is not taken.
    OutOfOrder(u64),
    /// The list of nodes, from whoever knows it to every other node.
    Roster(Roster),
    /// The version of the list that a node knows, back to who told it.
    RosterSeen(u64),
}

/// A command that is to be executed once: the same (session, sequence) may be sent again and gets the first answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The sender's number of it; comes back with the answer.
    pub id: u64,
    /// The session that it belongs to; 0 only with `OpenSession`.
    pub session: u64,
    /// Its number in the session, from 1.
    pub sequence: u64,
    /// Every answer of the session below this number has arrived and may be forgotten.
    pub acked_below: u64,
    /// The command.
    pub request: Request,
    /// Where it stands among the commands that its node has sent. A node that does not number them is served as they come.
    #[serde(default)]
    pub at: Position,
}

/// What became of a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`Forward::id`].
    pub id: u64,
    /// The answer.
    pub result: Result<Response, Error>,
}

/// One frame between peers: messages of any groups, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerBatch {
    /// Each with its group.
    pub messages: Vec<(GroupId, GroupMessage)>,
}

/// A message body as MessagePack. A batch of its own form, so that `transport` needs to know nothing of what it carries.
pub fn encode(batch: &PeerBatch) -> Bytes {
    Bytes::from(crate::record::encode(batch))
}
