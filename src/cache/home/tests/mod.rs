//! What a home answers about leases, step by step.

mod behind;
mod operations;

use super::*;
use crate::cache::memory::Own;
use crate::cache::{Committed, Snooped};
use crate::ids::At;
use crate::rules::Faithful;

const LIFE: Incarnation = Incarnation(2);

/// A home, and the log that it proposes to, which commits at once.
struct Scene {
    home: Home<Faithful>,
    memory: Memory,
    now_us: u64,
    index: Index,
}

impl Scene {
    fn new() -> Self {
        let now_us = 10_000_000;
        let home = Home::new(NodeId::numbered(0), 1, Config::default(), now_us);
        Self { home, memory: Memory::default(), now_us, index: 0 }
    }

    fn standing(&self) -> Standing {
        Standing { now_us: self.now_us, leader_until_us: Some(u64::MAX), settled: true, log_ms: 0, redis: Redis::None }
    }

    /// Gives the home a message of node 1, and commits what it proposes unless the log stands still.
    fn says(&mut self, message: ToHome, commits: bool) -> (Vec<ToNode>, Vec<Proposal>) {
        let (standing, mut out) = (self.standing(), HomeOut::default());
        self.home.handle(NodeId::numbered(1), message, &self.memory, standing, &mut out);
        let proposed = std::mem::take(&mut out.propose);
        let mut said: Vec<ToNode> = out.to_node.into_iter().map(|(_, message)| message).collect();
        if commits {
            said.extend(proposed.iter().flat_map(|proposal| self.commit(proposal)).collect::<Vec<_>>());
        }
        (said, proposed)
    }

    fn commit(&mut self, proposal: &Proposal) -> Vec<ToNode> {
        let applied = self.apply(proposal);
        self.hears(proposal, Committed::Applied(applied))
    }

    fn apply(&mut self, proposal: &Proposal) -> Applied {
        self.index += 1;
        let at = At { index: self.index, stamp_ms: 0, wall_ms: 0, generation: 0 };
        let applied = self.memory.apply(at, &proposal.command);
        self.memory.advance(self.index);
        applied
    }

    /// Tells the home what became of a proposal.
    fn hears(&mut self, proposal: &Proposal, committed: Committed) -> Vec<ToNode> {
        let (standing, mut out) = (self.standing(), HomeOut::default());
        self.home.committed(proposal, committed, &self.memory, standing, &mut out);
        out.to_node.into_iter().map(|(_, message)| message).collect()
    }

    /// Time passes, in the log to that instant.
    fn ticks(&mut self, log_ms: u64) -> (Vec<ToNode>, Vec<Proposal>) {
        let (standing, mut out) = (Standing { log_ms, ..self.standing() }, HomeOut::default());
        self.home.tick(&self.memory, standing, &mut out);
        (out.to_node.into_iter().map(|(_, message)| message).collect(), out.propose)
    }

    fn registration(&self, incarnation: Incarnation, round: u64) -> ToHome {
        ToHome::Register { incarnation, round, home: self.home.term() }
    }

    /// Node 1 asks for a lease until it is on the bus.
    fn registers(&mut self, round: u64) -> Option<LeaseTag> {
        for _ in 0..2 {
            let (said, _) = self.says(self.registration(LIFE, round), true);
            if let [ToNode::Registered { tag, .. }] = said[..] {
                return Some(tag);
            }
        }
        None
    }
}

#[test]
fn a_home_says_what_it_waits_for() {
    let mut scene = Scene::new();
    assert_eq!(scene.home.readiness(&scene.memory, scene.standing()), Ok(()), "nobody is on the bus");
    scene.registers(1).expect("a lease");
    scene.home = Home::new(NodeId::numbered(0), 2, Config::default(), scene.now_us);
    let unsettled = Standing { settled: false, ..scene.standing() };
    let why = scene.home.readiness(&scene.memory, unsettled).unwrap_err();
    assert!(why.contains("has not applied"), "{why}");
    let why = scene.home.readiness(&scene.memory, scene.standing()).unwrap_err();
    assert!(why.contains("waits for the bus leases"), "{why}");
    scene.now_us += Config::default().home_lease_us();
    assert_eq!(scene.home.readiness(&scene.memory, scene.standing()), Ok(()));
}

