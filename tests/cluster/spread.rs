//! The groups of a cluster are not all led by one node, and what they say to a peer travels together.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::{Cluster, NODES, Place};
use crate::{http, wait};

/// The calm after which an office goes back, an election, and a little more.
const BACK: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_of_a_calm_cluster_leads_a_group() {
    let cluster = Cluster::start().await;
    let leaders = async || {
        let status = cluster.place.status(1).await?;
        let leaders: BTreeSet<String> = status.groups.into_iter().filter_map(|group| group.leader).collect();
        (leaders.len() == NODES).then_some(leaders)
    };
    wait::until("three leaders of three groups", BACK, leaders).await;
}

/// Frames between the nodes that were sent, and the messages in them.
fn sent(place: &Place) -> (f64, f64) {
    let of = |name| {
        let text = |node| http::get(place.address(8000, node), "/metrics").expect("metrics").text;
        (1..=NODES).map(|node| http::metric(&text(node), name, "direction=\"sent\"")).sum()
    };
    (of("trine_peer_frames_total"), of("trine_peer_messages_total"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_of_many_groups_share_a_frame() {
    let cluster = Cluster::start_with(&["--groups", "64"]).await;
    let leaders = async || {
        let groups = cluster.place.status(1).await?.groups;
        (groups.len() == 64 && groups.iter().all(|group| group.leader.is_some())).then_some(())
    };
    wait::until("leaders of 64 groups", BACK, leaders).await;
    let (before, since) = (sent(&cluster.place), wait::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = sent(&cluster.place);
    let seconds = since.elapsed().as_secs_f64();
    let (frames, messages) = ((after.0 - before.0) / seconds, (after.1 - before.1) / seconds);
    println!("64 idle groups: {messages:.0} messages in {frames:.0} frames a second");
    // Each group's leader tells two others, and hears from them, ten times a second.
    assert!(messages > 64.0 * 20.0, "{messages} messages a second: somebody is silent");
    assert!(messages > 2.0 * frames, "{messages:.0} messages in {frames:.0} frames a second");
}
