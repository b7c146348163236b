//! The commands of the scripts in `src/cache/scripts`. Clients are numbered as they come, homes by their term.
//!
//! | command | what happens |
//! | --- | --- |
//! | `cluster` | three nodes on the bus, the home of term 1 on node 1; `nodes=2`; limits as `waiting=`, `directory=`, `memory=`, `lines=`, `dirty=` in milliseconds; `bare`: no home yet |
//! | `get 1 a`, `put 1 a x`, `delete 1 a`, `writeback 1 a`, `writebackall 1` | a client of node 1 asks |
//! | `expire 3` | client 3 waits no longer |
//! | `deliver [from=n1] [to=h1] [only=BusRd] [key=a] [count=1]` | what is on its way now arrives, or a part of it |
//! | `drop`, `repeat`, `swap` | lose, double or reverse what is on its way; the same filters |
//! | `stabilize` | deliver until there is rest |
//! | `hold log`, `hold journal`, `free log`, `free journal` | the log, or the disks, wait for `commit` and `flush`; or do not any more |
//! | `commit [2]`, `flush 1 [2]` | so many proposals get into the log and are applied; so many records get to the disk |
//! | `refuse`, `forget` | no proposal gets into the log, and the homes are told so, or not |
//! | `wait 100`, `tick [1 h1]`, `run 500` | milliseconds pass; nodes and homes see that; both, in steps, and everything is delivered |
//! | `drift 2 fast=10000` | the clock of node 2 is 1 % fast; or `slow=` |
//! | `elect 2 [told=1.3] [unsettled]` | a home of the next term, which all nodes hear of, or these |
//! | `hear 3`, `noop 2`, `lead 1`, `follow 1` | a node hears of the newest home; the home of term 2 has applied what earlier terms left; the home of term 1 has a leader lease, or has none |
//! | `crash 1`, `start 1 [life=11]` | all is lost that the disk has not; from its disk, or from an empty one |
//! | `pause 2`, `resume 2`, `cut 2`, `heal 2` | it stands still; no message reaches it or leaves it |
//! | `drain 1` | it is about to stop |
//! | `states`, `lines`, `home 1`, `memory`, `members`, `flights`, `log`, `leases`, `journal 1`, `counts 1` | shows it |

mod cluster;
mod network;
mod oracle;
mod show;

use std::error::Error;
use std::panic::catch_unwind;
use std::path::PathBuf;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use trine_protocol::cache::OnlyIf;

use crate::cache::{Change, Config, Operation, What};
use crate::ids::{Incarnation, Term};
use crate::rules::{OneLeftOut, Rule};
use cluster::Cluster;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs one script.
#[derive(Default)]
struct Runner {
    cluster: Option<Cluster>,
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
            name => {
                act(cluster, name, &mut arguments)?;
                String::new()
            }
        };
        arguments.reject_next()?;
        let nodes = cluster.members.iter().map(|(number, member)| (&member.lines, cluster.clock_us(*number)));
        cluster.oracle.one_writer_or_many_readers(nodes);
        let mut output = std::mem::take(&mut cluster.trace).join("\n");
        if !output.is_empty() {
            output.push('\n');
        }
        Ok(output + &shown)
    }
}

fn new_cluster(arguments: &mut ArgumentConsumer<'_>) -> Result<Cluster> {
    let mut number = |key: &str| arguments.take_key(key).map(str::parse::<usize>).transpose();
    let mut config = Config::default();
    let nodes = number("nodes")?.unwrap_or(3);
    config.waiting_max = number("waiting")?.unwrap_or(config.waiting_max);
    config.directory_max = number("directory")?.unwrap_or(config.directory_max);
    config.memory_bytes_max = number("memory")?.unwrap_or(config.memory_bytes_max);
    config.lines_bytes_max = number("lines")?.unwrap_or(config.lines_bytes_max);
    config.dirty_us_max = number("dirty")?.map_or(config.dirty_us_max, |ms| ms as u64 * 1000);
    let mut cluster = Cluster::new(nodes, config);
    if arguments.next_pos() != Some("bare") {
        let term = cluster.elect(1, true);
        (1..=nodes).for_each(|number| cluster.hears_of_home(number, term));
        cluster.run(200);
        cluster.trace.clear();
    }
    Ok(cluster)
}

