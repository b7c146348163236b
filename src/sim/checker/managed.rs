//! What a queue promises whose owner sees to it: times to live, priorities, limits; and that a pause pauses, and a purge purges.
//!
//! As the other checkers of services it knows only what clients saw. Whatever may have been executed, because nobody knows, speaks for
//! the queue: a check fails only where no order of events could have led to what was seen.
//!
//! | promise | is broken where |
//! | --- | --- |
//! | nothing is lost | the last drain does not bring what was taken, and neither acknowledged, purged, expired nor dropped |
//! | a time to live ends a message | one is handed out whose time is over by the slowest of the wall clocks |
//! | a pause holds ([`flow`]) | a dequeue brings something that began after a pause was known and ended before anybody opened |
//! | a purge takes all that is there, and nothing else | what was there before it comes after it; or its count is not possible |
//! | a higher priority goes first ([`order`]) | one that was ready stays, and a lower one goes |
//! | limits | a queue certainly has more than it may, or is called full and cannot be |
//!
//! Of where the log has what, ids and tokens tell: they are the indexes of entries.
//!
//! # Caveats
//! - Where a wall clock may be a minute wrong, no time to live is certainly over within a run.
//! - What makes room is told only from what may not: the newest messages, as many as the limit, must still be there.

mod flow;
mod lives;
mod order;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use trine_protocol::queue::{
    Delivery, Dequeue, Dequeued, Expired, Flow, MessageState, Nack, Nacked, Overflow, Policy, Purge, Purged,
    QueueShown, Receipt,
};
use trine_protocol::{ErrorCode, Request, Response};

use super::queue::QueueName;
use super::{Check, Operation, Verdict, index_of, lasts_us};
use crate::ids::GroupId;
use crate::sim::node::WALL_ERROR_MS_MAX;
use crate::sim::workload::managed::policy;
use flow::Flows;
use lives::{Lives, Walls};
use order::{Order, Ready};

/// Every managed queue of the cluster, as its clients saw it.
#[derive(Debug)]
pub(crate) struct ManagedChecker {
    walls: Walls,
    queues: BTreeMap<QueueName, Queue>,
}

#[derive(Debug)]
struct Queue {
    policy: Policy,
    walls: Walls,
    messages: BTreeMap<Bytes, Message>,
    by_id: BTreeMap<u64, Bytes>,
    /// When it was known to be declared.
    declared_us: Option<u64>,
    /// Enqueues that may have been taken before that.
    undeclared: u64,
    flows: Flows,
    purges: BTreeMap<u64, Purging>,
    order: Order,
    /// Dequeues that are under way, had no verdict, or waited: each may have taken anything.
    dequeues_open: u32,
    /// Dead messages may have come back, without a time to live.
    redriven: bool,
}

/// One body that some client enqueued.
#[derive(Debug, Default)]
struct Message {
    id: Option<u64>,
    bytes: u64,
    priority: u8,
    life: Lives,
    /// The enqueue had the verdict that it was not executed.
    refused: bool,
    /// Acknowledgements that are under way or had no verdict: each may have removed the message.
    acks_open: u32,
    acked_us: Option<u64>,
    deliveries: BTreeMap<u64, Seen>,
    /// Last time that a client saw it.
    seen_us: u64,
}

/// One delivery that a client saw.
#[derive(Clone, Copy, Debug)]
struct Seen {
    operation: u64,
    sent_us: u64,
    answered_us: u64,
    visibility_ms: u32,
    count: u32,
    /// Gives it back, or may have.
    given_back: bool,
}

/// A purge that was done, or may be.
#[derive(Clone, Copy, Debug)]
struct Purging {
    sent_us: u64,
    /// When it was known to be done.
    done_us: Option<u64>,
    /// It has left nothing behind, in whatever state.
    all: bool,
}

/// The queue that a request is about, where that is a managed one.
pub(crate) fn queue_of(request: &Request) -> Option<&str> {
    let queue = match request {
        Request::Enqueue(enqueue) => &enqueue.queue,
        Request::Dequeue(dequeue) => &dequeue.queue,
        Request::AckMany(ack) => &ack.queue,
        Request::Nack(nack) => &nack.queue,
        Request::Declare(declare) => &declare.queue,
        Request::SetFlow(set) => &set.queue,
        Request::Purge(purge) => &purge.queue,
        Request::Redrive(redrive) => &redrive.queue,
        Request::ShowQueue(show) => &show.queue,
        _ => return None,
    };
    queue.starts_with('m').then_some(queue)
}

