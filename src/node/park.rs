//! Requests that wait at the leader for what is not there yet: a lock that another client holds, the next holder of a lock.
//!
//! ```text
//!   client ──▶ node ── Forward ──▶ leader ── entry ──▶ "it waits"
//!                 ◀── StillWaiting ──  parks (session, sequence) → (node, id)
//!                 ── Forward, each few seconds ──▶  the waiter lives on, and a new leader parks it anew
//!                                      an entry hands the lock on
//!          ◀── Granted ── ◀── Answer ──
//! ```
//!
//! Who waits for a lock is in the log; what is kept here is only whom to tell. It is lost with the leader, and then made again: the node
//! that has the client's request sends it to whoever leads, under the same (session, sequence), and is told what it came to meanwhile.
//!
//! # Invariants
//! - A node sends what waits again every third part of the time after which a waiter is given up, so two may be lost.
//! - A request that waits is answered at its own deadline, with `StillWaiting`: nothing is lost by that, the same (session, sequence) goes on.
//!   Where the session is the node's, nobody could go on: the wait is cancelled, and what it was granted meanwhile is given back.
//!
//! # Caveats
//! - Who follows the holder of a lock waits in the leader's memory alone, and asks a new leader what has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use trine_protocol::lock::{Acquire, Cancel};
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::ids::NodeId;
use crate::lock::{ALIVE_MS_MAX, ALIVE_MS_MIN};
use crate::rules::Rules;

use super::apply::Read;
use super::{Replica, Step};

/// Requests that one leader keeps in mind; one more is not told, and asks again by itself.
const PARKED_MAX: usize = 200_000;
/// How often a node asks again for the next holder of a lock.
const OBSERVE_AGAIN_US: u64 = 5_000_000;
/// Of an own request with a time to wait, the part that is kept for the way there and back, in milliseconds.
const WAY_MS: u32 = 500;

/// Whom to tell: the node whose client asked (None where it is this one), and its number of the request.
pub(super) type Asker = (Option<NodeId>, u64);

/// What a leader keeps in mind.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// By the (session, sequence) of an acquire that waits.
    acquires: BTreeMap<(u64, u64), Asker>,
    /// By the lock that they follow: the token that each has seen, and since when it is here.
    observers: BTreeMap<Arc<str>, BTreeMap<Asker, (u64, u64)>>,
    observing: usize,
    looked_us: u64,
}

impl Parked {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn take_observers(&mut self, lock: &str) -> BTreeMap<Asker, (u64, u64)> {
        let observers = self.observers.remove(lock).unwrap_or_default();
        self.observing -= observers.len();
        observers
    }

    /// Those who do not ask again are gone.
    fn sweep(&mut self, now_us: u64) {
        self.looked_us = now_us;
        for observers in self.observers.values_mut() {
            observers.retain(|_, (_, since_us)| *since_us + 3 * OBSERVE_AGAIN_US > now_us);
        }
        self.observers.retain(|_, observers| !observers.is_empty());
        self.observing = self.observers.values().map(BTreeMap::len).sum();
    }
}

/// After how long a node sends a request again that is known to wait.
pub(super) fn again_us(request: &Request) -> u64 {
    match request {
        Request::Acquire(acquire) => u64::from(acquire.lease_ms.clamp(ALIVE_MS_MIN, ALIVE_MS_MAX)) * 1_000 / 3,
        _ => OBSERVE_AGAIN_US,
    }
}

