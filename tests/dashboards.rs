//! The dashboards against the code's table of metrics: a panel that asks for a metric nobody makes stays empty for ever,
//! and nobody notices.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use trine::metrics::{Kind, TABLE};

/// Labels that do not come from a node: Prometheus' own, and the one that `grafana/prometheus.yml` gives each target.
const LABELS_OF_PROMETHEUS: &[&str] = &["le", "node"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every panel with its title and queries.
fn panels() -> Vec<(String, Vec<String>)> {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/overview.json")).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    let panels = dashboard["panels"].as_array().expect("panels");
    panels
        .iter()
        .filter(|panel| panel["type"] != "row")
        .map(|panel| {
            let targets = panel["targets"].as_array().expect("targets");
            (text(&panel["title"]), targets.iter().map(|target| text(&target["expr"])).collect())
        })
        .collect()
}

/// The words of a query that begin with `trine_`.
fn metrics_of(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("trine_")).collect()
}

/// What a query groups or selects by: the words inside `by (...)` and before an operator inside `{...}`.
fn labels_of(query: &str) -> BTreeSet<&str> {
    let grouped =
        query.split(" by (").skip(1).filter_map(|rest| rest.split(')').next()).flat_map(|list| list.split(','));
    let selected = query
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .flat_map(|list| list.split(','))
        .filter_map(|matcher| matcher.split(['=', '!']).next());
    grouped.chain(selected).map(str::trim).collect()
}

/// What is wrong with a query, in words.
fn complaints(query: &str) -> Vec<String> {
    let used = metrics_of(query);
    let mut labels: BTreeSet<&str> = LABELS_OF_PROMETHEUS.iter().copied().collect();
    let mut wrong = Vec::new();
    for name in &used {
        // A histogram is asked for by one of its three series, everything else by its own name.
        let series_of = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let known = |metric: &&trine::metrics::Metric| match metric.kind {
            Kind::Histogram => Some(metric.name) == series_of,
            Kind::Counter | Kind::Gauge => metric.name == *name,
        };
        match TABLE.iter().find(known) {
            Some(metric) => labels.extend(metric.labels),
            None => wrong.push(format!("no metric {name}")),
        }
    }
    if used.is_empty() {
        wrong.push("no metric of ours".to_owned());
    }
    wrong.extend(labels_of(query).difference(&labels).map(|label| format!("no label {label}")));
    wrong
}

#[test]
fn every_panel_asks_for_metrics_and_labels_that_exist() {
    let panels = panels();
    assert!(panels.len() >= 15, "{} panels", panels.len());
    for (title, queries) in &panels {
        assert!(!queries.is_empty(), "'{title}' asks for nothing");
        for query in queries {
            assert_eq!(complaints(query), [""; 0], "in '{title}': {query}");
        }
    }
}

#[test]
fn no_two_panels_show_the_same() {
    let mut seen = BTreeSet::new();
    for (title, queries) in panels() {
        for query in queries {
            assert!(seen.insert(query.clone()), "'{title}' repeats {query}");
        }
    }
}

#[test]
fn the_parts_find_each_other() {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/overview.json")).expect("JSON");
    let source = read("grafana/provisioning/datasources/prometheus.yml");
    let uid = dashboard["panels"][1]["datasource"]["uid"].as_str().expect("a data source");
    assert!(source.contains(&format!("uid: {uid}")), "no data source {uid}");
    let compose = read("docker-compose.yml");
    let folder = read("grafana/provisioning/dashboards/trine.yml");
    let folder = folder.lines().find_map(|line| line.trim().strip_prefix("path: ")).expect("a path");
    assert!(compose.contains(&format!("./grafana/dashboards:{folder}")), "{folder} is not mounted");
    let scrape = read("grafana/prometheus.yml");
    for target in ["node1:8000", "node2:8001", "node3:8002"] {
        assert!(scrape.contains(&format!("\"{target}\"")), "{target} is not scraped");
        let (node, _) = target.split_once(':').expect("host and port");
        assert!(compose.contains(&format!("\n  {node}:\n")), "no service {node}");
    }
}

#[test]
fn a_wrong_query_is_found() {
    for (query, wrong) in [
        ("trine_nonsense_total", "no metric trine_nonsense_total"),
        ("sum by (colour) (trine_ready)", "no label colour"),
        ("trine_connections{rule=\"client\"}", "no label rule"),
        ("trine_request_seconds", "no metric trine_request_seconds"),
        ("trine_ready_bucket", "no metric trine_ready_bucket"),
        ("vector(1)", "no metric of ours"),
    ] {
        assert_eq!(complaints(query), [wrong], "{query}");
    }
}
