//! `trine status`: every node of the cluster is asked, and what each says stands side by side.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use trine_protocol::Error;
use trine_protocol::client::Client;
use trine_protocol::cluster::{NodeStanding, NodeStatus, Role};

use super::client::ClientArgs;
use super::{Exit, Failure, say};

/// Milliseconds that each node has for its answer, once one node has named them all.
const NODE_MS_MAX: u64 = 1_000;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// What became of asking each node, by name.
pub(super) type Answers = BTreeMap<String, Result<NodeStatus, Error>>;

/// Asks one node for the list of nodes, then each of those. Exit code 5 unless every node answers and is ready.
pub(super) async fn run(args: StatusArgs) -> Result<Exit, Failure> {
    let (first, answers) = ask(&args.client.connect().await?, &args.client).await?;
    if args.client.json {
        say(format!("{}\n", object(&first, &answers)).as_bytes())?;
    } else {
        say(text(&first, &answers).as_bytes())?;
    }
    let well = answers.values().all(|answer| answer.as_ref().is_ok_and(|status| why_not_ready(status).is_none()));
    Ok(if well { Exit::Done } else { Exit::NotDone })
}

/// Asks one node for the list of nodes, then each of those.
pub(super) async fn ask(client: &Client, args: &ClientArgs) -> Result<(NodeStatus, Answers), Failure> {
    let first = client.status().await?;
    let mut asked = JoinSet::new();
    for node in &first.nodes {
        let mut config = args.config(vec![node.client.clone()]);
        config.deadline = config.deadline.min(std::time::Duration::from_millis(NODE_MS_MAX));
        let name = node.node.clone();
        asked.spawn(async move {
            let status = async { Client::connect(config).await?.status().await };
            (name, status.await)
        });
    }
    let answers = asked.join_all().await.into_iter().collect();
    Ok((first, answers))
}

/// The first group that is not ready, and why.
pub(super) fn why_not_ready(status: &NodeStatus) -> Option<String> {
    if !status.outside.is_empty() {
        return Some(status.outside.clone());
    }
    let group = status.groups.iter().find(|group| !group.ready)?;
    Some(format!("group {}: {}", group.group, group.why_not_ready))
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Candidate => "candidate",
        Role::Follower => "follower",
        Role::Outside => "outside",
    }
}

fn text(first: &NodeStatus, answers: &Answers) -> String {
    let mut out =
        format!("cluster {:016x}: {} nodes, {} groups\n\n", first.cluster_id, first.nodes.len(), first.groups.len());
    let mut nodes = vec![["node", "part", "clients", "http", "version", "up", "state"].map(String::from).to_vec()];
    for node in &first.nodes {
        let (version, up, state) = match &answers[&node.node] {
            Ok(status) => {
                let state = why_not_ready(status).unwrap_or_else(|| "ready".into());
                (status.version.clone(), duration(status.uptime_ms), state)
            }
            Err(error) => ("-".into(), "-".into(), format!("no answer: {error}")),
        };
        let (part, http) = (standing(node.standing).to_owned(), format!("http://{}", node.http));
        nodes.push(vec![node.node.clone(), part, node.client.clone(), http, version, up, state]);
    }
    table(&mut out, &nodes);
    out.push('\n');
    let mut head = ["group", "leader", "term", "committed"].map(String::from).to_vec();
    head.extend(first.nodes.iter().map(|node| node.node.clone()));
    let mut groups = vec![head];
    for group in &first.groups {
        let views =
            || answers.values().flatten().flat_map(|status| &status.groups).filter(|view| view.group == group.group);
        // The node that knows the newest term knows the leader best.
        let newest = views().max_by_key(|view| (view.term, view.leader.is_some())).unwrap_or(group);
        let committed = views().map(|view| view.commit_index).max().unwrap_or(group.commit_index);
        let leader = newest.leader.clone().unwrap_or_else(|| "none".into());
        let mut row = vec![group.group.to_string(), leader, newest.term.to_string(), committed.to_string()];
        row.extend(first.nodes.iter().map(|node| {
            let status = answers[&node.node].as_ref().ok();
            let view = status.and_then(|status| status.groups.iter().find(|view| view.group == group.group));
            view.map_or("-".into(), |view| format!("{} {}", role(view.role), view.applied_index))
        }));
        groups.push(row);
    }
    table(&mut out, &groups);
    for group in &first.groups {
        let views = answers.values().flatten().flat_map(|status| &status.groups).filter(|it| it.group == group.group);
        for view in views.filter(|view| !view.change.is_empty()) {
            writeln!(out, "\ngroup {} changes its members, and waits for {}", view.group, view.change)
                .expect("a string takes everything");
        }
    }
    out
}

const fn standing(standing: NodeStanding) -> &'static str {
    match standing {
        NodeStanding::Voter => "voter",
        NodeStanding::Learner => "learner",
        NodeStanding::Leaving => "leaving",
    }
}

/// Columns as wide as their widest cell; the last one is not padded.
fn table(out: &mut String, rows: &[Vec<String>]) {
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end()).expect("a string takes everything");
    }
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes:02}m"),
        (days, hours, _, _) => format!("{days}d{hours:02}h"),
    }
}

fn object(first: &NodeStatus, answers: &Answers) -> Value {
    let nodes = first.nodes.iter().map(|node| {
        let part = standing(node.standing);
        let mut object =
            json!({ "node": node.node, "part": part, "client": node.client, "http": node.http, "peer": node.peer });
        let members = object.as_object_mut().expect("made as an object");
        match &answers[&node.node] {
            Ok(status) => {
                members.insert("version".into(), status.version.clone().into());
                members.insert("incarnation".into(), format!("{:016x}", status.incarnation).into());
                members.insert("uptime_ms".into(), status.uptime_ms.into());
                members.insert("ready".into(), why_not_ready(status).is_none().into());
                members.insert("groups".into(), status.groups.iter().map(group).collect());
            }
            Err(error) => {
                members.insert("ready".into(), false.into());
                members.insert("error".into(), error.to_string().into());
            }
        }
        object
    });
    json!({ "cluster_id": format!("{:016x}", first.cluster_id), "nodes": nodes.collect::<Vec<_>>() })
}

fn group(group: &trine_protocol::cluster::GroupStatus) -> Value {
    json!({
        "group": group.group,
        "role": role(group.role),
        "term": group.term,
        "leader": group.leader,
        "last_index": group.last_index,
        "commit_index": group.commit_index,
        "applied_index": group.applied_index,
        "bus_lease": group.bus_lease,
        "ready": group.ready,
        "why_not_ready": group.why_not_ready,
        "voters": group.voters,
        "learners": group.learners,
        "change": group.change,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_durations_read_well() {
        let mut out = String::new();
        table(&mut out, &[vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]]);
        assert_eq!(out, "a    bb\nccc  d\n");
        let spelled = [0, 59_999, 60_000, 3_599_000, 3_600_000, 86_400_000, 180_000_000].map(duration);
        assert_eq!(spelled, ["0s", "59s", "1m00s", "59m59s", "1h00m", "1d00h", "2d02h"]);
    }
}
