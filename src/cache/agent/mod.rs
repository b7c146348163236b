//! The node's side of the bus: one group's lines on one node.
//!
//! ```text
//!            BusRd            Filled                    BusRdX            Owned
//!      I ───────────▶ IS ───────────────▶ S, E  ───────────────▶ SM ───────────────▶ M
//!      │              │ SnoopInv                                 ▲                   │ SnoopRd, SnoopInv,
//!      │              ▼                                          │                   │ write-back, lapse
//!      │             IS_I ── Filled: used, not kept ─▶ I         │                   ▼
//!      └──────────────────── BusRdX ───────────────▶ IM ─────────┘                   MI ── WrittenBack ─▶ S, E or I
//! ```
//!
//! Everything happens in [`Agent`]'s methods, each of which appends to an [`AgentOut`]; `lease` has the bus lease,
//! `serve` the clients' operations, `answer` what the home says, `snoop` what it asks, `evict` what goes for want of room. Invariants:
//!
//! - a published line hangs on the current lease; a lapse retracts all of them before anything else;
//! - a line is retracted before the message that says so is sent, and before a `BusRdX` for it is sent;
//! - a local write is published and acknowledged only when its journal record is flushed and the lease, looked at then, holds;
//! - a node in MI repeats its write-back until the home says that the ownership is over, so nothing waits for ever;
//! - an answer of the home counts only for the very request or write that is waiting for it.
//!
//! # The table
//!
//! What the code does in every state with every event; a test prints it and compares.
//!
//! ```text
#![doc = include_str!("../table/node.txt")]
//! ```

mod answer;
mod audit;
#[cfg(test)]
mod digest;
mod evict;
mod fill;
mod flush;
mod history;
mod lease;
mod serve;
mod slot;
mod snoop;
mod stats;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::marker::PhantomData;

use trine_protocol::{Error, Response};

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::rules::{Rule, Rules};
use crate::sequence::Sequences;

use super::config::Config;
use super::eviction::S3Fifo;
use super::journal::JournalRecord;
use super::line::{Line, LineChange};
use super::message::ToHome;

use audit::Audit;
pub(super) use audit::checksum;
use fill::Fill;
use flush::Flush;
use history::History;
use lease::Lease;
pub use slot::Operation;
use slot::{Leaving, Owned, Slot, State};
use stats::Dirty;
pub use stats::{Counts, Stats};

/// What follows from an input, in the order in which it is to be done.
#[derive(Debug, Default)]
pub struct AgentOut {
    /// 1. Lines that go.
    pub retract: Vec<LineChange>,
    /// 2. Records for the journal.
    pub journal: Vec<JournalRecord>,
    /// 3. Lines that come.
    pub publish: Vec<LineChange>,
    /// 4. Messages to the home.
    pub to_home: Vec<ToHome>,
    /// 5. Answers to clients.
    pub reply: Vec<(u64, Result<Response, Error>)>,
}

impl AgentOut {
    /// A line goes: what was to be published of it in the same step must not come after it.
    fn retract(&mut self, key: &str) {
        self.publish.retain(|change| !matches!(change, LineChange::Put(other, _) if other == key));
        self.retract.push(LineChange::Drop(key.to_owned()));
    }

    fn retract_all(&mut self) {
        self.publish.clear();
        self.retract.push(LineChange::DropAll);
    }

    fn publish(&mut self, key: &str, line: Line) {
        self.publish.push(LineChange::Put(key.to_owned(), line));
    }
}

/// What a step may use: the time, the numbers for writes, and where its consequences go.
pub struct Turn<'a> {
    /// The node's monotonic clock.
    pub now_us: u64,
    /// The node's session in the group.
    pub sequences: &'a mut Sequences,
    /// What follows.
    pub out: &'a mut AgentOut,
}

/// One group's lines on one node.
#[derive(Clone, Debug)]
pub struct Agent<R> {
    group: GroupId,
    node: NodeId,
    incarnation: Incarnation,
    config: Config,
    lease: Lease,
    slots: BTreeMap<String, Slot>,
    /// When to look at which slot again.
    due: BTreeSet<(u64, String)>,
    /// Which key a client waits for.
    callers: BTreeMap<u64, String>,
    /// Lines in the order in which they are to go, and their bytes.
    order: S3Fifo,
    next_request: u64,
    /// Journal records handed out so far; the number of the last one is its ticket.
    journaled: u64,
    flushing: VecDeque<(u64, String)>,
    draining: bool,
    flushes: Vec<Flush>,
    fills: BTreeMap<String, Fill>,
    handed_fills: VecDeque<u64>,
    /// The home knows that this node owns nothing any more, and it has left the bus for good; set while it drains only.
    released: bool,
    /// When it was told last.
    release_us: u64,
    dirty: Dirty,
    counts: Counts,
    audit: Audit,
    history: History,
    rules: PhantomData<R>,
}

