use futures_util::FutureExt;
use trine_protocol::cache::{Get, Put, Version, Written};
use trine_protocol::cluster::{KeepAlive, OpenSession, Status};
use trine_protocol::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use trine_protocol::queue::Enqueue;

use crate::cache::{LeaseTag, Line, LineChange, Versioned, Visits};
use crate::node::effect::{Input, SessionRef};
use crate::server::inbox::REQUESTS_MAX;
use crate::server::replica_task::not_started;

use crate::node::Roster;

use super::*;

const GROUPS: u32 = 3;

struct Bench {
    gateway: NodeGateway,
    inboxes: Vec<Arc<Inbox>>,
    standings: Vec<watch::Sender<Standing>>,
    lines: Arc<SharedLines>,
    pending: Arc<Pending>,
    ring: Ring,
}

fn bench() -> Bench {
    let ring = Ring::new(GROUPS).unwrap();
    let lines = Arc::new(SharedLines::new(GROUPS));
    let pending = Arc::new(Pending::default());
    let inboxes: Vec<Arc<Inbox>> = (0..GROUPS).map(|_| Arc::default()).collect();
    let standings: Vec<_> = (0..GROUPS).map(|group| watch::channel(not_started(GroupId(group))).0).collect();
    let doors = inboxes.iter().zip(&standings);
    let groups =
        doors.map(|(inbox, standing)| GroupDoor { inbox: Arc::clone(inbox), standing: standing.subscribe() }).collect();
    let identity = Identity {
        node: NodeId::numbered(1),
        cluster_id: 5,
        incarnation: Incarnation(7),
        joins: false,
        nodes: watch::channel(Roster::default()).1,
    };
    let gateway = NodeGateway::new(
        identity,
        ring.clone(),
        groups,
        Arc::clone(&lines),
        Arc::clone(&pending),
        Arc::default(),
        None,
    );
    Bench { gateway, inboxes, standings, lines, pending, ring }
}

impl Bench {
    fn inputs(&self, group: u32) -> Vec<Input> {
        let mut inputs = Vec::new();
        self.inboxes[group as usize].take(1_000, &mut inputs);
        inputs
    }

    fn line(&self, key: &str, until_us: u64) {
        let group = GroupId(self.ring.group_of_key(key));
        let tag = LeaseTag { term: 1, number: 1 };
        let value = Versioned::new(Version { epoch: 4, count: 2 }, Some("held".into()));
        let line = Line { state: LineState::M, value, tag, visits: Visits::default() };
        self.lines.apply(group, vec![LineChange::Lease(tag, until_us), LineChange::Put(key.into(), line)]);
    }

    fn code_now(&self, request: impl Into<Request>, options: CallOptions) -> Option<ErrorCode> {
        self.gateway.call(request.into(), options).now_or_never().and_then(Result::err).map(|error| error.code)
    }
}

fn get(key: &str) -> Request {
    Get { key: key.into() }.into()
}

#[test]
fn a_hit_is_answered_on_the_spot_and_no_replica_hears_of_it() {
    let bench = bench();
    bench.line("key", clock::mono_us() + 60_000_000);
    let answer = bench.gateway.call(get("key"), CallOptions::default()).now_or_never();
    let Some(Ok(Response::Get(got))) = answer else { panic!("{answer:?}") };
    assert_eq!((got.value.as_deref(), got.source), (Some(b"held".as_slice()), Source::LocalCache));
    assert_eq!((got.state, got.version), (LineState::M, Version { epoch: 4, count: 2 }));
    assert!((0..GROUPS).all(|group| bench.inputs(group).is_empty()));
}

#[test]
fn a_line_whose_lease_has_run_out_is_no_hit() {
    let bench = bench();
    bench.line("key", clock::mono_us());
    let call = bench.gateway.call(get("key"), CallOptions::default());
    assert_eq!(bench.inputs(bench.ring.group_of_key("key")).len(), 1, "it goes to the replica");
    drop(call);
    assert_eq!(bench.pending.count(), 0, "who stops waiting takes its place along");
}

