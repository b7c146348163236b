//! Several things in one entry of the log: all of them happen, or none.

use serde::{Deserialize, Serialize};

use super::delivery::Receipt;
use super::{Enqueue, Enqueued};
use crate::lock::{Release, Renew};

/// Acknowledges a delivery, puts the message that follows from it into a queue, and releases or renews a lock, in one step. All
/// names must live in one group, by a common `{tag}`; otherwise `NotColocated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOff {
    /// What is done with.
    #[serde(default)]
    pub ack: Option<QueueReceipt>,
    /// What comes next.
    #[serde(default)]
    pub enqueue: Option<Enqueue>,
    /// What it was done under.
    #[serde(default)]
    pub lock: Option<LockStep>,
}

/// A delivery of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReceipt {
    /// Name of the queue.
    pub queue: String,
    /// Which delivery.
    pub receipt: Receipt,
}

/// What a [`HandOff`] does with a lock. The token must be that of the grant that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockStep {
    /// Gives it back.
    Release(Release),
    /// Starts its lease anew.
    Renew(Renew),
}

/// Answer to [`HandOff`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOff {
    /// The message that is gone, if one was named.
    pub acked: Option<u64>,
    /// The message that came, if one was named.
    pub enqueued: Option<Enqueued>,
}
