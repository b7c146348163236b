//! Where a ready message stands in its queue: which is handed out next, and which waits for an earlier one of its key.
//!
//! ```text
//!   ready messages --- without a key ---------------------------> lanes --> handed out
//!                  \-- with key K --> waiting of K --- the first, when K is free --^
//! ```
//!
//! A key is **held** by its messages that are in flight, and by those that were given back and wait for their time: so what
//! comes after them does not overtake them. With at most one message of a key at a time (the default) the order of a key is kept, over
//! timeouts and back-offs too. It is not held by a message that is scheduled and was never handed out: that takes its place when its
//! time comes; nor by a dead one: it is out of the way, and what follows it goes on.
//!
//! A queue that was not declared and has only messages without priority, key and tenant has nothing of this: its next message
//! is the first of its ready ones.
//!
//! # Invariants
//! - Of each key, the first message that waits is in the lanes if the key is held by fewer messages than it may, and no other one is.
//! - Every ready message without a key is in the lanes.

use std::collections::BTreeSet;
use std::sync::Arc;

use trine_protocol::queue::Flow;

use super::attributes::Attributes;
use super::lanes::{Lanes, STRIDE};
use super::state::{Extra, State, queue_mut};
use super::table::Slot;
use crate::ids::Index;

/// The messages of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Key {
    /// Ready, in order.
    pub(super) waiting: BTreeSet<Index>,
    /// In flight, or given back.
    pub(super) holders: BTreeSet<Index>,
    /// The one that is in the lanes.
    pub(super) candidate: Option<Index>,
}

/// What decides a message's place. Of one without attributes: nothing.
struct Place<'a> {
    priority: u8,
    key: &'a str,
    tenant: &'a str,
}

impl<'a> Place<'a> {
    fn of(attributes: Option<&'a Attributes>, fair: bool) -> Self {
        let Some(attributes) = attributes else { return Self { priority: 0, key: "", tenant: "" } };
        let tenant = if fair { attributes.tenant.as_str() } else { "" };
        Self { priority: attributes.priority, key: &attributes.key, tenant }
    }
}

impl State {
    /// A message becomes ready. It must be in no other state.
    pub(super) fn enter_ready(&mut self, slot: Slot, id: Index) {
        queue_mut(&mut self.queues, slot).ready.insert(id);
        self.ready.insert(id);
        self.place(slot, id);
        self.settle_age(slot);
        if self.gained.last() != Some(&slot) {
            self.gained.push(slot);
        }
    }

    /// A message is ready no more. Where it goes is for the caller.
    pub(super) fn leave_ready(&mut self, slot: Slot, id: Index) {
        self.displace(slot, id);
        let was_ready = queue_mut(&mut self.queues, slot).ready.remove(id) && self.ready.remove(id);
        assert!(was_ready, "message {id} is not ready");
        self.settle_age(slot);
    }

    /// Which message a dequeue takes now.
    pub(super) fn next_ready(&self, slot: Slot, stamp_ms: u64) -> Option<Index> {
        let queue = self.queue(slot);
        let Some(extra) = queue.extra.as_deref() else { return queue.ready.first() };
        if self.broken.priority_ignored && extra.keys.is_empty() && !extra.policy.fair {
            return queue.ready.first();
        }
        let enqueued_ms = |id| self.table.get(id).expect("a ready message lives").enqueued_ms;
        extra.lanes.next(extra.policy.ageing_ms, |id| stamp_ms.saturating_sub(enqueued_ms(id)))
    }

    /// Gives a queue what it needs for messages with a place of their own.
    pub(super) fn make_extra(&mut self, slot: Slot) -> &mut Extra {
        let queue = queue_mut(&mut self.queues, slot);
        // Until now no message of the queue was anything special.
        let lanes = || Lanes::plain(&queue.ready);
        queue.extra.get_or_insert_with(|| Box::new(Extra { lanes: lanes(), ..Extra::default() }))
    }

