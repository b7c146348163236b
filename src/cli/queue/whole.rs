//! What concerns a whole queue: its policy, its flow, emptying it, and bringing dead messages back.

use clap::{Args, ValueEnum};
use serde_json::json;
use trine_protocol::limits::REDRIVE_MAX;
use trine_protocol::queue::{
    BackOff, DeadReason, Expired, Flow, MessageState, Overflow, Policy, Redrive, RedriveFilter, TenantWeight,
};

use super::super::client::ClientArgs;
use super::super::{Exit, Failure};

/// A policy, field by field.
#[derive(Debug, Args)]
pub(in crate::cli) struct DeclareArgs {
    queue: String,
    /// A message is dead after so many deliveries; 0 for never.
    #[arg(long, default_value_t = 0)]
    max_deliveries: u32,
    /// How long a message waits that was given back: MS, or FIRST_MS:MAX_MS for one that doubles, or FIRST_MS:MAX_MS:JITTER_PERCENT.
    #[arg(long, value_name = "MS", value_parser = back_off)]
    back_off: Option<BackOff>,
    /// Visibility timeout where a consumer names none.
    #[arg(long, default_value_t = 0)]
    visibility_ms: u32,
    /// Messages that it holds at most.
    #[arg(long, default_value_t = 0)]
    messages_max: u64,
    /// Bytes that it holds at most.
    #[arg(long, default_value_t = 0)]
    bytes_max: u64,
    /// Age at which a message that waits expires.
    #[arg(long, default_value_t = 0)]
    age_ms_max: u64,
    /// A message too many makes the oldest go, and is not refused.
    #[arg(long)]
    drop_oldest: bool,
    /// What expires is dead and not gone.
    #[arg(long)]
    bury_expired: bool,
    /// For how long the id of a message is remembered.
    #[arg(long, default_value_t = 0)]
    dedup_window_ms: u32,
    /// A message that waits rises by one priority in so many milliseconds.
    #[arg(long, default_value_t = 0)]
    ageing_ms: u32,
    /// Messages of one key that may be in flight at once; 1 where it is 0.
    #[arg(long, default_value_t = 0)]
    key_in_flight_max: u32,
    /// Tenants take turns.
    #[arg(long)]
    fair: bool,
    /// How often a tenant's turn comes, in proportion to the others: TENANT=WEIGHT.
    #[arg(long = "weight", value_name = "TENANT=WEIGHT", value_parser = weight, requires = "fair")]
    weights: Vec<TenantWeight>,
    /// The queue is so many queues, in as many groups.
    #[arg(long, default_value_t = 0)]
    partitions: u32,
    #[command(flatten)]
    client: ClientArgs,
}

fn back_off(text: &str) -> Result<BackOff, String> {
    let numbers = text.split(':').map(str::parse).collect::<Result<Vec<u32>, _>>();
    match numbers.map_err(|error| format!("'{text}' is no back-off: {error}"))?[..] {
        [ms] => Ok(BackOff::Fixed { ms }),
        [first_ms, max_ms] => Ok(BackOff::Exponential { first_ms, max_ms, jitter_percent: 0 }),
        [first_ms, max_ms, jitter_percent] => Ok(BackOff::Exponential { first_ms, max_ms, jitter_percent }),
        _ => Err(format!("'{text}' has more than three numbers")),
    }
}

fn weight(text: &str) -> Result<TenantWeight, String> {
    let (tenant, weight) = text.rsplit_once('=').ok_or_else(|| format!("'{text}' is not TENANT=WEIGHT"))?;
    let weight = weight.parse().map_err(|error| format!("'{weight}' is no weight: {error}"))?;
    Ok(TenantWeight { tenant: tenant.to_owned(), weight })
}

impl DeclareArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let Self { queue, client, .. } = &self;
        let policy = Policy {
            max_deliveries: self.max_deliveries,
            back_off: self.back_off.unwrap_or_default(),
            visibility_ms: self.visibility_ms,
            messages_max: self.messages_max,
            bytes_max: self.bytes_max,
            age_ms_max: self.age_ms_max,
            overflow: if self.drop_oldest { Overflow::DropOldest } else { Overflow::Reject },
            expired: if self.bury_expired { Expired::Bury } else { Expired::Drop },
            dedup_window_ms: self.dedup_window_ms,
            ageing_ms: self.ageing_ms,
            key_in_flight_max: self.key_in_flight_max,
            fair: self.fair,
            weights: self.weights.clone(),
            partitions: self.partitions,
        };
        let connected = client.connect().await?;
        if policy.partitions > 1 {
            let partitioned = connected.declare_partitioned(queue.as_str(), policy).await?;
            let names = partitioned.names();
            return client
                .answer(names.join("\n"), &json!({ "status": "declared", "queue": queue, "partitions": names }));
        }
        let made = connected.declare(queue.as_str(), policy).await?.made;
        client.answer("declared", &json!({ "status": "declared", "queue": queue, "made": made }))
    }
}

