//! What clients' copies hold up, and for how long.

use trine_protocol::cache::LineState;

use super::*;
use crate::cache::{Change, LeaseTag, Snooped, Versioned, WriteId};
use crate::ids::Incarnation;
use crate::rules::{Faithful, OneLeftOut};

const TAG: LeaseTag = LeaseTag { term: 1, number: 1 };
const LEASE_US: u64 = COPY_LEASE_MS as u64 * 1_000;
/// Much bus lease.
const LONG_US: u64 = 10_000_000;

struct Scene {
    copies: Copies<Faithful>,
    now_us: u64,
    out: CopiesOut,
}

impl Scene {
    fn new() -> Self {
        Self { copies: Copies::new(GroupId(3), 10_000, 5_000_000, false), now_us: 5_000_000, out: CopiesOut::default() }
    }

    fn grant(&mut self, client: u64, key: &str) -> Option<CopyLease> {
        self.copies.grant(self.now_us, client, key, LONG_US)
    }

    fn pass(&mut self, message: ToHome) -> bool {
        self.copies.pass(self.now_us, message, &mut self.out).is_some()
    }

    fn write(&mut self, caller: u64, key: &str) -> bool {
        let operation = Operation::Write(Change::put("v".into()));
        self.copies.admit(self.now_us, caller, key, operation, &mut self.out).is_some()
    }

    /// The notices since the last call: client, number, keys.
    fn told(&mut self) -> Vec<(u64, u64, Vec<String>)> {
        std::mem::take(&mut self.out.tell).into_iter().map(|(client, gone)| (client, gone.notice, gone.keys)).collect()
    }

    fn drop_copies(&mut self, client: u64, notice: u64) {
        self.copies.dropped(self.now_us, client, notice, &mut self.out);
    }

    fn pass_time(&mut self, us: u64) {
        self.now_us += us;
        self.copies.tend(self.now_us, &mut self.out);
    }
}

fn gone(key: &str) -> ToHome {
    let (key, snooped) = (key.to_owned(), Snooped::Gone);
    ToHome::SnoopAck { request: 1, transaction: 9, key, tag: TAG, snooped, incarnation: Incarnation(1) }
}

fn register(round: u64) -> ToHome {
    ToHome::Register { incarnation: Incarnation(1), round, home: 1 }
}

#[test]
fn an_acknowledgement_waits_until_each_client_has_dropped_its_copy() {
    let mut scene = Scene::new();
    let lease = scene.grant(7, "k").expect("a copy");
    assert_eq!((lease.group, lease.lease_ms), (3, 396), "1 % shorter for the client, whose clock may be slower");
    scene.grant(8, "k").expect("a copy");
    scene.grant(9, "other").expect("a copy");
    assert!(scene.pass(gone("free")), "nobody has a copy of that");
    assert!(!scene.pass(gone("k")));
    let told = scene.told();
    assert_eq!(told, [(7, 1, vec!["k".to_owned()]), (8, 2, vec!["k".to_owned()])]);
    scene.drop_copies(7, 1);
    assert_eq!(scene.out.to_home, [], "one is left");
    scene.drop_copies(8, 1);
    assert_eq!(scene.out.to_home, [], "that was another's notice");
    scene.drop_copies(8, 2);
    assert_eq!(scene.out.to_home, [gone("k")]);
    assert_eq!(scene.copies.count(), 1);
}

#[test]
fn a_client_that_says_nothing_is_waited_for_as_long_as_its_lease() {
    let mut scene = Scene::new();
    let lease = scene.grant(7, "k").expect("a copy");
    assert!(!scene.pass(gone("k")));
    scene.pass_time(LEASE_US / 2);
    let kept = scene.copies.keep(scene.now_us, 7, lease.number, LONG_US).expect("it still holds");
    assert_eq!(kept.lease_ms, 198, "not prolonged while a notice is out");
    scene.pass_time(LEASE_US / 2 - 1);
    assert_eq!(scene.out.to_home, []);
    scene.pass_time(1);
    assert_eq!(scene.out.to_home, [gone("k")]);
    assert_eq!(scene.copies.keep(scene.now_us, 7, lease.number, LONG_US), None, "its copies are none");
}

#[test]
fn a_lease_begins_anew_under_its_number_and_ends_with_the_bus_lease() {
    let mut scene = Scene::new();
    let lease = scene.grant(7, "k").expect("a copy");
    scene.pass_time(LEASE_US / 2);
    assert_eq!(scene.copies.keep(scene.now_us, 7, lease.number + 1, LONG_US), None, "another number");
    let kept = scene.copies.keep(scene.now_us, 7, lease.number, LONG_US).expect("it holds");
    assert_eq!((kept.number, kept.lease_ms), (lease.number, 396));
    let short = scene.copies.grant(scene.now_us, 8, "k", 100_000).expect("a copy");
    assert_eq!(short.lease_ms, 99);
    assert_eq!(scene.copies.grant(scene.now_us, 9, "k", 10_000), None, "not worth it");
    assert_eq!(scene.copies.clients(), 2);
}

/// What the node would promise without it: the home counts it out, and its client reads on.
#[test]
fn without_the_rule_a_copy_outlives_the_bus_lease() {
    let bus_lease_us = 100_000;
    let given = OneLeftOut::during(Rule::CopyOutlivesBusLease, || {
        let mut copies: Copies<OneLeftOut> = Copies::new(GroupId(0), 10_000, 1_000, false);
        copies.grant(1_000, 7, "k", bus_lease_us)
    });
    assert!(given.is_some_and(|lease| u64::from(lease.lease_ms) * 1_000 > bus_lease_us), "{given:?}");
}

