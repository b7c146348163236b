//! The node's side: an agent in each of its states.

use std::collections::BTreeSet;

use trine_protocol::cache::{LineState, Version};
use trine_protocol::{Error, ErrorCode};

use super::node_events::EVENTS;
use super::{Row, Section, compare, print, shows_each_rule, state_names};
use crate::cache::Change;
use crate::cache::tests::show::{self, KEY};
use crate::cache::{
    Agent, AgentOut, Config, LeaseTag, Lines, Operation, OwnerMark, ToHome, ToNode, Turn, Versioned, WriteId,
};
use crate::ids::{GroupId, Incarnation, Index, NodeId};
use crate::rules::{OneLeftOut, Rule};
use crate::sequence::Sequences;

/// The lease that an agent begins with.
pub(super) const TAG: LeaseTag = LeaseTag { term: 1, number: 1 };
/// The ownership that it has where it has one.
pub(super) const EPOCH: Index = 9;

const HEAD: &str = "\
What an agent does: for each state how it comes about here, then each event, the state after it, and the actions in
their order; '-' stands for no change and for no action. The agent is node 1. Clients are c1, c2..., messages for the
home have the names of the protocol, with r for the number of a request, w for a write, and t for a transaction. A
version is epoch.count. Main memory has 5.0 'a'; the ownership here is that of epoch 9, begun by the write of 9.0 'b'.
M dirty: main memory lacks what was written since. M pending: the journal lacks the newest write. M leaving: as soon
as nothing is pending. MI poisoned: no copy is kept at the end. 'no lease': this node is not on the bus.
";

/// An agent by itself, with what its last messages said.
pub(super) struct Bench {
    pub(super) agent: Agent<OneLeftOut>,
    sequences: Sequences,
    pub(super) lines: Lines,
    pub(super) now_us: u64,
    /// Number of its last `BusRd`.
    pub(super) request: u64,
    /// Its last `BusRdX`, and that request's number.
    pub(super) write: WriteId,
    pub(super) write_request: u64,
    /// Its last client.
    pub(super) caller: u64,
    /// The last round of its lease.
    pub(super) round: u64,
}

/// What is written, or deleted: the one place that knows how an operation is made.
pub(super) fn put(value: &'static str) -> Operation {
    Operation::Write(Change::put(value.into()))
}

pub(super) fn versioned(epoch: Index, count: u64, value: &'static str) -> Versioned {
    Versioned::new(Version { epoch, count }, Some(value.into()))
}

impl Bench {
    /// Without a lease: it has asked for one. Room is for one line and a half.
    fn new() -> Self {
        let config = Config { lines_bytes_max: 3, renew_us: 3_600_000_000, ..Config::default() };
        let agent = Agent::new(GroupId(0), NodeId::numbered(1), Incarnation(1), config, &[]);
        let write = WriteId { session: 1, sequence: 1 };
        let mut sequences = Sequences::default();
        sequences.opened(1);
        let lines = Lines::default();
        let (now_us, round) = (1_000_000, 1_000_000);
        let mut bench = Self { agent, sequences, lines, now_us, request: 2, write, write_request: 2, caller: 0, round };
        bench.act(|agent, turn| agent.home_changed(turn, 1));
        bench
    }

