//! What existing programs rely on: statuses, names, values.

use bytes::Bytes;
use serde_json::json;
use trine::rest::RestOptions;
use trine_protocol::cache::LineState;
use trine_protocol::cluster::Role;
use trine_protocol::error::Outcome;
use trine_protocol::{ErrorCode, Request};

use super::http::Service;

async fn service() -> Service {
    Service::start(RestOptions::default()).await
}

#[tokio::test]
async fn every_address_serves_every_route() {
    let service = service().await;
    for address in service.addresses.clone() {
        for (method, target) in
            [("GET", "/"), ("GET", "/dequeue"), ("GET", "/docs"), ("POST", "/cache/writeback?key=k")]
        {
            let answer = service.ask_at(address, method, target, "", b"").await;
            assert!([200, 400].contains(&answer.status), "{address} {target}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn messages_go_through_the_queue_of_the_node_asked_in_their_order() {
    let service = service().await;
    for (message, id) in [("Halo dari node 1", 1), ("kedua \u{1f600}", 2)] {
        let answer = service.post("/enqueue", &json!({ "message": message }).to_string()).await;
        assert_eq!(answer.status, 200);
        let want =
            json!({ "status": "enqueued", "node": "node1", "queue": "queue:node1", "message": message, "id": id });
        assert_eq!(answer.json(), want);
    }
    for message in ["Halo dari node 1", "kedua \u{1f600}"] {
        let answer = service.get("/dequeue").await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let body = answer.json();
        assert_eq!((&body["status"], &body["node"]), (&json!("dequeued"), &json!("node1")));
        assert_eq!((&body["message"], &body["deliveries"]), (&json!(message), &json!(1)));
        assert!(body.get("message_base64").is_none());
    }
    let empty = service.get("/dequeue").await;
    assert_eq!((empty.status, empty.header("cache-control")), (200, Some("no-store")));
    assert_eq!(empty.json(), json!({ "status": "empty", "node": "node1", "queue": "queue:node1" }));
}

#[tokio::test]
async fn a_delivery_is_acknowledged_once_by_its_body_or_by_its_receipt() {
    let service = service().await;
    service.post("/ack", r#"{"message":"never seen"}"#).await.detail(404);
    for message in ["same", "same"] {
        service.post("/enqueue", &json!({ "message": message }).to_string()).await;
    }
    let first = service.get("/dequeue").await.json();
    let second = service.get("/dequeue").await.json();
    let by_receipt = service.post("/ack", &json!({ "receipt": second["receipt"] }).to_string()).await;
    assert_eq!(by_receipt.status, 200);
    assert_eq!(
        by_receipt.json(),
        json!({ "status": "acknowledged", "node": "node1", "message": null, "id": second["id"] })
    );
    service.post("/ack", &json!({ "receipt": second["receipt"] }).to_string()).await.detail(404);
    let by_body = service.post("/ack", r#"{"message":"same"}"#).await;
    let want = json!({ "status": "acknowledged", "node": "node1", "message": "same", "id": first["id"] });
    assert_eq!((by_body.status, by_body.json()), (200, want));
    service.post("/ack", r#"{"message":"same"}"#).await.detail(404);
    service.post("/ack", r#"{"receipt":"no receipt at all"}"#).await.detail(404);
}

#[tokio::test]
async fn the_query_names_another_queue() {
    let service = service().await;
    let answer = service.post("/enqueue?queue=queue%3Anode2", r#"{"message":"over there"}"#).await;
    assert_eq!(answer.json()["queue"], "queue:node2");
    assert_eq!(service.get("/dequeue").await.json()["status"], "empty");
    assert_eq!(service.get("/dequeue?queue=queue:node2").await.json()["message"], "over there");
    service.post("/ack", r#"{"message":"over there"}"#).await.detail(404);
    assert_eq!(service.post("/ack?queue=queue:node2", r#"{"message":"over there"}"#).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_no_text_is_shown_and_kept_whole() {
    let service = service().await;
    let body = Bytes::from_static(b"caf\xe9");
    service.node.change(|world| world.queues.entry("queue:node1".into()).or_default().push_back((9, body)));
    let body = service.get("/dequeue?visibility_ms=1000").await.json();
    assert_eq!((&body["message"], &body["message_base64"]), (&json!("caf\u{fffd}"), &json!("Y2Fm6Q==")));
    let Some(Request::Dequeue(dequeue)) = service.node.last_asked() else { panic!("no dequeue") };
    assert_eq!((dequeue.visibility_ms, dequeue.count_max), (1000, 1));
    assert_eq!(service.post("/ack", &json!({ "receipt": body["receipt"] }).to_string()).await.status, 200);
}

#[tokio::test]
async fn a_lock_is_taken_refused_and_given_back() {
    let service = service().await;
    let acquire = |client: &str| json!({ "lock_name": "demo", "client_id": client, "timeout_sec": 5 }).to_string();
    let answer = service.post("/lock/acquire", &acquire("c1")).await;
    assert_eq!(answer.status, 200);
    let token = (40_u64 << 48) + 1;
    let want = json!({
        "status": "acquired", "lock": "demo", "client_id": "c1",
        "fencing_token": token, "fencing_token_str": token.to_string(), "expires_in_ms": 5000,
    });
    assert_eq!(answer.json(), want);
    service.post("/lock/acquire", &acquire("c2")).await.detail(409);
    service.post("/lock/acquire", &acquire("c1")).await.detail(409);
    service.post("/lock/release", r#"{"lock_name":"demo","client_id":"c2"}"#).await.detail(403);
    let stale = json!({ "lock_name": "demo", "client_id": "c1", "fencing_token": token - 1 }).to_string();
    service.post("/lock/release", &stale).await.detail(409);
    // Callers send the body of the acquire again, `timeout_sec` included.
    let released = service.post("/lock/release", &acquire("c1")).await;
    assert_eq!((released.status, released.json()), (200, json!({ "status": "released", "lock": "demo" })));
    let again = service.post("/lock/release", &acquire("c1")).await;
    assert_eq!((again.status, again.json()), (200, json!({ "status": "not_held", "lock": "demo" })));
    service.node.fail(ErrorCode::LockNotHeld);
    let again = service.post("/lock/release", &acquire("c1")).await;
    assert_eq!((again.status, &again.json()["status"]), (200, &json!("not_held")));
}

#[tokio::test]
async fn a_lease_is_ten_seconds_unless_the_request_says_otherwise() {
    let service = service().await;
    for (timeout, lease_ms) in [(json!(null), 10_000), (json!(1), 1_000), (json!(86_400), 86_400_000)] {
        let mut body = json!({ "lock_name": format!("lock-{lease_ms}"), "client_id": "c" });
        if !timeout.is_null() {
            body["timeout_sec"] = timeout;
        }
        let answer = service.post("/lock/acquire", &body.to_string()).await;
        assert_eq!(answer.json()["expires_in_ms"], lease_ms, "{answer:?}");
        let Some(Request::Acquire(acquire)) = service.node.last_asked() else { panic!("no acquire") };
        assert_eq!(acquire.lease_ms, lease_ms);
    }
}

#[tokio::test]
async fn a_follower_forwards_or_with_the_option_sends_the_caller_to_the_leader() {
    let body = r#"{"lock_name":"demo","client_id":"c1"}"#;
    for redirect_locks in [false, true] {
        let service = Service::start(RestOptions { redirect_locks, ..Default::default() }).await;
        service.node.change(|world| {
            for group in &mut world.status.groups {
                (group.role, group.leader) = (Role::Follower, Some("node3".into()));
            }
        });
        for path in ["/lock/acquire", "/lock/release"] {
            let answer = service.post(path, body).await;
            if redirect_locks {
                assert_eq!(answer.header("location"), Some(format!("http://127.0.0.1:9002{path}").as_str()));
                answer.detail(307);
            } else {
                assert_eq!(answer.status, 200);
            }
        }
        assert_eq!(service.node.last_asked().is_none(), redirect_locks);
        // Where nobody leads there is nowhere to send the caller.
        service.node.change(|world| world.status.groups.iter_mut().for_each(|group| group.leader = None));
        let answer = service.post("/lock/acquire", r#"{"lock_name":"other","client_id":"c1"}"#).await;
        assert_eq!(answer.status, if redirect_locks { 503 } else { 200 });
    }
}

#[tokio::test]
async fn a_value_is_written_read_and_written_back() {
    let service = service().await;
    service.get("/cache/read?key=user:123").await.detail(404);
    let data = r#"{"name": "Data Node 1", "value": 42, "exact": 12345678901234567890.10}"#;
    let answer = service.post("/cache/write", &format!(r#"{{"key":"user:123","data":{data}}}"#)).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    let told = (&body["status"], &body["state"], &body["key"]);
    assert_eq!(told, (&json!("written_local"), &json!("M"), &json!("user:123")));
    let Some(Request::Put(put)) = service.node.last_asked() else { panic!("no put") };
    assert_eq!(put.value, data, "main memory has the bytes that were sent");
    let answer = service.get("/cache/read?key=user%3A123").await;
    assert!(answer.text().contains(&format!(r#""data":{data}"#)), "{answer:?}");
    let body = answer.json();
    assert_eq!((&body["source"], &body["state"]), (&json!("local_cache"), &json!("M")));
    let answer = service.post("/cache/writeback?key=user:123", "").await;
    assert_eq!(answer.json(), json!({ "status": "written_to_main_memory", "state": "E", "line_state": "E" }));
    service.post("/cache/writeback?key=other", "").await.detail(400);
}

#[tokio::test]
async fn values_of_other_writers_are_shown_as_what_they_are() {
    let service = service().await;
    for (value, data, encoding) in [
        (&br#"{"name": "Data Awal", "value": 0}"#[..], json!({ "name": "Data Awal", "value": 0 }), "json"),
        (b"null", json!(null), "json"),
        (b"plain text", json!("plain text"), "text"),
        (b"\xff\xfe", json!("//4="), "base64"),
    ] {
        let value = Bytes::copy_from_slice(value);
        service.node.change(|world| drop(world.keys.insert("k".into(), (value, LineState::I, false))));
        let body = service.get("/cache/read?key=k").await.json();
        assert_eq!((&body["data"], &body["encoding"]), (&data, &json!(encoding)));
        assert_eq!((&body["source"], &body["state"]), (&json!("main_memory"), &json!("S")));
        let body = service.get("/cache/read?key=k").await.json();
        assert_eq!((&body["source"], &body["state"]), (&json!("local_cache"), &json!("S")));
    }
}

#[tokio::test]
async fn the_node_says_how_it_stands_in_the_group_of_plain_lock_names() {
    let service = service().await;
    let ring = trine_protocol::placement::Ring::new(3).unwrap();
    let group = ring.group_of_lock("demo");
    service.node.change(|world| {
        let group = &mut world.status.groups[group as usize];
        (group.role, group.leader) = (Role::Candidate, Some("node2".into()));
    });
    let body = service.get("/").await.json();
    let want = json!({
        "node_id": "node1", "status": "running", "state": "CANDIDATE", "current_term": 7 + group, "voted_for": "node2",
        "current_leader": "http://127.0.0.1:9001", "log_length": 100 + group,
    });
    for (name, value) in want.as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
    assert_eq!(body["groups"].as_array().unwrap().len(), 3);
    service.node.change(|world| {
        let group = &mut world.status.groups[group as usize];
        (group.role, group.leader, group.voted_for) = (Role::Outside, None, None);
    });
    let body = service.get("/").await.json();
    assert_eq!(
        (&body["state"], &body["voted_for"], &body["current_leader"]),
        (&json!("FOLLOWER"), &json!(null), &json!(null))
    );
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let service = service().await;
    assert_eq!(service.get("/healthz").await.json(), json!({ "status": "ok", "node": "node1" }));
    assert_eq!(service.get("/readyz").await.json(), json!({ "status": "ready", "node": "node1" }));
    service.node.change(|world| world.readiness = Err("Redis does not answer".into()));
    let answer = service.get("/readyz").await;
    assert_eq!(answer.detail(503), "Redis does not answer");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(service.get("/healthz").await.status, 200, "alive all the same");
    let metrics = service.get("/metrics").await;
    assert_eq!((metrics.status, metrics.text()), (200, "trine_up 1\n"));
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[tokio::test]
async fn every_error_of_the_node_has_a_status_and_says_whether_to_repeat() {
    let service = service().await;
    for code in ErrorCode::ALL {
        service.node.fail(*code);
        let answer = service.post("/lock/acquire", r#"{"lock_name":"l","client_id":"c"}"#).await;
        if *code == ErrorCode::InvalidArgument {
            assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!("value_error")));
            continue;
        }
        let body = answer.json();
        assert_eq!(body["detail"], "as the test wants it");
        assert_eq!(body["code"], code.name());
        let outcome = ["refused", "not_done", "unknown"][match code.outcome() {
            Outcome::Refused => 0,
            Outcome::NotDone => 1,
            Outcome::Unknown => 2,
        }];
        assert_eq!(body["outcome"], outcome);
        let retry = (answer.status == 503).then_some("3");
        assert_eq!(answer.header("retry-after"), retry, "{}", code.name());
    }
    for (code, status) in [
        (ErrorCode::NoLeader, 503),
        (ErrorCode::DeadlineExceeded, 503),
        (ErrorCode::Overloaded, 503),
        (ErrorCode::QueueFull, 503),
        (ErrorCode::OwnerAway, 503),
        (ErrorCode::LockHeld, 409),
        (ErrorCode::LockHeldByOther, 403),
        (ErrorCode::NotInFlight, 404),
        (ErrorCode::NotWrittenHere, 400),
        (ErrorCode::TooLarge, 413),
        (ErrorCode::Internal, 500),
    ] {
        service.node.fail(code);
        service.post("/enqueue", r#"{"message":"m"}"#).await.detail(status);
    }
}
