//! `trine lock acquire|release|renew|show`. A lock taken here is held by a name, not by this process: it stays when the command ends.

use clap::{Args, Subcommand};
use serde_json::json;
use trine_protocol::limits::LEASE_MS_MAX;

use super::client::ClientArgs;
use super::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum LockCommand {
    /// Takes a lock and prints its fencing token; exit code 4 where anyone holds it.
    Acquire {
        #[command(flatten)]
        holder: Holder,
        #[command(flatten)]
        lease: Lease,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Gives a lock back; exit code 3 where nobody holds it, 4 where another client does.
    Release {
        #[command(flatten)]
        holder: Holder,
        /// Release this grant only, not a later one.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        token: u64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Says who holds a lock, as new as if it had gone through the log; exit code 3 where nobody does.
    Show {
        /// The lock.
        lock: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Starts the lease of a held lock anew.
    Renew {
        #[command(flatten)]
        holder: Holder,
        /// The token that `acquire` printed.
        #[arg(long)]
        token: u64,
        #[command(flatten)]
        lease: Lease,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct Holder {
    /// The lock. What stands before the first `/` is its namespace.
    lock: String,
    /// Who takes it; without this and without TRINE_CLIENT, the user's name.
    #[arg(long = "client", env = "TRINE_CLIENT", value_name = "NAME")]
    name: Option<String>,
}

impl Holder {
    fn name(&self) -> String {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        self.name.clone().or_else(user).unwrap_or_else(|| "cli".into())
    }
}

#[derive(Debug, Args)]
pub(super) struct Lease {
    /// Milliseconds after which the lock is free.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(LEASE_MS_MAX)))]
    lease_ms: u32,
}

impl LockCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Acquire { holder, lease, client } => {
                let name = holder.name();
                let connected = client.connect().await?;
                let granted = connected.acquire(holder.lock.as_str(), name.as_str(), lease.lease_ms).await?;
                grant(&client, "acquired", &holder.lock, &name, granted)
            }
            Self::Renew { holder, token, lease, client } => {
                let name = holder.name();
                let connected = client.connect().await?;
                let granted = connected.renew(holder.lock.as_str(), name.as_str(), token, lease.lease_ms).await?;
                grant(&client, "renewed", &holder.lock, &name, granted)
            }
            Self::Show { lock, client } => {
                let inspected = client.connect().await?.inspect(lock.as_str()).await?;
                if inspected.client.is_empty() {
                    return Err(Failure::new(Exit::Nothing, format!("nobody holds lock '{lock}'")));
                }
                let object = json!({ "lock": lock, "client": inspected.client, "fencing_token": inspected.token });
                client.answer(format!("{} {}", inspected.token, inspected.client), &object)
            }
            Self::Release { holder, token, client } => {
                let released = client.connect().await?.release(holder.lock.as_str(), holder.name(), token).await?;
                if !released.was_held {
                    return Err(Failure::new(Exit::Nothing, format!("nobody holds lock '{}'", holder.lock)));
                }
                let object = json!({ "status": "released", "lock": holder.lock });
                client.answer(format!("released {}", holder.lock), &object)
            }
        }
    }
}

/// The token alone: what a script puts into a variable.
fn grant(
    client: &ClientArgs,
    status: &str,
    lock: &str,
    name: &str,
    granted: trine_protocol::lock::Granted,
) -> Result<Exit, Failure> {
    client.answer(
        granted.token.to_string(),
        &json!({
            "status": status,
            "lock": lock,
            "client": name,
            "fencing_token": granted.token,
            "fencing_token_str": granted.token.to_string(),
            "lease_ms": granted.lease_ms,
        }),
    )
}
