//! Every route, in one table: what it takes, what it answers. The dispatcher, the validator, the OpenAPI description, the
//! documentation pages and the tests all read this, so they cannot drift apart.

use hyper::Method;
use trine_protocol::limits::{KEY_BYTES_MAX, LEASE_MS_MAX, NAME_BYTES_MAX, VISIBILITY_MS_MAX};

use super::field::{Field, Kind, Presence};
use super::queue_routes::QUEUE_ROUTES;

mod locks;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Describe,
    Enqueue,
    Dequeue,
    Ack,
    Nack,
    Extend,
    ShowQueue,
    ExplainQueue,
    LockAcquire,
    LockRelease,
    LockExplain,
    LockRenew,
    LockForce,
    LockFence,
    CacheRead,
    CacheWrite,
    CacheWriteBack,
    Docs,
    Redoc,
    OpenApi,
    Healthz,
    Readyz,
    Metrics,
}

impl Operation {
    /// Whether asking for it changes anything. `GET /dequeue` does, whatever its method says.
    pub(crate) const fn changes(self) -> bool {
        matches!(
            self,
            Self::Enqueue
                | Self::Dequeue
                | Self::Ack
                | Self::Nack
                | Self::Extend
                | Self::LockAcquire
                | Self::LockRelease
                | Self::LockRenew
                | Self::LockForce
                | Self::LockFence
                | Self::CacheWrite
                | Self::CacheWriteBack
        )
    }
}

/// Methods of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
}

impl Verb {
    pub(crate) const fn upper(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }

    pub(crate) const fn lower(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

/// What an answer's body is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Object(&'static [Field]),
    /// An error: `{"detail": "..."}`.
    Detail,
    Html,
    Text,
    /// The OpenAPI description itself.
    OpenApi,
}

/// One answer of a route. Those that every route may give (422, 503...) are not listed with each; see `openapi`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) about: &'static str,
    pub(crate) form: Form,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) verb: Verb,
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
    /// `queue`, `lock`, `cache` or `node`.
    pub(crate) tag: &'static str,
    /// The operation's name, for programs that generate clients.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) query: &'static [Field],
    pub(crate) body: Option<&'static [Field]>,
    /// A body that works, as JSON; the documentation offers it and a test sends it.
    pub(crate) body_example: &'static str,
    pub(crate) answers: &'static [Answer],
}

impl Route {
    /// Whether `HEAD` may stand for `GET`.
    pub(crate) const fn head(&self) -> bool {
        matches!(self.verb, Verb::Get) && !self.operation.changes()
    }

    pub(crate) fn takes(&self, method: &Method) -> bool {
        method.as_str() == self.verb.upper() || (self.head() && method == Method::HEAD)
    }

    /// The methods of its path, for `Allow`.
    pub(crate) fn allow(&self) -> String {
        let head = if self.head() { ", HEAD" } else { "" };
        format!("{}{head}, OPTIONS", self.verb.upper())
    }
}

/// The route of a path. Each path has one.
pub(crate) fn find(path: &str) -> Option<&'static Route> {
    all().find(|route| route.path == path)
}

/// Every route: those of the contract first.
pub(crate) fn all() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(QUEUE_ROUTES)
}

pub(super) const fn field(name: &'static str, kind: Kind, presence: Presence, about: &'static str) -> Field {
    Field { name, kind, presence, about }
}

pub(super) const fn required(name: &'static str, kind: Kind, about: &'static str) -> Field {
    field(name, kind, Presence::Required, about)
}

pub(super) const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Field {
    field(name, kind, Presence::Optional, about)
}

pub(super) const fn answer(status: u16, about: &'static str, form: Form) -> Answer {
    Answer { status, about, form }
}

const NAME: Kind = Kind::Name { bytes_max: NAME_BYTES_MAX };
const KEY: Kind = Kind::Name { bytes_max: KEY_BYTES_MAX };
pub(super) const NUMBER: Kind = Kind::Integer { min: 0, max: u64::MAX };
const LEASE_SEC: Kind = Kind::Integer { min: 1, max: LEASE_MS_MAX as u64 / 1000 };
/// Less than the longest deadline of a request: the answer has a way to go.
const WAIT_MS: Kind = Kind::Integer { min: 0, max: 55_000 };
const LEASE_SEC_DEFAULT: Presence = Presence::Default(10);

pub(super) const QUEUE: Field =
    optional("queue", NAME, "Name of the queue; without it `queue:<node>`, the queue of the node asked.");
