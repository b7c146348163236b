//! Declared queues: what they keep to, how much they take, whether messages come in and go out.
//!
//! A declaration is a record of its own, and a queue that has one is there while it is empty. A queue made on first use keeps to
//! the policy of all zeros, and is gone with its last message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trine_protocol::limits::DEDUP_WINDOW_MS_DEFAULT;
use trine_protocol::queue::{Declare, Enqueue, EnqueueOptions, Flow, Overflow, Policy, SetFlow, Undeclare};
use trine_protocol::{Error, ErrorCode};

use super::Answer;
use super::attributes::Attributes;
use super::dedup::Remembered;
use super::state::{State, check_name, check_whole};
use super::table::Slot;
use crate::ids::{At, Index};

/// When it makes sense to come back to a queue that is full or being drained.
const RETRY_AFTER_MS: u32 = 500;

/// A declaration as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredQueue {
    pub(super) policy: Policy,
    pub(super) flow: Flow,
}

impl State {
    pub(super) fn declare(&mut self, declare: &Declare) -> Result<Answer, Error> {
        declare.check()?;
        let slot = self.declarable(&declare.queue)?;
        let partitioned = declare.policy.partitions > 1;
        let messages = slot.map_or(0, |slot| self.queue(slot).len());
        if partitioned && messages > 0 {
            let message = format!(
                "queue '{}' has {messages} messages, and in partitions it would hold none: drain it first",
                declare.queue
            );
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let flow = slot.map_or(Flow::Open, |slot| self.queue(slot).flow());
        let made = self.set_declaration(&declare.queue, declare.policy.clone(), flow);
        Ok(Answer::Declared { made })
    }

    /// The slot of a queue that is to be declared, if it is there; an error where no more may be made.
    fn declarable(&self, queue: &str) -> Result<Option<Slot>, Error> {
        let slot = self.names.get(queue).copied();
        if slot.is_none() && self.names.len() >= self.limits.queues_max {
            let message = format!("the group has {} queues, as many as it may", self.limits.queues_max);
            return Err(Error::new(ErrorCode::Overloaded, message));
        }
        Ok(slot)
    }

    /// True where the queue was not declared before.
    fn set_declaration(&mut self, name: &str, policy: Policy, flow: Flow) -> bool {
        let slot = self.names.get(name).copied().unwrap_or_else(|| self.make_queue(name));
        let key = Arc::clone(&self.queue(slot).name);
        self.declared.insert(key, StoredQueue { policy: policy.clone(), flow });
        let extra = self.make_extra(slot);
        let made = !std::mem::replace(&mut extra.declared, true);
        let before = std::mem::replace(&mut extra.policy, policy);
        extra.flow = flow;
        self.policy_changed(slot, &before);
        made
    }

    pub(super) fn undeclare(&mut self, undeclare: &Undeclare) -> Result<Answer, Error> {
        check_name(&undeclare.queue)?;
        let slot = self.names.get(undeclare.queue.as_str()).copied();
        let Some(slot) = slot.filter(|slot| self.queue(*slot).is_declared()) else {
            return Ok(Answer::Undeclared { was_declared: false });
        };
        let key = Arc::clone(&self.queue(slot).name);
        self.declared.remove(&key);
        let extra = self.make_extra(slot);
        (extra.declared, extra.flow) = (false, Flow::Open);
        let before = std::mem::take(&mut extra.policy);
        self.policy_changed(slot, &before);
        self.vanish_if_empty(slot);
        Ok(Answer::Undeclared { was_declared: true })
    }

    pub(super) fn set_flow(&mut self, set: &SetFlow) -> Result<Answer, Error> {
        check_name(&set.queue)?;
        let slot = self.declarable(&set.queue)?;
        let before = slot.map_or(Flow::Open, |slot| self.queue(slot).flow());
        let policy = slot.map_or_else(Policy::default, |slot| self.queue(slot).policy().clone());
        self.set_declaration(&set.queue, policy, set.flow);
        Ok(Answer::FlowSet { before })
    }

    fn policy_changed(&mut self, slot: Slot, before: &Policy) {
        let policy = self.queue(slot).policy();
        if policy.fair != before.fair || policy.key_in_flight_max != before.key_in_flight_max {
            self.rebuild(slot, false);
        }
        self.settle_age(slot);
        self.gained.push(slot);
    }

    /// Whether a queue takes one more message.
    pub(super) fn check_limits(&self, slot: Slot, enqueue: &Enqueue) -> Result<(), Error> {
        let queue = self.queue(slot);
        if queue.extra.is_none() {
            return Ok(());
        }
        check_whole(queue)?;
        let (name, policy, bytes) = (&queue.name, queue.policy(), enqueue.body.len() as u64);
        if queue.flow() == Flow::Draining {
            let message = format!("queue '{name}' is being drained, and takes nothing in");
            return Err(Error::new(ErrorCode::QueueDraining, message).retry_after(RETRY_AFTER_MS));
        }
        let full = |what: &str, is: u64, max: u64| {
            let message = format!("queue '{name}' has {is} {what}, and its policy allows {max}");
            Err(Error::new(ErrorCode::QueueFull, message).retry_after(RETRY_AFTER_MS))
        };
        // What is in flight cannot make room.
        let (messages, kept_bytes) = match policy.overflow {
            Overflow::Reject => (queue.len(), queue.bytes),
            Overflow::DropOldest => (queue.in_flight, queue.in_flight_bytes),
        };
        if policy.messages_max > 0 && messages >= policy.messages_max && !self.broken.limit_not_kept {
            return full("messages", messages, policy.messages_max);
        }
        if policy.bytes_max > 0 && kept_bytes + bytes > policy.bytes_max {
            return full("bytes", kept_bytes, policy.bytes_max);
        }
        Ok(())
    }

    /// Drops the oldest messages that are not in flight until one of so many bytes fits, where the policy says so.
    pub(super) fn make_room(&mut self, slot: Slot, bytes: u64) {
        loop {
            let queue = self.queue(slot);
            let policy = queue.policy();
            let over = (policy.messages_max > 0 && queue.len() >= policy.messages_max)
                || (policy.bytes_max > 0 && queue.bytes + bytes > policy.bytes_max);
            if !over || policy.overflow != Overflow::DropOldest {
                return;
            }
            let waiting = [queue.ready.first(), queue.delayed.first().copied(), queue.dead.first().copied()];
            let Some(oldest) = waiting.into_iter().flatten().min() else { return };
            self.discard(oldest);
            self.counts.dropped += 1;
        }
    }

    /// A message with options takes its place.
    pub(super) fn enter_with(&mut self, at: At, slot: Slot, id: Index, options: &EnqueueOptions) {
        if !options.dedup_id.is_empty() {
            let queue = self.queue(slot);
            let window_ms = match queue.policy().dedup_window_ms {
                0 => DEDUP_WINDOW_MS_DEFAULT,
                of_queue => of_queue,
            };
            let (queue, until_ms) = (queue.name.to_string(), at.wall_ms.saturating_add(window_ms.into()));
            self.dedup.remember(id, Remembered { queue, id: options.dedup_id.clone(), until_ms });
        }
        let Some(mut attributes) = Attributes::of(Some(options), at.wall_ms) else {
            self.count_tenant(slot, id);
            return self.enter_ready(slot, id);
        };
        if self.broken.handed_out_early {
            attributes.due_ms = None;
        }
        let (due_ms, expires_ms) = (attributes.due_ms, attributes.expires_ms);
        self.attributes.insert(id, attributes);
        self.count_tenant(slot, id);
        if let Some(expires_ms) = expires_ms {
            self.expiries.insert((expires_ms, id));
        }
        self.enter(slot, id, due_ms);
    }
}
