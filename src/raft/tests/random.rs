//! Random runs: loss, repetition, reordering, one-way links, crashes that lose what was not synced, clocks that drift, compaction,
//! handing over, changes of who takes part, and reads. [`Safety`](super::safety::Safety) watches every step; afterwards the faults stop, and the
//! group must come to rest with one leader and equal logs.
//!
//! The last tests switch known bugs on and demand that these runs find them: a run that cannot find the bug it
//! was made for proves nothing.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::cluster::{Cluster, Flight};
use crate::ids::{NodeId, ReplicaId};
use crate::raft::Role;
use crate::raft::random::Random;
use crate::rules::{Faithful, OneLeftOut, Rule, Rules};

const STEPS: u64 = 3_000;
/// Messages on their way at once; more are lost, as a full buffer would lose them.
const FLIGHTS_MAX: usize = 300;
/// Longer than any lease and any election timeout.
const DELAY_US_MAX: u64 = 3_000_000;

/// Which faults a run has, drawn from its seed: a run with every fault at once reaches less than many with a few each.
struct Faults {
    lose_percent: u64,
    repeat_percent: u64,
    reorder_percent: u64,
    /// Messages that come up to [`DELAY_US_MAX`] late, when everyone has gone on.
    delay_percent: u64,
    /// How soon a node that crashed starts again: the reciprocal of its chance at each step.
    down_steps: u64,
    crash_per_mille: u64,
    cut_per_mille: u64,
    compact_per_mille: u64,
    transfer_per_mille: u64,
    change_per_mille: u64,
    /// How often a disk gets round to a write.
    sync_percent: u64,
    step_us_max: u64,
}

struct Run<R: Rules> {
    cluster: Cluster<R>,
    random: Random,
    faults: Faults,
    /// When they arrive.
    delayed: Vec<(u64, Flight)>,
    proposed: u64,
    reads: u64,
}

/// What a run reached, so that a run that reaches nothing is noticed.
#[derive(Debug, Default, PartialEq)]
struct Reached {
    applied: usize,
    elections: usize,
    crashes: u64,
    restored: u64,
    transfers: u64,
    changes: u64,
    reads: u64,
}

fn run<R: Rules>(seed: u64) -> Reached {
    let mut random = Random::new(seed);
    let sometimes = |random: &mut Random, most: u64| random.between(0, 1) * random.between(0, most);
    let faults = Faults {
        lose_percent: sometimes(&mut random, 30),
        repeat_percent: sometimes(&mut random, 30),
        reorder_percent: sometimes(&mut random, 50),
        delay_percent: sometimes(&mut random, 20),
        down_steps: random.between(1, 100),
        crash_per_mille: sometimes(&mut random, 30),
        cut_per_mille: sometimes(&mut random, 30),
        compact_per_mille: sometimes(&mut random, 20),
        transfer_per_mille: sometimes(&mut random, 10),
        change_per_mille: sometimes(&mut random, 20),
        sync_percent: random.between(5, 100),
        step_us_max: [10_000, 30_000, 100_000, 300_000][random.between(0, 3) as usize],
    };
    let nodes = [3, 3, 3, 5, 5, 4, 2, 1][random.between(0, 7) as usize];
    let (window, bytes, chunk) = (random.between(1, 4), random.between(60, 400), random.between(20, 300));
    // Nodes that the group does not begin with, and may take in.
    let spare = if faults.change_per_mille > 0 { random.between(0, 2) as usize } else { 0 };
    let mut cluster = Cluster::<R>::new(nodes + spare, seed, |config| {
        config.voters.truncate(nodes);
        config.in_flight_max = window as usize;
        config.append_bytes_max = bytes as usize;
        config.snapshot_chunk_bytes = chunk as usize;
    });
    cluster.disks_are_instant = false;
    for id in cluster.ids() {
        let drift = random.between(0, 20_000) as i64 - 10_000;
        cluster.members.get_mut(&id).unwrap().drift_ppm = drift;
        cluster.start(id);
    }
    let mut run = Run { cluster, random, faults, delayed: Vec::new(), proposed: 0, reads: 0 };
    let mut reached = Reached::default();
    for _ in 0..STEPS {
        run.step(&mut reached);
    }
    run.settle();
    reached.applied = run.cluster.safety.applied_count();
    reached.elections = run.cluster.safety.elections();
    reached.restored = run.cluster.safety.restored_count();
    reached.reads = run.cluster.safety.reads_answered();
    reached
}

impl<R: Rules> Run<R> {
    fn chance(&mut self, of: u64, in_all: u64) -> bool {
        self.random.between(1, in_all) <= of
    }

    fn any_node(&mut self) -> NodeId {
        NodeId::numbered(self.random.between(1, self.cluster.members.len() as u64) as usize)
    }

