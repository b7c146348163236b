//! Random work on two kinds of storage at once: what a restart finds must be the same on both.
//!
//! The simulated disk keeps all in maps, the real one spreads it over segments, carries it around, stages and flips it, and the one that is
//! true to the byte loses and tears what the log handed over. So every difference is a bug in one of them. Work that no sync has covered
//! may survive in part, but only a prefix of it.

use std::collections::BTreeMap;

use super::suite::{BytesDisk, Disk, RealDisk};
use super::testing::*;
use super::*;
use crate::cache::JournalRecord;
use crate::node::effect::Write;
use crate::node::machine::body_key;
use crate::raft::{Entry, HardState, Persist};
use crate::record::Change;

/// Messages that may have a body.
const BODIES: u64 = 150;

/// Where a group stands, as far as the next step must fit it.
#[derive(Clone, Debug, Default)]
struct Model {
    term: u64,
    last: u64,
    base: u64,
    terms: BTreeMap<u64, u64>,
    applied: u64,
    journal: u64,
}

impl Model {
    fn term_at(&self, index: u64) -> u64 {
        self.terms.get(&index).copied().unwrap_or(0)
    }

    fn append(&mut self, random: &mut Random, from: u64) -> Vec<Entry> {
        if random.below(4) == 0 {
            self.term += 1;
        }
        self.terms.split_off(&from);
        let through = from + random.below(5);
        self.last = through;
        self.terms.extend((from..=through).map(|index| (index, self.term)));
        (from..=through).map(|index| entry(index, self.term)).collect()
    }

    fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: None }
    }
}

struct Both {
    real: Box<dyn Disk>,
    simulated: SimDisk,
    random: Random,
    groups: BTreeMap<GroupId, Model>,
}

impl Both {
    fn new(seed: u64, real: Box<dyn Disk>) -> Self {
        let groups = (0..3).map(|number| (GroupId(number), Model::default())).collect();
        Self { real, simulated: SimDisk::new(), random: Random(seed), groups }
    }

    fn append(&mut self, write: &Write) {
        self.real.log().append(write).unwrap();
        self.simulated.append(write).unwrap();
    }

    fn sync(&mut self) {
        self.real.log().sync().unwrap();
        self.real.log().idle(0).unwrap();
        self.simulated.sync().unwrap();
    }

    fn step(&mut self) {
        let group = GroupId(u32::try_from(self.random.below(3)).unwrap());
        let mut model = self.groups[&group].clone();
        match self.random.below(20) {
            0..=7 => {
                let entries = model.append(&mut self.random, model.last + 1);
                let raft = Persist { hard_state: Some(model.hard_state()), entries, ..Persist::default() };
                self.append(&super::testing::raft(group, raft));
            }
            8..=9 => {
                let from = model.applied + 1 + self.random.below(model.last - model.applied + 1);
                model.term += 1;
                let entries = model.append(&mut self.random, from);
                let hard_state = Some(model.hard_state());
                let raft = Persist { hard_state, truncate_from: Some(from), entries, ..Persist::default() };
                self.append(&super::testing::raft(group, raft));
            }
            10..=13 => {
                let records = (0..=self.random.below(3)).map(|_| self.journal_record(&mut model)).collect();
                self.append(&journal(group, records));
            }
            14..=16 => {
                self.sync();
                self.checkpoint(group, &mut model);
                if self.random.below(2) == 0 {
                    model.base = model.applied;
                    self.append(&compaction(group, model.applied, model.term_at(model.applied)));
                }
            }
            17 => self.install(group, &mut model),
            _ => return self.sync(),
        }
        self.groups.insert(group, model);
    }

    fn journal_record(&mut self, model: &mut Model) -> JournalRecord {
        let key = format!("key{}", self.random.below(6));
        model.journal += 1;
        match self.random.below(3) {
            0 => ended(&key, 1, self.random.below(model.journal + 1)),
            _ => written(&key, 1, model.journal),
        }
    }

    /// What is applied is durable in the log, and goes forward.
    fn checkpoint(&mut self, group: GroupId, model: &mut Model) {
        model.applied += self.random.below(model.last - model.applied + 1);
        let count = if self.random.below(20) == 0 { 1500 } else { self.random.below(8) };
        let keys: Vec<_> = (0..count).map(|_| format!("q{}", self.random.below(2000))).collect();
        let value = "v".repeat(usize::try_from(self.random.below(300)).unwrap());
        let changes: Vec<_> =
            keys.iter().map(|key| (key.as_str(), (self.random.below(3) > 0).then_some(value.as_str()))).collect();
        let mut checkpoint = checkpoint(group, model.applied, model.term_at(model.applied), &changes);
        for _ in 0..self.random.below(8) {
            let id = 1 + self.random.below(BODIES);
            let body =
                format!("{group} {id} {}", model.applied).repeat(usize::try_from(self.random.below(40)).unwrap());
            let value = (self.random.below(3) > 0).then(|| body.into_bytes());
            checkpoint.changes.push(Change { key: body_key(id), value });
        }
        self.real.state().checkpoint(&checkpoint).unwrap();
        self.real.state().sync().unwrap();
        self.real.state().tend().unwrap();
        self.simulated.checkpoint(&checkpoint).unwrap();
        self.simulated.sync_state().unwrap();
    }

