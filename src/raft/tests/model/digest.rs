//! What two states of the model are told apart by: whatever a later step can depend on, and nothing else.
//!
//! Left out are instants (a clock decides something only where an action of the model moves it, and what a passed deadline means
//! is in), the generator of timeouts (which has nothing to draw: see `configure`), the numbers of writes (their order
//! counts) and statistics. Every field is named here, so that a new one does not compile before someone has decided.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::world::Member;
use crate::raft::node::{Node, RoleState};
use crate::raft::tests::cluster::{Disk, Flight};
use crate::rules::Rules;

/// The same for the same value, in every run.
pub(super) fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn of_flight(flight: &Flight) -> u64 {
    let Flight { from, to, message } = flight;
    digest((from, to, message))
}

pub(super) fn of_member<R: Rules>(member: &Member<R>) -> u64 {
    let Member { raft, disk, writes, now_us, digest: _ } = member;
    let mut hasher = DefaultHasher::new();
    node(&raft.node, *now_us, &mut hasher);
    let Disk { hard_state, base: _, entries, checkpoint: _ } = disk;
    (hard_state, entries, writes.len()).hash(&mut hasher);
    for write in writes {
        (write.hard_state, write.truncate_from, &write.entries).hash(&mut hasher);
    }
    hasher.finish()
}

fn node<R: Rules>(node: &Node<R>, now_us: u64, hasher: &mut DefaultHasher) {
    let Node {
        rules: _,
        config,
        id: _,
        now: _,
        hard_state,
        role,
        leader,
        log,
        commit,
        applied,
        clock: _,
        random: _,
        acquaintances,
        election_deadline_us: _,
        refuse_votes_until_us,
        writes,
        outbox,
        assembly,
        restore,
        installing,
        stats: _,
    } = node;
    (hard_state, role, leader, log, commit, applied, acquaintances).hash(hasher);
    (writes, outbox, assembly, restore, installing).hash(hasher);
    // A leader refuses because it leads; what its lease leaves behind is in its role.
    let refuses = !matches!(role, RoleState::Leader(_)) && now_us < *refuse_votes_until_us;
    // How long a write has waited decides whether a leader believes in its disk.
    let waiting_us = writes.waiting_us(now_us).min(2 * config.election_us_min + 1);
    (refuses, waiting_us).hash(hasher);
}
