//! `trine queue push|pull|ack`: messages. A receipt has the form that REST uses, so either side can acknowledge.

use clap::Subcommand;
use serde_json::{Map, Value, json};
use trine_protocol::Response;
use trine_protocol::limits::BATCH_MAX;
use trine_protocol::lock::IfToken;
use trine_protocol::queue::{AckWhich, Delivery, Enqueue};

use crate::rest::receipt;

use super::client::{ClientArgs, text_member, value_or_input};
use super::{Exit, Failure, say};

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Puts a message at the end of a queue and prints its id.
    Push {
        queue: String,
        /// The message; standard input where it is left out.
        message: Option<String>,
        /// Only if this grant of a lock holds.
        #[arg(long, value_name = "LOCK:TOKEN", value_parser = super::lock::if_token)]
        if_token: Option<IfToken>,
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
        /// Acknowledge them once they are printed, and print no receipts.
        #[arg(long)]
        ack: bool,
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

impl QueueCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Push { queue, message, if_token, client } => {
                let enqueue =
                    Enqueue { queue: queue.clone(), body: value_or_input(message)?, if_token, ..Enqueue::default() };
                let Response::Enqueue(enqueued) = client.connect().await?.call(enqueue).await? else {
                    return Err(Failure::new(Exit::Failed, "the answer is none to an enqueue"));
                };
                client.answer(
                    enqueued.id.to_string(),
                    &json!({ "status": "enqueued", "queue": queue, "id": enqueued.id }),
                )
            }
            Self::Pull { queue, count, visibility_ms, ack, client } => {
                let connected = client.connect().await?;
                let deliveries = connected.dequeue(queue.as_str(), visibility_ms, count).await?.deliveries;
                if deliveries.is_empty() {
                    return Err(Failure::new(Exit::Nothing, format!("nothing in queue '{queue}' is ready")));
                }
                for delivery in deliveries {
                    say(&line(&delivery, client.json, ack))?;
                    if ack {
                        let which = AckWhich::Receipt { id: delivery.id, token: delivery.token };
                        connected.ack(queue.as_str(), which).await?;
                    }
                }
                Ok(Exit::Done)
            }
            Self::Ack { queue, receipt, message, client } => {
                let which = match (receipt, message) {
                    (Some(receipt), _) => match receipt::read(&receipt) {
                        Some((id, token)) => AckWhich::Receipt { id, token },
                        None => return Err(Failure::new(Exit::Usage, format!("'{receipt}' is no receipt"))),
                    },
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
