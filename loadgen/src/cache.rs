//! Reads and writes over some keys. The check: no read returns a version below the highest that was known, for the
//! same key, before the read was sent.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use trine_protocol::Response;
use trine_protocol::cache::{Get, Put, Source, Version};
use trine_protocol::client::Client;

use crate::arguments::Native;
use crate::native;
use crate::popularity::Popularity;
use crate::workload::{Checks, Failure, Worker, Workload};

/// Keys with the highest version seen of each.
#[derive(Debug)]
pub(crate) struct Keys {
    endpoints: Vec<String>,
    run: u64,
    popularity: Popularity,
    value: Bytes,
    read_percent: u64,
    highest: Vec<Mutex<Version>>,
    stale: AtomicU64,
}

impl Keys {
    /// `names` keys with values of `value_bytes`; `read_percent` of the operations are reads.
    ///
    /// # Errors
    /// Where the names' popularity follows no law.
    pub(crate) fn new(native: &Native, run: u64, value_bytes: usize, read_percent: u64) -> Result<Self, Failure> {
        Ok(Self {
            endpoints: native.endpoints.clone(),
            popularity: native.popularity()?,
            run,
            value: vec![b'v'; value_bytes].into(),
            read_percent,
            highest: (0..native.names.max(1)).map(|_| Mutex::default()).collect(),
            stale: AtomicU64::new(0),
        })
    }

    fn key(&self, index: usize) -> String {
        format!("loadgen:{:x}:{index}", self.run)
    }

    /// Raises the highest known version of a key, and returns what it was.
    fn raise(&self, index: usize, version: Version) -> Version {
        let mut highest = self.highest[index].lock().expect("nobody panics with it held");
        let before = *highest;
        *highest = before.max(version);
        before
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
        for index in 0..self.highest.len() {
            let put = Put { key: self.key(index), value: self.value.clone() };
            if let Response::Put(written) = worker.call(put).await? {
                self.raise(index, written.version);
            }
        }
        Ok(())
    }

    async fn round(&self, worker: &mut Worker<Client>) -> bool {
        let index = self.popularity.pick(worker.random());
        let known = self.raise(index, Version::default());
        if worker.chance(100) >= self.read_percent {
            let put = Put { key: self.key(index), value: self.value.clone() };
            let Ok(Response::Put(written)) = worker.request("put", put).await else { return false };
            self.raise(index, written.version);
            return true;
        }
        let client = worker.connection.clone();
        let get = Get { key: self.key(index) };
        let Ok(Response::Get(got)) = worker.measured_as(kind_of_read, client.call(get)).await else {
            return false;
        };
        if got.version < known {
            self.stale.fetch_add(1, Ordering::SeqCst);
        }
        self.raise(index, got.version);
        true
    }

    async fn verify(&self, _worker: &mut Worker<Client>) -> Checks {
        Checks { violations: [("stale_reads", self.stale.load(Ordering::SeqCst))].into(), ..Checks::default() }
    }
}
