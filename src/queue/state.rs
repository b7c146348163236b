//! The queues of one group: what a command does to them. The rest of [`State`] stands by subject in the files beside this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use trine_protocol::limits::{
    BATCH_MAX, CONSUMER_BYTES_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX, VISIBILITY_MS_DEFAULT, VISIBILITY_MS_MAX,
};
use trine_protocol::queue::{Ack, AckMany, AckWhich, Dequeue, Enqueue, Flow, Policy, Receipt, RefusedReceipt};
use trine_protocol::{Error, ErrorCode};

use super::attributes::Attributes;
use super::dedup::Dedup;
use super::lanes::Lanes;
use super::look::Counts;
use super::place::Key;
use super::policy::StoredQueue;
use super::records::Dirty;
use super::table::{Bitmap, Digest, Message, Slot, Table};
use super::tracked::Tracked;
use super::{Answer, BATCH_BYTES_MAX, Broken, Command, Handed, MESSAGES_MAX, QUEUES_MAX};
use crate::ids::{At, Index};

/// What is kept of a message that was handed out: its newest delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delivery {
    /// The fencing token; with the id it is the receipt.
    pub token: u64,
    /// Log time at which the message becomes ready again; None where it has, or is dead.
    pub deadline_ms: Option<u64>,
    /// How often the message has been handed out.
    pub deliveries: u32,
    /// What most deliveries have nothing of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<Box<DeliveryMore>>,
}

/// What is special about a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeliveryMore {
    /// The consumer gave it back, or the message was redriven: the receipt is void, and `deadline_ms` is the end of the wait.
    pub void: bool,
    /// Who took it, where that was said.
    pub consumer: String,
    /// Log time at which it was handed out, where the consumer is known.
    pub since_ms: u64,
}

impl Delivery {
    /// Whether a consumer may still acknowledge it.
    pub(super) fn is_void(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.void)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.deadline_ms.is_some() && !self.is_void()
    }

    /// Who took it; empty where that is not known.
    pub(super) fn consumer(&self) -> &str {
        self.more.as_ref().map_or("", |more| &more.consumer)
    }

    /// Makes the receipt void.
    pub(super) fn make_void(&mut self) {
        self.more.get_or_insert_default().void = true;
    }
}

/// One queue. Where nobody declared it, it is there while it has messages, and no longer.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    /// Messages that are ready, lowest id first.
    pub(super) ready: Bitmap,
    /// The newest delivery of each message that had one: in flight, given back, timed out and ready again, or dead.
    pub(super) handed: BTreeMap<Index, Delivery>,
    /// Messages that are scheduled, or were given back and wait.
    pub(super) delayed: BTreeSet<Index>,
    /// Messages that are handed out no more.
    pub(super) dead: BTreeSet<Index>,
    /// How many of `handed` are in flight, and the bytes of their bodies.
    pub(super) in_flight: u64,
    pub(super) in_flight_bytes: u64,
    /// Bytes of all bodies.
    pub(super) bytes: u64,
    /// What a queue has that was declared, or has messages that are not handed out in the order of their ids.
    pub(super) extra: Option<Box<Extra>>,
}

impl Queue {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            ready: Bitmap::default(),
            handed: BTreeMap::new(),
            delayed: BTreeSet::new(),
            dead: BTreeSet::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            bytes: 0,
            extra: None,
        }
    }

    /// The message that has been here for longest.
    pub(super) fn oldest(&self) -> Option<Index> {
        let handed = self.handed.keys().next().copied();
        self.ready
            .first()
            .into_iter()
            .chain(handed)
            .chain(self.delayed.first().copied())
            .chain(self.dead.first().copied())
            .min()
    }

    /// Messages in all states.
    pub(super) fn len(&self) -> u64 {
        self.ready.len() + self.in_flight + self.delayed.len() as u64 + self.dead.len() as u64
    }

    /// What it keeps to.
    pub(super) fn policy(&self) -> &Policy {
        self.extra.as_ref().map_or(&UNDECLARED, |extra| &extra.policy)
    }

    pub(super) fn flow(&self) -> Flow {
        self.extra.as_ref().map_or(Flow::Open, |extra| extra.flow)
    }

    pub(super) fn is_declared(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.declared)
    }
}

