//! NATS JetStream: a replicated work-queue stream in files, and one durable pull consumer that all takers share.
//!
//! - A publish is awaited until its acknowledgement, which a majority of the stream's replicas is behind. NATS writes to files
//!   and flushes them every two minutes by default, not for each message; the rows say so.
//! - Takers pull. Where one message is taken after the other, and in the pipeline, they keep a stream of pulls open, which saves
//!   a subscription for each; a batch is one pull for exactly so many messages, so that nobody holds what another one waits for.
//! - An acknowledgement is the plain one, which is sent and not answered: what users do.
//! - A client stays with the node that it was given and does not learn of others.

use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context, Message};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Mutex;

use crate::workload::Failure;

use super::super::systems::{Queues, System};
use super::{CONNECT_TIME_MAX, connected, failed, turn};

/// Replicas of the stream, as Trine's.
const REPLICAS: usize = 3;
/// The consumer that all takers share.
const CONSUMER: &str = "takers";
/// Messages that are taken and not acknowledged: more than all takers of a row have together.
const UNACKNOWLEDGED_MAX: i64 = 4096;
/// How long a batch waits to be full.
const BATCH_WAIT: Duration = Duration::from_secs(5);

/// How messages are pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Pull {
    /// By an open stream of pulls.
    Stream,
    /// By a pull for each batch.
    Batch,
}

/// A NATS cluster.
#[derive(Clone, Debug)]
pub(in super::super) struct Nats {
    addresses: Vec<String>,
    pull: Pull,
}

impl Nats {
    pub(in super::super) fn new(addresses: &[String], pull: Pull) -> Self {
        Self { addresses: addresses.to_vec(), pull }
    }
}

/// A connection, and how it takes: made by its first call, because a publisher needs none.
#[derive(Clone)]
pub(in super::super) struct Connection {
    context: Context,
    taking: Arc<Mutex<Option<Taking>>>,
}

enum Taking {
    Stream(Box<pull::Stream>),
    Batch(Box<PullConsumer>),
}

impl Nats {
    async fn taking(&self, connection: &Connection, queue: &str, count: usize) -> Result<Taking, Failure> {
        let consumer: PullConsumer =
            connection.context.get_consumer_from_stream(CONSUMER, queue).await.map_err(failed("Consumer"))?;
        Ok(match self.pull {
            Pull::Batch => Taking::Batch(Box::new(consumer)),
            Pull::Stream => {
                let stream = consumer.stream().max_messages_per_batch(count).messages().await;
                Taking::Stream(Box::new(stream.map_err(failed("Pull"))?))
            }
        })
    }
}

impl System for Nats {
    type Connection = Connection;

    async fn connect(&self, number: usize) -> Result<Connection, Failure> {
        let address = turn(&self.addresses, number)?;
        connected(address, async {
            let options = ConnectOptions::new().connection_timeout(CONNECT_TIME_MAX).ignore_discovered_servers();
            let client = options.connect(address).await.map_err(failed("Connect"))?;
            Ok(Connection { context: jetstream::new(client), taking: Arc::default() })
        })
        .await
    }
}

/// What is there by now, up to `count`; waits for the first one.
async fn ready(stream: &mut pull::Stream, count: usize) -> Result<Vec<Message>, Failure> {
    let mut messages = Vec::with_capacity(count);
    let mut next = stream.next().await;
    while let Some(message) = next {
        messages.push(message.map_err(failed("Take"))?);
        if messages.len() == count {
            break;
        }
        next = stream.next().now_or_never().flatten();
    }
    Ok(messages)
}

impl Queues for Nats {
    type Delivery = Message;

    async fn create(&self, connection: &Connection, queue: &str) -> Result<(), Failure> {
        let stream = Config {
            name: queue.to_owned(),
            subjects: vec![queue.to_owned()],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            num_replicas: REPLICAS.min(self.addresses.len()),
            ..Config::default()
        };
        connection.context.create_stream(stream).await.map_err(failed("Stream"))?;
        let consumer = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: UNACKNOWLEDGED_MAX,
            ..pull::Config::default()
        };
        connection.context.create_consumer_on_stream(consumer, queue).await.map_err(failed("Consumer"))?;
        Ok(())
    }

    async fn remove(&self, connection: &Connection, queue: &str) -> Result<(), Failure> {
        connection.context.delete_stream(queue).await.map_err(failed("Delete"))?;
        Ok(())
    }

    async fn publish(&self, connection: &Connection, queue: &str, body: Bytes) -> Result<(), Failure> {
        let acknowledgement = connection.context.publish(queue.to_owned(), body).await.map_err(failed("Publish"))?;
        acknowledgement.await.map_err(failed("Publish"))?;
        Ok(())
    }

    async fn take(&self, connection: &Connection, queue: &str, count: usize) -> Result<Vec<Message>, Failure> {
        let mut taking = connection.taking.lock().await;
        if taking.is_none() {
            *taking = Some(self.taking(connection, queue, count).await?);
        }
        match taking.as_mut() {
            Some(Taking::Stream(stream)) => ready(stream, count).await,
            Some(Taking::Batch(consumer)) => {
                let batch = consumer.batch().max_messages(count).expires(BATCH_WAIT).messages().await;
                let messages = batch.map_err(failed("Pull"))?.map(|message| message.map_err(failed("Take")));
                messages.collect::<Vec<_>>().await.into_iter().collect()
            }
            None => Ok(Vec::new()),
        }
    }

    async fn acknowledge(&self, _connection: &Connection, _queue: &str, messages: Vec<Message>) -> Result<(), Failure> {
        for message in messages {
            message.ack().await.map_err(failed("Acknowledge"))?;
        }
        Ok(())
    }
}
