//! The cache's read hits: without a message, never after the lease, never stale.

use std::time::Duration;

use rustix::process::Signal;
use trine_protocol::ErrorCode;
use trine_protocol::cache::{LineState, Source};
use trine_protocol::client::Client;

use crate::cluster::{Cluster, NODES, Place, name_where, others};
use crate::http::{self, metric};
use crate::wait;

const HITS: usize = 10_000;
/// How long nothing is asked, to learn how many frames heartbeats and lease renewals take.
const IDLE: Duration = Duration::from_secs(3);
/// The bus lease, with the holder's and the home's drift and the time to notice.
const LEASE_AND_SLACK: Duration = Duration::from_millis(1_500);

/// Frames that all nodes have sent to each other since they started.
fn frames_sent(place: &Place) -> f64 {
    let of = |node| {
        let text = http::get(place.address(8000, node), "/metrics").expect("metrics").text;
        metric(&text, "trine_peer_frames_total", "direction=\"sent\"")
    };
    (1..=NODES).map(of).sum()
}

async fn read(client: &Client, key: &str) -> (String, LineState, Source) {
    let got = client.get(key).await.expect("a read");
    let value = got.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
    (value.expect("a value"), got.state, got.source)
}

/// The group that the tests look at.
const GROUP: u32 = 0;

/// The node that is the home of the group's keys, and the two that are not.
async fn home_and_others(place: &Place) -> (usize, usize, usize) {
    let home = place.leader(GROUP).await;
    let others = others(home);
    (home, others[0], others[1])
}

/// A key of the group.
fn key_of_group(client: &Client) -> String {
    name_where("key", |key| client.ring().group_of_key(key) == GROUP)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hits_send_no_frame() {
    let cluster = Cluster::start().await;
    let place = &cluster.place;
    let (_, reader, writer) = home_and_others(place).await;
    let (reader, writer) = (place.client(reader).await, place.client(writer).await);
    let key = key_of_group(&writer);
    writer.put(&key, "value").await.expect("a write");
    assert_eq!(read(&reader, &key).await, ("value".into(), LineState::S, Source::MainMemory));
    assert_eq!(read(&reader, &key).await, ("value".into(), LineState::S, Source::LocalCache));

    let before_idle = frames_sent(place);
    let idle_since = wait::now();
    tokio::time::sleep(IDLE).await;
    let idle_rate = (frames_sent(place) - before_idle) / idle_since.elapsed().as_secs_f64();

    let before_hits = frames_sent(place);
    let hits_since = wait::now();
    for _ in 0..HITS {
        let got = reader.get(&key).await.expect("a hit");
        assert_eq!(got.source, Source::LocalCache);
    }
    let took = hits_since.elapsed();
    let sent = frames_sent(place) - before_hits;
    let allowed = 1.5 * idle_rate * took.as_secs_f64() + 50.0;
    println!("{HITS} hits in {took:?}: {sent} frames; idle: {idle_rate:.0} frames/s");
    assert!(idle_rate > 0.0, "no heartbeat was counted: the metric counts nothing");
    assert!(sent <= allowed, "{HITS} hits in {took:?} with {sent} frames; idle nodes send {idle_rate} each second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_end_with_the_bus_lease() {
    let mut cluster = Cluster::start().await;
    let (home, reader, third) = home_and_others(&cluster.place).await;
    let reader = cluster.place.client(reader).await;
    let key = key_of_group(&reader);
    cluster.place.client(home).await.put(&key, "value").await.expect("a write");
    read(&reader, &key).await;
    assert_eq!(read(&reader, &key).await.2, Source::LocalCache);

    // The third node too: without a majority there is no new home, so what is seen afterwards is the lease alone.
    cluster.node(home).signal(Signal::STOP);
    cluster.node(third).signal(Signal::STOP);
    let stopped = wait::now();
    let mut hits = 0;
    let refusal = loop {
        match reader.get(&key).await {
            Ok(got) => {
                assert_eq!(got.source, Source::LocalCache);
                assert!(stopped.elapsed() < LEASE_AND_SLACK, "a hit {:?} after the home stopped", stopped.elapsed());
                hits += 1;
            }
            Err(refusal) => break refusal,
        }
    };
    println!("{hits} hits until the lease ended, {:?} after the home stopped", stopped.elapsed());
    assert!(hits > 0, "the hits ended at once, and not with the lease");
    assert_eq!(refusal.code, ErrorCode::BusLeaseLapsed, "{refusal}");
    let again = reader.get(&key).await.expect_err("a read without a lease");
    assert_eq!(again.code, ErrorCode::BusLeaseLapsed, "{again}");

    cluster.node(home).signal(Signal::CONT);
    cluster.node(third).signal(Signal::CONT);
    let value = wait::until("a read after the home is back", Duration::from_secs(10), async || {
        reader.get(&key).await.ok()?.value
    })
    .await;
    assert_eq!(value, "value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_home_serves_nothing_stale_when_it_wakes() {
    let mut cluster = Cluster::start().await;
    let (home, writer, _) = home_and_others(&cluster.place).await;
    let writer = cluster.place.client(writer).await;
    let at_home = cluster.place.client(home).await;
    let key = key_of_group(&writer);
    at_home.put(&key, "old").await.expect("a write");
    assert_eq!(read(&at_home, &key).await.0, "old");

    cluster.node(home).signal(Signal::STOP);
    let frozen = wait::now();
    wait::until("a write while the home is frozen", Duration::from_secs(5), async || {
        writer.put(&key, "new").await.ok()
    })
    .await;
    println!("written {:?} after the home froze", frozen.elapsed());
    // The request lies in the frozen node's socket when it wakes, before any message that tells it what it missed.
    let asked = tokio::spawn({
        let (client, key) = (at_home.clone(), key.clone());
        async move { client.get(key).await }
    });
    tokio::task::yield_now().await;
    cluster.node(home).signal(Signal::CONT);
    if let Ok(got) = asked.await.expect("no panic") {
        assert_eq!(got.value.expect("a value"), "new");
    }
    let value =
        wait::until("a read at the old home", Duration::from_secs(10), async || at_home.get(&key).await.ok()).await;
    assert_eq!(value.value.expect("a value"), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_takes_every_other_copy_before_it_is_answered() {
    let cluster = Cluster::start().await;
    let (reader, writer) = (cluster.place.client(2).await, cluster.place.client(3).await);
    writer.put("key", "0").await.expect("a write");
    for round in 1..=100 {
        read(&reader, "key").await;
        assert_eq!(read(&reader, "key").await.2, Source::LocalCache, "round {round}");
        writer.put("key", round.to_string()).await.expect("a write");
        let (value, state, source) = read(&reader, "key").await;
        assert_eq!((value, state, source), (round.to_string(), LineState::S, Source::MainMemory), "round {round}");
    }
}
