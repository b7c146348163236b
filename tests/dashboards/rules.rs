//! The alert rules: complete, on metrics that exist, and each tried on both sides of its threshold by `promtool`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::complaints;
use super::grafana::{path, read};

/// One alert rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
    fields: BTreeMap<String, String>,
}

/// The rules, read from the lines of their file, each field of which stands on one of its own.
pub(crate) fn alerts() -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    for line in read("grafana/alerts.yml").lines().filter(|line| !line.starts_with('#')) {
        let Some((field, value)) = line.trim().trim_start_matches("- ").split_once(':') else { continue };
        let value = value.trim();
        match (field, alerts.last_mut()) {
            ("alert", _) => alerts.push(Alert { name: value.to_owned(), ..Alert::default() }),
            ("expr", Some(alert)) => value.trim_matches('\'').clone_into(&mut alert.expression),
            (_, Some(alert)) => {
                alert.fields.insert(field.to_owned(), value.to_owned());
            }
            (_, None) => {}
        }
    }
    alerts
}

/// True where the tools of Prometheus are there. A test that needs them and finds none ends well, unless
/// `TRINE_REQUIRE_PROMETHEUS=1` says that they have to be there.
pub(crate) fn has(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    let required = std::env::var("TRINE_REQUIRE_PROMETHEUS").is_ok_and(|value| value == "1");
    assert!(there || !required, "{tool} is not installed, and TRINE_REQUIRE_PROMETHEUS=1 says that it has to be");
    if !there {
        println!("SKIPPED: {tool} is not installed");
    }
    there
}

#[test]
fn every_alert_is_complete_and_on_metrics_that_exist() {
    let alerts = alerts();
    assert!(alerts.len() >= 30, "{} alerts", alerts.len());
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(names.len(), alerts.len(), "two alerts of one name");
    for Alert { name, expression, fields } in &alerts {
        assert!(name.starts_with("Trine"), "{name}");
        assert_eq!(complaints(expression), [""; 0], "in {name}: {expression}");
        let field = |name_of: &str| fields.get(name_of).unwrap_or_else(|| panic!("{name} has no {name_of}"));
        assert!(["{ severity: warning }", "{ severity: critical }"].contains(&field("labels").as_str()), "{name}");
        assert!(!field("for").is_empty() && field("summary").len() > 10, "{name}");
        assert!(field("description").ends_with(".\""), "{name}: a description is made of sentences");
    }
}

#[test]
fn every_alert_has_a_case_on_each_side_of_its_threshold() {
    let cases = read("grafana/alerts_test.yml");
    for Alert { name, .. } in alerts() {
        for (how, expected) in [("fires", true), ("is quiet next to its threshold", false)] {
            let start = format!("  - name: {name} {how}\n");
            let case = cases.split_once(&start).unwrap_or_else(|| panic!("no case '{name} {how}'")).1;
            let case = case.split("\n  - name: ").next().expect("there is a first part");
            assert!(case.contains(&format!("alertname: {name}\n")), "{name} {how}");
            assert_eq!(case.contains("exp_alerts: []"), !expected, "{name} {how}");
        }
    }
}

#[test]
fn promtool_agrees_with_every_case() {
    if !has("promtool") {
        return;
    }
    for arguments in [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output =
            Command::new("promtool").args(arguments).current_dir(path("grafana")).output().expect("promtool starts");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}\n{}{}", said(&output.stdout), said(&output.stderr));
    }
}
