//! What the subcommands that are clients share: where the nodes are, how a value comes in, how an answer goes out.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::Value;
use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::limits::{DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, VALUE_BYTES_MAX};

use super::{Exit, Failure, say};

/// Where `trine up` puts its nodes, so that its user needs no argument.
const ENDPOINTS_DEFAULT: &str = "127.0.0.1:4101,127.0.0.1:4102,127.0.0.1:4103";

/// Arguments of every client.
#[derive(Clone, Debug, Args)]
pub(super) struct ClientArgs {
    /// Nodes, as host:port of their client address; the cache used is that of the first.
    #[arg(long, env = "TRINE_ENDPOINTS", value_delimiter = ',', default_value = ENDPOINTS_DEFAULT)]
    pub(super) endpoints: Vec<String>,
    /// Milliseconds until an answer is no longer waited for.
    #[arg(
        long,
        env = "TRINE_DEADLINE_MS",
        default_value_t = DEADLINE_MS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(DEADLINE_MS_MAX))
    )]
    deadline_ms: u32,
    /// The secret that the nodes ask for.
    #[arg(long, env = "TRINE_CREDENTIALS", hide_env_values = true, value_name = "SECRET")]
    credentials: Option<String>,
    /// Answer with one JSON object a line.
    #[arg(long)]
    pub(super) json: bool,
}

impl ClientArgs {
    /// The configuration of a client for these nodes.
    pub(super) fn config(&self, endpoints: Vec<String>) -> ClientConfig {
        let mut config = ClientConfig::new(endpoints);
        config.name = format!("trine-cli-{}", std::process::id());
        config.deadline = Duration::from_millis(self.deadline_ms.into());
        config.credentials = self.credentials.clone().map(Bytes::from).unwrap_or_default();
        config
    }

    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.config(self.endpoints.clone())).await?)
    }

    /// Prints an answer: the text, or with `--json` the object.
    pub(super) fn answer(&self, text: impl AsRef<[u8]>, json: &Value) -> Result<Exit, Failure> {
        if self.json {
            say(format!("{json}\n").as_bytes())?;
        } else {
            say(&[text.as_ref(), b"\n"].concat())?;
        }
        Ok(Exit::Done)
    }
}

/// A value from the command line, or from standard input where there is none.
pub(super) fn value_or_input(value: Option<String>) -> Result<Bytes, Failure> {
    if let Some(value) = value {
        return Ok(Bytes::from(value));
    }
    let mut bytes = Vec::new();
    // One byte more than may be, so that what is too long is seen to be, and not all of it kept.
    let read = std::io::stdin().lock().take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Exit::Failed, format!("standard input cannot be read: {error}")))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(Failure::new(
            Exit::Refused,
            format!("the value on standard input is over {VALUE_BYTES_MAX} bytes"),
        ));
    }
    Ok(Bytes::from(bytes))
}

/// Bytes as a JSON string; what is no UTF-8 is told apart by its name.
pub(super) fn text_member(name: &str, bytes: &[u8]) -> (String, Value) {
    use base64::Engine;
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.into()),
        Err(_) => (format!("{name}_base64"), base64::engine::general_purpose::STANDARD.encode(bytes).into()),
    }
}
