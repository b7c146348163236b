//! `trine backup`: the applied state of every group in one file, while clients go on working.
//!
//! 1. Every node is asked to write its dirty cache lines back: they are on its own disk only, for up to a second.
//! 2. Each group is copied at its leader, part by part, into `FILE.partial`. A copy that breaks off (the leader died) is begun anew.
//! 3. The file is synced and gets its name, and the folder is synced.
//!
//! A node that could not be asked, and owns no key by then, has nothing that is missing: ownership is in the log.
//!
//! So everything that was acknowledged before the backup began is in the file, but for what step 1 could not reach: that is
//! said on standard error, in the file, and by the exit code 7.
//!
//! # Caveats
//! * Cache writes that a node acknowledges while the backup is under way may be in it or not; the same holds for everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use trine_protocol::cache::WriteBackAll;
use trine_protocol::client::Client;
use trine_protocol::cluster::{Backup, BackupPart, BackupRead, BackupStands, NodeStatus};
use trine_protocol::limits::DEADLINE_MS_MAX;
use trine_protocol::{Error, ErrorCode, Response};

use crate::backup::file::Partial;
use crate::backup::pairs::Pairs;
use crate::backup::{self, FileDigest, GroupEnd, Header, Missing, Summary, Verified, Writer, cleanse};
use crate::clock;

use super::client::ClientArgs;
use super::{Exit, Failure, complain};

/// Times that the copy of one group is begun.
const ATTEMPTS_MAX: u32 = 20;
/// Time between two of them: an election may be under way.
const PAUSE: Duration = Duration::from_millis(500);
/// Time for a node to write its dirty lines back.
const WRITE_BACK_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The file to write.
    file: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
    /// Write nothing: read the file to its end, and say whether it is whole.
    #[arg(long, conflicts_with = "force")]
    verify: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Makes a backup, or looks whether one is whole.
pub(super) async fn run(args: BackupArgs) -> Result<Exit, Failure> {
    if args.verify {
        let verified = verify(&args.file)?;
        return args.client.answer(text(&args.file, &verified), &object("whole", &args.file, &verified));
    }
    let begun_ms = clock::wall_ms();
    let unwritable = |error: std::io::Error| unusable(&args.file, &error);
    let (partial, file) = Partial::create(&args.file, args.force).map_err(unwritable)?;
    let client = args.client.connect().await?;
    let status = client.status().await?;
    let missing = write_back(&args.client, &status).await;
    let groups = u32::try_from(status.groups.len()).unwrap_or(u32::MAX);
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let header = Header { cluster_id: status.cluster_id, groups, begun_ms, program };
    let writer = Writer::begin(file, &header).map_err(unwritable)?;
    let mut copying = Copying {
        args: &args,
        client,
        writer,
        missing,
        nodes: BTreeMap::new(),
        ends: Vec::new(),
        generation: 0,
        owned: BTreeMap::new(),
    };
    for group in 0..groups {
        copying.group(group).await?;
    }
    let (file, verified) = copying.finish(header)?;
    partial.keep(&file, args.force).map_err(unwritable)?;
    for Missing { node, why, keys } in &verified.summary.missing {
        complain(&format!(
            "{node} did not write its dirty cache lines back ({why}): the newest value of up to {keys} keys may be missing"
        ));
    }
    let complete = verified.summary.missing.is_empty();
    let said = object(if complete { "complete" } else { "incomplete" }, &args.file, &verified);
    args.client.answer(text(&args.file, &verified), &said)?;
    Ok(if complete { Exit::Done } else { Exit::Incomplete })
}

/// Has every node write its dirty lines back; returns those that did not.
async fn write_back(args: &ClientArgs, status: &NodeStatus) -> Vec<Missing> {
    let mut asked = JoinSet::new();
    for node in &status.nodes {
        let mut config = args.config(vec![node.client.clone()]);
        // One that cannot be reached is said to be so at once, and not only when all of the time is over.
        (config.deadline, config.retry) = (WRITE_BACK_MAX, false);
        let (name, groups) = (node.node.clone(), status.groups.len());
        asked.spawn(async move {
            let first = write_back_at(config.clone(), groups).await;
            if first.is_ok() {
                return (name, first);
            }
            tokio::time::sleep(PAUSE).await;
            (name, write_back_at(config, groups).await)
        });
    }
    let answers: BTreeMap<String, Result<(), Error>> = asked.join_all().await.into_iter().collect();
    let missing =
        |(node, answer): (String, Result<(), Error>)| Some(Missing { node, why: answer.err()?.to_string(), keys: 0 });
    answers.into_iter().filter_map(missing).collect()
}

