//! Hand-made histories: one that is faithful, and one for each promise that is broken.

use trine_protocol::queue::{
    AckMany, AckedMany, Declare, Declared, Enqueue, EnqueueOptions, Enqueued, FlowSet, QueueLine, Redrive, Redriven,
    SetFlow, ShowQueue,
};

use super::super::Services;
use super::super::history::History;
use super::*;

/// Six messages, and the next one is refused.
const FEW: &str = "m0";
/// Eight messages, and the oldest makes room.
const NEWEST: &str = "m1";
/// What expires is dead.
const BURIES: &str = "m2";

/// In this cluster wall clocks are wrong by a tenth of a second.
fn history() -> History {
    let mut history = History::new();
    history.services = Services::new(100_000);
    history
}

fn message(queue: &str, body: &str, priority: u8, ttl_ms: u64) -> Enqueue {
    let options = EnqueueOptions { priority, ttl_ms, ..EnqueueOptions::default() };
    let body = Bytes::from(body.to_owned());
    Enqueue { queue: queue.into(), body, options: Some(Box::new(options)), ..Enqueue::default() }
}

fn enqueued(id: u64) -> Response {
    Response::Enqueue(Enqueued { id, ..Enqueued::default() })
}

fn dequeue(queue: &str, count_max: u32) -> Dequeue {
    Dequeue { queue: queue.into(), visibility_ms: 100, count_max, ..Dequeue::default() }
}

/// Deliveries of one dequeue: the token, then id, count and body of each.
fn deliveries(token: u64, of: &[(u64, u32, &str)]) -> Response {
    let delivery = |(id, deliveries, body): &(u64, u32, &str)| Delivery {
        id: *id,
        token,
        deliveries: *deliveries,
        body: Bytes::from((*body).to_owned()),
        attributes: None,
    };
    Response::Dequeue(Dequeued { deliveries: of.iter().map(delivery).collect() })
}

fn ack(queue: &str, id: u64, token: u64) -> AckMany {
    AckMany { queue: queue.into(), receipts: vec![Receipt { id, token }], if_token: None }
}

fn set(queue: &str, flow: Flow) -> SetFlow {
    SetFlow { queue: queue.into(), flow }
}

fn purge(queue: &str) -> Purge {
    Purge { queue: queue.into(), state: None }
}

fn purged(messages: u32) -> Response {
    Response::Purge(Purged { messages, more: false })
}

fn flow_set() -> Response {
    Response::SetFlow(FlowSet::default())
}

fn acked() -> Response {
    Response::AckMany(AckedMany::default())
}

/// A queue that is declared, with so many messages of ids from 10 on, at 2, 4, 6... ms.
fn with(queue: &str, messages: u64) -> History {
    let mut history = history();
    let declare = Declare { queue: queue.into(), policy: policy(queue) };
    history.run(0, declare, Response::Declare(Declared { made: true })).unwrap();
    for number in 0..messages {
        history.run(2 + 2 * number, message(queue, &format!("v{number}"), 0, 0), enqueued(10 + number)).unwrap();
    }
    history
}

fn missing(history: &History, queue: &str, now_ms: u64) -> Vec<u64> {
    history.services.managed.missing(GroupId(0), queue, now_ms * 1_000, now_ms * 1_000)
}

fn rejected(history: &mut History, at_ms: u64, request: impl Into<Request>, response: Response, why: &str) {
    let what = history.run(at_ms, request, response).expect_err("a violation");
    assert!(what.contains(why), "{what}");
}

fn refused(history: &mut History, at_ms: u64, request: impl Into<Request>, code: ErrorCode) -> Check {
    let operation = history.send(at_ms, request);
    history.end(at_ms + 1, &operation, Verdict::NotExecuted(code))
}

