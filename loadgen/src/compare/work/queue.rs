//! Through a queue: batch after batch by the same client, from some connections to others, or in at one end only.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::{Mutex, Semaphore};

use crate::workload::{Checks, Failure, Worker, Workload};

use super::super::meter::Meter;
use super::super::systems::Queues;
use super::{Metered, removed, value};

/// Pause of a taker that found nothing, on every system whose takers do not wait by themselves.
const EMPTY_PAUSE: Duration = Duration::from_millis(1);
/// Messages that one call of a pipeline's taker takes at most: half of what the publishers have in flight, so that
/// two takers are enough and eight are never short of room.
const TAKE_MAX: usize = 64;
/// Messages of a pipeline that were published and not yet taken. Publishers wait there: a queue that only grows shows
/// the rate of its publishers, and the row is about what goes all the way.
const BACKLOG_MAX: usize = 1024;

fn name(run: u64) -> String {
    format!("compare-{run:x}")
}

/// Each client publishes a batch, takes as many, and acknowledges them.
pub(in super::super) struct BatchWork<S> {
    system: S,
    meter: Meter,
    queue: String,
    batch: usize,
}

impl<S> BatchWork<S> {
    pub(in super::super) fn new(system: S, meter: Meter, run: u64, batch: usize) -> Self {
        Self { system, meter, queue: name(run), batch }
    }
}

impl<S: Queues> BatchWork<S> {
    async fn cycle(&self, connection: &S::Connection, worker: u64, round: u64) -> Result<(), Failure> {
        let batch = self.batch as u64;
        let bodies = (0..batch).map(|number| value(worker, round * batch + number));
        try_join_all(bodies.map(|body| self.system.publish(connection, &self.queue, body))).await?;
        let mut missing = self.batch;
        while missing > 0 {
            // No more than are missing: what one taker has too many of, another one would wait for.
            let deliveries = self.system.take(connection, &self.queue, missing).await?;
            if deliveries.is_empty() {
                tokio::time::sleep(EMPTY_PAUSE).await;
            }
            missing = missing.saturating_sub(deliveries.len());
            self.system.acknowledge(connection, &self.queue, deliveries).await?;
        }
        Ok(())
    }
}

impl<S> Metered for BatchWork<S> {
    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<S: Queues> Workload for BatchWork<S> {
    type Connection = S::Connection;

    async fn connect(&self, number: usize) -> Result<S::Connection, Failure> {
        self.system.connect(number).await
    }

    async fn prepare(&self, worker: &mut Worker<S::Connection>) -> Result<(), Failure> {
        self.system.create(&worker.connection, &self.queue).await
    }

    async fn round(&self, worker: &mut Worker<S::Connection>) -> bool {
        let connection = worker.connection.clone();
        let cycle = self.cycle(&connection, worker.number, worker.rounds);
        self.meter.measure(worker.number, self.batch as u64, cycle).await
    }

    async fn verify(&self, worker: &mut Worker<S::Connection>) -> Checks {
        removed(self.system.remove(&worker.connection, &self.queue).await)
    }
}

/// A connection of a pipeline, by what its workers do.
pub(in super::super) enum End<C> {
    /// They publish.
    Publish(C),
    /// They take and acknowledge, one of them at a time: a taker has one call in flight.
    Take(C, Arc<Mutex<()>>),
}

impl<C: Clone> Clone for End<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Publish(connection) => Self::Publish(connection.clone()),
            Self::Take(connection, turn) => Self::Take(connection.clone(), turn.clone()),
        }
    }
}

/// Half of the connections publish, the others take. Counted is what was acknowledged; the latency is the publish's.
pub(in super::super) struct PipelineWork<S> {
    system: S,
    meter: Meter,
    queue: String,
    publishers: usize,
    room: Semaphore,
}

impl<S> PipelineWork<S> {
    pub(in super::super) fn new(system: S, meter: Meter, run: u64, clients: usize) -> Self {
        Self { system, meter, queue: name(run), publishers: clients / 2, room: Semaphore::new(BACKLOG_MAX) }
    }
}

