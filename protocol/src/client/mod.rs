//! A client: any number of calls at once over one connection per node, each executed at most once.
//!
//! ```no_run
//! # async fn example() -> Result<(), trine_protocol::Error> {
//! use trine_protocol::client::{Client, ClientConfig};
//!
//! let client = Client::connect(ClientConfig::new(["127.0.0.1:4101", "127.0.0.1:4102"])).await?;
//! client.enqueue("orders", "one more").await?;
//! for delivery in client.dequeue("orders", 30_000, 10).await?.deliveries {
//!     client.ack("orders", &delivery).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A client is cheap to clone, and its clones share connections and sessions. A call is under way from the first time that
//! its future is polled, and calls that are first polled one after the other go out in that order.
//!
//! # What a call promises
//! - It ends within the deadline (and a tenth of a second, in which the node's own word is waited for).
//! - An error whose [`Outcome`](crate::error::Outcome) is `Refused` or `NotDone` means that nothing was done; `Unknown` means what it says.
//! - With `retry`, it is attempted again as long as that is safe: reads always; what was certainly not done always; a queue or
//!   lock command of unknown outcome only with `session`, under the same session and number. See the `call` module's picture.
//! - A cache request goes to the endpoint that was chosen, the first of the list or [`Client::at`]'s, and never silently to
//!   another one unless `cache_any` says so.
//!
//! # Caveats
//! - Dropping the future of a call does not take its request back.
//! - The order of calls holds as long as they go to one node: it may be lost when a group's leader changes meanwhile.
//! - The hint of a `NotLeader` is followed to wherever it points, with the credentials: the cluster is trusted.
//! - [`Client::acquire`] gives a bare grant: who takes it counts its lease alone, from before the call. [`Client::lock`] gives a guard that does.

mod backoff;
mod call;
mod clock;
mod connection;
mod endpoint;
pub mod fresh;
pub mod lock;
pub mod near;
mod partitioned;
mod route;
mod session;
mod shared;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::{
    Add, Added, Delete, DeletePrefix, DeletedPrefix, Evacuate, Evacuated, Explain, Explained, Filling, Get, GetOrFill,
    Got, Keys, ListKeys, MultiGet, MultiGot, MultiPut, MultiWritten, OnlyIf, Put, WriteBack, Written, WrittenBack,
};
use crate::cluster::{NodeStatus, Status, Transfer, Transferring};
use crate::command::{Request, Response};
use crate::error::{Error, ErrorCode};
use crate::limits::{
    CREDENTIALS_BYTES_MAX, DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, NAME_BYTES_MAX, SESSION_MS_MAX, SESSION_MS_MIN,
};
use crate::lock::{
    Acquire, ClientExplained, ExplainClient, ExplainLock, Fence, Fenced, ForceRelease, ForceReleased, Granted, Inspect,
    Inspected, ListLocks, LockExplained, LockPage, Release, Released, Renew,
};
use crate::placement::Ring;
use crate::queue::{Ack, AckWhich, Acked, Dequeue, Dequeued, Enqueue, Enqueued};

pub use partitioned::Partitioned;
pub use subscription::{Subscription, SubscriptionConfig};

use call::Call;
use endpoint::Endpoint;
use shared::Shared;

/// Endpoints that a client takes.
pub const ENDPOINTS_MAX: usize = 64;

/// How a client behaves.
#[derive(Clone)]
pub struct ClientConfig {
    /// `host:port` of nodes, 1 to [`ENDPOINTS_MAX`]. The first is the one whose cache is used.
    pub endpoints: Vec<String>,
    /// Any name, for the nodes' logs and metrics: 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// What the nodes ask for; empty where they ask for nothing. At most [`CREDENTIALS_BYTES_MAX`] bytes.
    pub credentials: Bytes,
    /// How long a call may take, all its attempts together. 1 ms to [`DEADLINE_MS_MAX`].
    pub deadline: Duration,
    /// Whether a call is attempted again where that is safe. Otherwise every failure is returned.
    pub retry: bool,
    /// Whether queue and lock commands get a session, so that a retry is not executed twice. Costs one command per group.
    pub session: bool,
    /// The cluster ends a session, and what is held through it, when it has heard nothing of it for so long; the client sends a sign of
    /// life three times as often. [`SESSION_MS_MIN`] to [`SESSION_MS_MAX`] milliseconds.
    pub session_timeout: Duration,
    /// Whether a cache request may go on to another node when the chosen one does not answer.
    pub cache_any: bool,
}