#[test]
fn a_faithful_queue_passes() {
    let mut history = with(FEW, 3);
    history.run(20, message(FEW, "high", 3, 0), enqueued(20)).unwrap();
    history.run(22, dequeue(FEW, 2), deliveries(30, &[(20, 1, "high"), (10, 1, "v0")])).unwrap();
    history.run(24, ack(FEW, 20, 30), acked()).unwrap();
    history.run(26, set(FEW, Flow::Paused), flow_set()).unwrap();
    history.run(28, dequeue(FEW, 2), deliveries(31, &[])).unwrap();
    history.run(30, set(FEW, Flow::Open), flow_set()).unwrap();
    assert_eq!(missing(&history, FEW, 200), [10, 11, 12]);
    history.run(200, dequeue(FEW, 2), deliveries(32, &[(10, 2, "v0"), (11, 1, "v1")])).unwrap();
    history.run(202, purge(FEW), purged(3)).unwrap();
    assert!(missing(&history, FEW, 300).is_empty());
    history.run(204, message(FEW, "after", 0, 0), enqueued(40)).unwrap();
    assert_eq!(missing(&history, FEW, 300), [40], "a purge that was over takes nothing");
    for number in 0..5 {
        history.run(206 + number, message(FEW, &format!("more{number}"), 0, 0), enqueued(41 + number)).unwrap();
    }
    refused(&mut history, 220, message(FEW, "seventh", 0, 0), ErrorCode::QueueFull).unwrap();
}

