//! Why a key is as it is, and what a person may decide about a node that is gone for good.

use std::time::Duration;

use trine_protocol::ErrorCode;
use trine_protocol::cache::Explained;

use crate::cluster::{Cluster, NODES, name_where, others};
use crate::wait;

const GROUP: u32 = 0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_of_a_key_is_told_with_its_reason() {
    let cluster = Cluster::start().await;
    let home = cluster.place.leader(GROUP).await;
    let [writer, reader] = others(home)[..] else { panic!("three nodes") };
    let mut clients = Vec::new();
    for node in 1..=NODES {
        clients.push(cluster.place.patient_client(&[node]).await);
    }
    let of = |node: usize| &clients[node - 1];
    let key = name_where("why", |key| clients[0].ring().group_of_key(key) == GROUP);
    let explain = async |node: usize| -> Explained { of(node).explain(&key).await.expect("an explanation") };

    let before = explain(writer).await;
    assert_eq!((before.state.as_str(), before.version, before.transitions.len()), ("I", None, 0));
    let written = of(writer).put(&key, "value").await.unwrap();
    let after = explain(writer).await;
    assert_eq!((after.state.as_str(), after.version), ("M", Some(written.version)));
    let last = after.transitions.last().expect("a transition");
    assert_eq!((last.to.as_str(), last.why.as_str()), ("M", "Owned"));
    let view = explain(home).await.home.expect("the home's view");
    assert_eq!((view.owner.as_str(), view.owner_present), (format!("node{writer}").as_str(), true));
    assert_eq!(view.version, Some(written.version), "the entry that began the ownership has the value");
    assert!(explain(writer).await.home.is_none(), "it is no home");

    of(reader).get(&key).await.unwrap();
    of(home).get(&key).await.unwrap();
    let view = explain(home).await.home.expect("the home's view");
    assert_eq!((view.owner.as_str(), view.sharers.len()), ("", NODES), "{view:?}");
    assert_eq!(explain(reader).await.state, "S");
    let told = explain(writer).await.transitions;
    let steps: Vec<(&str, &str)> = told.iter().map(|it| (it.from.as_str(), it.to.as_str())).collect();
    assert!(steps.windows(2).all(|pair| pair[0].1 == pair[1].0), "each goes on where the last ended: {told:?}");
    assert_eq!(steps[steps.len() - 2..], [("M", "MI"), ("MI", "S")]);
    of(home).put(&key, "other").await.unwrap();
    let gone = explain(reader).await;
    assert_eq!(gone.state, "I");
    let last = gone.transitions.last().expect("a transition");
    assert_eq!((last.from.as_str(), last.to.as_str()), ("S", "I"));
    assert!(last.why.starts_with("SnoopInv"), "{last:?}");
    of(home).put_for(&key, "short", 60_000).await.unwrap();
    let view = explain(home).await.home.expect("the home's view");
    assert!((50_000..=60_000).contains(&view.expires_in_ms), "{view:?}");
    // No more is told than may be, and the newest.
    for _ in 0..30 {
        of(reader).get(&key).await.unwrap();
        of(home).put(&key, "x").await.unwrap();
    }
    assert_eq!(explain(reader).await.transitions.len(), trine_protocol::limits::TRANSITIONS_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_has_is_given_up_by_a_person_and_not_before() {
    let mut cluster = Cluster::start().await;
    let home = cluster.place.leader(GROUP).await;
    let [owner, reader] = others(home)[..] else { panic!("three nodes") };
    let client = cluster.place.client(reader).await;
    let name = format!("node{owner}");
    let error = client.evacuate(GROUP, name.as_str()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument, "it is there: {error}");
    let mut away = None;
    for round in 0..10 {
        let key = name_where(&format!("given-up-{round}"), |key| client.ring().group_of_key(key) == GROUP);
        let writer = cluster.place.patient_client(&[owner]).await;
        for count in 0..=20 {
            writer.put(&key, format!("{count}")).await.expect("a write");
        }
        cluster.node(owner).kill();
        let told = wait::until("the home's word on a dead owner", Duration::from_secs(10), async || {
            match client.get(&key).await {
                Err(error) if error.code == ErrorCode::OwnerAway => Some(true),
                Ok(_) => Some(false),
                Err(_) => None,
            }
        });
        if told.await {
            away = Some(key);
            break;
        }
        // The timed write-back was faster.
        cluster.restart(owner);
        cluster.place.ready(&[1, 2, 3]).await;
    }
    let key = away.expect("in one of ten rounds the value is away");
    let view = cluster.place.client(home).await.explain(&key).await.unwrap().home.expect("the home's view");
    assert_eq!((view.owner.as_str(), view.owner_present), (name.as_str(), false));
    wait::until("no key of the dead node", Duration::from_secs(10), async || {
        client.evacuate(GROUP, name.as_str()).await.ok().filter(|evacuated| evacuated.keys == 0)
    })
    .await;
    let kept = client.get(&key).await.expect("nobody is waited for any more").value.expect("a value");
    assert_ne!(kept, "20", "main memory had an older value, and that is what is there now");
    // The node comes back with what was given up: it stays so.
    cluster.restart(owner);
    cluster.place.ready(&[1, 2, 3]).await;
    for node in 1..=NODES {
        let got = cluster.place.patient_client(&[node]).await.get(&key).await.unwrap();
        assert_eq!(got.value.as_ref(), Some(&kept), "node{node}");
    }
}
