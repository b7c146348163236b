//! `trine cache get|put|delete`: keys, through the cache of the first endpoint.

use clap::Subcommand;
use serde_json::{Map, Value, json};
use trine_protocol::cache::{Source, Version};

use super::client::{ClientArgs, text_member, value_or_input};
use super::{Exit, Failure};

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
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Removes a key.
    Delete {
        key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

impl CacheCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Get { key, client } => get(key, client).await,
            Self::Put { key, value, client } => {
                let value = value_or_input(value)?;
                let written = client.connect().await?.put(key.as_str(), value).await?;
                done(&client, "written", &key, written.version)
            }
            Self::Delete { key, client } => {
                let written = client.connect().await?.delete(key.as_str()).await?;
                done(&client, "deleted", &key, written.version)
            }
        }
    }
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
    object.insert("version".into(), spell(got.version).into());
    client.answer(value, &Value::Object(object))
}

fn done(client: &ClientArgs, status: &str, key: &str, version: Version) -> Result<Exit, Failure> {
    let version = spell(version);
    client.answer(
        format!("{status} {key}, version {version}"),
        &json!({ "status": status, "key": key, "version": version }),
    )
}

fn spell(version: Version) -> String {
    format!("{}.{}", version.epoch, version.count)
}