impl<R: Rules> Agent<R> {
    /// A node without a lease, with the journal as it stood on disk.
    pub fn new(
        group: GroupId,
        node: NodeId,
        incarnation: Incarnation,
        config: Config,
        journal: &[JournalRecord],
    ) -> Self {
        let order = S3Fifo::new(config.lines_bytes_max);
        let mut agent = Self {
            group,
            node,
            incarnation,
            config,
            lease: Lease::default(),
            slots: BTreeMap::new(),
            due: BTreeSet::new(),
            callers: BTreeMap::new(),
            order,
            next_request: 1,
            journaled: 0,
            flushing: VecDeque::new(),
            draining: false,
            flushes: Vec::new(),
            fills: BTreeMap::new(),
            handed_fills: VecDeque::new(),
            released: false,
            release_us: 0,
            dirty: Dirty::default(),
            counts: Counts::default(),
            audit: Audit::default(),
            history: History::default(),
            rules: PhantomData,
        };
        for record in journal {
            agent.recover(record);
        }
        agent
    }

    /// A restarted owner resumes no M line: what its journal has is written back.
    fn recover(&mut self, record: &JournalRecord) {
        match record {
            JournalRecord::Written { key, dirty } => {
                let leaving = Leaving {
                    epoch: dirty.version.epoch,
                    value: dirty.clone(),
                    dirty: true,
                    dirty_since_us: None,
                    poisoned: true,
                    callers: Vec::new(),
                };
                self.set(key, State::Leaving(leaving));
                if R::without(Rule::OwnerResumes) {
                    self.set(key, State::Owned(Owned::new(dirty.clone(), 0)));
                }
            }
            JournalRecord::Ended { key, version } => {
                let over = |slot: &Slot| matches!(&slot.state, State::Leaving(l) if l.value.version <= *version);
                if self.slots.get(key).is_some_and(over) {
                    self.set(key, State::Invalid);
                    self.tidy(key);
                }
            }
        }
    }

    /// Number of the last journal record handed out: [`Agent::flushed`] takes it back.
    pub fn ticket(&self) -> u64 {
        self.journaled
    }

    /// Stops local writes and gives every owned line back.
    pub fn drain(&mut self, turn: &mut Turn<'_>) {
        self.because(turn, "the node is about to stop");
        self.draining = true;
        let owned: Vec<String> = self.keys(|state| matches!(state, State::Owned(_)));
        for key in owned {
            self.leave(turn, &key, None);
        }
    }

    /// True where main memory has everything that this node wrote.
    pub fn is_drained(&self) -> bool {
        !self.slots.values().any(|slot| matches!(slot.state, State::Owned(_) | State::Leaving(_) | State::Writing(_)))
    }

    /// True where, besides, no home waits for this node because of an ownership: of one that it was granted and forgot in a crash, it
    /// knows nothing. So it may go for good.
    pub fn is_released(&self) -> bool {
        self.released && self.is_drained()
    }

    /// It has no right to write, and will get none.
    fn owns_nothing(&self) -> bool {
        self.draining && self.is_drained()
    }

    /// The name of the state a key is in here, transient ones included.
    pub fn state_name(&self, key: &str) -> &'static str {
        self.slots.get(key).map_or("I", |slot| slot.state.name())
    }

    fn keys(&self, wanted: impl Fn(&State) -> bool) -> Vec<String> {
        self.slots.iter().filter(|(_, slot)| wanted(&slot.state)).map(|(key, _)| key.clone()).collect()
    }

    /// Puts a slot into a state, and keeps count of the bytes and of the order of eviction. Returns the state it was in.
    fn set(&mut self, key: &str, state: State) -> State {
        let slot = self.slots.entry(key.to_owned()).or_default();
        self.dirty.change(slot.state.dirty_value(), state.dirty_value());
        self.history.note(key, slot.state.name(), state.name());
        match (slot.place, state.line_bytes(key)) {
            (None, Some(bytes)) => slot.place = Some(self.order.insert(key, bytes)),
            (Some(place), Some(bytes)) => self.order.resize(place, bytes),
            (Some(place), None) => {
                slot.place = None;
                self.order.remove(place);
            }
            (None, None) => {}
        }
        std::mem::replace(&mut slot.state, state)
    }

    /// Takes the state out of a slot, which becomes I but keeps its place in the order of eviction: [`Agent::set`] follows in the same step.
    fn take(&mut self, key: &str) -> State {
        let Some(slot) = self.slots.get_mut(key) else { return State::Invalid };
        self.dirty.change(slot.state.dirty_value(), None);
        self.history.note(key, slot.state.name(), "I");
        std::mem::take(&mut slot.state)
    }

    /// Forgets a slot that says nothing.
    fn tidy(&mut self, key: &str) {
        let empty = |slot: &Slot| matches!(slot.state, State::Invalid) && slot.waiting.is_empty();
        if self.slots.get(key).is_some_and(empty) {
            self.schedule(key, None);
            self.slots.remove(key);
        }
    }

    fn schedule(&mut self, key: &str, due_us: Option<u64>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if let Some(old) = slot.due_us.take() {
            self.due.remove(&(old, key.to_owned()));
        }
        if let Some(due_us) = due_us {
            slot.due_us = Some(due_us);
            self.due.insert((due_us, key.to_owned()));
        }
    }

    fn request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn reply(&mut self, turn: &mut Turn<'_>, caller: u64, result: Result<Response, Error>) {
        self.callers.remove(&caller);
        turn.out.reply.push((caller, result));
    }
}
