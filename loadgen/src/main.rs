//! `trine-loadgen`: puts load on a Trine cluster and measures what a client sees.
//!
//! One workload a run: `queue` (enqueue, dequeue, acknowledge), `lock` (acquire, release), `cache` (reads and writes) or `mixed`, all
//! of them over the native protocol; or `rest`, what HTTP callers are known to do.
//! With `--verify` it also looks for what must never happen, such as a confirmed message that is gone, and ends with exit
//! code 1 where it finds any.
//!
//! `compare` does the same work on Trine and on other systems, in turn. `backlog` starts a cluster of its own and measures a deep queue.

mod arguments;
mod backlog;
mod cache;
mod checks;
mod clock;
mod compare;
mod live;
mod lock;
mod mixed;
mod native;
mod popularity;
mod queue;
mod report;
mod rest;
mod schedule;
mod tag;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arguments::{Load, Native};
use clap::{Args, Parser, Subcommand};
use schedule::{Outcome, Plan};
use workload::{Failure, Workload};

/// Puts load on a Trine cluster and measures what a client sees.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enqueue, dequeue, acknowledge.
    Queue(QueueArguments),
    /// Acquire, release.
    Lock(LockArguments),
    /// Read and write.
    Cache(CacheArguments),
    /// All three at once.
    Mixed(MixedArguments),
    /// Users of the REST addresses: queues, and one hot lock.
    Rest(RestCommand),
    /// The same work on Trine and on other systems, in turn.
    Compare(compare::Arguments),
    /// A deep backlog: fill, restart, drain.
    Backlog(backlog::Arguments),
}

#[derive(Debug, Args)]
struct QueueArguments {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    native: Native,
    /// Bytes of a body.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
}

#[derive(Debug, Args)]
struct LockArguments {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    native: Native,
    /// How long a grant is held before it is released.
    #[arg(long, default_value = "0s", value_parser = arguments::duration)]
    hold: Duration,
}

#[derive(Debug, Args)]
struct CacheArguments {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    native: Native,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Reads among the operations, in percent.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(0..=100))]
    read_percent: u64,
}

#[derive(Debug, Args)]
struct MixedArguments {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    native: Native,
    /// How many rounds of each, in proportion.
    #[arg(long, default_value = "queue=1,lock=1,cache=4")]
    shares: mixed::Shares,
    /// Bytes of a body or a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Reads among the operations of the cache, in percent.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(0..=100))]
    read_percent: u64,
}

#[derive(Debug, Args)]
struct RestCommand {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    rest: rest::RestArguments,
}

async fn run(command: &Command) -> Result<ExitCode, Failure> {
    let run = clock::run_number();
    let is_well = match command {
        Command::Queue(QueueArguments { load, native, value_bytes }) => {
            let workload = queue::Queues::new(native, run, *value_bytes, load.verify)?;
            drive("queue", workload, load, native.clients, native.in_flight).await?
        }
        Command::Lock(LockArguments { load, native, hold }) => {
            drive("lock", lock::Locks::new(native, run, *hold, load.verify)?, load, native.clients, native.in_flight)
                .await?
        }
        Command::Cache(CacheArguments { load, native, value_bytes, read_percent }) => {
            let workload = cache::Keys::new(native, run, *value_bytes, *read_percent, load.verify)?;
            drive("cache", workload, load, native.clients, native.in_flight).await?
        }
        Command::Mixed(MixedArguments { load, native, shares, value_bytes, read_percent }) => {
            let workload = mixed::Mixed {
                shares: *shares,
                queues: queue::Queues::new(native, run, *value_bytes, load.verify)?,
                locks: lock::Locks::new(native, run, Duration::ZERO, load.verify)?,
                keys: cache::Keys::new(native, run, *value_bytes, *read_percent, load.verify)?,
            };
            drive("mixed", workload, load, native.clients, native.in_flight).await?
        }
        Command::Rest(RestCommand { load, rest }) => {
            let workload = rest::Rest::new(rest, run, load.rate.is_some(), load.verify)?;
            drive("rest", workload, load, rest.all_users(), 1).await?
        }
        Command::Compare(arguments) => return Ok(compare::main(arguments).await),
        Command::Backlog(arguments) => return backlog::main(arguments).await,
    };
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn drive<W: Workload>(
    name: &str,
    workload: W,
    load: &Load,
    clients: usize,
    in_flight: usize,
) -> Result<bool, Failure> {
    let plan = load.plan(clients, in_flight)?;
    let outcome = schedule::run(Arc::new(workload), &plan).await?;
    Ok(show(name, load.json, &plan, &outcome))
}

/// Prints what a run found. Returns whether all is well: something was done, and no check found anything.
fn show(name: &str, json: bool, plan: &Plan, outcome: &Outcome) -> bool {
    if json {
        println!("{}", report::json::json(name, plan, outcome));
    } else {
        print!("{}", report::table::table(outcome));
    }
    outcome.report.done() > 0 && outcome.checks.as_ref().is_none_or(workload::Checks::is_clean)
}

// One thread: it shares the machine with what it measures, and hands nothing from one thread to another.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trine-loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}
