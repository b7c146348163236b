//! Carrying: what still counts in an old, mostly dead segment is copied to the end of the log, so that the segment can go.
//!
//! A group that hardly writes would hold old segments for ever otherwise. A little is carried after each round; where everything of a segment
//! is copied or has died by itself, the next count finds that nothing needs it. While hardly anything is written, and all that counts fits
//! one segment, no age is waited for: a node that has nothing to do shrinks to the segment it writes and the one it has prepared.

use std::collections::BTreeSet;

use crate::cache::JournalRecord;
use crate::marks::{Rare, mark};
use crate::storage::StorageError;
use crate::storage::fold::{Fold, Place};

use super::format::{self, Carried, Kind, RECORD_HEADER_BYTES, Record};
use super::medium::Medium;
use super::{CARRY_AGE_SEGMENTS, CARRY_BYTES, SegmentLog};

/// A stretch is quiet in which each second at most this share of a segment is written.
const QUIET_SHARE: u64 = 64;
/// How long a stretch is at least, in microseconds. A look at what could be carried takes time in proportion to all that counts, so
/// there is one in a stretch at most.
const STRETCH_US: u64 = 1_000_000;

impl<M: Medium> SegmentLog<M> {
    /// Decides whether what counts in the oldest segment is to be carried.
    pub(super) fn choose_what_to_carry(&mut self, needed: u64, quiet: bool) {
        let old = self.segment.number >= needed + CARRY_AGE_SEGMENTS;
        if !(old || quiet) || self.segment.number == needed || !self.carrying.is_empty() {
            return;
        }
        let (mut live, mut live_there, mut there) = (0, 0, BTreeSet::new());
        for (place, bytes) in self.groups.values().flat_map(Fold::places) {
            live += bytes;
            if place.segment == needed {
                live_there += bytes;
                there.insert(place);
            }
        }
        let segments = self.segment.number - needed;
        let mostly_dead = live_there <= self.options.segment_bytes / 4;
        let too_much = segments * self.options.segment_bytes > 4 * (live + self.options.segment_bytes);
        let little = quiet && 4 * live <= 3 * self.options.segment_bytes;
        if little || (old && (mostly_dead || too_much)) {
            self.carrying = there.into_iter().collect();
        }
    }

    /// True where a stretch is over in which hardly anything was written, and there is more than one segment.
    pub(super) fn has_been_quiet(&mut self, now_us: u64) -> bool {
        let (began_us, bytes) = (self.stretch.0, self.stretch.1 + self.bytes_since_idle);
        let passed_us = now_us.saturating_sub(began_us);
        if passed_us < STRETCH_US {
            self.stretch.1 = bytes;
            return false;
        }
        self.stretch = (now_us, 0);
        let most = u128::from(self.options.segment_bytes / QUIET_SHARE) * u128::from(passed_us) / 1_000_000;
        u128::from(bytes) <= most && self.oldest < self.segment.number
    }

    /// Copies some of what is to be carried to the end of the log.
    pub(super) fn carry(&mut self) -> Result<(), StorageError> {
        let mut left = CARRY_BYTES.max(self.bytes_since_idle);
        while left > 0
            && let Some(place) = self.carrying.pop_front()
        {
            // The segment may have died by itself in the meantime.
            if place.segment >= self.oldest {
                left = left.saturating_sub(self.carry_record(place)?);
            }
            self.recount |= self.carrying.is_empty();
        }
        Ok(())
    }

    /// Copies what still counts of one record; tells how many bytes that took.
    fn carry_record(&mut self, from: Place) -> Result<u64, StorageError> {
        let mut carried = self.read_record(from)?;
        let fold = self.groups.entry(carried.group).or_default();
        carried.entries.retain(|entry| fold.entry_place(entry.index) == Some(from));
        carried.journal.retain(|record| match record {
            JournalRecord::Written { key, dirty } => {
                fold.journal.get(key).is_some_and(|live| live.place == from && live.dirty.version == dirty.version)
            }
            JournalRecord::Ended { .. } => false,
        });
        if carried.entries.is_empty() && carried.journal.is_empty() {
            return Ok(0);
        }
        mark(Rare::RecordCarried);
        let payload = crate::record::encode(&carried);
        let place = self.put(Kind::Carried, &payload)?;
        let fold = self.groups.entry(carried.group).or_default();
        fold.carry(&carried.entries, &carried.journal, place, false).map_err(|misfit| StorageError::Corrupt {
            what: format!("{}: what was carried does not fit: {misfit}", carried.group),
        })?;
        Ok(payload.len() as u64)
    }

    /// Reads a record with entries or journal records back.
    fn read_record(&self, place: Place) -> Result<Carried, StorageError> {
        let damaged = |why: &str| StorageError::Corrupt {
            what: format!("{}: offset {}: {why}", self.directory.path_of(place.segment).display(), place.offset),
        };
        let header = self.directory.read_at(place.segment, place.offset, RECORD_HEADER_BYTES)?;
        let length = Record::peek_length(&header).ok_or_else(|| damaged("the record is gone"))?;
        let data = self.directory.read_at(place.segment, place.offset, RECORD_HEADER_BYTES + length)?;
        let record = Record::parse(&self.directory.owner, place.segment, place.offset, &data)
            .ok_or_else(|| damaged("the record is damaged"))?;
        match record.kind {
            Kind::Write => {
                let (write, _) = format::decode_write(record.payload).map_err(|error| damaged(&error.to_string()))?;
                let entries = write.raft.map_or_else(Vec::new, |raft| raft.entries);
                Ok(Carried { group: write.group, entries, journal: write.journal })
            }
            Kind::Carried => rmp_serde::from_slice(record.payload).map_err(|error| damaged(&error.to_string())),
            kind => Err(damaged(&format!("a record of kind {kind:?} holds no entry"))),
        }
    }
}
