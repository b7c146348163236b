//! What must hold in every state of the queues, written down once and checked by brute force.

use std::collections::BTreeMap;

use super::place::Key;
use super::state::{ByBody, Queue, State};
use super::table::Slot;
use crate::ids::Index;

impl State {
    /// Checks every invariant against a recount of all messages.
    ///
    /// # Panics
    /// Where one does not hold: that is a bug of this module. Takes time in proportion to the messages; for tests and the simulator.
    pub fn check_invariants(&self) {
        assert!(self.table.len() <= self.limits.messages_max, "{} messages", self.table.len());
        let (mut count, mut by_body, mut waits, mut scheduled) = (0, 0, 0, 0);
        let (mut bytes, mut flying) = (vec![0; self.queues.len()], vec![(0, 0); self.queues.len()]);
        for id in self.table.ids(0, u64::MAX) {
            let message = self.table.get(id).expect("the table lists what it has");
            let queue = self.queue(message.slot);
            count += 1;
            bytes[message.slot as usize] += u64::from(message.bytes);
            self.check_state(queue, id);
            if let Some(delivery) = queue.handed.get(&id) {
                assert!(delivery.deliveries > 0 && delivery.token > 0, "message {id}: {delivery:?}");
                if !delivery.is_void() {
                    by_body += 1;
                    let place = ByBody::new(id, message, delivery);
                    assert!(self.by_body.contains(&place), "message {id} is not found by its body");
                }
                if let Some(deadline_ms) = delivery.deadline_ms {
                    waits += 1;
                    assert!(self.deadlines.contains(&(deadline_ms, id)), "message {id} never times out");
                }
                if delivery.is_in_flight() {
                    let (messages, of_bytes) = &mut flying[message.slot as usize];
                    (*messages, *of_bytes) = (*messages + 1, *of_bytes + u64::from(message.bytes));
                }
            }
            if let Some(due_ms) = self.attributes.get(&id).and_then(|attributes| attributes.due_ms) {
                scheduled += 1;
                assert!(self.scheduled.contains(&(due_ms, id)), "message {id} is never ready");
            }
        }
        assert_eq!(count, self.table.len(), "messages");
        assert_eq!(by_body, self.by_body.len(), "deliveries that are found by body");
        assert_eq!(waits, self.deadlines.len(), "deadlines");
        assert_eq!(scheduled, self.scheduled.len(), "schedules");
        assert_eq!(self.bytes, bytes.iter().sum::<u64>(), "bytes of all queues");
        for (id, _) in self.attributes.iter() {
            assert!(self.table.get(*id).is_some(), "attributes of message {id}, which is gone");
        }
        for (expires_ms, id) in &self.expiries {
            let of = self.attributes.get(id).and_then(|attributes| attributes.expires_ms);
            assert_eq!(of, Some(*expires_ms), "message {id} expires");
        }
        self.dedup.check_invariants();
        self.check_queues(&bytes, &flying);
    }

    /// A message is in exactly one state.
    fn check_state(&self, queue: &Queue, id: Index) {
        let delivery = queue.handed.get(&id);
        let attributes = self.attributes.get(&id);
        let ready = queue.ready.contains(id);
        let (delayed, dead) = (queue.delayed.contains(&id), queue.dead.contains(&id));
        let in_flight = delivery.is_some_and(super::state::Delivery::is_in_flight);
        let states = usize::from(ready) + usize::from(delayed) + usize::from(dead) + usize::from(in_flight);
        assert_eq!(states, 1, "message {id}: ready {ready}, delayed {delayed}, dead {dead}, in flight {in_flight}");
        assert_eq!(ready, self.ready.contains(id), "message {id} in its queue and in the group");
        assert_eq!(dead, attributes.is_some_and(|attributes| attributes.dead.is_some()), "message {id} is dead");
        let scheduled = attributes.is_some_and(|attributes| attributes.due_ms.is_some());
        let given_back = delivery.is_some_and(|delivery| delivery.deadline_ms.is_some() && delivery.is_void());
        assert_eq!(delayed, scheduled || given_back, "message {id} waits for its time");
        assert!(!(scheduled && given_back), "message {id} waits for two times");
    }

