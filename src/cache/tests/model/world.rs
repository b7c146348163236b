//! One state of the model: nodes, homes, the log, and what is on its way between them.
//!
//! Agents and homes are those of the server; around each node stand its table of lines, a journal that forgets what was not flushed, and
//! its session. Between them is a network that is a set of messages: it delivers in any order, or never, and with a budget for
//! it more than once. What a node and a home beside it say to each other does not travel, as in the server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use trine_protocol::cache::Version;

use super::digest;
use super::log::{Entry, Machine};
use crate::cache::{Agent, BusMessage, Config, Home, JournalRecord, Lines, Versioned};
use crate::ids::{GroupId, Incarnation, Index, NodeId, Term};
use crate::rules::Rules;
use crate::sequence::Sequences;

/// All instants are whole multiples of a retry, but for rounds that follow each other at once.
pub(super) const RETRY_US: u64 = 10;
pub(super) const LEASE_US: u64 = 40;
/// How long a home knows that it is one after it heard a majority.
pub(super) const LEADER_US: u64 = 10;
const BEGIN_US: u64 = 1_000;

pub(super) const KEYS: [&str; 2] = ["a", "b"];

/// How often something may still happen. Each is a small number: their product is what makes the space large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) reads: u8,
    pub(super) writes: u8,
    pub(super) deletes: u8,
    /// Clients that ask for a line to be written back.
    pub(super) write_backs: u8,
    /// Clients that wait no longer.
    pub(super) expires: u8,
    /// Messages that arrive and stay on their way.
    pub(super) repeats: u8,
    /// Moves of the clock.
    pub(super) advances: u8,
    /// Elections of another home.
    pub(super) failovers: u8,
    /// Crashes, each followed by a restart.
    pub(super) crashes: u8,
    /// Crashes that leave nothing of the disk.
    pub(super) wipes: u8,
    /// Entries that do not get into the log.
    pub(super) refusals: u8,
    /// Nodes that are told to go.
    pub(super) drains: u8,
}

/// What holds for all states of a start.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) nodes: usize,
    pub(super) keys: usize,
    /// Nodes whose clients read, and write, and ask to write back.
    pub(super) readers: &'static [usize],
    pub(super) writers: &'static [usize],
    /// Nodes that may become the home.
    pub(super) electable: &'static [usize],
    /// Nodes that may crash, lose their disk, or go.
    pub(super) crashers: &'static [usize],
    /// Nodes that are cut off as long as the search runs.
    pub(super) absent: &'static [usize],
    /// Nodes that do not look at the clock nor hear of a new home: they only answer.
    pub(super) still: &'static [usize],
    /// Nodes that renew their leases; those of others run out.
    pub(super) renews: &'static [usize],
    /// Whether a new home may have the last entry in its log and not in its memory.
    pub(super) lags: bool,
    /// Whether two lines are more than a node has room for.
    pub(super) cramped: bool,
}

impl Limits {
    pub(super) const NONE: Self = Self {
        nodes: 3,
        keys: 1,
        readers: &[],
        writers: &[],
        electable: &[],
        crashers: &[],
        absent: &[],
        still: &[],
        renews: &[],
        lags: false,
        cramped: false,
    };

    /// Whether that node does nothing of its own accord.
    pub(super) fn is_idle(&self, at: usize) -> bool {
        self.absent.contains(&at) || self.still.contains(&at)
    }

