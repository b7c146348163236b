//! The commands of the scripts in `src/raft/scripts`.
//!
//! | command | what happens |
//! | --- | --- |
//! | `cluster nodes=3` | nodes with empty disks, all started; `down` leaves them down; `disk=manual`, `snapshots=manual`; `voters=3` takes the first three as the group's beginning; limits as `window=`, `append=`, `uncommitted=`, `chunk=`, `assembled=` |
//! | `disk 2 term=3 vote=1 log=1.1.2` | what a node that is down has on disk: the terms of its entries |
//! | `start 2`, `crash 2 [synced=1]` | from its disk; losing what was not synced |
//! | `campaign 1` | time passes until only node 1 has lost patience |
//! | `elect 1` | `campaign`, then `settle` |
//! | `propose 1 x y` | commands, one after the other; `bytes=1000` makes one of that size |
//! | `deliver [to=2] [from=1] [only=Append] [count=1]` | what is on its way now arrives, or a part of it |
//! | `stabilize`, `settle` | deliver until there is rest; the same with all disks done too |
//! | `drop`, `repeat`, `swap` | lose, double or reverse what is on its way; the same filters as `deliver` |
//! | `flights` | shows what is on its way |
//! | `wait 100`, `tick 1 2`, `heartbeat 1` | milliseconds pass; ticks without time; 100 ms and a tick |
//! | `cut 1 2`, `isolate 1`, `heal` | a link one way; all links of a node; all links again |
//! | `persist 2 [count=1]` | writes in flight are durable |
//! | `compact 1 5`, `provide 1`, `transfer 1 [to=3]`, `change 1 voters=1.2.4 [learners=5]`, `read 1 7` | as the replica would call them; a read has a number |
//! | `step 2 from=1 term=3 append prev=3@1 log=2.2 commit=3 round=1` | a message from nowhere; `life=5`: for another life of the node |
//! | `status`, `logs`, `stamps`, `members`, `progress 1`, `lease 1` | shows |

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};

use super::cluster::{Cluster, Flight};
use super::trace;
use crate::ids::{Incarnation, Index, NodeId, ReplicaId, Term};
use crate::raft::node::RoleState;
use crate::raft::progress::State;
use crate::raft::{Body, Entry, Message, Role, SnapshotMeta};
use crate::rules::Faithful;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs one script.
#[derive(Default)]
pub(super) struct Runner {
    cluster: Option<Cluster<Faithful>>,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String> {
        let mut arguments = command.consume_args();
        if command.name == "cluster" {
            self.cluster = Some(new_cluster(&mut arguments)?);
        }
        let cluster = self.cluster.as_mut().ok_or("the first command is 'cluster'")?;
        let shown = match command.name.as_str() {
            "cluster" => String::new(),
            "status" | "logs" | "stamps" | "members" | "progress" | "lease" | "flights" => {
                show(cluster, &command.name, &mut arguments)?
            }
            "deliver" | "drop" | "repeat" | "swap" | "stabilize" => {
                network(cluster, &command.name, &mut arguments)?;
                String::new()
            }
            name => act(cluster, name, &mut arguments)?,
        };
        arguments.reject_next()?;
        let lines = std::mem::take(cluster.trace.as_mut().expect("scripts are traced"));
        let mut output = lines.join("\n");
        if !output.is_empty() {
            output.push('\n');
        }
        Ok(output + &shown)
    }
}

fn new_cluster(arguments: &mut ArgumentConsumer<'_>) -> Result<Cluster<Faithful>> {
    let mut number = |key: &str| arguments.take_key(key).map(str::parse::<usize>).transpose();
    let nodes = number("nodes")?.ok_or("nodes=")?;
    let (window, append, uncommitted) = (number("window")?, number("append")?, number("uncommitted")?);
    let (chunk, assembled) = (number("chunk")?, number("assembled")?);
    let voters = number("voters")?.unwrap_or(nodes);
    let mut cluster = Cluster::new(nodes, 1, |config| {
        config.voters.truncate(voters);
        config.in_flight_max = window.unwrap_or(config.in_flight_max);
        config.append_bytes_max = append.unwrap_or(config.append_bytes_max);
        config.uncommitted_bytes_max = uncommitted.unwrap_or(config.uncommitted_bytes_max);
        config.snapshot_chunk_bytes = chunk.unwrap_or(config.snapshot_chunk_bytes);
        config.snapshot_bytes_max = assembled.map_or(config.snapshot_bytes_max, |bytes| bytes as u64);
    });
    let mut is_manual = |key: &str| arguments.take_key(key).is_some_and(|value| value == "manual");
    cluster.disks_are_instant = !is_manual("disk");
    cluster.snapshots_are_instant = !is_manual("snapshots");
    if arguments.next_pos() != Some("down") {
        for id in cluster.ids() {
            cluster.start(id);
        }
    }
    cluster.trace = Some(Vec::new());
    Ok(cluster)
}