/// See [`Queue::extra`].
#[derive(Clone, Debug, Default)]
pub(super) struct Extra {
    pub(super) declared: bool,
    pub(super) policy: Policy,
    pub(super) flow: Flow,
    /// The ready messages that may be handed out now.
    pub(super) lanes: Lanes,
    /// The keys of messages that are ready, in flight or given back.
    pub(super) keys: BTreeMap<String, Key>,
    /// Messages of each tenant, in all states; kept only for a fair share.
    pub(super) tenants: BTreeMap<String, u64>,
    /// The entry of this queue in [`State::ages`].
    pub(super) age_due: Option<(u64, Index)>,
}

/// What a queue keeps to that nobody declared.
static UNDECLARED: LazyLock<Policy> = LazyLock::new(Policy::default);

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
    /// Every message in flight or given back, by the log time at which it becomes ready again.
    pub(super) deadlines: BTreeSet<(u64, Index)>,
    /// Every scheduled message, by the wall time at which it becomes ready.
    pub(super) scheduled: BTreeSet<(u64, Index)>,
    /// Every message with a time to live, by the wall time at which that is over; not the dead, nor such as outlived it in flight, unless they were restored.
    pub(super) expiries: BTreeSet<(u64, Index)>,
    /// Every queue with a bound on the age and a message that is ready, by the log time at which the oldest of them is too old, and that message.
    pub(super) ages: BTreeSet<(u64, Index)>,
    /// What is special about messages.
    pub(super) attributes: Tracked<Index, Attributes>,
    /// What was declared, by name.
    pub(super) declared: Tracked<Arc<str>, StoredQueue>,
    /// The pass of each tenant of each queue with a fair share.
    pub(super) passes: Tracked<(Arc<str>, String), u64>,
    pub(super) dedup: Dedup,
    pub(super) by_body: BTreeSet<ByBody>,
    /// The ready messages of all queues: the first is the one that has waited for longest.
    pub(super) ready: Bitmap,
    /// Bytes of all bodies.
    pub(super) bytes: u64,
    /// Messages in flight, delayed and dead, of all queues.
    pub(super) in_flight: u64,
    pub(super) delayed: u64,
    pub(super) dead: u64,
    pub(super) counts: Counts,
    /// Buckets that were touched since [`State::take_changes`].
    pub(super) dirty: BTreeMap<u64, Dirty>,
    /// Messages that went since [`State::take_gone`].
    pub(super) gone: Vec<Index>,
    /// Queues that got something to hand out since [`State::take_gained`].
    pub(super) gained: Vec<Slot>,
    pub(super) broken: Broken,
}

impl State {
    /// Applies one command. [`State::expire`] must have seen the entry's stamps before.
    ///
    /// # Errors
    /// Every one is an answer, the same on each replica: `InvalidArgument`, `TooLarge`, `QueueFull`, `QueueDraining`,
    /// `QueuePartitioned`, `Overloaded`, `NotInFlight`, `StaleReceipt`.
    pub fn apply(&mut self, at: At, command: &Command) -> Result<Answer, Error> {
        match command {
            Command::Enqueue(enqueue) => self.enqueue(at, enqueue),
            Command::Dequeue(dequeue) => self.dequeue(at, dequeue),
            Command::Ack(ack) => self.ack(ack),
            Command::Extend(extend) => self.extend(at, extend),
            Command::Nack(nack) => self.nack(at, nack),
            Command::AckMany(ack) => self.ack_many(ack),
            Command::Declare(declare) => self.declare(declare),
            Command::Undeclare(undeclare) => self.undeclare(undeclare),
            Command::SetFlow(set) => self.set_flow(set),
            Command::Purge(purge) => self.purge(purge),
            Command::Redrive(redrive) => self.redrive(at, redrive),
        }
    }

    fn enqueue(&mut self, at: At, enqueue: &Enqueue) -> Result<Answer, Error> {
        let admitted = self.check_enqueue(enqueue);
        if admitted.as_ref().is_err_and(|error| error.code == ErrorCode::QueueFull) {
            self.counts.refused += 1;
        }
        if let Some(first) = admitted? {
            self.counts.duplicates += 1;
            return Ok(Answer::Enqueued { id: first, duplicate: true });
        }
        let slot = match self.names.get(enqueue.queue.as_str()) {
            Some(slot) => *slot,
            None => self.make_queue(&enqueue.queue),
        };
        let (id, bytes) = (at.index, enqueue.body.len() as u32);
        self.make_room(slot, u64::from(bytes));
        self.touch(id);
        self.table.insert(id, Message { digest: Digest::of(&enqueue.body), enqueued_ms: at.stamp_ms, bytes, slot });
        queue_mut(&mut self.queues, slot).bytes += u64::from(bytes);
        self.bytes += u64::from(bytes);
        self.counts.enqueued += 1;
        match enqueue.options.as_deref() {
            None => {
                self.count_tenant(slot, id);
                self.enter_ready(slot, id);
            }
            Some(options) => self.enter_with(at, slot, id, options),
        }
        Ok(Answer::Enqueued { id, duplicate: false })
    }

