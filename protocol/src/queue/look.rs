//! Looking at queues without changing them. Each answer is as new as if it had gone through the log.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Attributes;
use super::delivery::MessageState;
use super::policy::Policy;
use super::whole::{DeadReason, Flow};

/// Asks for messages of one state, in the order of their ids, without taking them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peek {
    /// Name of the queue.
    pub queue: String,
    /// Which ones.
    pub state: MessageState,
    /// Only those with a higher id: the last one of the page before.
    #[serde(default)]
    pub after: u64,
    /// At most so many, 1 to [`crate::limits::BATCH_MAX`]; 0 means 1.
    #[serde(default)]
    pub count_max: u32,
}

/// Answer to [`Peek`]. All bodies together have at most [`crate::limits::DEQUEUE_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peeked {
    /// In the order of their ids.
    pub messages: Vec<PeekedMessage>,
    /// There are more behind the last one.
    pub more: bool,
}

/// One message, looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeekedMessage {
    /// Its id.
    pub id: u64,
    /// The body as it was enqueued.
    pub body: Bytes,
    /// Where it stands.
    pub state: MessageState,
    /// How long it has been in the queue, in milliseconds of log time.
    pub age_ms: u64,
    /// How often it was handed out.
    pub deliveries: u32,
    /// Token of its newest delivery; 0 where there was none.
    pub token: u64,
    /// Who has it, or had it last; empty where that is not known.
    pub consumer: String,
    /// In flight: until its time is over. Delayed: until it is ready. Otherwise 0. Milliseconds.
    pub due_in_ms: u64,
    /// What is special about it.
    pub attributes: Attributes,
    /// Why it is dead, if it is.
    pub dead: Option<DeadLetter>,
    /// How its last deliveries ended, the oldest first, at most [`crate::limits::HISTORY_MAX`]. Kept where it may die of them.
    pub history: Vec<Attempt>,
}

/// Why a message is dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// In one word.
    pub reason: DeadReason,
    /// What the consumer said that gave it back last.
    pub note: String,
    /// When, in milliseconds since 1970.
    pub since_ms: u64,
}

/// One delivery that did not end in an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Token of the delivery.
    pub token: u64,
    /// Who had it; empty where that is not known.
    pub consumer: String,
    /// How it ended.
    pub end: AttemptEnd,
    /// When, in milliseconds since 1970.
    pub ended_ms: u64,
}

/// How a delivery ended that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptEnd {
    /// Its visibility timeout ran out.
    TimedOut,
    /// The consumer gave it back, for this reason.
    GivenBack(String),
}

/// Asks which queues a group has, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQueues {
    /// The group.
    pub group: u32,
    /// Only names behind this one: the last one of the page before.
    #[serde(default)]
    pub after: String,
}

/// Answer to [`ListQueues`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queues {
    /// At most [`crate::limits::QUEUES_LISTED_MAX`].
    pub queues: Vec<QueueLine>,
    /// There are more behind the last one.
    pub more: bool,
}

/// One queue, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLine {
    /// Its name.
    pub queue: String,
    /// Whether somebody declared it.
    pub declared: bool,
    /// Whether messages come in and go out.
    pub flow: Flow,
    /// Messages that are ready, `held_by_key` included.
    pub ready: u64,
    /// Of those, messages that wait for an earlier one of their key.
    pub held_by_key: u64,
    /// Messages whose time has not come.
    pub delayed: u64,
    /// Messages that are handed out.
    pub in_flight: u64,
    /// Messages that are handed out no more.
    pub dead: u64,
    /// Bytes of the bodies of all of them.
    pub bytes: u64,
    /// Age of the oldest that is ready, in milliseconds of log time; 0 where none is.
    pub oldest_ready_ms: u64,
    /// Requests for messages that wait at the leader.
    pub waiting: u32,
}

/// Asks for all about one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowQueue {
    /// Name of the queue.
    pub queue: String,
}

/// Answer to [`ShowQueue`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueShown {
    /// Summed up; all zeros where there is no such queue.
    pub line: QueueLine,
    /// What it keeps to; nil where nobody declared it.
    pub policy: Option<Box<Policy>>,
    /// The group that it lives in.
    pub group: u32,
}

/// Asks why messages of a queue do not move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQueue {
    /// Name of the queue.
    pub queue: String,
    /// About what.
    #[serde(default)]
    pub about: About,
}

/// What an [`ExplainQueue`] is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// The queue as a whole.
    #[default]
    Queue,
    /// The message with this id.
    Message(u64),
    /// The consumer of this name.
    Consumer(String),
}

/// Answer to [`ExplainQueue`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedQueue {
    /// In one sentence, for a person.
    pub summary: String,
    /// All that holds something up, what weighs most first; at most [`crate::limits::CAUSES_MAX`].
    pub causes: Vec<Cause>,
}

