//! The nodes' log lines: all of them into a file of bounded size, warnings and worse to the terminal as well.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::super::{Exit, Failure};

/// Bytes of a log file. A full one becomes `log.1` and replaces the one before it, so a node's log takes twice this.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of a line; what is longer goes on as another line, so that no node can make us keep more.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// Lines that wait for the terminal; more are left out. A terminal that is held (Ctrl-S) must not hold a node.
const TERMINAL_LINES_MAX: usize = 1_024;

/// The terminal, from any task, without waiting for it.
#[derive(Clone, Debug)]
pub(super) struct Terminal(SyncSender<String>);

impl Terminal {
    /// Starts the thread that writes to standard error.
    pub(super) fn start() -> Result<Self, Failure> {
        let (sender, receiver) = sync_channel::<String>(TERMINAL_LINES_MAX);
        let write = move || {
            for line in receiver {
                // Where nobody reads it there is nothing left to do about that.
                drop(writeln!(std::io::stderr(), "{line}"));
            }
        };
        std::thread::Builder::new()
            .name("terminal".into())
            .spawn(write)
            .map_err(|error| Failure::new(Exit::Failed, format!("the system gives no thread: {error}")))?;
        Ok(Self(sender))
    }

    /// Prints a line, unless too many wait already: then it is lost here, but not in the log.
    pub(super) fn print(&self, line: &str) {
        match self.0.try_send(line.to_owned()) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// A log file that makes room for itself.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    /// Opens the file, to go on at its end.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        Self::open_with(path, FILE_BYTES_MAX)
    }

    fn open_with(path: &Path, bytes_max: u64) -> std::io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    pub(super) fn write(&mut self, line: &str) -> std::io::Result<()> {
        let bytes = line.len() as u64 + 1;
        if self.bytes > 0 && self.bytes + bytes > self.bytes_max {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            fs::rename(&self.path, before)?;
            *self = Self::open_with(&self.path, self.bytes_max)?;
        }
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.bytes += bytes;
        Ok(())
    }
}

/// Reads a node's standard error to its end. From `stopping` on, warnings stay in the log: that the other nodes go away
/// is then no news.
pub(super) async fn pump(
    name: String,
    stream: impl AsyncRead + Unpin,
    mut file: LogFile,
    terminal: Terminal,
    stopping: CancellationToken,
) {
    let mut stream = BufReader::new(stream);
    let mut complained = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
        let quiet = level(&text).is_some_and(|level| match level {
            "WARN" => stopping.is_cancelled(),
            "ERROR" => false,
            _ => true,
        });
        if !quiet && !text.is_empty() {
            terminal.print(&format!("{name} | {text}"));
        }
        // A log that cannot be written (a full disk) is said once; the lines are read on all the same.
        if let Err(error) = file.write(&text) {
            if !complained {
                terminal.print(&format!("trine: the log of {name} cannot be written: {error}"));
            }
            complained = true;
        }
    }
}

/// The level of a log line: the second word of `TIME LEVEL ...`. What is no log line, such as a panic or the one line with
/// which a node says that it cannot run, has none, and is always for the terminal.
fn level(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let time = words.next()?;
    let level = words.next()?;
    let is_time = time.starts_with(|c: char| c.is_ascii_digit()) && time.contains('T');
    (is_time && ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level)).then_some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_log_line_has_no_level() {
        for (line, want) in [
            ("2026-01-02T03:04:05.678901Z  INFO trine::server: up", Some("INFO")),
            ("2026-01-02T03:04:05.678901Z  WARN trine::raft: no leader", Some("WARN")),
            ("2026-01-02T03:04:05.678901Z ERROR trine::storage: the disk is full", Some("ERROR")),
            ("thread 'main' panicked at src/lib.rs:1:1:", None),
            ("trine: 127.0.0.1:4101 is in use", None),
            ("4Tx INFORMATION", None),
            ("", None),
        ] {
            assert_eq!(level(line), want, "{line}");
        }
    }

    #[test]
    fn a_log_takes_no_more_than_two_files() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("node1/log");
        let mut log = LogFile::open_with(&path, 100).unwrap();
        for number in 0..50 {
            log.write(&format!("line {number:03}")).unwrap();
        }
        drop(log);
        // Opened again it goes on, and still knows how long it is.
        LogFile::open_with(&path, 100).unwrap().write("the last").unwrap();
        let (now, before) = (fs::read_to_string(&path).unwrap(), fs::read_to_string(path.with_extension("1")).unwrap());
        assert!(now.len() <= 100 && before.len() <= 100);
        assert!(now.ends_with("line 049\nthe last\n"), "{now}");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_into_lines() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let stream = vec![b'x'; 3 * LINE_BYTES_MAX as usize + 5];
        pump(
            "n".into(),
            &stream[..],
            LogFile::open(&path).unwrap(),
            Terminal::start().unwrap(),
            CancellationToken::new(),
        )
        .await;
        let lengths: Vec<usize> = fs::read_to_string(path).unwrap().lines().map(str::len).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX as usize, LINE_BYTES_MAX as usize, LINE_BYTES_MAX as usize, 5]);
    }
}
