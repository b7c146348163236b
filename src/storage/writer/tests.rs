//! What the threads report, in which order, and what happens when they fail.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use trine_protocol::cache::Version;

use super::*;
use crate::cache::{JournalRecord, Versioned};
use crate::ids::{GroupId, NodeId};
use crate::node::effect::{Checkpoint, Fetch, Input, Write};
use crate::raft::Snapshot;
use crate::storage::testing::*;
use crate::storage::{Claim, LogOptions, LogStore, Opened, StateStore, StorageStats, open};

/// A clock that goes on by a millisecond with each look.
fn micros() -> u64 {
    static TIME_US: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    TIME_US.fetch_add(1000, Ordering::Relaxed)
}

/// What a double did and was told, in order.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Appended(GroupId, u64),
    Synced,
    Completed(GroupId, u64),
    Checkpoint(GroupId, u64),
    Installed(GroupId, u64),
    Told(GroupId, &'static str, u64),
    Fatal(String),
}

/// Notes what happens, and lets a test wait for it.
#[derive(Clone)]
struct Journal {
    events: Arc<Mutex<Vec<Event>>>,
    news: mpsc::Sender<()>,
}

impl Journal {
    fn new() -> (Self, mpsc::Receiver<()>) {
        let (news, heard) = mpsc::channel();
        (Self { events: Arc::default(), news }, heard)
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
        // A test that has seen enough no longer listens.
        let _ = self.news.send(());
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Waits until an event was noted.
    fn wait_for(&self, heard: &mpsc::Receiver<()>, event: &Event) {
        while !self.events().contains(event) {
            heard.recv().expect("the threads live as long as the test waits");
        }
    }
}

/// Both stores in name only: each sync waits for a word, which says whether it succeeds.
struct Double {
    journal: Journal,
    syncs: mpsc::Receiver<bool>,
}

impl Double {
    fn new(journal: &Journal) -> (Self, mpsc::Sender<bool>) {
        let (allow, syncs) = mpsc::channel();
        (Self { journal: journal.clone(), syncs }, allow)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        // Without a word the test is over, and the last sync of a stop succeeds.
        if !self.syncs.recv().unwrap_or(true) {
            return Err(StorageError::Io { what: "sync".to_owned(), source: std::io::Error::other("EIO") });
        }
        self.journal.note(Event::Synced);
        Ok(())
    }
}

impl LogStore for Double {
    fn append(&mut self, write: &Write) -> Result<(), StorageError> {
        assert_ne!(write.sequence, u64::MAX, "a bug of ours");
        self.journal.note(Event::Appended(write.group, write.sequence));
        Ok(())
    }
    fn sync(&mut self) -> Result<(), StorageError> {
        Self::sync(self)
    }
}

impl StateStore for Double {
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.journal.note(Event::Checkpoint(checkpoint.group, checkpoint.meta.index));
        Ok(())
    }
    fn install(&mut self, group: GroupId, snapshot: &Snapshot) -> Result<(), StorageError> {
        Self::sync(self)?;
        self.journal.note(Event::Installed(group, snapshot.meta.index));
        Ok(())
    }
    fn sync(&mut self) -> Result<(), StorageError> {
        Self::sync(self)
    }
    fn read(&self, _: GroupId, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(Some(Bytes::copy_from_slice(key)))
    }
}

/// Both threads over doubles.
struct Rig {
    journal: Journal,
    heard: mpsc::Receiver<()>,
    stats: Arc<StorageStats>,
    allow_log: mpsc::Sender<bool>,
    allow_state: mpsc::Sender<bool>,
    log: LogWriter<Double>,
    state: StateWriter<Double>,
}

impl Rig {
    fn new() -> Self {
        let (journal, heard) = Journal::new();
        let stats = Arc::new(StorageStats::default());
        let (state, allow_state) = Double::new(&journal);
        let (log, allow_log) = Double::new(&journal);
        let state =
            StateWriter::spawn(state, None, told(&journal), fatal(&journal), Arc::clone(&stats), micros).unwrap();
        let note = journal.clone();
        let completed = move |group, sequence| note.note(Event::Completed(group, sequence));
        let log =
            LogWriter::spawn(log, state.handle(), completed, fatal(&journal), Arc::clone(&stats), micros).unwrap();
        Self { journal, heard, stats, allow_log, allow_state, log, state }
    }

