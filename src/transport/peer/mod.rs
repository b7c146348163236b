//! Connections between nodes: one for each direction of each pair.
//!
//! A node sends over connections that it opened, and receives over those that others opened to it. What is to be
//! sent waits in a bounded queue per peer ([`Outbox`]); its task takes all that waits and puts it into as few frames as
//! fit ([`batch`]). What comes in is decoded and handed to the [`PeerDoor`] in its order.
//!
//! # Invariants
//! - Sending never waits. A message that finds its queue full, or its peer away, is dropped and counted: consensus and
//!   the bus send again what matters, and a message that waited for a reconnection would be stale.
//! - A message is delivered at most once, and those of one sender in the order of sending.
//!
//! # Caveats
//! - Nothing is compressed. Between machines of one network the processor is dearer than the wire.

pub mod batch;
mod incoming;
mod outgoing;

pub use incoming::{Arrivals, serve};
pub use outgoing::{Outbox, Peer, QUEUE_MESSAGES_MAX, Silence};

use std::future::Future;

use trine_protocol::Error;

use crate::ids::{GroupId, Incarnation, NodeId};
use crate::node::message::GroupMessage;

/// What connections between nodes need of the node. A trait, so that they are tested without one.
pub trait PeerDoor: Clone + Send + Sync + 'static {
    /// Whether a node of that name and incarnation belongs here; remembers the incarnation of one that does.
    ///
    /// # Errors
    /// `WrongCluster` for an unknown name, or another incarnation of a known one.
    fn admit(&self, node: NodeId, incarnation: Incarnation) -> impl Future<Output = Result<(), Error>> + Send;

    /// Another node says that it knows this one with another data directory.
    fn lost_data(&self, error: &Error);

    /// Takes a message, of about so many bytes, or drops it where its group is unknown or has too much waiting. Does not wait.
    fn deliver(&self, from: NodeId, group: GroupId, message: GroupMessage, bytes: usize);
}
