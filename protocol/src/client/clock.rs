//! The client's clock: the only place of this crate that reads one. The protocol itself has none; a client needs to know when a
//! deadline is over and when to try an endpoint again, and nothing here outlives a process or leaves the machine.

#![expect(clippy::disallowed_methods, reason = "the one place of the client that reads the clock")]

use tokio::time::Instant;

/// Now, on a clock that never goes back. Tokio's, so that tests can stop it.
pub(super) fn now() -> Instant {
    Instant::now()
}
