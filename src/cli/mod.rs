//! The command line: one binary that is the cluster on this machine, a single node, and the client.
//!
//! `trine` alone is `trine up`. What a subcommand does stands in its own file; what they share is here: the arguments of
//! clients (`client`), how an outcome becomes an exit code (`Exit`), and that an error is one line on standard error.
//! Answers go to standard output, as text for people and, with `--json`, as one JSON object a line for programs.
//!
//! # Exit codes
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | this program could not: a port in use, a directory that is not ours, standard input that cannot be read |
//! | 2 | the arguments are wrong |
//! | 3 | there is nothing: no such key, an empty queue, a lock that nobody holds, a delivery that is not in flight |
//! | 4 | refused: the lock is held by another, the token is stale, the value is too large |
//! | 5 | not done, and may be tried again: no node can be reached, no leader, a full buffer |
//! | 6 | unknown: it may have been done |
//! | 7 | done in part: a backup without the last cache writes of a node that did not answer |
//!
//! # Caveats
//! * Each invocation opens a connection of its own, and a session if it writes: scripts that loop are slower than programs.
//! * Credentials on the command line can be seen in the process table; `TRINE_CREDENTIALS` is the better place.

mod backup;
mod cache;
mod client;
mod cluster;
mod explain;
mod health;
mod lock;
mod queue;
mod restore;
mod serve;
mod status;
mod up;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use trine_protocol::error::Outcome;
use trine_protocol::{Error, ErrorCode};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  this program could not: a port in use, a directory that is not ours
  2  the arguments are wrong
  3  there is nothing: no such key, an empty queue, a lock that nobody holds
  4  refused: the lock is held by another, the token is stale
  5  not done, may be tried again: no node can be reached, no leader
  6  unknown: it may have been done
  7  done in part: the warning says what is missing";

/// A durable queue, a fenced lock and a coherent cache on a cluster of nodes. Alone, the same as `trine up`.
#[derive(Debug, Parser)]
#[command(name = "trine", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::UpArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster on this machine, each node a process of its own.
    Up(up::UpArgs),
    /// Runs one node.
    Serve(Box<crate::config::ServeArgs>),
    /// Reads and writes keys of the cache.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Puts messages into queues and takes them out.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Takes locks and gives them back.
    #[command(subcommand)]
    Lock(lock::LockCommand),
    /// Changes which nodes the cluster has, and who leads.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Writes the state of every group to a file, while clients go on working.
    Backup(backup::BackupArgs),
    /// Makes data directories of a new cluster from a backup.
    Restore(restore::RestoreArgs),
    /// Says how the cluster stands, node by node.
    Status(status::StatusArgs),
    /// Says whether the nodes that are named, and no others, are ready; for health checks.
    Health(health::HealthArgs),
}

/// How a subcommand ended, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Nothing = 3,
    Refused = 4,
    NotDone = 5,
    Unknown = 6,
    Incomplete = 7,
}

/// Why a subcommand did not do what it is for: one line, and the exit code.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    line: String,
}

impl Failure {
    fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: line.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match (error.code, error.code.outcome()) {
            (ErrorCode::NotInFlight | ErrorCode::LockNotHeld, _) => Exit::Nothing,
            (_, Outcome::Refused) => Exit::Refused,
            (_, Outcome::NotDone) => Exit::NotDone,
            (_, Outcome::Unknown) => Exit::Unknown,
        };
        let hint = if error.hint.is_empty() { String::new() } else { format!(" ({})", error.hint) };
        Self::new(exit, format!("{error}{hint}"))
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    run(std::env::args_os().collect())
}

fn run(arguments: Vec<OsString>) -> ExitCode {
    let parsed = Arguments::command().try_get_matches_from(arguments);
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors, and go to standard output; clap knows which is which.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Done } as u8);
        }
    };
    let outcome = match arguments.command.unwrap_or(Command::Up(arguments.up)) {
        Command::Up(args) => in_runtime(false, up::run(args)),
        Command::Serve(args) => in_runtime(true, serve::run(*args)),
        Command::Cache(command) => in_runtime(false, command.run()),
        Command::Queue(command) => in_runtime(false, command.run()),
        Command::Lock(command) => in_runtime(false, command.run()),
        Command::Cluster(command) => in_runtime(false, command.run()),
        Command::Backup(args) => in_runtime(false, backup::run(args)),
        Command::Restore(args) => in_runtime(false, restore::run(args)),
        Command::Status(args) => in_runtime(false, status::run(args)),
        Command::Health(args) => in_runtime(false, health::run(args)),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        complain(&failure.line);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

fn in_runtime(threads: bool, work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let mut builder = if threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("the system gives no threads or timers: {error}")))?;
    runtime.block_on(work)
}

/// One line on standard error. Where nobody reads it there is nothing left to do about that.
fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "trine: {}", line.replace('\n', " ")));
}

/// Bytes on standard output. A reader that has had enough (`trine status | head -1`) is no failure.
fn say(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn alone_it_is_up_and_takes_the_arguments_of_up() {
        let alone = Arguments::try_parse_from(["trine", "--nodes", "5", "--port-offset", "100"]).unwrap();
        assert!(alone.command.is_none());
        assert_eq!((alone.up.nodes, alone.up.port_offset), (5, 100));
        assert!(Arguments::try_parse_from(["trine", "--nodes", "8"]).is_err());
        assert!(Arguments::try_parse_from(["trine", "--nodes", "0"]).is_err());
        let named = Arguments::try_parse_from(["trine", "up", "--no-restart"]).unwrap();
        assert!(matches!(named.command, Some(Command::Up(up)) if up.no_restart && up.nodes == 3));
    }

    #[test]
    fn every_error_has_an_exit_code_that_says_whether_to_try_again() {
        for code in ErrorCode::ALL {
            let exit = Failure::from(Error::new(*code, "why")).exit;
            match code.outcome() {
                Outcome::Refused => assert!(matches!(exit, Exit::Refused | Exit::Nothing), "{}", code.name()),
                Outcome::NotDone => assert_eq!(exit, Exit::NotDone, "{}", code.name()),
                Outcome::Unknown => assert_eq!(exit, Exit::Unknown, "{}", code.name()),
            }
        }
    }
}
