//! An operator: adds nodes, promotes them, takes some out, and replaces one whose disk is gone, while everything else breaks too.
//!
//! It has one thing in hand at a time, as the people do whom it stands for, and sees it through: whatever is lost or refused is
//! asked for again. What is in hand when the faults end is finished before the audit begins.
//!
//! ```text
//!   add:     a node with an empty disk starts ──▶ Add ──▶ (every group settled) ──▶ Promote ──▶ (settled)
//!   remove:  Remove ──▶ (no replica on it, nothing dirty or owned) it stops for good ──▶ Forget
//!   replace: a node's disk is gone, it starts as another life ──▶ Replace ──▶ (settled)
//! ```

use std::collections::BTreeSet;

use trine_protocol::cluster::{NewNode, NodeStanding, Reshape, Reshaping};

use super::checker::Check;
use super::cluster::{Cluster, Event, Phase};
use super::disk::NodeDisk;
use super::network::Place;
use super::node::founding_roster;
use crate::ids::{GroupId, Incarnation, NodeId, ReplicaId};
use crate::node::effect::{Input, RequestId};
use crate::node::{Replica, Roster};
use crate::raft::Role;
use crate::rules::Rules;

/// Time between two looks of the operator at what it has in hand.
const LOOK_US: (u64, u64) = (100_000, 400_000);
/// The operator's requests have numbers of their own, far above those of clients.
const FIRST_REQUEST: u64 = 1 << 60;

/// What the operator has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Add(Place),
    Remove(Place),
    Replace(Place),
}

/// The operator.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    job: Option<Job>,
    requests: u64,
    /// Jobs that it has seen through.
    pub(crate) done: u64,
}

impl Operator {
    /// Whether it has nothing in hand.
    pub(crate) fn is_idle(&self) -> bool {
        self.job.is_none()
    }
}

impl<R: Rules> Cluster<R> {
    /// Lets the operator begin, where this seed has one.
    pub(crate) fn schedule_operator(&mut self) {
        if let Some(every_us) = self.swarm.process.churn {
            let delay_us = self.random.between(every_us / 4, every_us * 7 / 4);
            self.schedule.after(delay_us, Event::Operator);
        }
    }

    /// The operator looks at what it has in hand, and does the next thing.
    pub(crate) fn operate(&mut self) -> Check {
        if self.phase == Phase::Auditing || self.phase == Phase::Done {
            return Ok(());
        }
        for place in 0..self.nodes.len() {
            self.see_off(place)?;
        }
        let roster = self.newest_roster();
        if self.operator.job.is_none() && self.phase == Phase::Faulty {
            self.take_a_job(&roster)?;
        }
        match self.operator.job {
            Some(job) => {
                self.go_on(job, &roster)?;
                let delay_us = self.random.between(LOOK_US.0, LOOK_US.1);
                self.schedule.after(delay_us, Event::Operator);
            }
            None if self.phase == Phase::Faulty => self.schedule_operator(),
            None => {}
        }
        Ok(())
    }

    /// The newest list of nodes that anybody has kept.
    fn newest_roster(&self) -> Roster {
        let rosters = self.nodes.iter().map(|node| &node.roster);
        rosters.max_by_key(|roster| roster.version).expect("there is a node").clone()
    }

    fn take_a_job(&mut self, roster: &Roster) -> Check {
        if roster.version == 0 {
            return Ok(());
        }
        let listed = |place: &Place| roster.nodes.contains_key(&NodeId::numbered(*place));
        let all = 0..self.nodes.len();
        let absent: Vec<Place> = all.clone().filter(|place| self.nodes[*place].absent && !listed(place)).collect();
        let here: Vec<Place> = all.filter(listed).filter(|place| !self.nodes[*place].absent).collect();
        let spare = here.len() > roster.replicas as usize;
        let job = match self.random.below(3) {
            0 if !absent.is_empty() => Job::Add(*self.random.pick(&absent)),
            1 if spare => Job::Remove(*self.random.pick(&here)),
            2 if here.len() >= 3 && roster.replicas >= 3 => Job::Replace(*self.random.pick(&here)),
            _ => return Ok(()),
        };
        if matches!(job, Job::Replace(_)) && !self.is_settled(roster) {
            return Ok(());
        }
        self.operator.job = Some(job);
        *self.counts.faults.entry(name(job)).or_default() += 1;
        self.record(&[12, job_number(job)], || format!("operator: {job:?}"));
        match job {
            Job::Add(place) => self.begin_life(place),
            Job::Replace(place) => {
                self.stop(place, true);
                self.begin_life(place)
            }
            Job::Remove(_) => Ok(()),
        }
    }

