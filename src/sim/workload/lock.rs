//! What clients want of locks: alone, shared, permits, several at once; now, or for as long as they wait; and what they do with what they get.
//!
//! A client asks under one of two kinds of names: one of its own for each acquire, so that the checker can tell every grant from every
//! other, or one that it keeps, so that two clients who hold something and wait for each other are found out.

use bytes::Bytes;
use trine_protocol::lock::{Acquire, Cancel, Fence, ForceRelease, IfToken, Inspect, Mode, Release, Renew};
use trine_protocol::queue::LockStep;
use trine_protocol::{Request, Response};

use super::{Client, Workload};
use crate::ids::GroupId;
use crate::node::effect::SessionRef;
use crate::sim::checker::{Operation, Verdict};
use crate::sim::random::Random;

/// Permits of every semaphore.
const PERMITS: u32 = 3;

/// Longest session that anything is held through.
const SHORT_MS: u32 = 10_000;

/// A grant that a client has in hand.
#[derive(Clone, Debug)]
pub(super) struct Held {
    group: GroupId,
    lock: String,
    also: Vec<String>,
    client: String,
    token: u64,
    mode: Mode,
    /// It may be held more than once.
    entered_again: bool,
}

/// An acquire that a client does not wait for any more, and does not know the end of.
#[derive(Clone, Debug)]
pub(super) struct Doubtful {
    group: GroupId,
    session: SessionRef,
    acquire: Acquire,
}

impl Workload {
    pub(super) fn next_of_lock(&mut self, random: &mut Random, client: usize, group: GroupId) -> (GroupId, Request) {
        if let Some(cancel) = self.next_cancel(client) {
            return cancel;
        }
        let in_hand = self.clients[client].locks.len() as u64;
        if in_hand > 0 && random.chance(550) {
            return self.next_of_held(random, client, in_hand);
        }
        if random.chance(15) {
            return (group, ForceRelease { lock: self.name(random, 'l', group) }.into());
        }
        if random.below(10) < 2 {
            return (group, Inspect { lock: self.name(random, 'l', group) }.into());
        }
        (group, self.next_acquire(random, client, group).into())
    }

    fn next_acquire(&mut self, random: &mut Random, client: usize, group: GroupId) -> Acquire {
        self.values += 1;
        let session = self.clients[client].sessions.as_ref().and_then(|sessions| sessions.get(&group));
        let session_ms = session.map(|session| session.timeout_ms).filter(|timeout_ms| *timeout_ms <= SHORT_MS);
        let keeps_its_name = random.chance(400);
        let holder = if keeps_its_name { format!("c{client}") } else { format!("c{client}-{}", self.values) };
        let semaphore = random.chance(200);
        let kind = if semaphore { 'p' } else { 'l' };
        let mode = match semaphore {
            true => Mode::Permits { count: random.between(1, u64::from(PERMITS)) as u32, of: PERMITS },
            false if random.chance(350) => Mode::Shared,
            false => Mode::Exclusive,
        };
        let mut acquire = Acquire::new(self.name(random, kind, group), holder, random.between(100, 3_000) as u32);
        acquire.mode = mode;
        if random.chance(600) {
            acquire.wait_ms = random.between(100, 8_000) as u32;
        }
        if random.chance(150) {
            let other = self.name(random, kind, group);
            if other != acquire.lock {
                acquire.also.push(other);
            }
        }
        if random.chance(100) {
            acquire.delay_ms = random.between(50, 500) as u32;
        }
        // What is held through a session that lives for long would hold up everybody who comes after its client.
        if let Some(session_ms) = session_ms.filter(|_| random.chance(100)) {
            (acquire.through_session, acquire.lease_ms) = (true, session_ms);
        }
        acquire
    }

