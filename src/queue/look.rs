//! Looking at queues: sums that are kept as things change, and pages of messages.

use trine_protocol::Error;
use trine_protocol::queue::{MessageState, Peek, PeekedMessage, QueueLine, QueueShown};

use super::state::{State, check_whole};
use super::table::Slot;
use crate::ids::Index;

/// The instant that ages and waits are told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instants {
    /// Log time.
    pub stamp_ms: u64,
    /// Wall time.
    pub wall_ms: u64,
}

/// One queue, summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats<'a> {
    /// Its name.
    pub queue: &'a str,
    /// Messages that are ready.
    pub ready: u64,
    /// Messages that are handed out and not timed out.
    pub in_flight: u64,
    /// Messages that are scheduled, or were given back and wait.
    pub delayed: u64,
    /// Messages that are handed out no more.
    pub dead: u64,
    /// Log time at which the oldest message was enqueued, in milliseconds; 0 where there is none.
    pub oldest_enqueued_ms: u64,
    /// Bytes of the bodies of all its messages.
    pub bytes: u64,
}

/// All queues of a group together, in numbers that are kept as they change: reading them takes no time in proportion to anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Queues that are there.
    pub queues: u64,
    /// Messages that are ready.
    pub ready: u64,
    /// Messages that are handed out and not timed out.
    pub in_flight: u64,
    /// Messages that are scheduled, or were given back and wait.
    pub delayed: u64,
    /// Messages that are handed out no more.
    pub dead: u64,
    /// Ids of messages that are remembered.
    pub dedup_ids: u64,
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
    /// Deliveries that were extended.
    pub extended: u64,
    /// Deliveries that were given back.
    pub given_back: u64,
    /// Messages that died.
    pub buried: u64,
    /// Dead messages that were made ready again.
    pub redriven: u64,
    /// Messages whose time to live or age was over, dead or dropped.
    pub expired: u64,
    /// Messages that made room for newer ones.
    pub dropped: u64,
    /// Messages that were purged.
    pub purged: u64,
    /// Messages refused because a queue or the group was full.
    pub refused: u64,
    /// Messages not taken because their id was there before.
    pub duplicates: u64,
}

impl State {
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

    /// The messages that went since the last call, whose bodies nobody needs any more.
    pub fn take_gone(&mut self) -> Vec<Index> {
        std::mem::take(&mut self.gone)
    }

    /// All queues together.
    pub fn totals(&self) -> Totals {
        let oldest = self.ready.first().map(|id| self.table.get(id).expect("a ready message lives").enqueued_ms);
        Totals {
            queues: self.names.len() as u64,
            ready: self.ready.len(),
            in_flight: self.in_flight,
            delayed: self.delayed,
            dead: self.dead,
            dedup_ids: self.dedup.len() as u64,
            bytes: self.bytes,
            oldest_ready_ms: oldest,
            counts: self.counts,
        }
    }

