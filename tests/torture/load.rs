//! Load on a node, with several requests of every kind in flight, until it is killed.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use tokio::task::JoinSet;
use trine_protocol::Error;
use trine_protocol::client::Client;
use trine_protocol::error::{ErrorCode, Outcome};

use crate::ledger::{KeyOperation, Ledger, Standing};

/// Queues, of all groups.
pub(crate) const QUEUES: Range<usize> = 0..4;
/// Keys; each is written by one task, so as many writes are in flight.
pub(crate) const KEYS: usize = 10;
/// Locks; each is taken and given back by one task.
pub(crate) const LOCKS: usize = 4;
/// Messages in flight to one queue.
const ENQUEUERS: usize = 3;
/// Messages taken at once.
const TAKEN: u32 = 16;
/// How long a message that was taken and not removed stays hidden, in milliseconds. The end of a drain waits for it.
pub(crate) const VISIBILITY_MS: u32 = 250;
/// Lease of a lock in milliseconds: longer than any run, so that it never ends by itself.
pub(crate) const LEASE_MS: u32 = 86_400_000;
/// Who takes the locks.
pub(crate) const HOLDER: &str = "holder";

pub(crate) fn queue(number: usize) -> String {
    format!("queue-{number}")
}

pub(crate) fn key(number: usize) -> String {
    format!("key-{number}")
}

pub(crate) fn lock(number: usize) -> String {
    format!("space-{number}/lock")
}

/// The ledger, shared by the tasks of a load.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(KEYS, LOCKS))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a failed request may be asked again at once: it was not done, and the node is there.
fn again(error: &Error) -> bool {
    error.code.outcome() == Outcome::NotDone && error.code != ErrorCode::Unreachable
}

/// What the tasks share.
#[derive(Clone, Debug)]
struct Worker {
    client: Client,
    ledger: Shared,
}

/// Tasks that ask until the node is gone.
#[derive(Debug)]
pub(crate) struct Load(JoinSet<()>);

impl Load {
    /// Starts them; with `consuming` messages are taken and removed as well.
    pub(crate) fn start(client: &Client, ledger: &Shared, consuming: bool) -> Self {
        let worker = Worker { client: client.clone(), ledger: ledger.clone() };
        let mut tasks = JoinSet::new();
        for number in QUEUES {
            for _ in 0..ENQUEUERS {
                tasks.spawn(worker.clone().enqueue(queue(number)));
            }
            if consuming {
                tasks.spawn(worker.clone().consume(queue(number)));
            }
        }
        for number in 0..KEYS {
            tasks.spawn(worker.clone().write(number));
        }
        for number in 0..LOCKS {
            tasks.spawn(worker.clone().take_and_give_back(number));
        }
        Self(tasks)
    }

    /// Ends them: what was not answered stays unknown.
    pub(crate) async fn stop(mut self) {
        self.0.abort_all();
        while let Some(ended) = self.0.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

impl Worker {
    async fn enqueue(self, queue: String) {
        loop {
            let (number, body) = self.ledger.lock().messages.send();
            match self.client.enqueue(&queue, body).await {
                Ok(enqueued) => {
                    let mut ledger = self.ledger.lock();
                    let result = ledger.messages.enqueued(number, enqueued.id);
                    ledger.note(result);
                }
                Err(error) if again(&error) => {}
                Err(_) => return,
            }
        }
    }

    async fn consume(self, queue: String) {
        loop {
            match take(&self.client, &self.ledger, &queue).await {
                Ok(_) => {}
                Err(error) if again(&error) => {}
                Err(_) => return,
            }
        }
    }

    async fn write(self, number: usize) {
        let key = key(number);
        loop {
            let (operation, request) = self.ledger.lock().keys[number].send();
            let written = match request {
                KeyOperation::Put(value) => self.client.put(&key, value).await,
                KeyOperation::Delete => self.client.delete(&key).await,
            };
            match written {
                Ok(_) => {
                    let mut ledger = self.ledger.lock();
                    ledger.keys[number].done(operation);
                    ledger.note(Ok(()));
                }
                Err(error) if again(&error) => {}
                Err(_) => return,
            }
        }
    }

    async fn take_and_give_back(self, number: usize) {
        let lock = lock(number);
        loop {
            let standing = self.ledger.lock().locks[number].standing;
            self.ledger.lock().locks[number].asking();
            let result = match standing {
                Standing::Unknown => return,
                Standing::Free => self.client.acquire(&lock, HOLDER, LEASE_MS).await.map(|granted| {
                    let mut ledger = self.ledger.lock();
                    let result = ledger.locks[number].granted(&lock, granted.token);
                    ledger.note(result);
                }),
                Standing::Held(token) => self.client.release(&lock, HOLDER, token).await.map(|_| {
                    let mut ledger = self.ledger.lock();
                    ledger.locks[number].released();
                    ledger.note(Ok(()));
                }),
            };
            match result {
                Ok(()) => {}
                Err(error) if again(&error) => self.ledger.lock().locks[number].standing = standing,
                Err(error) => return self.refused(error),
            }
        }
    }

    /// A request about a lock that only this task uses is never refused for what the lock is.
    fn refused(&self, error: Error) {
        if error.code.outcome() == Outcome::Refused {
            self.ledger.lock().note(Err(format!("a request about a lock was refused: {error}")));
        }
    }
}

/// Takes messages of a queue and removes them; tells how many came.
pub(crate) async fn take(client: &Client, ledger: &Shared, queue: &str) -> Result<usize, Error> {
    let deliveries = client.dequeue(queue, VISIBILITY_MS, TAKEN).await?.deliveries;
    let removals = deliveries.iter().filter_map(|delivery| {
        let mut ledger = ledger.lock();
        let delivered = ledger.messages.delivered(delivery);
        let number = delivered.as_ref().ok().copied();
        ledger.note(delivered.map(|_| ()));
        number.map(|number| async move { (number, client.ack(queue, delivery).await) })
    });
    for (number, removed) in join_all(removals).await {
        match removed {
            Ok(_) => {
                let mut ledger = ledger.lock();
                ledger.messages.removed(number);
                ledger.note(Ok(()));
            }
            // The message was hidden too shortly for this machine; it comes again.
            Err(error) if matches!(error.code, ErrorCode::StaleReceipt | ErrorCode::NotInFlight) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deliveries.len())
}
