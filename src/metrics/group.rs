//! Handles of what belongs to one group on this node.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram};

use super::{counter, gauge, histogram};

/// A counter that follows a running count kept elsewhere. Where that begins anew, as with the state that a snapshot
/// brings, counting goes on from zero there.
#[derive(Debug)]
pub struct Following {
    counter: Counter,
    seen: u64,
}

impl Following {
    fn new(counter: Counter) -> Self {
        Self { counter, seen: 0 }
    }

    /// The count stands here now.
    pub fn at(&mut self, count: u64) {
        self.counter.increment(count.checked_sub(self.seen).unwrap_or(count));
        self.seen = count;
    }
}

macro_rules! handles {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $kind:ident $metric:literal $([$($label:literal),*])?,)* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name {
            $(#[doc = concat!("`", $metric, "`.")] pub $field: handles!(@type $kind),)*
        }

        impl $name {
            fn new(group: &str) -> Self {
                Self { $($field: handles!(@make $kind $metric, &[group $($(, $label)*)?]),)* }
            }
        }
    };
    (@type following) => { Following };
    (@type gauge) => { Gauge };
    (@type histogram) => { Histogram };
    (@make following $metric:literal, $labels:expr) => { Following::new(counter($metric, $labels)) };
    (@make gauge $metric:literal, $labels:expr) => { gauge($metric, $labels) };
    (@make histogram $metric:literal, $labels:expr) => { histogram($metric, $labels) };
}

handles! {
    /// Consensus.
    Raft {
        leader: gauge "trine_raft_leader",
        leader_known: gauge "trine_raft_leader_known",
        term: gauge "trine_raft_term",
        commit_index: gauge "trine_raft_commit_index",
        applied_index: gauge "trine_raft_applied_index",
        elections: following "trine_raft_elections_total",
        leader_changes: following "trine_raft_leader_changes_total",
        refused_not_leader: following "trine_raft_proposals_refused_total" ["not_leader"],
        refused_overloaded: following "trine_raft_proposals_refused_total" ["overloaded"],
        refused_transferring: following "trine_raft_proposals_refused_total" ["transferring"],
        commit_seconds: histogram "trine_raft_commit_seconds",
    }
}

handles! {
    /// Queues.
    Queue {
        queues: gauge "trine_queues",
        ready: gauge "trine_queue_ready",
        delayed: gauge "trine_queue_delayed",
        dead: gauge "trine_queue_dead",
        dedup_ids: gauge "trine_queue_dedup_ids",
        polls: gauge "trine_queue_polls",
        in_flight: gauge "trine_queue_in_flight",
        bytes: gauge "trine_queue_bytes",
        oldest_ready_seconds: gauge "trine_queue_oldest_ready_seconds",
        enqueued: following "trine_queue_enqueued_total",
        delivered: following "trine_queue_delivered_total",
        redelivered: following "trine_queue_redelivered_total",
        acknowledged: following "trine_queue_acknowledged_total",
        timed_out: following "trine_queue_timed_out_total",
        extended: following "trine_queue_extended_total",
        given_back: following "trine_queue_given_back_total",
        buried: following "trine_queue_buried_total",
        redriven: following "trine_queue_redriven_total",
        expired: following "trine_queue_expired_total",
        dropped: following "trine_queue_dropped_total",
        purged: following "trine_queue_purged_total",
        refused: following "trine_queue_refused_total",
        duplicates: following "trine_queue_duplicates_total",
    }
}

handles! {
    /// Locks.
    Lock {
        held: gauge "trine_locks_held",
        oldest_held_seconds: gauge "trine_lock_oldest_held_seconds",
        granted: following "trine_lock_granted_total",
        renewed: following "trine_lock_renewed_total",
        released: following "trine_lock_released_total",
        expired: following "trine_lock_expired_total",
        contended: following "trine_lock_contended_total",
        forced: following "trine_lock_forced_total",
        waiters: gauge "trine_lock_waiters",
        oldest_waiter_seconds: gauge "trine_lock_oldest_waiter_seconds",
        waits: following "trine_lock_waits_total",
        wait_timeouts: following "trine_lock_waits_ended_total" ["timeout"],
        waits_cancelled: following "trine_lock_waits_ended_total" ["cancelled"],
        waits_abandoned: following "trine_lock_waits_ended_total" ["abandoned"],
        deadlocks: following "trine_lock_deadlocks_total",
        fences: gauge "trine_lock_fences",
        wait_seconds: histogram "trine_lock_wait_seconds",
        hold_seconds_released: histogram "trine_lock_hold_seconds" ["released"],
        hold_seconds_expired: histogram "trine_lock_hold_seconds" ["expired"],
    }
}

