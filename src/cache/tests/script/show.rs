//! What a script can look at.

use std::fmt::Write as _;

use goldenscript::ArgumentConsumer;

use super::Result;
use super::cluster::Cluster;
use crate::cache::tests::show;

/// The commands of this module.
pub(super) const COMMANDS: [&str; 10] =
    ["states", "lines", "home", "memory", "members", "flights", "log", "leases", "journal", "counts"];

/// Runs one of [`COMMANDS`], which change nothing.
pub(super) fn show(cluster: &Cluster, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<String> {
    let shown = match name {
        "states" => states(cluster),
        "lines" => lines(cluster),
        "home" => home(cluster, super::number(arguments)?)?,
        "memory" => memory(cluster),
        "members" => {
            let member = |(node, life): (&crate::ids::NodeId, &crate::ids::Incarnation)| {
                format!("{} life {}\n", show::node(*node), life.0)
            };
            cluster.memory.members().iter().map(member).collect()
        }
        "flights" => {
            cluster.flights.iter().map(|it| format!("{} → {} {}\n", it.from, it.to, it.message.text())).collect()
        }
        "log" => cluster.proposed.iter().map(|(_, it)| format!("{}\n", show::command(&it.command))).collect(),
        "leases" => leases(cluster),
        "journal" => {
            let member = cluster.members.get(&super::number(arguments)?).ok_or("no such node")?;
            member.journal.iter().map(|record| format!("{}\n", show::journal(record))).collect()
        }
        _ => counts(cluster, super::number(arguments)?)?,
    };
    Ok(if shown.is_empty() { "nothing\n".into() } else { shown })
}

/// The state of every key on every node.
fn states(cluster: &Cluster) -> String {
    let mut shown = String::new();
    for (number, member) in &cluster.members {
        let states: Vec<String> = match &member.agent {
            Some(agent) => cluster.oracle.keys().iter().map(|key| format!("{key} {}", agent.show(key))).collect(),
            None => vec!["is down".into()],
        };
        writeln!(shown, "n{number}: {}", states.join(", ")).expect("a string");
    }
    shown
}

/// What a reader may be served now.
fn lines(cluster: &Cluster) -> String {
    let mut shown = String::new();
    for (number, member) in &cluster.members {
        for (key, _) in member.lines.iter() {
            let found = member.lines.peek(key).filter(|found| found.is_valid_at(cluster.clock_us(*number)));
            if let Some(found) = found {
                let line = found.line;
                writeln!(shown, "n{number}: {key} {:?} {}", line.state, show::versioned(&line.value))
                    .expect("a string");
            }
        }
    }
    shown
}

fn home(cluster: &Cluster, term: u64) -> Result<String> {
    let office = cluster.homes.get(&term).ok_or("no such home")?;
    let now_us = cluster.clock_us(office.node);
    let state = |key: &String| format!("{key}: {}\n", office.home.show(key, &cluster.memory, now_us));
    Ok(cluster.oracle.keys().iter().map(state).collect())
}

fn memory(cluster: &Cluster) -> String {
    let mut shown = String::new();
    for (key, cell) in cluster.memory.cells() {
        let owner = match &cell.owner {
            Some(owner) => format!("{} owns since {}", show::node(owner.node), owner.epoch),
            None => "nobody owns".into(),
        };
        writeln!(shown, "{key}: {}, {owner}", show::versioned(&cell.stored)).expect("a string");
    }
    shown
}

/// The leases, as their holders count them and as the newest home does.
fn leases(cluster: &Cluster) -> String {
    let mut shown = String::new();
    for (number, member) in &cluster.members {
        let now_us = cluster.clock_us(*number);
        let tag = member.agent.as_ref().and_then(|agent| agent.valid_tag(now_us));
        let held = tag.map_or("no lease".into(), show::lease);
        let home = cluster.homes.last_key_value().map(|(_, office)| office);
        let node = crate::ids::NodeId::numbered(*number);
        let given = home.is_some_and(|office| office.home.has_lease(node, cluster.clock_us(office.node)));
        let given = if given { "the home waits for it" } else { "the home waits not" };
        writeln!(shown, "n{number}: {held}, {given}").expect("a string");
    }
    shown
}

fn counts(cluster: &Cluster, number: usize) -> Result<String> {
    let agent = cluster.members.get(&number).and_then(|member| member.agent.as_ref()).ok_or("it is down")?;
    let crate::cache::Stats { dirty_lines, counts, .. } = agent.stats();
    let crate::cache::Counts { write_backs, evictions, lapses, lost, .. } = counts;
    Ok(format!(
        "n{number}: {dirty_lines} dirty; {write_backs} written back, {evictions} evicted, {lapses} leases lapsed, {lost} lost\n"
    ))
}
