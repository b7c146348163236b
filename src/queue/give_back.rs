//! One delivery, extended or given back; and messages that nobody can digest.
//!
//! ```text
//!   IN FLIGHT -- Extend ---------------------------------> IN FLIGHT, until later
//!   IN FLIGHT -- Nack, or its time is over
//!       |-- handed out as often as it may be, or rejected -> DEAD      (with its history)
//!       |-- to be handed out later ------------------------> DELAYED   (its back-off, or the delay of the Nack)
//!       '-- otherwise -------------------------------------> READY     at its old place
//! ```
//!
//! A message that was given back keeps its delivery, whose receipt is void: the consumer said that the work is not done, so a late
//! acknowledgement of it is `NotInFlight`. One whose time ran out may still be acknowledged while nobody else got it, dead or not.
//!
//! One whose time to live is over ends with its delivery: dead or dropped, as the policy says, and the answer calls both dead.
//!
//! A timeout waits for nothing more: the consumer's silence was wait enough.

use trine_protocol::limits::VISIBILITY_MS_MAX;
use trine_protocol::queue::{Attempt, AttemptEnd, DeadLetter, DeadReason, Extend, MessageState, Nack};
use trine_protocol::{Error, ErrorCode};

use super::Answer;
use super::attributes::back_off_ms;
use super::state::{ByBody, State, check_whole, queue_mut};
use super::table::Slot;
use crate::ids::{At, Index};

impl State {
    /// The delivery of a receipt that is in flight.
    fn find_in_flight(&self, queue: &str, id: Index, token: u64) -> Result<(Slot, Index), Error> {
        let slot = self.names.get(queue).copied();
        if let Some(slot) = slot {
            check_whole(self.queue(slot))?;
        }
        let id = self.find_receipt(slot, id, token)?;
        let slot = slot.expect("a receipt was found in it");
        if self.queue(slot).handed[&id].is_in_flight() {
            return Ok((slot, id));
        }
        let message = format!("the time of message {id}'s delivery with token {token} is over");
        Err(Error::new(ErrorCode::NotInFlight, message))
    }

    pub(super) fn extend(&mut self, at: At, extend: &Extend) -> Result<Answer, Error> {
        extend.check()?;
        let (slot, id) = self.find_in_flight(&extend.queue, extend.receipt.id, extend.receipt.token)?;
        let visibility_ms = u64::from(self.visibility_ms(slot, extend.visibility_ms).min(VISIBILITY_MS_MAX));
        self.touch(id);
        let delivery = queue_mut(&mut self.queues, slot).handed.get_mut(&id).expect("found above");
        let deadline_ms = at.stamp_ms.saturating_add(visibility_ms);
        let before = delivery.deadline_ms.replace(deadline_ms).expect("it is in flight");
        self.deadlines.remove(&(before, id));
        self.deadlines.insert((deadline_ms, id));
        self.counts.extended += 1;
        Ok(Answer::Extended { id })
    }