impl Default for ManagedChecker {
    fn default() -> Self {
        Self::new(WALL_ERROR_MS_MAX * 1_000)
    }
}

impl ManagedChecker {
    /// Of a cluster whose wall clocks are wrong by so much at most.
    pub(crate) fn new(wall_error_us: u64) -> Self {
        Self { walls: Walls { error_us: wall_error_us }, queues: BTreeMap::new() }
    }

    fn queue(&mut self, operation: &Operation, name: &str) -> &mut Queue {
        let walls = self.walls;
        self.queues.entry((operation.group, name.to_owned())).or_insert_with(|| Queue::new(policy(name), walls))
    }

    /// A client has sent an operation about the queue of that name.
    pub(crate) fn sent(&mut self, operation: &Operation, name: &str) {
        self.queue(operation, name).sent(operation);
    }

    /// A client knows what became of an operation about the queue of that name.
    pub(crate) fn ended(&mut self, now_us: u64, operation: &Operation, name: &str, verdict: &Verdict) -> Check {
        let checked = self.queue(operation, name).ended(now_us, operation, verdict);
        checked.map_err(|what| format!("managed queue {name} of {}: {what}", operation.group))
    }

    /// The messages that must still be in the queue now, and that no client has seen since that instant.
    pub(crate) fn missing(&self, group: GroupId, name: &str, since_us: u64, now_us: u64) -> Vec<u64> {
        let Some(queue) = self.queues.get(&(group, name.to_owned())) else { return Vec::new() };
        let must = |message: &&Message| {
            message.seen_us < since_us && queue.is_there(message, now_us) && !queue.may_be_dropped(message)
        };
        queue.messages.values().filter(must).filter_map(|message| message.id).collect()
    }
}

impl Queue {
    fn new(policy: Policy, walls: Walls) -> Self {
        Self {
            policy,
            walls,
            messages: BTreeMap::new(),
            by_id: BTreeMap::new(),
            declared_us: None,
            undeclared: 0,
            flows: Flows::default(),
            purges: BTreeMap::new(),
            order: Order::default(),
            dequeues_open: 0,
            redriven: false,
        }
    }

    fn sent(&mut self, operation: &Operation) {
        let (number, sent_us) = (operation.number, operation.sent_us);
        match &operation.request {
            Request::Enqueue(enqueue) => {
                let options = enqueue.options.as_deref().cloned().unwrap_or_default();
                let life =
                    Lives { sent_us, known_us: None, ttl_ms: options.ttl_ms, age_ms_max: self.policy.age_ms_max };
                let (bytes, priority) = (enqueue.body.len() as u64, options.priority);
                let message = Message { bytes, priority, life, ..Message::default() };
                self.messages.insert(enqueue.body.clone(), message);
                self.undeclared += u64::from(self.declared_us.is_none());
            }
            Request::Dequeue(_) => self.dequeues_open += 1,
            Request::AckMany(ack) => {
                for receipt in &ack.receipts {
                    if let Some(message) = self.message(receipt.id) {
                        message.acks_open += 1;
                    }
                }
            }
            Request::Nack(Nack { receipt, .. }) => {
                let seen = self.message(receipt.id).and_then(|message| message.deliveries.get_mut(&receipt.token));
                if let Some(seen) = seen {
                    seen.given_back = true;
                }
            }
            Request::SetFlow(set) => self.flows.sent(number, set.flow, sent_us),
            Request::Purge(_) => {
                self.purges.insert(number, Purging { sent_us, done_us: None, all: false });
            }
            Request::Redrive(_) => self.redriven |= self.policy.expired == Expired::Bury,
            _ => {}
        }
    }