impl ClientConfig {
    /// With retries and sessions, 5 s for a call, and the cache of the first endpoint.
    pub fn new<T: Into<String>>(endpoints: impl IntoIterator<Item = T>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            name: "client".into(),
            credentials: Bytes::new(),
            deadline: Duration::from_millis(DEADLINE_MS_DEFAULT.into()),
            retry: true,
            session: true,
            session_timeout: Duration::from_secs(60),
            cache_any: false,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let sessions = Duration::from_millis(SESSION_MS_MIN.into())..=Duration::from_millis(SESSION_MS_MAX.into());
        let deadlines = Duration::from_millis(1)..=Duration::from_millis(DEADLINE_MS_MAX.into());
        let wrong = if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            format!("{} endpoints are given, 1 to {ENDPOINTS_MAX} are allowed", self.endpoints.len())
        } else if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            format!("the name has {} bytes, 1 to {NAME_BYTES_MAX} are allowed", self.name.len())
        } else if self.credentials.len() > CREDENTIALS_BYTES_MAX {
            let bytes = self.credentials.len();
            format!("the credentials have {bytes} bytes, {CREDENTIALS_BYTES_MAX} are allowed")
        } else if !sessions.contains(&self.session_timeout) {
            format!(
                "the session's timeout is {:?}, {:?} to {:?} are allowed",
                self.session_timeout,
                sessions.start(),
                sessions.end()
            )
        } else if !deadlines.contains(&self.deadline) {
            format!("the deadline is {:?}, {:?} to {:?} are allowed", self.deadline, deadlines.start(), deadlines.end())
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorCode::InvalidArgument, wrong))
    }
}

impl fmt::Debug for ClientConfig {
    /// Without the credentials: they are not for logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoints, name, credentials, deadline, retry, session, session_timeout, cache_any } = self;
        formatter
            .debug_struct("ClientConfig")
            .field("endpoints", endpoints)
            .field("name", name)
            .field("credentials", &format_args!("{} bytes", credentials.len()))
            .field("deadline", deadline)
            .field("retry", retry)
            .field("session", session)
            .field("session_timeout", session_timeout)
            .field("cache_any", cache_any)
            .finish()
    }
}

/// A client of a cluster.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    cache: Arc<Endpoint>,
}

macro_rules! answers {
    ($($(#[$doc:meta])* $method:ident($($argument:ident: $type:ty),*) -> $answer:ty { $name:ident $message:expr })*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// Those of the command in `README.md`, and what [`Client::call`] adds.
                pub async fn $method(&self, $($argument: $type),*) -> Result<$answer, Error> {
                    match self.call($message).await? {
                        Response::$name(answer) => Ok(answer),
                        other => Err(mismatch(&other)),
                    }
                }
            )*
        }
    };
}

