//! Reads of keys that are near, writes of keys of one's own, writes of keys that others have copies of.

use std::sync::Arc;

use crate::workload::{Checks, Failure, Worker, Workload};

use super::super::meter::{Meter, in_time};
use super::super::systems::Store;
use super::{Metered, removed, value};

/// Keys that are read: more than a few, so that no single line is what is measured, and few enough to be near everywhere.
const HIT_KEYS: u64 = 64;
/// Connections of a client that writes what others read: its own, and those of two others, to the nodes in turn.
const SHARERS: usize = 3;

/// Reads, each of which is to be a hit.
pub(in super::super) struct HitWork<S> {
    system: S,
    meter: Meter,
    keys: Vec<String>,
}

impl<S> HitWork<S> {
    pub(in super::super) fn new(system: S, meter: Meter, run: u64) -> Self {
        let keys = (0..HIT_KEYS).map(|index| format!("compare:{run:x}:{index}")).collect();
        Self { system, meter, keys }
    }
}

impl<S: Store> HitWork<S> {
    async fn hit(&self, connection: &S::Connection, key: &str) -> Result<(), Failure> {
        if self.system.read(connection, key).await? {
            return Ok(());
        }
        Err(Failure { name: "Miss", unknown: false, text: "the value was not near, and the row is about hits".into() })
    }
}

impl<S> Metered for HitWork<S> {
    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<S: Store> Workload for HitWork<S> {
    type Connection = S::Connection;

    async fn connect(&self, number: usize) -> Result<S::Connection, Failure> {
        self.system.connect(number).await
    }

    async fn prepare(&self, worker: &mut Worker<S::Connection>) -> Result<(), Failure> {
        for (key, index) in self.keys.iter().zip(0..) {
            self.system.write(&worker.connection, key, value(0, index)).await?;
            self.system.warm(&worker.connection, key).await?;
        }
        Ok(())
    }

    async fn round(&self, worker: &mut Worker<S::Connection>) -> bool {
        let key = &self.keys[usize::try_from(worker.chance(HIT_KEYS)).unwrap_or(0)];
        self.meter.measure(worker.number, 1, self.hit(&worker.connection, key)).await
    }

    async fn verify(&self, worker: &mut Worker<S::Connection>) -> Checks {
        let mut checks = Checks::default();
        for key in &self.keys {
            checks.merge(removed(self.system.remove(&worker.connection, key).await));
        }
        checks
    }
}

/// Writes, each client its own key.
pub(in super::super) struct WriteWork<S> {
    system: S,
    meter: Meter,
    run: u64,
    clients: usize,
}

impl<S> WriteWork<S> {
    pub(in super::super) fn new(system: S, meter: Meter, run: u64, clients: usize) -> Self {
        Self { system, meter, run, clients }
    }

    fn key(&self, worker: u64) -> String {
        format!("compare:{:x}:{worker}", self.run)
    }
}

impl<S> Metered for WriteWork<S> {
    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<S: Store> Workload for WriteWork<S> {
    type Connection = S::Connection;

    async fn connect(&self, number: usize) -> Result<S::Connection, Failure> {
        self.system.connect(number).await
    }

    async fn prepare(&self, _worker: &mut Worker<S::Connection>) -> Result<(), Failure> {
        Ok(())
    }

    async fn round(&self, worker: &mut Worker<S::Connection>) -> bool {
        let (key, value) = (self.key(worker.number), value(worker.number, worker.rounds));
        let connection = worker.connection.clone();
        self.meter.measure(worker.number, 1, self.system.write(&connection, &key, value)).await
    }

    async fn verify(&self, worker: &mut Worker<S::Connection>) -> Checks {
        let mut checks = Checks::default();
        for client in 0..self.clients as u64 {
            checks.merge(removed(self.system.remove(&worker.connection, &self.key(client)).await));
        }
        checks
    }
}

/// Writes of one key, before each of which the clients of two other nodes read it.
pub(in super::super) struct SharedWriteWork<S> {
    system: S,
    meter: Meter,
    key: String,
}

impl<S> SharedWriteWork<S> {
    pub(in super::super) fn new(system: S, meter: Meter, run: u64) -> Self {
        Self { system, meter, key: format!("compare:{run:x}") }
    }
}

impl<S: Store> SharedWriteWork<S> {
    async fn share(&self, others: &[S::Connection]) -> Result<(), Failure> {
        for other in others {
            self.system.read(other, &self.key).await?;
        }
        Ok(())
    }
}

impl<S> Metered for SharedWriteWork<S> {
    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<S: Store> Workload for SharedWriteWork<S> {
    type Connection = Arc<Vec<S::Connection>>;

    async fn connect(&self, number: usize) -> Result<Self::Connection, Failure> {
        let mut connections = Vec::with_capacity(SHARERS);
        for other in 0..SHARERS {
            connections.push(self.system.connect(number + other).await?);
        }
        Ok(Arc::new(connections))
    }

    async fn prepare(&self, worker: &mut Worker<Self::Connection>) -> Result<(), Failure> {
        self.system.write(&worker.connection[0], &self.key, value(0, 0)).await
    }

    async fn round(&self, worker: &mut Worker<Self::Connection>) -> bool {
        let connections = Arc::clone(&worker.connection);
        let left = self.meter.left();
        if let Err(failure) = in_time(self.share(&connections[1..])).await {
            self.meter.fail(&failure, left);
            return false;
        }
        let value = value(worker.number, worker.rounds);
        self.meter.measure(worker.number, 1, self.system.write(&connections[0], &self.key, value)).await
    }

    async fn verify(&self, worker: &mut Worker<Self::Connection>) -> Checks {
        removed(self.system.remove(&worker.connection[0], &self.key).await)
    }
}