async fn write_back_at(config: trine_protocol::client::ClientConfig, groups: usize) -> Result<(), Error> {
    let client = Client::connect(config).await?;
    let mut asked = JoinSet::new();
    for group in 0..u32::try_from(groups).unwrap_or(u32::MAX) {
        let client = client.clone();
        asked.spawn(async move { client.call(WriteBackAll { group }).await.map(drop) });
    }
    asked.join_all().await.into_iter().collect()
}

/// A backup that is being written.
struct Copying<'a> {
    args: &'a BackupArgs,
    client: Client,
    writer: Writer<File>,
    missing: Vec<Missing>,
    /// Clients by address.
    nodes: BTreeMap<String, Client>,
    ends: Vec<GroupEnd>,
    generation: u16,
    /// The keys that nodes own which did not write back, by group and node.
    owned: BTreeMap<(u32, Vec<u8>), String>,
}

impl Copying<'_> {
    /// Copies one group, from its beginning again where that breaks off.
    async fn group(&mut self, group: u32) -> Result<(), Failure> {
        let mark = self.writer.mark();
        for attempt in 1.. {
            let error = match self.attempt(group).await {
                Ok(end) => {
                    self.ends.push(end);
                    return Ok(());
                }
                Err(Broken::Here(failure)) => return Err(failure),
                Err(Broken::There(error)) => error,
            };
            if attempt == ATTEMPTS_MAX || error.code == ErrorCode::UnknownCommand {
                let what = format!("group {group} could not be copied: {error}");
                return Err(Failure { line: what, ..Failure::from(error) });
            }
            self.writer.back_to(&mark).map_err(|error| unusable(&self.args.file, &error))?;
            self.owned.retain(|(of, _), _| *of != group);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn attempt(&mut self, group: u32) -> Result<GroupEnd, Broken> {
        let node = self.leader(group).await?;
        let begun = match node.call(Backup { group }).await? {
            Response::Backup(begun) => begun,
            other => return Err(mismatch(&other).into()),
        };
        let (mut pairs, mut records, mut bytes) = (Pairs::default(), 0, 0);
        for part in 0.. {
            let part = match node.call(BackupRead { backup: begun.backup, part }).await? {
                Response::BackupRead(part) => part,
                other => return Err(mismatch(&other).into()),
            };
            let BackupPart { bytes: copied, stands } = part;
            if !copied.is_empty() {
                self.writer.bytes(&copied).map_err(|error| Broken::Here(unusable(&self.args.file, &error)))?;
            }
            records += self.look(group, &mut pairs, &copied).map_err(|what| Error::new(ErrorCode::Internal, what))?;
            bytes += copied.len() as u64;
            let Some(BackupStands { index, term, stamp_ms, wall_ms, voters, learners }) = stands else { continue };
            pairs.end().map_err(|what| Error::new(ErrorCode::Internal, what))?;
            if index < begun.index {
                let what = format!("the copy stands at {index}, before {}", begun.index);
                return Err(Error::new(ErrorCode::Internal, what).into());
            }
            let end = GroupEnd { group, index, term, stamp_ms, wall_ms, voters, learners, records, bytes };
            self.writer.group_end(&end).map_err(|error| Broken::Here(unusable(&self.args.file, &error)))?;
            return Ok(end);
        }
        Err(Error::new(ErrorCode::Internal, "a copy has fewer than 4 billion parts").into())
    }

    /// Looks at the records on their way: the generation, and who owns what.
    fn look(&mut self, group: u32, pairs: &mut Pairs, bytes: &[u8]) -> Result<u64, String> {
        let changes = pairs.push(bytes)?;
        let silent: BTreeSet<&str> = self.missing.iter().map(|missing| missing.node.as_str()).collect();
        for change in &changes {
            self.generation = cleanse::generation(change)?.map_or(self.generation, |it| it.max(self.generation));
            if silent.is_empty() {
                continue;
            }
            match cleanse::owner(change)?.filter(|owner| silent.contains(owner.as_str())) {
                Some(owner) => self.owned.insert((group, change.key.clone()), owner),
                None => self.owned.remove(&(group, change.key.clone())),
            };
        }
        Ok(changes.len() as u64)
    }

    /// A client of the node that leads the group.
    async fn leader(&mut self, group: u32) -> Result<Client, Error> {
        let status = self.client.status().await?;
        let view = status.groups.iter().find(|view| view.group == group);
        let leader = view.and_then(|view| view.leader.clone());
        let listed = status.nodes.iter().find(|node| Some(&node.node) == leader.as_ref());
        let Some(listed) = listed else {
            return Err(Error::new(
                ErrorCode::NoLeader,
                format!("group {group} has no leader that {} knows", status.node),
            ));
        };
        if let Some(client) = self.nodes.get(&listed.client) {
            return Ok(client.clone());
        }
        let mut config = self.args.client.config(vec![listed.client.clone()]);
        config.retry = false;
        config.deadline = Duration::from_millis(DEADLINE_MS_MAX.into());
        let client = Client::connect(config).await?;
        self.nodes.insert(listed.client.clone(), client.clone());
        Ok(client)
    }

    /// The end of the file.
    fn finish(mut self, header: Header) -> Result<(File, Verified), Failure> {
        for missing in &mut self.missing {
            missing.keys = self.owned.values().filter(|owner| **owner == missing.node).count() as u64;
        }
        // Whoever owns nothing in the copies has acknowledged no write that main memory lacks.
        self.missing.retain(|missing| missing.keys > 0);
        let sum = |of: fn(&GroupEnd) -> u64| self.ends.iter().map(of).sum();
        let (records, bytes) = (sum(|end| end.records), sum(|end| end.bytes));
        let summary = Summary { generation: self.generation, records, bytes, missing: self.missing };
        let finished = self.writer.finish(&summary).map_err(|error| unusable(&self.args.file, &error))?;
        let (file, bytes, digest): (File, u64, FileDigest) = finished;
        Ok((file, Verified { header, groups: self.ends, summary, bytes, digest }))
    }
}

/// Why a copy ended early.
enum Broken {
    /// The node: another attempt may do.
    There(Error),
    /// The file: no other attempt will.
    Here(Failure),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::There(error)
    }
}

