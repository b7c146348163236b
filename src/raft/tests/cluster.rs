//! A cluster in a test: nodes with disks that forget what was not synced, and a network that does what it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::safety::Safety;
use super::trace;
use crate::ids::{Index, NodeId, Now};
use crate::raft::{
    Config, Entry, HardState, Message, Persist, Raft, ReadError, Ready, Restart, Role, Snapshot, SnapshotMeta,
};
use crate::rules::Rules;

/// What a node keeps when it crashes.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) base: SnapshotMeta,
    pub(super) entries: Vec<Entry>,
    /// The state machine's state: one line of text per command.
    pub(super) checkpoint: Snapshot,
}

impl Disk {
    fn last_index(&self) -> Index {
        self.base.index + self.entries.len() as u64
    }

    pub(super) fn write(&mut self, persist: &Persist) {
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = persist.truncate_from {
            assert!(from > self.base.index && from <= self.last_index(), "cut at {from} of {}", self.last_index());
            self.entries.truncate((from - self.base.index - 1) as usize);
        }
        for entry in &persist.entries {
            assert_eq!(entry.index, self.last_index() + 1, "storage was given a gap");
            self.entries.push(entry.clone());
        }
        if let Some(snapshot) = &persist.snapshot {
            assert!(persist.entries.is_empty(), "entries beside a snapshot");
            self.base = snapshot.meta.clone();
            self.entries.clear();
            self.checkpoint = snapshot.clone();
        }
    }

    fn compact(&mut self, base: SnapshotMeta, checkpoint: Snapshot) {
        self.entries.retain(|entry| entry.index > base.index);
        self.base = base;
        self.checkpoint = checkpoint;
    }
}

