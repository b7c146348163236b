//! Bringing a group to what the list of nodes says: its leader changes the membership, one step at a time.
//!
//! ```text
//!   what ought to be: Roster::placement          what is: raft's membership
//!     1. who is to vote, or is to learn, and takes no part: a learner
//!     2. all who are to vote do, or have caught up:  this leader stays? ── no ──▶ hand over to one who does
//!                                                       │ yes
//!     3. the voters are exchanged, by way of both majorities; who goes and was a learner goes with it
//!     4. who is not listed any more leaves the bus, when its bus lease has run out
//! ```
//!
//! Nothing here remembers anything: a leader that dies in the middle is followed by one that looks anew.
//!
//! # Invariants
//! - The voters are exchanged only where a majority of the new ones answers: a change must not cost the group its quorum.
//! - A learner that is more than [`LAG_MAX`] entries behind is no voter yet.
//!
//! # Caveats
//! - The log and the state of a replica that was taken away stay on its node's disk until the node is.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache;
use crate::ids::{NodeId, ReplicaId};
use crate::raft::Following;
use crate::record;
use crate::rules::{Rule, Rules};

use super::machine::Command;
use super::message::GroupMessage;
use super::{Replica, Step};

/// Entries that a learner may be behind and become a voter: a fraction of a second of a busy group.
const LAG_MAX: u64 = 1_000;

impl<R: Rules> Replica<R> {
    /// Group 0's leader sees to it that there is a list of nodes; then every node that knows it tells every other, until that one
    /// says so: a node that has just come may not know the leader, which may have come after what it was told to begin with.
    pub(super) fn tend_roster(&mut self, step: &mut Step) {
        let now_us = step.now.mono_us;
        if self.setup.group.0 != 0 {
            return;
        }
        let settled = self.leads() && self.standing(step.now).settled;
        if settled && self.member.machine.roster().version == 0 && now_us >= self.founding_us {
            self.founding_us = now_us + self.setup.timing.resend_us;
            let command = record::encode(&Command::Found(self.setup.roster.clone()));
            // Where it is not taken, the next look proposes it again; the machine takes the first one only.
            let _ = self.member.raft.propose(step.now, command.into());
        }
        let version = self.roster.version;
        for node in self.roster.names() {
            let (known, told_us) = self.told.get(&node).copied().unwrap_or((0, 0));
            if node != self.setup.node && known < version && now_us >= told_us {
                self.told.insert(node, (known, now_us + self.setup.timing.resend_us));
                step.send(node, GroupMessage::Roster(self.roster.clone()));
            }
        }
    }

    /// A list of nodes, from whoever knows a newer one.
    pub(super) fn hear_roster(&mut self, step: &mut Step, roster: super::Roster) {
        if self.know_roster(&roster) {
            step.effects.roster = Some(roster);
        }
    }

    /// Takes a list where it is newer. What follows from it is looked at with the next tick, and until then is not done.
    ///
    /// Whoever joins takes none before the first that names it, in this life: the lists before that are in the log too, and who
    /// would live by them would not let in the nodes that have come since.
    pub(super) fn know_roster(&mut self, roster: &super::Roster) -> bool {
        let own = self.member.raft.replica();
        let waits = self.setup.joins && self.roster.version == 0 && roster.replica(own.node) != Some(own);
        let news = roster.version > self.roster.version && !waits;
        if news {
            self.roster = roster.clone();
            self.acquaint();
            self.change_waits_for = "a look at the new list of nodes".into();
        }
        news
    }

    /// Whoever is listed may lead the group by now: this replica asks them all, if it hears no leader.
    pub(super) fn acquaint(&mut self) {
        self.member.raft.acquaint(self.roster.replicas());
    }

    /// A node says which list it knows.
    pub(super) fn roster_seen(&mut self, from: NodeId, version: u64) {
        let told_us = self.told.get(&from).map_or(0, |(_, told_us)| *told_us);
        self.told.insert(from, (version, told_us));
    }