/// One thing that holds a message, a queue or a consumer up, or says that nothing does. Durations are in milliseconds, as of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The group has no leader that a majority follows, so nothing moves.
    NoQuorum { group: u32 },
    /// There is no such queue.
    NoQueue,
    /// There is no such message: it was acknowledged, dropped, or never was.
    NoMessage,
    /// The queue hands nothing out.
    Paused,
    /// The queue takes nothing in.
    Draining,
    /// Nothing is ready and nothing will be before this time; 0 where nothing is on its way.
    NothingReady { in_ms: u64 },
    /// The queue takes no more: `limit` is the field of its policy, or `group`.
    LimitReached { limit: String, is: u64, max: u64 },
    /// Messages are ready and nobody asks for them.
    NobodyAsks { ready: u64 },
    /// An earlier message of its key is not done: this one, by that delivery of that consumer.
    HeldByKey { key: String, id: u64, token: u64, consumer: String, since_ms: u64, free_in_ms: u64 },
    /// Messages of so many keys wait for an earlier one of theirs.
    HeldByKeys { messages: u64, keys: u64 },
    /// Its time has not come.
    Delayed { due_in_ms: u64 },
    /// It was given back after so many deliveries, and waits.
    BackingOff { due_in_ms: u64, deliveries: u32 },
    /// It is handed out to that consumer.
    InFlight { token: u64, consumer: String, since_ms: u64, free_in_ms: u64, deliveries: u32 },
    /// It is dead.
    Dead { reason: DeadReason, note: String },
    /// It is ready, and so many are before it.
    Behind { messages: u64 },
    /// The next dequeue gets it.
    Next,
    /// The consumer waits for messages, since so long.
    Asks { since_ms: u64 },
    /// The consumer asks for nothing while it has so many deliveries: it has no credit, or is busy.
    NoCredit { holds: u64 },
    /// The consumer is not known here: it holds nothing and does not wait.
    NoConsumer,
}

impl fmt::Display for Cause {
    /// As a person reads it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = |consumer: &str| if consumer.is_empty() { "a consumer".to_owned() } else { format!("'{consumer}'") };
        let sentence = match self {
            Cause::NoQuorum { group } => format!("no quorum in group {group}"),
            Cause::NoQueue => "there is no such queue".to_owned(),
            Cause::NoMessage => "there is no such message: it was acknowledged, dropped, or never was".to_owned(),
            Cause::Paused => "the queue is paused".to_owned(),
            Cause::Draining => "the queue is being drained and takes nothing in".to_owned(),
            Cause::NothingReady { in_ms: 0 } => "nothing is ready, and nothing is on its way".to_owned(),
            Cause::NothingReady { in_ms } => {
                format!("nothing is ready; the first message is in {in_ms} ms at the latest")
            }
            Cause::LimitReached { limit, is, max } => format!("limit reached: {limit} is {max}, and there are {is}"),
            Cause::NobodyAsks { ready } => format!("{ready} messages are ready, and nobody asks for them"),
            Cause::HeldByKey { key, id, token, consumer, since_ms, free_in_ms } => {
                let who = who(consumer);
                format!(
                    "key '{key}' is held by message {id}, delivery {token} of {who} since {since_ms} ms, for {free_in_ms} ms at most"
                )
            }
            Cause::HeldByKeys { messages, keys } => {
                format!("{messages} messages wait for earlier ones of their {keys} keys")
            }
            Cause::Delayed { due_in_ms } => format!("it is scheduled, for {due_in_ms} ms from now"),
            Cause::BackingOff { due_in_ms, deliveries } => {
                format!("it was given back after {deliveries} deliveries, and is ready in {due_in_ms} ms")
            }
            Cause::InFlight { token, consumer, free_in_ms, deliveries, .. } => {
                let who = who(consumer);
                format!(
                    "it is handed out to {who} for the {deliveries}. time, by delivery {token}, for {free_in_ms} ms at most"
                )
            }
            Cause::Dead { reason, note } if note.is_empty() => format!("it is dead: {reason:?}"),
            Cause::Dead { reason, note } => format!("it is dead: {reason:?}, '{note}'"),
            Cause::Behind { messages } => format!("it is ready, and {messages} are before it"),
            Cause::Next => "it is ready, and the next dequeue gets it".to_owned(),
            Cause::Asks { since_ms } => format!("it waits for messages since {since_ms} ms"),
            Cause::NoCredit { holds } => format!("it asks for nothing while it has {holds} deliveries: no credit"),
            Cause::NoConsumer => "no consumer of this name holds a message or waits for one".to_owned(),
        };
        formatter.write_str(&sentence)
    }
}
