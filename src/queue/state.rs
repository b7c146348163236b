//! The queues of one group: what a command does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trine_protocol::limits::{BATCH_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX, VISIBILITY_MS_DEFAULT, VISIBILITY_MS_MAX};
use trine_protocol::queue::{Ack, AckWhich, Dequeue, Enqueue};
use trine_protocol::{Error, ErrorCode};

use super::stored::{self, StoredBucket, StoredMessage};
use super::table::{Bitmap, Digest, Message, Slot, Table, bit_of, bucket_of, ids_of};
use super::{Answer, BATCH_BYTES_MAX, Command, Handed, MESSAGES_MAX, QUEUES_MAX};
use crate::ids::{At, Index};
use crate::record::{self, BadRecord, Change};

/// What is kept of a message that was handed out: its newest delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delivery {
    /// The fencing token; with the id it is the receipt.
    pub token: u64,
    /// Log time at which the message becomes ready again; None where it has.
    pub deadline_ms: Option<u64>,
    /// How often the message has been handed out.
    pub deliveries: u32,
}

/// One queue. It is there while it has messages, and no longer.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    /// Messages that a dequeue may take, lowest id first.
    pub(super) ready: Bitmap,
    /// The newest delivery of each message that had one: in flight, or timed out and ready again.
    pub(super) handed: BTreeMap<Index, Delivery>,
    /// How many of `handed` are in flight.
    pub(super) in_flight: u64,
    /// Bytes of all bodies.
    pub(super) bytes: u64,
}

impl Queue {
    fn new(name: Arc<str>) -> Self {
        Self { name, ready: Bitmap::default(), handed: BTreeMap::new(), in_flight: 0, bytes: 0 }
    }

    /// The message that has been here for longest.
    pub(super) fn oldest(&self) -> Option<Index> {
        self.ready.first().into_iter().chain(self.handed.keys().next().copied()).min()
    }
}

/// One queue, summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats<'a> {
    /// Its name.
    pub queue: &'a str,
    /// Messages that a dequeue may take now.
    pub ready: u64,
    /// Messages that are handed out and not timed out.
    pub in_flight: u64,
    /// Log time at which the oldest message was enqueued, in milliseconds.
    pub oldest_enqueued_ms: u64,
    /// Bytes of the bodies of all its messages.
    pub bytes: u64,
}

/// All queues of a group together, in numbers that are kept as they change: reading them takes no time in proportion to anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Queues that have messages.
    pub queues: u64,
    /// Messages that a dequeue may take now.
    pub ready: u64,
    /// Messages that are handed out and not timed out.
    pub in_flight: u64,
    /// Bytes of the bodies of all messages.
    pub bytes: u64,
    /// Log time at which the oldest message that is ready was enqueued, in milliseconds.
    pub oldest_ready_ms: Option<u64>,
    /// What was done.
    pub counts: Counts,
}

/// What was done to the messages of a group since this state was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages put in.
    pub enqueued: u64,
    /// Deliveries, repeated ones included.
    pub delivered: u64,
    /// Deliveries of messages that had been handed out before.
    pub redelivered: u64,
    /// Messages removed by an acknowledgement.
    pub acknowledged: u64,
    /// Deliveries that timed out.
    pub timed_out: u64,
}

/// How much a group takes. A part of the state only so that tests need not fill ten million places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub messages_max: usize,
    pub queues_max: usize,
    pub batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages_max: MESSAGES_MAX, queues_max: QUEUES_MAX, batch_bytes_max: BATCH_BYTES_MAX }
    }
}

/// Place of a delivery among those that an acknowledgement by body can mean. Of one queue and one body those in flight
/// come first, then those that timed out; in each the oldest delivery first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ByBody {
    pub slot: Slot,
    pub digest: Digest,
    pub bytes: u32,
    pub timed_out: bool,
    pub token: u64,
    pub id: Index,
}

impl ByBody {
    pub(super) fn new(id: Index, message: &Message, delivery: &Delivery) -> Self {
        let Message { slot, digest, bytes, .. } = *message;
        Self { slot, digest, bytes, timed_out: delivery.deadline_ms.is_none(), token: delivery.token, id }
    }
}

/// What is to be written of one bucket.
#[derive(Clone, Copy, Debug)]
struct Dirty {
    /// The ids that its record holds.
    stored: u64,
    /// The ids that a command touched since.
    touched: u64,
}

