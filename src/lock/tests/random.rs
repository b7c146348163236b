//! Random histories with everything that there is: locks alone, shared and counted, several at once, waits, cancellations, sessions, forces.
//! What is asked of each step: every invariant holds, two replicas of which one restarts all the time say the same, nobody in a line is overtaken,
//! and a lock that nobody has to do with any more leaves nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use trine_protocol::lock::{Acquire, Cancel, ForceRelease, Mode, Release, Renew};

use super::disk::Disk;
use crate::ids::At;
use crate::lock::{Answer, Bounds, Caller, Command, Settled, State};
use crate::rules::Faithful;

#[derive(Clone, Debug)]
enum Op {
    Acquire { locks: Vec<u8>, client: u8, mode: u8, wait_ms: u16, lease_ms: u16, more: u8 },
    Release { lock: u8, client: u8, token: bool },
    Renew { lock: u8, client: u8, lease_ms: u16 },
    Cancel { back: u8 },
    GiveUp { back: u8 },
    Again { back: u8 },
    Force { lock: u8 },
    EndSession { session: u8 },
    Advance { ms: u16 },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let locks = prop::collection::vec(0..4_u8, 1..3);
    let (lock, client) = (0..4_u8, 0..4_u8);
    prop_oneof![
        10 => (locks, client.clone(), 0..4_u8, 0..3_000_u16, 1..2_000_u16, any::<u8>()).prop_map(
            |(locks, client, mode, wait_ms, lease_ms, more)| Op::Acquire { locks, client, mode, wait_ms, lease_ms, more }
        ),
        6 => (lock.clone(), client.clone(), any::<bool>()).prop_map(|(lock, client, token)| Op::Release { lock, client, token }),
        2 => (lock.clone(), client, 1..2_000_u16).prop_map(|(lock, client, lease_ms)| Op::Renew { lock, client, lease_ms }),
        1 => (0..8_u8).prop_map(|back| Op::Cancel { back }),
        1 => (0..8_u8).prop_map(|back| Op::GiveUp { back }),
        2 => (0..8_u8).prop_map(|back| Op::Again { back }),
        1 => lock.prop_map(|lock| Op::Force { lock }),
        1 => (1..4_u8).prop_map(|session| Op::EndSession { session }),
        4 => (0..1_500_u16).prop_map(|ms| Op::Advance { ms }),
        2 => Just(Op::Restart),
    ]
}

fn bounds() -> Bounds {
    Bounds { waiters_max: 12, past_max: 3, ..Bounds::default() }
}

/// Two replicas, and what is known of the waits.
struct Bench {
    state: State,
    twin: State,
    disk: Disk,
    at: At,
    ended: Vec<u64>,
    /// Each acquire that waits: its entry, and the locks that it wants.
    waits: BTreeMap<(u64, u64), (u64, Vec<String>)>,
}

impl Bench {
    fn new() -> Self {
        let at = At { index: 0, stamp_ms: 0, wall_ms: 0, generation: 0 };
        let state = || Disk::default().restore(bounds());
        let (state, twin) = (state(), state());
        Self { state, twin, disk: Disk::default(), at, ended: Vec::new(), waits: BTreeMap::new() }
    }

    /// The number of an acquire some entries back.
    fn caller(&self, back: u8) -> Caller {
        let index = self.at.index.saturating_sub(u64::from(back));
        Caller { session: 1 + index % 3, sequence: index }
    }

    fn both<T: PartialEq + std::fmt::Debug>(&mut self, act: impl Fn(&mut State, At) -> T) -> T {
        self.at.index += 1;
        let ended = std::mem::take(&mut self.ended);
        let at = self.at;
        let run = |state: &mut State| {
            let expired = state.expire::<Faithful>(at, &ended);
            let mut settled = state.take_settled();
            let answer = act(state, at);
            settled.extend(state.take_settled());
            (expired, settled, answer)
        };
        let (one, other) = (run(&mut self.state), run(&mut self.twin));
        // After a restart every line is looked at once, so those whom one entry lets in may come in another order.
        let sorted = |settled: &[Settled]| {
            let mut settled = settled.to_vec();
            settled.sort_by_key(|one| (one.session, one.sequence));
            settled
        };
        let (of_one, of_other) = ((one.0, sorted(&one.1), &one.2), (other.0, sorted(&other.1), &other.2));
        assert_eq!(of_one, of_other, "two replicas, one of which has restarted");
        self.settle(&one.1, &ended);
        one.2
    }

