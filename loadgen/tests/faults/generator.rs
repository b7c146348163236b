//! The generator as a process of its own, and its verdict.

use std::io::{BufRead, BufReader, Lines, Read};
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::Process;

const CHECKS: [&str; 7] =
    ["lost", "duplicated", "out_of_nothing", "two_holders", "token_inversions", "stale_reads", "lost_writes"];
const NOTES: [&str; 4] = ["enqueues_confirmed", "grants", "reads_checked", "writes_confirmed"];

/// `trine-loadgen mixed --verify` under way.
pub(crate) struct Generator {
    process: Process,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Generator {
    /// Starts it, and waits until its load runs.
    pub(crate) fn start(endpoints: &[String], duration: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_trine-loadgen"))
            .args(["mixed", "--verify", "--json", "--clients", "6", "--shares", "queue=1,lock=1,cache=2"])
            .args(["--duration", duration, "--endpoints", &endpoints.join(",")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut process = Process(child.expect("the generator starts"));
        let mut lines = BufReader::new(process.0.stderr.take().expect("its lines")).lines();
        let first = lines.next().expect("a line while it runs").expect("text");
        assert!(first.contains(" done, "), "{first}");
        Self { process, lines }
    }

    /// Whether its load still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.0.try_wait().expect("our own child").is_none()
    }

    /// Waits for its end, and asserts that it has seen much and complains of nothing.
    pub(crate) fn finish(mut self) -> Value {
        let rest: Vec<String> = self.lines.map_while(Result::ok).collect();
        let mut printed = String::new();
        self.process.0.stdout.take().expect("its result").read_to_string(&mut printed).expect("text");
        let status = self.process.0.wait().expect("its end");
        let json: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {rest:?}"));
        assert_eq!(status.code(), Some(0), "{json}");
        for check in CHECKS {
            assert_eq!(json["checks"][check], 0, "{check}: {json}");
        }
        for note in NOTES {
            assert!(json["notes"][note].as_u64().is_some_and(|count| count > 20), "{note}: {json}");
        }
        json
    }
}

/// The longest that a client waited for an answer to one of these.
pub(crate) fn longest(json: &Value, names: &[&str]) -> Duration {
    let operations = json["operations"].as_object().expect("operations by name");
    let of = |name: &&str| operations.get(*name).and_then(|operation| operation["max_us"].as_u64());
    Duration::from_micros(names.iter().filter_map(of).max().expect("at least one of them"))
}
