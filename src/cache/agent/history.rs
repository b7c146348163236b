//! What keys went through on this node, and why, as far back as there is room: for a person who asks.

use std::collections::VecDeque;

use trine_protocol::cache::{Explained, Transition};
use trine_protocol::limits::TRANSITIONS_MAX;
use trine_protocol::placement;

use crate::rules::Rules;

use super::slot::State;
use super::{Agent, Turn};

/// Changes of state that one group on one node remembers, of all keys together.
const REMEMBERED_MAX: usize = 4_096;

/// The last changes, and what the agent is doing now.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    changes: VecDeque<Change>,
    now_us: u64,
    why: &'static str,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    at_us: u64,
    key: u64,
    from: &'static str,
    to: &'static str,
    why: &'static str,
}

impl History {
    /// What follows is because of this.
    pub(super) fn because(&mut self, now_us: u64, why: &'static str) {
        (self.now_us, self.why) = (now_us, why);
    }

    /// A key changes its state. Steps of one and the same change are one.
    pub(super) fn note(&mut self, key: &str, from: &'static str, to: &'static str) {
        let (key, at_us, why) = (placement::hash(key.as_bytes()), self.now_us, self.why);
        if let Some(last) = self.changes.back_mut()
            && (last.key, last.at_us, last.why, last.to) == (key, at_us, why, from)
        {
            last.to = to;
            if last.from == to {
                self.changes.pop_back();
            }
            return;
        }
        if from == to {
            return;
        }
        if self.changes.len() == REMEMBERED_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { at_us, key, from, to, why });
    }

    fn of(&self, key: &str, now_us: u64) -> Vec<Transition> {
        let hash = placement::hash(key.as_bytes());
        let its = self.changes.iter().rev().filter(|change| change.key == hash).take(TRANSITIONS_MAX);
        let mut transitions: Vec<Transition> = its
            .map(|change| Transition {
                ago_ms: now_us.saturating_sub(change.at_us) / 1_000,
                from: change.from.to_owned(),
                to: change.to.to_owned(),
                why: change.why.to_owned(),
            })
            .collect();
        transitions.reverse();
        transitions
    }
}

impl<R: Rules> Agent<R> {
    /// What follows in this turn is because of this.
    pub(super) fn because(&mut self, turn: &Turn<'_>, why: &'static str) {
        self.history.because(turn.now_us, why);
    }

    /// What this node knows of a key.
    pub fn explain(&self, key: &str, now_us: u64) -> Explained {
        let slot = self.slots.get(key);
        let version = match slot.map(|slot| &slot.state) {
            Some(State::Clean(clean)) => Some(clean.value.version),
            Some(State::Owned(owned)) => Some(owned.value.version),
            Some(State::Leaving(leaving)) => Some(leaving.value.version),
            _ => None,
        };
        let waiting = slot.map_or(0, |slot| slot.waiting.len()) + self.filling(key);
        Explained {
            node: self.node.to_string(),
            group: self.group.0,
            state: self.state_name(key).to_owned(),
            version,
            dirty: slot.is_some_and(|slot| slot.state.dirty_value().is_some()),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            lease_ms: self.lease_left_us(now_us) / 1_000,
            transitions: self.history.of(key, now_us),
            home: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_one_change_are_one_and_what_leads_back_is_none() {
        let mut history = History::default();
        history.because(1_000, "SnoopInv");
        history.note("k", "M", "I");
        history.note("k", "I", "MI");
        history.note("other", "S", "I");
        history.because(5_000, "Get");
        history.note("k", "MI", "I");
        history.note("k", "I", "MI");
        let texts = |history: &History| -> Vec<String> {
            let of = history.of("k", 9_000);
            of.iter().map(|it| format!("{} {}>{} {}", it.ago_ms, it.from, it.to, it.why)).collect()
        };
        assert_eq!(texts(&history), ["8 M>MI SnoopInv"]);
        for number in 0..REMEMBERED_MAX as u64 {
            history.because(6_000 + number, "again");
            history.note("k", "I", "S");
        }
        assert_eq!(history.changes.len(), REMEMBERED_MAX);
        assert_eq!(texts(&history).len(), TRANSITIONS_MAX);
    }
}
