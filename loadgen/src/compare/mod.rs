//! `compare`: the same work on Trine and on the systems that people use for it today, side by side in one run.
//!
//! A figure of another system, taken elsewhere, says nothing about this machine's disk or cores; a ratio of two figures
//! that were taken one after the other, on one machine, by one generator, says a little. Each row of work ([`rows`]) is run
//! on Trine and then on each of its peers, and all of that `--runs` times; what is shown are medians and their ratio.
//!
//! ```text
//!   row lock-own-32   run 1: Trine | etcd x3 | Redis | Redis, always     each: connect, prepare, warm up, --seconds long
//!                     run 2: Trine | etcd x3 | ...                       medians of the runs; ratio above 1: Trine is better
//! ```
//!
//! # Why a row is fair
//! - The generator is that of the other workloads (`schedule`, a closed loop): the same number of clients, workers and bytes
//!   on both sides, one TCP connection that is worked on for each client, without Nagle's delay, spread over a system's nodes.
//! - What one unit of a row is, is written once for all systems (`work`), over three small traits (`systems`).
//! - A peer's client is used as its documentation tells a user who wants it fast; where that is not obvious, the peer's
//!   module says what was chosen and why. Names are new in each run, and what a run made is removed after it where that exists.
//! - The table says what an answer of the peer means: on how many disks it is, and whether they were flushed.
//!
//! # Invariants
//! - A rate counts what ended inside of the measured seconds. An operation that failed is shown with its text; where more than
//!   1 % fail in any run, or nothing succeeds, there is no ratio.
//! - A peer that is not there has no figures and makes the program end with 2.
//!
//! # Caveats
//! - All nodes, the peers' and ours, and the generator share the machine: a rate is what is left after the generator has
//!   had its part. Idle peers cost little, but not nothing: start only those that are compared.
//! - Where a system needs less time for an operation than its client does (the hits, Redis in memory), the generator is most of
//!   what is measured, and the ratio is nearer to 1 than that of the servers. A generator in C with explicit pipelines shows more
//!   of Redis.
//! - A closed loop slows down with the server. Compare rates with rates and latencies at the same number of clients.
//! - Trine's client goes to the leader where a peer's goes to the node it was given, so it may hold an idle connection beside
//!   the one it works on. RabbitMQ's client (lapin) has a thread for each connection, the others share the runtime's.
//! - Trine's acknowledgements, etcd's and Redis' are answered; those of NATS and RabbitMQ are sent and not answered, as users do.
//! - Redis is one process and replicates nothing, whatever it is compared with.

#[cfg(feature = "peers")]
mod contenders;
#[cfg(any(feature = "peers", test))]
mod figures;
#[cfg(any(feature = "peers", test))]
mod json;
#[cfg(feature = "peers")]
mod meter;
#[cfg(feature = "peers")]
mod peers;
mod rows;
#[cfg(feature = "peers")]
mod run;
#[cfg(feature = "peers")]
mod systems;
#[cfg(any(feature = "peers", test))]
mod table;
#[cfg(feature = "peers")]
mod work;

use std::process::ExitCode;

use clap::Args;

/// How to build this program so that it can do it.
#[cfg(not(feature = "peers"))]
const HOW_TO_BUILD: &str = "compare needs the clients of the peers, and is built with them (and protoc) by: \
    cargo run --release -p trine-loadgen --features peers -- compare";

/// The same work on Trine and on its peers, in turn, by the same generator.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Client addresses of Trine's nodes, separated by commas.
    #[arg(
        long,
        env = "TRINE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:4101,127.0.0.1:4102,127.0.0.1:4103"
    )]
    endpoints: Vec<String>,
    /// Client addresses of etcd's nodes.
    #[arg(
        long,
        env = "TRINE_PEER_ETCD",
        value_delimiter = ',',
        default_value = "127.0.0.1:12371,127.0.0.1:12372,127.0.0.1:12373"
    )]
    etcd: Vec<String>,
    /// Client addresses of the nodes of NATS, with JetStream.
    #[arg(
        long,
        env = "TRINE_PEER_NATS",
        value_delimiter = ',',
        default_value = "127.0.0.1:14221,127.0.0.1:14222,127.0.0.1:14223"
    )]
    nats: Vec<String>,
    /// AMQP addresses of RabbitMQ's nodes; user and password are `guest`.
    #[arg(
        long,
        env = "TRINE_PEER_RABBIT",
        value_delimiter = ',',
        default_value = "127.0.0.1:15671,127.0.0.1:15672,127.0.0.1:15673"
    )]
    rabbit: Vec<String>,
    /// Address of a Redis without persistence.
    #[arg(long, env = "TRINE_PEER_REDIS", default_value = "127.0.0.1:16379")]
    redis: String,
    /// Address of a Redis with `appendonly yes` and `appendfsync always`.
    #[arg(long, env = "TRINE_PEER_REDIS_AOF", default_value = "127.0.0.1:16380")]
    redis_aof: String,
    /// Rows to run, separated by commas; all where none is named. `--list` shows them.
    #[arg(long, value_delimiter = ',', value_parser = rows::find)]
    rows: Vec<&'static rows::Row>,
    /// How often each row is run; the medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// Measured seconds of each run on each system.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=300))]
    seconds: u32,
    /// Print one JSON array in place of the table.
    #[arg(long)]
    json: bool,
    /// Show the rows and end.
    #[arg(long)]
    list: bool,
}

/// Runs the rows that were asked for and prints what came of them.
pub(crate) async fn main(arguments: &Arguments) -> ExitCode {
    if arguments.list {
        print!("{}", rows::list());
        return ExitCode::SUCCESS;
    }
    #[cfg(feature = "peers")]
    return run::main(arguments).await;
    #[cfg(not(feature = "peers"))]
    {
        eprintln!("trine-loadgen: {HOW_TO_BUILD}");
        ExitCode::FAILURE
    }
}
