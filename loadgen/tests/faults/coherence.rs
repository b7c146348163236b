//! The cache under everything at once: nodes are killed and frozen, and the links between them are cut, one way and both.
//!
//! `cargo test` runs it for half a minute each; `TRINE_COHERENCE_SECONDS=300` for as long as that says. Redis' part needs a `redis-server`, and says
//! so where there is none, unless `TRINE_REQUIRE_REDIS=1` says that it has to be there.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Process, alone, ask, endpoints, free_offset, says_yes, until};
use crate::generator::Generator;
use crate::links::{Link, Links};

const NODES: u16 = 3;
/// Seconds of load where nobody says how many.
const SECONDS: u64 = 30;
/// From the port that a node listens on for peers to the one that it names.
const PROXY: u16 = 100;

fn seconds() -> u64 {
    std::env::var("TRINE_COHERENCE_SECONDS").map_or(SECONDS, |text| text.parse().expect("a number of seconds"))
}

#[expect(clippy::disallowed_methods, reason = "a test of real processes has deadlines")]
fn now() -> Instant {
    Instant::now()
}

/// Three nodes behind their links.
struct Cluster<'a> {
    folder: &'a Path,
    offset: u16,
    more: Vec<String>,
    nodes: Vec<Process>,
    links: Links,
    /// Copies that auditors compared, and those that were wrong, of processes that are gone.
    audited: (u64, u64),
}

impl<'a> Cluster<'a> {
    fn start(folder: &'a Path, offset: u16, more: &[&str]) -> Self {
        let real = move |node: u16| 4201 + offset + node;
        let links = Links::start(NODES, move |node| real(node) + PROXY, real);
        let more = more.iter().map(|text| (*text).to_owned()).collect();
        let mut cluster = Self { folder, offset, more, nodes: Vec::new(), links, audited: (0, 0) };
        cluster.nodes = (0..NODES).map(|node| cluster.serve(node)).collect();
        cluster.ready();
        cluster
    }

    fn serve(&self, node: u16) -> Process {
        let offset = self.offset;
        let mut arguments = ["serve", "--cluster-id", "0123456789abcdef", "--node"].map(str::to_owned).to_vec();
        arguments.push(format!("node{}", node + 1));
        for member in 0..NODES {
            let [client, peer, http] = [4101, 4201 + PROXY, 9000].map(|family| family + offset + member);
            let name = format!("node{}", member + 1);
            arguments.extend([
                "--member".to_owned(),
                format!("{name},127.0.0.1:{client},127.0.0.1:{peer},127.0.0.1:{http}"),
            ]);
        }
        arguments.extend(["--listen-peer".to_owned(), format!("127.0.0.1:{}", 4201 + offset + node)]);
        for family in [7000, 8000, 9000] {
            arguments.extend(["--listen-http".to_owned(), format!("127.0.0.1:{}", family + offset + node)]);
        }
        arguments.extend(["--data-dir".to_owned(), format!("node{}", node + 1)]);
        arguments.extend(self.more.iter().cloned());
        Process::trine(self.folder, &format!("node{}", node + 1), &arguments)
    }

    fn ready(&self) {
        until("every node is ready", || (0..NODES).all(|node| says_yes(self.offset, node, "/readyz")).then_some(()));
    }

    fn signal(&self, node: u16, signal: Signal) {
        let pid = Pid::from_child(&self.nodes[usize::from(node)].0);
        kill_process(pid, signal).expect("a node of ours takes a signal");
    }

    /// What a node's auditor has found so far.
    fn audit_of(&self, node: u16) -> (u64, u64) {
        let page = ask(self.offset, node, "/metrics").unwrap_or_default();
        let sum = |name: &str| -> u64 {
            let lines = page.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map(|value| value as u64).sum()
        };
        (sum("trine_cache_coherence_checks_total"), sum("trine_cache_coherence_violations_total"))
    }

    fn note_audit(&mut self, node: u16) {
        let (checks, violations) = self.audit_of(node);
        self.audited = (self.audited.0 + checks, self.audited.1 + violations);
    }

