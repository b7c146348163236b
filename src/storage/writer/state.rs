//! The state store's thread.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::ids::GroupId;
use crate::node::effect::{Checkpoint, Fetch, Input};
use crate::raft::Snapshot;
use crate::storage::stats::{add, set};
use crate::storage::{BodyBytes, ReadBeside, StateStore, StorageError, StorageStats};

use super::inbox::{Ending, Inbox, Stopped};
use super::reads::{Reads, ReadsHandle};
use super::{Fatal, STATE_ROUND_MAX, STATE_WAITING_MAX, SharedFatal, spawn_thread};

/// What is told of finished work, by either thread.
pub(super) type Done = Arc<dyn Fn(GroupId, Input) + Send + Sync>;

/// The state store's thread, as its owner holds it.
#[derive(Debug)]
pub struct StateWriter<S> {
    handle: StateHandle,
    reads: Option<Reads>,
    thread: JoinHandle<Option<S>>,
}

/// Hands work to the state store's thread. One for each who has some.
#[derive(Clone, Debug)]
pub struct StateHandle {
    inbox: Arc<Inbox<Waiting>>,
    reads: Option<ReadsHandle>,
    /// Snapshots that are handed over and not installed yet.
    installing: Arc<AtomicUsize>,
}

type Waiting = VecDeque<Job>;

enum Job {
    Checkpoint(Checkpoint),
    Fetch(Fetch),
    /// Comes with a write to the log, and takes no room but that write's.
    Install(GroupId, Snapshot, Box<dyn FnOnce() + Send>),
}

impl Job {
    fn takes_room(&self) -> bool {
        !matches!(self, Self::Install(..))
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint(checkpoint) => {
                write!(f, "checkpoint of {} at {}", checkpoint.group, checkpoint.meta.index)
            }
            Self::Fetch(fetch) => write!(f, "fetch {} of {}", fetch.ticket, fetch.group),
            Self::Install(group, snapshot, _) => write!(f, "install of {group} at {}", snapshot.meta.index),
        }
    }
}

impl StateHandle {
    /// Hands over a checkpoint; waits while [`STATE_WAITING_MAX`] jobs wait. `Input::Checkpointed` follows.
    ///
    /// # Errors
    /// [`Stopped`] where the thread has ended.
    pub async fn checkpoint(&self, checkpoint: Checkpoint) -> Result<(), Stopped> {
        self.inbox.put(|waiting| waiting.push_back(Job::Checkpoint(checkpoint))).await
    }

    /// Asks for records; waits while [`STATE_WAITING_MAX`] jobs wait. `Input::Fetched` follows. It sees every
    /// checkpoint that was told durable before it, and every snapshot that was handed over.
    ///
    /// # Errors
    /// [`Stopped`] where the thread has ended.
    pub async fn fetch(&self, fetch: Fetch) -> Result<(), Stopped> {
        match &self.reads {
            Some(reads) if self.installing.load(Ordering::SeqCst) == 0 => reads.fetch(fetch).await,
            _ => self.inbox.put(|waiting| waiting.push_back(Job::Fetch(fetch))).await,
        }
    }

    /// Has a snapshot installed, and calls `done` when it is durable. Where the thread has ended, `done` is dropped.
    pub(super) fn install(&self, group: GroupId, snapshot: Snapshot, done: Box<dyn FnOnce() + Send>) {
        self.installing.fetch_add(1, Ordering::SeqCst);
        let job = Job::Install(group, snapshot, done);
        // What a thread that has ended does not take is dropped with the closure, and that says enough.
        let _ = self.inbox.put_always(|waiting| waiting.push_back(job));
    }
}

