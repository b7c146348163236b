//! A little cluster: agents, homes, one replicated memory, and a network whose messages wait until a script says what becomes
//! of them.
//!
//! Whatever a script does, every read is held against the newest version that was complete when it began, and after each
//! command a node in M is the only one with a copy.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trine_protocol::{Error, ErrorCode, Response};

use super::oracle::Oracle;
use crate::cache::tests::show;
use crate::cache::{
    Agent, AgentOut, Applied, Committed, Config, Home, HomeOut, JournalRecord, Lines, Memory, Operation, Proposal,
    Standing, ToHome, ToNode, Turn, WriteId,
};
use crate::cache::{Change, Redis, What};
use crate::ids::{At, GroupId, Incarnation, Index, NodeId, Term};
use crate::rules::OneLeftOut;
use crate::sequence::Sequences;

/// When a cluster begins, on every clock.
const BEGINNING_US: u64 = 10_000_000;

/// A node, up or down.
pub(super) struct Member {
    pub(super) agent: Option<Agent<OneLeftOut>>,
    sequences: Sequences,
    pub(super) lines: Lines,
    /// What its disk has.
    pub(super) journal: Vec<JournalRecord>,
    /// What it has not, each record with its ticket.
    unflushed: Vec<(u64, JournalRecord)>,
    pub(super) life: Incarnation,
    starts: u64,
    /// The home that it believes in.
    home: Term,
    pub(super) drift_ppm: i64,
    /// It stands still: nothing arrives, and no time passes in it.
    pub(super) paused: bool,
}

/// The home of one term, with the node it is on.
pub(super) struct Office {
    pub(super) node: usize,
    pub(super) home: Home<OneLeftOut>,
    pub(super) leads: bool,
    pub(super) settled: bool,
}

/// A message on its way.
#[derive(Clone)]
pub(super) struct Flight {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) message: Message,
}

#[derive(Clone)]
pub(super) enum Message {
    ToHome(usize, Term, ToHome),
    ToNode(usize, ToNode),
}

impl Message {
    pub(super) fn text(&self) -> String {
        match self {
            Self::ToHome(_, _, message) => show::to_home(message),
            Self::ToNode(_, message) => show::to_node(message),
        }
    }
}

pub(super) struct Cluster {
    pub(super) config: Config,
    pub(super) now_us: u64,
    pub(super) members: BTreeMap<usize, Member>,
    pub(super) homes: BTreeMap<Term, Office>,
    /// The term of the newest home that there was.
    term: Term,
    pub(super) memory: Memory,
    index: Index,
    /// Proposals that are not in the log yet.
    pub(super) proposed: Vec<(Term, Proposal)>,
    /// Answers of the log to the writes that it knows, and below which numbers it takes none of a session.
    done: BTreeMap<WriteId, Applied>,
    given_up: BTreeMap<u64, u64>,
    pub(super) flights: Vec<Flight>,
    /// The log, or the disks, wait for the script.
    pub(super) log_waits: bool,
    pub(super) journal_waits: bool,
    /// Nodes that no message reaches or leaves.
    pub(super) cut: BTreeSet<usize>,
    pub(super) oracle: Oracle,
    pub(super) trace: Vec<String>,
    next_caller: u64,
}

impl Cluster {
    /// Nodes that are up and have heard of no home.
    pub(super) fn new(nodes: usize, config: Config) -> Self {
        let mut cluster = Self {
            config,
            now_us: BEGINNING_US,
            members: BTreeMap::new(),
            homes: BTreeMap::new(),
            term: 0,
            memory: Memory::default(),
            index: 0,
            proposed: Vec::new(),
            done: BTreeMap::new(),
            given_up: BTreeMap::new(),
            flights: Vec::new(),
            log_waits: false,
            journal_waits: false,
            cut: BTreeSet::new(),
            oracle: Oracle::default(),
            trace: Vec::new(),
            next_caller: 1,
        };
        for number in 1..=nodes {
            let member = Member {
                agent: None,
                sequences: Sequences::default(),
                lines: Lines::default(),
                journal: Vec::new(),
                unflushed: Vec::new(),
                life: Incarnation(number as u64 * 10),
                starts: 0,
                home: 0,
                drift_ppm: 0,
                paused: false,
            };
            cluster.members.insert(number, member);
            cluster.start(number);
        }
        cluster
    }

    pub(super) fn say(&mut self, line: String) {
        self.trace.push(line);
    }

    /// A node's monotonic clock.
    pub(super) fn clock_us(&self, number: usize) -> u64 {
        let passed = (self.now_us - BEGINNING_US) as i64;
        let ahead = passed * self.members[&number].drift_ppm / 1_000_000;
        self.now_us.saturating_add_signed(ahead)
    }