    fn config(&self, number: usize) -> Config {
        let never_us = 1_000_000;
        Config {
            lease_us: LEASE_US,
            renew_us: if self.renews.contains(&number) { RETRY_US } else { never_us },
            drift_ppm: 0,
            // A dirty line is written back when it is asked for.
            dirty_us_max: never_us,
            retry_us: RETRY_US,
            audit_us: never_us,
            lines_bytes_max: if self.cramped { 3 } else { 1_000 },
            ..Config::default()
        }
    }
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node<R: Rules> {
    pub(super) agent: Agent<R>,
    pub(super) sequences: Sequences,
    pub(super) lines: Lines,
    /// The end of its lease, as its readers know it.
    pub(super) lease_us: u64,
    /// What its disk would give back: of each key the last record, unless that is over.
    pub(super) journal: Vec<JournalRecord>,
    /// Records that are not flushed.
    pub(super) writes: VecDeque<JournalRecord>,
    pub(super) incarnation: Incarnation,
    /// How often it was started.
    pub(super) life: u64,
    /// The newest home that it has heard of.
    pub(super) heard: Term,
    /// It was told to go.
    pub(super) drains: bool,
    /// Of all of the above.
    pub(super) digest: u64,
}

/// Where a home is, or was.
#[derive(Clone, Debug)]
pub(super) struct Place<R: Rules> {
    pub(super) node: usize,
    pub(super) term: Term,
    /// None where its node knows that it leads no more.
    pub(super) home: Option<Home<R>>,
    pub(super) machine: Arc<Machine>,
    pub(super) leader_until_us: u64,
    /// The index of its no-op, once that is applied.
    pub(super) settled: Option<Index>,
    /// Entries that it has not applied.
    pub(super) log: VecDeque<Entry>,
    /// Its machine before the last entry, and that entry, where a successor may lack it.
    pub(super) before: Option<(Arc<Machine>, Entry)>,
    /// When the leases that it gave run out.
    pub(super) ends_us: BTreeMap<NodeId, u64>,
    /// Of all of the above.
    pub(super) digest: u64,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) message: BusMessage,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Want {
    Read,
    /// None deletes.
    Write(Option<Bytes>),
    WriteBack,
}

/// What a client waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waits {
    pub(super) node: usize,
    pub(super) key: usize,
    pub(super) want: Want,
    /// The newest version that anybody had seen when it asked.
    pub(super) floor: Version,
}

/// What only someone who sees everything remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// The newest version of each key that anybody has seen, and its value.
    pub(super) newest: BTreeMap<usize, Versioned>,
    /// Values of writes whose clients were told that they are not done.
    pub(super) refused: BTreeSet<Bytes>,
    /// Operations that were answered without an error.
    pub(super) done: u8,
    /// Properties that do not hold, and why.
    pub(super) broken: BTreeMap<&'static str, String>,
}

/// A state.
#[derive(Clone, Debug)]
pub(super) struct World<R: Rules> {
    pub(super) now_us: u64,
    pub(super) nodes: Vec<Arc<Node<R>>>,
    /// The present home is the last one.
    pub(super) places: Vec<Arc<Place<R>>>,
    /// On their way, ordered by digest.
    pub(super) flights: BTreeMap<u64, Arc<Flight>>,
    pub(super) waits: BTreeMap<u64, Waits>,
    pub(super) next_caller: u64,
    pub(super) seen: Arc<Seen>,
    pub(super) budget: Budget,
}

impl<R: Rules> PartialEq for World<R> {
    fn eq(&self, other: &Self) -> bool {
        digest(self) == digest(other)
    }
}

impl<R: Rules> Hash for World<R> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { now_us, nodes, places, flights, waits, next_caller, seen, budget } = self;
        for digest in nodes.iter().map(|node| node.digest).chain(places.iter().map(|place| place.digest)) {
            hasher.write_u64(digest);
        }
        for flight in flights.keys() {
            hasher.write_u64(*flight);
        }
        (flights.len(), now_us, waits, next_caller, seen, budget).hash(hasher);
    }
}

impl<R: Rules> Node<R> {
    /// Starts with what the disk has, and hears of nobody yet.
    fn start(number: usize, life: u64, incarnation: Incarnation, config: Config, journal: Vec<JournalRecord>) -> Self {
        let mut sequences = Sequences::default();
        sequences.opened(life * 10 + number as u64);
        let agent = Agent::new(GroupId(0), NodeId::numbered(number), incarnation, config, &journal);
        let (lines, writes) = (Lines::default(), VecDeque::new());
        Self {
            agent,
            sequences,
            lines,
            lease_us: 0,
            journal,
            writes,
            incarnation,
            life,
            heard: 0,
            drains: false,
            digest: 0,
        }
    }

    /// What is flushed is on the disk. Of one key the last record counts, until it is over.
    pub(super) fn write(&mut self, record: JournalRecord) {
        let key = match &record {
            JournalRecord::Written { key, .. } | JournalRecord::Ended { key, .. } => key.clone(),
        };
        let of_key = |other: &JournalRecord| matches!(other, JournalRecord::Written { key: it, .. } if *it == key);
        match record {
            JournalRecord::Written { .. } => {
                self.journal.retain(|other| !of_key(other));
                self.journal.push(record);
            }
            JournalRecord::Ended { version, .. } => {
                let is_over = |other: &JournalRecord| matches!(other, JournalRecord::Written { dirty, .. } if dirty.version <= version);
                self.journal.retain(|other| !of_key(other) || !is_over(other));
            }
        }
    }

