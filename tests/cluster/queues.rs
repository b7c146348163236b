//! Queues beyond first in, first out: what their policies promise, on three nodes and over the death of a leader.

use std::collections::BTreeSet;
use std::time::Duration;

use trine_protocol::ErrorCode;
use trine_protocol::client::{Client, SubscriptionConfig};
use trine_protocol::limits::PURGE_MAX;
use trine_protocol::lock::Release;
use trine_protocol::queue::{
    About, BackOff, Cause, DeadReason, Dequeue, Enqueue, EnqueueOptions, Flow, HandOff, LockStep, MessageState,
    Overflow, Policy, QueueReceipt, Redrive, TenantWeight,
};

use crate::cluster::{Cluster, GROUPS, NODES, bodies, drain, name_where, others};
use crate::wait;

/// To anything that needs no takeover.
const SOON: Duration = Duration::from_secs(5);

fn waiting(queue: &str, wait_ms: u32) -> Dequeue {
    Dequeue { queue: queue.into(), wait_ms, ..Dequeue::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_through_all_their_states_on_every_node() {
    let cluster = Cluster::start().await;
    for node in 1..=NODES {
        let client = cluster.place.patient_client(&[node]).await;
        let queue = format!("orders-{node}");
        let policy = Policy { max_deliveries: 2, back_off: BackOff::Fixed { ms: 100 }, ..Policy::default() };
        assert!(client.declare(&queue, policy.clone()).await.unwrap().made);
        let enqueued = client.enqueue(&queue, "poison").await.unwrap();
        let reached = enqueued.reached.expect("a fresh answer says what it reached");
        assert!(reached.flushed && reached.index == enqueued.id && reached.term > 0, "{reached:?}");
        assert!(reached.replicas >= 2 && reached.voters == 3, "{reached:?}");

        let first = client.dequeue(&queue, 60_000, 1).await.unwrap().deliveries.remove(0);
        client.extend(&queue, &first, 120_000).await.unwrap();
        assert_eq!(client.nack(&queue, &first, None, "no customer").await.unwrap().state, MessageState::Delayed);
        assert_eq!(client.ack(&queue, &first).await.unwrap_err().code, ErrorCode::NotInFlight);
        let mut again = client.dequeue_with(waiting(&queue, 5_000)).await.unwrap().deliveries;
        let second = again.pop().expect("it comes back by itself");
        assert_eq!(second.deliveries, 2);
        assert_eq!(client.extend(&queue, &first, 1).await.unwrap_err().code, ErrorCode::StaleReceipt);
        assert_eq!(client.nack(&queue, &second, None, "still none").await.unwrap().state, MessageState::Dead);

        let dead = client.peek(&queue, MessageState::Dead, 0, 10).await.unwrap().messages.remove(0);
        let letter = dead.dead.expect("it is dead");
        assert_eq!((letter.reason, letter.note.as_str()), (DeadReason::MaxDeliveries, "still none"));
        assert_eq!((dead.history.len(), dead.body.as_ref()), (2, b"poison".as_slice()));
        let explained = client.explain_queue(&queue, About::Message(enqueued.id)).await.unwrap();
        assert!(matches!(explained.causes[0], Cause::Dead { reason: DeadReason::MaxDeliveries, .. }), "{explained:?}");

        let redrive = Redrive { queue: queue.clone(), ..Redrive::default() };
        assert_eq!(client.redrive(redrive).await.unwrap().messages, 1);
        assert_eq!(bodies(&drain(&client, &queue).await), ["poison"]);
        let shown = client.show_queue(&queue).await.unwrap();
        assert_eq!((shown.policy, shown.line.ready, shown.line.dead), (Some(Box::new(policy)), 0, 0));
        assert_eq!(shown.group, client.ring().group_of_queue(&queue));
        limits_and_flow(&client, &format!("limited-{node}")).await;
    }
    let client = cluster.place.patient_client(&[1]).await;
    let mut listed = BTreeSet::new();
    for group in 0..GROUPS {
        listed.extend(client.list_queues(group, "").await.unwrap().queues.into_iter().map(|line| line.queue));
    }
    assert!((1..=NODES).all(|node| listed.contains(&format!("orders-{node}"))), "{listed:?}");
}

async fn limits_and_flow(client: &Client, queue: &str) {
    client.declare(queue, Policy { messages_max: 2, ..Policy::default() }).await.unwrap();
    let three =
        ["one", "two", "three"].map(|body| Enqueue { queue: queue.into(), body: body.into(), ..Enqueue::default() });
    let impatient = client.enqueue_many(three.to_vec());
    let answers = tokio::time::timeout(Duration::from_secs(20), impatient).await.expect("an answer to each");
    assert!(answers[0].is_ok() && answers[1].is_ok(), "{answers:?}");
    let full = answers[2].as_ref().unwrap_err();
    assert!(full.code == ErrorCode::QueueFull && full.retry_after_ms > 0, "{full:?}");
    let explained = client.explain_queue(queue, About::Queue).await.unwrap();
    assert!(explained.causes.iter().any(|cause| matches!(cause, Cause::LimitReached { max: 2, .. })), "{explained:?}");

    assert_eq!(client.set_flow(queue, Flow::Paused).await.unwrap().before, Flow::Open);
    assert!(client.dequeue(queue, 0, 1).await.unwrap().deliveries.is_empty());
    assert_eq!(client.explain_queue(queue, About::Queue).await.unwrap().causes[0], Cause::Paused);
    client.set_flow(queue, Flow::Open).await.unwrap();
    let both = client.dequeue(queue, 0, 2).await.unwrap().deliveries;
    let receipts = both.iter().map(trine_protocol::queue::Delivery::receipt).collect();
    assert_eq!(client.ack_many(queue, receipts).await.unwrap().refused, []);
    client.enqueue(queue, "four").await.unwrap();
    let purged = client.purge(queue, None).await.unwrap();
    assert!(purged.messages == 1 && !purged.more && purged.messages < PURGE_MAX, "{purged:?}");
    assert!(client.undeclare(queue).await.unwrap().was_declared);
    assert_eq!(client.show_queue(queue).await.unwrap().line.queue, "", "gone with its declaration");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_keys_ids_and_waits_outlive_the_leader() {
    let mut cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[1, 2, 3]).await;
    let queue = "jobs";
    let policy =
        Policy { fair: true, weights: vec![TenantWeight { tenant: "eu".into(), weight: 2 }], ..Policy::default() };
    client.declare(queue, Policy { overflow: Overflow::DropOldest, ..policy }).await.unwrap();
    let base = EnqueueOptions::default;
    let sent = wait::now();
    client.enqueue_with(queue, "later", EnqueueOptions { delay_ms: 4_000, ..base() }).await.unwrap();
    let keyed = || EnqueueOptions { key: "k".into(), ..base() };
    client.enqueue_with(queue, "k1", keyed()).await.unwrap();
    let behind = client.enqueue_with(queue, "k2", keyed()).await.unwrap();
    client.enqueue_with(queue, "urgent", EnqueueOptions { priority: 9, ..base() }).await.unwrap();
    let once = || EnqueueOptions { dedup_id: "once".into(), priority: 8, ..base() };
    let first = client.enqueue_with(queue, "once", once()).await.unwrap();
    let taken = client.dequeue(queue, 60_000, 1).await.unwrap().deliveries;
    assert_eq!(bodies(&taken), ["urgent"]);
    let next = client.dequeue_with(Dequeue {
        consumer: "c1".into(),
        count_max: 9,
        visibility_ms: 60_000,
        ..waiting(queue, 0)
    });
    let next = next.await.unwrap().deliveries;
    assert_eq!(bodies(&next), ["once", "k1"], "k2 waits for k1");

    let group = client.ring().group_of_queue(queue);
    let leader = cluster.place.leader(group).await;
    // Somebody waits at the leader that dies.
    let survivor = cluster.place.patient_client(&others(leader)).await;
    let waiter = tokio::spawn({
        let survivor = survivor.clone();
        async move { survivor.dequeue_with(waiting("late", 20_000)).await }
    });
    cluster.node(leader).kill();

    let again = survivor.enqueue_with(queue, "once", once()).await.unwrap();
    assert!(again.duplicate && again.id == first.id, "{again:?} after {first:?}");
    let held = survivor.explain_queue(queue, About::Message(behind.id)).await.unwrap();
    let by_c1 = held.causes.iter().any(|cause| matches!(cause, Cause::HeldByKey { consumer, .. } if consumer == "c1"));
    assert!(by_c1, "{held:?}");
    survivor.ack(queue, &next[1]).await.unwrap();
    let k2 = survivor.dequeue_with(waiting(queue, 3_000)).await.unwrap().deliveries;
    assert_eq!(bodies(&k2), ["k2"]);
    let later = survivor.dequeue_with(waiting(queue, 15_000)).await.unwrap().deliveries;
    assert_eq!(bodies(&later), ["later"]);
    assert!(sent.elapsed() >= Duration::from_millis(3_900), "handed out after {:?}", sent.elapsed());

    survivor.enqueue("late", "woken").await.unwrap();
    let woken = tokio::time::timeout(SOON, waiter).await.expect("it is woken").unwrap().unwrap();
    assert_eq!(bodies(&woken.deliveries), ["woken"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_pushes_within_its_credit_and_gives_back_what_a_lost_consumer_had() {
    let cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[1, 2, 3]).await;
    let config = SubscriptionConfig { credit: 2, visibility_ms: 600, ..SubscriptionConfig::new("worker1") };
    let mut subscription = client.subscribe("work", config).unwrap();
    for body in ["a", "b", "c", "d"] {
        client.enqueue("work", body).await.unwrap();
    }
    let first = subscription.next().await.unwrap().unwrap();
    let second = subscription.next().await.unwrap().unwrap();
    assert_eq!(bodies(&[first.clone(), second.clone()]), ["a", "b"]);
    // Much longer than the visibility timeout: it is extended. And with the credit used up, nothing more comes.
    let third = tokio::time::timeout(Duration::from_millis(1_500), subscription.next()).await;
    assert!(third.is_err(), "{third:?}");
    let explained = client.explain_queue("work", About::Consumer("worker1".into())).await.unwrap();
    assert_eq!(explained.causes[0], Cause::NoCredit { holds: 2 }, "{explained:?}");
    let (one, other) = tokio::join!(subscription.ack(&first), subscription.ack(&second));
    one.unwrap();
    other.unwrap();
    assert_eq!(subscription.ack(&first).await.unwrap_err().code, ErrorCode::NotInFlight);
    let third = subscription.next().await.unwrap().unwrap();
    let fourth = subscription.next().await.unwrap().unwrap();
    assert_eq!(bodies(&[third.clone(), fourth]), ["c", "d"]);
    subscription.nack(&third, Some(0), "not me").await.unwrap();

    // The consumer is gone: what it had is back at once, not after its visibility timeout.
    drop(subscription);
    let other =
        client.subscribe("work", SubscriptionConfig { visibility_ms: 60_000, ..SubscriptionConfig::new("worker2") });
    let mut other = other.unwrap();
    let mut back = Vec::new();
    while back.len() < 2 {
        let delivery = tokio::time::timeout(SOON, other.next()).await.expect("it comes back").unwrap().unwrap();
        other.ack(&delivery).await.unwrap();
        back.push(delivery);
    }
    let all: BTreeSet<String> = bodies(&back).into_iter().collect();
    assert_eq!(all, BTreeSet::from(["c".to_owned(), "d".to_owned()]));
    other.close().await;
    assert_eq!(client.show_queue("work").await.unwrap().line.queue, "", "everything was acknowledged");
    client.declare("parts", Policy { partitions: 2, ..Policy::default() }).await.unwrap();
    let mut refused = client.subscribe("parts", SubscriptionConfig::new("worker1")).unwrap();
    assert_eq!(refused.next().await.unwrap().unwrap_err().code, ErrorCode::QueuePartitioned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_off_does_all_of_it_or_nothing() {
    let cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[1, 2, 3]).await;
    let (queue, next, lock) = ("{flow}in", "{flow}out", "{flow}work");
    client.enqueue(queue, "job").await.unwrap();
    let delivery = client.dequeue(queue, 60_000, 1).await.unwrap().deliveries.remove(0);
    let grant = client.acquire(lock, "worker1", 60_000).await.unwrap();
    let hand_off = |token: u64| HandOff {
        ack: Some(QueueReceipt { queue: queue.into(), receipt: delivery.receipt() }),
        enqueue: Some(Enqueue { queue: next.into(), body: "result".into(), ..Enqueue::default() }),
        lock: Some(LockStep::Release(Release {
            lock: lock.into(),
            client: "worker1".into(),
            token,
            ..Release::default()
        })),
    };
    // A lock that somebody else got meanwhile: nothing is acknowledged, nothing enqueued, nothing released.
    assert_eq!(client.hand_off(hand_off(grant.token - 1)).await.unwrap_err().code, ErrorCode::StaleToken);
    assert_eq!(client.show_queue(queue).await.unwrap().line.in_flight, 1);
    assert_eq!(client.show_queue(next).await.unwrap().line.ready, 0);
    assert_eq!(client.inspect(lock).await.unwrap().token, grant.token);

    let done = client.hand_off(hand_off(grant.token)).await.unwrap();
    assert_eq!(done.acked, Some(delivery.id));
    assert!(done.enqueued.is_some_and(|enqueued| enqueued.reached.is_some()), "{done:?}");
    assert_eq!(client.inspect(lock).await.unwrap().token, 0);
    assert_eq!(bodies(&drain(&client, next).await), ["result"]);
    assert_eq!(client.hand_off(hand_off(grant.token)).await.unwrap_err().code, ErrorCode::NotInFlight);

    let ring = client.ring();
    let here = ring.group_of_queue(queue);
    let elsewhere = name_where("elsewhere", |name| ring.group_of_queue(name) != here);
    let mut apart = hand_off(grant.token);
    apart.enqueue = Some(Enqueue { queue: elsewhere.clone(), body: "result".into(), ..Enqueue::default() });
    let error = client.hand_off(apart).await.unwrap_err();
    assert_eq!((error.code, error.hint.as_str()), (ErrorCode::NotColocated, elsewhere.as_str()), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_lie_in_all_groups_and_keep_the_order_of_keys_and_no_majority_is_explained() {
    let mut cluster = Cluster::start().await;
    let client = cluster.place.patient_client(&[1, 2, 3]).await;
    let policy = Policy { partitions: GROUPS, ..Policy::default() };
    let queue = client.declare_partitioned("wide", policy).await.unwrap();
    let groups: BTreeSet<u32> = queue.names().iter().map(|name| client.ring().group_of_queue(name)).collect();
    assert_eq!(groups.len(), GROUPS as usize, "one in each group");
    for number in 0..30 {
        let options = EnqueueOptions { key: format!("key{}", number % 7), ..EnqueueOptions::default() };
        queue.enqueue(number.to_string(), options).await.unwrap();
    }
    let mut last = [-1_i64; 7];
    let mut names = BTreeSet::new();
    for _ in 0..30 {
        let (name, deliveries) = queue.dequeue(waiting("", 3_000)).await.unwrap().expect("one more");
        let number: i64 = bodies(&deliveries)[0].parse().unwrap();
        let seen = &mut last[(number % 7) as usize];
        assert!(number > *seen, "{number} after {seen} of the same key");
        *seen = number;
        queue.ack(&name, &deliveries[0]).await.unwrap();
        names.insert(name);
    }
    assert!(names.len() > 1, "seven keys in one partition: {names:?}");
    assert_eq!(queue.dequeue(waiting("", 300)).await.unwrap(), None);
    assert_eq!(client.enqueue("wide", "x").await.unwrap_err().code, ErrorCode::QueuePartitioned);

    for node in [2, 3] {
        cluster.node(node).kill();
    }
    let last_one = cluster.place.patient_client(&[1]).await;
    let explained = wait::until("an explanation without a majority", Duration::from_secs(30), async || {
        last_one.explain_queue("wide#0", About::Queue).await.ok()
    })
    .await;
    assert!(matches!(explained.causes[0], Cause::NoQuorum { .. }), "{explained:?}");
}
