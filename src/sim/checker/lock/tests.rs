//! Hand-made histories, right and wrong.

use trine_protocol::lock::{Acquire, Granted, IfToken, Mode, Release, Released, Renew};
use trine_protocol::queue::{Enqueue, Enqueued};

use super::super::history::History;
use super::*;

fn acquire(client: &str, lease_ms: u32) -> Acquire {
    Acquire::new("l", client, lease_ms)
}

fn granted(token: u64, lease_ms: u32) -> Response {
    Response::Acquire(Granted { token, lease_ms, ..Granted::default() })
}

fn release(client: &str, token: u64) -> Release {
    Release { lock: "l".into(), client: client.into(), token, ..Release::default() }
}

fn renew(token: u64, lease_ms: u32) -> Renew {
    Renew { lock: "l".into(), client: "a".into(), token, lease_ms, ..Renew::default() }
}

fn rejected(checked: Check, why: &str) {
    let what = checked.expect_err("a violation");
    assert!(what.contains(why), "{what}");
}

#[test]
fn grants_after_release_and_after_the_lease_pass() {
    let mut history = History::new();
    history.run(0, acquire("a", 100), granted(5, 100)).unwrap();
    history.run(50, release("a", 5), Response::Release(Released { was_held: true, depth: 0 })).unwrap();
    history.run(52, acquire("b", 100), granted(8, 100)).unwrap();
    history.run(152, acquire("c", 100), granted(9, 100)).unwrap();
    // Sent long ago: when its answer comes, its lease has run out.
    let early = history.send(153, acquire("d", 100));
    history.run(253, acquire("e", 100), granted(11, 100)).unwrap();
    history.end(255, &early, Verdict::Answered(granted(10, 100))).unwrap();
}

#[test]
fn two_holders_are_rejected() {
    let mut history = History::new();
    history.run(0, acquire("a", 100), granted(5, 100)).unwrap();
    rejected(history.run(50, acquire("b", 100), granted(6, 100)), "both hold");
}

#[test]
fn a_release_without_a_token_that_was_under_way_may_have_ended_a_later_grant() {
    let done = || Verdict::Answered(Response::Release(Released { was_held: true, depth: 0 }));
    let with = |of: &str| {
        let mut history = History::new();
        let late = history.send(0, release(of, 0));
        history.run(10, acquire("a", 100), granted(5, 100)).unwrap();
        history.end(20, &late, done()).unwrap();
        history.run(30, acquire("b", 100), granted(6, 100))
    };
    with("a").unwrap();
    rejected(with("c"), "both hold");
    let mut history = History::new();
    let (late, acquired) = (history.send(0, release("a", 0)), history.send(5, acquire("a", 100)));
    history.end(20, &late, done()).unwrap();
    history.end(25, &acquired, Verdict::Answered(granted(5, 100))).unwrap();
    history.run(30, acquire("b", 100), granted(6, 100)).unwrap();
}

#[test]
fn a_renewal_holds_longer() {
    let mut history = History::new();
    history.run(0, acquire("a", 100), granted(5, 100)).unwrap();
    let renewed = Response::Renew(Granted { token: 5, lease_ms: 100, ..Granted::default() });
    history.run(80, renew(5, 100), renewed).unwrap();
    rejected(history.run(150, acquire("b", 100), granted(6, 100)), "both hold");
}

#[test]
fn a_renewal_may_shorten_the_lease_even_if_its_answer_is_lost() {
    let mut history = History::new();
    history.run(0, acquire("a", 1_000), granted(5, 1_000)).unwrap();
    let lost = history.send(10, renew(5, 50));
    history.end(20, &lost, Verdict::Unknown).unwrap();
    history.run(70, acquire("b", 100), granted(6, 100)).unwrap();
    let refused = history.send(80, renew(6, 10));
    history.end(81, &refused, Verdict::NotExecuted(trine_protocol::ErrorCode::NoLeader)).unwrap();
    rejected(history.run(100, acquire("c", 100), granted(7, 100)), "both hold");
}

#[test]
fn tokens_grow_in_real_time_and_are_one_grants() {
    let mut history = History::new();
    history.run(0, acquire("a", 10), granted(5, 10)).unwrap();
    rejected(history.run(50, acquire("b", 10), granted(4, 10)), "before it was asked for");
    let mut history = History::new();
    let (a, b) = (history.send(0, acquire("a", 10)), history.send(0, acquire("b", 10)));
    history.end(1, &a, Verdict::Answered(granted(5, 10))).unwrap();
    rejected(history.end(40, &b, Verdict::Answered(granted(5, 10))), "went to");
}

