//! What the metrics rest on: what was done to locks, and how long each was held.

use trine_protocol::lock::{Acquire, Release, Renew};

use crate::ids::At;
use crate::lock::{Caller, Command, Counts, ENDED_MAX, Ended, State};
use crate::rules::Faithful;

fn apply(state: &mut State, index: u64, stamp_ms: u64, command: Command) -> bool {
    let at = At { index, stamp_ms, wall_ms: 0, generation: 0 };
    state.expire::<Faithful>(at, &[]);
    state.apply::<Faithful>(at, Caller { session: 1, sequence: index }, &command).is_ok()
}

fn acquire(lock: &str, client: &str, lease_ms: u32) -> Command {
    Command::Acquire(Acquire { lock: lock.into(), client: client.into(), lease_ms, ..Acquire::default() })
}

fn release(lock: &str, client: &str) -> Command {
    Command::Release(Release { lock: lock.into(), client: client.into(), token: 0, ..Release::default() })
}

#[test]
fn each_end_of_a_lock_is_noted_with_its_time() {
    let mut state = State::default();
    assert!(apply(&mut state, 1, 1_000, acquire("a", "me", 500)));
    assert!(apply(&mut state, 2, 1_100, acquire("b", "me", 10_000)));
    assert!(!apply(&mut state, 3, 1_200, acquire("a", "you", 500)), "it is held");
    let renew = Renew { lock: "a".into(), client: "me".into(), token: 1, lease_ms: 800, ..Renew::default() };
    assert!(apply(&mut state, 4, 1_300, Command::Renew(renew)));
    assert!(apply(&mut state, 5, 1_850, release("b", "me")));
    assert!(apply(&mut state, 6, 1_860, release("b", "me")), "nobody holds it: released already");
    assert_eq!(state.take_ended(), [Ended { held_ms: 750, expired: false }]);
    // The lease ended at 2,100, however much later the log says so.
    let late = At { index: 7, stamp_ms: 9_000, wall_ms: 0, generation: 0 };
    assert_eq!(state.expire::<Faithful>(late, &[]), 1);
    assert_eq!(state.take_ended(), [Ended { held_ms: 1_100, expired: true }]);
    assert_eq!(state.take_ended(), []);
    assert_eq!(
        state.counts(),
        Counts { granted: 2, renewed: 1, released: 1, expired: 1, contended: 1, ..Counts::default() }
    );
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

#[test]
fn each_grant_that_was_waited_for_is_noted_with_its_time() {
    let mut state = State::default();
    let wait = |client: &str| Command::Acquire(Acquire { wait_ms: 5_000, ..Acquire::new("a", client, 500) });
    assert!(apply(&mut state, 1, 1_000, acquire("a", "me", 500)));
    assert!(apply(&mut state, 2, 1_100, wait("you")) && apply(&mut state, 3, 1_200, wait("they")));
    assert!(apply(&mut state, 4, 1_300, release("a", "me")));
    assert!(apply(&mut state, 5, 1_900, release("b", "nobody")), "the time of an entry alone hands it on");
    assert_eq!(state.take_waited(), [200, 700]);
    assert_eq!(state.take_waited(), [0; 0]);
    let counts = state.counts();
    assert_eq!((counts.contended, counts.waited, counts.granted, counts.expired), (2, 2, 3, 1));
}
