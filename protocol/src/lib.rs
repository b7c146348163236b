//! The wire protocol of Trine: what a client and a node, and two nodes, say to each other.
//!
//! `README.md` beside this crate is the contract, complete enough to write a client from it alone; this crate is
//! its Rust form and knows nothing of the server.

pub mod cache;
#[cfg(feature = "client")]
pub mod client;
pub mod cluster;
pub mod codec;
pub mod command;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod lock;
pub mod placement;
pub mod push;
pub mod queue;
mod validate;

pub use command::{Command, Request, Response};
pub use error::{Error, ErrorCode};
pub use push::Push;
