//! What waits for a storage thread: async on the side that puts in, blocking on the side that takes out.
//!
//! Room is a semaphore, so that a task that finds none waits without blocking its thread. What the storage threads hand to each
//! other ([`Inbox::put_always`]) takes no room: were it to wait, the two could wait for each other. It is bounded by
//! what took room before it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// The thread has ended: after an error, or because it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage thread has ended")]
pub struct Stopped;

/// An inbox with `T` as what its thread works on.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    room: Semaphore,
}

#[derive(Debug)]
struct State<T> {
    waiting: T,
    /// Nothing more will come.
    stopping: bool,
    /// Nobody takes out any more.
    ended: bool,
}

impl<T: Default> Inbox<T> {
    pub(super) fn new(room: usize) -> Arc<Self> {
        let state = Mutex::new(State { waiting: T::default(), stopping: false, ended: false });
        Arc::new(Self { state, changed: Condvar::new(), room: Semaphore::new(room) })
    }

    /// Waits for room, then puts something in.
    pub(super) async fn put(&self, put: impl FnOnce(&mut T)) -> Result<(), Stopped> {
        self.put_after(put, || ()).await
    }

    /// Waits for room, does `first`, then puts something in; nothing can cancel it in between.
    pub(super) async fn put_after(&self, put: impl FnOnce(&mut T), first: impl FnOnce()) -> Result<(), Stopped> {
        let permit = self.room.acquire().await.map_err(|_| Stopped)?;
        // Room comes back when the thread takes the thing out.
        permit.forget();
        first();
        self.put_always(put)
    }

    /// Puts something in that takes no room. Once the thread has ended, it is dropped instead.
    pub(super) fn put_always(&self, put: impl FnOnce(&mut T)) -> Result<(), Stopped> {
        let mut state = self.lock();
        if state.ended {
            return Err(Stopped);
        }
        put(&mut state.waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// Looks at what waits.
    pub(super) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock().waiting)
    }

    /// Gives room back.
    pub(super) fn free(&self, count: usize) {
        self.room.add_permits(count);
    }

    /// Nobody can put anything in any more; those that wait for room get [`Stopped`].
    pub(super) fn close(&self) {
        self.room.close();
        self.lock().stopping = true;
        self.changed.notify_one();
    }

    /// The thread has ended: what waits is dropped, and so is what comes.
    pub(super) fn end(&self) {
        self.close();
        let left = {
            let mut state = self.lock();
            state.ended = true;
            std::mem::take(&mut state.waiting)
        };
        // Outside of the lock: what is dropped may have something to say to another inbox.
        drop(left);
    }

    /// Waits until `take` finds something; None once the inbox is closed and `is_empty`.
    pub(super) fn take<R>(
        &self,
        mut take: impl FnMut(&mut T) -> Option<R>,
        is_empty: impl Fn(&T) -> bool,
    ) -> Option<R> {
        let mut state = self.lock();
        loop {
            if let Some(taken) = take(&mut state.waiting) {
                return Some(taken);
            }
            if state.stopping && is_empty(&state.waiting) {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every change is whole before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the inbox when its thread ends, however it ends: nobody waits for room that will never come.
#[derive(Debug)]
pub(super) struct Ending<T: Default>(pub(super) Arc<Inbox<T>>);

impl<T: Default> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.end();
    }
}
