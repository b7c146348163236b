//! Nodes as they are run, in this process: real ports on loopback, real disks, real clients. What kills and cuts do to a
//! cluster is tested on processes of its own, in `tests/cluster`.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trine::config::{ServeArgs, ServeConfig};
use trine::server::{self, ServeError};
use trine_protocol::ErrorCode;
use trine_protocol::cache::{LineState, Source};
use trine_protocol::client::{Client, ClientConfig};
use trine_protocol::cluster::Role;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: ServeArgs,
}

/// The ports of a cluster, and where it keeps its data.
struct Plan {
    folder: tempfile::TempDir,
    /// Client, peer and HTTP port of each node.
    ports: Vec<[u16; 3]>,
}

/// A node that runs.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("a node drains in time");
        ended.expect("no panic").expect("no error");
    }
}

impl Plan {
    /// Ports that are free now. They are let go before the nodes take them, and nobody else looks for some in between.
    fn new(nodes: usize) -> Self {
        let free: Vec<TcpListener> = (0..3 * nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let ports = ports.chunks(3).map(|ports| [ports[0], ports[1], ports[2]]).collect();
        Self { folder: tempfile::tempdir().unwrap(), ports }
    }

    fn address(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.ports[number - 1][0])
    }

    fn config(&self, number: usize, more: &str) -> ServeConfig {
        let member = |(index, [client, peer, http]): (usize, &[u16; 3])| {
            format!("--member node{},127.0.0.1:{client},127.0.0.1:{peer},127.0.0.1:{http}", index + 1)
        };
        let members: Vec<String> = self.ports.iter().enumerate().map(member).collect();
        let data = self.data(number);
        let line = format!("serve --node node{number} --data-dir {data} {} {more}", members.join(" "));
        let line = <Line as clap::Parser>::try_parse_from(line.split_whitespace()).unwrap();
        ServeConfig::new(line.args).unwrap()
    }

    fn data(&self, number: usize) -> String {
        self.folder.path().join(format!("node{number}")).to_str().unwrap().to_owned()
    }

    fn start(&self, number: usize) -> Running {
        let stop = CancellationToken::new();
        let config = self.config(number, "--cluster-id 5eed");
        Running { task: tokio::spawn(server::run(config, stop.clone())), stop }
    }

    async fn client(&self, number: usize) -> Client {
        Client::connect(ClientConfig::new([self.address(number)])).await.expect("the node can be reached")
    }

    /// A client of a node, once the node is ready.
    async fn ready(&self, number: usize) -> Client {
        let ready = async {
            let client = self.client(number).await;
            while !client.status().await.unwrap().groups.iter().all(|group| group.ready) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            client
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("the node gets ready")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_serve_one_after_another_stop_and_come_back_with_all_they_had() {
    let plan = Plan::new(3);
    let mut nodes: Vec<Option<Running>> = (1..=3).map(|number| Some(plan.start(number))).collect();
    let clients = [plan.ready(1).await, plan.ready(2).await, plan.ready(3).await];

    let first = clients[0].enqueue("orders", "one").await.unwrap();
    let second = clients[1].enqueue("orders", "two").await.unwrap();
    assert!(first.id < second.id);
    let granted = clients[2].acquire("door", "me", 60_000).await.unwrap();
    assert_eq!(clients[0].acquire("door", "you", 60_000).await.unwrap_err().code, ErrorCode::LockHeld);

    clients[0].put("key", "new").await.unwrap();
    let read = clients[1].get("key").await.unwrap();
    assert_eq!((read.value.as_deref(), read.source), (Some(b"new".as_slice()), Source::MainMemory));
    let again = clients[1].get("key").await.unwrap();
    assert_eq!(
        (again.value.as_deref(), again.source, again.state),
        (read.value.as_deref(), Source::LocalCache, LineState::S)
    );
    clients[2].put("key", "newer").await.unwrap();
    assert_eq!(clients[1].get("key").await.unwrap().value.as_deref(), Some(b"newer".as_slice()), "no stale copy");

    // Each node in turn goes and comes back; at every moment the other two serve.
    for number in 1..=3 {
        nodes[number - 1].take().unwrap().stop().await;
        let other = &clients[number % 3];
        other.enqueue("orders", format!("while node{number} is away")).await.unwrap();
        assert_eq!(other.get("key").await.unwrap().value.as_deref(), Some(b"newer".as_slice()));
        nodes[number - 1] = Some(plan.start(number));
        plan.ready(number).await;
    }
    let taken = clients[0].dequeue("orders", 0, 10).await.unwrap().deliveries;
    let bodies: Vec<&[u8]> = taken.iter().map(|delivery| delivery.body.as_ref()).collect();
    let away = [1, 2, 3].map(|number| format!("while node{number} is away"));
    let expected: Vec<&[u8]> =
        [b"one".as_slice(), b"two"].into_iter().chain(away.iter().map(String::as_bytes)).collect();
    assert_eq!(bodies, expected);
    assert_eq!(clients[1].renew("door", "me", granted.token, 60_000).await.unwrap().token, granted.token);
    for node in nodes.into_iter().flatten() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_is_a_cluster() {
    let plan = Plan::new(1);
    let node = plan.start(1);
    let client = plan.ready(1).await;
    let status = client.status().await.unwrap();
    assert!(status.groups.iter().all(|group| group.role == Role::Leader), "{status:?}");
    let id = client.enqueue("q", "alone").await.unwrap().id;
    client.put("key", "value").await.unwrap();
    node.stop().await;
    let node = plan.start(1);
    let client = plan.ready(1).await;
    assert_eq!(client.dequeue("q", 0, 1).await.unwrap().deliveries[0].id, id);
    assert_eq!(client.get("key").await.unwrap().value.as_deref(), Some(b"value".as_slice()));
    node.stop().await;
}

async fn refusal(config: ServeConfig) -> String {
    let run = tokio::time::timeout(PATIENCE, server::run(config, CancellationToken::new()));
    run.await.expect("it does not start").unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_says_why_in_one_line() {
    let plan = Plan::new(1);
    let error = refusal(plan.config(1, "")).await;
    assert!(error.contains("--cluster-id"), "{error}");

    let taken = TcpListener::bind(("127.0.0.1", plan.ports[0][1])).unwrap();
    let elsewhere = plan.folder.path().join("elsewhere");
    let config = ServeConfig { data_dir: elsewhere.clone(), ..plan.config(1, "--cluster-id 5eed") };
    let error = refusal(config).await;
    assert!(error.contains(&plan.ports[0][1].to_string()) && error.contains("--port-offset"), "{error}");
    assert!(!Path::new(&elsewhere).exists(), "nothing is written before every port is bound");
    drop(taken);

    plan.start(1).stop().await;
    for (more, word) in [("--cluster-id beef", "beef"), ("--cluster-id 5eed --groups 5", "5"), ("", "")] {
        if more.is_empty() {
            // After the first start the cluster is known.
            let stop = CancellationToken::new();
            let running = Running { task: tokio::spawn(server::run(plan.config(1, ""), stop.clone())), stop };
            plan.ready(1).await;
            running.stop().await;
        } else {
            let error = refusal(plan.config(1, more)).await;
            assert!(error.contains(word) && error.contains("node1"), "{error}");
        }
    }
}