    /// One fault, and its end. They take turns.
    fn break_something(&mut self, number: u64) -> &'static str {
        let node = u16::try_from(number / 5 % u64::from(NODES)).expect("a small number");
        let other = (node + 1) % NODES;
        let rest = |seconds: u64| std::thread::sleep(Duration::from_millis(seconds));
        let what = match number % 5 {
            0 => {
                self.note_audit(node);
                self.signal(node, Signal::KILL);
                self.nodes[usize::from(node)].ended("the killed node is gone");
                self.nodes[usize::from(node)] = self.serve(node);
                "kill -9"
            }
            1 => {
                self.signal(node, Signal::STOP);
                rest(2_500);
                self.signal(node, Signal::CONT);
                "SIGSTOP"
            }
            2 => {
                self.links.set(node, other, Link::Cut);
                self.links.set(other, node, Link::Cut);
                rest(2_500);
                "a link cut both ways"
            }
            3 => {
                self.links.set(node, other, Link::Silent);
                rest(2_500);
                "a link silent one way"
            }
            _ => {
                for peer in (0..NODES).filter(|peer| *peer != node) {
                    self.links.set(peer, node, Link::Silent);
                    self.links.set(node, peer, Link::Silent);
                }
                rest(2_500);
                "a node cut off"
            }
        };
        self.links.mend();
        self.ready();
        what
    }
}

/// Runs the load, and breaks one thing after the other until it ends.
fn run(cluster: &mut Cluster<'_>, mut between: impl FnMut(u64)) {
    let seconds = seconds();
    let mut generator = Generator::start(&endpoints(cluster.offset, NODES), &format!("{seconds}s"));
    let deadline = now() + Duration::from_secs(seconds);
    let (mut broken, mut number) = (std::collections::BTreeMap::<&str, u64>::new(), 0);
    while now() + Duration::from_secs(5) < deadline && generator.is_running() {
        *broken.entry(cluster.break_something(number)).or_default() += 1;
        number += 1;
        between(number);
    }
    let json = generator.finish();
    (0..NODES).for_each(|node| cluster.note_audit(node));
    let (checks, violations) = cluster.audited;
    println!("{broken:?}; {checks} copies audited, {violations} wrong; {}", json["notes"]);
    assert!(checks > 20, "the auditors have looked at {checks} copies only");
    assert_eq!(violations, 0);
    assert!(number >= 3, "only {number} faults");
}

#[test]
fn nothing_is_stale_or_lost_under_kills_freezes_and_cut_links() {
    let _machine = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let offset = free_offset([16_400, 16_410, 16_420, 16_430]);
    run(&mut Cluster::start(folder.path(), offset, &[]), |_| {});
}

/// A server on a socket of its own.
struct Redis<'a> {
    folder: &'a Path,
    process: Child,
}

impl<'a> Redis<'a> {
    fn start(folder: &'a Path) -> Option<Self> {
        let socket = folder.join("redis.sock");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(folder)
            .stdout(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Some(Self { folder, process }),
            Err(why) if std::env::var("TRINE_REQUIRE_REDIS").is_ok_and(|value| value == "1") => {
                panic!("redis-server must be there: {why}")
            }
            Err(why) => {
                println!("skipped: no redis-server ({why})");
                None
            }
        }
    }

    fn restart(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
        // While it is away there is load, too.
        std::thread::sleep(Duration::from_secs(1));
        *self = Self::start(self.folder).expect("it was there before");
    }
}

impl Drop for Redis<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn nothing_is_stale_or_lost_with_redis_as_main_memory_which_is_killed_twice() {
    let _machine = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mut redis) = Redis::start(folder.path()) else { return };
    let url = format!("redis+unix://{}", folder.path().join("redis.sock").display());
    let offset = free_offset([16_600, 16_610, 16_620, 16_630]);
    let mut cluster = Cluster::start(folder.path(), offset, &["--main-memory", &url]);
    run(&mut cluster, |number| {
        if number == 1 || number == 3 {
            redis.restart();
        }
    });
}