    fn install(&mut self, group: GroupId, model: &mut Model) {
        let index = model.applied + 1 + self.random.below(10);
        let agrees = index <= model.last && self.random.below(2) == 0;
        if !agrees {
            model.term += 1;
            (model.last, model.terms) = (index, BTreeMap::from([(index, model.term)]));
        }
        (model.base, model.applied) = (index, index);
        let value = format!("snapshot {index}");
        let snapshot =
            snapshot(index, model.term_at(index), &[("b\0\0\0\0\0\0\0\u{7}", "body"), ("q1", &value), ("q3", "x")]);
        self.real.state().install(group, &snapshot).unwrap();
        self.simulated.install(group, &snapshot).unwrap();
        let mut write = restored(group, &snapshot);
        write.raft.as_mut().unwrap().hard_state = Some(model.hard_state());
        self.append(&write);
        // What the state store holds now stands, with this write or without it.
        self.sync();
    }

    fn found(disk: &mut dyn Disk) -> Vec<Recovered> {
        let found = (0..3).map(|number| disk.recovered(GroupId(number)));
        found.map(without_order).collect()
    }

    /// Every body is the same on both.
    fn compare_bodies(&mut self) {
        for (group, id) in (0..3).flat_map(|group| (1..=BODIES).map(move |id| (GroupId(group), id))) {
            let key = body_key(id);
            let found = self.real.state().read(group, &key).unwrap();
            assert_eq!(found, self.simulated.read(group, &key).unwrap(), "message {id} of {group}");
        }
    }

    /// Restarts with nothing unsynced, and compares.
    fn restart(&mut self) {
        self.sync();
        self.real.restart();
        self.simulated.crash(0);
        assert_eq!(Self::found(&mut *self.real), Self::found(&mut self.simulated));
        self.compare_bodies();
    }

    /// Restarts with work that no sync has covered: some prefix of it survives.
    fn crash(&mut self) {
        let random = &mut self.random;
        self.real.crash(&mut |bound| random.below(bound));
        let found = Self::found(&mut *self.real);
        let pending = self.simulated.pending_writes();
        let survived = (0..=pending).find(|keep| {
            let mut simulated = self.simulated.clone();
            simulated.crash(*keep);
            Self::found(&mut simulated) == found
        });
        let keep = survived.unwrap_or_else(|| panic!("no prefix of {pending} writes explains {found:#?}"));
        self.simulated.crash(keep);
        self.compare_bodies();
        for (group, recovered) in (0..).map(GroupId).zip(found) {
            let entries = recovered.entries.iter().map(|entry| (entry.index, entry.term));
            let terms: BTreeMap<_, _> = entries.chain([(recovered.base.index, recovered.base.term)]).collect();
            let last = *terms.last_key_value().unwrap().0;
            let (base, applied, term) = (recovered.base.index, recovered.applied.index, recovered.hard_state.term);
            let journal = self.groups[&group].journal;
            self.groups.insert(group, Model { term, last, base, terms, applied, journal });
        }
    }
}

/// Carrying changes the order of the journal's keys, and nothing rests on it.
fn without_order(mut recovered: Recovered) -> Recovered {
    recovered.journal.sort_by_key(|record| match record {
        JournalRecord::Written { key, .. } | JournalRecord::Ended { key, .. } => key.clone(),
    });
    recovered
}

/// Runs `seeds` seeds, or as many as TRINE_STORAGE_SEEDS asks for.
fn random_work(seeds: u64, real: impl Fn() -> Box<dyn Disk>) {
    let mut segments_most = 0;
    let seeds = std::env::var("TRINE_STORAGE_SEEDS").map_or(seeds, |seeds| seeds.parse().expect("a number"));
    for seed in 0..seeds {
        let mut both = Both::new(seed, real());
        for _ in 0..8 {
            for _ in 0..both.random.below(120) {
                both.step();
                segments_most = segments_most.max(both.real.segments());
            }
            if both.random.below(2) == 0 { both.restart() } else { both.crash() }
        }
        both.restart();
    }
    assert!(segments_most > 5, "the work was too small to rotate: {segments_most} segments");
}

#[test]
fn random_work_leaves_the_same_on_the_real_disk() {
    random_work(4, || Box::new(RealDisk::with_segments_of(1024)));
}

#[test]
fn random_work_leaves_the_same_on_the_disk_that_is_true_to_the_byte() {
    random_work(40, || Box::new(BytesDisk::with_segments_of(1024)));
}
