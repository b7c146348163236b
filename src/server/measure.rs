//! What a replica holds and has done, read from it about once a second, and put into the metrics of its group.
//!
//! The pure modules keep plain numbers that cost no walk over what they hold: reading all of them takes microseconds,
//! whether a group has ten messages or ten million.
//!
//! # Invariants
//! - Nothing here changes what a replica does.
//!
//! # Caveats
//! - Ages are in log time, which stands still while a group has no leader: an age that does not grow is one of its signs.

use std::collections::BTreeMap;
use std::time::Duration;

use ::metrics::Gauge;
use trine_protocol::cluster::{GroupStatus, Role};

use crate::cache::{self, ByState};
use crate::ids::{GroupId, NodeId, Now};
use crate::node::Replica;
use crate::rules::Faithful;
use crate::{lock, metrics, queue, raft};

/// A replica's numbers at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    raft: raft::Stats,
    lags: Vec<(NodeId, u64)>,
    log_time_ms: u64,
    queue: queue::Totals,
    polls: usize,
    locks: lock::Stats,
    lock_counts: lock::Counts,
    cache: cache::Stats,
    cache_memory_bytes: usize,
    /// Copies in clients, and notices that some were to be dropped.
    copies: (usize, u64),
}

impl Sample {
    /// The numbers of a replica now.
    pub(super) fn of(replica: &Replica<Faithful>, now: Now) -> Self {
        let mut sample = Self { cache: replica.agent().stats(), copies: replica.copies(), ..Self::default() };
        if let Some(raft) = replica.raft() {
            (sample.raft, sample.lags, sample.log_time_ms) = (raft.stats(), raft.lags(), raft.log_time_ms(now));
        }
        if let Some(machine) = replica.machine() {
            (sample.queue, sample.polls) = (machine.queue().totals(), replica.polls());
            (sample.locks, sample.lock_counts) = (machine.lock().stats(), machine.lock().counts());
            sample.cache_memory_bytes = machine.memory().bytes();
        }
        sample
    }
}

/// The metrics of one group.
#[derive(Debug)]
pub(super) struct Meter {
    group: GroupId,
    pub(super) handles: metrics::Group,
    lags: BTreeMap<NodeId, Gauge>,
}

impl Meter {
    pub(super) fn new(group: GroupId) -> Self {
        Self { group, handles: metrics::Group::new(group.0), lags: BTreeMap::new() }
    }

    /// Sets what is set once a second.
    pub(super) fn measure(&mut self, now: Now, status: &GroupStatus, lines: ByState, sample: &Sample) {
        self.measure_raft(status, sample);
        self.measure_queue(sample);
        self.measure_lock(sample);
        self.measure_cache(now, status.bus_lease, lines, sample);
    }

    fn measure_raft(&mut self, status: &GroupStatus, sample: &Sample) {
        let raft = &mut self.handles.raft;
        raft.leader.set(one_if(status.role == Role::Leader));
        raft.leader_known.set(one_if(status.leader.is_some()));
        raft.term.set(status.term as f64);
        raft.commit_index.set(status.commit_index as f64);
        raft.applied_index.set(status.applied_index as f64);
        raft.elections.at(sample.raft.elections);
        raft.leader_changes.at(sample.raft.leader_changes);
        raft.refused_not_leader.at(sample.raft.refused_not_leader);
        raft.refused_overloaded.at(sample.raft.refused_overloaded);
        raft.refused_transferring.at(sample.raft.refused_transferring);
        // Who leads no more knows nothing of the others: what it knew last must not stay on the page.
        for gauge in self.lags.values() {
            gauge.set(0.0);
        }
        let group = self.group.0;
        for (peer, lag) in &sample.lags {
            let gauge = self.lags.entry(*peer).or_insert_with(|| metrics::raft_peer_lag(group, peer.as_str()));
            gauge.set(*lag as f64);
        }
    }

    fn measure_queue(&mut self, sample: &Sample) {
        let (queue, totals) = (&mut self.handles.queue, &sample.queue);
        queue.queues.set(totals.queues as f64);
        queue.ready.set(totals.ready as f64);
        queue.delayed.set(totals.delayed as f64);
        queue.dead.set(totals.dead as f64);
        queue.dedup_ids.set(totals.dedup_ids as f64);
        queue.polls.set(sample.polls as f64);
        queue.in_flight.set(totals.in_flight as f64);
        queue.bytes.set(totals.bytes as f64);
        queue.oldest_ready_seconds.set(age_seconds(sample.log_time_ms, totals.oldest_ready_ms));
        queue.enqueued.at(totals.counts.enqueued);
        queue.delivered.at(totals.counts.delivered);
        queue.redelivered.at(totals.counts.redelivered);
        queue.acknowledged.at(totals.counts.acknowledged);
        queue.timed_out.at(totals.counts.timed_out);
        queue.extended.at(totals.counts.extended);
        queue.given_back.at(totals.counts.given_back);
        queue.buried.at(totals.counts.buried);
        queue.redriven.at(totals.counts.redriven);
        queue.expired.at(totals.counts.expired);
        queue.dropped.at(totals.counts.dropped);
        queue.purged.at(totals.counts.purged);
        queue.refused.at(totals.counts.refused);
        queue.duplicates.at(totals.counts.duplicates);
    }

