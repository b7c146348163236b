//! `/v1/locks/...`: what the lock manager has beyond the established routes.

use serde::Serialize;
use serde_json::{Value, json};
use trine_protocol::Response;
use trine_protocol::lock::{
    Ending, ExplainLock, Fence, ForceRelease, Granted, HolderView, Mode, Previous, Renew, WaiterView,
};

use crate::server::Gateway;

use super::dispatch::{Door, unexpected};
use super::field::Arguments;
use super::reply::{Failure, Reply};

/// A grant, as every route that makes or renews one answers it.
#[derive(Serialize)]
pub(super) struct GrantBody<'a> {
    status: &'static str,
    lock: &'a str,
    client_id: &'a str,
    fencing_token: u64,
    fencing_token_str: String,
    expires_in_ms: u32,
}

impl<'a> GrantBody<'a> {
    pub(super) fn new(lock: &'a str, client_id: &'a str, granted: &Granted) -> Self {
        let (fencing_token, expires_in_ms) = (granted.token, granted.lease_ms);
        let fencing_token_str = fencing_token.to_string();
        Self { status: "acquired", lock, client_id, fencing_token, fencing_token_str, expires_in_ms }
    }
}

pub(crate) async fn explain<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let lock = arguments.text("lock_name");
    match door.call(ExplainLock { lock: lock.clone() }).await? {
        Response::ExplainLock(explained) => Ok(Reply::ok(&json!({
            "lock": lock,
            "group": explained.group,
            "holders": explained.holders.iter().map(holder).collect::<Vec<_>>(),
            "holders_total": explained.holders_total,
            "waiters": explained.waiters.iter().map(waiter).collect::<Vec<_>>(),
            "waiters_total": explained.waiters_total,
            "delayed_ms": explained.delayed_ms,
            "previous": explained.previous.iter().map(previous).collect::<Vec<_>>(),
        }))),
        other => Err(unexpected(&other)),
    }
}

fn mode(mode: Mode) -> Value {
    match mode {
        Mode::Exclusive => json!("exclusive"),
        Mode::Shared => json!("shared"),
        Mode::Permits { count, of } => json!({ "permits": count, "of": of }),
    }
}

fn holder(holder: &HolderView) -> Value {
    json!({
        "client_id": holder.client, "fencing_token": holder.token, "mode": mode(holder.mode), "held_ms": holder.held_ms,
        "lease_left_ms": holder.lease_left_ms, "session": holder.session, "depth": holder.depth,
    })
}

fn waiter(waiter: &WaiterView) -> Value {
    json!({
        "client_id": waiter.client, "mode": mode(waiter.mode), "waited_ms": waiter.waited_ms,
        "gives_up_in_ms": waiter.gives_up_in_ms, "locks": waiter.locks,
    })
}

fn previous(previous: &Previous) -> Value {
    let ending = match previous.ending {
        Ending::Released => "released",
        Ending::Expired => "expired",
        Ending::Forced => "forced",
    };
    json!({
        "ending": ending, "client_id": previous.client, "fencing_token": previous.token,
        "left": String::from_utf8_lossy(&previous.left),
    })
}

pub(crate) async fn renew<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (lock, client) = (arguments.text("lock_name"), arguments.text("client_id"));
    let token = arguments.integer("fencing_token");
    let lease_ms = u32::try_from(arguments.integer("timeout_sec") * 1000).expect("the route's table bounds it");
    let renew = Renew { lock: lock.clone(), client: client.clone(), token, lease_ms, ..Renew::default() };
    match door.call(renew).await? {
        Response::Renew(granted) => Ok(Reply::ok(&GrantBody::new(&lock, &client, &granted))),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn force<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let lock = arguments.text("lock_name");
    match door.call(ForceRelease { lock: lock.clone() }).await? {
        Response::ForceRelease(forced) => {
            let status = if forced.holders.is_empty() { "not_held" } else { "released" };
            let holders: Vec<Value> = forced.holders.iter().map(|holder| json!({ "client_id": holder })).collect();
            Ok(Reply::ok(&json!({
                "status": status, "lock": lock, "holders": holders, "fencing_token": forced.token,
            })))
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn fence<G: Gateway>(door: &Door<G>, mut arguments: Arguments) -> Result<Reply, Failure> {
    let (resource, token) = (arguments.text("resource"), arguments.integer("fencing_token"));
    match door.call(Fence { resource: resource.clone(), token }).await? {
        Response::Fence(fenced) => {
            Ok(Reply::ok(&json!({ "status": "passed", "resource": resource, "before": fenced.before })))
        }
        other => Err(unexpected(&other)),
    }
}
