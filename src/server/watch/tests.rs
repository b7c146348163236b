use std::sync::Arc;

use crate::cache::Snooped;
use crate::ids::Incarnation;
use crate::node::effect::Write;
use crate::raft::{Entry, Persist};

use super::*;

const PEER: usize = 2;

/// A watch on a group of its own number, so that the tests of one process do not add up.
struct Bench {
    watch: Watch,
    handles: metrics::Group,
    group: u32,
}

impl Bench {
    fn new(group: u32) -> Self {
        Self { watch: Watch::default(), handles: metrics::Group::new(group), group }
    }

    fn done(&mut self, now_us: u64, effects: &Effects, commit: Option<Index>) {
        self.watch.done(now_us, &self.handles, effects, commit);
    }

    fn heard(&mut self, now_us: u64, message: GroupMessage) {
        self.watch.heard(now_us, &self.handles, &Input::Peer { from: NodeId::numbered(PEER), message });
    }

    /// How often the histogram was fed, and with how many microseconds in sum.
    fn measured(&self, metric: &str) -> (u64, u64) {
        let text = metrics::render();
        let of = |part: &str| {
            let start = format!("{metric}_{part}{{group=\"{}\"}} ", self.group);
            let value = text.lines().find_map(|line| line.strip_prefix(&start)).map_or(0.0, |v| v.parse().unwrap());
            (value * if part == "sum" { 1e6 } else { 1.0 } + 0.5) as u64
        };
        (of("count"), of("sum"))
    }
}

fn sends(message: GroupMessage) -> Effects {
    Effects { send: vec![(NodeId::numbered(PEER), Arc::new(message))], ..Effects::default() }
}

fn snoop(transaction: u64) -> Effects {
    let message = ToNode::SnoopInv { transaction, key: "k".into(), owner: None };
    sends(GroupMessage::Bus(BusMessage::ToNode(message)))
}

fn acknowledged(transaction: u64) -> GroupMessage {
    let (key, tag, snooped) = ("k".into(), LeaseTag::default(), Snooped::Gone);
    GroupMessage::Bus(BusMessage::ToHome(ToHome::SnoopAck {
        request: 1,
        transaction,
        key,
        tag,
        snooped,
        incarnation: Incarnation(1),
    }))
}

#[test]
fn a_snoop_is_timed_from_its_first_sending_to_its_acknowledgement() {
    let mut bench = Bench::new(901);
    bench.done(1_000, &snoop(7), None);
    bench.done(1_400, &snoop(7), None);
    bench.heard(1_500, acknowledged(7));
    bench.heard(1_900, acknowledged(7));
    bench.heard(2_000, acknowledged(8));
    assert_eq!(bench.measured("trine_bus_snoop_seconds"), (1, 500));
}

#[test]
fn snoops_that_nobody_answers_are_bounded() {
    let mut bench = Bench::new(902);
    for transaction in 0..2 * SNOOPS_MAX as u64 {
        bench.done(transaction, &snoop(transaction), None);
    }
    assert_eq!(bench.watch.snoops.len(), SNOOPS_MAX);
    assert!(!bench.watch.snoops.contains_key(&(0, NodeId::numbered(PEER))), "0 asks for no answer");
}

#[test]
fn a_commit_is_timed_from_the_write_that_carries_it() {
    let mut bench = Bench::new(903);
    let persist = |index| {
        let entry = Entry { index, term: 1, stamp_ms: 0, wall_ms: 0, data: bytes::Bytes::new(), membership: None };
        let raft = Some(Persist { sequence: index, entries: vec![entry], ..Persist::default() });
        let write = Write { group: crate::ids::GroupId(0), sequence: index, raft, journal: vec![], compact: None };
        Effects { persist: vec![write], ..Effects::default() }
    };
    bench.done(1_000, &persist(5), Some(4));
    bench.done(1_200, &persist(6), Some(4));
    bench.done(2_000, &Effects::default(), Some(5));
    assert_eq!(bench.measured("trine_raft_commit_seconds"), (1, 1_000));
    // Deposed: what was not committed then is not measured, even if it is committed later.
    bench.done(2_100, &Effects::default(), None);
    bench.done(9_000, &Effects::default(), Some(6));
    assert_eq!(bench.measured("trine_raft_commit_seconds"), (1, 1_000));
}

#[test]
fn the_margin_is_what_was_left_of_the_same_lease() {
    let mut bench = Bench::new(904);
    let lease = |number, until_us| Effects {
        publish: vec![LineChange::Lease(LeaseTag { term: 1, number }, until_us)],
        ..Effects::default()
    };
    bench.done(0, &lease(1, 990_000), None);
    bench.done(250_000, &lease(1, 1_240_000), None);
    assert_eq!(bench.measured("trine_bus_lease_margin_seconds"), (1, 740_000));
    bench.done(2_000_000, &lease(2, 2_990_000), None);
    assert_eq!(bench.measured("trine_bus_lease_margin_seconds"), (1, 740_000), "a new lease had none before it");
}

#[test]
fn a_heartbeat_is_timed_once_and_only_without_entries() {
    let mut bench = Bench::new(905);
    let append = |round, entries| {
        let body = Body::Append { prev_index: 0, prev_term: 0, entries, commit: 0, round, log_time_ms: 0 };
        sends(GroupMessage::Raft(Message::new(1, body)))
    };
    let answer = |round| GroupMessage::Raft(Message::new(1, Body::Appended { index: 0, round }));
    let entry = Entry { index: 1, term: 1, stamp_ms: 0, wall_ms: 0, data: bytes::Bytes::new(), membership: None };
    bench.done(1_000, &append(1, vec![entry]), Some(0));
    assert!(bench.watch.rounds.is_empty());
    bench.done(2_000, &append(2, vec![]), Some(0));
    bench.done(2_100, &append(2, vec![]), Some(0));
    assert_eq!(bench.watch.rounds[&NodeId::numbered(PEER)], (2, 2_000));
    bench.heard(2_200, answer(1));
    assert_eq!(bench.watch.rounds.len(), 1, "the answer to an older heartbeat");
    bench.heard(2_300, answer(2));
    assert!(bench.watch.rounds.is_empty());
    let text = metrics::render();
    assert!(text.contains("trine_peer_round_trip_seconds_count{peer=\"node2\"} 1\n"), "{text}");
    assert!(text.contains("trine_peer_round_trip_seconds_sum{peer=\"node2\"} 0.0003\n"), "{text}");
}
