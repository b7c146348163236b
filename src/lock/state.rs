//! The locks of one group: the tables, and what an entry of the log does to them.
//!
//! An entry first lets its time do what is due ([`State::expire`]), then its command what it asks for ([`State::apply`]). Both end in
//! the same way: whoever is first in the line of a lock that changed gets it, if nothing is in the way any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trine_protocol::lock::{Ending, Granted, Mode};
use trine_protocol::{Error, ErrorCode};

use super::hold::{Held, Lock, NEVER_MS};
use super::past::{Past, PastGrants};
use super::stored::Record;
use super::wait::Waiters;
use super::{Answer, Bounds, Caller, Command, Counts, ENDED_MAX, Ended, Settled, Stats};
use crate::ids::At;
use crate::rules::{Rule, Rules};

/// What happens to a lock or a waiter when its time has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The lease of the grants with this token ends.
    Hold(Arc<str>, u64),
    /// The waiter with this ticket gives up, or has been silent for too long.
    Wait(u64),
    /// The line of this lock is to be looked at.
    Line(Arc<str>),
}

/// All locks of one group. Every replica applies the same commands to it and gets the same answers.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) bounds: Bounds,
    pub(super) locks: BTreeMap<Arc<str>, Lock>,
    /// The grants in their order.
    pub(super) by_token: BTreeSet<(u64, Arc<str>)>,
    /// Who holds what; a semaphore may be held several times by one client, and stands here once.
    pub(super) by_client: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Grants that end with a session: the session, the lock and the token.
    pub(super) by_session: BTreeSet<(u64, Arc<str>, u64)>,
    pub(super) deadlines: BTreeSet<(u64, Due)>,
    pub(super) waiters: Waiters,
    pub(super) past: PastGrants,
    pub(super) fences: BTreeMap<Arc<str>, u64>,
    /// Locks whose grant by the present entry has ended in the same entry: the next one must not get the same token.
    spent: (u64, BTreeSet<Arc<str>>),
    /// Records that were touched since [`State::take_changes`], and whether each is on disk.
    pub(super) dirty: BTreeMap<Record, bool>,
    pub(super) counts: Counts,
    ended: Vec<Ended>,
    pub(super) waited_ms: Vec<u64>,
    pub(super) settled: Vec<Settled>,
    /// Locks whose holders changed since [`State::take_changed`], if anybody wants to know.
    pub(super) changed: BTreeSet<Arc<str>>,
}

impl State {
    /// Applies one command. [`State::expire`] must have seen the entry before.
    ///
    /// # Errors
    /// Every one is an answer, the same on each replica: `InvalidArgument`, `TooLarge`, `Overloaded`, `LockHeld` with the
    /// holder as its hint, `LockNotHeld`, `LockHeldByOther`, `StaleToken`, `Deadlock` with the cycle as its hint.
    pub fn apply<R: Rules>(&mut self, at: At, by: Caller, command: &Command) -> Result<Answer, Error> {
        match command {
            Command::Acquire(acquire) => self.acquire::<R>(at, by, acquire),
            Command::Release(release) => self.release(at, release).map(Answer::Released),
            Command::Renew(renew) => self.renew(at, renew).map(Answer::Granted),
            Command::Cancel(cancel) => Ok(Answer::Cancelled(self.cancel(at, by.session, cancel))),
            Command::ForceRelease(force) => self.force_release(at, force).map(Answer::Forced),
            Command::Fence(fence) => self.fence(at, fence).map(Answer::Fenced),
        }
    }

    /// Does what is due at the time of this entry: what ran out ends, also with the sessions that ended with it, and whoever is next
    /// gets what is free then. A waiter whose own time is over gets nothing. Says how many leases ran out.
    pub fn expire<R: Rules>(&mut self, at: At, sessions: &[u64]) -> usize {
        let mut changed = BTreeSet::new();
        let mut expired = 0;
        for session in sessions {
            expired += self.end_session(at, *session, &mut changed);
        }
        while let Some((due_ms, _)) = self.deadlines.first() {
            if *due_ms > at.stamp_ms {
                break;
            }
            let (_, due) = self.deadlines.pop_first().expect("looked at above");
            match due {
                Due::Hold(lock, token) => {
                    expired += self.end_leases(at, &lock, token);
                    changed.insert(lock);
                }
                Due::Wait(ticket) => self.wait_is_over(at, ticket, &mut changed),
                Due::Line(lock) => drop(changed.insert(lock)),
            }
            if R::without(Rule::LapsedWaiterGranted) {
                self.hand_on(at, std::mem::take(&mut changed));
            }
        }
        self.counts.expired += expired as u64;
        self.hand_on(at, changed);
        expired
    }

    /// The log time in milliseconds at which [`State::expire`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Who holds a lock, as of the last entry: the one that was granted it first.
    pub fn holder(&self, lock: &str) -> Option<&Held> {
        self.locks.get(lock).and_then(|lock| lock.holds.first())
    }

