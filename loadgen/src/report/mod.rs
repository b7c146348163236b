//! What a run measured, and how it is shown.
//!
//! A [`Report`] holds, for each operation, the latencies of those that succeeded, the failures by name, and apart from them how many
//! ended with an unknown outcome. Each worker fills one of its own, without a lock, and they are added up at the end.
//!
//! - [`table`]: for a person.
//! - [`json`]: for a program; its names stay as they are.
//!
//! # Caveats
//! - Failed operations have no latency here: a refusal is fast and a deadline is slow, and neither says how fast the service is.
//! - A histogram keeps three digits, so 4,562 us may be shown as 4,563.

pub(crate) mod json;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::workload::Failure;

/// Longest latency that is told apart, in microseconds; a request's deadline is shorter.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Three digits: a p99 of 4,560 us is known to 1 us in 1,000.
const DIGITS: u8 = 3;

/// Latencies and errors of some operations; those of several workers add up.
#[derive(Debug, Default)]
pub(crate) struct Report {
    operations: BTreeMap<&'static str, Operation>,
}

/// What one kind of operation did.
#[derive(Debug)]
pub(crate) struct Operation {
    latencies_us: Histogram<u64>,
    errors: BTreeMap<&'static str, u64>,
    unknown: u64,
}

impl Default for Operation {
    fn default() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("constant bounds");
        Self { latencies_us, errors: BTreeMap::new(), unknown: 0 }
    }
}

impl Operation {
    /// Those that succeeded.
    pub(crate) fn done(&self) -> u64 {
        self.latencies_us.len()
    }

    /// A latency in microseconds that `quantile` of those that succeeded did not exceed.
    pub(crate) fn latency_us(&self, quantile: f64) -> u64 {
        self.latencies_us.value_at_quantile(quantile)
    }

    /// The longest latency in microseconds.
    pub(crate) fn latency_us_max(&self) -> u64 {
        self.latencies_us.max()
    }

    /// Those that certainly did not succeed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum::<u64>() - self.unknown
    }

    /// Those of which nobody can say whether they took effect.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Failures and unknown outcomes by name.
    pub(crate) fn errors(&self) -> &BTreeMap<&'static str, u64> {
        &self.errors
    }
}

impl Report {
    /// Counts one operation: the time that it took, or how it failed.
    pub(crate) fn record(&mut self, name: &'static str, took: Duration, result: Result<(), &Failure>) {
        let operation = self.operations.entry(name).or_default();
        match result {
            Ok(()) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(LATENCY_US_MAX);
                operation.latencies_us.saturating_record(micros);
            }
            Err(failure) => {
                *operation.errors.entry(failure.name).or_default() += 1;
                operation.unknown += u64::from(failure.unknown);
            }
        }
    }

    /// Adds what another worker counted.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, theirs) in other.operations {
            let ours = self.operations.entry(name).or_default();
            ours.latencies_us.add(theirs.latencies_us).expect("the same bounds");
            ours.unknown += theirs.unknown;
            for (error, count) in theirs.errors {
                *ours.errors.entry(error).or_default() += count;
            }
        }
    }

    /// Every operation by its name.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (&'static str, &Operation)> {
        self.operations.iter().map(|(name, operation)| (*name, operation))
    }

    /// Operations that succeeded.
    pub(crate) fn done(&self) -> u64 {
        self.operations.values().map(Operation::done).sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown to a few digits")]
pub(crate) fn per_second(count: u64, measured: Duration) -> f64 {
    count as f64 / measured.as_secs_f64().max(1e-9)
}

/// A run for the tests of this module: 100 enqueues of 1 to 100 ms in 2 s, one refused, two of unknown outcome.
#[cfg(test)]
fn sample() -> crate::schedule::Outcome {
    let mut report = Report::default();
    for millis in 1..=100 {
        report.record("enqueue", Duration::from_millis(millis), Ok(()));
    }
    let failure = |name, unknown| Failure { name, unknown, text: String::new() };
    report.record("enqueue", Duration::from_secs(9), Err(&failure("NoLeader", false)));
    for _ in 0..2 {
        report.record("enqueue", Duration::from_secs(9), Err(&failure("DeadlineExceeded", true)));
    }
    let mut checks = crate::workload::Checks::default();
    checks.looked_for(&["lost", "duplicated"]);
    checks.violation("lost", || "message 7 of worker 3".into());
    checks.notes.insert("unknown_enqueues", 2);
    crate::schedule::Outcome {
        report,
        measured: Duration::from_secs(2),
        lateness: None,
        processor: Duration::from_millis(500),
        elapsed: Duration::from_secs(2),
        checks: Some(checks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_workers_counted_adds_up() {
        let mut report = sample().report;
        report.merge(sample().report);
        assert_eq!(report.done(), 200);
        let (name, enqueue) = report.operations().next().unwrap();
        assert_eq!((name, enqueue.done(), enqueue.failed(), enqueue.unknown()), ("enqueue", 200, 2, 4));
        assert_eq!(enqueue.errors(), &[("DeadlineExceeded", 4), ("NoLeader", 2)].into());
    }
}
