//! A stream of deliveries that the node sends by itself: extended as long as they are worked on, acknowledged in batches.
//!
//! ```text
//!   node -- pushes, within the credit --> [task] -- next() --> the consumer works
//!   node <-- Extend, each third of the visibility timeout -- [task]
//!   node <-- AckMany, then Credit for as many --- [task] <-- ack()
//! ```
//!
//! # What it promises
//! - A delivery that the consumer has not acknowledged is extended until it is, or is given back, or the subscription is dropped. A process
//!   that dies extends nothing: its messages come back.
//! - Acknowledgements wait a few milliseconds for others and go as one command; each is answered for itself.
//! - When the connection is lost, it subscribes again, where the leader is then. The node gives back what was not acknowledged:
//!   such a delivery is lost to the consumer, which learns so from its `ack`: `NotInFlight` or `StaleReceipt`.
//!
//! # Caveats
//! - A consumer that holds on to a delivery for ever has it for ever: bound its work by a timeout of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::backoff::Backoff;
use super::connection::{Connection, Failure};
use super::{Client, clock};
use crate::command::{Request, RequestHeader};
use crate::error::{Error, ErrorCode, Outcome};
use crate::limits::{BATCH_MAX, CREDIT_MAX, VISIBILITY_MS_DEFAULT};
use crate::queue::{Credit, Delivery, Receipt, RefusedReceipt, Subscribe, Unsubscribe};

/// How long an acknowledgement waits for others.
const COALESCE: Duration = Duration::from_millis(2);

/// How a subscription behaves.
#[derive(Clone, Debug)]
pub struct SubscriptionConfig {
    /// Who takes the messages, for `explain` and `peek`.
    pub consumer: String,
    /// Deliveries that may be with the consumer at once, 1 to [`CREDIT_MAX`].
    pub credit: u32,
    /// Visibility timeout of each, in milliseconds; 0 means 30,000. Each is extended after a third of it.
    pub visibility_ms: u32,
}

impl SubscriptionConfig {
    /// Eight deliveries at once, with the default visibility timeout.
    pub fn new(consumer: impl Into<String>) -> Self {
        Self { consumer: consumer.into(), credit: 8, visibility_ms: 0 }
    }
}

/// Deliveries as they come. Dropping it ends the subscription, and gives back what is not acknowledged.
pub struct Subscription {
    deliveries: mpsc::UnboundedReceiver<Result<Delivery, Error>>,
    done: mpsc::UnboundedSender<Done>,
    task: JoinHandle<()>,
}

/// What the consumer has done with a delivery.
enum Done {
    Ack(Receipt, oneshot::Sender<Result<(), Error>>),
    Nack(Receipt, Option<u32>, String, oneshot::Sender<Result<(), Error>>),
    Close(oneshot::Sender<()>),
}

impl Client {
    /// Subscribes to a queue. The subscription connects and reconnects by itself.
    ///
    /// # Errors
    /// `InvalidArgument` where the credit is out of its range.
    pub fn subscribe(&self, queue: impl Into<String>, config: SubscriptionConfig) -> Result<Subscription, Error> {
        if !(1..=CREDIT_MAX).contains(&config.credit) {
            let message = format!("the credit is {}, 1 to {CREDIT_MAX} are allowed", config.credit);
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let (to_consumer, deliveries) = mpsc::unbounded_channel();
        let (done, done_by_consumer) = mpsc::unbounded_channel();
        let visibility_ms = if config.visibility_ms == 0 { VISIBILITY_MS_DEFAULT } else { config.visibility_ms };
        let worker = Worker {
            client: self.clone(),
            queue: queue.into(),
            config: SubscriptionConfig { visibility_ms, ..config },
            to_consumer,
            held: BTreeMap::new(),
            acks: Vec::new(),
            flush_at: None,
        };
        Ok(Subscription { deliveries, done, task: tokio::spawn(worker.run(done_by_consumer)) })
    }
}

impl Subscription {
    /// The next delivery; an error where the node refuses the subscription, which ends it. None after that.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        self.deliveries.recv().await
    }

    /// Acknowledges a delivery. Sent together with others; answered for itself.
    ///
    /// # Errors
    /// `NotInFlight` or `StaleReceipt` where the delivery was lost meanwhile.
    pub async fn ack(&self, delivery: &Delivery) -> Result<(), Error> {
        self.tell(|reply| Done::Ack(delivery.receipt(), reply)).await
    }

