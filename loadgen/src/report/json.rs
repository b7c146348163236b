//! The result for a program: one JSON object on one line.
//!
//! | member | value |
//! | --- | --- |
//! | `format` | [`FORMAT`]; raised when a member changes its meaning or goes away, not when one is added |
//! | `workload` | `queue`, `lock`, `cache`, `mixed`, `rest` |
//! | `seconds` | the time that the rates are for: without warm-up, until the last round ended |
//! | `seed`, `clients`, `in_flight` | as they were given |
//! | `loop` | `{"kind": "closed"}`, or `{"kind": "open", "rate_per_second", "arrivals", "due", "late", "never_begun"}`, all counts of rounds |
//! | `operations` | by name: `count`, `rate_per_second`, `p50_us`, `p95_us`, `p99_us`, `p999_us`, `max_us` of those that succeeded; `failed`, `unknown`; `errors`: counts of both by name |
//! | `generator_cores` | processor time of the generator by the time of the rounds |
//! | `checks` | with `--verify`: counts by name; any above 0 is a violation. Otherwise empty |
//! | `notes` | with `--verify`: counts that are no violations |
//! | `evidence` | the first violations, one sentence each |

use serde_json::{Map, Value, json};

use super::per_second;
use crate::schedule::{Outcome, Pace, Plan};

/// Version of the object's shape.
const FORMAT: u32 = 1;

/// The whole text, without a line break.
pub(crate) fn json(workload: &str, plan: &Plan, outcome: &Outcome) -> String {
    let operations: Map<String, Value> = outcome
        .report
        .operations()
        .map(|(name, operation)| {
            let shown = json!({
                "count": operation.done(),
                "rate_per_second": rounded(per_second(operation.done(), outcome.measured)),
                "p50_us": operation.latency_us(0.50),
                "p95_us": operation.latency_us(0.95),
                "p99_us": operation.latency_us(0.99),
                "p999_us": operation.latency_us(0.999),
                "max_us": operation.latency_us_max(),
                "failed": operation.failed(),
                "unknown": operation.unknown(),
                "errors": operation.errors(),
            });
            (name.to_owned(), shown)
        })
        .collect();
    let checks = outcome.checks.as_ref();
    json!({
        "format": FORMAT,
        "workload": workload,
        "seconds": rounded(outcome.measured.as_secs_f64()),
        "seed": plan.seed,
        "clients": plan.clients,
        "in_flight": plan.in_flight,
        "loop": shown_loop(plan, outcome),
        "operations": operations,
        "generator_cores": rounded(outcome.processor.as_secs_f64() / outcome.elapsed.as_secs_f64().max(1e-9)),
        "checks": checks.map(|checks| checks.violations.clone()).unwrap_or_default(),
        "notes": checks.map(|checks| checks.notes.clone()).unwrap_or_default(),
        "evidence": checks.map(|checks| checks.evidence.clone()).unwrap_or_default(),
    })
    .to_string()
}

fn shown_loop(plan: &Plan, outcome: &Outcome) -> Value {
    match plan.pace {
        Pace::Closed => json!({ "kind": "closed" }),
        Pace::Open { rate, arrivals } => {
            let lateness = outcome.lateness.unwrap_or_default();
            json!({
                "kind": "open",
                "rate_per_second": rate,
                "arrivals": arrivals.name(),
                "due": lateness.due,
                "late": lateness.late,
                "never_begun": lateness.never_begun,
            })
        }
    }
}

/// To three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::live::Look;
    use crate::schedule::{Arrivals, Lateness};
    use std::time::Duration;

    #[test]
    fn its_shape_is_the_documented_one() {
        let mut outcome = sample();
        outcome.lateness = Some(Lateness { due: 101, late: 5, never_begun: 1 });
        let plan = Plan {
            clients: 4,
            in_flight: 2,
            pace: Pace::Open { rate: 50.0, arrivals: Arrivals::Poisson },
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(2),
            seed: 9,
            verify: true,
            look: Look::Quiet,
        };
        let expected = concat!(
            r#"{"format":1,"workload":"queue","seconds":2.0,"seed":9,"clients":4,"in_flight":2,"#,
            r#""loop":{"kind":"open","rate_per_second":50.0,"arrivals":"poisson","due":101,"late":5,"never_begun":1},"#,
            r#""operations":{"enqueue":{"count":100,"rate_per_second":50.0,"p50_us":50015,"p95_us":95039,"p99_us":99007,"#,
            r#""p999_us":100031,"max_us":100031,"failed":1,"unknown":2,"errors":{"DeadlineExceeded":2,"NoLeader":1}}},"#,
            r#""generator_cores":0.25,"checks":{"duplicated":0,"lost":1},"notes":{"unknown_enqueues":2},"#,
            r#""evidence":["lost: message 7 of worker 3"]}"#,
        );
        assert_eq!(json("queue", &plan, &outcome), expected);
    }
}
