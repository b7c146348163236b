//! Looking at queues: what there is, what stands in one, and why it does not move.

use serde_json::{Map, Value, json};
use trine_protocol::queue::{About, Cause, DeadReason, Flow, MessageState, PeekedMessage, QueueLine};

use super::super::client::{ClientArgs, text_member};
use super::super::{Exit, Failure, say};

pub(super) fn state_name(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::Delayed => "delayed",
        MessageState::InFlight => "in-flight",
        MessageState::Dead => "dead",
    }
}

pub(super) fn flow_name(flow: Flow) -> &'static str {
    match flow {
        Flow::Open => "open",
        Flow::Paused => "paused",
        Flow::Draining => "draining",
    }
}

fn reason_name(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::MaxDeliveries => "max-deliveries",
        DeadReason::Rejected => "rejected",
        DeadReason::Expired => "expired",
        DeadReason::TooOld => "too-old",
    }
}

fn line_json(line: &QueueLine) -> Value {
    json!({
        "queue": line.queue,
        "declared": line.declared,
        "flow": flow_name(line.flow),
        "ready": line.ready,
        "held_by_key": line.held_by_key,
        "delayed": line.delayed,
        "in_flight": line.in_flight,
        "dead": line.dead,
        "bytes": line.bytes,
        "oldest_ready_ms": line.oldest_ready_ms,
        "waiting": line.waiting,
    })
}

fn line_text(line: &QueueLine) -> String {
    let QueueLine { queue, ready, delayed, in_flight, dead, bytes, waiting, .. } = line;
    let flow = if line.flow == Flow::Open { String::new() } else { format!(", {}", flow_name(line.flow)) };
    format!(
        "{queue}\t{ready} ready, {in_flight} in flight, {delayed} delayed, {dead} dead, {bytes} bytes, {waiting} waiting{flow}\n"
    )
}

pub(super) async fn list(client: &ClientArgs) -> Result<Exit, Failure> {
    let connected = client.connect().await?;
    let mut lines: Vec<QueueLine> = Vec::new();
    for group in 0..connected.ring().groups() {
        let mut after = String::new();
        loop {
            let page = connected.list_queues(group, after.as_str()).await?;
            after = page.queues.last().map_or(String::new(), |line| line.queue.clone());
            lines.extend(page.queues);
            if !page.more {
                break;
            }
        }
    }
    lines.sort_unstable_by(|one, other| one.queue.cmp(&other.queue));
    for line in &lines {
        let text = if client.json { format!("{}\n", line_json(line)) } else { line_text(line) };
        say(text.as_bytes())?;
    }
    Ok(Exit::Done)
}

pub(super) async fn show(client: &ClientArgs, queue: &str) -> Result<Exit, Failure> {
    let shown = client.connect().await?.show_queue(queue).await?;
    if shown.line.queue.is_empty() {
        return Err(Failure::new(Exit::Nothing, format!("there is no queue '{queue}'")));
    }
    let policy = shown.policy.as_ref().map(|policy| format!("{policy:?}"));
    let mut json = line_json(&shown.line);
    if let Value::Object(object) = &mut json {
        object.insert("group".into(), shown.group.into());
        object.insert("policy".into(), policy.clone().into());
    }
    let policy = policy.unwrap_or_else(|| "nobody has declared it".to_owned());
    client.answer(format!("{}group {}\n{policy}", line_text(&shown.line), shown.group), &json)
}

pub(super) async fn peek(
    client: &ClientArgs,
    queue: &str,
    state: MessageState,
    after: u64,
    count: u32,
) -> Result<Exit, Failure> {
    let peeked = client.connect().await?.peek(queue, state, after, count).await?;
    if peeked.messages.is_empty() {
        return Err(Failure::new(Exit::Nothing, format!("no message of queue '{queue}' is {}", state_name(state))));
    }
    for message in &peeked.messages {
        say(&if client.json { format!("{}\n", message_json(message)).into_bytes() } else { message_text(message) })?;
    }
    Ok(Exit::Done)
}

fn message_json(message: &PeekedMessage) -> Value {
    let mut object = Map::from_iter([text_member("message", &message.body)]);
    let attempts: Vec<String> = message.history.iter().map(|attempt| format!("{attempt:?}")).collect();
    let fields = json!({
        "id": message.id,
        "state": state_name(message.state),
        "age_ms": message.age_ms,
        "deliveries": message.deliveries,
        "consumer": message.consumer,
        "due_in_ms": message.due_in_ms,
        "priority": message.attributes.priority,
        "key": message.attributes.key,
        "tenant": message.attributes.tenant,
        "dead": message.dead.as_ref().map(|dead| reason_name(dead.reason)),
        "note": message.dead.as_ref().map(|dead| dead.note.clone()),
        "history": attempts,
    });
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Value::Object(object)
}

fn message_text(message: &PeekedMessage) -> Vec<u8> {
    let mut words = vec![format!("{} ms old", message.age_ms), format!("{} deliveries", message.deliveries)];
    if !message.consumer.is_empty() {
        words.push(format!("by {}", message.consumer));
    }
    if message.due_in_ms > 0 {
        words.push(format!("due in {} ms", message.due_in_ms));
    }
    if let Some(dead) = &message.dead {
        words.push(format!("{} {}", reason_name(dead.reason), dead.note).trim_end().to_owned());
    }
    [format!("{}\t{}\t", message.id, words.join(", ")).as_bytes(), &message.body, b"\n"].concat()
}

pub(super) async fn explain(
    client: &ClientArgs,
    queue: &str,
    message: Option<u64>,
    consumer: Option<String>,
) -> Result<Exit, Failure> {
    let about = match (message, consumer) {
        (Some(id), _) => About::Message(id),
        (None, Some(consumer)) => About::Consumer(consumer),
        (None, None) => About::Queue,
    };
    let explained = client.connect().await?.explain_queue(queue, about).await?;
    let sentences: Vec<String> = explained.causes.iter().map(Cause::to_string).collect();
    let names: Vec<String> = explained.causes.iter().map(cause_name).collect();
    let text = if sentences.is_empty() { explained.summary.clone() } else { sentences.join("\n") };
    client.answer(text, &json!({ "summary": explained.summary, "causes": names, "sentences": sentences }))
}

/// The name of a cause, without its fields.
fn cause_name(cause: &Cause) -> String {
    let debug = format!("{cause:?}");
    debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}
