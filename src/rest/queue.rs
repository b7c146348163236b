//! `/enqueue`, `/dequeue` and `/ack`. Without `?queue=` each speaks of `queue:<node>`, the queue of the node that was asked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use trine_protocol::limits::VALUE_BYTES_MAX;
use trine_protocol::queue::{Ack, AckWhich, Delivery, Dequeue, Enqueue};
use trine_protocol::{Error, ErrorCode, Response};

use crate::server::Gateway;

use super::dispatch::{Door, unexpected};
use super::field::Arguments;
use super::problem::{Part, Problem};
use super::receipt;
use super::reply::{Failure, Reply};

#[derive(Serialize)]
struct EnqueuedBody<'a> {
    status: &'static str,
    node: &'a str,
    queue: &'a str,
    message: &'a str,
    id: u64,
}

#[derive(Serialize)]
struct DequeuedBody<'a> {
    status: &'static str,
    node: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_base64: Option<String>,
    id: u64,
    receipt: String,
    deliveries: u32,
    queue: &'a str,
}

#[derive(Serialize)]
struct EmptyBody<'a> {
    status: &'static str,
    node: &'a str,
    queue: &'a str,
}

#[derive(Serialize)]
struct AckedBody<'a> {
    status: &'static str,
    node: &'a str,
    message: Option<&'a str>,
    id: u64,
}

pub(crate) async fn enqueue<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (node, queue) = names(door, &mut arguments);
    let message = arguments.text("message");
    if message.len() > VALUE_BYTES_MAX {
        return Err(Failure::TooLarge { bytes_max: VALUE_BYTES_MAX });
    }
    let body = Bytes::from(message.clone());
    match door.call(Enqueue { queue: queue.clone(), body, ..Enqueue::default() }).await? {
        Response::Enqueue(enqueued) => Ok(Reply::ok(&EnqueuedBody {
            status: "enqueued",
            node: &node,
            queue: &queue,
            message: &message,
            id: enqueued.id,
        })),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn dequeue<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (node, queue) = names(door, &mut arguments);
    let visibility_ms = arguments.integer_if("visibility_ms").unwrap_or(0);
    let visibility_ms = u32::try_from(visibility_ms).expect("the route's table bounds it");
    let reply =
        match door.call(Dequeue { queue: queue.clone(), visibility_ms, count_max: 1, ..Dequeue::default() }).await? {
            Response::Dequeue(dequeued) => match dequeued.deliveries.first() {
                Some(delivery) => delivered(&node, &queue, delivery),
                None => Reply::ok(&EmptyBody { status: "empty", node: &node, queue: &queue }),
            },
            other => return Err(unexpected(&other)),
        };
    Ok(reply.no_store())
}

fn delivered(node: &str, queue: &str, delivery: &Delivery) -> Reply {
    let message = String::from_utf8_lossy(&delivery.body);
    // Borrowed means that nothing had to be replaced, so the text is the bytes.
    let replaced = matches!(message, std::borrow::Cow::Owned(_));
    Reply::ok(&DequeuedBody {
        status: "dequeued",
        node,
        message: &message,
        message_base64: replaced.then(|| STANDARD.encode(&delivery.body)),
        id: delivery.id,
        receipt: receipt::write(delivery.id, delivery.token),
        deliveries: delivery.deliveries,
        queue,
    })
}

pub(crate) async fn ack<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (node, queue) = names(door, &mut arguments);
    let message = arguments.text_if("message");
    let which = match (arguments.text_if("receipt"), &message) {
        (Some(receipt), _) => match receipt::read(&receipt) {
            Some((id, token)) => AckWhich::Receipt { id, token },
            None => return Err(Error::new(ErrorCode::NotInFlight, ErrorCode::NotInFlight.meaning()).into()),
        },
        (None, Some(message)) if message.len() > VALUE_BYTES_MAX => {
            return Err(Failure::TooLarge { bytes_max: VALUE_BYTES_MAX });
        }
        (None, Some(message)) => AckWhich::Body(Bytes::from(message.clone())),
        (None, None) => {
            return Err(Failure::Invalid(vec![Problem::missing(&[Part::Name("body"), Part::Name("message")])]));
        }
    };
    match door.call(Ack { queue, which, if_token: None }).await? {
        Response::Ack(acked) => {
            Ok(Reply::ok(&AckedBody { status: "acknowledged", node: &node, message: message.as_deref(), id: acked.id }))
        }
        other => Err(unexpected(&other)),
    }
}

/// The node that answers, and the queue that is meant.
pub(super) fn names<G: Gateway>(door: &Door<G>, arguments: &mut Arguments) -> (String, String) {
    let node = door.node().to_owned();
    let queue = arguments.text_if("queue").unwrap_or_else(|| format!("queue:{node}"));
    (node, queue)
}
