//! Messages of the queue. Every index here is a log index of the queue's group.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::lock::IfToken;

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
}

/// Answer to [`Enqueue`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueued {
    /// The message's id: grows with the order of the queue, never used twice.
    pub id: u64,
}

/// Takes messages from the front of a queue. Does not block: an empty queue answers with no delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dequeue {
    /// Name of the queue.
    pub queue: String,
    /// How long, in milliseconds of log time, the messages stay hidden from others. 1 to 43,200,000; 0 means the default, 30,000.
    #[serde(default)]
    pub visibility_ms: u32,
    /// At most this many messages, 1 to [`crate::limits::BATCH_MAX`]; 0 means 1.
    #[serde(default)]
    pub count_max: u32,
}

/// Answer to [`Dequeue`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dequeued {
    /// In the queue's order; empty when nothing is ready. All bodies together have at most
    /// [`crate::limits::DEQUEUE_BYTES_MAX`] bytes.
    pub deliveries: Vec<Delivery>,
}

/// One message, handed to one consumer until its visibility timeout ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message's id.
    pub id: u64,
    /// The fencing token of this delivery; with the id it is the receipt.
    pub token: u64,
    /// How often the message has been handed out, this time included.
    pub deliveries: u32,
    /// The body as it was enqueued.
    pub body: Bytes,
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
