//! How a step of a node or a home is carried out: what the replica and the server around them do, in the same order.

use std::collections::VecDeque;
use std::sync::Arc;

use trine_protocol::cache::LineState;
use trine_protocol::error::Outcome;
use trine_protocol::{Error, Response};

use super::digest;
use super::log::Entry;
use super::world::{Flight, KEYS, LEASE_US, Place, Waits, Want, World};
use crate::cache::{
    Agent, AgentOut, BusMessage, Home, HomeOut, LineChange, Memory, Operation, Standing, ToHome, ToNode, Turn,
    Versioned,
};
use crate::cache::{Change, Redis};
use crate::ids::NodeId;
use crate::rules::{Rule, Rules};

pub(super) const NO_STALE_LINE: &str = "no line that may be served is older than what was seen";
pub(super) const SINGLE_WRITER: &str = "who may write is alone";
pub(super) const READS: &str = "a read is answered with what was seen before it or later";
pub(super) const VERSIONS_GROW: &str = "a write is newer than all that was seen before it";
pub(super) const ONE_VALUE: &str = "one version has one value";
pub(super) const NOTHING_LOST: &str = "what was seen is in main memory or in its owner's journal";
pub(super) const NOT_DONE: &str = "a write that was refused is not done";
pub(super) const WRITTEN_BACK: &str = "what was written back is in main memory";
pub(super) const ASSERTIONS: &str = "the code's own assertions";

/// What a step of one node has yet to deliver on that node.
pub(super) struct Step {
    at: usize,
    to_home: VecDeque<ToHome>,
    to_node: VecDeque<(NodeId, ToNode)>,
}

/// The number in a node's name.
pub(super) fn number(node: NodeId) -> usize {
    node.as_str().trim_start_matches("node").parse().expect("a numbered node")
}

impl<R: Rules> World<R> {
    /// Something happens at a node, and what follows there is done; the rest goes on its way.
    pub(super) fn act(&mut self, at: usize, act: impl FnOnce(&mut Self, &mut Step)) {
        let mut step = Step { at, to_home: VecDeque::new(), to_node: VecDeque::new() };
        act(self, &mut step);
        loop {
            if let Some(message) = step.to_home.pop_front() {
                let heard = self.nodes[at - 1].heard;
                let Some(to) = self.places.iter().find(|place| place.term == heard).map(|place| place.node) else {
                    continue;
                };
                if to == at {
                    self.home_hears(&mut step, at, message);
                } else {
                    self.send(Flight { from: at, to, message: BusMessage::ToHome(message) });
                }
            } else if let Some((node, message)) = step.to_node.pop_front() {
                let to = number(node);
                if to == at {
                    self.with_agent(&mut step, |agent, turn| agent.handle(turn, message));
                } else {
                    self.send(Flight { from: at, to, message: BusMessage::ToNode(message) });
                }
            } else {
                break;
            }
        }
        Arc::make_mut(&mut self.nodes[at - 1]).refresh();
        for place in self.places.iter_mut().filter(|place| place.node == at) {
            Arc::make_mut(place).refresh();
        }
        self.look();
    }

    pub(super) fn send(&mut self, flight: Flight) {
        self.flights.insert(digest(&flight), Arc::new(flight));
    }

    /// A message arrives. At a node without a home, one to the home is for nobody.
    pub(super) fn deliver(&mut self, flight: &Flight) {
        let Flight { from, to, message } = flight.clone();
        self.act(to, |world, step| match message {
            BusMessage::ToHome(message) => world.home_hears(step, from, message),
            BusMessage::ToNode(message) => world.with_agent(step, |agent, turn| agent.handle(turn, message)),
        });
    }

    fn home_hears(&mut self, step: &mut Step, from: usize, message: ToHome) {
        let from = NodeId::numbered(from);
        self.with_home(step, |home, memory, standing, out| home.handle(from, message, memory, standing, out));
    }

