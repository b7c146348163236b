//! The dashboards and alert rules against the code's table of metrics: a panel that asks for a metric nobody makes stays empty
//! for ever, an alert on one never fires, and nobody notices either.
//!
//! What can be told from the files alone is here and in [`rules`]; [`live`] asks every query of a real Prometheus that scrapes a
//! real cluster under load. `TRINE_REQUIRE_PROMETHEUS=1` makes it a failure where `prometheus` or `promtool` is not installed;
//! without it those tests say that they are skipped.

mod grafana;
mod live;
mod load;
mod rules;

use std::collections::BTreeSet;

use grafana::{DASHBOARDS, Panel, dashboard, metrics_of, panels, read};
use serde_json::Value;
use trine::metrics::{Kind, TABLE};

/// Labels that do not come from a node: Prometheus' own, and those that `grafana/prometheus.yml` gives each target.
const LABELS_OF_PROMETHEUS: &[&str] = &["le", "node", "job"];
/// The series that Prometheus itself makes of each target.
const METRICS_OF_PROMETHEUS: &[&str] = &["up"];
/// The version of the format of a dashboard that Grafana 12 writes.
const SCHEMA_VERSION: u64 = 41;
/// Columns of a dashboard.
const COLUMNS: u64 = 24;

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

/// The metric of the table that a series belongs to: a histogram is asked for by one of its three series.
fn metric_of(series: &str) -> Option<&'static trine::metrics::Metric> {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix));
    TABLE.iter().find(|metric| match metric.kind {
        Kind::Histogram => Some(metric.name) == of_histogram,
        Kind::Counter | Kind::Gauge => metric.name == series,
    })
}

/// What is wrong with a query, in words.
fn complaints(query: &str) -> Vec<String> {
    let used = metrics_of(query);
    let mut labels: BTreeSet<&str> = LABELS_OF_PROMETHEUS.iter().copied().collect();
    let mut wrong = Vec::new();
    for name in &used {
        match metric_of(name) {
            Some(metric) => labels.extend(metric.labels),
            None => wrong.push(format!("no metric {name}")),
        }
    }
    if used.is_empty() && !METRICS_OF_PROMETHEUS.iter().any(|metric| query.starts_with(metric)) {
        wrong.push("no metric of ours".to_owned());
    }
    wrong.extend(labels_of(query).difference(&labels).map(|label| format!("no label {label}")));
    wrong
}

#[test]
fn every_panel_asks_for_metrics_and_labels_that_exist() {
    for Panel { title, queries, .. } in panels() {
        assert!(!queries.is_empty(), "'{title}' asks for nothing");
        for query in &queries {
            assert_eq!(complaints(query), [""; 0], "in '{title}': {query}");
        }
    }
}

#[test]
fn no_two_panels_show_the_same() {
    let mut seen = BTreeSet::new();
    for Panel { title, queries, .. } in panels() {
        for query in queries {
            assert!(seen.insert(query.clone()), "'{title}' repeats {query}");
        }
    }
}

#[test]
fn every_metric_is_shown_or_watched() {
    let asked: Vec<String> = panels()
        .into_iter()
        .flat_map(|panel| panel.queries)
        .chain(rules::alerts().into_iter().map(|alert| alert.expression))
        .collect();
    let used: BTreeSet<&str> =
        asked.iter().flat_map(|query| metrics_of(query)).filter_map(metric_of).map(|metric| metric.name).collect();
    let unused: Vec<&str> = TABLE.iter().map(|metric| metric.name).filter(|name| !used.contains(name)).collect();
    assert_eq!(unused, [""; 0], "neither in a panel nor in an alert");
}

