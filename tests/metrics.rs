//! Every metric of the table is there on a running node, and the ones that work leaves a trace in have one. Metrics belong to
//! a process, so the nodes are processes of their own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trine::metrics::{Kind, TABLE};
use trine_protocol::ErrorCode;
use trine_protocol::client::{Client, ClientConfig, Subscription, SubscriptionConfig};
use trine_protocol::queue::{EnqueueOptions, MessageState, Overflow, Policy, Redrive};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node's process; killed with the test, however that ends.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    fn start(number: usize, members: &[String], folder: &std::path::Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trine"));
        command.args([
            "serve",
            "--cluster-id",
            "5eed",
            "--log",
            "warn",
            "--node",
            &format!("node{number}"),
            "--data-dir",
        ]);
        command.arg(folder.join(format!("node{number}")));
        for member in members {
            command.args(["--member", member]);
        }
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the binary starts"))
    }

    /// Asks it to stop, and waits for its exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).expect("it runs");
        self.0.wait().expect("it ends").code()
    }
}

/// Sum over all labels of every metric in Prometheus' text form.
fn sums(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("trine_")) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        let name = name.split('{').next().expect("there is a first part");
        *sums.entry(name.to_owned()).or_default() += value.parse::<f64>().expect("a number");
    }
    sums
}

async fn scrape(port: u16) -> BTreeMap<String, f64> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: trine\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    sums(&text)
}

/// A client of a node, once the node is ready.
async fn ready(port: u16) -> Client {
    let mut config = ClientConfig::new([format!("127.0.0.1:{port}")]);
    config.deadline = PATIENCE;
    let client = Client::connect(config).await.expect("the node can be reached");
    while !client.status().await.unwrap().groups.iter().all(|group| group.ready) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client
}

async fn work(client: &Client, other_node: &Client) {
    for key in ["a", "b", "c", "d", "e", "f"] {
        client.put(key, "value").await.unwrap();
        client.get(key).await.unwrap();
        // A copy elsewhere, which the next write has to take; and a second write, which is local.
        other_node.get(key).await.unwrap();
        client.put(key, "newer").await.unwrap();
        client.put(key, "newest").await.unwrap();
        client.get(format!("{key}-absent")).await.unwrap();
        client.enqueue(key, "waits").await.unwrap();
        client.enqueue(key, "is taken").await.unwrap();
        client.dequeue(key, 60_000, 1).await.unwrap();
        client.acquire(format!("{key}/lock"), "me", 60_000).await.unwrap();
        let other = format!("{key}/other");
        let token = client.acquire(&other, "me", 60_000).await.unwrap().token;
        client.renew(&other, "me", token, 60_000).await.unwrap();
        client.acquire(&other, "you", 60_000).await.unwrap_err();
        // One waits and is granted it, one is gone before, and the holder would wait for itself.
        let wait = |holder: &str| client.lock(&other).holder(holder).wait(Duration::from_millis(50));
        assert_eq!(wait("late").acquire().await.unwrap_err().code, ErrorCode::LockTimeout);
        assert_eq!(wait("me").acquire().await.unwrap_err().code, ErrorCode::Deadlock);
        client.fence(&other, token).await.unwrap();
        let waiting = tokio::spawn(client.lock(&other).holder("next").acquire());
        while client.explain_lock(&other).await.unwrap().waiters_total == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        client.release(&other, "me", token).await.unwrap();
        waiting.await.unwrap().unwrap().release().await.unwrap();
    }
    // Somebody waits for as long as the test looks.
    let held = client.acquire("a/lock", "you", 60_000).await.unwrap_err();
    assert_eq!(held.code, ErrorCode::LockHeld);
    let waiting = client.clone();
    tokio::spawn(async move { waiting.lock("a/lock").holder("for ever").acquire().await });
    client.acquire("forced", "me", 60_000).await.unwrap();
    client.force_release("forced").await.unwrap();
    for _ in 0..2 {
        // Acknowledged by nobody the first time, so it comes again.
        client.enqueue("slow", "comes again").await.unwrap();
        let mut delivered = client.dequeue("slow", 100, 1).await.unwrap().deliveries;
        while delivered.iter().all(|delivery| delivery.deliveries < 2) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            delivered = client.dequeue("slow", 100, 1).await.unwrap().deliveries;
        }
        client.ack("slow", &delivered[0]).await.unwrap();
    }
    client.acquire("forgotten", "me", 1).await.unwrap();
}

