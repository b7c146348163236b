//! One group's replica on one node: where consensus, the state machines and the cache meet.
//!
//! [`Replica::handle`] takes one [`Input`] and returns [`Effects`], to be done in the order of their fields. It is pure:
//! the server and the simulator drive the same object.
//!
//! ```text
//!   clients ──▶ forward ──▶ raft ──▶ apply ──▶ machine (sessions, queue, lock, main memory)
//!      │           ▲ leader elsewhere: Forward, Answer      │
//!      └─▶ agent (lines of this node) ◀── snoop bus ──▶ home (where this node leads)
//! ```
//!
//! A node that takes no part in the group has the forwarding and the agent, and an empty log. Invariants:
//!
//! - a client's request is answered exactly once, at its deadline at the latest;
//! - a command is proposed under (session, sequence), so sending it again is safe, whoever leads;
//! - commands of this node enter the log in the order in which they came, whatever is lost on the way (see `stream`);
//! - the home lives exactly as long as this node's term as leader;
//! - nothing that waits for the disk leaves before the [`Input::Persisted`] that it waits for.
//!
//! Who votes where follows from the list of nodes ([`roster`]); a leader brings its group there by itself (`reconcile`).
//!
//! Caveats: a snapshot for a follower is built in memory as a whole; the number of groups is fixed when the cluster is made.

mod apply;
pub mod behind;
mod bus;
mod checkpoint;
mod copies;
pub mod effect;
mod forward;
mod hand_off;
mod lead;
mod look;
pub mod machine;
pub mod message;
mod park;
mod poll;
mod reconcile;
mod recovered;
pub mod roster;
mod session;
mod setup;
mod stream;

use std::collections::{BTreeMap, VecDeque};

use trine_protocol::cluster::{GroupStatus, Role};

use crate::cache::{Agent, Copies, Home, Standing};
use crate::ids::{Index, NodeId, Now, ReplicaId, Term};
use crate::lock;
use crate::raft::{self, Raft, Restart};
use crate::record::BadRecord;
use crate::rules::{Faithful, Rule, Rules};
use crate::sequence::Sequences;

use apply::{FetchFor, Read, Waiter};
use checkpoint::Checkpoints;
use effect::{Effects, Input, Write};
use forward::Pending;
pub use machine::Machine;
use message::GroupMessage;
pub use poll::POLLS_MAX;
pub use recovered::{Records, Recovered};
pub use roster::Roster;
pub use session::{SESSION_TIMEOUT_MS, SESSIONS_MAX, Stored, WINDOW_MAX};
pub use setup::{Setup, Timing};

/// Once the inputs that came together have brought so many bytes of entries, these are written before more is taken.
const TOGETHER_BYTES_MAX: usize = 1024 * 1024;

/// One group on one node.
#[derive(Debug)]
pub struct Replica<R: Rules = Faithful> {
    setup: Setup,
    member: Member<R>,
    agent: Agent<R>,
    /// What clients of this node keep of its lines.
    copies: Copies<R>,
    /// The node's own session in the group: for its clients' commands, and for its cache writes.
    sequences: Sequences,
    pending: Pending,
    /// Whom a node without a log believes to lead, and since which term.
    hint: Option<Hint>,
    written: u64,
    unflushed: VecDeque<Unflushed>,
    draining_since_us: Option<u64>,
    /// The newest list of nodes that it knows.
    roster: Roster,
    /// Which list each node knows, and when it is told again; in group 0 only.
    told: BTreeMap<NodeId, (u64, u64)>,
    /// When group 0's leader proposes the first list again, and when a node is taken off the bus again.
    founding_us: u64,
    leaving_us: u64,
    /// What a change of the members waits for.
    change_waits_for: String,
    /// Whom it followed last while it took part.
    followed: Option<(NodeId, Term)>,
    fatal: Option<String>,
    /// The connection to Redis, where values lie there.
    main_memory: behind::Connection,
}

