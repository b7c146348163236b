//! etcd, by its lock service and its keys.
//!
//! - Each client has a lease, granted once when it connects, as a session of etcd's own client has: a cycle is `Lock` and `Unlock`.
//!   It lives longer than any run, so that no keep-alive is needed; etcd forgets it by itself.
//! - `Lock` waits in line by itself, so nobody asks again.
//! - One client is one HTTP/2 connection to one node. The followers forward to the leader, as they do for all clients.

use bytes::Bytes;
use etcd_client::{Client, ConnectOptions, LockOptions};

use crate::workload::Failure;

use super::super::systems::{Locks, Store, System};
use super::{CONNECT_TIME_MAX, connected, failed, turn};

/// Seconds of a client's lease: twice the longest run.
const LEASE_SECONDS: i64 = 600;

/// An etcd cluster.
#[derive(Clone, Debug)]
pub(in super::super) struct Etcd {
    addresses: Vec<String>,
}

impl Etcd {
    pub(in super::super) fn new(addresses: &[String]) -> Self {
        Self { addresses: addresses.to_vec() }
    }
}

/// A client with its lease.
#[derive(Clone)]
pub(in super::super) struct Session {
    client: Client,
    lease: i64,
}

impl System for Etcd {
    type Connection = Session;

    async fn connect(&self, number: usize) -> Result<Session, Failure> {
        let address = turn(&self.addresses, number)?;
        connected(address, async {
            let options = ConnectOptions::new().with_connect_timeout(CONNECT_TIME_MAX);
            let mut client = Client::connect([address], Some(options)).await.map_err(failed("Connect"))?;
            // The client connects when it is first used, so this is what finds out that nobody is there.
            let lease = client.lease_grant(LEASE_SECONDS, None).await.map_err(failed("Lease"))?.id();
            Ok(Session { client, lease })
        })
        .await
    }
}

impl Locks for Etcd {
    /// The key that stands for the place in the line.
    type Grant = Vec<u8>;

    async fn acquire(&self, session: &Session, lock: &str, _client: &str) -> Result<Option<Vec<u8>>, Failure> {
        let options = LockOptions::new().with_lease(session.lease);
        let granted = session.client.lock_client().lock(lock, Some(options)).await.map_err(failed("Lock"))?;
        Ok(Some(granted.key().to_vec()))
    }

    async fn release(&self, session: &Session, _lock: &str, _client: &str, key: Vec<u8>) -> Result<(), Failure> {
        session.client.lock_client().unlock(key).await.map_err(failed("Unlock"))?;
        Ok(())
    }
}

impl Store for Etcd {
    async fn write(&self, session: &Session, key: &str, value: Bytes) -> Result<(), Failure> {
        session.client.kv_client().put(key, value, None).await.map_err(failed("Put"))?;
        Ok(())
    }

    async fn read(&self, session: &Session, key: &str) -> Result<bool, Failure> {
        let got = session.client.kv_client().get(key, None).await.map_err(failed("Get"))?;
        Ok(!got.kvs().is_empty())
    }

    async fn warm(&self, _session: &Session, _key: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn remove(&self, session: &Session, key: &str) -> Result<(), Failure> {
        session.client.kv_client().delete(key, None).await.map_err(failed("Delete"))?;
        Ok(())
    }
}
