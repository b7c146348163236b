//! Where a search begins, and how much may still happen from there.
//!
//! A space of states grows with the product of everything that may happen, so each start is small where its question allows it:
//! it begins after a prefix that is played here like a script, and leaves budgets for what the question is about.

use super::action::Action;
use super::properties::Reached;
use super::world::{Budget, Limits, World};
use crate::ids::NodeId;
use crate::raft::Body;
use crate::raft::tests::cluster::Flight;
use crate::rules::Rules;

/// A place to begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Start {
    /// Three nodes that have never had a leader. Two of them may campaign, and a proposal comes.
    Fresh,
    /// The same, without a proposal; the question before an election travels like any other message.
    PreVotes,
    /// A leader with a committed no-op; disks take their time, and one node crashes.
    SlowDisks,
    /// Nodes vote while disks take their time; one crashes.
    SlowVotes,
    /// Figure 8 (b): node 1 led and left an entry on its own disk alone; node 3 leads, and has one of its own.
    FigureEight,
    /// A follower with a suffix of its own meets the leader of a later term, which has committed something else.
    OldSuffix,
    /// Voters 1, 2, 3 and learners 4, 5, all with the same log. Leader 3 is asked for 3, 4, 5.
    Exchange,
    /// The same; a proposal is on its way when the leader is asked.
    ExchangeBehindProposal,
    /// The same; the leader has the joint entry, nobody else has, and it is asked for more.
    TwoChanges,
    /// Leader 3 has told everyone of the change, and is gone before anyone answered: both majorities are needed to go on.
    JointElection,
    /// Voters 1, 2, 3 and learners 4, 5: a proposal.
    Learners,
    /// Two entries are on their way, and what arrives may arrive again.
    Pipeline,
    /// Node 2 has entries of term 2 that are committed, and a message of the leader before that is still on its way to it.
    LateMessage,
    /// Node 3's disk has not written an entry yet that the leader of a later term has another one for.
    LateWrite,
    /// Node 3 has an entry of its own where the joint entry of the others stands, and hears only now what they have.
    CutByMembership,
    /// A leader hands over, while another node may campaign.
    Transfer,
}

const EXCHANGE: &[(&[usize], &[usize])] = &[(&[3, 4, 5], &[])];

impl Start {
    pub(super) fn limits(self) -> Limits {
        let two = Limits { campaigners: &[1, 2], ..Limits::NONE };
        let old_voter = Limits { campaigners: &[1], ..Limits::NONE };
        match self {
            Self::Fresh => two,
            Self::PreVotes => Limits { pre_votes_travel: true, ..two },
            Self::SlowDisks => Limits { slow_disks: &[1, 2], crashers: &[1, 2], campaigners: &[3], ..Limits::NONE },
            Self::SlowVotes => Limits { slow_disks: &[3], crashers: &[3], ..two },
            Self::FigureEight => Limits { campaigners: &[1, 3], ..Limits::NONE },
            Self::OldSuffix => Limits { campaigners: &[1, 3], ..Limits::NONE },
            Self::Exchange | Self::ExchangeBehindProposal => Limits { changes: EXCHANGE, absent: &[5], ..old_voter },
            Self::TwoChanges => Limits { changes: &[(&[3, 4], &[])], absent: &[5], ..old_voter },
            Self::JointElection => Limits { absent: &[3], ..old_voter },
            Self::Pipeline => Limits { campaigners: &[3], ..Limits::NONE },
            Self::LateMessage => Limits { campaigners: &[1, 2], crashers: &[2], ..Limits::NONE },
            Self::LateWrite => Limits { slow_disks: &[3], crashers: &[3], ..old_voter },
            Self::CutByMembership => Limits { campaigners: &[3], ..Limits::NONE },
            Self::Learners => old_voter,
            Self::Transfer => Limits { campaigners: &[2, 3], ..Limits::NONE },
        }
    }

    pub(super) fn budget(self) -> Budget {
        let none = Budget::default();
        match self {
            Self::Fresh => Budget { timeouts: 2, proposals: 1, ..none },
            Self::PreVotes => Budget { timeouts: 2, ..none },
            Self::SlowDisks => Budget { timeouts: 1, proposals: 1, crashes: 1, ..none },
            Self::SlowVotes => Budget { timeouts: 2, crashes: 1, ..none },
            Self::FigureEight => Budget { timeouts: 2, ..none },
            Self::OldSuffix => Budget { timeouts: 1, heartbeats: 1, silences: 1, ..none },
            Self::Exchange | Self::ExchangeBehindProposal | Self::TwoChanges => {
                Budget { timeouts: 1, changes: 1, ..none }
            }
            Self::JointElection => Budget { timeouts: 1, ..none },
            Self::Pipeline => Budget { timeouts: 1, repeats: 1, ..none },
            Self::LateMessage => Budget { timeouts: 2, crashes: 1, ..none },
            Self::LateWrite => Budget { timeouts: 1, crashes: 1, ..none },
            Self::CutByMembership => Budget { timeouts: 1, heartbeats: 1, ..none },
            Self::Learners => Budget { timeouts: 1, proposals: 1, ..none },
            Self::Transfer => Budget { timeouts: 1, transfers: 1, proposals: 1, ..none },
        }
    }

