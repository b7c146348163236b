//! The REST compatibility endpoints, their documentation and the metrics, on hyper.
//!
//! REST is a second door to the same node: a request becomes the command that a native client would have sent, goes
//! through [`Gateway::call`], and its answer becomes JSON. So a lock taken here fences against one taken over the
//! native protocol, and the queues are the same queues. Every route is served on every address of the node; that there
//! are three addresses is history (three services in the system this replaces), not structure.
//!
//! ```text
//!   connection ──> body ──> route ──> field ──> queue │ lock │ cache │ node ──> Gateway
//!   (timeouts,    (bytes,   (the      (422,                                       │
//!    limit)        time)     table)    FastAPI)     reply <── status of each error ┘
//! ```
//!
//! # What holds
//! * `route` holds one table of all routes. The dispatcher, the validator, `/openapi.json`, both documentation pages and
//!   the tests read it; nothing about a route stands anywhere else.
//! * Every request is answered: the head has a time limit, the body has one, the node has one ([`RestOptions`]). A
//!   client that stops reading is cut off.
//! * Every answer but the documentation and the metrics is JSON; every error has `detail`. Beside it stand `code` (the
//!   protocol's error) and `outcome`: `refused`, `not_done` (send it again) or `unknown` (it may have been executed).
//!
//! # Decisions that the contract leaves open
//! * **Bodies that are not UTF-8** (enqueued natively): `message` shows them with U+FFFD, `message_base64` has the bytes.
//!   Only the receipt acknowledges such a message.
//! * **Cache values** keep the bytes of `data` as they were sent, so numbers keep their digits and objects their order. A
//!   value that is no JSON (written natively) is a string where it is UTF-8, else base64; `encoding` says which.
//! * **64-bit numbers**: `fencing_token` is a JSON number. It is exact in a double until a cluster has been restored from
//!   backup 32 times; `fencing_token_str` is exact always. Receipts and versions are strings.
//! * **Integers** may be written `5`, `5.0` or `"5"`, as FastAPI took them; `true` is none.
//! * **`Content-Type`** is not looked at: what parses as JSON is JSON. What keeps other sites' pages out is that requests
//!   which a browser marks as theirs (`Sec-Fetch-Site`, `Origin`) are refused where they would change anything.
//! * **`HEAD`** stands for `GET` wherever that changes nothing, so not for `/dequeue`. `OPTIONS` says what is allowed.
//! * **A receipt that is none** is 404 like one that is used up: to its caller it is opaque.
//!
//! # Caveats
//! * A request that reaches a deadline says 503 with `outcome: unknown`: sending an enqueue again may enqueue twice. REST
//!   has no sessions; programs that need exactly one speak the native protocol.
//! * What is not HTTP at all gets hyper's own bare 400 (431 for too long a head), without `detail`.
//! * No TLS and no credentials: bind to loopback, or put a proxy in front.
//! * The time limit of the head also ends idle kept-alive connections: hyper has one timer for both.

mod body;
mod cache;
mod connection;
mod dispatch;
mod docs;
mod field;
mod io;
mod lock;
mod locks;
mod node;
mod openapi;
mod problem;
mod queue;
mod queue_more;
mod queue_routes;
pub mod receipt;
mod reply;
mod route;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trine_protocol::limits::{DEADLINE_MS_DEFAULT, VALUE_BYTES_MAX};

use crate::server::Gateway;

/// Bytes of a request's body; above it 413. Holds the largest value three times over, because JSON may write a character
/// of two bytes as `\u00e9`; the value itself has its own limit.
pub const BODY_BYTES_MAX: usize = 3 * VALUE_BYTES_MAX + 64 * 1024;
/// Bytes of all bodies that are being received or served at once, on one node; above it 503. Bounds the memory that
/// slow senders can hold.
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of a request's line and headers; above it hyper answers 431.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How the service behaves. The defaults are the published ones; tests shorten the times.
#[derive(Clone, Debug)]
pub struct RestOptions {
    /// A follower answers lock requests with 307 and the leader's address instead of forwarding them.
    pub redirect_locks: bool,
    /// Connections at once, over all addresses; one more is told 503 and closed.
    pub connections_max: usize,
    /// Milliseconds for the head of a request, counted from the end of the answer before it: it ends idle connections too.
    pub head_ms_max: u64,
    /// Milliseconds for the body of a request.
    pub body_ms_max: u64,
    /// Milliseconds that a client may take nothing of an answer before it is cut off.
    pub write_ms_max: u64,
    /// Milliseconds that the node has for a request.
    pub deadline_ms: u64,
    /// Milliseconds that requests under way have at shutdown.
    pub drain_ms_max: u64,
}

impl Default for RestOptions {
    fn default() -> Self {
        Self {
            redirect_locks: false,
            connections_max: 4096,
            head_ms_max: 20_000,
            body_ms_max: 10_000,
            write_ms_max: 10_000,
            deadline_ms: DEADLINE_MS_DEFAULT.into(),
            drain_ms_max: 10_000,
        }
    }
}

/// Serves every route on every listener, until `shutdown` and until what was under way then is answered.
pub async fn serve<G: Gateway>(
    listeners: Vec<TcpListener>,
    gateway: G,
    options: RestOptions,
    shutdown: CancellationToken,
) {
    let door = Arc::new(dispatch::Door::new(gateway, options));
    connection::serve(listeners, door, shutdown).await;
}
