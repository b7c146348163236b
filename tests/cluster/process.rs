//! One process of the binary under test, ended by its id whatever becomes of the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::wait;

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `trine` with these arguments in `folder`; what it prints goes to `folder/name.log`, after what is there.
    pub(crate) fn start(folder: &Path, name: &str, arguments: &[String]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_trine"));
        // What the developer's shell says about a cluster of theirs is not for this one.
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRINE_")) {
            command.env_remove(variable);
        }
        let child = command
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second descriptor"))
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        Self { child, log, ended: None }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal to it; nothing happens where it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            rustix::process::kill_process(self.pid(), signal).expect("our own child takes a signal");
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.ended.is_none() {
            self.ended = Some(self.child.wait().expect("our own child"));
        }
    }

    /// How it ended, or None while it runs.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child");
        }
        self.ended
    }

    /// Waits for its end.
    pub(crate) fn exit_within(&mut self, within: Duration) -> ExitStatus {
        let log = self.log.clone();
        wait::blocking(&format!("the end of the process of {}", log.display()), within, || self.exit_status())
    }

    /// The ids of its children.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let id = self.pid().as_raw_nonzero();
        let listed = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let children = self.children();
        // A stopped process takes SIGKILL too.
        self.kill();
        for child in children {
            // They end with their parent by themselves; where they do not, nobody else would end them.
            if is_ours(child) {
                let _ = rustix::process::kill_process(child, Signal::KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.printed());
        }
    }
}

/// Whether a process runs, and runs the binary under test.
pub(crate) fn is_ours(pid: Pid) -> bool {
    let id = pid.as_raw_nonzero();
    std::fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == Path::new(env!("CARGO_BIN_EXE_trine")))
}

/// Bytes of memory that a process has resident.
pub(crate) fn resident_bytes(pid: Pid) -> u64 {
    let id = pid.as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kibibytes * 1024
}
