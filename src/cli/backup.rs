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
use trine_protocol::client::{Client, ClientConfig};
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
    let asked = write_back(&args.client, &status).await;
    let groups = u32::try_from(status.groups.len()).unwrap_or(u32::MAX);
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let header = Header { cluster_id: status.cluster_id, groups, begun_ms, program };
    let writer = Writer::begin(file, &header).map_err(unwritable)?;
    let mut copying = Copying {
        args: &args,
        client,
        writer,
        asked,
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

/// What became of asking each node to write its dirty lines back.
#[derive(Default)]
struct Asked {
    /// The nodes that did, each with its data directory.
    done: BTreeSet<(String, u64)>,
    /// Why the others did not.
    failed: BTreeMap<String, Error>,
}

/// Has every node write its dirty lines back.
async fn write_back(args: &ClientArgs, status: &NodeStatus) -> Asked {
    let mut asking = JoinSet::new();
    for node in &status.nodes {
        let mut config = args.config(vec![node.client.clone()]);
        // One that cannot be reached is said to be so at once, and not only when all of the time is over.
        (config.deadline, config.retry) = (WRITE_BACK_MAX, false);
        let (name, cluster_id) = (node.node.clone(), status.cluster_id);
        asking.spawn(async move {
            let mut answer = write_back_at(config.clone(), &name, cluster_id).await;
            if answer.is_err() {
                tokio::time::sleep(PAUSE).await;
                answer = write_back_at(config, &name, cluster_id).await;
            }
            (name, answer)
        });
    }
    let mut asked = Asked::default();
    for (name, answer) in asking.join_all().await {
        match answer {
            Ok(incarnation) => drop(asked.done.insert((name, incarnation))),
            Err(error) => drop(asked.failed.insert(name, error)),
        }
    }
    asked
}

/// Has the node there write its dirty lines back, of every group; returns which data directory it has.
async fn write_back_at(config: ClientConfig, name: &str, cluster_id: u64) -> Result<u64, Error> {
    let client = Client::connect(config).await?;
    let status = client.status().await?;
    if (status.node.as_str(), status.cluster_id) != (name, cluster_id) {
        let what = format!("at its address is {} of cluster {:016x}", status.node, status.cluster_id);
        return Err(Error::new(ErrorCode::WrongCluster, what));
    }
    let mut asking = JoinSet::new();
    for view in &status.groups {
        let (client, group) = (client.clone(), view.group);
        asking.spawn(async move { client.call(WriteBackAll { group }).await.map(drop) });
    }
    asking.join_all().await.into_iter().collect::<Result<(), Error>>()?;
    Ok(status.incarnation)
}

/// A backup that is being written.
struct Copying<'a> {
    args: &'a BackupArgs,
    client: Client,
    writer: Writer<File>,
    asked: Asked,
    /// Clients by address.
    nodes: BTreeMap<String, Client>,
    ends: Vec<GroupEnd>,
    generation: u16,
    /// The keys whose owners did not write back, in the life in which they own them; by group.
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
        for change in &changes {
            self.generation = cleanse::generation(change)?.map_or(self.generation, |it| it.max(self.generation));
            match cleanse::owner(change)?.filter(|owner| !self.asked.done.contains(owner)) {
                Some((node, _)) => self.owned.insert((group, change.key.clone()), node),
                None if self.owned.is_empty() => None,
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
    fn finish(self, header: Header) -> Result<(File, Verified), Failure> {
        // Whoever owns nothing in the copies has acknowledged no write that main memory lacks.
        let mut missing = BTreeMap::<String, u64>::new();
        for node in self.owned.into_values() {
            *missing.entry(node).or_default() += 1;
        }
        let why = |node: &str| match self.asked.failed.get(node) {
            Some(error) => error.to_string(),
            None => "it wrote them in an earlier life, or is no node of the cluster any more".to_owned(),
        };
        let missing = missing.into_iter().map(|(node, keys)| Missing { why: why(&node), node, keys }).collect();
        let sum = |of: fn(&GroupEnd) -> u64| self.ends.iter().map(of).sum();
        let (records, bytes) = (sum(|end| end.records), sum(|end| end.bytes));
        let summary = Summary { generation: self.generation, records, bytes, missing };
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
