//! Reads a log back: which records are whole, what they amount to, and what the end looks like.
//!
//! ```text
//!   segment n            segment n+1                      segment n+2, the last
//!   [header][Base][W][W][End]00   [header][Base][W]...[End]   [header][Base][W][W][Mark][W][to]00000
//!                                                                                        ^ cut here
//! ```
//!
//! The first record that is not whole, or does not chain to the one before, ends the log. Whether that is a power cut or damage
//! is decided by what lies behind it:
//! - in a segment that is not the last: damage, for a segment is synced before the next one begins;
//! - in the last one, with a whole record behind it which says that the bad one was durable: damage;
//! - else a round that no sync covered: nothing in it was acknowledged, and it is cut. Whole records of that same round may
//!   lie behind the bad one, since a disk writes its blocks in any order.
//!
//! The log writes a [`Kind::Mark`] after each round, so that a bit that flips in the last round is told from a torn write too.

use std::collections::BTreeMap;

use crate::ids::GroupId;
use crate::marks::{Rare, mark};
use crate::storage::StorageError;
use crate::storage::fold::{Fold, Misfit, Place};

use super::format::{
    BadHeader, Base, Carried, GroupBase, Kind, Mark, Record, SEGMENT_HEADER_BYTES, SegmentHeader, decode_write,
};
use super::medium::Medium;
use super::segment::Directory;

/// What a log amounts to, and where it goes on.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Where each group stands.
    pub(super) groups: BTreeMap<GroupId, Fold>,
    /// The oldest segment that is there.
    pub(super) oldest: u64,
    /// The oldest segment that the log says is needed.
    pub(super) needed: u64,
    /// The last segment.
    pub(super) last: u64,
    /// Where in it the next record goes.
    pub(super) offset: u64,
    /// Sequence of the next record.
    pub(super) next_sequence: u64,
    /// CRC of the last record.
    pub(super) previous: u32,
}

/// Reads all segments; None where there is none.
pub(super) fn recover<M: Medium>(directory: &Directory<M>) -> Result<Option<Recovery>, StorageError> {
    let numbers = directory.numbers()?;
    let (Some(&oldest), Some(&last)) = (numbers.first(), numbers.last()) else {
        return Ok(None);
    };
    let mut recovery = Recovery { oldest, last, ..Recovery::default() };
    for (expected, number) in (oldest..).zip(&numbers) {
        if expected != *number {
            return Err(missing(directory, expected));
        }
        recovery.read_segment(directory, *number)?;
    }
    if oldest > recovery.needed {
        return Err(missing(directory, recovery.needed));
    }
    Ok(Some(recovery))
}

fn missing<M: Medium>(directory: &Directory<M>, number: u64) -> StorageError {
    StorageError::Corrupt { what: format!("{}: the segment is missing", directory.path_of(number).display()) }
}

fn damaged<M: Medium>(directory: &Directory<M>, number: u64, offset: u64, why: &str) -> StorageError {
    mark(Rare::DamageFound);
    let path = directory.path_of(number);
    StorageError::Corrupt { what: format!("{}: offset {offset}: {why}", path.display()) }
}

impl Recovery {
    /// Reads one segment after the ones before it.
    fn read_segment<M: Medium>(&mut self, directory: &Directory<M>, number: u64) -> Result<(), StorageError> {
        let data = directory.read(number)?;
        let header = SegmentHeader::decode(&data, &directory.owner).map_err(|bad| match bad {
            BadHeader::Damaged => damaged(directory, number, 0, "the segment's header is damaged"),
            BadHeader::Foreign(why) => {
                StorageError::Refused { what: format!("{}: {why}", directory.path_of(number).display()) }
            }
        })?;
        if header.number != number {
            let why = format!("the header is that of segment {}", header.number);
            return Err(damaged(directory, number, 0, &why));
        }
        if number == self.oldest {
            (self.next_sequence, self.previous) = (header.first_sequence, header.chain);
        } else if (header.first_sequence, header.chain) != (self.next_sequence, self.previous) {
            let why = format!("record {} is damaged, and the next segment follows record {}", self.next_sequence, {
                header.first_sequence.saturating_sub(1)
            });
            return Err(damaged(directory, number - 1, self.offset, &why));
        }
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.read_records(directory, number, &data)?;
        if self.offset == SEGMENT_HEADER_BYTES as u64 {
            return Err(damaged(directory, number, self.offset, "the segment's first record is damaged"));
        }
        if number == self.last { self.check_end(directory, &data) } else { Ok(()) }
    }

