//! `trine health`: whether nodes can serve all they are for, as an exit code.
//!
//! This is what a container's health check runs, as an image that holds little more than this binary has nothing else to
//! ask with. It differs from `trine status` in whom it asks: exactly the nodes that are named, and not the nodes that those
//! know of, so that one node is not called unwell because another one is.

use clap::Args;
use serde_json::json;
use trine_protocol::client::Client;
use trine_protocol::cluster::NodeStatus;

use super::client::ClientArgs;
use super::status::why_not_ready;
use super::{Exit, Failure};

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// Asks one node after the other, and ends with the first that is not ready.
pub(super) async fn run(args: HealthArgs) -> Result<Exit, Failure> {
    for endpoint in &args.client.endpoints {
        let status = ask(&args.client, endpoint).await?;
        if let Some(why) = why_not_ready(&status) {
            return Err(Failure::new(Exit::NotDone, format!("{} is not ready: {why}", status.node)));
        }
        let object = json!({ "node": status.node, "endpoint": endpoint, "ready": true });
        args.client.answer(format!("{} is ready", status.node), &object)?;
    }
    Ok(Exit::Done)
}

async fn ask(args: &ClientArgs, endpoint: &str) -> Result<NodeStatus, Failure> {
    Ok(Client::connect(args.config(vec![endpoint.to_owned()])).await?.status().await?)
}