    fn measure_lock(&mut self, sample: &Sample) {
        let (lock, counts) = (&mut self.handles.lock, &sample.lock_counts);
        lock.held.set(sample.locks.held as f64);
        lock.oldest_held_seconds.set(age_seconds(sample.log_time_ms, sample.locks.oldest_granted_ms));
        lock.granted.at(counts.granted);
        lock.renewed.at(counts.renewed);
        lock.released.at(counts.released);
        lock.expired.at(counts.expired);
        lock.contended.at(counts.contended);
        lock.forced.at(counts.forced);
        lock.waiters.set(sample.locks.waiting as f64);
        lock.oldest_waiter_seconds.set(age_seconds(sample.log_time_ms, sample.locks.oldest_waiting_ms));
        lock.waits.at(counts.waited);
        lock.wait_timeouts.at(counts.timeouts);
        lock.waits_cancelled.at(counts.cancelled);
        lock.waits_abandoned.at(counts.abandoned);
        lock.deadlocks.at(counts.deadlocks);
        lock.fences.set(sample.locks.fences as f64);
    }

    fn measure_cache(&mut self, now: Now, lease: bool, lines: ByState, sample: &Sample) {
        let (cache, stats) = (&mut self.handles.cache, &sample.cache);
        cache.lines_modified.set(lines.modified as f64);
        cache.lines_exclusive.set(lines.exclusive as f64);
        cache.lines_shared.set(lines.shared as f64);
        cache.bytes.set(stats.bytes as f64);
        cache.memory_bytes.set(sample.cache_memory_bytes as f64);
        cache.dirty_lines.set(stats.dirty_lines as f64);
        cache.dirty_bytes.set(stats.dirty_bytes as f64);
        let dirty_us = stats.dirty_since_us.map_or(0, |since_us| now.mono_us.saturating_sub(since_us));
        cache.oldest_dirty_seconds.set(Duration::from_micros(dirty_us).as_secs_f64());
        cache.evictions.at(stats.counts.evictions);
        let (copies, notices) = sample.copies;
        cache.client_copies.set(copies as f64);
        cache.copy_notices.at(notices);
        cache.write_backs.at(stats.counts.write_backs);
        cache.writes_lost.at(stats.counts.lost);
        cache.checks.at(stats.counts.audits);
        cache.violations.at(stats.counts.violations);
        cache.lease.set(one_if(lease));
        cache.lease_lapses.at(stats.counts.lapses);
    }

    /// Notes how long locks were waited for.
    pub(super) fn waited(&self, waited_ms: Vec<u64>) {
        for waited_ms in waited_ms {
            self.handles.lock.wait_seconds.record(Duration::from_millis(waited_ms));
        }
    }

    /// Notes how long locks were held.
    pub(super) fn ended(&self, ended: Vec<lock::Ended>) {
        for lock::Ended { held_ms, expired } in ended {
            let lock = &self.handles.lock;
            let histogram = if expired { &lock.hold_seconds_expired } else { &lock.hold_seconds_released };
            histogram.record(Duration::from_millis(held_ms));
        }
    }
}

fn one_if(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// Seconds of log time since then; 0 where there is no then.
fn age_seconds(log_time_ms: u64, since_ms: Option<u64>) -> f64 {
    let age_ms = since_ms.map_or(0, |since_ms| log_time_ms.saturating_sub(since_ms));
    Duration::from_millis(age_ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_counts_from_its_beginning_and_is_nothing_without_one() {
        assert_eq!(age_seconds(5_500, Some(3_000)), 2.5);
        assert_eq!(age_seconds(5_500, None), 0.0);
        assert_eq!(age_seconds(1_000, Some(3_000)), 0.0, "a follower's log time may be behind the newest stamp");
    }

    #[test]
    fn who_leads_no_more_knows_of_no_lag() {
        let group = GroupId(906);
        let mut meter = Meter::new(group);
        let status = super::super::replica_task::not_started(group).status;
        let now = Now { mono_us: 7_000_000, wall_ms: 0 };
        let mut lag = |lags: &[(NodeId, u64)]| {
            let cache = cache::Stats { dirty_since_us: Some(4_500_000), ..cache::Stats::default() };
            let sample = Sample { lags: lags.to_vec(), cache, ..Sample::default() };
            meter.measure(now, &status, ByState::default(), &sample);
            let text = metrics::render();
            let value = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned);
            assert_eq!(value("trine_cache_oldest_dirty_seconds{group=\"906\"} "), Some("2.5".to_owned()));
            value("trine_raft_peer_lag_entries{group=\"906\",peer=\"node2\"} ")
        };
        assert_eq!(lag(&[]), None);
        assert_eq!(lag(&[(NodeId::numbered(2), 12)]), Some("12".to_owned()));
        assert_eq!(lag(&[]), Some("0".to_owned()));
    }
}
