//! What `/openapi.json` says is what the service does: every documented operation is sent, and its answer compared.

use serde_json::{Value, json};
use trine::rest::RestOptions;

use super::http::{Answer, Service};

fn resolve<'a>(api: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            resolve(api, api.pointer(reference.strip_prefix('#').unwrap()).expect("a dangling reference"))
        }
        None => value,
    }
}

/// The little of JSON Schema that the description uses.
fn check(api: &Value, schema: &Value, value: &Value, place: &str) {
    let schema = resolve(api, schema);
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("{place}: the check knows no type {other}"),
    };
    match &schema["type"] {
        Value::Null => {}
        Value::Array(kinds) => assert!(kinds.iter().any(is), "{place}: {value}"),
        kind => assert!(is(kind), "{place}: {value} is not {kind}"),
    }
    if let Some(choices) = schema["enum"].as_array() {
        assert!(choices.contains(value), "{place}: {value}");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{place}: no {name} in {value}");
    }
    if let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, member) in members {
            if let Some(property) = properties.get(name) {
                check(api, property, member, &format!("{place}.{name}"));
            } else {
                panic!("{place}: {name} is not documented");
            }
        }
    }
}

/// The answer's status is among the documented ones, and its body what that status promises.
fn compare(api: &Value, operation: &Value, answer: &Answer, place: &str) {
    let response = resolve(api, &operation["responses"][answer.status.to_string()]);
    assert!(response.is_object(), "{place}: {} is not documented", answer.status);
    let content = response["content"].as_object().expect("every answer has content");
    let (kind, media) = content.iter().next().unwrap();
    let sent = answer.header("content-type").unwrap();
    assert!(sent.starts_with(kind.as_str()), "{place}: {sent} instead of {kind}");
    if kind == "application/json" && media["schema"].get("properties").or(media["schema"].get("$ref")).is_some() {
        check(api, &media["schema"], &answer.json(), place);
    }
}

fn target(path: &str, operation: &Value) -> String {
    let needed = operation["parameters"].as_array().into_iter().flatten().filter(|one| one["required"] == true);
    let query: Vec<String> = needed.map(|one| format!("{}=user:123", one["name"].as_str().unwrap())).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

#[tokio::test]
async fn every_documented_operation_does_what_it_says() {
    let service = Service::start(RestOptions::default()).await;
    let api = service.get("/openapi.json").await.json();
    assert_eq!(api["openapi"], "3.1.0");
    let contract = [
        "GET /",
        "POST /enqueue",
        "GET /dequeue",
        "POST /ack",
        "POST /lock/acquire",
        "POST /lock/release",
        "GET /v1/locks/explain",
        "POST /v1/locks/renew",
        "POST /v1/locks/force-release",
        "POST /v1/locks/fence",
        "GET /cache/read",
        "POST /cache/write",
        "POST /cache/writeback",
        "GET /docs",
        "GET /redoc",
        "GET /openapi.json",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "POST /v1/queues/nack",
        "POST /v1/queues/extend",
        "GET /v1/queues/show",
        "GET /v1/queues/explain",
    ];
    let mut documented = Vec::new();
    // Twice: what the first round finds empty, missing or free, the second finds full, there or held.
    for round in 0..2 {
        for (path, verbs) in api["paths"].as_object().unwrap() {
            for (verb, operation) in verbs.as_object().unwrap() {
                let place = format!("{} {path}", verb.to_uppercase());
                let example = &operation["requestBody"]["content"]["application/json"]["example"];
                let body = if example.is_null() { String::new() } else { example.to_string() };
                let answer = service.ask(&verb.to_uppercase(), &target(path, operation), &body).await;
                assert!(answer.status != 422 && answer.status < 500, "{place}: the example is refused: {answer:?}");
                compare(&api, operation, &answer, &place);
                if round == 0 {
                    documented.push(place);
                }
            }
        }
    }
    assert_eq!(documented, contract);
}

#[tokio::test]
async fn what_every_operation_may_answer_is_documented_too() {
    let service = Service::start(RestOptions::default()).await;
    let api = service.get("/openapi.json").await.json();
    let operation = |path: &str, verb: &str| api["paths"][path][verb].clone();
    let invalid = service.post("/lock/acquire", "{}").await;
    compare(&api, &operation("/lock/acquire", "post"), &invalid, "invalid");
    assert_eq!(invalid.status, 422);
    service.node.fail(trine_protocol::ErrorCode::NoLeader);
    for (path, body) in
        [("/enqueue", json!({ "message": "m" })), ("/lock/release", json!({ "lock_name": "l", "client_id": "c" }))]
    {
        let unavailable = service.post(path, &body.to_string()).await;
        compare(&api, &operation(path, "post"), &unavailable, path);
        assert_eq!(unavailable.status, 503);
    }
    let wrong = service.get("/enqueue").await;
    compare(&api, &operation("/enqueue", "post"), &wrong, "wrong method");
    service.node.change(|world| world.readiness = Err("why".into()));
    let answer = service.get("/readyz").await;
    assert_eq!(answer.status, 503);
}

#[tokio::test]
async fn the_pages_need_nothing_from_elsewhere() {
    let service = Service::start(RestOptions::default()).await;
    for path in ["/docs", "/redoc"] {
        let page = service.get(path).await;
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        let text = page.text();
        assert!(text.contains("fetch(\"/openapi.json\")") && text.contains("<title>Trine"), "{path}");
        for marker in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!text.contains(marker), "{path} names {marker}");
        }
    }
}