    /// The node starts with an empty disk, and knows of the cluster what it was first told.
    fn begin_life(&mut self, place: Place) -> Check {
        let founding = founding_roster(self.swarm.nodes, self.swarm.replicas);
        let incarnation = Incarnation(self.random.any().max(1));
        let node = &mut self.nodes[place];
        (node.incarnation, node.joins, node.absent, node.lost) = (incarnation, true, false, false);
        (node.roster, node.disk) = (founding, NodeDisk::new(self.swarm.disk.clone()));
        self.consensus.forget(place);
        self.start(place)
    }

    fn go_on(&mut self, job: Job, roster: &Roster) -> Check {
        let (Job::Add(place) | Job::Remove(place) | Job::Replace(place)) = job;
        let node = self.nodes[place].id;
        let listed = roster.nodes.get(&node).map(|it| (it.standing, it.incarnation));
        let same_life = listed.is_some_and(|(_, life)| life == Some(self.nodes[place].incarnation));
        let change = match (job, listed.map(|(standing, _)| standing)) {
            (Job::Add(_), None) => Some(Reshaping::Add(self.newcomer(place))),
            (Job::Add(_), Some(NodeStanding::Learner)) if self.is_settled(roster) => {
                Some(Reshaping::Promote(node.to_string()))
            }
            (Job::Remove(_), Some(NodeStanding::Leaving)) if self.nodes[place].absent => {
                Some(Reshaping::Forget(node.to_string()))
            }
            (Job::Remove(_), Some(NodeStanding::Voter | NodeStanding::Learner)) => {
                Some(Reshaping::Remove { node: node.to_string(), force: false })
            }
            (Job::Replace(_), _) if !same_life => {
                Some(Reshaping::Replace { node: node.to_string(), by: self.newcomer(place) })
            }
            (Job::Remove(_), None) => return self.finish(),
            (Job::Add(_), Some(NodeStanding::Voter)) | (Job::Replace(_), _) if self.is_settled(roster) => {
                return self.finish();
            }
            _ => None,
        };
        change.map_or(Ok(()), |change| self.reshape(Reshape { change, at_version: Some(roster.version) }))
    }

    fn finish(&mut self) -> Check {
        self.note(|| "operator: done".to_owned());
        self.operator.job = None;
        self.operator.done += 1;
        Ok(())
    }

    fn newcomer(&self, place: Place) -> NewNode {
        let at = |port: u32| format!("node{place}:{port}");
        let node = &self.nodes[place];
        let incarnation = node.incarnation.0;
        NewNode { node: node.id.to_string(), incarnation, client: at(4100), peer: at(4200), http: at(9000) }
    }

    /// Asks some node for a change; nobody waits for the answer.
    fn reshape(&mut self, reshape: Reshape) -> Check {
        let up: Vec<Place> = (0..self.nodes.len()).filter(|place| self.nodes[*place].is_up()).collect();
        if up.is_empty() {
            return Ok(());
        }
        let place = *self.random.pick(&up);
        self.note(|| format!("operator → n{place}: {:?}", reshape.change));
        self.operator.requests += 1;
        let id = RequestId(FIRST_REQUEST + self.operator.requests);
        let node = &mut self.nodes[place];
        node.unanswered.insert(id);
        let deadline_us = node.clock.at(self.schedule.now_us()).mono_us + 1_000_000;
        let request = reshape.into();
        self.handle(place, GroupId(0), Input::Request { id, session: None, deadline_us, request })
    }

