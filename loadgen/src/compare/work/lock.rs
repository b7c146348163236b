//! Acquire and release: a lock of the worker's own, or the one that all want.

use std::time::Duration;

use crate::workload::{Checks, Failure, Worker, Workload};

use super::super::meter::Meter;
use super::super::systems::Locks;
use super::Metered;

/// Pause of who was refused, on every system that does not wait by itself. With 32 clients somebody asks each 0.06 ms, which
/// leaves a lock idle for less time than any of the systems needs to grant it.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);

/// Cycles of acquire and release.
pub(in super::super) struct LockWork<S> {
    system: S,
    meter: Meter,
    run: u64,
    is_hot: bool,
}

impl<S> LockWork<S> {
    pub(in super::super) fn new(system: S, meter: Meter, run: u64, is_hot: bool) -> Self {
        Self { system, meter, run, is_hot }
    }
}

impl<S: Locks> LockWork<S> {
    /// A lock of one's own is in a namespace of its own, which Trine spreads over its groups; to the others it is a name.
    fn name(&self, worker: u64) -> String {
        let run = self.run;
        if self.is_hot { format!("compare-{run:x}/hot") } else { format!("compare-{run:x}-{worker}/own") }
    }

    async fn cycle(&self, connection: &S::Connection, lock: &str, client: &str) -> Result<(), Failure> {
        loop {
            if let Some(grant) = self.system.acquire(connection, lock, client).await? {
                return self.system.release(connection, lock, client, grant).await;
            }
            if self.meter.is_over() {
                // Nothing is counted any more. To be refused to the end is no failure: these locks promise no order.
                return Ok(());
            }
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

impl<S> Metered for LockWork<S> {
    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<S: Locks> Workload for LockWork<S> {
    type Connection = S::Connection;

    async fn connect(&self, number: usize) -> Result<S::Connection, Failure> {
        self.system.connect(number).await
    }

    async fn prepare(&self, _worker: &mut Worker<S::Connection>) -> Result<(), Failure> {
        Ok(())
    }

    async fn round(&self, worker: &mut Worker<S::Connection>) -> bool {
        let (lock, client) = (self.name(worker.number), format!("worker-{}", worker.number));
        let connection = worker.connection.clone();
        self.meter.measure(worker.number, 1, self.cycle(&connection, &lock, &client)).await
    }

    async fn verify(&self, _worker: &mut Worker<S::Connection>) -> Checks {
        Checks::default()
    }
}