pub(super) const NODE: Field = required("node", Kind::Text, "The node that answered.");
const LOCK_NAME: Field =
    required("lock_name", NAME, "Name of the lock. The part before the first `/` is its namespace.");
const CLIENT_ID: Field = required("client_id", NAME, "Who takes the lock or gives it back.");
pub(super) const FOREIGN: Answer =
    answer(403, "A browser asked for this on behalf of a page of another site.", Form::Detail);

pub(super) const fn status(choices: &'static [&'static str]) -> Field {
    required("status", Kind::Choice(choices), "What was done.")
}

/// The table of the contract.
const ROUTES: &[Route] = &[
    Route {
        verb: Verb::Get,
        path: "/",
        operation: Operation::Describe,
        tag: "node",
        id: "describe",
        summary: "What this node is, and how it stands in the group that plain lock names live in.",
        query: &[],
        body: None,
        body_example: "",
        answers: &[answer(200, "The node.", Form::Object(DESCRIPTION))],
    },
    Route {
        verb: Verb::Post,
        path: "/enqueue",
        operation: Operation::Enqueue,
        tag: "queue",
        id: "enqueue",
        summary: "Puts a message at the end of a queue; answered when a majority of the group has it on disk.",
        query: &[QUEUE],
        body: Some(&[required("message", Kind::Text, "The message; kept as UTF-8, at most 1 MiB.")]),
        body_example: r#"{"message": "Halo dari node 1"}"#,
        answers: &[
            answer(
                200,
                "The message is in the queue.",
                Form::Object(&[
                    status(&["enqueued"]),
                    NODE,
                    required("queue", Kind::Text, "The queue it went to."),
                    required("message", Kind::Text, "The message."),
                    required("id", NUMBER, "Grows with the order of the queue."),
                ]),
            ),
            FOREIGN,
        ],
    },
    Route {
        verb: Verb::Get,
        path: "/dequeue",
        operation: Operation::Dequeue,
        tag: "queue",
        id: "dequeue",
        summary: "Takes the message at the front of a queue. Does not block. What is not acknowledged comes back.",
        query: &[
            QUEUE,
            optional(
                "visibility_ms",
                Kind::Integer { min: 1, max: VISIBILITY_MS_MAX as u64 },
                "How long others do not see the message; 30,000 without it.",
            ),
        ],
        body: None,
        body_example: "",
        answers: &[answer(200, "A message, or `empty`.", Form::Object(DELIVERY)), FOREIGN],
    },
    Route {
        verb: Verb::Post,
        path: "/ack",
        operation: Operation::Ack,
        tag: "queue",
        id: "ack",
        summary: "Acknowledges a delivery: by its message (the oldest with that body), or exactly by its receipt.",
        query: &[QUEUE],
        body: Some(&[
            optional("message", Kind::Text, "The body of the delivery. Required where there is no receipt."),
            optional("receipt", Kind::Text, "The receipt of the delivery; where it is given, it alone counts."),
        ]),
        body_example: r#"{"message": "Halo dari node 1"}"#,
        answers: &[
            answer(
                200,
                "The message is gone.",
                Form::Object(&[
                    status(&["acknowledged"]),
                    NODE,
                    field("message", Kind::Text, Presence::Nullable, "The message as the request named it, or null."),
                    required("id", NUMBER, "The message's id."),
                ]),
            ),
            answer(404, "No such message is being processed.", Form::Detail),
            FOREIGN,
        ],
    },
    Route {
        verb: Verb::Post,
        path: "/lock/acquire",
        operation: Operation::LockAcquire,
        tag: "lock",
        id: "lock_acquire",
        summary: "Takes a lock for a time. A lock that anyone holds is refused, unless there is time to wait for it.",
        query: &[],
        body: Some(&[
            LOCK_NAME,
            CLIENT_ID,
            field("timeout_sec", LEASE_SEC, LEASE_SEC_DEFAULT, "The lease in seconds; after it the lock is free."),
            optional(
                "wait_ms",
                WAIT_MS,
                "Milliseconds to wait for it, behind those who came before; without it, not at all.",
            ),
            optional("mode", Kind::Text, "`exclusive`, or `shared` with others who ask for it so."),
        ]),
        body_example: r#"{"lock_name": "demo", "client_id": "c1", "timeout_sec": 5}"#,
        answers: &[
            answer(200, "The lock is yours.", Form::Object(GRANT)),
            answer(307, "Only with `--redirect-locks`: another node leads; ask it.", Form::Detail),
            FOREIGN,
            answer(
                409,
                "Somebody holds it, perhaps the same client; or the time to wait is over, or the client would wait for itself.",
                Form::Detail,
            ),
        ],
    },
    Route {
        verb: Verb::Post,
        path: "/lock/release",
        operation: Operation::LockRelease,
        tag: "lock",
        id: "lock_release",
        summary: "Gives a lock back.",
        query: &[],
        body: Some(&[
            LOCK_NAME,
            CLIENT_ID,
            optional("timeout_sec", LEASE_SEC, "Has no effect here; callers send the body of the acquire again."),
            optional("fencing_token", NUMBER, "Releases this grant only, not a later one of the same client."),
        ]),
        body_example: r#"{"lock_name": "demo", "client_id": "c1"}"#,
        answers: &[
            answer(
                200,
                "Nobody, or at least not this client, holds the lock now.",
                Form::Object(&[status(&["released", "not_held"]), required("lock", Kind::Text, "The lock.")]),
            ),
            answer(307, "Only with `--redirect-locks`: another node leads; ask it.", Form::Detail),
            answer(403, "Another client holds it.", Form::Detail),
            answer(409, "A later grant than that of the fencing token exists.", Form::Detail),
        ],
    },
    locks::EXPLAIN,
    locks::RENEW,
    locks::FORCE,
    locks::FENCE,
    Route {
        verb: Verb::Get,
        path: "/cache/read",
        operation: Operation::CacheRead,
        tag: "cache",
        id: "cache_read",
        summary: "Reads a key through this node's cache.",
        query: &[required("key", KEY, "The key.")],
        body: None,
        body_example: "",
        answers: &[
            answer(200, "The value.", Form::Object(LINE)),
            answer(404, "Main memory has no such key.", Form::Detail),
        ],
    },
    Route {
        verb: Verb::Post,
        path: "/cache/write",
        operation: Operation::CacheWrite,
        tag: "cache",
        id: "cache_write",
        summary: "Writes a key; answered when no other node can serve the old value and the new one is on disk.",
        query: &[],
        body: Some(&[
            required("key", KEY, "The key."),
            required("data", Kind::Any, "Any JSON, kept byte for byte; at most 1 MiB."),
        ]),
        body_example: r#"{"key": "user:123", "data": {"name": "Data Node 1", "value": 42}}"#,
        answers: &[
            answer(
                200,
                "This node has the line modified.",
                Form::Object(&[
                    status(&["written_local"]),
                    required("state", Kind::Choice(&["M"]), "State of the line in this node's cache."),
                    required("key", Kind::Text, "The key."),
                    required("version", Kind::Text, "The version of this write."),
                ]),
            ),
            FOREIGN,
        ],
    },
    Route {
        verb: Verb::Post,
        path: "/cache/writeback",
        operation: Operation::CacheWriteBack,
        tag: "cache",
        id: "cache_writeback",
        summary: "Writes this node's line back to main memory now.",
        query: &[required("key", KEY, "The key.")],
        body: None,
        body_example: "",
        answers: &[
            answer(
                200,
                "Main memory has the line that this node wrote last.",
                Form::Object(&[
                    status(&["written_to_main_memory"]),
                    required("state", Kind::Choice(&["E"]), "E: the line is as in main memory."),
                    required(
                        "line_state",
                        Kind::Choice(&["M", "E", "S", "I"]),
                        "State of the line now: E while no other node has a copy, S where one has read it since.",
                    ),
                ]),
            ),
            answer(400, "This node is not the one that wrote the line last.", Form::Detail),
            FOREIGN,
        ],
    },
    Route {
        verb: Verb::Get,
        path: "/docs",
        operation: Operation::Docs,
        tag: "documentation",
        id: "docs",
        summary: "Interactive documentation: a form for each operation.",
        query: &[],
        body: None,
        body_example: "",
        answers: &[answer(200, "A page.", Form::Html)],
    },
    Route {
        verb: Verb::Get,
        path: "/redoc",
        operation: Operation::Redoc,
        tag: "documentation",
        id: "redoc",
        summary: "The documentation as one page to read.",
        query: &[],
        body: None,
        body_example: "",
        answers: &[answer(200, "A page.", Form::Html)],
    },
    Route {
        verb: Verb::Get,
        path: "/openapi.json",
        operation: Operation::OpenApi,
        tag: "documentation",
        id: "openapi",
        summary: "This description, OpenAPI 3.1.",
        query: &[],
        body: None,
        body_example: "",
        answers: &[answer(200, "The description.", Form::OpenApi)],
    },
    Route {
        verb: Verb::Get,
        path: "/healthz",
        operation: Operation::Healthz,
        tag: "node",
        id: "healthz",
        summary: "Whether the process is alive.",
        query: &[],
        body: None,
        body_example: "",
        answers: &[answer(200, "It is.", Form::Object(&[status(&["ok"]), NODE]))],
    },
    Route {
        verb: Verb::Get,
        path: "/readyz",
        operation: Operation::Readyz,
        tag: "node",
        id: "readyz",
        summary: "Whether the node can serve all it is for.",
        query: &[],
        body: None,
        body_example: "",
        answers: &[
            answer(200, "It can.", Form::Object(&[status(&["ready"]), NODE])),
            answer(503, "It cannot; `detail` says why.", Form::Detail),
        ],
    },
    Route {
        verb: Verb::Get,
        path: "/metrics",
        operation: Operation::Metrics,
        tag: "node",
        id: "metrics",
        summary: "Every metric, as Prometheus reads them.",
        query: &[],
        body: None,
        body_example: "",
        answers: &[answer(200, "Prometheus' text form.", Form::Text)],
    },
];