    /// What a search from here must come by.
    pub(super) fn reaches(self) -> &'static [Reached] {
        match self {
            Self::Fresh => &[Reached::Elected, Reached::TwoLeaders, Reached::Committed],
            Self::PreVotes => &[Reached::Elected, Reached::TwoLeaders],
            Self::SlowDisks => &[Reached::Elected, Reached::Committed],
            Self::SlowVotes => &[Reached::Elected],
            Self::FigureEight => &[Reached::EarlierTermNotCounted, Reached::Elected, Reached::Overwritten],
            Self::OldSuffix => &[Reached::Elected, Reached::Overwritten],
            Self::Exchange => &[Reached::Joint, Reached::JointLeft],
            Self::ExchangeBehindProposal => &[Reached::Joint, Reached::JointLeft, Reached::Committed],
            Self::TwoChanges => &[Reached::Elected],
            Self::JointElection => &[Reached::JointLeader, Reached::Joint, Reached::JointLeft],
            Self::Pipeline => &[Reached::Elected, Reached::Committed],
            Self::LateMessage => &[Reached::Elected, Reached::Overwritten],
            Self::LateWrite => &[Reached::Elected],
            Self::CutByMembership => &[Reached::Overwritten],
            Self::Learners => &[Reached::Committed, Reached::Elected],
            Self::Transfer => &[Reached::HandedOver, Reached::Committed],
        }
    }

    pub(super) fn world<R: Rules>(self) -> World<R> {
        let limits = Limits::NONE;
        let mut world = match self {
            Self::Fresh | Self::PreVotes | Self::SlowVotes => World::new(3, 3),
            Self::SlowDisks | Self::Transfer => {
                let mut world = World::new(3, 3);
                world.elect(&limits, 1);
                world
            }
            Self::FigureEight => figure_eight(),
            Self::OldSuffix => old_suffix(),
            Self::Exchange | Self::Learners => five(),
            Self::ExchangeBehindProposal => {
                let mut world = five();
                world.propose(&limits, 3);
                world.deliver_where(&limits, |_| true);
                world
            }
            Self::JointElection => {
                let mut world = five();
                assert!(world.change(&limits, 3, &[3, 4, 5], &[]), "nothing is in the way");
                world.deliver_where(&limits, |_| true);
                world.flights.clear();
                world
            }
            Self::Pipeline => {
                let mut world = World::new(3, 3);
                world.elect(&limits, 1);
                for proposals in [1, 0] {
                    world.budget.proposals = proposals;
                    world.propose(&limits, 1);
                }
                world
            }
            Self::LateMessage => late_message(),
            Self::LateWrite => late_write(),
            Self::CutByMembership => cut_by_membership(),
            Self::TwoChanges => {
                let mut world = five();
                assert!(world.change(&limits, 3, &[3, 4, 5], &[]), "nothing is in the way");
                world
            }
        };
        world.budget = self.budget();
        let absent = self.limits().absent;
        world.flights.retain(|_, flight| absent.iter().all(|number| NodeId::numbered(*number) != flight.to));
        world
    }
}

/// Node 1 led term 2 and has an entry there that nobody else has; node 3 has just been elected in term 3 by node 2, and all it sent is lost.
fn figure_eight<R: Rules>() -> World<R> {
    let limits = Limits::NONE;
    let mut world = World::new(3, 3);
    world.elect(&limits, 1);
    world.propose(&limits, 1);
    world.flights.clear();
    let without_one = Limits { absent: &[1], ..limits.clone() };
    world.elect_and_lose(&without_one, 3);
    // Node 1 hears of the new term, and of nothing else.
    world.crash(&limits, 1, 0);
    world.campaign(&limits, 1);
    world.flights.clear();
    world
}

/// Node 3 led term 1 and has an entry that nobody else has; node 1 leads term 2 and has committed its own at that index.
fn old_suffix<R: Rules>() -> World<R> {
    let limits = Limits::NONE;
    let mut world = World::new(3, 3);
    world.elect(&limits, 3);
    world.propose(&limits, 3);
    world.flights.clear();
    world.crash(&limits, 3, 0);
    let without_three = Limits { absent: &[3], ..limits };
    world.elect(&without_three, 1);
    world
}

/// Node 1 led term 1, and the append with its last entry is on its way to node 2; nodes 2 and 3 have gone on in term 2 without it.
fn late_message<R: Rules>() -> World<R> {
    let limits = Limits::NONE;
    let mut world = World::new(3, 3);
    world.elect(&limits, 1);
    world.propose(&limits, 1);
    let late = |flight: &Flight| flight.from == NodeId::numbered(1) && flight.to == NodeId::numbered(2);
    world.flights.retain(|_, flight| late(flight));
    let without_one = Limits { absent: &[1], ..limits };
    world.campaign(&without_one, 3);
    while world.deliver_where(&without_one, |flight| !late(flight)) > 0 {}
    assert!(world.leads(3) && world.raft(2).commit() == 2, "term 2 has committed its no-op");
    world
}

