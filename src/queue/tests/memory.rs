//! What a message costs in memory, as the operating system counts it. The probes run alone in a process of their own, for
//! the other tests' memory would be counted too.

use std::process::Command as Process;

use bytes::Bytes;
use trine_protocol::queue::{Dequeue, Enqueue};

use crate::ids::At;
use crate::queue::{Command, State};

const MESSAGES: u64 = 500_000;

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
        let enqueue = Enqueue { queue, body: Bytes::copy_from_slice(&index.to_be_bytes()) };
        state.apply(at(index), &Command::Enqueue(enqueue)).unwrap();
        if index % 10_000 == 0 {
            state.take_changes();
        }
    }
    state.take_changes();
    let waiting = resident_bytes() - empty;
    for round in 0..MESSAGES {
        let queue = format!("queue-{:09}", round % queues);
        let dequeue = Dequeue { queue, visibility_ms: 0, count_max: 1 };
        state.apply(at(MESSAGES + 1 + round), &Command::Dequeue(dequeue)).unwrap();
        if round % 10_000 == 0 {
            state.take_changes();
        }
    }
    state.take_changes();
    let in_flight = resident_bytes() - empty;
    println!("bytes: {} {}", waiting / MESSAGES, in_flight / MESSAGES);
    assert_eq!(state.len() as u64, MESSAGES);
}

#[test]
#[ignore = "run by memory_of_a_waiting_message, alone in its process"]
fn probe_one_queue() {
    probe(1);
}

#[test]
#[ignore = "run by memory_of_a_waiting_message, alone in its process"]
fn probe_many_queues() {
    probe(1_000);
}

/// Bytes of a message that waits and of one in flight, by the probe of this name.
fn measure(name: &str) -> (u64, u64) {
    let mut process = Process::new(std::env::current_exe().unwrap());
    process.args(["--exact", &format!("queue::tests::memory::{name}"), "--ignored", "--nocapture"]);
    let output = String::from_utf8(process.output().unwrap().stdout).unwrap();
    let figures = output.split("bytes: ").nth(1).unwrap_or_else(|| panic!("{output}"));
    let mut figures = figures.split_whitespace().map(|figure| figure.parse().unwrap());
    (figures.next().unwrap(), figures.next().unwrap())
}

#[test]
fn memory_of_a_waiting_message() {
    for (name, waiting_max, in_flight_max) in [("probe_one_queue", 40, 260), ("probe_many_queues", 80, 300)] {
        let (waiting, in_flight) = measure(name);
        println!("{name}: {waiting} bytes waiting, {in_flight} bytes in flight");
        assert!(waiting <= waiting_max, "{name}: {waiting} bytes waiting");
        assert!(in_flight <= in_flight_max, "{name}: {in_flight} bytes in flight");
    }
}
