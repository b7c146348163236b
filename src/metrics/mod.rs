//! Every metric, in one table, and the recorder that renders them for Prometheus.
//!
//! [`TABLE`] is what dashboards, alert rules and documentation are held against: name, kind, unit, labels, buckets, and a
//! sentence. Names begin with `trine_` and end with their unit; counters end with `_total`. What is counted on a hot path has
//! a handle made once ([`node()`], [`storage`], [`Group`]), so that counting is one atomic addition and no look-up. The pure
//! modules know nothing of this: they keep plain numbers, which the server reads about once a second and puts here.
//!
//! # Invariants
//! - A metric that is not in [`TABLE`] cannot be made: handles come from [`counter`], [`gauge`] and [`histogram`], which
//!   assert that the name stands there with that kind and those labels.
//! - Labels have few values, all known when the node starts: no name of a queue, a lock or a key is ever one.
//! - No metric is there for what Trine does not do: a line that is always zero would say that all is well with it.
//!
//! # Caveats
//! - The recorder is one per process. Several nodes in one process, as in some tests, add up.
//! - Gauges and counters of a group are set about once a second, not with every change.
//! - What a group has *applied* is counted by each of its replicas, so a sum over nodes counts it three times: take the
//!   maximum. A node that starts applies the end of its log again, and counts that again.
//! - Left out, because there is nothing to measure: the disk's share of one queue (all groups share one log), backups.
//! - A lease's margin is measured when it is renewed, not at each hit, which would cost more than the hit; a hit sees at least the
//!   margin of the renewal that follows it.
//! - Snoops between a home and the cache beside it take no message and are not among the snoops.

mod group;
mod node;
mod table;

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Label};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use group::{BusKind, Following, Group, bus_sent, peer_round_trip, raft_peer_lag};
pub use node::{Direction, Node, Process, Refused, Storage, node, peer_connected, process, storage};
pub use table::{Kind, Metric, TABLE};

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Puts the recorder in place, once per process; further calls do nothing.
pub fn install() {
    HANDLE.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for metric in TABLE.iter().filter(|metric| metric.kind == Kind::Histogram) {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, metric.buckets).expect("the buckets are not empty");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Somebody who embeds this library may have a recorder already; then theirs is fed, and ours renders nothing.
        metrics::set_global_recorder(recorder).ok()?;
        describe();
        Some(handle)
    });
}

fn describe() {
    for metric in TABLE {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

/// Every metric in Prometheus' text form.
pub fn render() -> String {
    install();
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds what the histograms have gathered; without it they grow until somebody scrapes. To be called every few seconds.
pub fn upkeep() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}

fn labels(name: &'static str, kind: Kind, values: &[&str]) -> Vec<Label> {
    install();
    let metric = TABLE.iter().find(|metric| metric.name == name);
    let metric = metric.unwrap_or_else(|| panic!("{name} is not in the table of metrics"));
    assert_eq!(metric.kind, kind, "kind of {name}");
    assert_eq!(metric.labels.len(), values.len(), "labels of {name}");
    metric.labels.iter().zip(values).map(|(label, value)| Label::new(*label, (*value).to_owned())).collect()
}

/// A counter of the table, with the values of its labels in their order.
///
/// # Panics
/// Where the table has no such counter.
pub fn counter(name: &'static str, values: &[&str]) -> Counter {
    metrics::counter!(name, labels(name, Kind::Counter, values))
}

/// A gauge of the table, with the values of its labels in their order.
///
/// # Panics
/// Where the table has no such gauge.
pub fn gauge(name: &'static str, values: &[&str]) -> Gauge {
    metrics::gauge!(name, labels(name, Kind::Gauge, values))
}

/// A histogram of the table, with the values of its labels in their order.
///
/// # Panics
/// Where the table has no such histogram.
pub fn histogram(name: &'static str, values: &[&str]) -> Histogram {
    metrics::histogram!(name, labels(name, Kind::Histogram, values))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trine_protocol::{Command, Error};

    use super::*;

    #[test]
    fn names_are_unique_and_carry_their_kind() {
        for (at, metric) in TABLE.iter().enumerate() {
            assert!(metric.name.starts_with("trine_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(TABLE[..at].iter().all(|other| other.name != metric.name), "{} stands twice", metric.name);
        }
    }

    #[test]
    fn an_answer_is_counted_by_command_and_outcome() {
        let line = |text: &str, start: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(start));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {start} in\n{text}"))
        };
        let unknown = "trine_requests_total{command=\"Renew\",outcome=\"unknown\"}";
        let ok = "trine_requests_total{command=\"Renew\",outcome=\"ok\"}";
        node();
        let before = render();
        let late = Err::<(), _>(Error::new(trine_protocol::ErrorCode::DeadlineExceeded, "late"));
        node().answered(Command::Renew, &late, Duration::from_millis(3));
        let after = render();
        assert_eq!(line(&after, unknown), line(&before, unknown) + 1);
        assert_eq!(line(&after, ok), line(&before, ok));
        assert!(after.contains("trine_request_seconds_bucket{command=\"Renew\",le=\"0.005\"}"), "{after}");
    }
}
