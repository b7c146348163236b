//! `/openapi.json`: the table of routes as OpenAPI 3.1.

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::field::{Field, Kind, Presence};
use super::reply::{JSON, Reply};
use super::route::{self, Answer, Form, Route};

/// Answers that every route may give beside its own: status, name among the components, what it means.
const COMMON: &[(u16, &str, &str)] = &[
    (405, "MethodNotAllowed", "The path is there, but not with this method; `Allow` says with which."),
    (408, "BodyTimeout", "The body did not arrive in time."),
    (413, "TooLarge", "The body, or the value in it, is over its limit."),
    (422, "Invalid", "The body or the query does not validate."),
    (500, "Internal", "A fault of the node; its log says more."),
    (
        503,
        "Unavailable",
        "The node cannot serve this now; `Retry-After` says when to try again, `outcome` whether it may.",
    ),
];

static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(describe().to_string()));

/// `GET /openapi.json`.
pub(crate) fn reply() -> Reply {
    Reply::text(StatusCode::OK, JSON, DESCRIPTION.clone())
}

/// The whole description.
fn describe() -> Value {
    let mut paths = Map::new();
    for route in route::all() {
        paths.insert(route.path.to_owned(), json!({ route.verb.lower(): operation(route) }));
    }
    let responses: Map<String, Value> = COMMON
        .iter()
        .map(|(status, name, about)| {
            let schema = if *status == 422 { "ValidationError" } else { "Error" };
            (
                (*name).to_owned(),
                json!({ "description": about, "content": { "application/json": { "schema": reference(schema) } } }),
            )
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Trine",
            "summary": "A durable queue, a fenced lock and a coherent cache on a cluster of nodes.",
            "description": "Every route is served on every HTTP address of every node. The native protocol does the same \
                and more, faster; these are the compatibility endpoints.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "tags": [
            { "name": "queue", "description": "Durable queues. Without `queue`, each speaks of the queue of the node asked." },
            { "name": "lock", "description": "Locks with a lease and a fencing token." },
            { "name": "cache", "description": "A coherent cache; the node asked is the cache." },
            { "name": "node", "description": "The node itself." },
            { "name": "documentation", "description": "What you are reading." },
        ],
        "paths": paths,
        "components": { "schemas": { "Error": error_schema(), "ValidationError": validation_schema() }, "responses": responses },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({ "operationId": route.id, "tags": [route.tag], "summary": route.summary });
    let members = operation.as_object_mut().expect("made as an object");
    if !route.query.is_empty() {
        members.insert("parameters".into(), route.query.iter().map(parameter).collect());
    }
    if let Some(fields) = route.body {
        let example: Value = serde_json::from_str(route.body_example).expect("a test reads every example");
        let content = json!({ "application/json": { "schema": object(fields), "example": example } });
        members.insert("requestBody".into(), json!({ "required": true, "content": content }));
    }
    let mut responses = Map::new();
    for answer in route.answers {
        responses.insert(answer.status.to_string(), response(answer));
    }
    for (status, name, _) in COMMON {
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        responses.entry(status.to_string()).or_insert(reference);
    }
    members.insert("responses".into(), responses.into());
    operation
}

fn parameter(field: &Field) -> Value {
    json!({
        "name": field.name,
        "in": "query",
        "required": field.presence == Presence::Required,
        "description": field.about,
        "schema": schema(field),
    })
}

fn response(answer: &Answer) -> Value {
    let content = match answer.form {
        Form::Object(fields) => json!({ "application/json": { "schema": object(fields) } }),
        Form::Detail => json!({ "application/json": { "schema": reference("Error") } }),
        Form::Html => json!({ "text/html": { "schema": { "type": "string" } } }),
        Form::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Form::OpenApi => json!({ "application/json": { "schema": { "type": "object" } } }),
    };
    json!({ "description": answer.about, "content": content })
}

fn object(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let mut property = schema(field);
        property.as_object_mut().expect("made as an object").insert("description".into(), field.about.into());
        properties.insert(field.name.to_owned(), property);
    }
    let required: Vec<&str> = fields
        .iter()
        .filter(|field| matches!(field.presence, Presence::Required | Presence::Nullable))
        .map(|field| field.name)
        .collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        Kind::Name { bytes_max } => json!({ "type": "string", "minLength": 1, "maxLength": bytes_max }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Integer { min, max: u64::MAX } => json!({ "type": "integer", "format": "int64", "minimum": min }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Choice(choices) => json!({ "type": "string", "enum": choices }),
        Kind::Any => json!({}),
        Kind::List => json!({ "type": "array", "items": { "type": "object" } }),
    };
    let members = schema.as_object_mut().expect("made as an object");
    match field.presence {
        Presence::Default(number) => drop(members.insert("default".into(), number.into())),
        Presence::Nullable => {
            let kind = members.remove("type").expect("only fields of one type are nullable");
            members.insert("type".into(), json!([kind, "null"]));
        }
        Presence::Required | Presence::Optional => {}
    }
    schema
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "detail": { "type": "string", "description": "What was wrong, for a person." },
            "code": { "type": "string", "description": "The protocol's error, where there is one." },
            "outcome": {
                "type": "string",
                "enum": ["refused", "not_done", "unknown"],
                "description": "`not_done`: send it again. `unknown`: it may have been executed.",
            },
            "hint": { "type": "string", "description": "With `LockHeld`, the holder." },
        },
        "required": ["detail"],
    })
}

fn validation_schema() -> Value {
    let problem = json!({
        "type": "object",
        "properties": {
            "loc": { "type": "array", "items": { "type": ["string", "integer"] }, "description": "Where." },
            "msg": { "type": "string", "description": "What would be right." },
            "type": { "type": "string", "description": "What was wrong, for a program." },
        },
        "required": ["loc", "msg", "type"],
    });
    json!({
        "type": "object",
        "properties": { "detail": { "type": "array", "items": problem } },
        "required": ["detail"],
    })
}
