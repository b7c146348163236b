//! Load on one group, with a record of what was acknowledged, and when.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use trine_protocol::Error;
use trine_protocol::client::Client;

use crate::cluster::{Place, name_where};
use crate::wait;

/// Acknowledged operations of each service that are taken as a sign that it is served.
pub(crate) const OPERATIONS: usize = 100;

/// What a service has acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Acknowledged operations: their value (a body, a token, a written number), and when each was answered.
    done: Mutex<Vec<(u64, Instant)>>,
    /// Operations that ended with an error, and may have happened all the same.
    pub(crate) failed: AtomicU64,
}

impl Record {
    fn note(&self, value: u64) {
        self.done.lock().expect("nobody panics with it held").push((value, wait::now()));
    }

    pub(crate) fn values(&self) -> Vec<u64> {
        self.done.lock().expect("nobody panics with it held").iter().map(|(value, _)| *value).collect()
    }

    /// The longest time without an answer between `since` and now.
    fn longest_silence(&self, since: Instant) -> Duration {
        let done = self.done.lock().expect("nobody panics with it held");
        let answered = done.iter().map(|(_, answered)| *answered).filter(|answered| *answered > since);
        let moments: Vec<Instant> = std::iter::once(since).chain(answered).chain([wait::now()]).collect();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.done.lock().expect("nobody panics with it held").len()
    }
}

/// Three loops against one group: enqueue, acquire and release, write a key.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) queue: String,
    pub(crate) lock: String,
    pub(crate) key: String,
    pub(crate) enqueues: Arc<Record>,
    pub(crate) grants: Arc<Record>,
    pub(crate) writes: Arc<Record>,
    client: Client,
    group: u32,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts it through these nodes; the cache of the first one is written.
    pub(crate) async fn start(place: &Place, nodes: &[usize], group: u32) -> Self {
        let client = place.patient_client(nodes).await;
        let ring = client.ring();
        let mut load = Self {
            queue: name_where("queue", |name| ring.group_of_queue(name) == group),
            lock: name_where("space", |name| ring.group_of_lock(&format!("{name}/lock")) == group) + "/lock",
            key: name_where("key", |name| ring.group_of_key(name) == group),
            enqueues: Arc::default(),
            grants: Arc::default(),
            writes: Arc::default(),
            client: client.clone(),
            group,
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        let (queue, lock, key) = (load.queue.clone(), load.lock.clone(), load.key.clone());
        load.spawn(&client, load.enqueues.clone(), move |client, number| {
            let queue = queue.clone();
            async move { client.enqueue(queue, number.to_string()).await.map(|_| number) }
        });
        load.spawn(&client, load.grants.clone(), move |client, _| {
            let lock = lock.clone();
            async move {
                let granted = client.acquire(&lock, "holder", 600_000).await;
                // A grant whose answer was lost holds the lock for this same client; token 0 gives that back too.
                client.release(&lock, "holder", 0).await?;
                granted.map(|granted| granted.token)
            }
        });
        load.spawn(&client, load.writes.clone(), move |client, number| {
            let key = key.clone();
            async move { client.put(key, number.to_string()).await.map(|_| number) }
        });
        load
    }

    fn spawn<F>(&mut self, client: &Client, record: Arc<Record>, operation: impl Fn(Client, u64) -> F + Send + 'static)
    where
        F: Future<Output = Result<u64, Error>> + Send,
    {
        let (client, stop) = (client.clone(), self.stop.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                match operation(client.clone(), number).await {
                    Ok(value) => record.note(value),
                    Err(_) => {
                        record.failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
                number += 1;
            }
        }));
    }

    fn records(&self) -> [(&'static str, &Arc<Record>); 3] {
        [("enqueue", &self.enqueues), ("acquire", &self.grants), ("put", &self.writes)]
    }

    /// Waits until each loop has `more` acknowledged operations more than now.
    pub(crate) async fn advance(&self, more: usize) {
        let goals = self.records().map(|(name, record)| (name, record, record.count() + more));
        for (name, record, goal) in goals {
            wait::until(&format!("{goal} of {name}"), Duration::from_secs(30), async || {
                (record.count() >= goal).then_some(())
            })
            .await;
        }
    }

    /// Waits until everything is served again after the failure at `since`; returns the longest time for which one of the
    /// services was not.
    ///
    /// An owner may go on writing for the rest of its bus lease, so its silence begins later than the failure: the end
    /// of the takeover is seen at a key that nobody owns yet, and silence is counted in all of the time until then.
    pub(crate) async fn takeover(&self, since: Instant) -> Duration {
        let fresh = name_where("fresh", |name| self.client.ring().group_of_key(name) == self.group);
        self.client.put(fresh, "").await.expect("a write of a new key after the failure");
        println!("a key without an owner is written {:?} after the failure", since.elapsed());
        self.advance(OPERATIONS).await;
        let silences = self.records().map(|(name, record)| {
            let silence = record.longest_silence(since);
            println!("{name}: silent for {silence:?}");
            silence
        });
        silences.into_iter().max().unwrap_or_default()
    }

    /// Ends the loops, each after the operation that it is in.
    pub(crate) async fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            task.await.expect("a loop of the load");
        }
    }
}