#[test]
fn nothing_comes_from_nowhere_or_returns_or_goes_twice() {
    rejected(&mut with(FEW, 1), 20, dequeue(FEW, 1), deliveries(30, &[(10, 1, "x")]), "never enqueued");
    rejected(&mut with(FEW, 1), 20, dequeue(FEW, 1), deliveries(30, &[(11, 1, "v0")]), "twice");
    let mut history = with(FEW, 1);
    refused(&mut history, 20, message(FEW, "no", 0, 0), ErrorCode::NotReady).unwrap();
    rejected(&mut history, 22, dequeue(FEW, 1), deliveries(30, &[(11, 1, "no")]), "its enqueue was refused");
    let mut history = with(FEW, 1);
    history.run(20, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")])).unwrap();
    history.run(22, ack(FEW, 10, 30), acked()).unwrap();
    rejected(&mut history, 24, ack(FEW, 10, 30), acked(), "acknowledged twice");
    rejected(&mut history, 200, dequeue(FEW, 1), deliveries(31, &[(10, 2, "v0")]), "after its acknowledgement");
    let mut history = with(FEW, 1);
    history.run(20, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")])).unwrap();
    rejected(&mut history, 40, dequeue(FEW, 1), deliveries(31, &[(10, 2, "v0")]), "hidden until");
}

#[test]
fn a_time_to_live_ends_by_the_slowest_clock_and_not_before() {
    let lives = || {
        let mut history = with(FEW, 0);
        history.run(10, message(FEW, "short", 0, 1_000), enqueued(10)).unwrap();
        history
    };
    lives().run(1_150, dequeue(FEW, 1), deliveries(30, &[(10, 1, "short")])).unwrap();
    rejected(&mut lives(), 1_300, dequeue(FEW, 1), deliveries(30, &[(10, 1, "short")]), "had 1000 ms to live");
    assert_eq!(missing(&lives(), FEW, 700), [10]);
    assert!(missing(&lives(), FEW, 900).is_empty(), "a fast clock may have ended it");
    let mut minutes = lives();
    minutes.services = Services::default();
    minutes.run(10, message(FEW, "doubtful", 0, 1_000), enqueued(11)).unwrap();
    minutes.run(60_000, dequeue(FEW, 1), deliveries(30, &[(11, 1, "doubtful")])).unwrap();
}

#[test]
fn what_expired_and_is_dead_comes_back_and_lives() {
    let mut history = with(BURIES, 0);
    history.run(10, message(BURIES, "short", 0, 1_000), enqueued(10)).unwrap();
    assert_eq!(missing(&history, BURIES, 9_000), [10], "it is dead, and not gone");
    let redrive = Redrive { queue: BURIES.into(), ..Redrive::default() };
    history.run(9_000, redrive, Response::Redrive(Redriven { messages: 1, more: false })).unwrap();
    history.run(9_002, dequeue(BURIES, 1), deliveries(30, &[(10, 1, "short")])).unwrap();
}

#[test]
fn a_pause_that_is_known_holds_until_somebody_asks_to_open() {
    let paused = || {
        let mut history = with(FEW, 1);
        history.run(10, set(FEW, Flow::Paused), flow_set()).unwrap();
        history
    };
    rejected(&mut paused(), 12, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")]), "while the queue was paused");
    let mut history = paused();
    let opens = history.send(12, set(FEW, Flow::Open));
    history.run(14, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")])).unwrap();
    history.end(16, &opens, Verdict::NotExecuted(ErrorCode::NoLeader)).unwrap();
    rejected(&mut history, 200, dequeue(FEW, 1), deliveries(31, &[(10, 2, "v0")]), "while the queue was paused");
    let mut early = with(FEW, 1);
    let pauses = early.send(10, set(FEW, Flow::Paused));
    early.run(12, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")])).unwrap();
    early.end(14, &pauses, Verdict::Answered(flow_set())).unwrap();
}

#[test]
fn a_queue_that_is_drained_takes_nothing_and_another_one_does() {
    let mut history = with(FEW, 1);
    let what = refused(&mut history, 10, message(FEW, "a", 0, 0), ErrorCode::QueueDraining).unwrap_err();
    assert!(what.contains("nobody drains it"), "{what}");
    let mut history = with(FEW, 1);
    history.run(10, set(FEW, Flow::Draining), flow_set()).unwrap();
    refused(&mut history, 12, message(FEW, "a", 0, 0), ErrorCode::QueueDraining).unwrap();
    rejected(&mut history, 14, message(FEW, "b", 0, 0), enqueued(30), "while the queue was being drained");
}

#[test]
fn a_purge_takes_what_was_there_and_nothing_that_came_after() {
    let mut history = with(FEW, 2);
    history.run(10, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")])).unwrap();
    history.run(12, purge(FEW), purged(2)).unwrap();
    rejected(&mut history, 200, dequeue(FEW, 1), deliveries(33, &[(10, 2, "v0")]), "was purged before");
    rejected(&mut history, 202, ack(FEW, 10, 30), acked(), "was purged before");
    rejected(&mut with(FEW, 2), 10, purge(FEW), purged(1), "a purge took 1 messages, and there were 2");
    rejected(&mut with(FEW, 2), 10, purge(FEW), purged(3), "there were 2 at most");
    let mut history = with(FEW, 2);
    let purges = history.send(10, purge(FEW));
    history.run(12, message(FEW, "beside", 0, 0), enqueued(20)).unwrap();
    history.end(14, &purges, Verdict::Answered(purged(2))).unwrap();
    history.run(16, message(FEW, "after", 0, 0), enqueued(21)).unwrap();
    assert_eq!(missing(&history, FEW, 100), [21], "the one that came meanwhile may be gone");
}

#[test]
fn a_higher_priority_goes_first_and_equal_ones_by_age() {
    let both = || {
        let mut history = with(FEW, 1);
        history.run(10, message(FEW, "high", 3, 0), enqueued(20)).unwrap();
        history
    };
    let mut history = both();
    history.run(12, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")])).unwrap();
    rejected(&mut history, 14, dequeue(FEW, 1), deliveries(31, &[(20, 1, "high")]), "20 of priority 3 was ready");
    // The same, and the answers came the other way round.
    let mut history = both();
    history.run(12, dequeue(FEW, 1), deliveries(31, &[(20, 1, "high")])).unwrap();
    rejected(&mut history, 14, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")]), "20 of priority 3 was ready");
    let mut history = with(FEW, 2);
    history.run(12, dequeue(FEW, 1), deliveries(30, &[(11, 1, "v1")])).unwrap();
    rejected(&mut history, 14, dequeue(FEW, 1), deliveries(31, &[(10, 1, "v0")]), "10 of priority 0 was ready");
}

#[test]
fn a_dequeue_takes_as_many_as_are_ready() {
    let mut history = with(FEW, 2);
    history.run(12, dequeue(FEW, 2), deliveries(30, &[(10, 1, "v0")])).unwrap();
    rejected(&mut history, 14, dequeue(FEW, 1), deliveries(31, &[(11, 1, "v1")]), "took fewer than it was asked for");
    let mut history = with(FEW, 1);
    history.run(12, dequeue(FEW, 1), deliveries(0, &[])).unwrap();
    rejected(&mut history, 14, dequeue(FEW, 1), deliveries(30, &[(10, 1, "v0")]), "found nothing");
    // What it took may be gone before it hears of it: its time was over, or it was purged.
    let mut history = with(FEW, 2);
    let late = history.send(12, dequeue(FEW, 2));
    history.end(150, &late, Verdict::Answered(deliveries(30, &[(10, 1, "v0")]))).unwrap();
    history.run(160, dequeue(FEW, 1), deliveries(31, &[(11, 1, "v1")])).unwrap();
    let mut history = with(FEW, 1);
    let late = history.send(12, dequeue(FEW, 1));
    history.send(13, purge(FEW));
    history.end(14, &late, Verdict::Answered(deliveries(0, &[]))).unwrap();
    history.run(16, dequeue(FEW, 1), deliveries(31, &[(10, 1, "v0")])).unwrap();
}

#[test]
fn limits_are_kept_and_nothing_is_refused_below_them() {
    rejected(&mut with(FEW, 6), 20, message(FEW, "seventh", 0, 0), enqueued(20), "6 are allowed");
    let what = refused(&mut with(FEW, 5), 20, message(FEW, "sixth", 0, 0), ErrorCode::QueueFull).unwrap_err();
    assert!(what.contains("it had 5 messages"), "{what}");
    let large = "x".repeat(399);
    rejected(&mut with(BURIES, 1), 20, message(BURIES, &large, 0, 0), enqueued(20), "400 are allowed");
    refused(&mut with(BURIES, 1), 20, message(BURIES, &large, 0, 0), ErrorCode::QueueFull).unwrap();
    let shown = |ready| {
        let line = QueueLine { queue: FEW.into(), declared: true, ready, ..QueueLine::default() };
        Response::ShowQueue(QueueShown { line, ..QueueShown::default() })
    };
    let show = || ShowQueue { queue: FEW.into() };
    with(FEW, 3).run(20, show(), shown(3)).unwrap();
    rejected(&mut with(FEW, 3), 20, show(), shown(2), "it is shown with 2 messages, and has 3 to 3");
    rejected(&mut with(FEW, 6), 20, show(), shown(7), "there are 7 messages, 6 are allowed");
}

#[test]
fn what_a_copy_of_a_dequeue_that_waits_took_outlives_its_time() {
    let ends = |waits: Dequeue| {
        let mut history = with(FEW, 5);
        history.run(20, message(FEW, "short", 0, 50), enqueued(20)).unwrap();
        history.run(22, waits, deliveries(0, &[])).unwrap();
        refused(&mut history, 1_000, message(FEW, "sixth", 0, 0), ErrorCode::QueueFull)
    };
    assert!(ends(dequeue(FEW, 1)).unwrap_err().contains("it had 5 messages"));
    ends(Dequeue { wait_ms: 100, ..dequeue(FEW, 1) }).unwrap();
}

#[test]
fn the_newest_messages_are_never_dropped() {
    let mut history = with(NEWEST, 10);
    assert_eq!(missing(&history, NEWEST, 100), [12, 13, 14, 15, 16, 17, 18, 19]);
    history.run(100, dequeue(NEWEST, 1), deliveries(30, &[(12, 1, "v2")])).unwrap();
    history.run(102, ack(NEWEST, 12, 30), acked()).unwrap();
    history.run(104, message(NEWEST, "v91", 0, 0), enqueued(40)).unwrap();
    // The one that is gone may have been in flight when the last one came, and another one made room.
    assert_eq!(missing(&history, NEWEST, 200), [14, 15, 16, 17, 18, 19, 40]);
    let all: Vec<(u64, u32, String)> = (0..10).map(|number| (10 + number, 1, format!("v{number}"))).collect();
    let nine: Vec<(u64, u32, &str)> = all[..9].iter().map(|(id, count, body)| (*id, *count, body.as_str())).collect();
    rejected(&mut with(NEWEST, 10), 100, dequeue(NEWEST, 9), deliveries(30, &nine), "8 are allowed");
}
