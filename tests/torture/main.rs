//! Storage under torture: a real node under load, killed at any moment, on a good disk and on one that forgets.
//!
//! A cluster of one node has no other that could help it: what it has acknowledged is on its own disk or nowhere. So a
//! real `trine serve` is loaded with messages, cache keys and locks, several of each in flight, and every answer is written into a
//! ledger; the process is killed; it is started again on what is left, and asked for all that the ledger has.
//!
//! | file | what it does |
//! | --- | --- |
//! | `kills` | `kill -9`, again and again, on one directory; a node that does not start is a failure |
//! | `power_cuts` | the same on a disk that loses what was not synced; a node may refuse to start, but not forget |
//! | `disk` | that disk: a library under the process (`unsynced.c`), and the cut, which a seed decides |
//! | `life` | one data directory on that disk |
//! | `ledger`, `load`, `check` | what was acknowledged, what is asked, and what must be there |
//! | `node`, `report`, `random` | a process, what a run came to, and chance |
//!
//! `TRINE_KILLS` and `TRINE_POWER_CUTS` ask for longer runs than the few seconds here, `TRINE_BIN` names another binary, and
//! `TRINE_TORTURE_SEED` begins with another seed. When a kill comes is up to the machine; what a cut leaves follows from
//! seed and files, and a failure leaves the files where it says.
//!
//! # Caveats
//! - One node: what a cluster adds (snapshots, truncated logs, a vote for another) is for the simulator.
//! - The disk says "synced" only when it is. One that lies is used once, to see that the test notices.

mod check;
mod disk;
mod kills;
mod ledger;
mod life;
mod load;
mod node;
#[path = "../cluster/ports.rs"]
mod ports;
mod power_cuts;
mod random;
mod report;
#[path = "../cluster/wait.rs"]
#[expect(dead_code, reason = "half of it is for tests that do not wait in tokio")]
mod wait;

use tokio::sync::Mutex;

use random::Random;
use report::Report;

/// The tests take turns: they share a machine that may have two cores.
static MACHINE: Mutex<()> = Mutex::const_new(());

/// Kills and power cuts where nothing else is asked for: some seconds.
const KILLS: u64 = 24;
const POWER_CUTS: u64 = 14;

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(otherwise, |text| text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// The seed of a run.
fn seed() -> Random {
    let seed = number("TRINE_TORTURE_SEED", 1);
    println!("TRINE_TORTURE_SEED={seed}, {}", node::binary().display());
    Random::new(seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_has_all_that_it_acknowledged() {
    let _turn = MACHINE.lock().await;
    let (kills, random) = (number("TRINE_KILLS", KILLS), seed());
    let started = wait::now();
    let mut report = Report::default();
    // A directory of three groups, which share a log, and one of a single group, whose checkpoints come three times as often.
    for (groups, kills) in [(3, kills.div_ceil(2)), (1, kills / 2)] {
        match kills::run(groups, kills, &random.part(groups.into())).await {
            Ok(of_groups) => report.add(of_groups),
            Err(broken) => panic!("{broken}"),
        }
    }
    println!("{kills} kills in {:?}: {report}", started.elapsed());
    assert!(report.acknowledged > kills, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let _turn = MACHINE.lock().await;
    if disk::library().is_none() {
        return println!("skipped: no cc to build the library with");
    }
    let (cuts, random) = (number("TRINE_POWER_CUTS", POWER_CUTS), seed());
    let started = wait::now();
    match power_cuts::run(cuts, &random).await {
        Ok(report) => {
            println!("{cuts} power cuts in {:?}: {report}", started.elapsed());
            assert!(report.acknowledged > cuts && report.cuts_that_cost * 2 > cuts, "{report}");
        }
        Err(broken) => panic!("{broken}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_may_end_anywhere() {
    let _turn = MACHINE.lock().await;
    if disk::library().is_none() {
        return println!("skipped: no cc to build the library with");
    }
    let is_long = number("TRINE_POWER_CUTS", POWER_CUTS) > POWER_CUTS;
    let started = wait::now();
    match power_cuts::run_first_starts(if is_long { 1 } else { 9 }, &seed()).await {
        Ok(report) => {
            println!("first starts in {:?}: {report}", started.elapsed());
            assert!(report.acknowledged > 0 && report.killed_at_start > 0, "{report}");
        }
        Err(broken) => panic!("{broken}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_syncs_are_void_is_caught() {
    let _turn = MACHINE.lock().await;
    if disk::library().is_none() {
        return println!("skipped: no cc to build the library with");
    }
    let broken = power_cuts::run_deaf(10, &seed()).await.expect("acknowledged without a sync, and nothing is missed");
    println!("caught: {broken}");
    let missing = ["is the last", "are missing", "is Held", "is Free", "after"];
    assert!(missing.iter().any(|word| broken.contains(word)), "{broken}");
}