    /// One step towards what the list says, where one is due.
    pub(super) fn reconcile(&mut self, step: &mut Step) {
        self.change_waits_for.clear();
        if self.roster.version == 0 || !self.leads() || !self.standing(step.now).settled {
            return;
        }
        let raft = &self.member.raft;
        if raft.change_under_way() && !R::without(Rule::ChangeDuringAChange) {
            self.change_waits_for = "both majorities to commit the change".into();
            return;
        }
        if let Err(waits_for) = self.take_step(step) {
            self.change_waits_for = waits_for;
        }
        self.take_off_the_bus(step);
    }

    /// # Errors
    /// What it waits for.
    fn take_step(&mut self, step: &mut Step) -> Result<(), String> {
        let (group, own) = (self.setup.group, self.member.raft.replica());
        let want: BTreeSet<ReplicaId> = self.roster.placement(group, false).into_iter().collect();
        let wish: BTreeSet<ReplicaId> = self.roster.placement(group, true).into_iter().collect();
        let current = self.member.raft.membership().clone();
        let learners: BTreeSet<ReplicaId> =
            want.union(&wish).copied().filter(|id| !current.voters.contains(id)).collect();
        let followers = self.member.raft.followers();
        let followers: BTreeMap<ReplicaId, Following> = followers.into_iter().map(|it| (it.replica, it)).collect();
        let last = self.member.raft.last_index();
        let fit = |id: &ReplicaId| followers.get(id).is_some_and(|it| it.active && it.matched + LAG_MAX >= last);
        if want == current.voters || want.is_empty() {
            return self.change(step, &current.voters, &learners, &current);
        }
        if let Some(late) = want.iter().find(|id| !current.voters.contains(id) && !fit(id)) {
            self.change(step, &current.voters, &learners, &current)?;
            return Err(format!("{late} to catch up"));
        }
        let answering = want.iter().filter(|id| **id == own || followers.get(id).is_some_and(|it| it.active)).count();
        if answering <= want.len() / 2 {
            return Err(format!("a majority of the new voters to answer: {answering} of {} do", want.len()));
        }
        if !want.contains(&own) {
            let stays = |id: &&ReplicaId| current.voters.contains(id) && fit(id);
            if let Some(successor) = want.iter().find(stays) {
                self.member.raft.transfer_to(step.now, successor.node);
                return Err(format!("{successor} to take over the lead"));
            }
        }
        let learners = wish.difference(&want).copied().collect();
        self.change(step, &want, &learners, &current)
    }

    fn change(
        &mut self,
        step: &Step,
        voters: &BTreeSet<ReplicaId>,
        learners: &BTreeSet<ReplicaId>,
        current: &crate::raft::Membership,
    ) -> Result<(), String> {
        let is_on_its_way = current.is_joint() && R::without(Rule::ChangeDuringAChange);
        if (voters, learners) == (&current.voters, &current.learners) && !is_on_its_way {
            return Ok(());
        }
        let changed = self.member.raft.change(step.now, voters.clone(), learners.clone());
        changed.map(drop).map_err(|refusal| refusal.to_string())
    }

    /// A life of a node that is not listed any more is on the bus no longer than its lease: then a new home need not wait for it.
    fn take_off_the_bus(&mut self, step: &mut Step) {
        let member = &self.member;
        let Some(home) = &member.home else { return };
        let listed = |node: &NodeId, incarnation| match self.roster.nodes.get(node) {
            None => false,
            Some(listed) => listed.incarnation.is_none_or(|known| known == incarnation),
        };
        let mut gone = member.machine.memory().members().iter().filter(|(node, life)| !listed(node, **life));
        let Some((node, incarnation)) = gone.find(|(node, _)| !home.has_lease(**node, step.now.mono_us)) else {
            return;
        };
        let active = home.readiness(member.machine.memory(), self.standing(step.now)).is_ok();
        if active && step.now.mono_us >= self.leaving_us {
            self.leaving_us = step.now.mono_us + self.setup.timing.resend_us;
            let command = Command::Bus(cache::Command::Leave { node: *node, incarnation: *incarnation });
            // Where it is not taken, the next look proposes it again.
            let _ = self.member.raft.propose(step.now, record::encode(&command).into());
        }
    }
}
