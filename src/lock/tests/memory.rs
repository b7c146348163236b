//! What a lock costs in memory, as the operating system counts it. The probe runs alone in a process of its own, for
//! the other tests' memory would be counted too.

use std::process::Command as Process;

use trine_protocol::lock::Acquire;

use crate::ids::At;
use crate::lock::{Caller, Command, State};
use crate::rules::Faithful;

const LOCKS: u64 = 200_000;
/// Says to the process that it is the probe.
const PROBE: &str = "TRINE_TEST_LOCK_MEMORY";

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Takes so many locks and prints the bytes for each.
fn probe() {
    let empty = resident_bytes();
    let mut state = State::default();
    for index in 1..=LOCKS {
        // An odd factor, so that the names come in no order.
        let lock = format!("locks/{:010}", index.wrapping_mul(2_654_435_761) % 10_000_000_000);
        let acquire = Acquire { lock, client: format!("client-{index:09}"), lease_ms: 10_000, ..Acquire::default() };
        let at = At { index, stamp_ms: index, wall_ms: 0, generation: 0 };
        state.apply::<Faithful>(at, Caller { session: 1, sequence: index }, &Command::Acquire(acquire)).unwrap();
        if index % 10_000 == 0 {
            state.take_changes();
        }
    }
    println!("bytes: {} ", (resident_bytes() - empty) / LOCKS);
    assert_eq!(state.stats().held, LOCKS);
}

#[test]
fn memory_of_a_held_lock() {
    if std::env::var_os(PROBE).is_some() {
        return probe();
    }
    let mut process = Process::new(std::env::current_exe().unwrap());
    process.args(["--exact", "lock::tests::memory::memory_of_a_held_lock", "--nocapture"]);
    let output = String::from_utf8(process.env(PROBE, "1").output().unwrap().stdout).unwrap();
    let figure = output.split("bytes: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let bytes: u64 = figure.unwrap_or_else(|| panic!("{output}")).parse().unwrap();
    println!("{bytes} bytes for each lock held");
    assert!(bytes <= 64 * 1024 * 1024 / 100_000, "{bytes} bytes for each lock held");
}
