//! The write-ahead log of one node: hard state, entries and cache journal of all its groups, in one list of segments.
//!
//! An acknowledgement rests on this and nothing else. [`SegmentLog::append`] takes writes into a buffer, [`SegmentLog::sync`] hands
//! the buffer to the operating system in one write and asks for one fdatasync; what was appended before is durable then.
//! One [`Write`] is one record, so it is there as a whole or not at all. The bytes are in `format.rs`, what a crash leaves
//! of them and how damage is told from it in `recover.rs`, and what writes amount to in `fold.rs`, one level up.
//!
//! # Segments
//! Files of a fixed size whose blocks are given out beforehand, so that a sync has no length to write. A record that does
//! not fit begins the next one: the old segment is synced, the new one is written with header and *base* (where each
//! group stands), synced, and only then gets its name. The file for it is prepared ahead, in [`SegmentLog::idle`].
//!
//! # Taking back room
//! Since each segment begins with a base, the oldest ones can go as soon as no entry or journal record in them counts any
//! more. The log first writes down, in a *mark*, which segment is the oldest one needed, and removes files once that mark
//! is durable: so a segment that is missing is noticed. A group that hardly writes would hold old segments for ever; so what
//! still counts in an old, mostly dead segment is *carried*: copied to the end of the log, a little after each round.
//! Then the files are at most about four times what counts, and [`CARRY_AGE_SEGMENTS`] segments; in quiet times one segment.
//!
//! # Invariants
//! - Sequences of records rise by one over all segments; each record carries the CRC of the one before.
//! - A segment under its name begins with a whole header and base; all but the last are durable as a whole.
//! - The oldest segment that is there is not younger than the oldest one needed by the last durable mark.
//! - After an error nothing is written any more: what a failed fsync has dropped is marked clean, and a second one would
//!   report success (Rebello et al., ATC 2020). So the next start writes the last segment once more before it syncs it.
//!
//! # Caveats
//! - A bit that flips in the very last round, while power fails before its mark is on disk, looks like a torn write and is cut.
//! - A segment is read as a whole at a start; a start takes as long as reading the log, about a second per GiB.
//! - Carrying and rotation happen on the writer's thread: a round beside them takes some milliseconds more.
//! - Whoever can write the files can forge them: the checksums are against accidents.

mod carry;
mod format;
mod medium;
mod recover;
mod segment;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use crate::ids::GroupId;
use crate::marks::{Rare, mark};
use crate::node::effect::Write;

use super::fold::{Fold, Place};
use super::identity::Identity;
use super::{LogRecovered, LogStore, StorageError};
use format::{Base, Kind, Mark, Owner, Position, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use format::{SegmentHeader, put_record};
pub use medium::{Folder, Medium, MediumFile};
pub use segment::segment_number;
use segment::{Directory, Segment, Spare};

/// Bytes of a segment where nothing else is asked for. Some seconds of writes: a rotation is rare, a file soon free again.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes that wait in memory before they are written without a sync. Far above a round's 1 MiB.
const BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Segments that must follow one before what counts in it is carried: most of it will have died by itself.
pub const CARRY_AGE_SEGMENTS: u64 = 4;
/// Bytes that are carried after one round, at least one record; more where the round itself was larger.
const CARRY_BYTES: u64 = 1024 * 1024;

/// What the log holds of each group that it knows.
pub type LogsRecovered = BTreeMap<GroupId, LogRecovered>;

/// What can be chosen about a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES }
    }
}

/// The log of one node, open for writing. See the module.
#[derive(Debug)]
pub struct SegmentLog<M: Medium = Folder> {
    directory: Directory<M>,
    options: LogOptions,
    segment: Segment<M>,
    spare: Option<Spare<M>>,
    /// Where each group stands, entries by their places only.
    groups: BTreeMap<GroupId, Fold>,
    next_sequence: u64,
    /// CRC of the last record.
    previous: u32,
    /// The record with this sequence, and all before it, are on disk.
    durable_through: u64,
    /// A mark says so.
    marked_through: u64,
    /// The oldest segment file.
    oldest: u64,
    /// The oldest segment needed, as the log says, and the sequence of the record that says it.
    needed: (u64, u64),
    /// Something was forgotten, or a segment began: look anew which segments are needed.
    recount: bool,
    /// Records of the oldest segment that are being carried.
    carrying: VecDeque<Place>,
    bytes_since_idle: u64,
    /// When the present stretch began, and the bytes that were written in it.
    stretch: (u64, u64),
    failed: bool,
}

impl SegmentLog {
    /// Opens the log in `path`, or makes one if the identity says that there has never been one, and tells what each group's
    /// log holds. A torn tail is cut.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where something that was durable is damaged or gone, with file and offset;
    /// [`StorageError::Refused`] where the segments are another node's or of another format; else what the disk says.
    pub fn open(path: &Path, identity: &Identity, options: LogOptions) -> Result<(Self, LogsRecovered), StorageError> {
        if identity.ready && !path.is_dir() {
            return Err(StorageError::Corrupt { what: format!("{}: the log is missing", path.display()) });
        }
        Self::open_on(Folder::open(path)?, identity, options)
    }
}

