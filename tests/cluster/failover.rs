//! The leader of a group dies, or freezes and wakes again, while the group is under load.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Signal;
use trine_protocol::cluster::Role;

use crate::cluster::{Cluster, bodies, drain, others};
use crate::load::{Load, OPERATIONS};
use crate::wait;

/// From the failure to the first answer of each service, cache writes included.
const TAKEOVER: Duration = Duration::from_secs(3);
/// The group that is watched.
const GROUP: u32 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_under_load_loses_nothing() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.place.leader(GROUP).await;
    let survivors = others(leader);
    let mut load = Load::start(&cluster.place, &survivors, GROUP).await;
    load.advance(OPERATIONS).await;

    let failed = wait::now();
    cluster.node(leader).kill();
    let takeover = load.takeover(failed).await;
    cluster.restart(leader);
    cluster.place.ready(&[1, 2, 3]).await;
    load.advance(OPERATIONS).await;
    load.stop().await;

    nothing_is_lost(&cluster, &load).await;
    println!("takeover after kill -9: {takeover:?}");
    assert!(takeover < TAKEOVER, "takeover took {takeover:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_freezes_under_load_loses_nothing() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.place.leader(GROUP).await;
    let survivors = others(leader);
    let mut load = Load::start(&cluster.place, &survivors, GROUP).await;
    load.advance(OPERATIONS).await;

    let failed = wait::now();
    cluster.node(leader).signal(Signal::STOP);
    let takeover = load.takeover(failed).await;
    let successor = cluster.place.leader_among(&survivors, GROUP).await;
    let term = cluster.place.group(successor, GROUP).await.expect("a status").term;
    cluster.node(leader).signal(Signal::CONT);
    wait::until("the end of the old leader's term", Duration::from_secs(5), async || {
        let status = cluster.place.group(leader, GROUP).await?;
        (status.role != Role::Leader || status.term > term).then_some(())
    })
    .await;
    load.advance(OPERATIONS).await;
    load.stop().await;

    nothing_is_lost(&cluster, &load).await;
    println!("takeover after SIGSTOP: {takeover:?}");
    assert!(takeover < TAKEOVER, "takeover took {takeover:?}");
}

async fn nothing_is_lost(cluster: &Cluster, load: &Load) {
    messages_are_complete(cluster, load).await;
    let tokens = load.grants.values();
    let inversion = tokens.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(inversion, None, "tokens of one client's grants, in their order, in {} grants", tokens.len());
    key_has_its_last_value(cluster, load).await;
}

/// Every acknowledged message once, in order. Of those that ended with an error any may be there, also once.
async fn messages_are_complete(cluster: &Cluster, load: &Load) {
    let client = cluster.place.patient_client(&[1, 2, 3]).await;
    let delivered = bodies(&drain(&client, &load.queue).await);
    let delivered: Vec<u64> = delivered.iter().map(|body| body.parse().expect("a number")).collect();
    let acknowledged = load.enqueues.values();
    let failed = load.enqueues.failed.load(Ordering::SeqCst);
    println!("{} messages acknowledged, {failed} failed, {} delivered", acknowledged.len(), delivered.len());
    assert!(delivered.windows(2).all(|pair| pair[0] < pair[1]), "an order or a duplicate: {delivered:?}");
    let lost: Vec<&u64> = acknowledged.iter().filter(|number| delivered.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let surplus = delivered.len() - acknowledged.len();
    assert!(surplus as u64 <= failed, "{surplus} messages nobody sent; {failed} attempts failed");
}

/// The value is the one that was acknowledged last, or one that was attempted after it.
async fn key_has_its_last_value(cluster: &Cluster, load: &Load) {
    let last = *load.writes.values().last().expect("some writes");
    for node in 1..=3 {
        let client = cluster.place.patient_client(&[node]).await;
        let value = client.get(&load.key).await.expect("a read").value.expect("a value");
        let value: u64 = String::from_utf8_lossy(&value).parse().expect("a number");
        let failed = load.writes.failed.load(Ordering::SeqCst);
        assert!(value >= last && value - last <= failed, "node{node} has {value}, {last} was acknowledged last");
    }
}
