//! The open loop: rounds begin at times that were fixed before, as users come whether or not the others are served.
//!
//! ```text
//!   the timer's thread: sleeps until round n is due, adds a permit
//!                            |
//!                      [ permits ]      those that wait are the backlog
//!                            |
//!   a free worker: takes a permit and the next number n, makes the round, counts from when n was due
//! ```
//!
//! The timer is a thread because tokio's timers are exact to a millisecond, and many a round takes less.
//!
//! Rounds are numbered in the order in which they are due and taken in that order, so a backlog is first in, first out. It costs no
//! memory (a permit is a count) and has no bound of its own; the workers bound what is in flight. Rounds that were due and
//! that no worker could take within [`GRACE`] of the end are never begun: their number is in [`Lateness`], and since they are in no
//! percentile, those flatter the server wherever that number is above 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rand::SeedableRng;
use rand_distr::{Distribution, Exp1};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Clockwork;
use crate::clock;
use crate::report::Report;
use crate::workload::{Worker, Workload};

/// Gaps of the Poisson process that are drawn; they repeat after that. A power of two, and more than a short run needs.
const GAPS: usize = 1 << 16;
/// The fastest plan: beyond it the timer's thread would be the load.
pub(crate) const RATE_MAX: f64 = 1_000_000.0;
/// A round that begins so long after it was due is counted as late: more than the timers of a calm machine are off.
const LATE: Duration = Duration::from_millis(2);
/// For how long after the end a backlog is still worked off; longer, and an overload would have no end.
const GRACE: Duration = Duration::from_secs(1);
/// The timer looks this often whether the backlog is gone.
const LOOK_AT_BACKLOG: Duration = Duration::from_millis(1);
/// The timer looks this often whether the run was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// How the rounds are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// One after the other at the same distance.
    Constant,
    /// As independent users come: the distances are exponentially distributed.
    Poisson,
}

impl Arrivals {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

/// How well the plan was kept. Warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lateness {
    /// Rounds that were due.
    pub(crate) due: u64,
    /// Rounds that began late, because as many as may be were in flight or the generator had no time.
    pub(crate) late: u64,
    /// Rounds that were due and never begun.
    pub(crate) never_begun: u64,
}

/// When each round is due, after the start.
#[derive(Debug)]
pub(super) struct Times {
    /// Mean distance in seconds.
    gap: f64,
    /// Sums of gaps with mean 1; empty where they are all the same.
    sums: Vec<f64>,
}

impl Times {
    pub(super) fn new(rate: f64, arrivals: Arrivals, seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut sum = 0.0;
        let sums = match arrivals {
            Arrivals::Constant => Vec::new(),
            Arrivals::Poisson => (0..GAPS)
                .map(|_| {
                    let gap: f64 = Exp1.sample(&mut random);
                    sum += gap;
                    sum
                })
                .collect(),
        };
        Self { gap: 1.0 / rate.clamp(1e-3, RATE_MAX), sums }
    }

    /// When the `number`th round is due.
    #[expect(clippy::cast_precision_loss, reason = "2^53 rounds take longer than anybody runs")]
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below 2^16")]
    fn of(&self, number: u64) -> Duration {
        let Some(period) = self.sums.last() else { return Duration::from_secs_f64(number as f64 * self.gap) };
        let (turn, place) = (number / GAPS as u64, (number % GAPS as u64) as usize);
        Duration::from_secs_f64((turn as f64 * period + self.sums[place]) * self.gap)
    }
}

#[derive(Debug)]
struct Plan {
    times: Times,
    due: Semaphore,
    next: AtomicU64,
    late: AtomicU64,
}

/// Runs the plan with all workers.
pub(super) async fn run<W: Workload>(
    workload: &Arc<W>,
    workers: Vec<Worker<W::Connection>>,
    clockwork: &Arc<Clockwork>,
    times: Times,
) -> (Vec<Report>, Lateness) {
    let plan = Arc::new(Plan { times, due: Semaphore::new(0), next: AtomicU64::new(0), late: AtomicU64::new(0) });
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let (workload, clockwork, plan) = (Arc::clone(workload), Arc::clone(clockwork), Arc::clone(&plan));
        worker.measure_from = clockwork.measure_from;
        tasks.spawn(async move {
            while let Ok(permit) = plan.due.acquire().await {
                permit.forget();
                let number = plan.next.fetch_add(1, Ordering::Relaxed);
                let intended = clockwork.started + plan.times.of(number);
                if intended.elapsed() > LATE {
                    plan.late.fetch_add(1, Ordering::Relaxed);
                }
                round(&*workload, &mut worker, intended).await;
            }
            worker.report
        });
    }
    let timer = {
        let (plan, clockwork) = (Arc::clone(&plan), Arc::clone(clockwork));
        tokio::task::spawn_blocking(move || keep_time(&plan, &clockwork))
    };
    let reports = super::reports(tasks).await;
    let due = timer.await.expect("the timer's thread only counts");
    let begun = plan.next.load(Ordering::Relaxed);
    let late = plan.late.load(Ordering::Relaxed);
    (reports, Lateness { due, late, never_begun: due - begun })
}

async fn round<W: Workload>(workload: &W, worker: &mut Worker<W::Connection>, intended: Instant) {
    worker.intended = Some(intended);
    let well = workload.round(worker).await;
    worker.rounds += 1;
    worker.intended = None;
    // No pause after a failure, unlike in the closed loop: the next round comes when it is due.
    if well && intended >= worker.measure_from {
        worker.report.record("round", intended.elapsed(), Ok(()));
    }
}

/// Adds a permit for each round when it is due. Returns how many there were.
fn keep_time(plan: &Plan, clockwork: &Clockwork) -> u64 {
    let mut due = 0;
    loop {
        let now = clock::now();
        let next = clockwork.started + plan.times.of(due);
        if clockwork.is_interrupted() || next >= clockwork.until {
            break;
        }
        if next > now {
            std::thread::sleep((next - now).min(LOOK));
            continue;
        }
        plan.due.add_permits(1);
        due += 1;
    }
    // Not until no permit is left: one that is on its way to a worker is gone already, and closing would take it back.
    let begun = || plan.next.load(Ordering::Relaxed);
    while !clockwork.is_interrupted() && begun() < due && clock::now() < clockwork.until + GRACE {
        std::thread::sleep(LOOK_AT_BACKLOG);
    }
    plan.due.close();
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_arrivals_are_evenly_spaced() {
        let times = Times::new(200.0, Arrivals::Constant, 1);
        assert_eq!(times.of(0), Duration::ZERO);
        assert_eq!(times.of(1), Duration::from_millis(5));
        assert_eq!(times.of(12_000), Duration::from_secs(60));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_chance() {
        let times = Times::new(1_000.0, Arrivals::Poisson, 1);
        let gaps: Vec<f64> =
            (0..100_000).map(|number| (times.of(number + 1) - times.of(number)).as_secs_f64() * 1_000.0).collect();
        let mean = gaps.iter().sum::<f64>() / 100_000.0;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 100_000.0;
        // Of an exponential distribution both are 1; a constant one has no variance.
        assert!((0.98..1.02).contains(&mean) && (0.95..1.05).contains(&variance), "{mean} {variance}");
        assert_eq!(times.of(77), Times::new(1_000.0, Arrivals::Poisson, 1).of(77));
        assert_ne!(times.of(77), Times::new(1_000.0, Arrivals::Poisson, 2).of(77));
    }
}