pub(super) async fn undeclare(client: &ClientArgs, queue: &str) -> Result<Exit, Failure> {
    if !client.connect().await?.undeclare(queue).await?.was_declared {
        return Err(Failure::new(Exit::Nothing, format!("nobody has declared queue '{queue}'")));
    }
    client.answer("undeclared", &json!({ "status": "undeclared", "queue": queue }))
}

pub(super) async fn pause(client: &ClientArgs, queue: &str, off: bool) -> Result<Exit, Failure> {
    set_flow(client, queue, if off { Flow::Open } else { Flow::Paused }).await
}

pub(super) async fn drain(client: &ClientArgs, queue: &str, off: bool) -> Result<Exit, Failure> {
    set_flow(client, queue, if off { Flow::Open } else { Flow::Draining }).await
}

async fn set_flow(client: &ClientArgs, queue: &str, flow: Flow) -> Result<Exit, Failure> {
    client.connect().await?.set_flow(queue, flow).await?;
    let name = super::look::flow_name(flow);
    client.answer(name, &json!({ "status": name, "queue": queue }))
}

pub(super) async fn purge(
    client: &ClientArgs,
    queue: &str,
    state: Option<MessageState>,
    accept_loss: bool,
) -> Result<Exit, Failure> {
    if !accept_loss {
        let what = "the messages would be lost: say --accept-loss if that is meant";
        return Err(Failure::new(Exit::Usage, what));
    }
    let connected = client.connect().await?;
    let mut all = 0_u64;
    loop {
        let purged = connected.purge(queue, state).await?;
        all += u64::from(purged.messages);
        if !purged.more {
            return client
                .answer(format!("purged {all}"), &json!({ "status": "purged", "queue": queue, "messages": all }));
        }
    }
}

/// Why a message is dead.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reason {
    MaxDeliveries,
    Rejected,
    Expired,
    TooOld,
}

/// Which dead messages come back, and how fast.
#[derive(Debug, Args)]
pub(in crate::cli) struct RedriveArgs {
    queue: String,
    /// Only those that are dead for this reason.
    #[arg(long, value_enum)]
    reason: Option<Reason>,
    /// Only those with this key.
    #[arg(long, default_value = "")]
    key: String,
    /// Only those of this tenant.
    #[arg(long, default_value = "")]
    tenant: String,
    /// Only these.
    #[arg(long = "id")]
    ids: Vec<u64>,
    /// At most so many.
    #[arg(long, default_value_t = REDRIVE_MAX, value_parser = clap::value_parser!(u32).range(1..=i64::from(REDRIVE_MAX)))]
    count: u32,
    /// So many in a second; all at once where it is 0.
    #[arg(long, default_value_t = 0)]
    per_second: u32,
    #[command(flatten)]
    client: ClientArgs,
}

impl RedriveArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let Self { queue, reason, key, tenant, ids, count, per_second, client } = self;
        let reason = reason.map(|reason| match reason {
            Reason::MaxDeliveries => DeadReason::MaxDeliveries,
            Reason::Rejected => DeadReason::Rejected,
            Reason::Expired => DeadReason::Expired,
            Reason::TooOld => DeadReason::TooOld,
        });
        let filter = RedriveFilter { reason, key, tenant, ids };
        let filter = (filter != RedriveFilter::default()).then_some(filter);
        let redrive = Redrive { queue: queue.clone(), filter, count_max: count, per_second };
        let redriven = client.connect().await?.redrive(redrive).await?;
        let more = if redriven.more { ", and there are more" } else { "" };
        client.answer(
            format!("redriven {}{more}", redriven.messages),
            &json!({ "status": "redriven", "queue": queue, "messages": redriven.messages, "more": redriven.more }),
        )
    }
}
