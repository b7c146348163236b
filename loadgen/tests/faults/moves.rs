//! Nodes come and go by plan: three become four, five, and three again, and every one of the first three is replaced.

use std::path::Path;
use std::time::Duration;

use crate::cluster::{Process, alone, endpoints, free_offset, says_yes, until};
use crate::generator::{Generator, longest};

/// For how long rounds are begun; everything has moved before.
const DURATION: &str = if cfg!(debug_assertions) { "60s" } else { "40s" };
/// The longest that a client may wait for one answer: what is promised for the release build, and what an unoptimised one has to reach on a
/// machine that runs other tests too.
const PAUSE: Duration = if cfg!(debug_assertions) { Duration::from_secs(5) } else { Duration::from_secs(1) };
/// Nodes there ever are.
const NODES: u16 = 6;

/// Starts a node, numbered from 1; `joins` where it was not there at the beginning.
fn serve(folder: &Path, offset: u16, node: u16, joins: bool) -> Process {
    let member = |node: u16| {
        let [client, peer, http] = [4101, 4201, 9000].map(|family| family + offset + node - 1);
        ["--member".to_owned(), format!("node{node},127.0.0.1:{client},127.0.0.1:{peer},127.0.0.1:{http}")]
    };
    let mut arguments =
        ["serve", "--node", &format!("node{node}"), "--cluster-id", "0123456789abcdef"].map(str::to_owned).to_vec();
    arguments.extend((1..=3).flat_map(member));
    for family in [7000, 8000, 9000] {
        arguments.extend(["--listen-http".to_owned(), format!("127.0.0.1:{}", family + offset + node - 1)]);
    }
    arguments.extend(["--data-dir".to_owned(), format!("node{node}")]);
    if joins {
        arguments.extend(member(node));
        arguments.push("--join".to_owned());
    }
    let process = Process::trine(folder, &format!("node{node}"), &arguments);
    until(&format!("node{node} runs"), || says_yes(offset, node - 1, "/healthz").then_some(()));
    process
}

/// Runs `trine cluster` with these words, which waits until the groups have followed.
fn operate(folder: &Path, offset: u16, words: &[&str]) {
    let mut arguments = vec!["cluster".to_owned()];
    arguments.extend(words.iter().map(|word| (*word).to_owned()));
    arguments.extend(["--endpoints".to_owned(), endpoints(offset, NODES).join(",")]);
    let status = Process::trine(folder, "operate", &arguments).ended(&words.join(" "));
    let printed = std::fs::read_to_string(folder.join("operate.log")).unwrap_or_default();
    println!("trine cluster {}: {}", words.join(" "), printed.trim());
    assert!(status.success(), "{words:?}: {printed}");
}

#[test]
fn nothing_is_lost_and_nobody_waits_long_while_every_node_is_replaced() {
    let _machine = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let offset = free_offset([16_200, 16_210, 16_220, 16_230]);
    let mut nodes: Vec<Process> = (1..=3).map(|node| serve(folder, offset, node, false)).collect();
    until("the cluster is ready", || (0..3).all(|node| says_yes(offset, node, "/readyz")).then_some(()));
    let mut generator = Generator::start(&endpoints(offset, NODES), DURATION);
    let address = |node: u16| format!("127.0.0.1:{}", 4100 + offset + node);
    for node in [4, 5] {
        nodes.push(serve(folder, offset, node, true));
        operate(folder, offset, &["add", &address(node), "--promote"]);
    }
    for node in [1, 2] {
        operate(folder, offset, &["remove", &format!("node{node}")]);
        assert!(nodes[node - 1].ended("a node that is taken out ends by itself").success());
    }
    nodes.push(serve(folder, offset, 6, true));
    operate(folder, offset, &["replace", "node3", &address(6)]);
    assert!(nodes[2].ended("a node that is replaced ends by itself").success());
    assert!(generator.is_running(), "the load ended before everything had moved");
    let json = generator.finish();
    let waited = longest(&json, &["enqueue", "dequeue", "ack", "acquire", "release"]);
    let cache_waited = longest(&json, &["get hit", "get miss", "put"]);
    println!("longest wait {waited:?}, of the cache {cache_waited:?}; {}", json["notes"]);
    assert!(waited.max(cache_waited) < PAUSE, "a client waited {waited:?}, {cache_waited:?}: {json}");
}
