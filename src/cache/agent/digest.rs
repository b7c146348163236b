//! What two agents of a model are told apart by: whatever a later step can depend on, and nothing else.
//!
//! Left out are settings, statistics, what the slots say already, what an auditor asks and a person is told, which line would go for want of room, and the numbers of journal records, of which only the order
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
            order: _,
            next_request,
            journaled: _,
            flushing,
            draining,
            flushes,
            fills,
            handed_fills,
            released,
            release_us,
            dirty: _,
            counts: _,
            audit: _,
            history: _,
            rules: _,
        } = self;
        (node, incarnation, lease, callers, next_request, draining, flushes, fills, handed_fills, released, release_us)
            .hash(hasher);
        for (key, slot) in slots {
            (key, &slot.state, &slot.waiting, slot.due_us).hash(hasher);
        }
        for (_, key) in flushing {
            key.hash(hasher);
        }
    }
}