    /// Whether every group's members are what the list says, as a leader of it sees them.
    fn is_settled(&self, roster: &Roster) -> bool {
        (0..self.swarm.groups).map(GroupId).all(|group| {
            let want: BTreeSet<ReplicaId> = roster.placement(group, false).into_iter().collect();
            let wish: BTreeSet<ReplicaId> = roster.placement(group, true).into_iter().collect();
            let leads = |replica: &&Replica<R>| replica.raft().is_some_and(|raft| raft.role() == Role::Leader);
            let leaders = self.nodes.iter().filter_map(|node| node.replicas.get(&group)).filter(leads);
            let newest = leaders.filter_map(Replica::raft).max_by_key(|raft| raft.term());
            newest.is_some_and(|raft| {
                let learners: BTreeSet<ReplicaId> = wish.difference(&want).copied().collect();
                let members = raft.membership();
                !raft.change_under_way() && members.voters == want && members.learners == learners
            })
        })
    }

    /// Whether a node hears another, by its list: one that joined later in that life only. Who joins and knows no list yet hears
    /// everyone, in whatever life: those that it was told of may all be gone.
    pub(super) fn lets_in(&self, to: Place, from: Place) -> bool {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let is_new = to.joins && to.roster.version == 0;
        let listed = to.roster.nodes.get(&from.id).map(|listed| listed.incarnation);
        listed.map_or(is_new, |life| life.map_or(is_new || !from.joins, |life| life == from.incarnation))
    }

    /// Whether all that a node knows got other lives while it was away. It hears nobody any more, and has to be replaced itself.
    pub(super) fn is_stranded(&self, place: Place) -> bool {
        let mut others = (0..self.nodes.len()).filter(|other| *other != place && self.nodes[*other].is_up()).peekable();
        others.peek().is_some() && others.all(|other| !self.lets_in(place, other))
    }

    /// A node has heard of a newer list of nodes: it is on disk, and told to all of its replicas.
    pub(super) fn keep_roster(&mut self, place: Place, roster: Roster) -> Check {
        if roster.version <= self.nodes[place].roster.version {
            return Ok(());
        }
        self.note(|| format!("n{place} keeps list {}", roster.version));
        self.nodes[place].roster = roster.clone();
        for group in (0..self.swarm.groups).map(GroupId) {
            self.handle(place, group, Input::Roster(roster.clone()))?;
        }
        Ok(())
    }

    /// A node that the list takes out, and on which no group has a replica, drains, and is gone when nothing on it is dirty.
    fn see_off(&mut self, place: Place) -> Check {
        let node = &self.nodes[place];
        let leaving = node.roster.takes_out(ReplicaId::of(node.id, node.incarnation, node.joins));
        if !leaving || !node.is_up() || node.paused.is_some() {
            return Ok(());
        }
        if node.replicas.values().any(|replica| replica.raft().is_some()) {
            return Ok(());
        }
        if node.replicas.values().all(|replica| replica.agent().is_released()) && node.draining {
            self.stop(place, false);
            self.nodes[place].absent = true;
            return Ok(());
        }
        self.nodes[place].draining = true;
        (0..self.swarm.groups).map(GroupId).try_for_each(|group| self.handle(place, group, Input::Drain))
    }
}

fn name(job: Job) -> &'static str {
    match job {
        Job::Add(_) => "node added",
        Job::Remove(_) => "node removed",
        Job::Replace(_) => "node replaced",
    }
}

fn job_number(job: Job) -> u64 {
    let (Job::Add(place) | Job::Remove(place) | Job::Replace(place)) = job;
    place as u64
}

/// The names of what the operator does, as they stand in [`Report::faults`](super::Report).
pub(crate) const JOBS: [&str; 3] = ["node added", "node removed", "node replaced"];
