//! Locks as a program uses them: a guard that counts its own lease, renews it, and says in time when it is over.
//!
//! ```no_run
//! # async fn example(client: trine_protocol::client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use trine_protocol::queue::Enqueue;
//!
//! let guard = client.lock("billing/{run}").holder("worker-7").acquire().await?;
//! // The token goes along with what is done: what the lock protects refuses a late one.
//! let if_token = Some(guard.if_token());
//! client.call(Enqueue { queue: "{run}invoices".into(), body: "7".into(), if_token, ..Enqueue::default() }).await?;
//! guard.check()?;
//! guard.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What a guard promises
//! - Its deadline lies before the cluster's: it counts from before the send that was executed, for a grant that was waited for from before the last send that was
//!   answered `StillWaiting`, and takes [`DRIFT_PER_MILLE`] off for two clocks that differ.
//! - [`Guard::lost`] ends at that deadline at the latest, sooner where the cluster says that the lock is gone.
//! - It renews by itself, each third of the lease, from when it was made until it is released, dropped or lost.
//! - Dropped, it releases by itself, without anybody to tell the outcome to; a blocked acquire that is dropped certainly does not wait any more.
//!
//! # Caveats
//! - A process that is stopped hears of nothing, and wakes up in the belief that it holds the lock. Only the token helps: send it along.
//! - The search for deadlocks knows holders by name. Who works on two things at once and wants them told apart gives each its own [`LockRequest::holder`].

mod election;
mod guard;

use std::time::Duration;

use bytes::Bytes;

use super::call::Call;
use super::{Client, mismatch};
use crate::command::{Request, Response};
use crate::error::{Error, ErrorCode};
use crate::limits::{LEASE_MS_MAX, WAIT_MS_FOREVER};
use crate::lock::{Acquire, Mode};

pub use election::{Election, Observer};
pub use guard::{Guard, Lost};

/// How much of a lease the holder does not count on, in parts of a thousand: two clocks differ by no more.
pub const DRIFT_PER_MILLE: u32 = 10;
/// The lease where none is named.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(10);

/// A lock that is asked for.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked for before `acquire` or `try_acquire`"]
pub struct LockRequest {
    client: Client,
    acquire: Acquire,
    wait: Option<Duration>,
    renew: bool,
}

fn millis(duration: Duration, most: u32) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(most).min(most)
}

impl Client {
    /// Asks for a lock: with a lease of [`LEASE_DEFAULT`], alone, under the client's name.
    pub fn lock(&self, lock: impl Into<String>) -> LockRequest {
        let acquire = Acquire::new(lock, self.shared.config.name.clone(), millis(LEASE_DEFAULT, LEASE_MS_MAX));
        LockRequest { client: self.clone(), acquire, wait: None, renew: true }
    }
}

impl LockRequest {
    /// Who holds it.
    pub fn holder(mut self, name: impl Into<String>) -> Self {
        self.acquire.client = name.into();
        self
    }

    /// The lease, at least 1 ms and at most a day.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.acquire.lease_ms = millis(lease, LEASE_MS_MAX).max(1);
        self
    }

    /// Shared with others who ask for it so.
    pub fn shared(mut self) -> Self {
        self.acquire.mode = Mode::Shared;
        self
    }

    /// So many permits of a semaphore that has `of`.
    pub fn permits(mut self, count: u32, of: u32) -> Self {
        self.acquire.mode = Mode::Permits { count, of };
        self
    }

    /// Another lock, in the same instant or not at all.
    pub fn and(mut self, lock: impl Into<String>) -> Self {
        self.acquire.also.push(lock.into());
        self
    }

    /// How long to wait for it at most; without this, as long as it takes.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// It ends with the client's session, which is kept alive for all that the client does in the group, and has no lease of its own.
    pub fn through_session(mut self) -> Self {
        self.acquire.through_session = true;
        self
    }

    /// If the holder does not give it back, nobody gets it for so long.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.acquire.delay_ms = millis(delay, u32::MAX);
        self
    }

    /// What observers see of the holder.
    pub fn note(mut self, note: impl Into<Bytes>) -> Self {
        self.acquire.note = note.into();
        self
    }

    /// The guard does not renew by itself; [`Guard::renew`] does.
    pub fn without_renewal(mut self) -> Self {
        self.renew = false;
        self
    }

    /// Takes it now or not at all.
    ///
    /// # Errors
    /// `LockHeld` where it cannot be had at once, with a holder as its hint; and what [`Client::call`] adds.
    pub async fn try_acquire(mut self) -> Result<Guard, Error> {
        self.acquire.wait_ms = 0;
        let total = self.client.shared.config.deadline;
        self.run(Some(total)).await
    }

    /// Takes it as soon as it can be had, in the order in which all asked.
    ///
    /// # Errors
    /// `LockTimeout` where it could not be had in time, `Deadlock` with the cycle as its hint where this holder would wait for itself; and
    /// what [`Client::call`] adds. In every case nothing waits any more, and nothing is held.
    pub async fn acquire(mut self) -> Result<Guard, Error> {
        self.acquire.wait_ms = self.wait.map_or(WAIT_MS_FOREVER, |wait| millis(wait, WAIT_MS_FOREVER - 1));
        if self.acquire.wait_ms > 0 && !self.client.shared.config.session {
            let what = "a client without sessions cannot wait for a lock: its wait would be lost with a connection";
            return Err(Error::new(ErrorCode::InvalidArgument, what));
        }
        // Over the time to wait itself there is that of a failover, and of the way.
        let total = self.wait.map(|wait| wait + self.client.shared.config.deadline);
        self.run(total).await
    }

    async fn run(self, total: Option<Duration>) -> Result<Guard, Error> {
        let Self { client, acquire, renew, .. } = self;
        let request: Request = acquire.clone().into();
        request.check()?;
        client.ring().check_colocated(&request)?;
        let lease = match acquire.through_session {
            true => client.shared.config.session_timeout,
            false => Duration::from_millis(acquire.lease_ms.into()),
        };
        // Without a session a second send would be a second acquire: there is one, for all the time that a call has.
        let slice = match client.shared.config.session {
            true => (lease / 4).clamp(Duration::from_millis(20), Duration::from_secs(5)),
            false => client.shared.config.deadline,
        };
        let waited = Call::new(&client.shared, &request, &client.cache).run_waiting(&acquire, slice, total).await?;
        match waited.response {
            Response::Acquire(granted) => Ok(Guard::new(client, acquire, granted, waited.after, waited.session, renew)),
            other => Err(mismatch(&other)),
        }
    }
}
