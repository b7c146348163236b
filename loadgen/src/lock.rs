//! Acquire and release, over some locks. The check: no grant has a token that is not above every token that was
//! granted, for the same lock, before its request was sent.

use std::sync::atomic::{AtomicU64, Ordering};

use trine_protocol::Response;
use trine_protocol::client::Client;
use trine_protocol::lock::{Acquire, Release};

use crate::arguments::Native;
use crate::native;
use crate::popularity::Popularity;
use crate::workload::{Checks, Failure, Worker, Workload};

/// Lease of each grant; far longer than a round, so that a lease that ends is a finding and not a habit.
const LEASE_MS: u32 = 10_000;

/// Locks with the highest token seen of each.
#[derive(Debug)]
pub(crate) struct Locks {
    endpoints: Vec<String>,
    run: u64,
    popularity: Popularity,
    highest: Vec<AtomicU64>,
    inversions: AtomicU64,
}

impl Locks {
    /// `names` locks, each in a namespace of its own, so that they spread over the groups.
    ///
    /// # Errors
    /// Where the names' popularity follows no law.
    pub(crate) fn new(native: &Native, run: u64) -> Result<Self, Failure> {
        Ok(Self {
            endpoints: native.endpoints.clone(),
            popularity: native.popularity()?,
            run,
            highest: (0..native.names.max(1)).map(|_| AtomicU64::new(0)).collect(),
            inversions: AtomicU64::new(0),
        })
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
        let lock = format!("loadgen-{index}/{:x}", self.run);
        let client = format!("worker-{}", worker.number);
        let before = self.highest[index].load(Ordering::SeqCst);
        let acquire = Acquire { lock: lock.clone(), client: client.clone(), lease_ms: LEASE_MS };
        let Ok(Response::Acquire(granted)) = worker.request("acquire", acquire).await else { return false };
        if granted.token <= before {
            self.inversions.fetch_add(1, Ordering::SeqCst);
        }
        self.highest[index].fetch_max(granted.token, Ordering::SeqCst);
        worker.request("release", Release { lock, client, token: granted.token }).await.is_ok()
    }

    async fn verify(&self, _worker: &mut Worker<Client>) -> Checks {
        Checks {
            violations: [("token_inversions", self.inversions.load(Ordering::SeqCst))].into(),
            ..Checks::default()
        }
    }
}
