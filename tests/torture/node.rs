//! One process of `trine serve`, a cluster of one node, and how it is killed.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trine_protocol::client::{Client, ClientConfig};

use crate::ports::{FAMILIES, Offset};

/// Longest time from the start of the process until it listens.
const LISTENS: Duration = Duration::from_secs(30);
/// Longest time for one request. Nothing that is asked here waits for another node.
const DEADLINE: Duration = Duration::from_secs(10);

/// Short times: with one voter nobody else can be meant, and a cycle is to last a tenth of a second.
const TIMING: [&str; 8] =
    ["--heartbeat-ms", "5", "--leader-lease-ms", "10", "--election-ms", "15", "--bus-lease-ms", "40"];

/// The binary under test: the one that was built with the tests, or the one that `TRINE_BIN` names.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("TRINE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_trine").into(), PathBuf::from)
}

/// Where a node listens and keeps its data.
#[derive(Debug)]
pub(crate) struct Place {
    offset: Offset,
    pub(crate) data: PathBuf,
    pub(crate) groups: u32,
}

impl Place {
    pub(crate) fn new(data: PathBuf, groups: u32) -> Self {
        let offset = Offset::take();
        assert!(offset.is_free(), "the ports at {offset:?} are in use");
        Self { offset, data, groups }
    }

    fn arguments(&self) -> Vec<String> {
        let [client, peer, http, ..] = FAMILIES.map(|family| format!("127.0.0.1:{}", family + self.offset.get()));
        let data = self.data.display().to_string();
        let member = format!("node1,{client},{peer},{http}");
        let groups = self.groups.to_string();
        let named = ["serve", "--node", "node1", "--member", &member, "--data-dir", &data, "--cluster-id", "aa"];
        let more = ["--groups", &groups, "--replicas", "1", "--log", "trine=info"];
        named.iter().chain(&more).chain(&TIMING).map(|text| (*text).to_owned()).collect()
    }

    /// A client that repeats nothing by itself: what was sent once was executed at most once.
    pub(crate) async fn client(&self) -> Client {
        let address = format!("127.0.0.1:{}", FAMILIES[0] + self.offset.get());
        let config = ClientConfig { retry: false, session: false, deadline: DEADLINE, ..ClientConfig::new([address]) };
        Client::connect(config).await.expect("a connection to a node that listens")
    }
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    printed: Arc<Mutex<String>>,
    state: watch::Receiver<State>,
    reader: JoinHandle<()>,
}

/// What its lines have said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Listens,
    Ended,
}

/// A node that has ended by itself, with what it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    printed: String,
    status: ExitStatus,
}

impl Ended {
    /// Whether it is the answer to damage: one line that says where, and no panic.
    pub(crate) fn is_refusal(&self) -> bool {
        let expected = self.status.code() == Some(1) && self.last_line().starts_with("trine: ");
        expected && !self.printed.contains("panicked") && !self.printed.contains("os error")
    }

    /// Whether a signal has ended it, and it had nothing to say.
    pub(crate) fn is_kill(&self) -> bool {
        self.status.signal() == Some(Signal::KILL.as_raw()) && self.printed.is_empty()
    }

    pub(crate) fn last_line(&self) -> &str {
        self.printed.lines().last().unwrap_or_default()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node ended by itself, {}, and printed\n{}", self.status, self.printed)
    }
}

impl Node {
    /// Starts the process with these variables in its environment.
    pub(crate) fn start(place: &Place, environment: &[(&str, OsString)]) -> Self {
        let mut command = Command::new(binary());
        // What the developer's shell says about a cluster of theirs is not for this one.
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRINE_")) {
            command.env_remove(variable);
        }
        command.args(place.arguments()).envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the binary starts");
        let printed = Arc::new(Mutex::new(String::new()));
        let (sender, state) = watch::channel(State::Starting);
        let errors = child.stderr.take().expect("a pipe");
        let reader = tokio::spawn(read(errors, Arc::clone(&printed), sender));
        Self { child, printed, state, reader }
    }

    /// Waits until it listens.
    pub(crate) async fn listens(&mut self) -> Result<(), Ended> {
        let seen = self.state.wait_for(|state| *state != State::Starting);
        let state = tokio::time::timeout(LISTENS, seen).await.map(|state| state.map_or(State::Ended, |state| *state));
        match state {
            Ok(State::Listens) => Ok(()),
            Ok(_) => {
                let status = self.child.wait().await.expect("our own child");
                Err(Ended { printed: self.printed(), status })
            }
            Err(_) => panic!("waited {LISTENS:?} for a node to listen; it printed\n{}", self.printed()),
        }
    }

    /// What it has printed so far.
    fn printed(&self) -> String {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `kill -9`, and waits until it is gone. An error where it has ended by itself before.
    pub(crate) async fn kill(mut self) -> Result<(), Ended> {
        self.child.start_kill().expect("our own child can be killed");
        let status = self.child.wait().await.expect("our own child");
        let _ = (&mut self.reader).await;
        match status.signal() == Some(Signal::KILL.as_raw()) {
            true => Ok(()),
            false => Err(Ended { printed: self.printed(), status }),
        }
    }
}

/// Reads its lines until it has ended.
async fn read(errors: ChildStderr, printed: Arc<Mutex<String>>, state: watch::Sender<State>) {
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The line of `server::run` when all doors are open.
        if line.contains(" serving ") {
            state.send_replace(State::Listens);
        }
        let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.push_str(&line);
        printed.push('\n');
    }
    state.send_replace(State::Ended);
}
