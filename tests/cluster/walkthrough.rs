//! From an empty folder: the REST contract's walk-through, line by line, then a cluster that is killed as a whole and
//! has everything that it acknowledged when it is started again.

use std::time::Duration;

use serde_json::{Value, json};
use trine_protocol::ErrorCode;

use crate::cluster::{GROUPS, NODES, Place, bodies, drain};
use crate::http;
use crate::process::{self, Process};
use crate::wait;

const QUEUES: usize = 10;
const MESSAGES_PER_QUEUE: usize = 100;
const LOCKS: usize = 100;
const KEYS: usize = 100;
/// Longer than any run of the test: a lock that is free afterwards was lost, not expired.
const LEASE_MS: u32 = 3_600_000;

/// Sends a request and compares status and body: every field of `expected` must be in the answer.
#[track_caller]
fn check(answer: std::io::Result<http::Answer>, status: u16, expected: &Value) -> Value {
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&body[field], value, "field {field} of {body}");
    }
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_cluster_comes_back_with_all_that_it_acknowledged() {
    let place = Place::take();
    let mut up = place.up(&[]);
    place.ready(&[1, 2, 3]).await;
    queue_walk(&place);
    cache_walk(&place);
    lock_walk(&place);
    front_pages(&place);

    enqueue_all(&place).await;
    let tokens = acquire_all(&place).await;
    write_all(&place).await;

    kill_all(&place, &mut up).await;
    let _up = place.up(&[]);
    place.ready(&[1, 2, 3]).await;

    queues_are_complete(&place).await;
    locks_are_held(&place, &tokens).await;
    values_are_there(&place).await;
}

fn queue_walk(place: &Place) {
    let [first, second] = [1, 2].map(|node| place.address(8000, node));
    let enqueued = check(
        http::post(first, "/enqueue", &json!({"message": "Halo dari node 1"})),
        200,
        &json!({"status": "enqueued", "node": "node1", "queue": "queue:node1", "message": "Halo dari node 1"}),
    );
    assert!(!enqueued["id"].is_null(), "{enqueued}");
    check(
        http::post(second, "/enqueue", &json!({"message": "Tes dari node 2"})),
        200,
        &json!({"status": "enqueued", "node": "node2", "queue": "queue:node2", "message": "Tes dari node 2"}),
    );
    for (address, node, message) in [(first, "node1", "Halo dari node 1"), (second, "node2", "Tes dari node 2")] {
        let answer = http::get(address, "/dequeue").expect("an answer");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        let expected = json!({"status": "dequeued", "node": node, "message": message, "deliveries": 1});
        let delivery = check(Ok(answer), 200, &expected);
        assert!(!delivery["id"].is_null() && !delivery["receipt"].is_null(), "{delivery}");
        check(http::get(address, "/dequeue"), 200, &json!({"status": "empty", "node": node}));
    }
    let ack = json!({"message": "Halo dari node 1"});
    let acknowledged = json!({"status": "acknowledged", "node": "node1", "message": "Halo dari node 1"});
    check(http::post(first, "/ack", &ack), 200, &acknowledged);
    assert!(check(http::post(first, "/ack", &ack), 404, &json!({}))["detail"].is_string());
    // The other node's queue is reached from anywhere by its name.
    check(http::post(second, "/enqueue", &json!({"message": "again"})), 200, &json!({"status": "enqueued"}));
    let expected = json!({"status": "dequeued", "message": "again"});
    let delivery = check(http::get(first, "/dequeue?queue=queue:node2"), 200, &expected);
    let receipt = json!({"receipt": delivery["receipt"]});
    check(http::post(first, "/ack?queue=queue:node2", &receipt), 200, &json!({"status": "acknowledged"}));
}

