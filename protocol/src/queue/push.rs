//! Deliveries that the node sends by itself, as many as the client has given credit for.

use serde::{Deserialize, Serialize};

use super::Delivery;
use crate::error::Error;

/// Asks a node to send deliveries over this connection as soon as there are some. When the connection ends, what was sent and not
/// acknowledged over it is given back at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Name of the queue.
    pub queue: String,
    /// Who asks; at most [`crate::limits::CONSUMER_BYTES_MAX`] bytes.
    pub consumer: String,
    /// Deliveries that may be sent, 0 to [`crate::limits::CREDIT_MAX`]. Each one sent takes one away.
    pub credit: u32,
    /// [`super::Dequeue::visibility_ms`].
    #[serde(default)]
    pub visibility_ms: u32,
}

/// Answer to [`Subscribe`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Number of the subscription on this connection: the request id of its `Subscribe`.
    pub subscription: u64,
}

/// A push: deliveries of a subscription, or its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// [`Subscribed::subscription`].
    pub subscription: u64,
    /// At least one, unless it has ended.
    pub deliveries: Vec<Delivery>,
    /// Why the node has ended it, if it has.
    #[serde(default)]
    pub error: Option<Error>,
}

/// Gives a subscription more credit. The sum is cut to [`crate::limits::CREDIT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// The subscription; `InvalidArgument` where the connection has none of this number.
    pub subscription: u64,
    /// Deliveries more that may be sent.
    pub more: u32,
}

/// Answer to [`Credit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credited {
    /// What it has now.
    pub credit: u32,
}

/// Ends a subscription. What was sent and not acknowledged is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// The subscription.
    pub subscription: u64,
}

/// Answer to [`Unsubscribe`]. No delivery of the subscription follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribed {}