    /// Whether a receipt is good.
    ///
    /// # Errors
    /// Those that its acknowledgement would get.
    pub fn check_receipt(&self, queue: &str, receipt: Receipt) -> Result<(), Error> {
        let slot = self.names.get(queue).copied();
        if let Some(slot) = slot {
            check_whole(self.queue(slot))?;
        }
        self.find_receipt(slot, receipt.id, receipt.token).map(drop)
    }

    /// Whether a message would be taken: an error where not, and the first one where it is a duplicate.
    ///
    /// # Errors
    /// Those that the enqueue would get.
    pub fn check_enqueue(&self, enqueue: &Enqueue) -> Result<Option<Index>, Error> {
        check_name(&enqueue.queue)?;
        check_body(&enqueue.body)?;
        if let Some(options) = enqueue.options.as_deref() {
            enqueue.check()?;
            if let Some(first) = self.dedup.find(&enqueue.queue, &options.dedup_id) {
                return Ok(Some(first));
            }
            self.dedup.check_room(&options.dedup_id)?;
        }
        if self.table.len() >= self.limits.messages_max {
            let message = format!("the group holds {} messages, as many as it may", self.limits.messages_max);
            return Err(Error::new(ErrorCode::QueueFull, message));
        }
        match self.names.get(enqueue.queue.as_str()) {
            Some(slot) => self.check_limits(*slot, enqueue)?,
            None if self.names.len() >= self.limits.queues_max => {
                let message = format!("the group has {} queues, as many as it may", self.limits.queues_max);
                return Err(Error::new(ErrorCode::Overloaded, message));
            }
            None => {}
        }
        Ok(None)
    }

    fn dequeue(&mut self, at: At, dequeue: &Dequeue) -> Result<Answer, Error> {
        check_name(&dequeue.queue)?;
        let asked_ms = match dequeue.visibility_ms {
            0..=VISIBILITY_MS_MAX => dequeue.visibility_ms,
            more => return Err(out_of_range("visibility_ms", more, VISIBILITY_MS_MAX)),
        };
        let count = match dequeue.count_max {
            0 => 1,
            1..=BATCH_MAX => dequeue.count_max,
            more => return Err(out_of_range("count_max", more, BATCH_MAX)),
        };
        if dequeue.consumer.len() > CONSUMER_BYTES_MAX {
            return Err(too_large("consumer's name", dequeue.consumer.len(), CONSUMER_BYTES_MAX));
        }
        let Some(&slot) = self.names.get(dequeue.queue.as_str()) else {
            return Ok(Answer::Delivered(Vec::new()));
        };
        check_whole(self.queue(slot))?;
        if self.queue(slot).flow() == Flow::Paused && !self.broken.paused_hands_out {
            return Ok(Answer::Delivered(Vec::new()));
        }
        let deadline_ms = at.stamp_ms.saturating_add(u64::from(self.visibility_ms(slot, asked_ms)));
        let (mut handed, mut bytes) = (Vec::new(), 0);
        for _ in 0..count {
            let Some(id) = self.next_ready(slot, at.stamp_ms) else { break };
            bytes += self.table.get(id).expect("a ready message lives").bytes as usize;
            if bytes > self.limits.batch_bytes_max && !handed.is_empty() {
                break;
            }
            handed.push(self.hand_out(slot, id, at, deadline_ms, &dequeue.consumer));
        }
        Ok(Answer::Delivered(handed))
    }

    /// The visibility timeout that a request asks for, where it is 0 that of the queue.
    pub(super) fn visibility_ms(&self, slot: Slot, asked_ms: u32) -> u32 {
        match (asked_ms, self.queue(slot).policy().visibility_ms) {
            (0, 0) => VISIBILITY_MS_DEFAULT,
            (0, of_queue) => of_queue,
            (asked_ms, _) => asked_ms,
        }
    }

