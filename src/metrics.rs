//! Every metric, in one table, and the recorder that renders them for Prometheus.
//!
//! [`TABLE`] is what dashboards, alert rules and documentation are held against: name, kind, unit, labels, and a sentence.
//! Names begin with `trine_` and end with their unit; counters end with `_total`. What is counted on a hot path has a
//! handle made once ([`node`], [`Group`]), so that counting is one atomic addition and no look-up.
//!
//! # Invariants
//! - A metric that is not in [`TABLE`] cannot be made: handles come from [`counter`], [`gauge`] and [`histogram`], which
//!   assert that the name stands there with that kind and those labels.
//! - Labels have few values, all known when the node starts: no name of a queue, a lock or a key is ever one.
//!
//! # Caveats
//! - The recorder is one per process. Several nodes in one process, as in some tests, add up.
//! - Gauges of a group are set about once a second, not with every change.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use trine_protocol::error::Outcome;
use trine_protocol::{Command, Error};

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, in [`BUCKETS_SECONDS`].
    Histogram,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As Prometheus gets it.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// What it counts; it stands in the name too, unless it is a plain number of things.
    pub unit: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// Upper bounds of the histograms in seconds: from a hit in the local cache to the longest deadline.
pub const BUCKETS_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

macro_rules! table {
    ($($name:literal $kind:ident $unit:literal [$($label:literal),*] $help:literal;)*) => {
        /// Every metric of Trine.
        pub const TABLE: &[Metric] = &[$(Metric {
            name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help,
        }),*];
    };
}

table! {
    "trine_build_info" Gauge "info" ["version"] "Always 1; the version of the binary stands in the label.";
    "trine_uptime_seconds" Gauge "seconds" [] "Seconds since the process started, on the monotonic clock.";
    "trine_ready" Gauge "boolean" [] "1 where the node can serve all it is for, as /readyz says.";
    "trine_connections" Gauge "connections" ["role"] "Open connections by role: client, peer.";
    "trine_refused_total" Counter "refusals" ["reason"] "Connections and requests that were refused before any group saw them.";
    "trine_requests_total" Counter "requests" ["command", "outcome"] "Requests answered, by command and what the caller may conclude: ok, refused, not_done, unknown.";
    "trine_request_seconds" Histogram "seconds" ["command"] "Time from taking a request to its answer.";
    "trine_requests_in_flight" Gauge "requests" [] "Requests that wait for a replica's answer.";
    "trine_peer_frames_total" Counter "frames" ["direction"] "Frames between nodes, sent or received.";
    "trine_peer_bytes_total" Counter "bytes" ["direction"] "Bytes of the frames between nodes, sent or received.";
    "trine_peer_messages_total" Counter "messages" ["direction"] "Messages inside the frames between nodes, sent or received.";
    "trine_peer_dropped_total" Counter "messages" ["reason"] "Messages between nodes that were thrown away: the peer is away, or a buffer was full.";
    "trine_peer_connected" Gauge "boolean" ["peer"] "1 where this node's connection to that peer stands.";
    "trine_raft_leader" Gauge "boolean" ["group"] "1 where this node leads the group.";
    "trine_raft_term" Gauge "term" ["group"] "The newest term of the group that this node knows.";
    "trine_raft_commit_index" Gauge "index" ["group"] "Last entry of the group's log that this node knows committed.";
    "trine_raft_applied_index" Gauge "index" ["group"] "Last entry of the group's log that this node has applied.";
    "trine_log_fsync_seconds" Histogram "seconds" [] "Time of one fdatasync of the log.";
    "trine_log_rounds_total" Counter "rounds" [] "Rounds of the log's writer: each takes what waits and ends with one fdatasync.";
    "trine_log_writes_total" Counter "writes" [] "Writes of replicas to the log; divided by the rounds, how many share an fdatasync.";
    "trine_log_waiting" Gauge "writes" [] "Writes that wait for the log's next round.";
    "trine_log_disk_bytes" Gauge "bytes" [] "Bytes of the log's segments on disk.";
    "trine_state_disk_bytes" Gauge "bytes" [] "Bytes of the state store on disk.";
    "trine_state_fsync_seconds" Histogram "seconds" [] "Time to make the state store durable.";
    "trine_state_checkpoints_total" Counter "checkpoints" [] "Checkpoints written to the state store.";
    "trine_snapshots_installed_total" Counter "snapshots" [] "Snapshots of a leader that replaced a group's state here.";
    "trine_cache_hits_total" Counter "reads" ["state"] "Reads answered from this node's own cache, by the state of the line.";
    "trine_cache_misses_total" Counter "reads" [] "Reads that took the bus.";
    "trine_cache_lines" Gauge "lines" ["group"] "Lines in this node's cache.";
    "trine_bus_lease" Gauge "boolean" ["group"] "1 where this node holds a valid lease on the group's bus, so that its cache serves hits.";
    "trine_queue_ready" Gauge "messages" ["group"] "Messages of the group's queues that wait for a consumer, as this node has applied them.";
    "trine_queue_in_flight" Gauge "messages" ["group"] "Messages handed out and not yet acknowledged, as this node has applied them.";
    "trine_locks_held" Gauge "locks" ["group"] "Locks of the group that somebody holds, as this node has applied them.";
}

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Puts the recorder in place, once per process; further calls do nothing.
pub fn install() {
    HANDLE.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for metric in TABLE.iter().filter(|metric| metric.kind == Kind::Histogram) {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, BUCKETS_SECONDS).expect("the buckets are not empty");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Somebody who embeds this library may have a recorder already; then theirs is fed, and ours renders nothing.
        metrics::set_global_recorder(recorder).ok()?;
        describe();
        Some(handle)
    });
}

