//! `trine queue`: messages and queues. A receipt has the form that REST uses, so either side can acknowledge.
//!
//! What concerns a delivery is here; what concerns a whole queue is in `whole`, and looking at one in `look`.

mod look;
mod whole;

use clap::Subcommand;
use serde_json::{Map, Value, json};
use trine_protocol::Response;
use trine_protocol::limits::BATCH_MAX;
use trine_protocol::limits::{PRIORITY_MAX, WAIT_MS_MAX};
use trine_protocol::lock::IfToken;
use trine_protocol::queue::{AckWhich, Delivery, Dequeue, Enqueue, EnqueueOptions, MessageState, Receipt};

use crate::rest::receipt;

use super::client::{ClientArgs, text_member, value_or_input};
use super::{Exit, Failure, say};

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Puts a message into a queue and prints its id.
    Push {
        queue: String,
        /// The message; standard input where it is left out.
        message: Option<String>,
        /// Only if this grant of a lock holds.
        #[arg(long, value_name = "LOCK:TOKEN", value_parser = super::lock::if_token)]
        if_token: Option<IfToken>,
        #[command(flatten)]
        options: PushOptions,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Takes messages from the front of a queue and prints a receipt and a message a line; exit code 3 where there is none.
    Pull {
        queue: String,
        /// At most so many messages.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX)))]
        count: u32,
        /// Milliseconds in which nobody else gets them.
        #[arg(long, default_value_t = 30_000)]
        visibility_ms: u32,
        /// Milliseconds to wait where nothing is ready.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(WAIT_MS_MAX)))]
        wait_ms: u32,
        /// Who takes them, for `explain` and `peek`.
        #[arg(long, default_value = "")]
        consumer: String,
        /// Acknowledge them once they are printed, and print no receipts.
        #[arg(long)]
        ack: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Gives a delivery back.
    Nack {
        queue: String,
        /// What `pull` printed.
        receipt: String,
        /// Milliseconds until it is ready again; the queue's back-off where it is left out.
        #[arg(long, conflicts_with = "reject")]
        delay_ms: Option<u32>,
        /// Why, for the message's history.
        #[arg(long, default_value = "")]
        reason: String,
        /// Nobody can digest it: it is dead.
        #[arg(long)]
        reject: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Starts the visibility timeout of a delivery anew.
    Extend {
        queue: String,
        /// What `pull` printed.
        receipt: String,
        /// Milliseconds from now.
        #[arg(long, default_value_t = 30_000)]
        visibility_ms: u32,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Lists all queues.
    Ls {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Tells all about a queue.
    Show {
        queue: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Looks at messages without taking them.
    Peek {
        queue: String,
        /// Which ones.
        #[arg(long, value_enum, default_value_t = State::Ready)]
        state: State,
        /// At most so many messages.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX)))]
        count: u32,
        /// Only those behind the message with this id.
        #[arg(long, default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Says why a queue, a message or a consumer does not move.
    Explain {
        queue: String,
        /// About the message with this id.
        #[arg(long, conflicts_with = "consumer")]
        message: Option<u64>,
        /// About this consumer.
        #[arg(long)]
        consumer: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Declares a queue, or gives it another policy.
    Declare(Box<whole::DeclareArgs>),
    /// Ends a declaration.
    Undeclare {
        queue: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Hands nothing out any more, or again.
    Pause {
        queue: String,
        /// Goes on.
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Takes nothing in any more, or again.
    Drain {
        queue: String,
        /// Goes on.
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Makes dead messages ready again.
    Redrive(whole::RedriveArgs),
    /// Removes messages.
    Purge {
        queue: String,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Yes, they are lost.
        #[arg(long)]
        accept_loss: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Acknowledges a delivery.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["receipt", "message"]))]
    Ack {
        queue: String,
        /// What `pull` printed.
        receipt: Option<String>,
        /// In place of the receipt: the oldest delivery with this body.
        #[arg(long)]
        message: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What may be special about a message.
#[derive(Debug, clap::Args)]
pub(super) struct PushOptions {
    /// A higher one is handed out first.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=i64::from(PRIORITY_MAX)))]
    priority: u8,
    /// Messages of one key are handed out in order, one after the other.
    #[arg(long, default_value = "")]
    key: String,
    /// Whose message it is, for a fair share.
    #[arg(long, default_value = "")]
    tenant: String,
    /// Milliseconds before it is handed out.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Milliseconds after which it expires, where nobody has it.
    #[arg(long, default_value_t = 0)]
    ttl_ms: u64,
    /// A second message with this id is not taken.
    #[arg(long, default_value = "")]
    dedup_id: String,
}

impl PushOptions {
    fn into_wire(self) -> EnqueueOptions {
        let Self { priority, key, tenant, delay_ms, ttl_ms, dedup_id } = self;
        EnqueueOptions { priority, key, tenant, delay_ms, ttl_ms, dedup_id, ..EnqueueOptions::default() }
    }
}

/// Where a message stands in its life.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum State {
    Ready,
    Delayed,
    InFlight,
    Dead,
}

impl State {
    fn to_wire(self) -> MessageState {
        match self {
            Self::Ready => MessageState::Ready,
            Self::Delayed => MessageState::Delayed,
            Self::InFlight => MessageState::InFlight,
            Self::Dead => MessageState::Dead,
        }
    }
}

fn read_receipt(receipt: &str) -> Result<Receipt, Failure> {
    match receipt::read(receipt) {
        Some((id, token)) => Ok(Receipt { id, token }),
        None => Err(Failure::new(Exit::Usage, format!("'{receipt}' is no receipt"))),
    }
}

impl QueueCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Push { queue, message, if_token, options, client } => {
                let (body, options) = (value_or_input(message)?, options.into_wire());
                let options = (options != EnqueueOptions::default()).then(|| Box::new(options));
                push(Enqueue { queue, body, if_token, options }, client).await
            }
            Self::Pull { queue, count, visibility_ms, wait_ms, consumer, ack, client } => {
                let dequeue = Dequeue { queue, visibility_ms, count_max: count, wait_ms, consumer };
                pull(dequeue, ack, client).await
            }
            Self::Nack { queue, receipt, delay_ms, reason, reject, client } => {
                let (receipt, connected) = (read_receipt(&receipt)?, client.connect().await?);
                let nacked = match reject {
                    true => connected.reject(queue.as_str(), receipt, reason).await?,
                    false => connected.nack(queue.as_str(), receipt, delay_ms, reason).await?,
                };
                let state = look::state_name(nacked.state);
                let json = json!({ "status": "given back", "queue": queue, "id": receipt.id, "state": state });
                client.answer(format!("given back {}, {state}", receipt.id), &json)
            }
            Self::Extend { queue, receipt, visibility_ms, client } => {
                let receipt = read_receipt(&receipt)?;
                client.connect().await?.extend(queue.as_str(), receipt, visibility_ms).await?;
                let json = json!({ "status": "extended", "queue": queue, "id": receipt.id });
                client.answer(format!("extended {}", receipt.id), &json)
            }
            Self::Ls { client } => look::list(&client).await,
            Self::Show { queue, client } => look::show(&client, &queue).await,
            Self::Peek { queue, state, count, after, client } => {
                look::peek(&client, &queue, state.to_wire(), after, count).await
            }
            Self::Explain { queue, message, consumer, client } => {
                look::explain(&client, &queue, message, consumer).await
            }
            Self::Declare(declare) => declare.run().await,
            Self::Undeclare { queue, client } => whole::undeclare(&client, &queue).await,
            Self::Pause { queue, off, client } => whole::pause(&client, &queue, off).await,
            Self::Drain { queue, off, client } => whole::drain(&client, &queue, off).await,
            Self::Redrive(redrive) => redrive.run().await,
            Self::Purge { queue, state, accept_loss, client } => {
                whole::purge(&client, &queue, state.map(State::to_wire), accept_loss).await
            }
            Self::Ack { queue, receipt, message, client } => {
                let which = match (receipt, message) {
                    (Some(receipt), _) => {
                        let Receipt { id, token } = read_receipt(&receipt)?;
                        AckWhich::Receipt { id, token }
                    }
                    (None, message) => AckWhich::Body(message.unwrap_or_default().into()),
                };
                let acked = client.connect().await?.ack(queue.as_str(), which).await?;
                client.answer(
                    format!("acknowledged {}", acked.id),
                    &json!({ "status": "acknowledged", "queue": queue, "id": acked.id }),
                )
            }
        }
    }
}

async fn push(enqueue: Enqueue, client: ClientArgs) -> Result<Exit, Failure> {
    let queue = enqueue.queue.clone();
    let Response::Enqueue(enqueued) = client.connect().await?.call(enqueue).await? else {
        return Err(Failure::new(Exit::Failed, "the answer is none to an enqueue"));
    };
    let status = if enqueued.duplicate { "duplicate" } else { "enqueued" };
    let mut json = json!({ "status": status, "queue": queue, "id": enqueued.id });
    if let (Some(reached), Value::Object(object)) = (enqueued.reached, &mut json) {
        object.insert("replicas".into(), reached.replicas.into());
        object.insert("flushed".into(), reached.flushed.into());
    }
    client.answer(enqueued.id.to_string(), &json)
}

async fn pull(dequeue: Dequeue, ack: bool, client: ClientArgs) -> Result<Exit, Failure> {
    let (connected, queue) = (client.connect().await?, dequeue.queue.clone());
    let deliveries = connected.dequeue_with(dequeue).await?.deliveries;
    if deliveries.is_empty() {
        return Err(Failure::new(Exit::Nothing, format!("nothing in queue '{queue}' is ready")));
    }
    for delivery in deliveries {
        say(&line(&delivery, client.json, ack))?;
        if ack {
            connected.ack(queue.as_str(), &delivery).await?;
        }
    }
    Ok(Exit::Done)
}

fn line(delivery: &Delivery, json: bool, ack: bool) -> Vec<u8> {
    let receipt = receipt::write(delivery.id, delivery.token);
    if json {
        let mut object = Map::from_iter([text_member("message", &delivery.body)]);
        object.insert("id".into(), delivery.id.into());
        object.insert("receipt".into(), receipt.into());
        object.insert("deliveries".into(), delivery.deliveries.into());
        return format!("{}\n", Value::Object(object)).into_bytes();
    }
    let receipt = if ack { String::new() } else { format!("{receipt}\t") };
    [receipt.as_bytes(), &delivery.body, b"\n"].concat()
}
