//! What a declared queue keeps to.

use serde::{Deserialize, Serialize};

/// How a declared queue behaves. Every field has a default, which is how a queue behaves that nobody declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// A message is dead after so many deliveries that were not acknowledged; 0 means never.
    #[serde(default)]
    pub max_deliveries: u32,
    /// How long a message that was given back waits.
    #[serde(default)]
    pub back_off: BackOff,
    /// Visibility timeout where the request names none, in milliseconds; 0 means [`crate::limits::VISIBILITY_MS_DEFAULT`].
    #[serde(default)]
    pub visibility_ms: u32,
    /// Messages in all states; 0 for no bound of its own.
    #[serde(default)]
    pub messages_max: u64,
    /// Bytes of their bodies; 0 for no bound of its own.
    #[serde(default)]
    pub bytes_max: u64,
    /// Age in milliseconds of log time at which a message that waits has expired; 0 for none.
    #[serde(default)]
    pub age_ms_max: u64,
    /// What a message too many leads to.
    #[serde(default)]
    pub overflow: Overflow,
    /// What becomes of a message whose time to live or age is over.
    #[serde(default)]
    pub expired: Expired,
    /// For how long a `dedup_id` is remembered, in milliseconds of wall time; 0 means [`crate::limits::DEDUP_WINDOW_MS_DEFAULT`].
    #[serde(default)]
    pub dedup_window_ms: u32,
    /// A message that waits rises by one priority in so many milliseconds; 0 for strict priorities.
    #[serde(default)]
    pub ageing_ms: u32,
    /// Messages of one key that may be in flight at once; 0 means 1, with which the order of a key is kept.
    #[serde(default)]
    pub key_in_flight_max: u32,
    /// Whether tenants take turns by their weights within a priority.
    #[serde(default)]
    pub fair: bool,
    /// Weights of tenants, at most [`crate::limits::WEIGHTS_MAX`]; whoever is not listed has 1.
    #[serde(default)]
    pub weights: Vec<TenantWeight>,
    /// The queue is this many queues in as many groups; 0 and 1 mean one. See `Partitions` in the contract.
    #[serde(default)]
    pub partitions: u32,
}

/// How long a message waits after it was given back for the n-th time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackOff {
    /// Not at all.
    #[default]
    None,
    /// Always the same.
    Fixed {
        /// Milliseconds.
        ms: u32,
    },
    /// `step_ms` times n.
    Linear {
        /// Milliseconds of the first wait, and by how much each is longer.
        step_ms: u32,
        /// No longer than that.
        max_ms: u32,
    },
    /// `first_ms` times 2 to the power of n - 1.
    Exponential {
        /// Milliseconds of the first wait.
        first_ms: u32,
        /// No longer than that.
        max_ms: u32,
        /// By up to so many percent shorter, 0 to 100: each message and each wait another, the same on every replica.
        #[serde(default)]
        jitter_percent: u32,
    },
}

/// What a message too many leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overflow {
    /// It is refused with `QueueFull`.
    #[default]
    Reject,
    /// The oldest that is not in flight makes room, and is lost.
    DropOldest,
}

/// What becomes of a message whose time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expired {
    /// It is gone.
    #[default]
    Drop,
    /// It is dead, and can be looked at and redriven.
    Bury,
}

/// How much of a queue's deliveries a tenant gets, in proportion to the others that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantWeight {
    /// The tenant.
    pub tenant: String,
    /// 1 to [`crate::limits::WEIGHT_MAX`].
    pub weight: u32,
}
