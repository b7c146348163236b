//! Handles of what belongs to the node as a whole: requests, connections, storage, the process.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use trine_protocol::error::Outcome;
use trine_protocol::{Command, Error};

use super::{counter, gauge, histogram};

/// Why something was refused: the values of the label of `trine_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The node has as many connections as it takes.
    TooManyConnections,
    /// No valid handshake within its time.
    Handshake,
    /// Missing or wrong credentials.
    Unauthenticated,
    /// Another cluster, an unknown node, or another incarnation of a known one.
    WrongCluster,
    /// Bytes that are no frame of the protocol.
    BadFrame,
    /// The connection has as many unanswered requests as it may have.
    TooManyInFlight,
    /// A replica's inbox or the table of waiting requests is full.
    Overloaded,
    /// The node is about to stop.
    ShuttingDown,
    /// The other side did not read for the time of the write deadline, or was silent for too long.
    Unresponsive,
}

impl Refused {
    const ALL: [(Self, &str); 9] = [
        (Self::TooManyConnections, "too_many_connections"),
        (Self::Handshake, "handshake"),
        (Self::Unauthenticated, "unauthenticated"),
        (Self::WrongCluster, "wrong_cluster"),
        (Self::BadFrame, "bad_frame"),
        (Self::TooManyInFlight, "too_many_in_flight"),
        (Self::Overloaded, "overloaded"),
        (Self::ShuttingDown, "shutting_down"),
        (Self::Unresponsive, "unresponsive"),
    ];
}

/// Frames, bytes and messages of one direction between nodes.
#[derive(Debug)]
pub struct Direction {
    /// Frames.
    pub frames: Counter,
    /// Bytes of the frames.
    pub bytes: Counter,
    /// Messages inside the frames.
    pub messages: Counter,
}

impl Direction {
    fn new(direction: &str) -> Self {
        let of = |name| counter(name, &[direction]);
        let (frames, bytes) = (of("trine_peer_frames_total"), of("trine_peer_bytes_total"));
        Self { frames, bytes, messages: of("trine_peer_messages_total") }
    }
}

/// The handles of a node that do not depend on a group.
#[derive(Debug)]
pub struct Node {
    requests: Vec<[Counter; 4]>,
    request_seconds: Vec<Histogram>,
    refused: Vec<Counter>,
    /// Hits by state: M, E, S.
    pub cache_hits: [Counter; 3],
    /// Reads that took the bus.
    pub cache_misses: Counter,
    /// Subscriptions of this node's clients.
    pub queue_consumers: Gauge,
    /// Deliveries that they may be sent.
    pub queue_credit: Gauge,
    /// Requests that wait for a replica.
    pub requests_in_flight: Gauge,
    /// Open connections of clients.
    pub connections_client: Gauge,
    /// Open connections from peers.
    pub connections_peer: Gauge,
    /// To other nodes.
    pub sent: Direction,
    /// From other nodes.
    pub received: Direction,
    /// Frames to clients.
    pub client_frames_sent: Counter,
    /// Bytes of them.
    pub client_bytes_sent: Counter,
    /// Frames from clients.
    pub client_frames_received: Counter,
    /// Bytes of them.
    pub client_bytes_received: Counter,
    /// Messages dropped because the peer is away.
    pub dropped_away: Counter,
    /// Messages dropped because a buffer was full.
    pub dropped_full: Counter,
    /// Seconds since the start.
    pub uptime_seconds: Gauge,
    /// Whether the node is ready.
    pub ready: Gauge,
}

impl Node {
    fn new() -> Self {
        let of_command = |command: &Command| {
            ["ok", "refused", "not_done", "unknown"]
                .map(|outcome| counter("trine_requests_total", &[command.name(), outcome]))
        };
        let seconds = |command: &Command| histogram("trine_request_seconds", &[command.name()]);
        gauge("trine_build_info", &[env!("CARGO_PKG_VERSION")]).set(1.0);
        Self {
            requests: Command::ALL.iter().map(of_command).collect(),
            request_seconds: Command::ALL.iter().map(seconds).collect(),
            refused: Refused::ALL.iter().map(|(_, reason)| counter("trine_refused_total", &[reason])).collect(),
            cache_hits: ["M", "E", "S"].map(|state| counter("trine_cache_hits_total", &[state])),
            cache_misses: counter("trine_cache_misses_total", &[]),
            queue_consumers: gauge("trine_queue_consumers", &[]),
            queue_credit: gauge("trine_queue_credit", &[]),
            requests_in_flight: gauge("trine_requests_in_flight", &[]),
            connections_client: gauge("trine_connections", &["client"]),
            connections_peer: gauge("trine_connections", &["peer"]),
            sent: Direction::new("sent"),
            received: Direction::new("received"),
            client_frames_sent: counter("trine_client_frames_total", &["sent"]),
            client_bytes_sent: counter("trine_client_bytes_total", &["sent"]),
            client_frames_received: counter("trine_client_frames_total", &["received"]),
            client_bytes_received: counter("trine_client_bytes_total", &["received"]),
            dropped_away: counter("trine_peer_dropped_total", &["away"]),
            dropped_full: counter("trine_peer_dropped_total", &["full"]),
            uptime_seconds: gauge("trine_uptime_seconds", &[]),
            ready: gauge("trine_ready", &[]),
        }
    }

