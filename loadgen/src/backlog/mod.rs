//! `backlog`: a queue that nobody empties for a while. Fill it, stop and start the cluster, empty it, and say what that took.
//!
//! ```text
//!   shallow: some thousand messages in, the same out, again and again     the rates to compare with
//!   fill:    --messages in, none out                                      rate, memory, disk
//!   restart: the cluster is told to stop, and started again               time until it is ready, memory
//!   drain:   everything out, each acknowledged                            rate, memory, and that every message was there
//!   after:   nothing to do                                                disk, until it is small again, or for a minute
//! ```
//!
//! The program starts the cluster itself, three processes on this machine, since it has to stop it in between and to look at its
//! memory (`/proc`) and at what its directories take (blocks, not lengths).
//!
//! # Caveats
//! - Generator and nodes share the machine, so rates are to be compared with each other, and with nothing else.
//! - Memory is what is resident, as the kernel counts it: pages that the allocator keeps count, the page cache does not.

mod cluster;
mod report;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::clock;
use crate::workload::Failure;

use cluster::Cluster;
use report::{Phase, Report};
use work::Work;

/// Messages that are put in at a time while the rates of a shallow queue are taken: what a node still has in memory.
const SHALLOW_MESSAGES: u64 = 3_000;
/// How often that is done; the first time warms up and does not count.
const SHALLOW_ROUNDS: u64 = 16;
/// After the drain the disk is looked at so often, for so long.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Fill a queue, restart, drain it; memory, disk and rates of each step.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// The program whose cluster is measured.
    #[arg(long, default_value = "target/release/trine", value_name = "FILE")]
    trine: PathBuf,
    /// Where the nodes keep everything: a directory that is empty or not there.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Messages of the backlog.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,
    /// Bytes of a body.
    #[arg(long, default_value_t = 1024)]
    value_bytes: usize,
    /// The nodes' bound on memory; without it, their default.
    #[arg(long, value_name = "MIB")]
    memory_mb: Option<u32>,
    /// Add this to every port of the cluster.
    #[arg(long, default_value_t = 0)]
    port_offset: u16,
    /// Connections.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Longest wait for the disk to be small again after the drain.
    #[arg(long, default_value = "60s", value_parser = crate::arguments::duration)]
    patience: Duration,
    /// Print one JSON object in place of a table.
    #[arg(long)]
    json: bool,
}

/// Runs all steps. Fails where a message is missing or a bound of the module's is broken.
pub(crate) async fn main(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut cluster = Cluster::start(arguments).await?;
    let mut report = Report::new(arguments, &cluster);
    let work = Work::connect(arguments, &cluster).await?;
    report.shallow = work.shallow(SHALLOW_MESSAGES.min(arguments.messages), SHALLOW_ROUNDS).await?;
    report.phase(Phase::Shallow, &cluster, Duration::ZERO, 0.0);

    let started = clock::now();
    work.fill().await?;
    let took = started.elapsed();
    report.phase(Phase::Fill, &cluster, took, per_second(arguments.messages, took));

    let started = clock::now();
    drop(work);
    cluster.stop().await?;
    cluster.restart(arguments).await?;
    let took = started.elapsed();
    let work = Work::connect(arguments, &cluster).await?;
    report.phase(Phase::Restart, &cluster, took, 0.0);

    let started = clock::now();
    report.missing = work.drain().await?;
    let took = started.elapsed();
    report.phase(Phase::Drain, &cluster, took, per_second(arguments.messages, took));

    let started = clock::now();
    while !report.is_small(&cluster) && started.elapsed() < arguments.patience {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    report.phase(Phase::After, &cluster, started.elapsed(), 0.0);
    drop(work);
    cluster.stop().await?;
    if arguments.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(if report.missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown to a few digits")]
fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}
