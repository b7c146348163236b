//! `trine up`: a cluster on this machine, each node a process of its own that talks over TCP as on machines of their own.
//!
//! ```text
//!   trine up ──┬── spawns ──> trine serve --node node1 ...   (stdin: a pipe that only the parent holds open)
//!              ├── spawns ──> trine serve --node node2 ...   (stderr: read by the parent, into DIR/node2/log)
//!              └── spawns ──> trine serve --node node3 ...
//! ```
//!
//! # In this order
//! 1. Everything is checked before anything is started or written: the ports are free, the directory is empty or ours,
//!    made for as many nodes, and in nobody else's use.
//! 2. The directory gets its marker with the cluster's number; `--fresh` empties it first.
//! 3. The nodes are started. When every node is ready, the addresses are printed.
//! 4. A node that ends is reported and started again after [`RESTART_MS`], unless `--no-restart`.
//! 5. At SIGINT, SIGTERM or SIGHUP the nodes are told to drain, and the exit code is 0 when all of them have ended by
//!    themselves. A second signal kills them.
//!
//! # Invariants
//! * No node outlives the parent, however that ends: the kernel closes the pipe, the node reads the end of its standard
//!   input and exits.
//! * The terminal cannot hold a node up: what it does not take is left out, and counted (see `log`).
//!
//! # Caveats
//! * Between the check of a port and its use by a node, another program may take it; the node then says so and `up` ends.
//! * A parent that is stopped (SIGSTOP) reads no logs: a node that then logs more than a pipe holds waits for it.
//! * All nodes are on one machine and one disk: this survives the loss of a process, not of the machine.

mod child;
mod directory;
mod log;
mod plan;
mod ports;
mod ready;

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{MEMORY_MB_DEFAULT, MEMORY_MB_MIN, Member};

use super::serve::{stop_signal, stop_signals};
use super::{Exit, Failure, say};
use child::{Ended, Supervised};
use directory::Directory;
use plan::Plan;

/// Milliseconds before a node that ended is started again: long enough not to spin, short enough not to be waited for.
const RESTART_MS: u64 = 2_000;
/// Nodes of a cluster on one machine.
pub(super) const NODES_MAX: u8 = 7;
/// Largest `--port-offset`: with it the highest port, the lock address of the seventh node, is still a port.
const PORT_OFFSET_MAX: u16 = u16::MAX - (8_999 + NODES_MAX as u16);

#[derive(Clone, Debug, Args)]
pub(super) struct UpArgs {
    /// Nodes to start; a cluster survives the loss of fewer than half of them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    pub(super) nodes: u8,
    /// Where the nodes keep everything.
    #[arg(long, env = "TRINE_DATA_DIR", default_value = "trine-data", value_name = "DIR")]
    pub(super) data_dir: PathBuf,
    /// Remove what an earlier cluster left in the data directory.
    #[arg(long)]
    pub(super) fresh: bool,
    /// Add this to every port.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(PORT_OFFSET_MAX)))]
    pub(super) port_offset: u16,
    /// Leave a node that ends down.
    #[arg(long)]
    pub(super) no_restart: bool,
    /// Raft groups; fixed when the cluster is made.
    #[arg(long, default_value_t = crate::config::GROUPS_DEFAULT)]
    pub(super) groups: u32,
    /// Nodes answer lock requests over HTTP with 307 and the leader's address, where they do not lead.
    #[arg(long)]
    pub(super) redirect_locks: bool,
    /// Redis as the cache's main memory, such as redis://127.0.0.1:6379/0. Without it the nodes keep the values themselves.
    #[arg(long, env = "TRINE_MAIN_MEMORY", hide_env_values = true, value_name = "URL")]
    pub(super) main_memory: Option<String>,
    /// Cache keys that begin so are written through, as in `trine serve`. May be given more than once.
    #[arg(long, value_name = "PREFIX")]
    pub(super) write_through: Vec<String>,
    /// MiB of memory that each node sizes its caches and buffers for, as in `trine serve`.
    #[arg(long, default_value_t = MEMORY_MB_DEFAULT, value_name = "MIB", value_parser = clap::value_parser!(u32).range(i64::from(MEMORY_MB_MIN)..))]
    pub(super) memory_mb: u32,
    /// What the nodes write into their logs, as in RUST_LOG; warnings and errors come to this terminal, too.
    #[arg(long = "log", default_value = "info", value_name = "FILTER")]
    pub(super) log_filter: String,
}

/// Looks whether a backup may be restored to this directory.
///
/// # Errors
/// Where something is in it.
pub(super) fn may_restore(path: &Path) -> Result<(), Failure> {
    directory::may_restore(path)
}

