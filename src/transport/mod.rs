//! Connections: who may have one, what travels on it, and when it ends.
//!
//! A [`Connection`] is a socket with its two buffers, cut into frames. [`listener`] accepts sockets and takes the
//! handshake; [`session`] is what a client's connection does after that, [`peer`] what a connection between nodes does.
//! None of them knows what a queue, a lock or a line is: a session hands requests to a
//! [`Gateway`](crate::server::Gateway), a peer's messages go to a [`PeerDoor`].
//!
//! ```text
//!                 listener ---- handshake ----+----> session -----> Gateway
//!   (permits)        |                        |
//!                    +-- one error, closed    +----> peer::incoming --> PeerDoor
//!
//!                      Outbox --> peer::outgoing --> handshake --> another node
//! ```
//!
//! # Invariants
//! - Every buffer, queue and wait has a named bound, and what is over it is refused, dropped or closed, never kept.
//! - Nothing is sent before a handshake was accepted but the one error that says why it was not.
//! - Between two nodes there is one connection for each direction. A newer one from the same node ends the older, and
//!   none of its messages are delivered before the older one's last: the order of messages is kept, losses are allowed.
//!
//! # Caveats
//! - There is no TLS yet. [`Connection`] takes any stream, so it fits underneath.
//! - A peer's messages share one connection, so a snapshot chunk holds up a heartbeat for as long as 1 MiB takes.

mod connection;
mod greeting;
pub mod limits;
pub mod listener;
pub mod peer;
pub mod session;
mod subscription;

pub use connection::{Connection, Progress};
pub use greeting::Local;
pub use limits::Permits;
pub use peer::{Outbox, PeerDoor};