    /// Hands out a message that is ready.
    fn hand_out(&mut self, slot: Slot, id: Index, at: At, deadline_ms: u64, consumer: &str) -> Handed {
        self.touch(id);
        self.charge(slot, id);
        self.leave_ready(slot, id);
        let queue = queue_mut(&mut self.queues, slot);
        let message = self.table.get(id).expect("a ready message lives");
        self.counts.delivered += 1;
        let mut deliveries = 1;
        if let Some(before) = queue.handed.get(&id) {
            if !before.is_void() {
                self.by_body.remove(&ByBody::new(id, message, before));
            }
            deliveries = before.deliveries.saturating_add(1);
            self.counts.redelivered += 1;
        }
        let known = || DeliveryMore { void: false, consumer: consumer.to_owned(), since_ms: at.stamp_ms };
        let more = (!consumer.is_empty()).then(|| Box::new(known()));
        let delivery = Delivery { token: at.token(), deadline_ms: Some(deadline_ms), deliveries, more };
        self.by_body.insert(ByBody::new(id, message, &delivery));
        self.deadlines.insert((deadline_ms, id));
        queue.handed.insert(id, delivery);
        queue.in_flight += 1;
        queue.in_flight_bytes += u64::from(message.bytes);
        self.in_flight += 1;
        self.hold(slot, id);
        Handed { id, token: at.token(), deliveries, attributes: self.told(id) }
    }

    /// A message is in flight no more. Where it goes is for the caller.
    pub(super) fn leave_flight(&mut self, slot: Slot, id: Index) {
        let queue = queue_mut(&mut self.queues, slot);
        let delivery = queue.handed.get_mut(&id).expect("a message in flight has a delivery");
        let deadline_ms = delivery.deadline_ms.take().expect("a message in flight has a deadline");
        let bytes = self.table.get(id).expect("a message in flight lives").bytes;
        queue.in_flight -= 1;
        queue.in_flight_bytes -= u64::from(bytes);
        self.in_flight -= 1;
        self.deadlines.remove(&(deadline_ms, id));
        self.release_key(slot, id);
    }

    fn ack(&mut self, ack: &Ack) -> Result<Answer, Error> {
        check_name(&ack.queue)?;
        let slot = self.names.get(ack.queue.as_str()).copied();
        if let Some(slot) = slot {
            check_whole(self.queue(slot))?;
        }
        let id = match &ack.which {
            AckWhich::Receipt { id, token } => self.find_receipt(slot, *id, *token)?,
            AckWhich::Body(body) => {
                check_body(body)?;
                self.find_body(slot, body)?
            }
        };
        self.discard(id);
        self.counts.acknowledged += 1;
        Ok(Answer::Acked { id })
    }

    fn ack_many(&mut self, ack: &AckMany) -> Result<Answer, Error> {
        ack.check()?;
        let mut refused = Vec::new();
        for (place, receipt) in ack.receipts.iter().enumerate() {
            // Looked up each time: the queue is gone with its last message.
            let slot = self.names.get(ack.queue.as_str()).copied();
            match self.find_receipt(slot, receipt.id, receipt.token) {
                Ok(id) => {
                    self.discard(id);
                    self.counts.acknowledged += 1;
                }
                Err(error) => refused.push(RefusedReceipt { place: place as u32, code: error.code }),
            }
        }
        Ok(Answer::AckedMany { refused })
    }

    /// Whether this receipt is of the message's newest delivery, and not void.
    pub(super) fn find_receipt(&self, slot: Option<Slot>, id: Index, token: u64) -> Result<Index, Error> {
        let unknown = || Error::new(ErrorCode::NotInFlight, format!("message {id} has no delivery with token {token}"));
        let queue = self.queue(slot.ok_or_else(unknown)?);
        let delivery = queue.handed.get(&id).ok_or_else(unknown)?;
        if token < delivery.token && !self.broken.stale_receipt_taken {
            let message = format!("the newest delivery of message {id} has token {}", delivery.token);
            return Err(Error::new(ErrorCode::StaleReceipt, message));
        }
        if token > delivery.token {
            return Err(unknown());
        }
        if delivery.is_void() {
            let message = format!("the delivery of message {id} with token {token} was given back");
            return Err(Error::new(ErrorCode::NotInFlight, message));
        }
        Ok(id)
    }

