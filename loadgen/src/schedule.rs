//! When requests are sent: a closed loop. Each client is one connection with a number of workers on it, and each
//! worker sends its next request as soon as it has the answer to its last.
//!
//! # Caveats
//! A closed loop slows down with the server, so its percentiles are those of requests that were sent, not of
//! requests that would have come. They compare two runs with the same number of workers, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::clock;
use crate::report::Report;
use crate::workload::{Failure, Worker, Workload};

/// Pause of a worker after a failure, so that a cluster without a leader is not asked a million times.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);

/// How much load, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Connections.
    pub(crate) clients: usize,
    /// Requests in flight on each connection.
    pub(crate) in_flight: usize,
    /// For how long rounds are begun.
    pub(crate) duration: Duration,
    /// Whether to look, afterwards, for what must not have happened.
    pub(crate) verify: bool,
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) measured: Duration,
    pub(crate) findings: Vec<(&'static str, u64)>,
}

/// Prepares, runs all workers to the end of the time, checks.
///
/// # Errors
/// Where a client cannot connect, or the preparation fails. A failure during the run is counted instead.
pub(crate) async fn run<W: Workload>(workload: Arc<W>, plan: &Plan) -> Result<Outcome, Failure> {
    let mut first = Worker::new(u64::MAX, workload.connect(0).await?);
    workload.prepare(&mut first).await?;
    let mut workers = Vec::new();
    for number in 0..plan.clients {
        let client = workload.connect(number).await?;
        for _ in 0..plan.in_flight {
            let worker_number = u64::try_from(workers.len()).unwrap_or(u64::MAX);
            workers.push(Worker::new(worker_number, client.clone()));
        }
    }
    let started = clock::now();
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let (workload, duration) = (Arc::clone(&workload), plan.duration);
        tasks.spawn(async move {
            while started.elapsed() < duration {
                if !workload.round(&mut worker).await {
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
                worker.rounds += 1;
            }
            worker.report
        });
    }
    let mut report = Report::default();
    for part in tasks.join_all().await {
        report.merge(part);
    }
    let measured = started.elapsed();
    let findings = if plan.verify { workload.verify(&mut first).await } else { Vec::new() };
    Ok(Outcome { report, measured, findings })
}