answers! {
    /// Puts a message at the end of a queue.
    enqueue(queue: impl Into<String>, body: impl Into<Bytes>) -> Enqueued {
        Enqueue Enqueue { queue: queue.into(), body: body.into(), ..Enqueue::default() }
    }
    /// Takes up to `count_max` messages from the front of a queue and hides them from others for `visibility_ms`; 0 means the
    /// defaults. Does not wait for messages.
    dequeue(queue: impl Into<String>, visibility_ms: u32, count_max: u32) -> Dequeued {
        Dequeue Dequeue { queue: queue.into(), visibility_ms, count_max, ..Dequeue::default() }
    }
    /// Removes a message that is being processed: that of a [`Delivery`](crate::queue::Delivery), or one with a body.
    ack(queue: impl Into<String>, which: impl Into<AckWhich>) -> Acked {
        Ack Ack { queue: queue.into(), which: which.into(), if_token: None }
    }
    /// Takes a lock for `client`, or says who holds it.
    acquire(lock: impl Into<String>, client: impl Into<String>, lease_ms: u32) -> Granted {
        Acquire Acquire { lock: lock.into(), client: client.into(), lease_ms, ..Acquire::default() }
    }
    /// Gives a lock back; token 0 means whatever `client` holds.
    release(lock: impl Into<String>, client: impl Into<String>, token: u64) -> Released {
        Release Release { lock: lock.into(), client: client.into(), token, ..Release::default() }
    }
    /// Says who holds a lock.
    inspect(lock: impl Into<String>) -> Inspected {
        Inspect Inspect { lock: lock.into() }
    }
    /// Ends every grant of a lock, whoever holds it.
    force_release(lock: impl Into<String>) -> ForceReleased {
        ForceRelease ForceRelease { lock: lock.into() }
    }
    /// Shows a token for a resource that cannot keep tokens itself.
    fence(resource: impl Into<String>, token: u64) -> Fenced {
        Fence Fence { resource: resource.into(), token }
    }
    /// Says why a lock is as it is.
    explain_lock(lock: impl Into<String>) -> LockExplained {
        ExplainLock ExplainLock { lock: lock.into() }
    }
    /// Says what a client holds and waits for in one group.
    explain_client(group: u32, client: impl Into<String>) -> ClientExplained {
        ExplainClient ExplainClient { group, client: client.into() }
    }
    /// Lists locks of a group.
    list_locks(group: u32, prefix: impl Into<String>, after: impl Into<String>) -> LockPage {
        ListLocks ListLocks { group, prefix: prefix.into(), after: after.into() }
    }
    /// Hands the leadership of a group to one of its voters.
    transfer(group: u32, node: impl Into<String>) -> Transferring {
        Transfer Transfer { group, node: node.into() }
    }
    /// Starts the lease of a held lock anew.
    renew(lock: impl Into<String>, client: impl Into<String>, token: u64, lease_ms: u32) -> Granted {
        Renew Renew { lock: lock.into(), client: client.into(), token, lease_ms, ..Renew::default() }
    }
    /// Reads a key through the cache of the chosen node.
    get(key: impl Into<String>) -> Got {
        Get Get { key: key.into() }
    }
    /// Writes a key in the cache of the chosen node.
    put(key: impl Into<String>, value: impl Into<Bytes>) -> Written {
        Put Put { key: key.into(), value: value.into(), ..Put::default() }
    }
    /// Writes a key only if something is true of it.
    put_if(key: impl Into<String>, value: impl Into<Bytes>, only_if: OnlyIf) -> Written {
        Put Put { key: key.into(), value: value.into(), only_if, ..Put::default() }
    }
    /// Writes a key that is deleted by itself after so many milliseconds.
    put_for(key: impl Into<String>, value: impl Into<Bytes>, ttl_ms: u64) -> Written {
        Put Put { key: key.into(), value: value.into(), ttl_ms, ..Put::default() }
    }
    /// Removes a key.
    delete(key: impl Into<String>) -> Written {
        Delete Delete { key: key.into(), ..Delete::default() }
    }
    /// Adds to the number that a key holds.
    add(key: impl Into<String>, by: i64) -> Added {
        Add Add { key: key.into(), by, ..Add::default() }
    }
    /// Reads a key, or gets the right to fill it, or waits for who has that right.
    get_or_fill(key: impl Into<String>, lease_ms: u32) -> Filling {
        GetOrFill GetOrFill { key: key.into(), lease_ms }
    }
    /// Writes a key under the right to fill it.
    fill(key: impl Into<String>, value: impl Into<Bytes>, token: u64) -> Written {
        Put Put { key: key.into(), value: value.into(), fill: token, ..Put::default() }
    }
    /// Reads several keys.
    multi_get(keys: Vec<String>) -> MultiGot {
        MultiGet MultiGet { keys }
    }
    /// Writes several keys.
    multi_put(puts: Vec<Put>) -> MultiWritten {
        MultiPut MultiPut { puts }
    }
    /// Lists keys of a group.
    list_keys(group: u32, prefix: impl Into<String>, after: impl Into<String>) -> Keys {
        ListKeys ListKeys { group, prefix: prefix.into(), after: after.into() }
    }
    /// Deletes the keys that begin with a prefix.
    delete_prefix(prefix: impl Into<String>) -> DeletedPrefix {
        DeletePrefix DeletePrefix { prefix: prefix.into() }
    }
    /// Asks the chosen node what it knows of a key, and why.
    explain(key: impl Into<String>) -> Explained {
        Explain Explain { key: key.into() }
    }
    /// Declares what a dead node did not write back lost, in one group.
    evacuate(group: u32, node: impl Into<String>) -> Evacuated {
        Evacuate Evacuate { group, node: node.into() }
    }
    /// Has the chosen node write its dirty line back.
    write_back(key: impl Into<String>) -> WrittenBack {
        WriteBack WriteBack { key: key.into() }
    }
    /// Asks a node how it and its cluster stand.
    status() -> NodeStatus {
        Status Status {}
    }
}

// Behind the macro that it uses.
mod queues;

fn mismatch(other: &Response) -> Error {
    Error::new(ErrorCode::Internal, format!("the answer is one to {:?}", other.command()))
}

impl Client {
    /// Connects to the first of the endpoints that can be reached.
    ///
    /// # Errors
    /// `InvalidArgument` where the configuration is out of its ranges; the nodes' own where one refuses (`Unauthenticated`,
    /// `UnsupportedVersion`); `Unreachable` where none of them could be reached within the deadline.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        config.check()?;
        let shared = Shared::new(config);
        shared.connect().await?;
        let cache = shared.routes.configured()[0].clone();
        Ok(Self { shared, cache })
    }

    /// The same client, with the cache of another node.
    ///
    /// # Errors
    /// `InvalidArgument` where the client knows too many addresses already.
    pub fn at(&self, endpoint: &str) -> Result<Self, Error> {
        let cache = self.shared.routes.endpoint(endpoint).ok_or_else(|| {
            Error::new(ErrorCode::InvalidArgument, format!("{endpoint} is one address more than a client keeps"))
        })?;
        Ok(Self { shared: self.shared.clone(), cache })
    }

    /// The address of the node whose cache is used.
    pub fn cache_endpoint(&self) -> &str {
        self.cache.address()
    }

    /// Which name lives in which group of this cluster.
    pub fn ring(&self) -> &Ring {
        self.shared.ring().expect("a client is connected once before anybody has it")
    }

    /// Sends any request.
    ///
    /// # Errors
    /// The node's. Beside those: `TooLarge` and `InvalidArgument` before anything is sent, `Unreachable` where no node could be
    /// reached, `OutcomeUnknown` where the connection was lost before the answer, `DeadlineExceeded` where none came in time.
    pub async fn call(&self, request: impl Into<Request>) -> Result<Response, Error> {
        let request = request.into();
        request.check()?;
        Call::new(&self.shared, &request, &self.cache).run().await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Client");
        debug.field("config", &self.shared.config).field("cache", &self.cache.address()).finish()
    }
}
