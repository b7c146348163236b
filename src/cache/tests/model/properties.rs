//! What must hold in every state, and what must be reached in some.

use stateright::{Model, Property};

use super::step::{
    ASSERTIONS, NO_STALE_LINE, NOT_DONE, NOTHING_LOST, ONE_VALUE, READS, SINGLE_WRITER, VERSIONS_GROW, WRITTEN_BACK,
};
use super::world::World;
use super::{Bus, Start, digest};
use crate::rules::Rules;

pub(super) const NEVER_STUCK: &str = "whoever waits is answered where nothing more goes wrong";

/// Of so many states one is played to the end, beside those in which nothing else is left to do.
const PLAYED: u64 = 64;

/// Those that must hold always.
pub(super) fn always<R: Rules>() -> Vec<Property<Bus<R>>> {
    macro_rules! seen {
        ($($property:ident),*) => {
            vec![
                $(Property::always($property, |_, world: &World<R>| !world.seen.broken.contains_key($property)),)*
                Property::always(NEVER_STUCK, |bus, world: &World<R>| stuck(bus, world).is_none()),
            ]
        };
    }
    seen!(
        NO_STALE_LINE,
        SINGLE_WRITER,
        READS,
        VERSIONS_GROW,
        ONE_VALUE,
        NOTHING_LOST,
        NOT_DONE,
        WRITTEN_BACK,
        ASSERTIONS
    )
}

/// Those that some state must have, or the start says less than its name.
pub(super) fn sometimes<R: Rules>(start: Start) -> Vec<Property<Bus<R>>> {
    start.reaches().iter().map(|reached| Property::sometimes(reached.name(), reached.condition())).collect()
}

/// What is wrong where everything goes its way from here on. Looked at in some states, and in all that are ends of the search.
pub(super) fn stuck<R: Rules>(bus: &Bus<R>, world: &World<R>) -> Option<String> {
    if bus.rule.is_some() || !world.seen.broken.is_empty() {
        return None;
    }
    let digest = digest(world);
    if digest % PLAYED != 0 && !is_end(bus, world) {
        return None;
    }
    world.gets_stuck(&bus.limits, digest / PLAYED % 2 == 0)
}

/// Whether nothing can happen any more.
fn is_end<R: Rules>(bus: &Bus<R>, world: &World<R>) -> bool {
    if !world.flights.is_empty() || !world.present().log.is_empty() || world.budget.advances > 0 {
        return false;
    }
    let mut actions = Vec::new();
    world.actions(&bus.limits, &mut actions);
    actions.into_iter().all(|action| bus.next_state(world, action).is_none())
}

/// Something that a search must have come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// Every client was answered without an error.
    Answered,
    /// Two nodes have the line, and may serve it.
    Shared,
    /// A node may write the line.
    Owned,
    /// A node is in IS_I.
    Poisoned,
    /// A node is in MI.
    Leaving,
    /// A write was done under the home that the model elected.
    WrittenAnew,
    /// A lease ran out, and its node has another one.
    LeasedAnew,
    /// Somebody was told that something was not done.
    Refused,
    /// A node is gone, and no home waits for it.
    Gone,
}

impl Reached {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answered => "every client is answered",
            Self::Shared => "two nodes share a line",
            Self::Owned => "a node may write",
            Self::Poisoned => "an invalidation overtakes a fill",
            Self::Leaving => "a line is handed over",
            Self::WrittenAnew => "a write is done under the new home",
            Self::LeasedAnew => "a node has another lease",
            Self::Refused => "a write is refused",
            Self::Gone => "a node has left the bus",
        }
    }

    pub(super) fn condition<R: Rules>(self) -> fn(&Bus<R>, &World<R>) -> bool {
        match self {
            Self::Answered => |bus, world| {
                let asked = world.next_caller - bus.first.next_caller;
                let waited = bus.first.waits.len() as u64;
                asked + waited > 0 && u64::from(world.seen.done - bus.first.seen.done) == asked + waited
            },
            Self::Shared => |_, world| served(world).filter(|state| *state == "S").count() > 1,
            Self::Owned => |_, world| served(world).any(|state| state == "M"),
            Self::Poisoned => |_, world| names(world).any(|state| state == "IS_I"),
            Self::Leaving => |_, world| names(world).any(|state| state == "MI"),
            Self::WrittenAnew => {
                |bus, world| world.truth().memory.cells().any(|(_, cell)| is_new(bus, world, cell.stored.version.epoch))
            }
            Self::LeasedAnew => |bus, world| {
                let tag = |world: &World<R>, at: usize| world.nodes[at].agent.valid_tag(world.now_us);
                (0..world.nodes.len()).any(|at| tag(world, at).is_some() && tag(world, at) != tag(&bus.first, at))
            },
            Self::Refused => |bus, world| world.seen.refused.len() > bus.first.seen.refused.len(),
            Self::Gone => |_, world| world.truth().memory.members().len() < world.nodes.len(),
        }
    }
}

/// Whether an index lies behind the no-op of the last election.
fn is_new<R: Rules>(bus: &Bus<R>, world: &World<R>, index: u64) -> bool {
    world.places.len() > bus.first.places.len() && world.present().settled.is_some_and(|since| index > since)
}

fn names<R: Rules>(world: &World<R>) -> impl Iterator<Item = &'static str> {
    world.nodes.iter().flat_map(|node| super::world::KEYS.map(|key| node.agent.state_name(key)))
}

/// The names of the states that lines are in which may be served.
fn served<R: Rules>(world: &World<R>) -> impl Iterator<Item = &'static str> {
    let valid = |node: &std::sync::Arc<super::world::Node<R>>, key| {
        node.lines.peek(key).is_some_and(|found| found.is_valid_at(world.now_us))
    };
    let all = world.nodes.iter().flat_map(move |node| {
        super::world::KEYS.into_iter().filter(move |key| valid(node, key)).map(|key| node.agent.state_name(key))
    });
    all.collect::<Vec<_>>().into_iter()
}
