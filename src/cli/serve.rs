//! `trine serve`: one node, until it is told to stop.
//!
//! SIGTERM and SIGINT drain the node; a second one ends it at once, which costs nothing but the drain: everything that
//! was acknowledged is on disk. With `--until-stdin-closes` the end of standard input does the same at once, because
//! then the parent is gone and nobody waits for a drain. (A death signal from the kernel would need unsafe code between
//! fork and exec; a pipe says the same on every system.)

use std::io::{Read, Write};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, ServeArgs, ServeConfig};
use crate::server;

use super::{Exit, Failure};

/// Runs the node.
pub(super) async fn run(args: ServeArgs) -> Result<Exit, Failure> {
    let failed = |line: String| Failure::new(Exit::Failed, line);
    start_log(&args)?;
    let until_stdin_closes = args.until_stdin_closes;
    let config = ServeConfig::new(args).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let stop = CancellationToken::new();
    let signals = stop_signals().map_err(|error| failed(format!("signals cannot be waited for: {error}")))?;
    tokio::spawn(stop_at_signal(signals, stop.clone()));
    if until_stdin_closes {
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(end_with_input)
            .map_err(|error| failed(format!("the system gives no thread: {error}")))?;
    }
    server::run(config, stop).await.map_err(|error| failed(error.to_string()))?;
    Ok(Exit::Done)
}

fn start_log(args: &ServeArgs) -> Result<(), Failure> {
    let wrong = |error| Failure::new(Exit::Usage, format!("--log {}: {error}", args.log_filter));
    let filter = EnvFilter::builder().parse(&args.log_filter).map_err(wrong)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // A log that cannot be written must not bring the node down, as complaining about it on the same stream would.
        .log_internal_errors(false);
    let started = match args.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| Failure::new(Exit::Failed, format!("the log cannot be started: {error}")))
}

/// The signals that ask a process to end.
pub(super) fn stop_signals() -> std::io::Result<[Signal; 3]> {
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?])
}

/// Waits for one of them.
pub(super) async fn stop_signal([interrupt, terminate, hangup]: &mut [Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

async fn stop_at_signal(mut signals: [Signal; 3], stop: CancellationToken) {
    stop_signal(&mut signals).await;
    tracing::info!("asked to stop: draining");
    stop.cancel();
    stop_signal(&mut signals).await;
    tracing::warn!("asked again: stopping at once");
    std::process::exit(Exit::Failed as i32);
}

fn end_with_input() {
    let mut bytes = [0; 64];
    let mut input = std::io::stdin().lock();
    // What the parent might say is not for us; only that it is there.
    loop {
        match input.read(&mut bytes) {
            Ok(read) if read > 0 => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    drop(writeln!(std::io::stderr(), "trine: the parent is gone"));
    std::process::exit(Exit::Failed as i32);
}
