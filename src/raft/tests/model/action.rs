//! What can happen in a state, and what follows from it.
//!
//! Whatever an action does goes through the replica's own functions, the same that the server calls, followed by its `ready()`. An action that
//! changes nothing leads nowhere, so that it makes no state: a message that is ignored is as good as lost.

use std::fmt;
use std::sync::Arc;

use super::world::{Budget, ELECTION_US, HEARTBEAT_US, Limits, World};
use crate::ids::{NodeId, Now};
use crate::raft::Role;
use crate::raft::tests::cluster::Flight;
use crate::raft::tests::trace;
use crate::rules::Rules;

/// Something that can happen.
#[derive(Clone, PartialEq)]
pub(super) enum Action {
    /// A message arrives.
    Deliver(u64, Arc<Flight>),
    /// A message arrives, and will once more.
    Repeat(u64, Arc<Flight>),
    /// A write is durable.
    Sync(usize),
    /// Silence: the election timeout of that node runs out. Others have promised their votes to nobody any more.
    Timeout(usize),
    /// A leader has heard nothing for longer than an election timeout.
    Silence(usize),
    Heartbeat(usize),
    Propose(usize),
    /// A node stops and starts again; that many of its writes had reached the disk.
    Crash(usize, usize),
    /// The next membership is asked for.
    Change(usize),
    /// Leadership is to go to the second node.
    Transfer(usize, usize),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flight = |flight: &Flight| {
            let Flight { from, to, message } = flight;
            let text = trace::message(message, 0);
            format!("n{} → n{} {text}", trace::number(*from), trace::number(*to))
        };
        match self {
            Action::Deliver(_, message) => write!(f, "{}", flight(message)),
            Action::Repeat(_, message) => write!(f, "{}, and again", flight(message)),
            Action::Sync(at) => write!(f, "n{at} a write is durable"),
            Action::Timeout(at) => write!(f, "n{at} election timeout"),
            Action::Silence(at) => write!(f, "n{at} hears nobody"),
            Action::Heartbeat(at) => write!(f, "n{at} heartbeat"),
            Action::Propose(at) => write!(f, "n{at} is given a proposal"),
            Action::Crash(at, synced) => write!(f, "n{at} crashes and starts, writes durable: {synced}"),
            Action::Change(at) => write!(f, "n{at} is asked for a change"),
            Action::Transfer(at, to) => write!(f, "n{at} hands over to n{to}"),
        }
    }
}

impl<R: Rules> World<R> {
    /// What follows, or None where nothing does.
    pub(super) fn after(&self, limits: &Limits, action: &Action) -> Option<Self> {
        let mut world = self.clone();
        let happened = match action {
            Action::Deliver(digest, flight) => {
                world.flights.remove(digest);
                world.deliver(limits, flight)
            }
            Action::Repeat(_, flight) => {
                world.budget.repeats -= 1;
                world.deliver(limits, flight)
            }
            Action::Sync(at) => {
                let now = Now { mono_us: self.members[at - 1].now_us, wall_ms: 0 };
                Arc::make_mut(&mut world.members[at - 1]).sync(now);
                world.act(limits, *at, |_, _| true)
            }
            Action::Timeout(at) => {
                world.budget.timeouts -= 1;
                world.campaign(limits, *at);
                true
            }
            Action::Silence(at) => {
                world.budget.silences -= 1;
                Arc::make_mut(&mut world.members[at - 1]).now_us += ELECTION_US + 1;
                world.act(limits, *at, |raft, now| raft.tick(now));
                true
            }
            Action::Heartbeat(at) => {
                world.budget.heartbeats -= 1;
                Arc::make_mut(&mut world.members[at - 1]).now_us += HEARTBEAT_US;
                world.act(limits, *at, |raft, now| raft.tick(now));
                true
            }
            Action::Propose(at) => {
                world.budget.proposals -= 1;
                world.propose(limits, *at)
            }
            Action::Crash(at, synced) => {
                world.budget.crashes -= 1;
                world.crash(limits, *at, *synced);
                true
            }
            Action::Change(at) => {
                world.budget.changes -= 1;
                let (voters, learners) = limits.changes[usize::from(world.budget.changes)];
                world.change(limits, *at, voters, learners)
            }
            Action::Transfer(at, to) => {
                world.budget.transfers -= 1;
                let before = world.members[at - 1].digest;
                world.act(limits, *at, |raft, now| raft.transfer_to(now, NodeId::numbered(*to)));
                world.members[at - 1].digest != before
            }
        };
        world.lose_stale();
        happened.then_some(world)
    }

    /// Everything that can happen next.
    pub(super) fn actions(&self, limits: &Limits, actions: &mut Vec<Action>) {
        let Budget { timeouts, silences, heartbeats, proposals, crashes, repeats, transfers, changes } = self.budget;
        for (digest, flight) in &self.flights {
            actions.push(Action::Deliver(*digest, Arc::clone(flight)));
            if repeats > 0 {
                actions.push(Action::Repeat(*digest, Arc::clone(flight)));
            }
        }
        for at in (1..=self.members.len()).filter(|at| !limits.absent.contains(at)) {
            let member = &self.members[at - 1];
            let leads = member.raft.role() == Role::Leader;
            let mut allow = |allowed: bool, action: Action| {
                if allowed {
                    actions.push(action);
                }
            };
            allow(!member.writes.is_empty(), Action::Sync(at));
            let campaigns = limits.campaigners.contains(&at) && member.raft.node.votes();
            allow(timeouts > 0 && !leads && campaigns, Action::Timeout(at));
            allow(silences > 0 && leads, Action::Silence(at));
            allow(heartbeats > 0 && leads, Action::Heartbeat(at));
            allow(proposals > 0 && leads, Action::Propose(at));
            allow(changes > 0 && leads, Action::Change(at));
            for synced in 0..=member.writes.len() {
                allow(crashes > 0 && limits.crashers.contains(&at), Action::Crash(at, synced));
            }
            for to in (1..=self.members.len()).filter(|to| *to != at) {
                allow(transfers > 0 && leads, Action::Transfer(at, to));
            }
        }
    }
}
