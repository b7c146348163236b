//! What a run measured: latencies by operation, errors by name, and what the checks found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in microseconds; a request's deadline is shorter.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Three digits: a p99 of 4,560 us is known to 1 us in 1,000.
const DIGITS: u8 = 3;

/// Latencies and errors of some operations; those of several workers add up.
#[derive(Debug, Default)]
pub(crate) struct Report {
    operations: BTreeMap<&'static str, Operation>,
}

#[derive(Debug)]
struct Operation {
    latencies_us: Histogram<u64>,
    errors: BTreeMap<&'static str, u64>,
}

impl Default for Operation {
    fn default() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("constant bounds");
        Self { latencies_us, errors: BTreeMap::new() }
    }
}

impl Report {
    /// Counts one operation: the time that it took, or how it failed.
    pub(crate) fn record(&mut self, name: &'static str, took: Duration, result: Result<(), &'static str>) {
        let operation = self.operations.entry(name).or_default();
        match result {
            Ok(()) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(LATENCY_US_MAX);
                operation.latencies_us.saturating_record(micros);
            }
            Err(error) => *operation.errors.entry(error).or_default() += 1,
        }
    }

    /// Adds what another worker counted.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, theirs) in other.operations {
            let ours = self.operations.entry(name).or_default();
            ours.latencies_us.add(theirs.latencies_us).expect("the same bounds");
            for (error, count) in theirs.errors {
                *ours.errors.entry(error).or_default() += count;
            }
        }
    }

    /// Operations that succeeded.
    pub(crate) fn done(&self) -> u64 {
        self.operations.values().map(|operation| operation.latencies_us.len()).sum()
    }

    /// A table for a person: one line an operation, then the errors, then the findings.
    pub(crate) fn table(&self, measured: Duration, findings: &[(&'static str, u64)]) -> String {
        let mut out = format!(
            "{:<10} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>8}\n",
            "operation", "count", "rate/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "errors"
        );
        for (name, operation) in &self.operations {
            let ms = |quantile| millis(operation.latencies_us.value_at_quantile(quantile));
            let _ = writeln!(
                out,
                "{:<10} {:>10} {:>10.0} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>8}",
                name,
                operation.latencies_us.len(),
                per_second(operation.latencies_us.len(), measured),
                ms(0.50),
                ms(0.95),
                ms(0.99),
                millis(operation.latencies_us.max()),
                operation.errors.values().sum::<u64>(),
            );
        }
        for (name, operation) in &self.operations {
            for (error, count) in &operation.errors {
                let _ = writeln!(out, "{name}: {error} {count}");
            }
        }
        for (finding, count) in findings {
            let _ = writeln!(out, "{finding}: {count}");
        }
        out
    }

    /// The same as one JSON object. All names are ours and need no escapes.
    pub(crate) fn json(&self, measured: Duration, findings: &[(&'static str, u64)]) -> String {
        let operations = self.operations.iter().map(|(name, operation)| {
            let us = |quantile| operation.latencies_us.value_at_quantile(quantile);
            format!(
                "\"{name}\":{{\"count\":{},\"rate_per_second\":{:.1},\"p50_us\":{},\"p95_us\":{},\"p99_us\":{},\"max_us\":{},\"errors\":{{{}}}}}",
                operation.latencies_us.len(),
                per_second(operation.latencies_us.len(), measured),
                us(0.50),
                us(0.95),
                us(0.99),
                operation.latencies_us.max(),
                counts(operation.errors.iter().map(|(error, count)| (*error, *count))),
            )
        });
        let operations: Vec<String> = operations.collect();
        format!(
            "{{\"seconds\":{:.3},\"operations\":{{{}}},\"checks\":{{{}}}}}",
            measured.as_secs_f64(),
            operations.join(","),
            counts(findings.iter().copied())
        )
    }
}

fn counts(pairs: impl Iterator<Item = (&'static str, u64)>) -> String {
    pairs.map(|(name, count)| format!("\"{name}\":{count}")).collect::<Vec<_>>().join(",")
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown to a few digits")]
fn per_second(count: u64, measured: Duration) -> f64 {
    count as f64 / measured.as_secs_f64().max(1e-9)
}

#[expect(clippy::cast_precision_loss, reason = "a latency is shown to a few digits")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut report = Report::default();
        for millis in 1..=100 {
            report.record("enqueue", Duration::from_millis(millis), Ok(()));
        }
        report.record("enqueue", Duration::from_secs(9), Err("NoLeader"));
        report
    }

    #[test]
    fn latencies_and_errors_add_up() {
        let mut report = sample();
        report.merge(sample());
        assert_eq!(report.done(), 200);
        let table = report.table(Duration::from_secs(2), &[("lost", 0)]);
        let line: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["enqueue", "200", "100", "50.015", "95.039", "99.007", "100.031", "2"], "{table}");
        assert!(table.contains("enqueue: NoLeader 2") && table.contains("lost: 0"), "{table}");
    }

    #[test]
    fn json_holds_what_the_table_holds() {
        let json = sample().json(Duration::from_secs(2), &[("lost", 3)]);
        for part in ["\"seconds\":2.000", "\"count\":100", "\"rate_per_second\":50.0", "\"NoLeader\":1", "\"lost\":3"] {
            assert!(json.contains(part), "{part} in {json}");
        }
    }
}
