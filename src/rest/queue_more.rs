//! `/v1/queues/...`: what a consumer does with a delivery, and looking at a queue.

use serde::Serialize;
use trine_protocol::queue::{About, Cause, ExplainQueue, Extend, Nack, QueueLine, Receipt, ShowQueue};
use trine_protocol::{Error, ErrorCode, Response};

use crate::server::Gateway;

use super::dispatch::{Door, unexpected};
use super::field::Arguments;
use super::queue::names;
use super::queue_routes::{FLOWS, STATES};
use super::receipt;
use super::reply::{Failure, Reply};

#[derive(Serialize)]
struct GivenBackBody<'a> {
    status: &'static str,
    node: &'a str,
    state: &'static str,
}

#[derive(Serialize)]
struct ExtendedBody<'a> {
    status: &'static str,
    node: &'a str,
    id: u64,
}

#[derive(Serialize)]
struct ShownBody<'a> {
    node: &'a str,
    queue: &'a str,
    group: u32,
    declared: bool,
    flow: &'static str,
    ready: u64,
    held_by_key: u64,
    delayed: u64,
    in_flight: u64,
    dead: u64,
    bytes: u64,
    waiting: u32,
}

#[derive(Serialize)]
struct CauseBody {
    name: String,
    sentence: String,
}

#[derive(Serialize)]
struct ExplainedBody<'a> {
    node: &'a str,
    queue: &'a str,
    summary: &'a str,
    causes: Vec<CauseBody>,
}

/// The delivery that a receipt names. One that no delivery ever had is none that is being processed.
fn receipt(arguments: &mut Arguments) -> Result<Receipt, Failure> {
    match receipt::read(&arguments.text("receipt")) {
        Some((id, token)) => Ok(Receipt { id, token }),
        None => Err(Error::new(ErrorCode::NotInFlight, ErrorCode::NotInFlight.meaning()).into()),
    }
}

fn milliseconds(arguments: &mut Arguments, name: &'static str) -> Option<u32> {
    let given = arguments.integer_if(name);
    given.map(|number| u32::try_from(number).expect("the route's table bounds it"))
}

pub(crate) async fn nack<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (node, queue) = names(door, &mut arguments);
    let (receipt, delay_ms) = (receipt(&mut arguments)?, milliseconds(&mut arguments, "delay_ms"));
    let reason = arguments.text_if("reason").unwrap_or_default();
    match door.call(Nack { queue, receipt, delay_ms, reason, reject: false, if_token: None }).await? {
        Response::Nack(nacked) => {
            let state = STATES[nacked.state as usize];
            Ok(Reply::ok(&GivenBackBody { status: "given_back", node: &node, state }))
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn extend<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (node, queue) = names(door, &mut arguments);
    let receipt = receipt(&mut arguments)?;
    let visibility_ms = milliseconds(&mut arguments, "visibility_ms").unwrap_or(0);
    match door.call(Extend { queue, receipt, visibility_ms }).await? {
        Response::Extend(extended) => Ok(Reply::ok(&ExtendedBody { status: "extended", node: &node, id: extended.id })),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn show<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (node, queue) = names(door, &mut arguments);
    match door.call(ShowQueue { queue: queue.clone() }).await? {
        Response::ShowQueue(shown) => {
            let QueueLine { declared, flow, ready, held_by_key, delayed, in_flight, dead, bytes, waiting, .. } =
                shown.line;
            let (flow, group) = (FLOWS[flow as usize], shown.group);
            let body = ShownBody {
                node: &node,
                queue: &queue,
                group,
                declared,
                flow,
                ready,
                held_by_key,
                delayed,
                in_flight,
                dead,
                bytes,
                waiting,
            };
            Ok(Reply::ok(&body).no_store())
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn explain<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (node, queue) = names(door, &mut arguments);
    let about = match (arguments.integer_if("message"), arguments.text_if("consumer")) {
        (Some(id), _) => About::Message(id),
        (None, Some(consumer)) => About::Consumer(consumer),
        (None, None) => About::Queue,
    };
    match door.call(ExplainQueue { queue: queue.clone(), about }).await? {
        Response::ExplainQueue(explained) => {
            let causes =
                explained.causes.iter().map(|cause| CauseBody { name: name(cause), sentence: cause.to_string() });
            let (summary, causes) = (&explained.summary, causes.collect());
            Ok(Reply::ok(&ExplainedBody { node: &node, queue: &queue, summary, causes }).no_store())
        }
        other => Err(unexpected(&other)),
    }
}

/// The name of a cause, without its fields.
fn name(cause: &Cause) -> String {
    let debug = format!("{cause:?}");
    debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}
