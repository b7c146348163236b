//! What two agents of a model are told apart by: whatever a later step can depend on, and nothing else.
//!
//! Left out are settings, statistics, what the slots say already, and the numbers of journal records, of which only the order
//! counts. Every field is named here, so that a new one does not compile before someone has decided.

use std::hash::{Hash, Hasher};

use super::Agent;
use crate::rules::Rules;

impl<R: Rules> Hash for Agent<R> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self {
            group: _,
            node,
            incarnation,
            config: _,
            lease,
            slots,
            due: _,
            callers,
            order,
            next_order: _,
            bytes: _,
            next_request,
            journaled: _,
            flushing,
            draining,
            flushes,
            released,
            release_us,
            dirty: _,
            counts: _,
            rules: _,
        } = self;
        (node, incarnation, lease, callers, next_request, draining, flushes, released, release_us).hash(hasher);
        for (key, slot) in slots {
            // Its place among the others is in the order below.
            (key, &slot.state, &slot.waiting, slot.due_us).hash(hasher);
        }
        for key in order.values().chain(flushing.iter().map(|(_, key)| key)) {
            key.hash(hasher);
        }
    }
}