    pub(super) fn nack(&mut self, at: At, nack: &Nack) -> Result<Answer, Error> {
        nack.check()?;
        let (slot, id) = self.find_in_flight(&nack.queue, nack.receipt.id, nack.receipt.token)?;
        self.touch(id);
        let message = *self.table.get(id).expect("a message in flight lives");
        let delivery = &self.queue(slot).handed[&id];
        let (token, deliveries, consumer) = (delivery.token, delivery.deliveries, delivery.consumer().to_owned());
        let place = ByBody::new(id, &message, delivery);
        self.by_body.remove(&place);
        // What decides over it is looked at before it moves.
        let (attributes, policy) = (self.attributes.get(&id), self.queue(slot).policy());
        let back_off = attributes.and_then(|attributes| attributes.back_off).unwrap_or(policy.back_off);
        let round = deliveries - attributes.map_or(0, |attributes| attributes.forgiven).min(deliveries);
        let delay_ms = nack.delay_ms.unwrap_or_else(|| back_off_ms(back_off, id, token, round));
        self.leave_flight(slot, id);
        queue_mut(&mut self.queues, slot).handed.get_mut(&id).expect("it was delivered").make_void();
        self.counts.given_back += 1;
        let end = AttemptEnd::GivenBack(nack.reason.clone());
        self.note(id, Attempt { token, consumer, end, ended_ms: at.wall_ms });
        let reason = match nack.reject {
            true => Some(DeadReason::Rejected),
            false => self.is_worn_out(id).then_some(DeadReason::MaxDeliveries),
        };
        if let Some(reason) = reason {
            self.bury(id, reason, nack.reason.clone(), at.wall_ms);
            return Ok(Answer::Nacked { state: MessageState::Dead });
        }
        let expires_ms = self.attributes.get(&id).and_then(|attributes| attributes.expires_ms);
        if expires_ms.is_some_and(|expires_ms| expires_ms <= at.wall_ms) {
            self.return_to_ready(id, at.wall_ms);
            return Ok(Answer::Nacked { state: MessageState::Dead });
        }
        if delay_ms == 0 {
            self.return_to_ready(id, at.wall_ms);
            return Ok(Answer::Nacked { state: MessageState::Ready });
        }
        let deadline_ms = at.stamp_ms.saturating_add(delay_ms.into());
        let queue = queue_mut(&mut self.queues, slot);
        queue.handed.get_mut(&id).expect("it was delivered").deadline_ms = Some(deadline_ms);
        queue.delayed.insert(id);
        self.delayed += 1;
        self.deadlines.insert((deadline_ms, id));
        self.hold(slot, id);
        Ok(Answer::Nacked { state: MessageState::Delayed })
    }

    /// Whether a message has been handed out as often as it may be.
    pub(super) fn is_worn_out(&self, id: Index) -> bool {
        let queue = self.queue(self.table.get(id).expect("it lives").slot);
        let attributes = if self.attributes.len() == 0 { None } else { self.attributes.get(&id) };
        let (max, forgiven) = match attributes {
            Some(attributes) => (attributes.max_deliveries(queue.policy()), attributes.forgiven),
            None => (queue.policy().max_deliveries, 0),
        };
        let deliveries = queue.handed.get(&id).map_or(0, |delivery| delivery.deliveries);
        max > 0 && deliveries.saturating_sub(forgiven) >= max && !self.broken.deliveries_not_counted
    }

    /// Notes how a delivery ended, where the message may die of it, or has attributes anyway.
    pub(super) fn note(&mut self, id: Index, attempt: Attempt) {
        let may_die = self.queue(self.table.get(id).expect("it lives").slot).policy().max_deliveries > 0;
        let known = self.attributes.len() > 0 && self.attributes.get(&id).is_some();
        let said = matches!(&attempt.end, AttemptEnd::GivenBack(reason) if !reason.is_empty());
        if may_die || known || said {
            self.attributes.or_default(&id).note(attempt);
        }
    }

    /// A message that is in no state is dead.
    pub(super) fn bury(&mut self, id: Index, reason: DeadReason, note: String, wall_ms: u64) {
        let attributes = self.attributes.or_default(&id);
        let said = attributes.history.last().and_then(|attempt| match &attempt.end {
            AttemptEnd::GivenBack(reason) => Some(reason.clone()),
            AttemptEnd::TimedOut => None,
        });
        let note = if note.is_empty() { said.unwrap_or_default() } else { note };
        attributes.dead = Some(DeadLetter { reason, note, since_ms: wall_ms });
        let expires_ms = attributes.expires_ms;
        if let Some(expires_ms) = expires_ms {
            self.expiries.remove(&(expires_ms, id));
        }
        let slot = self.table.get(id).expect("it lives").slot;
        queue_mut(&mut self.queues, slot).dead.insert(id);
        self.dead += 1;
        self.counts.buried += 1;
    }
}
