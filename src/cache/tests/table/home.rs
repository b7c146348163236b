//! The home's side: a home with a key in each of its states.

use bytes::Bytes;
use trine_protocol::cache::LineState;

use super::home_events::EVENTS;
use super::node::versioned;
use super::{Row, Section, compare, print, shows_each_rule};
use crate::cache::Change;
use crate::cache::tests::show::{self, KEY};
use crate::cache::{
    Applied, Command, Committed, Config, Home, HomeOut, LeaseTag, Memory, Own, Proposal, Snooped, Standing, ToHome,
    WriteBack, WriteId,
};
use crate::ids::{At, Incarnation, Index, NodeId, Term};
use crate::rules::{OneLeftOut, Rule};

/// Where the log stands when a section begins, beyond what came into it before.
const INDEX: Index = 4;

const HEAD: &str = "\
What a home does: for each state of a key how it comes about here, then each event, the state after it, and the
actions in their order; '-' stands for no change and for no action. The nodes are n1, n2 and n3. 'n2 <-' is a message
to node 2, 'log <-' a command for the log; r is the number of a request, w a write, t a transaction. A version is
epoch.count. The state of a key: its owner by the log, 'away' without a lease; its copies that may be served, E where
one node was told that it has the only one; the transaction, and what it waits for; the requests behind it.
";

/// A home by itself, three nodes that it hears of, and its proposals, which wait.
pub(super) struct Bench {
    home: Home<OneLeftOut>,
    memory: Memory,
    pub(super) now_us: u64,
    leads: bool,
    index: Index,
    term: Term,
    /// The lease of each node.
    tags: [LeaseTag; 3],
    request: u64,
    /// The proposal that is on its way.
    proposed: Option<Proposal>,
    /// The transaction that was snooped for last.
    transaction: u64,
}

/// The life of a node: its data directory.
pub(super) fn life(number: usize) -> Incarnation {
    Incarnation(number as u64 * 10)
}

/// The write of that number of a node.
fn write(number: usize, sequence: u64) -> WriteId {
    WriteId { session: number as u64, sequence }
}

impl Bench {
    /// All three are on the bus, and nobody has asked for anything.
    fn new() -> Self {
        let now_us = 10_000_000;
        let home = Home::new(NodeId::numbered(1), 1, Config::default(), now_us);
        let tags = [LeaseTag::default(); 3];
        let memory = Memory::default();
        let mut bench = Self {
            home,
            memory,
            now_us,
            leads: true,
            index: 0,
            term: 1,
            tags,
            request: 0,
            proposed: None,
            transaction: 0,
        };
        for number in 1..=3 {
            bench.registers(number, life(number));
            bench.applied();
            bench.registers(number, life(number));
        }
        bench.index = INDEX;
        bench
    }

    pub(super) fn act(&mut self, act: impl FnOnce(&mut Home<OneLeftOut>, &Memory, Standing, &mut HomeOut)) -> HomeOut {
        let leader_until_us = self.leads.then_some(u64::MAX);
        let standing = Standing {
            now_us: self.now_us,
            leader_until_us,
            settled: true,
            log_ms: 0,
            redis: crate::cache::Redis::None,
        };
        let mut out = HomeOut::default();
        act(&mut self.home, &self.memory, standing, &mut out);
        for (node, message) in &out.to_node {
            use crate::cache::ToNode::{Registered, SnoopInv, SnoopRd};
            match message {
                Registered { tag, .. } => {
                    let number = (1..=3).find(|number| NodeId::numbered(*number) == *node).expect("a node of ours");
                    self.tags[number - 1] = *tag;
                }
                SnoopRd { transaction, .. } | SnoopInv { transaction, .. } if *transaction > 0 => {
                    self.transaction = *transaction;
                }
                _ => {}
            }
        }
        self.proposed = out.propose.last().cloned().or(self.proposed.take());
        out
    }

    pub(super) fn hears(&mut self, number: usize, message: ToHome) -> HomeOut {
        self.act(|home, memory, standing, out| home.handle(NodeId::numbered(number), message, memory, standing, out))
    }

    fn request(&mut self) -> u64 {
        self.request += 1;
        self.request
    }

    pub(super) fn registers(&mut self, number: usize, incarnation: Incarnation) -> HomeOut {
        let round = self.now_us + self.request();
        self.hears(number, ToHome::Register { incarnation, round, home: self.term })
    }

    pub(super) fn tag(&self, number: usize) -> LeaseTag {
        self.tags[number - 1]
    }

    pub(super) fn reads(&mut self, number: usize) -> HomeOut {
        let (request, tag) = (self.request(), self.tag(number));
        self.hears(number, ToHome::BusRd { request, key: KEY.into(), tag })
    }

