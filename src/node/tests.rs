//! One replica by hand: what it makes of what others say, step by step.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use trine_protocol::queue::{Dequeue, Enqueue};
use trine_protocol::{Error, ErrorCode, Request, Response};

use super::effect::{Effects, Fetch, Input, RequestId, SessionRef};
use super::message::{Answer, Forward};
use super::*;
use crate::ids::{GroupId, Incarnation};
use crate::raft::{Body, Message};
use crate::record::Change;

/// A replica on one of the nodes that the group began with.
fn setup(node: NodeId, founders: Vec<NodeId>) -> Setup {
    Setup {
        redis: false,
        group: GroupId(0),
        node,
        incarnation: Incarnation(1),
        joins: false,
        lived_before: false,
        roster: roster::testing::of(&founders),
        founders,
        generation: 0,
        seed: 1,
        timing: Timing::default(),
    }
}

/// A follower of node 1 on node 2.
struct Follower {
    replica: Replica<Faithful>,
    now: Now,
}

impl Follower {
    fn new() -> Self {
        let nodes: Vec<NodeId> = (1..=3).map(NodeId::numbered).collect();
        let setup = setup(nodes[1], nodes);
        let now = Now { mono_us: 1_000_000, wall_ms: 0 };
        let replica = Replica::new(setup, Recovered::default(), now).expect("there is nothing to read");
        let mut follower = Self { replica, now };
        let body =
            Body::Append { prev_index: 0, prev_term: 0, entries: Vec::new(), commit: 0, round: 1, log_time_ms: 1 };
        follower.hears(GroupMessage::Raft(Message::new(1, body)));
        follower
    }

    fn hears(&mut self, message: GroupMessage) -> Effects {
        let effects = self.replica.handle(self.now, Input::Peer { from: NodeId::numbered(1), message });
        // Disks of this test are at once.
        for write in &effects.persist {
            self.replica.handle(self.now, Input::Persisted { sequence: write.sequence });
        }
        effects
    }

    fn asked(&mut self, id: u64, session: Option<SessionRef>) -> Vec<Forward> {
        let request = Enqueue { queue: "q".into(), body: "body".into(), ..Enqueue::default() }.into();
        let deadline_us = self.now.mono_us + 60_000_000;
        forwards(&self.replica.handle(self.now, Input::Request { id: RequestId(id), session, deadline_us, request }))
    }

    /// Time passes, and the leader is heard of.
    fn waits(&mut self, us: u64) -> Vec<Forward> {
        self.now.mono_us += us;
        forwards(&self.replica.handle(self.now, Input::Tick))
    }

    fn answered(&mut self, id: u64, result: Result<Response, Error>) -> Vec<(RequestId, Result<Response, Error>)> {
        self.hears(GroupMessage::Answer(Answer { id, result })).reply
    }
}

/// The enqueues among what is sent.
fn forwards(effects: &Effects) -> Vec<Forward> {
    let forward = |(_, message): &(NodeId, std::sync::Arc<GroupMessage>)| match &**message {
        GroupMessage::Forward(forward) if matches!(forward.request, trine_protocol::Request::Enqueue(_)) => {
            Some(forward.clone())
        }
        _ => None,
    };
    effects.send.iter().filter_map(forward).collect()
}

/// An append of one entry of that size.
fn append(index: u64, bytes: usize) -> Input {
    let data = vec![b'x'; bytes].into();
    let entry = raft::Entry { index, term: 1, stamp_ms: 1, wall_ms: 0, data, membership: None };
    let (prev_index, prev_term) = (index - 1, u64::from(index > 1));
    let body = Body::Append { prev_index, prev_term, entries: vec![entry], commit: 0, round: 1, log_time_ms: 1 };
    Input::Peer { from: NodeId::numbered(1), message: GroupMessage::Raft(Message::new(1, body)) }
}

const SESSION: SessionRef = SessionRef { session: 9, sequence: 4, acked_below: 1 };

fn expired() -> Result<Response, Error> {
    Err(Error::new(ErrorCode::SessionExpired, "session 9 has ended"))
}

fn code(replies: &[(RequestId, Result<Response, Error>)]) -> ErrorCode {
    replies[0].1.as_ref().expect_err("an error").code
}

