//! What `--verify` knows: ledgers of what was sent, confirmed, handed out, granted and read, and the rules over them.
//!
//! | ledger | what it finds |
//! | --- | --- |
//! | [`queue`] | `lost`, `duplicated`, `out_of_nothing` |
//! | [`lock`] | `two_holders`, `token_inversions` |
//! | [`cache`] | `stale_reads`, `lost_writes`, `out_of_nothing` |
//!
//! # Invariants
//! - A rule finds only what no correct cluster does. Every moment is one of this process's monotonic clock, and where a rule
//!   needs the moment at which the cluster acted, it takes the bound that is safe: not before the request was first sent, not
//!   after its answer was read.
//! - **An unknown outcome accuses nobody.** An enqueue of unknown outcome may appear or not; an acknowledgement may have removed the
//!   message or not; a write may take effect at any later time; a grant may block a lock until its lease ends. They are
//!   counted beside the violations.
//! - What was refused, or certainly not done, must have no effect.
//!
//! # Caveats
//! - Ledgers share locks between workers and grow with the run: a checked run is slower than one that is not.
//! - Beyond [`ENTRIES_MAX`] messages or writes the rest is not followed; how many is shown as `unchecked`.
//! - What the ledgers do not see they do not judge: clients beside this run, and reads of unknown outcome.

pub(crate) mod cache;
pub(crate) mod lock;
pub(crate) mod queue;

use std::time::Instant;

/// Messages, or writes, that one run follows: some 2 GiB of memory at the very worst, hours of load in practice.
const ENTRIES_MAX: u64 = 20_000_000;

/// What became of a message or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No answer yet.
    Pending,
    /// It was done.
    Confirmed,
    /// Nobody can say.
    Unknown,
    /// It was not done, and will not be.
    Refused,
}

impl Fate {
    fn of<T>(result: &Result<T, &crate::workload::Failure>) -> Self {
        match result {
            Ok(_) => Self::Confirmed,
            Err(failure) if failure.unknown => Self::Unknown,
            Err(_) => Self::Refused,
        }
    }
}

/// Moments in microseconds since the ledger was made: half the size of an `Instant`.
#[derive(Clone, Copy, Debug)]
struct Origin(Instant);

impl Origin {
    fn us(self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.0).as_micros()).unwrap_or(u64::MAX)
    }
}
