//! A node's disk, as its replicas see it: the two storage threads, with their times measured and their words put into inboxes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use crate::clock;
use crate::config::ServeConfig;
use crate::ids::GroupId;
use crate::metrics;
use crate::node::effect::{Checkpoint, Fetch, Input, Write};
use crate::raft::Snapshot;
use crate::storage::writer::{LogHandle, LogWriter, StateHandle, StateWriter};
use crate::storage::{
    BodyBytes, Claim, DataDirectory, LogStore, Recovered, SegmentLog, StateDisk, StateStore, StorageError, StorageStats,
};

use super::backup::{Backups, Tracker, Watched};
use super::budget::Budget;
use super::inbox::Inbox;
use super::replica_task::Disk;

/// A data directory in use, and what each group found in it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) directory: DataDirectory,
    pub(super) recovered: BTreeMap<GroupId, Recovered>,
    pub(super) cluster_id: u64,
    log: SegmentLog,
    state: StateDisk,
}

/// Opens the data directory, or makes it. Blocks.
pub(super) fn open(config: &ServeConfig, budget: &Budget) -> Result<Opened, StorageError> {
    let claim = Claim { node: config.node, cluster: config.cluster_id, groups: config.groups, joins: config.join };
    let crate::storage::Opened { directory, log, state, recovered } =
        crate::storage::open(&config.data_dir, &claim, budget.storage())?;
    let cluster_id = directory.identity().cluster.ok_or_else(|| StorageError::Refused {
        what: format!("{}: a first start needs --cluster-id, the same on every node", config.data_dir.display()),
    })?;
    Ok(Opened { directory, recovered, cluster_id, log, state })
}

/// The storage threads.
#[derive(Debug)]
pub(super) struct Writers {
    log: LogWriter<Measured<SegmentLog>>,
    state: StateWriter<Watched<Measured<StateDisk>>>,
    backups: Arc<Backups>,
}

/// What the replicas hand their writes to.
#[derive(Debug)]
pub(super) struct NodeDisk {
    log: LogHandle,
    state: StateHandle,
}

impl Writers {
    /// Starts the threads. What is durable is said to the inbox of its group; `fatal` hears of an error.
    pub(super) fn start(
        log: SegmentLog,
        state: StateDisk,
        inboxes: &[Arc<Inbox>],
        stats: &Arc<StorageStats>,
        fatal: fn(&str),
    ) -> Result<Self, StorageError> {
        // The threads say how large their files are after each round; until the first one it is what was found.
        stats.log_disk_bytes.store(log.bytes_on_disk(), Relaxed);
        stats.state_disk_bytes.store(state.bytes_on_disk(), Relaxed);
        let BodyBytes { disk, live } = state.body_bytes();
        stats.body_disk_bytes.store(disk, Relaxed);
        stats.body_live_bytes.store(live, Relaxed);
        let (persisted, done) = (inboxes.to_vec(), inboxes.to_vec());
        let fatal = move |error: StorageError| fatal(&error.to_string());
        let done = move |group: GroupId, input| {
            let inbox = &done[group.0 as usize];
            match input {
                Input::Checkpointed { index } => inbox.checkpointed(index),
                Input::Fetched { ticket, records } => inbox.fetched(ticket, records),
                other => panic!("storage has nothing to say of {other:?}"),
            }
        };
        let tracker = Arc::new(Tracker::default());
        let reader = state.reader();
        let backups = Arc::new(Backups::new(reader.clone(), Arc::clone(&tracker)));
        let state = Watched { store: Measured(state), tracker };
        let state = StateWriter::spawn(state, Some(Box::new(reader)), done, fatal, Arc::clone(stats), clock::mono_us)?;
        let completed = move |group: GroupId, sequence| persisted[group.0 as usize].persisted(sequence);
        let log = LogWriter::spawn(Measured(log), state.handle(), completed, fatal, Arc::clone(stats), clock::mono_us)?;
        Ok(Self { log, state, backups })
    }

