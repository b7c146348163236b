//! Copies of groups, for backups: made while the group works, and of one instant all the same.
//!
//! ```text
//!   begin:  read index (this node leads, and all that was acknowledged is below it); writes are noted from now on
//!   1.  the records of the state store, in key order, at the client's pace
//!   2.  what was written meanwhile, again; until that is little
//!   3.  read index, and a whole checkpoint: what was written since step 2 is read at once, and the copy stands there
//! ```
//!
//! A client reads a copy part by part. Nothing is held up for it: the replica makes its checkpoints as ever, the reads are beside
//! the thread that writes, and only step 3 takes some milliseconds of that thread. What the client does not read is not made.
//!
//! # Invariants
//! - A record that was written after it was copied is copied again: the last one of each key is that of the instant in step 3.
//! - A copy has an end: [`ROUNDS_MAX`] times step 2, or as many records noted as `track` keeps; then `Overloaded`.
//! - A part is made by a task of its own, so that a client that goes away in the middle leaves nothing half done.
//!
//! # Caveats
//! * A node makes [`BACKUPS_MAX`] copies at once, each with about two parts of memory, what is noted (its keys), and at its end the
//!   records of step 3, up to 32 MiB.
//! * A group with more writes than the client reads is never through.

mod track;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use trine_protocol::cluster::{BackupBegun, BackupPart, BackupRead, BackupStands};
use trine_protocol::limits::{BACKUP_IDLE_MS_MAX, BACKUP_PART_BYTES_MAX, BACKUPS_MAX};
use trine_protocol::{Error, ErrorCode};

use crate::backup::pairs;
use crate::clock;
use crate::ids::{GroupId, Index};
use crate::raft::SnapshotMeta;
use crate::storage::{StateReader, StorageError};

use track::{LAST_RECORDS_MAX, Last};
pub(super) use track::{Tracker, Watched};

/// Times that what was written meanwhile is read again.
const ROUNDS_MAX: u32 = 64;
/// Time for the last checkpoint of a copy.
const LAST_MAX: Duration = Duration::from_secs(10);

/// What a copy asks of the replica that it copies.
pub(super) trait Source: Send + Sync + 'static {
    /// Asks for a whole checkpoint, at or above an index below which everything is that was acknowledged before.
    fn whole(&self, group: GroupId) -> impl Future<Output = Result<Index, Error>> + Send;

    /// Names of the voters and of the learners.
    fn members(&self, group: GroupId) -> (Vec<String>, Vec<String>);
}

/// The copies of one node.
#[derive(Debug)]
pub(super) struct Backups {
    reader: StateReader,
    tracker: Arc<Tracker>,
    copies: Mutex<BTreeMap<u64, Arc<Copy>>>,
    next: AtomicU64,
}

/// One copy.
#[derive(Debug)]
struct Copy {
    id: u64,
    group: GroupId,
    used_us: AtomicU64,
    making: tokio::sync::Mutex<Making>,
}

#[derive(Debug)]
struct Making {
    /// Number of the next part.
    next: u32,
    /// The part that was made last, for who asks again.
    last: Option<BackupPart>,
    /// What is read, and not in a part yet.
    bytes: Vec<u8>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The records above this key are to be read.
    Records(Option<Vec<u8>>),
    /// These are to be read again, for the so many-th time.
    Again(VecDeque<Vec<u8>>, u32),
    /// What is left is read; this is the number of rounds so far.
    Look(u32),
    /// Everything is read, and the copy stands here.
    Stands(SnapshotMeta),
}

