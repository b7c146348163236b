//! A run in which everything goes its way from some state on: nothing more is lost, nobody crashes, clocks go on.
//!
//! A search that loses messages cannot tell one that waits from one that waits for ever. So from states of the search, and from every one in
//! which nothing but the clock is left, such a run is played to the end: whoever waits must be answered, and every node can
//! read and write afterwards.

use super::action::Action;
use super::world::{KEYS, Limits, RETRY_US, Want, World};
use crate::rules::Rules;

/// Retries until everybody must have been answered: the leases that were given run out twice within that time.
const ROUNDS_MAX: usize = 16;
/// Answers that say that a lease has just run out.
const TRIES_MAX: usize = 4;

impl<R: Rules> World<R> {
    /// Everything on its way arrives, everything in the log is committed, every journal is flushed.
    pub(super) fn settle(&mut self, limits: &Limits) {
        for _ in 0..100 {
            let flights = std::mem::take(&mut self.flights);
            for flight in flights.values() {
                self.deliver(flight);
            }
            let mut steps = Vec::new();
            self.steps(&mut steps);
            steps.retain(|step| matches!(step, Action::Commit | Action::Flush(_)));
            if flights.is_empty() && steps.is_empty() {
                return;
            }
            for step in steps {
                self.take(limits, &step);
            }
        }
        panic!("they talk and talk: {:?}", self.flights.values());
    }

    /// Everything goes its way until something is so. False where it never is.
    pub(super) fn goes_on(&mut self, limits: &Limits, until: impl Fn(&Self) -> bool) -> bool {
        for round in 0..ROUNDS_MAX {
            if round > 0 {
                self.advance(self.now_us + RETRY_US);
            }
            for at in 1..=self.nodes.len() {
                self.hear(at);
                self.tick(at);
            }
            self.settle(limits);
            if until(self) {
                return true;
            }
        }
        false
    }

    /// Whether every node that is not about to go can serve lines.
    pub(super) fn is_up(&self) -> bool {
        self.nodes.iter().all(|node| node.drains || node.agent.valid_tag(self.now_us).is_some())
    }

    /// A client reads or writes, again where it is told to, and is answered.
    pub(super) fn is_served(&mut self, limits: &Limits, at: usize, key: usize, writes: bool) -> bool {
        for _ in 0..TRIES_MAX {
            let done = self.seen.done;
            // Each try is another write: one that was refused must not be done.
            let want = if writes { Want::Write(Some(self.value())) } else { Want::Read };
            let hit = self.hits(at, key, &want);
            self.ask(at, key, want);
            if !self.goes_on(limits, |world| world.waits.is_empty() && world.is_up()) {
                return false;
            }
            if hit || self.seen.done > done {
                return true;
            }
        }
        false
    }

    /// What is wrong with a run from here on in which everything goes its way; with what is on its way now, or without.
    pub(super) fn gets_stuck(&self, limits: &Limits, lost: bool) -> Option<String> {
        let mut world = self.clone();
        if lost {
            world.flights.clear();
        }
        if !world.goes_on(limits, |world| world.waits.is_empty() && world.is_up()) {
            return Some(format!("lost: {lost}, unanswered: {:?}, all up: {}", world.waits, world.is_up()));
        }
        let stays = |at: &usize| !self.nodes[at - 1].drains;
        for (key, name) in KEYS.iter().enumerate().take(limits.keys) {
            // One that lost its disk takes its values with it: a write replaces them.
            let writer = (1..=limits.nodes).rev().find(stays).unwrap_or(1);
            if !world.is_served(limits, writer, key, true) {
                return Some(format!("lost: {lost}, n{writer} cannot write {name}"));
            }
            for at in (1..=limits.nodes).filter(stays) {
                if !world.is_served(limits, at, key, false) {
                    return Some(format!("lost: {lost}, n{at} cannot read {name}"));
                }
            }
        }
        let broken = world.seen.broken.iter().next();
        broken.map(|(property, why)| format!("lost: {lost}, {property}: {why}"))
    }
}
