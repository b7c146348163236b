//! Trine: a durable queue, a fenced lock and a coherent cache on a cluster of nodes.

pub mod backup;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ids;
pub mod lock;
pub mod marks;
pub mod metrics;
pub mod node;
pub mod queue;
pub mod raft;
pub mod record;
pub mod rest;
pub mod rules;
pub mod sequence;
pub mod server;
pub mod sim;
pub mod storage;
pub mod transport;
