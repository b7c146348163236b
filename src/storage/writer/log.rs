//! The log's thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::cache::JournalRecord;
use crate::ids::GroupId;
use crate::node::effect::Write;
use crate::storage::stats::{add, set};
use crate::storage::{LogStore, StorageError, StorageStats};

use super::inbox::{Ending, Inbox, Stopped};
use super::state::StateHandle;
use super::{Fatal, LOG_WAITING_MAX, ROUND_BULK_BYTES_MAX, ROUND_BYTES_MAX, SharedFatal, spawn_thread};

/// The log's thread, as its owner holds it.
#[derive(Debug)]
pub struct LogWriter<L> {
    handle: LogHandle,
    thread: JoinHandle<Option<L>>,
}

/// Hands writes to the log's thread. One for each who has some.
#[derive(Clone, Debug)]
pub struct LogHandle {
    inbox: Arc<Inbox<Waiting>>,
    state: StateHandle,
    stats: Arc<StorageStats>,
}

/// What the thread works on.
#[derive(Debug, Default)]
struct Waiting {
    writes: VecDeque<Write>,
    /// Of each group, how many of the snapshots that wait here are in the state store.
    installed: BTreeMap<GroupId, usize>,
    /// A snapshot will never be installed: the state store's thread has ended.
    install_lost: bool,
}

impl LogHandle {
    /// Hands over a write, in the order of its group; waits while [`LOG_WAITING_MAX`] writes wait. That it is durable is
    /// told through `completed`.
    ///
    /// A snapshot in it is on its way to the state store when this returns: what is handed to the [`StateHandle`] afterwards
    /// comes after it.
    ///
    /// # Errors
    /// [`Stopped`] where the thread has ended; the write is lost.
    pub async fn submit(&self, write: Write) -> Result<(), Stopped> {
        let snapshot = write.raft.as_ref().and_then(|raft| raft.snapshot.clone());
        let group = write.group;
        let put = |waiting: &mut Waiting| {
            waiting.writes.push_back(write);
            set(&self.stats.log_waiting, waiting.writes.len() as u64);
        };
        self.inbox
            .put_after(put, || {
                if let Some(snapshot) = snapshot {
                    let install = Install { group, inbox: Arc::clone(&self.inbox), done: false };
                    self.state.install(group, snapshot, Box::new(|| install.finish()));
                }
            })
            .await
    }
}

/// Says that a snapshot is installed, or, where it is dropped before, that it never will be.
struct Install {
    group: GroupId,
    inbox: Arc<Inbox<Waiting>>,
    done: bool,
}

impl Install {
    fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        let told = self.inbox.put_always(|waiting| match self.done {
            true => *waiting.installed.entry(self.group).or_default() += 1,
            false => waiting.install_lost = true,
        });
        // A log that has ended needs no word of it.
        let _ = told;
    }
}

impl<L: LogStore + Send + 'static> LogWriter<L> {
    /// Starts the thread.
    ///
    /// `completed` is told, after each round, the highest sequence of each group that is durable. Neither it nor `fatal` may
    /// wait. `micros` reads a monotonic clock. Snapshots go to `state` first.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn spawn(
        log: L,
        state: StateHandle,
        completed: impl Fn(GroupId, u64) + Send + 'static,
        fatal: impl FnOnce(StorageError) + Send + 'static,
        stats: Arc<StorageStats>,
        micros: fn() -> u64,
    ) -> Result<Self, StorageError> {
        let inbox = Inbox::new(LOG_WAITING_MAX);
        let handle = LogHandle { inbox: Arc::clone(&inbox), state, stats: Arc::clone(&stats) };
        let thread = spawn_thread("trine-log", move || {
            let mut fatal = Fatal::new("log", SharedFatal::new(fatal));
            let mut worker = Worker { log, inbox: Ending(inbox), stats, micros };
            match worker.run(completed) {
                Ok(()) => Some(worker.log),
                Err(error) => {
                    fatal.call(error);
                    None
                }
            }
        })?;
        Ok(Self { handle, thread })
    }

    /// A handle to submit by.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }

    /// Does what waits, ends the thread, and gives the log back; None where it has failed. Blocks.
    pub fn stop(self) -> Option<L> {
        self.handle.inbox.close();
        self.thread.join().unwrap_or_default()
    }
}

