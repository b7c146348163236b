//! Waiting is part of the replicated state: who waits for what, in which order, and how long each still does.
//!
//! ```text
//!   Acquire ──▶ in line ──▶ granted      first in all its lines, and nothing in the way
//!                  ├──────▶ LockTimeout  its time is over
//!                  ├──────▶ WaitCancelled    it was cancelled, or nobody has sent it again for ALIVE_MS
//!                  └──────▶ (gone)       its session has ended, or gave its number up
//! ```
//!
//! A waiter is known by the (session, sequence) of its acquire. The same command sent again keeps it alive; so a waiter whose client
//! and node are gone gets nothing. Its ticket is the index of its entry, so the lines are in the order of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trine_protocol::limits::WAIT_MS_FOREVER;
use trine_protocol::lock::{Acquire, Cancel, Cancelled, Ending};
use trine_protocol::{Error, ErrorCode};

use super::hold::NEVER_MS;
use super::state::{Due, State};
use super::stored::Record;
use super::{ALIVE_MS_MAX, ALIVE_MS_MIN, Answer, Caller, ENDED_MAX, Settled};
use crate::ids::At;
use crate::rules::{Rule, Rules};

/// One who waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiter {
    /// The command that waits.
    pub(super) session: u64,
    pub(super) sequence: u64,
    /// What it asks for.
    pub(super) acquire: Acquire,
    /// Log time at which it came.
    pub(super) since_ms: u64,
    /// Log time at which it gives up.
    pub(super) gives_up_ms: u64,
    /// Log time at which it goes unless it is heard of before.
    pub(super) alive_ms: u64,
}

impl Waiter {
    fn due_ms(&self) -> u64 {
        self.gives_up_ms.min(self.alive_ms)
    }
}

/// All who wait in one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiters {
    table: BTreeMap<u64, Waiter>,
    by_command: BTreeMap<(u64, u64), u64>,
    by_client: BTreeSet<(Arc<str>, u64)>,
}

impl Waiters {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn first(&self) -> Option<(&u64, &Waiter)> {
        self.table.first_key_value()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&u64, &Waiter)> {
        self.table.iter()
    }

    /// # Panics
    /// Where nobody has that ticket: tickets stand in lines, and lines hold waiters only.
    pub(super) fn get(&self, ticket: u64) -> &Waiter {
        &self.table[&ticket]
    }

    pub(super) fn find(&self, ticket: u64) -> Option<&Waiter> {
        self.table.get(&ticket)
    }

    pub(super) fn of_command(&self, session: u64, sequence: u64) -> Option<u64> {
        self.by_command.get(&(session, sequence)).copied()
    }

    /// The tickets of a client.
    pub(super) fn of_client(&self, client: &str) -> impl Iterator<Item = u64> + use<'_> {
        let client: Arc<str> = client.into();
        let from = (Arc::clone(&client), 0);
        self.by_client.range(from..).take_while(move |(of, _)| *of == client).map(|(_, ticket)| *ticket)
    }

    /// The tickets of a session.
    pub(super) fn of_session(&self, session: u64) -> Vec<u64> {
        self.by_command.range((session, 0)..=(session, u64::MAX)).map(|(_, ticket)| *ticket).collect()
    }

    pub(super) fn insert(&mut self, ticket: u64, waiter: Waiter) {
        self.by_command.insert((waiter.session, waiter.sequence), ticket);
        self.by_client.insert((waiter.acquire.client.as_str().into(), ticket));
        self.table.insert(ticket, waiter);
    }

    fn remove(&mut self, ticket: u64) -> Waiter {
        let waiter = self.table.remove(&ticket).expect("tickets stand in lines, and lines hold waiters only");
        self.by_command.remove(&(waiter.session, waiter.sequence));
        self.by_client.remove(&(waiter.acquire.client.as_str().into(), ticket));
        waiter
    }
}

/// How long a waiter that asks for this lease lives without being heard of.
fn patience_ms(lease_ms: u32) -> u64 {
    u64::from(lease_ms.clamp(ALIVE_MS_MIN, ALIVE_MS_MAX))
}

