//! Messages of the queue. Every index here is a log index of the queue's group.
//!
//! Here are the three that every user needs; the others stand by subject: what a declared queue keeps to ([`Policy`]), what becomes
//! of one delivery ([`Extend`], [`Nack`]), many at once ([`AckMany`]), a whole queue ([`SetFlow`], [`Purge`], [`Redrive`]), looking
//! ([`Peek`], [`ShowQueue`], [`ExplainQueue`]), pushing ([`Subscribe`]), and several things in one entry ([`HandOff`]).

mod delivery;
mod hand_off;
mod look;
mod policy;
mod push;
mod whole;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::lock::IfToken;

pub use delivery::{AckMany, AckedMany, Extend, Extended, MessageState, Nack, Nacked, Receipt, RefusedReceipt};
pub use hand_off::{HandOff, HandedOff, LockStep, QueueReceipt};
pub use look::{
    About, Attempt, AttemptEnd, Cause, DeadLetter, ExplainQueue, ExplainedQueue, ListQueues, Peek, Peeked,
    PeekedMessage, QueueLine, QueueShown, Queues, ShowQueue,
};
pub use policy::{BackOff, Expired, Overflow, Policy, TenantWeight};
pub use push::{Credit, Credited, Pushed, Subscribe, Subscribed, Unsubscribe, Unsubscribed};
pub use whole::{
    DeadReason, Declare, Declared, Flow, FlowSet, Purge, Purged, Redrive, RedriveFilter, Redriven, SetFlow, Undeclare,
    Undeclared,
};

/// Puts one message at the end of a queue. Answered by [`Enqueued`] once a majority has it on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueue {
    /// Name of the queue, 1 to [`crate::limits::NAME_BYTES_MAX`] bytes; made by its first message.
    pub queue: String,
    /// At most [`crate::limits::VALUE_BYTES_MAX`] bytes.
    pub body: Bytes,
    /// The grant that must hold, where one must.
    #[serde(default)]
    pub if_token: Option<IfToken>,
    /// What is special about the message; nil for most.
    #[serde(default)]
    pub options: Option<Box<EnqueueOptions>>,
}

/// What may be special about a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnqueueOptions {
    /// 0 to [`crate::limits::PRIORITY_MAX`]; a higher one is handed out first.
    #[serde(default)]
    pub priority: u8,
    /// Messages of one key are handed out in order, one after the other; at most [`crate::limits::ORDER_KEY_BYTES_MAX`]
    /// bytes, empty for none.
    #[serde(default)]
    pub key: String,
    /// Whose message it is, for a fair share; at most [`crate::limits::TENANT_BYTES_MAX`] bytes, empty for nobody's.
    #[serde(default)]
    pub tenant: String,
    /// Not handed out for so long, in milliseconds of wall time.
    #[serde(default)]
    pub delay_ms: u64,
    /// Not handed out before this instant, in milliseconds since 1970; 0 for none. With `delay_ms`, the later one counts.
    #[serde(default)]
    pub at_ms: u64,
    /// Where it is not handed out within so many milliseconds of wall time, it is dropped or dead as the policy says; 0 for no end.
    #[serde(default)]
    pub ttl_ms: u64,
    /// A second message with this id within the queue's window is not taken: its answer has the id of the first. At most
    /// [`crate::limits::DEDUP_ID_BYTES_MAX`] bytes, empty for none.
    #[serde(default)]
    pub dedup_id: String,
    /// Dead after so many deliveries; 0 means what the policy says.
    #[serde(default)]
    pub max_deliveries: u32,
    /// In place of the policy's.
    #[serde(default)]
    pub back_off: Option<BackOff>,
}

/// Answer to [`Enqueue`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueued {
    /// The message's id: grows with the order of the queue, never used twice. Where `duplicate`, that of the first one.
    pub id: u64,
    /// A message with the same `dedup_id` was there first; this one was not taken.
    #[serde(default)]
    pub duplicate: bool,
    /// How safe the message was when the answer was made. Nil where the node does not know any more: a repeated request.
    #[serde(default)]
    pub reached: Option<Durability>,
}

/// Where a message stands on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durability {
    /// Term of the leader that took it.
    pub term: u64,
    /// Its place in the log of its group.
    pub index: u64,
    /// Replicas that were known to have it flushed to disk, the leader included. At least a majority.
    pub replicas: u32,
    /// Voters of the group then.
    pub voters: u32,
    /// True: each of `replicas` has it on disk, not in memory only.
    pub flushed: bool,
}

/// Takes messages from the front of a queue. An empty queue answers with no delivery: at once, or after `wait_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dequeue {
    /// Name of the queue.
    pub queue: String,
    /// How long, in milliseconds of log time, the messages stay hidden from others. 1 to 43,200,000; 0 means the default, 30,000.
    #[serde(default)]
    pub visibility_ms: u32,
    /// At most this many messages, 1 to [`crate::limits::BATCH_MAX`]; 0 means 1.
    #[serde(default)]
    pub count_max: u32,
    /// Where nothing is ready, wait for so long, 0 to [`crate::limits::WAIT_MS_MAX`]; cut to the request's time. A request that waits
    /// has no session: what is lost on the way comes back after its visibility timeout.
    #[serde(default)]
    pub wait_ms: u32,
    /// Who takes them, for `explain` and `peek`; at most [`crate::limits::CONSUMER_BYTES_MAX`] bytes, empty for nobody in particular.
    #[serde(default)]
    pub consumer: String,
}

/// Answer to [`Dequeue`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dequeued {
    /// In the queue's order; empty when nothing is ready. All bodies together have at most
    /// [`crate::limits::DEQUEUE_BYTES_MAX`] bytes.
    pub deliveries: Vec<Delivery>,
}

/// One message, handed to one consumer until its visibility timeout ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message's id.
    pub id: u64,
    /// The fencing token of this delivery; with the id it is the receipt.
    pub token: u64,
    /// How often the message has been handed out, this time included.
    pub deliveries: u32,
    /// The body as it was enqueued.
    pub body: Bytes,
    /// What is special about the message; nil for most.
    #[serde(default)]
    pub attributes: Option<Box<Attributes>>,
}

/// What a consumer is told of a message beside its body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// [`EnqueueOptions::priority`].
    #[serde(default)]
    pub priority: u8,
    /// [`EnqueueOptions::key`].
    #[serde(default)]
    pub key: String,
    /// [`EnqueueOptions::tenant`].
    #[serde(default)]
    pub tenant: String,
}

/// Removes a message that is being processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Name of the queue.
    pub queue: String,
    /// Which delivery.
    pub which: AckWhich,
    /// The grant that must hold, where one must.
    #[serde(default)]
    pub if_token: Option<IfToken>,
}

/// How an [`Ack`] names the delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckWhich {
    /// Exactly this delivery; refused as `StaleReceipt` once the message was handed out again.
    Receipt {
        /// [`Delivery::id`].
        id: u64,
        /// [`Delivery::token`].
        token: u64,
    },
    /// One delivery in flight with this body, the oldest first.
    Body(Bytes),
}

impl Delivery {
    /// What acknowledges exactly this delivery.
    pub fn receipt(&self) -> Receipt {
        Receipt { id: self.id, token: self.token }
    }
}

impl From<&Delivery> for AckWhich {
    /// Exactly this delivery.
    fn from(delivery: &Delivery) -> Self {
        Self::Receipt { id: delivery.id, token: delivery.token }
    }
}

/// Answer to [`Ack`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The message that is gone now.
    pub id: u64,
}
