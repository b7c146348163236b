//! What nodes and homes say to each other on the snoop bus of a group.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trine_protocol::Error;
use trine_protocol::cache::{LineState, Version};

use crate::ids::{Incarnation, Index, NodeId, Term};

/// Names one bus lease: its home's term and a number that the home gives once. A line is valid under its own tag only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LeaseTag {
    /// Term of the home that gave it.
    pub term: Term,
    /// Grows with each registration at that home.
    pub number: u64,
}

/// One write as the replicated log tells it from a repeated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId {
    /// The writing node's session in the group.
    pub session: u64,
    /// The write's number in it.
    pub sequence: u64,
}

/// A value with its version. None stands for a key that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versioned {
    /// Which write made it.
    pub version: Version,
    /// The value; None where the key was deleted.
    pub value: Option<Bytes>,
}

/// A message of a node to a key's home.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToHome {
    /// Give me a (new) bus lease; I have dropped every clean line that a home before that of term `home` let me keep, and read my journal.
    Register {
        incarnation: Incarnation,
        round: u64,
        #[serde(default)]
        home: Term,
    },
    /// Renew my lease; `round` numbers the attempt, and the holder counts from when it sent it.
    Renew { tag: LeaseTag, round: u64 },
    /// A read miss. `request` grows with every message of this node about lines: a copy that was granted to a lower
    /// number than that of a later `BusRdX` is known to be gone.
    BusRd { request: u64, key: String, tag: LeaseTag },
    /// A write without a line (`BusRdX`), or with a clean one (`held` S or E: `BusUpgr`), which is retracted already.
    /// Carries what is to be written.
    BusRdX {
        request: u64,
        write: WriteId,
        acked_below: u64,
        key: String,
        value: Option<Bytes>,
        held: LineState,
        tag: LeaseTag,
    },
    /// The newest value of an owned line; with `end` the ownership ends with it. Without `dirty` main memory has it already.
    WriteBack { request: u64, key: String, epoch: Index, dirty: Option<Versioned>, end: bool, tag: LeaseTag },
    /// I take no more ownerships, and hold none: what the log says that I own is in main memory.
    Release { incarnation: Incarnation, tag: LeaseTag },
    /// I serve nothing any more, and take no other lease in this life of my process: nobody need wait for the end of this one. Said once.
    Leave { incarnation: Incarnation, tag: LeaseTag },
    /// Answer to a snoop: the copy is gone (SnoopInv), or taken back (SnoopRd).
    SnoopAck {
        request: u64,
        transaction: u64,
        key: String,
        tag: LeaseTag,
        snooped: Snooped,
        #[serde(default)]
        incarnation: Incarnation,
    },
}

/// What a snoop found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Snooped {
    /// No copy is served here any more.
    Gone,
    /// The owner's newest value. It serves no hit until it hears the end of its ownership.
    Dirty(Versioned),
    /// The node snooped as owner has nothing newer than main memory, neither in memory nor in its journal.
    Clean,
}

/// A message of a key's home to a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToNode {
    /// I am no home: ask the leader, if I know one.
    NotHome { leader: Option<NodeId>, term: Term },
    /// Your lease, for the `Register` of that round.
    Registered { tag: LeaseTag, round: u64 },
    /// Renewed, for the `Renew` of that round.
    Renewed { tag: LeaseTag, round: u64 },
    /// That lease has run out here: register anew.
    Lapsed { tag: LeaseTag },
    /// Answer to `BusRd`. State I: the value may be used once and not be kept.
    Filled { request: u64, key: String, tag: LeaseTag, state: LineState, value: Versioned, writer: Option<NodeId> },
    /// Answer to `BusRdX`: the write is done, and its version is (`epoch`, 0). Where `owns`, the sender owns the line
    /// under `tag`; otherwise another write has followed already.
    Owned { write: WriteId, key: String, tag: LeaseTag, epoch: Index, owns: bool },
    /// The read of that number failed.
    ReadFailed { request: u64, key: String, error: Error },
    /// The write did not happen, or nobody can say.
    WriteFailed { write: WriteId, key: String, error: Error },
    /// Main memory has the line up to `version`. `ended`: the ownership of `epoch` is over, and the line may be
    /// kept as `state` (I, S or E) under `tag`.
    WrittenBack { key: String, epoch: Index, version: Version, ended: bool, state: LineState, tag: LeaseTag },
    /// Answer to `Release`: the log says so too.
    Released { tag: LeaseTag },
    /// Another node reads: hand over the owned line `owner`, or where None turn E into S.
    SnoopRd { transaction: u64, key: String, owner: Option<OwnerMark> },
    /// Another node writes: drop the copy, or hand over the owned line.
    SnoopInv { transaction: u64, key: String, owner: Option<OwnerMark> },
}

/// Which ownership a snoop means: its epoch, and the write that made it, which its node may not have heard of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerMark {
    /// Log index of the ownership entry.
    pub epoch: Index,
    /// The write that it carried.
    pub write: WriteId,
}

/// Both directions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BusMessage {
    /// To the leader of the key's group.
    ToHome(ToHome),
    /// From it.
    ToNode(ToNode),
}
