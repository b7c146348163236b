//! Acquire and release, over some locks. The checks are those of [`crate::checks::lock`].

use std::time::Duration;

use trine_protocol::client::Client;
use trine_protocol::lock::{Acquire, Granted, Release};
use trine_protocol::{ErrorCode, Response};

use crate::arguments::Native;
use crate::checks::lock::{Grant, LockLedger};
use crate::clock;
use crate::native;
use crate::popularity::Popularity;
use crate::workload::{Checks, Failure, Worker, Workload};

/// Lease of each grant; far longer than a round, so that a lease that ends is a finding and not a habit.
const LEASE_MS: u32 = 10_000;
/// In a checked run one grant in so many is held for [`CHECKED_HOLD`]: a hold of no length overlaps with nothing.
const CHECKED_HOLD_ONE_IN: u64 = 16;
/// For how long.
const CHECKED_HOLD: Duration = Duration::from_millis(5);

/// Locks and the ledger of who got them.
#[derive(Debug)]
pub(crate) struct Locks {
    endpoints: Vec<String>,
    names: Vec<String>,
    popularity: Popularity,
    hold: Duration,
    ledger: Option<LockLedger>,
}

impl Locks {
    /// Locks of a run of its own, each in a namespace of its own, so that they spread over the groups.
    ///
    /// # Errors
    /// Where the names' popularity follows no law.
    pub(crate) fn new(native: &Native, run: u64, hold: Duration, keeps_ledger: bool) -> Result<Self, Failure> {
        let names = native.names.max(1);
        Ok(Self {
            endpoints: native.endpoints.clone(),
            names: (0..names).map(|index| format!("loadgen-{index}/{run:x}")).collect(),
            popularity: native.popularity()?,
            hold,
            ledger: keeps_ledger.then(|| LockLedger::new(names)),
        })
    }

    /// Asks for a lock. None where somebody else holds it, which is an answer like any other and has a row of its own.
    async fn acquire(&self, worker: &mut Worker<Client>, lock: &str, client: &str) -> Result<Option<Granted>, Failure> {
        let connection = worker.connection.clone();
        let acquire =
            Acquire { lock: lock.to_owned(), client: client.to_owned(), lease_ms: LEASE_MS, ..Acquire::default() };
        let asking = async move {
            match connection.call(acquire).await {
                Ok(Response::Acquire(granted)) => Ok(Some(granted)),
                Ok(other) => Err(native::mismatch(&other)),
                Err(error) if error.code == ErrorCode::LockHeld => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let name = |result: &Result<Option<Granted>, Failure>| match result {
            Ok(None) => "acquire held",
            _ => "acquire",
        };
        worker.measured_as(name, asking).await
    }

    async fn hold(&self, worker: &mut Worker<Client>) {
        let checked = self.ledger.is_some() && worker.chance(CHECKED_HOLD_ONE_IN) == 0;
        let hold = if checked { self.hold.max(CHECKED_HOLD) } else { self.hold };
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
    }
}

impl Workload for Locks {
    type Connection = Client;

    async fn connect(&self, number: usize) -> Result<Client, Failure> {
        native::connect(&self.endpoints, number).await
    }

    async fn prepare(&self, _worker: &mut Worker<Client>) -> Result<(), Failure> {
        Ok(())
    }

    async fn round(&self, worker: &mut Worker<Client>) -> bool {
        let index = self.popularity.pick(worker.random());
        let lock = &self.names[index];
        let client = format!("worker-{}", worker.number);
        let known = self.ledger.as_ref().map_or(0, |ledger| ledger.known(index));
        let asked = clock::now();
        let granted = match self.acquire(worker, lock, &client).await {
            Ok(Some(granted)) => granted,
            Ok(None) => return false,
            Err(failure) => {
                if failure.unknown {
                    // It may be ours all the same, and nobody else could have it until the lease ends.
                    let _ = worker.call(Release { lock: lock.clone(), client, token: 0, ..Release::default() }).await;
                }
                return false;
            }
        };
        let token = granted.token;
        if let Some(ledger) = &self.ledger {
            let lease = Duration::from_millis(granted.lease_ms.into());
            ledger.granted(index, Grant { worker: worker.number, token, known, asked, lease }, clock::now());
        }
        self.hold(worker).await;
        if let Some(ledger) = &self.ledger {
            ledger.releasing(index, worker.number, token);
        }
        worker.request("release", Release { lock: lock.clone(), client, token, ..Release::default() }).await.is_ok()
    }

    async fn verify(&self, _worker: &mut Worker<Client>) -> Checks {
        self.ledger.as_ref().map(LockLedger::checks).unwrap_or_default()
    }
}
