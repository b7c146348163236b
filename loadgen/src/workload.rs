//! What every workload has: connections, preparation, rounds of operations by many workers, and a check afterwards.
//!
//! The generator knows nothing of what it drives: a workload says what one of its connections is, so that Trine's client,
//! a plain HTTP connection and the client of any other system are driven by the same code.

use std::future::Future;

use trine_protocol::Error;
use trine_protocol::error::Outcome;

use crate::clock;
use crate::report::Report;

/// Why an operation did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name}: {text}")]
pub(crate) struct Failure {
    /// What the report counts it under.
    pub(crate) name: &'static str,
    /// Whether it may have happened all the same.
    pub(crate) unknown: bool,
    /// For a person.
    pub(crate) text: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let unknown = error.code.outcome() == Outcome::Unknown;
        Self { name: error.code.name(), unknown, text: error.to_string() }
    }
}

/// Something to put load with.
pub(crate) trait Workload: Send + Sync + 'static {
    /// One TCP connection. The workers on it each have a clone, and their requests share it.
    type Connection: Clone + Send + Sync + 'static;

    /// Opens the `number`th connection of the run.
    fn connect(&self, number: usize) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;
    /// Makes what the rounds need. By one worker, before any round, and not measured.
    fn prepare(&self, worker: &mut Worker<Self::Connection>) -> impl Future<Output = Result<(), Failure>> + Send;
    /// One round of one worker. False where an operation failed, so that the worker pauses.
    fn round(&self, worker: &mut Worker<Self::Connection>) -> impl Future<Output = bool> + Send;
    /// Looks for what must not have happened. By one worker, after all rounds, and not measured.
    fn verify(&self, worker: &mut Worker<Self::Connection>) -> impl Future<Output = Vec<(&'static str, u64)>> + Send;
}

/// One of the requests in flight: it sends the next one when it has the answer to the last.
#[derive(Debug)]
pub(crate) struct Worker<C> {
    /// Its number in the run, from 0.
    pub(crate) number: u64,
    /// Rounds it has made.
    pub(crate) rounds: u64,
    /// What it counted.
    pub(crate) report: Report,
    /// What it sends on.
    pub(crate) connection: C,
    random: u64,
}

impl<C> Worker<C> {
    pub(crate) fn new(number: u64, connection: C) -> Self {
        Self { number, rounds: 0, report: Report::default(), connection, random: number.wrapping_add(1) }
    }

    /// Awaits an operation and counts it under `name`.
    pub(crate) async fn measured<T, E: Into<Failure>>(
        &mut self,
        name: &'static str,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        self.measured_as(|_| name, operation).await
    }

    /// Awaits an operation and counts it under a name that depends on what came of it.
    pub(crate) async fn measured_as<T, E: Into<Failure>>(
        &mut self,
        name: impl Fn(&Result<T, Failure>) -> &'static str,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let started = clock::now();
        let result = operation.await.map_err(Into::into);
        let name = name(&result);
        self.report.record(name, started.elapsed(), result.as_ref().map(|_| ()).map_err(|failure| failure.name));
        result
    }

    /// A number below `below`, in a sequence of this worker's own that is the same in every run (splitmix64).
    pub(crate) fn chance(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }
}
