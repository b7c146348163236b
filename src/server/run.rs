//! A node from its first port to its last goodbye.
//!
//! ```text
//!   bind ports -> open data -> make replicas -> storage threads -> replica tasks -> peers -> clients, HTTP
//!
//!   told to stop: no new connection, no new request -> drain (leadership away, dirty lines back; 10 s at most)
//!     -> goodbye to clients -> replicas -> storage flushed -> goodbye to peers
//! ```
//!
//! # Invariants
//! - Nothing is written before every port is bound.
//! - What goes wrong with the disk, or in a replica, ends the process with code 1 and one line: nothing is acknowledged after it.
//!
//! # Caveats
//! - That the nodes of a new cluster were started with the same members and the same `--replicas` is up to who starts them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trine_protocol::placement::Ring;

use crate::clock;
use crate::config::{ServeConfig, TimingArgs};
use crate::ids::{GroupId, Incarnation, ReplicaId};
use crate::metrics;
use crate::node::{Replica, Roster, Setup, Timing};
use crate::record::BadRecord;
use crate::rest;
use crate::rules::Faithful;
use crate::storage::{self, Recovered, StorageError, StorageStats, redis};
use crate::transport::peer::Arrivals;
use crate::transport::{Local, Outbox, Permits, listener, peer, session};

use super::budget::Budget;
use super::disk::{self, NodeDisk, Writers};
use super::door::{GroupDoor, Identity, NodeGateway};
use super::inbox::Inbox;
use super::lines::SharedLines;
use super::listen::{CannotListen, Listeners, raise_open_files};
use super::measure::Meter;
use super::nodes::Keeper;
use super::peers::NodePeers;
use super::pending::Pending;
use super::replica_task::{self, Shell, Standing};
use super::watch::Watch;
use super::{main_memory, probe, process};

/// Longest drain at a shutdown. What is not written back by then is in the journal.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Time for clients to be answered and told goodbye after the drain.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Time between two looks at what is not measured by its own events.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port is taken, or not ours to take.
    #[error("{0}")]
    Listen(#[from] CannotListen),
    /// The data directory is another's, damaged, or cannot be written.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A group's state on disk cannot be read.
    #[error("{group}: {source}")]
    State {
        /// The group.
        group: GroupId,
        /// What was wrong.
        source: BadRecord,
    },
    /// `--main-memory` is no URL of a Redis.
    #[error("--main-memory: {0}")]
    MainMemory(String),
    /// The operating system gives no randomness.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Runs a node until `shutdown` is cancelled, then drains it.
///
/// # Errors
/// Where it cannot start. What goes wrong later ends the process.
pub async fn run(config: ServeConfig, shutdown: CancellationToken) -> Result<(), ServeError> {
    raise_open_files();
    let listeners = Listeners::bind(&config).await?;
    warn_of_open_ports(&config);
    let blocking = config.clone();
    let budget = Budget::new(config.memory_mb, config.groups);
    let mut opened =
        tokio::task::spawn_blocking(move || disk::open(&blocking, &budget)).await.expect("opening does not panic")?;
    let identity = *opened.directory.identity();
    if opened.is_new() && !identity.joins && probe::was_known(&config, identity.incarnation.0, opened.cluster_id).await
    {
        tracing::warn!(
            "this node has lost its data directory, as others know it with another: it waits to be let in anew"
        );
        opened.directory.mark_joining()?;
    }
    let mut node = Node::start(&config, listeners, opened)?;
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = node.left.cancelled() => {}
        // A replica's task ends by itself only where it cannot go on, and has said why, or in a panic.
        ended = node.replicas.join_next() => die(&format!("a replica has ended: {ended:?}")),
    }
    node.stop().await;
    tracing::info!(node = %config.node, "stopped");
    Ok(())
}

/// Ends the process: something is broken that no answer may rest on.
fn die(reason: &str) {
    tracing::error!("this node cannot go on, and stops: {reason}");
    std::process::exit(1);
}

