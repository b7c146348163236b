//! `trine cache explain` and `trine cache evacuate`: why a key is as it is, and what a person may do about it.

use std::fmt::Write;

use serde_json::{Value, json};
use trine_protocol::cache::{Explained, HomeView};

use super::client::ClientArgs;
use super::{Exit, Failure};

/// Asks every node of the cluster what it knows of a key.
pub(super) async fn explain(client: &ClientArgs, key: &str) -> Result<Exit, Failure> {
    let connected = client.connect().await?;
    let status = connected.status().await?;
    let mut views = Vec::new();
    for node in &status.nodes {
        let answer = match connected.at(&node.client) {
            Ok(at) => at.explain(key).await,
            Err(error) => Err(error),
        };
        views.push((node.node.clone(), answer));
    }
    let nodes: Vec<Value> = views
        .iter()
        .map(|(node, answer)| match answer {
            Ok(explained) => as_json(explained),
            Err(error) => json!({ "node": node, "error": error.to_string() }),
        })
        .collect();
    let mut text = String::new();
    for (node, answer) in &views {
        match answer {
            Ok(explained) => tell(&mut text, explained),
            Err(error) => drop(writeln!(text, "{node}: no answer: {error}")),
        }
    }
    client.answer(format!("key {key}\n{}", text.trim_end()), &json!({ "key": key, "nodes": nodes }))
}

fn tell(text: &mut String, explained: &Explained) {
    let Explained { node, state, version, dirty, waiting, lease_ms, transitions, home, group } = explained;
    let version = version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
    let dirty = if *dirty { ", newer than main memory" } else { "" };
    let lease = match lease_ms {
        0 => "no bus lease: it serves nothing".to_owned(),
        lease_ms => format!("bus lease for {lease_ms} ms"),
    };
    let _ = writeln!(text, "{node}: {state}, {version}{dirty}; {waiting} waiting; {lease}");
    for transition in transitions {
        let _ = writeln!(
            text,
            "    {:>8} ms ago  {} -> {}  {}",
            transition.ago_ms, transition.from, transition.to, transition.why
        );
    }
    if let Some(home) = home {
        tell_home(text, *group, home);
    }
}

fn tell_home(text: &mut String, group: u32, home: &HomeView) {
    let memory = match home.version {
        _ if home.in_redis => "what Redis has".to_owned(),
        Some(version) => format!("version {}, {} bytes, written by {}", version, home.bytes, home.writer),
        None => "nothing".to_owned(),
    };
    let owner = match (home.owner.as_str(), home.owner_present) {
        ("", _) => "nobody owns it".to_owned(),
        (owner, true) => format!("{owner} owns it"),
        (owner, false) => {
            format!("{owner} owns it and is AWAY: reads wait for its return, a plain write replaces its value")
        }
    };
    let _ = writeln!(text, "  home of group {group}: main memory has {memory}; {owner}");
    if !home.sharers.is_empty() {
        let _ = writeln!(text, "    copies at {}", home.sharers.join(", "));
    }
    if !home.busy.is_empty() {
        let _ = writeln!(text, "    {}; {} wait behind it", home.busy, home.waiting);
    }
    if home.expires_in_ms > 0 {
        let _ = writeln!(text, "    goes by itself in {} ms", home.expires_in_ms);
    }
    if home.filling > 0 {
        let _ = writeln!(text, "    one client fills it, {} wait for that", home.filling - 1);
    }
}

fn as_json(explained: &Explained) -> Value {
    let transitions: Vec<Value> = explained
        .transitions
        .iter()
        .map(|it| json!({ "ago_ms": it.ago_ms, "from": it.from, "to": it.to, "why": it.why }))
        .collect();
    let home = explained.home.as_ref().map(|home| {
        json!({
            "version": home.version.map(|version| version.to_string()), "bytes": home.bytes, "writer": home.writer, "owner": home.owner,
            "owner_present": home.owner_present, "sharers": home.sharers, "busy": home.busy, "waiting": home.waiting,
            "expires_in_ms": home.expires_in_ms, "filling": home.filling, "in_redis": home.in_redis,
        })
    });
    json!({
        "node": explained.node, "group": explained.group, "state": explained.state,
        "version": explained.version.map(|version| version.to_string()), "dirty": explained.dirty, "waiting": explained.waiting,
        "lease_ms": explained.lease_ms, "transitions": transitions, "home": home,
    })
}

/// Gives up what a dead node did not write back, in every group.
pub(super) async fn evacuate(client: &ClientArgs, node: &str, accept_loss: bool) -> Result<Exit, Failure> {
    if !accept_loss {
        let what = format!(
            "what {node} acknowledged and did not write back would be lost. If its disk can be brought back, start it: it writes everything \
             back by itself. If it is gone for good, say --accept-loss"
        );
        return Err(Failure::new(Exit::Usage, what));
    }
    let connected = client.connect().await?;
    let mut lost = 0;
    for group in 0..connected.ring().groups() {
        let mut most = 0;
        loop {
            let keys = connected.evacuate(group, node).await?.keys;
            most = keys.max(most);
            if keys == 0 {
                break;
            }
        }
        lost += most;
    }
    client.answer(
        format!("{lost} keys are {node}'s no more: what it had not written back of them is lost"),
        &json!({ "node": node, "keys": lost }),
    )
}