    /// The delivery that an acknowledgement by body means.
    fn find_body(&self, slot: Option<Slot>, body: &[u8]) -> Result<Index, Error> {
        let unknown = || Error::new(ErrorCode::NotInFlight, "no message with this body is being processed");
        let (slot, digest, bytes) = (slot.ok_or_else(unknown)?, Digest::of(body), body.len() as u32);
        let least = ByBody { slot, digest, bytes, timed_out: false, token: 0, id: 0 };
        let most = ByBody { timed_out: true, token: u64::MAX, id: Index::MAX, ..least };
        self.by_body.range(least..=most).next().map(|place| place.id).ok_or_else(unknown)
    }

    /// Takes a message that was touched out of the state that it is in, whichever that is. What is kept of its deliveries stays, as does its place
    /// among those found by body.
    pub(super) fn take_out(&mut self, slot: Slot, id: Index) {
        let queue = queue_mut(&mut self.queues, slot);
        if queue.ready.contains(id) {
            self.leave_ready(slot, id);
        } else if queue.dead.remove(&id) {
            self.dead -= 1;
            self.attributes.get_mut(&id).expect("a dead message has attributes").dead = None;
        } else if queue.delayed.remove(&id) {
            self.delayed -= 1;
            match queue.handed.get_mut(&id).and_then(|delivery| delivery.deadline_ms.take()) {
                Some(deadline_ms) => {
                    self.deadlines.remove(&(deadline_ms, id));
                    self.release_key(slot, id);
                }
                None => {
                    let attributes = self.attributes.get_mut(&id).expect("a scheduled message has attributes");
                    let due_ms = attributes.due_ms.take().expect("a scheduled message has its time");
                    self.scheduled.remove(&(due_ms, id));
                }
            }
        } else {
            self.leave_flight(slot, id);
        }
    }

    /// Takes a message out for good, and its queue where it was the last and nobody declared it.
    pub(super) fn discard(&mut self, id: Index) {
        self.touch(id);
        let message = *self.table.get(id).expect("only a live message is removed");
        let slot = message.slot;
        if let Some(delivery) = self.queue(slot).handed.get(&id).filter(|delivery| !delivery.is_void()) {
            let place = ByBody::new(id, &message, delivery);
            self.by_body.remove(&place);
        }
        self.take_out(slot, id);
        self.table.remove(id);
        let queue = queue_mut(&mut self.queues, slot);
        queue.handed.remove(&id);
        queue.bytes -= u64::from(message.bytes);
        self.bytes -= u64::from(message.bytes);
        self.gone.push(id);
        let attributes = if self.attributes.len() > 0 { self.attributes.remove(&id) } else { None };
        if let Some(expires_ms) = attributes.as_ref().and_then(|attributes| attributes.expires_ms) {
            self.expiries.remove(&(expires_ms, id));
        }
        self.forget_tenant(slot, attributes.as_ref());
        self.vanish_if_empty(slot);
    }

    /// A queue without messages is gone, unless it was declared.
    pub(super) fn vanish_if_empty(&mut self, slot: Slot) {
        let queue = self.queue(slot);
        if queue.len() == 0 && !queue.is_declared() {
            let name = Arc::clone(&queue.name);
            self.names.remove(&name);
            self.queues[slot as usize] = None;
            self.free.push(slot);
        }
    }

    pub(super) fn make_queue(&mut self, name: &str) -> Slot {
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
}

/// The queue of a slot in use. No method, so that the other fields stay free to be borrowed.
pub(super) fn queue_mut(queues: &mut [Option<Queue>], slot: Slot) -> &mut Queue {
    queues[slot as usize].as_mut().expect("a slot in use has a queue")
}

pub(super) fn check_name(name: &str) -> Result<(), Error> {
    match name.len() {
        0 => Err(Error::new(ErrorCode::InvalidArgument, "the queue's name is empty")),
        1..=NAME_BYTES_MAX => Ok(()),
        bytes => Err(too_large("queue's name", bytes, NAME_BYTES_MAX)),
    }
}

/// A queue in partitions holds nothing itself.
pub(super) fn check_whole(queue: &Queue) -> Result<(), Error> {
    match queue.policy().partitions {
        0 | 1 => Ok(()),
        partitions => {
            let (name, last) = (&queue.name, partitions - 1);
            let message = format!(
                "queue '{name}' is declared in {partitions} partitions: name one of '{name}#0' to '{name}#{last}'"
            );
            Err(Error::new(ErrorCode::QueuePartitioned, message).with_hint(partitions.to_string()))
        }
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