impl State {
    /// Puts an acquire into the lines of its locks, unless it would wait for itself.
    pub(super) fn wait<R: Rules>(&mut self, at: At, by: Caller, acquire: &Acquire) -> Result<Answer, Error> {
        let longest = acquire.locks().filter_map(|name| self.locks.get(name)).map(|lock| lock.line.len()).max();
        let (waiters_max, line_max) = (self.bounds.waiters_max, self.bounds.line_max);
        if self.waiters.len() >= waiters_max || longest.unwrap_or(0) >= line_max {
            let message = format!("{waiters_max} may wait in a group and {line_max} for one lock: that many do");
            return Err(Error::new(ErrorCode::Overloaded, message).retry_after(1_000));
        }
        let gives_up_ms = match acquire.wait_ms {
            WAIT_MS_FOREVER => NEVER_MS,
            wait_ms => at.stamp_ms.saturating_add(u64::from(wait_ms)),
        };
        let silent_ms = if R::without(Rule::SilentWaiterStays) { NEVER_MS } else { patience_ms(acquire.lease_ms) };
        let waiter = Waiter {
            session: by.session,
            sequence: by.sequence,
            acquire: acquire.clone(),
            since_ms: at.stamp_ms,
            gives_up_ms,
            alive_ms: at.stamp_ms.saturating_add(silent_ms),
        };
        let ticket = at.index;
        self.line_up(ticket, waiter);
        let cycle = if R::without(Rule::DeadlockSearch) { None } else { self.deadlock(ticket) };
        if let Some(cycle) = cycle {
            self.stop_waiting(ticket, &mut BTreeSet::new());
            self.counts.deadlocks += 1;
            return Err(cycle.error());
        }
        self.put_off(at, acquire);
        self.counts.waited += 1;
        Ok(Answer::Waiting)
    }

    /// Notes a waiter everywhere. The caller has looked whether it may wait.
    pub(super) fn line_up(&mut self, ticket: u64, waiter: Waiter) {
        self.touch(Record::Waiter(ticket));
        self.deadlines.insert((waiter.due_ms(), Due::Wait(ticket)));
        for name in waiter.acquire.locks() {
            let name = self.locks.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
            self.locks.entry(name).or_default().line.insert(ticket);
        }
        self.waiters.insert(ticket, waiter);
    }

    /// Takes a waiter out of its lines, and says which lines those were.
    pub(super) fn stop_waiting(&mut self, ticket: u64, changed: &mut BTreeSet<Arc<str>>) -> Waiter {
        self.touch(Record::Waiter(ticket));
        let waiter = self.waiters.remove(ticket);
        self.deadlines.remove(&(waiter.due_ms(), Due::Wait(ticket)));
        for name in waiter.acquire.locks() {
            let Some((name, _)) = self.locks.get_key_value(name) else { continue };
            let name = Arc::clone(name);
            if let Some(lock) = self.locks.get_mut(&name) {
                lock.line.remove(&ticket);
            }
            self.drop_if_idle(&name);
            changed.insert(name);
        }
        waiter
    }

    /// Whoever is first gets what it waits for.
    pub(super) fn grant_waiter(&mut self, at: At, ticket: u64, changed: &mut BTreeSet<Arc<str>>) {
        let waiter = self.stop_waiting(ticket, changed);
        let due_ms = waiter.due_ms();
        assert!(due_ms > at.stamp_ms, "a grant at {} ms to a waiter whose time was over at {due_ms} ms", at.stamp_ms);
        let Waiter { session, sequence, acquire, since_ms, .. } = waiter;
        let granted = self.grant(at, Caller { session, sequence }, &acquire);
        if self.waited_ms.len() < ENDED_MAX {
            self.waited_ms.push(at.stamp_ms.saturating_sub(since_ms));
        }
        self.settled.push(Settled { session, sequence, result: Ok(Answer::Granted(granted)) });
    }