    fn check_queues(&self, bytes: &[u64], flying: &[(u64, u64)]) {
        let in_use = self.queues.iter().flatten().count();
        assert_eq!(in_use, self.names.len(), "queues with a name");
        assert_eq!(in_use + self.free.len(), self.queues.len(), "slots");
        let (mut ready, mut in_flight, mut delayed, mut dead, mut declared) = (0, 0, 0, 0, 0);
        for (name, slot) in &self.names {
            let queue = self.queue(*slot);
            assert_eq!(*name, queue.name, "name of slot {slot}");
            assert_eq!(queue.bytes, bytes[*slot as usize], "bytes of queue {name}");
            assert_eq!(queue.ready.iter().count() as u64, queue.ready.len(), "ready messages of queue {name}");
            let flies = (queue.in_flight, queue.in_flight_bytes);
            assert_eq!(flies, flying[*slot as usize], "messages in flight of queue {name}");
            let ids = queue.ready.iter().chain(queue.handed.keys().copied());
            for id in ids.chain(queue.delayed.iter().copied()).chain(queue.dead.iter().copied()) {
                assert_eq!(self.table.get(id).map(|message| message.slot), Some(*slot), "message {id} of queue {name}");
            }
            assert!(queue.len() > 0 || queue.is_declared(), "queue {name} is empty and still here");
            ready += queue.ready.len();
            in_flight += queue.in_flight;
            delayed += queue.delayed.len() as u64;
            dead += queue.dead.len() as u64;
            declared += usize::from(queue.is_declared());
            match queue.extra {
                Some(_) => self.check_places(*slot),
                // Dequeue skips nothing: whatever was never handed out comes after whatever was.
                None => {
                    let fresh = queue.ready.iter().find(|id| !queue.handed.contains_key(id));
                    let last_handed = queue.handed.keys().next_back().copied();
                    let in_order = fresh.zip(last_handed).is_none_or(|(fresh, handed)| handed < fresh);
                    assert!(
                        in_order || !queue.delayed.is_empty() || self.attributes.len() > 0,
                        "order of queue {name}"
                    );
                }
            }
        }
        assert_eq!((ready, in_flight), (self.ready.len(), self.in_flight), "ready and in flight, of all queues");
        assert_eq!((delayed, dead), (self.delayed, self.dead), "delayed and dead, of all queues");
        assert_eq!(declared, self.declared.len(), "declared queues");
    }

    /// The lanes and keys of a queue hold what they should, and nothing else.
    fn check_places(&self, slot: Slot) {
        if self.broken.key_order_ignored {
            return;
        }
        let queue = self.queue(slot);
        let (name, extra) = (&queue.name, queue.extra.as_deref().expect("asked for one that has it"));
        let mut keys: BTreeMap<String, Key> = BTreeMap::new();
        let key_of = |id: &Index| self.attributes.get(id).map_or("", |attributes| &attributes.key).to_owned();
        let mut in_lanes = 0;
        for id in queue.ready.iter() {
            match key_of(&id) {
                key if key.is_empty() => in_lanes += u64::from(self.in_lane(slot, id)),
                key => drop(keys.entry(key).or_default().waiting.insert(id)),
            }
        }
        let plain = queue.ready.iter().filter(|id| key_of(id).is_empty()).count() as u64;
        assert_eq!(in_lanes, plain, "messages without a key in the lanes of queue {name}");
        let held = queue.handed.iter().filter(|(_, delivery)| delivery.deadline_ms.is_some());
        for (id, _) in held.filter(|(id, _)| !key_of(id).is_empty()) {
            keys.entry(key_of(id)).or_default().holders.insert(*id);
        }
        for key in keys.values_mut() {
            let free = key.holders.len() < extra.policy.key_in_flight_max.max(1) as usize;
            key.candidate = key.waiting.first().copied().filter(|_| free);
            in_lanes += u64::from(key.candidate.is_some_and(|id| self.in_lane(slot, id)));
        }
        assert_eq!(extra.keys, keys, "keys of queue {name}");
        let candidates = keys.values().filter(|key| key.candidate.is_some()).count() as u64;
        assert_eq!((in_lanes, extra.lanes.len()), (plain + candidates, in_lanes), "lanes of queue {name}");
        let oldest = queue.ready.first().filter(|_| extra.policy.age_ms_max > 0);
        let enqueued_ms = |id| self.table.get(id).expect("a ready message lives").enqueued_ms;
        let too_old = oldest.map(|id| (enqueued_ms(id).saturating_add(extra.policy.age_ms_max), id));
        assert_eq!(extra.age_due, too_old, "the oldest message of queue {name} is too old");
        assert!(too_old.is_none_or(|due| self.ages.contains(&due)), "ages of queue {name}");
    }

    fn in_lane(&self, slot: Slot, id: Index) -> bool {
        let extra = self.queue(slot).extra.as_deref().expect("asked for one that has it");
        let attributes = self.attributes.get(&id).cloned().unwrap_or_default();
        let tenant = if extra.policy.fair { attributes.tenant.as_str() } else { "" };
        extra.lanes.contains(attributes.priority, tenant, id)
    }
}
