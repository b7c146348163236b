//! Whole clusters under many seeds: every promise is checked in every run.
//!
//! - `cargo test --test seeds`: 300 seeds. `TRINE_SEEDS=N`: as many. - `TRINE_SEED=n`: that one, its trace printed.
//! - Each switch of `rules.rs` is a bug that must be found: by a sweep, and by the seed that stands in the simulator's essay.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trine::rules::{Faithful, Rules};
use trine::sim::{Options, Report, Sim, Swarm};

/// Seeds of a run without `TRINE_SEEDS`.
const SEEDS: u64 = 300;
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
fn fail<R: Rules>(report: &Report, options: &Options) -> ! {
    let violation = report.violation.as_ref().expect("only a violation fails");
    let again = Sim::<R>::run(report.seed, &Options { trace: true, ..options.clone() });
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
        fail::<Faithful>(&report, &options);
    }
    if sum.runs >= 100 {
        assert!(sum.events >= 2_000 * sum.runs, "a seed has {} events at the mean", sum.events / sum.runs);
        assert!(sum.answered >= 200 * sum.runs, "a seed has {} operations at the mean", sum.answered / sum.runs);
        let changed = 100 * sum.with_leader_change / sum.runs;
        assert!(changed >= 30, "only {changed} % of the seeds see a leader change under load");
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

macro_rules! broken_rules {
    ($($name:ident $rule:ident $test:ident $seed:literal $seconds:literal $adjust:expr;)*) => {
        $(
            #[derive(Clone, Copy, Debug, Default)]
            struct $name;

            impl Rules for $name {
                const $rule: bool = true;
            }

            #[test]
            fn $test() {
                find::<$name>($seed, Options { adjust: Some($adjust), faulty_us: $seconds * 1_000_000, ..Options::default() });
            }
        )*
    };
}

/// Seeds within which a bug has to be found.
const SEARCH: u64 = 10_000;

/// The seed of the essay finds the bug, and the faithful rules pass it. With `TRINE_SEARCH=1` the first seed that finds it is looked for.
fn find<R: Rules>(known: u64, options: Options) {
    if from_environment("TRINE_SEARCH").is_some() {
        let found = (0..SEARCH).find_map(|seed| Sim::<R>::run(seed, &options).violation.map(|what| (seed, what)));
        return println!("{}: {found:?}", std::any::type_name::<R>());
    }
    let violation = Sim::<R>::run(known, &options).violation;
    assert!(violation.is_some(), "seed {known} does not find it any more");
    assert_eq!(Sim::<Faithful>::run(known, &options).violation, None, "without the bug");
}

fn as_drawn(_: &mut Swarm) {}

/// Elections all the time, late votes, and voters that are back before the votes are.
fn rival_candidates(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.groups = 3;
    swarm.clients = 2;
    swarm.rates_ppm = vec![0; 3];
    swarm.network.in_order = false;
    swarm.network.tail_per_mille = 500;
    swarm.network.tail_us_max = 2_000_000;
    swarm.network.loss_per_mille = 0;
    swarm.process.crash = Some(400_000);
    swarm.process.down_us = (10_000, 50_000);
    swarm.process.new_leader_dies_per_mille = 900;
}

/// Leaders that die just after their election, with an entry here and another there.
fn short_reigns(swarm: &mut Swarm) {
    swarm.nodes = 3;
    swarm.rates_ppm = vec![0; 3];
    swarm.bounds.append_bytes_max = 1;
    swarm.network.loss_per_mille = 100;
    swarm.process.crash = Some(1_000_000);
    swarm.process.down_us = (20_000, 600_000);
    swarm.process.new_leader_dies_per_mille = 800;
}

broken_rules! {
    LeaderCountsItselfEarly LEADER_COUNTS_ITSELF_EARLY finds_a_leader_that_counts_itself_early 27 10 as_drawn;
    VoteNotPersisted VOTE_NOT_PERSISTED finds_a_vote_that_is_not_persisted 348 30 rival_candidates;
    EarlierTermCommittedByCount EARLIER_TERM_COMMITTED_BY_COUNT finds_an_earlier_term_committed_by_count 670 10 short_reigns;
    GrantWithoutLeaseCheck GRANT_WITHOUT_LEASE_CHECK finds_a_grant_without_a_look_at_the_lease 195 10 as_drawn;
    FillInstalledAfterInvalidation FILL_INSTALLED_AFTER_INVALIDATION finds_a_fill_installed_after_its_invalidation 1 10 as_drawn;
    LapsedLeaseRenewed LAPSED_LEASE_RENEWED finds_a_lapsed_lease_that_is_renewed 38 10 as_drawn;
    CommandsTakenOutOfOrder COMMANDS_TAKEN_OUT_OF_ORDER finds_commands_taken_out_of_order 6 10 as_drawn;
}