fn warn_of_open_ports(config: &ServeConfig) {
    if config.credentials.is_empty() && !config.listen_peer.is_loopback() {
        tracing::warn!(
            address = %config.listen_peer,
            "anybody who can reach this address can join the cluster: set --credentials, or listen on loopback only"
        );
    }
}

/// A running node.
struct Node {
    gateway: NodeGateway,
    inboxes: Vec<Arc<Inbox>>,
    standings: Vec<watch::Receiver<Standing>>,
    replicas: JoinSet<()>,
    writers: Writers,
    /// Cancelled when this node has left the cluster.
    left: CancellationToken,
    /// Cancelled to take no new connection and no new request.
    stop_accepting: CancellationToken,
    /// Cancelled to say goodbye to clients.
    close_clients: CancellationToken,
    clients: TaskTracker,
    stop_replicas: CancellationToken,
    close_peers: CancellationToken,
    peers: TaskTracker,
}

impl Node {
    fn start(config: &ServeConfig, listeners: Listeners, opened: disk::Opened) -> Result<Self, ServeError> {
        let cluster_id = opened.cluster_id;
        let (directory, recovered, log, state) = opened.into_parts();
        let storage::Identity { incarnation, joins, .. } = *directory.identity();
        let roster = directory.roster()?.unwrap_or_else(|| config.roster());
        let replicas = make_replicas(config, (incarnation, joins), &roster, recovered)?;
        let (heard, hears) = watch::channel(roster.clone());
        let (kept, nodes) = watch::channel(roster.clone());
        let inboxes: Vec<Arc<Inbox>> = replicas.iter().map(|_| Arc::default()).collect();
        let stats = Arc::new(StorageStats::default());
        let writers = Writers::start(log, state, &inboxes, &stats, die)?;
        let (outbox, backups) = (Outbox::default(), writers.backups());
        let lines = Arc::new(SharedLines::new(config.groups));
        let pending = Arc::new(Pending::default());
        let authority = config.main_memory_ca.as_ref().map(std::fs::read).transpose();
        let authority = authority.map_err(|error| ServeError::MainMemory(format!("--main-memory-ca: {error}")))?;
        let redis = config.main_memory.as_deref().map(|url| redis::Server::new(url, cluster_id, authority)).transpose();
        let redis = redis.map_err(ServeError::MainMemory)?;
        let (inboxes_, lines_, pending_) = (&inboxes, &lines, &pending);
        let (outbox_, heard_) = (&outbox, &heard);
        let started =
            Started { inboxes: inboxes_, lines: lines_, pending: pending_, outbox: outbox_, heard: heard_, redis };
        let stop_replicas = CancellationToken::new();
        let (replicas, standings) = started.replicas(replicas, &Arc::new(writers.disk()), &stop_replicas);
        let doors = inboxes.iter().zip(&standings);
        let groups = doors.map(|(inbox, standing)| GroupDoor { inbox: Arc::clone(inbox), standing: standing.clone() });
        let identity = Identity { node: config.node, cluster_id, incarnation, joins, nodes: nodes.clone() };
        let ring = Ring::new(config.groups).expect("the number of groups was checked");
        let gateway = NodeGateway::new(identity, ring, groups.collect(), lines, pending, stats, Some(backups));
        let node = Self {
            gateway,
            inboxes: inboxes.clone(),
            standings,
            replicas,
            writers,
            left: CancellationToken::new(),
            stop_accepting: CancellationToken::new(),
            close_clients: CancellationToken::new(),
            clients: TaskTracker::new(),
            stop_replicas,
            close_peers: CancellationToken::new(),
            peers: TaskTracker::new(),
        };
        let credentials = config.credentials.clone();
        let local = Local { node: config.node, incarnation, cluster_id, groups: config.groups, credentials };
        let keeper = Keeper {
            replica: ReplicaId::of(config.node, incarnation, joins),
            outbox,
            door: NodePeers::new(config.node, nodes, inboxes.clone(), directory, die),
            local: Arc::new(local),
            inboxes,
            standings: node.standings.clone(),
            peers: node.peers.clone(),
            close: node.close_peers.clone(),
            left: node.left.clone(),
            fatal: die,
        };
        node.connect(&keeper, listeners.peer);
        keeper.connect(&roster);
        node.peers.spawn(keeper.run(hears, kept));
        node.open(config, cluster_id, incarnation, listeners.client, listeners.http);
        Ok(node)
    }

