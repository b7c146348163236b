//! What a script can look at.

use std::fmt::Write as _;

use goldenscript::ArgumentConsumer;

use super::{Result, nodes};
use crate::ids::NodeId;
use crate::raft::node::RoleState;
use crate::raft::progress::State;
use crate::raft::tests::cluster::{Cluster, Flight};
use crate::raft::tests::trace;
use crate::raft::{Entry, Raft, Role, Stats};
use crate::rules::Faithful;

/// The commands of this module.
pub(super) const COMMANDS: [&str; 12] =
    ["flights", "status", "members", "votes", "logs", "stamps", "walls", "progress", "lags", "lease", "counts", "size"];

/// Runs one of [`COMMANDS`], which change nothing.
pub(super) fn show(cluster: &Cluster<Faithful>, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<String> {
    let mut shown = String::new();
    if name == "flights" {
        for Flight { from, to, message } in &cluster.flights {
            let (from, to) = (trace::number(*from), trace::number(*to));
            writeln!(shown, "n{from}@{} → n{to} {}", message.term, trace::message(message, message.term))?;
        }
        return Ok(shown);
    }
    for id in nodes(cluster, arguments)? {
        let number = trace::number(id);
        let Some(raft) = cluster.raft(id) else {
            writeln!(shown, "n{number} is down")?;
            continue;
        };
        let text = match name {
            "status" => {
                let role = trace::State::of(raft).name(id);
                let (commit, applied, last) = (raft.commit(), raft.applied(), raft.last_index());
                format!("{role} commit={commit} applied={applied} last={last}")
            }
            "members" => format!("n{number} {}", trace::membership(raft.membership())),
            "votes" => {
                let vote = raft.vote().map_or("nobody".into(), |id| format!("n{}", trace::number(id)));
                format!("n{number}@{} voted for {vote}", raft.term())
            }
            "logs" => format!("n{number} after {}: {}", trace::meta(raft.base()), trace::entries(&log(raft))),
            "stamps" => {
                let stamps: Vec<u64> = log(raft).iter().map(|entry| entry.stamp_ms).collect();
                format!("n{number} log time {}, stamps {stamps:?}", raft.log_time_ms(cluster.clock(id)))
            }
            "walls" => {
                let walls: Vec<u64> = log(raft).iter().map(|entry| entry.wall_ms).collect();
                format!("n{number} wall stamps {walls:?}")
            }
            "lease" => lease(cluster, id, raft),
            "size" => format!("n{number} holds {} bytes of entries", raft.entries_bytes()),
            "counts" => format!("n{number} {}", counts(raft.stats())),
            "lags" => format!("n{number} {}", lags(raft)),
            _ if raft.role() == Role::Leader => progress(raft),
            _ => format!("n{number} leads nobody"),
        };
        writeln!(shown, "{}", text.trim_end())?;
    }
    Ok(shown)
}

fn log(raft: &Raft<Faithful>) -> Vec<Entry> {
    (raft.base().index + 1..=raft.last_index()).filter_map(|index| raft.entry(index).cloned()).collect()
}

fn lease(cluster: &Cluster<Faithful>, id: NodeId, raft: &Raft<Faithful>) -> String {
    let left = raft.lease_until_us().map(|until_us| until_us.saturating_sub(cluster.clock(id).mono_us) / 1000);
    format!("n{} lease: {}", trace::number(id), left.map_or("none".into(), |left| format!("{left} ms")))
}

fn lags(raft: &Raft<Faithful>) -> String {
    let lags: Vec<String> = raft.lags().iter().map(|(id, lag)| format!("n{} by {lag}", trace::number(*id))).collect();
    if lags.is_empty() { "knows of nobody's lag".into() } else { format!("is ahead of {}", lags.join(", ")) }
}

fn counts(stats: Stats) -> String {
    let Stats { elections, leader_changes, refused_not_leader, refused_overloaded, refused_transferring, .. } = stats;
    format!(
        "stood {elections} times, knew {leader_changes} leaders, refused {refused_not_leader} not leading, \
         {refused_overloaded} overloaded, {refused_transferring} handing over"
    )
}

fn progress(raft: &Raft<Faithful>) -> String {
    let mut shown = String::new();
    if let RoleState::Leader(leader) = &raft.node.role {
        for (id, progress) in &leader.followers {
            let state = match &progress.state {
                State::Probe { waiting: true } => "probe, waiting".into(),
                State::Probe { waiting: false } => "probe".into(),
                State::Replicate => "replicate".into(),
                State::Snapshot { snapshot, offset, .. } => format!("snapshot {snapshot} from byte {offset}"),
            };
            let (matched, next) = (progress.matched, progress.next);
            shown += &format!("n{}: {state} match={matched} next={next}\n", trace::number(id.node));
        }
    }
    shown
}
