//! The files that bodies lie in, and how much of each still lives.
//!
//! ```text
//! NNNNNNNNNN.bodies: records, one after the other, zeros behind the last
//!    0  u32 CRC32C of what follows, begun with the file's number and the record's offset
//!    4  u32 bytes of the body                    20  the body
//!    8  u32 group                                all numbers big-endian
//!   12  u64 log index, the message's id
//! ```
//! A record is valid only where it was written, as in the log: the checksum begins with its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{GroupId, Index};
use crate::storage::StorageError;
use crate::storage::files::failed;
use crate::storage::log::{Medium, MediumFile as _};

use super::index::{Living, Place, Turnover};
use super::{BodyBytes, FILES_SPARE};

/// Ending of a file's name.
const ENDING: &str = ".bodies";
/// Bytes of a record before the body.
pub(super) const HEADER_BYTES: usize = 20;
/// Bytes that wait in memory before they are handed to the operating system.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// The name of a file.
pub(super) fn name_of(number: u64) -> String {
    format!("{number:010}{ENDING}")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(ENDING)?.parse().ok()
}

/// A record as it stands in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) group: GroupId,
    pub(super) id: Index,
    pub(super) body: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Bytes of the body of the record that begins here; None where the header is cut.
pub(super) fn peek_bytes(data: &[u8]) -> Option<usize> {
    data.get(..HEADER_BYTES).map(|header| u32_at(header, 4) as usize)
}

fn checksum(number: u64, offset: u64, rest: &[u8], body: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&number.to_be_bytes());
    place[8..].copy_from_slice(&offset.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&place), rest), body)
}

impl<'a> Record<'a> {
    /// Reads the record that `data` begins with, and that belongs at this place; None where none is, or a damaged one.
    pub(super) fn parse(number: u64, offset: u64, data: &'a [u8]) -> Option<Self> {
        let bytes = peek_bytes(data)?;
        let body = data.get(HEADER_BYTES..HEADER_BYTES.checked_add(bytes)?)?;
        if checksum(number, offset, &data[4..HEADER_BYTES], body) != u32_at(data, 0) {
            return None;
        }
        let id = u64::from_be_bytes(data[12..HEADER_BYTES].try_into().expect("eight bytes"));
        Some(Self { group: GroupId(u32_at(data, 8)), id, body })
    }

    fn put(&self, buffer: &mut Vec<u8>, number: u64, offset: u64) {
        let mut header = [0; HEADER_BYTES];
        let bytes = u32::try_from(self.body.len()).expect("a body is far below 4 GiB");
        header[4..8].copy_from_slice(&bytes.to_be_bytes());
        header[8..12].copy_from_slice(&self.group.0.to_be_bytes());
        header[12..].copy_from_slice(&self.id.to_be_bytes());
        let crc = checksum(number, offset, &header[4..], self.body);
        header[..4].copy_from_slice(&crc.to_be_bytes());
        buffer.extend_from_slice(&header);
        buffer.extend_from_slice(self.body);
    }
}

/// Reads the body at a place of a medium.
pub(super) fn read_body<M: Medium>(medium: &M, group: GroupId, id: Index, place: Place) -> Result<Bytes, StorageError> {
    let data = medium.read_at(&name_of(place.file), place.offset, HEADER_BYTES + place.bytes as usize)?;
    let length = data.len();
    match Record::parse(place.file, place.offset, &data) {
        Some(record) if (record.group, record.id) == (group, id) => Ok(Bytes::from(data).slice(HEADER_BYTES..length)),
        _ => Err(damaged(medium, place.file, place.offset, &format!("the body of message {id} of {group} is damaged"))),
    }
}

/// The error of a file that is not what was written.
pub(super) fn damaged<M: Medium>(medium: &M, number: u64, offset: u64, why: &str) -> StorageError {
    let path = medium.path().join(name_of(number));
    StorageError::Corrupt { what: format!("{}: offset {offset}: {why}", path.display()) }
}

/// A file as far as it is counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// How long it is; 0 where it is named and not there.
    bytes: u64,
    living: Living,
    /// Where the last record ends that lives, as far as a start has seen.
    end: u64,
}

/// The file that is being written.
#[derive(Debug)]
struct Active<M: Medium> {
    number: u64,
    file: M::File,
    bytes: u64,
    /// What the operating system has; the buffer follows.
    written: u64,
    buffer: Vec<u8>,
    synced: bool,
}

/// All files of a node.
#[derive(Debug)]
pub(super) struct BodyFiles<M: Medium> {
    medium: Arc<M>,
    file_bytes: u64,
    active: Option<Active<M>>,
    counted: BTreeMap<u64, Counted>,
    next: u64,
}

impl<M: Medium> BodyFiles<M> {
    /// Finds the files that are there. None of them is written any more.
    pub(super) fn open(medium: M, file_bytes: u64) -> Result<Self, StorageError> {
        let mut counted = BTreeMap::new();
        for number in medium.names()?.iter().filter_map(|name| number_of(name)) {
            let bytes = medium.length(&name_of(number))?;
            counted.insert(number, Counted { bytes, ..Counted::default() });
        }
        let next = counted.last_key_value().map_or(1, |(number, _)| number + 1);
        Ok(Self { medium: Arc::new(medium), file_bytes, active: None, counted, next })
    }

    /// Counts a body that the state names.
    pub(super) fn count_up(&mut self, place: Place) {
        let counted = self.counted.entry(place.file).or_default();
        counted.living.add(place);
        counted.end = counted.end.max(place.offset + HEADER_BYTES as u64 + u64::from(place.bytes));
    }

