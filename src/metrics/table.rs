//! The table of metrics: one line each, read by the recorder, the dashboards' tests and the alert rules' tests.

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, in [`Metric::buckets`].
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
    /// Upper bounds of a histogram's buckets, in its unit; empty for every other kind.
    pub buckets: &'static [f64],
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// Of requests: from a hit in the local cache to the longest deadline.
const REQUEST: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Of copies into the page cache: mostly microseconds, and very long only where the kernel makes the writer wait.
const APPEND: &[f64] =
    &[0.000_002, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5];
/// Of syncs: from a disk with a battery to one that hangs for as long as an election takes.
const SYNC: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Of commits: a sync and a round trip, up to the longest deadline of a request by default.
const COMMIT: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Of round trips: from the loopback device to the other side of the earth with a second of waiting.
const ROUND_TRIP: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.02, 0.04, 0.075, 0.15, 0.3, 0.6, 1.2];
/// Of a lock's life: from a critical section to the longest lease.
const HOLD: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0];
/// Of what a bus lease has left: steps of a tenth of the default lease of a second, finer where it gets tight.
const MARGIN: &[f64] = &[0.0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0];

macro_rules! table {
    ($($name:literal $kind:ident $unit:literal [$($label:literal),*] $(in $buckets:ident)? $help:literal;)*) => {
        /// Every metric of Trine.
        pub const TABLE: &[Metric] = &[$(Metric {
            name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], buckets: table!(@ $($buckets)?), help: $help,
        }),*];
    };
    (@ $buckets:ident) => { $buckets };
    (@) => { &[] };
}

