//! What must hold in every state, and what must be reached in some: figure 3 of the Raft paper, by someone who sees all nodes.

use std::sync::Arc;

use stateright::Property;

use super::world::{Member, World};
use super::{Group, Start};
use crate::raft::{Raft, Role};
use crate::rules::Rules;

pub(super) const ELECTION_SAFETY: &str = "election safety";
pub(super) const LOG_MATCHING: &str = "log matching";
pub(super) const LEADER_COMPLETENESS: &str = "leader completeness";
pub(super) const STATE_MACHINE_SAFETY: &str = "state machine safety";
pub(super) const APPLIED_IS_DURABLE: &str = "what is applied is durable";
pub(super) const ASSERTIONS: &str = "the code's own assertions";

/// Those that must hold always.
pub(super) fn always<R: Rules>() -> Vec<Property<Group<R>>> {
    vec![
        Property::always(ELECTION_SAFETY, |_, world: &World<R>| world.seen.second_leader.is_none()),
        Property::always(LOG_MATCHING, |_, world: &World<R>| log_matching(world)),
        Property::always(LEADER_COMPLETENESS, |_, world: &World<R>| leader_completeness(world)),
        Property::always(STATE_MACHINE_SAFETY, |_, world: &World<R>| state_machine_safety(world)),
        Property::always(APPLIED_IS_DURABLE, |_, world: &World<R>| applied_is_durable(world)),
        Property::always(ASSERTIONS, |_, world: &World<R>| world.seen.failed.is_none()),
    ]
}

/// Whether one of them does not.
pub(super) fn violated<R: Rules>(world: &World<R>) -> bool {
    let seen = &world.seen;
    let broken = seen.failed.is_some() || seen.second_leader.is_some();
    broken
        || !applied_is_durable(world)
        || !log_matching(world)
        || !leader_completeness(world)
        || !state_machine_safety(world)
}

/// Those that some state must have, or the start says less than its name.
pub(super) fn sometimes<R: Rules>(start: Start) -> Vec<Property<Group<R>>> {
    start.reaches().iter().map(|reached| Property::sometimes(reached.name(), reached.condition())).collect()
}

/// Something that a search must have come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// The model elected a leader.
    Elected,
    /// Two nodes lead, each in its own term.
    TwoLeaders,
    /// The model committed a proposal.
    Committed,
    /// A majority has an entry of an earlier term durably, and its leader does not count it.
    EarlierTermNotCounted,
    /// An entry that was durable somewhere, and never committed, is on no disk any more.
    Overwritten,
    /// A joint state is committed.
    Joint,
    /// The joint state is over, and that is committed.
    JointLeft,
    /// A leader was elected that counts two majorities.
    JointLeader,
    /// Leadership was handed over.
    HandedOver,
}

impl Reached {
    fn name(self) -> &'static str {
        match self {
            Self::Elected => "a leader is elected",
            Self::TwoLeaders => "two nodes lead, in two terms",
            Self::Committed => "a proposal is committed",
            Self::EarlierTermNotCounted => "a majority has an entry of an earlier term, which does not count",
            Self::Overwritten => "an entry that was never committed is gone",
            Self::Joint => "a joint state is committed",
            Self::JointLeft => "a joint state is left",
            Self::JointLeader => "a leader is elected by two majorities",
            Self::HandedOver => "leadership is handed over",
        }
    }

    fn condition<R: Rules>(self) -> fn(&Group<R>, &World<R>) -> bool {
        match self {
            Self::Elected => |group, world| world.seen.leaders.len() > group.first.seen.leaders.len(),
            Self::TwoLeaders => |_, world| leaders(world).count() > 1,
            Self::Committed => |group, world| {
                let mut news = world.seen.committed.iter().skip(group.first.seen.committed.len());
                news.any(|(entry, _)| !entry.data.is_empty())
            },
            Self::EarlierTermNotCounted => |_, world| leaders(world).any(|leader| waits_for_own_term(world, leader)),
            Self::Overwritten => |group, world| {
                let on_disk = |entry| world.members.iter().any(|member| member.disk.entries.contains(entry));
                !group.uncommitted.iter().all(on_disk)
            },
            Self::Joint => |_, world| {
                let mut memberships = world.seen.committed.iter().filter_map(|(entry, _)| entry.membership.as_ref());
                memberships.any(|membership| membership.is_joint())
            },
            Self::JointLeft => |_, world| {
                let memberships = world.seen.committed.iter().filter_map(|(entry, _)| entry.membership.as_ref());
                memberships.skip_while(|membership| !membership.is_joint()).any(|membership| !membership.is_joint())
            },
            Self::JointLeader => |group, world| {
                leaders(world).any(|leader| {
                    leader.membership().is_joint() && !group.first.seen.leaders.contains_key(&leader.term())
                })
            },
            Self::HandedOver => |group, world| {
                let by_timeout = group.first.budget.timeouts != world.budget.timeouts;
                !by_timeout && world.seen.leaders.len() > group.first.seen.leaders.len()
            },
        }
    }
}

fn leaders<R: Rules>(world: &World<R>) -> impl Iterator<Item = &Raft<R>> {
    world.members.iter().map(|member| &member.raft).filter(|raft| raft.role() == Role::Leader)
}

/// Two logs that agree at an index agree before it.
fn log_matching<R: Rules>(world: &World<R>) -> bool {
    let logs: Vec<&Raft<R>> = world.members.iter().map(|member| &member.raft).collect();
    let matching = |one: &Raft<R>, other: &Raft<R>| {
        let last = one.last_index().min(other.last_index());
        let agree = |index: &u64| one.term_at(*index) == other.term_at(*index);
        let agreed = (1..=last).rev().find(agree).unwrap_or(0);
        (1..=agreed).all(|index| one.entry(index) == other.entry(index))
    };
    logs.iter().enumerate().all(|(at, one)| logs[at + 1..].iter().all(|other| matching(one, other)))
}

/// A leader has every entry that was taken for committed in an earlier term.
fn leader_completeness<R: Rules>(world: &World<R>) -> bool {
    leaders(world).all(|leader| {
        let earlier = world.seen.committed.iter().filter(|(_, committed_in)| *committed_in < leader.term());
        earlier.into_iter().all(|(entry, _)| leader.entry(entry.index) == Some(entry))
    })
}

/// Nodes that take an index for committed have the same entry there.
fn state_machine_safety<R: Rules>(world: &World<R>) -> bool {
    world.members.iter().all(|member| {
        let committed = world.seen.committed.iter().take(member.raft.commit() as usize);
        committed.into_iter().all(|(entry, _)| member.raft.entry(entry.index) == Some(entry))
    })
}

/// What a node was told to apply is on its disk: after a crash it would have to apply the same again.
fn applied_is_durable<R: Rules>(world: &World<R>) -> bool {
    world.members.iter().all(|member| {
        let mut applied = 1..=member.raft.applied();
        applied.all(|index| member.raft.entry(index) == member.disk.entries.get(index as usize - 1))
    })
}

/// The situation of figure 8: an entry of an earlier term is durable at a majority, and nothing follows from it yet.
fn waits_for_own_term<R: Rules>(world: &World<R>, leader: &Raft<R>) -> bool {
    let index = leader.commit() + 1;
    let Some(entry) = leader.entry(index).filter(|entry| entry.term < leader.term()) else { return false };
    let durable = |member: &&Arc<Member<R>>| member.disk.entries.get(index as usize - 1) == Some(entry);
    let voters = leader.membership().all_voters().len();
    world.members.iter().filter(durable).count() * 2 > voters
}
