//! The same questions to the state machine and to a naive model: a list of all grants that ever were, of which at most the last
//! one of each name can hold. Nothing expires in it: whether a grant holds follows from its end and the time.

use proptest::prelude::*;
use trine_protocol::lock::{Acquire, Granted, Release, Released, Renew};
use trine_protocol::{Error, ErrorCode};

use super::disk::Disk;
use crate::ids::At;
use crate::lock::{Answer, Bounds, Caller, Command, State};
use crate::rules::Faithful;

const LOCKS_MAX: usize = 3;

fn bounds() -> Bounds {
    Bounds { locks_max: LOCKS_MAX, ..Bounds::default() }
}

struct Grant {
    lock: String,
    client: String,
    token: u64,
    granted_ms: u64,
    ends_ms: u64,
    released: bool,
}

#[derive(Default)]
struct Model {
    grants: Vec<Grant>,
}

impl Model {
    fn holds(grant: &Grant, now_ms: u64) -> bool {
        !grant.released && now_ms < grant.ends_ms
    }

    fn held(&self, now_ms: u64) -> Vec<&Grant> {
        self.grants.iter().filter(|grant| Self::holds(grant, now_ms)).collect()
    }

    /// The grant that a client means, or why it has none.
    fn mine(&mut self, now_ms: u64, lock: &str, client: &str) -> Result<Option<&mut Grant>, ErrorCode> {
        match self.grants.iter_mut().find(|grant| grant.lock == lock && Self::holds(grant, now_ms)) {
            Some(grant) if grant.client != client => Err(ErrorCode::LockHeldByOther),
            grant => Ok(grant),
        }
    }

    fn apply(&mut self, at: At, command: &Command) -> Result<Answer, ErrorCode> {
        let now_ms = at.stamp_ms;
        match command {
            Command::Acquire(Acquire { lock, client, lease_ms, .. }) => {
                let held = self.held(now_ms);
                if held.iter().any(|grant| grant.lock == *lock) {
                    return Err(ErrorCode::LockHeld);
                }
                if held.len() >= LOCKS_MAX {
                    return Err(ErrorCode::Overloaded);
                }
                let (lock, client, token, lease_ms) = (lock.clone(), client.clone(), at.token(), *lease_ms);
                let ends_ms = now_ms + u64::from(lease_ms);
                assert!(
                    self.grants.iter().all(|grant| grant.token < token),
                    "tokens grow over all grants that ever were"
                );
                self.grants.push(Grant { lock, client, token, granted_ms: now_ms, ends_ms, released: false });
                Ok(Answer::Granted(Granted { token, lease_ms, ..Granted::default() }))
            }
            Command::Release(Release { lock, client, token, .. }) => {
                let Some(grant) = self.mine(now_ms, lock, client)? else {
                    return Ok(Answer::Released(Released { was_held: false, ..Released::default() }));
                };
                let good = if *token == 0 { Ok(()) } else { same(*token, grant.token) };
                good.map(|()| {
                    grant.released = true;
                    Answer::Released(Released { was_held: true, ..Released::default() })
                })
            }
            Command::Renew(Renew { lock, client, token, lease_ms, .. }) => {
                let grant = self.mine(now_ms, lock, client)?.ok_or(ErrorCode::LockNotHeld)?;
                same(*token, grant.token)?;
                grant.ends_ms = now_ms + u64::from(*lease_ms);
                Ok(Answer::Granted(Granted { token: *token, lease_ms: *lease_ms, ..Granted::default() }))
            }
            other => panic!("the model knows nothing of {other:?}"),
        }
    }
}

fn same(token: u64, held: u64) -> Result<(), ErrorCode> {
    match token.cmp(&held) {
        std::cmp::Ordering::Less => Err(ErrorCode::StaleToken),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(ErrorCode::InvalidArgument),
    }
}

/// Which token a client names.
#[derive(Clone, Debug)]
enum Named {
    Zero,
    /// Of this client's grant or any other's that ever was.
    Granted(prop::sample::Index),
    Newest,
    Future,
}

#[derive(Clone, Debug)]
enum Op {
    Acquire { lock: u8, client: u8, lease_ms: u32 },
    Release { lock: u8, client: u8, token: Named },
    Renew { lock: u8, client: u8, token: Named, lease_ms: u32 },
    Advance { ms: u64 },
    Generation,
    Checkpoint,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let (lock, client, lease_ms) = (0..5_u8, 0..3_u8, 1..80_u32);
    let token = prop_oneof![
        2 => Just(Named::Zero),
        2 => any::<prop::sample::Index>().prop_map(Named::Granted),
        4 => Just(Named::Newest),
        1 => Just(Named::Future),
    ];
    prop_oneof![
        8 => (lock.clone(), client.clone(), lease_ms.clone())
            .prop_map(|(lock, client, lease_ms)| Op::Acquire { lock, client, lease_ms }),
        5 => (lock.clone(), client.clone(), token.clone())
            .prop_map(|(lock, client, token)| Op::Release { lock, client, token }),
        5 => (lock, client, token, lease_ms)
            .prop_map(|(lock, client, token, lease_ms)| Op::Renew { lock, client, token, lease_ms }),
        5 => (0..40_u64).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Generation),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Restart),
    ]
}

