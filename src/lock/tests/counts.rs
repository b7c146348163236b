//! What the metrics rest on: what was done to locks, and how long each was held.

use trine_protocol::lock::{Acquire, Release, Renew};

use crate::ids::At;
use crate::lock::{Command, Counts, ENDED_MAX, Ended, State};

fn apply(state: &mut State, index: u64, stamp_ms: u64, command: Command) -> bool {
    state.expire(stamp_ms);
    state.apply(At { index, stamp_ms, wall_ms: 0, generation: 0 }, &command).is_ok()
}

fn acquire(lock: &str, client: &str, lease_ms: u32) -> Command {
    Command::Acquire(Acquire { lock: lock.into(), client: client.into(), lease_ms })
}

fn release(lock: &str, client: &str) -> Command {
    Command::Release(Release { lock: lock.into(), client: client.into(), token: 0 })
}

#[test]
fn each_end_of_a_lock_is_noted_with_its_time() {
    let mut state = State::default();
    assert!(apply(&mut state, 1, 1_000, acquire("a", "me", 500)));
    assert!(apply(&mut state, 2, 1_100, acquire("b", "me", 10_000)));
    assert!(!apply(&mut state, 3, 1_200, acquire("a", "you", 500)), "it is held");
    let renew = Renew { lock: "a".into(), client: "me".into(), token: 1, lease_ms: 800 };
    assert!(apply(&mut state, 4, 1_300, Command::Renew(renew)));
    assert!(apply(&mut state, 5, 1_850, release("b", "me")));
    assert!(apply(&mut state, 6, 1_860, release("b", "me")), "nobody holds it: released already");
    assert_eq!(state.take_ended(), [Ended { held_ms: 750, expired: false }]);
    // The lease ended at 2,100, however much later the log says so.
    assert_eq!(state.expire(9_000), 1);
    assert_eq!(state.take_ended(), [Ended { held_ms: 1_100, expired: true }]);
    assert_eq!(state.take_ended(), []);
    assert_eq!(state.counts(), Counts { granted: 2, renewed: 1, released: 1, expired: 1, contended: 1 });
}

#[test]
fn notes_that_nobody_takes_are_bounded() {
    let mut state = State::default();
    for index in 0..2 * ENDED_MAX as u64 {
        assert!(apply(&mut state, 2 * index + 1, index, acquire("a", "me", 500)));
        assert!(apply(&mut state, 2 * index + 2, index, release("a", "me")));
    }
    assert_eq!(state.counts().released, 2 * ENDED_MAX as u64);
    assert_eq!(state.take_ended().len(), ENDED_MAX);
}