/// The part of a replica that has a log. Where the node takes no part in the group, the log stays empty.
#[derive(Debug)]
struct Member<R: Rules> {
    raft: Raft<R>,
    machine: Machine,
    home: Option<Home<R>>,
    /// Who waits for which entry; only while this node leads.
    waiting: BTreeMap<Index, Waiter>,
    /// Reads that consensus was asked about; only while this node leads.
    reads: BTreeMap<u64, Read>,
    /// Dequeues that wait for messages; only while this node leads.
    polls: poll::Polls,
    /// What it has taken of each node's commands; only while this node leads.
    streams: stream::Incoming,
    /// Whom to tell what comes of a wait; only while this node leads.
    parked: park::Parked,
    checkpoints: Checkpoints,
    fetches: BTreeMap<u64, FetchFor>,
    next_ticket: u64,
    /// The last `Tick` proposed, until it is applied.
    tick_index: Option<Index>,
    wants_snapshot: bool,
    /// Since it first heard of a leader, the replica has once applied all that was committed.
    caught_up: bool,
}

/// What a node without a log has heard of the group's leader.
#[derive(Clone, Copy, Debug)]
struct Hint {
    leader: NodeId,
    term: Term,
    heard_us: u64,
}

/// A write that is on its way to the disk: what is to be told when it is there.
#[derive(Clone, Copy, Debug)]
struct Unflushed {
    sequence: u64,
    raft: Option<u64>,
    ticket: u64,
}

impl<R: Rules> Replica<R> {
    /// A replica with what its node found on disk.
    ///
    /// # Errors
    /// Where the state on disk cannot be read.
    pub fn new(setup: Setup, recovered: Recovered, now: Now) -> Result<Self, BadRecord> {
        let agent = Agent::new(setup.group, setup.node, setup.incarnation, setup.cache(), &recovered.journal);
        let member = {
            let records = recovered.state.iter().map(|(key, value)| (key.as_slice(), value.as_ref()));
            let machine = Machine::restore(setup.generation, recovered.applied.clone(), records)?;
            let bodies_through = recovered.base.index;
            let restart = Restart {
                hard_state: recovered.hard_state,
                base: recovered.base,
                entries: recovered.entries,
                applied: recovered.applied.index,
            };
            Member {
                raft: Raft::new(setup.raft(), restart, now),
                machine,
                home: None,
                waiting: BTreeMap::new(),
                reads: BTreeMap::new(),
                polls: poll::Polls::default(),
                streams: stream::Incoming::default(),
                parked: park::Parked::default(),
                checkpoints: Checkpoints::new(recovered.applied.index, bodies_through),
                fetches: BTreeMap::new(),
                next_ticket: 0,
                tick_index: None,
                wants_snapshot: false,
                caught_up: false,
            }
        };
        let copies = Copies::new(setup.group, setup.timing.drift_ppm, now.mono_us, setup.lived_before);
        let mut replica = Self {
            roster: setup.roster.clone(),
            setup,
            member,
            agent,
            copies,
            sequences: Sequences::default(),
            pending: Pending::new(now.mono_us),
            hint: None,
            written: 0,
            unflushed: VecDeque::new(),
            draining_since_us: None,
            told: BTreeMap::new(),
            founding_us: 0,
            leaving_us: 0,
            change_waits_for: String::new(),
            followed: None,
            fatal: None,
            main_memory: behind::Connection::Closed,
        };
        replica.acquaint();
        Ok(replica)
    }

    /// One input, and what follows from it.
    pub fn handle(&mut self, now: Now, input: Input) -> Effects {
        self.handle_all(&mut std::iter::once((now, input)))
    }

    /// Inputs that came together, each with the instant at which it is looked at, and what follows from them. They are handled one after
    /// the other, but what consensus says to the disk and to its peers leaves once for all of them, and what they commit is applied
    /// then. Stops where more would make too large a write: the caller goes on with what is left.
    pub fn handle_all(&mut self, inputs: &mut dyn Iterator<Item = (Now, Input)>) -> Effects {
        let Some((now, input)) = inputs.next() else { return Effects::default() };
        let mut step = Step::new(now);
        let log_bytes = self.member.raft.log_bytes();
        self.take(&mut step, input);
        while self.fatal.is_none()
            && self.member.raft.log_bytes() < log_bytes + TOGETHER_BYTES_MAX
            && let Some((now, input)) = inputs.next()
        {
            self.settle_bus(&mut step);
            step.now = now;
            self.take(&mut step, input);
        }
        self.settle(&mut step);
        let member = &mut self.member;
        let current = member.raft.leader().is_some() && member.machine.applied().index >= member.raft.commit();
        member.caught_up |= current;
        step.effects.fatal = self.fatal.clone();
        step.effects
    }

