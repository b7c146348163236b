//! What concerns a whole queue: its policy, its flow, emptying it, and sending dead messages round again.

use serde::{Deserialize, Serialize};

use super::delivery::MessageState;
use super::policy::Policy;

/// Declares a queue, or gives it another policy. It is there from then on, also while it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declare {
    /// Name of the queue.
    pub queue: String,
    /// What it keeps to.
    pub policy: Policy,
}

/// Answer to [`Declare`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// False where it was declared before: it has the new policy now.
    pub made: bool,
}

/// Ends a declaration. Messages stay, under the default policy; without any, the queue is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undeclare {
    /// Name of the queue.
    pub queue: String,
}

/// Answer to [`Undeclare`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undeclared {
    /// False where nobody had declared it.
    pub was_declared: bool,
}

/// Whether messages come in and go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flow {
    /// Both.
    #[default]
    Open,
    /// Nothing is handed out; what is in flight may be acknowledged.
    Paused,
    /// Nothing comes in: an enqueue gets `QueueDraining`.
    Draining,
}

/// Opens, pauses or drains a queue. It is declared by that, where it was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFlow {
    /// Name of the queue.
    pub queue: String,
    /// From now on.
    pub flow: Flow,
}

/// Answer to [`SetFlow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSet {
    /// Until now.
    pub before: Flow,
}

/// Removes messages, at most [`crate::limits::PURGE_MAX`] at a time, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// Name of the queue.
    pub queue: String,
    /// Only those in this state; nil for all.
    #[serde(default)]
    pub state: Option<MessageState>,
}

/// Answer to [`Purge`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// How many are gone.
    pub messages: u32,
    /// There are more: ask again.
    pub more: bool,
}

/// Why a message is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeadReason {
    /// It was handed out as often as it may be.
    MaxDeliveries,
    /// A consumer rejected it.
    Rejected,
    /// Its time to live was over.
    Expired,
    /// It was older than the queue allows.
    TooOld,
}

/// Makes dead messages ready again, in the order of their ids. Their deliveries count from 0 towards the maximum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// Name of the queue.
    pub queue: String,
    /// Which ones; nil for all.
    #[serde(default)]
    pub filter: Option<RedriveFilter>,
    /// At most so many, 1 to [`crate::limits::REDRIVE_MAX`]; 0 means that.
    #[serde(default)]
    pub count_max: u32,
    /// They become ready one after the other, so many in a second of wall time; 0 for all at once.
    #[serde(default)]
    pub per_second: u32,
}

/// Which dead messages: those that match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveFilter {
    /// Dead for this reason.
    #[serde(default)]
    pub reason: Option<DeadReason>,
    /// With this key; empty for any.
    #[serde(default)]
    pub key: String,
    /// Of this tenant; empty for any.
    #[serde(default)]
    pub tenant: String,
    /// One of these, at most [`crate::limits::BATCH_MAX`]; none for any.
    #[serde(default)]
    pub ids: Vec<u64>,
}

/// Answer to [`Redrive`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// How many are dead no more.
    pub messages: u32,
    /// There are more that match: ask again.
    pub more: bool,
}
