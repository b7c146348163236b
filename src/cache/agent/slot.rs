//! What a node knows of one key: its line, or the transaction that it is waiting for.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use trine_protocol::cache::{LineState, Version};

use crate::cache::change::Change;
use crate::cache::eviction::Place;
use crate::cache::message::{Versioned, WriteId};
use crate::ids::{Index, NodeId};

/// What a client of this node wants with a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Read.
    Get,
    /// Read, or where there is nothing the right to fill it, for so many milliseconds.
    GetOrFill(u32),
    /// Write.
    Write(Change),
    /// Write the dirty line back.
    WriteBack,
}

impl Operation {
    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Get => "Get",
            Self::GetOrFill(_) => "GetOrFill",
            Self::Write(_) => "a write",
            Self::WriteBack => "WriteBack",
        }
    }

    /// Whether it waits for a fill.
    pub(super) fn reads(&self) -> bool {
        !matches!(self, Self::Write(_))
    }
}

/// One key on one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) state: State,
    /// Operations that wait for the line to be stable, oldest first.
    pub(super) waiting: VecDeque<(u64, Operation)>,
    /// When the slot wants to be looked at again.
    pub(super) due_us: Option<u64>,
    /// Its place in the order of eviction, where it holds a line.
    pub(super) place: Option<Place>,
}

/// State of a line on the node's side. I, the clean states and M are stable; the others wait for the home.
#[derive(Clone, Debug, Default, Hash)]
pub(super) enum State {
    /// I.
    #[default]
    Invalid,
    /// E or S.
    Clean(Clean),
    /// IS: a `BusRd` is out.
    Reading(Reading),
    /// IM or SM: a `BusRdX` is out.
    Writing(Writing),
    /// M: this node may write.
    Owned(Owned),
    /// MI: the value is handed over or written back, and kept until the end of the ownership is acknowledged. Serves no hit.
    Leaving(Leaving),
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Clean {
    pub(super) state: LineState,
    pub(super) value: Versioned,
    pub(super) writer: Option<NodeId>,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Reading {
    pub(super) request: u64,
    /// How many of the waiting operations may use a fill that is not kept: those that were there when it was asked for,
    /// or when an invalidation overtook it.
    pub(super) usable: usize,
    /// An invalidation came while the fill was on its way: the fill may be used, and not be kept.
    pub(super) poisoned: bool,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Writing {
    pub(super) write: WriteId,
    pub(super) change: Change,
    pub(super) held: LineState,
    pub(super) caller: u64,
    /// How often it was sent, and the request that it was at first.
    pub(super) sends: u32,
    pub(super) first: u64,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Owned {
    pub(super) epoch: Index,
    /// What readers see: durable in the journal, or in the entry that began the ownership.
    pub(super) value: Versioned,
    /// Main memory has the local writes up to this count.
    pub(super) stored_count: u64,
    /// Writes whose journal record is not flushed yet, oldest first. Nobody sees them.
    pub(super) pending: VecDeque<Pending>,
    pub(super) written_us: u64,
    pub(super) dirty_since_us: u64,
    /// A write-back that keeps the ownership is out since then.
    pub(super) write_back_us: Option<u64>,
    /// The line goes as soon as nothing is pending; with the transaction that asked for it.
    pub(super) leave: Option<Option<u64>>,
}

#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) ticket: u64,
    pub(super) value: Versioned,
    pub(super) sum: Option<i64>,
    pub(super) caller: u64,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Leaving {
    pub(super) epoch: Index,
    pub(super) value: Versioned,
    /// Whether main memory lacks the value.
    pub(super) dirty: bool,
    /// Since when; None where a journal brought the value.
    pub(super) dirty_since_us: Option<u64>,
    /// An invalidation meant the copy that the end of the ownership would leave here.
    pub(super) poisoned: bool,
    /// Writes that were pending when the lease ran out: in the journal, seen by nobody.
    pub(super) callers: Vec<(u64, Version, Option<i64>)>,
}

/// Of the number of its journal record only the order counts, which is that of the pending ones.
impl Hash for Pending {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { ticket: _, value, sum, caller } = self;
        (value, sum, caller).hash(hasher);
    }
}

impl Owned {
    pub(super) fn new(value: Versioned, now_us: u64) -> Self {
        Self {
            epoch: value.version.epoch,
            value,
            stored_count: 0,
            pending: VecDeque::new(),
            written_us: now_us,
            dirty_since_us: now_us,
            write_back_us: None,
            leave: None,
        }
    }

    pub(super) fn dirty(&self) -> bool {
        self.value.version.count > self.stored_count
    }

    /// The newest value, flushed or not.
    pub(super) fn newest(&self) -> &Versioned {
        self.pending.back().map_or(&self.value, |pending| &pending.value)
    }
}

impl State {
    /// The state's name as the literature has it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Invalid => "I",
            Self::Clean(clean) if clean.state == LineState::E => "E",
            Self::Clean(_) => "S",
            Self::Reading(reading) if reading.poisoned => "IS_I",
            Self::Reading(_) => "IS",
            Self::Writing(writing) if writing.held == LineState::I => "IM",
            Self::Writing(_) => "SM",
            Self::Owned(_) => "M",
            Self::Leaving(_) => "MI",
        }
    }

    /// Bytes of the line's key and value; None where it is no line.
    pub(super) fn line_bytes(&self, key: &str) -> Option<usize> {
        matches!(self, Self::Clean(_) | Self::Owned(_) | Self::Leaving(_)).then(|| key.len() + self.bytes())
    }

    /// Bytes of the value that it holds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Invalid | Self::Reading(_) | Self::Writing(_) => 0,
            Self::Clean(clean) => clean.value.bytes(),
            Self::Owned(owned) => owned.value.bytes(),
            Self::Leaving(leaving) => leaving.value.bytes(),
        }
    }
}