impl<S: Queues> PipelineWork<S> {
    async fn publish(&self, worker: &Worker<End<S::Connection>>, connection: &S::Connection) -> bool {
        let Ok(Ok(room)) = tokio::time::timeout(self.meter.left(), self.room.acquire()).await else { return true };
        let body = value(worker.number, worker.rounds);
        let published = self.meter.measure(worker.number, 0, self.system.publish(connection, &self.queue, body)).await;
        if published {
            // The taker of the message gives it back.
            room.forget();
        }
        published
    }

    async fn take(&self, connection: &S::Connection, turn: &Mutex<()>) -> bool {
        let _turn = turn.lock().await;
        let left = self.meter.left();
        if left.is_zero() {
            return true;
        }
        match tokio::time::timeout(left, self.take_some(connection)).await {
            Ok(Ok(0)) => tokio::time::sleep(EMPTY_PAUSE).await,
            Ok(Ok(taken)) => self.meter.count(taken as u64),
            Ok(Err(failure)) => {
                self.meter.fail(&failure, left);
                return false;
            }
            // The seconds are over, which is news only where nothing came for long.
            Err(_) => {
                let text = "waited to the end for a message".into();
                self.meter.fail(&Failure { name: "NothingTaken", unknown: false, text }, left);
            }
        }
        true
    }

    async fn take_some(&self, connection: &S::Connection) -> Result<usize, Failure> {
        let deliveries = self.system.take(connection, &self.queue, TAKE_MAX).await?;
        let taken = deliveries.len();
        self.room.add_permits(taken);
        self.system.acknowledge(connection, &self.queue, deliveries).await?;
        Ok(taken)
    }
}

impl<S> Metered for PipelineWork<S> {
    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<S: Queues> Workload for PipelineWork<S> {
    type Connection = End<S::Connection>;

    async fn connect(&self, number: usize) -> Result<End<S::Connection>, Failure> {
        let connection = self.system.connect(number).await?;
        Ok(if number < self.publishers { End::Publish(connection) } else { End::Take(connection, Arc::default()) })
    }

    async fn prepare(&self, worker: &mut Worker<End<S::Connection>>) -> Result<(), Failure> {
        let (End::Publish(connection) | End::Take(connection, _)) = &worker.connection;
        self.system.create(connection, &self.queue).await
    }

    async fn round(&self, worker: &mut Worker<End<S::Connection>>) -> bool {
        match worker.connection.clone() {
            End::Publish(connection) => self.publish(worker, &connection).await,
            End::Take(connection, turn) => self.take(&connection, &turn).await,
        }
    }

    async fn verify(&self, worker: &mut Worker<End<S::Connection>>) -> Checks {
        let (End::Publish(connection) | End::Take(connection, _)) = &worker.connection;
        removed(self.system.remove(connection, &self.queue).await)
    }
}

/// Publishes only: each publish is one durable command.
pub(in super::super) struct CommitQueueWork<S> {
    system: S,
    meter: Meter,
    queue: String,
}

impl<S> CommitQueueWork<S> {
    pub(in super::super) fn new(system: S, meter: Meter, run: u64) -> Self {
        Self { system, meter, queue: name(run) }
    }
}

impl<S> Metered for CommitQueueWork<S> {
    fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<S: Queues> Workload for CommitQueueWork<S> {
    type Connection = S::Connection;

    async fn connect(&self, number: usize) -> Result<S::Connection, Failure> {
        self.system.connect(number).await
    }

    async fn prepare(&self, worker: &mut Worker<S::Connection>) -> Result<(), Failure> {
        self.system.create(&worker.connection, &self.queue).await
    }

    async fn round(&self, worker: &mut Worker<S::Connection>) -> bool {
        let connection = worker.connection.clone();
        let body = value(worker.number, worker.rounds);
        self.meter.measure(worker.number, 1, self.system.publish(&connection, &self.queue, body)).await
    }

    async fn verify(&self, worker: &mut Worker<S::Connection>) -> Checks {
        removed(self.system.remove(&worker.connection, &self.queue).await)
    }
}
