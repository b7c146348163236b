//! The snoop bus within one replica: between this node's lines, the home (where this node leads) and the other nodes.

use trine_protocol::cache::{Delete, Evacuated, Explained, Put};
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::cache::{
    self, Agent, AgentOut, BusMessage, Change, Committed, Home, HomeOut, LineChange, Proposal, ToHome, ToNode, Turn,
    What,
};
use crate::ids::{NodeId, Term};
use crate::marks::{Rare, mark};
use crate::raft;
use crate::record;
use crate::rules::{Rule, Rules};

use super::apply::Waiter;
use super::behind::MainMemory;
use super::machine::{Command, Once, Operation};
use super::message::GroupMessage;
use super::{Hint, Replica, Step};

impl<R: Rules> Replica<R> {
    /// Lets the agent act, and takes what follows.
    pub(super) fn with_agent(&mut self, step: &mut Step, act: impl FnOnce(&mut Agent<R>, &mut Turn<'_>)) {
        let mut out = AgentOut::default();
        let mut turn = Turn { now_us: step.now.mono_us, sequences: &mut self.sequences, out: &mut out };
        act(&mut self.agent, &mut turn);
        for change in &out.retract {
            // What an earlier part of this step was going to publish must not come after this.
            match change {
                LineChange::DropAll => step.effects.publish.clear(),
                LineChange::Drop(key) => {
                    step.effects.publish.retain(|other| !matches!(other, LineChange::Put(put, _) if put == key));
                }
                _ => {}
            }
        }
        step.effects.retract.extend(out.retract);
        step.effects.publish.extend(out.publish);
        step.journal.extend(out.journal);
        step.to_home.extend(out.to_home);
        for (caller, result) in out.reply {
            self.reply(step, caller, result);
        }
    }

    /// Lets the home act, where this node is it, and takes what follows.
    pub(super) fn with_home(
        &mut self,
        step: &mut Step,
        act: impl FnOnce(&mut Home<R>, &crate::cache::Memory, crate::cache::Standing, &mut HomeOut),
    ) {
        let standing = self.standing(step.now);
        let member = &mut self.member;
        let Some(home) = &mut member.home else { return };
        let mut out = HomeOut::default();
        act(home, member.machine.memory(), standing, &mut out);
        step.to_node.extend(out.to_node);
        step.propose.extend(out.propose);
        let term = self.member.raft.term();
        step.effects.main_memory.extend(out.memory.into_iter().map(|call| MainMemory::Call(term, call)));
    }

    /// What this node knows of a key, as a node and where it is one as a home.
    pub(super) fn explain(&mut self, step: &mut Step, key: &str) -> Explained {
        let mut explained = self.agent.explain(key, step.now.mono_us);
        self.with_home(step, |home, memory, standing, _| {
            explained.home = Some(Box::new(home.explain(key, memory, standing)))
        });
        explained
    }

    /// A person gives up what a dead node did not write back.
    pub(super) fn evacuate(&mut self, step: &mut Step, node: &str) -> Result<Response, Error> {
        let node: NodeId = node.parse().map_err(|what: String| Error::new(ErrorCode::InvalidArgument, what))?;
        let mut result = Err(self.not_leader());
        self.with_home(step, |home, memory, standing, out| result = home.evacuate(node, memory, standing, out));
        result.map(|keys| Response::Evacuate(Evacuated { keys }))
    }

    /// A bus message from another node.
    pub(super) fn bus(&mut self, step: &mut Step, from: NodeId, message: BusMessage) {
        match message {
            BusMessage::ToHome(message) => self.hand_to_home(step, from, message),
            BusMessage::ToNode(message) => self.hand_to_node(step, from, message),
        }
    }

    fn hand_to_home(&mut self, step: &mut Step, from: NodeId, message: ToHome) {
        if self.member.home.is_some() {
            return self
                .with_home(step, |home, memory, standing, out| home.handle(from, message, memory, standing, out));
        }
        if from != self.setup.node
            && matches!(message, ToHome::Register { .. } | ToHome::Renew { .. })
            && let Some((leader, term)) = self.leader()
        {
            let message = ToNode::NotHome { leader: Some(leader), term };
            step.send(from, GroupMessage::Bus(BusMessage::ToNode(message)));
        }
    }

    fn hand_to_node(&mut self, step: &mut Step, from: NodeId, mut message: ToNode) {
        match &mut message {
            ToNode::NotHome { leader: Some(leader), term } => self.hear_of_home(step, *leader, *term),
            ToNode::Registered { tag, .. } => self.hear_of_home(step, from, tag.term),
            ToNode::WriteFailed { write, error, .. } if error.code == ErrorCode::SessionExpired => {
                if self.sequences.session() == Some(write.session) {
                    self.sequences.closed();
                }
                let what = "this node's session ended while the write was on its way";
                *error = Error::new(ErrorCode::OutcomeUnknown, what);
            }
            _ => {}
        }
        self.with_agent(step, |agent, turn| agent.handle(turn, message));
    }

    /// A node without a log learns of the leader from the bus.
    fn hear_of_home(&mut self, step: &Step, leader: NodeId, term: Term) {
        let newer = self.hint.is_none_or(|hint| hint.term < term);
        if !self.takes_part() && newer && self.roster.nodes.contains_key(&leader) {
            self.hint = Some(Hint { leader, term, heard_us: step.now.mono_us });
        }
    }

    /// A hint that led to no lease for longer than an election takes is wrong: the voters are asked anew.
    fn doubt_hint(&mut self, step: &Step) {
        let old = |hint: Hint| step.now.mono_us >= hint.heard_us + self.setup.timing.election_us_max;
        if self.hint.is_some_and(old) && self.agent.valid_tag(step.now.mono_us).is_none() {
            mark(Rare::HintDoubted);
            self.hint = None;
        }
    }

    /// The home lives as long as this node leads; the agent turns to whoever does.
    pub(super) fn follow_leader(&mut self, step: &mut Step) {
        let member = &mut self.member;
        let term = member.raft.term();
        if member.raft.role() != raft::Role::Leader {
            member.polls.clear();
            if member.home.take().is_some() || !member.waiting.is_empty() || !member.reads.is_empty() {
                if !R::without(Rule::WaitersKeptAcrossTerms) {
                    member.waiting.clear();
                }
                member.reads.clear();
                member.streams.clear();
                member.parked.clear();
                member.tick_index = None;
                self.pending.lost_leader();
            }
        } else if member.home.as_ref().is_none_or(|home| home.term() != term) {
            member.waiting.clear();
            member.reads.clear();
            member.polls.clear();
            member.streams.clear();
            member.parked.clear();
            member.tick_index = None;
            member.home = Some(Home::new(self.setup.node, term, self.setup.cache(), step.now.mono_us));
        }
        self.remember_leader(step.now);
        if let Some((leader, term)) = self.leader() {
            self.with_agent(step, |agent, turn| agent.home_changed(turn, term));
            self.dispatch_to(step, leader, term);
        } else {
            // What comes while nobody is known to lead must not be overtaken when the same leader is heard of again.
            self.pending.lost_leader();
        }
    }

    pub(super) fn tick_bus(&mut self, step: &mut Step) {
        self.doubt_hint(step);
        self.with_agent(step, |agent, turn| agent.tick(turn));
        self.with_home(step, |home, memory, standing, out| home.tick(memory, standing, out));
    }

    /// Delivers what the agent and the home say to each other, here or on other nodes.
    pub(super) fn deliver_bus(&mut self, step: &mut Step) {
        loop {
            if let Some(message) = step.to_home.pop_front() {
                let Some(message) = self.pass_copies(step, message) else { continue };
                match self.home_node() {
                    Some(home) if home == self.setup.node => self.hand_to_home(step, home, message),
                    Some(home) => step.send(home, GroupMessage::Bus(BusMessage::ToHome(message))),
                    None => {}
                }
            } else if let Some((node, message)) = step.to_node.pop_front() {
                if node == self.setup.node {
                    self.hand_to_node(step, node, message);
                } else {
                    step.send(node, GroupMessage::Bus(BusMessage::ToNode(message)));
                }
            } else {
                return;
            }
        }
    }

    /// Where to look for the home: the leader, or where none is known, one voter after the other.
    fn home_node(&mut self) -> Option<NodeId> {
        if let Some((leader, _)) = self.leader() {
            return Some(leader);
        }
        if self.takes_part() {
            return None;
        }
        let names = self.roster.names();
        let guess = self.pending.next_guess().checked_rem(names.len())?;
        names.get(guess).copied()
    }

    /// Puts the home's commands into the log.
    pub(super) fn propose_for_home(&mut self, step: &mut Step) {
        while let Some(proposal) = step.propose.pop_front() {
            let command = log_command(&proposal);
            let member = &mut self.member;
            match member.raft.propose(step.now, record::encode(&command).into()) {
                Ok(index) => {
                    member.waiting.insert(index, Waiter::Home(Box::new(proposal)));
                }
                Err(_) => {
                    self.with_home(step, |home, memory, standing, out| home.refused(&proposal, memory, standing, out));
                }
            }
        }
    }

    /// An entry of the home's was applied.
    pub(super) fn home_committed(&mut self, step: &mut Step, proposal: &Proposal, committed: Committed) {
        self.with_home(step, |home, memory, standing, out| {
            home.committed(proposal, committed, memory, standing, out);
        });
    }
}

/// What a client's request wants with a key of the cache.
pub(super) fn operation_of(request: &Request) -> Option<(String, cache::Operation)> {
    let (key, operation) = match request {
        Request::Get(get) => (&get.key, cache::Operation::Get),
        Request::GetCopy(get) => (&get.key, cache::Operation::Get),
        Request::GetOrFill(get) => (&get.key, cache::Operation::GetOrFill(get.lease_ms)),
        Request::Put(put) => {
            let Put { value, only_if, ttl_ms, through, content_type, fill, if_token, .. } = put.clone();
            let what = What::Put { value, content_type, ttl_ms };
            (&put.key, cache::Operation::Write(Change { what, only_if, through, fill, if_token }))
        }
        Request::Delete(delete) => {
            let Delete { only_if, through, if_token, .. } = delete.clone();
            (&delete.key, cache::Operation::Write(Change { only_if, through, if_token, ..Change::delete() }))
        }
        Request::Add(add) => {
            let if_token = add.if_token.clone();
            let change = Change { through: add.through, if_token, ..Change::of(What::Add(add.by)) };
            (&add.key, cache::Operation::Write(change))
        }
        Request::WriteBack(write_back) => (&write_back.key, cache::Operation::WriteBack),
        _ => return None,
    };
    Some((key.clone(), operation))
}

/// The command as it stands in the log: an ownership under its writer's session, the others as they are.
fn log_command(proposal: &Proposal) -> Command {
    match (&proposal.command, proposal.write) {
        (crate::cache::Command::Own(own), Some((write, acked_below))) => Command::Once(Once {
            session: write.session,
            sequence: write.sequence,
            acked_below,
            operation: Operation::Own(own.clone()),
        }),
        (command, _) => Command::Bus(command.clone()),
    }
}