fn cache_walk(place: &Place) {
    let [first, second, third] = [1, 2, 3].map(|node| place.address(7000, node));
    let data = json!({"name": "Data Node 1", "value": 42});
    check(http::get(second, "/cache/read?key=user:123"), 404, &json!({}));
    let written = json!({"status": "written_local", "state": "M", "key": "user:123"});
    check(http::post(first, "/cache/write", &json!({"key": "user:123", "data": data})), 200, &written);
    let missed = json!({"source": "main_memory", "state": "S", "data": data});
    check(http::get(second, "/cache/read?key=user:123"), 200, &missed);
    check(http::get(third, "/cache/read?key=user:123"), 200, &missed);
    let hit = json!({"source": "local_cache", "state": "S", "data": data});
    check(http::get(second, "/cache/read?key=user:123"), 200, &hit);
    let shared = json!({"status": "written_to_main_memory", "state": "E", "line_state": "S"});
    check(http::post_nothing(first, "/cache/writeback?key=user:123"), 200, &shared);
    check(http::post(first, "/cache/write", &json!({"key": "other", "data": [1]})), 200, &json!({"state": "M"}));
    let written_back = json!({"status": "written_to_main_memory", "state": "E"});
    check(http::post_nothing(first, "/cache/writeback?key=other"), 200, &written_back);
    check(http::post_nothing(second, "/cache/writeback?key=other"), 400, &json!({}));
}

fn lock_walk(place: &Place) {
    let address = place.address(9000, 1);
    let front = check(http::get(address, "/"), 200, &json!({"node_id": "node1", "status": "running"}));
    for field in ["state", "current_term", "voted_for", "current_leader", "log_length"] {
        assert!(front.get(field).is_some(), "no field {field} in {front}");
    }
    let acquire = |client: &str| json!({"lock_name": "demo", "client_id": client, "timeout_sec": 5});
    let release = |client: &str| json!({"lock_name": "demo", "client_id": client});
    let acquired = json!({"status": "acquired", "lock": "demo", "client_id": "c1"});
    let grant = check(http::post(address, "/lock/acquire", &acquire("c1")), 200, &acquired);
    assert!(grant["fencing_token"].is_number() && grant["expires_in_ms"].as_u64() <= Some(5_000), "{grant}");
    let any = place.address(9000, 2);
    assert!(check(http::post(any, "/lock/acquire", &acquire("c2")), 409, &json!({}))["detail"].is_string());
    check(http::post(any, "/lock/acquire", &acquire("c1")), 409, &json!({}));
    check(http::post(address, "/lock/release", &release("c2")), 403, &json!({}));
    check(http::post(any, "/lock/release", &release("c1")), 200, &json!({"status": "released", "lock": "demo"}));
    check(http::post(address, "/lock/release", &release("c1")), 200, &json!({"status": "not_held", "lock": "demo"}));
}

fn front_pages(place: &Place) {
    for family in [7000, 8000, 9000] {
        let address = place.address(family, 3);
        for path in ["/docs", "/redoc", "/healthz", "/readyz", "/metrics"] {
            assert_eq!(http::get(address, path).expect("an answer").status, 200, "{path}");
        }
        let described = http::get(address, "/openapi.json").expect("an answer").json();
        assert!(described["paths"]["/lock/acquire"]["post"].is_object(), "{described}");
        check(http::get(address, "/nowhere"), 404, &json!({}));
        check(http::get(address, "/enqueue"), 405, &json!({}));
        let unnamed = check(http::post(address, "/lock/acquire", &json!({"client_id": "c"})), 422, &json!({}));
        assert_eq!(unnamed["detail"][0]["loc"], json!(["body", "lock_name"]), "{unnamed}");
    }
}

fn queue_name(number: usize) -> String {
    format!("orders-{number}")
}

/// Which queues, locks and keys there are must use every group, or the test says little.
fn assert_spread(groups: impl Iterator<Item = u32>) {
    let distinct: std::collections::BTreeSet<u32> = groups.collect();
    assert_eq!(distinct.len(), usize::try_from(GROUPS).expect("a small number"), "{distinct:?}");
}

