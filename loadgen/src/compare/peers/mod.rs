//! The systems: Trine, and those that it is put beside. One file for each, with how its client is used and why.
//!
//! | system | rows | what an answer means |
//! | --- | --- | --- |
//! | [`trine`] | all | a majority has it on disk; an owned cache write: the owner's disk |
//! | [`etcd`] | locks, commit | a majority has it on disk |
//! | [`nats`] | queues, commit | a majority has it; disks are flushed every two minutes |
//! | [`rabbit`] | queues | a majority has it on disk |
//! | [`redis`] | all | one process has it, in memory or on disk |
//!
//! # Invariants
//! - A connection goes to one node, the `number`th in turn, and never on to another one: clients are spread evenly.
//! - Whatever a client can be told to wait for, it is told to wait for no shorter than the meter does.

pub(super) mod etcd;
pub(super) mod nats;
pub(super) mod rabbit;
pub(super) mod redis;
pub(super) mod trine;

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use crate::workload::Failure;

/// How long a peer may take to let a client in.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The address of the `number`th connection.
fn turn(addresses: &[String], number: usize) -> Result<&str, Failure> {
    addresses.get(number % addresses.len().max(1)).map(String::as_str).ok_or_else(|| Failure {
        name: "NoAddress",
        unknown: false,
        text: "no address was given".into(),
    })
}

/// Makes a failure of what a client said, under the name of what was tried. What a peer did all the same is not looked for, so
/// every outcome is called unknown.
fn failed<E: Display>(name: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure { name, unknown: true, text: error.to_string() }
}

/// Awaits a connection, but not for ever: some clients would try until there is somebody.
async fn connected<T>(address: &str, connect: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(CONNECT_TIME_MAX, connect).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(failure)) => Err(Failure { text: format!("{address}: {}", failure.text), ..failure }),
        Err(_) => {
            let text = format!("{address}: no connection within {CONNECT_TIME_MAX:?}");
            Err(Failure { name: "Unreachable", unknown: false, text })
        }
    }
}
