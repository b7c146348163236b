//! A cluster of real processes on this machine, and what a test does with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::cluster::{GroupStatus, NodeStatus, Role};
use trine_protocol::queue::Delivery;

use crate::http;
use crate::ports::Offset;
use crate::process::Process;
use crate::wait;

/// Nodes of every cluster here.
pub(crate) const NODES: usize = 3;
/// Groups of every cluster here: the default.
pub(crate) const GROUPS: u32 = 3;
/// From the start of three processes to the last `/readyz`. Seconds on an idle machine; the rest is for a busy one.
const READY: Duration = Duration::from_secs(30);
/// To the first answer to a call of a test, all takeovers included.
const CALL: Duration = Duration::from_secs(10);
/// Of the clusters that are started as single nodes.
pub(crate) const CLUSTER_ID: &str = "00000000000000aa";

/// Clusters take turns: see the head of `main.rs`.
static MACHINE: Mutex<()> = Mutex::new(());

/// A place for a cluster: its ports, its folder, and the machine for itself.
#[derive(Debug)]
pub(crate) struct Place {
    offset: Offset,
    folder: TempDir,
    _machine: MutexGuard<'static, ()>,
}

impl Place {
    pub(crate) fn take() -> Self {
        // A test that failed has ended its processes all the same.
        let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { offset: Offset::take(), folder: tempfile::tempdir().expect("a folder"), _machine: machine }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address of node `node` (from 1) in a family of ports: 4101, 4201, 7000, 8000 or 9000.
    pub(crate) fn address(&self, family: u16, node: usize) -> SocketAddr {
        let node = u16::try_from(node - 1).expect("a handful of nodes");
        SocketAddr::from(([127, 0, 0, 1], family + self.offset.get() + node))
    }

    /// Whether nobody listens on any port of this place.
    pub(crate) fn ports_are_free(&self) -> bool {
        self.offset.is_free()
    }

    /// Starts `trine up` here, in the folder of this place.
    pub(crate) fn up(&self, more: &[&str]) -> Process {
        let mut arguments = vec!["up".to_owned(), "--port-offset".to_owned(), self.offset.get().to_string()];
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        Process::start(self.folder(), "up", &arguments)
    }

    /// The data directory of a node that [`Place::serve`] starts.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.folder().join(format!("node{node}"))
    }

    /// The arguments of `trine serve` for a node of three.
    pub(crate) fn serve_arguments(&self, node: usize) -> Vec<String> {
        let mut arguments = vec!["serve".to_owned(), "--node".to_owned(), format!("node{node}")];
        for member in 1..=NODES {
            let [client, peer, http] = [4101, 4201, 9000].map(|family| self.address(family, member));
            arguments.extend(["--member".to_owned(), format!("node{member},{client},{peer},{http}")]);
        }
        for family in [7000, 8000, 9000] {
            arguments.extend(["--listen-http".to_owned(), self.address(family, node).to_string()]);
        }
        arguments.extend(["--data-dir".to_owned(), self.data(node).display().to_string()]);
        arguments.extend(["--cluster-id".to_owned(), CLUSTER_ID.to_owned()]);
        arguments
    }

    /// Starts `trine serve` for a node of three.
    pub(crate) fn serve(&self, node: usize) -> Process {
        Process::start(self.folder(), &format!("serve-{node}"), &self.serve_arguments(node))
    }

    /// Waits until these nodes say that they can serve.
    pub(crate) async fn ready(&self, nodes: &[usize]) {
        for node in nodes {
            let address = self.address(8000, *node);
            wait::until(&format!("/readyz of node{node}"), READY, async || {
                http::get(address, "/readyz").is_ok_and(|answer| answer.status == 200).then_some(())
            })
            .await;
        }
    }

    /// A client that talks to one node only and repeats nothing by itself: what the node says is what the test sees.
    pub(crate) async fn client(&self, node: usize) -> Client {
        let config = ClientConfig { retry: false, session: false, ..self.config(&[node]) };
        Client::connect(config).await.expect("a connection")
    }

