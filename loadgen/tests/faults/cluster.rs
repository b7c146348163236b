//! Processes of the nodes, and the ports that they listen on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One cluster at a time: the tests measure how long clients wait.
static MACHINE: Mutex<()> = Mutex::new(());
/// Anything that is waited for comes within this time or not at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// First ports of the five families that a node listens on: clients, peers, and HTTP of cache, queue and lock.
const FAMILIES: [u16; 5] = [4101, 4201, 7000, 8000, 9000];
/// Nodes that may listen at one offset.
const NODES_MAX: u16 = 7;

/// A process that ends with this value.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts `trine` with these arguments in this folder, its output in a log beside it.
    pub(crate) fn trine(folder: &Path, name: &str, arguments: &[String]) -> Self {
        let log = std::fs::File::create(folder.join(format!("{name}.log"))).expect("a log");
        let child = Command::new(binary())
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log)
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("{name} does not start: {error}")))
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self, what: &str) -> ExitStatus {
        until(what, || self.0.try_wait().expect("our own child"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `trine up` takes its nodes with it when it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary of the nodes.
fn binary() -> PathBuf {
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

/// The machine for this test alone, among those of this process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first of these port offsets whose ports nobody listens on; all ports must stay below those that Linux gives to outgoing
/// connections.
pub(crate) fn free_offset(offsets: [u16; 4]) -> u16 {
    let is_free = |offset: &u16| {
        let ports = FAMILIES.iter().flat_map(|family| (0..NODES_MAX).map(move |node| family + node));
        ports.into_iter().all(|port| TcpListener::bind(("127.0.0.1", port + offset)).is_ok())
    };
    offsets.into_iter().find(is_free).expect("one of four offsets is free")
}

/// Client addresses of the first `nodes` nodes.
pub(crate) fn endpoints(offset: u16, nodes: u16) -> Vec<String> {
    (0..nodes).map(|node| format!("127.0.0.1:{}", 4101 + offset + node)).collect()
}

/// Looks again and again for something that can be seen.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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

/// Whether the node at this place, from 0, answers this path with 200.
pub(crate) fn says_yes(offset: u16, node: u16, path: &str) -> bool {
    ask(offset, node, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// What the node at this place, from 0, answers to a path.
pub(crate) fn ask(offset: u16, node: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", 8000 + offset + node))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
