//! The proof: a real cluster under load, a real Prometheus on our own configuration, and every query of every panel and every
//! alert rule asked of it.
//!
//! ```text
//!   load --> three nodes <-- scrape -- Prometheus (grafana/prometheus.yml, grafana/alerts.yml) <-- every query
//! ```
//!
//! A query must not be an error, must have an answer, and must at some moment have one that is not zero: a flat line
//! looks like health, and is most often a metric that nobody feeds. [`QUIET`] lists what a healthy run rightly leaves at zero.
//! In the middle of the run a node is told to end and comes back, for the panels that show just that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::grafana::{filled, panels, read};
use super::{load, rules};

/// How long the queries may take to be answered with something.
const PATIENCE: Duration = Duration::from_secs(120);
/// What stands for Grafana's `$__rate_interval`: several times the time between two scrapes.
const RATE_INTERVAL: &str = "8s";
/// Panels that show zeros in a run without faults, and why.
const QUIET: &[(&str, &str)] = &[
    ("Refused because full", "a queue has to be full"),
    ("Evictions", "a group's lines have to be more than 64 MiB"),
    ("Copies in clients", "no client of the run keeps copies"),
    ("Notices to clients", "no client of the run keeps copies"),
    ("Proposals refused", "a command has to meet a leader in the instant of a handover, or one whose followers hang"),
    ("Coherence violations", "there has to be a bug"),
    ("Writes lost", "a node has to be away, with a dirty line, for longer than its lease"),
    ("Bodies beside the log", "a backlog has to be more than the log keeps"),
    ("Snapshots installed", "a node has to be away for longer than the log is kept"),
    ("Committed and not applied", "a node applies what is committed at once, so a scrape seldom sees the difference"),
    ("Writes that wait for the log", "a scrape seldom meets a write that waits"),
];

/// A process that ends with this value.
struct Running(Child);

impl Running {
    /// Asks it to end, and waits until it has.
    async fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("our own child takes a signal");
        until("the end of a process", async || self.0.try_wait().expect("our own child")).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again and again until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}

/// Where each node listens: clients, peers, HTTP.
struct Cluster {
    ports: [[u16; 3]; 3],
    prometheus: u16,
}

impl Cluster {
    fn new() -> Self {
        let free: Vec<TcpListener> = (0..10).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let port = |index: usize| free[index].local_addr().expect("an address").port();
        let ports = [0, 3, 6].map(|first| [port(first), port(first + 1), port(first + 2)]);
        Self { ports, prometheus: port(9) }
    }

