//! `trine cluster`: which nodes the cluster has, and who leads.
//!
//! A node that is to come runs already (`trine serve --join`), so its own status says its name, its addresses and its data
//! directory: an operator names one address. A change is one command of the log; the groups follow it by themselves, and
//! these commands wait until they have.
//!
//! # Invariants
//! - Whatever is interrupted here goes on in the cluster; the same command again waits for the rest of it.
//! - What would leave too few nodes is refused by the cluster, what would leave too few that *answer* is refused here: both say why.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use trine_protocol::client::Client;
use trine_protocol::cluster::{NewNode, NodeStanding, NodeStatus, Reshape, Reshaping, Role};
use trine_protocol::{Error, ErrorCode, Response};

use super::client::ClientArgs;
use super::status::{self, Answers, StatusArgs};
use super::{Exit, Failure};

/// How often a change is asked for again where the list of nodes had changed meanwhile.
const ATTEMPTS_MAX: u32 = 5;
/// Time between two looks at how far the groups are.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Says how the cluster stands, node by node; the same as `trine status`.
    Status(StatusArgs),
    /// Lets a node in that runs with --join: it takes entries, and votes nowhere yet.
    Add {
        /// The node's address for clients.
        address: String,
        /// Have it vote as soon as it has caught up.
        #[arg(long)]
        promote: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Lets a node that was added vote, and lead.
    Promote {
        /// Its name.
        node: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Takes all replicas away from a node. One that runs then ends by itself; one that is gone is forgotten.
    Remove {
        /// Its name.
        node: String,
        /// Do it although fewer nodes are left than there are replicas, or another node does not answer.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Puts a node in the place of another that is gone, or is to go.
    Replace {
        /// Name of the node that goes.
        node: String,
        /// Address for clients of the node that comes, which runs with --join; without it, the same node with a new data directory.
        address: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Hands the leadership of a group to one of its voters.
    Transfer {
        /// The group's number.
        group: u32,
        /// Name of the node that is to lead it.
        node: String,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Seconds until what is not through is left to go on by itself; 0 does not wait at all.
    #[arg(long, default_value_t = 120)]
    wait: u64,
    #[command(flatten)]
    client: ClientArgs,
}

impl ClusterCommand {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Status(args) => status::run(args).await,
            Self::Add { address, promote, wait } => wait.add(&address, promote).await,
            Self::Promote { node, wait } => wait.promote(&node).await,
            Self::Remove { node, force, wait } => wait.remove(&node, force).await,
            Self::Replace { node, address, wait } => wait.replace(&node, address).await,
            Self::Transfer { group, node, wait } => wait.transfer(group, &node).await,
        }
    }
}

impl Wait {
    async fn add(&self, address: &str, promote: bool) -> Result<Exit, Failure> {
        let new = self.newcomer(address).await?;
        let (node, client) = (new.node.clone(), self.client.connect().await?);
        let version = self.reshape(&client, Reshaping::Add(new)).await?;
        self.until(&client, version, |_| Ok(())).await?;
        if promote {
            return self.promote(&node).await;
        }
        self.say("added", &node, "it has caught up, and votes nowhere yet")
    }

    async fn promote(&self, node: &str) -> Result<Exit, Failure> {
        let client = self.client.connect().await?;
        let version = self.reshape(&client, Reshaping::Promote(node.into())).await?;
        self.until(&client, version, |_| Ok(())).await?;
        self.say("promoted", node, "it votes")
    }

    async fn remove(&self, node: &str, force: bool) -> Result<Exit, Failure> {
        let client = self.client.connect().await?;
        let (_, answers) = status::ask(&client, &self.client).await?;
        let silent: Vec<&str> =
            answers.iter().filter(|(name, it)| *name != node && it.is_err()).map(|(name, _)| name.as_str()).collect();
        if !force && !silent.is_empty() {
            let what = format!(
                "{} does not answer: without {node} too, a group could lose its majority; start it, replace it, or insist with --force",
                silent.join(", ")
            );
            return Err(Failure::new(Exit::Refused, what));
        }
        let version = self.reshape(&client, Reshaping::Remove { node: node.into(), force }).await?;
        self.let_go(&client, node, version).await?;
        self.say("removed", node, "nothing of the cluster is on it")
    }

    async fn replace(&self, node: &str, address: Option<String>) -> Result<Exit, Failure> {
        let client = self.client.connect().await?;
        let address = match address {
            Some(address) => address,
            None => {
                let listed = client.status().await?.nodes.into_iter().find(|it| it.node == node);
                listed.ok_or_else(|| Failure::new(Exit::Refused, format!("there is no node {node}")))?.client
            }
        };
        let by = self.newcomer(&address).await?;
        let new = by.node.clone();
        let version = self.reshape(&client, Reshaping::Replace { node: node.into(), by }).await?;
        if new == node {
            self.until(&client, version, |_| Ok(())).await?;
        } else {
            self.let_go(&client, node, version).await?;
        }
        self.say("replaced", node, &format!("{new} is in its place"))
    }

    async fn transfer(&self, group: u32, node: &str) -> Result<Exit, Failure> {
        let client = self.client.connect().await?;
        client.transfer(group, node).await?;
        let leads = |(name, status): (&String, &NodeStatus)| {
            let leader = |it: &&trine_protocol::cluster::GroupStatus| it.group == group && it.role == Role::Leader;
            (name == node && status.groups.iter().any(|it| leader(&it))).then_some(())
        };
        let done = |answers: &Answers| {
            let up = answers.iter().filter_map(|(name, it)| Some((name, it.as_ref().ok()?)));
            up.filter_map(leads).next().ok_or_else(|| format!("{node} to lead group {group}"))
        };
        self.until(&client, 0, done).await?;
        self.say("transferred", node, &format!("it leads group {group}"))
    }

    /// What a node that is to come says of itself.
    async fn newcomer(&self, address: &str) -> Result<NewNode, Failure> {
        let connected = Client::connect(self.client.config(vec![address.to_owned()])).await;
        let said = match connected {
            Ok(client) => client.status().await,
            Err(error) => Err(error),
        };
        let status = said.map_err(|error| {
            let what = format!("{address} must run before it is let in (`trine serve --join`): {error}");
            Failure::new(Exit::NotDone, what)
        })?;
        let own = status.nodes.iter().find(|it| it.node == status.node).cloned();
        let own =
            own.ok_or_else(|| Failure::new(Exit::Refused, format!("{address} does not say its own addresses")))?;
        let NodeStatus { node, incarnation, .. } = status;
        Ok(NewNode { node, incarnation, client: own.client, peer: own.peer, http: own.http })
    }

    async fn reshape(&self, client: &Client, change: Reshaping) -> Result<u64, Failure> {
        let mut at_version = client.status().await?.nodes_version;
        let mut attempts = 0;
        loop {
            attempts += 1;
            match client.call(Reshape { change: change.clone(), at_version: Some(at_version) }).await {
                Ok(Response::Reshape(reshaped)) => return Ok(reshaped.version),
                Ok(other) => return Err(Error::new(ErrorCode::Internal, format!("the answer is {other:?}")).into()),
                // The node that was asked lags behind, or somebody else was faster. What is refused will never happen, so it is asked anew.
                Err(error) if error.code == ErrorCode::VersionMismatch && attempts < ATTEMPTS_MAX => {
                    at_version = error.hint.parse().map_err(|_| Failure::from(error))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a node holds nothing, and has ended or was gone; then the others forget it.
    async fn let_go(&self, client: &Client, node: &str, version: u64) -> Result<(), Failure> {
        self.until(client, version, |answers| match answers.get(node) {
            Some(Ok(_)) => Err(format!("{node} to write back what it holds, and to end")),
            _ => Ok(()),
        })
        .await?;
        if self.wait > 0 {
            self.reshape(client, Reshaping::Forget(node.into())).await?;
        }
        Ok(())
    }

    /// Waits until every group is as the list of that version says, and `done` has nothing more to wait for.
    async fn until(
        &self,
        client: &Client,
        version: u64,
        done: impl Fn(&Answers) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let mut looks = self.wait * 1_000 / LOOK.as_millis() as u64;
        while looks > 0 {
            looks -= 1;
            let waits_for = match status::ask(client, &self.client).await {
                Ok((_, answers)) => settled(&answers, version).and_then(|()| done(&answers)),
                Err(failure) => Err(failure.line),
            };
            match waits_for {
                Ok(()) => return Ok(()),
                Err(what) if looks == 0 => {
                    return Err(Failure::new(
                        Exit::NotDone,
                        format!("under way, and goes on by itself; waits for {what}"),
                    ));
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
        Ok(())
    }

    fn say(&self, what: &str, node: &str, then: &str) -> Result<Exit, Failure> {
        let object = json!({ "status": what, "node": node });
        self.client.answer(format!("{what} {node}: {then}"), &object)
    }
}

/// Whether every group has a leader that knows the list, and finds its members as the list says.
///
/// # Errors
/// What is waited for.
fn settled(answers: &Answers, version: u64) -> Result<(), String> {
    let up: Vec<&NodeStatus> = answers.values().filter_map(|answer| answer.as_ref().ok()).collect();
    let groups = up.iter().map(|status| status.groups.len()).max().unwrap_or(0);
    for group in 0..groups {
        let views = up.iter().filter_map(|status| Some((*status, status.groups.get(group)?)));
        let leads = views.filter(|(_, view)| view.role == Role::Leader).max_by_key(|(_, view)| view.term);
        let Some((status, view)) = leads else { return Err(format!("group {group} to have a leader")) };
        if status.nodes_version < version {
            return Err(format!("{} to hear of the change", status.node));
        }
        if !view.change.is_empty() {
            return Err(format!("group {group}: {}", view.change));
        }
        let leaving = status.nodes.iter().filter(|node| node.standing == NodeStanding::Leaving);
        let holds = |name: &str| view.voters.iter().chain(&view.learners).any(|it| it.split('.').next() == Some(name));
        if let Some(node) = leaving.map(|node| &node.node).find(|name| holds(name)) {
            return Err(format!("group {group} to leave {node}"));
        }
    }
    Ok(())
}