handles! {
    /// The cache and its bus.
    Cache {
        lines_modified: gauge "trine_cache_lines" ["M"],
        lines_exclusive: gauge "trine_cache_lines" ["E"],
        lines_shared: gauge "trine_cache_lines" ["S"],
        bytes: gauge "trine_cache_bytes",
        memory_bytes: gauge "trine_cache_memory_bytes",
        evictions: following "trine_cache_evictions_total",
        client_copies: gauge "trine_cache_client_copies",
        copy_notices: following "trine_cache_copy_notices_total",
        dirty_lines: gauge "trine_cache_dirty_lines",
        dirty_bytes: gauge "trine_cache_dirty_bytes",
        oldest_dirty_seconds: gauge "trine_cache_oldest_dirty_seconds",
        write_backs: following "trine_cache_write_backs_total",
        writes_lost: following "trine_cache_writes_lost_total",
        checks: following "trine_cache_coherence_checks_total",
        violations: following "trine_cache_coherence_violations_total",
        lease: gauge "trine_bus_lease",
        lease_margin_seconds: histogram "trine_bus_lease_margin_seconds",
        lease_lapses: following "trine_bus_lease_lapses_total",
        snoop_seconds: histogram "trine_bus_snoop_seconds",
    }
}

/// The handles of one group.
#[derive(Debug)]
pub struct Group {
    /// Consensus.
    pub raft: Raft,
    /// Queues.
    pub queue: Queue,
    /// Locks.
    pub lock: Lock,
    /// The cache.
    pub cache: Cache,
}

impl Group {
    /// The handles of the group of this number.
    pub fn new(group: u32) -> Self {
        let group = group.to_string();
        Self { raft: Raft::new(&group), queue: Queue::new(&group), lock: Lock::new(&group), cache: Cache::new(&group) }
    }
}

/// Entries that a peer is not known to hold.
pub fn raft_peer_lag(group: u32, peer: &str) -> Gauge {
    gauge("trine_raft_peer_lag_entries", &[&group.to_string(), peer])
}

/// Time to a peer and back.
pub fn peer_round_trip(peer: &str) -> Histogram {
    histogram("trine_peer_round_trip_seconds", &[peer])
}

macro_rules! bus_kinds {
    ($($kind:ident,)*) => {
        /// What a message of the snoop bus says: the values of the label of `trine_bus_messages_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names of the messages, which `cache` explains")]
        pub enum BusKind { $($kind,)* }

        const BUS_KINDS: &[&str] = &[$(stringify!($kind),)*];
    };
}

bus_kinds! {
    Register, Renew, BusRd, BusRdX, BusUpgr, WriteBack, Release, Leave, SnoopAck,
    NotHome, Registered, Renewed, Lapsed, Filled, Owned, ReadFailed, WriteFailed, WrittenBack, Released, SnoopRd, SnoopInv,
    FillLease, FillReturn, FillAnswered, Audit, Audited,
}

/// Counts a message of the bus that is sent to another node.
pub fn bus_sent(kind: BusKind) {
    static KINDS: OnceLock<Vec<Counter>> = OnceLock::new();
    let make = || BUS_KINDS.iter().map(|kind| counter("trine_bus_messages_total", &[kind])).collect();
    KINDS.get_or_init(make)[kind as usize].increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_begins_anew_is_counted_on() {
        let metric = "trine_queue_enqueued_total";
        let value = || {
            let text = crate::metrics::render();
            let line = text.lines().find_map(|line| line.strip_prefix("trine_queue_enqueued_total{group=\"900\"}"));
            line.map_or(0, |value| value.trim().parse::<u64>().expect("a number"))
        };
        let mut following = Following::new(counter(metric, &["900"]));
        for (count, total) in [(3, 3), (10, 10), (10, 10), (2, 12), (5, 15)] {
            following.at(count);
            assert_eq!(value(), total, "at {count}");
        }
    }

    #[test]
    fn every_kind_of_message_has_a_counter_of_its_own() {
        assert_eq!((BusKind::SnoopInv as usize, BUS_KINDS[BusKind::SnoopInv as usize]), (20, "SnoopInv"));
        bus_sent(BusKind::BusUpgr);
        let text = crate::metrics::render();
        assert!(text.contains("trine_bus_messages_total{kind=\"BusUpgr\"} "), "{text}");
    }
}
