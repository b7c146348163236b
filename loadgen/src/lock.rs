//! Acquire and release, over some locks. The check: no grant has a token that is not above every token that was
//! granted, for the same lock, before its request was sent.

use std::sync::atomic::{AtomicU64, Ordering};

use trine_protocol::lock::{Acquire, Release};
use trine_protocol::{Error, Response};

use crate::workload::{Worker, Workload};

/// Lease of each grant; far longer than a round, so that a lease that ends is a finding and not a habit.
const LEASE_MS: u32 = 10_000;

/// Locks with the highest token seen of each.
#[derive(Debug)]
pub(crate) struct Locks {
    run: u64,
    highest: Vec<AtomicU64>,
    inversions: AtomicU64,
}

impl Locks {
    /// `names` locks, each in a namespace of its own, so that they spread over the groups.
    pub(crate) fn new(run: u64, names: usize) -> Self {
        Self { run, highest: (0..names.max(1)).map(|_| AtomicU64::new(0)).collect(), inversions: AtomicU64::new(0) }
    }
}

impl Workload for Locks {
    async fn prepare(&self, _worker: &mut Worker) -> Result<(), Error> {
        Ok(())
    }

    async fn round(&self, worker: &mut Worker) -> bool {
        let index = usize::try_from(worker.chance(self.highest.len() as u64)).unwrap_or(0);
        let lock = format!("loadgen-{index}/{:x}", self.run);
        let client = format!("worker-{}", worker.number);
        let before = self.highest[index].load(Ordering::SeqCst);
        let acquire = Acquire { lock: lock.clone(), client: client.clone(), lease_ms: LEASE_MS };
        let Ok(Response::Acquire(granted)) = worker.measured("acquire", acquire).await else { return false };
        if granted.token <= before {
            self.inversions.fetch_add(1, Ordering::SeqCst);
        }
        self.highest[index].fetch_max(granted.token, Ordering::SeqCst);
        worker.measured("release", Release { lock, client, token: granted.token }).await.is_ok()
    }

    async fn verify(&self, _worker: &mut Worker) -> Vec<(&'static str, u64)> {
        vec![("token_inversions", self.inversions.load(Ordering::SeqCst))]
    }
}
