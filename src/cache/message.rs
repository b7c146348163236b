//! What nodes and homes say to each other on the snoop bus of a group.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trine_protocol::Error;
use trine_protocol::cache::{LineState, Version};

use crate::ids::{Incarnation, Index, NodeId, Term};

use super::change::Change;

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
    /// What its writer said that it is; empty where it said nothing.
    #[serde(default)]
    pub content_type: String,
    /// When it goes by itself, in log time; 0 for never. A key that does has no owner.
    #[serde(default)]
    pub expires_ms: u64,
}

impl Versioned {
    /// A value that says nothing of itself and stays.
    pub fn new(version: Version, value: Option<Bytes>) -> Self {
        Self { version, value, content_type: String::new(), expires_ms: 0 }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len) + self.content_type.len()
    }
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
    /// Carries what is to be written. `again`: it was sent before, so it may be done.
    BusRdX {
        request: u64,
        write: WriteId,
        acked_below: u64,
        key: String,
        change: Change,
        held: LineState,
        tag: LeaseTag,
        again: bool,
    },
    /// The newest value of an owned line; with `end` the ownership ends with it. Without `dirty` main memory has it already.
    WriteBack { request: u64, key: String, epoch: Index, dirty: Option<Versioned>, end: bool, tag: LeaseTag },
    /// A client here wants to fill that key, which does not exist; the right is to last so long. Sent again until it is answered.
    FillLease { request: u64, key: String, lease_ms: u32, tag: LeaseTag },
    /// Nobody here uses that right to fill.
    FillReturn { key: String, token: u64, tag: LeaseTag },
    /// Which version of that key is the newest? Asked by the auditor about a copy here.
    Audit { request: u64, key: String, tag: LeaseTag },
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
    /// Answer to `BusRdX`: the write is done, and its version is (`epoch`, 0); with an addition, its sum. Where `owns`, the sender
    /// owns the line under `tag`; otherwise it was a write-through, or another write has followed already.
    Owned { write: WriteId, key: String, tag: LeaseTag, epoch: Index, owns: bool, sum: Option<i64> },
    /// The read of that number failed.
    ReadFailed { request: u64, key: String, error: Error },
    /// The write did not happen, or nobody can say. `request` is the newest copy of it that is meant.
    WriteFailed { request: u64, write: WriteId, key: String, error: Error },
    /// Main memory has the line up to `version`. `ended`: the ownership of `epoch` is over, and the line may be
    /// kept as `state` (I, S or E) under `tag`.
    WrittenBack { key: String, epoch: Index, version: Version, ended: bool, state: LineState, tag: LeaseTag },
    /// Answer to `FillLease`.
    FillAnswered { request: u64, key: String, answer: FillAnswer },
    /// Answer to `Audit`, where it can be said; with what tells its value apart, unless an owner has it.
    Audited { request: u64, tag: LeaseTag, newest: Version, checksum: Option<u64> },
    /// Answer to `Release`: the log says so too.
    Released { tag: LeaseTag },
    /// Another node reads: hand over the owned line `owner`, or where None turn E into S.
    SnoopRd { transaction: u64, key: String, owner: Option<OwnerMark> },
    /// Another node writes: drop the copy, or hand over the owned line.
    SnoopInv { transaction: u64, key: String, owner: Option<OwnerMark> },
}

impl ToNode {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotHome { .. } => "NotHome",
            Self::Registered { .. } => "Registered",
            Self::Renewed { .. } => "Renewed",
            Self::Lapsed { .. } => "Lapsed",
            Self::Filled { .. } => "Filled",
            Self::Owned { .. } => "Owned",
            Self::ReadFailed { .. } => "ReadFailed",
            Self::WriteFailed { .. } => "WriteFailed",
            Self::WrittenBack { .. } => "WrittenBack",
            Self::FillAnswered { .. } => "FillAnswered",
            Self::Audited { .. } => "Audited",
            Self::Released { .. } => "Released",
            Self::SnoopRd { .. } => "SnoopRd: another node reads",
            Self::SnoopInv { .. } => "SnoopInv: another node writes",
        }
    }
}

/// What became of the wish to fill a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FillAnswer {
    /// Fill it.
    Yours { token: u64 },
    /// Somebody wrote the key: read it.
    Written,
    /// It cannot be said whether the key exists, or too many wait.
    Refused(Error),
}

/// Which ownership a snoop means: its epoch, and the write that made it, which its node may not have heard of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerMark {
    /// Log index of the ownership entry.
    pub epoch: Index,
    /// The write that it carried.
    pub write: WriteId,
    /// Its sum, where it was an addition.
    pub sum: Option<i64>,
}

/// Both directions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BusMessage {
    /// To the leader of the key's group.
    ToHome(ToHome),
    /// From it.
    ToNode(ToNode),
}
