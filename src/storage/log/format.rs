//! The bytes of a segment: its header, the frame of a record, and what the records hold.
//!
//! ```text
//! segment header, 64 bytes                        record, 32 bytes and the payload
//!   0  "TRINELOG"                                   0  u32 bytes of the payload
//!   8  u32 format version                           4  u8 kind, three zeros
//!  12  u32 zero                                     8  u64 sequence, one more than the record before
//!  16  u64 number of the segment                   16  u64 sequence that was durable when this was written
//!  24  u64 incarnation of the node                 24  u32 CRC of the record before: the chain
//!  32  16 bytes, name of the node, zeros           28  u32 CRC32C
//!  48  u64 sequence of the first record            32  payload, MessagePack
//!  56  u32 CRC of the record before it
//!  60  u32 CRC32C of the 60 bytes before           all numbers big-endian
//! ```
//!
//! A record's CRC covers incarnation, segment and offset first, then its header and payload. So it is valid only where it was
//! written: neither bytes that a client put into a message, nor a block that landed in the wrong place, pass for one.

use serde::{Deserialize, Serialize};

use crate::cache::JournalRecord;
use crate::ids::{GroupId, Incarnation, Index, NODE_NAME_BYTES_MAX, NodeId};
use crate::node::effect::Write;
use crate::raft::{Entry, HardState, Persist, Snapshot, SnapshotMeta};

/// Version of the format; a segment of another one is refused.
pub(super) const FORMAT_VERSION: u32 = 1;
/// First bytes of a segment.
const MAGIC: &[u8; 8] = b"TRINELOG";
/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 32;
/// Bytes of a record's payload; a larger write is refused. A replica's uncommitted entries, 32 MiB, and as much again.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One [`Write`].
    Write = 1,
    /// First of every segment: a [`Base`].
    Base = 2,
    /// What an older segment held and is still needed: [`Carried`].
    Carried = 3,
    /// [`Mark`]: what was synced, and which segments are gone.
    Mark = 4,
    /// Another segment follows. Stands outside the chain, and may be missing.
    End = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Write, Self::Base, Self::Carried, Self::Mark, Self::End].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Whose log it is: what every checksum begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The node.
    pub(super) node: NodeId,
    /// Its incarnation.
    pub(super) incarnation: Incarnation,
}

impl Owner {
    /// What the CRC of a record at this place begins with.
    fn seed(&self, segment: u64, offset: u64) -> u32 {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.incarnation.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&segment.to_be_bytes());
        bytes[16..].copy_from_slice(&offset.to_be_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Number of the segment, from 1.
    pub(super) number: u64,
    /// Sequence of its first record.
    pub(super) first_sequence: u64,
    /// CRC of the last record of the segment before.
    pub(super) chain: u32,
}

impl SegmentHeader {
    /// The header's bytes.
    pub(super) fn encode(&self, owner: &Owner) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_be_bytes());
        bytes[24..32].copy_from_slice(&owner.incarnation.0.to_be_bytes());
        bytes[32..48].copy_from_slice(&name_bytes(owner.node));
        bytes[48..56].copy_from_slice(&self.first_sequence.to_be_bytes());
        bytes[56..60].copy_from_slice(&self.chain.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads a header.
    pub(super) fn decode(bytes: &[u8], owner: &Owner) -> Result<Self, BadHeader> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(BadHeader::Damaged)?;
        if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(BadHeader::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(BadHeader::Foreign(format!("format {version}, this program reads {FORMAT_VERSION}")));
        }
        if u64_at(bytes, 24) != owner.incarnation.0 || bytes[32..48] != name_bytes(owner.node) {
            let name = String::from_utf8_lossy(&bytes[32..48]).trim_end_matches('\0').to_owned();
            let (found, own) = (u64_at(bytes, 24), owner.incarnation.0);
            let node = owner.node;
            return Err(BadHeader::Foreign(format!("belongs to {name} ({found:016x}), not to {node} ({own:016x})")));
        }
        Ok(Self { number: u64_at(bytes, 16), first_sequence: u64_at(bytes, 48), chain: u32_at(bytes, 56) })
    }
}

/// Why a segment's header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// It is not what was written.
    Damaged,
    /// It is whole, but not ours.
    Foreign(String),
}

fn name_bytes(node: NodeId) -> [u8; NODE_NAME_BYTES_MAX] {
    let mut bytes = [0; NODE_NAME_BYTES_MAX];
    bytes[..node.as_str().len()].copy_from_slice(node.as_str().as_bytes());
    bytes
}

/// A record as it stands in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// What it is.
    pub(super) kind: Kind,
    /// Its number in the log.
    pub(super) sequence: u64,
    /// The record with this sequence, and all before it, were durable when this was written.
    pub(super) durable_through: u64,
    /// CRC of the record before.
    pub(super) previous: u32,
    /// Its own.
    pub(super) crc: u32,
    /// What it holds.
    pub(super) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Bytes that the record takes in its segment.
    pub(super) fn bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }

    /// The sequence that a record at `offset` would have, to look at before its CRC is worth computing.
    pub(super) fn peek_sequence(data: &[u8], offset: usize) -> Option<u64> {
        data.get(offset..)?.get(..RECORD_HEADER_BYTES).map(|header| u64_at(header, 8))
    }

    /// The bytes that the payload of a record with this header would have.
    pub(super) fn peek_length(header: &[u8]) -> Option<usize> {
        let length = header.get(..RECORD_HEADER_BYTES).map(|header| u32_at(header, 0) as usize)?;
        (length <= RECORD_BYTES_MAX).then_some(length)
    }

    /// Reads the record at `offset` of a segment; None where none is, or a damaged one.
    pub(super) fn read(owner: &Owner, segment: u64, data: &'a [u8], offset: usize) -> Option<Self> {
        Self::parse(owner, segment, offset as u64, data.get(offset..)?)
    }

    /// Reads the record that `data` begins with, and that belongs at `offset` of a segment.
    pub(super) fn parse(owner: &Owner, segment: u64, offset: u64, data: &'a [u8]) -> Option<Self> {
        let header = data.get(..RECORD_HEADER_BYTES)?;
        let kind = Kind::from_byte(header[4])?;
        let length = u32_at(header, 0) as usize;
        if header[5..8] != [0; 3] || length > RECORD_BYTES_MAX {
            return None;
        }
        let payload = data[RECORD_HEADER_BYTES..].get(..length)?;
        let crc = u32_at(header, 28);
        if checksum(owner, segment, offset, &header[..28], payload) != crc {
            return None;
        }
        let (sequence, durable_through) = (u64_at(header, 8), u64_at(header, 16));
        Some(Self { kind, sequence, durable_through, previous: u32_at(header, 24), crc, payload })
    }
}