    fn next_of_held(&mut self, random: &mut Random, client: usize, in_hand: u64) -> (GroupId, Request) {
        let position = random.below(in_hand) as usize;
        let locks = &mut self.clients[client].locks;
        let held = locks[position].clone();
        let Held { group, lock, also, client: holder, token, mode, .. } = held;
        match random.below(100) {
            0..35 => {
                let lease_ms = random.between(100, 2_000) as u32;
                (group, Renew { lock, client: holder, token, lease_ms, also }.into())
            }
            35..42 if also.is_empty() && !matches!(mode, Mode::Permits { .. }) => {
                locks[position].entered_again = true;
                let acquire = Acquire { mode, reenter: token, ..Acquire::new(lock, holder, 500) };
                (group, acquire.into())
            }
            42..48 => (group, Fence { resource: lock, token }.into()),
            _ => {
                locks.remove(position);
                let token = if random.chance(800) { token } else { 0 };
                let left = if random.chance(300) { "left".into() } else { Default::default() };
                (group, Release { lock, client: holder, token, left, also }.into())
            }
        }
    }

    /// What a hand-off does with a grant in hand. Of one that was entered again its answer would not say whether it is over.
    pub(super) fn lock_step(&mut self, random: &mut Random, client: usize, group: GroupId) -> Option<LockStep> {
        let locks = &mut self.clients[client].locks;
        let fits = |held: &Held| held.group == group && !held.entered_again;
        let position = locks.iter().position(fits).filter(|_| random.chance(700))?;
        let Held { lock, also, client, token, .. } = locks.remove(position);
        let left = Bytes::new();
        Some(match random.below(4) {
            // The token of no grant: nothing of the hand-off may happen.
            0 => LockStep::Release(Release { lock, client, token: token - 1, left, also }),
            1 => LockStep::Renew(Renew { lock, client, token, lease_ms: random.between(100, 2_000) as u32, also }),
            _ => LockStep::Release(Release { lock, client, token, left, also }),
        })
    }

    /// A grant in hand, for a write that demands it.
    pub(super) fn demanded(&self, random: &mut Random, client: usize, group: GroupId) -> Option<IfToken> {
        let of_group: Vec<&Held> = self.clients[client].locks.iter().filter(|held| held.group == group).collect();
        let held = of_group.get(random.below(of_group.len().max(1) as u64) as usize)?;
        random.chance(300).then(|| IfToken { lock: held.lock.clone(), token: held.token })
    }

    /// What a client gave up is cancelled next, in the same session.
    fn next_cancel(&mut self, client: usize) -> Option<(GroupId, Request)> {
        let Client { doubtful, sessions, .. } = &mut self.clients[client];
        let Doubtful { group, session, acquire } = doubtful.pop()?;
        let current = sessions.as_ref()?.get(&group)?;
        if current.id != session.session {
            return None;
        }
        let Acquire { lock, client: holder, also, .. } = acquire;
        let cancel = Cancel { lock, client: holder, sequence: session.sequence, give_back: true, also };
        Some((group, cancel.into()))
    }
}

impl Client {
    /// What the client learns of a lock's operation. True where it must not let go of its number yet.
    pub(super) fn lock_ended(&mut self, operation: &Operation, verdict: &Verdict, session: Option<SessionRef>) -> bool {
        match (&operation.request, verdict) {
            (Request::Acquire(acquire), Verdict::Answered(Response::Acquire(granted))) if acquire.reenter == 0 => {
                self.locks.push(Held {
                    group: operation.group,
                    lock: acquire.lock.clone(),
                    also: acquire.also.clone(),
                    client: acquire.client.clone(),
                    token: granted.token,
                    mode: acquire.mode,
                    entered_again: false,
                });
            }
            (Request::Acquire(acquire), Verdict::Unknown) if acquire.wait_ms > 0 => {
                let Some(session) = session else { return false };
                self.doubtful.push(Doubtful { group: operation.group, session, acquire: acquire.clone() });
                return true;
            }
            (Request::Cancel(cancel), _) => {
                let sessions = self.sessions.as_mut().and_then(|sessions| sessions.get_mut(&operation.group));
                if let Some(current) = sessions.filter(|current| Some(current.id) == session.map(|used| used.session)) {
                    current.open.remove(&cancel.sequence);
                }
            }
            _ => {}
        }
        false
    }
}