    /// The lanes, keys and tenants of a queue anew, from its messages: what decides their places has changed. `restored` where the
    /// passes of the tenants are known from records.
    pub(super) fn rebuild(&mut self, slot: Slot, restored: bool) {
        let queue = queue_mut(&mut self.queues, slot);
        let extra = queue.extra.as_deref_mut().expect("only a queue with lanes has them anew");
        (extra.lanes, extra.keys, extra.tenants) = (Lanes::default(), Default::default(), Default::default());
        let fair = extra.policy.fair;
        let ready: Vec<Index> = queue.ready.iter().collect();
        let held = queue.handed.iter().filter(|(_, delivery)| delivery.deadline_ms.is_some());
        let held: Vec<Index> = held.map(|(id, _)| *id).collect();
        if fair {
            let all: BTreeSet<Index> =
                ready.iter().chain(queue.handed.keys()).chain(&queue.delayed).chain(&queue.dead).copied().collect();
            all.into_iter().for_each(|id| self.count_tenant(slot, id));
        }
        if !restored && !fair {
            self.forget_passes(slot);
        }
        held.into_iter().for_each(|id| self.hold(slot, id));
        ready.into_iter().for_each(|id| self.place_as(slot, id, restored));
    }

    fn place(&mut self, slot: Slot, id: Index) {
        if self.queue(slot).extra.is_none() {
            let placed = self.attributes.len() > 0 && self.attributes.get(&id).is_some_and(Attributes::is_placed);
            if placed {
                // The lanes are made from the ready messages; this one goes its own way below.
                queue_mut(&mut self.queues, slot).ready.remove(id);
                self.make_extra(slot);
                queue_mut(&mut self.queues, slot).ready.insert(id);
            } else {
                return;
            }
        }
        self.place_as(slot, id, false);
    }

    fn place_as(&mut self, slot: Slot, id: Index, restored: bool) {
        let extra = queue_mut(&mut self.queues, slot).extra.as_deref_mut().expect("made above");
        let key = Place::of(self.attributes.get(&id), extra.policy.fair).key;
        if key.is_empty() || self.broken.key_order_ignored {
            return self.put_in_lane(slot, id, restored);
        }
        let key = key.to_owned();
        extra.keys.entry(key.clone()).or_default().waiting.insert(id);
        self.settle_key(slot, &key, restored);
    }

    fn displace(&mut self, slot: Slot, id: Index) {
        let Some(extra) = queue_mut(&mut self.queues, slot).extra.as_deref_mut() else { return };
        let key = Place::of(self.attributes.get(&id), extra.policy.fair).key;
        if key.is_empty() || self.broken.key_order_ignored {
            return self.take_from_lane(slot, id);
        }
        let key = key.to_owned();
        extra.keys.get_mut(&key).expect("a message that waits is known to its key").waiting.remove(&id);
        self.settle_key(slot, &key, false);
    }

    /// A message holds its key.
    pub(super) fn hold(&mut self, slot: Slot, id: Index) {
        let Some(extra) = queue_mut(&mut self.queues, slot).extra.as_deref_mut() else { return };
        let Some(key) = self.attributes.get(&id).map(|attributes| &attributes.key).filter(|key| !key.is_empty()) else {
            return;
        };
        let key = key.clone();
        extra.keys.entry(key.clone()).or_default().holders.insert(id);
        self.settle_key(slot, &key, false);
    }

    /// A message holds its key no more.
    pub(super) fn release_key(&mut self, slot: Slot, id: Index) {
        let Some(extra) = queue_mut(&mut self.queues, slot).extra.as_deref_mut() else { return };
        let Some(key) = self.attributes.get(&id).map(|attributes| &attributes.key).filter(|key| !key.is_empty()) else {
            return;
        };
        let key = key.clone();
        if let Some(of_key) = extra.keys.get_mut(&key) {
            of_key.holders.remove(&id);
        }
        self.settle_key(slot, &key, false);
    }

