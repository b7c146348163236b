//! `trine-loadgen --verify`, the real binary, against a server that tells the truth, and against the same server with one lie.
//!
//! The truthful run must end with 0; each lie must be found under its own name, with every other check at 0, and end with 1.
//! A generator that checks nothing fails all but the first, one that cries wolf fails the first.

mod model;
mod server;

use std::process::Output;
use std::time::Duration;

use model::Lie;
use serde_json::Value;
use server::{Server, Stall};

/// Runs the generator against one server; it may take so long.
const PATIENCE: Duration = Duration::from_secs(90);

async fn run(server: &Server, arguments: &[&str]) -> (Output, Value) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_trine-loadgen"));
    command.args(arguments).args(["--json", "--quiet", "--endpoints", server.address()]).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("an end in time").expect("a process");
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output, json)
}

/// Reads and writes so seldom that the newest value of a key is mostly some 80 ms old.
const RARE_WRITES: [&str; 9] = ["cache", "--names", "8", "--read-percent", "50", "--rate", "200", "--duration", "2s"];

/// The checks that found something.
fn found(json: &Value) -> Vec<&str> {
    let checks = json["checks"].as_object().expect("checks");
    checks.iter().filter(|(_, count)| count.as_u64() != Some(0)).map(|(name, _)| name.as_str()).collect()
}

/// One lie is found under one name.
async fn finds(lie: Lie, name: &str, arguments: &[&str]) {
    let server = Server::start(Some(lie), None).await;
    let (output, json) = run(&server, &[arguments, &["--verify"]].concat()).await;
    assert!(server.has_lied(), "{lie:?} had no occasion: {json}");
    assert_eq!(found(&json), [name], "{lie:?}: {json}");
    assert_eq!(output.status.code(), Some(1), "{lie:?}");
    assert!(json["evidence"][0].as_str().is_some_and(|evidence| evidence.starts_with(name)), "{json}");
}

#[tokio::test]
async fn the_truth_passes() {
    for workload in ["queue", "lock", "cache", "mixed"] {
        let server = Server::start(None, None).await;
        let (output, json) = run(&server, &[workload, "--verify", "--duration", "1s", "--names", "8"]).await;
        assert_eq!(found(&json), [""; 0], "{json}");
        assert_eq!(output.status.code(), Some(0), "{json}");
        // Each check was there, and had something to look at.
        let names: &[(&str, &str)] = match workload {
            "queue" => &[("lost", "enqueues_confirmed"), ("duplicated", "enqueues_confirmed")],
            "lock" => &[("two_holders", "grants"), ("token_inversions", "grants")],
            "cache" => &[("stale_reads", "reads_checked"), ("lost_writes", "writes_confirmed")],
            _ => &[("lost", "enqueues_confirmed"), ("two_holders", "grants"), ("stale_reads", "reads_checked")],
        };
        for (check, note) in names {
            assert!(json["checks"][check].is_u64(), "{check}: {json}");
            assert!(json["notes"][note].as_u64().is_some_and(|count| count > 50), "{note}: {json}");
        }
    }
}

#[tokio::test]
async fn a_lost_message_is_found() {
    finds(Lie::LoseMessage, "lost", &["queue", "--names", "4", "--duration", "500ms"]).await;
}

#[tokio::test]
async fn a_message_that_comes_back_after_its_ack_is_found() {
    finds(Lie::DeliverAgain, "duplicated", &["queue", "--names", "4", "--duration", "500ms"]).await;
}

#[tokio::test]
async fn a_message_that_two_have_at_once_is_found() {
    finds(Lie::DeliverTwice, "duplicated", &["queue", "--names", "1", "--duration", "500ms"]).await;
}

#[tokio::test]
async fn a_body_from_nowhere_is_found() {
    finds(Lie::InventBody, "out_of_nothing", &["queue", "--names", "4", "--duration", "500ms"]).await;
}

#[tokio::test]
async fn a_stale_read_is_found() {
    finds(Lie::ReadStale, "stale_reads", &RARE_WRITES).await;
}

#[tokio::test]
async fn a_stale_value_under_a_new_version_is_found() {
    finds(Lie::ReadStaleWithNewVersion, "stale_reads", &RARE_WRITES).await;
}

#[tokio::test]
async fn a_value_from_nowhere_is_found() {
    finds(Lie::InventValue, "out_of_nothing", &["cache", "--names", "4", "--duration", "500ms"]).await;
}

#[tokio::test]
async fn a_lost_write_is_found() {
    // Without reads, so that only the last look can find it.
    let writes = ["cache", "--names", "4", "--read-percent", "0", "--duration", "500ms"];
    finds(Lie::LoseWrite, "lost_writes", &writes).await;
}

#[tokio::test]
async fn two_holders_are_found() {
    finds(Lie::GrantTwice, "two_holders", &["lock", "--names", "1", "--hold", "200ms", "--duration", "1s"]).await;
}

#[tokio::test]
async fn a_token_that_falls_is_found() {
    finds(Lie::LowerToken, "token_inversions", &["lock", "--names", "4", "--duration", "1s"]).await;
}

#[tokio::test]
async fn the_open_loop_shows_what_a_stall_makes_wait() {
    let arguments = ["queue", "--clients", "4", "--rate", "200", "--duration", "2s"];
    let calm = Server::start(None, None).await;
    let (_, json) = run(&calm, &arguments).await;
    let p99_us = |json: &Value| json["operations"]["round"]["p99_us"].as_u64().expect("rounds");
    assert!(p99_us(&json) < 200_000, "without a stall: {json}");
    assert_eq!((json["loop"]["due"].as_u64(), json["loop"]["never_begun"].as_u64()), (Some(400), Some(0)), "{json}");
    let stalling = Server::start(None, Some(Stall { after: 300, length: Duration::from_millis(500) })).await;
    let (_, json) = run(&stalling, &arguments).await;
    // 100 of the 400 rounds are due in the stall, so the slowest hundredth waited nearly all of it; only four requests did.
    assert!(p99_us(&json) > 400_000, "with a stall: {json}");
    assert!(json["loop"]["late"].as_u64() > Some(50), "{json}");
}

#[tokio::test]
async fn what_no_server_can_do_in_time_is_counted() {
    let stalled = Server::start(None, Some(Stall { after: 300, length: Duration::from_secs(3) })).await;
    let (_, json) = run(&stalled, &["queue", "--clients", "2", "--rate", "400", "--duration", "1s"]).await;
    let (due, never) = (json["loop"]["due"].as_u64(), json["loop"]["never_begun"].as_u64());
    assert_eq!(due, Some(400), "{json}");
    assert!(never > Some(50), "all rounds after the stall began are due and cannot be begun: {json}");
}

#[tokio::test]
async fn the_same_seed_sends_the_same_requests() {
    let counts = async |seed: &str| {
        let server = Server::start(None, None).await;
        // One worker and a plan, so that the number of rounds is the same too.
        let arguments =
            ["cache", "--clients", "1", "--rate", "100", "--duration", "1s", "--zipf", "1.1", "--seed", seed];
        let (_, json) = run(&server, &arguments).await;
        ["put", "get hit"].map(|name| json["operations"][name]["count"].as_u64())
    };
    let first = counts("7").await;
    assert_eq!(first, counts("7").await);
    assert_ne!(first, counts("8").await);
}