fn number<T: std::str::FromStr<Err: Error + 'static>>(arguments: &mut ArgumentConsumer<'_>) -> Result<T> {
    Ok(arguments.next_pos().ok_or("which one?")?.parse()?)
}

fn act(cluster: &mut Cluster, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    match name {
        "get" | "put" | "delete" | "writeback" | "add" | "absent" | "through" => {
            let (node, key) = (number(arguments)?, arguments.next_pos().ok_or("which key?")?.to_owned());
            let operation = match name {
                "get" => Operation::Get,
                "put" => put(Some(arguments.next_pos().ok_or("which value?")?)),
                "delete" => put(None),
                "add" => Operation::Write(Change::of(What::Add(number(arguments)?))),
                "absent" | "through" => {
                    let value = Bytes::copy_from_slice(arguments.next_pos().ok_or("which value?")?.as_bytes());
                    let only_if = if name == "absent" { OnlyIf::Absent } else { OnlyIf::Anything };
                    Operation::Write(Change { only_if, through: name == "through", ..Change::put(value) })
                }
                _ => Operation::WriteBack,
            };
            cluster.asks(node, &key, operation);
        }
        "writebackall" => cluster.writes_all_back(number(arguments)?),
        "expire" => cluster.expire(number(arguments)?),
        "deliver" | "drop" | "repeat" | "swap" | "stabilize" => network::network(cluster, name, arguments)?,
        "hold" | "free" => hold(cluster, arguments.next_pos().ok_or("what?")?, name == "hold")?,
        "commit" => cluster.commit(arguments.next_pos().map_or(Ok(usize::MAX), str::parse)?),
        "flush" => {
            let node = number(arguments)?;
            cluster.flush(node, arguments.next_pos().map_or(Ok(usize::MAX), str::parse)?);
        }
        "refuse" => cluster.refuse(),
        "forget" => cluster.proposed.clear(),
        "wait" => cluster.now_us += number::<u64>(arguments)? * 1000,
        "run" => cluster.run(number(arguments)?),
        "tick" => tick(cluster, arguments)?,
        "elect" => elect(cluster, arguments)?,
        "noop" | "lead" | "follow" => {
            let term: Term = number(arguments)?;
            let office = cluster.homes.get_mut(&term).ok_or("no such home")?;
            match name {
                "noop" => office.settled = true,
                _ => office.leads = name == "lead",
            }
        }
        _ => return act_at(cluster, name, arguments),
    }
    Ok(())
}

/// What happens to a node.
fn act_at(cluster: &mut Cluster, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    let node: usize = number(arguments)?;
    let member = cluster.members.get_mut(&node).ok_or("no such node")?;
    match name {
        "drift" => {
            let mut ppm = |key: &str| arguments.take_key(key).map_or(Ok(0), str::parse::<i64>);
            member.drift_ppm = ppm("fast")? - ppm("slow")?;
        }
        "pause" | "resume" => member.paused = name == "pause",
        "cut" => drop(cluster.cut.insert(node)),
        "heal" => drop(cluster.cut.remove(&node)),
        "crash" => cluster.crash(node),
        "start" => {
            if let Some(life) = arguments.take_key("life") {
                member.life = Incarnation(life.parse()?);
                member.journal.clear();
            }
            cluster.start(node);
            hear(cluster, node);
        }
        "hear" => hear(cluster, node),
        "drain" => drop(cluster.agent(node, |agent, turn| agent.drain(turn))),
        _ => return Err(format!("no command '{name}'").into()),
    }
    Ok(())
}

/// A node learns of the newest home.
fn hear(cluster: &mut Cluster, node: usize) {
    if let Some(term) = cluster.homes.last_key_value().map(|(term, _)| *term) {
        cluster.hears_of_home(node, term);
    }
}

