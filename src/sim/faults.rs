//! What breaks in the faulty phase, and how it is mended.

use super::checker::Check;
use super::cluster::{Cluster, Event, Phase, Repair};
use super::network::Place;
use super::node::Halt;
use super::partitions::{SHAPES, Shape};
use crate::ids::{GroupId, NodeId};
use crate::node::Replica;
use crate::node::effect::{Effects, Input};
use crate::raft::{Raft, Role};
use crate::rules::Rules;

/// Time between two looks at a draining node, and how many there are before it is stopped all the same.
const DRAIN_LOOK_US: u64 = 100_000;
const DRAIN_LOOKS_MAX: u32 = 60;

/// Names of the faults that strike a chosen moment, not a drawn one. No seed draws the second by itself: only worlds of the bank have it.
const NEW_LEADER_DIES: &str = "new leader dies";
const CHANGE_CUT: &str = "a change of voters is cut";

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Partition,
    Reset,
    Stall,
    DiskError,
    DiskFull,
    Rot,
    Crash,
    Blackout,
    Pause,
    Starve,
    Drain,
    WallJump,
}

const FAULTS: [Fault; 12] = [
    Fault::Partition,
    Fault::Reset,
    Fault::Stall,
    Fault::DiskError,
    Fault::DiskFull,
    Fault::Rot,
    Fault::Crash,
    Fault::Blackout,
    Fault::Pause,
    Fault::Starve,
    Fault::Drain,
    Fault::WallJump,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Reset => "reset",
            Self::Stall => "stall",
            Self::DiskError => "disk error",
            Self::DiskFull => "disk full",
            Self::Rot => "flipped bit",
            Self::Crash => "crash",
            Self::Blackout => "blackout",
            Self::Pause => "pause",
            Self::Starve => "starve",
            Self::Drain => "drain",
            Self::WallJump => "wall jump",
        }
    }
}

/// The names of all faults, as they stand in [`Report::faults`](super::Report).
pub fn fault_names() -> Vec<&'static str> {
    let shapes = SHAPES.into_iter().map(Shape::name);
    let jobs = super::churn::JOBS;
    FAULTS.into_iter().map(Fault::name).chain(shapes).chain([NEW_LEADER_DIES]).chain(jobs).collect()
}

impl<R: Rules> Cluster<R> {
    fn every_us(&self, fault: Fault) -> Option<u64> {
        let process = &self.swarm.process;
        match fault {
            Fault::Partition => self.swarm.network.partition.filter(|_| self.nodes.len() > 1),
            Fault::Reset => self.swarm.network.reset.filter(|_| self.nodes.len() > 1),
            Fault::Stall => self.swarm.disk.stall,
            Fault::DiskError => self.swarm.disk.error,
            Fault::DiskFull => self.swarm.disk.full,
            Fault::Rot => self.swarm.disk.rot.filter(|_| self.swarm.disk.segment_bytes.is_some()),
            Fault::Crash => process.crash,
            Fault::Blackout => process.blackout,
            Fault::Pause => process.pause,
            Fault::Starve => process.starve,
            Fault::Drain => process.drain,
            Fault::WallJump => process.wall_jump,
        }
    }

    /// Lets the first fault of each kind that this seed has come.
    pub(crate) fn schedule_faults(&mut self) {
        FAULTS.into_iter().for_each(|fault| self.schedule_fault(fault));
    }

    fn schedule_fault(&mut self, fault: Fault) {
        if let Some(every_us) = self.every_us(fault) {
            let delay_us = self.random.between(every_us / 4, every_us * 7 / 4);
            self.schedule.after(delay_us, Event::Fault(fault));
        }
    }

