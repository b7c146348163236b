//! `trine-sim`: whole clusters on a virtual clock, seed after seed, on all processors.
//!
//! ```text
//!   trine-sim --seeds 50000 --start 0      every promise checked in each; exit code 1 at the first that is broken
//!   trine-sim --seed 4711 --trace          one seed again, a line per event
//!   trine-sim --bugs                       every rule left out once: how many seeds it takes to see it
//! ```
//!
//! A failure prints its seed, what is wrong, and the line that replays it. What a seed is like stands in [`trine::sim`].
//!
//! While it runs it shows a bar where standard error is a terminal, and a plain line every few seconds anywhere else. At the end it tells
//! how often each rare branch of the code ran ([`trine::marks`]), and what no seed reached: a branch, a kind of message, a fault.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use trine::marks::Rare;
use trine::rules::Faithful;
use trine::sim::{BANK, Bug, KINDS, Options, Report, Sim, fault_names};

/// Of so many seeds one is run twice, and both runs have to leave the same trace.
const TWICE_EVERY: u64 = 100;
/// Time between two pictures of the bar, and between two lines where there is none.
const DRAW_EVERY: Duration = Duration::from_millis(250);
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Lines of the trace that a failure shows.
const LAST_LINES: usize = 60;

/// Simulates whole clusters, one per seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds; with --bugs, within how many each bug has to be found.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Only this one, and what came of it.
    #[arg(long, conflicts_with_all = ["seeds", "start", "bugs"])]
    seed: Option<u64>,
    /// With --seed: a line per event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Leave out one rule after the other, and look for what breaks.
    #[arg(long)]
    bugs: bool,
    /// With --bugs or --seed: only the rule of this name, as `trine::rules` spells it.
    #[arg(long)]
    bug: Option<String>,
    /// All rules are kept, in the worlds in which the one of this name is looked for.
    #[arg(long, conflicts_with_all = ["bugs", "bug"])]
    world_of: Option<String>,
    /// Threads; 0 means one per processor.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is no input of the simulation")]
fn now() -> Instant {
    Instant::now()
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    events: u64,
    checked: u64,
    elections: u64,
    virtual_us: u64,
    /// How often each kind of message arrived, each fault struck and each rare branch ran.
    reached: BTreeMap<&'static str, u64>,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.events += report.events;
        // What was refused is checked as well: it must never take effect.
        self.checked += report.answered + report.failed.values().sum::<u64>();
        self.elections += report.elections;
        self.virtual_us += report.virtual_us;
        for (name, count) in report.delivered.iter().chain(&report.faults).chain(&report.marks) {
            *self.reached.entry(name).or_default() += count;
        }
    }

    fn line(&self, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(1e-9);
        format!(
            "{} seeds in {seconds:.0} s: {:.0} events/s, {:.2} simulated hours/s, {} operations checked, {} elections",
            self.runs,
            self.events as f64 / seconds,
            self.virtual_us as f64 / 3.6e9 / seconds,
            self.checked,
            self.elections,
        )
    }

    /// How often each of these names was reached, the rarest first; those that never were by themselves.
    fn print(&self, title: &str, names: impl IntoIterator<Item = &'static str>) {
        let count = |name: &'static str| (self.reached.get(name).copied().unwrap_or(0), name);
        let mut counts: Vec<(u64, &str)> = names.into_iter().map(count).collect();
        counts.sort_unstable();
        let never = counts.partition_point(|(count, _)| *count == 0);
        println!("{title}, and how often:");
        for (count, name) in &counts[never..] {
            println!("{count:>12}  {name}");
        }
        for (_, name) in &counts[..never] {
            println!("       never  {name}");
        }
    }
}

/// Tells a person how far it is.
struct Progress {
    bar: Option<ProgressBar>,
    begun: Instant,
    /// When it was told last.
    told: Mutex<Instant>,
}

