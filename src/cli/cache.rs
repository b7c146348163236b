//! `trine cache`: keys, through the cache of the first endpoint.

use clap::Subcommand;
use serde_json::{Map, Value, json};
use trine_protocol::Response;
use trine_protocol::cache::{OnlyIf, Put, Source, Version};
use trine_protocol::lock::IfToken;

use super::client::{ClientArgs, text_member, value_or_input};
use super::{Exit, Failure, explain};

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Prints the value of a key; exit code 3 where there is none.
    Get {
        key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Writes a key.
    Put {
        key: String,
        /// The value; standard input where it is left out.
        value: Option<String>,
        /// Only if the key does not exist.
        #[arg(long, conflicts_with = "if_version")]
        if_absent: bool,
        /// Only if the key exists with this version, as `get --json` prints it.
        #[arg(long, value_name = "VERSION", value_parser = version)]
        if_version: Option<Version>,
        /// Milliseconds after which the key is deleted by itself.
        #[arg(long, value_name = "MS", default_value_t = 0)]
        ttl_ms: u64,
        /// Acknowledged when a majority has it, not when the node's own disk has.
        #[arg(long)]
        through: bool,
        /// What the value is, such as text/plain.
        #[arg(long, value_name = "TYPE", default_value = "")]
        content_type: String,
        /// Only if this grant of a lock holds; acknowledged when a majority has it.
        #[arg(long, value_name = "LOCK:TOKEN", value_parser = super::lock::if_token)]
        if_token: Option<IfToken>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Removes a key.
    Delete {
        key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Adds to the number that a key holds, and prints the sum.
    Add {
        key: String,
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Lists the keys that begin with a prefix, all where there is none.
    Ls {
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Says what every node knows of a key: its state, who has copies, what it waits for, and what it went through.
    Explain {
        key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Gives up what a dead node acknowledged and did not write back, so that nobody waits for it any more.
    Evacuate {
        /// Its name.
        node: String,
        /// Yes, what only that node has is lost.
        #[arg(long)]
        accept_loss: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Removes every key that begins with a prefix.
    DeletePrefix {
        prefix: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

impl CacheCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Get { key, client } => get(key, client).await,
            Self::Put { key, value, if_absent, if_version, ttl_ms, through, content_type, if_token, client } => {
                let only_if = match if_version {
                    Some(version) => OnlyIf::Version(version),
                    None if if_absent => OnlyIf::Absent,
                    None => OnlyIf::Anything,
                };
                let value = value_or_input(value)?;
                let put = Put { key: key.clone(), value, only_if, ttl_ms, through, content_type, fill: 0, if_token };
                let Response::Put(written) = client.connect().await?.call(put).await? else {
                    return Err(Failure::new(Exit::Failed, "the answer is none to a put"));
                };
                done(&client, "written", &key, written.version)
            }
            Self::Delete { key, client } => {
                let written = client.connect().await?.delete(key.as_str()).await?;
                done(&client, "deleted", &key, written.version)
            }
            Self::Add { key, by, client } => {
                let added = client.connect().await?.add(key.as_str(), by).await?;
                let version = added.version.to_string();
                client.answer(added.sum.to_string(), &json!({ "key": key, "sum": added.sum, "version": version }))
            }
            Self::Ls { prefix, client } => {
                let keys = list(&client, &prefix).await?;
                client.answer(keys.join("\n"), &json!({ "keys": keys }))
            }
            Self::Explain { key, client } => explain::explain(&client, &key).await,
            Self::Evacuate { node, accept_loss, client } => explain::evacuate(&client, &node, accept_loss).await,
            Self::DeletePrefix { prefix, client } => {
                let deleted = client.connect().await?.delete_prefix(prefix.as_str()).await?.deleted;
                client.answer(
                    format!("deleted {deleted} keys that begin with {prefix}"),
                    &json!({ "prefix": prefix, "deleted": deleted }),
                )
            }
        }
    }
}

/// The keys of all groups, in order.
async fn list(client: &ClientArgs, prefix: &str) -> Result<Vec<String>, Failure> {
    let connected = client.connect().await?;
    let mut keys = Vec::new();
    for group in 0..connected.ring().groups() {
        let mut after = String::new();
        loop {
            let page = connected.list_keys(group, prefix, after).await?;
            after = page.keys.last().cloned().unwrap_or_default();
            keys.extend(page.keys);
            if !page.more {
                break;
            }
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// A version as it is printed: epoch, dot, count.
fn version(text: &str) -> Result<Version, String> {
    let wrong = || format!("'{text}' is no version: an epoch, a dot and a count, such as 300.2");
    let (epoch, count) = text.split_once('.').ok_or_else(wrong)?;
    Ok(Version { epoch: epoch.parse().map_err(|_| wrong())?, count: count.parse().map_err(|_| wrong())? })
}

async fn get(key: String, client: ClientArgs) -> Result<Exit, Failure> {
    let got = client.connect().await?.get(key.as_str()).await?;
    let Some(value) = got.value else {
        return Err(Failure::new(Exit::Nothing, format!("no key '{key}'")));
    };
    let source = match got.source {
        Source::LocalCache => "local_cache",
        Source::MainMemory => "main_memory",
    };
    let mut object = Map::from_iter([("key".to_owned(), key.into()), text_member("value", &value)]);
    object.insert("state".into(), format!("{:?}", got.state).into());
    object.insert("source".into(), source.into());
    object.insert("version".into(), got.version.to_string().into());
    client.answer(value, &Value::Object(object))
}

fn done(client: &ClientArgs, status: &str, key: &str, version: Version) -> Result<Exit, Failure> {
    let version = version.to_string();
    client.answer(
        format!("{status} {key}, version {version}"),
        &json!({ "status": status, "key": key, "version": version }),
    )
}
