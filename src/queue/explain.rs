//! Why does it not move? One answer for a queue, for a message, for a consumer.
//!
//! Everything that may hold a message up is in the state machine, so nothing is guessed: the flow, the limits, the key and who holds
//! it, the times, the state. Who *asks* for messages is known by the leader alone, and comes in as [`Askers`].

use trine_protocol::limits::CAUSES_MAX;
use trine_protocol::queue::{About, Cause, ExplainedQueue, Flow, MessageState, Overflow};

use super::look::Instants;
use super::state::{Queue, State};
use super::table::Slot;
use crate::ids::Index;

/// Who asks for messages of the queue that is explained, as the leader knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Askers {
    /// Requests that wait.
    pub waiting: u64,
    /// The consumer in question waits since so many milliseconds.
    pub consumer_since_ms: Option<u64>,
}

impl State {
    /// Explains a queue, a message or a consumer.
    pub fn explain(&self, now: Instants, queue: &str, about: &About, askers: Askers) -> ExplainedQueue {
        let mut causes = match (self.names.get(queue).copied(), about) {
            (Some(slot), About::Queue) => self.causes_of_queue(now, slot, askers),
            (Some(slot), About::Message(id)) => self.causes_of_message(now, slot, *id),
            (Some(slot), About::Consumer(consumer)) => self.causes_of_consumer(now, slot, consumer, askers),
            (None, About::Consumer(_)) => match askers.consumer_since_ms {
                Some(since_ms) => vec![Cause::Asks { since_ms }, Cause::NoQueue],
                None => vec![Cause::NoQueue],
            },
            (None, _) => vec![Cause::NoQueue],
        };
        causes.truncate(CAUSES_MAX);
        ExplainedQueue { summary: summary(&causes), causes }
    }

    fn causes_of_queue(&self, now: Instants, slot: Slot, askers: Askers) -> Vec<Cause> {
        let queue = self.queue(slot);
        let mut causes = causes_of_flow(queue);
        causes.extend(self.limits_reached(queue));
        let in_lanes = queue.extra.as_ref().map_or(queue.ready.len(), |extra| extra.lanes.len());
        if in_lanes < queue.ready.len() {
            let keys = queue.extra.iter().flat_map(|extra| extra.keys.values());
            let keys = keys.filter(|key| key.candidate.is_none() && !key.waiting.is_empty()).count() as u64;
            causes.push(Cause::HeldByKeys { messages: queue.ready.len() - in_lanes, keys });
        }
        if in_lanes > 0 && askers.waiting == 0 && queue.flow() != Flow::Paused {
            causes.push(Cause::NobodyAsks { ready: in_lanes });
        }
        if queue.ready.len() == 0 {
            causes.push(Cause::NothingReady { in_ms: self.ready_in_ms(now, queue) });
        }
        causes
    }

    /// When the first message of a queue becomes ready by itself; 0 where none does.
    fn ready_in_ms(&self, now: Instants, queue: &Queue) -> u64 {
        let handed = queue.handed.values().filter_map(|delivery| delivery.deadline_ms);
        let handed = handed.map(|deadline_ms| deadline_ms.saturating_sub(now.stamp_ms)).min();
        let due = queue.delayed.iter().filter_map(|id| self.attributes.get(id)?.due_ms);
        let due = due.map(|due_ms| due_ms.saturating_sub(now.wall_ms)).min();
        handed.into_iter().chain(due).min().map_or(0, |in_ms| in_ms.max(1))
    }

    fn limits_reached(&self, queue: &Queue) -> Vec<Cause> {
        let policy = queue.policy();
        let mut causes = Vec::new();
        let mut reached = |limit: &str, is: u64, max: u64| {
            if max > 0 && is >= max {
                causes.push(Cause::LimitReached { limit: limit.to_owned(), is, max });
            }
        };
        if policy.overflow == Overflow::Reject {
            reached("messages_max", queue.len(), policy.messages_max);
            reached("bytes_max", queue.bytes, policy.bytes_max);
        }
        reached("group", self.table.len() as u64, self.limits.messages_max as u64);
        causes
    }

