//! What cannot start says why in one line and writes nothing. What is no request costs nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use trine_protocol::limits::FRAME_BYTES_MAX;

use crate::cluster::{Cluster, Place};
use crate::process::{Process, resident_bytes};
use crate::wait;

/// A refusal needs no election and no disk.
const REFUSAL: Duration = Duration::from_secs(10);

/// Every file below a folder, with its content.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files.insert(path.clone(), Vec::new());
                folders.push(path);
            } else {
                files.insert(path.clone(), fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

/// The process ends with exit code 1 and one line, which has all of `words`.
#[track_caller]
fn assert_refused(mut process: Process, words: &[&str]) {
    let status = process.exit_within(REFUSAL);
    let printed = process.printed();
    assert_eq!(status.code(), Some(1), "{printed}");
    assert_eq!(printed.trim_end().lines().count(), 1, "one line is wanted:\n{printed}");
    for word in words {
        assert!(printed.contains(word), "no '{word}' in: {printed}");
    }
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_written() {
    let place = Place::take();
    let taken = place.address(4101, 1);
    let _listener = TcpListener::bind(taken).expect("a free port");
    assert_refused(place.serve(1), &[&taken.port().to_string()]);
    assert!(!place.data(1).exists(), "a data directory was made");
    assert_refused(place.up(&[]), &[&taken.port().to_string(), "--port-offset"]);
    let left: Vec<PathBuf> = snapshot(place.folder()).into_keys().collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|extension| extension == "log")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_somebody_else_is_refused_and_left_as_it_is() {
    let mut cluster = Cluster::start().await;
    let place = &cluster.place;
    let data = place.data(1);
    // In use: the same directory, other ports (those of the seventh node, which nobody has).
    let mut arguments = place.serve_arguments(1);
    for argument in &mut arguments {
        for family in [4101, 4201, 7000, 8000, 9000] {
            *argument = argument.replace(&place.address(family, 1).to_string(), &place.address(family, 7).to_string());
        }
    }
    let second = Process::start(place.folder(), "second", &arguments);
    assert_refused(second, &["in use", &data.display().to_string()]);

    cluster.node(1).kill();
    let place = &cluster.place;
    let before = snapshot(&data);
    assert!(before.len() > 3, "{:?}", before.keys());
    let another_cluster = replaced(place.serve_arguments(1), "--cluster-id", "00000000000000bb");
    assert_refused(Process::start(place.folder(), "cluster", &another_cluster), &["cluster", "00000000000000aa"]);
    let mut another_count = place.serve_arguments(1);
    another_count.extend(["--groups".to_owned(), "4".to_owned()]);
    assert_refused(Process::start(place.folder(), "groups", &another_count), &["3 groups"]);
    let another_node = replaced(place.serve_arguments(2), "--data-dir", &data.display().to_string());
    cluster.node(2).kill();
    let place = &cluster.place;
    assert_refused(Process::start(place.folder(), "node", &another_node), &["node1", "node2"]);
    assert!(snapshot(&data) == before, "a refused start has changed {}", data.display());

    let identity = data.join("identity");
    let text = fs::read_to_string(&identity).expect("an identity");
    let other_format = text.replacen("\"format\": 1", "\"format\": 99", 1);
    assert_ne!(text, other_format, "no format in {text}");
    fs::write(&identity, other_format).expect("a file");
    let before = snapshot(&data);
    assert_refused(Process::start(place.folder(), "format", &place.serve_arguments(1)), &["format 99"]);
    assert!(snapshot(&data) == before, "a refused start has changed {}", data.display());

    fs::write(&identity, text).expect("a file");
    cluster.restart(1);
    cluster.restart(2);
    cluster.place.ready(&[1, 2, 3]).await;
}

/// The arguments with another value behind a flag.
fn replaced(mut arguments: Vec<String>, flag: &str, value: &str) -> Vec<String> {
    let at = arguments.iter().position(|argument| argument == flag).expect("the flag");
    value.clone_into(&mut arguments[at + 1]);
    arguments
}

/// Connections that say something wrong, one after the other.
const BAD_CONNECTIONS: usize = 300;
/// What a process may grow by meanwhile: caches of the allocator, metrics. One frame of the largest size per
/// connection would be a hundred times that.
const GROWTH_BYTES: u64 = 16 * 1024 * 1024;

/// What is sent on the ports for clients and peers: no protocol, lengths that claim too much, cut frames, noise.
fn bad_openings() -> Vec<Vec<u8>> {
    let frame = |length: u32, rest: &[u8]| [length.to_be_bytes().as_slice(), rest].concat();
    let limit = u32::try_from(FRAME_BYTES_MAX).expect("a small number");
    let noise = |seed: u32| {
        (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) ^ seed).to_le_bytes()[2]).collect::<Vec<u8>>()
    };
    vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        frame(u32::MAX, &[1; 64]),
        frame(limit, &[1; 64]),
        frame(limit + 1, &[1; 64]),
        frame(0, &[]),
        frame(3, &[1, 2, 3]),
        // A hello whose body claims an array, a string and a map of four billion elements.
        frame(64, &[&[1; 11][..], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0; 48]].concat()),
        frame(64, &[&[1; 11][..], &[0xdb, 0xff, 0xff, 0xff, 0xff], &[0; 48]].concat()),
        frame(4011, &[&[1; 11][..], &[0x91; 4000]].concat()),
        noise(1),
        noise(0xdead_beef),
        Vec::new(),
    ]
}

/// Sends one bad opening and reads until the node closes, or for a moment where it waits for more.
fn misbehave(address: std::net::SocketAddr, opening: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    // The node may close before it has read everything.
    let _ = stream.write_all(opening);
    let mut answer = [0; 4096];
    while matches!(stream.read(&mut answer), Ok(read) if read > 0) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_cost_no_memory_and_disturb_nobody() {
    let mut cluster = Cluster::start().await;
    let client = cluster.place.client(1).await;
    let openings = bad_openings();
    let ports = [4101, 4201].map(|family| cluster.place.address(family, 1));
    let rounds = |count: usize| {
        for (number, opening) in openings.iter().cycle().take(count).enumerate() {
            misbehave(ports[number % 2], opening);
        }
    };
    // The first ones make what later ones use again.
    tokio::task::block_in_place(|| rounds(openings.len() * 2));
    let pid = cluster.node(1).pid();
    let before = resident_bytes(pid);
    let served = tokio::spawn(async move {
        let mut served = 0;
        let mut slowest = Duration::ZERO;
        for number in 0..500 {
            let sent = wait::now();
            client.enqueue("orders", number.to_string()).await.expect("an enqueue beside the noise");
            slowest = slowest.max(sent.elapsed());
            served += 1;
        }
        (served, slowest)
    });
    // Some stay open for the whole time, each with the claim of a large frame.
    let held: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(ports[0]).expect("the node listens");
            let _ = stream.write_all(&openings[2]);
            stream
        })
        .collect();
    tokio::task::block_in_place(|| rounds(BAD_CONNECTIONS));
    let (served, slowest) = served.await.expect("no panic");
    let growth = resident_bytes(pid).saturating_sub(before);
    drop(held);
    println!("{BAD_CONNECTIONS} bad connections: {growth} bytes more; slowest of {served} enqueues {slowest:?}");
    assert!(growth < GROWTH_BYTES, "{growth} bytes more after {BAD_CONNECTIONS} bad connections");
    assert!(cluster.node(1).exit_status().is_none(), "the node has ended");
    cluster.place.ready(&[1, 2, 3]).await;
}