    /// Gives a delivery back; `delay_ms` None means the back-off of the queue.
    ///
    /// # Errors
    /// As [`Subscription::ack`].
    pub async fn nack(&self, delivery: &Delivery, delay_ms: Option<u32>, reason: &str) -> Result<(), Error> {
        self.tell(|reply| Done::Nack(delivery.receipt(), delay_ms, reason.to_owned(), reply)).await
    }

    async fn tell(&self, what: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> Done) -> Result<(), Error> {
        let ended = || Error::new(ErrorCode::OutcomeUnknown, "the subscription has ended");
        let (reply, answer) = oneshot::channel();
        self.done.send(what(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Sends the acknowledgements that wait, gives back the rest, and ends.
    pub async fn close(self) {
        let (reply, closed) = oneshot::channel();
        if self.done.send(Done::Close(reply)).is_ok() {
            let _ = closed.await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    client: Client,
    queue: String,
    config: SubscriptionConfig,
    to_consumer: mpsc::UnboundedSender<Result<Delivery, Error>>,
    /// What is with the consumer, and when it is to be extended.
    held: BTreeMap<(u64, u64), Instant>,
    acks: Vec<(Receipt, oneshot::Sender<Result<(), Error>>)>,
    flush_at: Option<Instant>,
}

/// A subscription on one connection.
struct Line {
    connection: Arc<Connection>,
    subscription: u64,
    pushes: mpsc::UnboundedReceiver<Result<Vec<Delivery>, Error>>,
}

impl Drop for Line {
    /// A worker that is aborted tells the node, so that what it had is given back at once.
    fn drop(&mut self) {
        self.connection.forget_subscription(self.subscription);
        let (connection, subscription) = (self.connection.clone(), self.subscription);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let until = clock::now() + Duration::from_secs(1);
                let _ = connection.call(RequestHeader::default(), &Unsubscribe { subscription }.into(), until).await;
            });
        }
    }
}

impl Worker {
    async fn run(mut self, mut done: mpsc::UnboundedReceiver<Done>) {
        let mut backoff = Backoff::default();
        loop {
            match self.subscribe().await {
                Ok(line) => {
                    backoff = Backoff::default();
                    if self.work(line, &mut done).await {
                        return;
                    }
                    // What came over the lost line is given back by its node.
                    self.held.clear();
                }
                Err(error) if error.code.outcome() == Outcome::Refused => {
                    let _ = self.to_consumer.send(Err(error));
                    return;
                }
                Err(_) => sleep(backoff.next()).await,
            }
        }
    }

    async fn subscribe(&self) -> Result<Line, Error> {
        let shared = &self.client.shared;
        let subscribe = Subscribe {
            queue: self.queue.clone(),
            consumer: self.config.consumer.clone(),
            credit: self.config.credit,
            visibility_ms: self.config.visibility_ms,
        };
        let request = Request::Subscribe(subscribe.clone());
        request.check()?;
        let group = shared.group_of(&request);
        let endpoint = shared.routes.leader_or_preferred(group);
        let until = clock::now() + shared.config.deadline;
        let connected = shared.connection(&endpoint, until).await;
        let connection = connected.inspect_err(|_| shared.routes.forget(group, &endpoint))?;
        let (sender, pushes) = mpsc::unbounded_channel();
        let subscribed = connection.subscribe(subscribe, until, sender).await;
        let subscription = subscribed.map_err(|failure| {
            shared.routes.forget(group, &endpoint);
            match failure {
                Failure::Node(error) => error,
                // It did nothing that is not undone with the connection.
                other => Error::new(ErrorCode::Unreachable, other.into_error().message),
            }
        })?;
        Ok(Line { connection, subscription, pushes })
    }

    /// Works until the line is lost. True where the subscription is to end.
    async fn work(&mut self, mut line: Line, done: &mut mpsc::UnboundedReceiver<Done>) -> bool {
        let third = Duration::from_millis(u64::from(self.config.visibility_ms)) / 3;
        let mut extend = interval((third / 4).max(Duration::from_millis(5)));
        extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let flush_at = self.flush_at.unwrap_or_else(clock::now);
            tokio::select! {
                pushed = line.pushes.recv() => match pushed {
                    Some(Ok(deliveries)) => self.take(deliveries, third),
                    Some(Err(error)) => {
                        let _ = self.to_consumer.send(Err(error));
                        return true;
                    }
                    None => return false,
                },
                said = done.recv() => match said {
                    Some(Done::Ack(receipt, reply)) => {
                        self.acks.push((receipt, reply));
                        self.flush_at.get_or_insert_with(|| clock::now() + COALESCE);
                        if self.acks.len() >= BATCH_MAX as usize {
                            self.flush(&line).await;
                        }
                    }
                    Some(Done::Nack(receipt, delay_ms, reason, reply)) => self.give_back(&line, receipt, delay_ms, reason, reply),
                    Some(Done::Close(reply)) => {
                        self.flush(&line).await;
                        let until = clock::now() + self.client.shared.config.deadline;
                        let end = Unsubscribe { subscription: line.subscription }.into();
                        let _ = line.connection.call(RequestHeader::default(), &end, until).await;
                        let _ = reply.send(());
                        return true;
                    }
                    None => return true,
                },
                () = sleep_until(flush_at), if self.flush_at.is_some() => self.flush(&line).await,
                _ = extend.tick() => self.extend(third),
            }
        }
    }

    fn take(&mut self, deliveries: Vec<Delivery>, third: Duration) {
        for delivery in deliveries {
            self.held.insert((delivery.id, delivery.token), clock::now() + third);
            // A consumer that has gone drops the subscription, and that ends this task.
            let _ = self.to_consumer.send(Ok(delivery));
        }
    }

    /// Sends the acknowledgements that wait, and gives the node credit for as many.
    async fn flush(&mut self, line: &Line) {
        self.flush_at = None;
        let acks = std::mem::take(&mut self.acks);
        if acks.is_empty() {
            return;
        }
        let receipts: Vec<Receipt> = acks.iter().map(|(receipt, _)| *receipt).collect();
        receipts.iter().for_each(|receipt| _ = self.held.remove(&(receipt.id, receipt.token)));
        let (client, queue) = (self.client.clone(), self.queue.clone());
        give_credit(line, receipts.len() as u32);
        // Beside the line: the next deliveries need not wait for the disks that these acknowledgements wait for.
        tokio::spawn(async move {
            let result = client.ack_many(queue, receipts).await;
            for (place, (receipt, reply)) in acks.into_iter().enumerate() {
                let answer = match &result {
                    Ok(acked) => refusal(&acked.refused, place, receipt),
                    Err(error) => Err(error.clone()),
                };
                let _ = reply.send(answer);
            }
        });
    }

    fn give_back(
        &mut self,
        line: &Line,
        receipt: Receipt,
        delay_ms: Option<u32>,
        reason: String,
        reply: oneshot::Sender<Result<(), Error>>,
    ) {
        self.held.remove(&(receipt.id, receipt.token));
        give_credit(line, 1);
        let (client, queue) = (self.client.clone(), self.queue.clone());
        tokio::spawn(async move {
            let _ = reply.send(client.nack(queue, receipt, delay_ms, reason).await.map(drop));
        });
    }

    /// Extends what is still worked on.
    fn extend(&mut self, third: Duration) {
        let now = clock::now();
        for ((id, token), due) in self.held.iter_mut().filter(|(_, due)| **due <= now) {
            *due = now + third;
            let (client, queue, receipt) =
                (self.client.clone(), self.queue.clone(), Receipt { id: *id, token: *token });
            let visibility_ms = self.config.visibility_ms;
            // One that was lost meanwhile says so to its acknowledgement.
            tokio::spawn(async move { client.extend(queue, receipt, visibility_ms).await.map(drop) });
        }
    }
}

fn refusal(refused: &[RefusedReceipt], place: usize, receipt: Receipt) -> Result<(), Error> {
    match refused.iter().find(|refused| refused.place as usize == place) {
        None => Ok(()),
        Some(refused) => {
            let message =
                format!("the delivery of message {} with token {} is another's or gone", receipt.id, receipt.token);
            Err(Error::new(refused.code, message))
        }
    }
}

fn give_credit(line: &Line, more: u32) {
    let (connection, subscription) = (line.connection.clone(), line.subscription);
    tokio::spawn(async move {
        let until = clock::now() + Duration::from_secs(5);
        // Where it is lost, so is the line, and the next one begins with all of the credit.
        let _ = connection.call(RequestHeader::default(), &Credit { subscription, more }.into(), until).await;
    });
}
