//! Enqueue, dequeue, acknowledge, over some queues of this run's own. The checks are those of [`crate::checks::queue`], after a drain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use trine_protocol::client::Client;
use trine_protocol::queue::{Ack, AckWhich, Delivery, Dequeue, Dequeued, Enqueue};
use trine_protocol::{Request, Response};

use crate::arguments::Native;
use crate::checks::queue::{Handout, QueueLedger};
use crate::clock;
use crate::native;
use crate::popularity::Popularity;
use crate::tag::Tag;
use crate::workload::{Checks, Failure, Worker, Workload};

/// How long a delivery stays hidden; what a failed acknowledgement left behind is back after it.
const VISIBILITY_MS: u32 = 10_000;
/// The drain ends this long after the last sign of a message that may still come: every hidden one is back by then.
const DRAIN_PATIENCE: Duration = Duration::from_millis(VISIBILITY_MS as u64 + 5_000);
/// It ends in any case: a cluster that gives the same messages for ever is no reason to hang.
const DRAIN_MAX: Duration = Duration::from_secs(300);
/// Pause of the drain where all queues are empty for now.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
/// Messages of one dequeue of the drain, acknowledged all at once.
const DRAIN_BATCH: u32 = 64;

/// Queues and the ledger of what went through them.
#[derive(Debug)]
pub(crate) struct Queues {
    endpoints: Vec<String>,
    run: u64,
    names: Vec<String>,
    popularity: Popularity,
    value_bytes: usize,
    /// The body of every message of a run that is not checked.
    body: Bytes,
    ledger: Option<Arc<QueueLedger>>,
}

impl Queues {
    /// Queues of a run of its own, with bodies of `value_bytes`. The ledger grows with the run, so it is kept only where it will be
    /// read; then a body has at least [`TAG_BYTES`](crate::tag::TAG_BYTES).
    ///
    /// # Errors
    /// Where the names' popularity follows no law.
    pub(crate) fn new(native: &Native, run: u64, value_bytes: usize, keeps_ledger: bool) -> Result<Self, Failure> {
        let visibility = Duration::from_millis(VISIBILITY_MS.into());
        Ok(Self {
            endpoints: native.endpoints.clone(),
            run,
            names: (0..native.names.max(1)).map(|index| format!("loadgen:{run:x}:{index}")).collect(),
            popularity: native.popularity()?,
            value_bytes,
            body: vec![b'.'; value_bytes].into(),
            ledger: keeps_ledger.then(|| Arc::new(QueueLedger::new(visibility))),
        })
    }

    /// Sends the worker's message of this round to a queue.
    async fn enqueue(&self, worker: &mut Worker<Client>, index: usize) -> Result<(), Failure> {
        let queue = self.names[index].clone();
        let Some(ledger) = &self.ledger else {
            return worker
                .request("enqueue", Enqueue { queue, body: self.body.clone(), ..Enqueue::default() })
                .await
                .map(|_| ());
        };
        let tag = Tag { writer: worker.number, number: worker.rounds };
        ledger.sending(tag, number(index));
        let body = tag.bytes(self.run, self.value_bytes);
        let result = worker.request("enqueue", Enqueue { queue, body, ..Enqueue::default() }).await;
        ledger.sent(tag, result.as_ref());
        result.map(|_| ())
    }

    /// Notes a delivery; returns what it is of.
    fn note(&self, index: usize, delivery: &Delivery, asked: Instant, received: Instant) -> Option<Tag> {
        let ledger = self.ledger.as_ref()?;
        let tag = Tag::of_bytes(&delivery.body, self.run, self.value_bytes);
        ledger.handed_out(number(index), tag, Handout { token: delivery.token, asked, received });
        tag
    }

    fn note_acknowledgement(&self, tag: Option<Tag>, delivery: &Delivery, result: &Result<Response, Failure>) {
        if let (Some(ledger), Some(tag)) = (&self.ledger, tag) {
            ledger.acknowledged(tag, delivery.token, result.as_ref());
        }
    }

    /// Takes what one queue has and acknowledges it. Returns how many messages there were, None where nobody can say.
    async fn drain(&self, worker: &Worker<Client>, index: usize) -> Option<usize> {
        let asked = clock::now();
        let taken = worker.call(dequeue(&self.names[index], DRAIN_BATCH)).await;
        let Ok(Response::Dequeue(Dequeued { deliveries })) = taken else { return None };
        let received = clock::now();
        let mut acknowledgements = JoinSet::new();
        for delivery in &deliveries {
            let tag = self.note(index, delivery, asked, received);
            let (ledger, client) = (self.ledger.clone(), worker.connection.clone());
            let (token, request) = (delivery.token, acknowledge(&self.names[index], delivery));
            acknowledgements.spawn(async move {
                let result = client.call(request).await.map_err(Failure::from);
                if let (Some(ledger), Some(tag)) = (ledger, tag) {
                    ledger.acknowledged(tag, token, result.as_ref());
                }
            });
        }
        acknowledgements.join_all().await;
        Some(deliveries.len())
    }

    /// Takes what is left in all queues, until nothing is missing and every queue has been empty once, or nothing more can come.
    async fn drain_all(&self, worker: &Worker<Client>, ledger: &QueueLedger) {
        let started = clock::now();
        let mut last_sign = started;
        while last_sign.elapsed() < DRAIN_PATIENCE && started.elapsed() < DRAIN_MAX {
            let (mut empty, mut answered) = (true, true);
            for index in 0..self.names.len() {
                match self.drain(worker, index).await {
                    Some(count) => empty &= count == 0,
                    None => answered = false,
                }
            }
            if !(empty && answered) {
                last_sign = clock::now();
            } else if ledger.missing() == 0 {
                return;
            }
            if empty {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        }
    }
}

/// The ledger's number of a queue.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("at most NAMES_MAX queues")
}

fn dequeue(queue: &str, count_max: u32) -> Dequeue {
    Dequeue { queue: queue.to_owned(), visibility_ms: VISIBILITY_MS, count_max, ..Dequeue::default() }
}

fn acknowledge(queue: &str, delivery: &Delivery) -> Request {
    Ack { queue: queue.to_owned(), which: AckWhich::from(delivery), if_token: None }.into()
}

impl Workload for Queues {
    type Connection = Client;

    async fn connect(&self, number: usize) -> Result<Client, Failure> {
        native::connect(&self.endpoints, number).await
    }

    async fn prepare(&self, _worker: &mut Worker<Client>) -> Result<(), Failure> {
        Ok(())
    }

    async fn round(&self, worker: &mut Worker<Client>) -> bool {
        let index = self.popularity.pick(worker.random());
        if self.enqueue(worker, index).await.is_err() {
            return false;
        }
        let asked = clock::now();
        let taken = worker.request("dequeue", dequeue(&self.names[index], 1)).await;
        let Ok(Response::Dequeue(Dequeued { deliveries })) = taken else { return false };
        let received = clock::now();
        let mut well = true;
        for delivery in &deliveries {
            let tag = self.note(index, delivery, asked, received);
            let result = worker.request("ack", acknowledge(&self.names[index], delivery)).await;
            self.note_acknowledgement(tag, delivery, &result);
            well &= result.is_ok();
        }
        well
    }

    async fn verify(&self, worker: &mut Worker<Client>) -> Checks {
        let Some(ledger) = &self.ledger else { return Checks::default() };
        self.drain_all(worker, ledger).await;
        ledger.checks()
    }
}
