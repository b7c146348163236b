//! The commands of the scripts in `src/raft/scripts`.
//!
//! | command | what happens |
//! | --- | --- |
//! | `cluster nodes=3` | nodes with empty disks, all started; `down` leaves them down; `disk=manual`, `snapshots=manual`; `voters=3` takes the first three as the group's beginning; limits as `window=`, `append=`, `uncommitted=`, `chunk=`, `assembled=`, `reads=`; `news=10` keeps the news of a commit for so many milliseconds; `first=2`, `seed=7` |
//! | `disk 2 term=3 vote=1 log=1.1.2` | what a node that is down has on disk: the terms of its entries; `keep=1` loses all after entry 1 |
//! | `start 2`, `crash 2 [synced=1]` | from its disk; losing what was not synced |
//! | `replace 3 life=5` | a node that is down gets an empty disk, and is another replica |
//! | `drift 2 ppm=10000`, `wall 2 by=5000` | its monotonic clock is 1 % fast from the start; its wall clock is set forward by milliseconds |
//! | `campaign 1` | time passes until only node 1 has lost patience |
//! | `elect 1` | `campaign`, then `settle` |
//! | `propose 1 x y` | commands, one after the other; `bytes=1000` makes one of that size |
//! | `deliver [to=2] [from=1] [only=Append] [count=1] [together]` | what is on its way now arrives, or a part of it; `together` between two `ready()` |
//! | `stabilize`, `settle` | deliver until there is rest; the same with all disks done too |
//! | `drop`, `repeat`, `swap` | lose, double or reverse what is on its way; the same filters as `deliver` |
//! | `wait 100`, `tick 1 2`, `heartbeat 1` | milliseconds pass; ticks without time; 100 ms and a tick |
//! | `cut 1 2`, `isolate 1`, `split 1 2`, `heal` | a link one way; all links of a node; all between these nodes and the others; all links again |
//! | `persist 2 [count=1]` | writes in flight are durable; `together` tells the replica of the last alone; `again=1` of one that it was told of |
//! | `compact 1 5`, `provide 1`, `transfer 1 [to=3]` | as the replica would call them |
//! | `change 1 voters=1.2.4 [learners=5]`, `read 1 7` | the same; `3:5` is node 3 in its life 5; a read has a number |
//! | `step 2 from=1 term=3 append prev=3@1 log=2.2 commit=3 round=1` | a message from nowhere; `send` puts it on its way; `life=5`: for another life of the receiver, `as=5`: from another of the sender |
//! | `flights` | shows what is on its way |
//! | `status`, `members`, `votes`, `logs`, `stamps`, `walls`, `progress 1`, `lags 1`, `lease 1`, `counts 1`, `size 1` | shows a node, or all |

mod message;
mod network;
mod show;

use std::collections::BTreeSet;
use std::error::Error;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};

use super::cluster::{Cluster, Disk, Flight, Member};
use super::trace;
use crate::ids::{Incarnation, NodeId, ReplicaId};
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
            name if show::COMMANDS.contains(&name) => show::show(cluster, name, &mut arguments)?,
            "deliver" | "drop" | "repeat" | "swap" | "stabilize" => {
                network::network(cluster, &command.name, &mut arguments)?;
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
    let (first, seed) = (number("first")?, number("seed")?.unwrap_or(1));
    let news_ms = number("news")?.unwrap_or(0) as u64;
    let (voters, reads) = (number("voters")?.unwrap_or(nodes), number("reads")?);
    let mut cluster = Cluster::new(nodes, seed as u64, |config| {
        config.voters.truncate(voters);
        config.reads_max = reads.unwrap_or(config.reads_max);
        config.commit_news_us = news_ms * 1_000;
        config.first = first.map(NodeId::numbered);
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

fn member(cluster: &mut Cluster<Faithful>, id: NodeId) -> Result<&mut Member<Faithful>> {
    Ok(cluster.members.get_mut(&id).ok_or("no such node")?)
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
        "split" => {
            let side = nodes(cluster, arguments)?;
            let apart = |one: &NodeId, other: &NodeId| side.contains(one) != side.contains(other);
            let ids = cluster.ids();
            let links = ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to)));
            cluster.cut.extend(links.filter(|(from, to)| apart(from, to)));
        }
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
        "persist" => persist(cluster, id, arguments)?,
        "drift" => member(cluster, id)?.drift_ppm = key(arguments, "ppm")?.ok_or("ppm=")?,
        "wall" => member(cluster, id)?.wall_ahead_ms += key::<i64>(arguments, "by")?.ok_or("by=")?,
        "compact" => {
            let index = arguments.next_pos().ok_or("up to which index?")?.parse()?;
            let base = cluster.compact(id, index).ok_or("it is down")?;
            return Ok(format!("n{} begins after {}\n", trace::number(id), trace::meta(&base)));
        }
        "provide" => cluster.provide(id),
        "transfer" => {
            let target = key(arguments, "to")?.map(NodeId::numbered);
            cluster.input(id, |raft, now| match target {
                Some(target) => raft.transfer_to(now, target),
                None => raft.transfer(now),
            });
        }
        "replace" => {
            let life = Incarnation(key(arguments, "life")?.ok_or("life=")?);
            let member = member(cluster, id)?;
            (member.config.incarnation, member.disk) = (life, Disk::default());
        }
        "change" => {
            let (voters, learners) = (replicas(arguments, "voters")?, replicas(arguments, "learners")?);
            let result = cluster.input(id, |raft, now| raft.change(now, voters, learners));
            return Ok(refusal(id, result.ok_or("it is down")?));
        }
        "read" => {
            let ticket = arguments.next_pos().ok_or("which number?")?.parse()?;
            return Ok(refusal(id, cluster.read(id, ticket).ok_or("it is down")?));
        }
        "step" | "send" => {
            let from = NodeId::numbered(key(arguments, "from")?.ok_or("from=")?);
            let flight = Flight { from, to: id, message: message::message(arguments)? };
            if name == "step" {
                cluster.arrive(flight);
            } else {
                cluster.flights.push(flight);
            }
        }
        _ => return Err(format!("no command '{name}'").into()),
    }
    Ok(String::new())
}

