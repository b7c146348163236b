//! Carrying: the live bodies of a mostly dead file are appended anew, so that the file can go.
//!
//! A file says itself what lies in it: it is read from its beginning, a piece at a time, and of each record the state is asked whether
//! it still names that very place. What is moved is durable before the state names its new place; the file goes with the next sync
//! of the state, like any other in which nothing lives.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::ids::{GroupId, Index};
use crate::marks::{Rare, mark};
use crate::node::effect::Checkpoint;
use crate::storage::log::Medium;
use crate::storage::{StateLoad, StateStore, StorageError};

use super::files::{HEADER_BYTES, Record, damaged, name_of, peek_bytes};
use super::index::{Bucket, Place, Turnover, bucket_of};
use super::{Bodies, CARRY_BYTES};

/// How far a file is carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carrying {
    file: u64,
    offset: u64,
}

/// A record that was met.
struct Met {
    group: GroupId,
    id: Index,
    body: Vec<u8>,
    place: Place,
}

impl<S: StateStore + StateLoad, M: Medium> Bodies<S, M> {
    /// Carries a piece where there is something to carry; true where there is more.
    pub(super) fn carry(&mut self) -> Result<bool, StorageError> {
        let begun = self.carrying.take().or_else(|| Some(Carrying { file: self.files.emptiest()?, offset: 0 }));
        let Some(mut carrying) = begun else { return Ok(false) };
        // It may have died by itself in the meantime.
        if self.files.living_in(carrying.file) == 0 {
            return Ok(self.files.emptiest().is_some());
        }
        let met = self.read_piece(&mut carrying)?;
        if met.is_empty() {
            let why = format!("{} bodies are named in this file, and not found", self.files.living_in(carrying.file));
            return Err(damaged(&**self.files.medium(), carrying.file, carrying.offset, &why));
        }
        self.move_bodies(&met)?;
        if self.files.living_in(carrying.file) == 0 {
            self.make_durable()?;
            return Ok(self.files.emptiest().is_some());
        }
        self.carrying = Some(carrying);
        Ok(true)
    }

    /// Reads some records of a file; none where the first one is none.
    fn read_piece(&self, carrying: &mut Carrying) -> Result<Vec<Met>, StorageError> {
        let (medium, name) = (self.files.medium(), name_of(carrying.file));
        let mut data = medium.read_at(&name, carrying.offset, CARRY_BYTES)?;
        if let Some(bytes) = peek_bytes(&data)
            && HEADER_BYTES + bytes > data.len()
        {
            data = medium.read_at(&name, carrying.offset, HEADER_BYTES + bytes)?;
        }
        let (mut met, mut at) = (Vec::new(), 0);
        while let Some(Record { group, id, body }) =
            Record::parse(carrying.file, carrying.offset + at as u64, &data[at..])
        {
            let bytes = u32::try_from(body.len()).expect("its length was four bytes");
            let place = Place { file: carrying.file, offset: carrying.offset + at as u64, bytes };
            met.push(Met { group, id, body: body.to_vec(), place });
            at += HEADER_BYTES + body.len();
        }
        carrying.offset += at as u64;
        Ok(met)
    }

    /// Appends those that still live, and has the state name their new places.
    fn move_bodies(&mut self, met: &[Met]) -> Result<(), StorageError> {
        let mut buckets: BTreeMap<(GroupId, u64), Bucket> = BTreeMap::new();
        let mut turnover = Turnover::default();
        for Met { group, id, body, place } in met {
            let key = (*group, bucket_of(*id));
            let bucket = match buckets.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.bucket(*group, key.1)?),
            };
            if bucket.get(*id) == Some(*place) {
                mark(Rare::BodyCarried);
                let moved = self.files.append(*group, *id, body)?;
                turnover.replaced(bucket.set(*id, Some(moved)), Some(moved));
            }
        }
        self.files.sync()?;
        let mut changes: BTreeMap<GroupId, Vec<_>> = BTreeMap::new();
        for ((group, number), bucket) in &buckets {
            changes.entry(*group).or_default().push(bucket.change(*number));
        }
        for (group, changes) in changes {
            let meta = self.applied.get(&group).cloned().unwrap_or_default();
            self.records.checkpoint(&Checkpoint { group, meta, changes, whole: false })?;
        }
        self.files.turn_over(&turnover);
        Ok(())
    }
}
