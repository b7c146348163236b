//! The queue: a deterministic state machine that each replica of a group applies.
//!
//! A queue is a list of messages in the order in which the log took them. Its first message makes it, and with its last
//! it vanishes. A consumer *takes* messages from the front; they stay, hidden from others, until the consumer
//! *acknowledges* them or its time, the visibility timeout, runs out. So every message is processed **at least once**; it
//! is processed again where a consumer died or was too slow.
//!
//! # Life of a message
//!
//! ```text
//!                Enqueue with a delay                 Nack with a delay
//!           +--> DELAYED <----------------------------------------.
//!           |       | its time comes                              |
//!           |       v             Dequeue: deliveries + 1, token  |
//!   Enqueue +--> READY  ------------------------------------> IN FLIGHT --- Ack ---> gone
//!                 ^   |  <--- visibility timeout, Nack ---------  |   ^
//!                 |   |       at its old place in the queue       |   '- Extend
//!         Redrive |   | time to live or age over                  |
//!                 |   v                                           | handed out too often, or rejected
//!                DEAD <-------------------------------------------'
//!
//!   Ack of the newest delivery, late but nobody else got the message ---> gone
//! ```
//!
//! * **Id.** A message's id is the log index of its `Enqueue`: it grows with the order of the queue and is never used twice.
//! * **Order.** A dequeue takes the lowest ids that are ready and skips none, up to its count and to [`BATCH_BYTES_MAX`]. A message that timed out is ready again *at
//!   its old place*, before all that came after it. So the first deliveries are in the order of the queue; a repeated one comes late.
//!   Priorities, keys and tenants give messages other places (`place`, `lanes`): one key keeps its order over repeated deliveries too.
//! * **Token.** All deliveries of one `Dequeue` carry the token of its log entry ([`At::token`](crate::ids::At::token)); with the id it
//!   is the receipt, and it grows with each delivery of the same message. A worker that passes it on to what it writes to is fenced like the holder of a lock.
//! * **Time** is the log's (`due` says which of its two): the same on every replica. A delivery ends with the first entry whose stamp has
//!   reached its deadline, for [`State::expire`] sees the stamps before the entry is applied.
//! * **Batches.** One command is one entry is one message: a batch of messages is that many commands that travel together, each of which
//!   stands or falls for itself. A batch of acknowledgements is one command, and each of its receipts is judged for itself.
//!
//! # What an acknowledgement removes
//!
//! | the receipt (id, token) | answer |
//! | --- | --- |
//! | is the newest delivery, in flight | `Acked` |
//! | is the newest delivery, timed out, nobody else got the message | `Acked`: the work is done, and doing it twice helps nobody (as in SQS) |
//! | has a lower token: the message was handed out again | `StaleReceipt`; the newer delivery goes on untouched |
//! | is the newest delivery, and was given back, or the message was redriven since | `NotInFlight` |
//! | names no delivery of a message in this queue, or the message is gone | `NotInFlight` |
//!
//! An acknowledgement *by body* means one delivery in this queue with that body: the oldest in flight; where none is, the oldest
//! that timed out and was not handed out again. Messages with equal bodies stand for each other there, so it
//! does no harm that the body does not say whose delivery it is: as many remain as were not acknowledged.
//!
//! # What it keeps, and where
//!
//! No bodies: a body is stored once, in the log entry that is the message's id ([`State::live_bodies`] tells compaction which are
//! still needed). A message that waits for its first delivery takes **35 bytes** of memory where its queue has the log to
//! itself, and 71 where a thousand queues take turns; one that was handed out takes 230 (measured, with the allocator's
//! share: `memory_of_a_waiting_message`). So a backlog of ten million has 350 to 710 MB. On disk, up to 64 neighbours share a
//! record of at most 37 KiB (`stored` says why). Enqueue, the taking of one message and its acknowledgement are O(log n) each.
//!
//! # Invariants
//!
//! Checked by [`State::check_invariants`]: a message is ready, delayed, in flight or dead, one of them; every message in flight or given
//! back has one deadline; what the lanes and keys hold is what `place` says; a queue that is there has messages or was declared;
//! the sums equal a recount.
//!
//! # Caveats
//! * The bound on messages is the group's: one queue can fill it, and then the group's others are full too, unless policies bound them.
//! * Bodies are told apart by 128 bits of XXH3 and the length. That is no cryptographic hash: someone who may enqueue into the
//!   queue could make two bodies that an acknowledgement by body takes for each other. A receipt is exact.
//! * Dead messages count towards the limits of their queue: a queue that is full of them takes nothing until they are redriven or purged.
//! * A filtered redrive looks at every dead message of its queue, and a change of `fair` or `key_in_flight_max` at every message, within
//!   one entry.

mod attributes;
mod bodies;
mod dedup;
mod due;
mod explain;
mod give_back;
mod invariants;
mod lanes;
mod look;
mod place;
mod policy;
mod records;
mod state;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod tracked;
mod whole;

use serde::{Deserialize, Serialize};
use trine_protocol::limits::DEQUEUE_BYTES_MAX;
use trine_protocol::queue::{
    Ack, AckMany, Attributes, Declare, Dequeue, Enqueue, Extend, Flow, MessageState, Nack, Purge, Redrive,
    RefusedReceipt, SetFlow, Undeclare,
};

