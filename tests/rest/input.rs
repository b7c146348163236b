//! What a service hears that it should not do.

use serde_json::{Value, json};
use trine::rest::{BODY_BYTES_MAX, RestOptions};
use trine_protocol::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};

use super::http::Service;

async fn service() -> Service {
    Service::start(RestOptions::default()).await
}

/// The first problem of a 422, after a look at the form of all of them.
fn problem(answer: &super::http::Answer) -> Value {
    assert_eq!(answer.status, 422, "{answer:?}");
    let body = answer.json();
    for problem in body["detail"].as_array().expect("a list") {
        assert!(problem["loc"].is_array() && problem["msg"].is_string() && problem["type"].is_string(), "{problem}");
    }
    body["detail"][0].clone()
}

#[tokio::test]
async fn what_does_not_validate_says_where_and_why() {
    let service = service().await;
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let lock = |name: &str, timeout: &str| format!(r#"{{"lock_name":{name},"client_id":"c","timeout_sec":{timeout}}}"#);
    let rows = [
        ("/enqueue", String::new(), json!(["body"]), "missing"),
        ("/enqueue", "{".into(), json!(["body", 0]), "json_invalid"),
        ("/enqueue", "not json".into(), json!(["body", 1]), "json_invalid"),
        ("/enqueue", "[]".into(), json!(["body"]), "model_attributes_type"),
        ("/enqueue", "{}".into(), json!(["body", "message"]), "missing"),
        ("/enqueue", r#"{"message":1}"#.into(), json!(["body", "message"]), "string_type"),
        ("/enqueue", r#"{"message":null}"#.into(), json!(["body", "message"]), "string_type"),
        ("/enqueue?queue=", r#"{"message":"m"}"#.into(), json!(["query", "queue"]), "string_too_short"),
        ("/enqueue?queue=%ff", r#"{"message":"m"}"#.into(), json!(["query"]), "string_unicode"),
        ("/ack", "{}".into(), json!(["body", "message"]), "missing"),
        ("/ack", r#"{"receipt":7}"#.into(), json!(["body", "receipt"]), "string_type"),
        ("/lock/acquire", r#"{"client_id":"c"}"#.into(), json!(["body", "lock_name"]), "missing"),
        ("/lock/acquire", r#"{"lock_name":"l"}"#.into(), json!(["body", "client_id"]), "missing"),
        ("/lock/acquire", lock(r#""""#, "1"), json!(["body", "lock_name"]), "string_too_short"),
        ("/lock/acquire", lock(&format!("{long:?}"), "1"), json!(["body", "lock_name"]), "string_too_long"),
        ("/lock/acquire", lock(r#""l""#, "0"), json!(["body", "timeout_sec"]), "greater_than_equal"),
        ("/lock/acquire", lock(r#""l""#, "-5"), json!(["body", "timeout_sec"]), "greater_than_equal"),
        ("/lock/acquire", lock(r#""l""#, "86401"), json!(["body", "timeout_sec"]), "less_than_equal"),
        ("/lock/acquire", lock(r#""l""#, "1.5"), json!(["body", "timeout_sec"]), "int_from_float"),
        ("/lock/acquire", lock(r#""l""#, r#""soon""#), json!(["body", "timeout_sec"]), "int_parsing"),
        ("/lock/acquire", lock(r#""l""#, "true"), json!(["body", "timeout_sec"]), "int_type"),
        ("/lock/acquire", lock(r#""l""#, "null"), json!(["body", "timeout_sec"]), "int_type"),
        ("/lock/release", "{}".into(), json!(["body", "lock_name"]), "missing"),
        ("/cache/write", r#"{"key":"k"}"#.into(), json!(["body", "data"]), "missing"),
        ("/cache/write", r#"{"key":"","data":1}"#.into(), json!(["body", "key"]), "string_too_short"),
        ("/cache/writeback", String::new(), json!(["query", "key"]), "missing"),
    ];
    for (target, body, place, kind) in rows {
        let found = problem(&service.post(target, &body).await);
        assert_eq!((&found["loc"], &found["type"]), (&place, &json!(kind)), "{target} {body}");
    }
    for (target, kind) in [
        ("/cache/read", "missing"),
        ("/cache/read?key=", "string_too_short"),
        ("/dequeue?visibility_ms=0", "greater_than_equal"),
        ("/dequeue?visibility_ms=never", "int_parsing"),
    ] {
        assert_eq!(problem(&service.get(target).await)["type"], kind, "{target}");
    }
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    assert_eq!(problem(&service.get(&format!("/cache/read?key={key}")).await)["type"], "string_too_long");
    assert_eq!(service.node.last_asked(), None, "the node never heard of any of it");
}

#[tokio::test]
async fn every_problem_is_told_at_once() {
    let service = service().await;
    let answer = service.post("/lock/acquire", r#"{"timeout_sec":0}"#).await;
    let kinds: Vec<_> = answer.json()["detail"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(kinds, ["missing", "missing", "greater_than_equal"]);
}

#[tokio::test]
async fn what_has_only_a_strange_shape_is_served() {
    let service = service().await;
    let headers = "content-type: text/plain\r\n";
    let body = br#" { "message" : "" , "unknown": [1, {"a": 2}] } "#;
    let answer = service.ask_at(service.addresses[0], "POST", "/enqueue?unknown=1", headers, body).await;
    assert_eq!((answer.status, &answer.json()["message"]), (200, &json!("")));
    let lock = r#"{"lock_name":"\u0000 \ud83d\ude00","client_id":"'; DROP TABLE locks; --","timeout_sec":"7"}"#;
    let answer = service.post("/lock/acquire", lock).await;
    assert_eq!((answer.status, &answer.json()["expires_in_ms"]), (200, &json!(7000)));
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(service.post("/cache/write", &format!(r#"{{"key":"deep","data":{deep}}}"#)).await.status, 200);
    assert!(service.get("/cache/read?key=deep").await.text().contains(&deep));
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods() {
    let service = service().await;
    for target in ["/nothing", "/enqueue/", "//", "/lock", "/ENQUEUE", "/docs/../enqueue"] {
        assert_eq!(service.get(target).await.detail(404), "Not Found", "{target}");
    }
    for (method, target, allow) in [
        ("GET", "/enqueue", "POST, OPTIONS"),
        ("DELETE", "/lock/acquire", "POST, OPTIONS"),
        ("POST", "/dequeue", "GET, OPTIONS"),
        ("HEAD", "/dequeue", "GET, OPTIONS"),
        ("PUT", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/cache/read?key=k", "GET, HEAD, OPTIONS"),
        ("BREW", "/healthz", "GET, HEAD, OPTIONS"),
    ] {
        let answer = service.ask(method, target, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {target}");
        assert_eq!(answer.body.is_empty(), method == "HEAD");
    }
    for (target, allow) in
        [("/enqueue", "POST, OPTIONS"), ("/cache/read", "GET, HEAD, OPTIONS"), ("*", "GET, HEAD, POST, OPTIONS")]
    {
        let answer = service.ask("OPTIONS", target, "").await;
        assert_eq!((answer.status, answer.header("allow")), (204, Some(allow)), "{target}");
    }
    let (get, head) = (service.get("/docs").await, service.ask("HEAD", "/docs", "").await);
    assert_eq!((head.status, head.header("content-length")), (200, get.header("content-length")));
    assert!(head.body.is_empty());
    assert_eq!(service.node.last_asked(), None);
}

#[tokio::test]
async fn bodies_and_values_have_a_limit_each() {
    let service = service().await;
    let fits = "x".repeat(VALUE_BYTES_MAX);
    assert_eq!(service.post("/enqueue", &json!({ "message": fits }).to_string()).await.status, 200);
    assert_eq!(service.get("/dequeue").await.json()["message"], fits);
    service.post("/enqueue", &json!({ "message": format!("{fits}x") }).to_string()).await.detail(413);
    service.post("/ack", &json!({ "message": format!("{fits}x") }).to_string()).await.detail(413);
    service.post("/cache/write", &json!({ "key": "k", "data": fits }).to_string()).await.detail(413);
    let fits = &fits[2..];
    assert_eq!(service.post("/cache/write", &json!({ "key": "k", "data": fits }).to_string()).await.status, 200);
    // Two bytes of text that JSON writes as six: the limit is one of the text, not of its escapes.
    let escaped = "\\u00f6".repeat(VALUE_BYTES_MAX / 2);
    assert_eq!(service.post("/enqueue", &format!(r#"{{"message":"{escaped}"}}"#)).await.status, 200);
    // A client that sends all of it before it listens hears the answer.
    let huge = "x".repeat(BODY_BYTES_MAX + 1);
    service.post("/enqueue", &json!({ "message": huge }).to_string()).await.detail(413);
    service.post("/nothing", &huge).await.detail(404);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let service = service().await;
    let at = service.addresses[0];
    service.post("/enqueue", r#"{"message":"kept"}"#).await;
    let image = service.ask_at(at, "GET", "/dequeue", "sec-fetch-site: cross-site\r\n", b"").await;
    image.detail(403);
    let headers = "origin: http://elsewhere.example\r\ncontent-type: text/plain\r\n";
    service.ask_at(at, "POST", "/enqueue", headers, br#"{"message":"foreign"}"#).await.detail(403);
    assert_eq!(service.ask_at(at, "GET", "/docs", "sec-fetch-site: cross-site\r\n", b"").await.status, 200, "a link");
    assert_eq!(service.get("/dequeue").await.json()["message"], "kept");
    assert_eq!(service.get("/dequeue").await.json()["status"], "empty");
}
