//! What a message costs in memory, as the operating system counts it. The probe runs alone in a process of their own, for
//! the other tests' memory would be counted too.

use std::process::Command as Process;

use bytes::Bytes;
use trine_protocol::queue::{Dequeue, Enqueue};

use crate::ids::At;
use crate::queue::{Command, State};

const MESSAGES: u64 = 500_000;
/// Says to the process that it is the probe, and with how many queues.
const PROBE: &str = "TRINE_TEST_QUEUE_MEMORY";

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn at(index: u64) -> At {
    At { index, stamp_ms: index, wall_ms: 0, generation: 0 }
}

/// Fills so many queues in turn, prints the bytes for each waiting message, then for each in flight.
fn probe(queues: u64) {
    let empty = resident_bytes();
    let mut state = State::default();
    for index in 1..=MESSAGES {
        let queue = format!("queue-{:09}", index % queues);
        let enqueue = Enqueue { queue, body: Bytes::copy_from_slice(&index.to_be_bytes()), ..Enqueue::default() };
        state.apply(at(index), &Command::Enqueue(enqueue)).unwrap();
        if index % 10_000 == 0 {
            state.take_changes();
            state.take_gained(false);
        }
    }
    state.take_changes();
    let waiting = resident_bytes() - empty;
    for round in 0..MESSAGES {
        let queue = format!("queue-{:09}", round % queues);
        let dequeue = Dequeue { queue, ..Dequeue::default() };
        state.apply(at(MESSAGES + 1 + round), &Command::Dequeue(dequeue)).unwrap();
        if round % 10_000 == 0 {
            state.take_changes();
            state.take_gained(false);
        }
    }
    state.take_changes();
    let in_flight = resident_bytes() - empty;
    println!("bytes: {} {} ", waiting / MESSAGES, in_flight / MESSAGES);
    assert_eq!(state.len() as u64, MESSAGES);
}

/// Bytes of a message that waits and of one in flight, with so many queues: this test again, in a process of its own.
fn measure(queues: u64) -> (u64, u64) {
    let mut process = Process::new(std::env::current_exe().unwrap());
    process.args(["--exact", "queue::tests::memory::memory_of_a_waiting_message", "--nocapture"]);
    let output = String::from_utf8(process.env(PROBE, queues.to_string()).output().unwrap().stdout).unwrap();
    let figures = output.split("bytes: ").nth(1).unwrap_or_else(|| panic!("{output}"));
    let mut figures = figures.split_whitespace().map(|figure| figure.parse().unwrap());
    (figures.next().unwrap(), figures.next().unwrap())
}

#[test]
fn memory_of_a_waiting_message() {
    if let Ok(queues) = std::env::var(PROBE) {
        return probe(queues.parse().unwrap());
    }
    // Unoptimised it is 86 bytes with many queues: another pattern of allocations leaves other gaps.
    for (queues, waiting_max, in_flight_max) in [(1, 80, 300), (1_000, 100, 300)] {
        let (waiting, in_flight) = measure(queues);
        println!("{queues} queues: {waiting} bytes waiting, {in_flight} bytes in flight");
        assert!(waiting <= waiting_max, "{queues} queues: {waiting} bytes waiting");
        assert!(in_flight <= in_flight_max, "{queues} queues: {in_flight} bytes in flight");
    }
}