    fn causes_of_message(&self, now: Instants, slot: Slot, id: Index) -> Vec<Cause> {
        let queue = self.queue(slot);
        if self.table.get(id).is_none_or(|message| message.slot != slot) {
            return vec![Cause::NoMessage];
        }
        let state = super::whole::STATES.into_iter().find(|state| queue.has(*state, id));
        let peeked = self.peeked(now, slot, id, state.expect("a message is in a state"));
        let due_in_ms = peeked.due_in_ms;
        match peeked.state {
            MessageState::InFlight => vec![self.in_flight(now, queue, id)],
            MessageState::Dead => {
                let dead = peeked.dead.expect("a dead message has its reason");
                vec![Cause::Dead { reason: dead.reason, note: dead.note }]
            }
            MessageState::Delayed if queue.handed.get(&id).is_some_and(|delivery| delivery.deadline_ms.is_some()) => {
                vec![Cause::BackingOff { due_in_ms, deliveries: peeked.deliveries }]
            }
            MessageState::Delayed => vec![Cause::Delayed { due_in_ms }],
            MessageState::Ready => {
                let mut causes = causes_of_flow(queue);
                causes.retain(|cause| *cause != Cause::Draining);
                causes.push(self.cause_of_ready(now, queue, id));
                causes
            }
        }
    }

    /// What a ready message waits for.
    fn cause_of_ready(&self, now: Instants, queue: &Queue, id: Index) -> Cause {
        let Some(extra) = queue.extra.as_deref() else { return behind(queue.ready.below(id)) };
        let attributes = self.attributes.get(&id).cloned().unwrap_or_default();
        let tenant = if extra.policy.fair { attributes.tenant.as_str() } else { "" };
        if extra.lanes.contains(attributes.priority, tenant, id) {
            return behind(extra.lanes.before(attributes.priority, id));
        }
        let key = &extra.keys[&attributes.key];
        let before = key.holders.first().copied();
        match before.or_else(|| key.waiting.first().copied()) {
            Some(before) => {
                let delivery = queue.handed.get(&before);
                let deadline_ms = delivery.and_then(|delivery| delivery.deadline_ms);
                Cause::HeldByKey {
                    key: attributes.key.clone(),
                    id: before,
                    token: delivery.map_or(0, |delivery| delivery.token),
                    consumer: delivery.map_or(String::new(), |delivery| delivery.consumer().to_owned()),
                    since_ms: since_ms(now, delivery),
                    free_in_ms: deadline_ms.map_or(0, |deadline_ms| deadline_ms.saturating_sub(now.stamp_ms)),
                }
            }
            None => behind(0),
        }
    }

    fn in_flight(&self, now: Instants, queue: &Queue, id: Index) -> Cause {
        let delivery = &queue.handed[&id];
        Cause::InFlight {
            token: delivery.token,
            consumer: delivery.consumer().to_owned(),
            since_ms: since_ms(now, Some(delivery)),
            free_in_ms: delivery.deadline_ms.map_or(0, |deadline_ms| deadline_ms.saturating_sub(now.stamp_ms)),
            deliveries: delivery.deliveries,
        }
    }

    fn causes_of_consumer(&self, now: Instants, slot: Slot, consumer: &str, askers: Askers) -> Vec<Cause> {
        let queue = self.queue(slot);
        let of_consumer = |id: &Index| queue.handed[id].is_in_flight() && queue.handed[id].consumer() == consumer;
        let held: Vec<Index> = queue.handed.keys().copied().filter(of_consumer).collect();
        let mut causes = Vec::new();
        match askers.consumer_since_ms {
            Some(since_ms) => {
                causes.push(Cause::Asks { since_ms });
                causes.extend(self.causes_of_queue(now, slot, askers));
            }
            None if held.is_empty() => causes.push(Cause::NoConsumer),
            None => causes.push(Cause::NoCredit { holds: held.len() as u64 }),
        }
        causes.extend(held.iter().map(|id| self.in_flight(now, queue, *id)));
        causes
    }
}

impl Queue {
    fn has(&self, state: MessageState, id: Index) -> bool {
        match state {
            MessageState::Ready => self.ready.contains(id),
            MessageState::Delayed => self.delayed.contains(&id),
            MessageState::Dead => self.dead.contains(&id),
            MessageState::InFlight => self.handed.get(&id).is_some_and(super::state::Delivery::is_in_flight),
        }
    }
}

fn causes_of_flow(queue: &Queue) -> Vec<Cause> {
    match queue.flow() {
        Flow::Open => Vec::new(),
        Flow::Paused => vec![Cause::Paused],
        Flow::Draining => vec![Cause::Draining],
    }
}

fn behind(messages: u64) -> Cause {
    if messages == 0 { Cause::Next } else { Cause::Behind { messages } }
}

/// How long ago a delivery was made; 0 where that is not known.
fn since_ms(now: Instants, delivery: Option<&super::state::Delivery>) -> u64 {
    let more = delivery.and_then(|delivery| delivery.more.as_ref()).filter(|more| more.since_ms > 0);
    more.map_or(0, |more| now.stamp_ms.saturating_sub(more.since_ms))
}

/// The first cause, in a sentence.
fn summary(causes: &[Cause]) -> String {
    causes.first().map_or_else(|| "nothing holds it up".to_owned(), Cause::to_string)
}
