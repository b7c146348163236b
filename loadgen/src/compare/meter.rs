//! What one run of a row counts: units that ended inside of the measured seconds, and what failed in them.
//!
//! ```text
//!   first operation        measured from here            until here
//!   |------- warm-up -------|---------- seconds ----------|--- stragglers, not counted ---|
//! ```
//! The generator awaits what was begun, and a queue's last taker may wait for a message that another one has: a rate over the
//! whole time would depend on who is last. So rate and latency are of the seconds alone.
//!
//! The workers' own reports are not used: 3,200 histograms would not fit any cache, and who fills them would be measured. A few
//! are shared instead, each behind a lock that is hardly ever waited for.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::clock;
use crate::live::Look;
use crate::report::{Report, per_second};
use crate::schedule::{Pace, Plan};
use crate::workload::Failure;

use super::figures::Sample;
use super::rows::Row;

/// Consumers are made, leaders are found and scripts are loaded in this time.
const WARM_UP: Duration = Duration::from_millis(500);
/// No operation is awaited longer than this, on any system: as Trine's own deadline, and twice that for those who retry.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(10);
/// What a report has the measured operations under.
const MEASURED: &str = "measured";
/// Reports that the workers share: some more than this machine's cores.
const REPORTS: usize = 8;
/// Where the workers' choices begin, the same on every system.
const SEED: u64 = 1;
/// An operation that had this long before the end of the seconds, and failed after it, failed because of the system and not
/// because the others stopped.
const STALLED: Duration = Duration::from_secs(1);
/// Texts of failures that are kept, one of each kind.
const TEXTS_MAX: usize = 8;

/// The counts of one run.
#[derive(Debug)]
pub(super) struct Meter {
    seconds: Duration,
    started: OnceLock<Instant>,
    units: AtomicU64,
    untimed: AtomicU64,
    failed: AtomicU64,
    reports: [Mutex<Report>; REPORTS],
    texts: Mutex<BTreeMap<&'static str, String>>,
}

impl Meter {
    pub(super) fn new(seconds: Duration) -> Self {
        Self {
            seconds,
            started: OnceLock::new(),
            units: AtomicU64::new(0),
            untimed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            reports: Default::default(),
            texts: Mutex::default(),
        }
    }

    /// The generator's plan for a row.
    pub(super) fn plan(&self, row: &Row) -> Plan {
        Plan {
            clients: row.clients,
            in_flight: row.in_flight,
            pace: Pace::Closed,
            warm_up: WARM_UP,
            duration: self.seconds,
            seed: SEED,
            // What a run made is removed there.
            verify: true,
            look: Look::Quiet,
        }
    }

    /// What is left of the measured seconds, the warm-up included.
    pub(super) fn left(&self) -> Duration {
        let started = self.started.get_or_init(clock::now);
        (WARM_UP + self.seconds).saturating_sub(started.elapsed())
    }

    /// Whether what ends now is not counted any more.
    pub(super) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Awaits an operation of the `worker`th worker, and counts its time and its `units`. False where it failed.
    pub(super) async fn measure(
        &self,
        worker: u64,
        units: u64,
        operation: impl Future<Output = Result<(), Failure>>,
    ) -> bool {
        let had = self.left();
        let started = clock::now();
        let result = in_time(operation).await;
        match &result {
            Ok(()) if self.is_measured() => {
                self.units.fetch_add(units, Ordering::Relaxed);
                let report = &self.reports[usize::try_from(worker).unwrap_or(0) % REPORTS];
                report.lock().expect("nobody panics with it held").record(MEASURED, started.elapsed(), Ok(()));
            }
            Ok(()) => {}
            Err(failure) => self.fail(failure, had),
        }
        result.is_ok()
    }