    fn take(&mut self, step: &mut Step, input: Input) {
        match input {
            Input::Tick => self.tick(step),
            Input::Peer { from, message } => self.peer(step, from, message),
            Input::Request { id, session, deadline_us, request } => {
                self.request(step, id, session, deadline_us, request);
            }
            Input::Persisted { sequence } => self.persisted(step, sequence),
            Input::Checkpointed { index } => self.checkpointed(step, index),
            Input::Fetched { ticket, records } => self.fetched(step, ticket, &records),
            Input::Roster(roster) => drop(self.know_roster(&roster)),
            Input::MainMemory { term, event } => self.main_memory(step, term, event),
            Input::Drain => self.drain(step),
        }
    }

    fn tick(&mut self, step: &mut Step) {
        self.member.raft.tick(step.now);
        self.follow_leader(step);
        self.tick_bus(step);
        self.tick_copies(step);
        self.tick_pending(step);
        self.tick_polls(step);
        self.tick_log_time(step);
        self.tick_parked(step);
        self.tend_roster(step);
        self.reconcile(step);
        self.give_office_back(step);
        if let Some(since_us) = self.draining_since_us {
            let patient = step.now.mono_us < since_us + self.setup.timing.drain_us;
            if (self.agent.is_drained() || !patient) && self.leads() {
                self.member.raft.transfer(step.now);
            }
        }
    }

    /// Leaders are spread over the nodes by the order of the voters, and go back after a failure when things are calm.
    fn give_office_back(&mut self, step: &Step) {
        let calm_since_us = self.member.home.as_ref().map(Home::elected_us);
        let calm = calm_since_us.is_some_and(|since_us| step.now.mono_us >= since_us + self.setup.timing.calm_us);
        if !calm {
            return;
        }
        let first = match self.roster.version {
            0 => self.setup.founders.first().copied(),
            _ => self.roster.placement(self.setup.group, false).first().map(|replica| replica.node),
        };
        if let Some(first) = first.filter(|first| *first != self.setup.node) {
            self.member.raft.transfer_to(step.now, first);
        }
    }

    fn peer(&mut self, step: &mut Step, from: NodeId, message: GroupMessage) {
        // Who tells this node of the list may not be in the one that it knows.
        if !self.roster.nodes.contains_key(&from) && !matches!(message, GroupMessage::Roster(_)) {
            return;
        }
        match message {
            GroupMessage::Raft(message) => self.member.raft.step(step.now, from, message),
            GroupMessage::Bus(message) => self.bus(step, from, message),
            GroupMessage::Forward(forward) => self.forwarded(step, from, forward),
            GroupMessage::Answer(answer) => self.answered(step, answer.id, answer.result),
            GroupMessage::OutOfOrder(stream) => self.out_of_order(step, stream),
            GroupMessage::Roster(roster) => {
                self.hear_roster(step, roster);
                step.send(from, GroupMessage::RosterSeen(self.roster.version));
            }
            GroupMessage::RosterSeen(version) => self.roster_seen(from, version),
        }
    }

    fn persisted(&mut self, step: &mut Step, sequence: u64) {
        while self.unflushed.front().is_some_and(|write| write.sequence <= sequence) {
            let write = self.unflushed.pop_front().expect("looked at above");
            if let Some(raft) = write.raft {
                self.member.raft.persisted(step.now, raft);
            }
            self.with_agent(step, |agent, turn| agent.flushed(turn, write.ticket));
        }
    }

    fn drain(&mut self, step: &mut Step) {
        self.draining_since_us.get_or_insert(step.now.mono_us);
        self.end_polls(step);
        self.with_agent(step, |agent, turn| agent.drain(turn));
    }

    /// True where a draining node may go: it leads nothing, nobody waits, and what it wrote is in main memory
    /// (or, after [`Timing::drain_us`], in its journal).
    pub fn is_drained(&self, now: Now) -> bool {
        let patient =
            self.draining_since_us.is_some_and(|since_us| now.mono_us < since_us + self.setup.timing.drain_us);
        let leads = self.leads();
        let alone = self.member.raft.membership().all_voters().len() == 1;
        let late =
            self.draining_since_us.is_some_and(|since_us| now.mono_us >= since_us + 2 * self.setup.timing.drain_us);
        late || ((self.agent.is_drained() || !patient) && (!leads || alone) && self.pending.is_empty())
    }

