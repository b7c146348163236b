//! The lock manager: a deterministic state machine that each replica of a group applies.
//!
//! A lock is a name that at most one client holds *in the state of the log*. It is made by the grant and vanishes when it
//! is released or its lease runs out. Nobody waits in it: where it is held, the answer is no, and the client asks again.
//!
//! # Life of a lock
//!
//! ```text
//!                   Acquire: token = the entry's, deadline = stamp + lease
//!  (not there)  ------------------------------------------------------------>  HELD --.
//!       ^                                                                      |  ^   |  Renew: same token,
//!       |        Release by its holder, or the lease ran out in log time       |  '---'  deadline = stamp + lease
//!       '----------------------------------------------------------------------'
//! ```
//!
//! | command | not held | held by this client | held by another |
//! | --- | --- | --- | --- |
//! | `Acquire` | granted | `LockHeld` | `LockHeld` |
//! | `Release`, token 0 | was not held | released | `LockHeldByOther` |
//! | `Release`, the grant's token | was not held | released | `LockHeldByOther` |
//! | `Release`, an older token | was not held | `StaleToken` | `LockHeldByOther` |
//! | `Renew`, the grant's token | `LockNotHeld` | renewed | `LockHeldByOther` |
//! | `Renew`, an older token | `LockNotHeld` | `StaleToken` | `LockHeldByOther` |
//!
//! A token above the grant's, which no grant can have given out, is an `InvalidArgument`. An `Acquire` by the holder
//! itself is refused too: a client that has lost count of what it holds must not be told that all is well.
//!
//! # What a lock does not promise
//!
//! **It does not promise mutual exclusion.** No lock service can: a client that was granted the lock may be stopped, by a
//! garbage collector, a sleeping laptop, a slow network, for longer than its lease. The lock then goes to another client, and the
//! first one wakes up in the middle of its work and knows nothing of it. For a moment two clients act, each in the belief that it is alone.
//!
//! What is promised is **fencing**: each grant carries a token that is greater than that of every earlier grant of this name, for ever,
//! over releases, expiries, failovers, restarts and a restore from a backup. Whatever the lock protects keeps the highest token it has
//! seen and refuses a lower one; then the one who woke up late is refused, and what it did before the
//! next holder came stands. So:
//!
//! ```text
//!  client 1   granted, token 33 ......... (stopped) ............ write(token 33) ---> refused: 34 was seen
//!  client 2                    granted, token 34   write(token 34) ---> taken
//! ```
//!
//! The token is the index of the log entry that made the grant, with the cluster's generation above it
//! ([`At::token`](crate::ids::At::token)), so it needs no counter that could be lost with the lock.
//!
//! # Time
//!
//! Leases run in log time. A lease ends with the first entry whose stamp has reached its deadline: [`State::expire`] sees each stamp before
//! the entry is applied. The log counts what its leader's monotonic clock counts, and while there is no leader it does not count
//! at all, so a lease lasts as long as it says, give or take the drift of two clocks, and longer over a failover. The client counts from before it sent its
//! request, so it stops before the cluster does. An answer that is stored holds no remaining time: a repeated one would lie.
//!
//! # What it keeps, and where
//!
//! In memory **270 bytes** for each lock held with names of 16 bytes (measured: `memory_of_a_held_lock`), nothing for one that is not. On disk
//! one record for each lock held. Not packed, as messages are: messages are acknowledged in about the order in which they came, so neighbours change
//! together; locks are taken and given back in any order, and a packed record would be written whole for each. Most locks are
//! held for less than the time between two checkpoints and so are never written at all.
//!
//! ```text
//! key    'l'  bytes of the name, u16 big-endian  the name
//! value  [ client, token, granted_ms, deadline_ms ]      MessagePack
//! ```
//!
//! # Invariants
//!
//! Checked by [`State::check_invariants`]: a lock has one holder; tokens of held locks are distinct; every held lock has one
//! deadline, and every deadline a lock.
//!
//! # Caveats
//!
//! * No waiting, hence no fairness: who asks at the right moment gets it. With many clients on one lock some wait for long.
//! * No shared locks, no re-entrance, no several locks at once, no search for deadlocks. A cycle of clients ends when a lease does.
//! * A holder's name is what the client says it is.

mod state;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use trine_protocol::lock::{Acquire, Granted, Release, Released, Renew};

pub use state::{Counts, Ended, Held, State, Stats};

/// Locks of one group that are held at a time; one more gets `Overloaded`. With names of usual length they take 270 MB.
pub const LOCKS_MAX: usize = 1_000_000;

/// Notes on locks that ended, kept until the shell takes them, which it does many times a second. Beyond it a measurement
/// is lost, and nothing else.
pub const ENDED_MAX: usize = 4_096;

/// A command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Takes a lock.
    Acquire(Acquire),
    /// Gives it back.
    Release(Release),
    /// Starts its lease anew.
    Renew(Renew),
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The client holds the lock: answer to `Acquire` and `Renew`.
    Granted(Granted),
    /// The client does not hold the lock any more.
    Released(Released),
}