    fn ended(&mut self, now_us: u64, operation: &Operation, verdict: &Verdict) -> Check {
        // A late copy of one that waits, in no session, is another one, and nobody hears of what it takes.
        let alone = matches!(&operation.request, Request::Dequeue(dequeue) if dequeue.wait_ms == 0);
        if alone && *verdict != Verdict::Unknown {
            self.dequeues_open -= 1;
        }
        match (&operation.request, verdict) {
            (Request::Enqueue(enqueue), _) => self.enqueued(now_us, operation, &enqueue.body, verdict),
            (Request::Dequeue(dequeue), Verdict::Answered(Response::Dequeue(Dequeued { deliveries }))) => {
                self.dequeued(now_us, operation, dequeue, deliveries)
            }
            (Request::AckMany(ack), _) => {
                let refused = match verdict {
                    Verdict::Answered(Response::AckMany(acked)) => Some(&acked.refused),
                    _ => None,
                };
                ack.receipts.iter().enumerate().try_for_each(|(place, receipt)| {
                    let good = refused.map(|refused| refused.iter().all(|one| one.place as usize != place));
                    self.acked(now_us, operation, *receipt, good, verdict)
                })
            }
            (Request::Nack(nack), Verdict::Answered(Response::Nack(Nacked { state }))) => self.given_back(nack, *state),
            (Request::Declare(_), Verdict::Answered(_)) => {
                self.declared_us.get_or_insert(now_us);
                Ok(())
            }
            (Request::SetFlow(_), _) => {
                self.flows.ended(operation.number, now_us, verdict);
                Ok(())
            }
            (Request::Purge(purge), _) => self.purged(now_us, operation, purge, verdict),
            (Request::ShowQueue(_), Verdict::Answered(Response::ShowQueue(shown))) => {
                self.shown(now_us, operation, shown)
            }
            _ => Ok(()),
        }
    }

    fn message(&mut self, id: u64) -> Option<&mut Message> {
        self.by_id.get(&id).and_then(|body| self.messages.get_mut(body))
    }