    /// All grants, those made first first; those of one lock and one token together.
    pub fn held(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.by_token.iter().flat_map(|(token, lock)| {
            let of_token = self.locks[lock].holds.iter().filter(move |held| held.token == *token);
            of_token.map(move |held| (&**lock, held))
        })
    }

    /// All locks summed up.
    pub fn stats(&self) -> Stats {
        let oldest = self.by_token.first().and_then(|(token, lock)| {
            self.locks.get(lock).and_then(|lock| lock.holds.iter().find(|held| held.token == *token))
        });
        Stats {
            held: self.by_token.len() as u64,
            waiting: self.waiters.len() as u64,
            fences: self.fences.len() as u64,
            oldest_granted_ms: oldest.map(|held| held.granted_ms),
            oldest_waiting_ms: self.waiters.first().map(|(_, waiter)| waiter.since_ms),
        }
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The grants that ended since the last call.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// How long each grant since the last call was waited for, in milliseconds.
    pub fn take_waited(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.waited_ms)
    }

    /// The waits that are over since the last call, and what each came to. To be called after every entry. Those of one entry come in
    /// any order: a replica that has restarted looks at its lines in another one.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// The locks whose holders changed since the last call. To be called after every entry.
    pub fn take_changed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.changed)
    }

    // ------------------------------------------------------------------------------------------ grants and their ends

    /// Makes a grant of one lock. Everything was looked at before.
    pub(super) fn put(&mut self, lock: &Arc<str>, held: Held) {
        let last_token = self.by_token.last().map_or(0, |(token, _)| *token);
        assert!(held.token >= last_token, "token {} after {last_token}", held.token);
        self.touch(Record::Lock(Arc::clone(lock)));
        self.list(lock, &held);
        self.changed.insert(Arc::clone(lock));
        let lock = self.locks.entry(Arc::clone(lock)).or_default();
        if lock.holds.is_empty() {
            lock.holds.reserve_exact(1);
        }
        lock.holds.push(held);
    }

    /// Notes a grant in every index.
    pub(super) fn list(&mut self, lock: &Arc<str>, held: &Held) {
        self.by_token.insert((held.token, Arc::clone(lock)));
        self.by_client.insert((Arc::clone(&held.client), Arc::clone(lock)));
        if held.session() != 0 {
            self.by_session.insert((held.session(), Arc::clone(lock), held.token));
        }
        if held.deadline_ms != NEVER_MS {
            self.deadlines.insert((held.deadline_ms, Due::Hold(Arc::clone(lock), held.token)));
        }
    }

    /// Ends the grants of a lock that are chosen, and says which they were. The caller hands the lock on.
    pub(super) fn end(&mut self, at: At, name: &Arc<str>, ending: Ending, chosen: impl Fn(&Held) -> bool) -> Vec<Held> {
        if !self.locks.get(name).is_some_and(|lock| lock.holds.iter().any(&chosen)) {
            return Vec::new();
        }
        self.touch(Record::Lock(Arc::clone(name)));
        self.changed.insert(Arc::clone(name));
        let lock = self.locks.get_mut(name).expect("looked up above");
        let (gone, kept): (Vec<Held>, _) = std::mem::take(&mut lock.holds).into_iter().partition(chosen);
        lock.holds = kept;
        for held in &gone {
            let same = |other: &Held| other.token == held.token;
            let lock = &self.locks[name];
            if !lock.holds.iter().any(same) {
                self.by_token.remove(&(held.token, Arc::clone(name)));
            }
            if !lock.holds.iter().any(|other| other.client == held.client) {
                self.by_client.remove(&(Arc::clone(&held.client), Arc::clone(name)));
            }
            if !lock.holds.iter().any(|other| same(other) && other.session() == held.session()) {
                self.by_session.remove(&(held.session(), Arc::clone(name), held.token));
            }
            if !lock.holds.iter().any(|other| same(other) && other.deadline_ms == held.deadline_ms) {
                self.deadlines.remove(&(held.deadline_ms, Due::Hold(Arc::clone(name), held.token)));
            }
            if held.token == at.token() {
                self.spend(at, name);
            }
            self.note_end(at, name, ending, held);
        }
        self.drop_if_idle(name);
        gone
    }

    fn spend(&mut self, at: At, name: &Arc<str>) {
        if self.spent.0 != at.token() {
            self.spent = (at.token(), BTreeSet::new());
        }
        self.spent.1.insert(Arc::clone(name));
    }

    /// Whether a grant of this lock by this entry would have the token of another that it must be told apart from: one that has ended in it, or one
    /// of the same client, which may hold several permits.
    pub(super) fn is_spent(&self, at: At, name: &str, client: &str) -> bool {
        let same = |held: &Held| held.token == at.token() && *held.client == *client;
        let ended = self.spent.0 == at.token() && self.spent.1.contains(name);
        ended
            || self
                .locks
                .get(name)
                .is_some_and(|lock| lock.holds.iter().rev().take_while(|held| held.token == at.token()).any(same))
    }

    fn note_end(&mut self, at: At, name: &Arc<str>, ending: Ending, held: &Held) {
        // Held until its deadline, whenever that is noticed.
        let ended_ms = match ending {
            Ending::Expired => held.deadline_ms.min(at.stamp_ms),
            Ending::Released | Ending::Forced => at.stamp_ms,
        };
        if self.ended.len() < ENDED_MAX {
            // Where nobody takes the notes, as in the simulator, the first ones stay.
            let held_ms = ended_ms.saturating_sub(held.granted_ms);
            self.ended.push(Ended { held_ms, expired: ending == Ending::Expired });
        }
        if ending == Ending::Released {
            return;
        }
        let past = Past { ending, client: held.client.to_string(), token: held.token, left: Vec::new(), ended_ms };
        self.remember(name, past);
        if held.delay_ms() > 0 {
            let lock = self.locks.get_mut(name).expect("the caller looked it up");
            let free_ms = lock.free_ms.max(ended_ms.saturating_add(held.delay_ms()));
            self.deadlines.insert((free_ms, Due::Line(Arc::clone(name))));
            lock.free_ms = free_ms;
        }
    }

    /// A lock that is there for nothing goes. Where its delay is over, that is forgotten.
    pub(super) fn drop_if_idle(&mut self, name: &Arc<str>) {
        if self.locks.get(name).is_some_and(Lock::is_idle) {
            self.locks.remove(name);
        }
    }

    /// The leases of these grants end where their time has come.
    fn end_leases(&mut self, at: At, lock: &Arc<str>, token: u64) -> usize {
        let over = |held: &Held| held.token == token && held.deadline_ms <= at.stamp_ms;
        self.end(at, lock, Ending::Expired, over).len()
    }

    fn end_session(&mut self, at: At, session: u64, changed: &mut BTreeSet<Arc<str>>) -> usize {
        let from = (session, Arc::from(""), 0);
        let of_session: Vec<_> = self.by_session.range(from..).take_while(|(of, ..)| *of == session).cloned().collect();
        let mut ended = 0;
        for (_, lock, token) in of_session {
            let of = |held: &Held| held.token == token && held.session() == session;
            ended += self.end(at, &lock, Ending::Expired, of).len();
            changed.insert(lock);
        }
        for ticket in self.waiters.of_session(session) {
            let waiter = self.stop_waiting(ticket, changed);
            self.counts.abandoned += 1;
            drop(waiter);
        }
        ended
    }

    /// Looks at the line of each of these locks, and at those that change with them.
    pub(super) fn hand_on(&mut self, at: At, mut changed: BTreeSet<Arc<str>>) {
        while let Some(name) = changed.pop_first() {
            if self.locks.get(&name).is_some_and(|lock| lock.free_ms != 0 && lock.free_ms <= at.stamp_ms) {
                self.touch(Record::Lock(Arc::clone(&name)));
                self.locks.entry(Arc::clone(&name)).or_default().free_ms = 0;
            }
            while let Some(ticket) = self.locks.get(&name).and_then(|lock| lock.line.first().copied()) {
                if !self.may_have(at, ticket) {
                    break;
                }
                self.grant_waiter(at, ticket, &mut changed);
            }
            self.drop_if_idle(&name);
        }
    }

    /// Whether a client may have a lock now, apart from those who came before it.
    pub(super) fn is_free(&self, at: At, name: &str, mode: Mode, client: &str) -> bool {
        let free = |lock: &Lock| lock.free_ms <= at.stamp_ms && lock.admits(mode, client);
        !self.is_spent(at, name, client) && self.locks.get(name).is_none_or(free)
    }

    /// Whether this client holds a lock by exactly this grant.
    ///
    /// # Errors
    /// `LockNotHeld`, `LockHeldByOther`, `StaleToken`; `InvalidArgument` where the token was never given out.
    pub fn check_held(&self, lock: &str, client: &str, token: u64) -> Result<(), Error> {
        self.mine(lock, client, token).map(drop)
    }

    /// Whether this grant of a lock holds now.
    ///
    /// # Errors
    /// `StaleToken` where a later grant was made, `LockNotHeld` where nobody holds the lock under this token.
    pub fn demand(&self, lock: &str, token: u64) -> Result<(), Error> {
        let holds = self.locks.get(lock).map(|lock| lock.holds.as_slice()).unwrap_or_default();
        if holds.iter().any(|held| held.token == token) {
            return Ok(());
        }
        match holds.iter().map(|held| held.token).max() {
            Some(newest) if newest > token => {
                let message = format!("lock '{lock}' was granted anew, with token {newest}: {token} counts no more");
                Err(Error::new(ErrorCode::StaleToken, message).with_hint(newest.to_string()))
            }
            _ => {
                let message = format!("nobody holds lock '{lock}' with token {token}: its grant has ended");
                Err(Error::new(ErrorCode::LockNotHeld, message))
            }
        }
    }
}

/// What a grant is answered with.
pub(super) fn granted(held: &Held, lease_ms: u32) -> Granted {
    Granted { token: held.token, lease_ms, depth: held.depth(), previous: Vec::new() }
}