fn describe() {
    for metric in TABLE {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

/// Every metric in Prometheus' text form.
pub fn render() -> String {
    install();
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds what the histograms have gathered; without it they grow until somebody scrapes. To be called every few seconds.
pub fn upkeep() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}

fn labels(name: &'static str, kind: Kind, values: &[&str]) -> Vec<Label> {
    install();
    let metric = TABLE.iter().find(|metric| metric.name == name);
    let metric = metric.unwrap_or_else(|| panic!("{name} is not in the table of metrics"));
    assert_eq!(metric.kind, kind, "kind of {name}");
    assert_eq!(metric.labels.len(), values.len(), "labels of {name}");
    metric.labels.iter().zip(values).map(|(label, value)| Label::new(*label, (*value).to_owned())).collect()
}

/// A counter of the table, with the values of its labels in their order.
///
/// # Panics
/// Where the table has no such counter.
pub fn counter(name: &'static str, values: &[&str]) -> Counter {
    metrics::counter!(name, labels(name, Kind::Counter, values))
}

/// A gauge of the table, with the values of its labels in their order.
///
/// # Panics
/// Where the table has no such gauge.
pub fn gauge(name: &'static str, values: &[&str]) -> Gauge {
    metrics::gauge!(name, labels(name, Kind::Gauge, values))
}

/// A histogram of the table, with the values of its labels in their order.
///
/// # Panics
/// Where the table has no such histogram.
pub fn histogram(name: &'static str, values: &[&str]) -> Histogram {
    metrics::histogram!(name, labels(name, Kind::Histogram, values))
}

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
            requests_in_flight: gauge("trine_requests_in_flight", &[]),
            connections_client: gauge("trine_connections", &["client"]),
            connections_peer: gauge("trine_connections", &["peer"]),
            sent: Direction::new("sent"),
            received: Direction::new("received"),
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
        log_fsync_seconds: histogram("trine_log_fsync_seconds", &[]),
        log_rounds: counter("trine_log_rounds_total", &[]),
        log_writes: counter("trine_log_writes_total", &[]),
        log_waiting: gauge("trine_log_waiting", &[]),
        log_bytes: gauge("trine_log_disk_bytes", &[]),
        state_bytes: gauge("trine_state_disk_bytes", &[]),
        state_fsync_seconds: histogram("trine_state_fsync_seconds", &[]),
        checkpoints: counter("trine_state_checkpoints_total", &[]),
        snapshots_installed: counter("trine_snapshots_installed_total", &[]),
    })
}

/// The handles of one group.
#[derive(Debug)]
pub struct Group {
    /// Whether this node leads it.
    pub leader: Gauge,
    /// Its term.
    pub term: Gauge,
    /// Last committed entry.
    pub commit_index: Gauge,
    /// Last applied entry.
    pub applied_index: Gauge,
    /// Lines in the cache.
    pub cache_lines: Gauge,
    /// Whether there is a bus lease.
    pub bus_lease: Gauge,
    /// Messages that wait.
    pub queue_ready: Gauge,
    /// Messages that are being processed.
    pub queue_in_flight: Gauge,
    /// Locks that are held.
    pub locks_held: Gauge,
}

impl Group {
    /// The handles of the group of this number.
    pub fn new(group: u32) -> Self {
        let number = group.to_string();
        let of = |name| gauge(name, &[&number]);
        Self {
            leader: of("trine_raft_leader"),
            term: of("trine_raft_term"),
            commit_index: of("trine_raft_commit_index"),
            applied_index: of("trine_raft_applied_index"),
            cache_lines: of("trine_cache_lines"),
            bus_lease: of("trine_bus_lease"),
            queue_ready: of("trine_queue_ready"),
            queue_in_flight: of("trine_queue_in_flight"),
            locks_held: of("trine_locks_held"),
        }
    }
}

/// Whether this node's connection to a peer stands.
pub fn peer_connected(peer: &str) -> Gauge {
    gauge("trine_peer_connected", &[peer])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_carry_their_kind() {
        for (at, metric) in TABLE.iter().enumerate() {
            assert!(metric.name.starts_with("trine_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(TABLE[..at].iter().all(|other| other.name != metric.name), "{} stands twice", metric.name);
        }
    }

    #[test]
    fn an_answer_is_counted_by_command_and_outcome() {
        let line = |text: &str, start: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(start));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {start} in\n{text}"))
        };
        let unknown = "trine_requests_total{command=\"Renew\",outcome=\"unknown\"}";
        let ok = "trine_requests_total{command=\"Renew\",outcome=\"ok\"}";
        node();
        let before = render();
        let late = Err::<(), _>(Error::new(trine_protocol::ErrorCode::DeadlineExceeded, "late"));
        node().answered(Command::Renew, &late, Duration::from_millis(3));
        let after = render();
        assert_eq!(line(&after, unknown), line(&before, unknown) + 1);
        assert_eq!(line(&after, ok), line(&before, ok));
        assert!(after.contains("trine_request_seconds_bucket{command=\"Renew\",le=\"0.005\"}"), "{after}");
    }
}
