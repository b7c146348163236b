//! The rows of queues beyond the contract: what a consumer does with a delivery, and looking at a queue.

use trine_protocol::limits::VISIBILITY_MS_MAX;

use super::field::{Kind, Presence};
use super::route::{
    Answer, FOREIGN, Form, NODE, NUMBER, Operation, QUEUE, Route, Verb, answer, field, optional, required, status,
};

const NOT_IN_FLIGHT: Answer = answer(404, "No such delivery is being processed.", Form::Detail);

/// Goes behind the table of the contract.
pub(super) const QUEUE_ROUTES: &[Route] = &[
    Route {
        verb: Verb::Post,
        path: "/v1/queues/nack",
        operation: Operation::Nack,
        tag: "queue",
        id: "nack",
        summary: "Gives a delivery back. Its receipt is void then.",
        query: &[QUEUE],
        body: Some(&[
            required("receipt", Kind::Text, "The receipt of the delivery."),
            optional(
                "delay_ms",
                Kind::Integer { min: 0, max: VISIBILITY_MS_MAX as u64 },
                "Ready again after so long; without it the back-off of the message or its queue counts.",
            ),
            optional("reason", Kind::Text, "Why, for the message's history; at most 256 bytes."),
        ]),
        body_example: r#"{"receipt": "1-1"}"#,
        answers: &[
            answer(
                200,
                "It is given back.",
                Form::Object(&[
                    status(&["given_back"]),
                    NODE,
                    required("state", Kind::Choice(STATES), "Where the message stands now."),
                ]),
            ),
            NOT_IN_FLIGHT,
            FOREIGN,
        ],
    },
    Route {
        verb: Verb::Post,
        path: "/v1/queues/extend",
        operation: Operation::Extend,
        tag: "queue",
        id: "extend",
        summary: "Starts the visibility timeout of a delivery anew, from now.",
        query: &[QUEUE],
        body: Some(&[
            required("receipt", Kind::Text, "The receipt of the delivery."),
            optional(
                "visibility_ms",
                Kind::Integer { min: 1, max: VISIBILITY_MS_MAX as u64 },
                "How long others do not see the message; without it the queue's own.",
            ),
        ]),
        body_example: r#"{"receipt": "1-1"}"#,
        answers: &[
            answer(
                200,
                "It has that time.",
                Form::Object(&[status(&["extended"]), NODE, required("id", NUMBER, "The message's id.")]),
            ),
            NOT_IN_FLIGHT,
            FOREIGN,
        ],
    },
    Route {
        verb: Verb::Get,
        path: "/v1/queues/show",
        operation: Operation::ShowQueue,
        tag: "queue",
        id: "show_queue",
        summary: "What stands in a queue.",
        query: &[QUEUE],
        body: None,
        body_example: "",
        answers: &[answer(
            200,
            "The queue; all zeros where there is none of that name.",
            Form::Object(&[
                NODE,
                required("queue", Kind::Text, "The queue."),
                required("group", NUMBER, "The group that it lives in."),
                required("declared", Kind::Any, "Whether somebody declared it."),
                required("flow", Kind::Choice(FLOWS), "Whether messages come in and go out."),
                required("ready", NUMBER, "Messages that are ready."),
                required("held_by_key", NUMBER, "Of those, messages that wait for an earlier one of their key."),
                required("delayed", NUMBER, "Messages whose time has not come."),
                required("in_flight", NUMBER, "Messages that are handed out."),
                required("dead", NUMBER, "Messages that are handed out no more."),
                required("bytes", NUMBER, "Bytes of the bodies of all of them."),
                required("waiting", NUMBER, "Requests for messages that wait at the leader."),
            ]),
        )],
    },
    Route {
        verb: Verb::Get,
        path: "/v1/queues/explain",
        operation: Operation::ExplainQueue,
        tag: "queue",
        id: "explain_queue",
        summary: "Why a queue, a message or a consumer does not move.",
        query: &[
            QUEUE,
            optional("message", NUMBER, "About the message with this id."),
            optional("consumer", Kind::Text, "About this consumer, where no message is named."),
        ],
        body: None,
        body_example: "",
        answers: &[answer(
            200,
            "The causes, what weighs most first.",
            Form::Object(&[
                NODE,
                required("queue", Kind::Text, "The queue."),
                required("summary", Kind::Text, "The first cause, in a sentence."),
                field("causes", Kind::List, Presence::Required, "Each with a `name` and a `sentence`."),
            ]),
        )],
    },
];

/// Names of the states of a message.
pub(super) const STATES: &[&str] = &["ready", "delayed", "in_flight", "dead"];
/// Names of the flows of a queue.
pub(super) const FLOWS: &[&str] = &["open", "paused", "draining"];
