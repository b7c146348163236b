//! Nodes come and go while clients work: added, promoted, taken out, replaced under another name and under their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trine_protocol::client::Client;

use crate::cluster::{Cluster, GROUPS, Place, bodies, drain};
use crate::process::Process;
use crate::wait;

/// A change of nodes, with all that the command waits for.
const CHANGE: Duration = Duration::from_secs(60);
/// The longest that a client may wait for one answer while nodes change by plan. The figure of the release build stands in the README.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs `trine cluster` with these words; the exit code, and what it printed.
fn operate(place: &Place, known: &[usize], words: &[&str]) -> (i32, String) {
    let endpoints: Vec<String> = known.iter().map(|node| place.address(4101, *node).to_string()).collect();
    let mut arguments = vec!["cluster".to_owned()];
    arguments.extend(words.iter().map(|word| (*word).to_owned()));
    arguments.extend(["--endpoints".to_owned(), endpoints.join(",")]);
    let mut process =
        Process::start(place.folder(), &format!("operate-{}", words.join("-").replace([':', '.'], "_")), &arguments);
    let status = process.exit_within(CHANGE);
    (status.code().unwrap_or(-1), process.printed())
}

fn operate_well(place: &Place, known: &[usize], words: &[&str]) {
    let (code, printed) = operate(place, known, words);
    println!("trine cluster {}: {}", words.join(" "), printed.trim());
    assert_eq!(code, 0, "{words:?}: {printed}");
}

/// Starts a node that was not there at the beginning.
fn join(place: &Place, node: usize) -> Process {
    let mut arguments = place.serve_arguments(node);
    let [client, peer, http] = [4101, 4201, 9000].map(|family| place.address(family, node));
    arguments.extend(["--member".to_owned(), format!("node{node},{client},{peer},{http}"), "--join".to_owned()]);
    Process::start(place.folder(), &format!("serve-{node}"), &arguments)
}

/// A client that enqueues until it is told to stop; what was acknowledged, and the longest wait for one answer.
async fn write(client: Client, queue: &'static str, stop: Arc<AtomicBool>) -> (Vec<String>, Duration) {
    let (mut acknowledged, mut longest) = (Vec::new(), Duration::ZERO);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (body, begun) = (number.to_string(), wait::now());
        if client.enqueue(queue, body.clone()).await.is_ok() {
            acknowledged.push(body);
        }
        longest = longest.max(begun.elapsed());
    }
    (acknowledged, longest)
}

/// Waits until every group says that these nodes, and no others, vote in it.
async fn vote_everywhere(place: &Place, nodes: &[usize]) {
    wait::until(&format!("replicas on {nodes:?} alone"), CHANGE, async || {
        for group in 0..GROUPS {
            let leader = place.leader_among(nodes, group).await;
            let status = place.group(leader, group).await?;
            let mut voters: Vec<usize> = status.voters.iter().filter_map(|name| number(name)).collect();
            voters.sort_unstable();
            if !status.learners.is_empty() || voters.iter().any(|voter| !nodes.contains(voter)) || voters.len() < 3 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// `node4.00000000000000af` is 4.
fn number(name: &str) -> Option<usize> {
    name.split('.').next()?.strip_prefix("node")?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_replaced_under_load_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let client = cluster.place.patient_client(&[1, 2, 3, 4, 5, 6]).await;
    client.put("kept", "from the beginning").await.expect("a write");
    let writer = tokio::spawn(write(client, "moving", Arc::clone(&stop)));

    // 3 -> 4 -> 5
    let mut newcomers: Vec<Process> = Vec::new();
    for node in [4, 5] {
        newcomers.push(join(&cluster.place, node));
        let address = cluster.place.address(4101, node).to_string();
        wait::until("the newcomer's first word", CHANGE, async || cluster.place.status(node).await).await;
        operate_well(&cluster.place, &[1, 2, 3], &["add", &address, "--promote"]);
    }
    vote_everywhere(&cluster.place, &[1, 2, 3, 4, 5]).await;
    // 5 -> 3, and the last of the first three is replaced by a sixth.
    for node in [1, 2] {
        operate_well(&cluster.place, &[3, 4, 5], &["remove", &format!("node{node}")]);
        assert!(cluster.node(node).exit_within(CHANGE).success(), "a node that is taken out ends by itself");
    }
    newcomers.push(join(&cluster.place, 6));
    wait::until("the newcomer's first word", CHANGE, async || cluster.place.status(6).await).await;
    let address = cluster.place.address(4101, 6).to_string();
    operate_well(&cluster.place, &[4, 5], &["replace", "node3", &address]);
    assert!(cluster.node(3).exit_within(CHANGE).success());
    vote_everywhere(&cluster.place, &[4, 5, 6]).await;

    stop.store(true, Ordering::Relaxed);
    let (acknowledged, longest) = writer.await.expect("the writer does not panic");
    println!("{} messages acknowledged, longest wait {longest:?}", acknowledged.len());
    assert!(acknowledged.len() > 100 && longest < PAUSE, "{} acknowledged, {longest:?}", acknowledged.len());
    let client = cluster.place.patient_client(&[4, 5, 6]).await;
    let mut found = bodies(&drain(&client, "moving").await);
    found.retain(|body| acknowledged.contains(body));
    assert_eq!(found, acknowledged, "lost, doubled or out of order");
    let kept = client.get("kept").await.expect("a read").value;
    assert_eq!(kept.as_deref(), Some(b"from the beginning".as_slice()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_waits_and_is_let_in_with_one_command() {
    let mut cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[1, 2]).await;
    for number in 0..20 {
        client.enqueue("before", number.to_string()).await.expect("an enqueue");
    }
    cluster.node(3).kill();
    std::fs::remove_dir_all(cluster.place.data(3)).expect("the directory was there");
    cluster.restart(3);
    let outside = wait::until("a node that knows what it has lost", CHANGE, async || {
        let status = cluster.place.status(3).await?;
        (!status.outside.is_empty()).then_some(status.outside)
    })
    .await;
    assert!(outside.contains("trine cluster replace node3"), "{outside}");
    for group in 0..GROUPS {
        let status = cluster.place.group(3, group).await.expect("it answers");
        assert_eq!((status.term, status.voters.len()), (0, 0), "it takes no part: {status:?}");
    }
    operate_well(&cluster.place, &[1, 2], &["replace", "node3"]);
    cluster.place.ready(&[1, 2, 3]).await;
    vote_everywhere(&cluster.place, &[1, 2, 3]).await;
    // Now it counts: with one of the others gone, there is a majority all the same.
    cluster.node(1).kill();
    let client = cluster.place.patient_client(&[2, 3]).await;
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&drain(&client, "before").await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_be_unsafe_is_refused_with_the_reason() {
    let mut cluster = Cluster::start().await;
    let place = &cluster.place;
    for group in 0..GROUPS {
        place.leader(group).await;
    }
    let refused = |words: &[&str], says: &str| {
        let (code, printed) = operate(place, &[1, 2, 3], words);
        assert!(code == 4 && printed.contains(says), "{words:?}: {code} {printed}");
    };
    refused(&["remove", "node3"], "2 nodes for 3 replicas");
    refused(&["promote", "node7"], "there is no node node7");
    refused(&["transfer", "0", "node7"], "node7 is no voter of g0");
    operate_well(place, &[1, 2, 3], &["transfer", "0", "node2"]);
    assert_eq!(place.leader(0).await, 2);
    cluster.node(2).kill();
    let (code, printed) = operate(&cluster.place, &[1, 3], &["remove", "node3"]);
    assert!(code == 4 && printed.contains("node2 does not answer"), "{code} {printed}");
}