    fn wait_for(&self, event: Event) {
        self.journal.wait_for(&self.heard, &event);
    }

    async fn submit(&self, group: GroupId, sequence: u64) {
        self.log.handle().submit(numbered(group, sequence)).await.unwrap();
    }
}

fn told(journal: &Journal) -> impl Fn(GroupId, Input) + Send + 'static {
    let journal = journal.clone();
    move |group, input| {
        journal.note(match input {
            Input::Checkpointed { index } => Event::Told(group, "checkpointed", index),
            Input::Fetched { ticket, .. } => Event::Told(group, "fetched", ticket),
            other => panic!("{other:?} is not for storage to say"),
        });
    }
}

fn fatal(journal: &Journal) -> impl FnOnce(StorageError) + Send + 'static {
    let journal = journal.clone();
    move |error| journal.note(Event::Fatal(error.to_string()))
}

fn numbered(group: GroupId, sequence: u64) -> Write {
    let mut write = vote(group, sequence, 0);
    write.sequence = sequence;
    write
}

const OTHER: GroupId = GroupId(2);

#[tokio::test]
async fn what_arrives_during_a_round_shares_the_next_sync() {
    let rig = Rig::new();
    rig.submit(G, 1).await;
    rig.wait_for(Event::Appended(G, 1));
    for sequence in 2..=50 {
        rig.submit(G, sequence).await;
        rig.submit(OTHER, sequence).await;
    }
    assert_eq!(rig.stats.log_waiting.load(Ordering::Relaxed), 98, "all but the one of the round");
    rig.allow_log.send(true).unwrap();
    rig.wait_for(Event::Appended(OTHER, 50));
    assert_eq!(rig.stats.log_waiting.load(Ordering::Relaxed), 0);
    assert!(!rig.journal.events().contains(&Event::Completed(G, 50)), "told before the sync");
    rig.allow_log.send(true).unwrap();
    rig.wait_for(Event::Completed(OTHER, 50));
    let told = |event: &Event| matches!(event, Event::Completed(..) | Event::Synced);
    let events: Vec<_> = rig.journal.events().into_iter().filter(told).collect();
    let (first, last) = (Event::Completed(G, 1), [Event::Completed(G, 50), Event::Completed(OTHER, 50)]);
    assert_eq!(events, [[Event::Synced, first].to_vec(), vec![Event::Synced], last.to_vec()].concat());
    let order: Vec<_> = rig.journal.events();
    let of_group = order.iter().filter_map(|event| match event {
        Event::Appended(group, sequence) if *group == G => Some(*sequence),
        _ => None,
    });
    assert!(of_group.eq(1..=50));
    assert_eq!(rig.stats.log_sync.count.load(Ordering::Relaxed), 2);
    assert_eq!(rig.stats.log_sync.last_us.load(Ordering::Relaxed), 1000);
    assert_eq!(rig.stats.log_writes.load(Ordering::Relaxed), 99);
}

#[tokio::test]
async fn a_failed_sync_is_told_once_and_ends_all() {
    let rig = Rig::new();
    rig.submit(G, 1).await;
    rig.allow_log.send(false).unwrap();
    rig.wait_for(Event::Fatal("sync: EIO".to_owned()));
    let log = rig.log.handle();
    assert!(rig.log.stop().is_none());
    assert_eq!(log.submit(numbered(G, 2)).await, Err(Stopped));
    assert!(!rig.journal.events().iter().any(|event| matches!(event, Event::Completed(..))));
    assert_eq!(rig.journal.events().iter().filter(|event| matches!(event, Event::Fatal(_))).count(), 1);
}

#[tokio::test]
async fn a_panic_is_told_as_an_error() {
    let rig = Rig::new();
    rig.submit(G, u64::MAX).await;
    rig.wait_for(Event::Fatal("the log thread panicked".to_owned()));
    assert!(rig.log.stop().is_none());
}

