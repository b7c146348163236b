//! Where a search begins, and how much may still happen from there.
//!
//! A space of states grows with the product of everything that may happen, so each start is small where its question allows it:
//! it begins after a prefix that is played here like a script, and leaves budgets for what the question is about.

use std::collections::BTreeMap;

use super::action::Action;
use super::properties::Reached;
use super::world::{Budget, Flight, LEASE_US, Limits, RETRY_US, Want, World};
use crate::cache::{BusMessage, ToHome, ToNode};
use crate::ids::NodeId;
use crate::rules::Rules;

/// A place to begin at. Node 1 is the home; the key has been written and is in main memory, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Start {
    /// Nodes 2 and 3 share the line. Both may write and read it.
    Sharers,
    /// Node 1 has the only line; node 2 reads while node 1 writes, and what arrives may arrive again.
    Refill,
    /// Node 2 owns the line, and has written what main memory lacks. Others read and write it.
    Modified,
    /// Node 2 is being granted the line, and node 3 wants to write it too.
    Grant,
    /// Nodes 2 and 3 share the line, while time passes and leases are renewed or not.
    Lapse,
    /// Node 2 has a copy, and its lease has just been renewed by an answer that is on its way.
    LateRenewal,
    /// Node 2 is being granted the line under a lease that is about to run out.
    LateGrant,
    /// Node 2 owns the line, has written what main memory lacks, and its lease is about to run out.
    OwnerAway,
    /// The same without that; it may crash in the midst of anything.
    Crash,
    /// The same; it may lose its disk.
    Wiped,
    /// The same; it has lost its disk, and is about to come back.
    Replaced,
    /// Nodes 2 and 3 share the line, and another home is elected.
    Failover,
    /// Node 2 owns the line, has written what main memory lacks, and may crash; another home is elected.
    Inherited,
    /// A write is in the log and not committed when another home is elected.
    Survivor,
    /// The home is elected again, and a registration at the one before is still on its way.
    Reelected,
    /// Node 2 is about to get its first lease when the home is elected again.
    Joining,
    /// Another home is elected, and has not applied what was committed before.
    Lagging,
    /// Two nodes, two keys; node 2 owns both, and has room for one.
    Cramped,
    /// Two nodes, two keys.
    TwoKeys,
    /// A key is deleted and written anew.
    Deleted,
    /// Entries do not get into the log.
    Refused,
    /// Node 2 owns the line, and is told to go.
    Drained,
}

impl Start {
    pub(super) fn limits(self) -> Limits {
        let none = Limits::NONE;
        let two = Limits { absent: &[3], ..none.clone() };
        let keys = Limits { nodes: 2, keys: 2, ..none.clone() };
        match self {
            Self::Sharers => Limits { readers: &[2], writers: &[2, 3], ..none },
            Self::Refill => Limits { readers: &[2], writers: &[1], ..two },
            Self::Modified => Limits { readers: &[3], writers: &[2, 3], ..none },
            Self::Grant => Limits { readers: &[1, 3], writers: &[3], ..none },
            Self::Lapse => Limits { readers: &[2], writers: &[1], renews: &[1, 2], ..two },
            Self::LateRenewal => Limits { readers: &[2], writers: &[1], renews: &[1, 2], ..two },
            Self::LateGrant => Limits { readers: &[2], writers: &[1], renews: &[1, 3], ..two },
            Self::OwnerAway => Limits { readers: &[1], writers: &[1, 2], renews: &[1, 3], ..two },
            Self::Crash => Limits { readers: &[1], writers: &[2], crashers: &[2], ..two },
            Self::Wiped => Limits { readers: &[1], writers: &[1], crashers: &[2], ..two },
            Self::Replaced => Limits { readers: &[1], writers: &[1], renews: &[1], ..two },
            Self::Failover => Limits { readers: &[2], writers: &[3], electable: &[3], still: &[1], ..none },
            Self::Inherited => {
                Limits { readers: &[3], writers: &[2], electable: &[3], crashers: &[2], still: &[1], ..none }
            }
            Self::Survivor => Limits { readers: &[3], electable: &[3], still: &[1], ..none },
            Self::Reelected => Limits { writers: &[1], electable: &[1], still: &[2], ..none },
            Self::Joining => Limits { readers: &[2], writers: &[1], electable: &[1], ..two },
            Self::Lagging => Limits { readers: &[3], electable: &[3], lags: true, ..none },
            Self::Cramped => Limits { readers: &[1], writers: &[1, 2], cramped: true, ..keys },
            Self::TwoKeys => Limits { readers: &[1, 2], writers: &[1, 2], ..keys },
            Self::Deleted => Limits { readers: &[2, 3], writers: &[2, 3], ..none },
            Self::Refused => Limits { readers: &[3], writers: &[2, 3], ..none },
            Self::Drained => Limits { writers: &[3], crashers: &[2], electable: &[3], still: &[1], ..none },
        }
    }