    /// The record of a key on the disk.
    pub(super) fn journaled(&self, key: &str) -> Option<&Versioned> {
        self.journal.iter().find_map(|record| match record {
            JournalRecord::Written { key: it, dirty } if it == key => Some(dirty),
            _ => None,
        })
    }

    pub(super) fn refresh(&mut self) {
        let Self { agent, sequences, lines, lease_us, journal, writes, incarnation, life, heard, drains: _, digest: _ } =
            self;
        let lines: Vec<_> = lines.iter().collect();
        self.digest = digest((agent, sequences, lines, lease_us, journal, writes, incarnation, life, heard));
    }
}

impl<R: Rules> Place<R> {
    pub(super) fn new(node: usize, term: Term, now_us: u64, machine: Arc<Machine>, limits: &Limits) -> Self {
        let home = Some(Home::new(NodeId::numbered(node), term, limits.config(node), now_us));
        Self {
            node,
            term,
            home,
            machine,
            leader_until_us: now_us + LEADER_US,
            settled: None,
            log: VecDeque::from([Entry { term, proposal: None }]),
            before: None,
            ends_us: BTreeMap::new(),
            digest: 0,
        }
    }

    pub(super) fn refresh(&mut self) {
        let Self { node, term, home, machine, leader_until_us, settled, log, before, ends_us: _, digest: _ } = self;
        let before = before.as_ref().map(|(machine, entry)| (machine.digest, entry));
        self.digest = digest((node, term, home, machine.digest, leader_until_us, settled, log, before));
    }
}

impl<R: Rules> World<R> {
    /// Nodes that have just started with empty disks, and a home on the first of them.
    pub(super) fn new(limits: &Limits) -> Self {
        let node = |number| {
            let incarnation = Incarnation(number as u64);
            let mut node = Node::start(number, 0, incarnation, limits.config(number), Vec::new());
            node.refresh();
            Arc::new(node)
        };
        let place = Place::new(1, 1, BEGIN_US, Arc::default(), limits);
        let mut world = Self {
            now_us: BEGIN_US,
            nodes: (1..=limits.nodes).map(node).collect(),
            places: vec![Arc::new(place)],
            flights: BTreeMap::new(),
            waits: BTreeMap::new(),
            next_caller: 0,
            seen: Arc::default(),
            budget: Budget::default(),
        };
        for at in 1..=limits.nodes {
            world.hear(at);
        }
        world
    }

    /// The present home.
    pub(super) fn present(&self) -> &Place<R> {
        self.places.last().expect("there is always one")
    }

    /// The log as it is committed: none of the machines has come further.
    pub(super) fn truth(&self) -> &Machine {
        let furthest = self.places.iter().map(|place| &place.machine).max_by_key(|machine| machine.index);
        furthest.expect("there is always one")
    }

    /// The value of the next write. They are told apart by their callers.
    pub(super) fn value(&self) -> Bytes {
        Bytes::from(self.next_caller.to_string())
    }

    /// A node's process dies and starts again; `flushed` where what it had journaled had reached the disk.
    pub(super) fn crash(&mut self, limits: &Limits, at: usize, flushed: bool) {
        let node = Arc::make_mut(&mut self.nodes[at - 1]);
        while let Some(record) = node.writes.pop_front().filter(|_| flushed) {
            node.write(record);
        }
        let journal = std::mem::take(&mut node.journal);
        let (life, incarnation) = (node.life + 1, node.incarnation);
        self.start(limits, at, life, incarnation, journal);
    }

    /// A node loses its disk, and starts as another one of the same name.
    pub(super) fn wipe(&mut self, limits: &Limits, at: usize) {
        let node = &self.nodes[at - 1];
        let (life, incarnation) = (node.life + 1, Incarnation(node.incarnation.0 + 10));
        self.start(limits, at, life, incarnation, Vec::new());
    }

    fn start(&mut self, limits: &Limits, at: usize, life: u64, incarnation: Incarnation, journal: Vec<JournalRecord>) {
        assert_ne!(self.present().node, at, "the home's node goes with an election");
        self.nodes[at - 1] = Arc::new(Node::start(at, life, incarnation, limits.config(at), journal));
        self.waits.retain(|_, waits| waits.node != at);
        self.hear(at);
    }
}
