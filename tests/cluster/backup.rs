//! A backup that is made under load, and the cluster that is made from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use trine_protocol::ErrorCode;
use trine_protocol::cache::LineState;
use trine_protocol::client::Client;
use trine_protocol::queue::Delivery;

use crate::cluster::{CLUSTER_ID, GROUPS, NODES, Place, bodies, drain, name_where};
use crate::load::Load;
use crate::process::Process;
use crate::wait;

/// A backup, or a restore: seconds on an idle machine.
const COMMAND: Duration = Duration::from_secs(60);
/// A lease, and a visibility timeout, that outlasts the test.
const LONG_MS: u32 = 3_600_000;

/// Runs `trine` with these words; the exit code, and what it printed.
fn trine(place: &Place, name: &str, words: &[String]) -> (i32, String) {
    let log = place.folder().join(format!("{name}.log"));
    let _ = std::fs::remove_file(&log);
    let begun = wait::now();
    let mut process = Process::start(place.folder(), name, words);
    let status = process.exit_within(COMMAND);
    println!("trine {}: {:?} {}", words[0], begun.elapsed(), process.printed().trim());
    (status.code().unwrap_or(-1), process.printed())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn backup(place: &Place, file: &Path, nodes: &[usize]) -> (i32, String) {
    let endpoints: Vec<String> = nodes.iter().map(|node| place.address(4101, *node).to_string()).collect();
    let file = file.display().to_string();
    trine(place, "backup", &words(&["backup", &file, "--json", "--endpoints", &endpoints.join(",")]))
}

/// The line of JSON among what was printed.
fn object(printed: &str) -> Value {
    let line = printed.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON: {printed}"));
    serde_json::from_str(line).expect("JSON")
}

fn restored_data(place: &Place, node: usize) -> PathBuf {
    place.folder().join(format!("restored{node}"))
}

/// Nodes whose dirty lines stay dirty until somebody asks for them.
fn serve(place: &Place, node: usize) -> Process {
    let mut arguments = place.serve_arguments(node);
    arguments.extend(words(&["--dirty-ms-max", "3600000"]));
    Process::start(place.folder(), &format!("serve-{node}"), &arguments)
}

/// `--member` for each node.
fn members(place: &Place) -> Vec<String> {
    let all = place.serve_arguments(1);
    let at = all.iter().position(|word| word == "--member").expect("members");
    all[at..at + 2 * NODES].to_vec()
}

fn restore(place: &Place, file: &Path, node: usize) -> (i32, String) {
    let (file, data) = (file.display().to_string(), restored_data(place, node).display().to_string());
    let mut arguments = words(&["restore", &file, "--json", "--node", &format!("node{node}"), "--data-dir", &data]);
    arguments.extend(members(place));
    trine(place, "restore", &arguments)
}

/// A node of the cluster that was restored; it says its cluster's id by itself.
fn serve_restored(place: &Place, node: usize) -> Process {
    let mut arguments = place.serve_arguments(node);
    let id = arguments.iter().position(|word| word == "--cluster-id").expect("a cluster id");
    arguments.drain(id..id + 2);
    let data = arguments.iter().position(|word| word == "--data-dir").expect("a directory");
    arguments[data + 1] = restored_data(place, node).display().to_string();
    Process::start(place.folder(), &format!("restored-{node}"), &arguments)
}

/// A queue's name of each group.
fn queues(client: &Client, prefix: &str) -> Vec<String> {
    let ring = client.ring();
    (0..GROUPS).map(|group| name_where(prefix, |name| ring.group_of_queue(name) == group)).collect()
}

/// What a cluster is given before its backup, in each of its groups, and must have after a restore.
struct Kept {
    /// Of messages that wait.
    queues: Vec<String>,
    /// Of one message that is being processed, and one that waits.
    flights: Vec<String>,
    deliveries: Vec<Delivery>,
    locks: Vec<String>,
    tokens: Vec<u64>,
    /// Of the messages in each of `queues`, in order.
    bodies: Vec<String>,
}

impl Kept {
    async fn give(place: &Place) -> Self {
        let client = place.patient_client(&[1, 2, 3]).await;
        let ring = client.ring();
        let lock = |group| name_where("space", |name| ring.group_of_lock(&format!("{name}/held")) == group) + "/held";
        let mut kept = Self {
            queues: queues(&client, "kept"),
            flights: queues(&client, "flight"),
            deliveries: Vec::new(),
            locks: (0..GROUPS).map(lock).collect(),
            tokens: Vec::new(),
            // Large ones among them: a copy has several parts.
            bodies: (0..50).map(|it| if it % 20 == 7 { "x".repeat(900_000) } else { it.to_string() }).collect(),
        };
        for ((queue, flight), lock) in kept.queues.iter().zip(&kept.flights).zip(&kept.locks) {
            for body in &kept.bodies {
                client.enqueue(queue, body.clone()).await.expect("an enqueue");
            }
            client.enqueue(flight, "being processed").await.expect("an enqueue");
            client.enqueue(flight, "waits").await.expect("an enqueue");
            kept.deliveries.extend(client.dequeue(flight, LONG_MS, 1).await.expect("a dequeue").deliveries);
            kept.tokens.push(client.acquire(lock, "holder", LONG_MS).await.expect("a grant").token);
        }
        for node in 1..=NODES {
            let writer = place.patient_client(&[node]).await;
            writer.put(format!("of-node{node}"), "old").await.expect("a write");
            // Now it is the owner: the second write is on its own disk only, and stays there.
            writer.put(format!("of-node{node}"), "newest").await.expect("a write");
            let got = writer.get(format!("of-node{node}")).await.expect("a read");
            assert_eq!(got.state, LineState::M);
            writer.put(format!("gone-{node}"), "old").await.expect("a write");
            writer.delete(format!("gone-{node}")).await.expect("a deletion");
        }
        kept
    }

    /// Queues and locks are as they were; what is granted now has a greater token than `highest`, and is of generation 1.
    async fn is_there(&self, client: &Client, highest: u64) {
        for group in 0..GROUPS as usize {
            let found = bodies(&drain(client, &self.queues[group]).await);
            assert!(found == self.bodies, "messages of group {group}");
            // Who processes a message goes on: nobody else gets it, and the old receipt ends it.
            assert_eq!(bodies(&drain(client, &self.flights[group]).await), ["waits"]);
            let acked = client.ack(&self.flights[group], &self.deliveries[group]).await;
            acked.expect("the receipt of before the backup");
            let (lock, token) = (&self.locks[group], self.tokens[group]);
            let holder = client.inspect(lock).await.expect("a look");
            assert_eq!((holder.client.as_str(), holder.token), ("holder", token));
            let refused = client.acquire(lock, "another", LONG_MS).await.expect_err("it is held");
            assert_eq!(refused.code, ErrorCode::LockHeld);
            client.release(lock, "holder", token).await.expect("the holder gives it back");
            let token = client.acquire(lock, "another", LONG_MS).await.expect("a grant").token;
            assert!(token > highest && token >> 48 == 1, "{token} after {highest}");
        }
    }

    /// The cache has what was written last, and nobody who is away owns it.
    async fn is_cached(place: &Place) {
        for node in 1..=NODES {
            let reader = place.patient_client(&[node % NODES + 1]).await;
            let got = reader.get(format!("of-node{node}")).await.expect("nobody owns it");
            assert_eq!(got.value.as_deref(), Some(b"newest".as_slice()), "the value that was dirty on node{node}");
            assert_eq!(reader.get(format!("gone-{node}")).await.expect("a read").value, None);
            reader.put(format!("of-node{node}"), "written anew").await.expect("a write");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_backup_is_there_after_a_restore() {
    let place = Place::take();
    let file = place.folder().join("cluster.bak");
    let mut old: Vec<Process> = (1..=NODES).map(|node| serve(&place, node)).collect();
    place.ready(&[1, 2, 3]).await;
    let kept = Kept::give(&place).await;
    let mut load = Load::start(&place, &[2, 1, 3], 0).await;
    load.advance(50).await;
    let enqueued = load.enqueues.values();
    let (code, printed) = backup(&place, &file, &[1, 2, 3]);
    assert_eq!(code, 0, "{printed}");
    let made = object(&printed);
    assert_eq!((made["status"].as_str(), made["generation"].as_u64()), (Some("complete"), Some(0)), "{made}");
    load.advance(5).await;
    load.stop().await;
    let highest = kept.tokens.iter().chain(&load.grants.values()).max().copied().expect("a grant");
    assert!(!place.folder().join("cluster.bak.partial").exists());
    let (code, printed) = backup(&place, &file, &[1]);
    assert!(code == 1 && printed.contains("is there already"), "{code} {printed}");
    for node in &mut old {
        node.kill();
    }

    let mut cluster_ids = Vec::new();
    for node in 1..=NODES {
        let (code, printed) = restore(&place, &file, node);
        assert_eq!(code, 0, "{printed}");
        let made = object(&printed);
        assert_eq!(made["generation"], 1);
        cluster_ids.push(made["cluster_id"].as_str().expect("an id").to_owned());
    }
    assert!(cluster_ids.iter().all(|id| *id == cluster_ids[0] && id != CLUSTER_ID), "{cluster_ids:?}");
    let mut new: Vec<Process> = (1..=NODES).map(|node| serve_restored(&place, node)).collect();
    place.ready(&[1, 2, 3]).await;
    let client = place.patient_client(&[1, 2, 3]).await;
    kept.is_there(&client, highest).await;
    Kept::is_cached(&place).await;
    let found: Vec<u64> = bodies(&drain(&client, &load.queue).await).iter().filter_map(|it| it.parse().ok()).collect();
    assert!(found.starts_with(&enqueued), "{} of {} messages", found.len(), enqueued.len());
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "twice, or out of order");

    // A node of the old cluster, with its old directory, in the place of one of the new one.
    new[0].kill();
    let stranger = serve(&place, 1);
    wait::until("the refusal of a node of the old cluster", COMMAND, async || {
        stranger.printed().contains("WrongCluster").then_some(())
    })
    .await;
    let status = place.status(2).await.expect("it answers");
    assert_eq!(format!("{:016x}", status.cluster_id), cluster_ids[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_without_a_node_says_what_may_be_missing() {
    let place = Place::take();
    let file = place.folder().join("cluster.bak");
    let mut nodes: Vec<Process> = (1..=NODES).map(|node| serve(&place, node)).collect();
    place.ready(&[1, 2, 3]).await;
    let writer = place.patient_client(&[3]).await;
    for number in 0..10 {
        for value in ["old", "newest"] {
            writer.put(format!("key-{number}"), value).await.expect("a write");
        }
    }
    nodes[2].kill();
    for group in 0..GROUPS {
        place.leader_among(&[1, 2], group).await;
    }
    let (code, printed) = backup(&place, &file, &[1, 2]);
    let made = object(&printed);
    assert!(code == 7 && printed.contains("node3 did not write its dirty cache lines back"), "{code} {printed}");
    assert_eq!(made["status"], "incomplete");
    assert_eq!((made["missing"][0]["node"].as_str(), made["missing"][0]["keys"].as_u64()), (Some("node3"), Some(10)));
    // It is a backup all the same, and says so again when it is used.
    for node in 1..=NODES {
        let (code, printed) = restore(&place, &file, node);
        assert!(code == 0 && printed.contains("lacks the last cache writes of node3"), "{code} {printed}");
    }
    for node in &mut nodes {
        node.kill();
    }
    let _new: Vec<Process> = (1..=NODES).map(|node| serve_restored(&place, node)).collect();
    place.ready(&[1, 2, 3]).await;
    let client = place.patient_client(&[1]).await;
    for number in 0..10 {
        let got = client.get(format!("key-{number}")).await.expect("nobody is away");
        assert_eq!(got.value.as_deref(), Some(b"old".as_slice()));
    }
}

/// Every file below a folder, with its bytes.
fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push((path.clone(), std::fs::read(path).expect("a file"))),
            }
        }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_and_a_directory_in_use_are_refused_and_nothing_is_touched() {
    let place = Place::take();
    let file = place.folder().join("one.bak");
    let mut up = place.up(&["--nodes", "1"]);
    place.ready(&[1]).await;
    let client = place.patient_client(&[1]).await;
    client.put("kept", "a value").await.expect("a write");
    let first = client.acquire("lock", "holder", 1_000).await.expect("a grant").token;
    let (code, printed) = backup(&place, &file, &[1]);
    assert_eq!(code, 0, "{printed}");
    drop(client);
    up.signal(rustix::process::Signal::TERM);
    up.exit_within(COMMAND);

    let whole = std::fs::read(&file).expect("the backup");
    let damaged = place.folder().join("damaged.bak");
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 1;
    let longer = [&whole[..], b"x"].concat();
    for (bytes, at) in [(&flipped[..], middle), (&whole[..middle], middle), (&longer[..], whole.len())] {
        std::fs::write(&damaged, bytes).expect("a file");
        for more in [&["restore", "--check"][..], &["backup", "--verify"], &["restore", "--data-dir", "made"]] {
            let mut arguments = words(more);
            arguments.insert(1, damaged.display().to_string());
            let (code, printed) = trine(&place, "damaged", &arguments);
            let range = printed.split("bytes ").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or_default();
            let (from, to) = range.split_once(" to ").unwrap_or_else(|| panic!("no range: {printed}"));
            let (from, to): (usize, usize) = (from.parse().expect("a number"), to.parse().expect("a number"));
            assert!(code == 1 && from <= at && at <= to, "{code} {printed}");
        }
    }
    assert!(!place.folder().join("made").exists(), "nothing is made from a damaged file");

    let data = place.folder().join("trine-data");
    let before = listing(&data);
    let name = file.display().to_string();
    let node = ["--node", "node1", "--data-dir", "trine-data/node1/data"];
    for more in [&[][..], &node] {
        let mut arguments = words(&["restore", &name]);
        arguments.extend(words(more));
        if !more.is_empty() {
            arguments.extend(members(&place));
        }
        let (code, printed) = trine(&place, "refused", &arguments);
        assert!(code == 1 && printed.contains("not empty"), "{code} {printed}");
        assert!(listing(&data) == before, "a directory that is refused stays as it is");
    }
    // Twice: a backup of what was restored raises the generation again.
    let mut last = first;
    for generation in 1..=2 {
        let data = format!("data-{generation}");
        let (code, printed) =
            trine(&place, "restore", &words(&["restore", &name, "--nodes", "1", "--data-dir", &data]));
        assert!(code == 0 && printed.contains(&format!("generation {generation}")), "{code} {printed}");
        let mut up = place.up(&["--nodes", "1", "--data-dir", &data]);
        place.ready(&[1]).await;
        let client = place.patient_client(&[1]).await;
        assert_eq!(client.get("kept").await.expect("a read").value.as_deref(), Some(b"a value".as_slice()));
        let token = wait::until("the end of a lease that counts in log time", COMMAND, async || {
            client.acquire("lock", "another", 1_000).await.ok().map(|granted| granted.token)
        })
        .await;
        assert!(token > last && token >> 48 == generation, "{token} after {last}");
        last = token;
        std::fs::remove_file(&file).expect("the backup");
        assert_eq!(backup(&place, &file, &[1]).0, 0);
        up.signal(rustix::process::Signal::TERM);
        up.exit_within(COMMAND);
    }
}