    /// Lets the other nodes connect.
    fn connect(&self, keeper: &Keeper, listener: TcpListener) {
        let (local, door) = (Arc::clone(&keeper.local), keeper.door.clone());
        let (arrivals, close) = (Arrivals::default(), self.close_peers.clone());
        let serve = move |connection| {
            peer::serve(connection, Arc::clone(&local), door.clone(), arrivals.clone(), close.clone())
        };
        let accepting = (Permits::for_peers(), self.peers.clone(), self.close_peers.clone());
        self.peers.spawn(listener::accept(listener, accepting.0, accepting.1, accepting.2, serve));
    }

    /// Opens the doors for clients.
    fn open(
        &self,
        config: &ServeConfig,
        cluster_id: u64,
        incarnation: Incarnation,
        client: TcpListener,
        http: Vec<TcpListener>,
    ) {
        let credentials = config.credentials.clone();
        let local = Arc::new(Local { node: config.node, incarnation, cluster_id, groups: config.groups, credentials });
        let (gateway, close) = (self.gateway.clone(), self.close_clients.clone());
        let serve = move |connection| session::serve(connection, Arc::clone(&local), gateway.clone(), close.clone());
        let accepting = (Permits::for_clients(), self.clients.clone(), self.stop_accepting.clone());
        self.clients.spawn(listener::accept(client, accepting.0, accepting.1, accepting.2, serve));
        let options = rest::RestOptions { redirect_locks: config.redirect_locks, ..rest::RestOptions::default() };
        self.clients.spawn(rest::serve(http, self.gateway.clone(), options, self.stop_accepting.clone()));
        self.peers.spawn(measure(self.gateway.clone(), config.data_dir.clone(), self.close_peers.clone()));
        tracing::info!(
            node = %config.node,
            cluster = format!("{cluster_id:016x}"),
            client = %config.listen_client,
            peer = %config.listen_peer,
            http = config.listen_http.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            "serving"
        );
    }

    async fn stop(mut self) {
        self.stop_accepting.cancel();
        self.gateway.shut_down();
        for inbox in &self.inboxes {
            inbox.drain();
        }
        if tokio::time::timeout(DRAIN_MAX, drained(&mut self.standings)).await.is_err() {
            tracing::warn!("not everything could be drained in {DRAIN_MAX:?}: the journal keeps what is left");
        }
        self.close_clients.cancel();
        self.clients.close();
        if tokio::time::timeout(GOODBYE_MAX, self.clients.wait()).await.is_err() {
            tracing::info!(clients = self.clients.len(), "some clients did not wait for their goodbye");
        }
        self.stop_replicas.cancel();
        while self.replicas.join_next().await.is_some() {}
        let writers = self.writers;
        // The disk's threads end by themselves; where one has failed, the process has ended with it.
        let _ = tokio::task::spawn_blocking(move || writers.stop()).await;
        self.close_peers.cancel();
        self.peers.close();
        let _ = tokio::time::timeout(GOODBYE_MAX, self.peers.wait()).await;
    }
}

/// Returns when every replica may go.
async fn drained(standings: &mut [watch::Receiver<Standing>]) {
    for standing in standings {
        // A replica that has ended will not drain any further.
        let _ = standing.wait_for(|standing| standing.drained).await;
    }
}

async fn measure(gateway: NodeGateway, data_dir: PathBuf, close: CancellationToken) {
    let mut every = tokio::time::interval(MEASURE_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = close.cancelled() => return,
        }
        gateway.measure();
        metrics::upkeep();
        let data_dir = data_dir.clone();
        // It fails only where the runtime ends, and then nobody looks any more.
        let _ = tokio::task::spawn_blocking(move || process::measure(&data_dir)).await;
    }
}

