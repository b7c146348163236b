//! A real cluster under `trine-loadgen mixed --verify`, its nodes killed one after the other: nothing may be lost, doubled, stale or
//! held twice, and operations of unknown outcome are no failure.
//!
//! The cluster is `trine up`, which starts a dead node again. Its binary belongs to another package, and Cargo names only a package's own
//! to its tests: it is looked for beside `trine-loadgen`, where `cargo test --workspace` puts it, and built where it is missing. So
//! `cargo test -p trine-loadgen` alone may find one that is older than the sources of the nodes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// For how long rounds are begun; the nodes are killed meanwhile.
const DURATION: &str = "25s";
/// Nodes that are killed.
const KILLS: usize = 3;
const NODES: u16 = 3;
/// Anything that is waited for comes within this time or not at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// First ports of the five families that a cluster listens on.
const FAMILIES: [u16; 5] = [4101, 4201, 7000, 8000, 9000];
/// Port offsets that no other test uses; all ports stay below those that Linux gives to outgoing connections.
const OFFSETS: [u16; 4] = [16_000, 16_010, 16_020, 16_030];

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // `trine up` takes its nodes with it when it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary of the nodes.
fn trine() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_trine-loadgen")).parent().expect("a folder").to_owned();
    let binary = folder.join("trine");
    if !binary.exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "--package", "trine", "--bin", "trine"]).current_dir(root);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success(), "the nodes' binary cannot be built");
    }
    assert!(binary.exists(), "no {}", binary.display());
    binary
}

fn free_offset() -> u16 {
    let is_free = |offset: &&u16| {
        let ports = FAMILIES.iter().flat_map(|family| (0..NODES).map(move |node| family + node));
        ports.into_iter().all(|port| TcpListener::bind(("127.0.0.1", port + **offset)).is_ok())
    };
    *OFFSETS.iter().find(is_free).expect("one of four offsets is free")
}

/// Looks again and again for something that can be seen.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a test of real processes has deadlines")]
    let now = Instant::now;
    let deadline = now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(now() < deadline, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the node at this place says that it is ready to serve.
fn is_ready(offset: u16, node: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", 8000 + offset + node))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The ids of a process's children.
fn children(parent: &Child) -> Vec<Pid> {
    let id = parent.id();
    let listed = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Kills nodes one after the other, each when all are ready again.
fn kill_nodes(cluster: &Child, offset: u16) {
    for number in 0..KILLS {
        let nodes = until("every node is ready", || {
            let nodes = children(cluster);
            let ready = nodes.len() == usize::from(NODES) && (0..NODES).all(|node| is_ready(offset, node));
            ready.then_some(nodes)
        });
        let victim = nodes[number % nodes.len()];
        kill_process(victim, Signal::KILL).expect("a node of ours takes a signal");
        until("the killed node is gone", || (!children(cluster).contains(&victim)).then_some(()));
    }
}

#[test]
fn nothing_is_lost_or_stale_while_nodes_are_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let offset = free_offset();
    let log = std::fs::File::create(folder.path().join("up.log")).expect("a log");
    let cluster = Command::new(trine())
        .args(["up", "--port-offset", &offset.to_string(), "--data-dir", "data"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second descriptor"))
        .stderr(log)
        .spawn();
    let cluster = Process(cluster.expect("the cluster starts"));
    until("the cluster is ready", || (0..NODES).all(|node| is_ready(offset, node)).then_some(()));
    let endpoints: Vec<String> = (0..NODES).map(|node| format!("127.0.0.1:{}", 4101 + offset + node)).collect();
    let generator = Command::new(env!("CARGO_BIN_EXE_trine-loadgen"))
        .args(["mixed", "--verify", "--json", "--clients", "6", "--shares", "queue=1,lock=1,cache=2"])
        .args(["--duration", DURATION, "--endpoints", &endpoints.join(",")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut generator = Process(generator.expect("the generator starts"));
    let mut lines = BufReader::new(generator.0.stderr.take().expect("its lines")).lines();
    let first = lines.next().expect("a line while it runs").expect("text");
    assert!(first.contains(" done, "), "{first}");
    kill_nodes(&cluster.0, offset);
    assert!(generator.0.try_wait().expect("our own child").is_none(), "the load ended before the last node was killed");
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let mut printed = String::new();
    generator.0.stdout.take().expect("its result").read_to_string(&mut printed).expect("text");
    let status = generator.0.wait().expect("its end");
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {rest:?}"));
    assert_eq!(status.code(), Some(0), "{json}");
    for check in
        ["lost", "duplicated", "out_of_nothing", "two_holders", "token_inversions", "stale_reads", "lost_writes"]
    {
        assert_eq!(json["checks"][check], 0, "{check}: {json}");
    }
    for note in ["enqueues_confirmed", "grants", "reads_checked", "writes_confirmed"] {
        assert!(json["notes"][note].as_u64().is_some_and(|count| count > 20), "{note}: {json}");
    }
}
