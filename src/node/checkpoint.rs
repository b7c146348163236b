//! Checkpoints, compaction and snapshots.
//!
//! When enough entries were applied, the records that changed go to the state store with the index they stand at. When
//! they are durable there, the log may forget all but the newest part of what they cover. The bodies of messages that are
//! still waiting are copied into the state store when compaction is about to overtake their entries, and only then.
//!
//! A body there goes with the first checkpoint after its message, and its room with it. So acknowledgements make a checkpoint due as
//! enqueues do: by their bytes, and where there are few, by time ([`Timing::remove_us`](super::Timing)).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::Index;
use crate::marks::{Rare, mark};
use crate::raft::{Entry, Raft, Snapshot};
use crate::record::{self, Change};
use crate::rules::{Rule, Rules};

use super::apply::FetchFor;
use super::effect::{Checkpoint, Fetch, Write};
use super::machine::{Machine, body_key, body_of};
use super::{Replica, Step};

/// What was applied since the last checkpoint.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Index of the last checkpoint handed out.
    index: Index,
    bytes: usize,
    /// The checkpoint that is not durable yet, and up to where the log may be compacted then.
    in_flight: Option<(Index, Index)>,
    /// Bodies of waiting messages up to here are in the state store.
    bodies_through: Index,
    /// A checkpoint before the last start may have copied bodies up to here.
    maybe_stored_through: Index,
    /// Bodies in the state store whose messages are gone.
    dead_bodies: Vec<Index>,
    /// Since when there are some.
    dead_since_us: Option<u64>,
    /// Bytes of all bodies at the last checkpoint.
    body_bytes: u64,
    /// The next one is due at once, and is to have every body: somebody copies the state store.
    whole_wanted: bool,
    /// Bodies that were looked up for a snapshot.
    gathered: Gathered,
}

/// Bodies of a snapshot that is being put together: of the waiting messages in order of their ids, up to `through`.
#[derive(Debug, Default)]
struct Gathered {
    bodies: BTreeMap<Index, Bytes>,
    through: Index,
    /// Where the log began when the first of them were asked for.
    base: Index,
}

/// Bodies that are looked up at once for a snapshot: those that consumers wait for come in between.
const GATHER_MAX: usize = 1024;

impl Checkpoints {
    pub(super) fn new(index: Index, bodies_through: Index) -> Self {
        Self {
            index,
            bytes: 0,
            in_flight: None,
            bodies_through,
            maybe_stored_through: index,
            dead_bodies: Vec::new(),
            dead_since_us: None,
            body_bytes: 0,
            whole_wanted: false,
            gathered: Gathered::default(),
        }
    }

    /// The next checkpoint is due at once, and brings all of the state into the state store.
    pub(super) fn want_whole(&mut self) {
        self.whole_wanted = true;
    }

    pub(super) fn applied(&mut self, entry: &Entry) {
        self.bytes += entry.data.len();
    }

    pub(super) fn acknowledged(&mut self, id: Index) {
        if id <= self.bodies_through.max(self.maybe_stored_through) {
            self.dead_bodies.push(id);
        }
    }
}

impl<R: Rules> Replica<R> {
    /// Hands a checkpoint out where enough was applied.
    pub(super) fn checkpoint_if_due(&mut self, step: &mut Step) {
        let timing = &self.setup.timing;
        let member = &mut self.member;
        let entries = member.machine.applied().index - member.checkpoints.index;
        let whole = member.checkpoints.whole_wanted;
        let body_bytes = member.machine.queue().totals().bytes;
        let removed = member.checkpoints.body_bytes.saturating_sub(body_bytes);
        if !member.checkpoints.dead_bodies.is_empty() {
            member.checkpoints.dead_since_us.get_or_insert(step.now.mono_us);
        }
        let waited = member.checkpoints.dead_since_us.is_some_and(|since| step.now.mono_us >= since + timing.remove_us);
        let bytes = member.checkpoints.bytes.max(usize::try_from(removed).unwrap_or(usize::MAX));
        let due = whole
            || entries >= timing.checkpoint_entries
            || (entries > 0 && (waited || bytes >= timing.checkpoint_bytes));
        if !due || member.checkpoints.in_flight.is_some() {
            return;
        }
        let applied = member.machine.applied().clone();
        let compact_to = compact_to(&member.raft, applied.index, timing.retain_bytes, timing.checkpoint_entries);
        let mut changes = member.machine.take_changes();
        let body = |index: Index| member.raft.entry(index).and_then(body_of).map(|body| body.to_vec());
        let bodies_to = if whole { applied.index } else { compact_to };
        let overtaken = member.machine.queue().live_bodies(member.checkpoints.bodies_through, bodies_to);
        changes.extend(overtaken.into_iter().map(|index| Change { key: body_key(index), value: body(index) }));
        let dead = std::mem::take(&mut member.checkpoints.dead_bodies);
        changes.extend(dead.into_iter().map(|index| Change { key: body_key(index), value: None }));
        let bodies_through = member.checkpoints.bodies_through.max(bodies_to);
        member.checkpoints = Checkpoints {
            index: applied.index,
            bytes: 0,
            in_flight: Some((applied.index, compact_to)),
            bodies_through,
            maybe_stored_through: member.checkpoints.maybe_stored_through,
            dead_bodies: Vec::new(),
            dead_since_us: None,
            body_bytes,
            whole_wanted: false,
            gathered: std::mem::take(&mut member.checkpoints.gathered),
        };
        step.effects.checkpoint.push(Checkpoint { group: self.setup.group, meta: applied, changes, whole });
    }