/// All queues of one group. Every replica applies the same commands to it and gets the same answers.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) limits: Limits,
    pub(super) table: Table,
    /// By slot; None where a queue has vanished.
    pub(super) queues: Vec<Option<Queue>>,
    /// The slots without a queue.
    pub(super) free: Vec<Slot>,
    pub(super) names: BTreeMap<Arc<str>, Slot>,
    /// Every message in flight, by the log time at which it times out.
    pub(super) deadlines: BTreeSet<(u64, Index)>,
    pub(super) by_body: BTreeSet<ByBody>,
    /// The ready messages of all queues: the first is the one that has waited for longest.
    pub(super) ready: Bitmap,
    /// Bytes of all bodies.
    pub(super) bytes: u64,
    counts: Counts,
    /// Buckets that were touched since [`State::take_changes`].
    dirty: BTreeMap<u64, Dirty>,
}

impl State {
    /// Applies one command. [`State::expire`] must have seen the entry's stamp before.
    ///
    /// # Errors
    /// Every one is an answer, the same on each replica: `InvalidArgument`, `TooLarge`, `QueueFull`, `Overloaded`,
    /// `NotInFlight`, `StaleReceipt`.
    pub fn apply(&mut self, at: At, command: &Command) -> Result<Answer, Error> {
        match command {
            Command::Enqueue(enqueue) => self.enqueue(at, enqueue),
            Command::Dequeue(dequeue) => self.dequeue(at, dequeue),
            Command::Ack(ack) => self.ack(ack),
        }
    }

    fn enqueue(&mut self, at: At, enqueue: &Enqueue) -> Result<Answer, Error> {
        check_name(&enqueue.queue)?;
        check_body(&enqueue.body)?;
        if self.table.len() >= self.limits.messages_max {
            let message = format!("the group holds {} messages, as many as it may", self.limits.messages_max);
            return Err(Error::new(ErrorCode::QueueFull, message));
        }
        let slot = match self.names.get(enqueue.queue.as_str()) {
            Some(slot) => *slot,
            None if self.names.len() >= self.limits.queues_max => {
                let message =
                    format!("the group has {} queues with messages, as many as it may", self.limits.queues_max);
                return Err(Error::new(ErrorCode::Overloaded, message));
            }
            None => self.make_queue(&enqueue.queue),
        };
        let (id, bytes) = (at.index, enqueue.body.len() as u32);
        self.touch(id);
        self.table.insert(id, Message { digest: Digest::of(&enqueue.body), enqueued_ms: at.stamp_ms, bytes, slot });
        let queue = queue_mut(&mut self.queues, slot);
        queue.ready.insert(id);
        queue.bytes += u64::from(bytes);
        self.ready.insert(id);
        self.bytes += u64::from(bytes);
        self.counts.enqueued += 1;
        Ok(Answer::Enqueued { id })
    }

    fn dequeue(&mut self, at: At, dequeue: &Dequeue) -> Result<Answer, Error> {
        check_name(&dequeue.queue)?;
        let visibility_ms = match dequeue.visibility_ms {
            0 => VISIBILITY_MS_DEFAULT,
            1..=VISIBILITY_MS_MAX => dequeue.visibility_ms,
            more => return Err(out_of_range("visibility_ms", more, VISIBILITY_MS_MAX)),
        };
        let count = match dequeue.count_max {
            0 => 1,
            1..=BATCH_MAX => dequeue.count_max,
            more => return Err(out_of_range("count_max", more, BATCH_MAX)),
        };
        let Some(&slot) = self.names.get(dequeue.queue.as_str()) else {
            return Ok(Answer::Delivered(Vec::new()));
        };
        let deadline_ms = at.stamp_ms.saturating_add(u64::from(visibility_ms));
        let (mut handed, mut bytes) = (Vec::new(), 0);
        for _ in 0..count {
            let Some(id) = self.queue(slot).ready.first() else { break };
            bytes += self.table.get(id).expect("a ready message lives").bytes as usize;
            if bytes > self.limits.batch_bytes_max && !handed.is_empty() {
                break;
            }
            handed.push(self.hand_out(slot, id, at.token(), deadline_ms));
        }
        Ok(Answer::Delivered(handed))
    }

    /// Hands out a message that is ready.
    fn hand_out(&mut self, slot: Slot, id: Index, token: u64, deadline_ms: u64) -> Handed {
        self.touch(id);
        let queue = queue_mut(&mut self.queues, slot);
        let message = self.table.get(id).expect("a ready message lives");
        queue.ready.remove(id);
        self.ready.remove(id);
        self.counts.delivered += 1;
        let mut deliveries = 1;
        if let Some(before) = queue.handed.get(&id) {
            self.by_body.remove(&ByBody::new(id, message, before));
            deliveries = before.deliveries.saturating_add(1);
            self.counts.redelivered += 1;
        }
        let delivery = Delivery { token, deadline_ms: Some(deadline_ms), deliveries };
        self.by_body.insert(ByBody::new(id, message, &delivery));
        self.deadlines.insert((deadline_ms, id));
        queue.handed.insert(id, delivery);
        queue.in_flight += 1;
        Handed { id, token, deliveries }
    }