impl Backups {
    pub(super) fn new(reader: StateReader, tracker: Arc<Tracker>) -> Self {
        // Numbers of an earlier life of the node mean no copy of this one.
        let next = AtomicU64::new(clock::mono_us());
        Self { reader, tracker, copies: Mutex::default(), next }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Copy>>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a copy of a group that this node was just found to lead.
    pub(super) async fn begin(self: &Arc<Self>, group: GroupId, index: Index) -> Result<BackupBegun, Error> {
        self.sweep();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let making = Making { next: 0, last: None, bytes: Vec::new(), step: Step::Records(None) };
        let (used_us, making) = (AtomicU64::new(clock::mono_us()), tokio::sync::Mutex::new(making));
        {
            let mut copies = self.lock();
            if copies.len() >= BACKUPS_MAX {
                let what = format!("this node makes {BACKUPS_MAX} copies already");
                return Err(Error::new(ErrorCode::Overloaded, what).retry_after(1_000));
            }
            copies.insert(id, Arc::new(Copy { id, group, used_us, making }));
        }
        // The checkpoint that is being written is waited for, and not on a thread that others need.
        let this = Arc::clone(self);
        blocking(move || {
            this.tracker.begin(id, group);
            Ok(())
        })
        .await?;
        tracing::info!(%group, index, copy = id, "a copy of the group's state is being made");
        Ok(BackupBegun { backup: id, index })
    }

    /// The part that is asked for.
    pub(super) async fn read(self: &Arc<Self>, read: BackupRead, source: impl Source) -> Result<BackupPart, Error> {
        let copy = self.lock().get(&read.backup).cloned();
        let copy = copy.ok_or_else(|| over("there is no such copy, or nobody read of it for too long"))?;
        let this = Arc::clone(self);
        let made = tokio::spawn(async move {
            copy.used_us.store(clock::mono_us(), Ordering::Relaxed);
            let result = this.part(&copy, read.part, &source).await;
            copy.used_us.store(clock::mono_us(), Ordering::Relaxed);
            if let Err(error) = &result {
                tracing::warn!(group = %copy.group, copy = copy.id, %error, "a copy of the group's state is given up");
                this.end(copy.id);
            }
            result
        });
        made.await.unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the copy's task has ended")))
    }

    async fn part(&self, copy: &Copy, part: u32, source: &impl Source) -> Result<BackupPart, Error> {
        let mut making = copy.making.lock().await;
        if part + 1 == making.next
            && let Some(last) = &making.last
        {
            return Ok(last.clone());
        }
        if part != making.next || making.last.as_ref().is_some_and(|last| last.stands.is_some()) {
            return Err(over(&format!("part {part} is asked for, and part {} is next", making.next)));
        }
        let mut stands = None;
        while making.bytes.len() < BACKUP_PART_BYTES_MAX {
            if let Step::Stands(meta) = &making.step {
                stands = Some(meta.clone());
                break;
            }
            self.go_on(copy, &mut making, source).await?;
        }
        // With the last bytes, or alone where they have just filled a part.
        let length = making.bytes.len().min(BACKUP_PART_BYTES_MAX);
        let rest = making.bytes.split_off(length);
        let bytes = Bytes::from(std::mem::replace(&mut making.bytes, rest));
        let stands = stands.filter(|_| making.bytes.is_empty()).map(|meta| self.stands(copy, &meta, source));
        let made = BackupPart { bytes, stands };
        (making.next, making.last) = (part + 1, Some(made.clone()));
        Ok(made)
    }

    fn stands(&self, copy: &Copy, meta: &SnapshotMeta, source: &impl Source) -> BackupStands {
        // The copy is over, but for who asks for the last part again.
        self.tracker.end(copy.id);
        let SnapshotMeta { index, term, stamp_ms, wall_ms, .. } = *meta;
        let (voters, learners) = source.members(copy.group);
        tracing::info!(group = %copy.group, index, copy = copy.id, "a copy of the group's state is complete");
        BackupStands { index, term, stamp_ms, wall_ms, voters, learners }
    }

    /// One step of a copy.
    async fn go_on(&self, copy: &Copy, making: &mut Making, source: &impl Source) -> Result<(), Error> {
        let noted = self.tracker.noted(copy.id).map_err(|why| Error::new(ErrorCode::Overloaded, why))?;
        match std::mem::replace(&mut making.step, Step::Look(0)) {
            Step::Records(after) => {
                let (reader, group, start) = (self.reader.clone(), copy.group, after.clone());
                let seen = blocking(move || reader.records(group, start.as_deref(), BACKUP_PART_BYTES_MAX)).await?;
                if let Some((last, _)) = seen.last() {
                    making.step = Step::Records(Some(last.clone()));
                }
                for (key, value) in seen {
                    match value {
                        Some(value) => pairs::put(&mut making.bytes, &key, Some(&value)),
                        None if self.tracker.is_noted(copy.id, &key) => {}
                        None => {
                            let what = format!("record {key:?} of {} cannot be read", copy.group);
                            return Err(Error::new(ErrorCode::Internal, what));
                        }
                    }
                }
            }
            Step::Again(mut keys, round) => {
                let (reader, group) = (self.reader.clone(), copy.group);
                let chunk = keys.drain(..keys.len().min(1024)).collect::<Vec<_>>();
                let values = blocking(move || reader.read_each(group, chunk)).await?;
                // What is being replaced just now is noted for that.
                for (key, value) in values.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                    pairs::put(&mut making.bytes, &key, value.as_deref());
                }
                making.step = if keys.is_empty() { Step::Look(round) } else { Step::Again(keys, round) };
            }
            Step::Look(round) if round >= ROUNDS_MAX => {
                let what = format!("{} changes faster than the copy is read", copy.group);
                return Err(Error::new(ErrorCode::Overloaded, what));
            }
            Step::Look(round) if noted > LAST_RECORDS_MAX => {
                making.step = self.again(copy, round).await?;
            }
            Step::Look(round) => making.step = self.finish(copy, &mut making.bytes, round, source).await?,
            Step::Stands(meta) => making.step = Step::Stands(meta),
        }
        Ok(())
    }