#[test]
fn requests_have_their_place_when_call_returns_and_keep_their_order() {
    let bench = bench();
    let enqueue = |body: u8| Enqueue { queue: "q".into(), body: vec![body].into(), ..Enqueue::default() }.into();
    // None of these futures is ever polled.
    let calls: Vec<_> = (0..50).map(|body| bench.gateway.call(enqueue(body), CallOptions::default())).collect();
    let bodies: Vec<u8> = bench
        .inputs(bench.ring.group_of_queue("q"))
        .into_iter()
        .map(|input| match input {
            Input::Request { request: Request::Enqueue(enqueue), .. } => enqueue.body[0],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bodies, (0..50).collect::<Vec<u8>>());
    assert_eq!(bench.pending.count(), calls.len());
}

#[tokio::test]
async fn an_answer_reaches_its_caller() {
    let bench = bench();
    let put = Put { key: "key".into(), value: "v".into(), ..Put::default() };
    let call = bench.gateway.call(put.into(), CallOptions::default());
    let inputs = bench.inputs(bench.ring.group_of_key("key"));
    let [Input::Request { id, .. }] = inputs[..] else { panic!("{inputs:?}") };
    let written = Response::Put(Written { version: Version { epoch: 9, count: 0 } });
    bench.pending.answer(id, Ok(written.clone()));
    assert_eq!(call.await, Ok(written));
}

#[tokio::test]
async fn a_replica_that_says_nothing_does_not_hold_the_caller() {
    let bench = bench();
    let options = CallOptions { deadline: Duration::from_millis(5), ..CallOptions::default() };
    let before_us = clock::mono_us();
    let error = bench.gateway.call(get("key"), options).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(clock::mono_us() - before_us >= 255_000, "the replica has its grace");
    assert_eq!(bench.pending.count(), 0);
    let inputs = bench.inputs(bench.ring.group_of_key("key"));
    let [Input::Request { deadline_us, .. }] = inputs[..] else { panic!("{inputs:?}") };
    assert!((5_000..1_000_000).contains(&(deadline_us - before_us)), "the deadline is the request's own");
}

#[tokio::test]
async fn what_no_group_needs_to_see_is_refused_at_the_door() {
    let bench = bench();
    let plain = CallOptions::default();
    assert_eq!(bench.code_now(OpenSession { group: GROUPS, timeout_ms: 0 }, plain), Some(ErrorCode::InvalidArgument));
    assert_eq!(bench.code_now(KeepAlive { group: u32::MAX }, plain), Some(ErrorCode::InvalidArgument));
    assert_eq!(bench.code_now(get(""), plain), Some(ErrorCode::InvalidArgument));
    assert_eq!(bench.code_now(get(&"k".repeat(KEY_BYTES_MAX + 1)), plain), Some(ErrorCode::TooLarge));
    let value = vec![0; VALUE_BYTES_MAX + 1].into();
    assert_eq!(bench.code_now(Put { key: "k".into(), value, ..Put::default() }, plain), Some(ErrorCode::TooLarge));
    let session = Some(SessionRef { session: 4, sequence: 0, acked_below: 0 });
    assert_eq!(bench.code_now(get("k"), CallOptions { session, ..plain }), Some(ErrorCode::InvalidArgument));
    assert!((0..GROUPS).all(|group| bench.inputs(group).is_empty()));
    assert_eq!(bench.code_now(get(&"k".repeat(KEY_BYTES_MAX)), plain), None, "the longest key is allowed");
}

#[test]
fn a_full_inbox_is_overloaded_and_says_when_to_come_back() {
    let bench = bench();
    let calls: Vec<_> = (0..REQUESTS_MAX).map(|_| bench.gateway.call(get("key"), CallOptions::default())).collect();
    let error = bench.gateway.call(get("key"), CallOptions::default()).now_or_never().unwrap().unwrap_err();
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::Overloaded, RETRY_AFTER_MS));
    assert_eq!(bench.pending.count(), calls.len(), "the refused one keeps no place");
}

#[test]
fn readiness_names_what_is_missing_and_a_shutdown_refuses() {
    let bench = bench();
    assert_eq!(bench.gateway.readiness(), Err("g0 is starting; g1 is starting; g2 is starting".to_owned()));
    for standing in &bench.standings {
        standing.send_modify(|standing| standing.status.ready = true);
    }
    assert_eq!(bench.gateway.readiness(), Ok(()));
    bench.line("key", u64::MAX);
    bench.gateway.shut_down();
    assert!(bench.gateway.readiness().is_err());
    assert_eq!(bench.code_now(get("key"), CallOptions::default()), Some(ErrorCode::ShuttingDown));
    let status = bench.gateway.call(Status {}.into(), CallOptions::default()).now_or_never();
    let Some(Ok(Response::Status(status))) = status else { panic!("{status:?}") };
    assert_eq!((status.node.as_str(), status.cluster_id, status.groups.len()), ("node1", 5, 3));
}
