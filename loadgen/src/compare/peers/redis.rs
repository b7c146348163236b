//! Redis, one process, without persistence or with its log flushed before each answer.
//!
//! - A client is one multiplexed connection: what its workers send while others wait goes out together, which is the pipelining
//!   that Redis is fast with. Without Nagle's delay (the client's default has it), and with room for all that is in flight.
//! - A lock is `SET key client NX PX`, and is given back by a script that deletes it if it is still the client's, loaded once and
//!   called by its hash. It carries no fencing token.
//! - A queue is a list: a taker moves a message to a list of its own (`LMOVE`), so that it is not lost with the taker, and removes
//!   it from there as its acknowledgement. What a dead taker had is for the application to put back.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, RedisResult, Script, cmd, pipe};

use crate::workload::Failure;

use super::super::systems::{Locks, Queues, Store, System};
use super::{CONNECT_TIME_MAX, connected, failed};

/// Lease of a lock, as Trine's.
const LEASE_MS: u32 = 10_000;
/// Commands that wait in a connection to be written: more than are ever in flight on one, batches included.
const PIPELINE_PLACES: usize = 1024;
/// Connections of a row of queues at most; each has a list of what it has taken.
const TAKERS_MAX: usize = 64;

/// Deletes a lock if it is still the client's.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
});

/// What a Redis does before it answers a write. It is asked whether it does, because the rows are named after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Persistence {
    /// Nothing: `appendonly no`.
    None,
    /// It flushes its log: `appendonly yes`, `appendfsync always`.
    Always,
}

impl Persistence {
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::None => &[("appendonly", "no"), ("save", "")],
            Self::Always => &[("appendonly", "yes"), ("appendfsync", "always")],
        }
    }
}

/// A Redis.
#[derive(Clone, Debug)]
pub(in super::super) struct Redis {
    address: String,
    persistence: Persistence,
}

/// A connection, and the number that names its list of what it has taken from a queue.
#[derive(Clone)]
pub(in super::super) struct Connection {
    multiplexed: MultiplexedConnection,
    number: usize,
}

impl Redis {
    pub(in super::super) fn new(address: &str, persistence: Persistence) -> Self {
        Self { address: address.to_owned(), persistence }
    }

    async fn open(&self) -> RedisResult<MultiplexedConnection> {
        let tcp = TcpSettings::default().set_nodelay(true);
        let address = format!("redis://{}/", self.address).into_connection_info()?.set_tcp_settings(tcp);
        // No time limit of its own for an answer: half a second, its default, is short where a disk is flushed.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIME_MAX))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_PLACES);
        Client::open(address)?.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn check(&self, mut connection: MultiplexedConnection) -> Result<(), Failure> {
        for (setting, wanted) in self.persistence.settings() {
            let found: Vec<String> =
                cmd("CONFIG").arg("GET").arg(setting).query_async(&mut connection).await.map_err(failed("Config"))?;
            let found = found.get(1).map_or("", String::as_str);
            if found != *wanted {
                let text = format!("has {setting} '{found}', and the row is about '{wanted}'");
                return Err(Failure { name: "Settings", unknown: false, text });
            }
        }
        Ok(())
    }
}

/// Sends a command; what fails is counted under `name`.
async fn send<T: FromRedisValue>(
    connection: &Connection,
    name: &'static str,
    command: &redis::Cmd,
) -> Result<T, Failure> {
    command.query_async(&mut connection.multiplexed.clone()).await.map_err(failed(name))
}

/// The list of what a connection has taken.
fn taken_by(queue: &str, number: usize) -> String {
    format!("{queue}:taken:{number}")
}

impl System for Redis {
    type Connection = Connection;

    async fn connect(&self, number: usize) -> Result<Connection, Failure> {
        connected(&self.address, async {
            let multiplexed = self.open().await.map_err(failed("Connect"))?;
            if number == 0 {
                self.check(multiplexed.clone()).await?;
            }
            Ok(Connection { multiplexed, number })
        })
        .await
    }
}

impl Locks for Redis {
    type Grant = ();

