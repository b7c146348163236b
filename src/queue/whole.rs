//! Many messages of one queue at once: purging it, and sending dead messages round again.

use trine_protocol::Error;
use trine_protocol::limits::{PURGE_MAX, REDRIVE_MAX};
use trine_protocol::queue::{MessageState, Purge, Redrive, RedriveFilter};

use super::Answer;
use super::attributes::Attributes;
use super::state::{ByBody, Queue, State, check_name, check_whole, queue_mut};
use super::table::Slot;
use crate::ids::{At, Index};

impl Queue {
    /// The messages of a state behind one of them, in order.
    pub(super) fn of_state(&self, state: MessageState, after: Index) -> Box<dyn Iterator<Item = Index> + '_> {
        let from = after.saturating_add(1);
        match state {
            MessageState::Ready => {
                Box::new(std::iter::successors(self.ready.after(after), |before| self.ready.after(*before)))
            }
            MessageState::Delayed => Box::new(self.delayed.range(from..).copied()),
            MessageState::Dead => Box::new(self.dead.range(from..).copied()),
            MessageState::InFlight => {
                let handed = self.handed.range(from..);
                Box::new(handed.filter(|(_, delivery)| delivery.is_in_flight()).map(|(id, _)| *id))
            }
        }
    }

    /// How many messages are in a state.
    pub(super) fn count(&self, state: MessageState) -> u64 {
        match state {
            MessageState::Ready => self.ready.len(),
            MessageState::Delayed => self.delayed.len() as u64,
            MessageState::Dead => self.dead.len() as u64,
            MessageState::InFlight => self.in_flight,
        }
    }
}

/// Every state.
pub(super) const STATES: [MessageState; 4] =
    [MessageState::Ready, MessageState::Delayed, MessageState::InFlight, MessageState::Dead];

impl State {
    pub(super) fn purge(&mut self, purge: &Purge) -> Result<Answer, Error> {
        check_name(&purge.queue)?;
        let Some(slot) = self.names.get(purge.queue.as_str()).copied() else {
            return Ok(Answer::Purged { messages: 0, more: false });
        };
        check_whole(self.queue(slot))?;
        let queue = self.queue(slot);
        let spared = self.broken.purge_spares_flights.then_some(MessageState::InFlight);
        let wanted = |state: &MessageState| purge.state.is_none_or(|only| only == *state) && spared != Some(*state);
        let states = STATES.iter().copied().filter(wanted);
        let all: u64 = states.clone().map(|state| queue.count(state)).sum();
        let mut ids: Vec<Index> = states.flat_map(|state| queue.of_state(state, 0).take(PURGE_MAX as usize)).collect();
        ids.sort_unstable();
        ids.truncate(PURGE_MAX as usize);
        let messages = ids.len() as u32;
        ids.into_iter().for_each(|id| self.discard(id));
        self.counts.purged += u64::from(messages);
        Ok(Answer::Purged { messages, more: u64::from(messages) < all })
    }

    pub(super) fn redrive(&mut self, at: At, redrive: &Redrive) -> Result<Answer, Error> {
        redrive.check()?;
        let Some(slot) = self.names.get(redrive.queue.as_str()).copied() else {
            return Ok(Answer::Redriven { messages: 0, more: false });
        };
        check_whole(self.queue(slot))?;
        let count_max = if redrive.count_max == 0 { REDRIVE_MAX } else { redrive.count_max } as usize;
        let wanted = |id: &Index| {
            let attributes = self.attributes.get(id).expect("a dead message has attributes");
            redrive.filter.as_ref().is_none_or(|filter| matches(filter, *id, attributes))
        };
        let mut ids: Vec<Index> = self.queue(slot).dead.iter().copied().filter(wanted).take(count_max + 1).collect();
        let more = ids.len() > count_max;
        ids.truncate(count_max);
        for (place, id) in ids.iter().enumerate() {
            let wait_ms = match redrive.per_second {
                0 => 0,
                per_second => place as u64 * 1_000 / u64::from(per_second),
            };
            self.revive(slot, *id, (wait_ms > 0).then(|| at.wall_ms.saturating_add(wait_ms)));
        }
        let messages = ids.len() as u32;
        self.counts.redriven += u64::from(messages);
        Ok(Answer::Redriven { messages, more })
    }

    /// A dead message is ready, or will be at that wall time.
    fn revive(&mut self, slot: Slot, id: Index, due_ms: Option<u64>) {
        self.touch(id);
        self.take_out(slot, id);
        let message = *self.table.get(id).expect("a dead message lives on");
        let delivery = queue_mut(&mut self.queues, slot).handed.get_mut(&id);
        let deliveries = delivery.as_ref().map_or(0, |delivery| delivery.deliveries);
        if let Some(delivery) = delivery.filter(|delivery| !delivery.is_void()) {
            self.by_body.remove(&ByBody::new(id, &message, delivery));
            delivery.make_void();
        }
        let attributes = self.attributes.get_mut(&id).expect("a message that was dead has attributes");
        // Its time to live is over where it died of that; it gets no second one.
        (attributes.forgiven, attributes.expires_ms, attributes.due_ms) = (deliveries, None, due_ms);
        self.enter(slot, id, due_ms);
    }
}

fn matches(filter: &RedriveFilter, id: Index, attributes: &Attributes) -> bool {
    let RedriveFilter { reason, key, tenant, ids } = filter;
    let dead = attributes.dead.as_ref().expect("a dead message has its reason");
    reason.is_none_or(|reason| reason == dead.reason)
        && (key.is_empty() || *key == attributes.key)
        && (tenant.is_empty() || *tenant == attributes.tenant)
        && (ids.is_empty() || ids.contains(&id))
}
