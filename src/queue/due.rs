//! What happens because time has come: visibility timeouts, back-offs, schedules, times to live, ages, windows of ids.
//!
//! | due | clock | why that one |
//! | --- | --- | --- |
//! | a delivery times out, a message that was given back is ready again | log time | it must not come early, whatever a wall clock does |
//! | the oldest ready message is older than the queue allows | log time | a message carries the log time of its enqueue anyway |
//! | a scheduled message is ready | wall time | it names an instant of the world, and time in which the whole cluster is down counts |
//! | a time to live, or the window of an id, is over | wall time | the same |
//!
//! Timeouts are done completely at the entry that reaches them. Of the others at most [`DUE_MAX`] of each kind are done at one entry: the
//! next one, which the leader proposes at once, goes on.

use trine_protocol::queue::{Attempt, AttemptEnd, DeadReason, Expired};

use super::state::{ByBody, State, queue_mut};
use crate::ids::Index;

/// Things of one kind that one entry does, of those that may come due in any number at one instant.
pub(super) const DUE_MAX: usize = 10_000;

impl State {
    /// Does what is due at these times. To be called with the stamps of every entry before the entry is applied. Says how many
    /// deliveries timed out.
    pub fn expire(&mut self, stamp_ms: u64, wall_ms: u64) -> usize {
        let mut timed_out = 0;
        while let Some(&(deadline_ms, id)) = self.deadlines.first() {
            if deadline_ms > stamp_ms {
                break;
            }
            timed_out += usize::from(self.end_wait(id, wall_ms));
        }
        self.counts.timed_out += timed_out as u64;
        for _ in 0..DUE_MAX {
            let Some(&(due_ms, id)) = self.scheduled.first().filter(|(due_ms, _)| *due_ms <= wall_ms) else { break };
            self.begin_ready(due_ms, id);
        }
        let mut ended = 0;
        while ended < DUE_MAX {
            let Some(&(expires_ms, id)) = self.expiries.first().filter(|(expires_ms, _)| *expires_ms <= wall_ms) else {
                break;
            };
            self.expiries.remove(&(expires_ms, id));
            let queue = self.queue(self.table.get(id).expect("a message with a time to live lives").slot);
            // What is in flight is looked at again when its delivery ends. It takes no turn: a replica that was restored meets it here once more.
            let waits = queue.ready.contains(id) || queue.delayed.contains(&id);
            if waits && !self.broken.expired_handed_out {
                ended += 1;
                self.end_life(id, DeadReason::Expired, wall_ms);
            }
        }
        for _ in 0..DUE_MAX {
            let Some(&(_, oldest)) = self.ages.first().filter(|(due_ms, _)| *due_ms <= stamp_ms) else { break };
            self.end_life(oldest, DeadReason::TooOld, wall_ms);
        }
        self.dedup.forget(wall_ms, DUE_MAX);
        timed_out
    }

    /// The log time at which [`State::expire`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let deadline_ms = self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms);
        deadline_ms.into_iter().chain(self.ages.first().map(|(due_ms, _)| *due_ms)).min()
    }

    /// The wall time at which [`State::expire`] has something to do.
    pub fn next_wall_ms(&self) -> Option<u64> {
        let first = [self.scheduled.first(), self.expiries.first()].into_iter().flatten().map(|(due_ms, _)| *due_ms);
        first.chain(self.dedup.next_due_ms()).min()
    }

    /// The deadline of a delivery is reached: it has timed out, or the wait after it is over. True for the first.
    fn end_wait(&mut self, id: Index, wall_ms: u64) -> bool {
        self.touch(id);
        let message = *self.table.get(id).expect("a message in flight lives");
        let slot = message.slot;
        let delivery = &self.queue(slot).handed[&id];
        if delivery.is_void() {
            self.take_out(slot, id);
            self.return_to_ready(id, wall_ms);
            return false;
        }
        let (token, consumer) = (delivery.token, delivery.consumer().to_owned());
        let before = ByBody::new(id, &message, delivery);
        self.by_body.remove(&before);
        self.by_body.insert(ByBody { timed_out: true, ..before });
        self.leave_flight(slot, id);
        self.note(id, Attempt { token, consumer, end: AttemptEnd::TimedOut, ended_ms: wall_ms });
        match self.is_worn_out(id) {
            true => self.bury(id, DeadReason::MaxDeliveries, String::new(), wall_ms),
            false => self.return_to_ready(id, wall_ms),
        }
        true
    }

    /// A message that is in no state becomes ready, unless its time to live is over.
    pub(super) fn return_to_ready(&mut self, id: Index, wall_ms: u64) {
        let slot = self.table.get(id).expect("it lives").slot;
        self.enter_ready(slot, id);
        let expires_ms =
            if self.attributes.len() == 0 { None } else { self.attributes.get(&id).and_then(|of| of.expires_ms) };
        if expires_ms.is_some_and(|expires_ms| expires_ms <= wall_ms) {
            self.end_life(id, DeadReason::Expired, wall_ms);
        }
    }

    fn begin_ready(&mut self, due_ms: u64, id: Index) {
        self.scheduled.remove(&(due_ms, id));
        self.attributes.get_mut(&id).expect("a scheduled message has attributes").due_ms = None;
        let slot = self.table.get(id).expect("a scheduled message lives").slot;
        assert!(queue_mut(&mut self.queues, slot).delayed.remove(&id), "message {id} is scheduled and not delayed");
        self.delayed -= 1;
        self.enter_ready(slot, id);
    }

    /// The time of a message that waits is over.
    pub(super) fn end_life(&mut self, id: Index, reason: DeadReason, wall_ms: u64) {
        let slot = self.table.get(id).expect("it lives").slot;
        self.counts.expired += 1;
        match self.queue(slot).policy().expired {
            Expired::Drop => self.discard(id),
            Expired::Bury => {
                // One that was given back waits no more for its back-off, and its record says for how long.
                self.touch(id);
                self.take_out(slot, id);
                self.bury(id, reason, String::new(), wall_ms);
            }
        }
    }
}