#[test]
fn a_late_renewal_is_rejected() {
    let renewed = Response::Renew(Granted { token: 5, lease_ms: 100, ..Granted::default() });
    let mut history = History::new();
    history.run(0, acquire("a", 10), granted(5, 10)).unwrap();
    history.run(50, acquire("b", 10), granted(6, 10)).unwrap();
    rejected(history.run(100, renew(5, 100), renewed.clone()), "token 6 was granted to b");
    let mut history = History::new();
    history.run(0, acquire("a", 100), granted(5, 100)).unwrap();
    history.run(10, release("a", 5), Response::Release(Released { was_held: true, depth: 0 })).unwrap();
    rejected(history.run(20, renew(5, 100), renewed), "was released");
}

fn shared(client: &str, lease_ms: u32) -> Acquire {
    Acquire { mode: Mode::Shared, ..acquire(client, lease_ms) }
}

fn permits(client: &str, count: u32) -> Acquire {
    Acquire { mode: Mode::Permits { count, of: 3 }, ..acquire(client, 1_000) }
}

#[test]
fn those_who_share_hold_together_and_nobody_else_does() {
    let mut history = History::new();
    history.run(0, shared("a", 100), granted(5, 100)).unwrap();
    history.run(10, shared("b", 100), granted(6, 100)).unwrap();
    rejected(history.run(50, acquire("c", 100), granted(7, 100)), "both hold");
}

#[test]
fn permits_are_counted() {
    let mut history = History::new();
    history.run(0, permits("a", 2), granted(5, 1_000)).unwrap();
    history.run(10, permits("b", 1), granted(6, 1_000)).unwrap();
    rejected(history.run(20, permits("c", 1), granted(7, 1_000)), "4 permits are held");
}

#[test]
fn who_waits_is_not_overtaken() {
    let mut history = History::new();
    let mut waits = history.send(0, Acquire { wait_ms: 5_000, ..acquire("a", 100) });
    let fair = history.send(1, acquire("b", 100));
    (waits.from_us, waits.waiting_us) = (2_000, Some(5_000));
    let late = history.send(6, acquire("c", 100));
    history.end(7, &fair, Verdict::Answered(granted(5, 100))).unwrap();
    history.end(200, &late, Verdict::Answered(granted(6, 10))).unwrap();
    rejected(history.end(400, &waits, Verdict::Answered(granted(9, 100))), "c came later and got token 6");
}

#[test]
fn a_hold_that_was_waited_for_counts_from_the_last_word_that_it_waits() {
    let mut history = History::new();
    let mut waits = history.send(0, Acquire { wait_ms: 5_000, ..acquire("a", 100) });
    (waits.from_us, waits.waiting_us) = (3_000_000, Some(3_010_000));
    history.end(3_020, &waits, Verdict::Answered(granted(5, 100))).unwrap();
    rejected(history.run(3_060, acquire("b", 100), granted(6, 100)), "both hold");
}

#[test]
fn a_write_under_a_token_is_not_done_after_a_later_grant() {
    let mut bodies = 0;
    let mut enqueue = |token| {
        bodies += 1;
        let if_token = Some(IfToken { lock: "l".into(), token });
        Enqueue { queue: "q".into(), body: bodies.to_string().into(), if_token, ..Enqueue::default() }
    };
    let mut history = History::new();
    history.run(0, acquire("a", 10), granted(5, 10)).unwrap();
    history.run(1, enqueue(5), Response::Enqueue(Enqueued { id: 6, ..Enqueued::default() })).unwrap();
    let on_its_way = history.send(2, enqueue(5));
    history.run(50, acquire("b", 10), granted(7, 10)).unwrap();
    history
        .end(60, &on_its_way, Verdict::Answered(Response::Enqueue(Enqueued { id: 8, ..Enqueued::default() })))
        .unwrap();
    rejected(
        history.run(70, enqueue(5), Response::Enqueue(Enqueued { id: 9, ..Enqueued::default() })),
        "token 7 was granted to b",
    );
}

#[test]
fn a_fence_never_lets_a_lower_token_pass() {
    use trine_protocol::lock::{Fence, Fenced};
    let fence = |token| Fence { resource: "disk".into(), token };
    let mut history = History::new();
    let early = history.send(0, fence(5));
    history.run(1, fence(7), Response::Fence(Fenced { before: 0 })).unwrap();
    history.end(9, &early, Verdict::Answered(Response::Fence(Fenced { before: 0 }))).unwrap();
    rejected(history.run(10, fence(6), Response::Fence(Fenced { before: 7 })), "let token 6 pass after 7");
}