/// Where a record that is about to be written belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// The segment.
    pub(super) segment: u64,
    /// The offset in it.
    pub(super) offset: u64,
    /// The record's sequence.
    pub(super) sequence: u64,
    /// What is durable by now.
    pub(super) durable_through: u64,
    /// CRC of the record before.
    pub(super) previous: u32,
}

/// Appends a record to `buffer`, and returns its CRC.
pub(super) fn put_record(buffer: &mut Vec<u8>, owner: &Owner, at: Position, kind: Kind, payload: &[u8]) -> u32 {
    let length = u32::try_from(payload.len()).expect("bounded by RECORD_BYTES_MAX");
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4] = kind as u8;
    header[8..16].copy_from_slice(&at.sequence.to_be_bytes());
    header[16..24].copy_from_slice(&at.durable_through.to_be_bytes());
    header[24..28].copy_from_slice(&at.previous.to_be_bytes());
    let crc = checksum(owner, at.segment, at.offset, &header[..28], payload);
    header[28..].copy_from_slice(&crc.to_be_bytes());
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(payload);
    crc
}

fn checksum(owner: &Owner, segment: u64, offset: u64, header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(owner.seed(segment, offset), header), payload)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A write as it goes into a record: without the replica's sequence, and without a snapshot's bytes.
#[derive(Serialize)]
struct WriteOut<'a> {
    group: GroupId,
    hard_state: Option<HardState>,
    truncate_from: Option<Index>,
    snapshot: Option<(&'a SnapshotMeta, bool)>,
    entries: &'a [Entry],
    journal: &'a [JournalRecord],
    compact: Option<&'a SnapshotMeta>,
}

/// A write as it comes out of a record; fields as in [`WriteOut`].
#[derive(Deserialize)]
struct WriteIn {
    group: GroupId,
    hard_state: Option<HardState>,
    truncate_from: Option<Index>,
    snapshot: Option<(SnapshotMeta, bool)>,
    entries: Vec<Entry>,
    journal: Vec<JournalRecord>,
    compact: Option<SnapshotMeta>,
}

/// The payload of a [`Kind::Write`]. `suffix_kept` says whether entries after its snapshot stay: recovery may not have
/// the entry that decides it any more.
pub(super) fn encode_write(write: &Write, suffix_kept: bool) -> Vec<u8> {
    let raft = write.raft.as_ref();
    crate::record::encode(&WriteOut {
        group: write.group,
        hard_state: raft.and_then(|raft| raft.hard_state),
        truncate_from: raft.and_then(|raft| raft.truncate_from),
        snapshot: raft.and_then(|raft| raft.snapshot.as_ref()).map(|snapshot| (&snapshot.meta, suffix_kept)),
        entries: raft.map_or(&[], |raft| &raft.entries),
        journal: &write.journal,
        compact: write.compact.as_ref(),
    })
}

/// Reads back what [`encode_write`] made: the write, and whether the entries after its snapshot stay.
pub(super) fn decode_write(payload: &[u8]) -> Result<(Write, Option<bool>), rmp_serde::decode::Error> {
    let record: WriteIn = rmp_serde::from_slice(payload)?;
    let suffix_kept = record.snapshot.as_ref().map(|(_, kept)| *kept);
    let raft = Persist {
        sequence: 0,
        hard_state: record.hard_state,
        truncate_from: record.truncate_from,
        entries: record.entries,
        snapshot: record.snapshot.map(|(meta, _)| Snapshot { meta, ..Snapshot::default() }),
    };
    let (group, journal, compact) = (record.group, record.journal, record.compact);
    Ok((Write { group, sequence: 0, raft: Some(raft), journal, compact }, suffix_kept))
}

/// The payload of a [`Kind::Base`]: where the log stands at the beginning of a segment.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Base {
    /// The oldest segment that is still needed.
    pub(super) oldest: u64,
    /// All groups.
    pub(super) groups: Vec<GroupBase>,
}

/// One group in a [`Base`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct GroupBase {
    /// The group.
    pub(super) group: GroupId,
    /// Term and vote.
    pub(super) hard_state: HardState,
    /// The entry before the first.
    pub(super) base: SnapshotMeta,
    /// Index of the last entry.
    pub(super) last_index: Index,
}

/// The payload of a [`Kind::Carried`]: entries and journal records of one group that count, copied from an old segment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Carried {
    /// The group.
    pub(super) group: GroupId,
    /// Entries of its log, at their index.
    pub(super) entries: Vec<Entry>,
    /// Journal records.
    pub(super) journal: Vec<JournalRecord>,
}

/// The payload of a [`Kind::Mark`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The oldest segment that is still needed: those before it may be gone.
    pub(super) oldest: u64,
}