    pub(crate) fn break_something(&mut self, fault: Fault) -> Check {
        if self.phase != Phase::Faulty {
            return Ok(());
        }
        self.schedule_fault(fault);
        let place = self.victim();
        if !self.nodes[place].is_up() || self.nodes[place].paused.is_some() {
            return Ok(());
        }
        *self.counts.faults.entry(fault.name()).or_default() += 1;
        self.record(&[8, fault as u64, place as u64], || format!("fault: {} at n{place}", fault.name()));
        match fault {
            Fault::Partition => self.partition(place),
            Fault::Reset => self.reset(place),
            Fault::Stall => {
                let until_us = self.now_us() + self.random.between(300_000, 2_000_000);
                self.nodes[place].disk.stall(until_us);
            }
            Fault::DiskError => self.fail_disk(place),
            Fault::DiskFull => self.fill_disk(place),
            Fault::Rot => self.rot(place),
            Fault::Crash => {
                let power = self.random.chance(500);
                self.crash(place, power);
            }
            Fault::Blackout => (0..self.nodes.len()).for_each(|place| self.crash(place, true)),
            Fault::Pause if self.random.chance(500) => self.nodes[place].pause_armed = true,
            Fault::Pause => self.pause(place, Vec::new()),
            Fault::Starve => self.starve(place),
            Fault::Drain => return self.drain(place),
            Fault::WallJump => {
                let node = &mut self.nodes[place];
                node.clock.jump_wall(&mut self.random);
            }
        }
        Ok(())
    }

    /// A leader, as often as the seed says, else any node.
    fn victim(&mut self) -> Place {
        let leads = |replica: &Replica<R>| replica.raft().is_some_and(|raft| raft.role() == Role::Leader);
        let leading = |place: &Place| self.nodes[*place].replicas.values().any(leads);
        let leaders: Vec<Place> = (0..self.nodes.len()).filter(leading).collect();
        if !leaders.is_empty() && self.random.below(10) < self.swarm.leaders_first {
            return *self.random.pick(&leaders);
        }
        self.random.below(self.nodes.len() as u64) as Place
    }

    fn partition(&mut self, victim: Place) {
        let shape = Shape::draw(&mut self.random, self.nodes.len());
        let mut order: Vec<Place> = (0..self.nodes.len()).filter(|place| *place != victim).collect();
        self.random.shuffle(&mut order);
        if shape == Shape::Constrained {
            // Whoever hears a majority lacks entries: the others have to come to it all the same.
            order.sort_by_key(|place| self.entries(*place));
        }
        order.insert(0, victim);
        let directions = shape.cut(&mut self.random, &order);
        *self.counts.faults.entry(shape.name()).or_default() += 1;
        self.note(|| format!("{} cuts {directions:?}", shape.name()));
        let partition = self.network.cut(directions);
        let longest_us = if shape.nodes_min() > 2 { 5_000_000 } else { 3_000_000 };
        let delay_us = self.random.between(100_000, longest_us);
        self.schedule.after(delay_us, Event::Repair(Repair::Partition(partition)));
    }

