//! The dashboards' files, read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Every dashboard, in the order of the names.
pub(crate) const DASHBOARDS: [&str; 5] = ["cache", "locks", "overview", "queues", "raft"];

/// One panel that shows something.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) dashboard: &'static str,
    pub(crate) title: String,
    pub(crate) queries: Vec<String>,
    pub(crate) json: Value,
}

/// A path of the repository.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A file of the repository.
pub(crate) fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// One dashboard.
pub(crate) fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("grafana/dashboards/{name}.json")))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every panel of every dashboard, rows left out.
pub(crate) fn panels() -> Vec<Panel> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    let mut all = Vec::new();
    for dashboard_name in DASHBOARDS {
        let json = dashboard(dashboard_name);
        let panels = json["panels"].as_array().expect("panels");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let targets = panel["targets"].as_array().expect("targets");
            all.push(Panel {
                dashboard: dashboard_name,
                title: text(&panel["title"]),
                queries: targets.iter().map(|target| text(&target["expr"])).collect(),
                json: panel.clone(),
            });
        }
    }
    all
}

/// The words of a query that begin with `trine_`.
pub(crate) fn metrics_of(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("trine_")).collect()
}

/// The query as Grafana sends it, with everything chosen.
pub(crate) fn filled(query: &str, rate_interval: &str) -> String {
    query.replace("$__rate_interval", rate_interval).replace("$node", ".*").replace("$group", ".*")
}