    async fn acquire(&self, connection: &Connection, lock: &str, client: &str) -> Result<Option<()>, Failure> {
        let mut command = cmd("SET");
        command.arg(lock).arg(client).arg("NX").arg("PX").arg(LEASE_MS);
        let set: Option<String> = send(connection, "Set", &command).await?;
        Ok(set.map(|_| ()))
    }

    async fn release(&self, connection: &Connection, lock: &str, client: &str, (): ()) -> Result<(), Failure> {
        let mut multiplexed = connection.multiplexed.clone();
        let deleted: u32 =
            RELEASE.key(lock).arg(client).invoke_async(&mut multiplexed).await.map_err(failed("Release"))?;
        if deleted == 1 {
            return Ok(());
        }
        Err(Failure { name: "NotHeld", unknown: false, text: format!("{lock} was not {client}'s any more") })
    }
}

impl Queues for Redis {
    type Delivery = Vec<u8>;

    /// Its first message makes it.
    async fn create(&self, _connection: &Connection, _queue: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn remove(&self, connection: &Connection, queue: &str) -> Result<(), Failure> {
        let lists = (0..TAKERS_MAX).map(|number| taken_by(queue, number));
        send(connection, "Delete", cmd("DEL").arg(queue).arg(lists.collect::<Vec<_>>())).await
    }

    async fn publish(&self, connection: &Connection, queue: &str, body: Bytes) -> Result<(), Failure> {
        send(connection, "Push", cmd("LPUSH").arg(queue).arg(body.as_ref())).await
    }

    async fn take(&self, connection: &Connection, queue: &str, count: usize) -> Result<Vec<Vec<u8>>, Failure> {
        let mut moves = pipe();
        let taken = taken_by(queue, connection.number);
        for _ in 0..count {
            moves.cmd("LMOVE").arg(queue).arg(&taken).arg("RIGHT").arg("LEFT");
        }
        let moved: Vec<Option<Vec<u8>>> =
            moves.query_async(&mut connection.multiplexed.clone()).await.map_err(failed("Move"))?;
        Ok(moved.into_iter().flatten().collect())
    }

    async fn acknowledge(&self, connection: &Connection, queue: &str, bodies: Vec<Vec<u8>>) -> Result<(), Failure> {
        if bodies.is_empty() {
            return Ok(());
        }
        let (expected, taken) = (bodies.len(), taken_by(queue, connection.number));
        let mut removals = pipe();
        for body in bodies {
            // From the end, where the oldest is, so that each is found at once.
            removals.cmd("LREM").arg(&taken).arg(-1).arg(body);
        }
        let removed: Vec<usize> =
            removals.query_async(&mut connection.multiplexed.clone()).await.map_err(failed("Remove"))?;
        if removed.iter().sum::<usize>() == expected {
            return Ok(());
        }
        Err(Failure { name: "NotTaken", unknown: false, text: format!("{removed:?} of {expected} were on {taken}") })
    }
}

impl Store for Redis {
    async fn write(&self, connection: &Connection, key: &str, value: Bytes) -> Result<(), Failure> {
        send(connection, "Set", cmd("SET").arg(key).arg(value.as_ref())).await
    }

    async fn read(&self, connection: &Connection, key: &str) -> Result<bool, Failure> {
        let value: Option<Vec<u8>> = send(connection, "Get", cmd("GET").arg(key)).await?;
        match value {
            Some(_) => Ok(true),
            None => Err(Failure { name: "Missing", unknown: false, text: format!("{key} has no value") }),
        }
    }

    async fn warm(&self, _connection: &Connection, _key: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn remove(&self, connection: &Connection, key: &str) -> Result<(), Failure> {
        send(connection, "Delete", cmd("DEL").arg(key)).await
    }
}