    /// A write of the number that tells it from a repeated one: the one place that knows how it is made.
    pub(super) fn writes(&mut self, number: usize, sequence: u64) -> HomeOut {
        let (request, tag, write) = (self.request(), self.tag(number), write(number, sequence));
        let (key, change, held) = (KEY.to_owned(), Change::put("b".into()), LineState::I);
        self.hears(number, ToHome::BusRdX { request, write, acked_below: 1, key, change, held, tag, again: false })
    }

    /// Epoch of the ownership that the log has of the key, or of one that never was.
    fn epoch(&self) -> Index {
        self.memory.owner(KEY).map_or(INDEX, |owner| owner.epoch)
    }

    pub(super) fn writes_back(&mut self, number: usize, older: u64, end: bool) -> HomeOut {
        let (request, tag, epoch) = (self.request(), self.tag(number), self.epoch() - older);
        let dirty = Some(versioned(epoch, 1, "c"));
        self.hears(number, ToHome::WriteBack { request, key: KEY.into(), epoch, dirty, end, tag })
    }

    pub(super) fn acknowledges(&mut self, number: usize, later: u64, incarnation: Incarnation, found: &str) -> HomeOut {
        let (request, tag, transaction) = (self.request(), self.tag(number), self.transaction + later);
        let snooped = match found {
            "gone" => Snooped::Gone,
            "clean" => Snooped::Clean,
            "dirty" => Snooped::Dirty(versioned(self.epoch(), 1, "c")),
            _ => Snooped::Dirty(versioned(self.epoch() - 1, 1, "c")),
        };
        self.hears(number, ToHome::SnoopAck { request, transaction, key: KEY.into(), tag, snooped, incarnation })
    }

    /// A command that carries a write comes out of the log and was not applied: its session knows it, or does not take it.
    pub(super) fn not_applied(&mut self, committed: Committed) -> HomeOut {
        if self.proposed.as_ref().is_none_or(|proposal| proposal.write.is_none()) {
            return HomeOut::default();
        }
        self.committed(|_, _, _| committed)
    }

    /// The entry comes out of the log; without one, that of a transaction which is over.
    pub(super) fn committed(&mut self, committed: impl FnOnce(&mut Memory, At, &Command) -> Committed) -> HomeOut {
        self.index += 1;
        let at = At { index: self.index, stamp_ms: 0, wall_ms: 0, generation: 0 };
        let over = || Proposal { key: KEY.into(), transaction: 0, command: own(1, 1, None), write: None };
        let proposal = self.proposed.take();
        let committed = match &proposal {
            Some(proposal) => committed(&mut self.memory, at, &proposal.command),
            None => Committed::Applied(Applied::Void),
        };
        let proposal = proposal.unwrap_or_else(over);
        self.act(|home, memory, standing, out| home.committed(&proposal, committed, memory, standing, out))
    }

    pub(super) fn applied(&mut self) -> HomeOut {
        self.committed(|memory, at, command| Committed::Applied(memory.apply(at, command)))
    }

    /// The log did not take it.
    pub(super) fn refused(&mut self) -> HomeOut {
        let Some(proposal) = self.proposed.take() else { return HomeOut::default() };
        self.act(|home, memory, standing, out| home.refused(&proposal, memory, standing, out))
    }

    pub(super) fn ticks(&mut self) -> HomeOut {
        self.act(Home::tick)
    }

    /// The leases of these nodes run out, the others renew theirs.
    pub(super) fn runs_out(&mut self, numbers: &[usize]) {
        self.now_us += Config::default().home_lease_us() - 1;
        for number in (1..=3).filter(|number| !numbers.contains(number)) {
            let (tag, round) = (self.tag(number), self.now_us);
            self.hears(number, ToHome::Renew { tag, round });
        }
        self.now_us += 1;
    }

    /// It cannot know any more that it leads.
    pub(super) fn leads_no_more(&mut self) {
        self.leads = false;
    }

    /// Another home, of the next term, that has heard of nobody; the log is as it was.
    fn succeeded(&mut self) {
        self.term += 1;
        self.home = Home::new(NodeId::numbered(1), self.term, Config::default(), self.now_us);
        self.tags = [LeaseTag { term: self.term, number: 0 }; 3];
        self.proposed = None;
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }

    pub(super) fn state(&self) -> String {
        self.home.show(KEY, &self.memory, self.now_us)
    }
}

/// Node `number` writes the key: the one place that knows how the command is made.
fn own(number: usize, sequence: u64, replaces: Option<Index>) -> Command {
    let (node, value) = (NodeId::numbered(number), Some(Bytes::from_static(b"a")));
    let own = Own::refusal(KEY.into(), node, life(number), write(number, sequence));
    Command::Own(Own { value, replaces, refused: false, ..own })
}