struct Worker<L> {
    log: L,
    inbox: Ending<Waiting>,
    stats: Arc<StorageStats>,
    micros: fn() -> u64,
}

impl<L: LogStore> Worker<L> {
    fn run(&mut self, completed: impl Fn(GroupId, u64)) -> Result<(), StorageError> {
        while let Some(round) = self.next_round() {
            let round = round?;
            self.inbox.0.free(round.len());
            for (group, sequence) in self.write_round(&round)? {
                completed(group, sequence);
            }
            self.log.idle((self.micros)())?;
            set(&self.stats.log_disk_bytes, self.log.bytes_on_disk());
        }
        self.log.sync()
    }

    /// Waits for something to write; None when the thread is to end and nothing waits.
    fn next_round(&self) -> Option<Result<Vec<Write>, StorageError>> {
        let take = |waiting: &mut Waiting| {
            if waiting.install_lost {
                let what = "the state store ended before a snapshot was installed".to_owned();
                return Some(Err(StorageError::Corrupt { what }));
            }
            let round = waiting.take_round();
            set(&self.stats.log_waiting, waiting.writes.len() as u64);
            (!round.is_empty()).then_some(Ok(round))
        };
        self.inbox.0.take(take, |waiting| waiting.writes.is_empty())
    }

    /// Writes a round; returns the highest sequence of each group in it.
    fn write_round(&mut self, round: &[Write]) -> Result<BTreeMap<GroupId, u64>, StorageError> {
        let mut highest = BTreeMap::new();
        let mut bytes = 0;
        for write in round {
            self.log.append(write)?;
            highest.insert(write.group, write.sequence);
            bytes += data_bytes(write);
        }
        let before_us = (self.micros)();
        self.log.sync()?;
        self.stats.log_sync.record((self.micros)().saturating_sub(before_us));
        add(&self.stats.log_writes, round.len() as u64);
        add(&self.stats.log_bytes, bytes as u64);
        Ok(highest)
    }
}

impl Waiting {
    /// Takes out what goes into the next round, in the order of arrival; of a group only as long as all of it before goes
    /// too. A write whose snapshot is not in the state store yet stays.
    fn take_round(&mut self) -> Vec<Write> {
        let (mut round, mut left) = (Vec::new(), VecDeque::new());
        let mut held = BTreeSet::new();
        let (mut bytes, mut bulk_bytes) = (0, 0);
        for write in self.writes.drain(..) {
            let (group, size) = (write.group, data_bytes(&write));
            let (used, most) = if write.raft.is_none() {
                (&mut bulk_bytes, ROUND_BULK_BYTES_MAX)
            } else {
                (&mut bytes, ROUND_BYTES_MAX)
            };
            let fits = *used == 0 || *used + size <= most;
            // Whether the snapshot is there is asked last: the answer uses it up.
            if held.contains(&group) || !fits || (has_snapshot(&write) && !take_one(&mut self.installed, group)) {
                held.insert(group);
                left.push_back(write);
            } else {
                *used += size;
                round.push(write);
            }
        }
        self.writes = left;
        round
    }
}

/// Counts one down; false where none is left.
fn take_one(counts: &mut BTreeMap<GroupId, usize>, group: GroupId) -> bool {
    let Some(count) = counts.get_mut(&group) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&group);
    }
    true
}

fn has_snapshot(write: &Write) -> bool {
    write.raft.as_ref().is_some_and(|raft| raft.snapshot.is_some())
}

/// Bytes of data in a write, about.
fn data_bytes(write: &Write) -> usize {
    let entries = write.raft.iter().flat_map(|raft| &raft.entries).map(|entry| entry.data.len() + 32);
    let journal = write.journal.iter().map(|record| match record {
        JournalRecord::Written { key, dirty } => key.len() + dirty.value.as_ref().map_or(0, bytes::Bytes::len) + 32,
        JournalRecord::Ended { key, .. } => key.len() + 32,
    });
    entries.sum::<usize>() + journal.sum::<usize>() + 32
}
