//! The steps of a script, and how their words become messages.

use std::collections::BTreeMap;
use std::error::Error;

use trine_protocol::queue::{
    BackOff, DeadReason, EnqueueOptions, Expired, MessageState, Overflow, Policy, Redrive, RedriveFilter, TenantWeight,
};

type Words = BTreeMap<String, String>;
type Outcome<T> = Result<T, Box<dyn Error>>;

/// A step of a script. A name or body such as `x@600` stands for 600 times `x`.
#[derive(goldenscript::Command)]
pub(super) enum Step {
    /// `enqueue QUEUE BODY [priority= key= tenant= delay= at= ttl= dedup= deaths= back_off=]`
    Enqueue {
        queue: String,
        body: String,
        #[arg(key, many, optional)]
        options: BTreeMap<String, String>,
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
        #[arg(key, many, optional)]
        policy: BTreeMap<String, String>,
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
        #[arg(key, many, optional)]
        words: BTreeMap<String, String>,
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

pub(super) fn parse_token(text: &str) -> Outcome<u64> {
    match text.split_once(':') {
        Some((generation, index)) => Ok(generation.parse::<u64>()? << 48 | index.parse::<u64>()?),
        None => Ok(text.parse()?),
    }
}

pub(super) fn expand(text: &str) -> String {
    match text.split_once('@').map(|(unit, count)| (unit, count.parse())) {
        Some((unit, Ok(count))) => unit.repeat(count),
        _ => text.into(),
    }
}

pub(super) fn parse_state(text: &str) -> Outcome<MessageState> {
    Ok(match text {
        "ready" => MessageState::Ready,
        "delayed" => MessageState::Delayed,
        "in_flight" => MessageState::InFlight,
        "dead" => MessageState::Dead,
        other => return Err(format!("no state: {other}").into()),
    })
}

/// `fixed/MS`, `linear/STEP/MAX`, `exponential/FIRST/MAX/JITTER`
fn parse_back_off(text: &str) -> Outcome<BackOff> {
    let mut words = text.split('/');
    let kind = words.next().unwrap_or_default();
    let numbers = words.map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    Ok(match (kind, numbers.as_slice()) {
        ("fixed", [ms]) => BackOff::Fixed { ms: *ms },
        ("linear", [step_ms, max_ms]) => BackOff::Linear { step_ms: *step_ms, max_ms: *max_ms },
        ("exponential", [first_ms, max_ms, jitter_percent]) => {
            BackOff::Exponential { first_ms: *first_ms, max_ms: *max_ms, jitter_percent: *jitter_percent }
        }
        _ => return Err(format!("no back-off: {text}").into()),
    })
}

fn parse_reason(text: &str) -> Outcome<DeadReason> {
    Ok(match text {
        "max_deliveries" => DeadReason::MaxDeliveries,
        "rejected" => DeadReason::Rejected,
        "expired" => DeadReason::Expired,
        "too_old" => DeadReason::TooOld,
        other => return Err(format!("no reason: {other}").into()),
    })
}

pub(super) fn options(words: &Words) -> Outcome<Option<Box<EnqueueOptions>>> {
    let mut options = EnqueueOptions::default();
    for (word, value) in words {
        match word.as_str() {
            "priority" => options.priority = value.parse()?,
            "key" => options.key = expand(value),
            "tenant" => options.tenant = expand(value),
            "delay" => options.delay_ms = value.parse()?,
            "at" => options.at_ms = value.parse()?,
            "ttl" => options.ttl_ms = value.parse()?,
            "dedup" => options.dedup_id = expand(value),
            "deaths" => options.max_deliveries = value.parse()?,
            "back_off" => options.back_off = Some(parse_back_off(value)?),
            other => return Err(format!("no option: {other}").into()),
        }
    }
    Ok((!words.is_empty()).then(|| Box::new(options)))
}

pub(super) fn policy(words: &Words) -> Outcome<Policy> {
    let mut policy = Policy::default();
    for (word, value) in words {
        match word.as_str() {
            "deaths" => policy.max_deliveries = value.parse()?,
            "back_off" => policy.back_off = parse_back_off(value)?,
            "visibility" => policy.visibility_ms = value.parse()?,
            "messages" => policy.messages_max = value.parse()?,
            "bytes" => policy.bytes_max = value.parse()?,
            "age" => policy.age_ms_max = value.parse()?,
            "overflow" if value == "drop" => policy.overflow = Overflow::DropOldest,
            "expired" if value == "bury" => policy.expired = Expired::Bury,
            "window" => policy.dedup_window_ms = value.parse()?,
            "ageing" => policy.ageing_ms = value.parse()?,
            "at_once" => policy.key_in_flight_max = value.parse()?,
            "fair" => policy.fair = value.parse()?,
            "weights" => {
                for weight in value.split_whitespace() {
                    let (tenant, weight) = weight.split_once(':').ok_or("a weight is TENANT:WEIGHT")?;
                    policy.weights.push(TenantWeight { tenant: tenant.into(), weight: weight.parse()? });
                }
            }
            "partitions" => policy.partitions = value.parse()?,
            other => return Err(format!("no part of a policy: {other}={value}").into()),
        }
    }
    Ok(policy)
}

pub(super) fn redrive(queue: String, words: &Words) -> Outcome<Redrive> {
    let mut redrive = Redrive { queue, ..Redrive::default() };
    let mut filter = RedriveFilter::default();
    for (word, value) in words {
        match word.as_str() {
            "count" => redrive.count_max = value.parse()?,
            "rate" => redrive.per_second = value.parse()?,
            "reason" => filter.reason = Some(parse_reason(value)?),
            "key" => filter.key = value.clone(),
            "tenant" => filter.tenant = value.clone(),
            "ids" => filter.ids = value.split_whitespace().map(str::parse).collect::<Result<_, _>>()?,
            other => return Err(format!("no part of a redrive: {other}").into()),
        }
    }
    redrive.filter = (filter != RedriveFilter::default()).then_some(filter);
    Ok(redrive)
}
