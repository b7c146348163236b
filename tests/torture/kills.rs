//! `kill -9`, again and again, on one directory: the page cache stays, so this tests the order of things and the start.

use std::time::Duration;

use tempfile::TempDir;

use crate::check;
use crate::load::{Load, Shared};
use crate::node::{Ended, Node, Place};
use crate::random::Random;
use crate::report::Report;
use crate::wait;

/// Kills between two looks at all messages.
const DRAIN_EVERY: u64 = 25;
/// Longest time under load before a kill, in milliseconds.
const LOAD_MS_MAX: u64 = 110;
/// Longest time from the start of a process to its kill, where the start is what is killed, in milliseconds.
const START_MS_MAX: u64 = 60;
/// Of a hundred kills so many meet a start.
const START_PERCENT: u64 = 20;

/// Kills a node of so many groups `cycles` times. An error says what was broken.
pub(crate) async fn run(groups: u32, cycles: u64, random: &Random) -> Result<Report, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path().join("node1"), groups);
    let ledger = Shared::new();
    let mut report = Report::default();
    for cycle in 0..=cycles {
        let mut random = random.part(cycle);
        // After the last kill there is one more start, and a look at everything.
        let is_last = cycle == cycles;
        let cycled = run_one(&place, &ledger, &mut random, &mut report, (cycle, is_last)).await;
        if let Err(broken) = cycled {
            return Err(format!("kill {cycle} of {groups} groups: {broken}\n{}", leave(folder)));
        }
    }
    report.acknowledged = ledger.lock().acknowledged;
    Ok(report)
}

fn leave(folder: TempDir) -> String {
    format!("the data is left in {}", folder.keep().display())
}

async fn run_one(
    place: &Place,
    ledger: &Shared,
    random: &mut Random,
    report: &mut Report,
    (cycle, is_last): (u64, bool),
) -> Result<(), String> {
    let started = wait::now();
    let mut node = Node::start(place, &[]);
    report.starts += 1;
    let refused = |ended: Ended| ended.to_string();
    if !is_last && random.chance(START_PERCENT) {
        tokio::time::sleep(Duration::from_micros(random.below(START_MS_MAX * 1000))).await;
        report.killed_at_start += 1;
        return node.kill().await.map_err(refused);
    }
    node.listens().await.map_err(refused)?;
    let listens = started.elapsed();
    let client = place.client().await;
    check::keys_and_locks(&client, ledger).await?;
    report.started(listens, started.elapsed());
    if is_last || cycle % DRAIN_EVERY == DRAIN_EVERY - 1 {
        check::queues(&client, ledger).await?;
        report.drains += 1;
    }
    let load = Load::start(&client, ledger, random.chance(60));
    tokio::time::sleep(Duration::from_micros(random.below(LOAD_MS_MAX * 1000))).await;
    let killed = node.kill().await;
    load.stop().await;
    killed.map_err(refused)?;
    report.killed_under_load += 1;
    ledger.lock().broken.take().map_or(Ok(()), Err)
}