/// The log has a value that node 1 wrote once, before this home.
fn stored(b: &mut Bench) {
    let at = |index| At { index, stamp_ms: 0, wall_ms: 0, generation: 0 };
    b.memory.apply(at(2), &own(1, 9, None));
    let (node, incarnation) = (NodeId::numbered(1), life(1));
    let back = WriteBack { key: KEY.into(), node, incarnation, epoch: 2, dirty: None, end: true };
    b.memory.apply(at(3), &Command::WriteBack(back));
}

fn shared(b: &mut Bench) {
    stored(b);
    b.reads(1);
    b.reads(2);
}

fn owned(b: &mut Bench) {
    b.writes(1, 1);
    b.applied();
}

fn away(b: &mut Bench) {
    owned(b);
    b.runs_out(&[1]);
}

fn shared_and_written(b: &mut Bench) {
    shared(b);
    b.writes(3, 1);
}

/// A state: its name where more is to be said than the home's own words, how it comes about, and how the bench is brought there.
type Start = (&'static str, &'static str, fn(&mut Bench));

const STARTS: [Start; 18] = [
    ("", "there is no such key", |_| {}),
    ("", "main memory has what node 1 wrote, and nobody a copy", stored),
    ("", "node 1 has read", |b| {
        stored(b);
        b.reads(1);
    }),
    ("", "nodes 1 and 2 have read", shared),
    ("", "node 1 has written", owned),
    ("", "the lease of node 1 has run out since", away),
    ("", "node 1 has come back since, with its journal", |b| {
        away(b);
        b.registers(1, life(1));
    }),
    (", n1 in another life", "node 1 has come back since, with an empty disk", |b| {
        away(b);
        b.registers(1, Incarnation(11));
        b.applied();
        b.registers(1, Incarnation(11));
    }),
    ("", "node 1 has written, node 2 reads", |b| {
        owned(b);
        b.reads(2);
    }),
    ("", "node 1 has written, node 2 writes", |b| {
        owned(b);
        b.writes(2, 1);
    }),
    ("", "the same, and node 1 has handed its value over", |b| {
        owned(b);
        b.reads(2);
        b.acknowledges(1, 0, life(1), "dirty");
    }),
    ("", "nodes 1 and 2 have read, node 3 writes", shared_and_written),
    ("", "the same, and the log has it", |b| {
        shared_and_written(b);
        b.applied();
    }),
    ("", "the same, but the copies went first", |b| {
        shared_and_written(b);
        for number in 1..=2 {
            b.acknowledges(number, 0, life(number), "gone");
        }
    }),
    ("", "node 1 is away, node 2 writes", |b| {
        away(b);
        b.writes(2, 1);
    }),
    ("", "node 1 has written and writes back", |b| {
        owned(b);
        b.writes_back(1, 0, false);
    }),
    ("", "node 1 has written and gives the line back", |b| {
        owned(b);
        b.writes_back(1, 0, true);
    }),
    (", a new home", "node 1 has written, and the home is a new one that no node has registered with", |b| {
        owned(b);
        b.succeeded();
    }),
];

fn bench(start: &Start) -> Bench {
    let mut bench = Bench::new();
    start.2(&mut bench);
    bench
}

fn actions(out: &HomeOut) -> Vec<String> {
    let message = |(node, message): &(NodeId, _)| format!("{} <- {}", show::node(*node), show::to_node(message));
    let propose = |proposal: &Proposal| format!("log <- {}", show::command(&proposal.command));
    out.to_node.iter().map(message).chain(out.propose.iter().map(propose)).collect()
}

fn sections() -> Vec<Section> {
    let section = |start: &Start| {
        let row = |(event, act): &(&'static str, fn(&mut Bench) -> HomeOut)| {
            let mut bench = bench(start);
            let out = act(&mut bench);
            super::rules::home(start.1, event, &bench.state(), &out);
            Row { event, next: bench.state() + start.0, actions: actions(&out) }
        };
        let rows = EVENTS.iter().map(row).collect();
        Section { state: bench(start).state() + start.0, comes: start.1, rows }
    };
    STARTS.iter().map(section).collect()
}

fn table() -> String {
    print(HEAD, &sections(), [43, 46])
}

#[test]
fn the_homes_side_does_what_its_table_says() {
    let sections = sections();
    for word in ["unowned", "owns", "away", "E at", "S at", "asks the owner", "entry out", "entry applied", "waits for"]
    {
        assert!(sections.iter().any(|section| section.state.contains(word)), "no section begins with '{word}'");
    }
    compare("home.txt", &table());
}

#[test]
fn the_homes_side_shows_each_rule_that_is_left_out() {
    let rules = [
        Rule::NewHomeNotSilent,
        Rule::GrantWithoutLeaseCheck,
        Rule::LeaseBeforeJoin,
        Rule::LapsedLeaseRenewed,
        Rule::WriteBeforeCopiesAreGone,
        Rule::OldValueWhileOwnerIsAway,
    ];
    shows_each_rule(&rules, table);
}