const DESCRIPTION: &[Field] = &[
    required("node_id", Kind::Text, "Name of the node."),
    status(&["running"]),
    required("state", Kind::Choice(&["LEADER", "FOLLOWER", "CANDIDATE"]), "What it is in the group."),
    required("current_term", NUMBER, "The newest term it knows."),
    field("voted_for", Kind::Text, Presence::Nullable, "Whom it voted for in that term, or null."),
    field("current_leader", Kind::Text, Presence::Nullable, "The leader's public HTTP address, or null."),
    required("log_length", NUMBER, "Index of the last entry of its log."),
    required("group", NUMBER, "The group that plain lock names live in."),
    required("version", Kind::Text, "Version of the binary."),
    required("cluster_id", Kind::Text, "The cluster, in hexadecimal digits."),
    required("uptime_ms", NUMBER, "Milliseconds since the process started."),
    required("nodes", Kind::List, "Every node with its addresses."),
    required("groups", Kind::List, "Every group as this node sees it."),
];

const DELIVERY: &[Field] = &[
    status(&["dequeued", "empty"]),
    NODE,
    optional("message", Kind::Text, "The message. Bytes that are no UTF-8 are shown as U+FFFD."),
    optional("message_base64", Kind::Text, "Only where the message is no UTF-8: its bytes in base64."),
    optional("id", NUMBER, "The message's id."),
    optional("receipt", Kind::Text, "Acknowledges exactly this delivery."),
    optional("deliveries", NUMBER, "How often the message has been handed out, this time included."),
    optional("queue", Kind::Text, "The queue it came from."),
];