/// What every replica of a node shares.
struct Started<'a> {
    inboxes: &'a [Arc<Inbox>],
    lines: &'a Arc<SharedLines>,
    pending: &'a Arc<Pending>,
    outbox: &'a Outbox,
    heard: &'a watch::Sender<Roster>,
    redis: Option<redis::Server>,
}

impl Started<'_> {
    fn replicas(
        &self,
        replicas: Vec<Replica<Faithful>>,
        disk: &Arc<NodeDisk>,
        stop: &CancellationToken,
    ) -> (JoinSet<()>, Vec<watch::Receiver<Standing>>) {
        let (mut tasks, mut standings) = (JoinSet::new(), Vec::new());
        for ((number, replica), inbox) in (0..).zip(replicas).zip(self.inboxes) {
            let group = GroupId(number);
            let (standing, receiver) = watch::channel(replica_task::not_started(group));
            standings.push(receiver);
            let shell = Shell {
                group,
                inbox: Arc::clone(inbox),
                lines: Arc::clone(self.lines),
                pending: Arc::clone(self.pending),
                outbox: self.outbox.clone(),
                disk: Arc::clone(disk),
                standing,
                heard: self.heard.clone(),
                main_memory: self.redis.clone().map(|server| main_memory::start(group, server, Arc::clone(inbox))),
                meter: Meter::new(group),
                watch: Watch::default(),
                fatal: die,
            };
            tasks.spawn(replica_task::run(replica, shell, stop.clone()));
        }
        (tasks, standings)
    }
}

fn make_replicas(
    config: &ServeConfig,
    (incarnation, joins): (Incarnation, bool),
    roster: &Roster,
    mut recovered: std::collections::BTreeMap<GroupId, Recovered>,
) -> Result<Vec<Replica<Faithful>>, ServeError> {
    let now = clock::now();
    let mut timing = timing(config.timing);
    timing.cache.through.clone_from(&config.write_through);
    Budget::new(config.memory_mb, config.groups).divide(&mut timing);
    // The groups began with what every first node was started with, whatever the list of nodes says today.
    let founders = config.roster();
    // A group that this node takes no part in leaves no trace on its disk, so there it cannot know.
    let lived = joins || recovered.values().any(|found| found.hard_state.term > 0);
    let make = |number: u32| {
        let group = GroupId(number);
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(ServeError::Random)?;
        let setup = Setup {
            redis: config.main_memory.is_some(),
            group,
            node: config.node,
            incarnation,
            joins,
            lived_before: lived || !founders.placement(group, false).iter().any(|id| id.node == config.node),
            roster: roster.clone(),
            founders: if joins {
                Vec::new()
            } else {
                founders.placement(group, false).iter().map(|id| id.node).collect()
            },
            generation: 0, // A restored state says its own.
            seed: u64::from_le_bytes(seed),
            timing: timing.clone(),
        };
        let found = recovered.remove(&group).unwrap_or_default();
        Replica::new(setup, found, now).map_err(|source| ServeError::State { group, source })
    };
    (0..config.groups).map(make).collect()
}

/// The design's times, with what the arguments replace.
fn timing(args: TimingArgs) -> Timing {
    let mut timing = Timing::default();
    let set = |time: &mut u64, ms: Option<u64>| *time = ms.map_or(*time, |ms| ms * 1_000);
    set(&mut timing.heartbeat_us, args.heartbeat_ms);
    set(&mut timing.election_us_min, args.election_ms);
    set(&mut timing.election_us_max, args.election_ms.map(|ms| ms * 2));
    set(&mut timing.leader_lease_us, args.leader_lease_ms);
    set(&mut timing.cache.lease_us, args.bus_lease_ms);
    set(&mut timing.cache.dirty_us_max, args.dirty_ms_max);
    if args.bus_lease_ms.is_some() {
        timing.cache.renew_us = timing.cache.lease_us / 4;
    }
    timing
}
