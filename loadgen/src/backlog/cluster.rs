//! The cluster that is measured: `trine up` as a child process, and what the kernel says of its nodes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::clock;
use crate::workload::Failure;

use super::Arguments;

/// Nodes of the cluster.
pub(super) const NODES: u16 = 3;
/// A cluster that is not ready by then is not going to be.
const READY_MAX: Duration = Duration::from_secs(300);
/// A cluster that has not ended by then is killed.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Port of the first node's clients.
const CLIENT_PORT: u16 = 4_101;
/// Bytes of a block as the kernel counts a file's.
const BLOCK_BYTES: u64 = 512;

/// What a node takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Footprint {
    /// Bytes of memory now.
    pub(super) resident_bytes: u64,
    /// Bytes of memory at the worst moment since the last look.
    pub(super) peak_bytes: u64,
    /// Bytes of its directory.
    pub(super) disk_bytes: u64,
}

/// A running cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    child: Child,
    data_dir: PathBuf,
    port_offset: u16,
}

fn failure(text: String) -> Failure {
    Failure { name: "cluster", unknown: false, text }
}

fn spawn(arguments: &Arguments) -> Result<Child, Failure> {
    let mut command = Command::new(&arguments.trine);
    command.arg("up").arg("--data-dir").arg(&arguments.data_dir).arg("--log").arg("warn");
    command.arg("--nodes").arg(NODES.to_string()).arg("--port-offset").arg(arguments.port_offset.to_string());
    if let Some(memory_mb) = arguments.memory_mb {
        command.arg("--memory-mb").arg(memory_mb.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().map_err(|error| failure(format!("{} does not start: {error}", arguments.trine.display())))
}

impl Cluster {
    /// Starts the cluster in an empty directory, and waits until every node answers.
    pub(super) async fn start(arguments: &Arguments) -> Result<Self, Failure> {
        if fs::read_dir(&arguments.data_dir).is_ok_and(|mut names| names.next().is_some()) {
            let what = format!("{} is not empty: the backlog needs a new directory", arguments.data_dir.display());
            return Err(failure(what));
        }
        let (data_dir, port_offset) = (arguments.data_dir.clone(), arguments.port_offset);
        let mut cluster = Self { child: spawn(arguments)?, data_dir, port_offset };
        cluster.ready(arguments).await?;
        Ok(cluster)
    }

    /// Starts it again on what it left.
    pub(super) async fn restart(&mut self, arguments: &Arguments) -> Result<(), Failure> {
        self.child = spawn(arguments)?;
        self.ready(arguments).await
    }

    /// Waits until `trine status` finds nothing missing.
    async fn ready(&mut self, arguments: &Arguments) -> Result<(), Failure> {
        let started = clock::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(failure(format!("the cluster has ended: {status}")));
            }
            let mut asked = Command::new(&arguments.trine);
            asked.args(["status", "--endpoints", &self.endpoints().join(",")]);
            let status = asked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
            if status.is_ok_and(|status| status.success()) {
                return Ok(());
            }
            if started.elapsed() > READY_MAX {
                return Err(failure(format!("the cluster is not ready after {READY_MAX:?}")));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Tells it to stop, and waits for its end.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(|error| failure(format!("the cluster takes no signal: {error}")))?;
        }
        match tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failure(format!("the cluster cannot be waited for: {error}"))),
            Err(_) => Err(failure(format!("the cluster has not ended after {STOP_MAX:?}"))),
        }
    }

    /// Where its nodes listen for clients.
    pub(super) fn endpoints(&self) -> Vec<String> {
        (0..NODES).map(|number| format!("127.0.0.1:{}", CLIENT_PORT + number + self.port_offset)).collect()
    }

    /// What each node takes, by its name; the worst moment is counted anew from here.
    pub(super) fn footprints(&self) -> BTreeMap<String, Footprint> {
        let Some(parent) = self.child.id() else { return BTreeMap::new() };
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| self.footprint(pid)).collect()
    }

    fn footprint(&self, pid: &str) -> Option<(String, Footprint)> {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.find(|word| word == "--node")?;
        let name = words.next()?.into_owned();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kibibytes = |field: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        let (resident, peak) = (kibibytes("VmRSS:")?, kibibytes("VmHWM:")?);
        // The kernel counts the peak anew after this; where it may not be told so, it is that of the whole life.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        let disk_bytes = disk_bytes(&self.data_dir.join(&name).join("data"));
        Some((name, Footprint { resident_bytes: resident * 1024, peak_bytes: peak * 1024, disk_bytes }))
    }

    /// Bytes that the directory of the largest node takes.
    pub(super) fn disk_bytes_max(&self) -> u64 {
        let nodes = (1..=NODES).map(|number| self.data_dir.join(format!("node{number}")).join("data"));
        nodes.map(|path| disk_bytes(&path)).max().unwrap_or(0)
    }
}

/// Bytes of the blocks of everything in a directory.
fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
        // A segment that was removed just now.
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