use crate::ids::Index;
use crate::rules::{Rule, Rules};

pub use dedup::DEDUP_IDS_MAX;
pub use explain::Askers;
pub use look::{Counts, Instants, Stats, Totals};
pub use state::State;

/// Messages of one group, in all its queues; one more gets `QueueFull`. Waiting, they take 710 MB at most, and 2.3 GB where every
/// one of them was handed out: as deep as a backlog in memory should get.
pub const MESSAGES_MAX: usize = 10_000_000;
/// Queues of one group that have messages; a message for one more gets `Overloaded`. Each takes less than half a KiB beside its name and messages.
pub const QUEUES_MAX: usize = 100_000;

/// Bytes of the bodies that one dequeue hands out; a batch ends before the message that would be over it, which is the first of the
/// next. The wire's limit, so that an answer always fits a frame.
pub const BATCH_BYTES_MAX: usize = DEQUEUE_BYTES_MAX;

/// A command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Puts a message at the end of a queue.
    Enqueue(Enqueue),
    /// Takes messages from the front of a queue.
    Dequeue(Dequeue),
    /// Removes a message that is being processed.
    Ack(Ack),
    /// Starts the visibility timeout of a delivery anew.
    Extend(Extend),
    /// Gives a delivery back.
    Nack(Nack),
    /// Removes several messages that are being processed.
    AckMany(AckMany),
    /// Declares a queue.
    Declare(Declare),
    /// Ends a declaration.
    Undeclare(Undeclare),
    /// Opens, pauses or drains a queue.
    SetFlow(SetFlow),
    /// Removes messages.
    Purge(Purge),
    /// Makes dead messages ready again.
    Redrive(Redrive),
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The message stands in the queue.
    Enqueued {
        /// Its id; where it is a duplicate, that of the first one.
        id: Index,
        /// A message with the same id of the client's was there first.
        #[serde(default)]
        duplicate: bool,
    },
    /// These messages are the consumer's until their time runs out, in the queue's order. Empty where none was ready.
    Delivered(Vec<Handed>),
    /// The message is gone.
    Acked {
        /// Its id.
        id: Index,
    },
    /// The delivery's time begins anew.
    Extended {
        /// The message.
        id: Index,
    },
    /// The delivery was given back.
    Nacked {
        /// Where the message stands now.
        state: MessageState,
    },
    /// The messages are gone, but for these.
    AckedMany {
        /// The receipts that were not good.
        refused: Vec<RefusedReceipt>,
    },
    /// The queue is declared.
    Declared {
        /// It was not before.
        made: bool,
    },
    /// The queue is not declared.
    Undeclared {
        /// It was before.
        was_declared: bool,
    },
    /// The queue flows as it should.
    FlowSet {
        /// As it did before.
        before: Flow,
    },
    /// Messages are gone.
    Purged {
        /// How many.
        messages: u32,
        /// There are more.
        more: bool,
    },
    /// Messages are dead no more.
    Redriven {
        /// How many.
        messages: u32,
        /// There are more.
        more: bool,
    },
}

/// One message handed out. Its body is in the log entry `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The message's id.
    pub id: Index,
    /// The fencing token of this delivery; with the id it is the receipt.
    pub token: u64,
    /// How often the message has been handed out, this time included.
    pub deliveries: u32,
    /// What is special about it.
    #[serde(default)]
    pub attributes: Option<Box<Attributes>>,
}

/// The rules of [`crate::rules`] that are about queues, as a value of the state: what they touch is reached from many places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) stale_receipt_taken: bool,
    pub(crate) handed_out_early: bool,
    pub(crate) key_order_ignored: bool,
    pub(crate) deliveries_not_counted: bool,
    pub(crate) turns_not_taken: bool,
    pub(crate) ids_left_out_of_snapshots: bool,
    pub(crate) expired_handed_out: bool,
    pub(crate) paused_hands_out: bool,
    pub(crate) priority_ignored: bool,
    pub(crate) limit_not_kept: bool,
    pub(crate) purge_spares_flights: bool,
}

impl State {
    /// From now on the rules hold that hold in `R`.
    #[inline(always)]
    pub fn obey<R: Rules>(&mut self) {
        self.broken = Broken {
            stale_receipt_taken: R::without(Rule::StaleReceiptTaken),
            handed_out_early: R::without(Rule::HandedOutEarly),
            key_order_ignored: R::without(Rule::KeyOrderIgnored),
            deliveries_not_counted: R::without(Rule::DeliveriesNotCounted),
            turns_not_taken: R::without(Rule::TurnsNotTaken),
            ids_left_out_of_snapshots: R::without(Rule::DedupLeftOutOfSnapshots),
            expired_handed_out: R::without(Rule::ExpiredHandedOut),
            paused_hands_out: R::without(Rule::PausedHandsOut),
            priority_ignored: R::without(Rule::PriorityIgnored),
            limit_not_kept: R::without(Rule::LimitNotKept),
            purge_spares_flights: R::without(Rule::PurgeSparesFlights),
        };
    }
}
