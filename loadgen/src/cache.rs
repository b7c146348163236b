//! Reads and writes over some keys. The checks are those of [`crate::checks::cache`], and a last read of each key through
//! every node.

use std::time::Duration;

use bytes::Bytes;
use trine_protocol::Response;
use trine_protocol::cache::{Get, Got, Put, Source};
use trine_protocol::client::Client;

use crate::arguments::Native;
use crate::checks::cache::CacheLedger;
use crate::clock;
use crate::native;
use crate::popularity::Popularity;
use crate::tag::Tag;
use crate::workload::{Checks, Failure, Worker, Workload};

/// For how long the last read of a key is tried again: a node that died at the end is back by then.
const LAST_READ_PATIENCE: Duration = Duration::from_secs(30);

/// Keys and the ledger of their values.
#[derive(Debug)]
pub(crate) struct Keys {
    endpoints: Vec<String>,
    run: u64,
    names: Vec<String>,
    popularity: Popularity,
    value_bytes: usize,
    /// The value of every write of a run that is not checked.
    value: Bytes,
    read_percent: u64,
    ledger: Option<CacheLedger>,
}

impl Keys {
    /// Keys of a run of its own with values of `value_bytes`; `read_percent` of the operations are reads. In a checked run a value has
    /// at least [`TAG_BYTES`](crate::tag::TAG_BYTES).
    ///
    /// # Errors
    /// Where the names' popularity follows no law.
    pub(crate) fn new(
        native: &Native,
        run: u64,
        value_bytes: usize,
        read_percent: u64,
        keeps_ledger: bool,
    ) -> Result<Self, Failure> {
        let names = native.names.max(1);
        Ok(Self {
            endpoints: native.endpoints.clone(),
            run,
            names: (0..names).map(|index| format!("loadgen:{run:x}:{index}")).collect(),
            popularity: native.popularity()?,
            value_bytes,
            value: vec![b'.'; value_bytes].into(),
            read_percent,
            ledger: keeps_ledger.then(|| CacheLedger::new(names)),
        })
    }

    fn tag_of(&self, got: &Got) -> Option<Tag> {
        Tag::of_bytes(got.value.as_ref()?, self.run, self.value_bytes)
    }

    async fn write(&self, worker: &mut Worker<Client>, index: usize) -> Result<(), Failure> {
        let key = self.names[index].clone();
        let Some(ledger) = &self.ledger else {
            return worker.request("put", Put { key, value: self.value.clone(), ..Put::default() }).await.map(|_| ());
        };
        let tag = Tag { writer: worker.number, number: worker.rounds };
        ledger.writing(index, tag);
        let value = tag.bytes(self.run, self.value_bytes);
        let result = match worker.request("put", Put { key, value, ..Put::default() }).await {
            Ok(Response::Put(written)) => Ok(written.version),
            Ok(other) => Err(native::mismatch(&other)),
            Err(failure) => Err(failure),
        };
        ledger.wrote(index, tag, result.as_ref().copied());
        result.map(|_| ())
    }

    async fn read(&self, worker: &mut Worker<Client>, index: usize) -> Result<(), Failure> {
        let known = self.ledger.as_ref().map(|ledger| ledger.known(index));
        let client = worker.connection.clone();
        let get = Get { key: self.names[index].clone() };
        let answer = worker.measured_as(kind_of_read, client.call(get)).await?;
        let Response::Get(got) = answer else { return Err(native::mismatch(&answer)) };
        if let (Some(ledger), Some(known)) = (&self.ledger, known) {
            ledger.read(index, known, &got, self.tag_of(&got));
        }
        Ok(())
    }

    /// Reads a key through one node, after all writes. False where the node does not answer in all that time.
    async fn last_read(&self, client: &Client, ledger: &CacheLedger, index: usize) -> bool {
        let started = clock::now();
        loop {
            let known = ledger.known(index);
            match client.call(Get { key: self.names[index].clone() }).await {
                Ok(Response::Get(got)) => {
                    ledger.last_read(index, known, &got, self.tag_of(&got));
                    return true;
                }
                // The client itself waits between its attempts, so this is no busy loop.
                _ if started.elapsed() < LAST_READ_PATIENCE => {}
                _ => return false,
            }
        }
    }
}

/// Hits and misses are counted apart: one stays in the node, the other crosses the bus.
fn kind_of_read(result: &Result<Response, Failure>) -> &'static str {
    match result {
        Ok(Response::Get(got)) if got.source == Source::LocalCache => "get hit",
        Ok(_) => "get miss",
        Err(_) => "get",
    }
}

impl Workload for Keys {
    type Connection = Client;

    async fn connect(&self, number: usize) -> Result<Client, Failure> {
        native::connect(&self.endpoints, number).await
    }

    async fn prepare(&self, worker: &mut Worker<Client>) -> Result<(), Failure> {
        for (index, key) in self.names.iter().enumerate() {
            let tag = Tag { writer: worker.number, number: index as u64 };
            let value = if self.ledger.is_some() { tag.bytes(self.run, self.value_bytes) } else { self.value.clone() };
            if let Some(ledger) = &self.ledger {
                ledger.writing(index, tag);
            }
            let answer = worker.call(Put { key: key.clone(), value, ..Put::default() }).await?;
            let Response::Put(written) = answer else { return Err(native::mismatch(&answer)) };
            if let Some(ledger) = &self.ledger {
                ledger.wrote(index, tag, Ok(written.version));
            }
        }
        Ok(())
    }

    async fn round(&self, worker: &mut Worker<Client>) -> bool {
        let index = self.popularity.pick(worker.random());
        let reads = worker.chance(100) < self.read_percent;
        let result = if reads { self.read(worker, index).await } else { self.write(worker, index).await };
        result.is_ok()
    }

    async fn verify(&self, worker: &mut Worker<Client>) -> Checks {
        let Some(ledger) = &self.ledger else { return Checks::default() };
        let mut unread = 0;
        for endpoint in &self.endpoints {
            // A cache request goes to the chosen node and, where that is dead, to another one; both are good to ask.
            let Ok(client) = worker.connection.at(endpoint) else { continue };
            for index in 0..self.names.len() {
                unread += u64::from(!self.last_read(&client, ledger, index).await);
            }
        }
        let mut checks = ledger.checks();
        checks.notes.insert("last_reads_unanswered", unread);
        checks
    }
}