/// Node 1 of five led term 1, and its last entry is being written by node 3; node 2 leads term 2 and has committed another one.
fn late_write<R: Rules>() -> World<R> {
    let limits = Limits { slow_disks: &[3], ..Limits::NONE };
    let mut world = World::new(5, 5);
    world.elect(&Limits::NONE, 1);
    world.propose(&limits, 1);
    world.deliver_where(&limits, |flight| flight.to == NodeId::numbered(3));
    world.flights.clear();
    let others = Limits { absent: &[1, 3], ..limits };
    world.elect(&others, 2);
    assert_eq!(world.raft(2).commit(), 2, "term 2 has committed its no-op");
    world.budget.heartbeats = 1;
    let world = world.after(&limits, &Action::Heartbeat(2)).expect("node 2 leads");
    assert_eq!(world.members[2].writes.len(), 1, "the disk of node 3 has not finished");
    world
}

/// Voters 1, 2 and 3, which leads, and learners 4 and 5; all have the same log, and all of it is committed.
fn five<R: Rules>() -> World<R> {
    let limits = Limits::NONE;
    let mut world = World::new(5, 3);
    world.elect(&limits, 3);
    assert!(world.change(&limits, 3, &[1, 2, 3], &[4, 5]), "nothing is in the way");
    world.settle(&limits);
    world
}

/// Node 1 is asked for 1, 4, 5 in place of 1, 2, 3 and tells all but node 3, which is elected by nobody's knowledge of that and
/// leaves an entry of its own there. Node 1 leads again, goes on to the end of the change with 4 and 5, and tells node 3 of its beginning.
fn cut_by_membership<R: Rules>() -> World<R> {
    let limits = Limits::NONE;
    let mut world = World::new(5, 3);
    world.elect(&limits, 1);
    assert!(world.change(&limits, 1, &[1, 2, 3], &[4, 5]), "nothing is in the way");
    world.settle(&limits);
    assert!(world.change(&limits, 1, &[1, 4, 5], &[]), "nothing is in the way");
    world.flights.clear();
    // Node 2 does not know of the change yet, and elects node 3.
    let without_one = Limits { absent: &[1, 4, 5], ..limits.clone() };
    world.elect_and_lose(&without_one, 3);
    // Node 1 hears of the new term in vain, and is elected in the next one by 2, 4 and 5.
    let without_three = Limits { absent: &[3], ..limits.clone() };
    world.crash(&limits, 1, 0);
    world.campaign(&without_three, 1);
    world.campaign(&without_three, 1);
    // Nobody but 4 and 5 is told the end of the change, and node 3 nothing at all.
    let end = |flight: &Flight| match &flight.message.body {
        Body::Append { entries, .. } => {
            entries.iter().any(|it| it.membership.as_ref().is_some_and(|it| !it.is_joint()))
        }
        _ => false,
    };
    let told = |flight: &Flight| !end(flight) || [4, 5].map(NodeId::numbered).contains(&flight.to);
    while world.deliver_where(&without_three, told) > 0 {}
    assert!(world.leads(1) && !world.raft(1).change_under_way(), "the joint state was left");
    world.flights.clear();
    world
}

/// How a prefix is played.
impl<R: Rules> World<R> {
    /// The node's timeout runs out; everything then arrives.
    fn elect(&mut self, limits: &Limits, number: usize) {
        self.campaign(limits, number);
        self.settle(limits);
        assert!(self.leads(number), "node {number} leads");
    }

    /// The node is elected, and what it sends then is lost.
    fn elect_and_lose(&mut self, limits: &Limits, number: usize) {
        self.campaign(limits, number);
        while !self.leads(number) {
            assert!(self.deliver_where(limits, |flight| !matches!(flight.message.body, Body::Append { .. })) > 0);
        }
        self.flights.clear();
    }

    fn leads(&self, number: usize) -> bool {
        self.raft(number).role() == crate::raft::Role::Leader
    }

    fn settle(&mut self, limits: &Limits) {
        while self.deliver_where(limits, |_| true) > 0 {}
    }

    /// What is on its way and wanted arrives; returns how much that was.
    pub(super) fn deliver_where(&mut self, limits: &Limits, wanted: impl Fn(&Flight) -> bool) -> usize {
        let flights = std::mem::take(&mut self.flights);
        let (now, later) = flights.into_iter().partition(|(_, flight)| wanted(flight));
        self.flights = later;
        let now: std::collections::BTreeMap<_, _> = now;
        for flight in now.values() {
            self.deliver(limits, flight);
        }
        now.len()
    }
}
