//! `trine lock run` and `trine lock elect`: a lock that is held as long as this process does something under it.
//!
//! ```text
//!   granted ──▶ the command runs ──▶ it ends ──▶ released, its exit code is ours
//!                  |   a notice before the lease may end: SIGTERM to the command and all that it started
//!                  '─▶ still there shortly before the lease may end: SIGKILL
//! ```
//!
//! # Caveats
//! - What is told here is this machine's view. Where the whole machine stops (it sleeps, or the process is stopped), nobody is there to end the command:
//!   when it goes on, the lock may be another's. Its token says so to whatever looks at it.

use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{timeout, timeout_at};
use trine_protocol::client::lock::{Guard, Lost};
use trine_protocol::lock::Observed;

use super::{Ask, Holder, Lease};
use crate::cli::client::{ClientArgs, text_member};
use crate::cli::{Exit, Failure, complain};

/// How long before its lease may end a command that was asked to end is killed: what it takes to notice and to do it.
const KILL_BEFORE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    holder: Holder,
    #[command(flatten)]
    ask: Ask,
    /// Refuse at once where it cannot be had; otherwise it is waited for, without an end where `--wait-ms` names none.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    lease: Lease,
    /// Milliseconds between SIGTERM and SIGKILL, before the lease may end; a third of the lease where it is not said.
    #[arg(long, value_name = "MS")]
    notice_ms: Option<u32>,
    #[command(flatten)]
    client: ClientArgs,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ElectArgs {
    #[command(flatten)]
    holder: Holder,
    /// What observers see of the leader, such as its address.
    #[arg(long, default_value = "")]
    note: String,
    /// Do not stand; print who leads, and every new leader.
    #[arg(long)]
    observe: bool,
    #[command(flatten)]
    lease: Lease,
    #[command(flatten)]
    client: ClientArgs,
    /// A command that runs as long as this candidate leads.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs a command under a lock.
pub(super) async fn run(args: RunArgs) -> Result<Exit, Failure> {
    let RunArgs { holder, mut ask, now, lease, notice_ms, client, command } = args;
    if !now && ask.wait_ms == 0 {
        ask.wait_ms = super::WAIT_MS_FOREVER;
    }
    let connected = client.connect().await?;
    let request = ask.request(&connected, &holder.lock, &holder.name(), lease.lease_ms);
    let guard = match now {
        true => request.try_acquire().await?,
        false => request.acquire().await?,
    };
    let notice = Duration::from_millis(notice_ms.unwrap_or(lease.lease_ms / 3).into());
    under(guard, &holder.lock, &command, notice).await
}

/// Runs a command while the guard holds.
async fn under(guard: Guard, lock: &str, command: &[String], notice: Duration) -> Result<Exit, Failure> {
    let mut child = match spawn(lock, &guard, command) {
        Ok(child) => child,
        Err(error) => {
            drop(guard.release().await);
            let what = command.first().map_or("nothing", String::as_str);
            return Err(Failure::new(Exit::Failed, format!("'{what}' cannot be started: {error}")));
        }
    };
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let send = |what: Signal| {
        let _ = group.map(|group| kill_process_group(group, what));
    };
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        _ => return Err(Failure::new(Exit::Failed, "the system delivers no signals")),
    };
    let lost: Lost = loop {
        tokio::select! {
            status = child.wait() => {
                // What it left running has no lock any more.
                send(Signal::KILL);
                drop(guard.release().await);
                return leave(status);
            }
            _ = interrupt.recv() => send(Signal::INT),
            _ = terminate.recv() => send(Signal::TERM),
            lost = guard.lost_within(notice) => break lost,
        }
    };
    complain(&format!("{lost}; '{}' is ended", command.first().map_or("", String::as_str)));
    send(Signal::TERM);
    let until = guard.deadline().checked_sub(KILL_BEFORE).unwrap_or_else(|| guard.deadline());
    let ended = timeout_at(until, child.wait()).await;
    send(Signal::KILL);
    if ended.is_err() {
        drop(child.wait().await);
    }
    // It may be ours for a moment still, and somebody may wait for it.
    drop(timeout_at(guard.deadline(), guard.release()).await);
    Err(Failure::new(Exit::Refused, format!("the lock '{lock}' was lost, and what ran under it was ended before")))
}

fn spawn(lock: &str, guard: &Guard, command: &[String]) -> std::io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or_else(|| std::io::Error::other("no command is named"))?;
    Command::new(program)
        .args(arguments)
        .env("TRINE_LOCK", lock)
        .env("TRINE_FENCING_TOKEN", guard.token().to_string())
        // A group of its own, so that all it starts ends with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// The command's exit code is ours: a shell's 128 and the signal where one ended it.
fn leave(status: std::io::Result<ExitStatus>) -> Result<Exit, Failure> {
    use std::os::unix::process::ExitStatusExt;
    let status = status.map_err(|error| Failure::new(Exit::Failed, format!("the command is lost: {error}")))?;
    if status.success() {
        return Ok(Exit::Done);
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    std::process::exit(code)
}

/// Stands for an election, or follows it.
pub(super) async fn elect(args: ElectArgs) -> Result<Exit, Failure> {
    let ElectArgs { holder, note, observe, lease, client, command } = args;
    let connected = client.connect().await?;
    let election = connected.election(holder.lock.as_str());
    if observe {
        let mut observer = election.observe();
        loop {
            tell(&client, &holder.lock, &observer.next().await?)?;
        }
    }
    let lease_for = Duration::from_millis(lease.lease_ms.into());
    let guard = election.campaign(holder.name(), note.clone()).lease(lease_for).acquire().await?;
    let leader = Observed { client: holder.name(), token: guard.token(), note: note.into() };
    tell(&client, &holder.lock, &leader)?;
    if !command.is_empty() {
        return under(guard, &holder.lock, &command, lease_for / 3).await;
    }
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| Failure::new(Exit::Failed, format!("the system delivers no signals: {error}")))?;
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Failure::new(Exit::Failed, format!("the system delivers no signals: {error}")))?;
    tokio::select! {
        lost = guard.lost() => Err(Failure::new(Exit::Refused, lost.to_string())),
        _ = async { tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () } } => {
            drop(timeout(Duration::from_secs(1), guard.release()).await);
            Ok(Exit::Done)
        }
    }
}

fn tell(client: &ClientArgs, lock: &str, leader: &Observed) -> Result<Exit, Failure> {
    let mut object = json!({ "election": lock, "leader": leader.client, "fencing_token": leader.token });
    let (name, note) = text_member("note", &leader.note);
    object[name] = note;
    let text = match leader.token {
        0 => "nobody".to_owned(),
        token => format!("{token} {} {}", leader.client, String::from_utf8_lossy(&leader.note)).trim_end().to_owned(),
    };
    client.answer(text, &object)
}