    /// Every queue in the order of the names, summed up.
    pub fn stats(&self) -> impl Iterator<Item = Stats<'_>> {
        self.names.values().map(|slot| {
            let queue = self.queue(*slot);
            Stats {
                queue: &queue.name,
                ready: queue.ready.len(),
                in_flight: queue.in_flight,
                delayed: queue.delayed.len() as u64,
                dead: queue.dead.len() as u64,
                oldest_enqueued_ms: queue
                    .oldest()
                    .and_then(|id| self.table.get(id))
                    .map_or(0, |oldest| oldest.enqueued_ms),
                bytes: queue.bytes,
            }
        })
    }

    /// Up to `count_max` queues behind that name, in order.
    pub fn lines(&self, now: Instants, after: &str, count_max: usize) -> Vec<QueueLine> {
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let slots = self.names.range::<str, _>(behind).map(|(_, slot)| *slot);
        slots.take(count_max).map(|slot| self.line(now, slot)).collect()
    }

    fn line(&self, now: Instants, slot: Slot) -> QueueLine {
        let queue = self.queue(slot);
        let in_lanes = queue.extra.as_ref().map_or(queue.ready.len(), |extra| extra.lanes.len());
        let oldest = queue.ready.first().and_then(|id| self.table.get(id));
        QueueLine {
            queue: queue.name.to_string(),
            declared: queue.is_declared(),
            flow: queue.flow(),
            ready: queue.ready.len(),
            held_by_key: queue.ready.len() - in_lanes,
            delayed: queue.delayed.len() as u64,
            in_flight: queue.in_flight,
            dead: queue.dead.len() as u64,
            bytes: queue.bytes,
            oldest_ready_ms: oldest.map_or(0, |oldest| now.stamp_ms.saturating_sub(oldest.enqueued_ms)),
            waiting: 0,
        }
    }

    /// One queue; all zeros where there is none of that name. The group is for the caller to fill in.
    pub fn show(&self, now: Instants, queue: &str) -> QueueShown {
        let Some(slot) = self.names.get(queue).copied() else { return QueueShown::default() };
        let policy = self.queue(slot).is_declared().then(|| Box::new(self.queue(slot).policy().clone()));
        QueueShown { line: self.line(now, slot), policy, group: 0 }
    }

    /// A page of messages of one state, without their bodies, and whether there are more. The page ends before its bodies would be
    /// too many bytes for an answer.
    ///
    /// # Errors
    /// `InvalidArgument`, `TooLarge`, `QueuePartitioned`.
    pub fn peek(&self, now: Instants, peek: &Peek) -> Result<(Vec<PeekedMessage>, bool), Error> {
        peek.check()?;
        let Some(slot) = self.names.get(peek.queue.as_str()).copied() else { return Ok((Vec::new(), false)) };
        check_whole(self.queue(slot))?;
        let mut ids = self.queue(slot).of_state(peek.state, peek.after).peekable();
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while let Some(id) = ids.peek().copied() {
            bytes += self.table.get(id).expect("a message of a queue lives").bytes as usize;
            let full = messages.len() >= peek.count_max.max(1) as usize;
            if full || (bytes > self.limits.batch_bytes_max && !messages.is_empty()) {
                break;
            }
            messages.push(self.peeked(now, slot, id, peek.state));
            ids.next();
        }
        Ok((messages, ids.peek().is_some()))
    }

    /// What a consumer is told of a message beside its body.
    pub(super) fn told(&self, id: Index) -> Option<Box<trine_protocol::queue::Attributes>> {
        if self.attributes.len() == 0 {
            return None;
        }
        self.attributes.get(&id).and_then(super::attributes::Attributes::to_wire).map(Box::new)
    }

    pub(super) fn peeked(&self, now: Instants, slot: Slot, id: Index, state: MessageState) -> PeekedMessage {
        let message = self.table.get(id).expect("it lives");
        let delivery = self.queue(slot).handed.get(&id);
        let attributes = self.attributes.get(&id);
        let wait_ms =
            delivery.and_then(|delivery| delivery.deadline_ms).map(|due_ms| due_ms.saturating_sub(now.stamp_ms));
        let schedule_ms =
            attributes.and_then(|attributes| attributes.due_ms).map(|due_ms| due_ms.saturating_sub(now.wall_ms));
        PeekedMessage {
            id,
            body: bytes::Bytes::new(),
            state,
            age_ms: now.stamp_ms.saturating_sub(message.enqueued_ms),
            deliveries: delivery.map_or(0, |delivery| delivery.deliveries),
            token: delivery.map_or(0, |delivery| delivery.token),
            consumer: delivery.map_or(String::new(), |delivery| delivery.consumer().to_owned()),
            due_in_ms: wait_ms.or(schedule_ms).unwrap_or(0),
            attributes: attributes.and_then(super::attributes::Attributes::to_wire).unwrap_or_default(),
            dead: attributes.and_then(|attributes| attributes.dead.clone()),
            history: attributes.map_or_else(Vec::new, |attributes| attributes.history.clone()),
        }
    }
}
