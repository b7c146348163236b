//! Performs what the replicas ask for, in order.

mod gateway;

pub use gateway::{CallOptions, Gateway};
