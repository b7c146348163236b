//! The end of a cluster that is asked to end, and its next start.

use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::{Cluster, NODES, Place, bodies, drain};
use crate::process;
use crate::wait;

/// The drain time of the design, and a little for the processes to go.
const DRAIN: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_the_cluster_cleanly_and_a_restart_goes_on() {
    let place = Place::take();
    let mut up = place.up(&[]);
    place.ready(&[1, 2, 3]).await;
    let client = place.patient_client(&[1]).await;
    let sent: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for number in &sent {
        client.enqueue("orders", number.clone()).await.expect("an enqueue");
        client.put("key", number.clone()).await.expect("a write");
    }
    let token = client.acquire("lock", "holder", 3_600_000).await.expect("a grant").token;

    let children = up.children();
    assert_eq!(children.len(), NODES);
    up.signal(Signal::TERM);
    let status = up.exit_within(DRAIN);
    assert_eq!(status.code(), Some(0), "{}", up.printed());
    assert!(children.iter().all(|child| !process::is_ours(*child)), "a child is left behind");

    let mut up = place.up(&[]);
    place.ready(&[1, 2, 3]).await;
    let client = place.patient_client(&[2]).await;
    assert_eq!(bodies(&drain(&client, "orders").await), sent);
    assert_eq!(client.get("key").await.expect("a read").value.expect("a value"), "99");
    assert!(client.release("lock", "holder", token).await.expect("a release").was_held);
    client.enqueue("orders", "of the old life").await.expect("an enqueue");
    up.signal(Signal::TERM);
    assert_eq!(up.exit_within(DRAIN).code(), Some(0), "{}", up.printed());

    let _up = place.up(&["--fresh"]);
    place.ready(&[1, 2, 3]).await;
    let client = place.patient_client(&[3]).await;
    assert!(drain(&client, "orders").await.is_empty(), "a message of the old life");
    assert_eq!(client.get("key").await.expect("a read").value, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_asked_to_end_hands_over_and_loses_no_dirty_line() {
    let mut cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[2]).await;
    for count in 0..20 {
        client.put("key", count.to_string()).await.expect("a write");
    }
    cluster.node(2).signal(Signal::TERM);
    let status = cluster.node(2).exit_within(DRAIN);
    assert_eq!(status.code(), Some(0), "{}", cluster.node(2).printed());
    // It wrote its lines back before it went, so nobody has to wait for it.
    let other = cluster.place.patient_client(&[3]).await;
    let got = other.get("key").await.expect("a read while the last writer is gone");
    assert_eq!(got.value.expect("a value"), "19");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_end_with_their_parent_and_a_dead_node_is_started_again() {
    let place = Place::take();
    let mut up = place.up(&[]);
    place.ready(&[1, 2, 3]).await;
    let first = up.children();
    assert_eq!(first.len(), NODES);
    rustix::process::kill_process(first[1], Signal::KILL).expect("our own grandchild");
    let second = wait::until("a new child", Duration::from_secs(10), async || {
        let children = up.children();
        (children.len() == NODES && !children.contains(&first[1])).then_some(children)
    })
    .await;
    assert!(up.printed().contains("node2"), "the death of node2 is not reported:\n{}", up.printed());
    place.ready(&[1, 2, 3]).await;

    up.kill();
    wait::until("the end of every child", DRAIN, async || {
        second.iter().all(|child| !process::is_ours(*child)).then_some(())
    })
    .await;
}