    /// After counting: what is named must be there, and where nothing lives the file goes.
    pub(super) fn check_and_clean(&mut self) -> Result<(), StorageError> {
        for (number, counted) in &self.counted {
            if counted.end > counted.bytes {
                let why = format!("bodies up to {} are named, but the file has {} bytes", counted.end, counted.bytes);
                return Err(damaged(&*self.medium, *number, counted.bytes, &why));
            }
        }
        for number in self.take_dead() {
            self.remove(number)?;
        }
        Ok(())
    }

    /// What reads beside this.
    pub(super) fn medium(&self) -> &Arc<M> {
        &self.medium
    }

    /// Appends a body. It is durable, and can be read, after the next [`BodyFiles::sync`].
    pub(super) fn append(&mut self, group: GroupId, id: Index, body: &[u8]) -> Result<Place, StorageError> {
        let record = HEADER_BYTES as u64 + body.len() as u64;
        let fits = |active: &Active<M>| active.written + active.buffer.len() as u64 + record <= active.bytes;
        if !self.active.as_ref().is_some_and(fits) {
            self.begin(record)?;
        }
        let active = self.active.as_mut().expect("it was begun");
        let offset = active.written + active.buffer.len() as u64;
        Record { group, id, body }.put(&mut active.buffer, active.number, offset);
        active.synced = false;
        let number = active.number;
        if active.buffer.len() >= BUFFER_BYTES_MAX {
            self.write()?;
        }
        Ok(Place { file: number, offset, bytes: u32::try_from(body.len()).expect("a body is far below 4 GiB") })
    }

    /// Begins a file with room for a record of so many bytes.
    fn begin(&mut self, record: u64) -> Result<(), StorageError> {
        self.sync()?;
        let (number, bytes) = (self.next, self.file_bytes.max(record));
        let file = self.medium.allocate(&name_of(number), bytes)?;
        self.medium.sync_names()?;
        self.next += 1;
        self.counted.insert(number, Counted { bytes, ..Counted::default() });
        self.active = Some(Active { number, file, bytes, written: 0, buffer: Vec::new(), synced: true });
        Ok(())
    }

    fn write(&mut self) -> Result<(), StorageError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if !active.buffer.is_empty() {
            let path = self.medium.path().join(name_of(active.number));
            active.file.write_at(&active.buffer, active.written).map_err(failed("write", &path))?;
            active.written += active.buffer.len() as u64;
            active.buffer.clear();
            // What a large checkpoint needed is not kept for the small ones.
            active.buffer.shrink_to(BUFFER_BYTES_MAX);
        }
        Ok(())
    }

    /// Makes all that was appended durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.write()?;
        let Some(active) = self.active.as_mut().filter(|active| !active.synced) else { return Ok(()) };
        let path = self.medium.path().join(name_of(active.number));
        active.file.sync_bytes().map_err(failed("sync", &path))?;
        active.synced = true;
        Ok(())
    }

    /// The state names other bodies from now on.
    pub(super) fn turn_over(&mut self, turnover: &Turnover) {
        for (number, come) in &turnover.come {
            let living = &mut self.counted.entry(*number).or_default().living;
            living.bodies += come.bodies;
            living.bytes += come.bytes;
        }
        for (number, gone) in &turnover.gone {
            let living = &mut self.counted.get_mut(number).expect("a file that is named is counted").living;
            assert!(living.bodies >= gone.bodies, "{} bodies of file {number} end, {living:?} live", gone.bodies);
            living.bodies -= gone.bodies;
            living.bytes -= gone.bytes;
        }
    }

    /// The files in which nothing lives. What is appended from now on goes into none of them.
    pub(super) fn take_dead(&mut self) -> Vec<u64> {
        let dead: Vec<u64> =
            self.counted.iter().filter(|(_, it)| it.living.bodies == 0).map(|(number, _)| *number).collect();
        if self.active.as_ref().is_some_and(|active| dead.contains(&active.number)) {
            self.active = None;
        }
        dead
    }

    /// Removes a file. It may come back in a power cut: then a start removes it again.
    pub(super) fn remove(&mut self, number: u64) -> Result<(), StorageError> {
        self.counted.remove(&number);
        self.medium.remove(&name_of(number))
    }

    /// The file to carry: where dead bytes are more than all live ones and [`FILES_SPARE`] files, that with the fewest live ones.
    pub(super) fn emptiest(&self) -> Option<u64> {
        let BodyBytes { disk, live } = self.body_bytes();
        if disk <= 2 * live + FILES_SPARE * self.file_bytes {
            return None;
        }
        let active = self.active.as_ref().map(|active| active.number);
        let sealed = self.counted.iter().filter(|(number, it)| Some(**number) != active && it.living.bodies > 0);
        sealed.min_by_key(|(_, it)| it.living.bytes).map(|(number, _)| *number)
    }

    /// How many bodies live in a file.
    pub(super) fn living_in(&self, number: u64) -> u64 {
        self.counted.get(&number).map_or(0, |counted| counted.living.bodies)
    }

    /// Reads a body.
    pub(super) fn read(&self, group: GroupId, id: Index, place: Place) -> Result<Bytes, StorageError> {
        read_body(&*self.medium, group, id, place)
    }

    /// What all bodies take.
    pub(super) fn body_bytes(&self) -> BodyBytes {
        let disk = self.counted.values().map(|counted| counted.bytes).sum();
        BodyBytes { disk, live: self.counted.values().map(|counted| counted.living.bytes).sum() }
    }
}