impl<S: StateStore + Send + 'static> StateWriter<S> {
    /// Starts the thread.
    ///
    /// `done` is told `Input::Checkpointed` and `Input::Fetched`. Neither it nor `fatal` may wait. `micros` reads a monotonic
    /// clock. With a `reader` fetches have a thread of their own.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn spawn(
        state: S,
        reader: Option<Box<dyn ReadBeside>>,
        done: impl Fn(GroupId, Input) + Send + Sync + 'static,
        fatal: impl FnOnce(StorageError) + Send + 'static,
        stats: Arc<StorageStats>,
        micros: fn() -> u64,
    ) -> Result<Self, StorageError> {
        let inbox = Inbox::new(STATE_WAITING_MAX);
        let (done, fatal): (Done, _) = (Arc::new(done), SharedFatal::new(fatal));
        let reads = reader.map(|reader| Reads::spawn(reader, Arc::clone(&done), fatal.clone(), Arc::clone(&stats)));
        let reads = reads.transpose()?;
        let installing = Arc::new(AtomicUsize::new(0));
        let reading = reads.as_ref().map(Reads::handle);
        let handle = StateHandle { inbox: Arc::clone(&inbox), reads: reading, installing: Arc::clone(&installing) };
        let thread = spawn_thread("trine-state", move || {
            let mut fatal = Fatal::new("state", fatal);
            let mut worker = Worker { state, inbox: Ending(inbox), installing, stats, micros };
            match worker.run(&done) {
                Ok(()) => Some(worker.state),
                Err(error) => {
                    fatal.call(error);
                    None
                }
            }
        })?;
        Ok(Self { handle, reads, thread })
    }

    /// A handle to submit by.
    pub fn handle(&self) -> StateHandle {
        self.handle.clone()
    }

    /// Does what waits, ends the thread, and gives the store back; None where it has failed. Blocks. Stop the log first.
    pub fn stop(self) -> Option<S> {
        if let Some(reads) = self.reads {
            reads.stop();
        }
        self.handle.inbox.close();
        self.thread.join().unwrap_or_default()
    }
}

struct Worker<S> {
    state: S,
    inbox: Ending<Waiting>,
    installing: Arc<AtomicUsize>,
    stats: Arc<StorageStats>,
    micros: fn() -> u64,
}

impl<S: StateStore> Worker<S> {
    fn run(&mut self, done: &Done) -> Result<(), StorageError> {
        while let Some(round) = self.next_round() {
            self.inbox.0.free(round.iter().filter(|job| job.takes_room()).count());
            self.work_round(round, done)?;
            self.measure();
            while self.inbox.0.look(VecDeque::is_empty) && self.state.tend()? {}
            self.measure();
        }
        Ok(())
    }

    fn measure(&self) {
        set(&self.stats.state_disk_bytes, self.state.bytes_on_disk());
        let BodyBytes { disk, live } = self.state.body_bytes();
        set(&self.stats.body_disk_bytes, disk);
        set(&self.stats.body_live_bytes, live);
    }

    fn next_round(&self) -> Option<Vec<Job>> {
        let take = |waiting: &mut Waiting| {
            let count = waiting.len().min(STATE_ROUND_MAX);
            let round: Vec<_> = waiting.drain(..count).collect();
            set(&self.stats.state_waiting, waiting.len() as u64);
            (!round.is_empty()).then_some(round)
        };
        self.inbox.0.take(take, VecDeque::is_empty)
    }

    /// Does a round's work in order. Checkpoints are told after the sync at its end.
    fn work_round(&mut self, round: Vec<Job>, done: &Done) -> Result<(), StorageError> {
        let mut checkpointed = BTreeMap::new();
        let (mut checkpoints, mut changes) = (0, 0);
        for job in round {
            match job {
                Job::Checkpoint(checkpoint) => {
                    self.state.checkpoint(&checkpoint)?;
                    checkpointed.insert(checkpoint.group, checkpoint.meta.index);
                    checkpoints += 1;
                    changes += checkpoint.changes.len() as u64;
                }
                Job::Fetch(fetch) => self.fetch(fetch, done)?,
                Job::Install(group, snapshot, installed) => {
                    self.state.install(group, &snapshot)?;
                    add(&self.stats.installs, 1);
                    self.installing.fetch_sub(1, Ordering::SeqCst);
                    installed();
                }
            }
        }
        if checkpoints == 0 {
            return Ok(());
        }
        let before_us = (self.micros)();
        self.state.sync()?;
        self.stats.state_sync.record((self.micros)().saturating_sub(before_us));
        add(&self.stats.checkpoints, checkpoints);
        add(&self.stats.changes, changes);
        for (group, index) in checkpointed {
            done(group, Input::Checkpointed { index });
        }
        Ok(())
    }

    fn fetch(&self, fetch: Fetch, done: &Done) -> Result<(), StorageError> {
        let Fetch { group, ticket, keys } = fetch;
        add(&self.stats.fetched, keys.len() as u64);
        let read = |key: Vec<u8>| {
            let value = self.state.read(group, &key)?;
            Ok((key, value))
        };
        let records = keys.into_iter().map(read).collect::<Result<_, StorageError>>()?;
        done(group, Input::Fetched { ticket, records });
        Ok(())
    }
}
