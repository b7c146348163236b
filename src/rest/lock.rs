//! `/lock/acquire` and `/lock/release`.

use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use serde::Serialize;
use trine_protocol::cluster::Role;
use trine_protocol::lock::{Acquire, Mode, Release};
use trine_protocol::placement::Ring;
use trine_protocol::{Error, ErrorCode, Response};

use crate::server::Gateway;

use super::dispatch::{Door, unexpected};
use super::field::Arguments;
use super::locks::GrantBody;
use super::node::http_address;
use super::reply::{Failure, Reply};

#[derive(Serialize)]
struct ReleasedBody<'a> {
    status: &'static str,
    lock: &'a str,
}

pub(crate) async fn acquire<G: Gateway>(
    door: &Door<G>,
    mut arguments: Arguments,
    head: &Parts,
) -> Result<Reply, Failure> {
    let (lock, client) = (arguments.text("lock_name"), arguments.text("client_id"));
    let lease_ms = u32::try_from(arguments.integer("timeout_sec") * 1000).expect("the route's table bounds it");
    let wait_ms = u32::try_from(arguments.integer_if("wait_ms").unwrap_or(0)).expect("the route's table bounds it");
    let mode = match arguments.text_if("mode").as_deref() {
        None | Some("exclusive") => Mode::Exclusive,
        Some("shared") => Mode::Shared,
        Some(other) => {
            let what = format!("mode is '{other}': `exclusive` and `shared` are allowed");
            return Err(Error::new(ErrorCode::InvalidArgument, what).into());
        }
    };
    redirect(door, &lock, head)?;
    let acquire = Acquire { mode, wait_ms, ..Acquire::new(lock.as_str(), client.as_str(), lease_ms) };
    match door.call_waiting(acquire, wait_ms).await? {
        Response::Acquire(granted) => Ok(Reply::ok(&GrantBody::new(&lock, &client, &granted))),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn release<G: Gateway>(
    door: &Door<G>,
    mut arguments: Arguments,
    head: &Parts,
) -> Result<Reply, Failure> {
    let (lock, client) = (arguments.text("lock_name"), arguments.text("client_id"));
    let token = arguments.integer_if("fencing_token").unwrap_or(0);
    redirect(door, &lock, head)?;
    let status = match door.call(Release { lock: lock.clone(), client, token, ..Release::default() }).await {
        Ok(Response::Release(released)) => {
            if released.was_held {
                "released"
            } else {
                "not_held"
            }
        }
        Ok(other) => return Err(unexpected(&other)),
        Err(error) if error.code == ErrorCode::LockNotHeld => "not_held",
        Err(error) => return Err(error.into()),
    };
    Ok(Reply::ok(&ReleasedBody { status, lock: &lock }))
}

/// With the option for it: sends the caller to the leader of the lock's group unless that is this node.
fn redirect<G: Gateway>(door: &Door<G>, lock: &str, head: &Parts) -> Result<(), Failure> {
    if !door.options().redirect_locks {
        return Ok(());
    }
    let status = door.gateway().status();
    let group = Ring::new(status.groups.len() as u32)?.group_of_lock(lock);
    let Some(replica) = status.groups.iter().find(|candidate| candidate.group == group) else {
        return Err(Error::new(ErrorCode::NotReady, format!("group {group} is not up yet")).into());
    };
    if replica.role == Role::Leader {
        return Ok(());
    }
    // A replica that has just lost its leadership may still name itself; that would send the caller in a circle.
    let leader = replica.leader.as_deref().filter(|leader| *leader != status.node);
    let address = leader.and_then(|leader| http_address(&status, leader));
    let Some(address) = address else {
        return Err(Error::new(ErrorCode::NoLeader, ErrorCode::NoLeader.meaning()).into());
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    match HeaderValue::from_str(&format!("{address}{path}")) {
        Ok(location) => Err(Failure::Redirect { location, detail: format!("the leader is at {address}") }),
        Err(_) => Err(Error::new(ErrorCode::Internal, "the leader's advertised address is no address").into()),
    }
}