    fn ack(&mut self, ack: &Ack) -> Result<Answer, Error> {
        check_name(&ack.queue)?;
        let slot = self.names.get(ack.queue.as_str()).copied();
        let id = match &ack.which {
            AckWhich::Receipt { id, token } => self.find_receipt(slot, *id, *token)?,
            AckWhich::Body(body) => {
                check_body(body)?;
                self.find_body(slot, body)?
            }
        };
        self.remove(id);
        Ok(Answer::Acked { id })
    }

    /// Whether this receipt is of the message's newest delivery.
    fn find_receipt(&self, slot: Option<Slot>, id: Index, token: u64) -> Result<Index, Error> {
        let unknown = || Error::new(ErrorCode::NotInFlight, format!("message {id} has no delivery with token {token}"));
        let queue = self.queue(slot.ok_or_else(unknown)?);
        let delivery = queue.handed.get(&id).ok_or_else(unknown)?;
        if token < delivery.token {
            let message = format!("the newest delivery of message {id} has token {}", delivery.token);
            return Err(Error::new(ErrorCode::StaleReceipt, message));
        }
        if token == delivery.token { Ok(id) } else { Err(unknown()) }
    }

    /// The delivery that an acknowledgement by body means.
    fn find_body(&self, slot: Option<Slot>, body: &[u8]) -> Result<Index, Error> {
        let unknown = || Error::new(ErrorCode::NotInFlight, "no message with this body is being processed");
        let (slot, digest, bytes) = (slot.ok_or_else(unknown)?, Digest::of(body), body.len() as u32);
        let least = ByBody { slot, digest, bytes, timed_out: false, token: 0, id: 0 };
        let most = ByBody { timed_out: true, token: u64::MAX, id: Index::MAX, ..least };
        self.by_body.range(least..=most).next().map(|place| place.id).ok_or_else(unknown)
    }

    /// Does what is due at this log time: a delivery that timed out makes its message ready again, at its old place.
    /// To be called with the stamp of every entry before the entry is applied. Says how many timed out.
    pub fn expire(&mut self, stamp_ms: u64) -> usize {
        let mut expired = 0;
        while let Some(&(deadline_ms, id)) = self.deadlines.first() {
            if deadline_ms > stamp_ms {
                break;
            }
            self.touch(id);
            self.deadlines.pop_first();
            let message = self.table.get(id).expect("a message in flight lives");
            let queue = queue_mut(&mut self.queues, message.slot);
            let delivery = queue.handed.get_mut(&id).expect("a message in flight has a delivery");
            self.by_body.remove(&ByBody::new(id, message, delivery));
            delivery.deadline_ms = None;
            self.by_body.insert(ByBody::new(id, message, delivery));
            queue.ready.insert(id);
            queue.in_flight -= 1;
            self.ready.insert(id);
            expired += 1;
        }
        self.counts.timed_out += expired as u64;
        expired
    }

    /// The log time in milliseconds at which [`State::expire`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Takes a message out, and its queue where it was the last.
    fn remove(&mut self, id: Index) {
        self.touch(id);
        let message = self.table.remove(id).expect("only a live message is removed");
        let queue = queue_mut(&mut self.queues, message.slot);
        let delivery = queue.handed.remove(&id).expect("only a delivered message is acknowledged");
        self.by_body.remove(&ByBody::new(id, &message, &delivery));
        match delivery.deadline_ms {
            Some(deadline_ms) => {
                self.deadlines.remove(&(deadline_ms, id));
                queue.in_flight -= 1;
            }
            None => {
                assert!(queue.ready.remove(id), "message {id} is neither in flight nor ready");
                self.ready.remove(id);
            }
        }
        queue.bytes -= u64::from(message.bytes);
        self.bytes -= u64::from(message.bytes);
        self.counts.acknowledged += 1;
        if queue.ready.len() == 0 && queue.handed.is_empty() {
            self.names.remove(&queue.name);
            self.queues[message.slot as usize] = None;
            self.free.push(message.slot);
        }
    }

