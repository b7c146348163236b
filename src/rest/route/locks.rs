//! The rows of the lock manager's further routes: what the established contract has no word for.

use super::{CLIENT_ID, Form, GRANT, LEASE_SEC, LEASE_SEC_DEFAULT, LOCK_NAME, NAME, NUMBER, Operation, Route, Verb};
use super::{FOREIGN, answer, field, required, status};
use crate::rest::field::Kind;

/// Says why a lock is as it is.
pub(super) const EXPLAIN: Route = Route {
    verb: Verb::Get,
    path: "/v1/locks/explain",
    operation: Operation::LockExplain,
    tag: "lock",
    id: "lock_explain",
    summary: "Says who holds a lock and for how long, who waits behind whom, and how the last holder ended.",
    query: &[LOCK_NAME],
    body: None,
    body_example: "",
    answers: &[answer(200, "What the leader of the lock's group knows.", Form::Object(EXPLAINED))],
};

/// Starts a lease anew.
pub(super) const RENEW: Route = Route {
    verb: Verb::Post,
    path: "/v1/locks/renew",
    operation: Operation::LockRenew,
    tag: "lock",
    id: "lock_renew",
    summary: "Starts the lease of a held lock anew.",
    query: &[],
    body: Some(&[
        LOCK_NAME,
        CLIENT_ID,
        required("fencing_token", NUMBER, "The token of the grant."),
        field("timeout_sec", LEASE_SEC, LEASE_SEC_DEFAULT, "The new lease in seconds."),
    ]),
    body_example: r#"{"lock_name": "demo", "client_id": "c1", "fencing_token": 17, "timeout_sec": 5}"#,
    answers: &[
        answer(200, "The lease begins anew; the token stays.", Form::Object(GRANT)),
        FOREIGN,
        answer(409, "Its lease has run out, or a later grant exists.", Form::Detail),
    ],
};

/// Ends what others hold.
pub(super) const FORCE: Route = Route {
    verb: Verb::Post,
    path: "/v1/locks/force-release",
    operation: Operation::LockForce,
    tag: "lock",
    id: "lock_force_release",
    summary: "Ends every grant of a lock, whoever holds it.",
    query: &[],
    body: Some(&[LOCK_NAME]),
    body_example: r#"{"lock_name": "demo"}"#,
    answers: &[
        answer(
            200,
            "Nobody holds it any more, unless somebody waited for it.",
            Form::Object(&[
                status(&["released", "not_held"]),
                required("lock", Kind::Text, "The lock."),
                required("holders", Kind::List, "Who held it."),
                required(
                    "fencing_token",
                    NUMBER,
                    "Above every token that they had: shown to what the lock protects, it shuts them out.",
                ),
            ]),
        ),
        FOREIGN,
    ],
};

/// Shows a token for a resource.
pub(super) const FENCE: Route = Route {
    verb: Verb::Post,
    path: "/v1/locks/fence",
    operation: Operation::LockFence,
    tag: "lock",
    id: "lock_fence",
    summary: "Shows a token for a resource that keeps none itself: the cluster keeps the highest one, and lets no lower one pass.",
    query: &[],
    body: Some(&[
        required("resource", NAME, "Name of the resource, in the namespace of the lock that protects it."),
        required("fencing_token", NUMBER, "The token of the grant."),
    ]),
    body_example: r#"{"resource": "disk", "fencing_token": 1}"#,
    answers: &[
        answer(
            200,
            "No lower token will pass.",
            Form::Object(&[
                status(&["passed"]),
                required("resource", Kind::Text, "The resource."),
                required("before", NUMBER, "The highest token that was shown before; 0 where none was."),
            ]),
        ),
        FOREIGN,
        answer(409, "A higher token was shown before.", Form::Detail),
    ],
};

const EXPLAINED: &[super::Field] = &[
    required("lock", Kind::Text, "The lock."),
    required("group", NUMBER, "Its group."),
    required("holders", Kind::List, "Who holds it, granted first first: client, token, times in milliseconds."),
    required("holders_total", NUMBER, "How many hold it; of many only the first are listed."),
    required("waiters", Kind::List, "Who waits for it, in their order."),
    required("waiters_total", NUMBER, "How many wait for it."),
    required("delayed_ms", NUMBER, "Milliseconds for which nobody gets it, because its last holder asked for that."),
    required("previous", Kind::List, "How the last holder ended, where that is known: one or none."),
];