    pub(super) fn budget(self) -> Budget {
        let none = Budget::default();
        match self {
            Self::Sharers => Budget { writes: 2, reads: 1, repeats: 1, ..none },
            Self::Refill => Budget { writes: 2, reads: 3, repeats: 1, ..none },
            Self::Modified => Budget { writes: 2, reads: 1, write_backs: 1, ..none },
            Self::Grant => Budget { writes: 1, reads: 1, repeats: 1, expires: 1, ..none },
            Self::Lapse => Budget { writes: 1, reads: 1, advances: 3, ..none },
            Self::LateRenewal => Budget { writes: 1, reads: 1, advances: 2, ..none },
            Self::LateGrant => Budget { writes: 1, reads: 1, advances: 2, ..none },
            Self::OwnerAway => Budget { writes: 1, reads: 1, advances: 2, ..none },
            Self::Crash => Budget { writes: 1, reads: 1, advances: 1, crashes: 1, ..none },
            Self::Wiped => Budget { writes: 1, reads: 1, advances: 2, wipes: 1, ..none },
            Self::Replaced => Budget { writes: 1, reads: 1, advances: 1, ..none },
            Self::Failover => Budget { writes: 1, reads: 1, advances: 1, failovers: 1, ..none },
            Self::Inherited => Budget { writes: 1, reads: 1, advances: 1, failovers: 1, crashes: 1, ..none },
            Self::Survivor => Budget { reads: 1, advances: 1, failovers: 1, ..none },
            Self::Reelected => Budget { writes: 1, advances: 1, failovers: 1, ..none },
            Self::Joining => Budget { writes: 1, reads: 1, advances: 1, failovers: 1, ..none },
            Self::Lagging => Budget { reads: 1, advances: 1, failovers: 1, ..none },
            Self::Cramped => Budget { writes: 2, reads: 1, ..none },
            Self::TwoKeys => Budget { writes: 2, reads: 2, repeats: 1, ..none },
            Self::Deleted => Budget { writes: 1, deletes: 1, reads: 1, ..none },
            Self::Refused => Budget { writes: 1, reads: 1, refusals: 1, advances: 1, ..none },
            Self::Drained => Budget { writes: 1, advances: 1, failovers: 1, drains: 1, ..none },
        }
    }

    /// What a search from here must come by.
    pub(super) fn reaches(self) -> &'static [Reached] {
        match self {
            Self::Sharers => &[Reached::Answered, Reached::Owned, Reached::Poisoned, Reached::Shared],
            Self::Refill => &[Reached::Answered, Reached::Poisoned, Reached::Shared],
            Self::Modified => &[Reached::Answered, Reached::Leaving, Reached::Shared],
            Self::Grant => &[Reached::Answered, Reached::Leaving],
            Self::Lapse | Self::LateRenewal | Self::LateGrant => &[Reached::LeasedAnew, Reached::Answered],
            Self::OwnerAway => &[Reached::LeasedAnew, Reached::Answered, Reached::Leaving, Reached::Refused],
            Self::Crash => &[Reached::LeasedAnew, Reached::Leaving],
            Self::Wiped | Self::Replaced => &[Reached::LeasedAnew],
            Self::Failover | Self::Reelected | Self::Joining => &[Reached::WrittenAnew],
            Self::Inherited => &[Reached::Leaving, Reached::LeasedAnew],
            Self::Survivor | Self::Lagging => &[Reached::Answered],
            Self::Cramped => &[Reached::Leaving, Reached::Answered],
            Self::TwoKeys => &[Reached::Answered, Reached::Shared],
            Self::Deleted | Self::Refused => &[Reached::Answered],
            Self::Drained => &[Reached::Gone],
        }
    }

    pub(super) fn world<R: Rules>(self) -> World<R> {
        let limits = self.limits();
        let mut world = match self {
            Self::Joining => joining(&limits),
            _ => stored(&limits),
        };
        match self {
            Self::Sharers | Self::Lapse | Self::Failover | Self::Survivor | Self::Reelected => {
                world.serve(&limits, 2, Want::Read);
                world.serve(&limits, 3, Want::Read);
            }
            Self::LateRenewal => {
                world.serve(&limits, 2, Want::Read);
                world.advance(world.now_us + RETRY_US);
                world.tick(2);
                world.deliver_where(|flight| flight.from == 2);
            }
            Self::Replaced => {
                world.write(&limits, 2);
                world.write(&limits, 2);
                world.wipe(&limits, 2);
                world.flights.clear();
                world.others_renew(2);
                world.advance(world.now_us + RETRY_US);
            }
            Self::Modified
            | Self::OwnerAway
            | Self::Crash
            | Self::Wiped
            | Self::Inherited
            | Self::Cramped
            | Self::Drained => {
                world.write(&limits, 2);
                world.write(&limits, 2);
            }
            Self::Lagging => world.write(&limits, 2),
            Self::Grant | Self::LateGrant => {
                world.begin_write(2);
                world.take(&limits, &Action::Commit);
            }
            Self::TwoKeys | Self::Deleted | Self::Refused => world.serve(&limits, 2, Want::Read),
            Self::Joining | Self::Refill => {}
        }
        match self {
            Self::Survivor => world.begin_write(2),
            Self::LateGrant | Self::OwnerAway => world.others_renew(2),
            Self::Reelected => world.old_registration(2),
            _ => {}
        }
        world.budget = self.budget();
        world
    }
}

