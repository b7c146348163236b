//! Whether every port is free, before anything is started.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use super::super::{Exit, Failure};
use super::PORT_OFFSET_MAX;
use super::plan::{PORTS, port};

/// Offsets that are tried for a suggestion: 100, 200 and so on.
const SUGGESTIONS_MAX: u16 = 50;

/// A port that cannot be used.
struct Taken {
    port: u16,
    use_for: String,
    why: std::io::Error,
}

/// Tries every port.
///
/// # Errors
/// One line with the first port in the way, how many more are, and an offset where all are free.
pub(super) fn check(nodes: u8, offset: u16) -> Result<(), Failure> {
    let taken = taken(nodes, offset);
    let Some(first) = taken.first() else { return Ok(()) };
    let more = if taken.len() > 1 { format!(" (and {} more)", taken.len() - 1) } else { String::new() };
    let why = match first.why.kind() {
        ErrorKind::AddrInUse => "is in use".to_owned(),
        _ => format!("cannot be listened on: {}", first.why),
    };
    let advice = match (1..=SUGGESTIONS_MAX).map(|step| step * 100).find(|step| is_free(nodes, *step)) {
        Some(step) => format!("stop what listens there, or try --port-offset {step}"),
        None => "stop what listens there, or choose another --port-offset".to_owned(),
    };
    let line = format!("port {} for {} {why}{more}: {advice}", first.port, first.use_for);
    Err(Failure::new(Exit::Failed, line))
}

fn is_free(nodes: u8, offset: u16) -> bool {
    offset <= PORT_OFFSET_MAX && taken(nodes, offset).is_empty()
}

/// Every port that cannot be listened on. Those that can are held until all have been tried, so that an offset at which
/// two uses would meet counts as taken.
fn taken(nodes: u8, offset: u16) -> Vec<Taken> {
    let mut held = Vec::new();
    let mut taken = Vec::new();
    for number in 1..=nodes {
        for (purpose, base) in PORTS {
            let port = port(base, number, offset);
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                Ok(listener) => held.push(listener),
                Err(why) => taken.push(Taken { port, use_for: format!("{purpose} of node{number}"), why }),
            }
        }
    }
    taken
}
