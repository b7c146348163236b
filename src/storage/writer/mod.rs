//! The threads that do a node's disk work: one for the log, one for the state store, and one that reads beside it.
//!
//! ```text
//!   replicas --submit--> [waiting] --round--> append, append, ..., one sync --> completed(group, sequence) --> replicas
//!                            |  ^
//!             snapshot       v  | installed
//!   replicas --submit--> [waiting] --round--> checkpoints, installs, one sync --> Checkpointed; then room is given back
//!   replicas --fetch---> [waiting] --------> reads --> Fetched
//! ```
//!
//! **A round of the log** takes what waits, appends it and asks for one sync; what arrives meanwhile goes into the next one. So
//! the slower the disk, the more a sync carries. Writes of one group stay in order. Of what is not consensus (the cache's
//! journal) a round takes 1 MiB, of the rest 4 MiB: votes and entries do not wait behind bulk, nor a sync for ever.
//!
//! **The snapshot of a write** goes to the state store first; the write and those of its group behind it wait until the state is
//! durable there, while the other groups go on. A crash in between is finished at the next start ([`super::assemble()`]).
//! It is queued there when the write is handed over, so a checkpoint of the same replica cannot overtake it.
//!
//! **A round of the state store** takes what waits in order, syncs once, and then tells which checkpoints are durable. Where nothing
//! waits after it, the store gives room back. Reads have a thread of their own where the store can be read beside its writer
//! ([`ReadBeside`](super::ReadBeside)): a consumer does not wait for a sync.
//!
//! # Invariants
//! - Nothing is reported before the sync that covers it has returned.
//! - The first error ends the thread: `fatal` is called once, and nothing is reported after it. A panic counts as an error.
//! - `stop` does what waits before it ends the thread. The log is stopped first: it may wait for the state store.
//! - What is called back must not wait: a replica may be waiting for room here at that moment.
//!
//! # Caveats
//! - A writer that is dropped without `stop` leaves its thread waiting for work until the process ends.
//! - While a snapshot is installed, reads wait for it.
//! - A bound counts writes, not bytes; their bytes are bounded by the replica's uncommitted ones.

mod inbox;
mod log;
mod reads;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub use inbox::Stopped;
pub use log::{LogHandle, LogWriter};
pub use state::{StateHandle, StateWriter};

use super::StorageError;

/// Writes that may wait for the log: a busy group has a few, and a slow disk must be felt soon.
pub const LOG_WAITING_MAX: usize = 4096;
/// Checkpoints and fetches that may wait for the state store.
pub const STATE_WAITING_MAX: usize = 1024;
/// Bytes of consensus that a round of the log takes, at least one write: longer ones would delay votes.
pub const ROUND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of journal that a round of the log takes, at least one write.
pub const ROUND_BULK_BYTES_MAX: usize = 1024 * 1024;
/// Checkpoints, installs and fetches that a round of the state store takes.
pub const STATE_ROUND_MAX: usize = 64;

/// Calls `fatal` with an error, or when the thread panics.
struct Fatal {
    what: &'static str,
    fatal: SharedFatal,
}

/// Called at most once, by whichever thread fails first.
#[derive(Clone)]
struct SharedFatal(Arc<Mutex<Option<FatalCall>>>);

type FatalCall = Box<dyn FnOnce(StorageError) + Send>;

impl SharedFatal {
    fn new(fatal: impl FnOnce(StorageError) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(fatal)))))
    }
}

impl Fatal {
    fn new(what: &'static str, fatal: SharedFatal) -> Self {
        Self { what, fatal }
    }

    fn call(&mut self, error: StorageError) {
        let fatal = self.fatal.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(fatal) = fatal {
            fatal(error);
        }
    }
}

impl Drop for Fatal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = format!("the {} thread panicked", self.what);
            self.call(StorageError::Corrupt { what });
        }
    }
}

/// Starts a thread of that name.
fn spawn_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StorageError> {
    let what = format!("start the thread {name}");
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|source| StorageError::Io { what, source })
}