    /// Does everything that follows from what has happened so far, until nothing more does.
    fn settle(&mut self, step: &mut Step) {
        loop {
            self.settle_bus(step);
            if !self.raft_ready(step) && step.is_quiet() {
                break;
            }
        }
        if !step.journal.is_empty() {
            let journal = std::mem::take(&mut step.journal);
            match step.effects.persist.last_mut() {
                Some(write) => write.journal = journal,
                None => self.write(step, Write { journal, ..self.empty_write() }, None),
            }
        }
        // Whatever of the journal was handed out in this step is durable with the last write of the step.
        if let (Some(write), Some(unflushed)) = (step.effects.persist.last(), self.unflushed.back_mut())
            && write.sequence == unflushed.sequence
        {
            unflushed.ticket = self.agent.ticket();
        }
        self.checkpoint_if_due(step);
    }

    /// The same within this node: nothing is taken from consensus.
    fn settle_bus(&mut self, step: &mut Step) {
        loop {
            self.follow_leader(step);
            self.tend_main_memory(step);
            self.deliver_bus(step);
            self.propose_for_home(step);
            if step.is_quiet() {
                break;
            }
        }
    }

    fn empty_write(&self) -> Write {
        Write { group: self.setup.group, sequence: 0, raft: None, journal: Vec::new(), compact: None }
    }

    /// Gives a write its number and hands it out.
    fn write(&mut self, step: &mut Step, mut write: Write, raft: Option<u64>) {
        self.written += 1;
        write.sequence = self.written;
        let ticket = self.unflushed.back().map_or(0, |unflushed| unflushed.ticket);
        self.unflushed.push_back(Unflushed { sequence: self.written, raft, ticket });
        step.effects.persist.push(write);
    }

    /// Takes what consensus hands out. False where that was nothing.
    fn raft_ready(&mut self, step: &mut Step) -> bool {
        let member = &mut self.member;
        let ready = member.raft.ready(step.now);
        if ready.is_empty() {
            return false;
        }
        member.wants_snapshot |= ready.snapshot_wanted;
        for (to, message) in ready.messages {
            step.send(to, GroupMessage::Raft(message));
        }
        if let Some(persist) = ready.persist {
            let sequence = persist.sequence;
            self.write(step, Write { raft: Some(persist), ..self.empty_write() }, Some(sequence));
        }
        if let Some(snapshot) = ready.restore {
            self.restore(&snapshot);
        }
        for entry in ready.committed {
            self.apply(step, &entry);
        }
        self.wake_polls(step);
        for ticket in ready.reads {
            self.answer_read(step, ticket);
        }
        self.provide_snapshot(step);
        true
    }

    /// The node that leads the group, as far as this one knows.
    fn leader(&self) -> Option<(NodeId, Term)> {
        let raft = &self.member.raft;
        if self.takes_part() {
            return raft.leader().map(|leader| (leader, raft.term()));
        }
        self.hint.map(|hint| (hint.leader, hint.term))
    }

    /// A replica that takes part no more knows whom it followed last: there the search for the home begins.
    fn remember_leader(&mut self, now: Now) {
        let (raft, last) = (&self.member.raft, self.followed);
        if self.takes_part() {
            self.followed = raft.leader().map(|leader| (leader, raft.term())).or(last);
        } else if let Some((leader, term)) = last {
            self.followed = None;
            if self.hint.is_none_or(|hint| hint.term < term) && leader != self.setup.node {
                self.hint = Some(Hint { leader, term, heard_us: now.mono_us });
            }
        }
    }

    fn leads(&self) -> bool {
        self.member.raft.role() == raft::Role::Leader
    }

    /// Whether this node has a replica of the group that votes or learns, by its own log; one that leads does, to the end.
    fn takes_part(&self) -> bool {
        let raft = &self.member.raft;
        raft.membership().contains(raft.replica()) || self.leads()
    }

    /// How this node stands as a leader at the instant of the step.
    fn standing(&self, now: Now) -> Standing {
        let member = &self.member;
        // The first entry of a leader's term is its no-op: with it, all of earlier terms is applied.
        let settled = R::without(Rule::HomeBeforeNoOp) || member.machine.applied().term == member.raft.term();
        let (now_us, log_ms) = (now.mono_us, member.raft.log_time_ms(now));
        Standing { now_us, leader_until_us: member.raft.lease_until_us(), settled, log_ms, redis: self.redis() }
    }

