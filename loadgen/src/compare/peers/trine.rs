//! Trine itself, by the client of its own protocol.
//!
//! - The `number`th client has the cache of the `number`th node. Its queue and lock commands go to the leader of their group, as
//!   the client does by itself; commands have a session, so that a retry is not executed twice.
//! - There is no command yet for a batch of enqueues or acknowledgements: a batch is as many requests in flight on one connection.
//! - A queue and what is in it cannot be removed yet. What is left of a run stays on the cluster.

use bytes::Bytes;
use futures_util::future::try_join_all;
use trine_protocol::ErrorCode;
use trine_protocol::cache::Source;
use trine_protocol::client::Client;
use trine_protocol::queue::Delivery;

use crate::native;
use crate::workload::Failure;

use super::super::systems::{Locks, Queues, Store, System};

/// Lease of a lock: far longer than a cycle.
const LEASE_MS: u32 = 10_000;

/// A Trine cluster.
#[derive(Clone, Debug)]
pub(in super::super) struct Trine {
    endpoints: Vec<String>,
}

impl Trine {
    pub(in super::super) fn new(endpoints: &[String]) -> Self {
        Self { endpoints: endpoints.to_vec() }
    }
}

impl System for Trine {
    type Connection = Client;

    async fn connect(&self, number: usize) -> Result<Client, Failure> {
        native::connect(&self.endpoints, number).await
    }
}

impl Locks for Trine {
    /// The fencing token.
    type Grant = u64;

    async fn acquire(&self, connection: &Client, lock: &str, client: &str) -> Result<Option<u64>, Failure> {
        match connection.acquire(lock, client, LEASE_MS).await {
            Ok(granted) => Ok(Some(granted.token)),
            Err(error) if error.code == ErrorCode::LockHeld => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn release(&self, connection: &Client, lock: &str, client: &str, token: u64) -> Result<(), Failure> {
        connection.release(lock, client, token).await?;
        Ok(())
    }
}

impl Queues for Trine {
    type Delivery = Delivery;

    /// Its first message makes it.
    async fn create(&self, _connection: &Client, _queue: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn remove(&self, _connection: &Client, _queue: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn publish(&self, connection: &Client, queue: &str, body: Bytes) -> Result<(), Failure> {
        connection.enqueue(queue, body).await?;
        Ok(())
    }

    async fn take(&self, connection: &Client, queue: &str, count: usize) -> Result<Vec<Delivery>, Failure> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Ok(connection.dequeue(queue, 0, count).await?.deliveries)
    }

    async fn acknowledge(&self, connection: &Client, queue: &str, deliveries: Vec<Delivery>) -> Result<(), Failure> {
        try_join_all(deliveries.iter().map(|delivery| connection.ack(queue, delivery))).await?;
        Ok(())
    }
}

impl Store for Trine {
    async fn write(&self, connection: &Client, key: &str, value: Bytes) -> Result<(), Failure> {
        connection.put(key, value).await?;
        Ok(())
    }

    /// True for a hit of the node's own cache.
    async fn read(&self, connection: &Client, key: &str) -> Result<bool, Failure> {
        let got = connection.get(key).await?;
        if got.value.is_none() {
            return Err(Failure { name: "Missing", unknown: false, text: format!("{key} has no value") });
        }
        Ok(got.source == Source::LocalCache)
    }

    async fn warm(&self, connection: &Client, key: &str) -> Result<(), Failure> {
        for endpoint in &self.endpoints {
            self.read(&connection.at(endpoint)?, key).await?;
        }
        Ok(())
    }

    async fn remove(&self, connection: &Client, key: &str) -> Result<(), Failure> {
        connection.delete(key).await?;
        Ok(())
    }
}
