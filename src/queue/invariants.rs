//! What must hold in every state of the queues, written down once and checked by brute force.

use super::state::{ByBody, State};

impl State {
    /// Checks every invariant against a recount of all messages.
    ///
    /// # Panics
    /// Where one does not hold: that is a bug of this module. Takes time in proportion to the messages; for tests and the simulator.
    pub fn check_invariants(&self) {
        assert!(self.table.len() <= self.limits.messages_max, "{} messages", self.table.len());
        let (mut count, mut deliveries, mut in_flight) = (0, 0, 0);
        let mut bytes = vec![0; self.queues.len()];
        for id in self.table.ids(0, u64::MAX) {
            let message = self.table.get(id).expect("the table lists what it has");
            let queue = self.queue(message.slot);
            count += 1;
            bytes[message.slot as usize] += u64::from(message.bytes);
            let delivery = queue.handed.get(&id);
            let deadline_ms = delivery.and_then(|delivery| delivery.deadline_ms);
            assert_eq!(
                queue.ready.contains(id),
                deadline_ms.is_none(),
                "message {id} is ready or in flight, never both"
            );
            assert_eq!(queue.ready.contains(id), self.ready.contains(id), "message {id} in its queue and in the group");
            if let Some(delivery) = delivery {
                deliveries += 1;
                assert!(delivery.deliveries > 0 && delivery.token > 0, "message {id}: {delivery:?}");
                assert!(
                    self.by_body.contains(&ByBody::new(id, message, delivery)),
                    "message {id} is not found by its body"
                );
            }
            if let Some(deadline_ms) = deadline_ms {
                in_flight += 1;
                assert!(self.deadlines.contains(&(deadline_ms, id)), "message {id} never times out");
            }
        }
        assert_eq!(count, self.table.len(), "messages");
        assert_eq!(deliveries, self.by_body.len(), "deliveries that are found by body");
        assert_eq!(in_flight, self.deadlines.len(), "deadlines");
        assert_eq!(self.bytes, bytes.iter().sum::<u64>(), "bytes of all queues");
        let waiting = self.table.ids(0, u64::MAX).filter(|id| self.ready.contains(*id)).count();
        assert_eq!((waiting, count - in_flight), (self.ready.len() as usize, waiting), "ready messages of all queues");
        self.check_queues(&bytes);
    }

    fn check_queues(&self, bytes: &[u64]) {
        let in_use = self.queues.iter().flatten().count();
        assert_eq!(in_use, self.names.len(), "queues with a name");
        assert_eq!(in_use + self.free.len(), self.queues.len(), "slots");
        for (name, slot) in &self.names {
            let queue = self.queue(*slot);
            assert_eq!(*name, queue.name, "name of slot {slot}");
            assert_eq!(queue.bytes, bytes[*slot as usize], "bytes of queue {name}");
            assert_eq!(queue.ready.iter().count() as u64, queue.ready.len(), "ready messages of queue {name}");
            let in_flight = queue.handed.values().filter(|delivery| delivery.deadline_ms.is_some()).count();
            assert_eq!(in_flight as u64, queue.in_flight, "messages in flight of queue {name}");
            let mut ids = queue.ready.iter().chain(queue.handed.keys().copied()).peekable();
            assert!(ids.peek().is_some(), "queue {name} is empty and still here");
            for id in ids {
                assert_eq!(self.table.get(id).map(|message| message.slot), Some(*slot), "message {id} of queue {name}");
            }
            // Dequeue skips nothing: whatever was never handed out comes after whatever was.
            let fresh = queue.ready.iter().find(|id| !queue.handed.contains_key(id));
            let last_handed = queue.handed.keys().next_back().copied();
            assert!(fresh.zip(last_handed).is_none_or(|(fresh, handed)| handed < fresh), "order of queue {name}");
        }
    }
}
