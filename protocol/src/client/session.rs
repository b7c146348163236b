//! Sessions: what makes it safe to send a command again.
//!
//! A session lives in one group. Each command in it has a number, and the cluster keeps the answer of each number from
//! `acked_below` on: a command that comes again is not executed again, it gets its first answer.
//!
//! ```text
//!   acked_below            next
//!        v                  v
//!  . . . 7  8* 9* 10 11*    12      * = still wanted by a caller
//!        '-- the lowest number still wanted
//! ```
//!
//! # Invariants
//! - A number is given once. `acked_below` is the lowest number still wanted, or the next one where none is.
//! - `next - acked_below` stays under [`SESSION_WINDOW_MAX`]; who asks for a number beyond waits.
//!
//! # Caveats
//! - A caller that gives up lets go of its number. If its command is still under way then, it may be executed: its outcome is
//!   unknown and stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::command::RequestHeader;
use crate::limits::SESSION_WINDOW_MAX;

/// One session of this client in one group.
pub(super) struct Session {
    id: u64,
    numbers: Mutex<Numbers>,
    freed: Notify,
    /// It lives for at least its timeout from here on: before the last command was sent that was answered.
    alive: Mutex<Instant>,
    timeout: Duration,
    /// Set when the cluster has said that it has ended.
    ended: AtomicBool,
    keep_alive: Mutex<Option<AbortHandle>>,
}

struct Numbers {
    next: u64,
    wanted: BTreeSet<u64>,
}

impl Numbers {
    fn acked_below(&self) -> u64 {
        self.wanted.first().copied().unwrap_or(self.next)
    }
}

/// A command's number, wanted until this is dropped.
pub(super) struct Sequenced {
    session: Arc<Session>,
    sequence: u64,
}

impl Session {
    /// One that was opened by a request sent at `sent`, and ends after `timeout` without a command.
    pub(super) fn new(id: u64, sent: Instant, timeout: Duration) -> Arc<Self> {
        let numbers = Mutex::new(Numbers { next: 1, wanted: BTreeSet::new() });
        let (freed, alive, ended) = (Notify::new(), Mutex::new(sent), AtomicBool::new(false));
        Arc::new(Self { id, numbers, freed, alive, timeout, ended, keep_alive: Mutex::default() })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// A command that was sent then was executed: it began the session's time anew.
    pub(super) fn heard_of(&self, sent: Instant) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        *alive = sent.max(*alive);
    }

    /// The cluster says that it has ended.
    pub(super) fn has_ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Since when it is certainly alive for its timeout; None where it has ended.
    pub(super) fn alive(&self) -> Option<(Instant, Duration)> {
        let alive = *self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.ended.load(Ordering::Relaxed)).then_some((alive, self.timeout))
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the task that ends with the session.
    pub(super) fn kept_alive_by(&self, task: AbortHandle) {
        let old = self.keep_alive.lock().unwrap_or_else(PoisonError::into_inner).replace(task);
        assert!(old.is_none(), "session {} is kept alive by two tasks", self.id);
    }

    /// A number for a new command; waits while the window is full.
    pub(super) async fn begin(self: &Arc<Self>) -> Sequenced {
        loop {
            let freed = self.freed.notified();
            if let Some(sequence) = self.try_begin() {
                return Sequenced { session: self.clone(), sequence };
            }
            freed.await;
        }
    }

    fn try_begin(&self) -> Option<u64> {
        let mut numbers = self.numbers();
        if numbers.next - numbers.acked_below() >= SESSION_WINDOW_MAX {
            return None;
        }
        let sequence = numbers.next;
        numbers.next += 1;
        numbers.wanted.insert(sequence);
        Some(sequence)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = self.keep_alive.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Sequenced {
    /// The header of this command, the same number each time.
    pub(super) fn header(&self) -> RequestHeader {
        let acked_below = self.session.numbers().acked_below();
        RequestHeader { remaining_ms: 0, session: self.session.id, sequence: self.sequence, acked_below }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Sequenced {
    fn drop(&mut self) {
        self.session.numbers().wanted.remove(&self.sequence);
        self.session.freed.notify_waiters();
    }
}

/// The place of one group's session: who holds the lock opens it.
pub(super) type Place = Arc<AsyncMutex<Option<Arc<Session>>>>;

/// The sessions of this client, by group. As many as the cluster has groups at most.
#[derive(Default)]
pub(super) struct Sessions {
    places: Mutex<BTreeMap<u32, Place>>,
}

impl Sessions {
    pub(super) fn place(&self, group: u32) -> Place {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).entry(group).or_default().clone()
    }

    /// Forgets a session that has expired, unless another one has taken its place.
    pub(super) async fn expired(&self, group: u32, session: &Arc<Session>) {
        let place = self.place(group);
        let mut place = place.lock().await;
        if place.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *place = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: u64) -> Arc<Session> {
        Session::new(id, crate::client::clock::now(), Duration::from_secs(60))
    }

    fn seen(number: &Sequenced) -> (u64, u64) {
        let header = number.header();
        (header.sequence, header.acked_below)
    }

    #[tokio::test]
    async fn numbers_are_given_once_and_acknowledged_from_below() {
        let session = session(77);
        let first = session.begin().await;
        let second = session.begin().await;
        assert_eq!((seen(&first), seen(&second)), ((1, 1), (2, 1)));
        drop(second);
        let third = session.begin().await;
        assert_eq!(seen(&third), (3, 1), "the first is still wanted");
        drop(first);
        assert_eq!(seen(&third), (3, 3));
        drop(third);
        let header = session.begin().await.header();
        assert_eq!(header, RequestHeader { remaining_ms: 0, session: 77, sequence: 4, acked_below: 4 });
    }

    #[tokio::test]
    async fn a_full_window_waits_for_its_lowest_number() {
        let session = session(1);
        let lowest = session.begin().await;
        for _ in 1..SESSION_WINDOW_MAX {
            drop(session.begin().await);
        }
        let mut next = std::pin::pin!(session.begin());
        let pending = std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context).is_pending()));
        assert!(pending.await, "number {} is over the window", SESSION_WINDOW_MAX + 1);
        drop(lowest);
        assert_eq!(seen(&next.await), (SESSION_WINDOW_MAX + 1, SESSION_WINDOW_MAX + 1));
    }

    #[tokio::test]
    async fn only_the_session_that_expired_is_forgotten() {
        let sessions = Sessions::default();
        let (old, new) = (session(1), session(2));
        *sessions.place(0).lock().await = Some(new.clone());
        sessions.expired(0, &old).await;
        assert!(sessions.place(0).lock().await.is_some());
        sessions.expired(0, &new).await;
        assert!(sessions.place(0).lock().await.is_none());
    }
}