    /// The consensus part, where this node takes part in the group.
    pub fn raft(&self) -> Option<&Raft<R>> {
        self.takes_part().then_some(&self.member.raft)
    }

    /// The applied state, where this node takes part in the group.
    pub fn machine(&self) -> Option<&Machine> {
        self.takes_part().then_some(&self.member.machine)
    }

    /// The newest list of nodes that it knows.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The cache's lines on this node.
    pub fn agent(&self) -> &Agent<R> {
        &self.agent
    }

    /// The locks that ended since the last call, for the shell's measurements.
    pub fn take_ended_locks(&mut self) -> Vec<lock::Ended> {
        self.member.machine.take_ended_locks()
    }

    /// How long each grant since the last call was waited for, in milliseconds, for the same.
    pub fn take_waited(&mut self) -> Vec<u64> {
        self.member.machine.take_waited()
    }

    /// How the group stands on this node.
    pub fn status(&self, now: Now) -> GroupStatus {
        let leader = self.leader();
        let why_not_ready = self.why_not_ready(now).unwrap_or_default();
        let raft = self.raft();
        GroupStatus {
            group: self.setup.group.0,
            role: match raft.map(Raft::role) {
                None => Role::Outside,
                Some(raft::Role::Leader) => Role::Leader,
                Some(raft::Role::Follower) => Role::Follower,
                Some(raft::Role::PreCandidate | raft::Role::Candidate) => Role::Candidate,
            },
            term: raft.map_or(self.hint.map_or(0, |hint| hint.term), Raft::term),
            voted_for: raft.and_then(Raft::vote).map(|node| node.to_string()),
            leader: leader.map(|(node, _)| node.to_string()),
            last_index: raft.map_or(0, Raft::last_index),
            commit_index: raft.map_or(0, Raft::commit),
            applied_index: self.machine().map_or(0, |machine| machine.applied().index),
            bus_lease: self.agent.valid_tag(now.mono_us).is_some(),
            ready: why_not_ready.is_empty(),
            why_not_ready,
            voters: raft.map_or(Vec::new(), |raft| names(raft.membership().all_voters())),
            learners: raft.map_or(Vec::new(), |raft| names(raft.membership().learners.iter().copied())),
            change: self.change_waits_for.clone(),
        }
    }

    fn why_not_ready(&self, now: Now) -> Option<String> {
        let group = self.setup.group;
        if self.leader().is_none() {
            return Some(format!("{group} has no leader that this node knows"));
        }
        if self.takes_part() {
            let member = &self.member;
            let (applied, commit) = (member.machine.applied().index, member.raft.commit());
            if !member.caught_up {
                return Some(format!("{group} has applied {applied} of {commit} entries"));
            }
            if let Some(Err(why)) =
                member.home.as_ref().map(|home| home.readiness(member.machine.memory(), self.standing(now)))
            {
                return Some(format!("{group}: {why}"));
            }
        }
        if self.agent.valid_tag(now.mono_us).is_none() {
            return Some(format!("{group} has given this node no bus lease"));
        }
        self.sequences.session().is_none().then(|| format!("{group} has opened no session for this node"))
    }
}

fn names(replicas: impl IntoIterator<Item = ReplicaId>) -> Vec<String> {
    replicas.into_iter().map(|replica| replica.to_string()).collect()
}

/// What one step has led to so far.
#[derive(Debug)]
struct Step {
    now: Now,
    effects: Effects,
    journal: Vec<crate::cache::JournalRecord>,
    /// Bus messages that are not delivered yet.
    to_home: VecDeque<crate::cache::ToHome>,
    to_node: VecDeque<(NodeId, crate::cache::ToNode)>,
    propose: VecDeque<crate::cache::Proposal>,
}

impl Step {
    fn new(now: Now) -> Self {
        Self {
            now,
            effects: Effects::default(),
            journal: Vec::new(),
            to_home: VecDeque::new(),
            to_node: VecDeque::new(),
            propose: VecDeque::new(),
        }
    }

    /// Whether nothing of the bus is on its way within this node.
    fn is_quiet(&self) -> bool {
        self.to_home.is_empty() && self.to_node.is_empty() && self.propose.is_empty()
    }

    fn send(&mut self, to: NodeId, message: GroupMessage) {
        self.effects.send.push((to, std::sync::Arc::new(message)));
    }
}

#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod tests;