impl<M: Medium> SegmentLog<M> {
    /// The same on any medium.
    ///
    /// # Errors
    /// As [`SegmentLog::open`].
    pub fn open_on(medium: M, identity: &Identity, options: LogOptions) -> Result<(Self, LogsRecovered), StorageError> {
        let path = medium.path().to_owned();
        let owner = Owner { node: identity.node, incarnation: identity.incarnation };
        let directory = Directory::open(medium, owner)?;
        let Some(recovery) = recover::recover(&directory)? else {
            if identity.ready {
                return Err(StorageError::Corrupt { what: format!("{}: the log has no segment", path.display()) });
            }
            return Ok((Self::create(directory, options)?, BTreeMap::new()));
        };
        let index = recovery.groups.iter().map(|(group, fold)| (*group, fold.without_entries())).collect();
        let mut recovered = BTreeMap::new();
        for (group, fold) in recovery.groups {
            let log = fold
                .into_recovered()
                .map_err(|misfit| StorageError::Corrupt { what: format!("{}: {group}: {misfit}", path.display()) })?;
            recovered.insert(group, log);
        }
        // What was read may so far be in the page cache only, from a process that was killed or whose sync has failed: it is written and
        // synced here. The segments before it were synced before it began.
        let segment = directory.reopen(recovery.last, recovery.offset, options.segment_bytes)?;
        let durable_through = recovery.next_sequence - 1;
        let log = Self {
            directory,
            options,
            segment,
            spare: None,
            groups: index,
            next_sequence: recovery.next_sequence,
            previous: recovery.previous,
            durable_through,
            marked_through: 0,
            oldest: recovery.oldest,
            needed: (recovery.needed, durable_through),
            recount: true,
            carrying: VecDeque::new(),
            bytes_since_idle: 0,
            stretch: (0, 0),
            failed: false,
        };
        Ok((log, recovered))
    }

    /// A log without any record.
    fn create(directory: Directory<M>, options: LogOptions) -> Result<Self, StorageError> {
        let base = crate::record::encode(&Base { oldest: 1, groups: Vec::new() });
        let spare = directory.prepare(options.segment_bytes)?;
        let header = SegmentHeader { number: 1, first_sequence: 1, chain: 0 };
        let (beginning, previous) = beginning(&directory.owner, header, 0, &base);
        let segment = directory.promote(spare, 1, &beginning)?;
        Ok(Self {
            directory,
            options,
            segment,
            spare: None,
            groups: BTreeMap::new(),
            next_sequence: 2,
            previous,
            durable_through: 1,
            marked_through: 1,
            oldest: 1,
            needed: (1, 1),
            recount: false,
            carrying: VecDeque::new(),
            bytes_since_idle: 0,
            stretch: (0, 0),
            failed: false,
        })
    }

    /// How many segment files there are.
    pub fn segments(&self) -> u64 {
        self.segment.number - self.oldest + 1
    }

    /// Where the log ends: the number of its last segment, and the bytes in use there.
    pub fn end(&self) -> (u64, u64) {
        (self.segment.number, self.segment.offset())
    }

