//! `/`, `/healthz`, `/readyz` and `/metrics`: what the node is, and how it stands.

use hyper::StatusCode;
use serde::Serialize;
use trine_protocol::cluster::{GroupStatus, NodeStatus, Role};
use trine_protocol::placement::{NAMESPACE_DEFAULT, Ring};
use trine_protocol::{Error, ErrorCode};

use super::reply::{Failure, Reply};

/// The content type of Prometheus' text form.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Serialize)]
struct DescriptionBody<'a> {
    node_id: &'a str,
    status: &'static str,
    state: &'static str,
    current_term: u64,
    voted_for: Option<&'a str>,
    current_leader: Option<String>,
    log_length: u64,
    group: u32,
    version: &'a str,
    cluster_id: String,
    uptime_ms: u64,
    nodes: Vec<NodeBody<'a>>,
    groups: Vec<GroupBody<'a>>,
}

#[derive(Serialize)]
struct NodeBody<'a> {
    node: &'a str,
    client: &'a str,
    http: String,
}

#[derive(Serialize)]
struct GroupBody<'a> {
    group: u32,
    state: &'static str,
    current_term: u64,
    voted_for: Option<&'a str>,
    leader: Option<&'a str>,
    last_index: u64,
    commit_index: u64,
    applied_index: u64,
    bus_lease: bool,
    ready: bool,
    why_not_ready: &'a str,
}

#[derive(Serialize)]
struct HealthBody<'a> {
    status: &'static str,
    node: &'a str,
}

#[derive(Serialize)]
struct NotReadyBody<'a> {
    status: &'static str,
    node: &'a str,
    detail: &'a str,
}

/// `GET /`.
pub(crate) fn describe(status: &NodeStatus) -> Result<Reply, Failure> {
    let group = Ring::new(status.groups.len() as u32)
        .map_err(|_| Error::new(ErrorCode::NotReady, "the node has no group yet"))?
        .group_of_lock(NAMESPACE_DEFAULT);
    let Some(replica) = status.groups.iter().find(|candidate| candidate.group == group) else {
        return Err(Error::new(ErrorCode::NotReady, format!("group {group} is not up yet")).into());
    };
    let nodes = status.nodes.iter();
    let body = DescriptionBody {
        node_id: &status.node,
        status: "running",
        state: state(replica.role),
        current_term: replica.term,
        voted_for: replica.voted_for.as_deref(),
        current_leader: replica.leader.as_deref().and_then(|leader| http_address(status, leader)),
        log_length: replica.last_index,
        group,
        version: &status.version,
        cluster_id: format!("{:016x}", status.cluster_id),
        uptime_ms: status.uptime_ms,
        nodes: nodes.map(|node| NodeBody { node: &node.node, client: &node.client, http: url(&node.http) }).collect(),
        groups: status.groups.iter().map(group_body).collect(),
    };
    Ok(Reply::ok(&body).no_store())
}

fn group_body(group: &GroupStatus) -> GroupBody<'_> {
    GroupBody {
        group: group.group,
        state: match group.role {
            Role::Outside => "OUTSIDE",
            role => state(role),
        },
        current_term: group.term,
        voted_for: group.voted_for.as_deref(),
        leader: group.leader.as_deref(),
        last_index: group.last_index,
        commit_index: group.commit_index,
        applied_index: group.applied_index,
        bus_lease: group.bus_lease,
        ready: group.ready,
        why_not_ready: &group.why_not_ready,
    }
}

/// The three states that the contract has. A node outside of the group follows it from there.
const fn state(role: Role) -> &'static str {
    match role {
        Role::Leader => "LEADER",
        Role::Candidate => "CANDIDATE",
        Role::Follower | Role::Outside => "FOLLOWER",
    }
}

/// The public HTTP address of a node, without a path.
pub(crate) fn http_address(status: &NodeStatus, node: &str) -> Option<String> {
    status.nodes.iter().find(|candidate| candidate.node == node).map(|found| url(&found.http))
}

fn url(advertised: &str) -> String {
    format!("http://{advertised}")
}

/// `GET /healthz`.
pub(crate) fn healthz(node: &str) -> Reply {
    Reply::ok(&HealthBody { status: "ok", node }).no_store()
}

/// `GET /readyz`.
pub(crate) fn readyz(node: &str, readiness: Result<(), String>) -> Reply {
    match readiness {
        Ok(()) => Reply::ok(&HealthBody { status: "ready", node }),
        Err(why) => {
            let body = NotReadyBody { status: "not_ready", node, detail: &why };
            Reply::json(StatusCode::SERVICE_UNAVAILABLE, &body).retry_after_seconds(1)
        }
    }
    .no_store()
}

/// `GET /metrics`.
pub(crate) fn metrics(text: String) -> Reply {
    Reply::text(StatusCode::OK, PROMETHEUS, text).no_store()
}
