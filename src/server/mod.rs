//! The shell around the replicas: it performs their effects in order, and is the door for everything that asks.
//!
//! ```text
//!   sessions, REST --> NodeGateway --> Inbox --> replica task --> disk (log, state)
//!                        |    ^                    |    |
//!            SharedLines +    +------ Pending <----+    +--> Outbox --> other nodes
//! ```
//!
//! # Invariants
//! - All that a replica is told comes through its inbox; all that it wants done is done by its task, in order.
//! - Everything that waits here has a bound: inboxes, requests, messages for peers.
//!
//! # Caveats
//! - A panic in a replica's task stops the node: its state in memory can no longer be trusted, and the disk's can.

mod backup;
mod budget;
mod disk;
mod door;
mod gateway;
mod inbox;
mod lines;
mod listen;
mod listeners;
pub mod log_limit;
mod main_memory;
mod measure;
mod nodes;
mod peers;
mod pending;
mod probe;
mod process;
mod replica_task;
mod run;
mod watch;

pub use door::NodeGateway;
pub use gateway::{CallOptions, Gateway};
pub use lines::SharedLines;
pub use listen::CannotListen;
pub use listeners::Pushes;
pub use run::{ServeError, run};