    /// The time of a waiter is over.
    pub(super) fn wait_is_over(&mut self, at: At, ticket: u64, changed: &mut BTreeSet<Arc<str>>) {
        let waiter = self.stop_waiting(ticket, changed);
        let error = if waiter.gives_up_ms <= at.stamp_ms {
            self.counts.timeouts += 1;
            let what = format!("lock '{}' could not be had within {} ms", waiter.acquire.lock, waiter.acquire.wait_ms);
            Error::new(ErrorCode::LockTimeout, what)
        } else {
            self.counts.abandoned += 1;
            let patience_ms = patience_ms(waiter.acquire.lease_ms);
            let what = format!("nobody has asked for lock '{}' again for {patience_ms} ms", waiter.acquire.lock);
            Error::new(ErrorCode::WaitCancelled, what)
        };
        self.settle(&waiter, Err(error));
    }

    fn settle(&mut self, waiter: &Waiter, result: Result<Answer, Error>) {
        self.settled.push(Settled { session: waiter.session, sequence: waiter.sequence, result });
    }

    /// The command of a waiter came again: it is alive.
    pub fn keep_waiting(&mut self, at: At, by: Caller) {
        let Some(ticket) = self.waiters.of_command(by.session, by.sequence) else { return };
        self.touch(Record::Waiter(ticket));
        let Some(waiter) = self.waiters.table.get_mut(&ticket) else { return };
        self.deadlines.remove(&(waiter.due_ms(), Due::Wait(ticket)));
        waiter.alive_ms = at.stamp_ms.saturating_add(patience_ms(waiter.acquire.lease_ms));
        self.deadlines.insert((waiter.due_ms(), Due::Wait(ticket)));
    }

    /// The sender of a command wants to hear nothing of it any more.
    pub fn give_up(&mut self, at: At, by: Caller) {
        if let Some(ticket) = self.waiters.of_command(by.session, by.sequence) {
            let mut changed = BTreeSet::new();
            self.stop_waiting(ticket, &mut changed);
            self.counts.abandoned += 1;
            self.hand_on(at, changed);
        }
    }

    /// Whether a command waits.
    pub fn waits(&self, session: u64, sequence: u64) -> bool {
        self.waiters.of_command(session, sequence).is_some()
    }

    /// Ends a wait. What was granted before is not looked at here: only the table of sessions knows of it.
    pub(super) fn cancel(&mut self, at: At, session: u64, cancel: &Cancel) -> Cancelled {
        let Some(ticket) = self.waiters.of_command(session, cancel.sequence) else {
            return Cancelled { was_waiting: false, token: 0 };
        };
        let mut changed = BTreeSet::new();
        let waiter = self.stop_waiting(ticket, &mut changed);
        self.counts.cancelled += 1;
        let what = format!("the wait for lock '{}' was cancelled", waiter.acquire.lock);
        self.settle(&waiter, Err(Error::new(ErrorCode::WaitCancelled, what)));
        self.hand_on(at, changed);
        Cancelled { was_waiting: true, token: 0 }
    }

    /// Takes back that a holder has entered its grant once more, which its sender does not want any more. The grant itself stays.
    pub fn leave_again(&mut self, cancel: &Cancel, token: u64) {
        let entered = self.mine(&cancel.lock, &cancel.client, token).is_ok_and(|held| held.depth() > 1);
        if entered {
            self.change(&cancel.lock, &cancel.client, token, super::Held::leave_once);
        }
    }

    /// Gives back what was granted to an acquire that its sender does not want any more.
    pub fn give_back(&mut self, at: At, cancel: &Cancel, token: u64) {
        let mut changed = BTreeSet::new();
        for name in std::iter::once(&cancel.lock).chain(&cancel.also) {
            let name: Arc<str> = name.as_str().into();
            let of = |held: &super::Held| held.token == token && *held.client == *cancel.client;
            self.end(at, &name, Ending::Released, of);
            changed.insert(name);
        }
        self.hand_on(at, changed);
    }
}
