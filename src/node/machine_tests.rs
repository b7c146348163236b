//! Where the table of sessions and the locks meet: what becomes of a wait that is cancelled, given up, or ends with its session; and writes
//! that demand a grant.

use trine_protocol::lock::{Acquire, Cancel, IfToken, Release};
use trine_protocol::queue::{Ack, AckWhich, Dequeue, Enqueue};
use trine_protocol::{Error, ErrorCode};

use super::machine::{Answer, Command, Machine, Once, Operation, Outcome};
use super::session::Stored;
use crate::ids::{Incarnation, NodeId};
use crate::raft::Entry;
use crate::rules::Faithful;
use crate::{cache, lock, queue, record};

struct Bench {
    machine: Machine,
    index: u64,
    stamp_ms: u64,
}

impl Bench {
    fn new() -> Self {
        Self { machine: Machine::new(0), index: 0, stamp_ms: 1_000 }
    }

    fn entry(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let data = record::encode(command).into();
        let (index, stamp_ms) = (self.index, self.stamp_ms);
        let entry = Entry { index, term: 1, stamp_ms, wall_ms: 0, data, membership: None };
        let (_, outcome) = self.machine.apply::<Faithful>(&entry);
        self.machine.check_invariants();
        outcome
    }

    fn session(&mut self, timeout_ms: u32) -> u64 {
        match self.entry(&Command::OpenSessionFor(timeout_ms)) {
            Outcome::Session(Ok(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    fn once(&mut self, (session, sequence): (u64, u64), acked_below: u64, operation: Operation) -> Stored {
        match self.entry(&Command::Once(Once { session, sequence, acked_below, operation })) {
            Outcome::Once { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn lock(&mut self, by: (u64, u64), command: lock::Command) -> Stored {
        self.once(by, 1, Operation::Lock(command))
    }

    fn acquire(&mut self, by: (u64, u64), client: &str, wait_ms: u32) -> Stored {
        self.lock(by, lock::Command::Acquire(Acquire { wait_ms, ..Acquire::new("demo", client, 10_000) }))
    }

    fn cancel(&mut self, by: (u64, u64), client: &str, sequence: u64, give_back: bool) -> (bool, u64) {
        let (lock, client, also) = ("demo".to_owned(), client.to_owned(), Vec::new());
        match self.lock(by, lock::Command::Cancel(Cancel { lock, sequence, client, give_back, also })) {
            Ok(Answer::Lock(lock::Answer::Cancelled(cancelled))) => (cancelled.was_waiting, cancelled.token),
            other => panic!("{other:?}"),
        }
    }

    fn holder(&self) -> Option<&str> {
        self.machine.lock().holder("demo").map(|held| &*held.client)
    }
}

fn token(stored: &Stored) -> u64 {
    match stored {
        Ok(Answer::Lock(lock::Answer::Granted(granted))) => granted.token,
        other => panic!("{other:?}"),
    }
}

fn code<T: std::fmt::Debug>(result: &Result<T, Error>) -> ErrorCode {
    result.as_ref().expect_err("it is refused").code
}

const WAITING: Stored = Ok(Answer::Lock(lock::Answer::Waiting));

#[test]
fn a_cancelled_re_entry_leaves_the_grant_that_it_entered() {
    let mut scene = Bench::new();
    let session = scene.session(60_000);
    let first = scene.acquire((session, 1), "a", 0);
    let reenter = Acquire { reenter: token(&first), ..Acquire::new("demo", "a", 10_000) };
    let again = scene.lock((session, 2), lock::Command::Acquire(reenter));
    assert_eq!(token(&again), token(&first));
    scene.cancel((session, 3), "a", 2, true);
    assert_eq!(scene.holder(), Some("a"), "only the second entry is taken back");
    let release = Release { lock: "demo".into(), client: "a".into(), token: token(&first), ..Release::default() };
    scene.lock((session, 4), lock::Command::Release(release)).expect("a release");
    assert_eq!(scene.holder(), None, "one release is enough");
}

#[test]
fn a_wait_that_is_granted_is_answered_so_to_whoever_asks_again() {
    let mut bench = Bench::new();
    let session = bench.session(60_000);
    let first = token(&bench.acquire((session, 1), "a", 0));
    assert_eq!(bench.acquire((session, 2), "b", 5_000), WAITING);
    assert_eq!(bench.acquire((session, 2), "b", 5_000), WAITING, "the same number again goes on waiting");
    let release = Release { lock: "demo".into(), client: "a".into(), token: first, ..Release::default() };
    bench.lock((session, 3), lock::Command::Release(release)).unwrap();
    let settled = bench.machine.take_settled();
    assert_eq!(settled.len(), 1);
    assert_eq!((settled[0].0, settled[0].1, token(&settled[0].2)), (session, 2, bench.index));
    assert_eq!(token(&bench.acquire((session, 2), "b", 5_000)), settled[0].2.as_ref().map_or(0, |_| bench.index - 1));
    assert_eq!(bench.holder(), Some("b"));
}

#[test]
fn a_cancelled_acquire_that_arrives_late_does_not_wait() {
    let mut bench = Bench::new();
    let session = bench.session(60_000);
    bench.acquire((session, 1), "a", 0).unwrap();
    assert_eq!(bench.cancel((session, 3), "b", 2, true), (false, 0), "it has not come yet");
    assert_eq!(code(&bench.acquire((session, 2), "b", 5_000)), ErrorCode::WaitCancelled);
    assert_eq!(bench.machine.lock().stats().waiting, 0);
    assert_eq!(bench.acquire((session, 4), "c", 5_000), WAITING);
    assert_eq!(bench.cancel((session, 5), "c", 4, false), (true, 0));
    assert_eq!(code(&bench.acquire((session, 4), "c", 5_000)), ErrorCode::WaitCancelled);
}

#[test]
fn a_cancelled_acquire_that_was_granted_says_so_or_is_given_back() {
    let mut bench = Bench::new();
    let session = bench.session(60_000);
    let granted = token(&bench.acquire((session, 1), "a", 5_000));
    assert_eq!(bench.cancel((session, 2), "a", 1, false), (false, granted));
    assert_eq!(bench.holder(), Some("a"));
    assert_eq!(bench.acquire((session, 3), "b", 5_000), WAITING);
    assert_eq!(bench.cancel((session, 4), "a", 1, true), (false, 0));
    assert_eq!(bench.holder(), Some("b"), "given back, and handed on");
}

#[test]
fn a_number_that_is_given_up_waits_no_more() {
    let mut bench = Bench::new();
    let session = bench.session(60_000);
    bench.acquire((session, 1), "a", 0).unwrap();
    assert_eq!(bench.acquire((session, 2), "b", 5_000), WAITING);
    assert_eq!(bench.once((session, 3), 3, Operation::KeepAlive), Ok(Answer::Kept));
    assert_eq!(bench.machine.lock().stats().waiting, 0, "everything below 3 is acknowledged");
}

#[test]
fn a_session_that_ends_takes_what_waits_and_what_is_held_through_it() {
    let mut bench = Bench::new();
    let (short, long) = (bench.session(2_000), bench.session(60_000));
    let through = Acquire { through_session: true, ..Acquire::new("demo", "a", 10_000) };
    bench.lock((short, 1), lock::Command::Acquire(through)).unwrap();
    assert_eq!(bench.acquire((short, 2), "b", 60_000), WAITING);
    assert_eq!(bench.acquire((long, 1), "c", 60_000), WAITING);
    assert_eq!(bench.machine.next_deadline_ms(), Some(3_000), "the short session's end");
    bench.stamp_ms = 3_000;
    bench.entry(&Command::Tick);
    assert_eq!(bench.holder(), Some("c"));
    assert_eq!(bench.machine.lock().stats().waiting, 0);
    assert_eq!(code(&bench.acquire((short, 2), "b", 60_000)), ErrorCode::SessionExpired);
}

#[test]
fn writes_that_demand_a_grant_are_done_while_it_holds_and_never_after() {
    let mut bench = Bench::new();
    let session = bench.session(60_000);
    let mut sequence = 0;
    let mut write = |bench: &mut Bench, token: u64| {
        let if_token = Some(IfToken { lock: "demo".into(), token });
        let enqueue = Enqueue { queue: "q".into(), body: "m".into(), if_token: if_token.clone(), ..Enqueue::default() };
        let which = AckWhich::Receipt { id: 77, token: 78 };
        let ack = Ack { queue: "q".into(), which, if_token: if_token.clone() };
        let (node, write) = (NodeId::numbered(1), cache::WriteId { session, sequence: 900 });
        let own = cache::Own::refusal("k".into(), node, Incarnation(1), write);
        let own = cache::Own { refused: false, value: Some("v".into()), through: true, if_token, ..own };
        [
            Operation::Queue(queue::Command::Enqueue(enqueue)),
            Operation::Queue(queue::Command::Ack(ack)),
            Operation::Own(own),
        ]
        .map(|operation| {
            sequence += 1;
            bench.once((session, 1_000 + sequence), 1, operation).map(drop).map_err(|error| error.code)
        })
    };
    let granted = token(&bench.acquire((session, 1), "a", 0));
    assert_eq!(write(&mut bench, granted), [Ok(()), Err(ErrorCode::NotInFlight), Ok(())], "each is looked at itself");
    assert_eq!(write(&mut bench, granted + 1), [Err(ErrorCode::LockNotHeld); 3]);
    bench.stamp_ms += 10_000;
    bench.entry(&Command::Tick);
    assert_eq!(write(&mut bench, granted), [Err(ErrorCode::LockNotHeld); 3], "the lease is over");
    let later = token(&bench.acquire((session, 2), "b", 0));
    assert_eq!(write(&mut bench, granted), [Err(ErrorCode::StaleToken); 3], "and somebody else has it");
    assert_eq!(write(&mut bench, later)[0], Ok(()));
    assert_eq!(bench.machine.queue().totals().counts.enqueued, 2);
    let none = Dequeue { queue: "other".into(), ..Dequeue::default() };
    bench.once((session, 3), 1, Operation::Queue(queue::Command::Dequeue(none))).unwrap();
}