fn node(arguments: &mut ArgumentConsumer<'_>) -> Result<NodeId> {
    let number: usize = arguments.next_pos().ok_or("which node?")?.parse()?;
    Ok(NodeId::numbered(number))
}

/// The nodes named, or all.
fn nodes(cluster: &Cluster<Faithful>, arguments: &mut ArgumentConsumer<'_>) -> Result<Vec<NodeId>> {
    let mut named = Vec::new();
    while let Some(number) = arguments.next_pos() {
        named.push(NodeId::numbered(number.parse()?));
    }
    Ok(if named.is_empty() { cluster.ids() } else { named })
}

fn key<T: std::str::FromStr<Err: Error + 'static>>(
    arguments: &mut ArgumentConsumer<'_>,
    key: &str,
) -> Result<Option<T>> {
    Ok(arguments.take_key(key).map(str::parse).transpose()?)
}

fn act(cluster: &mut Cluster<Faithful>, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<String> {
    match name {
        "heal" => cluster.cut.clear(),
        "settle" => cluster.settle(),
        "wait" => cluster.now_us += arguments.next_pos().ok_or("how long?")?.parse::<u64>()? * 1000,
        "tick" => {
            for id in nodes(cluster, arguments)? {
                cluster.input(id, |raft, now| raft.tick(now));
            }
        }
        _ => {
            let id = node(arguments)?;
            return act_at(cluster, name, id, arguments);
        }
    }
    Ok(String::new())
}

fn act_at(
    cluster: &mut Cluster<Faithful>,
    name: &str,
    id: NodeId,
    arguments: &mut ArgumentConsumer<'_>,
) -> Result<String> {
    match name {
        "start" => cluster.start(id),
        "crash" => cluster.crash(id, key(arguments, "synced")?.unwrap_or(0)),
        "disk" => prepare_disk(cluster, id, arguments)?,
        "campaign" | "elect" => {
            cluster.now_us += 1_300_000;
            cluster.input(id, |raft, now| raft.tick(now));
            if name == "elect" {
                cluster.settle();
            }
        }
        "propose" => return propose(cluster, id, arguments),
        "heartbeat" => {
            cluster.now_us += 100_000;
            cluster.input(id, |raft, now| raft.tick(now));
        }
        "cut" => {
            let to = node(arguments)?;
            cluster.cut.insert((id, to));
        }
        "isolate" => {
            for other in cluster.ids() {
                cluster.cut.insert((id, other));
                cluster.cut.insert((other, id));
            }
        }
        "persist" => cluster.sync(id, key(arguments, "count")?.unwrap_or(usize::MAX)),
        "compact" => {
            let index = arguments.next_pos().ok_or("up to which index?")?.parse()?;
            let base = cluster.compact(id, index).ok_or("it is down")?;
            return Ok(format!("n{} begins after {}\n", trace::number(id), trace::meta(&base)));
        }
        "provide" => cluster.provide(id),
        "transfer" => match key(arguments, "to")?.map(NodeId::numbered) {
            Some(target) => drop(cluster.input(id, |raft, now| raft.transfer_to(now, target))),
            None => drop(cluster.input(id, |raft, now| raft.transfer(now))),
        },
        "change" => {
            let voters = replicas(arguments.take_key("voters"))?;
            let learners = replicas(arguments.take_key("learners"))?;
            let result = cluster.input(id, |raft, now| raft.change(now, voters, learners)).ok_or("it is down")?;
            let refusal = |error| format!("n{} refuses: {error:?}\n", trace::number(id));
            return Ok(result.err().map(refusal).unwrap_or_default());
        }
        "read" => {
            let ticket = arguments.next_pos().ok_or("which number?")?.parse()?;
            let result = cluster.read(id, ticket).ok_or("it is down")?;
            let refusal = |error| format!("n{} refuses: {error:?}\n", trace::number(id));
            return Ok(result.err().map(refusal).unwrap_or_default());
        }
        "step" => {
            let from = NodeId::numbered(key(arguments, "from")?.ok_or("from=")?);
            let message = message(arguments)?;
            cluster.arrive(Flight { from, to: id, message });
        }
        _ => return Err(format!("no command '{name}'").into()),
    }
    Ok(String::new())
}

/// `1.2.4` as replicas of the group's beginning.
fn replicas(text: Option<&str>) -> Result<BTreeSet<ReplicaId>> {
    let number = |text: &str| Ok(ReplicaId::founder(NodeId::numbered(text.parse()?)));
    text.map_or(Ok(BTreeSet::new()), |text| text.split('.').map(number).collect())
}

fn propose(cluster: &mut Cluster<Faithful>, id: NodeId, arguments: &mut ArgumentConsumer<'_>) -> Result<String> {
    let mut shown = String::new();
    let mut proposals = Vec::new();
    if let Some(bytes) = key::<usize>(arguments, "bytes")? {
        proposals.push(Bytes::from(vec![b'x'; bytes]));
    }
    while let Some(text) = arguments.next_pos() {
        proposals.push(Bytes::copy_from_slice(text.as_bytes()));
    }
    let results =
        cluster.input(id, |raft, now| proposals.into_iter().map(|data| raft.propose(now, data)).collect::<Vec<_>>());
    for error in results.ok_or("it is down")?.into_iter().filter_map(std::result::Result::err) {
        writeln!(shown, "n{} refuses: {error:?}", trace::number(id))?;
    }
    Ok(shown)
}

/// Entries of the given terms from `first` on. What stands in them follows from term and index, as in a real run.
fn entries(first: Index, terms: &str) -> Result<Vec<Entry>> {
    let terms: Vec<Term> = terms.split('.').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let entry = |(index, term)| Entry {
        index,
        term,
        stamp_ms: 0,
        wall_ms: 0,
        data: Bytes::from(format!("t{term}")),
        membership: None,
    };
    Ok((first..).zip(terms).map(entry).collect())
}

fn position(text: &str) -> Result<(Index, Term)> {
    let (index, term) = text.split_once('@').ok_or("index@term")?;
    Ok((index.parse()?, term.parse()?))
}

fn prepare_disk(cluster: &mut Cluster<Faithful>, id: NodeId, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    let disk = &mut cluster.members.get_mut(&id).ok_or("no such node")?.disk;
    disk.hard_state.term = key(arguments, "term")?.unwrap_or(disk.hard_state.term);
    disk.hard_state.vote = key(arguments, "vote")?.map(|number| ReplicaId::founder(NodeId::numbered(number)));
    if let Some(terms) = arguments.take_key("log") {
        disk.entries = entries(1, terms)?;
        disk.hard_state.term = disk.hard_state.term.max(disk.entries.last().map_or(0, |entry| entry.term));
    }
    Ok(())
}

fn message(arguments: &mut ArgumentConsumer<'_>) -> Result<Message> {
    let term = key(arguments, "term")?.ok_or("term=")?;
    let round = key(arguments, "round")?.unwrap_or(0);
    let mut place = |name: &str| arguments.take_key(name).map_or(Ok((0, 0)), position);
    let (prev, last, hint, meta) = (place("prev")?, place("last")?, place("hint")?, place("meta")?);
    let log = arguments.take_key("log").map_or(Ok(Vec::new()), |terms| entries(prev.0 + 1, terms))?;
    let commit = key(arguments, "commit")?.unwrap_or(0);
    let index = key(arguments, "index")?.unwrap_or(0);
    let offset = key(arguments, "offset")?.unwrap_or(0);
    let data = Bytes::from(arguments.take_key("data").unwrap_or_default().to_owned());
    let kind = arguments.next_pos().ok_or("which message?")?;
    let flag = arguments.next_pos();
    let granted = flag == Some("granted");
    let body = match kind {
        "pre-vote" => Body::PreVote { last_index: last.0, last_term: last.1 },
        "pre-vote-reply" => Body::PreVoteReply { granted },
        "vote" => Body::Vote { last_index: last.0, last_term: last.1, transfer: flag == Some("transfer") },
        "vote-reply" => Body::VoteReply { granted },
        "append" => Body::Append { prev_index: prev.0, prev_term: prev.1, entries: log, commit, round, log_time_ms: 0 },
        "appended" => Body::Appended { index, round },
        "rejected" => Body::Rejected { prev_index: prev.0, hint_index: hint.0, hint_term: hint.1, round },
        "snapshot" => {
            let meta = SnapshotMeta { index: meta.0, term: meta.1, stamp_ms: 0, wall_ms: 0, membership: None };
            Body::Snapshot { meta, offset, data, last: flag == Some("last") }
        }
        "snapshot-reply" => Body::SnapshotReply { index, next_offset: offset, installed: flag == Some("installed") },
        "timeout-now" => Body::TimeoutNow,
        other => return Err(format!("no message '{other}'").into()),
    };
    let to = Incarnation(key(arguments, "life")?.unwrap_or(0));
    Ok(Message { to, ..Message::new(term, body) })
}

fn network(cluster: &mut Cluster<Faithful>, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    if name == "stabilize" {
        cluster.stabilize();
        return Ok(());
    }
    let from = key(arguments, "from")?.map(NodeId::numbered);
    let to = key(arguments, "to")?.map(NodeId::numbered);
    let only = arguments.take_key("only").map(str::to_owned);
    let count = std::cell::Cell::new(key(arguments, "count")?.unwrap_or(usize::MAX));
    let wanted = |flight: &Flight| {
        let text = trace::message(&flight.message, flight.message.term);
        let matches = from.is_none_or(|id| id == flight.from)
            && to.is_none_or(|id| id == flight.to)
            && only.as_ref().is_none_or(|kind| text.split(' ').next() == Some(kind.as_str()))
            && count.get() > 0;
        count.set(count.get() - usize::from(matches));
        matches
    };
    if name == "deliver" {
        cluster.deliver(wanted);
        return Ok(());
    }
    let (mut chosen, mut others): (Vec<Flight>, Vec<Flight>) =
        std::mem::take(&mut cluster.flights).into_iter().partition(wanted);
    match name {
        "drop" => chosen.clear(),
        "repeat" => chosen.extend(chosen.clone()),
        _ => chosen.reverse(),
    }
    others.extend(chosen);
    cluster.flights = others;
    Ok(())
}

fn show(cluster: &Cluster<Faithful>, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<String> {
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
        match name {
            "status" => {
                let role = trace::State::of(raft).name(id);
                let (commit, applied, last) = (raft.commit(), raft.applied(), raft.last_index());
                writeln!(shown, "{role} commit={commit} applied={applied} last={last}")?;
            }
            "logs" => {
                let list: Vec<Entry> =
                    (raft.base().index + 1..=raft.last_index()).filter_map(|i| raft.entry(i).cloned()).collect();
                writeln!(shown, "n{number} after {}: {}", trace::meta(raft.base()), trace::entries(&list))?;
            }
            "members" => writeln!(shown, "n{number} {}", trace::membership(raft.membership()))?,
            "stamps" => {
                let stamp = |index| raft.entry(index).map(|entry| entry.stamp_ms.to_string());
                let list: Vec<String> = (1..=raft.last_index()).filter_map(stamp).collect();
                let log_time_ms = raft.log_time_ms(cluster.clock(id));
                writeln!(shown, "n{number} log time {log_time_ms}, stamps [{}]", list.join(", "))?;
            }
            "lease" => {
                let left = raft.lease_until_us().map(|until| until.saturating_sub(cluster.clock(id).mono_us) / 1000);
                writeln!(shown, "n{number} lease: {}", left.map_or("none".into(), |left| format!("{left} ms")))?;
            }
            _ if raft.role() == Role::Leader => shown += &progress(raft),
            _ => writeln!(shown, "n{number} leads nobody")?,
        }
    }
    Ok(shown)
}

fn progress(raft: &crate::raft::Raft<Faithful>) -> String {
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
