//! Looking at the locks, for people and for programs that want to know why. Nothing here changes anything.
//!
//! Times are durations, counted to the log time that the caller names: the leader's at the instant of the answer.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use trine_protocol::limits::{HOLDERS_SHOWN_MAX, LOCKS_SHOWN_MAX, WAITERS_SHOWN_MAX};
use trine_protocol::lock::{
    ClientExplained, ClientHold, ClientWait, HolderView, LockExplained, LockPage, LockView, Observed, WaiterView,
};

use super::hold::{Held, Lock, NEVER_MS};
use super::state::State;
use super::wait::Waiter;

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Held {
    fn view(&self, now_ms: u64) -> HolderView {
        HolderView {
            client: self.client.to_string(),
            token: self.token,
            mode: self.mode,
            held_ms: now_ms.saturating_sub(self.granted_ms),
            lease_left_ms: if self.deadline_ms == NEVER_MS { 0 } else { self.deadline_ms.saturating_sub(now_ms) },
            session: self.session(),
            depth: self.depth(),
            note: self.note(),
        }
    }
}

impl Waiter {
    fn view(&self, now_ms: u64) -> WaiterView {
        WaiterView {
            client: self.acquire.client.clone(),
            mode: self.acquire.mode,
            waited_ms: now_ms.saturating_sub(self.since_ms),
            gives_up_in_ms: match self.gives_up_ms {
                NEVER_MS => 0,
                gives_up_ms => gives_up_ms.saturating_sub(now_ms).max(1),
            },
            locks: self.acquire.locks().map(str::to_owned).collect(),
        }
    }
}

impl Lock {
    fn holders(&self, now_ms: u64) -> Vec<HolderView> {
        self.holds.iter().take(HOLDERS_SHOWN_MAX).map(|held| held.view(now_ms)).collect()
    }
}

impl State {
    /// Why a lock is as it is.
    pub fn explain_lock(&self, name: &str, now_ms: u64) -> LockExplained {
        let mut explained = LockExplained { previous: self.previous(name), ..LockExplained::default() };
        let Some(lock) = self.locks.get(name) else { return explained };
        explained.holders = lock.holders(now_ms);
        explained.holders_total = count(lock.holds.len());
        let waiters = lock.line.iter().take(WAITERS_SHOWN_MAX).map(|ticket| self.waiters.get(*ticket).view(now_ms));
        explained.waiters = waiters.collect();
        explained.waiters_total = count(lock.line.len());
        explained.delayed_ms = lock.free_ms.saturating_sub(now_ms);
        explained
    }

    /// What a client holds and waits for.
    pub fn explain_client(&self, client: &str, now_ms: u64) -> ClientExplained {
        let key: Arc<str> = client.into();
        let from = (Arc::clone(&key), Arc::from(""));
        let mut explained = ClientExplained::default();
        for (_, name) in self.by_client.range(from..).take_while(|(of, _)| *of == key) {
            let lock = &self.locks[name];
            for held in lock.holds.iter().filter(|held| held.client == key) {
                if explained.holds.len() < HOLDERS_SHOWN_MAX {
                    let (lock_name, hold) = (name.to_string(), held.view(now_ms));
                    explained.holds.push(ClientHold { lock: lock_name, hold, waiters: count(lock.line.len()) });
                }
            }
        }
        for ticket in self.waiters.of_client(client) {
            let waiter = self.waiters.get(ticket);
            for name in waiter.acquire.locks() {
                if explained.waits.len() < WAITERS_SHOWN_MAX {
                    explained.waits.push(self.explain_wait(ticket, waiter, name, now_ms));
                }
            }
        }
        explained
    }

    fn explain_wait(&self, ticket: u64, waiter: &Waiter, name: &str, now_ms: u64) -> ClientWait {
        let wait = waiter.view(now_ms);
        let mut explained = ClientWait { lock: name.to_owned(), wait, ..ClientWait::default() };
        let Some(lock) = self.locks.get(name) else { return explained };
        let before = lock.line.range(..ticket).take(WAITERS_SHOWN_MAX);
        explained.behind = before.map(|ticket| self.waiters.get(*ticket).acquire.client.clone()).collect();
        explained.holders = lock.holders(now_ms);
        explained.delayed_ms = lock.free_ms.saturating_sub(now_ms);
        explained
    }

    /// The locks whose names begin with a prefix, after one of them, in order.
    pub fn list_locks(&self, prefix: &str, after: &str, now_ms: u64) -> LockPage {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let range = self.locks.range::<str, _>((from, Bound::Unbounded));
        let mut named = range.take_while(|(name, _)| name.starts_with(prefix));
        let locks = named.by_ref().take(LOCKS_SHOWN_MAX).map(|(name, lock)| self.view(name, lock, now_ms)).collect();
        LockPage { locks, more: named.next().is_some() }
    }

    fn view(&self, name: &str, lock: &Lock, now_ms: u64) -> LockView {
        let since_ms = lock.line.first().map_or(now_ms, |ticket| self.waiters.get(*ticket).since_ms);
        LockView {
            lock: name.to_owned(),
            holder: lock.holds.first().map(|held| held.view(now_ms)),
            holders: count(lock.holds.len()),
            waiters: count(lock.line.len()),
            waited_ms: now_ms.saturating_sub(since_ms),
        }
    }

    /// Who holds a lock, for those who follow it.
    pub fn observe(&self, lock: &str) -> Observed {
        match self.holder(lock) {
            Some(held) => Observed { client: held.client.to_string(), token: held.token, note: held.note() },
            None => Observed::default(),
        }
    }

    /// How a command that waits stands, for a person: who has the first of its locks, and how many come before it.
    pub fn standing(&self, session: u64, sequence: u64) -> String {
        let Some(ticket) = self.waiters.of_command(session, sequence) else { return "it waits no more".to_owned() };
        let name = &self.waiters.get(ticket).acquire.lock;
        let Some(lock) = self.locks.get(name.as_str()) else { return format!("it waits for '{name}'") };
        let before = lock.line.range(..ticket).count();
        let holders: BTreeSet<&str> = lock.holds.iter().map(|held| &*held.client).collect();
        match holders.first() {
            Some(holder) => format!("behind {before} others for lock '{name}', which '{holder}' holds"),
            None => format!("behind {before} others for lock '{name}', which nobody holds"),
        }
    }
}
