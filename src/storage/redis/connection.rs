//! One connection to Redis: what is asked over it, and what the server tells of its own accord.

use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, ProtocolVersion, PushInfo, PushKind, RedisError,
};
use redis::{ConnectionAddr, Script, ServerErrorKind, TlsCertificates, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use trine_protocol::cache::Version;
use xxhash_rust::xxh3::xxh3_64;

use super::{Durability, Fence, LINE_PREFIX, MemoryError, Stored, VALUE_PREFIX, scripts};
use crate::ids::GroupId;

/// Within this a connection stands, or there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Within this an answer comes, or the connection counts as lost. Longer than a fsync takes on a slow disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Whose main memory it is.
const CLUSTER_KEY: &str = "trine:cluster";

/// Where Redis is, and for which cluster it is to work.
#[derive(Debug, Clone)]
pub struct Server {
    client: Client,
    cluster: u64,
}

/// What the server tells of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Somebody else wrote or deleted these keys.
    Outside(Vec<String>),
    /// Somebody emptied the database.
    Emptied,
    /// The connection is no more.
    Lost,
}

/// A connection that stands.
pub struct Connection {
    inner: MultiplexedConnection,
    cluster: u64,
    scripts: Scripts,
    /// Which process it leads to: another one may have forgotten something.
    pub run_id: String,
    /// What its configuration promises.
    pub durability: Durability,
}

struct Scripts {
    raise: Script,
    read: Script,
    write: Script,
    delete: Script,
}

/// What stands beside a value.
#[derive(Serialize, Deserialize)]
struct Line {
    version: Version,
    checksum: u64,
    content_type: String,
}

/// What Redis has under the two names of a key.
type ValueAndLine = (Option<Vec<u8>>, Option<Vec<u8>>);

impl Server {
    /// Reads a URL such as `redis://user:password@host:6379/0`, or `rediss://` for TLS; connects to nothing yet. With TLS the server's
    /// certificate must come from `authority`, certificates as PEM, or where that is None from one that this machine trusts.
    ///
    /// # Errors
    /// Where it is no URL of a Redis, or the authority's certificates cannot be read, or are for a connection without TLS.
    pub fn new(url: &str, cluster: u64, authority: Option<Vec<u8>>) -> Result<Self, String> {
        // Of the two libraries that could do the arithmetic. A process has one; who asked first has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let what = |error: RedisError| format!("no URL of a Redis (redis://HOST:PORT/DB, rediss:// for TLS): {error}");
        let client = Client::open(url).map_err(what)?;
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let info = info.set_redis_settings(settings);
        let client = match authority {
            None => Client::open(info).map_err(what)?,
            Some(_) if !encrypted => {
                return Err("an authority's certificate is for rediss:// only: redis:// has no TLS".to_owned());
            }
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
                let what = |error: RedisError| format!("the authority's certificates cannot be read: {error}");
                Client::build_with_tls(info, certificates).map_err(what)?
            }
        };
        Ok(Self { client, cluster })
    }

    /// Connects, and has the server tell what others write. `pushes` that nobody takes end the connection.
    ///
    /// # Errors
    /// `Lost` where it cannot be reached in time; `Refused` where it is no Redis of version 6 or later.
    pub async fn connect(&self, pushes: mpsc::Sender<Push>) -> Result<Connection, MemoryError> {
        let sender = move |info: PushInfo| match push(info) {
            Some(push) => pushes.try_send(push).map_err(|_| redis::aio::SendError),
            None => Ok(()),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(sender);
        let connected = tokio::time::timeout(
            CONNECT_TIMEOUT * 2,
            self.client.get_multiplexed_async_connection_with_config(&config),
        )
        .await;
        let mut inner = match connected {
            Ok(connected) => connected.map_err(|error| lost_or_refused(&error, ""))?,
            Err(_) => return Err(MemoryError::Lost("it does not answer".into())),
        };
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(VALUE_PREFIX).arg("NOLOOP");
        let _: Value = tracking.query_async(&mut inner).await.map_err(|error| lost_or_refused(&error, ""))?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut inner)
            .await
            .map_err(|error| lost_or_refused(&error, ""))?;
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().to_owned();
        let durability = durability(&mut inner).await;
        let scripts = Scripts {
            raise: scripts::raise(),
            read: scripts::read(),
            write: scripts::write(),
            delete: scripts::delete(),
        };
        Ok(Connection { inner, cluster: self.cluster, scripts, run_id, durability })
    }
}

impl Connection {
    /// Raises a group's fence: from here on nobody with a lower one reads or writes.
    ///
    /// # Errors
    /// `Fenced` where it is higher already, `OtherCluster`, `Lost`, `Refused`.
    pub async fn raise(&self, group: GroupId, fence: Fence) -> Result<(), MemoryError> {
        let mut call = self.scripts.raise.key(CLUSTER_KEY);
        call.key(fence_key(group)).arg(format!("{:016x}", self.cluster)).arg(fence.term).arg(fence.connection);
        call.invoke_async(&mut self.inner.clone()).await.map_err(|error| lost_or_refused(&error, ""))
    }

