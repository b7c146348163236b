//! The result for a person: one line an operation, then failures by name, then how the plan was kept, then the checks.

use std::fmt::Write as _;

use super::per_second;
use crate::schedule::Outcome;

/// The whole text.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut out = format!(
        "{:<13} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}\n",
        "operation", "count", "rate/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "failed", "unknown"
    );
    for (name, operation) in outcome.report.operations() {
        let ms = |quantile| millis(operation.latency_us(quantile));
        let _ = writeln!(
            out,
            "{:<13} {:>9} {:>9.0} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>8} {:>8}",
            name,
            operation.done(),
            per_second(operation.done(), outcome.measured),
            ms(0.50),
            ms(0.95),
            ms(0.99),
            millis(operation.latency_us_max()),
            operation.failed(),
            operation.unknown(),
        );
    }
    for (name, operation) in outcome.report.operations() {
        for (error, count) in operation.errors() {
            let _ = writeln!(out, "{name}: {error} {count}");
        }
    }
    if let Some(lateness) = &outcome.lateness {
        let _ = writeln!(
            out,
            "rounds due: {}, begun late: {}, never begun: {}",
            lateness.due, lateness.late, lateness.never_begun
        );
    }
    let cores = outcome.processor.as_secs_f64() / outcome.elapsed.as_secs_f64().max(1e-9);
    let _ = writeln!(out, "the generator itself used {cores:.2} cores");
    if let Some(checks) = &outcome.checks {
        for (name, count) in &checks.notes {
            let _ = writeln!(out, "{name}: {count}");
        }
        for (name, count) in &checks.violations {
            let _ = writeln!(out, "{name}: {count}");
        }
        for sentence in &checks.evidence {
            let _ = writeln!(out, "  {sentence}");
        }
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "a latency is shown to a few digits")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::schedule::Lateness;

    #[test]
    fn it_has_a_line_for_each_fact() {
        let mut outcome = sample();
        outcome.lateness = Some(Lateness { due: 101, late: 5, never_begun: 1 });
        let text = table(&outcome);
        let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["enqueue", "100", "50", "50.015", "95.039", "99.007", "100.031", "1", "2"], "{text}");
        for part in [
            "enqueue: NoLeader 1\n",
            "enqueue: DeadlineExceeded 2\n",
            "rounds due: 101, begun late: 5, never begun: 1\n",
            "used 0.25 cores\n",
            "unknown_enqueues: 2\nduplicated: 0\nlost: 1\n  lost: message 7 of worker 3\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