    /// The checkpoint is durable: the log may forget what it covers.
    pub(super) fn checkpointed(&mut self, step: &mut Step, index: Index) {
        let member = &mut self.member;
        let Some((in_flight, compact_to)) = member.checkpoints.in_flight else { return };
        if in_flight != index {
            return;
        }
        member.checkpoints.in_flight = None;
        if compact_to > member.raft.base().index {
            let meta = member.raft.compact(compact_to);
            let write = Write { compact: Some(meta), ..self.empty_write() };
            self.write(step, write, None);
        }
    }

    /// Begins a snapshot where a follower needs one.
    pub(super) fn provide_snapshot(&mut self, step: &mut Step) {
        let member = &mut self.member;
        if !member.wants_snapshot || member.fetches.values().any(|wanted| matches!(wanted, FetchFor::Snapshot)) {
            return;
        }
        member.checkpoints.gathered = Gathered { base: member.raft.base().index, ..Gathered::default() };
        self.gather(step);
    }

    /// Asks for more bodies that the log has forgotten; where there are no more, the snapshot is complete.
    fn gather(&mut self, step: &mut Step) {
        let member = &mut self.member;
        let (base, gathered) = (member.raft.base().index, &mut member.checkpoints.gathered);
        let ids = member.machine.queue().next_live_bodies(gathered.through, base, GATHER_MAX);
        let Some(last) = ids.last() else { return self.finish_snapshot(step) };
        if *last > gathered.base {
            // Compaction went on while the bodies were looked up: there are more.
            mark(Rare::SnapshotRebuilt);
        }
        gathered.through = *last;
        member.next_ticket += 1;
        let ticket = member.next_ticket;
        member.fetches.insert(ticket, FetchFor::Snapshot);
        let keys = ids.into_iter().map(body_key).collect();
        step.effects.fetch.push(Fetch { group: self.setup.group, ticket, keys });
    }

    /// Takes bodies that were asked for, and goes on.
    pub(super) fn build_snapshot(&mut self, step: &mut Step, fetched: &BTreeMap<Index, Bytes>) {
        let bodies = fetched.iter().map(|(id, body)| (*id, body.clone()));
        self.member.checkpoints.gathered.bodies.extend(bodies);
        self.gather(step);
    }

    /// The whole state, bodies included, as one snapshot.
    fn finish_snapshot(&mut self, step: &mut Step) {
        let member = &mut self.member;
        let gathered = std::mem::take(&mut member.checkpoints.gathered).bodies;
        let mut records: Vec<(Vec<u8>, Bytes)> =
            member.machine.records().into_iter().map(|(key, value)| (key, Bytes::from(value))).collect();
        if R::without(Rule::SessionsLeftOutOfSnapshots) {
            records.retain(|(key, _)| key.first() != Some(&record::prefix::SESSION));
        }
        for index in member.machine.queue().live_bodies(0, member.machine.applied().index) {
            let body = gathered.get(&index).cloned().or_else(|| member.raft.entry(index).and_then(body_of));
            // A message that waits has its body in the log or in the state store. Where it has not, this replica has nothing to give, and
            // says no more of it than one that is still looking.
            let Some(body) = body else { return };
            records.push((body_key(index), body));
        }
        drop(gathered);
        records.sort();
        member.wants_snapshot = false;
        let data = record::encode_records(records.iter().map(|(key, value)| (key.as_slice(), value.as_ref())));
        let meta = member.machine.applied().clone();
        member.raft.provide_snapshot(step.now, Snapshot { meta, data });
    }

    /// The leader sent its state: this one's is replaced.
    pub(super) fn restore(&mut self, snapshot: &Snapshot) {
        let generation = self.setup.generation;
        let member = &mut self.member;
        let restored = record::decode_records(&snapshot.data).and_then(|records| {
            let records = records.iter().map(|(key, value)| (key.as_slice(), value.as_ref()));
            Machine::restore(generation, snapshot.meta.clone(), records)
        });
        match restored {
            Ok(machine) => {
                member.machine = machine;
                member.checkpoints = Checkpoints::new(snapshot.meta.index, snapshot.meta.index);
                member.caught_up = false;
                member.fetches.clear();
                member.waiting.clear();
                member.polls.clear();
            }
            Err(error) => self.fatal = Some(format!("the snapshot from the leader cannot be read: {error}")),
        }
    }
}

/// Up to where the log may be compacted: applied, and all but the newest part.
fn compact_to<R: Rules>(raft: &Raft<R>, applied: Index, retain_bytes: usize, retain_entries: u64) -> Index {
    let mut bytes = 0;
    let mut index = applied;
    while index > raft.base().index && applied - index < retain_entries {
        bytes += raft.entry(index).map_or(0, |entry| entry.data.len());
        if bytes > retain_bytes {
            break;
        }
        index -= 1;
    }
    index
}
