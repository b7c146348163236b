//! A lock that is held: how long, and what to do about it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::DRIFT_PER_MILLE;
use crate::client::session::Session;
use crate::client::{Client, clock, mismatch};
use crate::command::Response;
use crate::error::{Error, ErrorCode, Outcome};
use crate::lock::{Acquire, Granted, IfToken, Previous, Release, Released, Renew};

/// The holder does not hold its lock any more, or cannot know that it does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lock '{lock}' is lost, token {token}: {why}")]
pub struct Lost {
    /// The lock.
    pub lock: String,
    /// The token that counts no more.
    pub token: u64,
    /// Why, for a person.
    pub why: String,
}

/// A lock that is held. See the module's page for what it promises.
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard {
    held: Arc<Held>,
    renewal: Mutex<Option<AbortHandle>>,
    released: bool,
}

/// What the guard and the task that renews share.
struct Held {
    client: Client,
    acquire: Acquire,
    granted: Granted,
    session: Option<Arc<Session>>,
    state: watch::Sender<State>,
}

#[derive(Clone, Debug)]
struct State {
    deadline: Instant,
    /// Why the cluster, or the client that left it, says that it is over.
    over: Option<String>,
}

/// What of a lease that began at `after` or later is certain.
fn deadline(after: Instant, lease: Duration) -> Instant {
    let drift = lease * DRIFT_PER_MILLE / 1_000 + Duration::from_millis(1);
    after + lease.saturating_sub(drift)
}

impl Held {
    fn lease(&self) -> Duration {
        Duration::from_millis(self.granted.lease_ms.into())
    }

    fn state(&self) -> State {
        let mut state = self.state.borrow().clone();
        if let (true, Some(session)) = (self.acquire.through_session, &self.session) {
            match session.alive() {
                Some((after, timeout)) => state.deadline = deadline(after, timeout),
                None => state.over = Some(format!("session {} has ended", session.id())),
            }
        }
        state
    }

    fn why_lost(&self) -> Option<String> {
        let state = self.state();
        let late = || (clock::now() >= state.deadline).then(|| "its lease may have run out".to_owned());
        state.over.clone().or_else(late)
    }

    fn lost(&self, why: String) -> Lost {
        Lost { lock: self.acquire.lock.clone(), token: self.granted.token, why }
    }

    async fn renew(&self) -> Result<(), Error> {
        let Acquire { lock, client, lease_ms, also, .. } = self.acquire.clone();
        let renew = Renew { lock, client, token: self.granted.token, lease_ms, also };
        let sent = clock::now();
        let until = self.state().deadline;
        let late = || Error::new(ErrorCode::DeadlineExceeded, "the lease is over before its renewal is answered");
        let answer = timeout_at(until, self.client.call(renew)).await.map_err(|_| late())?;
        match answer {
            Ok(Response::Renew(_)) => {
                let next = deadline(sent, self.lease());
                self.state.send_modify(|state| state.deadline = next.max(state.deadline));
                Ok(())
            }
            Ok(other) => Err(mismatch(&other)),
            Err(error) => {
                if error.code.outcome() == Outcome::Refused {
                    self.state.send_modify(|state| state.over = Some(error.to_string()));
                }
                Err(error)
            }
        }
    }
}

async fn renew_for_ever(held: Arc<Held>) {
    loop {
        let lease = held.lease();
        let next = held.state().deadline - lease.saturating_sub(lease / 3).min(lease);
        sleep_until(next.max(clock::now() + lease / 20)).await;
        if held.why_lost().is_some() {
            return;
        }
        // What fails is tried again until there is no time left; what is refused is over.
        if held.renew().await.is_err() && held.why_lost().is_some() {
            held.state.send_modify(|state| {
                state.over.get_or_insert_with(|| "it could not be renewed in time".to_owned());
            });
            return;
        }
    }
}

impl Guard {
    pub(super) fn new(
        client: Client,
        acquire: Acquire,
        granted: Granted,
        after: Instant,
        session: Option<Arc<Session>>,
        renew: bool,
    ) -> Self {
        let lease = Duration::from_millis(granted.lease_ms.into());
        let state = watch::Sender::new(State { deadline: deadline(after, lease), over: None });
        let by_session = acquire.through_session;
        let held = Arc::new(Held { client, acquire, granted, session, state });
        let renewal = (renew && !by_session).then(|| tokio::spawn(renew_for_ever(held.clone())).abort_handle());
        Self { held, renewal: Mutex::new(renewal), released: false }
    }

    /// The fencing token, to go along with everything that is done under the lock.
    pub fn token(&self) -> u64 {
        self.held.granted.token
    }

