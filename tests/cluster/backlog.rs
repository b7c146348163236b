//! A backlog that is deeper than a node's bound on memory: it lies on the disk, survives the end of every process, and leaves no room
//! taken when it is gone.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;
use trine_protocol::client::Client;

use crate::cluster::Place;
use crate::process::{Process, resident_bytes};
use crate::wait;

/// Messages of 1 KiB: half as much again as the bound.
const MESSAGES: u64 = 100_000;
const BODY_BYTES: usize = 1024;
/// The bound of each node, and what it may take of it: what is not bounded is the index and the program itself.
const MEMORY_MB: u64 = 64;
const MEMORY_BYTES_MAX: u64 = MEMORY_MB * 1024 * 1024 * 3 / 2;
/// Requests at a time.
const WORKERS: usize = 64;
const QUEUE: &str = "backlog";
/// From the last acknowledgement until the disk is as before.
const GIVEN_BACK: Duration = Duration::from_secs(60);
const STOPPED: Duration = Duration::from_secs(30);

/// A body that names its message.
fn body(number: u64) -> Vec<u8> {
    let mut body = vec![b'.'; BODY_BYTES];
    body[..8].copy_from_slice(&number.to_be_bytes());
    body
}

/// Bytes of the blocks of everything in a directory.
fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // It was removed just now.
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// The node with the most of it.
fn disk_bytes_max(place: &Place) -> u64 {
    let data = |node| place.folder().join(format!("trine-data/node{node}/data"));
    (1..=3).map(|node| disk_bytes(&data(node))).max().unwrap_or(0)
}

fn resident_bytes_max(up: &Process) -> u64 {
    up.children().into_iter().map(resident_bytes).max().expect("three nodes")
}

async fn fill(client: &Client) {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (client, next) = (client.clone(), Arc::clone(&next));
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= MESSAGES {
                    return;
                }
                client.enqueue(QUEUE, body(number)).await.expect("an enqueue");
            }
        });
    }
    workers.join_all().await;
}

/// Takes and acknowledges all there is; the numbers of what came, and how much of it came.
async fn drain(client: &Client) -> (BTreeSet<u64>, u64) {
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS / 8 {
        let client = client.clone();
        workers.spawn(async move {
            let mut seen = Vec::new();
            loop {
                let taken = client.dequeue(QUEUE, 600_000, 16).await.expect("a dequeue").deliveries;
                if taken.is_empty() {
                    return seen;
                }
                for delivery in taken {
                    let number = u64::from_be_bytes(delivery.body[..8].try_into().expect("eight bytes"));
                    assert_eq!(delivery.body, body(number), "the body of message {number}");
                    client.ack(QUEUE, &delivery).await.expect("an acknowledgement");
                    seen.push(number);
                }
            }
        });
    }
    let seen: Vec<u64> = workers.join_all().await.concat();
    (seen.iter().copied().collect(), seen.len() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_deeper_than_the_bound_on_memory_lies_on_disk_and_leaves_no_room_taken() {
    let place = Place::take();
    let memory = MEMORY_MB.to_string();
    let arguments = ["--memory-mb", memory.as_str(), "--log", "warn"];
    let mut up = place.up(&arguments);
    place.ready(&[1, 2, 3]).await;
    let start = disk_bytes_max(&place);

    fill(&place.patient_client(&[1, 2, 3]).await).await;
    let (memory, disk) = (resident_bytes_max(&up), disk_bytes_max(&place));
    println!("filled: {} MiB of memory, {} MiB of disk", memory >> 20, disk >> 20);
    assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes resident with the backlog");
    let live = MESSAGES * BODY_BYTES as u64;
    assert!(disk < 3 * live, "{disk} bytes of disk for {live} of bodies");

    // The nodes die with their parent, as hard as it does.
    up.kill();
    wait::until("the end of the nodes", STOPPED, async || place.ports_are_free().then_some(())).await;
    let mut up = place.up(&arguments);
    place.ready(&[1, 2, 3]).await;
    let memory = resident_bytes_max(&up);
    println!("started again: {} MiB of memory", memory >> 20);
    assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes resident after a start");

    let (seen, count) = drain(&place.patient_client(&[1, 2, 3]).await).await;
    assert_eq!((seen.len() as u64, count), (MESSAGES, MESSAGES), "every message, each once");
    let memory = resident_bytes_max(&up);
    println!("drained: {} MiB of memory, {} MiB of disk", memory >> 20, disk_bytes_max(&place) >> 20);
    assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes resident after the drain");
    let most = start * 3 / 2;
    wait::until(&format!("at most {most} bytes of disk"), GIVEN_BACK, async || {
        (disk_bytes_max(&place) < most).then_some(())
    })
    .await;
    up.signal(Signal::TERM);
    up.exit_within(STOPPED);
}