const GRANT: &[Field] = &[
    status(&["acquired"]),
    required("lock", Kind::Text, "The lock."),
    required("client_id", Kind::Text, "Who holds it."),
    required("fencing_token", NUMBER, "Strictly greater than that of every earlier grant of this lock."),
    required("fencing_token_str", Kind::Text, "The same in decimal digits, for programs whose numbers are doubles."),
    required("expires_in_ms", NUMBER, "The lease. Count it from before you sent the request."),
];

const LINE: &[Field] = &[
    required("source", Kind::Choice(&["local_cache", "main_memory"]), "Where the value came from."),
    required("state", Kind::Choice(&["M", "E", "S"]), "State of the line in this node's cache."),
    required("data", Kind::Any, "The value, as `encoding` says."),
    required("encoding", Kind::Choice(&["json", "text", "base64"]), "`json`: the value itself; else a string of it."),
    required("version", Kind::Text, "The version of the value."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_and_each_id_stands_once_and_examples_are_bodies() {
        for (index, route) in all().enumerate() {
            for other in all().take(index) {
                assert_ne!(route.path, other.path);
                assert_ne!(route.id, other.id);
            }
            assert_eq!(route.body.is_some(), !route.body_example.is_empty(), "{}", route.path);
            assert_eq!(route.body.is_some(), serde_json::from_str::<serde_json::Value>(route.body_example).is_ok());
        }
    }
}