    /// The first message of a key is in the lanes if the key is free.
    fn settle_key(&mut self, slot: Slot, key: &str, restored: bool) {
        if self.broken.key_order_ignored {
            return;
        }
        let extra = queue_mut(&mut self.queues, slot).extra.as_deref_mut().expect("a key has lanes");
        let at_once = extra.policy.key_in_flight_max.max(1) as usize;
        let Some(of_key) = extra.keys.get_mut(key) else { return };
        let free = of_key.holders.len() < at_once;
        let next = of_key.waiting.first().copied().filter(|_| free);
        let before = std::mem::replace(&mut of_key.candidate, next);
        if of_key.waiting.is_empty() && of_key.holders.is_empty() {
            extra.keys.remove(key);
        }
        if before == next {
            return;
        }
        if let Some(before) = before {
            self.take_from_lane(slot, before);
        }
        if let Some(next) = next {
            self.put_in_lane(slot, next, restored);
            if self.gained.last() != Some(&slot) {
                self.gained.push(slot);
            }
        }
    }

    /// A message may be handed out from now on, or from its time on where it has one.
    pub(super) fn enter(&mut self, slot: Slot, id: Index, due_ms: Option<u64>) {
        match due_ms {
            Some(due_ms) => {
                self.scheduled.insert((due_ms, id));
                queue_mut(&mut self.queues, slot).delayed.insert(id);
                self.delayed += 1;
            }
            None => self.enter_ready(slot, id),
        }
    }

    fn put_in_lane(&mut self, slot: Slot, id: Index, restored: bool) {
        let queue = queue_mut(&mut self.queues, slot);
        let name = Arc::clone(&queue.name);
        let extra = queue.extra.as_deref_mut().expect("a message with a place has lanes");
        let place = Place::of(self.attributes.get(&id), extra.policy.fair);
        let mut pass = 0;
        if extra.policy.fair {
            let entry = (name, place.tenant.to_owned());
            pass = self.passes.get(&entry).copied().unwrap_or(0);
            let present = extra.lanes.least_pass();
            // Where nobody has a message that is ready, those who are about to come back count: or else a newcomer had their past on its side.
            let floor = present.unwrap_or_else(|| {
                let from = (Arc::clone(&entry.0), String::new());
                let of_queue = self.passes.range(from..).take_while(|((queue, _), _)| *queue == entry.0);
                of_queue.map(|(_, pass)| *pass).max().unwrap_or(0)
            });
            if !restored && !extra.lanes.has_tenant(place.tenant) && floor > pass {
                pass = floor;
                self.passes.insert(entry, pass);
            }
        }
        extra.lanes.insert(place.priority, place.tenant, pass, id);
    }

    fn take_from_lane(&mut self, slot: Slot, id: Index) {
        let queue = queue_mut(&mut self.queues, slot);
        let name = Arc::clone(&queue.name);
        let extra = queue.extra.as_deref_mut().expect("a message with a place has lanes");
        let place = Place::of(self.attributes.get(&id), extra.policy.fair);
        let fair = extra.policy.fair;
        let pass = if fair { self.passes.get(&(name, place.tenant.to_owned())).copied().unwrap_or(0) } else { 0 };
        extra.lanes.remove(place.priority, place.tenant, pass, id);
    }

    /// A message is about to be handed out: its tenant has used some of its share.
    pub(super) fn charge(&mut self, slot: Slot, id: Index) {
        let queue = queue_mut(&mut self.queues, slot);
        let Some(extra) = queue.extra.as_deref_mut().filter(|extra| extra.policy.fair) else { return };
        if self.broken.turns_not_taken {
            return;
        }
        let tenant = Place::of(self.attributes.get(&id), true).tenant.to_owned();
        let weight = extra.policy.weights.iter().find(|weight| weight.tenant == tenant);
        let step = STRIDE / u64::from(weight.map_or(1, |weight| weight.weight.max(1)));
        let entry = (Arc::clone(&queue.name), tenant);
        let from = self.passes.get(&entry).copied().unwrap_or(0);
        let to = from.saturating_add(step);
        extra.lanes.move_tenant(&entry.1, from, to);
        self.passes.insert(entry, to);
    }

