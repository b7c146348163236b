//! One simulated node: its replicas, its readers' tables, its disk, its clock, and whether it gets to run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::checker::raft::{LogView, Mark};
use super::disk::NodeDisk;
use super::random::Random;
use super::swarm::RATE_PPM_MAX;
use crate::cache::Lines;
use crate::ids::{GroupId, Incarnation, Index, NodeId, Now, Term};
use crate::node::effect::{Effects, Input, RequestId};
use crate::node::roster::Listed;
use crate::node::{Replica, Roster};
use crate::raft::{Raft, Role};
use crate::rules::Rules;

/// A node's clock: a speed and an offset of its own. It goes on while the node is down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    rate_ppm: i64,
    offset_us: u64,
    wall_offset_ms: u64,
    wall_error_ms: u64,
}

/// Milliseconds since 1970 at which every run begins, give or take a node's error.
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;
/// Furthest that a wall clock is wrong or jumps where nothing is said of it, in milliseconds.
pub(crate) const WALL_ERROR_MS_MAX: u64 = 60_000;

impl Clock {
    /// Its wall is wrong by up to so many milliseconds, either way.
    pub(crate) fn new(random: &mut Random, rate_ppm: i64, wall_error_ms: u64) -> Self {
        assert!(rate_ppm.unsigned_abs() <= RATE_PPM_MAX, "{rate_ppm} ppm is outside the drift bound");
        let offset_us = random.between(1, 1_000_000_000_000);
        let mut clock = Self { rate_ppm, offset_us, wall_offset_ms: 0, wall_error_ms };
        clock.jump_wall(random);
        clock
    }

    /// What the node reads at that true instant.
    pub(crate) fn at(&self, true_us: u64) -> Now {
        let drift_us = i128::from(true_us) * i128::from(self.rate_ppm) / 1_000_000;
        let passed_us = u64::try_from(i128::from(true_us) + drift_us).expect("no clock runs backwards");
        Now { mono_us: self.offset_us + passed_us, wall_ms: self.wall_offset_ms + passed_us / 1_000 }
    }

    /// The wall clock jumps, either way.
    pub(crate) fn jump_wall(&mut self, random: &mut Random) {
        self.wall_offset_ms = WALL_BEGIN_MS - self.wall_error_ms + random.below(2 * self.wall_error_ms);
    }
}

/// Something that does not get to run, and what came for it meanwhile.
#[derive(Debug)]
pub(crate) struct Halt<T> {
    /// What it was about to do.
    pub(crate) held: Vec<(GroupId, Effects)>,
    pub(crate) came: VecDeque<T>,
}

impl<T> Default for Halt<T> {
    fn default() -> Self {
        Self { held: Vec::new(), came: VecDeque::new() }
    }
}

/// One node; `E` is what happens to it.
#[derive(Debug)]
pub(crate) struct Node<R: Rules, E> {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    /// It was not there when the cluster began.
    pub(crate) joins: bool,
    /// The newest list of nodes that it has kept.
    pub(crate) roster: Roster,
    pub(crate) clock: Clock,
    pub(crate) disk: NodeDisk,
    /// Empty while the process is down.
    pub(crate) replicas: BTreeMap<GroupId, Replica<R>>,
    pub(crate) lines: BTreeMap<GroupId, Lines>,
    /// Its disk is damaged: it will never start again.
    pub(crate) lost: bool,
    /// It is no part of the cluster: not yet, or not any more.
    pub(crate) absent: bool,
    /// How often the process was started.
    pub(crate) boots: u64,
    /// The process is stopped.
    pub(crate) paused: Option<Halt<E>>,
    /// The process stops with the next step of a replica, between its decision and its deeds.
    pub(crate) pause_armed: bool,
    /// These replicas' tasks get no processor.
    pub(crate) starved: BTreeMap<GroupId, Halt<Input>>,
    /// Requests that are not answered.
    pub(crate) unanswered: BTreeSet<RequestId>,
    /// The last instant, past or to come, at which a part of the process was not free to run.
    pub(crate) disturbed_us: u64,
    pub(crate) draining: bool,
}

/// The list of nodes that a cluster of that size begins with. (A node's place is the number in its name.)
pub(crate) fn founding_roster(nodes: usize, replicas: usize) -> Roster {
    let nodes = (0..nodes).map(|place| (NodeId::numbered(place), listed(place, None))).collect();
    Roster { version: 0, replicas: u32::try_from(replicas).expect("a few"), nodes }
}

/// A node as the list has it.
fn listed(place: usize, incarnation: Option<Incarnation>) -> Listed {
    let at = |port: u32| format!("node{place}:{port}");
    let standing = trine_protocol::cluster::NodeStanding::Voter;
    Listed { incarnation, client: at(4100), peer: at(4200), http: at(9000), standing }
}

impl<R: Rules, E> Node<R, E> {
    pub(crate) fn new(id: NodeId, random: &mut Random, clock: Clock, disk: NodeDisk, roster: Roster) -> Self {
        Self {
            id,
            incarnation: Incarnation(random.any().max(1)),
            joins: false,
            roster,
            clock,
            disk,
            replicas: BTreeMap::new(),
            lines: BTreeMap::new(),
            lost: false,
            absent: false,
            boots: 0,
            paused: None,
            pause_armed: false,
            starved: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            disturbed_us: 0,
            draining: false,
        }
    }

    /// Whether it does not start again by itself.
    pub(crate) fn is_gone(&self) -> bool {
        self.lost || self.absent
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.replicas.is_empty()
    }

    /// The process dies, and where `power` says so the machine with it.
    pub(crate) fn stop(&mut self, random: &mut Random, power: bool) {
        self.disk.die(random, power);
        self.replicas.clear();
        self.lines.clear();
        self.paused = None;
        self.pause_armed = false;
        self.starved.clear();
        self.unanswered.clear();
        self.draining = false;
    }
}

impl<R: Rules> LogView for Raft<R> {
    fn term(&self) -> Term {
        Raft::term(self)
    }

    fn is_leader(&self) -> bool {
        self.role() == Role::Leader
    }

    fn commit_index(&self) -> Index {
        self.commit()
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        Raft::term_at(self, index)
    }

    fn mark_at(&self, index: Index) -> Option<Mark> {
        self.entry(index).map(Mark::of)
    }

    fn base_index(&self) -> Index {
        self.base().index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_runs_at_its_speed_and_its_wall_jumps_alone() {
        let mut random = Random::new(1);
        let mut clock = Clock::new(&mut random, 4_000, WALL_ERROR_MS_MAX);
        let (first, second) = (clock.at(5_000_000), clock.at(6_000_000));
        assert_eq!(second.mono_us - first.mono_us, 1_004_000);
        clock.jump_wall(&mut random);
        assert_eq!(clock.at(6_000_000).mono_us, second.mono_us);
        assert_ne!(clock.at(6_000_000).wall_ms, second.wall_ms);
    }
}