/// Everything that a queue counts, with one message left delayed and one dead, and a subscription that waits.
async fn work_of_queues(client: &Client) -> Subscription {
    let once = || EnqueueOptions { dedup_id: "once".into(), delay_ms: 3_600_000, ..EnqueueOptions::default() };
    client.enqueue_with("special", "later", once()).await.unwrap();
    assert!(client.enqueue_with("special", "later", once()).await.unwrap().duplicate);
    client.enqueue_with("short", "expires", EnqueueOptions { ttl_ms: 1, ..EnqueueOptions::default() }).await.unwrap();
    for _ in 0..2 {
        client.enqueue("poison", "dies").await.unwrap();
    }
    let dies = client.dequeue("poison", 60_000, 2).await.unwrap().deliveries;
    client.extend("poison", &dies[0], 60_000).await.unwrap();
    for delivery in &dies {
        client.reject("poison", delivery, "no JSON").await.unwrap();
    }
    client.redrive(Redrive { queue: "poison".into(), count_max: 1, ..Redrive::default() }).await.unwrap();
    client.purge("poison", Some(MessageState::Ready)).await.unwrap();
    let full = Policy { messages_max: 1, ..Policy::default() };
    client.declare("full", full.clone()).await.unwrap();
    client.enqueue("full", "first").await.unwrap();
    let impatient = tokio::time::timeout(Duration::from_millis(300), client.enqueue("full", "second")).await;
    assert!(impatient.is_err(), "it is refused, and tried again: {impatient:?}");
    client.declare("full", Policy { overflow: Overflow::DropOldest, ..full }).await.unwrap();
    client.enqueue("full", "third").await.unwrap();
    client.purge("full", None).await.unwrap();
    client.subscribe("nothing", SubscriptionConfig::new("consumer")).unwrap()
}

#[tokio::test]
async fn every_metric_is_there_and_what_is_worked_with_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let free: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    drop(free);
    let address = |index: usize| format!("127.0.0.1:{}", ports[index]);
    let member = |number: usize| {
        let first = 3 * (number - 1);
        format!("node{number},{},{},{}", address(first), address(first + 1), address(first + 2))
    };
    let members = [member(1), member(2)];
    let nodes = [Node::start(1, &members, folder.path()), Node::start(2, &members, folder.path())];
    let client = tokio::time::timeout(PATIENCE, ready(ports[0])).await.expect("the node gets ready");
    let other_node = tokio::time::timeout(PATIENCE, ready(ports[3])).await.expect("the node gets ready");
    work(&client, &other_node).await;
    let subscription = work_of_queues(&client).await;
    // Gauges of groups are looked at about once a second.
    let fed = async {
        loop {
            let mut sums = scrape(ports[2]).await;
            for (name, value) in scrape(ports[5]).await {
                *sums.entry(name).or_default() += value;
            }
            let gauges = ["trine_locks_held", "trine_queue_ready", "trine_queue_in_flight"].map(|name| sums[name]);
            // Both nodes apply every entry, and each says so.
            let counted = [
                "trine_queue_polls",
                "trine_queue_expired_total",
                "trine_cache_write_backs_total",
                "trine_cache_coherence_checks_total",
            ];
            if gauges == [12.0; 3] && counted.iter().all(|name| sums[*name] > 0.0) {
                return sums;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let sums = tokio::time::timeout(PATIENCE, fed).await.expect("the gauges are set");
    drop(subscription);
    // What leaves no trace in a few seconds of a healthy cluster.
    let quiet = [
        "trine_refused_total",
        "trine_requests_in_flight",
        "trine_peer_dropped_total",
        "trine_log_waiting",
        "trine_state_fsync_seconds",
        "trine_state_checkpoints_total",
        "trine_snapshots_installed_total",
        "trine_raft_peer_lag_entries",
        "trine_raft_proposals_refused_total",
        "trine_cache_dirty_lines",
        "trine_cache_dirty_bytes",
        "trine_cache_oldest_dirty_seconds",
        "trine_queue_disk_bytes",
        "trine_queue_live_bytes",
        "trine_cache_evictions_total",
        "trine_cache_client_copies",
        "trine_cache_copy_notices_total",
        "trine_cache_writes_lost_total",
        "trine_cache_coherence_violations_total",
        "trine_bus_lease_lapses_total",
    ];
    for metric in TABLE {
        let name = match metric.kind {
            Kind::Histogram => format!("{}_count", metric.name),
            _ => metric.name.to_owned(),
        };
        match (sums.get(&name), quiet.contains(&metric.name)) {
            (None, _) => panic!("{name} is in the table and not on the page"),
            (Some(value), false) => assert!(*value > 0.0, "{name} is not fed"),
            _ => {}
        }
    }
    for name in sums.keys() {
        let known = |metric: &trine::metrics::Metric| {
            let rest = name.strip_prefix(metric.name);
            rest.is_some_and(|rest| {
                rest.is_empty() || metric.kind == Kind::Histogram && ["_bucket", "_sum", "_count"].contains(&rest)
            })
        };
        assert!(TABLE.iter().any(known), "{name} is on the page and not in the table");
    }
    assert_eq!(nodes.map(Node::stop), [Some(0), Some(0)]);
}
