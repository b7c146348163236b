//! `trine restore`: data directories of a new cluster, made from a backup.
//!
//! With `--node` it makes the directory of that one node, and is run for each node with the same file and the same members, which
//! `trine serve` is told later. Without it, it makes what `trine up` starts on this machine.
//!
//! # Invariants
//! - The file is read to its end and found whole before anything is written, and read again, with the same digest, while it is.
//! - A directory in which something is stays as it is. One whose restore was interrupted is taken by no node.
//! - The new cluster has an id that follows from the file and a generation one higher: nodes of the old cluster are refused, and every
//!   token that it grants is greater than all that the old one granted.
//!
//! # Caveats
//! * Nodes that are restored with different members or replicas do not find to each other, as at a first start.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::backup::{self, Verified, cleanse};
use crate::config::{Member, REPLICAS_DEFAULT, roster_of};
use crate::ids::{GroupId, NodeId};
use crate::storage::{Claim, Restoring, StorageError};

use super::backup::{object, text, verify};
use super::up::{self, NODES_MAX};
use super::{Exit, Failure, complain, say};

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Make nothing: read the file to its end, and say whether it is whole.
    #[arg(long)]
    check: bool,
    /// The directory to make; it is empty, or not there yet.
    #[arg(long, default_value = "trine-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The node whose data directory that is; without it, it is the directory of `trine up`.
    #[arg(long, value_name = "NAME", requires = "members")]
    node: Option<NodeId>,
    /// A member of the new cluster, as `trine serve` takes it; once for each, this node among them, the same on every node.
    #[arg(long = "member", value_name = "NAME,CLIENT_ADDR,PEER_ADDR,HTTP_ADDR", requires = "node")]
    members: Vec<Member>,
    /// Voters of each group; at most as many as there are members.
    #[arg(long, default_value_t = REPLICAS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// Nodes that `trine up` is to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)), conflicts_with = "node")]
    nodes: u8,
    /// Answer with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Makes the directories, or looks whether the file is whole.
pub(super) async fn run(args: RestoreArgs) -> Result<Exit, Failure> {
    let backup = verify(&args.file)?;
    if args.check {
        return args.answer(text(&args.file, &backup), &object("whole", &args.file, &backup));
    }
    let Some(generation) = backup.summary.generation.checked_add(1) else {
        return Err(Failure::new(
            Exit::Refused,
            "the cluster was restored 65535 times: no token is left above its own",
        ));
    };
    let cluster_id = backup::cluster_id(&backup.digest);
    let restore = Restore { file: &args.file, backup: &backup, cluster_id, replicas: args.replicas };
    let begin = match args.node {
        Some(node) => {
            let names: Vec<NodeId> = args.members.iter().map(|member| member.name).collect();
            if !names.contains(&node) {
                return Err(Failure::new(Exit::Usage, format!("--node {node} is none of the members")));
            }
            restore.node(node, &args.members, &args.data_dir)?;
            format!(
                "start each of its nodes with `trine serve` and the same members; none needs --cluster-id, or all {cluster_id:016x}"
            )
        }
        None => {
            up::may_restore(&args.data_dir)?;
            let members = up::members(&args.data_dir, args.nodes, backup.header.groups);
            for (member, directory) in &members {
                let all: Vec<Member> = members.iter().map(|(member, _)| member.clone()).collect();
                restore.node(member.name, &all, directory)?;
            }
            up::restored(&args.data_dir, cluster_id, args.nodes, backup.header.groups)?;
            let (dir, groups) = (args.data_dir.display(), backup.header.groups);
            format!("start it with `trine up --data-dir {dir} --nodes {} --groups {groups}`", args.nodes)
        }
    };
    for missing in &backup.summary.missing {
        let (node, keys) = (&missing.node, missing.keys);
        complain(&format!("the backup lacks the last cache writes of {node}: the newest value of up to {keys} keys"));
    }
    let (records, dir) = (backup.summary.records, args.data_dir.display());
    let line =
        format!("restored {records} records to {dir}: cluster {cluster_id:016x}, generation {generation}\n{begin}");
    let object = json!({
        "status": "restored",
        "data_dir": dir.to_string(),
        "cluster_id": format!("{cluster_id:016x}"),
        "generation": generation,
        "records": records,
    });
    args.answer(line, &object)
}

impl RestoreArgs {
    fn answer(&self, text: String, object: &serde_json::Value) -> Result<Exit, Failure> {
        say(if self.json { format!("{object}\n") } else { text + "\n" }.as_bytes())?;
        Ok(Exit::Done)
    }
}

/// A restore of a file that was found whole.
struct Restore<'a> {
    file: &'a Path,
    backup: &'a Verified,
    cluster_id: u64,
    replicas: u32,
}

impl Restore<'_> {
    /// Makes the directory of one node.
    fn node(&self, node: NodeId, members: &[Member], directory: &Path) -> Result<(), Failure> {
        let failed = |error: StorageError| Failure::new(Exit::Failed, error.to_string());
        let changed = || Failure::new(Exit::Failed, format!("{} has changed while it was read", self.file.display()));
        let groups = self.backup.header.groups;
        let roster = roster_of(members, self.replicas);
        let votes = |group: u32| roster.placement(GroupId(group), false).iter().any(|replica| replica.node == node);
        let claim = Claim { node, cluster: Some(self.cluster_id), groups, joins: false };
        let mut restoring = Restoring::begin(directory, &claim).map_err(failed)?;
        let file = File::open(self.file).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        let stands = |group: u32| self.backup.groups.get(group as usize).map(backup::GroupEnd::meta);
        let again = backup::verify(std::io::BufReader::new(file), |group, changes| {
            let Some(meta) = stands(group).filter(|_| votes(group)) else { return Ok(()) };
            let kept = changes.into_iter().filter_map(|change| cleanse::cleanse(change).transpose());
            let kept = kept.collect::<Result<Vec<_>, String>>()?;
            restoring.put(GroupId(group), &meta, kept).map_err(|error| error.to_string())
        });
        let again = again.map_err(|damage| Failure::new(Exit::Failed, format!("{}: {damage}", self.file.display())))?;
        if again.digest != self.backup.digest {
            return Err(changed());
        }
        for group in (0..groups).filter(|group| votes(*group)) {
            let meta = stands(group).ok_or_else(changed)?;
            let raised = vec![cleanse::raise(self.backup.summary.generation)];
            restoring.put(GroupId(group), &meta, raised).map_err(failed)?;
        }
        restoring.finish().map_err(failed)
    }
}
