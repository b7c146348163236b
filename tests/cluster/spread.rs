//! The groups of a cluster are not all led by one node.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::{Cluster, NODES};
use crate::wait;

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
