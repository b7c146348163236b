//! One node's process: started, watched, started again, ended.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::RESTART_MS;
use super::log::{LogFile, Terminal, pump};
use super::plan::Node;

/// Milliseconds from the request to end until a node is killed: its own drain takes 10 s at most.
const END_MS_MAX: u64 = 15_000;

/// A node ended that was not asked to.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) name: String,
    /// In words.
    pub(super) how: String,
    /// It exited, as opposed to being killed.
    pub(super) by_itself: bool,
    pub(super) log: PathBuf,
}

/// What it takes to keep one node up.
pub(super) struct Supervised {
    pub(super) node: Node,
    pub(super) restart: bool,
    pub(super) terminal: Terminal,
    pub(super) ended: mpsc::Sender<Ended>,
    pub(super) stop: CancellationToken,
    pub(super) kill: CancellationToken,
}

impl Supervised {
    /// Keeps the node up until it is to stop. False where it had to be killed or could not be started.
    pub(super) async fn run(self) -> bool {
        let name = &self.node.name;
        loop {
            let (mut child, input) = match self.start() {
                Ok(started) => started,
                Err(error) => {
                    self.terminal.print(&format!("trine: {name} cannot be started: {error}"));
                    self.report(format!("cannot be started: {error}"), true);
                    return false;
                }
            };
            let pid = child.id().unwrap_or_default();
            let status = tokio::select! {
                status = child.wait() => status,
                () = self.stop.cancelled() => return self.end(child).await,
            };
            drop(input);
            if status.as_ref().is_ok_and(ExitStatus::success) {
                // Nobody has told it to stop: it was taken out of the cluster.
                self.terminal.print(&format!("trine: {name} (pid {pid}) has left the cluster"));
                self.report("has left the cluster".to_owned(), true);
                return true;
            }
            let how = status.as_ref().map_or_else(|error| format!("is lost: {error}"), words);
            let then = if self.restart {
                format!("starting again in {} s", RESTART_MS / 1_000)
            } else {
                "left down".to_owned()
            };
            self.terminal.print(&format!("trine: {name} (pid {pid}) {how}; {then}"));
            self.report(how, status.is_ok_and(|status| status.code().is_some()));
            if !self.restart {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(RESTART_MS)) => {}
                () = self.stop.cancelled() => return true,
            }
        }
    }

    /// Nobody listens any more once the cluster is up, so what does not fit is of no interest.
    fn report(&self, how: String, by_itself: bool) {
        let ended = Ended { name: self.node.name.clone(), how, by_itself, log: self.node.log() };
        drop(self.ended.try_send(ended));
    }

    fn start(&self) -> std::io::Result<(Child, Option<ChildStdin>)> {
        let log = LogFile::open(&self.node.log())?;
        let mut child = Command::new(program()?)
            .args(&self.node.arguments)
            // The end of this pipe tells the node that we are gone, however that came about.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C goes to a whole group of processes; the nodes are to hear it from us, once.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take();
        if let Some(stream) = child.stderr.take() {
            let name = self.node.name.clone();
            tokio::spawn(pump(name, stream, log, self.terminal.clone(), self.stop.clone()));
        }
        Ok((child, input))
    }

    /// Asks the node to drain and end; kills it where it does not.
    async fn end(&self, mut child: Child) -> bool {
        // Not waited for yet, so the number is still this process.
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            self.terminal.print(&format!("trine: {} cannot be told to end: {error}", self.node.name));
        }
        let ended = tokio::select! {
            status = child.wait() => status.is_ok(),
            () = tokio::time::sleep(Duration::from_millis(END_MS_MAX)) => false,
            () = self.kill.cancelled() => false,
        };
        if !ended {
            self.terminal.print(&format!("trine: {} is killed", self.node.name));
            drop(child.kill().await);
        }
        ended
    }
}

/// This very program. Its path says its name in the list of processes; where the file has been replaced or removed since
/// we started, the kernel still has it.
fn program() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let running = Path::new("/proc/self/exe");
    Ok(if !path.exists() && running.exists() { running.to_owned() } else { path })
}

fn words(status: &ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exited with code {code}"),
        None => format!("ended by {status}"),
    }
}