    /// Who is granted was first in all its lines, but for those that were let in together with it.
    fn settle(&mut self, settled: &[Settled], ended: &[u64]) {
        self.waits.retain(|(session, _), _| !ended.contains(session));
        for one in settled {
            let wait = self.waits.remove(&(one.session, one.sequence));
            let (Some((came, locks)), Ok(Answer::Granted(_))) = (wait, &one.result) else { continue };
            let before = self
                .waits
                .values()
                .find(|(other, theirs)| *other < came && theirs.iter().any(|lock| locks.contains(lock)));
            assert!(before.is_none(), "{before:?} was overtaken by {came}");
        }
    }

    fn step(&mut self, op: &Op) {
        let name = |number: u8| format!("l{number}");
        let client = |number: u8| format!("c{number}");
        match op {
            Op::Acquire { locks, client: who, mode, wait_ms, lease_ms, more } => {
                let mode = match mode {
                    0 | 1 => Mode::Exclusive,
                    2 => Mode::Shared,
                    _ => Mode::Permits { count: 1 + u32::from(more % 2), of: 3 },
                };
                let mut locks: Vec<String> = locks.iter().map(|lock| name(*lock)).collect();
                locks.dedup();
                let mut acquire = Acquire::new(locks[0].clone(), client(*who), u32::from(*lease_ms));
                acquire.also = locks[1..].to_vec();
                acquire.mode = mode;
                acquire.wait_ms = u32::from(*wait_ms);
                acquire.through_session = more % 8 == 7;
                acquire.delay_ms = if more % 16 == 5 { 300 } else { 0 };
                let index = self.at.index + 1;
                let by = Caller { session: 1 + index % 3, sequence: index };
                let command = Command::Acquire(acquire);
                let answer = self.both(move |state, at| state.apply::<Faithful>(at, by, &command));
                match answer {
                    Ok(Answer::Waiting) => drop(self.waits.insert((by.session, by.sequence), (index, locks))),
                    Ok(Answer::Granted(_)) => {
                        let before =
                            self.waits.values().find(|(_, theirs)| theirs.iter().any(|lock| locks.contains(lock)));
                        assert!(before.is_none(), "{before:?} was overtaken at once");
                    }
                    _ => {}
                }
            }
            Op::Release { lock, client: who, token } => {
                let lock = name(*lock);
                let token = if *token { self.state.holder(&lock).map_or(0, |held| held.token) } else { 0 };
                let command = Command::Release(Release { lock, client: client(*who), token, ..Release::default() });
                drop(self.both(move |state, at| state.apply::<Faithful>(at, Caller::default(), &command)));
            }
            Op::Renew { lock, client: who, lease_ms } => {
                let lock = name(*lock);
                let token = self.state.holder(&lock).map_or(1, |held| held.token);
                let lease_ms = u32::from(*lease_ms);
                let command = Command::Renew(Renew { lock, client: client(*who), token, lease_ms, ..Renew::default() });
                drop(self.both(move |state, at| state.apply::<Faithful>(at, Caller::default(), &command)));
            }
            Op::Cancel { back } => {
                let target = self.caller(*back);
                let command =
                    Command::Cancel(Cancel { lock: "l0".into(), sequence: target.sequence, ..Cancel::default() });
                drop(self.both(move |state, at| state.apply::<Faithful>(at, target, &command)));
            }
            Op::GiveUp { back } => {
                let by = self.caller(*back);
                self.waits.remove(&(by.session, by.sequence));
                self.both(move |state, at| state.give_up(at, by));
            }
            Op::Again { back } => {
                let by = self.caller(*back);
                self.both(move |state, at| state.keep_waiting(at, by));
            }
            Op::Force { lock } => {
                let command = Command::ForceRelease(ForceRelease { lock: name(*lock) });
                drop(self.both(move |state, at| state.apply::<Faithful>(at, Caller::default(), &command)));
            }
            Op::EndSession { session } => self.ended.push(u64::from(*session)),
            Op::Advance { ms } => self.at.stamp_ms += u64::from(*ms),
            Op::Restart => {
                self.disk.checkpoint(&mut self.state);
                self.state = self.disk.restore(bounds());
            }
        }
        self.state.check_invariants();
        self.twin.check_invariants();
        assert_eq!(self.state.records(), self.twin.records());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_an_invariant_or_overtakes_a_waiter(ops in prop::collection::vec(op(), 1..120)) {
        let mut bench = Bench::new();
        for op in &ops {
            bench.step(op);
        }
        // When everybody is gone, nothing is left but how the last grants ended.
        bench.ended = vec![1, 2, 3];
        bench.at.stamp_ms += 100_000;
        bench.both(|_, _| ());
        bench.at.stamp_ms += 100_000;
        bench.both(|_, _| ());
        let left = bench.state.stats();
        prop_assert_eq!((left.held, left.waiting), (0, 0));
        prop_assert!(bench.state.list_locks("", "", 0).locks.is_empty());
    }
}
