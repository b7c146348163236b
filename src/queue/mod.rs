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
//!   Enqueue              Dequeue: deliveries + 1, new token
//! ----------->  READY  ------------------------------------>  IN FLIGHT
//!               ^   |                                         |      |
//!               |   |          visibility timeout, in log time|      | Ack
//!               |   |  at its old place in the queue          |      v
//!               '---+-----------------------------------------'     gone
//!                   |
//!                   '--- Ack of the newest delivery, late but nobody else got it ---> gone
//! ```
//!
//! * **Id.** A message's id is the log index of its `Enqueue`: it grows with the order of the queue and is never used twice.
//! * **Order.** A dequeue takes the lowest ids that are ready and skips none, up to its count and to [`BATCH_BYTES_MAX`]. A message that timed out is ready again *at
//!   its old place*, before all that came after it. So the first deliveries are in the order of the queue; a repeated one comes late.
//! * **Token.** All deliveries of one `Dequeue` carry the token of its log entry ([`At::token`](crate::ids::At::token)); with the id it
//!   is the receipt, and it grows with each delivery of the same message. A worker that passes it on to what it writes to is fenced like the holder of a lock.
//! * **Time** is the log's: an entry's stamp, the same on every replica. A delivery ends with the first entry whose stamp has
//!   reached its deadline, for [`State::expire`] sees each stamp before the entry is applied.
//!
//! # What an acknowledgement removes
//!
//! | the receipt (id, token) | answer |
//! | --- | --- |
//! | is the newest delivery, in flight | `Acked` |
//! | is the newest delivery, timed out, nobody else got the message | `Acked`: the work is done, and doing it twice helps nobody (as in SQS) |
//! | has a lower token: the message was handed out again | `StaleReceipt`; the newer delivery goes on untouched |
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
//! Checked by [`State::check_invariants`]: a message is ready or in flight, never both; every message in flight has one
//! deadline; within a queue, whatever was never handed out comes after whatever was; a queue that is there has messages;
//! the sums equal a recount.
//!
//! # Caveats
//!
//! * A message that its consumers cannot digest is handed out for ever: `deliveries` tells, but there is no dead-letter state yet.
//! * No extension of a running delivery, no giving back before the timeout, no delay, no priorities: a consumer that needs longer asks
//!   for a longer visibility timeout at the start.
//! * The bound on messages is the group's: one queue can fill it, and then the group's others are full too.
//! * Bodies are told apart by 128 bits of XXH3 and the length. That is no cryptographic hash: someone who may enqueue into the
//!   queue could make two bodies that an acknowledgement by body takes for each other. A receipt is exact.

mod bodies;
mod invariants;
mod state;
mod stored;
mod table;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use trine_protocol::limits::DEQUEUE_BYTES_MAX;
use trine_protocol::queue::{Ack, Dequeue, Enqueue};

use crate::ids::Index;

pub use state::{Counts, State, Stats, Totals};

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
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The message stands in the queue.
    Enqueued {
        /// Its id.
        id: Index,
    },
    /// These messages are the consumer's until their time runs out, in the queue's order. Empty where none was ready.
    Delivered(Vec<Handed>),
    /// The message is gone.
    Acked {
        /// Its id.
        id: Index,
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
}