fn put(value: Option<&str>) -> Operation {
    Operation::Write(match value {
        Some(value) => Change::put(Bytes::copy_from_slice(value.as_bytes())),
        None => Change::delete(),
    })
}

fn hold(cluster: &mut Cluster, what: &str, waits: bool) -> Result<()> {
    match what {
        "log" => {
            cluster.log_waits = waits;
            if !waits {
                cluster.commit(usize::MAX);
            }
        }
        "journal" => {
            cluster.journal_waits = waits;
            if !waits {
                let nodes: Vec<usize> = cluster.members.keys().copied().collect();
                nodes.into_iter().for_each(|node| cluster.flush(node, usize::MAX));
            }
        }
        _ => return Err("the log or the journal".into()),
    }
    Ok(())
}

fn tick(cluster: &mut Cluster, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    let mut named = false;
    while let Some(who) = arguments.next_pos() {
        named = true;
        match who.strip_prefix('h') {
            Some(term) => cluster.tick_home(term.parse()?),
            None => drop(cluster.agent(who.parse()?, |agent, turn| agent.tick(turn))),
        }
    }
    if !named {
        cluster.tick_all();
    }
    Ok(())
}

fn elect(cluster: &mut Cluster, arguments: &mut ArgumentConsumer<'_>) -> Result<()> {
    let told = arguments.take_key("told").map(str::to_owned);
    let node = number(arguments)?;
    let settled = arguments.next_pos() != Some("unsettled");
    let term = cluster.elect(node, settled);
    let told: Vec<usize> = match told {
        Some(told) => {
            told.split('.').filter(|it| *it != "none").map(str::parse).collect::<std::result::Result<_, _>>()?
        }
        None => cluster.members.keys().copied().collect(),
    };
    told.into_iter().for_each(|node| cluster.hears_of_home(node, term));
    Ok(())
}

fn paths() -> Vec<PathBuf> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cache/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 150, "only {} scripts in {directory}", paths.len());
    paths
}

/// Runs every script. `UPDATE_GOLDENFILES=1` writes what came out; read the difference before you keep it.
#[test]
fn scripts() {
    let failed = |path: &PathBuf| match catch_unwind(|| goldenscript::run(&mut Runner::default(), path)) {
        Ok(Ok(())) => false,
        Ok(Err(error)) => {
            eprintln!("{}: {error}", path.display());
            true
        }
        Err(_) => true,
    };
    let failed: Vec<_> = paths().into_iter().filter(failed).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// The rules of the bus.
const RULES: [Rule; 12] = [
    Rule::NewHomeNotSilent,
    Rule::GrantWithoutLeaseCheck,
    Rule::LeaseBeforeJoin,
    Rule::BusLeaseFromAnswer,
    Rule::LapsedLeaseRenewed,
    Rule::LinesKeptAcrossLeases,
    Rule::WriteBeforeCopiesAreGone,
    Rule::InvalidationOnlyAcknowledged,
    Rule::FillInstalledAfterInvalidation,
    Rule::WriteBeforeJournal,
    Rule::OldValueWhileOwnerIsAway,
    Rule::DirtyLineEvicted,
];

/// Scripts that show nothing of a rule would pass without it.
#[test]
fn each_rule_that_is_left_out_is_missed_by_a_script() {
    let texts: Vec<String> = paths().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let differs = |text: &&String| {
        let run = || goldenscript::generate(&mut Runner::default(), text);
        !matches!(catch_unwind(run), Ok(Ok(output)) if output == **text)
    };
    assert_eq!(texts.iter().filter(differs).count(), 0, "with all rules");
    let missed = |rule| OneLeftOut::during(rule, || texts.iter().filter(differs).count());
    for rule in RULES {
        let scripts = missed(rule);
        println!("{rule:?}: {scripts} scripts");
        assert!(scripts > 0, "{rule:?}");
    }
}