#[test]
fn whoever_joins_takes_no_list_before_the_first_that_names_it() {
    let nodes: Vec<NodeId> = (1..=3).map(NodeId::numbered).collect();
    let (roster, life) = (roster::testing::of(&nodes), Incarnation(77));
    let setup = Setup { incarnation: life, joins: true, founders: Vec::new(), ..setup(nodes[1], nodes.clone()) };
    let now = Now { mono_us: 1_000_000, wall_ms: 0 };
    let mut replica = Replica::<Faithful>::new(setup, Recovered::default(), now).expect("there is nothing to read");
    let mut hears = |version, incarnation| {
        let mut list = super::Roster { version, ..roster.clone() };
        list.nodes.get_mut(&nodes[1]).expect("it is listed").incarnation = incarnation;
        let message = GroupMessage::Roster(list);
        replica.handle(now, Input::Peer { from: nodes[0], message }).roster.map(|taken| taken.version)
    };
    assert_eq!(hears(5, None), None, "a list of before it came, from a log that it is sent from the beginning");
    assert_eq!(hears(9, Some(Incarnation(66))), None, "a life between");
    assert_eq!(hears(12, Some(life)), Some(12));
    assert_eq!(hears(11, Some(life)), None, "older");
    assert_eq!(hears(20, Some(Incarnation(88))), Some(20), "from then on whatever is newer");
}

#[test]
fn a_session_that_expired_before_a_commands_only_send_says_that_nothing_was_done() {
    let mut follower = Follower::new();
    let sent = follower.asked(1, Some(SESSION));
    assert_eq!(code(&follower.answered(sent[0].id, expired())), ErrorCode::SessionExpired);
}

#[test]
fn a_session_that_expired_while_a_command_was_repeated_leaves_its_outcome_open() {
    let mut follower = Follower::new();
    let sent = follower.asked(1, Some(SESSION));
    let again = follower.waits(Timing::default().resend_us);
    assert_eq!((again.len(), again[0].id, again[0].at), (1, sent[0].id, sent[0].at));
    assert_eq!(code(&follower.answered(sent[0].id, expired())), ErrorCode::OutcomeUnknown);
}

#[test]
fn what_comes_together_is_written_once_and_said_once() {
    let mut follower = Follower::new();
    let mut inputs = (1..=5).map(|index| (follower.now, append(index, 1))).collect::<Vec<_>>().into_iter();
    let effects = follower.replica.handle_all(&mut inputs);
    assert_eq!(inputs.len(), 0);
    let written: Vec<u64> =
        effects.persist.iter().flat_map(|write| &write.raft).map(|raft| raft.entries.len() as u64).collect();
    assert_eq!(written, [5], "one write");
    let sequence = effects.persist[0].sequence;
    let said = follower.replica.handle(follower.now, Input::Persisted { sequence }).send;
    let [(_, message)] = said.as_slice() else { panic!("{said:?}") };
    assert!(
        matches!(&**message, GroupMessage::Raft(Message { body: Body::Appended { index: 5, .. }, .. })),
        "{message:?}"
    );
}

#[test]
fn what_would_make_too_large_a_write_is_left_for_the_next() {
    let mut follower = Follower::new();
    let now = follower.now;
    let mut inputs = (1..=5).map(|index| (now, append(index, TOGETHER_BYTES_MAX / 2)));
    let effects = follower.replica.handle_all(&mut inputs);
    assert_eq!((effects.persist.len(), inputs.count()), (1, 3));
}

#[test]
fn what_follows_a_lost_command_is_sent_again_behind_it() {
    let mut follower = Follower::new();
    let mut sent: Vec<Forward> = Vec::new();
    for id in 1..=3 {
        sent.extend(follower.asked(id, Some(SessionRef { sequence: id, ..SESSION })));
    }
    let positions: Vec<u64> = sent.iter().map(|forward| forward.at.position).collect();
    assert_eq!(positions, [1, 2, 3]);
    follower.answered(sent[0].id, Err(Error::new(ErrorCode::QueueFull, "")));
    follower.hears(GroupMessage::OutOfOrder(sent[0].at.stream));
    assert!(follower.asked(4, Some(SessionRef { sequence: 4, ..SESSION })).is_empty(), "it waits for its turn");
    let again = follower.waits(Timing::default().resend_us / 50);
    let sequences: Vec<(u64, u64)> = again.iter().map(|forward| (forward.at.position, forward.sequence)).collect();
    assert_eq!(sequences, [(1, 2), (2, 3), (3, 4)]);
    assert!(again.iter().all(|forward| forward.at.stream != sent[0].at.stream));
    follower.hears(GroupMessage::OutOfOrder(sent[0].at.stream));
    assert_eq!(follower.asked(5, Some(SessionRef { sequence: 5, ..SESSION })).len(), 1, "an old word changes nothing");
}

