//! What is done to the queue: messages in, messages out, and which of them were seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use trine_protocol::client::Client;
use trine_protocol::queue::Delivery;

use crate::clock;
use crate::native;
use crate::tag::Tag;
use crate::workload::Failure;

use super::cluster::Cluster;
use super::{Arguments, per_second};

/// Messages of one dequeue.
const BATCH: u32 = 16;
/// Long enough for a drain under load, short enough to get back what a lost answer hides.
const VISIBILITY_MS: u32 = 60_000;
/// Pause of a worker after a refusal, and where nothing is ready.
const PAUSE: Duration = Duration::from_millis(50);
/// Nothing comes any more: so long without a delivery, while messages are missing.
const SILENCE_MAX: Duration = Duration::from_secs(2 * VISIBILITY_MS as u64 / 1_000);

/// Rates of a shallow queue, per second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) enqueue: f64,
    pub(super) drain: f64,
}

/// The queue of this run, and connections to work on it.
#[derive(Debug)]
pub(super) struct Work {
    clients: Vec<Client>,
    in_flight: usize,
    queue: String,
    messages: u64,
    value_bytes: usize,
}

/// Which messages were seen, a bit for each.
#[derive(Debug)]
struct Seen {
    words: Vec<AtomicU64>,
    count: AtomicU64,
}

impl Seen {
    fn new(messages: u64) -> Self {
        let words = (0..=messages / 64).map(|_| AtomicU64::new(0)).collect();
        Self { words, count: AtomicU64::new(0) }
    }

    fn note(&self, number: u64) {
        let Some(word) = self.words.get(usize::try_from(number / 64).unwrap_or(usize::MAX)) else { return };
        if word.fetch_or(1 << (number % 64), Ordering::Relaxed) & (1 << (number % 64)) == 0 {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Work {
    pub(super) async fn connect(arguments: &Arguments, cluster: &Cluster) -> Result<Self, Failure> {
        let endpoints = cluster.endpoints();
        let mut clients = Vec::new();
        for number in 0..arguments.clients.max(1) {
            clients.push(native::connect(&endpoints, number).await?);
        }
        let Arguments { messages, value_bytes, in_flight, .. } = *arguments;
        Ok(Self { clients, in_flight: in_flight.max(1), queue: "backlog".into(), messages, value_bytes })
    }

    /// Rates of the queue while nearly nothing is in it.
    pub(super) async fn shallow(&self, messages: u64, rounds: u64) -> Result<Rates, Failure> {
        let (mut filling, mut draining) = (Duration::ZERO, Duration::ZERO);
        for round in 0..=rounds {
            let started = clock::now();
            self.put(messages).await?;
            let filled = started.elapsed();
            self.take(messages).await?;
            if round > 0 {
                filling += filled;
                draining += started.elapsed() - filled;
            }
        }
        let count = messages * rounds;
        Ok(Rates { enqueue: per_second(count, filling), drain: per_second(count, draining) })
    }

    /// Puts the whole backlog in.
    pub(super) async fn fill(&self) -> Result<(), Failure> {
        self.put(self.messages).await
    }

    /// Takes everything out; returns how many messages were never seen.
    pub(super) async fn drain(&self) -> Result<u64, Failure> {
        self.take(self.messages).await
    }

    fn workers(&self) -> impl Iterator<Item = Client> + '_ {
        (0..self.in_flight).flat_map(|_| self.clients.iter().cloned())
    }

    async fn put(&self, messages: u64) -> Result<(), Failure> {
        let next = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for client in self.workers() {
            let (next, queue, length) = (Arc::clone(&next), self.queue.clone(), self.value_bytes);
            workers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= messages {
                        return;
                    }
                    let body = Tag { writer: 0, number }.bytes(0, length);
                    // A retry after an unknown outcome may put it in twice, which a drain does not mind.
                    while client.enqueue(queue.clone(), body.clone()).await.is_err() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        join(workers).await
    }

    async fn take(&self, messages: u64) -> Result<u64, Failure> {
        let seen = Arc::new(Seen::new(messages));
        let mut workers = JoinSet::new();
        for client in self.workers().take(self.in_flight.max(self.clients.len())) {
            let (seen, queue, length) = (Arc::clone(&seen), self.queue.clone(), self.value_bytes);
            workers.spawn(async move {
                let mut heard = clock::now();
                while seen.count() < messages && heard.elapsed() < SILENCE_MAX {
                    match client.dequeue(queue.clone(), VISIBILITY_MS, BATCH).await {
                        Ok(taken) if !taken.deliveries.is_empty() => {
                            heard = clock::now();
                            acknowledge(&client, &queue, taken.deliveries, &seen, length).await;
                        }
                        _ => tokio::time::sleep(PAUSE).await,
                    }
                }
            });
        }
        join(workers).await?;
        Ok(messages - seen.count())
    }
}

/// Acknowledges what was taken, all at once, and notes what is through.
async fn acknowledge(client: &Client, queue: &str, deliveries: Vec<Delivery>, seen: &Arc<Seen>, length: usize) {
    let mut answers = JoinSet::new();
    for delivery in deliveries {
        let (client, seen, queue) = (client.clone(), Arc::clone(seen), queue.to_owned());
        answers.spawn(async move {
            let tag = Tag::of_bytes(&delivery.body, 0, length);
            let answer = client.ack(queue, &delivery).await;
            if let (Ok(_), Some(tag)) = (answer, tag) {
                seen.note(tag.number);
            }
        });
    }
    answers.join_all().await;
}

async fn join(mut workers: JoinSet<()>) -> Result<(), Failure> {
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|error| Failure { name: "worker", unknown: true, text: error.to_string() })?;
    }
    Ok(())
}
