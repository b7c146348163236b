//! What a run of `backlog` shows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::Arguments;
use super::cluster::{Cluster, Footprint};
use super::work::Rates;

const MIB: f64 = 1024.0 * 1024.0;
/// The disk is small again when it takes at most so much of what it took before the fill.
const SMALL: f64 = 1.5;

/// A step of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Start,
    Shallow,
    Fill,
    Restart,
    Drain,
    After,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Shallow => "shallow",
            Self::Fill => "fill",
            Self::Restart => "restart",
            Self::Drain => "drain",
            Self::After => "after",
        }
    }
}

#[derive(Debug)]
struct Row {
    phase: Phase,
    took: Duration,
    rate: f64,
    nodes: BTreeMap<String, Footprint>,
}

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Report {
    live_bytes: f64,
    memory_mb: Option<u32>,
    messages: u64,
    pub(super) shallow: Rates,
    pub(super) missing: u64,
    rows: Vec<Row>,
}

#[expect(clippy::cast_precision_loss, reason = "sizes are shown to a few digits")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "sizes are shown to a few digits")]
    pub(super) fn new(arguments: &Arguments, cluster: &Cluster) -> Self {
        let mut report = Self {
            live_bytes: arguments.messages as f64 * arguments.value_bytes as f64,
            memory_mb: arguments.memory_mb,
            messages: arguments.messages,
            shallow: Rates::default(),
            missing: 0,
            rows: Vec::new(),
        };
        report.phase(Phase::Start, cluster, Duration::ZERO, 0.0);
        report
    }

    /// Notes a step that has just ended.
    pub(super) fn phase(&mut self, phase: Phase, cluster: &Cluster, took: Duration, rate: f64) {
        let nodes = cluster.footprints();
        let row = Row { phase, took, rate, nodes };
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }

    fn row(&self, phase: Phase) -> Option<&Row> {
        self.rows.iter().find(|row| row.phase == phase)
    }

    fn most(&self, phase: Phase, of: impl Fn(&Footprint) -> u64) -> f64 {
        self.row(phase).and_then(|row| row.nodes.values().map(&of).max()).map_or(f64::NAN, mib)
    }

    /// Whether no node's disk takes much more than before the fill.
    pub(super) fn is_small(&self, cluster: &Cluster) -> bool {
        mib(cluster.disk_bytes_max()) <= SMALL * self.disk(Phase::Start)
    }

    fn disk(&self, phase: Phase) -> f64 {
        self.most(phase, |node| node.disk_bytes)
    }

    fn peak(&self) -> f64 {
        let phases = [Phase::Fill, Phase::Restart, Phase::Drain];
        phases.into_iter().map(|phase| self.most(phase, |node| node.peak_bytes)).fold(0.0, f64::max)
    }

    fn ratios(&self) -> [(&'static str, f64); 5] {
        let rate = |phase| self.row(phase).map_or(f64::NAN, |row| row.rate);
        let bound = self.memory_mb.map_or(f64::NAN, f64::from);
        [
            ("memory at the worst moment / bound", self.peak() / bound),
            ("rate of a shallow enqueue / deep", self.shallow.enqueue / rate(Phase::Fill)),
            ("rate of a shallow dequeue and ack / deep", self.shallow.drain / rate(Phase::Drain)),
            ("disk after the fill / live bytes", self.disk(Phase::Fill) * MIB / self.live_bytes),
            ("disk after the drain / at the start", self.disk(Phase::After) / self.disk(Phase::Start)),
        ]
    }

    pub(super) fn table(&self) -> String {
        let mut out = format!("{} messages, {:.0} MiB of bodies\n\n", self.messages, self.live_bytes / MIB);
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(row));
        }
        let Rates { enqueue, drain } = self.shallow;
        let _ = writeln!(out, "\nshallow: {enqueue:.0} enqueue/s, {drain:.0} dequeue and ack/s");
        for (name, ratio) in self.ratios() {
            let _ = writeln!(out, "{name:42} {ratio:.2}");
        }
        let _ = writeln!(out, "messages that were never seen              {}", self.missing);
        out
    }

    pub(super) fn json(&self) -> String {
        let nodes = |row: &Row| -> BTreeMap<String, serde_json::Value> {
            let one = |node: &Footprint| json!({ "resident_bytes": node.resident_bytes, "peak_bytes": node.peak_bytes, "disk_bytes": node.disk_bytes });
            row.nodes.iter().map(|(name, node)| (name.clone(), one(node))).collect()
        };
        let row = |row: &Row| json!({ "step": row.phase.name(), "seconds": row.took.as_secs_f64(), "per_second": row.rate, "nodes": nodes(row) });
        let steps: Vec<serde_json::Value> = self.rows.iter().map(row).collect();
        let ratios: BTreeMap<&str, f64> = self.ratios().into_iter().collect();
        json!({
            "messages": self.messages,
            "live_bytes": self.live_bytes,
            "shallow": { "enqueue_per_second": self.shallow.enqueue, "drain_per_second": self.shallow.drain },
            "steps": steps,
            "ratios": ratios,
            "missing": self.missing,
        })
        .to_string()
    }
}

/// One step for a person: of each node the memory, now and at the worst moment, and the disk.
fn line(row: &Row) -> String {
    let mut out = format!("{:8} {:7.1} s", row.phase.name(), row.took.as_secs_f64());
    if row.rate > 0.0 {
        let _ = write!(out, " {:8.0} /s", row.rate);
    } else {
        out.push_str("            ");
    }
    for (name, node) in &row.nodes {
        let (now, peak, disk) = (mib(node.resident_bytes), mib(node.peak_bytes), mib(node.disk_bytes));
        let _ = write!(out, " | {name} memory {now:5.0} (peak {peak:5.0}), disk {disk:6.0} MiB");
    }
    out
}