    /// Counts an answered request.
    pub fn answered<T>(&self, command: Command, result: &Result<T, Error>, took: Duration) {
        let outcome = match result.as_ref().map_err(|error| error.code.outcome()) {
            Ok(_) => 0,
            Err(Outcome::Refused) => 1,
            Err(Outcome::NotDone) => 2,
            Err(Outcome::Unknown) => 3,
        };
        let position = Command::ALL.iter().position(|known| *known == command).expect("every command is in the table");
        self.requests[position][outcome].increment(1);
        self.request_seconds[position].record(took);
    }

    /// Counts a refusal.
    pub fn refuse(&self, reason: Refused) {
        let position =
            Refused::ALL.iter().position(|(known, _)| *known == reason).expect("every reason is in the list");
        self.refused[position].increment(1);
    }
}

/// The handles of the node.
pub fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(Node::new)
}

/// The handles of a node's storage.
#[derive(Debug)]
pub struct Storage {
    /// Time to put one write into the log's file, before its fdatasync.
    pub log_append_seconds: Histogram,
    /// Time of one fdatasync of the log.
    pub log_fsync_seconds: Histogram,
    /// Rounds of the log.
    pub log_rounds: Counter,
    /// Writes to the log.
    pub log_writes: Counter,
    /// Writes that wait for the log.
    pub log_waiting: Gauge,
    /// Bytes of the log.
    pub log_bytes: Gauge,
    /// Bytes of the state store.
    pub state_bytes: Gauge,
    /// Bytes of the files that bodies of messages have to themselves.
    pub queue_disk_bytes: Gauge,
    /// Bytes of the bodies in them that wait or are in flight.
    pub queue_live_bytes: Gauge,
    /// Time to make the state store durable.
    pub state_fsync_seconds: Histogram,
    /// Checkpoints.
    pub checkpoints: Counter,
    /// Snapshots that were installed.
    pub snapshots_installed: Counter,
}

/// The handles of the node's storage.
pub fn storage() -> &'static Storage {
    static STORAGE: OnceLock<Storage> = OnceLock::new();
    STORAGE.get_or_init(|| Storage {
        log_append_seconds: histogram("trine_log_append_seconds", &[]),
        log_fsync_seconds: histogram("trine_log_fsync_seconds", &[]),
        log_rounds: counter("trine_log_rounds_total", &[]),
        log_writes: counter("trine_log_writes_total", &[]),
        log_waiting: gauge("trine_log_waiting", &[]),
        log_bytes: gauge("trine_log_disk_bytes", &[]),
        state_bytes: gauge("trine_state_disk_bytes", &[]),
        queue_disk_bytes: gauge("trine_queue_disk_bytes", &[]),
        queue_live_bytes: gauge("trine_queue_live_bytes", &[]),
        state_fsync_seconds: histogram("trine_state_fsync_seconds", &[]),
        checkpoints: counter("trine_state_checkpoints_total", &[]),
        snapshots_installed: counter("trine_snapshots_installed_total", &[]),
    })
}

/// Whether this node's connection to a peer stands.
pub fn peer_connected(peer: &str) -> Gauge {
    gauge("trine_peer_connected", &[peer])
}

/// The handles of what the operating system says of the process and its disk.
#[derive(Debug)]
pub struct Process {
    /// Files and sockets that are open.
    pub open_files: Gauge,
    /// How many may be.
    pub open_files_max: Gauge,
    /// Memory that is in use.
    pub memory_bytes: Gauge,
    /// What is free, to this process, of the file system with the data directory.
    pub disk_free_bytes: Gauge,
    /// How large that file system is.
    pub disk_size_bytes: Gauge,
}

/// The handles of the process.
pub fn process() -> &'static Process {
    static PROCESS: OnceLock<Process> = OnceLock::new();
    PROCESS.get_or_init(|| Process {
        open_files: gauge("trine_open_files", &[]),
        open_files_max: gauge("trine_open_files_max", &[]),
        memory_bytes: gauge("trine_memory_bytes", &[]),
        disk_free_bytes: gauge("trine_disk_free_bytes", &[]),
        disk_size_bytes: gauge("trine_disk_size_bytes", &[]),
    })
}