impl Progress {
    fn new(seeds: u64) -> Self {
        // The wide message is cut to the terminal: a line that wraps cannot be drawn over.
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}").expect("a constant template");
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(seeds).with_style(style));
        Self { bar, begun: now(), told: Mutex::new(now()) }
    }

    /// So many seeds are done; `line` says what came of them.
    fn at(&self, seeds: u64, line: impl FnOnce(Duration) -> String) {
        let mut told = locked(&self.told);
        if told.elapsed() < if self.bar.is_some() { DRAW_EVERY } else { SAY_EVERY } {
            return;
        }
        *told = now();
        let line = line(self.begun.elapsed());
        match &self.bar {
            Some(bar) => {
                bar.set_position(seeds);
                bar.set_message(line);
            }
            None => eprintln!("{line}"),
        }
    }

    /// Leaves the terminal as it was; tells how long it took.
    fn end(&self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `run` for every seed on all threads, until one returns something.
fn sweep<T: Send>(arguments: &Arguments, run: impl Fn(u64) -> Option<T> + Sync) -> Option<T> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if arguments.threads == 0 { available } else { arguments.threads };
    let (next, stop, found) = (AtomicU64::new(arguments.start), AtomicBool::new(false), Mutex::new(None));
    let end = arguments.start.saturating_add(arguments.seeds);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Some(result) = run(seed) {
                        stop.store(true, Ordering::Relaxed);
                        locked(&found).get_or_insert(result);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn explain(report: &Report, what: &str, flags: &str) {
    for line in report.trace.iter().skip(report.trace.len().saturating_sub(LAST_LINES)) {
        println!("{line}");
    }
    println!("seed {}: {what}", report.seed);
    println!("replay: cargo run --release --bin trine-sim -- --seed {} --trace{flags}", report.seed);
}

/// Every promise under many seeds.
fn check(arguments: &Arguments, options: &Options) -> ExitCode {
    let (progress, sum) = (Progress::new(arguments.seeds), Mutex::new(Sum::default()));
    let failed = sweep(arguments, |seed| {
        let report = Sim::<Faithful>::run(seed, options);
        if seed % TWICE_EVERY == 0 && Sim::<Faithful>::run(seed, options).trace_hash != report.trace_hash {
            return Some((report, "two runs of it differ".to_owned()));
        }
        let mut sum = locked(&sum);
        sum.add(&report);
        progress.at(sum.runs, |took| sum.line(took));
        let what = report.violation.as_ref().map(|violation| violation.what.clone());
        what.map(|what| (report, what))
    });
    let took = progress.end();
    let sum = &*locked(&sum);
    if let Some((report, what)) = failed {
        let again = Sim::<Faithful>::run(report.seed, &Options { trace: true, ..options.clone() });
        let world = arguments.world_of.as_ref().map(|name| format!(" --world-of {name}"));
        explain(&again, &what, &world.unwrap_or_default());
        println!("{}, then this one failed", sum.line(took));
        return ExitCode::FAILURE;
    }
    sum.print("messages", KINDS);
    sum.print("faults", fault_names());
    sum.print("rare branches", Rare::ALL.iter().map(|branch| branch.text()));
    println!("{}; every promise kept", sum.line(took));
    ExitCode::SUCCESS
}

/// One seed, with the faithful rules or with one left out.
fn replay(arguments: &Arguments, options: &Options, seed: u64, bug: Option<&Bug>) -> ExitCode {
    let options = Options { trace: arguments.trace, ..options.clone() };
    let mut report = match bug {
        Some(bug) => bug.run(seed, &options),
        None => Sim::<Faithful>::run(seed, &options),
    };
    for line in std::mem::take(&mut report.trace) {
        println!("{line}");
    }
    println!("{report:#?}");
    if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Every bug of the bank, or one.
fn find(arguments: &Arguments, bugs: &[&Bug]) -> ExitCode {
    let mut missed = 0;
    println!("{:<36} {:>6} {:>7} {:>8}  precedent", "rule left out", "found", "seeds", "seconds");
    for bug in bugs {
        let (progress, options, tried) = (Progress::new(arguments.seeds), bug.options(), AtomicU64::new(0));
        let found = sweep(arguments, |seed| {
            let so_far = tried.fetch_add(1, Ordering::Relaxed);
            progress.at(so_far, |_| format!("{}: {so_far} seeds so far", bug.name));
            let report = bug.run(seed, &options);
            report.violation.map(|violation| (seed, violation.what))
        });
        let (tried, took) = (tried.into_inner(), progress.end().as_secs_f64());
        match found {
            Some((seed, what)) => {
                println!("{:<36} {seed:>6} {tried:>7} {took:>8.1}  {}\n    {what}", bug.name, bug.precedent);
            }
            None => {
                missed += 1;
                println!("{:<36} {:>6} {tried:>7} {took:>8.1}  {}", bug.name, "NEVER", bug.precedent);
            }
        }
    }
    println!("{} of {} found", bugs.len() - missed, bugs.len());
    if missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of a replica is a finding like any other, and is printed with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let name = arguments.bug.as_ref().or(arguments.world_of.as_ref());
    let named = |bug: &&Bug| name.is_none_or(|name| bug.name.eq_ignore_ascii_case(name));
    let bugs: Vec<&Bug> = BANK.iter().filter(named).collect();
    if bugs.is_empty() {
        let known: Vec<&str> = BANK.iter().map(|bug| bug.name).collect();
        eprintln!("trine-sim: no rule of that name; there are {}", known.join(", "));
        return ExitCode::FAILURE;
    }
    let options = name.map_or_else(Options::default, |_| bugs[0].options());
    match arguments.seed {
        Some(seed) => replay(&arguments, &options, seed, arguments.bug.as_ref().map(|_| bugs[0])),
        None if arguments.bugs || arguments.bug.is_some() => find(&arguments, &bugs),
        None => check(&arguments, &options),
    }
}