    /// Folds the records that are whole and chain.
    fn read_records<M: Medium>(
        &mut self,
        directory: &Directory<M>,
        number: u64,
        data: &[u8],
    ) -> Result<(), StorageError> {
        while let Some(record) = Record::read(&directory.owner, number, data, self.position()) {
            let chains = record.sequence == self.next_sequence && record.previous == self.previous;
            if !chains || record.kind == Kind::End {
                break;
            }
            let first = self.offset == SEGMENT_HEADER_BYTES as u64;
            self.fold(number, &record, first).map_err(|why| damaged(directory, number, self.offset, &why))?;
            self.offset += record.bytes() as u64;
            self.next_sequence += 1;
            self.previous = record.crc;
        }
        Ok(())
    }

    fn position(&self) -> usize {
        usize::try_from(self.offset).unwrap_or(usize::MAX)
    }

    /// Looks at what lies behind the last whole record of the last segment, and refuses if that proves damage.
    fn check_end<M: Medium>(&self, directory: &Directory<M>, data: &[u8]) -> Result<(), StorageError> {
        let behind = |why: &str| Err(damaged(directory, self.last, self.offset, why));
        let from = self.position();
        if let Some(record) = Record::read(&directory.owner, self.last, data, from) {
            return match record.kind {
                Kind::End => Err(missing(directory, self.last + 1)),
                _ => behind("a record does not follow from the one before it"),
            };
        }
        // No sequence beyond this one fits the segment: what claims one is no record, and costs no checksum.
        let sequences = self.next_sequence..self.next_sequence + data.len() as u64;
        for offset in from + 1..data.len() {
            if Record::peek_sequence(data, offset).is_some_and(|sequence| sequences.contains(&sequence))
                && let Some(record) = Record::read(&directory.owner, self.last, data, offset)
            {
                if record.durable_through >= self.next_sequence {
                    let sequence = self.next_sequence;
                    return behind(&format!("record {sequence} is damaged: offset {offset} says that it was on disk"));
                }
                mark(Rare::WholeRecordCut);
            }
        }
        if data[from..].iter().any(|byte| *byte != 0) {
            mark(Rare::TailCut);
        }
        Ok(())
    }

    /// Folds one record.
    fn fold(&mut self, segment: u64, record: &Record<'_>, first: bool) -> Result<(), String> {
        let place = Place { segment, offset: self.offset };
        if first != (record.kind == Kind::Base) {
            return Err("a segment begins with a base, and has no other".to_owned());
        }
        match record.kind {
            Kind::Write => {
                let (write, suffix_kept) = decode_write(record.payload).map_err(|error| error.to_string())?;
                let fold = self.groups.entry(write.group).or_default();
                fold.apply(&write, place, true, suffix_kept).map_err(|misfit| format!("{}: {misfit}", write.group))
            }
            Kind::Base => self.fold_base(decode(record.payload)?, segment),
            Kind::Carried => {
                let carried: Carried = decode(record.payload)?;
                let fold = self.groups.entry(carried.group).or_default();
                fold.carry(&carried.entries, &carried.journal, place, true).map_err(|Misfit(why)| why)
            }
            Kind::Mark => {
                self.needed = self.needed.max(decode::<Mark>(record.payload)?.oldest);
                Ok(())
            }
            Kind::End => Err("an end is no record".to_owned()),
        }
    }

    /// Takes the base of the first segment, and holds that of a later one against what was folded.
    fn fold_base(&mut self, base: Base, segment: u64) -> Result<(), String> {
        self.needed = self.needed.max(base.oldest);
        if segment == self.oldest {
            let groups = base.groups.into_iter();
            self.groups = groups.map(|it| (it.group, Fold::starting(it.hard_state, it.base, it.last_index))).collect();
            return Ok(());
        }
        let folded = group_bases(&self.groups);
        if folded != base.groups {
            return Err(format!("the segments before amount to {folded:?}, this one begins with {:?}", base.groups));
        }
        Ok(())
    }
}

fn decode<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(payload).map_err(|error| error.to_string())
}

/// What a [`Base`] says of the groups.
pub(super) fn group_bases(groups: &BTreeMap<GroupId, Fold>) -> Vec<GroupBase> {
    let one = |(group, fold): (&GroupId, &Fold)| GroupBase {
        group: *group,
        hard_state: fold.hard_state,
        base: fold.base.clone(),
        last_index: fold.last_index(),
    };
    groups.iter().map(one).collect()
}