    /// A leader begins to exchange voters: now and then, before anybody is told, it and those who come are cut off from all others. Each side has a
    /// majority of its own then, the one of the voters that are to be, the other of those that were.
    pub(crate) fn cut_change(&mut self, leader: Place, group: GroupId) {
        if self.swarm.process.change_is_cut_per_mille == 0 || self.phase != Phase::Faulty {
            return;
        }
        let Some(raft) = self.nodes[leader].replicas.get(&group).and_then(Replica::raft) else { return };
        let (membership, leads) = (raft.membership().clone(), raft.role() == Role::Leader);
        if !leads || !membership.is_joint() || !self.random.chance(self.swarm.process.change_is_cut_per_mille) {
            return;
        }
        let comes = |id: &NodeId| {
            membership.voters.iter().any(|it| it.node == *id) && !membership.outgoing.iter().any(|it| it.node == *id)
        };
        let is_left = |place: Place| place == leader || comes(&self.nodes[place].id);
        let (left, right): (Vec<Place>, Vec<Place>) = (0..self.nodes.len()).partition(|place| is_left(*place));
        let directions = left.iter().flat_map(|a| right.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect();
        *self.counts.faults.entry(CHANGE_CUT).or_default() += 1;
        self.record(&[13, leader as u64, u64::from(group.0)], || {
            format!("fault: the change of {group} that n{leader} begins is cut: {left:?}, {right:?}")
        });
        let partition = self.network.cut(directions);
        let delay_us = self.random.between(500_000, 4_000_000);
        self.schedule.after(delay_us, Event::Repair(Repair::Partition(partition)));
    }

    /// How many entries a node has, over all groups.
    fn entries(&self, place: Place) -> u64 {
        self.nodes[place].replicas.values().filter_map(Replica::raft).map(Raft::last_index).sum()
    }

    /// One connection of the node breaks, or all of them.
    fn reset(&mut self, place: Place) {
        if self.random.chance(300) {
            return self.network.break_connections(place);
        }
        let count = self.nodes.len();
        let other = (place + 1 + self.random.below(count as u64 - 1) as usize) % count;
        self.network.reset(place, other);
    }

    pub(crate) fn crash(&mut self, place: Place, power: bool) {
        if !self.nodes[place].is_up() {
            return;
        }
        self.stop(place, power);
        self.start_later(place);
    }

    /// A dead process is started again after a while.
    pub(crate) fn start_later(&mut self, place: Place) {
        let (low_us, high_us) = self.swarm.process.down_us;
        let delay_us = self.random.between(low_us, high_us);
        self.schedule.after(delay_us, Event::Repair(Repair::Start { place }));
    }

    /// The process dies at a moment that was chosen for it.
    pub(crate) fn strike(&mut self, place: Place, boot: u64) {
        if self.phase == Phase::Faulty && self.is_up(place, boot) && self.nodes[place].paused.is_none() {
            *self.counts.faults.entry(NEW_LEADER_DIES).or_default() += 1;
            self.record(&[10, place as u64], || format!("fault: the new leader n{place} dies"));
            let power = self.random.chance(500);
            self.crash(place, power);
        }
    }

    /// The process ends: its connections break, and its clients notice.
    pub(crate) fn stop(&mut self, place: Place, power: bool) {
        self.note(|| format!("n{place} stops, its power is {}", if power { "cut" } else { "on" }));
        let came = self.nodes[place].paused.take().map(|halt| halt.came).unwrap_or_default();
        for event in came {
            if let Event::Deliver { from, to, passage, .. } = event {
                self.network.arrives(from, to, passage);
            }
        }
        let (now_us, node) = (self.schedule.now_us(), &mut self.nodes[place]);
        node.stop(&mut self.random, power);
        node.disturbed_us = node.disturbed_us.max(now_us);
        self.network.break_connections(place);
        self.near_lost(place);
        for id in self.flights.waiting_for(place) {
            self.schedule.after(1_000, Event::GiveUp { id, sent_us: now_us });
        }
    }

    /// The process stops to run. What it had decided to do in its last step is done when it runs again.
    pub(crate) fn pause(&mut self, place: Place, held: Vec<(GroupId, Effects)>) {
        self.note(|| format!("n{place} pauses, holding {} effects", held.len()));
        let node = &mut self.nodes[place];
        node.pause_armed = false;
        node.paused = Some(Halt { held, ..Halt::default() });
        let boot = node.boots;
        let delay_us = self.random.between(200_000, 3_000_000);
        self.schedule.after(delay_us, Event::Repair(Repair::Resume { place, boot }));
    }

    /// One replica's task gets no processor; the node's readers and its other replicas go on.
    fn starve(&mut self, place: Place) {
        let group = GroupId(self.random.below(u64::from(self.swarm.groups)) as u32);
        let node = &mut self.nodes[place];
        if node.starved.contains_key(&group) {
            return;
        }
        node.starved.insert(group, Halt::default());
        let boot = node.boots;
        let delay_us = self.random.between(5_000, 300_000);
        self.schedule.after(delay_us, Event::Repair(Repair::Feed { place, boot, group }));
    }

    fn drain(&mut self, place: Place) -> Check {
        if std::mem::replace(&mut self.nodes[place].draining, true) {
            return Ok(());
        }
        let boot = self.nodes[place].boots;
        self.schedule.after(DRAIN_LOOK_US, Event::Repair(Repair::Drained { place, boot, tries: 0 }));
        (0..self.swarm.groups).map(GroupId).try_for_each(|group| self.handle(place, group, Input::Drain))
    }

    pub(crate) fn repair(&mut self, repair: Repair) -> Check {
        match repair {
            Repair::Partition(partition) => {
                self.note(|| format!("partition {partition} heals"));
                self.network.heal(partition);
                Ok(())
            }
            Repair::Start { place } if self.nodes[place].is_up() || self.nodes[place].is_gone() => Ok(()),
            Repair::Start { place } => self.start(place),
            Repair::Room { place } => {
                self.nodes[place].disk.make_room();
                Ok(())
            }
            Repair::Resume { place, boot } if self.is_up(place, boot) => self.resume(place),
            Repair::Feed { place, boot, group } if self.is_up(place, boot) => self.feed(place, group),
            Repair::Drained { place, boot, tries } if self.is_up(place, boot) => self.look_at_drained(place, tries),
            _ => Ok(()),
        }
    }

    /// The process runs again: first it does what it held, then it takes everything that came meanwhile.
    pub(crate) fn resume(&mut self, place: Place) -> Check {
        let now_us = self.schedule.now_us();
        let Some(halt) = self.nodes[place].paused.take() else { return Ok(()) };
        let disturbed_us = &mut self.nodes[place].disturbed_us;
        *disturbed_us = now_us.max(*disturbed_us);
        self.note(|| format!("n{place} resumes with {} events", halt.came.len()));
        for (group, effects) in halt.held {
            self.perform(place, group, effects)?;
        }
        halt.came.into_iter().try_for_each(|event| self.happen(event))
    }

    pub(crate) fn feed(&mut self, place: Place, group: GroupId) -> Check {
        if self.nodes[place].paused.is_some() {
            let boot = self.nodes[place].boots;
            self.schedule.after(50_000, Event::Repair(Repair::Feed { place, boot, group }));
            return Ok(());
        }
        let now_us = self.schedule.now_us();
        let Some(halt) = self.nodes[place].starved.remove(&group) else { return Ok(()) };
        let disturbed_us = &mut self.nodes[place].disturbed_us;
        *disturbed_us = now_us.max(*disturbed_us);
        halt.came.into_iter().try_for_each(|input| self.handle(place, group, input))
    }

    fn look_at_drained(&mut self, place: Place, tries: u32) -> Check {
        let now = self.nodes[place].clock.at(self.schedule.now_us());
        let drained = self.nodes[place].replicas.values().all(|replica| replica.is_drained(now));
        if drained || tries >= DRAIN_LOOKS_MAX {
            self.note(|| format!("n{place} is drained: {drained}"));
            self.crash(place, false);
            return Ok(());
        }
        let boot = self.nodes[place].boots;
        let look = Repair::Drained { place, boot, tries: tries + 1 };
        self.schedule.after(DRAIN_LOOK_US, Event::Repair(look));
        Ok(())
    }

    /// Every fault ends: what is cut, stopped, slow or down is well again.
    pub(crate) fn heal(&mut self) -> Check {
        self.redis.heal();
        self.record(&[9], || "everything heals".to_owned());
        self.phase = Phase::Healing;
        self.network.heal_all();
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            node.disk.heal();
            node.pause_armed = false;
            self.resume(place)?;
            for group in (0..self.swarm.groups).map(GroupId) {
                self.feed(place, group)?;
            }
            if self.nodes[place].draining {
                self.stop(place, false);
            }
            if !self.nodes[place].is_up() && !self.nodes[place].is_gone() {
                self.start(place)?;
            }
        }
        self.schedule.after(super::phases::LEADER_US_MAX, Event::Leaders);
        self.schedule.after(super::phases::JUDGE_US, Event::Judge);
        Ok(())
    }
}
