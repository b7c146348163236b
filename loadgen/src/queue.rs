//! Enqueue, dequeue, acknowledge, over some queues of this run's own. The check, after a drain: every message whose
//! enqueue was confirmed has been handed out and acknowledged, and none was acknowledged twice.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use trine_protocol::Response;
use trine_protocol::client::Client;
use trine_protocol::queue::{Ack, AckWhich, Delivery, Dequeue, Enqueue};

use crate::arguments::Native;
use crate::clock;
use crate::native;
use crate::popularity::Popularity;
use crate::workload::{Checks, Failure, Worker, Workload};

/// How long a delivery stays hidden; what a failed acknowledgement left behind is back after it.
const VISIBILITY_MS: u32 = 10_000;
/// The drain gives up after this long without a message: every hidden one is back by then.
const DRAIN_PATIENCE: Duration = Duration::from_millis(VISIBILITY_MS as u64 + 5_000);
/// Pause of the drain where all queues are empty for now.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
/// Bytes at the front of each body that tell which message it is: the worker, then its round.
const MARK_BYTES: usize = 16;

/// Which message: the worker that made it, and in which round.
type Mark = (u64, u64);

/// What became of each message.
#[derive(Debug, Default)]
struct Ledger {
    /// Confirmed enqueues.
    confirmed: HashSet<Mark>,
    /// How often each was acknowledged with success.
    acknowledged: HashMap<Mark, u64>,
    /// Acknowledgements of which nobody can say whether they happened.
    uncertain: HashSet<Mark>,
}

/// Queues and the ledger of what went through them.
#[derive(Debug)]
pub(crate) struct Queues {
    endpoints: Vec<String>,
    names: Vec<String>,
    popularity: Popularity,
    value_bytes: usize,
    keeps_ledger: bool,
    ledger: Mutex<Ledger>,
}

impl Queues {
    /// `names` queues with bodies of `value_bytes`, at least [`MARK_BYTES`]; the ledger grows with the run, so it is kept
    /// only where it will be read.
    ///
    /// # Errors
    /// Where the names' popularity follows no law.
    pub(crate) fn new(native: &Native, run: u64, value_bytes: usize, keeps_ledger: bool) -> Result<Self, Failure> {
        Ok(Self {
            endpoints: native.endpoints.clone(),
            popularity: native.popularity()?,
            names: (0..native.names.max(1)).map(|index| format!("loadgen:{run:x}:{index}")).collect(),
            value_bytes: value_bytes.max(MARK_BYTES),
            keeps_ledger,
            ledger: Mutex::default(),
        })
    }

    fn ledger(&self) -> Option<MutexGuard<'_, Ledger>> {
        self.keeps_ledger.then(|| self.ledger.lock().expect("nobody panics with it held"))
    }

    fn body(&self, mark: Mark) -> Bytes {
        let mut body = vec![b'.'; self.value_bytes];
        body[..8].copy_from_slice(&mark.0.to_be_bytes());
        body[8..MARK_BYTES].copy_from_slice(&mark.1.to_be_bytes());
        body.into()
    }

    /// Notes what became of an acknowledgement.
    fn note(&self, body: &Bytes, result: Result<(), &Failure>) {
        let (Some(mut ledger), Some(mark)) = (self.ledger(), mark_of(body)) else { return };
        match result {
            Ok(()) => *ledger.acknowledged.entry(mark).or_default() += 1,
            Err(failure) if failure.unknown => {
                ledger.uncertain.insert(mark);
            }
            Err(_) => {}
        }
    }

    /// Acknowledges what is left in one queue; returns how many messages there were.
    async fn drain(&self, worker: &Worker<Client>, queue: &str) -> usize {
        let dequeue = Dequeue { queue: queue.to_owned(), visibility_ms: VISIBILITY_MS, count_max: 64 };
        let Ok(Response::Dequeue(dequeued)) = worker.call(dequeue).await else { return 0 };
        for delivery in &dequeued.deliveries {
            let result = worker.call(ack(queue, delivery)).await;
            self.note(&delivery.body, result.as_ref().map(|_| ()));
        }
        dequeued.deliveries.len()
    }

    fn findings(&self) -> Vec<(&'static str, u64)> {
        let Some(ledger) = self.ledger() else { return Vec::new() };
        let accounted = |mark: &&Mark| ledger.acknowledged.contains_key(*mark) || ledger.uncertain.contains(*mark);
        let lost = ledger.confirmed.iter().filter(|mark| !accounted(mark)).count();
        let twice: u64 = ledger.acknowledged.values().map(|count| count - 1).sum();
        vec![("lost", lost as u64), ("acknowledged_twice", twice)]
    }
}

fn mark_of(body: &Bytes) -> Option<Mark> {
    let worker = body.get(..8)?.try_into().ok()?;
    let round = body.get(8..MARK_BYTES)?.try_into().ok()?;
    Some((u64::from_be_bytes(worker), u64::from_be_bytes(round)))
}

fn ack(queue: &str, delivery: &Delivery) -> Ack {
    Ack { queue: queue.to_owned(), which: AckWhich::Receipt { id: delivery.id, token: delivery.token } }
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
        let queue = &self.names[self.popularity.pick(worker.random())];
        let mark = (worker.number, worker.rounds);
        let enqueue = Enqueue { queue: queue.clone(), body: self.body(mark) };
        if worker.request("enqueue", enqueue).await.is_err() {
            return false;
        }
        if let Some(mut ledger) = self.ledger() {
            ledger.confirmed.insert(mark);
        }
        let dequeue = Dequeue { queue: queue.clone(), visibility_ms: VISIBILITY_MS, count_max: 1 };
        let Ok(Response::Dequeue(dequeued)) = worker.request("dequeue", dequeue).await else { return false };
        for delivery in &dequeued.deliveries {
            let result = worker.request("ack", ack(queue, delivery)).await;
            self.note(&delivery.body, result.as_ref().map(|_| ()));
            if result.is_err() {
                return false;
            }
        }
        true
    }

    async fn verify(&self, worker: &mut Worker<Client>) -> Checks {
        let mut last_message = clock::now();
        while last_message.elapsed() < DRAIN_PATIENCE && self.findings().first().is_some_and(|(_, lost)| *lost > 0) {
            let mut drained = 0;
            for queue in &self.names {
                drained += self.drain(worker, queue).await;
            }
            if drained == 0 {
                tokio::time::sleep(DRAIN_PAUSE).await;
            } else {
                last_message = clock::now();
            }
        }
        Checks { violations: self.findings().into_iter().collect(), ..Checks::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trine_protocol::{Error, ErrorCode};

    #[test]
    fn what_was_confirmed_and_never_acknowledged_is_lost() {
        let native = Native { endpoints: Vec::new(), clients: 1, in_flight: 1, names: 1, zipf: None };
        let queues = Queues::new(&native, 1, 32, true).unwrap();
        for round in 0..4 {
            queues.ledger().unwrap().confirmed.insert((7, round));
        }
        queues.note(&queues.body((7, 0)), Ok(()));
        queues.note(&queues.body((7, 1)), Ok(()));
        queues.note(&queues.body((7, 1)), Ok(()));
        queues.note(&queues.body((7, 2)), Err(&Error::new(ErrorCode::DeadlineExceeded, "").into()));
        queues.note(&queues.body((7, 3)), Err(&Error::new(ErrorCode::StaleReceipt, "").into()));
        assert_eq!(queues.findings(), [("lost", 1), ("acknowledged_twice", 1)]);
    }
}