    fn step(&mut self, reached: &mut Reached) {
        self.cluster.now_us += self.random.between(0, self.faults.step_us_max);
        for id in self.cluster.ids() {
            self.cluster.input(id, |raft, now| raft.tick(now));
            if self.chance(self.faults.sync_percent, 100) {
                self.cluster.sync(id, 1);
            }
        }
        let now_us = self.cluster.now_us;
        let (due, later) = std::mem::take(&mut self.delayed).into_iter().partition(|(at_us, _)| *at_us <= now_us);
        self.delayed = later;
        let due: Vec<(u64, Flight)> = due;
        for (_, flight) in due {
            self.cluster.arrive(flight);
        }
        for _ in 0..self.random.between(0, 8) {
            self.network();
        }
        if self.chance(1, 3) {
            let id = self.any_node();
            self.propose(id);
        }
        if self.chance(1, 10) {
            let id = self.victim();
            self.reads += 1;
            // Whether it was taken is watched by the invariants, not here.
            let _ = self.cluster.read(id, self.reads);
        }
        if self.chance(self.faults.change_per_mille, 1_000) {
            self.change(reached);
        }
        self.fail(reached);
        while self.cluster.flights.len() > FLIGHTS_MAX {
            self.cluster.flights.remove(0);
        }
    }

    fn network(&mut self) {
        let count = self.cluster.flights.len() as u64;
        if count == 0 {
            return;
        }
        let any = self.chance(self.faults.reorder_percent, 100);
        let position = if any { self.random.between(0, count - 1) as usize } else { 0 };
        if self.chance(self.faults.repeat_percent, 100) {
            let copy = self.cluster.flights[position].clone();
            self.cluster.flights.push(copy);
        }
        let flight = self.cluster.flights.remove(position);
        if self.chance(self.faults.delay_percent, 100) {
            let arrival_us = self.cluster.now_us + self.random.between(0, DELAY_US_MAX);
            self.delayed.push((arrival_us, flight));
        } else if !self.chance(self.faults.lose_percent, 100) {
            self.cluster.arrive(flight);
        }
    }

    fn propose(&mut self, id: NodeId) {
        self.proposed += 1;
        let data = Bytes::from(format!("{}", self.proposed));
        // Whether it was taken is watched by the invariants, not here.
        let _ = self.cluster.input(id, |raft, now| raft.propose(now, data));
    }

    /// The leader, as often as not: what happens to it matters most.
    fn victim(&mut self) -> NodeId {
        let leads = |id: &NodeId| self.cluster.raft(*id).is_some_and(|raft| raft.role() == Role::Leader);
        let leader = self.cluster.ids().into_iter().find(leads);
        let any = self.any_node();
        if self.chance(1, 2) { leader.unwrap_or(any) } else { any }
    }

    /// Asks whoever leads for a membership drawn at random.
    fn change(&mut self, reached: &mut Reached) {
        let ids = self.cluster.ids();
        let (mut voters, mut learners) = (BTreeSet::new(), BTreeSet::new());
        for id in &ids {
            match self.random.between(0, 3) {
                0 => {}
                1 => drop(learners.insert(ReplicaId::founder(*id))),
                _ => drop(voters.insert(ReplicaId::founder(*id))),
            }
        }
        for id in ids {
            let (voters, learners) = (voters.clone(), learners.clone());
            let result = self.cluster.input(id, |raft, now| raft.change(now, voters, learners));
            reached.changes += u64::from(matches!(result, Some(Ok(_))));
        }
    }

    fn fail(&mut self, reached: &mut Reached) {
        let id = self.victim();
        if self.cluster.raft(id).is_none() {
            if self.chance(1, self.faults.down_steps) {
                self.cluster.start(id);
            }
        } else if self.chance(self.faults.crash_per_mille, 1_000) {
            let synced = self.random.between(0, 3) as usize;
            self.cluster.crash(id, synced);
            reached.crashes += 1;
        } else if self.chance(self.faults.compact_per_mille, 1_000) {
            let applied = self.cluster.raft(id).unwrap().applied();
            self.cluster.compact(id, applied);
        } else if self.chance(self.faults.transfer_per_mille, 1_000) {
            for id in self.cluster.ids() {
                let leads = self.cluster.raft(id).is_some_and(|raft| raft.role() == Role::Leader);
                reached.transfers += u64::from(leads);
                self.cluster.input(id, |raft, now| raft.transfer(now));
            }
        }
        if self.chance(self.faults.cut_per_mille, 1_000) {
            let other = self.any_node();
            match self.random.between(0, 2) {
                0 => self.cluster.cut.clear(),
                1 => drop(self.cluster.cut.insert((id, other))),
                _ => {
                    for other in self.cluster.ids() {
                        self.cluster.cut.insert((id, other));
                        self.cluster.cut.insert((other, id));
                    }
                }
            }
        }
    }