    fn enqueued(&mut self, now_us: u64, operation: &Operation, body: &Bytes, verdict: &Verdict) -> Check {
        let from_us = operation.sent_us;
        let message = self.messages.get_mut(body).expect("noted when it was sent");
        match verdict {
            Verdict::Answered(Response::Enqueue(enqueued)) => {
                message.life.known_us.get_or_insert(now_us);
                self.identify(body, enqueued.id)?;
                if self.flows.is(Flow::Draining, from_us, now_us) {
                    return Err(format!("{} was taken while the queue was being drained", enqueued.id));
                }
                self.had_room(now_us, operation, body, enqueued.id)
            }
            Verdict::Answered(_) | Verdict::Unknown => Ok(()),
            Verdict::NotExecuted(code) => {
                message.refused = true;
                if let Some(id) = message.id {
                    return Err(format!("{body:?} was refused with {code:?}, but is in the queue as {id}"));
                }
                match code {
                    ErrorCode::QueueFull => self.was_full(from_us, body),
                    ErrorCode::QueueDraining if !self.flows.may_be(Flow::Draining, from_us, now_us) => {
                        Err(format!("{body:?} was refused as if the queue were being drained, and nobody drains it"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// A message was taken: the queue was not certainly full, where what is too much is refused.
    fn had_room(&self, now_us: u64, operation: &Operation, body: &Bytes, id: u64) -> Check {
        let declared = self.declared_us.is_some_and(|declared_us| declared_us < operation.sent_us);
        if !declared || self.policy.overflow != Overflow::Reject {
            return Ok(());
        }
        let earlier = |message: &&Message| message.id.is_some_and(|other| other < id);
        let there = || self.messages.values().filter(earlier).filter(|message| self.is_there(message, now_us));
        let (count, bytes) = (there().count() as u64, there().map(|message| message.bytes).sum::<u64>());
        let Policy { messages_max, bytes_max, .. } = self.policy;
        if messages_max > 0 && count >= messages_max {
            return Err(format!("{id} was taken, and there were {count} messages before, {messages_max} are allowed"));
        }
        if bytes_max > 0 && bytes + body.len() as u64 > bytes_max {
            return Err(format!("{id} was taken, and there were {bytes} bytes before, {bytes_max} are allowed"));
        }
        Ok(())
    }

    /// A message was refused because the queue was full: it may have been.
    fn was_full(&self, from_us: u64, body: &Bytes) -> Check {
        let others = || self.messages.iter().filter(|(other, _)| *other != body).map(|(_, message)| message);
        let there = || others().filter(|message| self.may_be_there(message, from_us, true));
        let (count, bytes) = (there().count() as u64, there().map(|message| message.bytes).sum::<u64>());
        let Policy { messages_max, bytes_max, .. } = self.policy;
        let full =
            (messages_max > 0 && count >= messages_max) || (bytes_max > 0 && bytes + body.len() as u64 > bytes_max);
        if full {
            return Ok(());
        }
        Err(format!("{body:?} was refused because the queue was full, and it had {count} messages of {bytes} bytes"))
    }

    /// The body has that id, no other one, and no other body has it.
    fn identify(&mut self, body: &Bytes, id: u64) -> Check {
        let message = self.messages.get_mut(body).expect("a known body");
        if let Some(other) = message.id.replace(id).filter(|other| *other != id) {
            return Err(format!("{body:?} is in the queue twice, as {other} and {id}"));
        }
        match self.by_id.insert(id, body.clone()) {
            Some(other) if other != *body => Err(format!("id {id} is both {other:?} and {body:?}")),
            _ => Ok(()),
        }
    }

    fn dequeued(&mut self, now_us: u64, operation: &Operation, dequeue: &Dequeue, deliveries: &[Delivery]) -> Check {
        let (sent_us, asked) = (operation.sent_us, dequeue.count_max.max(1) as usize);
        if deliveries.len() > asked {
            return Err(format!("{} deliveries for a count of {asked}", deliveries.len()));
        }
        let Some(first) = deliveries.first() else {
            // One that waits is also answered where nobody looked.
            let looked = dequeue.wait_ms == 0 && !self.flows.may_be(Flow::Paused, sent_us, now_us);
            if looked && !self.may_leave_out(now_us, operation, dequeue) {
                self.order.came_back_empty(sent_us, now_us);
            }
            return Ok(());
        };
        if self.flows.is(Flow::Paused, sent_us, now_us) {
            return Err(format!("{} was delivered while the queue was paused", first.id));
        }
        for delivery in deliveries {
            let seen = Seen {
                operation: operation.number,
                sent_us,
                answered_us: now_us,
                visibility_ms: dequeue.visibility_ms,
                count: delivery.deliveries,
                given_back: false,
            };
            self.delivered(delivery, seen)?;
        }
        let all_asked_for = deliveries.len() == asked || self.may_leave_out(now_us, operation, dequeue);
        self.handed_out_in_order(sent_us, deliveries, all_asked_for)?;
        let at = index_of(first.token);
        let with_it = self.messages.values().filter(|message| {
            let delivered = message.deliveries.contains_key(&first.token);
            delivered || message.id.is_some_and(|id| id < at) && self.is_there(message, now_us)
        });
        self.is_within_limit(with_it.count() as u64)
    }

    fn delivered(&mut self, delivery: &Delivery, seen: Seen) -> Check {
        let Delivery { id, token, body, .. } = delivery;
        let Some(message) = self.messages.get(body) else { return Err(format!("{body:?} was never enqueued")) };
        if message.refused {
            return Err(format!("{body:?} was delivered, but its enqueue was refused"));
        }
        if let Some(acked_us) = message.acked_us.filter(|acked_us| *acked_us < seen.sent_us) {
            return Err(format!("{id} was delivered by token {token} after its acknowledgement at {acked_us} us"));
        }
        if self.is_purged(message, seen.sent_us) {
            return Err(format!("{id} was delivered by token {token}, and was purged before"));
        }
        if !self.redriven && message.life.is_over(self.walls, seen.sent_us) {
            let ttl_ms = message.life.ttl_ms;
            return Err(format!("{id} was delivered at {} us, and had {ttl_ms} ms to live", seen.answered_us));
        }
        message.agrees(*id, *token, &seen)?;
        let message = self.messages.get_mut(body).expect("looked up above");
        message.seen_us = seen.answered_us;
        message.life.known_us.get_or_insert(seen.answered_us);
        message.deliveries.insert(*token, seen);
        self.identify(body, *id)
    }

    /// Whether some of what it took may be gone before it is answered: an answer that is asked for again leaves that out.
    fn may_leave_out(&self, now_us: u64, operation: &Operation, dequeue: &Dequeue) -> bool {
        let since = |purge: &Purging| purge.done_us.is_none_or(|done_us| done_us > operation.sent_us);
        now_us >= operation.sent_us + lasts_us(dequeue.visibility_ms) || self.purges.values().any(since)
    }

    /// What a dequeue handed out went before what it left, and before what others left was handed out first.
    fn handed_out_in_order(&mut self, sent_us: u64, deliveries: &[Delivery], all_asked_for: bool) -> Check {
        let of = |delivery: &Delivery| {
            let message = &self.messages[&delivery.body];
            let life = &message.life;
            // One that was dead for a while was not ready all the time.
            let always_ready = delivery.deliveries == 1 && !(self.redriven && life.ttl_ms > 0);
            let ready =
                Ready { priority: message.priority, id: delivery.id, known_us: life.known_us.unwrap_or(sent_us) };
            (ready, always_ready)
        };
        let all: Vec<(Ready, bool)> = deliveries.iter().map(of).collect();
        let at = index_of(deliveries[0].token);
        let last = all.iter().map(|(ready, _)| *ready).max().expect("a dequeue that brings something");
        self.order.handed_out(at, last, all_asked_for)?;
        let firsts = all.into_iter().filter(|(_, always_ready)| *always_ready);
        firsts.map(|(ready, _)| ready).try_for_each(|ready| self.order.first_delivery(at, sent_us, ready))
    }

    fn acked(
        &mut self,
        now_us: u64,
        operation: &Operation,
        receipt: Receipt,
        good: Option<bool>,
        verdict: &Verdict,
    ) -> Check {
        let Some(body) = self.by_id.get(&receipt.id).cloned().filter(|_| *verdict != Verdict::Unknown) else {
            return Ok(());
        };
        let message = self.messages.get_mut(&body).expect("a known body");
        message.acks_open -= 1;
        if good != Some(true) {
            return Ok(());
        }
        if let Some(earlier) = message.acked_us.replace(now_us) {
            return Err(format!("{} was acknowledged twice, at {earlier} and {now_us} us", receipt.id));
        }
        let newer =
            message.deliveries.range(receipt.token + 1..).find(|(_, seen)| seen.answered_us < operation.sent_us);
        if let Some((newer, _)) = newer {
            return Err(format!("the receipt of token {} was good after a delivery by token {newer}", receipt.token));
        }
        if self.is_purged(&self.messages[&body], operation.sent_us) {
            return Err(format!("{} was acknowledged, and was purged before", receipt.id));
        }
        Ok(())
    }

    /// A delivery was given back: the message is ready or waits, or its time was over meanwhile. No policy here counts deliveries.
    fn given_back(&mut self, nack: &Nack, state: MessageState) -> Check {
        let asks_to_wait = nack.delay_ms.is_some_and(|delay_ms| delay_ms > 0);
        let Some(message) = self.message(nack.receipt.id) else { return Ok(()) };
        match state {
            MessageState::Ready if !asks_to_wait => Ok(()),
            MessageState::Delayed if asks_to_wait => Ok(()),
            MessageState::Dead if message.life.ttl_ms > 0 => Ok(()),
            _ => Err(format!("{} was given back by {nack:?}, and is {state:?}", nack.receipt.id)),
        }
    }

    fn purged(&mut self, now_us: u64, operation: &Operation, purge: &Purge, verdict: &Verdict) -> Check {
        let known = self.purges.remove(&operation.number);
        let (Some(known), false) = (known, matches!(verdict, Verdict::NotExecuted(_))) else { return Ok(()) };
        if let Verdict::Answered(Response::Purge(Purged { messages, more })) = verdict {
            let before = |message: &&Message| message.life.known_us.is_some_and(|known_us| known_us < known.sent_us);
            let there = self.messages.values().filter(before).filter(|message| self.is_there(message, now_us));
            let (least, gone) = (there.count() as u64, u64::from(*messages));
            if purge.state.is_none() && !more && gone < least {
                return Err(format!("a purge took {gone} messages, and there were {least}"));
            }
            let most = self.messages.values().filter(|message| self.may_be_there(message, known.sent_us, true));
            let most = most.count() as u64;
            if gone > most {
                return Err(format!("a purge took {gone} messages, and there were {most} at most"));
            }
            if gone == 0 {
                return Ok(());
            }
            let purging = Purging { done_us: Some(now_us), all: purge.state.is_none() && !more, ..known };
            self.purges.insert(operation.number, purging);
            return Ok(());
        }
        self.purges.insert(operation.number, known);
        Ok(())
    }

    /// Somebody looked at the queue: it has what it must, and no more than it can.
    fn shown(&mut self, now_us: u64, operation: &Operation, shown: &QueueShown) -> Check {
        let (line, from_us) = (&shown.line, operation.sent_us);
        let total = line.ready + line.delayed + line.in_flight + line.dead;
        self.is_within_limit(total)?;
        if !self.flows.may_be(line.flow, from_us, now_us) {
            return Err(format!("it is shown as {:?}, and nobody has made it so", line.flow));
        }
        let before = |message: &&Message| message.life.known_us.is_some_and(|known_us| known_us < from_us);
        let there = self.messages.values().filter(before).filter(|message| self.is_there(message, now_us)).count();
        let most = self.messages.values().filter(|message| self.may_be_there(message, from_us, false)).count();
        if (there as u64..=most as u64).contains(&total) {
            return Ok(());
        }
        Err(format!("it is shown with {total} messages, and has {there} to {most}"))
    }

    /// So many messages are in the queue at once. Where it was declared late it may have had more before, and then takes none.
    fn is_within_limit(&self, messages: u64) -> Check {
        let most = self.policy.messages_max.max(self.undeclared);
        if self.policy.messages_max == 0 || self.declared_us.is_none() || messages <= most {
            return Ok(());
        }
        Err(format!("there are {messages} messages, {} are allowed", self.policy.messages_max))
    }

    /// Whether a message has certainly been there from when it was taken until now.
    fn is_there(&self, message: &Message, now_us: u64) -> bool {
        let taken = message.life.known_us.is_some() && message.acked_us.is_none() && message.acks_open == 0;
        // Without its declaration the queue drops what is over.
        let declared = self.declared_us.is_some_and(|declared_us| declared_us < message.life.sent_us);
        let buries = declared && self.policy.expired == Expired::Bury;
        let expires = !buries && message.life.may_be_over(self.walls, now_us);
        taken
            && !expires
            && !self.may_be_purged(message)
            && (self.policy.overflow == Overflow::Reject || !self.may_be_dropped(message))
    }

    /// Whether a message may be there at that time or later. `expires` where what is over is gone by then.
    fn may_be_there(&self, message: &Message, from_us: u64, expires: bool) -> bool {
        // What is in flight outlives its time, until its delivery ends.
        let waits = message.deliveries.is_empty() && self.dequeues_open == 0;
        let over =
            expires && waits && self.policy.expired == Expired::Drop && message.life.is_over(self.walls, from_us);
        let acked = message.acked_us.is_some_and(|acked_us| acked_us < from_us);
        !message.refused && !acked && !over && !self.is_purged(message, from_us)
    }

    /// Whether some purge may have taken it.
    fn may_be_purged(&self, message: &Message) -> bool {
        self.purges.values().any(|purge| purge.done_us.is_none_or(|done_us| done_us > message.life.sent_us))
    }

    /// Whether it was certainly purged before that time.
    fn is_purged(&self, message: &Message, before_us: u64) -> bool {
        let taken_us = message.life.known_us.unwrap_or(u64::MAX);
        let took = |purge: &Purging| purge.all && purge.done_us.is_some_and(|done_us| done_us < before_us);
        self.purges.values().any(|purge| took(purge) && taken_us < purge.sent_us)
    }

    /// Whether a message may have made room for another one: where it is the oldest, there are as many others as the limit allows.
    fn may_be_dropped(&self, message: &Message) -> bool {
        let Policy { messages_max, bytes_max, overflow, .. } = self.policy;
        if overflow == Overflow::Reject || (messages_max == 0 && bytes_max == 0) {
            return false;
        }
        let Some(id) = message.id.filter(|_| bytes_max == 0) else { return true };
        let beside = |other: &&Message| {
            let later = other.id.is_none_or(|other| other > id);
            // An earlier one that was not in flight would go first.
            let may_fly = !other.deliveries.is_empty() || self.dequeues_open > 0;
            let earlier = may_fly && self.may_be_there(other, message.life.sent_us, true);
            !other.refused && other.id != Some(id) && (later || earlier)
        };
        self.messages.values().filter(beside).count() as u64 >= messages_max
    }
}

impl Message {
    /// A delivery agrees with those seen so far: one consumer each, counted up, none before the last one's time is over.
    fn agrees(&self, id: u64, token: u64, seen: &Seen) -> Check {
        if let Some(other) = self.deliveries.get(&token).filter(|other| other.operation != seen.operation) {
            return Err(format!("{id} by token {token} went to operations {} and {}", other.operation, seen.operation));
        }
        if let Some((earlier, before)) = self.deliveries.range(..token).next_back() {
            if before.count >= seen.count {
                return Err(format!(
                    "{id}: delivery {} by token {earlier}, then {} by {token}",
                    before.count, seen.count
                ));
            }
            let free_us = before.sent_us + lasts_us(before.visibility_ms);
            let next = before.count + 1 == seen.count && !before.given_back;
            if next && seen.answered_us < free_us {
                return Err(format!("{id} by token {token} at {} us, hidden until {free_us} us", seen.answered_us));
            }
        }
        if let Some((later, after)) = self.deliveries.range(token + 1..).next() {
            if after.count <= seen.count {
                return Err(format!("{id}: delivery {} by token {token}, then {} by {later}", seen.count, after.count));
            }
        }
        Ok(())
    }
}