/// One node.
pub(super) struct Member<R: Rules> {
    pub(super) config: Config,
    /// None while it is down.
    pub(super) raft: Option<Raft<R>>,
    pub(super) disk: Disk,
    /// Handed out, not durable.
    pub(super) writes: VecDeque<Persist>,
    /// The state machine.
    pub(super) state: Snapshot,
    /// Its clock against the true one, in parts per million.
    pub(super) drift_ppm: i64,
    /// Its wall clock against the true one, in milliseconds.
    pub(super) wall_ahead_ms: i64,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flight {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
}

pub(super) struct Cluster<R: Rules> {
    pub(super) members: BTreeMap<NodeId, Member<R>>,
    pub(super) flights: Vec<Flight>,
    /// Links that lose everything, by direction.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// True time.
    pub(super) now_us: u64,
    /// Whether a write is durable as soon as it is handed out.
    pub(super) disks_are_instant: bool,
    /// Whether a snapshot that is wanted comes at once.
    pub(super) snapshots_are_instant: bool,
    pub(super) safety: Safety,
    /// What happened, where anyone reads it.
    pub(super) trace: Option<Vec<String>>,
}

impl<R: Rules> Cluster<R> {
    /// Nodes 1 to `count`, down, with empty disks. `configure` changes each one's settings.
    pub(super) fn new(count: usize, seed: u64, configure: impl Fn(&mut Config)) -> Self {
        let voters: Vec<NodeId> = (1..=count).map(NodeId::numbered).collect();
        let member = |id: &NodeId| {
            let mut config = Config::new(*id, voters.clone(), seed);
            configure(&mut config);
            let (disk, state) = (Disk::default(), Snapshot::default());
            (*id, Member { config, raft: None, disk, writes: VecDeque::new(), state, drift_ppm: 0, wall_ahead_ms: 0 })
        };
        Self {
            members: voters.iter().map(member).collect(),
            flights: Vec::new(),
            cut: BTreeSet::new(),
            now_us: 0,
            disks_are_instant: true,
            snapshots_are_instant: true,
            safety: Safety::default(),
            trace: None,
        }
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub(super) fn raft(&self, id: NodeId) -> Option<&Raft<R>> {
        self.members[&id].raft.as_ref()
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// What the clock of a node shows.
    pub(super) fn clock(&self, id: NodeId) -> Now {
        let member = &self.members[&id];
        let drift = i128::from(self.now_us) * i128::from(member.drift_ppm) / 1_000_000;
        let mono_us = (i128::from(self.now_us) + drift) as u64;
        Now { mono_us, wall_ms: (self.now_us / 1000).saturating_add_signed(member.wall_ahead_ms) }
    }

    /// Starts a node from its disk.
    pub(super) fn start(&mut self, id: NodeId) {
        let now = self.clock(id);
        let member = self.members.get_mut(&id).expect("a node of the cluster");
        assert!(member.raft.is_none(), "{id} is up");
        let Disk { hard_state, base, entries, checkpoint } = member.disk.clone();
        member.state = checkpoint;
        let restart = Restart { hard_state, base, entries, applied: member.state.meta.index };
        member.raft = Some(Raft::new(member.config.clone(), restart, now));
        self.note(|| format!("n{} starts", trace::number(id)));
        self.input(id, |_, _| ());
    }

    /// Stops a node. The first `synced` of its writes in flight reached the disk, the others never did.
    pub(super) fn crash(&mut self, id: NodeId, synced: usize) {
        let member = self.members.get_mut(&id).expect("a node of the cluster");
        member.raft = None;
        for (count, persist) in std::mem::take(&mut member.writes).into_iter().enumerate() {
            if count < synced {
                member.disk.write(&persist);
            }
        }
        self.note(|| format!("n{} crashes", trace::number(id)));
    }

    /// Gives a node an input and does what follows. A node that is down hears nothing.
    pub(super) fn input<T>(&mut self, id: NodeId, act: impl FnOnce(&mut Raft<R>, Now) -> T) -> Option<T> {
        let now = self.clock(id);
        let raft = self.members.get_mut(&id).expect("a node of the cluster").raft.as_mut()?;
        let before = trace::State::of(raft);
        let result = act(raft, now);
        raft.check_invariants();
        let ready = raft.ready(now);
        raft.check_invariants();
        let after = trace::State::of(raft);
        for line in trace::changes(id, &before, &after) {
            self.note(|| line);
        }
        self.perform(id, now, ready);
        Some(result)
    }

    fn perform(&mut self, id: NodeId, now: Now, ready: Ready) {
        let Ready { persist, messages, restore, committed, reads, snapshot_wanted } = ready;
        let term = self.raft(id).expect("it is up").term();
        let name = format!("n{}@{term}", trace::number(id));
        if let Some(persist) = persist {
            self.note(|| format!("{name} writes {}", trace::persist(&persist)));
            self.members.get_mut(&id).expect("it is up").writes.push_back(persist);
        }
        for (to, message) in messages {
            let lost = self.cut.contains(&(id, to));
            let arrow = if lost { "⇥" } else { "→" };
            self.note(|| format!("{name} {arrow} n{} {}", trace::number(to), trace::message(&message, term)));
            if !lost {
                self.flights.push(Flight { from: id, to, message });
            }
        }
        if let Some(snapshot) = restore {
            self.note(|| format!("{name} restores {}", trace::meta(&snapshot.meta)));
            self.safety.restored(id, &snapshot);
            self.members.get_mut(&id).expect("it is up").state = snapshot;
        }
        for entry in committed {
            self.note(|| format!("{name} applies {}", trace::entry(&entry)));
            self.apply(id, &entry);
        }
        for ticket in reads {
            let index = self.members[&id].state.meta.index;
            self.note(|| format!("{name} answers read {ticket} at {index}"));
            self.safety.read(ticket, index);
        }
        self.check(id, now);
        if snapshot_wanted {
            self.note(|| format!("{name} wants a snapshot"));
            if self.snapshots_are_instant {
                self.provide(id);
            }
        }
        if self.disks_are_instant {
            self.sync(id, usize::MAX);
        }
    }

    fn apply(&mut self, id: NodeId, entry: &Entry) {
        self.safety.applied(id, entry);
        let state = &mut self.members.get_mut(&id).expect("it is up").state;
        assert_eq!(entry.index, state.meta.index + 1, "{id} skips an entry");
        let Entry { index, term, stamp_ms, wall_ms, .. } = *entry;
        let membership = entry.membership.clone().or_else(|| state.meta.membership.take());
        state.meta = SnapshotMeta { index, term, stamp_ms, wall_ms, membership };
        let mut data = state.data.to_vec();
        data.extend_from_slice(&entry.data);
        data.push(b'\n');
        state.data = Bytes::from(data);
    }

    fn check(&mut self, id: NodeId, now: Now) {
        let up = self.members.iter().filter_map(|(id, member)| Some((member.raft.as_ref()?, self.clock(*id))));
        let up: Vec<(&Raft<R>, Now)> = up.collect();
        let raft = self.members[&id].raft.as_ref().expect("it is up");
        self.safety.check(raft, now, &up, self.now_us);
    }

    /// The first `count` writes in flight are durable, and the node is told.
    pub(super) fn sync(&mut self, id: NodeId, count: usize) {
        for _ in 0..count {
            let member = self.members.get_mut(&id).expect("a node of the cluster");
            let Some(persist) = member.writes.pop_front() else { return };
            member.disk.write(&persist);
            if !self.disks_are_instant {
                self.note(|| format!("n{} write w{} is durable", trace::number(id), persist.sequence));
            }
            self.input(id, |raft, now| raft.persisted(now, persist.sequence));
        }
    }

    /// The same, and the node is told of the last one alone, which speaks for those before it.
    pub(super) fn sync_together(&mut self, id: NodeId, count: usize) {
        let member = self.members.get_mut(&id).expect("a node of the cluster");
        let count = count.min(member.writes.len());
        let done: Vec<Persist> = member.writes.drain(..count).collect();
        for persist in &done {
            member.disk.write(persist);
        }
        if let Some(Persist { sequence, .. }) = done.last() {
            self.note(|| format!("n{} writes up to w{sequence} are durable", trace::number(id)));
            self.input(id, |raft, now| raft.persisted(now, *sequence));
        }
    }

    /// Gives a node's state to its consensus, as the replica would.
    pub(super) fn provide(&mut self, id: NodeId) {
        let snapshot = self.members[&id].state.clone();
        self.input(id, |raft, now| raft.provide_snapshot(now, snapshot));
    }

    /// Asks for a read; `Err` where it is refused.
    pub(super) fn read(&mut self, id: NodeId, ticket: u64) -> Option<Result<(), ReadError>> {
        if self.raft(id)?.role() == Role::Leader {
            self.safety.reading(ticket);
        }
        self.input(id, |raft, now| raft.read(now, ticket))
    }

    /// Forgets entries up to `index`, on disk too.
    pub(super) fn compact(&mut self, id: NodeId, index: Index) -> Option<SnapshotMeta> {
        // The disk must not forget entries that writes in flight still build on: the log's writer does these things in order.
        self.sync(id, usize::MAX);
        let base = self.input(id, |raft, _| raft.compact(index))?;
        let member = self.members.get_mut(&id).expect("a node of the cluster");
        member.disk.compact(base.clone(), member.state.clone());
        Some(base)
    }

    /// A message arrives.
    pub(super) fn arrive(&mut self, flight: Flight) {
        let Flight { from, to, message } = flight;
        self.input(to, |raft, now| raft.step(now, from, message));
    }

    /// Everything that is on its way now arrives, in order. Returns how many.
    pub(super) fn deliver(&mut self, wanted: impl Fn(&Flight) -> bool) -> usize {
        let (now, later) = std::mem::take(&mut self.flights).into_iter().partition(|flight| wanted(flight));
        self.flights = later;
        let now: Vec<Flight> = now;
        let count = now.len();
        for flight in now {
            self.arrive(flight);
        }
        count
    }

    /// The same, but all that arrives at one node arrives there between two `ready()`.
    pub(super) fn deliver_together(&mut self, wanted: impl Fn(&Flight) -> bool) {
        let (now, later) = std::mem::take(&mut self.flights).into_iter().partition(|flight| wanted(flight));
        self.flights = later;
        let now: Vec<Flight> = now;
        for id in self.ids() {
            let arriving: Vec<Flight> = now.iter().filter(|flight| flight.to == id).cloned().collect();
            if arriving.is_empty() {
                continue;
            }
            self.input(id, |raft, now| {
                for Flight { from, message, .. } in arriving {
                    raft.step(now, from, message);
                }
            });
        }
    }

    /// Delivers and syncs until nothing is left to do.
    pub(super) fn settle(&mut self) {
        loop {
            self.stabilize();
            for id in self.ids() {
                self.sync(id, usize::MAX);
            }
            if self.flights.is_empty() {
                return;
            }
        }
    }

    /// Delivers until nothing is on its way.
    pub(super) fn stabilize(&mut self) {
        for _ in 0..1_000 {
            if self.deliver(|_| true) == 0 {
                return;
            }
        }
        panic!("a thousand rounds of messages and still no rest");
    }
}