/// The machine, its twin that never restarts, the model and the disk, in step.
struct Bench {
    state: State,
    twin: State,
    model: Model,
    disk: Disk,
    at: At,
}

impl Bench {
    fn new() -> Self {
        let at = At { index: 0, stamp_ms: 0, wall_ms: 0, generation: 0 };
        let state = || Disk::default().restore(bounds());
        Self { state: state(), twin: state(), model: Model::default(), disk: Disk::default(), at }
    }

    fn token(&self, named: &Named, lock: &str) -> u64 {
        let grants = &self.model.grants;
        match named {
            Named::Zero => 0,
            Named::Granted(which) if !grants.is_empty() => which.get(grants).token,
            Named::Granted(_) | Named::Newest => {
                grants.iter().rev().find(|grant| grant.lock == lock).map_or(7, |grant| grant.token)
            }
            Named::Future => self.at.token() + 1,
        }
    }

    fn step(&mut self, op: &Op) {
        let name = |number: &u8| "n".repeat(usize::from(*number) + 1);
        let command = match op {
            Op::Acquire { lock, client, lease_ms } => Command::Acquire(Acquire {
                lock: name(lock),
                client: name(client),
                lease_ms: *lease_ms,
                ..Acquire::default()
            }),
            Op::Release { lock, client, token } => {
                let token = self.token(token, &name(lock));
                Command::Release(Release { lock: name(lock), client: name(client), token, ..Release::default() })
            }
            Op::Renew { lock, client, token, lease_ms } => {
                let token = self.token(token, &name(lock));
                Command::Renew(Renew {
                    lock: name(lock),
                    client: name(client),
                    token,
                    lease_ms: *lease_ms,
                    ..Renew::default()
                })
            }
            Op::Advance { ms } => return self.at.stamp_ms += ms,
            Op::Generation => return self.at.generation += 1,
            Op::Checkpoint => return drop(self.disk.checkpoint(&mut self.state)),
            Op::Restart => {
                self.disk.checkpoint(&mut self.state);
                self.state = self.disk.restore(bounds());
                return;
            }
        };
        self.command(&command);
        self.compare();
    }

    fn command(&mut self, command: &Command) {
        self.at.index += 1;
        let by = Caller { session: 1, sequence: self.at.index };
        assert_eq!(self.state.expire::<Faithful>(self.at, &[]), self.twin.expire::<Faithful>(self.at, &[]));
        let answer = self.state.apply::<Faithful>(self.at, by, command);
        assert_eq!(answer, self.twin.apply::<Faithful>(self.at, by, command), "two replicas answer {command:?}");
        // How the last grant ended is not the model's subject.
        let answer = answer.map(|answer| match answer {
            Answer::Granted(granted) => Answer::Granted(Granted { depth: 0, previous: Vec::new(), ..granted }),
            other => other,
        });
        let expected = self.model.apply(self.at, command);
        assert_eq!(answer.map_err(|error: Error| error.code), expected, "machine and model answer {command:?}");
    }

    fn compare(&self) {
        self.state.check_invariants();
        self.twin.check_invariants();
        assert_eq!(
            self.state.records(),
            self.twin.records(),
            "a restored replica is the same as one that never stopped"
        );
        let expected = self.model.held(self.at.stamp_ms);
        let held: Vec<_> = self.state.held().collect();
        assert_eq!(held.len(), expected.len());
        for ((lock, held), grant) in held.iter().zip(&expected) {
            assert_eq!((*lock, &*held.client, held.token), (&*grant.lock, &*grant.client, grant.token));
            assert_eq!((held.granted_ms, held.deadline_ms), (grant.granted_ms, grant.ends_ms));
        }
        assert_eq!(self.state.next_deadline_ms(), expected.iter().map(|grant| grant.ends_ms).min());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn machine_and_model_give_the_same_answers(ops in prop::collection::vec(op(), 1..150)) {
        let mut bench = Bench::new();
        for op in &ops {
            bench.step(op);
        }
        bench.step(&Op::Restart);
        bench.step(&Op::Release { lock: 0, client: 0, token: Named::Zero });
    }
}