table! {
    // The node.
    "trine_build_info" Gauge "info" ["version"] "Always 1; the version of the binary stands in the label.";
    "trine_uptime_seconds" Gauge "seconds" [] "Seconds since the process started, on the monotonic clock.";
    "trine_ready" Gauge "boolean" [] "1 where the node can serve all it is for, as /readyz says.";
    "trine_connections" Gauge "connections" ["role"] "Open connections by role: client, peer.";
    "trine_refused_total" Counter "refusals" ["reason"] "Connections and requests that were refused before any group saw them.";
    "trine_requests_total" Counter "requests" ["command", "outcome"] "Requests answered, by command and what the caller may conclude: ok, refused, not_done, unknown.";
    "trine_request_seconds" Histogram "seconds" ["command"] in REQUEST "Time from taking a request to its answer.";
    "trine_requests_in_flight" Gauge "requests" [] "Requests that wait for a replica's answer.";
    "trine_client_frames_total" Counter "frames" ["direction"] "Frames of the native protocol's clients, sent or received.";
    "trine_client_bytes_total" Counter "bytes" ["direction"] "Bytes of the native protocol's clients, sent or received.";
    "trine_open_files" Gauge "files" [] "Files and sockets that the process has open.";
    "trine_open_files_max" Gauge "files" [] "Files and sockets that the process may have open.";
    "trine_memory_bytes" Gauge "bytes" [] "Memory of the process that is in use, as the system counts it (resident set).";
    "trine_disk_free_bytes" Gauge "bytes" [] "Bytes that are free, to this process, on the file system of the data directory.";
    "trine_disk_size_bytes" Gauge "bytes" [] "Size of the file system of the data directory.";
    // Between nodes.
    "trine_peer_frames_total" Counter "frames" ["direction"] "Frames between nodes, sent or received.";
    "trine_peer_bytes_total" Counter "bytes" ["direction"] "Bytes of the frames between nodes, sent or received.";
    "trine_peer_messages_total" Counter "messages" ["direction"] "Messages inside the frames between nodes, sent or received.";
    "trine_peer_dropped_total" Counter "messages" ["reason"] "Messages between nodes that were thrown away: the peer is away, or a buffer was full.";
    "trine_peer_connected" Gauge "boolean" ["peer"] "1 where this node's connection to that peer stands.";
    "trine_peer_round_trip_seconds" Histogram "seconds" ["peer"] in ROUND_TRIP "Time from a leader's heartbeat without entries to the peer's answer.";
    // Consensus.
    "trine_raft_leader" Gauge "boolean" ["group"] "1 where this node leads the group.";
    "trine_raft_leader_known" Gauge "boolean" ["group"] "1 where this node knows who leads the group.";
    "trine_raft_term" Gauge "term" ["group"] "The newest term of the group that this node knows.";
    "trine_raft_commit_index" Gauge "index" ["group"] "Last entry of the group's log that this node knows committed.";
    "trine_raft_applied_index" Gauge "index" ["group"] "Last entry of the group's log that this node has applied.";
    "trine_raft_peer_lag_entries" Gauge "entries" ["group", "peer"] "Entries of the leader's log that the peer is not known to hold; 0 where this node does not lead.";
    "trine_raft_elections_total" Counter "elections" ["group"] "Elections that this node stood in.";
    "trine_raft_leader_changes_total" Counter "changes" ["group"] "Leaders that this node has come to know, one for each term that had one.";
    "trine_raft_proposals_refused_total" Counter "proposals" ["group", "reason"] "Commands that this node did not take into its log: not_leader, overloaded, transferring.";
    "trine_raft_commit_seconds" Histogram "seconds" ["group"] in COMMIT "Time on the leader from handing entries to its log to knowing them committed.";
    // Storage.
    "trine_log_append_seconds" Histogram "seconds" [] in APPEND "Time to put one write into the log's file, before its fdatasync.";
    "trine_log_fsync_seconds" Histogram "seconds" [] in SYNC "Time of one fdatasync of the log.";
    "trine_log_rounds_total" Counter "rounds" [] "Rounds of the log's writer: each takes what waits and ends with one fdatasync.";
    "trine_log_writes_total" Counter "writes" [] "Writes of replicas to the log; divided by the rounds, how many share an fdatasync.";
    "trine_log_waiting" Gauge "writes" [] "Writes that wait for the log's next round.";
    "trine_log_disk_bytes" Gauge "bytes" [] "Bytes of the log's segments on disk.";
    "trine_state_disk_bytes" Gauge "bytes" [] "Bytes of the state store on disk.";
    "trine_queue_disk_bytes" Gauge "bytes" [] "Bytes of the files that the bodies of waiting messages move to when the log forgets them.";
    "trine_queue_live_bytes" Gauge "bytes" [] "Bytes of the bodies in those files whose messages wait or are in flight.";
    "trine_state_fsync_seconds" Histogram "seconds" [] in SYNC "Time to make the state store durable.";
    "trine_state_checkpoints_total" Counter "checkpoints" [] "Checkpoints written to the state store.";
    "trine_snapshots_installed_total" Counter "snapshots" [] "Snapshots of a leader that replaced a group's state here.";
    // Queues, as this node has applied them.
    "trine_queues" Gauge "queues" ["group"] "Queues of the group that have messages or were declared.";
    "trine_queue_ready" Gauge "messages" ["group"] "Messages of the group's queues that wait for a consumer.";
    "trine_queue_delayed" Gauge "messages" ["group"] "Messages of the group's queues that are scheduled, or were given back and wait.";
    "trine_queue_dead" Gauge "messages" ["group"] "Messages of the group's queues that are handed out no more until they are redriven.";
    "trine_queue_dedup_ids" Gauge "ids" ["group"] "Ids of messages that are remembered so that none is taken twice.";
    "trine_queue_polls" Gauge "requests" ["group"] "Dequeues that wait for messages at this node, where it leads.";
    "trine_queue_consumers" Gauge "subscriptions" [] "Subscriptions of this node's clients.";
    "trine_queue_credit" Gauge "deliveries" [] "Deliveries that this node's subscriptions may be sent, as their clients have said.";
    "trine_queue_in_flight" Gauge "messages" ["group"] "Messages handed out and not yet acknowledged.";
    "trine_queue_bytes" Gauge "bytes" ["group"] "Bytes of the bodies of all messages, waiting or in flight.";
    "trine_queue_oldest_ready_seconds" Gauge "seconds" ["group"] "Age of the oldest message that waits for a consumer, in log time; 0 where none waits.";
    "trine_queue_enqueued_total" Counter "messages" ["group"] "Messages put into queues.";
    "trine_queue_delivered_total" Counter "deliveries" ["group"] "Deliveries to consumers, repeated ones included.";
    "trine_queue_redelivered_total" Counter "deliveries" ["group"] "Deliveries of messages that had been delivered before.";
    "trine_queue_acknowledged_total" Counter "messages" ["group"] "Messages removed by an acknowledgement.";
    "trine_queue_timed_out_total" Counter "deliveries" ["group"] "Deliveries whose visibility timeout ran out.";
    "trine_queue_extended_total" Counter "deliveries" ["group"] "Deliveries whose visibility timeout began anew.";
    "trine_queue_given_back_total" Counter "deliveries" ["group"] "Deliveries that their consumers gave back.";
    "trine_queue_buried_total" Counter "messages" ["group"] "Messages that died: handed out too often, rejected, or expired.";
    "trine_queue_redriven_total" Counter "messages" ["group"] "Dead messages that were made ready again.";
    "trine_queue_expired_total" Counter "messages" ["group"] "Messages whose time to live or age was over, dead or dropped.";
    "trine_queue_dropped_total" Counter "messages" ["group"] "Messages that made room for newer ones in a full queue.";
    "trine_queue_purged_total" Counter "messages" ["group"] "Messages that somebody purged.";
    "trine_queue_refused_total" Counter "messages" ["group"] "Messages refused because their queue, or the group, was full.";
    "trine_queue_duplicates_total" Counter "messages" ["group"] "Messages not taken because one with their id was there before.";
    // Locks, as this node has applied them.
    "trine_locks_held" Gauge "locks" ["group"] "Locks of the group that somebody holds.";
    "trine_lock_oldest_held_seconds" Gauge "seconds" ["group"] "How long the lock is held that is held for longest, in log time; 0 where none is.";
    "trine_lock_granted_total" Counter "grants" ["group"] "Locks granted.";
    "trine_lock_renewed_total" Counter "renewals" ["group"] "Leases of locks begun anew.";
    "trine_lock_released_total" Counter "releases" ["group"] "Locks given back by their holders.";
    "trine_lock_expired_total" Counter "expirations" ["group"] "Locks whose lease ran out before they were given back.";
    "trine_lock_contended_total" Counter "requests" ["group"] "Requests for a lock that could not be had at once.";
    "trine_lock_forced_total" Counter "grants" ["group"] "Grants that a person ended by force.";
    "trine_lock_waiters" Gauge "requests" ["group"] "Requests that wait for a lock.";
    "trine_lock_oldest_waiter_seconds" Gauge "seconds" ["group"] "How long the request has waited that has waited for longest, in log time; 0 where none does.";
    "trine_lock_waits_total" Counter "requests" ["group"] "Requests that began to wait for a lock.";
    "trine_lock_waits_ended_total" Counter "requests" ["group", "end"] "Waits that ended without a grant, by why: timeout, cancelled, abandoned (the client or its session is gone).";
    "trine_lock_deadlocks_total" Counter "requests" ["group"] "Requests refused because their client would have waited for itself.";
    "trine_lock_fences" Gauge "resources" ["group"] "Resources whose highest token is kept.";
    "trine_lock_wait_seconds" Histogram "seconds" ["group"] in HOLD "How long each grant was waited for, in log time; those that came at once are not in it.";
    "trine_lock_hold_seconds" Histogram "seconds" ["group", "end"] in HOLD "How long locks were held, in log time, by how that ended: released, expired.";
    // The cache.
    "trine_cache_hits_total" Counter "reads" ["state"] "Reads answered from this node's own cache, by the state of the line.";
    "trine_cache_misses_total" Counter "reads" [] "Reads that took the bus.";
    "trine_cache_lines" Gauge "lines" ["group", "state"] "Lines in this node's cache by their state: M, E, S.";
    "trine_cache_bytes" Gauge "bytes" ["group"] "Bytes of keys and values in this node's cache.";
    "trine_cache_memory_bytes" Gauge "bytes" ["group"] "Bytes of keys and values in the group's main memory, as this node has applied it.";
    "trine_cache_client_copies" Gauge "copies" ["group"] "Copies of this node's lines that its clients may read without asking it.";
    "trine_cache_copy_notices_total" Counter "notices" ["group"] "Notices to clients that copies are to be dropped.";
    "trine_cache_evictions_total" Counter "lines" ["group"] "Lines that went because others needed their room.";
    "trine_cache_dirty_lines" Gauge "lines" ["group"] "Values written on this node that main memory lacks.";
    "trine_cache_dirty_bytes" Gauge "bytes" ["group"] "Bytes of the values written on this node that main memory lacks.";
    "trine_cache_oldest_dirty_seconds" Gauge "seconds" ["group"] "How long main memory lacks the oldest value that it lacks; 0 where it lacks none.";
    "trine_cache_write_backs_total" Counter "values" ["group"] "Dirty values of this node that main memory has taken.";
    "trine_cache_writes_lost_total" Counter "values" ["group"] "Local writes discarded because the ownership was taken away before they were written back.";
    "trine_cache_coherence_checks_total" Counter "copies" ["group"] "Copies in this node's cache that the auditor compared with what their home has.";
    "trine_cache_coherence_violations_total" Counter "copies" ["group"] "Copies among those that were served and were not what their home had: a bug of Trine.";
    "trine_bus_lease" Gauge "boolean" ["group"] "1 where this node holds a valid lease on the group's bus, so that its cache serves hits.";
    "trine_bus_lease_margin_seconds" Histogram "seconds" ["group"] in MARGIN "What was left of a bus lease when its renewal arrived.";
    "trine_bus_lease_lapses_total" Counter "leases" ["group"] "Bus leases of this node that ended before they were renewed, or with their home.";
    "trine_bus_messages_total" Counter "messages" ["kind"] "Messages of the snoop bus sent to other nodes, by what they say.";
    "trine_bus_snoop_seconds" Histogram "seconds" ["group"] in ROUND_TRIP "Time from a home's first snoop of a transaction to a node's acknowledgement.";
}
