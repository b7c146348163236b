//! When rounds begin, and for how long: a closed loop or an open one.
//!
//! ```text
//!   closed   each worker begins its next round when its last one has ended
//!   open     rounds begin at times that were fixed before, whatever the cluster does
//!
//!   |-- warm-up --|------------- duration --------------|
//!   not recorded   recorded by the time that an operation was to begin
//! ```
//!
//! A run has `clients` connections with `in_flight` workers on each; a worker makes one round after the other, so the
//! product of the two bounds what is in flight in either loop.
//!
//! # Invariants
//! - In the open loop a latency counts from the *intended* start of its round, also when all workers are busy at that time.
//!   What a stalled server makes wait is in the percentiles, as it would be in the users' (no coordinated omission).
//! - Nothing that was begun is given up: a run ends when every round that was begun has ended.
//! - The choices of a worker follow from the seed and its number alone.
//!
//! # Caveats
//! - A closed loop slows down with the server, so its percentiles are those of requests that were sent, not of
//!   requests that would have come. They compare two runs with the same number of workers, and nothing else.
//! - In the open loop, which worker makes which round depends on who is free, so two runs with one seed make the same rounds
//!   in the same numbers only while the workers take turns alike.

mod closed;
mod open;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::clock;
use crate::live::{Gauge, Live, Look};
use crate::report::Report;
use crate::workload::{Checks, Failure, Worker, Workload};

pub(crate) use open::{Arrivals, Lateness, RATE_MAX};

/// Pause of a worker after a failure, so that a cluster without a leader is not asked a million times.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);

/// What decides when a round begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// The end of the worker's last one.
    Closed,
    /// A plan: so many rounds a second, over all workers.
    Open {
        /// Rounds per second.
        rate: f64,
        /// How they are spread.
        arrivals: Arrivals,
    },
}

/// How much load, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Connections.
    pub(crate) clients: usize,
    /// Workers on each connection, and so its requests in flight.
    pub(crate) in_flight: usize,
    /// What decides when a round begins.
    pub(crate) pace: Pace,
    /// For how long rounds are begun before any is recorded.
    pub(crate) warm_up: Duration,
    /// For how long rounds are begun after that.
    pub(crate) duration: Duration,
    /// Where the workers' choices begin.
    pub(crate) seed: u64,
    /// Whether to look, afterwards, for what must not have happened.
    pub(crate) verify: bool,
    /// What is shown while the run goes on.
    pub(crate) look: Look,
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Latencies and failures.
    pub(crate) report: Report,
    /// The time that the report is about.
    pub(crate) measured: Duration,
    /// How the open loop kept its plan; None in the closed one.
    pub(crate) lateness: Option<Lateness>,
    /// Processor time of the generator itself for the rounds, warm-up included.
    pub(crate) processor: Duration,
    /// How long the rounds took, warm-up included.
    pub(crate) elapsed: Duration,
    /// What the checks say; None where there were none.
    pub(crate) checks: Option<Checks>,
}

/// What the workers of one run share.
#[derive(Debug)]
struct Clockwork {
    started: Instant,
    measure_from: Instant,
    until: Instant,
    stop: AtomicBool,
}

impl Clockwork {
    fn new(plan: &Plan) -> Self {
        let started = clock::now();
        let measure_from = started + plan.warm_up;
        Self { started, measure_from, until: measure_from + plan.duration, stop: AtomicBool::new(false) }
    }

    /// Whether somebody wants no more of it.
    fn is_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether no round is to begin any more.
    fn is_over(&self) -> bool {
        self.is_interrupted() || clock::now() >= self.until
    }
}

/// Prepares, runs all workers to the end of the time, checks. An interrupt from the keyboard ends the rounds early, and what
/// was measured so far is the outcome; a second one ends the program.
///
/// # Errors
/// Where a client cannot connect, or the preparation fails. A failure during the run is counted instead.
pub(crate) async fn run<W: Workload>(workload: Arc<W>, plan: &Plan) -> Result<Outcome, Failure> {
    let mut first = Worker::new(u64::MAX, workload.connect(0).await?, plan.seed);
    workload.prepare(&mut first).await?;
    let workers = connect(&*workload, plan).await?;
    let live = Live::start(plan, workers.iter().map(|worker| worker.gauge.clone()).collect());
    let before = clock::processor_time();
    let clockwork = Arc::new(Clockwork::new(plan));
    let interrupt = tokio::spawn(stop_on_interrupt(clockwork.clone()));
    let (parts, lateness) = match plan.pace {
        Pace::Closed => (closed::run(&workload, workers, &clockwork).await, None),
        Pace::Open { rate, arrivals } => {
            let times = open::Times::new(rate, arrivals, plan.seed);
            let (parts, lateness) = open::run(&workload, workers, &clockwork, times).await;
            (parts, Some(lateness))
        }
    };
    interrupt.abort();
    let processor = clock::processor_time().saturating_sub(before);
    let elapsed = clockwork.started.elapsed();
    let mut report = Report::default();
    for part in parts {
        report.merge(part);
    }
    // Rounds that were begun in time and ended late lengthen the time that the rates are for.
    let measured = clockwork.measure_from.elapsed();
    live.finish();
    let checks = if plan.verify { Some(workload.verify(&mut first).await) } else { None };
    Ok(Outcome { report, measured, lateness, processor, elapsed, checks })
}

async fn connect<W: Workload>(workload: &W, plan: &Plan) -> Result<Vec<Worker<W::Connection>>, Failure> {
    let mut workers = Vec::new();
    for number in 0..plan.clients {
        let connection = workload.connect(number).await?;
        for _ in 0..plan.in_flight {
            let worker_number = u64::try_from(workers.len()).unwrap_or(u64::MAX);
            let mut worker = Worker::new(worker_number, connection.clone(), plan.seed);
            worker.gauge = Arc::new(Gauge::default());
            workers.push(worker);
        }
    }
    Ok(workers)
}

async fn stop_on_interrupt(clockwork: Arc<Clockwork>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        clockwork.stop.store(true, Ordering::Relaxed);
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    }
}

/// Awaits all workers and collects what they counted.
async fn reports(tasks: JoinSet<Report>) -> Vec<Report> {
    tasks.join_all().await
}