    /// What is noted is to be read again.
    async fn again(&self, copy: &Copy, round: u32) -> Result<Step, Error> {
        let (tracker, id) = (Arc::clone(&self.tracker), copy.id);
        let noted = blocking(move || Ok(tracker.take_noted(id))).await?;
        Ok(Step::Again(noted, round + 1))
    }

    /// Has the rest read at one instant.
    async fn finish(&self, copy: &Copy, bytes: &mut Vec<u8>, round: u32, source: &impl Source) -> Result<Step, Error> {
        let wake = self.tracker.arm(copy.id);
        let index = source.whole(copy.group).await?;
        let waiting = async {
            loop {
                if let Some(last) = self.tracker.take_last(copy.id) {
                    return Ok(last);
                }
                self.tracker.noted(copy.id).map_err(|why| Error::new(ErrorCode::Overloaded, why))?;
                wake.notified().await;
            }
        };
        let late = |_| Error::new(ErrorCode::Overloaded, format!("no checkpoint of {} in {LAST_MAX:?}", copy.group));
        match tokio::time::timeout(LAST_MAX, waiting).await.map_err(late)?? {
            Last::TooMany => self.again(copy, round).await,
            Last::Records(meta, records) => {
                for (key, value) in records {
                    pairs::put(bytes, &key, value.as_deref());
                }
                // A checkpoint that somebody else had asked for may have come first.
                Ok(if meta.index >= index { Step::Stands(meta) } else { Step::Look(round + 1) })
            }
        }
    }

    fn end(&self, id: u64) {
        self.lock().remove(&id);
        self.tracker.end(id);
    }

    /// Ends the copies that nobody reads of.
    pub(super) fn sweep(&self) {
        let now_us = clock::mono_us();
        let idle = |copy: &&Arc<Copy>| {
            let used_us = copy.used_us.load(Ordering::Relaxed);
            // Somebody reads of it just now.
            let Ok(making) = copy.making.try_lock() else { return false };
            let done = making.last.as_ref().is_some_and(|last| last.stands.is_some());
            done || now_us >= used_us.saturating_add(BACKUP_IDLE_MS_MAX * 1_000)
        };
        let idle: Vec<u64> = self.lock().values().filter(idle).map(|copy| copy.id).collect();
        for id in idle {
            self.end(id);
        }
    }
}

/// Work that waits for the disk, on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Error::new(ErrorCode::Internal, format!("the state store cannot be read: {error}"))),
        Err(_) => Err(Error::new(ErrorCode::ShuttingDown, "the node is about to stop")),
    }
}

fn over(what: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("{what}: begin another"))
}

#[cfg(test)]
mod tests;
