//! Kills a process that writes, again and again: what it acknowledged must be there, whatever moment it was.
//!
//! The test starts this very test binary anew as the writer ([`writes_until_it_is_killed`]), reads from its output what it has
//! acknowledged, and kills it. A kill leaves the page cache, so this tests the order of things and the start, not the disk.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::testing::*;
use super::writer::{LogWriter, StateWriter};
use super::*;
use crate::ids::NodeId;
use crate::node::effect::Input;

/// Tells the writer where to write; without it, it does nothing.
const DIRECTORY: &str = "TRINE_STORAGE_TORTURE";
const OPTIONS: LogOptions = LogOptions { segment_bytes: 8192 };
/// Entries between two checkpoints.
const CHECKPOINT_EVERY: u64 = 10;

fn open_at(path: &Path) -> Opened {
    let claim = Claim { node: NodeId::numbered(1), cluster: Some(7), groups: 3, joins: false };
    open(path, &claim, OPTIONS).unwrap()
}

fn say(what: &str, number: u64) {
    let mut out = std::io::stdout().lock();
    // The parent may have stopped listening: then the kill is on its way.
    let _ = writeln!(out, "\n{what} {number}").and_then(|()| out.flush());
}

/// The writer: appends entries one by one, and a checkpoint now and then whose records all hold its index.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(DIRECTORY) else { return };
    let Opened { directory: _locked, log, state, recovered } = open_at(Path::new(&path));
    let mut index = recovered[&G].base.index + recovered[&G].entries.len() as u64;
    let stats = Arc::new(StorageStats::default());
    let fatal = |error: StorageError| panic!("{error}");
    let (done, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let told = done.clone();
    let checkpointed = move |_, input| {
        if let Input::Checkpointed { index } = input {
            say("checkpointed", index);
            told.send(index).unwrap();
        }
    };
    let state = StateWriter::spawn(state, None, checkpointed, fatal, Arc::clone(&stats), || 0).unwrap();
    let written = |_, sequence| say("written", sequence);
    let log = LogWriter::spawn(log, state.handle(), written, fatal, stats, || 0).unwrap();
    loop {
        index += 1;
        let mut write = entries(G, index, index, 1);
        write.sequence = index;
        log.handle().submit(write).await.unwrap();
        if index % CHECKPOINT_EVERY == 0 {
            let value = index.to_string();
            // Every other one is large enough to be staged.
            let count = if index % (2 * CHECKPOINT_EVERY) == 0 { 1500 } else { 3 };
            let keys: Vec<_> = (0..count).map(|number| format!("q{number}")).collect();
            let mut changes: Vec<_> = keys.iter().map(|key| (key.as_str(), Some(value.as_str()))).collect();
            changes.push(("m", Some(if count > 3 { "large" } else { "small" })));
            state.handle().checkpoint(checkpoint(G, index, 1, &changes)).await.unwrap();
            let durable = heard.recv().await.unwrap();
            let mut write = compaction(G, durable, 1);
            write.sequence = index;
            log.handle().submit(write).await.unwrap();
        }
    }
}

/// Starts the writer, kills it after `lines` lines, and returns the last written and checkpointed numbers it told.
fn run_and_kill(path: &Path, lines: usize) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage::torture::writes_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut written, mut checkpointed, mut seen) = (0, 0, 0);
    let mut killed = false;
    // What it had told before the kill arrived counts too, so this reads to the end.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap_or_default();
        match line.split_once(' ') {
            Some(("written", number)) => written = number.parse().unwrap_or(written),
            Some(("checkpointed", number)) => checkpointed = number.parse().unwrap_or(checkpointed),
            _ => continue,
        }
        seen += 1;
        if seen >= lines && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the writer ended by itself after {seen} lines");
    (written, checkpointed)
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node1");
    for cycle in 0..12 {
        let (written, checkpointed) = run_and_kill(&path, 20 + cycle * 7);
        let opened = open_at(&path);
        let recovered = &opened.recovered[&G];
        let last = recovered.base.index + recovered.entries.len() as u64;
        assert!(last >= written, "cycle {cycle}: entry {written} was acknowledged, {last} is the last");
        let applied = recovered.applied.index;
        assert!(applied >= checkpointed, "cycle {cycle}: {checkpointed} was acknowledged, the state is at {applied}");
        let count = if applied % (2 * CHECKPOINT_EVERY) == 0 { 1500 } else { 3 };
        for number in 0..count {
            let value = opened.state.read(G, format!("q{number}").as_bytes()).unwrap().unwrap();
            assert_eq!(
                value,
                applied.to_string().as_bytes(),
                "cycle {cycle}: record {number} of the state at {applied}"
            );
        }
    }
}
