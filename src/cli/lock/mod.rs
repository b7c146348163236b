//! `trine lock`: locks for scripts and for people.
//!
//! What a write demands of a lock (`--if-token LOCK:TOKEN` of `trine queue` and `trine cache`) is read here too.
//!
//! `acquire`, `renew` and `release` are about a lock that is held by a name, not by this process: it stays when the command ends. `run` and
//! `elect` hold it as long as they run (`run`), and the rest looks, or ends what another holds (`look`).
//!
//! # Caveats
//! - Who acquires a lock here and is stopped before it passes the token on holds it until the lease ends.

mod look;
mod run;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use trine_protocol::client::Client;
use trine_protocol::client::lock::LockRequest;
use trine_protocol::limits::LEASE_MS_MAX;

use trine_protocol::limits::WAIT_MS_FOREVER;
use trine_protocol::lock::Granted;

use super::client::ClientArgs;
use super::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum LockCommand {
    /// Takes a lock and prints its fencing token; exit code 4 where it cannot be had.
    Acquire {
        #[command(flatten)]
        holder: Holder,
        #[command(flatten)]
        ask: Ask,
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
    /// Lists the locks that are held or waited for.
    Ls {
        /// What their names begin with.
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Says why a lock is as it is: who holds it and for how long, who waits behind whom, how the last holder ended. Or all that a client holds
    /// and waits for.
    Explain {
        /// The lock; with `--client`, left out.
        #[arg(required_unless_present = "of_client")]
        lock: Option<String>,
        /// What this client holds and waits for.
        #[arg(long = "client", value_name = "NAME", conflicts_with = "lock")]
        of_client: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Ends every grant of a lock, and prints a token above all that were given out.
    ForceRelease {
        /// The lock.
        lock: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Shows a token for a resource that keeps none itself; exit code 4 where a higher one was shown before.
    Fence {
        /// The resource, named as a lock of the same namespace.
        resource: String,
        /// The token.
        token: u64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Runs a command while it holds a lock, and ends it before the lock can be another's. The command finds TRINE_LOCK and TRINE_FENCING_TOKEN in its
    /// environment, and its exit code is this one's.
    Run(run::RunArgs),
    /// Stands for an election and says when it is won; or follows who leads.
    Elect(run::ElectArgs),
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

/// How a lock is asked for.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// Milliseconds to wait for it, or `forever`.
    #[arg(long = "wait-ms", value_name = "MS", default_value = "0", hide_default_value = true, value_parser = wait_ms)]
    wait_ms: u32,
    /// Share it with others who ask for it so.
    #[arg(long, conflicts_with = "permits")]
    shared: bool,
    /// Take COUNT permits of a semaphore that has OF.
    #[arg(long, value_name = "COUNT/OF", value_parser = permits)]
    permits: Option<(u32, u32)>,
    /// Another lock, in the same instant or not at all; may be given several times.
    #[arg(long = "and", value_name = "LOCK")]
    also: Vec<String>,
}

fn wait_ms(text: &str) -> Result<u32, String> {
    match text {
        "forever" => Ok(WAIT_MS_FOREVER),
        _ => text.parse().map_err(|error| format!("{error}; a number of milliseconds or `forever` is")),
    }
}

fn permits(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("'{text}' is no COUNT/OF, such as 1/3");
    let (count, of) = text.split_once('/').ok_or_else(wrong)?;
    Ok((count.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?))
}

/// A lock and a token, as a write demands them.
pub(super) fn if_token(text: &str) -> Result<trine_protocol::lock::IfToken, String> {
    let wrong = || format!("'{text}' is no LOCK:TOKEN, such as demo:17");
    let (lock, token) = text.rsplit_once(':').ok_or_else(wrong)?;
    Ok(trine_protocol::lock::IfToken { lock: lock.to_owned(), token: token.parse().map_err(|_| wrong())? })
}

impl Ask {
    /// The request, for a guard.
    fn request(&self, client: &Client, lock: &str, holder: &str, lease_ms: u32) -> LockRequest {
        let mut request = client.lock(lock).holder(holder).lease(Duration::from_millis(lease_ms.into()));
        if self.shared {
            request = request.shared();
        }
        if let Some((count, of)) = self.permits {
            request = request.permits(count, of);
        }
        if self.wait_ms != WAIT_MS_FOREVER {
            request = request.wait(Duration::from_millis(self.wait_ms.into()));
        }
        self.also.iter().fold(request, |request, lock| request.and(lock.as_str()))
    }

    /// A grant that this process does not keep.
    async fn acquire(&self, client: &Client, lock: &str, holder: &str, lease_ms: u32) -> Result<Granted, Failure> {
        let request = self.request(client, lock, holder, lease_ms).without_renewal();
        let guard = match self.wait_ms {
            0 => request.try_acquire().await?,
            _ => request.acquire().await?,
        };
        Ok(guard.keep())
    }
}

impl LockCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Acquire { holder, ask, lease, client } => {
                let name = holder.name();
                let connected = client.connect().await?;
                let granted = ask.acquire(&connected, &holder.lock, &name, lease.lease_ms).await?;
                grant(&client, "acquired", &holder.lock, &name, granted)
            }
            Self::Ls { prefix, client } => look::list(&client, &prefix).await,
            Self::Explain { lock: Some(lock), client, .. } => look::explain(&client, &lock).await,
            Self::Explain { lock: None, of_client, client } => {
                look::explain_client(&client, &of_client.unwrap_or_default()).await
            }
            Self::ForceRelease { lock, client } => look::force_release(&client, &lock).await,
            Self::Fence { resource, token, client } => look::fence(&client, &resource, token).await,
            Self::Run(args) => run::run(args).await,
            Self::Elect(args) => run::elect(args).await,
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
fn grant(client: &ClientArgs, status: &str, lock: &str, name: &str, granted: Granted) -> Result<Exit, Failure> {
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
