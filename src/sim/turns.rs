//! Turns: on some seeds a replica's task does not run at once. It then takes together what has come meanwhile, as a busy node does.
//!
//! Which seeds these are, and how long a task waits, comes from a stream of its own: on the others nothing is drawn, and their runs are
//! what they were.

use std::collections::BTreeMap;

use super::checker::Check;
use super::cluster::Cluster;
use super::network::Place;
use super::random::Random;
use crate::ids::GroupId;
use crate::node::effect::Input;
use crate::rules::Rules;

/// Longest that a task waits for its turn, in microseconds.
const WAIT_US_MAX: u64 = 1_500;

/// What waits for the tasks of all nodes.
#[derive(Debug)]
pub(crate) struct Turns {
    /// None where every input is a turn of its own.
    random: Option<Random>,
    waiting: BTreeMap<(Place, GroupId), Vec<Input>>,
}

impl Turns {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7475_726e);
        Self { random: random.chance(300).then_some(random), waiting: BTreeMap::new() }
    }

    /// Whether inputs are taken together in this run.
    pub(crate) fn are_shared(&self) -> bool {
        self.random.is_some()
    }

    /// One more input waits. Returns after how many microseconds the task has its turn, where it was not waiting before.
    pub(crate) fn wait(&mut self, place: Place, group: GroupId, input: Input) -> Option<u64> {
        let waiting = self.waiting.entry((place, group)).or_default();
        waiting.push(input);
        let first = waiting.len() == 1;
        let random = self.random.as_mut().filter(|_| first)?;
        Some(if random.chance(300) { random.below(WAIT_US_MAX) } else { random.below(50) })
    }

    /// The task has its turn.
    pub(crate) fn take(&mut self, place: Place, group: GroupId) -> Vec<Input> {
        self.waiting.remove(&(place, group)).unwrap_or_default()
    }

    /// The process has ended, and what waited with it.
    pub(crate) fn forget(&mut self, place: Place) {
        self.waiting.retain(|(of, _), _| *of != place);
    }
}

impl<R: Rules> Cluster<R> {
    /// A replica's task takes what has come, all of it at the instant of its turn.
    pub(crate) fn turn(&mut self, place: Place, group: GroupId) -> Check {
        let node = &self.nodes[place];
        let now = node.clock.at(self.now_us());
        let starved = node.starved.contains_key(&group);
        let mut inputs = self.turns.take(place, group).into_iter().map(|input| (now, input)).peekable();
        while inputs.peek().is_some() {
            if starved || self.nodes[place].paused.is_some() {
                return inputs.try_for_each(|(_, input)| self.handle(place, group, input));
            }
            self.handle_all(place, group, &mut inputs)?;
        }
        Ok(())
    }
}
