//! The state store's thread.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::ids::GroupId;
use crate::node::effect::{Checkpoint, Fetch, Input};
use crate::raft::Snapshot;
use crate::storage::stats::{add, set};
use crate::storage::{StateStore, StorageError, StorageStats};

use super::inbox::{Ending, Inbox, Stopped};
use super::{Fatal, STATE_ROUND_MAX, STATE_WAITING_MAX, spawn_thread};

/// The state store's thread, as its owner holds it.
#[derive(Debug)]
pub struct StateWriter<S> {
    handle: StateHandle,
    thread: JoinHandle<Option<S>>,
}

/// Hands work to the state store's thread. One for each who has some.
#[derive(Clone, Debug)]
pub struct StateHandle {
    inbox: Arc<Inbox<Waiting>>,
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
    /// checkpoint that was handed over before it.
    ///
    /// # Errors
    /// [`Stopped`] where the thread has ended.
    pub async fn fetch(&self, fetch: Fetch) -> Result<(), Stopped> {
        self.inbox.put(|waiting| waiting.push_back(Job::Fetch(fetch))).await
    }

    /// Has a snapshot installed, and calls `done` when it is durable. Where the thread has ended, `done` is dropped.
    pub(super) fn install(&self, group: GroupId, snapshot: Snapshot, done: Box<dyn FnOnce() + Send>) {
        let job = Job::Install(group, snapshot, done);
        // What a thread that has ended does not take is dropped with the closure, and that says enough.
        let _ = self.inbox.put_always(|waiting| waiting.push_back(job));
    }
}

impl<S: StateStore + Send + 'static> StateWriter<S> {
    /// Starts the thread.
    ///
    /// `done` is told `Input::Checkpointed` and `Input::Fetched`. Neither it nor `fatal` may wait. `micros` reads a monotonic
    /// clock.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn spawn(
        state: S,
        done: impl Fn(GroupId, Input) + Send + 'static,
        fatal: impl FnOnce(StorageError) + Send + 'static,
        stats: Arc<StorageStats>,
        micros: fn() -> u64,
    ) -> Result<Self, StorageError> {
        let inbox = Inbox::new(STATE_WAITING_MAX);
        let handle = StateHandle { inbox: Arc::clone(&inbox) };
        let thread = spawn_thread("trine-state", move || {
            let mut fatal = Fatal::new("state", fatal);
            let mut worker = Worker { state, inbox: Ending(inbox), stats, micros };
            match worker.run(done) {
                Ok(()) => Some(worker.state),
                Err(error) => {
                    fatal.call(error);
                    None
                }
            }
        })?;
        Ok(Self { handle, thread })
    }

    /// A handle to submit by.
    pub fn handle(&self) -> StateHandle {
        self.handle.clone()
    }

    /// Does what waits, ends the thread, and gives the store back; None where it has failed. Blocks. Stop the log first.
    pub fn stop(self) -> Option<S> {
        self.handle.inbox.close();
        self.thread.join().unwrap_or_default()
    }
}

struct Worker<S> {
    state: S,
    inbox: Ending<Waiting>,
    stats: Arc<StorageStats>,
    micros: fn() -> u64,
}

impl<S: StateStore> Worker<S> {
    fn run(&mut self, done: impl Fn(GroupId, Input)) -> Result<(), StorageError> {
        while let Some(round) = self.next_round() {
            self.inbox.0.free(round.iter().filter(|job| job.takes_room()).count());
            self.work_round(round, &done)?;
            set(&self.stats.state_disk_bytes, self.state.bytes_on_disk());
        }
        Ok(())
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
    fn work_round(&mut self, round: Vec<Job>, done: &impl Fn(GroupId, Input)) -> Result<(), StorageError> {
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

    fn fetch(&self, fetch: Fetch, done: &impl Fn(GroupId, Input)) -> Result<(), StorageError> {
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