async fn enqueue_all(place: &Place) {
    let client = place.client(1).await;
    assert_spread((0..QUEUES).map(|number| client.ring().group_of_queue(&queue_name(number))));
    let tasks = (0..QUEUES).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            for message in 0..MESSAGES_PER_QUEUE {
                client.enqueue(queue_name(number), format!("{number}/{message}")).await.expect("an enqueue");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("a producer");
    }
}

async fn acquire_all(place: &Place) -> Vec<u64> {
    let client = place.client(2).await;
    assert_spread((0..LOCKS).map(|number| client.ring().group_of_lock(&format!("space-{number}/lock"))));
    let mut tokens = Vec::new();
    for number in 0..LOCKS {
        let granted = client.acquire(format!("space-{number}/lock"), "holder", LEASE_MS).await.expect("a grant");
        tokens.push(granted.token);
    }
    tokens
}

async fn write_all(place: &Place) {
    for node in 1..=NODES {
        let client = place.client(node).await;
        assert_spread((0..KEYS).map(|number| client.ring().group_of_key(&format!("key-{number}"))));
        // Twice, so that the value is newer than the log entry that made this node the owner.
        for number in (0..KEYS).filter(|number| number % NODES == node - 1) {
            client.put(format!("key-{number}"), "first").await.expect("a write");
            client.put(format!("key-{number}"), format!("value {number}")).await.expect("a write");
        }
    }
}

/// `kill -9` of the parent and of each node, as near to the same moment as signals allow.
async fn kill_all(place: &Place, up: &mut Process) {
    let children = up.children();
    assert_eq!(children.len(), NODES, "children of `trine up`\n{}", up.printed());
    for child in &children {
        assert!(process::is_ours(*child));
    }
    up.kill();
    for child in &children {
        // One that has noticed the end of its parent already is gone just as abruptly from the cluster's view.
        let _ = rustix::process::kill_process(*child, rustix::process::Signal::KILL);
    }
    // A process that is gone by its name may still be closing its sockets.
    wait::until("the end of every process", Duration::from_secs(5), async || {
        (children.iter().all(|child| !process::is_ours(*child)) && place.ports_are_free()).then_some(())
    })
    .await;
}

async fn queues_are_complete(place: &Place) {
    let client = place.patient_client(&[3]).await;
    for number in 0..QUEUES {
        let deliveries = drain(&client, &queue_name(number)).await;
        let expected: Vec<String> = (0..MESSAGES_PER_QUEUE).map(|message| format!("{number}/{message}")).collect();
        assert_eq!(bodies(&deliveries), expected, "queue {number}");
        assert!(deliveries.windows(2).all(|pair| pair[0].id < pair[1].id), "ids of queue {number}");
    }
}

async fn locks_are_held(place: &Place, tokens: &[u64]) {
    let client = place.client(1).await;
    for (number, token) in tokens.iter().enumerate() {
        let lock = format!("space-{number}/lock");
        let refused = client.acquire(&lock, "newcomer", 1_000).await.expect_err("a lock that is held");
        assert_eq!(refused.code, ErrorCode::LockHeld, "{lock}: {refused}");
        let released = client.release(&lock, "holder", *token).await.expect("a release with the old token");
        assert!(released.was_held, "{lock}");
        let granted = client.acquire(&lock, "newcomer", 1_000).await.expect("a grant");
        assert!(granted.token > *token, "{lock}: token {} after {token}", granted.token);
    }
}

async fn values_are_there(place: &Place) {
    for node in 1..=NODES {
        let client = place.patient_client(&[node]).await;
        for number in 0..KEYS {
            let got = client.get(format!("key-{number}")).await.expect("a read");
            let value = got.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
            assert_eq!(value, Some(format!("value {number}")), "key-{number} at node{node}");
        }
    }
}