    /// Hands what was appended to the operating system, as a sync does first. The simulator does the two apart, so that a crash
    /// can come in between.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn hand_over(&mut self) -> Result<(), StorageError> {
        self.attempt(|log| log.segment.write())
    }

    /// Runs one step, unless an earlier one failed; remembers if this one does.
    fn attempt<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, StorageError>) -> Result<T, StorageError> {
        if self.failed {
            let what = "the log has failed before, and takes nothing more".to_owned();
            return Err(StorageError::Corrupt { what });
        }
        let result = step(self);
        self.failed = result.is_err();
        result
    }

    /// Appends one write.
    fn append_write(&mut self, write: &Write) -> Result<(), StorageError> {
        // A group is known only once its first write has its place: that place may be in a new segment, whose base must not name it.
        let suffix_kept = self.groups.get(&write.group).is_some_and(|fold| fold.will_keep_suffix(write));
        let payload = format::encode_write(write, suffix_kept);
        let place = self.put(Kind::Write, &payload)?;
        let forgets = |raft: &crate::raft::Persist| raft.snapshot.is_some() || raft.truncate_from.is_some();
        self.recount |= write.compact.is_some() || write.raft.as_ref().is_some_and(forgets);
        let fold = self.groups.entry(write.group).or_default();
        fold.apply(write, place, false, Some(suffix_kept)).map_err(|misfit| StorageError::Corrupt {
            what: format!("a write to the log of {} does not follow from those before: {misfit}", write.group),
        })
    }

    /// Puts one record at the end, in a new segment where it does not fit.
    fn put(&mut self, kind: Kind, payload: &[u8]) -> Result<Place, StorageError> {
        if payload.len() > format::RECORD_BYTES_MAX {
            let (bytes, most) = (payload.len(), format::RECORD_BYTES_MAX);
            return Err(StorageError::Refused { what: format!("a write of {bytes} bytes, {most} fit a record") });
        }
        // The end record of the segment must fit as well.
        let bytes = (RECORD_HEADER_BYTES + payload.len() + RECORD_HEADER_BYTES) as u64;
        if self.segment.offset() + bytes > self.segment.bytes {
            self.rotate(bytes)?;
        } else if self.segment.buffer.len() > BUFFER_BYTES_MAX {
            self.segment.write()?;
        }
        let place = Place { segment: self.segment.number, offset: self.segment.offset() };
        let position = Position {
            segment: place.segment,
            offset: place.offset,
            sequence: self.next_sequence,
            durable_through: self.durable_through,
            previous: self.previous,
        };
        self.previous = put_record(&mut self.segment.buffer, &self.directory.owner, position, kind, payload);
        self.next_sequence += 1;
        self.bytes_since_idle += bytes;
        Ok(place)
    }

    /// Begins the next segment, with room for `bytes` after its base.
    fn rotate(&mut self, bytes: u64) -> Result<(), StorageError> {
        mark(Rare::Rotated);
        self.sync_segment()?;
        let needed = self.oldest_needed();
        let base = Base { oldest: needed, groups: recover::group_bases(&self.groups) };
        let number = self.segment.number + 1;
        let header = SegmentHeader { number, first_sequence: self.next_sequence, chain: self.previous };
        let base = crate::record::encode(&base);
        let (beginning, crc) = beginning(&self.directory.owner, header, self.durable_through, &base);
        let total = self.options.segment_bytes.max(beginning.len() as u64 + bytes);
        let spare = match self.spare.take() {
            Some(spare) if spare.bytes >= total => spare,
            _ => self.directory.prepare(total)?,
        };
        let next = self.directory.promote(spare, number, &beginning)?;
        let mut old = std::mem::replace(&mut self.segment, next);
        let end = Position {
            segment: old.number,
            offset: old.offset(),
            sequence: self.next_sequence,
            durable_through: self.durable_through,
            previous: self.previous,
        };
        put_record(&mut old.buffer, &self.directory.owner, end, Kind::End, &[]);
        // The end proves that a segment followed, should that one be lost. Nothing hangs on it, so no sync waits for it.
        old.write()?;
        self.needed = (needed, self.next_sequence);
        self.durable_through = self.next_sequence;
        self.marked_through = self.next_sequence;
        self.next_sequence += 1;
        self.previous = crc;
        self.recount = true;
        Ok(())
    }

    /// Makes all records durable.
    fn sync_segment(&mut self) -> Result<(), StorageError> {
        if self.durable_through + 1 < self.next_sequence {
            self.segment.sync()?;
            self.durable_through = self.next_sequence - 1;
        }
        Ok(())
    }

    /// The oldest segment in which something counts.
    fn oldest_needed(&self) -> u64 {
        let places = self.groups.values().flat_map(Fold::places);
        places.map(|(place, _)| place.segment).min().unwrap_or(self.segment.number)
    }

    /// What can be done when nobody waits: see [`LogStore::idle`].
    fn tidy(&mut self, now_us: u64) -> Result<(), StorageError> {
        let (needed, said_by) = self.needed;
        while self.oldest < needed && said_by <= self.durable_through {
            mark(Rare::SegmentRemoved);
            self.directory.remove(self.oldest)?;
            self.oldest += 1;
        }
        self.carry()?;
        let mut needed = needed;
        let quiet = self.has_been_quiet(now_us);
        if std::mem::take(&mut self.recount) || quiet {
            needed = self.oldest_needed();
            self.choose_what_to_carry(needed, quiet);
        }
        if needed > self.needed.0 || self.marked_through < self.durable_through {
            self.marked_through = self.durable_through;
            self.put(Kind::Mark, &crate::record::encode(&Mark { oldest: needed.max(self.needed.0) }))?;
            if needed > self.needed.0 {
                self.needed = (needed, self.next_sequence - 1);
            }
        }
        self.segment.write()?;
        self.bytes_since_idle = 0;
        if self.spare.is_none() {
            self.spare = Some(self.directory.prepare(self.options.segment_bytes)?);
        }
        Ok(())
    }
}

/// The first bytes of a segment, and the CRC of its base.
fn beginning(owner: &Owner, header: SegmentHeader, durable_through: u64, base: &[u8]) -> (Vec<u8>, u32) {
    let mut bytes = header.encode(owner).to_vec();
    let position = Position {
        segment: header.number,
        offset: SEGMENT_HEADER_BYTES as u64,
        sequence: header.first_sequence,
        durable_through,
        previous: header.chain,
    };
    let crc = put_record(&mut bytes, owner, position, Kind::Base, base);
    (bytes, crc)
}

impl<M: Medium> LogStore for SegmentLog<M> {
    fn append(&mut self, write: &Write) -> Result<(), StorageError> {
        self.attempt(|log| log.append_write(write))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.attempt(Self::sync_segment)
    }

    /// Removes segments that are not needed, carries, writes a mark, prepares the next segment.
    fn idle(&mut self, now_us: u64) -> Result<(), StorageError> {
        self.attempt(|log| log.tidy(now_us))
    }

    fn bytes_on_disk(&self) -> u64 {
        self.segments() * self.options.segment_bytes
    }
}
