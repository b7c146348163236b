//! An agent by itself, for tests of what it answers.

use super::slot::State;
use super::{Agent, AgentOut, Turn};
use crate::cache::{Config, LeaseTag, ToNode};
use crate::ids::{GroupId, Incarnation, NodeId};
use crate::rules::{Faithful, Rules};
use crate::sequence::Sequences;

/// The lease that a scene begins with.
pub(super) const TAG: LeaseTag = LeaseTag { term: 1, number: 1 };

/// An agent at an instant, with a session and a lease.
pub(super) struct Scene {
    agent: Agent<Faithful>,
    sequences: Sequences,
    pub(super) now_us: u64,
}

impl Scene {
    pub(super) fn new(config: Config) -> Self {
        let agent = Agent::new(GroupId(0), NodeId::numbered(1), Incarnation(1), config, &[]);
        let mut scene = Self { agent, sequences: Sequences::default(), now_us: 1_000_000 };
        scene.sequences.opened(1);
        scene.act(|agent, turn| agent.home_changed(turn, 1));
        let round = scene.now_us;
        scene.act(|agent, turn| agent.handle(turn, ToNode::Registered { tag: TAG, round }));
        scene
    }

    pub(super) fn act(&mut self, act: impl FnOnce(&mut Agent<Faithful>, &mut Turn<'_>)) -> AgentOut {
        let mut out = AgentOut::default();
        let mut turn = Turn { now_us: self.now_us, sequences: &mut self.sequences, out: &mut out };
        act(&mut self.agent, &mut turn);
        out
    }
}

impl<R: Rules> Agent<R> {
    /// The state of a key with what is noted beside it, as tests print it.
    pub(in crate::cache) fn show(&self, key: &str) -> String {
        let mut words = vec![self.state_name(key)];
        match self.slots.get(key).map(|slot| &slot.state) {
            Some(State::Owned(owned)) => {
                words.extend(owned.dirty().then_some("dirty"));
                words.extend((!owned.pending.is_empty()).then_some("pending"));
                words.extend(owned.leave.map(|_| "leaving"));
            }
            Some(State::Leaving(leaving)) => {
                words.extend(leaving.dirty.then_some("dirty"));
                words.extend(leaving.poisoned.then_some("poisoned"));
            }
            _ => {}
        }
        words.join(" ")
    }
}