/// Everybody has a lease, and the key is in main memory; its last writer has the only line.
fn stored<R: Rules>(limits: &Limits) -> World<R> {
    let mut world = World::new(limits);
    assert!(world.goes_on(limits, World::is_up), "everybody has a lease");
    world.write(limits, 1);
    world.serve(limits, 1, Want::WriteBack);
    world
}

/// Node 1 alone is on the bus; node 2 has just asked for its first lease.
fn joining<R: Rules>(limits: &Limits) -> World<R> {
    let mut world = World::new(limits);
    world.flights.clear();
    while world.nodes[0].agent.valid_tag(world.now_us).is_none() {
        world.settle(limits);
        world.advance(world.now_us + RETRY_US);
        world.tick(1);
    }
    world.write(limits, 1);
    world.serve(limits, 1, Want::WriteBack);
    world.tick(2);
    assert_eq!(world.flights.len(), 1, "it asks");
    world
}

/// How a prefix is played.
impl<R: Rules> World<R> {
    /// A client asks and is answered.
    fn serve(&mut self, limits: &Limits, at: usize, want: Want) {
        let done = self.seen.done;
        self.ask(at, 0, want);
        self.settle(limits);
        assert_eq!(self.seen.done, done + 1, "it is answered");
    }

    fn write(&mut self, limits: &Limits, at: usize) {
        self.serve(limits, at, Want::Write(Some(self.value())));
    }

    /// A write is in the log, and not committed.
    fn begin_write(&mut self, at: usize) {
        self.ask(at, 0, Want::Write(Some(self.value())));
        self.deliver_where(|flight| flight.from == at);
        assert_eq!(self.present().log.len(), 1, "it is in the log");
    }

    /// The lease of that node is about to run out, the others have renewed theirs.
    fn others_renew(&mut self, at: usize) {
        let end_us = self.present().ends_us[&NodeId::numbered(at)];
        while self.now_us + RETRY_US < end_us {
            self.advance(self.now_us + RETRY_US);
            (1..=self.nodes.len()).filter(|other| *other != at).for_each(|other| self.tick(other));
            let renews = |flight: &Flight| {
                matches!(
                    flight.message,
                    BusMessage::ToHome(ToHome::Renew { .. }) | BusMessage::ToNode(ToNode::Renewed { .. })
                )
            };
            while self.deliver_where(renews) > 0 {}
        }
    }

    /// A copy of the registration that the node has its lease from is still on its way.
    fn old_registration(&mut self, at: usize) {
        let node = &self.nodes[at - 1];
        let (incarnation, round) = (node.incarnation, node.lease_us - LEASE_US);
        let message = BusMessage::ToHome(ToHome::Register { incarnation, round, home: 1 });
        self.send(Flight { from: at, to: 1, message });
    }

    /// What is on its way and wanted arrives; returns how much that was.
    fn deliver_where(&mut self, wanted: impl Fn(&Flight) -> bool) -> usize {
        let flights = std::mem::take(&mut self.flights);
        let (now, later): (BTreeMap<_, _>, BTreeMap<_, _>) = flights.into_iter().partition(|(_, it)| wanted(it));
        self.flights = later;
        for flight in now.values() {
            self.deliver(flight);
        }
        now.len()
    }
}
