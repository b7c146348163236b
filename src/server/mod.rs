//! Performs what the replicas ask for, in order.

mod gateway;
mod lines;
pub mod log_limit;

pub use gateway::{CallOptions, Gateway};
pub use lines::SharedLines;