fn mismatch(other: &Response) -> Error {
    Error::new(ErrorCode::Internal, format!("the answer is one to {:?}", other.command()))
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

/// Reads a backup to its end.
///
/// # Errors
/// One line with the bytes that are wrong.
pub(super) fn verify(path: &Path) -> Result<Verified, Failure> {
    let file = File::open(path).map_err(|error| unusable(path, &error))?;
    let verified = backup::verify(std::io::BufReader::new(file), |_, changes| {
        changes.into_iter().try_for_each(|change| cleanse::cleanse(change).map(drop))
    });
    verified.map_err(|damage| Failure::new(Exit::Failed, format!("{} is damaged: {damage}", path.display())))
}

/// What a backup holds, for a person.
pub(super) fn text(path: &Path, it: &Verified) -> String {
    let Verified { header, groups, summary, bytes, digest } = it;
    let mut out = format!(
        "{}: {} groups, {} records, {bytes} bytes; cluster {:016x}, generation {}\n",
        path.display(),
        groups.len(),
        summary.records,
        header.cluster_id,
        summary.generation
    );
    for end in groups {
        let GroupEnd { group, index, term, records, bytes, .. } = end;
        let voters = end.voters.join(" ");
        out += &format!(
            "  group {group}: index {index}, term {term}, {records} records, {bytes} bytes, voters {voters}\n"
        );
    }
    for Missing { node, keys, .. } in &summary.missing {
        out += &format!("  without the last cache writes of {node}: up to {keys} keys\n");
    }
    out + &format!("  sha256 {}", backup::hex(digest))
}

/// The same, for a program.
pub(super) fn object(status: &str, path: &Path, it: &Verified) -> Value {
    let Verified { header, groups, summary, bytes, digest } = it;
    let group = |end: &GroupEnd| {
        json!({ "group": end.group, "index": end.index, "term": end.term, "records": end.records,
                "bytes": end.bytes, "voters": end.voters, "learners": end.learners })
    };
    let missing = |it: &Missing| json!({ "node": it.node, "why": it.why, "keys": it.keys });
    json!({
        "status": status,
        "file": path.display().to_string(),
        "cluster_id": format!("{:016x}", header.cluster_id),
        "generation": summary.generation,
        "begun_ms": header.begun_ms,
        "records": summary.records,
        "bytes": bytes,
        "sha256": backup::hex(digest),
        "groups": groups.iter().map(group).collect::<Vec<_>>(),
        "missing": summary.missing.iter().map(missing).collect::<Vec<_>>(),
    })
}
