//! `trine-loadgen`: puts load on a Trine cluster over its native protocol and measures what a client sees.
//!
//! One workload a run: `queue` (enqueue, dequeue, acknowledge), `lock` (acquire, release) or `cache` (reads and writes).
//! With `--verify` it also looks for what must never happen, such as a confirmed message that is gone, and ends with exit
//! code 1 where it finds any.

mod cache;
mod clock;
mod lock;
mod native;
mod queue;
mod report;
mod schedule;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use schedule::{Outcome, Plan};
use workload::Failure;

/// Puts load on a Trine cluster and measures what a client sees.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// What to do.
    workload: Kind,
    /// Client addresses of the nodes, separated by commas.
    #[arg(
        long,
        env = "TRINE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:4101,127.0.0.1:4102,127.0.0.1:4103"
    )]
    endpoints: Vec<String>,
    /// Connections, spread over the endpoints.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Seconds.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Bytes of a queue body or a cache value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Queues, locks or keys.
    #[arg(long, default_value_t = 64)]
    names: usize,
    /// Reads among the operations of `cache`, in percent.
    #[arg(long, default_value_t = 90)]
    read_percent: u64,
    /// Look afterwards for lost and doubly acknowledged messages, tokens out of order, stale reads.
    #[arg(long)]
    verify: bool,
    /// Print one JSON object in place of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Enqueue, dequeue, acknowledge.
    Queue,
    /// Acquire, release.
    Lock,
    /// Read and write.
    Cache,
}

async fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let plan = Plan {
        clients: arguments.clients.max(1),
        in_flight: arguments.in_flight.max(1),
        duration: Duration::from_secs_f64(arguments.duration.clamp(0.001, 86_400.0)),
        verify: arguments.verify,
    };
    let (run, names, bytes) = (clock::run_number(), arguments.names, arguments.value_bytes);
    let endpoints = &arguments.endpoints;
    match arguments.workload {
        Kind::Queue => {
            schedule::run(Arc::new(queue::Queues::new(endpoints, run, names, bytes, plan.verify)), &plan).await
        }
        Kind::Lock => schedule::run(Arc::new(lock::Locks::new(endpoints, run, names)), &plan).await,
        Kind::Cache => {
            schedule::run(Arc::new(cache::Keys::new(endpoints, run, names, bytes, arguments.read_percent)), &plan).await
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match run(&arguments).await {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("trine-loadgen: {error}");
            return ExitCode::FAILURE;
        }
    };
    let text = if arguments.json {
        outcome.report.json(outcome.measured, &outcome.findings) + "\n"
    } else {
        outcome.report.table(outcome.measured, &outcome.findings)
    };
    print!("{text}");
    let clean = outcome.findings.iter().all(|(_, count)| *count == 0);
    if clean && outcome.report.done() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