fn refusal<T, E: std::fmt::Debug>(id: NodeId, result: std::result::Result<T, E>) -> String {
    let refusal = |error| format!("n{} refuses: {error:?}\n", trace::number(id));
    result.err().map(refusal).unwrap_or_default()
}

/// `1.2.3:5` as replicas: two of the group's beginning, and node 3 in its life 5.
fn replicas(arguments: &mut ArgumentConsumer<'_>, key: &str) -> Result<BTreeSet<ReplicaId>> {
    let replica = |text: &str| {
        let (number, life) = text.split_once(':').unwrap_or((text, "0"));
        Ok(ReplicaId { node: NodeId::numbered(number.parse()?), incarnation: Incarnation(life.parse()?) })
    };
    arguments.take_key(key).map_or(Ok(BTreeSet::new()), |text| text.split('.').map(replica).collect())
}

fn propose(cluster: &mut Cluster<Faithful>, id: NodeId, arguments: &mut ArgumentConsumer<'_>) -> Result<String> {
    let mut proposals = Vec::new();
    if let Some(bytes) = key::<usize>(arguments, "bytes")? {
        proposals.push(Bytes::from(vec![b'x'; bytes]));
    }
    while let Some(text) = arguments.next_pos() {
        proposals.push(Bytes::copy_from_slice(text.as_bytes()));
    }
    let results =
        cluster.input(id, |raft, now| proposals.into_iter().map(|data| raft.propose(now, data)).collect::<Vec<_>>());
    Ok(results.ok_or("it is down")?.into_iter().map(|result| refusal(id, result)).collect())
}

fn persist(cluster: &mut Cluster<Faithful>, id: NodeId, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    let count = key(arguments, "count")?.unwrap_or(usize::MAX);
    if let Some(sequence) = key(arguments, "again")? {
        cluster.input(id, |raft, now| raft.persisted(now, sequence));
    } else if arguments.next_pos() == Some("together") {
        cluster.sync_together(id, count);
    } else {
        cluster.sync(id, count);
    }
    Ok(())
}

fn prepare_disk(cluster: &mut Cluster<Faithful>, id: NodeId, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    let disk = &mut member(cluster, id)?.disk;
    if let Some(last) = key::<u64>(arguments, "keep")? {
        disk.entries.retain(|entry| entry.index <= last);
        return Ok(());
    }
    disk.hard_state.term = key(arguments, "term")?.unwrap_or(disk.hard_state.term);
    disk.hard_state.vote = key(arguments, "vote")?.map(|number| ReplicaId::founder(NodeId::numbered(number)));
    if let Some(terms) = arguments.take_key("log") {
        disk.entries = message::entries(1, terms)?;
        disk.hard_state.term = disk.hard_state.term.max(disk.entries.last().map_or(0, |entry| entry.term));
    }
    Ok(())
}
