//! The steps of a script, and how their words become messages.

use std::error::Error;

use trine_protocol::queue::{
    BackOff, DeadReason, EnqueueOptions, Expired, MessageState, Overflow, Policy, RedriveFilter, TenantWeight,
};

/// A step of a script. A name or body such as `x@600` stands for 600 times `x`.
#[derive(goldenscript::Command)]
pub(super) enum Step {
    /// `enqueue QUEUE BODY [priority= key= tenant= delay= at= ttl= dedup= deaths= back_off=]`
    Enqueue {
        queue: String,
        body: String,
        #[arg(flatten)]
        options: Options,
    },
    /// `dequeue QUEUE [count=1] [visibility=30000] [by=CONSUMER]`
    Dequeue {
        queue: String,
        #[arg(key, optional)]
        count: u32,
        #[arg(key, optional)]
        visibility: u32,
        #[arg(key, optional)]
        by: String,
    },
    /// `ack QUEUE ID TOKEN`; the token of another generation is `GENERATION:INDEX`.
    Ack(String, u64, String),
    /// `ack_body QUEUE BODY`
    AckBody(String, String),
    /// `ack_many QUEUE "ID/TOKEN ID/TOKEN..."`
    AckMany { queue: String, receipts: String },
    /// `extend QUEUE ID TOKEN [visibility=30000]`
    Extend {
        queue: String,
        id: u64,
        token: String,
        #[arg(key, optional)]
        visibility: u32,
    },
    /// `nack QUEUE ID TOKEN [delay=MS] [reason=TEXT]`; without a delay, the back-off counts.
    Nack {
        queue: String,
        id: u64,
        token: String,
        #[arg(key)]
        delay: Option<u32>,
        #[arg(key, optional)]
        reason: String,
    },
    /// `reject QUEUE ID TOKEN [reason=TEXT]`
    Reject {
        queue: String,
        id: u64,
        token: String,
        #[arg(key, optional)]
        reason: String,
    },
    /// `declare QUEUE [deaths= back_off= visibility= messages= bytes= age= overflow=drop expired=bury window= ageing= at_once= fair= weights= partitions=]`
    Declare {
        queue: String,
        #[arg(flatten)]
        policy: Words,
    },
    /// `undeclare QUEUE`
    Undeclare(String),
    /// `flow QUEUE open|paused|draining`
    Flow(String, String),
    /// `purge QUEUE [state=STATE]`
    Purge {
        queue: String,
        #[arg(key, optional)]
        state: String,
    },
    /// `redrive QUEUE [count=] [rate=A_SECOND] [reason= key= tenant= ids="1 2"]`
    Redrive {
        queue: String,
        #[arg(key, optional)]
        count: u32,
        #[arg(key, optional)]
        rate: u32,
        #[arg(flatten)]
        filter: Filter,
    },
    /// `tick`: an empty entry.
    Tick,
    /// `advance MS`: time goes on, and the next entry shows it.
    Advance(u64),
    /// `wall MS`: the wall clock alone goes on, as after a time in which nothing ran.
    Wall(u64),
    /// `skip COUNT`: entries that are none of the queue's.
    Skip(u64),
    /// `generation NUMBER`
    Generation(u16),
    /// `limits [messages=10] [queues=10]`
    Limits {
        #[arg(key)]
        messages: Option<usize>,
        #[arg(key)]
        queues: Option<usize>,
    },
    /// `checkpoint`: what changed since the last.
    Checkpoint,
    /// `restart`: a checkpoint, then a state read back from it.
    Restart,
    /// `records`: all of them.
    Records,
    /// `stats`: each queue summed up.
    Stats,
    /// `deadline`: when something is due.
    Deadline,
    /// `live AFTER THROUGH`
    Live(u64, u64),
    /// `peek QUEUE STATE [after=0] [count=100]`
    Peek {
        queue: String,
        state: String,
        #[arg(key, optional)]
        after: u64,
        #[arg(key, optional)]
        count: u32,
    },
    /// `list [after=NAME] [count=100]`
    List {
        #[arg(key, optional)]
        after: String,
        #[arg(key, optional)]
        count: usize,
    },
    /// `explain QUEUE [id=] [consumer=] [waiting=0] [since=MS]`: about the queue, a message or a consumer; so many requests wait, and the
    /// consumer's since so long.
    Explain {
        queue: String,
        #[arg(key, optional)]
        id: u64,
        #[arg(key, optional)]
        consumer: String,
        #[arg(key, optional)]
        waiting: u64,
        #[arg(key)]
        since: Option<u64>,
    },
}