/// What a request without a session of its client's may not ask for; and how long it may wait, as nobody could go on where it ends.
pub(super) fn without_session(request: &mut Request, remaining_us: u64) -> Result<(), Error> {
    let wrong = |what: &str| Err(Error::new(ErrorCode::InvalidArgument, what));
    match request {
        Request::Cancel(_) => wrong("a cancellation stands in the session of what it cancels: this request has none"),
        Request::Acquire(Acquire { through_session: true, .. }) => {
            wrong("a grant that ends with its session needs one: this request has none")
        }
        Request::Acquire(acquire) => {
            let remaining_ms = u32::try_from(remaining_us / 1_000).unwrap_or(u32::MAX);
            let way_ms = WAY_MS.min(remaining_ms / 2);
            acquire.wait_ms = acquire.wait_ms.min(remaining_ms - way_ms);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The command that takes back an acquire whose client hears no answer.
pub(super) fn taken_back(request: &Request, sequence: u64) -> Option<Request> {
    let Request::Acquire(Acquire { lock, client, also, .. }) = request else { return None };
    let (lock, client, also) = (lock.clone(), client.clone(), also.clone());
    Some(Cancel { lock, client, also, sequence, give_back: true }.into())
}

impl<R: Rules> Replica<R> {
    /// An acquire waits: its node is told so, and what comes of it later.
    pub(super) fn park(&mut self, step: &mut Step, asker: Asker, session: u64, sequence: u64) {
        let member = &mut self.member;
        if member.parked.acquires.len() < PARKED_MAX || member.parked.acquires.contains_key(&(session, sequence)) {
            member.parked.acquires.insert((session, sequence), asker);
        }
        let standing = member.machine.lock().standing(session, sequence);
        self.answer(step, asker.0, asker.1, Err(Error::new(ErrorCode::StillWaiting, standing)));
    }

    /// What the last entry has brought to those who wait.
    pub(super) fn tell_parked(&mut self, step: &mut Step) {
        let settled = self.member.machine.take_settled();
        let changed = self.member.machine.take_changed_locks();
        for (session, sequence, result) in settled {
            if let Some((node, id)) = self.member.parked.acquires.remove(&(session, sequence)) {
                let result = self.response(result);
                self.answer(step, node, id, result);
            }
        }
        if self.member.parked.observing == 0 {
            return;
        }
        for lock in changed {
            for ((node, id), (seen, since_us)) in self.member.parked.take_observers(&lock) {
                self.observe(step, (node, id), &lock, seen, since_us);
            }
        }
    }

    /// Answers who follows a lock, where it has not seen the present holder; otherwise it waits.
    fn observe(&mut self, step: &mut Step, asker: Asker, lock: &str, seen: u64, since_us: u64) {
        let member = &mut self.member;
        let observed = member.machine.lock().observe(lock);
        if observed.token != seen {
            return self.answer(step, asker.0, asker.1, Ok(Response::Observe(observed)));
        }
        if member.parked.observing < PARKED_MAX {
            let new = member.parked.observers.entry(lock.into()).or_default().insert(asker, (seen, since_us)).is_none();
            member.parked.observing += usize::from(new);
        }
    }

    /// Answers a linearizable read of the locks. None where it is no such read.
    pub(super) fn read_locks(&mut self, step: &mut Step, read: &Read) -> Option<()> {
        let now_ms = self.member.raft.log_time_ms(step.now);
        let locks = self.member.machine.lock();
        let response = match &read.request {
            Request::ExplainLock(explain) => {
                let mut explained = locks.explain_lock(&explain.lock, now_ms);
                explained.group = self.setup.group.0;
                Response::ExplainLock(explained)
            }
            Request::ExplainClient(explain) => Response::ExplainClient(locks.explain_client(&explain.client, now_ms)),
            Request::ListLocks(list) => Response::ListLocks(locks.list_locks(&list.prefix, &list.after, now_ms)),
            Request::Observe(observe) => {
                let asker = (read.node, read.id);
                if locks.observe(&observe.lock).token == observe.seen {
                    let what = format!("the holder of '{}' is the one that was seen", observe.lock);
                    self.answer(step, asker.0, asker.1, Err(Error::new(ErrorCode::StillWaiting, what)));
                }
                self.observe(step, asker, &observe.lock, observe.seen, step.now.mono_us);
                return Some(());
            }
            _ => return None,
        };
        self.answer(step, read.node, read.id, Ok(response));
        Some(())
    }

    pub(super) fn tick_parked(&mut self, step: &Step) {
        let parked = &mut self.member.parked;
        if step.now.mono_us >= parked.looked_us + OBSERVE_AGAIN_US {
            parked.sweep(step.now.mono_us);
        }
    }
}
