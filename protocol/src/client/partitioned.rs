//! One logical queue over several groups: more than one leader's throughput, and the order of each key.
//!
//! The queue `orders` in 3 partitions is the queues `orders#0`, `orders#1` and `orders#2`, which live in groups next to each other (see
//! [`crate::placement`]). A message goes to the partition that the hash of its key names, and without a key to the next in turn. So
//! messages of one key stay in one partition, in order; messages without a key have no order over all partitions.
//!
//! # Caveats
//! - The number of partitions decides where a key lives: another number, while messages are in the queue, can break the order of keys.
//! - A receipt is of its partition: it is acknowledged there.
//! - A priority, a fair share or a limit holds within each partition.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Client, clock};
use crate::error::Error;
use crate::placement::{partition_name, partition_of};
use crate::queue::{Delivery, Dequeue, EnqueueOptions, Enqueued, Policy, Receipt};

/// How long one look at all partitions waits before it looks again, so that a consumer that gives up leaves little behind.
const ROUND: Duration = Duration::from_millis(2_000);

/// A queue in partitions. Made by [`Client::partitioned`].
pub struct Partitioned {
    client: Client,
    queue: String,
    partitions: u32,
    next: AtomicU32,
}

impl Client {
    /// A queue in partitions, as it is declared. One that nobody declared has one partition.
    ///
    /// # Errors
    /// Those of `show_queue`.
    pub async fn partitioned(&self, queue: impl Into<String>) -> Result<Partitioned, Error> {
        let queue = queue.into();
        let policy = self.show_queue(queue.as_str()).await?.policy;
        let partitions = policy.map_or(1, |policy| policy.partitions.max(1));
        Ok(Partitioned { client: self.clone(), queue, partitions, next: AtomicU32::new(0) })
    }

    /// Declares a queue and its partitions: `policy.partitions` queues that keep to the rest of the policy, and the queue itself, which
    /// says how many there are. The partitions come first, so that nobody finds the queue without them.
    ///
    /// # Errors
    /// Those of `declare`. Where it fails half-way, declare again.
    pub async fn declare_partitioned(&self, queue: impl Into<String>, policy: Policy) -> Result<Partitioned, Error> {
        let queue = queue.into();
        let of_partition = Policy { partitions: 0, ..policy.clone() };
        if policy.partitions > 1 {
            for number in 0..policy.partitions.min(crate::limits::PARTITIONS_MAX) {
                self.declare(partition_name(&queue, number), of_partition.clone()).await?;
            }
        }
        self.declare(queue.as_str(), policy).await?;
        self.partitioned(queue).await
    }
}

impl Partitioned {
    /// The names of the queues that it is.
    pub fn names(&self) -> Vec<String> {
        match self.partitions {
            0 | 1 => vec![self.queue.clone()],
            partitions => (0..partitions).map(|number| partition_name(&self.queue, number)).collect(),
        }
    }

    fn name_for(&self, key: &str) -> String {
        match (self.partitions, key) {
            (0 | 1, _) => self.queue.clone(),
            (partitions, "") => partition_name(&self.queue, self.next.fetch_add(1, Ordering::Relaxed) % partitions),
            (partitions, key) => partition_name(&self.queue, partition_of(key, partitions)),
        }
    }

    /// Puts a message into the partition of its key. With a `dedup_id` and no key, the id is the key: a repeated one finds the first.
    ///
    /// # Errors
    /// Those of `enqueue`.
    pub async fn enqueue(&self, body: impl Into<Bytes>, options: EnqueueOptions) -> Result<Enqueued, Error> {
        let by = if options.key.is_empty() { &options.dedup_id } else { &options.key };
        self.client.enqueue_with(self.name_for(by), body, options).await
    }

    /// Takes messages from whichever partition has some, and says from which: from one that is ready now, beginning at another each time;
    /// else from the first one that gets some within `dequeue.wait_ms`. `dequeue.queue` is not looked at.
    ///
    /// # Errors
    /// Those of `dequeue`.
    pub async fn dequeue(&self, dequeue: Dequeue) -> Result<Option<(String, Vec<Delivery>)>, Error> {
        let names = self.names();
        let first = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        for place in 0..names.len() {
            let queue = names[(first + place) % names.len()].clone();
            let taken =
                self.client.dequeue_with(Dequeue { queue: queue.clone(), wait_ms: 0, ..dequeue.clone() }).await?;
            if !taken.deliveries.is_empty() {
                return Ok(Some((queue, taken.deliveries)));
            }
        }
        let until = clock::now() + Duration::from_millis(dequeue.wait_ms.into());
        while clock::now() < until {
            let wait = until.saturating_duration_since(clock::now()).min(ROUND);
            let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
            if let Some(taken) = self.first_of(&names, &Dequeue { wait_ms, ..dequeue.clone() }).await? {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// Waits at all partitions at once. What the others bring meanwhile is given back.
    async fn first_of(&self, names: &[String], dequeue: &Dequeue) -> Result<Option<(String, Vec<Delivery>)>, Error> {
        let mut waiting = JoinSet::new();
        for queue in names {
            let (client, dequeue) = (self.client.clone(), Dequeue { queue: queue.clone(), ..dequeue.clone() });
            waiting.spawn(async move {
                let queue = dequeue.queue.clone();
                client.dequeue_with(dequeue).await.map(|taken| (queue, taken.deliveries))
            });
        }
        while let Some(joined) = waiting.join_next().await {
            let Ok(result) = joined else { continue };
            let taken = result?;
            if taken.1.is_empty() {
                continue;
            }
            let client = self.client.clone();
            tokio::spawn(async move {
                while let Some(joined) = waiting.join_next().await {
                    let Ok(Ok((queue, deliveries))) = joined else { continue };
                    for delivery in deliveries {
                        let _ = client.nack(queue.as_str(), &delivery, Some(0), "another partition was faster").await;
                    }
                }
            });
            return Ok(Some(taken));
        }
        Ok(None)
    }

    /// Acknowledges a delivery of a partition.
    ///
    /// # Errors
    /// Those of `ack`.
    pub async fn ack(&self, partition: &str, delivery: &Delivery) -> Result<(), Error> {
        self.client.ack(partition, delivery).await.map(drop)
    }
}

impl From<&Delivery> for Receipt {
    fn from(delivery: &Delivery) -> Self {
        delivery.receipt()
    }
}
