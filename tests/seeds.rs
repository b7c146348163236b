//! Whole clusters under many seeds: every promise is checked in every run.
//!
//! - `cargo test --test seeds`: 2,000 seeds. `TRINE_SEEDS=N`: as many. - `TRINE_SEED=n`: that one, its trace printed.
//! - Each switch of `rules.rs` is a bug that must be found by the seed that stands in the simulator's bank.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trine::marks::Rare;
use trine::rules::Faithful;
use trine::sim::{BANK, MODELLED, Options, Report, Sim, fault_names};

/// Seeds of a run without `TRINE_SEEDS`.
const SEEDS: u64 = 2_000;
/// Rare branches that a run of [`SEEDS`] may miss.
const MARKS_MISSED_MAX: usize = 12;
/// Of so many seeds one is run twice.
const TWICE: u64 = 100;

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[expect(clippy::disallowed_methods, reason = "how long the test takes is no input of the simulation")]
fn now() -> Instant {
    Instant::now()
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    events: u64,
    answered: u64,
    failed: u64,
    read_hits: u64,
    elections: u64,
    with_leader_change: u64,
    virtual_us: u64,
    /// How often each fault struck and each rare branch ran.
    reached: BTreeMap<&'static str, u64>,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.events += report.events;
        self.answered += report.answered;
        self.failed += report.failed.values().sum::<u64>();
        self.read_hits += report.read_hits;
        self.elections += report.elections;
        self.with_leader_change += u64::from(report.leader_changes_under_load > 0);
        self.virtual_us += report.virtual_us;
        for (name, count) in report.faults.iter().chain(&report.marks) {
            *self.reached.entry(name).or_default() += count;
        }
    }

    /// Those of the names that no run has reached.
    fn never(&self, names: impl IntoIterator<Item = &'static str>) -> Vec<&'static str> {
        names.into_iter().filter(|name| !self.reached.contains_key(name)).collect()
    }

    fn print(&self, took: Duration) {
        let mean = |of: u64| of / self.runs.max(1);
        println!(
            "{} seeds in {:.1} s, {:.0} events/s: at the mean {} events, {} operations answered and {} not, {} read hits, \
             {} elections, {:.1} s of virtual time; {} % with a leader change under load",
            self.runs,
            took.as_secs_f64(),
            self.events as f64 / took.as_secs_f64(),
            mean(self.events),
            mean(self.answered),
            mean(self.failed),
            mean(self.read_hits),
            mean(self.elections),
            mean(self.virtual_us) as f64 / 1e6,
            100 * self.with_leader_change / self.runs.max(1),
        );
    }
}

/// Prints what a person needs to find the bug, and fails.
fn fail(report: &Report, options: &Options) -> ! {
    let violation = report.violation.as_ref().expect("only a violation fails");
    let again = Sim::<Faithful>::run(report.seed, &Options { trace: true, ..options.clone() });
    println!("the last events of seed {}:", report.seed);
    for line in again.trace.iter().skip(again.trace.len().saturating_sub(60)) {
        println!("{line}");
    }
    panic!(
        "seed {} at step {}: {}\nreplay: TRINE_SEED={} cargo test --test seeds -- --nocapture",
        report.seed, violation.step, violation.what, report.seed
    );
}

#[test]
fn every_seed_keeps_every_promise() {
    let options = Options::default();
    if let Some(seed) = from_environment("TRINE_SEED") {
        return replay(seed);
    }
    let seeds = from_environment("TRINE_SEEDS").unwrap_or(SEEDS);
    let first = from_environment("TRINE_FIRST_SEED").unwrap_or(0);
    let (next, sum, begun) = (AtomicU64::new(first), Mutex::new(Sum::default()), now());
    let failed: Mutex<Option<Report>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || failed.lock().expect("no panic holds it").is_some() {
                        return;
                    }
                    let report = Sim::<Faithful>::run(seed, &options);
                    if seed % TWICE == 0 {
                        let second = Sim::<Faithful>::run(seed, &options);
                        assert_eq!(report.trace_hash, second.trace_hash, "seed {seed} is not deterministic");
                    }
                    let mut sum = sum.lock().expect("no panic holds it");
                    sum.add(&report);
                    if sum.runs % 500 == 0 {
                        sum.print(begun.elapsed());
                    }
                    if report.violation.is_some() {
                        failed.lock().expect("no panic holds it").get_or_insert(report);
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no panic held it");
    sum.print(begun.elapsed());
    if let Some(report) = failed.into_inner().expect("no panic held it") {
        fail(&report, &options);
    }
    if sum.runs >= 100 {
        assert!(sum.events >= 2_000 * sum.runs, "a seed has {} events at the mean", sum.events / sum.runs);
        assert!(sum.answered >= 200 * sum.runs, "a seed has {} operations at the mean", sum.answered / sum.runs);
        let changed = 100 * sum.with_leader_change / sum.runs;
        assert!(changed >= 30, "only {changed} % of the seeds see a leader change under load");
        let never = sum.never(fault_names());
        assert!(never.is_empty(), "no seed had these faults: {never:?}");
        // A branch that only one seed in a thousand takes may be missed by these few.
        let never = sum.never(Rare::ALL.iter().map(|branch| branch.text()));
        assert!(never.len() <= MARKS_MISSED_MAX, "no seed took these branches: {never:#?}");
        println!("{} of {} rare branches; never: {never:?}", Rare::ALL.len() - never.len(), Rare::ALL.len());
    }
}

fn replay(seed: u64) {
    let mut report = Sim::<Faithful>::run(seed, &Options { trace: true, ..Options::default() });
    for line in std::mem::take(&mut report.trace) {
        println!("{line}");
    }
    println!("{report:#?}");
    assert_eq!(report.violation, None);
}

/// Each seed of the bank finds its bug, and the faithful rules pass the same seed in the same world.
#[test]
fn every_bug_of_the_bank_is_found_by_its_seed() {
    let mut complaints = Vec::new();
    for bug in BANK {
        let options = bug.options();
        if bug.run(bug.seed, &options).violation.is_none() {
            complaints.push(format!("{}: seed {} does not find it any more", bug.name, bug.seed));
        }
        if let Some(violation) = Sim::<Faithful>::run(bug.seed, &options).violation {
            complaints.push(format!("{}: seed {} fails without the bug: {}", bug.name, bug.seed, violation.what));
        }
    }
    assert!(complaints.is_empty(), "look for new seeds with `trine-sim --bugs`:\n{}", complaints.join("\n"));
}

/// Every rule is a bug of the bank when it is left out, or one of the model's: one that nobody looks for proves nothing.
#[test]
fn every_rule_is_in_the_bank() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules.rs");
    let text = std::fs::read_to_string(path).expect("the rules can be read");
    let start = text.find("pub enum Rule {").expect("the rules are an enum");
    let body = text[start..].split('}').next().expect("it ends");
    let rule = |line: &str| line.trim().strip_suffix(',').map(str::to_owned);
    let rules: Vec<String> = body.lines().filter(|line| !line.trim().starts_with("//")).filter_map(rule).collect();
    let names: Vec<String> = BANK.iter().map(|bug| bug.name.to_owned()).collect();
    assert!(names.len() >= 24, "{} bugs", names.len());
    let modelled: Vec<String> = MODELLED.iter().map(|(rule, _)| format!("{rule:?}")).collect();
    let (by_model, by_seed): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| modelled.contains(rule));
    assert_eq!((by_seed, by_model), (names, modelled));
}
