//! Any one node dies. The others go on; it comes back and has everything.

use std::time::Duration;

use crate::cluster::{Cluster, GROUPS, bodies, drain, name_where, others};
use crate::wait;

/// From the death of a node to an answer of every service of every group.
const TAKEOVER: Duration = Duration::from_secs(3);
/// From the restart of a node until it has what the others wrote meanwhile.
const CATCH_UP: Duration = Duration::from_secs(20);
/// Messages and keys of each group, while the node is away.
const WRITES: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_may_die_and_comes_back_with_everything() {
    let mut cluster = Cluster::start().await;
    for node in 1..=3 {
        let witness = others(node)[0];
        cluster.node(node).kill();
        let killed = wait::now();
        every_service_answers(&cluster, witness, node).await;
        let took = killed.elapsed();
        println!("node{node} killed: every service of every group answers at node{witness} after {took:?}");
        assert!(took < TAKEOVER, "without node{node} the services took {took:?}");
        write_while_away(&cluster, witness, node).await;

        cluster.restart(node);
        catches_up(&cluster, witness, node).await;
        has_everything(&cluster, node).await;
        cluster.place.ready(&[1, 2, 3]).await;
    }
}

/// A queue, a lock and a key in each group, each used once. The names are new in each round, so nothing is owned yet.
async fn every_service_answers(cluster: &Cluster, witness: usize, round: usize) {
    let client = cluster.place.patient_client(&[witness]).await;
    for group in 0..GROUPS {
        let ring = client.ring();
        let queue = name_where(&format!("probe-{round}"), |name| ring.group_of_queue(name) == group);
        let lock = name_where(&format!("probe-{round}"), |name| ring.group_of_lock(&format!("{name}/l")) == group);
        client.enqueue(&queue, "probe").await.expect("an enqueue");
        client.acquire(format!("{lock}/l"), "prober", 1_000).await.expect("a grant");
        client.put(&queue, "probe").await.expect("a write");
        assert_eq!(client.get(&queue).await.expect("a read").value.expect("a value"), "probe");
    }
}

fn queue_of(round: usize) -> String {
    format!("away-{round}")
}

async fn write_while_away(cluster: &Cluster, witness: usize, round: usize) {
    let client = cluster.place.patient_client(&[witness]).await;
    for number in 0..WRITES {
        client.enqueue(queue_of(round), number.to_string()).await.expect("an enqueue");
        client.put(format!("away-{round}-{number}"), number.to_string()).await.expect("a write");
    }
}

/// The node has applied what the witness knew committed, in every group.
async fn catches_up(cluster: &Cluster, witness: usize, node: usize) {
    for group in 0..GROUPS {
        let goal = cluster.place.group(witness, group).await.expect("a status of the witness").commit_index;
        assert!(goal > 0, "nothing is committed in group {group}");
        wait::until(&format!("index {goal} of group {group} at node{node}"), CATCH_UP, async || {
            let status = cluster.place.group(node, group).await?;
            (status.applied_index >= goal && status.ready).then_some(())
        })
        .await;
    }
}

async fn has_everything(cluster: &Cluster, node: usize) {
    let client = cluster.place.patient_client(&[node]).await;
    for number in 0..WRITES {
        let got = client.get(format!("away-{node}-{number}")).await.expect("a read at the node that is back");
        assert_eq!(got.value.expect("a value"), number.to_string());
    }
    let delivered = bodies(&drain(&client, &queue_of(node)).await);
    let expected: Vec<String> = (0..WRITES).map(|number| number.to_string()).collect();
    assert_eq!(delivered, expected);
}
