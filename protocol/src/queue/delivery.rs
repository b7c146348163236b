//! What becomes of one delivery, and of many at once.

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::lock::IfToken;

/// Names exactly one delivery of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// [`super::Delivery::id`].
    pub id: u64,
    /// [`super::Delivery::token`].
    pub token: u64,
}

/// Where a message stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MessageState {
    /// A dequeue may take it, as soon as its key is free.
    #[default]
    Ready,
    /// Its time has not come: it is scheduled, or was given back.
    Delayed,
    /// It is handed out.
    InFlight,
    /// It is handed out no more until it is redriven.
    Dead,
}

/// Starts the visibility timeout of a delivery anew, from now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extend {
    /// Name of the queue.
    pub queue: String,
    /// Which delivery. `NotInFlight` where it has timed out, `StaleReceipt` where the message was handed out again.
    pub receipt: Receipt,
    /// The new visibility timeout in milliseconds of log time, 1 to [`crate::limits::VISIBILITY_MS_MAX`]; 0 means the queue's.
    #[serde(default)]
    pub visibility_ms: u32,
}

/// Answer to [`Extend`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// The message.
    pub id: u64,
}

/// Gives a delivery back. The receipt is void then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// Name of the queue.
    pub queue: String,
    /// Which delivery.
    pub receipt: Receipt,
    /// Handed out again after so many milliseconds of log time, 0 to [`crate::limits::VISIBILITY_MS_MAX`]; nil means the back-off of the
    /// message or its queue.
    #[serde(default)]
    pub delay_ms: Option<u32>,
    /// Why, for the message's history; at most [`crate::limits::REASON_BYTES_MAX`] bytes.
    #[serde(default)]
    pub reason: String,
    /// Nobody can digest the message: it is dead at once.
    #[serde(default)]
    pub reject: bool,
    /// The grant that must hold, where one must.
    #[serde(default)]
    pub if_token: Option<IfToken>,
}

/// Answer to [`Nack`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nacked {
    /// Where the message stands now: ready, delayed, or dead; dead also where its time to live is over and it is dropped.
    pub state: MessageState,
}

/// Acknowledges several deliveries of one queue, each for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckMany {
    /// Name of the queue.
    pub queue: String,
    /// 1 to [`crate::limits::BATCH_MAX`].
    pub receipts: Vec<Receipt>,
    /// The grant that must hold, where one must; otherwise none is acknowledged.
    #[serde(default)]
    pub if_token: Option<IfToken>,
}

/// Answer to [`AckMany`]. What is not listed is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckedMany {
    /// The receipts that were not good, in the request's order.
    pub refused: Vec<RefusedReceipt>,
}

/// One receipt that was not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReceipt {
    /// Its place in the request, from 0.
    pub place: u32,
    /// `NotInFlight` or `StaleReceipt`.
    pub code: ErrorCode,
}