    fn make_queue(&mut self, name: &str) -> Slot {
        let name: Arc<str> = name.into();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.queues.push(None);
            Slot::try_from(self.queues.len() - 1).expect("the number of queues is bounded")
        });
        self.queues[slot as usize] = Some(Queue::new(Arc::clone(&name)));
        self.names.insert(name, slot);
        slot
    }

    pub(super) fn queue(&self, slot: Slot) -> &Queue {
        self.queues[slot as usize].as_ref().expect("a slot in use has a queue")
    }

    /// Notes that a message is about to change. To be called before it does.
    fn touch(&mut self, id: Index) {
        let bucket = bucket_of(id);
        let stored = || Dirty { stored: self.table.live_bits(bucket), touched: 0 };
        self.dirty.entry(bucket).or_insert_with(stored).touched |= bit_of(id);
    }

    /// The records that changed since the last call, in key order. A message that came and went in between leaves no trace.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = dirty.into_iter().filter_map(|(bucket, Dirty { stored, touched })| {
            let live = self.table.live_bits(bucket);
            let value = (live != 0).then(|| self.encode(bucket));
            (touched & (stored | live) != 0).then(|| Change { key: stored::key(bucket), value })
        });
        changed.collect()
    }

    /// All records, in key order.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.table.buckets().map(|bucket| (stored::key(bucket), self.encode(bucket))).collect()
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

    /// Puts back one record of [`State::records`]. Into a fresh state, each once, in any order.
    ///
    /// # Errors
    /// Where the record is none that this module writes. The state is then to be thrown away.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRecord> {
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
            let queue = queue_mut(&mut self.queues, slot);
            queue.bytes += u64::from(stored.bytes);
            self.bytes += u64::from(stored.bytes);
            match stored.delivery.as_ref().and_then(|delivery| delivery.deadline_ms) {
                Some(deadline_ms) => {
                    self.deadlines.insert((deadline_ms, id));
                    queue.in_flight += 1;
                }
                None => {
                    assert!(queue.ready.insert(id), "message {id} is ready twice");
                    self.ready.insert(id);
                }
            }
            if let Some(delivery) = stored.delivery {
                self.by_body.insert(ByBody::new(id, &message, &delivery));
                queue.handed.insert(id, delivery);
            }
        }
        Ok(())
    }

    /// The messages alive whose bodies stand in the log in (after, through], in order.
    pub fn live_bodies(&self, after: Index, through: Index) -> Vec<Index> {
        self.table.ids(after, through).collect()
    }

    /// Whether a message is neither acknowledged nor unknown.
    pub fn is_live(&self, id: Index) -> bool {
        self.table.get(id).is_some()
    }

    /// Number of messages alive, of all queues.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no queue has a message.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// All queues together.
    pub fn totals(&self) -> Totals {
        let oldest = self.ready.first().map(|id| self.table.get(id).expect("a ready message lives").enqueued_ms);
        Totals {
            queues: self.names.len() as u64,
            ready: self.ready.len(),
            in_flight: self.deadlines.len() as u64,
            bytes: self.bytes,
            oldest_ready_ms: oldest,
            counts: self.counts,
        }
    }

    /// Every queue in the order of the names, summed up.
    pub fn stats(&self) -> impl Iterator<Item = Stats<'_>> {
        self.names.values().map(|slot| {
            let queue = self.queue(*slot);
            let oldest = queue.oldest().and_then(|id| self.table.get(id)).expect("a queue that is there has messages");
            Stats {
                queue: &queue.name,
                ready: queue.ready.len(),
                in_flight: queue.in_flight,
                oldest_enqueued_ms: oldest.enqueued_ms,
                bytes: queue.bytes,
            }
        })
    }
}

/// The queue of a slot in use. No method, so that the other fields stay free to be borrowed.
fn queue_mut(queues: &mut [Option<Queue>], slot: Slot) -> &mut Queue {
    queues[slot as usize].as_mut().expect("a slot in use has a queue")
}

fn check_name(name: &str) -> Result<(), Error> {
    match name.len() {
        0 => Err(Error::new(ErrorCode::InvalidArgument, "the queue's name is empty")),
        1..=NAME_BYTES_MAX => Ok(()),
        bytes => Err(too_large("queue's name", bytes, NAME_BYTES_MAX)),
    }
}

fn check_body(body: &[u8]) -> Result<(), Error> {
    if body.len() > VALUE_BYTES_MAX { Err(too_large("body", body.len(), VALUE_BYTES_MAX)) } else { Ok(()) }
}

fn too_large(what: &str, bytes: usize, bytes_max: usize) -> Error {
    Error::new(ErrorCode::TooLarge, format!("the {what} has {bytes} bytes, at most {bytes_max} are allowed"))
}

fn out_of_range(field: &str, value: u32, value_max: u32) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("{field} is {value}, at most {value_max} is allowed"))
}
