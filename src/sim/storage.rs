//! Nodes whose disks fail: which errors stop a process for a while, and which for good.
//!
//! An error that the seed asked for stops the node at once, and it is started again later from what is durable. A start that
//! finds damage is the end of the node: it could have forgotten a vote, so it stays down, and the others have to do without it. Bits
//! flip on so few nodes that every group can.

use std::collections::BTreeMap;

use trine_protocol::Request;

use super::checker::{Check, Operation};
use super::cluster::{Cluster, Event, Repair};
use super::network::Place;
use crate::ids::GroupId;
use crate::node::Replica;
use crate::rules::Rules;
use crate::storage::{Failing, Recovered, StorageError};

impl<R: Rules> Cluster<R> {
    /// What a node finds on its disk when its process starts; None where it does not start.
    pub(crate) fn recover(&mut self, place: Place) -> Result<Option<BTreeMap<GroupId, Recovered>>, String> {
        let started = self.nodes[place].disk.start(self.swarm.groups);
        match started {
            Ok(recovered) => {
                self.nodes[place].disk.is_rotten = false;
                Ok(Some(recovered))
            }
            Err(error) => self.disk_failed(place, &error).map(|()| None),
        }
    }

    /// An error of a disk ends the process; one that nobody asked for is a finding.
    pub(crate) fn disk_failed(&mut self, place: Place, error: &StorageError) -> Check {
        let disk = &mut self.nodes[place].disk;
        let damaged = matches!(error, StorageError::Corrupt { .. }) && disk.is_rotten;
        let refused = matches!(error, StorageError::Io { .. }) && disk.is_failing();
        if !damaged && !refused {
            return Err(format!("the disk of node {place}: {error}"));
        }
        self.record(&[11, place as u64, u64::from(damaged)], || format!("n{place} ends: {error}"));
        if self.nodes[place].is_up() {
            let power = self.random.chance(300);
            self.stop(place, power);
        }
        self.nodes[place].disk.mend();
        if damaged {
            self.nodes[place].lost = true;
            return Ok(());
        }
        self.start_later(place);
        Ok(())
    }

    /// A write or a sync of the node's disk will fail.
    pub(crate) fn fail_disk(&mut self, place: Place) {
        let failing = *self.random.pick(&[Failing::Write, Failing::Sync, Failing::Sync, Failing::State]);
        self.note(|| format!("n{place}: {failing:?} will fail"));
        self.nodes[place].disk.fail(failing);
    }

    /// The node's disk has no room for a while.
    pub(crate) fn fill_disk(&mut self, place: Place) {
        self.nodes[place].disk.fill();
        let delay_us = self.random.between(200_000, 3_000_000);
        self.schedule.after(delay_us, Event::Repair(Repair::Room { place }));
    }

    /// The power goes, and a bit of what is durable flips, where the groups can do without the node.
    pub(crate) fn rot(&mut self, place: Place) {
        if !self.may_lose(place) {
            return;
        }
        self.crash(place, true);
        if self.nodes[place].disk.rot(&mut self.random) {
            self.note(|| format!("n{place}: a bit flips"));
        }
    }

    /// Whether every group keeps a majority of sound voters without that node.
    fn may_lose(&self, place: Place) -> bool {
        let count = self.nodes.len();
        let voters = count.min(self.swarm.replicas);
        let unsound = |at: Place| at == place || self.nodes[at].lost || self.nodes[at].disk.is_rotten;
        (0..self.swarm.groups as usize).all(|group| {
            let lost = (0..voters).filter(|offset| unsound((group + offset) % count)).count();
            2 * lost < voters
        })
    }

    /// Whether the newest value of the key that is asked for is on a disk that is lost.
    pub(crate) fn owner_is_lost(&self, operation: &Operation) -> bool {
        let Request::Get(get) = &operation.request else { return false };
        let machines =
            self.nodes.iter().filter_map(|node| node.replicas.get(&operation.group).and_then(Replica::machine));
        let mut owners = machines.filter_map(|machine| machine.memory().owner(&get.key));
        let is_lost = |life| move |node: &crate::sim::node::Node<R, Event>| node.lost || node.incarnation != life;
        owners.any(|owner| self.nodes.iter().filter(|node| node.id == owner.node).any(is_lost(owner.incarnation)))
    }
}