    pub(super) fn act(&mut self, act: impl FnOnce(&mut Agent<OneLeftOut>, &mut Turn<'_>)) -> AgentOut {
        let mut out = AgentOut::default();
        let mut turn = Turn { now_us: self.now_us, sequences: &mut self.sequences, out: &mut out };
        act(&mut self.agent, &mut turn);
        self.agent.check_stats();
        for change in out.retract.iter().chain(&out.publish) {
            self.lines.apply(change.clone());
        }
        for message in &out.to_home {
            match message {
                ToHome::BusRd { request, .. } => self.request = *request,
                ToHome::BusRdX { request, write, .. } => (self.write_request, self.write) = (*request, *write),
                ToHome::Register { round, .. } => self.round = *round,
                _ => {}
            }
        }
        out
    }

    pub(super) fn hears(&mut self, message: ToNode) -> AgentOut {
        self.act(|agent, turn| agent.handle(turn, message))
    }

    /// The next client asks.
    pub(super) fn asks(&mut self, operation: Operation) -> AgentOut {
        self.caller += 1;
        let caller = self.caller;
        self.act(|agent, turn| agent.operation(turn, caller, KEY, operation))
    }

    pub(super) fn flushed(&mut self) -> AgentOut {
        self.act(|agent, turn| agent.flushed(turn, agent.ticket()))
    }

    pub(super) fn passes(&mut self, time_us: u64) -> AgentOut {
        self.now_us += time_us;
        self.act(|agent, turn| agent.tick(turn))
    }

    pub(super) fn registered(&mut self) -> AgentOut {
        self.hears(ToNode::Registered { tag: TAG, round: self.round })
    }

    pub(super) fn lapsed(&mut self) -> AgentOut {
        self.hears(ToNode::Lapsed { tag: TAG })
    }

    pub(super) fn filled(&mut self, request: u64, state: LineState, tag: LeaseTag) -> AgentOut {
        let writer = Some(NodeId::numbered(2));
        self.hears(ToNode::Filled { request, key: KEY.into(), tag, state, value: versioned(5, 0, "a"), writer })
    }

    pub(super) fn owned(&mut self, write: WriteId, tag: LeaseTag, owns: bool) -> AgentOut {
        self.hears(ToNode::Owned { write, key: KEY.into(), tag, epoch: EPOCH, owns, sum: None })
    }

    pub(super) fn read_failed(&mut self, request: u64) -> AgentOut {
        self.hears(ToNode::ReadFailed { request, key: KEY.into(), error: Error::new(ErrorCode::OwnerAway, "") })
    }

    pub(super) fn write_failed(&mut self, request: u64, write: WriteId, code: ErrorCode) -> AgentOut {
        self.hears(ToNode::WriteFailed { request, write, key: KEY.into(), error: Error::new(code, "") })
    }

    /// The end of an ownership with the copy that may be kept, or where None news that it goes on.
    pub(super) fn written_back(
        &mut self,
        epoch: Index,
        count: u64,
        ended: Option<LineState>,
        tag: LeaseTag,
    ) -> AgentOut {
        let (key, version, state) = (KEY.to_owned(), Version { epoch, count }, ended.unwrap_or(LineState::I));
        self.hears(ToNode::WrittenBack { key, epoch, version, ended: ended.is_some(), state, tag })
    }

    /// Which ownership a snoop means. A later one is that of the write that is out.
    fn mark(&self, epoch: Option<Index>) -> Option<OwnerMark> {
        let mine = epoch.is_some_and(|epoch| epoch >= EPOCH);
        let write = if mine { self.write } else { WriteId { session: 9, sequence: 9 } };
        epoch.map(|epoch| OwnerMark { epoch, write, sum: None })
    }

    pub(super) fn snooped_by_a_reader(&mut self, epoch: Option<Index>) -> AgentOut {
        let owner = self.mark(epoch);
        self.hears(ToNode::SnoopRd { transaction: 7, key: KEY.into(), owner })
    }

    pub(super) fn snooped_by_a_writer(&mut self, epoch: Option<Index>) -> AgentOut {
        let owner = self.mark(epoch);
        self.hears(ToNode::SnoopInv { transaction: 7, key: KEY.into(), owner })
    }

    /// Its state, and whether it is on the bus.
    fn state(&self) -> String {
        let state = self.agent.show(KEY);
        if self.agent.valid_tag(self.now_us).is_some() { state } else { format!("{state}, no lease") }
    }
}

/// A state: how it comes about, and how the bench is brought there from an agent that has a lease and nothing else.
type Start = (&'static str, fn(&mut Bench));

const STARTS: [Start; 20] = [
    ("the node has a lease and nothing of the key", |_| {}),
    ("client 1 reads", is),
    ("client 1 reads, then another node writes before the fill is there", |b| {
        is(b);
        b.snooped_by_a_writer(None);
    }),
    ("client 1 has read, and other nodes have", |b| clean(b, LineState::S)),
    ("client 1 has read, and nobody else has", |b| clean(b, LineState::E)),
    ("client 1 writes", im),
    ("client 1 has read, client 2 writes", |b| {
        clean(b, LineState::S);
        b.asks(put("b"));
    }),
    ("client 1 has written", m),
    ("client 1 has written, client 2 has written once more, on this node's disk only", dirty),
    ("client 1 has written, client 2 writes, and the journal is not flushed", pending),
    ("the same, then another node reads", |b| {
        pending(b);
        b.snooped_by_a_reader(Some(EPOCH));
    }),
    ("client 1 has written, then another node reads", |b| {
        m(b);
        b.snooped_by_a_reader(Some(EPOCH));
    }),
    ("clients 1 and 2 have written, then another node reads", mi),
    ("the same, then another node writes", |b| {
        mi(b);
        b.snooped_by_a_writer(None);
    }),
    ("client 1 has written and asks for the write-back, client 3 reads", |b| {
        m(b);
        b.asks(Operation::WriteBack);
        b.asks(Operation::Get);
    }),
    ("the lease has ended", |b| drop(b.lapsed())),
    ("client 1 writes, and the lease ends", |b| {
        im(b);
        b.lapsed();
    }),
    ("client 1 has read, client 2 writes, and the lease ends", |b| {
        clean(b, LineState::S);
        b.asks(put("b"));
        b.lapsed();
    }),
    ("clients 1 and 2 have written, and the lease ends", |b| {
        dirty(b);
        b.lapsed();
    }),
    ("client 1 has written, client 2 writes, and the lease ends before the journal is flushed", |b| {
        pending(b);
        b.lapsed();
    }),
];

fn is(b: &mut Bench) {
    b.asks(Operation::Get);
}

fn clean(b: &mut Bench, state: LineState) {
    is(b);
    b.filled(b.request, state, TAG);
}

fn im(b: &mut Bench) {
    b.asks(put("b"));
}

fn m(b: &mut Bench) {
    im(b);
    b.owned(b.write, TAG, true);
}

fn pending(b: &mut Bench) {
    m(b);
    b.asks(put("c"));
}

fn dirty(b: &mut Bench) {
    pending(b);
    b.flushed();
}

fn mi(b: &mut Bench) {
    dirty(b);
    b.snooped_by_a_reader(Some(EPOCH));
}

fn bench(start: &Start) -> Bench {
    let mut bench = Bench::new();
    bench.registered();
    start.1(&mut bench);
    bench
}

/// What came out, in the order in which it is to be done, and the client that waits from now on.
fn actions(out: &AgentOut, waits: Option<u64>) -> Vec<String> {
    let changes = |changes: &[_]| changes.iter().map(show::change).collect::<Vec<_>>();
    let mut actions = changes(&out.retract);
    actions.extend(out.journal.iter().map(|record| format!("journal {}", show::journal(record))));
    actions.extend(changes(&out.publish));
    actions.extend(out.to_home.iter().map(show::to_home));
    actions.extend(out.reply.iter().map(|(caller, result)| format!("c{caller}: {}", show::answer(result))));
    actions.extend(waits.map(|caller| format!("c{caller} waits")));
    actions
}

fn sections() -> Vec<Section> {
    let section = |start: &Start| {
        let row = |(event, act): &(&'static str, fn(&mut Bench) -> AgentOut)| {
            let mut bench = bench(start);
            let before = bench.caller;
            let out = act(&mut bench);
            let answered = out.reply.iter().any(|(caller, _)| *caller == bench.caller);
            let waits = (bench.caller > before && !answered).then_some(bench.caller);
            super::rules::node(start.0, event, &bench, &out);
            Row { event, next: bench.state(), actions: actions(&out, waits) }
        };
        Section { state: bench(start).state(), comes: start.0, rows: EVENTS.iter().map(row).collect() }
    };
    STARTS.iter().map(section).collect()
}

fn table() -> String {
    print(HEAD, &sections(), [46, 28])
}

#[test]
fn the_nodes_side_does_what_its_table_says() {
    let sections = sections();
    let seen: BTreeSet<&str> = sections.iter().map(|it| it.state.split([' ', ',']).next().expect("a name")).collect();
    assert_eq!(seen, state_names(), "states of the table, and of the code");
    compare("node.txt", &table());
}

#[test]
fn the_nodes_side_shows_each_rule_that_is_left_out() {
    let rules = [
        Rule::GrantWithoutLeaseCheck,
        Rule::BusLeaseFromAnswer,
        Rule::LapsedLeaseRenewed,
        Rule::LinesKeptAcrossLeases,
        Rule::InvalidationOnlyAcknowledged,
        Rule::FillInstalledAfterInvalidation,
        Rule::WriteBeforeJournal,
        Rule::DirtyLineEvicted,
    ];
    shows_each_rule(&rules, table);
}
