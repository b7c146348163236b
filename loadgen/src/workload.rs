//! What every workload has: preparation, rounds of operations by many workers, and a check afterwards.

use std::future::Future;

use trine_protocol::client::Client;
use trine_protocol::{Error, Request, Response};

use crate::clock;
use crate::report::Report;

/// Something to put load with.
pub(crate) trait Workload: Send + Sync + 'static {
    /// Makes what the rounds need. By one worker, before any round, and not measured.
    fn prepare(&self, worker: &mut Worker) -> impl Future<Output = Result<(), Error>> + Send;
    /// One round of one worker. False where an operation failed, so that the worker pauses.
    fn round(&self, worker: &mut Worker) -> impl Future<Output = bool> + Send;
    /// Looks for what must not have happened. By one worker, after all rounds, and not measured.
    fn verify(&self, worker: &mut Worker) -> impl Future<Output = Vec<(&'static str, u64)>> + Send;
}

/// One of the requests in flight: it sends the next one when it has the answer to the last.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its number in the run, from 0.
    pub(crate) number: u64,
    /// Rounds it has made.
    pub(crate) rounds: u64,
    /// What it counted.
    pub(crate) report: Report,
    client: Client,
    random: u64,
}

impl Worker {
    pub(crate) fn new(number: u64, client: Client) -> Self {
        Self { number, rounds: 0, report: Report::default(), client, random: number.wrapping_add(1) }
    }

    /// Sends a request and counts it under `name`.
    pub(crate) async fn measured(
        &mut self,
        name: &'static str,
        request: impl Into<Request>,
    ) -> Result<Response, Error> {
        self.measured_as(|_| name, request).await
    }

    /// Sends a request and counts it under a name that depends on the answer.
    pub(crate) async fn measured_as(
        &mut self,
        name: impl Fn(&Result<Response, Error>) -> &'static str,
        request: impl Into<Request>,
    ) -> Result<Response, Error> {
        let started = clock::now();
        let result = self.client.call(request.into()).await;
        let name = name(&result);
        self.report.record(name, started.elapsed(), result.as_ref().map(|_| ()).map_err(|error| error.code));
        result
    }

    /// Sends a request that is no part of the measurement.
    pub(crate) async fn call(&self, request: impl Into<Request>) -> Result<Response, Error> {
        self.client.call(request.into()).await
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