/// The members of a cluster in this directory, and the data directory of each.
pub(super) fn members(path: &Path, nodes: u8, groups: u32) -> Vec<(Member, PathBuf)> {
    let args = UpArgs {
        nodes,
        data_dir: path.to_owned(),
        fresh: false,
        port_offset: 0,
        no_restart: false,
        groups,
        redirect_locks: false,
        main_memory: None,
        write_through: Vec::new(),
        memory_mb: MEMORY_MB_DEFAULT,
        log_filter: String::new(),
    };
    let plan = Plan::new(&args, 0);
    plan.nodes.iter().filter_map(|node| Some((node.member().parse().ok()?, node.data()))).collect()
}

/// A backup was restored to the nodes' directories: the cluster's marker says so.
///
/// # Errors
/// What the file system says.
pub(super) fn restored(path: &Path, cluster_id: u64, nodes: u8, groups: u32) -> Result<(), Failure> {
    directory::mark_restored(path, cluster_id, u32::from(nodes), groups)
}

/// Starts the cluster and keeps it up until it is told to stop.
pub(super) async fn run(args: UpArgs) -> Result<Exit, Failure> {
    let directory = Directory::check(&args.data_dir, u32::from(args.nodes), args.groups, args.fresh)?;
    ports::check(args.nodes, args.port_offset)?;
    let failed = |line: String| Failure::new(Exit::Failed, line);
    let mut signals = stop_signals().map_err(|error| failed(format!("signals cannot be waited for: {error}")))?;
    let directory = directory.take()?;
    let plan = Plan::new(&args, directory.cluster_id());
    let cluster = Cluster::start(&plan, !args.no_restart)?;
    let outcome = cluster.watch(&plan, &mut signals).await;
    // The lock on the directory is held until here: the nodes are gone.
    drop(directory);
    outcome
}

/// The running nodes.
struct Cluster {
    nodes: JoinSet<bool>,
    ended: mpsc::Receiver<Ended>,
    /// Cancelled: drain.
    stop: CancellationToken,
    /// Cancelled: end now.
    kill: CancellationToken,
    terminal: log::Terminal,
}

impl Cluster {
    fn start(plan: &Plan, restart: bool) -> Result<Self, Failure> {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (events, ended) = mpsc::channel(plan.nodes.len() * 2);
        let terminal = log::Terminal::start()?;
        let mut nodes = JoinSet::new();
        for node in &plan.nodes {
            let supervised = Supervised {
                node: node.clone(),
                restart,
                terminal: terminal.clone(),
                ended: events.clone(),
                stop: stop.clone(),
                kill: kill.clone(),
            };
            nodes.spawn(supervised.run());
        }
        Ok(Self { nodes, ended, stop, kill, terminal })
    }

    async fn watch(mut self, plan: &Plan, signals: &mut [tokio::signal::unix::Signal; 3]) -> Result<Exit, Failure> {
        let started = tokio::select! {
            () = ready::wait(plan, &self.terminal) => say(plan.announcement().as_bytes()),
            failure = failed_to_start(&mut self.ended) => Err(failure),
            () = stop_signal(signals) => return Ok(self.end(signals).await),
        };
        if let Err(failure) = started {
            self.end(signals).await;
            return Err(failure);
        }
        let all_down = tokio::select! {
            () = stop_signal(signals) => false,
            () = all_ended(&mut self.nodes) => true,
        };
        if all_down {
            return Err(Failure::new(Exit::Failed, "no node is left"));
        }
        self.terminal.print("trine: stopping; a second signal ends the nodes at once");
        Ok(self.end(signals).await)
    }

    /// Has every node end, and waits for that. Failed where one had to be killed.
    async fn end(mut self, signals: &mut [tokio::signal::unix::Signal; 3]) -> Exit {
        self.stop.cancel();
        let kill = self.kill.clone();
        let killing = async {
            stop_signal(signals).await;
            kill.cancel();
            std::future::pending::<()>().await;
        };
        let mut well = true;
        let waiting = async {
            while let Some(ended) = self.nodes.join_next().await {
                well &= ended.unwrap_or(false);
            }
        };
        tokio::select! {
            () = waiting => {}
            () = killing => {}
        }
        if well { Exit::Done } else { Exit::Failed }
    }
}

async fn all_ended(nodes: &mut JoinSet<bool>) {
    while nodes.join_next().await.is_some() {}
}

/// A node that says at its first start that it cannot run will say the same again: then the whole start has failed.
async fn failed_to_start(ended: &mut mpsc::Receiver<Ended>) -> Failure {
    loop {
        match ended.recv().await {
            Some(node) if node.by_itself => {
                return Failure::new(
                    Exit::Failed,
                    format!("{} {}; its log is {}", node.name, node.how, node.log.display()),
                );
            }
            // Killed from outside: it is started again like at any other time.
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}