    /// Lets the agent act, and does what follows, in the order of [`AgentOut`].
    pub(super) fn with_agent(&mut self, step: &mut Step, act: impl FnOnce(&mut Agent<R>, &mut Turn<'_>)) {
        let mut out = AgentOut::default();
        let node = Arc::make_mut(&mut self.nodes[step.at - 1]);
        let mut turn = Turn { now_us: self.now_us, sequences: &mut node.sequences, out: &mut out };
        act(&mut node.agent, &mut turn);
        node.agent.check_stats();
        for change in out.retract.into_iter().chain(out.publish) {
            match change {
                LineChange::Lease(_, until_us) => node.lease_us = until_us,
                LineChange::DropAll => node.lease_us = 0,
                _ => {}
            }
            node.lines.apply(change);
        }
        node.writes.extend(out.journal);
        step.to_home.extend(out.to_home);
        for (caller, result) in out.reply {
            self.replied(caller, result);
        }
    }

    /// Lets the home of a node act, where it has one.
    pub(super) fn with_home(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Home<R>, &Memory, Standing, &mut HomeOut),
    ) {
        let now_us = self.now_us;
        let present = self.present().term;
        let Some(place) = self.places.iter_mut().find(|place| place.node == step.at && place.home.is_some()) else {
            return;
        };
        let Place { term, home, machine, leader_until_us, settled, log, ends_us, .. } = Arc::make_mut(place);
        let settled = settled.is_some() || R::without(Rule::HomeBeforeNoOp);
        let standing =
            Standing { now_us, leader_until_us: Some(*leader_until_us), settled, log_ms: 0, redis: Redis::None };
        let mut out = HomeOut::default();
        act(home.as_mut().expect("looked at above"), &machine.memory, standing, &mut out);
        for (node, message) in &out.to_node {
            if matches!(message, ToNode::Registered { .. } | ToNode::Renewed { .. }) {
                ends_us.insert(*node, now_us + LEASE_US);
            }
        }
        step.to_node.extend(out.to_node);
        // What a deposed home puts into its log gets no further.
        if *term == present {
            log.extend(out.propose.into_iter().map(|proposal| Entry { term: *term, proposal: Some(proposal) }));
        }
    }

    pub(super) fn hits(&self, at: usize, key: usize, want: &Want) -> bool {
        let found = self.nodes[at - 1].lines.peek(KEYS[key]);
        *want == Want::Read && found.is_some_and(|found| found.is_valid_at(self.now_us))
    }

    /// A client asks. What is a hit is answered from the table of lines, and changes nothing.
    pub(super) fn ask(&mut self, at: usize, key: usize, want: Want) {
        if self.hits(at, key, &want) {
            return;
        }
        let operation = match &want {
            Want::Read => Operation::Get,
            Want::Write(value) => Operation::Write(value.clone().map_or_else(Change::delete, Change::put)),
            Want::WriteBack => Operation::WriteBack,
        };
        self.next_caller += 1;
        let caller = self.next_caller;
        let floor = self.seen.newest.get(&key).map(|newest| newest.version).unwrap_or_default();
        self.waits.insert(caller, Waits { node: at, key, want, floor });
        self.act(at, |world, step| {
            world.with_agent(step, |agent, turn| agent.operation(turn, caller, KEYS[key], operation));
        });
    }

