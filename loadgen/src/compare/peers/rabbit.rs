//! RabbitMQ: a quorum queue, publisher confirms, consumers with a prefetch.
//!
//! - A publish is persistent and awaited until its confirm, which a quorum queue gives when a majority has it on disk.
//! - Takers are consumers: the server sends up to `prefetch` messages ahead. Its documentation advises against `basic.get`, a
//!   round trip for each message. The prefetch is what one call takes: one message where one is taken after the other, so that
//!   nobody holds what another one waits for.
//! - What one call took is acknowledged at once by one acknowledgement of all up to the last (`multiple`), which is sent and not
//!   answered: what users do.
//! - A client is one connection with one channel. A user would rather have one connection with many channels; the row says
//!   how many connections there are, and the other systems have as many.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ConnectionProperties, Consumer};
use tokio::sync::Mutex;

use crate::workload::Failure;

use super::super::systems::{Queues, System};
use super::{connected, failed, turn};

/// Delivery mode of a message that is to outlive its broker.
const PERSISTENT: u8 = 2;

/// A RabbitMQ cluster.
#[derive(Clone, Debug)]
pub(in super::super) struct Rabbit {
    addresses: Vec<String>,
}

impl Rabbit {
    pub(in super::super) fn new(addresses: &[String]) -> Self {
        Self { addresses: addresses.to_vec() }
    }
}

/// A connection with its channel, and its consumer: made by the first call that takes, because a publisher needs none.
#[derive(Clone)]
pub(in super::super) struct Connection {
    channel: Channel,
    consumer: Arc<Mutex<Option<Consumer>>>,
    _open: Arc<lapin::Connection>,
}

async fn consume(channel: &Channel, queue: &str, prefetch: usize) -> Result<Consumer, Failure> {
    let prefetch = u16::try_from(prefetch).unwrap_or(u16::MAX);
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(failed("Consume"))?;
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.map_err(failed("Consume"))
}

impl System for Rabbit {
    type Connection = Connection;

    async fn connect(&self, number: usize) -> Result<Connection, Failure> {
        let address = turn(&self.addresses, number)?;
        connected(address, async {
            let uri = format!("amqp://guest:guest@{address}/%2f");
            let open = lapin::Connection::connect(&uri, ConnectionProperties::default());
            let open = open.await.map_err(failed("Connect"))?;
            let channel = open.create_channel().await.map_err(failed("Channel"))?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed("Channel"))?;
            Ok(Connection { channel, consumer: Arc::default(), _open: Arc::new(open) })
        })
        .await
    }
}

impl Queues for Rabbit {
    type Delivery = Delivery;

    async fn create(&self, connection: &Connection, queue: &str) -> Result<(), Failure> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        connection.channel.queue_declare(queue.into(), options, arguments).await.map_err(failed("Declare"))?;
        Ok(())
    }

    async fn remove(&self, connection: &Connection, queue: &str) -> Result<(), Failure> {
        connection.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map_err(failed("Delete"))?;
        Ok(())
    }

    async fn publish(&self, connection: &Connection, queue: &str, body: Bytes) -> Result<(), Failure> {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions::default();
        let sent = connection.channel.basic_publish("".into(), queue.into(), options, &body, properties).await;
        match sent.map_err(failed("Publish"))?.await.map_err(failed("Publish"))? {
            Confirmation::Ack(None) => Ok(()),
            other => Err(Failure { name: "Publish", unknown: true, text: format!("not confirmed: {other:?}") }),
        }
    }

    async fn take(&self, connection: &Connection, queue: &str, count: usize) -> Result<Vec<Delivery>, Failure> {
        let mut consumer = connection.consumer.lock().await;
        if consumer.is_none() {
            *consumer = Some(consume(&connection.channel, queue, count).await?);
        }
        let Some(consumer) = consumer.as_mut() else { return Ok(Vec::new()) };
        let mut deliveries = Vec::with_capacity(count);
        let mut next = consumer.next().await;
        while let Some(delivery) = next {
            deliveries.push(delivery.map_err(failed("Take"))?);
            if deliveries.len() == count {
                break;
            }
            next = consumer.next().now_or_never().flatten();
        }
        Ok(deliveries)
    }

    async fn acknowledge(&self, connection: &Connection, _queue: &str, taken: Vec<Delivery>) -> Result<(), Failure> {
        let Some(last) = taken.last() else { return Ok(()) };
        let options = BasicAckOptions { multiple: taken.len() > 1 };
        connection.channel.basic_ack(last.delivery_tag, options).await.map_err(failed("Acknowledge"))
    }
}