#[test]
fn a_write_of_this_node_waits_too_and_others_behind_it() {
    let mut scene = Scene::new();
    assert!(scene.write(1, "k"), "nobody has a copy");
    scene.grant(7, "k").expect("a copy");
    assert!(!scene.write(2, "k"));
    assert_eq!(scene.told(), [(7, 1, vec!["k".to_owned()])]);
    assert!(scene.copies.admit(scene.now_us, 3, "k", Operation::Get, &mut scene.out).is_some(), "reads change nothing");
    assert!(!scene.write(4, "k"));
    assert_eq!(scene.told(), [], "it was told");
    assert!(scene.grant(8, "k").is_none(), "no new copy of what is about to change");
    assert!(scene.copies.forget(4), "it had not begun");
    assert!(!scene.copies.forget(1), "it had");
    scene.drop_copies(7, 1);
    let began: Vec<u64> = scene.out.operations.iter().map(|(caller, ..)| *caller).collect();
    assert_eq!(began, [2]);
    assert!(scene.grant(8, "k").is_some());
}

#[test]
fn what_does_not_change_the_line_passes() {
    let mut scene = Scene::new();
    scene.grant(7, "k").expect("a copy");
    let write_back = |end| {
        let dirty = Some(Versioned::new(trine_protocol::cache::Version { epoch: 4, count: 1 }, None));
        ToHome::WriteBack { request: 1, key: "k".into(), epoch: 4, dirty, end, tag: TAG }
    };
    assert!(scene.pass(write_back(false)));
    assert!(scene.pass(ToHome::Renew { tag: TAG, round: 1 }));
    assert!(scene.pass(ToHome::Audit { request: 2, key: "k".into(), tag: TAG }));
    assert!(!scene.pass(write_back(true)), "afterwards the home may count this node out");
    let write = WriteId { session: 1, sequence: 1 };
    assert!(!scene.pass(ToHome::BusRdX {
        request: 3,
        write,
        acked_below: 1,
        key: "k".into(),
        change: Change::put("v".into()),
        held: LineState::S,
        tag: TAG,
        again: false,
    }));
    assert_eq!(scene.told().len(), 1, "one notice for all of them");
}

#[test]
fn a_new_lease_is_asked_for_when_no_client_has_anything_and_the_newest_request_counts() {
    let mut scene = Scene::new();
    scene.grant(7, "a").expect("a copy");
    scene.grant(7, "b").expect("a copy");
    assert!(!scene.pass(register(1)));
    assert_eq!(scene.told(), [(7, 1, vec![])], "all of the group");
    assert!(!scene.pass(register(2)));
    assert!(scene.grant(8, "c").is_none(), "nothing is given meanwhile");
    scene.drop_copies(7, 1);
    assert_eq!(scene.out.to_home, [register(2)]);
    assert_eq!((scene.copies.count(), scene.copies.clients()), (0, 0));
    let next = scene.grant(7, "a").expect("a copy");
    assert!(next.number > 5_000_001, "another lease: {}", next.number);
}

#[test]
fn a_node_that_starts_waits_for_copies_that_it_does_not_know_of() {
    let mut copies: Copies<Faithful> = Copies::new(GroupId(0), 10_000, 1_000, true);
    let mut out = CopiesOut::default();
    assert_eq!(copies.pass(2_000, register(1), &mut out), None);
    assert_eq!(copies.pass(2_000, gone("k"), &mut out), None, "a client may have a copy of it from the life before");
    copies.tend(1_000 + LEASE_US + LEASE_US / 100 - 1, &mut out);
    assert_eq!(out.to_home, []);
    copies.tend(1_000 + LEASE_US + LEASE_US / 100, &mut out);
    assert_eq!(out.to_home, [register(1), gone("k")]);
    let mut new: Copies<Faithful> = Copies::new(GroupId(0), 10_000, 1_000, false);
    assert!(new.pass(2_000, register(1), &mut out).is_some(), "a node's first life");
}

#[test]
fn a_lost_notice_is_as_good_as_silence_and_a_late_answer_says_nothing() {
    let mut scene = Scene::new();
    scene.grant(7, "k").expect("a copy");
    assert!(!scene.pass(gone("k")));
    scene.pass_time(LEASE_US);
    assert_eq!(std::mem::take(&mut scene.out.to_home), [gone("k")]);
    scene.grant(7, "k").expect("a copy, under another lease");
    scene.drop_copies(7, 1);
    assert!(!scene.pass(gone("k")), "the late word was about the copy before");
}

#[test]
fn copies_and_messages_are_bounded() {
    let mut scene = Scene::new();
    for number in 0..COPIES_MAX {
        scene.grant(7, &number.to_string()).expect("a copy");
    }
    assert_eq!(scene.grant(7, "one more"), None);
    assert!(scene.grant(7, "1").is_some(), "one that it has");
    assert!(scene.grant(8, "one more").is_some(), "another client");
    for request in 0..2 * HELD_MAX as u64 {
        assert!(!scene.pass(ToHome::BusRd { request, key: "1".into(), tag: TAG }));
    }
    let notice = scene.told()[0].1;
    scene.drop_copies(7, notice);
    assert_eq!(scene.out.to_home.len(), HELD_MAX);
}