    /// The lock and the token, as writes of the queue and the cache take them.
    pub fn if_token(&self) -> IfToken {
        IfToken { lock: self.held.acquire.lock.clone(), token: self.token() }
    }

    /// How the grants before this one ended, as far as that is known: a successor of one that did not release looks what it left half done.
    pub fn previous(&self) -> &[Previous] {
        &self.held.granted.previous
    }

    /// The instant after which the lock may be another's, as far as is known now. A renewal puts it off.
    pub fn deadline(&self) -> Instant {
        self.held.state().deadline
    }

    /// Whether the lock is held for certain.
    ///
    /// # Errors
    /// [`Lost`] where it is not.
    pub fn check(&self) -> Result<(), Lost> {
        self.held.why_lost().map_or(Ok(()), |why| Err(self.held.lost(why)))
    }

    /// Ends when the lock is held for certain no more, and not before.
    pub async fn lost(&self) -> Lost {
        self.lost_within(Duration::ZERO).await
    }

    /// The same, so much earlier: for who needs time to stop.
    pub async fn lost_within(&self, notice: Duration) -> Lost {
        let mut changes = self.held.state.subscribe();
        loop {
            let state = self.held.state();
            if let Some(why) = state.over {
                return self.held.lost(why);
            }
            let at = state.deadline.checked_sub(notice).unwrap_or_else(clock::now);
            if clock::now() >= at {
                return self.held.lost(format!("its lease ends in {notice:?}, and could not be renewed"));
            }
            // A session says nothing when it goes on: it is looked at again.
            let look =
                if self.held.acquire.through_session { at.min(clock::now() + Duration::from_millis(50)) } else { at };
            let _ = timeout_at(look, changes.changed()).await;
        }
    }

    /// Begins the lease anew.
    ///
    /// # Errors
    /// Those of `Renew`, and what [`Client::call`] adds. A refusal means that the lock is lost.
    pub async fn renew(&self) -> Result<(), Error> {
        self.held.renew().await
    }

    /// Enters the lock once more: it is to be released once more.
    ///
    /// # Errors
    /// `LockNotHeld` or `StaleToken` where it is lost; and what [`Client::call`] adds.
    pub async fn reenter(&self) -> Result<u32, Error> {
        let also = Vec::new();
        let acquire = Acquire { reenter: self.token(), wait_ms: 0, also, ..self.held.acquire.clone() };
        match self.held.client.call(acquire).await? {
            Response::Acquire(granted) => Ok(granted.depth),
            other => Err(mismatch(&other)),
        }
    }

    /// Releases it once, where it was entered more often. Says how often it is still to be released.
    ///
    /// # Errors
    /// Those of `Release`, and what [`Client::call`] adds.
    pub async fn leave(&self) -> Result<u32, Error> {
        Ok(self.send_release(Bytes::new()).await?.depth)
    }

    /// Leaves the grant as it is, held by name until its lease ends: it is neither renewed nor released any more.
    pub fn keep(mut self) -> Granted {
        self.stop_renewal();
        self.released = true;
        self.held.granted.clone()
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// Those of `Release`, and what [`Client::call`] adds. Where the outcome is unknown, the lease ends it.
    pub async fn release(self) -> Result<Released, Error> {
        self.release_leaving(Bytes::new()).await
    }

    /// Gives the lock back, and leaves something for whoever gets it next.
    ///
    /// # Errors
    /// As [`Guard::release`].
    pub async fn release_leaving(mut self, left: impl Into<Bytes>) -> Result<Released, Error> {
        self.stop_renewal();
        let released = self.send_release(left.into()).await?;
        self.released = released.depth == 0;
        Ok(released)
    }

    async fn send_release(&self, left: Bytes) -> Result<Released, Error> {
        let Acquire { lock, client, also, .. } = self.held.acquire.clone();
        match self.held.client.call(Release { lock, client, token: self.token(), left, also }).await? {
            Response::Release(released) => Ok(released),
            other => Err(mismatch(&other)),
        }
    }

    fn stop_renewal(&self) {
        if let Some(task) = self.renewal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop_renewal();
        if self.released || self.held.why_lost().is_some() {
            return;
        }
        let Acquire { lock, client: holder, also, .. } = self.held.acquire.clone();
        let (client, token) = (self.held.client.clone(), self.token());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let release = Release { lock, client: holder, token, also, left: Bytes::new() };
            runtime.spawn(async move { client.call(release).await });
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Guard");
        debug.field("lock", &self.held.acquire.lock).field("token", &self.token()).finish_non_exhaustive()
    }
}