    /// A client as applications use it, which knows these nodes.
    pub(crate) async fn patient_client(&self, nodes: &[usize]) -> Client {
        let config = ClientConfig { deadline: CALL, ..self.config(nodes) };
        Client::connect(config).await.expect("a connection")
    }

    fn config(&self, nodes: &[usize]) -> ClientConfig {
        ClientConfig::new(nodes.iter().map(|node| self.address(4101, *node).to_string()))
    }

    /// What a node says of itself; None where it does not answer.
    pub(crate) async fn status(&self, node: usize) -> Option<NodeStatus> {
        let deadline = Duration::from_millis(500);
        let config = ClientConfig { retry: false, session: false, deadline, ..self.config(&[node]) };
        Client::connect(config).await.ok()?.status().await.ok()
    }

    /// What a node says of one group.
    pub(crate) async fn group(&self, node: usize, group: u32) -> Option<GroupStatus> {
        self.status(node).await?.groups.into_iter().find(|status| status.group == group)
    }

    /// The node among these that leads the group; the one of the newest term, where two think so.
    pub(crate) async fn leader_among(&self, nodes: &[usize], group: u32) -> usize {
        wait::until(&format!("a leader of group {group}"), CALL, async || {
            let mut found: Option<(u64, usize)> = None;
            for node in nodes {
                let Some(status) = self.group(*node, group).await else { continue };
                if status.role == Role::Leader {
                    found = found.max(Some((status.term, *node)));
                }
            }
            found.map(|(_, node)| node)
        })
        .await
    }

    /// The node that leads the group.
    pub(crate) async fn leader(&self, group: u32) -> usize {
        self.leader_among(&[1, 2, 3], group).await
    }
}

/// Three nodes, each a `trine serve` of its own, so that each can be killed and started alone.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Process>,
    pub(crate) place: Place,
}

impl Cluster {
    /// Starts three nodes and waits until all are ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more arguments for each.
    pub(crate) async fn start_with(more: &[&str]) -> Self {
        let place = Place::take();
        let serve = |node| {
            let mut arguments = place.serve_arguments(node);
            arguments.extend(more.iter().map(|text| (*text).to_owned()));
            Process::start(place.folder(), &format!("serve-{node}"), &arguments)
        };
        let cluster = Self { nodes: (1..=NODES).map(serve).collect(), place };
        cluster.place.ready(&[1, 2, 3]).await;
        cluster
    }

    /// The process of a node, from 1.
    pub(crate) fn node(&mut self, node: usize) -> &mut Process {
        &mut self.nodes[node - 1]
    }

    /// Starts a node anew, on the data that it has; the old process must have ended.
    pub(crate) fn restart(&mut self, node: usize) {
        assert!(self.nodes[node - 1].exit_status().is_some(), "node{node} still runs");
        self.nodes[node - 1] = self.place.serve(node);
    }
}

/// The nodes beside one.
pub(crate) fn others(node: usize) -> Vec<usize> {
    (1..=NODES).filter(|other| *other != node).collect()
}

/// Takes and acknowledges all messages of a queue, in the order in which they come.
pub(crate) async fn drain(client: &Client, queue: &str) -> Vec<Delivery> {
    let mut all = Vec::new();
    loop {
        let deliveries = client.dequeue(queue, 60_000, 50).await.expect("a dequeue").deliveries;
        if deliveries.is_empty() {
            return all;
        }
        for delivery in deliveries {
            client.ack(queue, &delivery).await.expect("an acknowledgement");
            all.push(delivery);
        }
    }
}

/// The bodies of messages, as text.
pub(crate) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8_lossy(&delivery.body).into_owned()).collect()
}

/// The first of `prefix-0`, `prefix-1`... that fits.
pub(crate) fn name_where(prefix: &str, fits: impl Fn(&str) -> bool) -> String {
    (0..10_000).map(|number| format!("{prefix}-{number}")).find(|name| fits(name)).expect("one of many names")
}