    pub(super) fn start(&mut self, number: usize) {
        let (config, member) = (self.config.clone(), self.members.get_mut(&number).expect("a node"));
        member.starts += 1;
        member.agent = Some(Agent::new(GroupId(0), NodeId::numbered(number), member.life, config, &member.journal));
        member.sequences.opened(number as u64 * 10 + member.starts - 1);
        member.lines = Lines::default();
    }

    /// Its process is gone, with the home that was in it and all that its disk has not.
    pub(super) fn crash(&mut self, number: usize) {
        let member = self.members.get_mut(&number).expect("a node");
        member.agent = None;
        member.lines = Lines::default();
        member.unflushed.clear();
        member.home = 0;
        self.homes.retain(|_, office| office.node != number);
        self.oracle.forget(number);
    }

    pub(super) fn agent<T>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Agent<OneLeftOut>, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let now_us = self.clock_us(number);
        let member = self.members.get_mut(&number)?;
        let agent = member.agent.as_mut()?;
        let keys = self.oracle.keys();
        let states = |agent: &Agent<OneLeftOut>| keys.iter().map(|key| agent.show(key)).collect::<Vec<_>>();
        let (before, ticket, mut out) = (states(agent), agent.ticket(), AgentOut::default());
        let result = act(agent, &mut Turn { now_us, sequences: &mut member.sequences, out: &mut out });
        agent.check_stats();
        let after = states(agent);
        for change in out.retract.iter().chain(&out.publish) {
            member.lines.apply(change.clone());
        }
        member.unflushed.extend((ticket + 1..).zip(out.journal.iter().cloned()));
        let term = member.home;
        for (key, (before, after)) in keys.iter().zip(before.iter().zip(&after)) {
            if before != after {
                self.trace.push(format!("n{number} {key}: {before} ⇨ {after}"));
            }
        }
        let changes = |changes: &[_]| changes.iter().map(show::change).collect::<Vec<_>>();
        let lines = changes(&out.retract)
            .into_iter()
            .chain(out.journal.iter().map(|record| format!("journal {}", show::journal(record))))
            .chain(changes(&out.publish));
        self.trace.extend(lines.map(|line| format!("n{number}: {line}")));
        for message in out.to_home {
            self.send(format!("n{number}"), format!("h{term}"), Message::ToHome(number, term, message));
        }
        for (caller, result) in out.reply {
            self.replied(caller, &result);
        }
        if !self.journal_waits {
            self.flush(number, usize::MAX);
        }
        Some(result)
    }

    fn send(&mut self, from: String, to: String, message: Message) {
        self.trace.push(format!("{from} → {to} {}", message.text()));
        self.flights.push(Flight { from, to, message });
    }

    fn replied(&mut self, caller: u64, result: &Result<Response, Error>) {
        let gone = if self.oracle.is_waiting(caller) { "" } else { " (gone)" };
        self.trace.push(format!("c{caller}{gone}: {}", show::answer(result)));
        self.oracle.answered(caller, result);
    }

    /// The disk of a node takes so many records.
    pub(super) fn flush(&mut self, number: usize, count: usize) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let count = count.min(member.unflushed.len());
        let Some(ticket) = count.checked_sub(1).map(|last| member.unflushed[last].0) else { return };
        member.journal.extend(member.unflushed.drain(..count).map(|(_, record)| record));
        self.agent(number, |agent, turn| agent.flushed(turn, ticket));
    }

    pub(super) fn home<T>(
        &mut self,
        term: Term,
        act: impl FnOnce(&mut Home<OneLeftOut>, &Memory, Standing, &mut HomeOut) -> T,
    ) -> Option<T> {
        let node = self.homes.get(&term)?.node;
        let now_us = self.clock_us(node);
        let office = self.homes.get_mut(&term)?;
        let standing = Standing {
            now_us,
            leader_until_us: office.leads.then_some(u64::MAX),
            settled: office.settled,
            log_ms: 0,
            redis: Redis::None,
        };
        let mut out = HomeOut::default();
        let result = act(&mut office.home, &self.memory, standing, &mut out);
        for (node, message) in out.to_node {
            let number = (1..).find(|number| NodeId::numbered(*number) == node).expect("a node of ours");
            self.send(format!("h{term}"), format!("n{number}"), Message::ToNode(number, message));
        }
        for proposal in out.propose {
            self.trace.push(format!("h{term} proposes {}", show::command(&proposal.command)));
            self.proposed.push((term, proposal));
        }
        if !self.log_waits {
            self.commit(usize::MAX);
        }
        Some(result)
    }

    /// So many proposals get into the log, and are applied.
    pub(super) fn commit(&mut self, count: usize) {
        for _ in 0..count {
            if self.proposed.is_empty() {
                break;
            }
            let (term, proposal) = self.proposed.remove(0);
            self.index += 1;
            self.memory.advance(self.index);
            let committed = self.apply(&proposal);
            let text = match &committed {
                Committed::Applied(applied) => show::applied(*applied),
                Committed::Repeated(applied) => format!("{} before", show::applied(*applied)),
                Committed::Refused(error) => error.code.name().into(),
            };
            self.say(format!("log {}: {} ⇨ {text}", self.index, show::command(&proposal.command)));
            self.home(term, |home, memory, standing, out| home.committed(&proposal, committed, memory, standing, out));
        }
    }

    /// As the log does it: a write is executed once, and one that was given up never.
    fn apply(&mut self, proposal: &Proposal) -> Committed {
        let at = At { index: self.index, stamp_ms: 0, wall_ms: 0, generation: 0 };
        let Some((write, acked_below)) = proposal.write else {
            return Committed::Applied(self.memory.apply(at, &proposal.command));
        };
        let floor = self.given_up.entry(write.session).or_insert(1);
        *floor = acked_below.max(*floor);
        if let Some(applied) = self.done.get(&write) {
            return Committed::Repeated(*applied);
        }
        if write.sequence < *floor {
            return Committed::Refused(Error::new(ErrorCode::OutcomeUnknown, "given up"));
        }
        let applied = self.memory.apply(at, &proposal.command);
        if applied != Applied::Void {
            self.done.insert(write, applied);
        }
        Committed::Applied(applied)
    }

    /// Proposals get lost on their way into the log; their home hears it, where it is there.
    pub(super) fn refuse(&mut self) {
        for (term, proposal) in std::mem::take(&mut self.proposed) {
            self.say(format!("the log does not take {}", show::command(&proposal.command)));
            self.home(term, |home, memory, standing, out| home.refused(&proposal, memory, standing, out));
        }
    }

    /// A client of a node asks: a read hit first, as the server does it, and the agent otherwise.
    pub(super) fn asks(&mut self, number: usize, key: &str, operation: Operation) {
        self.oracle.learn(key);
        let caller = self.next_caller;
        self.next_caller += 1;
        let now_us = self.clock_us(number);
        let found = self.members[&number].lines.peek(key).filter(|found| found.is_valid_at(now_us));
        if let (Operation::Get, Some(found)) = (&operation, found) {
            self.say(format!("c{caller}: hit {} {:?}", show::versioned(&found.line.value), found.line.state));
            return self.oracle.hit(key, &found.line.value);
        }
        self.oracle.asked(caller, number, key, written(&operation));
        self.agent(number, |agent, turn| agent.operation(turn, caller, key, operation));
    }

    pub(super) fn writes_all_back(&mut self, number: usize) {
        let caller = self.next_caller;
        self.next_caller += 1;
        self.oracle.asked(caller, number, "", None);
        self.agent(number, |agent, turn| agent.write_back_all(turn, caller));
    }

    pub(super) fn expire(&mut self, caller: u64) {
        let Some(number) = self.oracle.give_up(caller) else { return };
        self.agent(number, |agent, turn| agent.expire(turn, caller));
    }

    /// A home of the next term, on that node.
    pub(super) fn elect(&mut self, node: usize, settled: bool) -> Term {
        self.term += 1;
        let term = self.term;
        // Its leader lease has run out, or there could be no other.
        self.homes.values_mut().for_each(|office| office.leads = false);
        let home = Home::new(NodeId::numbered(node), term, self.config.clone(), self.clock_us(node));
        self.homes.insert(term, Office { node, home, leads: true, settled });
        term
    }

    /// A node hears of a home; where one of an earlier term is on it, that is over.
    pub(super) fn hears_of_home(&mut self, number: usize, term: Term) {
        self.homes.retain(|other, office| office.node != number || *other >= term);
        let Some(member) = self.members.get_mut(&number) else { return };
        member.home = term.max(member.home);
        self.agent(number, |agent, turn| agent.home_changed(turn, term));
    }

    pub(super) fn tick_home(&mut self, term: Term) {
        self.home(term, Home::tick);
    }
}

/// The value that an operation writes, where it writes: the one place that takes an operation apart.
fn written(operation: &Operation) -> Option<Option<Bytes>> {
    match operation {
        Operation::Write(Change { what: What::Put { value, .. }, .. }) => Some(Some(value.clone())),
        Operation::Write(_) => Some(None),
        _ => None,
    }
}