#[test]
fn who_leaves_the_bus_is_waited_for_by_no_write_and_no_later_home() {
    let mut scene = Scene::new();
    let tag = scene.registers(1).expect("a lease");
    let node = NodeId::numbered(1);
    let other = LeaseTag { number: tag.number + 1, ..tag };
    for (incarnation, tag) in [(LIFE, other), (Incarnation(3), tag)] {
        let (_, proposed) = scene.says(ToHome::Leave { incarnation, tag }, true);
        assert!(proposed.is_empty() && scene.home.has_lease(node, scene.now_us), "another lease, another life");
    }
    let (_, proposed) = scene.says(ToHome::Leave { incarnation: LIFE, tag }, false);
    assert!(!scene.home.has_lease(node, scene.now_us), "it serves nothing any more");
    assert_eq!(scene.says(ToHome::Renew { tag, round: 2 }, true).0, [ToNode::Lapsed { tag }]);
    assert_eq!(scene.registers(5), None, "not while the log is about to say that it is not on the bus");
    scene.commit(&proposed[0]);
    assert!(scene.memory.members().is_empty());
    let next = Home::<Faithful>::new(NodeId::numbered(0), 2, Config::default(), scene.now_us);
    assert_eq!(next.readiness(&scene.memory, scene.standing()), Ok(()), "the next home waits for nobody");
    assert_eq!(scene.registers(1), None, "a late copy of its registration");
    assert!(scene.memory.members().is_empty(), "and the next home does not wait for it either");
    assert!(scene.registers(6).is_some_and(|tag| tag.number > other.number - 1), "its process was started anew");
}

#[test]
fn a_machine_that_counts_from_the_beginning_again_gets_a_lease_when_the_old_one_has_run_out() {
    let mut scene = Scene::new();
    scene.registers(1_000).expect("a lease");
    assert_eq!(scene.registers(3), None, "as good as a late message");
    scene.now_us += Config::default().home_lease_us();
    let tag = scene.registers(3).expect("nothing depends on the old one");
    scene.says(ToHome::Leave { incarnation: LIFE, tag }, true);
    assert_eq!(scene.registers(2), None);
    scene.now_us += Config::default().home_lease_us();
    assert!(scene.registers(2).is_some());
}

/// Writes a key as node 1, to the end.
fn writes(scene: &mut Scene, tag: LeaseTag, sequence: u64, value: &'static str) -> Vec<ToNode> {
    let write = WriteId { session: 1, sequence };
    let (key, change, held) = ("k".to_owned(), Change::put(value.into()), LineState::I);
    let message = ToHome::BusRdX { request: sequence, write, acked_below: 0, key, change, held, tag, again: false };
    scene.says(message, true).0
}

fn reads(scene: &mut Scene, request: u64, tag: LeaseTag) -> Vec<ToNode> {
    scene.says(ToHome::BusRd { request, key: "k".into(), tag }, true).0
}

#[test]
fn a_renewed_lease_runs_out_too() {
    let mut scene = Scene::new();
    let tag = scene.registers(1).expect("a lease");
    scene.now_us += 500_000;
    assert_eq!(scene.says(ToHome::Renew { tag, round: 2 }, true).0, [ToNode::Renewed { tag, round: 2 }]);
    scene.now_us += Config::default().home_lease_us() - 1;
    assert!(scene.home.has_lease(NodeId::numbered(1), scene.now_us));
    scene.now_us += 1;
    assert!(!scene.home.has_lease(NodeId::numbered(1), scene.now_us));
}

#[test]
fn another_life_gets_no_lease_while_the_one_before_may_serve() {
    let mut scene = Scene::new();
    scene.registers(1).expect("a lease");
    let other = |scene: &mut Scene, round| scene.says(scene.registration(Incarnation(9), round), true);
    assert_eq!(other(&mut scene, 50), (vec![], vec![]), "this home gave the other life a lease");
    scene.home = Home::new(NodeId::numbered(0), 2, Config::default(), scene.now_us);
    assert_eq!(other(&mut scene, 50), (vec![], vec![]), "the home before did");
    scene.now_us += Config::default().home_lease_us();
    assert_eq!(other(&mut scene, 51).1.len(), 1, "that has run out: it joins");
}