    /// The copies that are made of the state.
    pub(super) fn backups(&self) -> Arc<Backups> {
        Arc::clone(&self.backups)
    }

    pub(super) fn disk(&self) -> NodeDisk {
        NodeDisk { log: self.log.handle(), state: self.state.handle() }
    }

    /// Does what waits, and ends the threads. Blocks.
    pub(super) fn stop(self) {
        // The log first: it may wait for a snapshot to be in the state store.
        drop(self.log.stop());
        drop(self.state.stop());
    }
}

impl Opened {
    /// Whether this is a directory that has never been used: the node has neither voted nor heard of the other nodes in it.
    pub(super) fn is_new(&self) -> bool {
        let unused = |it: &Recovered| it.hard_state.term == 0 && it.base.index == 0 && it.entries.is_empty();
        self.recovered.values().all(unused)
    }

    /// Its parts: the directory, what was recovered, and the stores for [`Writers::start`].
    pub(super) fn into_parts(self) -> (DataDirectory, BTreeMap<GroupId, Recovered>, SegmentLog, StateDisk) {
        (self.directory, self.recovered, self.log, self.state)
    }
}

// A thread that has ended takes nothing more, and reports nothing more: what would wait for it is never acknowledged. Either
// the process is about to end with an error, or the node has stopped its replicas already.
impl Disk for NodeDisk {
    async fn persist(&self, write: Write) {
        let _ = self.log.submit(write).await;
    }

    async fn checkpoint(&self, checkpoint: Checkpoint) {
        let _ = self.state.checkpoint(checkpoint).await;
    }

    async fn fetch(&self, fetch: Fetch) {
        let _ = self.state.fetch(fetch).await;
    }
}

/// A store whose syncs are timed.
#[derive(Debug)]
struct Measured<S>(S);

fn timed<T>(histogram: &::metrics::Histogram, work: impl FnOnce() -> T) -> T {
    let before_us = clock::mono_us();
    let result = work();
    histogram.record(Duration::from_micros(clock::mono_us().saturating_sub(before_us)));
    result
}

impl<L: LogStore> LogStore for Measured<L> {
    fn append(&mut self, write: &Write) -> Result<(), StorageError> {
        metrics::storage().log_writes.increment(1);
        timed(&metrics::storage().log_append_seconds, || self.0.append(write))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        metrics::storage().log_rounds.increment(1);
        timed(&metrics::storage().log_fsync_seconds, || self.0.sync())
    }

    fn idle(&mut self, now_us: u64) -> Result<(), StorageError> {
        self.0.idle(now_us)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.0.bytes_on_disk()
    }
}

impl<S: StateStore> StateStore for Measured<S> {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        metrics::storage().checkpoints.increment(1);
        self.0.checkpoint(checkpoint)
    }

    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        metrics::storage().snapshots_installed.increment(1);
        self.0.install(group, snapshot)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        timed(&metrics::storage().state_fsync_seconds, || self.0.sync())
    }

    fn read(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.0.read(group, key)
    }

    fn tend(&mut self) -> Result<bool, StorageError> {
        self.0.tend()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.0.bytes_on_disk()
    }

    fn body_bytes(&self) -> BodyBytes {
        self.0.body_bytes()
    }
}

/// Sets the gauges that the threads keep in numbers of their own.
pub(super) fn measure(stats: &StorageStats) {
    let gauges = metrics::storage();
    gauges.log_bytes.set(stats.log_disk_bytes.load(Relaxed) as f64);
    gauges.state_bytes.set(stats.state_disk_bytes.load(Relaxed) as f64);
    gauges.queue_disk_bytes.set(stats.body_disk_bytes.load(Relaxed) as f64);
    gauges.queue_live_bytes.set(stats.body_live_bytes.load(Relaxed) as f64);
    gauges.log_waiting.set(stats.log_waiting.load(Relaxed) as f64);
}
