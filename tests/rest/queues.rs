//! The routes of queues beyond the contract.

use serde_json::json;
use trine::rest::RestOptions;
use trine_protocol::queue::About;
use trine_protocol::{ErrorCode, Request};

use super::http::Service;

#[tokio::test]
async fn a_delivery_is_extended_and_given_back_by_its_receipt() {
    let service = Service::start(RestOptions::default()).await;
    let body = json!({ "receipt": "7-9", "delay_ms": 500, "reason": "not now" });
    let answer = service.post("/v1/queues/nack?queue=orders", &body.to_string()).await;
    assert_eq!((answer.status, answer.json()["state"].as_str()), (200, Some("delayed")));
    let Some(Request::Nack(nack)) = service.node.last_asked() else { panic!("no nack") };
    assert_eq!((nack.queue.as_str(), nack.receipt.id, nack.receipt.token), ("orders", 7, 9));
    assert_eq!((nack.delay_ms, nack.reason.as_str()), (Some(500), "not now"));
    let answer =
        service.post("/v1/queues/extend", &json!({ "receipt": "7-9", "visibility_ms": 60_000 }).to_string()).await;
    assert_eq!((answer.status, answer.json()["id"].as_u64()), (200, Some(7)));
    let Some(Request::Extend(extend)) = service.node.last_asked() else { panic!("no extend") };
    assert_eq!((extend.queue.as_str(), extend.visibility_ms), ("queue:node1", 60_000));
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let service = Service::start(RestOptions::default()).await;
    for (path, body, status) in [
        ("/v1/queues/nack", json!({}), 422),
        ("/v1/queues/nack", json!({ "receipt": "nonsense" }), 404),
        ("/v1/queues/nack", json!({ "receipt": "7-9", "delay_ms": 43_200_001 }), 422),
        ("/v1/queues/extend", json!({ "receipt": "7-9", "visibility_ms": 0 }), 422),
    ] {
        let answer = service.post(path, &body.to_string()).await;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
    }
    service.node.fail(ErrorCode::StaleReceipt);
    let stale = service.post("/v1/queues/nack", &json!({ "receipt": "7-9" }).to_string()).await;
    assert_eq!(stale.status, 404);
}

#[tokio::test]
async fn a_queue_is_shown_and_explained() {
    let service = Service::start(RestOptions::default()).await;
    let shown = service.get("/v1/queues/show?queue=orders").await;
    assert_eq!((shown.status, shown.json()["flow"].as_str()), (200, Some("open")));
    let explained = service.get("/v1/queues/explain?queue=orders&message=7").await.json();
    assert_eq!(explained["summary"], "the queue is paused");
    assert_eq!(explained["causes"][1]["name"], "HeldByKeys");
    let Some(Request::ExplainQueue(explain)) = service.node.last_asked() else { panic!("no explain") };
    assert_eq!(explain.about, About::Message(7));
    service.get("/v1/queues/explain?consumer=c1").await;
    let Some(Request::ExplainQueue(explain)) = service.node.last_asked() else { panic!("no explain") };
    assert_eq!((explain.queue.as_str(), explain.about), ("queue:node1", About::Consumer("c1".into())));
}