#[test]
fn a_reader_waits_for_the_owner_and_the_owner_is_asked() {
    let mut scene = Scene::new();
    let tag = scene.registers(1).expect("a lease");
    writes(&mut scene, tag, 1, "v");
    let owner = scene.memory.owner("k").copied().expect("node 1 owns it");
    let said = reads(&mut scene, 2, tag);
    let [ToNode::SnoopRd { transaction, owner: Some(mark), .. }] = &said[..] else { panic!("{said:?}") };
    assert_eq!(*mark, owner.mark());
    let (key, snooped) = ("k".to_owned(), Snooped::Clean);
    let ack = ToHome::SnoopAck { request: 3, transaction: *transaction, key, tag, snooped, incarnation: LIFE };
    let (_, proposed) = scene.says(ack, true);
    assert_eq!(proposed.len(), 1, "the end of the ownership");
    assert!(scene.memory.owner("k").is_none());
}

#[test]
fn a_registration_at_the_home_before_does_not_end_the_silence_of_the_next() {
    let mut scene = Scene::new();
    let late = scene.registration(LIFE, 1);
    scene.registers(1).expect("a lease");
    scene.home = Home::new(NodeId::numbered(0), 2, Config::default(), scene.now_us);
    let here = ToNode::NotHome { leader: Some(NodeId::numbered(0)), term: 2 };
    assert_eq!(scene.says(late, true), (vec![here], vec![]), "its lines may hang on what it was given then");
    assert!(scene.home.readiness(&scene.memory, scene.standing()).is_err());
    scene.registers(2).expect("a lease");
    assert_eq!(scene.home.readiness(&scene.memory, scene.standing()), Ok(()));
}

#[test]
fn an_owner_that_lost_its_disk_does_not_say_that_nothing_was_lost() {
    let mut scene = Scene::new();
    let tag = scene.registers(1).expect("a lease");
    writes(&mut scene, tag, 1, "v");
    let said = reads(&mut scene, 2, tag);
    let [ToNode::SnoopRd { transaction, .. }] = &said[..] else { panic!("{said:?}") };
    // The snoop is late: when it arrives, another life of the node has a lease.
    scene.now_us += Config::default().home_lease_us();
    let other = Incarnation(9);
    scene.says(scene.registration(other, 50), true);
    let (given, _) = scene.says(scene.registration(other, 51), true);
    let [ToNode::Registered { tag, .. }] = given[..] else { panic!("{given:?}") };
    let (key, snooped) = ("k".to_owned(), Snooped::Clean);
    let ack = ToHome::SnoopAck { request: 1, transaction: *transaction, key, tag, snooped, incarnation: other };
    assert_eq!(scene.says(ack, true), (vec![], vec![]));
    assert!(scene.memory.owner("k").is_some(), "the first life may have written more, on its own disk");
}

#[test]
fn main_memory_takes_what_it_has_room_for_and_refuses_the_rest() {
    let mut scene = Scene::new();
    let config = Config { memory_bytes_max: 10, ..Config::default() };
    scene.home = Home::new(NodeId::numbered(0), 1, config, scene.now_us);
    let tag = scene.registers(1).expect("a lease");
    let refused =
        |said: &[ToNode]| matches!(said, [ToNode::WriteFailed { error, .. }] if error.code == ErrorCode::Overloaded);
    let full = writes(&mut scene, tag, 1, "0123456789");
    assert!(refused(&full), "eleven bytes: {full:?}");
    let fits = writes(&mut scene, tag, 2, "012345678");
    assert!(!refused(&fits), "ten: {fits:?}");
    assert_eq!(scene.memory.bytes(), 10);
    // What takes the place of a value needs no more room than it has over that.
    for (request, value) in [(3, "876543210"), (5, "9876543210"), (7, "0")] {
        let epoch = scene.memory.owner("k").expect("node 1 owns it").epoch;
        let (key, dirty) = ("k".to_owned(), None);
        scene.says(ToHome::WriteBack { request, key, epoch, dirty, end: true, tag }, true);
        let full = refused(&writes(&mut scene, tag, request + 1, value));
        assert_eq!(full, value.len() > 9, "{value}");
        if full {
            // Nobody owns it; the next turn of this loop counts on an owner.
            assert!(!refused(&writes(&mut scene, tag, request + 10, "012345678")));
        }
    }
    assert_eq!(scene.memory.bytes(), 2);
}
