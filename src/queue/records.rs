//! How the queues become records and come back.
//!
//! A restart reads records one by one, in any order, and then calls [`State::finish`]: only then is it known what is special about
//! each message, and what each queue keeps to. Everything that is not in a record follows from what is: the lanes, the keys,
//! the schedules. So a replica that was restored answers as one that saw every command.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attributes::Attributes;
use super::dedup::Remembered;
use super::policy::StoredQueue;
use super::state::{ByBody, Extra, State, queue_mut};
use super::stored::{self, Kind, StoredBucket, StoredMessage};
use super::table::{Digest, Message, Slot, bit_of, bucket_of, ids_of};
use crate::ids::Index;
use crate::record::{self, BadRecord, Change};

/// What is to be written of one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dirty {
    /// The ids that its record holds.
    pub(super) stored: u64,
    /// The ids that a command touched since.
    pub(super) touched: u64,
}

impl State {
    /// Notes that a message is about to change. To be called before it does.
    pub(super) fn touch(&mut self, id: Index) {
        let bucket = bucket_of(id);
        let stored = || Dirty { stored: self.table.live_bits(bucket), touched: 0 };
        self.dirty.entry(bucket).or_insert_with(stored).touched |= bit_of(id);
    }

    /// The records that changed since the last call, in key order. What came and went in between leaves no trace.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = dirty.into_iter().filter_map(|(bucket, Dirty { stored, touched })| {
            let live = self.table.live_bits(bucket);
            let value = (live != 0).then(|| self.encode(bucket));
            (touched & (stored | live) != 0).then(|| Change { key: stored::key(bucket), value })
        });
        let mut changes: Vec<Change> = changed.collect();
        changes.extend(self.attributes.take_changes(|id| stored::side_key(Kind::Attributes, *id), record::encode));
        changes.extend(self.dedup.take_changes());
        let mut passes = self.passes.take_changes(|(queue, tenant)| stored::pass_key(queue, tenant), record::encode);
        passes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        changes.extend(passes);
        changes.extend(self.declared.take_changes(|name| stored::queue_key(name), record::encode));
        changes
    }

    /// All records, in key order.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let buckets = self.table.buckets().map(|bucket| (stored::key(bucket), self.encode(bucket)));
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = buckets.collect();
        records.extend(self.attributes.records(|id| stored::side_key(Kind::Attributes, *id), record::encode));
        if !self.broken.ids_left_out_of_snapshots {
            records.extend(self.dedup.records());
        }
        let passes = self.passes.records(|(queue, tenant)| stored::pass_key(queue, tenant), record::encode);
        let mut passes: Vec<(Vec<u8>, Vec<u8>)> = passes.collect();
        passes.sort_unstable();
        records.extend(passes);
        records.extend(self.declared.records(|name| stored::queue_key(name), record::encode));
        records
    }

    /// The value of a bucket's record.
    fn encode(&self, bucket: u64) -> Vec<u8> {
        let mut record = StoredBucket::default();
        let mut slots: Vec<Slot> = Vec::new();
        for id in ids_of(bucket, self.table.live_bits(bucket)) {
            let message = self.table.get(id).expect("the id lives");
            let queue = self.queue(message.slot);
            let place = slots.iter().position(|slot| *slot == message.slot).unwrap_or_else(|| {
                slots.push(message.slot);
                record.queues.push(queue.name.to_string());
                slots.len() - 1
            });
            let Digest([digest_high, digest_low]) = message.digest;
            record.messages.push(StoredMessage {
                offset: stored::offset_of(id),
                queue: place as u8,
                digest_high,
                digest_low,
                bytes: message.bytes,
                enqueued_ms: message.enqueued_ms,
                delivery: queue.handed.get(&id).cloned(),
            });
        }
        record::encode(&record)
    }

    /// Puts back one record of [`State::records`]. Into a fresh state, each once, in any order; then [`State::finish`].
    ///
    /// # Errors
    /// Where the record is none that this module writes. The state is then to be thrown away.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRecord> {
        let twice = || BadRecord { key: key.to_vec(), why: "the record is there twice".into() };
        match stored::kind_of(key)? {
            Kind::Bucket => self.restore_bucket(key, value),
            Kind::Attributes => {
                let attributes: Attributes = record::decode(key, value)?;
                self.attributes.put_back(stored::side_id(key)?, attributes).then_some(()).ok_or_else(twice)
            }
            Kind::Dedup => {
                let remembered: Remembered = record::decode(key, value)?;
                self.dedup.restore(key, stored::side_id(key)?, remembered)
            }
            Kind::Pass => {
                let (queue, tenant) = stored::pass_entry(key)?;
                let pass: u64 = record::decode(key, value)?;
                self.passes.put_back((queue.into(), tenant), pass).then_some(()).ok_or_else(twice)
            }
            Kind::Queue => {
                let declared: StoredQueue = record::decode(key, value)?;
                let name: Arc<str> = stored::queue_name(key)?.into();
                self.declared.put_back(name, declared).then_some(()).ok_or_else(twice)
            }
        }
    }

    fn restore_bucket(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRecord> {
        let (bucket, record) = stored::read(key, value)?;
        if self.table.live_bits(bucket) != 0 {
            return Err(BadRecord { key: key.to_vec(), why: "the record is there twice".into() });
        }
        for stored in record.messages {
            let name = &record.queues[usize::from(stored.queue)];
            let slot = self.names.get(name.as_str()).copied().unwrap_or_else(|| self.make_queue(name));
            let id = stored::id_of(bucket, stored.offset);
            let message =
                Message { digest: stored.digest(), enqueued_ms: stored.enqueued_ms, bytes: stored.bytes, slot };
            self.table.insert(id, message);
            self.bytes += u64::from(stored.bytes);
            let queue = queue_mut(&mut self.queues, slot);
            queue.bytes += u64::from(stored.bytes);
            let deadline_ms = stored.delivery.as_ref().and_then(|delivery| delivery.deadline_ms);
            let void = stored.delivery.as_ref().is_some_and(|delivery| delivery.is_void());
            match deadline_ms {
                Some(deadline_ms) if void => {
                    self.deadlines.insert((deadline_ms, id));
                    queue.delayed.insert(id);
                    self.delayed += 1;
                }
                Some(deadline_ms) => {
                    self.deadlines.insert((deadline_ms, id));
                    queue.in_flight += 1;
                    queue.in_flight_bytes += u64::from(stored.bytes);
                    self.in_flight += 1;
                }
                // Or scheduled, or dead: its attributes say so.
                None => {
                    queue.ready.insert(id);
                    self.ready.insert(id);
                }
            }
            if let Some(delivery) = stored.delivery {
                if !void {
                    self.by_body.insert(ByBody::new(id, &message, &delivery));
                }
                queue.handed.insert(id, delivery);
            }
        }
        Ok(())
    }

    /// Every record is back: what follows from them all.
    ///
    /// # Errors
    /// Where the records do not fit each other.
    pub fn finish(&mut self) -> Result<(), BadRecord> {
        let mut special: BTreeSet<Slot> = BTreeSet::new();
        let ids: Vec<Index> = self.attributes.iter().map(|(id, _)| *id).collect();
        for id in ids {
            special.extend(self.restore_place(id)?);
        }
        let declared: Vec<(Arc<str>, StoredQueue)> =
            self.declared.iter().map(|(name, stored)| (Arc::clone(name), stored.clone())).collect();
        for (name, StoredQueue { policy, flow }) in declared {
            let slot = self.names.get(&name).copied().unwrap_or_else(|| self.make_queue(&name));
            let extra = Extra { declared: true, policy, flow, ..Extra::default() };
            queue_mut(&mut self.queues, slot).extra = Some(Box::new(extra));
            special.insert(slot);
        }
        for slot in special {
            queue_mut(&mut self.queues, slot).extra.get_or_insert_default();
            self.rebuild(slot, true);
            self.settle_age(slot);
        }
        self.gained.clear();
        Ok(())
    }

    /// The state of a message that its attributes tell. Its queue, where it takes another place there than a message without any.
    fn restore_place(&mut self, id: Index) -> Result<Option<Slot>, BadRecord> {
        let bad = |why: &str| BadRecord { key: stored::side_key(Kind::Attributes, id), why: why.into() };
        let message = *self.table.get(id).ok_or_else(|| bad("attributes of no message"))?;
        let queue = queue_mut(&mut self.queues, message.slot);
        let attributes = self.attributes.get(&id).expect("it was listed");
        let (due_ms, dead) = (attributes.due_ms, attributes.dead.is_some());
        if due_ms.is_some() || dead {
            if !(queue.ready.remove(id) && self.ready.remove(id)) || (due_ms.is_some() && dead) {
                return Err(bad("a message in two states"));
            }
            match due_ms {
                Some(due_ms) => {
                    self.scheduled.insert((due_ms, id));
                    queue.delayed.insert(id);
                    self.delayed += 1;
                }
                None => {
                    queue.dead.insert(id);
                    self.dead += 1;
                }
            }
        }
        // One whose time was over while it was in flight ends with its delivery: it is due at once where it waits no more.
        if let Some(expires_ms) = attributes.expires_ms.filter(|_| !dead) {
            self.expiries.insert((expires_ms, id));
        }
        Ok(attributes.is_placed().then_some(message.slot))
    }
}