    /// Counts units of an operation whose time is not measured.
    pub(super) fn count(&self, units: u64) {
        if self.is_measured() {
            self.units.fetch_add(units, Ordering::Relaxed);
            self.untimed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a failure of what was begun with `had` left of the seconds, and keeps its text. What fails after them counts
    /// where it was stuck: or else a system that stops answering would merely be slow.
    pub(super) fn fail(&self, failure: &Failure, had: Duration) {
        let was_stuck = self.is_over() && had >= STALLED;
        if !self.is_measured() && !was_stuck {
            return;
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut texts = self.texts.lock().expect("nobody panics with it held");
        if texts.len() < TEXTS_MAX {
            texts.entry(failure.name).or_insert_with(|| failure.to_string());
        }
    }

    fn is_measured(&self) -> bool {
        let left = self.left();
        !left.is_zero() && left <= self.seconds
    }

    /// What the run comes to.
    #[expect(clippy::cast_precision_loss, reason = "a share is shown to a few digits")]
    pub(super) fn sample(&self) -> Sample {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut report = Report::default();
        for part in &self.reports {
            report.merge(std::mem::take(&mut *part.lock().expect("nobody panics with it held")));
        }
        let latency_ms =
            |share| report.operations().next().map(|(_, operation)| operation.latency_us(share) as f64 / 1000.0);
        let (done, failed) = (report.done() + load(&self.untimed), load(&self.failed));
        Sample {
            rate: per_second(load(&self.units), self.seconds),
            p50_ms: latency_ms(0.5),
            p99_ms: latency_ms(0.99),
            failed_share: failed as f64 / (done + failed).max(1) as f64,
            errors: self.texts.lock().expect("nobody panics with it held").values().cloned().collect(),
        }
    }
}

/// Awaits something, but not for ever.
pub(super) async fn in_time<T>(operation: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(OPERATION_TIME_MAX, operation).await.unwrap_or_else(|_| {
        Err(Failure { name: "NoAnswer", unknown: true, text: format!("no answer within {OPERATION_TIME_MAX:?}") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Duration = Duration::from_millis(600);

    async fn failing(after: Duration) -> Result<(), Failure> {
        tokio::time::sleep(after).await;
        Err(Failure { name: "NoLeader", unknown: false, text: "none".into() })
    }

    #[tokio::test]
    async fn warm_up_counts_nothing() {
        let meter = Meter::new(SECONDS);
        assert!(meter.measure(0, 5, async { Ok(()) }).await);
        assert!(!meter.measure(0, 5, failing(Duration::ZERO)).await);
        meter.count(5);
        let sample = meter.sample();
        assert_eq!((sample.rate, sample.p50_ms, sample.failed_share), (0.0, None, 0.0));
        assert!(sample.errors.is_empty(), "{sample:?}");
    }

    #[tokio::test]
    async fn units_and_latencies_are_of_the_measured_seconds() {
        let meter = Meter::new(SECONDS);
        tokio::time::sleep(WARM_UP.min(meter.left())).await;
        for worker in 0..3 {
            let operation = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            };
            assert!(meter.measure(worker, 100, operation).await);
        }
        assert!(!meter.measure(3, 100, failing(Duration::ZERO)).await);
        let sample = meter.sample();
        assert!((sample.rate - 300.0 / 0.6).abs() < 0.1, "{sample:?}");
        assert!(sample.p50_ms.is_some_and(|p50_ms| (20.0..200.0).contains(&p50_ms)), "{sample:?}");
        assert!((sample.failed_share - 0.25).abs() < 1e-9, "{sample:?}");
        assert_eq!(sample.errors, ["NoLeader: none"]);
    }

    #[tokio::test]
    async fn what_was_stuck_to_the_end_and_beyond_has_failed() {
        let meter = Meter::new(SECONDS);
        assert!(!meter.measure(0, 1, failing(WARM_UP + SECONDS + Duration::from_millis(50))).await);
        assert!(meter.is_over());
        assert_eq!((meter.sample().failed_share, meter.sample().errors), (1.0, vec!["NoLeader: none".into()]));
        // Begun when all others had stopped, it says nothing about the system.
        let late = Meter::new(SECONDS);
        tokio::time::sleep(late.left()).await;
        assert!(!late.measure(0, 1, failing(Duration::ZERO)).await);
        assert!(late.sample().errors.is_empty());
    }
}