#[test]
fn every_panel_says_its_unit_and_what_is_normal() {
    for Panel { dashboard, title, json, .. } in panels() {
        let what = format!("'{title}' of {dashboard}");
        let description = json["description"].as_str().unwrap_or_else(|| panic!("{what} has no description"));
        assert!(description.ends_with('.') && description.len() > 40, "{what}: {description}");
        assert!(["ormal", "only grows"].iter().any(|word| description.contains(word)), "{what}: {description}");
        let unit = json["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        assert!(!unit.is_empty(), "{what} has no unit");
        assert_eq!(json["datasource"]["uid"], "trine", "{what}");
        for target in json["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            let shows = |quantity: &str| metrics_of(query).iter().any(|name| name.contains(quantity));
            assert!(!shows("_seconds") || unit == "s", "{what} shows seconds as {unit}");
            assert!(
                !shows("_bytes") || ["bytes", "Bps", "percentunit"].contains(&unit),
                "{what} shows bytes as {unit}"
            );
            assert!(target["legendFormat"].as_str().is_some_and(|legend| legend.contains("{{")), "{what}: legend");
        }
    }
}

#[test]
fn every_dashboard_is_one_that_grafana_12_takes() {
    let mut uids = BTreeSet::new();
    for name in DASHBOARDS {
        let json = dashboard(name);
        let uid = json["uid"].as_str().expect("a uid");
        assert_eq!(uid, format!("trine-{name}"));
        assert!(uids.insert(uid.to_owned()), "{uid} twice");
        assert_eq!(json["schemaVersion"], SCHEMA_VERSION, "{name}");
        assert_eq!(json["tags"], serde_json::json!(["trine"]), "{name}: the links go by this tag");
        let link = &json["links"][0];
        assert_eq!((&link["type"], &link["tags"][0]), (&"dashboards".into(), &"trine".into()), "{name}");
        let variables: Vec<&str> = json["templating"]["list"]
            .as_array()
            .expect("variables")
            .iter()
            .map(|variable| variable["name"].as_str().expect("a name"))
            .collect();
        let text = json["panels"].to_string();
        for variable in ["node", "group"] {
            assert_eq!(variables.contains(&variable), text.contains(&format!("${variable}")), "{name}: {variable}");
        }
        assert!(variables.contains(&"node"), "{name}");
        let panels = json["panels"].as_array().expect("panels");
        check_places(name, panels);
        let titles: BTreeSet<String> = panels.iter().map(|panel| panel["title"].to_string()).collect();
        assert_eq!(titles.len(), panels.len(), "{name}: two panels of one title");
    }
}

/// Panels have numbers of their own, and places that do not overlap.
fn check_places(name: &str, panels: &[Value]) {
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids.len(), panels.len(), "{name}: two panels of one number");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |field: &str| panel["gridPos"][field].as_u64().unwrap_or_else(|| panic!("{name}: {panel}"));
        let (x, y, width, height) = (place("x"), place("y"), place("w"), place("h"));
        assert!(width > 0 && height > 0 && x + width <= COLUMNS, "{name}: {}", panel["title"]);
        for cell in (y..y + height).flat_map(|row| (x..x + width).map(move |column| (row, column))) {
            assert!(taken.insert(cell), "{name}: {} lies on another panel", panel["title"]);
        }
    }
}

#[test]
fn the_parts_find_each_other() {
    let source = read("grafana/provisioning/datasources/prometheus.yml");
    assert!(source.contains("uid: trine\n"), "no data source trine");
    let compose = read("docker-compose.yml");
    let folder = read("grafana/provisioning/dashboards/trine.yml");
    let folder = folder.lines().find_map(|line| line.trim().strip_prefix("path: ")).expect("a path");
    assert!(compose.contains(&format!("./grafana/dashboards:{folder}")), "{folder} is not mounted");
    assert!(compose.contains("./grafana:/etc/trine:ro"), "the alert rules are not mounted beside the configuration");
    assert!(compose.contains("--config.file=/etc/trine/prometheus.yml"), "Prometheus reads another configuration");
    let scrape = read("grafana/prometheus.yml");
    assert!(scrape.contains("\nrule_files: [alerts.yml]\n"), "the alert rules are not loaded");
    for target in ["node1:8000", "node2:8001", "node3:8002"] {
        assert!(scrape.contains(&format!("\"{target}\"")), "{target} is not scraped");
        let (node, _) = target.split_once(':').expect("host and port");
        assert!(compose.contains(&format!("\n  {node}:\n")), "no service {node}");
    }
    let mut files: Vec<String> = std::fs::read_dir(grafana::path("grafana/dashboards"))
        .expect("a folder")
        .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort_unstable();
    assert_eq!(files, DASHBOARDS.map(|name| format!("{name}.json")), "every dashboard is tested");
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