#[tokio::test]
async fn who_finds_no_room_waits_until_there_is_some() {
    let rig = Rig::new();
    rig.submit(G, 1).await;
    rig.wait_for(Event::Appended(G, 1));
    for sequence in 2..2 + LOG_WAITING_MAX as u64 {
        rig.submit(G, sequence).await;
    }
    let log = rig.log.handle();
    let mut late = std::pin::pin!(log.submit(numbered(G, 9999)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(late.as_mut().poll(&mut context).is_pending());
    rig.allow_log.send(true).unwrap();
    late.await.unwrap();
    rig.allow_log.send(true).unwrap();
    rig.allow_log.send(true).unwrap();
    rig.wait_for(Event::Completed(G, 9999));
}

#[tokio::test]
async fn a_stop_does_what_waits_first() {
    let rig = Rig::new();
    rig.submit(G, 1).await;
    rig.wait_for(Event::Appended(G, 1));
    for sequence in 2..=9 {
        rig.submit(G, sequence).await;
    }
    drop(rig.allow_log);
    assert!(rig.log.stop().is_some());
    assert!(rig.journal.events().contains(&Event::Completed(G, 9)));
    drop(rig.allow_state);
    assert!(rig.state.stop().is_some());
}

#[tokio::test]
async fn a_snapshot_is_installed_before_its_write_and_holds_up_its_group_only() {
    let rig = Rig::new();
    let mut write = restored(G, &snapshot(20, 3, &[]));
    write.sequence = 1;
    rig.log.handle().submit(write).await.unwrap();
    // Handed over afterwards, it stands on the snapshot's state.
    rig.state.handle().checkpoint(checkpoint(G, 21, 3, &[])).await.unwrap();
    rig.submit(G, 2).await;
    rig.submit(OTHER, 1).await;
    rig.allow_log.send(true).unwrap();
    rig.wait_for(Event::Completed(OTHER, 1));
    assert!(!rig.journal.events().contains(&Event::Appended(G, 1)));
    rig.allow_state.send(true).unwrap();
    rig.allow_log.send(true).unwrap();
    rig.allow_log.send(true).unwrap();
    rig.wait_for(Event::Completed(G, 2));
    rig.allow_state.send(true).unwrap();
    rig.wait_for(Event::Told(G, "checkpointed", 21));
    let events = rig.journal.events();
    let at = |event: Event| events.iter().position(|it| *it == event).unwrap();
    assert!(at(Event::Installed(G, 20)) < at(Event::Appended(G, 1)));
    assert!(at(Event::Appended(G, 1)) < at(Event::Appended(G, 2)));
    assert!(at(Event::Installed(G, 20)) < at(Event::Checkpoint(G, 21)));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_installed_stops_the_log_too() {
    let rig = Rig::new();
    rig.log.handle().submit(restored(G, &snapshot(20, 3, &[]))).await.unwrap();
    rig.allow_state.send(false).unwrap();
    rig.wait_for(Event::Fatal("sync: EIO".to_owned()));
    rig.wait_for(Event::Fatal("the state store ended before a snapshot was installed".to_owned()));
    assert!(rig.state.stop().is_none());
    assert!(rig.log.stop().is_none());
}

#[tokio::test]
async fn checkpoints_are_told_after_their_sync_and_reads_see_them() {
    let rig = Rig::new();
    let state = rig.state.handle();
    state.checkpoint(checkpoint(G, 5, 1, &[("q", None)])).await.unwrap();
    state.fetch(Fetch { group: G, ticket: 7, keys: vec![b"q".to_vec()] }).await.unwrap();
    rig.wait_for(Event::Checkpoint(G, 5));
    rig.allow_state.send(true).unwrap();
    rig.allow_state.send(true).unwrap();
    rig.wait_for(Event::Told(G, "checkpointed", 5));
    rig.wait_for(Event::Told(G, "fetched", 7));
    let events = rig.journal.events();
    let at = |event: Event| events.iter().position(|it| *it == event).unwrap();
    assert!(at(Event::Checkpoint(G, 5)) < at(Event::Told(G, "fetched", 7)));
    assert!(at(Event::Synced) < at(Event::Told(G, "checkpointed", 5)));
    let stats = &rig.stats;
    let counted = [&stats.checkpoints, &stats.changes, &stats.fetched, &stats.state_sync.count];
    assert_eq!(counted.map(|counter| counter.load(Ordering::Relaxed)), [1; 4]);
}

fn bulk(group: GroupId, sequence: u64, bytes: usize) -> Write {
    let dirty = Versioned::new(Version { epoch: 1, count: sequence }, Some(vec![0; bytes].into()));
    let mut write = journal(group, vec![JournalRecord::Written { key: "k".to_owned(), dirty }]);
    write.sequence = sequence;
    write
}

#[tokio::test]
async fn bulk_does_not_hold_up_votes_and_groups_keep_their_order() {
    let rig = Rig::new();
    rig.submit(G, 1).await;
    rig.wait_for(Event::Appended(G, 1));
    let log = rig.log.handle();
    for sequence in 2..=4 {
        log.submit(bulk(G, sequence, ROUND_BULK_BYTES_MAX / 2)).await.unwrap();
    }
    rig.submit(G, 5).await;
    rig.submit(OTHER, 1).await;
    for _ in 0..2 {
        rig.allow_log.send(true).unwrap();
    }
    rig.wait_for(Event::Completed(OTHER, 1));
    assert!(!rig.journal.events().contains(&Event::Completed(G, 5)));
    for _ in 0..2 {
        rig.allow_log.send(true).unwrap();
    }
    rig.wait_for(Event::Completed(G, 5));
    let appended = rig.journal.events().into_iter().filter_map(|event| match event {
        Event::Appended(group, sequence) if group == G => Some(sequence),
        _ => None,
    });
    assert!(appended.eq(1..=5));
}

#[tokio::test]
async fn both_threads_work_on_real_storage() {
    let directory = tempfile::tempdir().unwrap();
    let claim = Claim { node: NodeId::numbered(1), cluster: Some(7), groups: 3, joins: false };
    let options = LogOptions { segment_bytes: 4096 };
    let Opened { directory: locked, log, state, .. } = open(directory.path(), &claim, options.clone()).unwrap();
    let (journal, heard) = Journal::new();
    let stats = Arc::new(StorageStats::default());
    let state = StateWriter::spawn(state, None, told(&journal), fatal(&journal), Arc::clone(&stats), micros).unwrap();
    let note = journal.clone();
    let completed = move |group, sequence| note.note(Event::Completed(group, sequence));
    let log = LogWriter::spawn(log, state.handle(), completed, fatal(&journal), Arc::clone(&stats), micros).unwrap();
    for index in 1..=200 {
        let mut write = entries(G, index, index, 1);
        write.sequence = index;
        log.handle().submit(write).await.unwrap();
    }
    let mut write = restored(OTHER, &snapshot(9, 4, &[("q", "v")]));
    write.sequence = 1;
    log.handle().submit(write).await.unwrap();
    state.handle().checkpoint(checkpoint(G, 150, 1, &[("l", Some("held"))])).await.unwrap();
    journal.wait_for(&heard, &Event::Completed(G, 200));
    journal.wait_for(&heard, &Event::Completed(OTHER, 1));
    journal.wait_for(&heard, &Event::Told(G, "checkpointed", 150));
    assert!(log.stop().is_some() && state.stop().is_some());
    assert!(stats.log_disk_bytes.load(Ordering::Relaxed) > 0 && stats.state_disk_bytes.load(Ordering::Relaxed) > 0);
    drop(locked);
    let opened = open(directory.path(), &claim, options).unwrap();
    assert_eq!((opened.recovered[&G].entries.len(), opened.recovered[&G].applied.index), (200, 150));
    assert_eq!((opened.recovered[&OTHER].base.index, opened.recovered[&OTHER].state.len()), (9, 1));
}