    fn start_node(&self, number: usize, folder: &Path) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trine"));
        command.args(["serve", "--cluster-id", "5eed", "--log", "error", "--node", &format!("node{number}")]);
        command.arg("--data-dir").arg(folder.join(format!("node{number}")));
        for (member, [client, peer, http]) in (1..).zip(&self.ports) {
            let member = format!("node{member},127.0.0.1:{client},127.0.0.1:{peer},127.0.0.1:{http}");
            command.args(["--member", &member]);
        }
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the binary starts"))
    }

    /// Starts Prometheus on our configuration, with this cluster's addresses and a scrape each second.
    fn start_prometheus(&self, folder: &Path) -> Running {
        let mut config = read("grafana/prometheus.yml").replace("_interval: 5s", "_interval: 1s");
        for (target, [_, _, http]) in ["node1:8000", "node2:8001", "node3:8002"].into_iter().zip(&self.ports) {
            assert!(config.contains(target), "{target} is scraped");
            config = config.replace(target, &format!("127.0.0.1:{http}"));
        }
        std::fs::write(folder.join("prometheus.yml"), config).expect("a file");
        std::fs::write(folder.join("alerts.yml"), read("grafana/alerts.yml")).expect("a file");
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(folder.join("prometheus.yml"));
        command.arg("--storage.tsdb.path").arg(folder.join("prometheus"));
        command.arg(format!("--web.listen-address=127.0.0.1:{}", self.prometheus)).arg("--log.level=warn");
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("Prometheus starts"))
    }

    /// An answer of Prometheus' HTTP API; None where it does not listen yet.
    async fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.prometheus)).await.ok()?;
        // The old version of HTTP, in which nothing comes in chunks.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }

    /// The values that a query has now.
    async fn values(&self, query: &str) -> Vec<f64> {
        let path = format!("/api/v1/query?query={}", utf8_percent_encode(query, NON_ALPHANUMERIC));
        let answer = self.ask(&path).await.unwrap_or_else(|| panic!("no answer to {query}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
        let value = |series: &Value| series["value"][1].as_str().and_then(|value| value.parse().ok());
        series.iter().map(|series| value(series).unwrap_or_else(|| panic!("{query}: {series}"))).collect()
    }
}

/// How far the queries have come: those without an answer yet, and those with nothing but zeros.
#[derive(Default)]
struct Missing {
    answer: BTreeMap<String, String>,
    value: BTreeMap<String, String>,
}

impl Missing {
    /// Every query of the panels, and what an alert's expression rests on: its selectors, for the expression itself has
    /// an answer only where something is wrong.
    fn all() -> Self {
        let mut missing = Self::default();
        for panel in panels() {
            let where_ = format!("'{}' of {}", panel.title, panel.dashboard);
            for query in panel.queries {
                let query = filled(&query, RATE_INTERVAL);
                if !QUIET.iter().any(|(title, _)| *title == panel.title) {
                    missing.value.insert(query.clone(), where_.clone());
                }
                missing.answer.insert(query, where_.clone());
            }
        }
        for alert in rules::alerts() {
            for selector in selectors(&alert.expression) {
                missing.answer.insert(format!("count({selector})"), alert.name.clone());
            }
        }
        missing
    }

    async fn look(&mut self, cluster: &Cluster) {
        let queries: BTreeSet<String> = self.answer.keys().chain(self.value.keys()).cloned().collect();
        for query in queries {
            let values = cluster.values(&query).await;
            // What is not a number is no point in a graph.
            if values.iter().any(|value| !value.is_nan()) {
                self.answer.remove(&query);
            }
            if values.iter().any(|value| !value.is_nan() && *value != 0.0) {
                self.value.remove(&query);
            }
        }
    }
}

/// The metrics of an expression, each with its braces.
fn selectors(expression: &str) -> Vec<String> {
    let mut selectors = Vec::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (at, _) in expression.match_indices("trine_").chain(expression.match_indices("up{")) {
        let rest = &expression[at..];
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        let braces = rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        selectors.push(braces.map_or(name.to_owned(), |(inside, _)| format!("{name}{{{inside}}}")));
    }
    selectors
}

#[test]
fn selectors_are_found_with_their_braces() {
    let expression = "sum by (node) (rate(trine_a_total{x=~\"y|z\"}[5m])) / trine_b > 0 and up{job=\"trine\"} == 0";
    assert_eq!(selectors(expression), ["trine_a_total{x=~\"y|z\"}", "trine_b", "up{job=\"trine\"}"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_every_alert_is_answered_by_a_real_prometheus() {
    if !rules::has("prometheus") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::new();
    let prometheus = cluster.start_prometheus(folder.path());
    let mut nodes: Vec<Running> = (1..=3).map(|number| cluster.start_node(number, folder.path())).collect();
    let up = async || {
        let up = async || {
            let answer = cluster.ask("/api/v1/query?query=sum(up)").await?;
            (answer["data"]["result"][0]["value"][1] == "3").then_some(())
        };
        until("three nodes that are scraped", up).await;
    };
    up().await;
    let loading = tokio::spawn(load::work(cluster.ports.map(|[client, _, _]| client)));

    let mut missing = Missing::all();
    let queries = missing.answer.len();
    missing.look(&cluster).await;
    // One node ends in good order, is away for some scrapes, and comes back.
    nodes.pop().expect("three nodes").stop().await;
    until("a scrape that misses it", async || {
        missing.look(&cluster).await;
        cluster.values("up == 0").await.first().map(|_| ())
    })
    .await;
    nodes.push(cluster.start_node(3, folder.path()));
    up().await;
    let done = async {
        while !missing.answer.is_empty() || !missing.value.is_empty() {
            missing.look(&cluster).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, done).await.is_ok();
    loading.abort();
    assert!(in_time, "without an answer: {:#?}\nalways zero: {:#?}", missing.answer, missing.value);
    println!("{queries} queries were answered");
    check_rules(&cluster).await;
    for node in nodes {
        node.stop().await;
    }
    prometheus.stop().await;
}

/// Prometheus has loaded every rule, has evaluated it without an error, and answers its expression.
async fn check_rules(cluster: &Cluster) {
    let answer = cluster.ask("/api/v1/rules").await.expect("an answer");
    let groups = answer["data"]["groups"].as_array().expect("groups");
    let loaded: BTreeMap<&str, &Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .map(|rule| (rule["name"].as_str().expect("a name"), rule))
        .collect();
    for alert in rules::alerts() {
        let rule = loaded.get(alert.name.as_str()).unwrap_or_else(|| panic!("{} is not loaded", alert.name));
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule}");
        cluster.values(&alert.expression).await;
    }
}