    /// The faults stop. Within ten seconds of true time there must be one leader, and every node must have applied what it proposes.
    fn settle(&mut self) {
        self.cluster.cut.clear();
        self.cluster.disks_are_instant = true;
        for id in self.cluster.ids() {
            if self.cluster.raft(id).is_none() {
                self.cluster.start(id);
            }
            self.cluster.sync(id, usize::MAX);
        }
        // By term and index: a leader that was already deposed without knowing it may be the first to take the proposal.
        let mut last_proposed = None;
        for _ in 0..1_000 {
            self.cluster.now_us += 10_000;
            for id in self.cluster.ids() {
                self.cluster.input(id, |raft, now| raft.tick(now));
            }
            self.cluster.stabilize();
            let leader = self.cluster.ids().into_iter().find(|id| {
                self.cluster.raft(*id).is_some_and(|raft| raft.committed_in_term() && raft.lease_until_us().is_some())
            });
            if let Some(leader) = leader {
                let term = self.cluster.raft(leader).unwrap().term();
                if last_proposed.is_none_or(|(proposed_in, _)| proposed_in < term) {
                    let result = self.cluster.input(leader, |raft, now| raft.propose(now, Bytes::from_static(b"last")));
                    last_proposed = result.and_then(Result::ok).map(|index| (term, index));
                }
            }
            let Some(leader) = leader else { continue };
            let raft = self.cluster.raft(leader).expect("it leads");
            let taking_part = raft.membership().replicas();
            let states = || taking_part.iter().map(|id| &self.cluster.members[&id.node].state);
            let last_index = raft.last_index();
            let applied = |(term, index)| {
                index <= last_index && states().all(|at| (at.meta.term, at.meta.index) == (term, last_index))
            };
            if !raft.change_under_way() && last_proposed.is_some_and(applied) {
                return;
            }
        }
        let nodes: Vec<_> = self.cluster.members.values().map(|member| (&member.raft, &member.state.meta)).collect();
        panic!("LIVENESS: {last_proposed:?} is not applied everywhere after ten seconds: {nodes:?}");
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let count = std::env::var("RAFT_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(default);
    let first = std::env::var("RAFT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    first..first + count
}

#[test]
fn nothing_is_ever_broken_and_everything_comes_to_rest() {
    let mut all = Reached::default();
    for seed in seeds(300) {
        let result = catch_unwind(|| run::<Faithful>(seed));
        let reached = result.unwrap_or_else(|_| panic!("repeat with RAFT_SEED={seed} RAFT_SEEDS=1"));
        all.applied += reached.applied;
        all.elections += reached.elections;
        all.crashes += reached.crashes;
        all.restored += reached.restored;
        all.transfers += reached.transfers;
        all.changes += reached.changes;
        all.reads += reached.reads;
    }
    if std::env::var("RAFT_SEEDS").is_err() {
        let rich = all.applied > 50_000 && all.elections > 1_000 && all.crashes > 1_000 && all.restored > 100;
        let rich = rich && all.changes > 500 && all.reads > 5_000;
        assert!(rich && all.transfers > 100, "the runs reach too little: {all:?}");
    }
}

#[test]
fn one_seed_gives_one_run() {
    for seed in 0..5 {
        assert_eq!(run::<Faithful>(seed), run::<Faithful>(seed));
    }
}

/// The first seed that finds the bug: by a promise that was broken, not by a group that merely stands still.
fn found_by(rule: Rule, seeds: u64) -> Option<u64> {
    let broken = |seed: &u64| {
        let run = || catch_unwind(AssertUnwindSafe(|| run::<OneLeftOut>(*seed))).err();
        let panic = OneLeftOut::during(rule, run);
        panic.and_then(|panic| panic.downcast::<String>().ok()).is_some_and(|text| text.starts_with("SAFETY"))
    };
    (0..seeds).find(broken)
}

macro_rules! bug {
    ($test:ident, $rule:ident) => {
        #[test]
        fn $test() {
            let found = found_by(Rule::$rule, 2_000);
            println!("found by seed {found:?}");
            assert!(found.is_some(), "no run found it");
        }
    };
}

bug!(a_leader_that_counts_itself_early_is_found, LeaderCountsItselfEarly);
bug!(voters_that_are_exchanged_at_once_are_found, VotersChangedAtOnce);
bug!(a_change_during_a_change_is_found, ChangeDuringAChange);
bug!(learners_that_count_are_found, LearnersCounted);
bug!(a_read_before_the_no_op_is_found, ReadBeforeNoOp);