/// A cluster of one, whose disk is at once and whose state store answers when it is told to.
struct Alone {
    replica: Replica<Faithful>,
    now: Now,
    store: BTreeMap<Vec<u8>, Bytes>,
    fetches: Vec<Fetch>,
    replies: BTreeMap<RequestId, Result<Response, Error>>,
}

impl Alone {
    /// It leads, and its log forgets as soon as it may.
    fn new() -> Self {
        let nodes = vec![NodeId::numbered(1)];
        let timing = Timing { checkpoint_entries: 4, retain_bytes: 0, ..Timing::default() };
        let setup = Setup { timing, ..setup(nodes[0], nodes) };
        let now = Now { mono_us: 1_000_000, wall_ms: 0 };
        let replica = Replica::new(setup, Recovered::default(), now).expect("there is nothing to read");
        let (store, fetches, replies) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let mut alone = Self { replica, now, store, fetches, replies };
        (0..200).for_each(|_| alone.waits());
        alone
    }

    fn waits(&mut self) {
        self.now.mono_us += 50_000;
        self.gets(Input::Tick);
    }

    fn gets(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let effects = self.replica.handle(self.now, input);
            inputs.extend(effects.persist.iter().map(|write| Input::Persisted { sequence: write.sequence }));
            for checkpoint in effects.checkpoint {
                for Change { key, value } in checkpoint.changes {
                    match value {
                        Some(value) => drop(self.store.insert(key, value.into())),
                        None => drop(self.store.remove(&key)),
                    }
                }
                inputs.push_back(Input::Checkpointed { index: checkpoint.meta.index });
            }
            self.fetches.extend(effects.fetch);
            self.replies.extend(effects.reply);
        }
    }

    fn asked(&mut self, id: u64, request: impl Into<Request>) {
        let (deadline_us, request) = (self.now.mono_us + 60_000_000, request.into());
        self.gets(Input::Request { id: RequestId(id), session: None, deadline_us, request });
        self.waits();
    }

    fn enqueues(&mut self, id: u64, queue: &str, body: &str) {
        self.asked(id, Enqueue { queue: queue.into(), body: body.to_owned().into(), ..Enqueue::default() });
        assert!(matches!(self.replies[&RequestId(id)], Ok(Response::Enqueue(_))), "{:?}", self.replies);
    }

    /// The state store answers what it was asked for.
    fn reads(&mut self) {
        for Fetch { ticket, keys, .. } in std::mem::take(&mut self.fetches) {
            let records = keys.into_iter().map(|key| (key.clone(), self.store.get(&key).cloned())).collect();
            self.gets(Input::Fetched { ticket, records });
        }
    }
}

#[test]
fn a_body_that_compaction_overtakes_while_others_are_looked_up_is_not_left_out() {
    let mut alone = Alone::new();
    alone.enqueues(1, "q", "old");
    (2..10).for_each(|id| alone.enqueues(id, "other", "x"));
    alone.enqueues(10, "q", "new");
    alone.asked(11, Dequeue { queue: "q".into(), visibility_ms: 60_000, count_max: 2, ..Dequeue::default() });
    assert_eq!(alone.fetches.len(), 1, "only the older one is out of the log");
    assert_eq!(alone.fetches[0].keys.len(), 1, "only the older one is out of the log");
    (12..24).for_each(|id| alone.enqueues(id, "other", "x"));
    alone.reads();
    let Some(Ok(Response::Dequeue(dequeued))) = alone.replies.get(&RequestId(11)) else { panic!("no answer") };
    let bodies: Vec<&[u8]> = dequeued.deliveries.iter().map(|delivery| delivery.body.as_ref()).collect();
    assert_eq!(bodies, [b"old", b"new"]);
}