    /// A client is answered.
    pub(super) fn replied(&mut self, caller: u64, result: Result<Response, Error>) {
        // Whoever gave up hears nothing.
        let Some(Waits { node: _, key, want, floor }) = self.waits.remove(&caller) else { return };
        let how = format!("{caller} of {}: {result:?} after {floor:?}", KEYS[key]);
        match (want, result) {
            (Want::Read, Ok(Response::Get(got))) => {
                if got.version < floor {
                    self.broken(READS, how);
                }
                self.saw(key, &Versioned::new(got.version, got.value));
            }
            (Want::Write(value), Ok(Response::Put(written))) => {
                if written.version <= floor {
                    self.broken(VERSIONS_GROW, how);
                }
                self.saw(key, &Versioned::new(written.version, value));
            }
            (Want::WriteBack, Ok(_)) => {
                if self.truth().memory.stored(KEYS[key]).version < floor {
                    self.broken(WRITTEN_BACK, how);
                }
            }
            (Want::Write(Some(value)), Err(error)) if error.code.outcome() != Outcome::Unknown => {
                Arc::make_mut(&mut self.seen).refused.insert(value);
                return;
            }
            (_, Err(_)) => return,
            (_, Ok(_)) => self.broken(ASSERTIONS, how),
        }
        Arc::make_mut(&mut self.seen).done += 1;
    }

    pub(super) fn broken(&mut self, property: &'static str, why: String) {
        Arc::make_mut(&mut self.seen).broken.entry(property).or_insert(why);
    }

    /// Somebody has seen that version of a key.
    fn saw(&mut self, key: usize, value: &Versioned) {
        let known = self.seen.newest.get(&key);
        if known.is_some_and(|known| known.version == value.version && known.value != value.value) {
            self.broken(ONE_VALUE, format!("{known:?} and {value:?}", known = self.seen.newest.get(&key)));
        } else if known.is_none_or(|known| known.version < value.version) {
            Arc::make_mut(&mut self.seen).newest.insert(key, value.clone());
        }
    }

    /// Looks at every line that a reader may be answered from at this instant, as if a reader came: that changes nothing but what was seen.
    pub(super) fn look(&mut self) {
        for (key, name) in KEYS.iter().enumerate() {
            let mut valid: Vec<(LineState, Versioned)> = Vec::new();
            for node in &self.nodes {
                if let Some(found) = node.lines.peek(name).filter(|found| found.is_valid_at(self.now_us)) {
                    valid.push((found.line.state, found.line.value));
                }
            }
            if valid.len() > 1 && valid.iter().any(|(state, _)| *state == LineState::M) {
                self.broken(SINGLE_WRITER, format!("{name}: {valid:?}"));
            }
            for (_, value) in &valid {
                self.saw(key, value);
            }
            let newest = self.seen.newest.get(&key).map(|newest| newest.version).unwrap_or_default();
            if valid.iter().any(|(_, value)| value.version < newest) {
                self.broken(NO_STALE_LINE, format!("{name}: {valid:?}, {newest:?} was seen"));
            }
            self.is_kept(key);
            self.is_not_done(key, &valid);
        }
    }

    /// What was seen can be had, as long as the disk lives that its owner wrote it to.
    fn is_kept(&mut self, key: usize) {
        let Some(newest) = self.seen.newest.get(&key) else { return };
        let (stored, owner) = (self.truth().memory.stored(KEYS[key]), self.truth().memory.owner(KEYS[key]));
        let has = |value: &Versioned| {
            value.version > newest.version || (value.version == newest.version && value.value == newest.value)
        };
        let owner_has = owner.is_some_and(|owner| {
            let node = &self.nodes[number(owner.node) - 1];
            node.incarnation != owner.incarnation || node.journaled(KEYS[key]).is_some_and(has)
        });
        if !has(&stored) && !owner_has {
            self.broken(NOTHING_LOST, format!("{newest:?} of {}: main memory has {stored:?}", KEYS[key]));
        }
    }

    fn is_not_done(&mut self, key: usize, valid: &[(LineState, Versioned)]) {
        let stored = self.truth().memory.stored(KEYS[key]).value;
        let shown = valid.iter().filter_map(|(_, value)| value.value.as_ref()).chain(&stored);
        if let Some(value) = shown.into_iter().find(|value| self.seen.refused.contains(*value)) {
            self.broken(NOT_DONE, format!("{value:?} of {}", KEYS[key]));
        }
    }
}