    /// Reads a key under the group's fence.
    ///
    /// # Errors
    /// `Fenced`, `NoString`, `Lost`, `Refused`.
    pub async fn read(&self, group: GroupId, fence: Fence, key: &str) -> Result<Stored, MemoryError> {
        let mut call = self.scripts.read.key(fence_key(group));
        call.key(value_key(key)).key(line_key(key)).arg(fence.to_string());
        let answer = call.invoke_async(&mut self.inner.clone()).await;
        let (value, line): ValueAndLine = answer.map_err(|error| lost_or_refused(&error, key))?;
        let line = line.and_then(|line| rmp_serde::from_slice::<Line>(&line).ok());
        let line = line.filter(|line| value.as_ref().is_some_and(|value| xxh3_64(value) == line.checksum));
        let (version, content_type) = line.map(|line| (line.version, line.content_type)).unzip();
        Ok(Stored { value: value.map(Bytes::from), version, content_type: content_type.unwrap_or_default() })
    }

    /// Writes a key under the group's fence, or deletes it. Answered when Redis has it as durable as it is configured to.
    ///
    /// # Errors
    /// `Fenced`, `Full`, `Refused`; `Lost`: it may have been written all the same.
    pub async fn write(
        &self,
        group: GroupId,
        fence: Fence,
        key: &str,
        value: Option<(&Bytes, &str)>,
        version: Version,
    ) -> Result<(), MemoryError> {
        let script = if value.is_some() { &self.scripts.write } else { &self.scripts.delete };
        let mut call = script.key(fence_key(group));
        call.key(value_key(key)).key(line_key(key)).arg(fence.to_string());
        if let Some((value, content_type)) = value {
            let line = Line { version, checksum: xxh3_64(value), content_type: content_type.to_owned() };
            call.arg(&value[..]).arg(rmp_serde::to_vec(&line).expect("a line has a form"));
        }
        call.invoke_async(&mut self.inner.clone()).await.map_err(|error| lost_or_refused(&error, key))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("run_id", &self.run_id).field("durability", &self.durability).finish()
    }
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.term, self.connection)
    }
}

fn fence_key(group: GroupId) -> String {
    format!("trine:fence:{}", group.0)
}

fn value_key(key: &str) -> String {
    format!("{VALUE_PREFIX}{key}")
}

fn line_key(key: &str) -> String {
    format!("{LINE_PREFIX}{key}")
}

/// What a push message says; None for those of no interest here.
fn push(info: PushInfo) -> Option<Push> {
    match info.kind {
        PushKind::Disconnection => Some(Push::Lost),
        PushKind::Invalidate => match info.data.into_iter().next() {
            Some(Value::Nil) | None => Some(Push::Emptied),
            Some(keys) => {
                let keys = Vec::<Vec<u8>>::from_redis_value(keys).unwrap_or_default();
                let name = |key: Vec<u8>| Some(String::from_utf8(key).ok()?.strip_prefix(VALUE_PREFIX)?.to_owned());
                Some(Push::Outside(keys.into_iter().filter_map(name).collect()))
            }
        },
        _ => None,
    }
}

/// What an error means to whoever asked. Redis gives a script's own errors as they are, or within a sentence of its own.
fn lost_or_refused(error: &RedisError, key: &str) -> MemoryError {
    let text = [error.code().unwrap_or_default(), error.detail().unwrap_or_default()].join(" ");
    let after = |word: &str| text.split_once(word).map(|(_, rest)| rest.trim().to_owned());
    if let Some(fence) = after("TRINEFENCED ") {
        return MemoryError::Fenced(fence);
    }
    if let Some(cluster) = after("TRINECLUSTER ") {
        return MemoryError::OtherCluster(cluster);
    }
    if text.contains("WRONGTYPE") && !key.is_empty() {
        return MemoryError::NoString(key.to_owned());
    }
    if text.contains("OOM ") {
        return MemoryError::Full(text.trim().to_owned());
    }
    let passing = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::MasterDown)
    );
    if passing || error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() {
        return MemoryError::Lost(error.to_string());
    }
    MemoryError::Refused(error.to_string())
}

/// Looks at the settings that what is written back depends on.
async fn durability(inner: &mut MultiplexedConnection) -> Durability {
    let mut warnings = Vec::new();
    for (setting, want, else_what) in [
        ("appendonly", "yes", "what was written back is gone when Redis ends"),
        ("appendfsync", "always", "up to a second or more of what was written back is gone when Redis' machine ends"),
        ("maxmemory-policy", "noeviction", "values vanish when Redis makes room"),
    ] {
        let answer: Result<Vec<(String, String)>, RedisError> =
            redis::cmd("CONFIG").arg("GET").arg(setting).query_async(inner).await;
        match answer.as_deref() {
            Ok([(_, is)]) if is == want => {}
            Ok([(_, is)]) => warnings.push(format!("Redis has {setting} {is}, not {want}: {else_what}")),
            _ => warnings.push(format!("Redis does not say whether {setting} is {want}; if it is not, {else_what}")),
        }
    }
    Durability { warnings }
}