    /// A message of a tenant came.
    pub(super) fn count_tenant(&mut self, slot: Slot, id: Index) {
        let Some(extra) = queue_mut(&mut self.queues, slot).extra.as_deref_mut().filter(|extra| extra.policy.fair)
        else {
            return;
        };
        let tenant = Place::of(self.attributes.get(&id), true).tenant;
        *extra.tenants.entry(tenant.to_owned()).or_default() += 1;
    }

    /// A message of a tenant is gone; with its last one, so is its pass.
    pub(super) fn forget_tenant(&mut self, slot: Slot, attributes: Option<&Attributes>) {
        let queue = queue_mut(&mut self.queues, slot);
        let Some(extra) = queue.extra.as_deref_mut().filter(|extra| extra.policy.fair) else { return };
        let tenant = Place::of(attributes, true).tenant;
        let left = extra.tenants.get_mut(tenant).expect("a message's tenant is counted");
        *left -= 1;
        if *left == 0 {
            extra.tenants.remove(tenant);
            self.passes.remove(&(Arc::clone(&queue.name), tenant.to_owned()));
        }
    }

    /// Nobody takes turns in this queue any more.
    pub(super) fn forget_passes(&mut self, slot: Slot) {
        let name = Arc::clone(&self.queue(slot).name);
        let from = (Arc::clone(&name), String::new());
        let entries: Vec<_> =
            self.passes.range(from..).map(|(entry, _)| entry.clone()).take_while(|(queue, _)| *queue == name).collect();
        for entry in entries {
            self.passes.remove(&entry);
        }
    }

    /// Notes when the oldest ready message of a queue with a bound on the age is too old.
    pub(super) fn settle_age(&mut self, slot: Slot) {
        let queue = queue_mut(&mut self.queues, slot);
        let Some(extra) = queue.extra.as_deref_mut() else { return };
        let oldest = queue.ready.first().filter(|_| extra.policy.age_ms_max > 0);
        let age_due = oldest.map(|id| {
            let enqueued_ms = self.table.get(id).expect("a ready message lives").enqueued_ms;
            (enqueued_ms.saturating_add(extra.policy.age_ms_max), id)
        });
        let before = std::mem::replace(&mut extra.age_due, age_due);
        if before == age_due {
            return;
        }
        if let Some(before) = before {
            self.ages.remove(&before);
        }
        self.ages.extend(age_due);
    }

    /// The queues that got something to hand out since the last call, for whoever waits for that; none where nobody does.
    pub fn take_gained(&mut self, waits: bool) -> Vec<Arc<str>> {
        if !waits {
            self.gained.clear();
            return Vec::new();
        }
        let slots: BTreeSet<Slot> = std::mem::take(&mut self.gained).into_iter().collect();
        slots.into_iter().filter_map(|slot| Some(Arc::clone(&self.queues[slot as usize].as_ref()?.name))).collect()
    }

    /// How many messages of a queue dequeues could take now. One for a queue that answers every dequeue with an error.
    pub fn on_offer(&self, queue: &str) -> u64 {
        let Some(slot) = self.names.get(queue).copied() else { return 0 };
        let queue = self.queue(slot);
        match (queue.flow(), queue.extra.as_deref()) {
            (Flow::Paused, _) => 0,
            (_, Some(extra)) if extra.policy.partitions > 1 => 1,
            (_, Some(extra)) => extra.lanes.len(),
            (_, None) => queue.ready.len(),
        }
    }
}
