//! The lock manager: a deterministic state machine that each replica of a group applies.
//!
//! A lock is a name that clients hold *in the state of the log*: one client alone, several that share it, or as many as a semaphore has
//! permits for. It is made by the grant and vanishes when it is released or its lease runs out. Whoever asks for it meanwhile may wait, in the
//! order in which they came.
//!
//! # Life of a lock
//!
//! ```text
//!                   Acquire: token = the entry's, deadline = stamp + lease
//!  (not there)  ------------------------------------------------------------>  HELD --.
//!       ^                                                                      |  ^   |  Renew: same token, deadline = stamp + lease
//!       |        Release by its holder, the lease ran out in log time,         |  |   |  Acquire with the token: once more, and to be
//!       |        the session ended, or ForceRelease                            |  '---'  released once more
//!       |                                                                      |
//!       |  nobody waits, no delay                                              v
//!       '------------------------------------------------------------------- FREE ---> HELD by the first in line, under a new token
//! ```
//!
//! | command | not held | held by this client | held by another |
//! | --- | --- | --- | --- |
//! | `Acquire`, now or never | granted | `LockHeld` | `LockHeld`, or granted where both share |
//! | `Acquire`, with time | granted | `Deadlock`: it would wait for itself | waits |
//! | `Acquire`, with the grant's token | `LockNotHeld` | once more | `LockHeldByOther` |
//! | `Release`, token 0 | was not held | released | `LockHeldByOther` |
//! | `Release`, the grant's token | was not held | released | `LockHeldByOther` |
//! | `Release`, an older token | was not held | `StaleToken` | `LockHeldByOther` |
//! | `Renew`, the grant's token | `LockNotHeld` | renewed | `LockHeldByOther` |
//! | `Renew`, an older token | `LockNotHeld` | `StaleToken` | `LockHeldByOther` |
//!
//! A token above the grant's, which no grant can have given out, is an `InvalidArgument`. An `Acquire` by the holder
//! itself that does not name its token is refused too: a client that has lost count of what it holds must not be told that all is well.
//! Whoever shares a lock and wants it alone releases it first: two who wait for each other to stop sharing would wait for ever.
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
//! The cluster's own queues and cache do so by themselves (`if_token`, [`State::demand`]); for what can keep no token there is `Fence`.
//!
//! The token is the index of the log entry that made the grant, with the cluster's generation above it
//! ([`At::token`](crate::ids::At::token)), so it needs no counter that could be lost with the lock. Grants of one entry share it: several locks that
//! were asked for together, and clients that share a lock and were let in together. Two grants of a lock that follow each other never do, nor two of one
//! client: where one ends in the entry that made it, or the client has one from it, the next is made by a later entry.
//!
//! # Time
//!
//! Leases run in log time. A lease ends with the first entry whose stamp has reached its deadline: [`State::expire`] sees each stamp before
//! the entry is applied. The log counts what its leader's monotonic clock counts, and while there is no leader it does not count
//! at all, so a lease lasts as long as it says, give or take the drift of two clocks, and longer over a failover. The client counts from before it sent its
//! request, so it stops before the cluster does. An answer that is stored holds no remaining time: a repeated one would lie.
//!
//! The lease of one who waited begins with the grant, and whether its own time, its session, and its patience are over is looked at in that very entry:
//! everything that is due goes before anything is handed on.
//!
//! # What it keeps, and where
//!
//! In memory **580 bytes** for each lock held with names of 16 bytes (measured: `memory_of_a_held_lock`), nothing for one that is not. On disk
//! one record for each lock held, each waiter, each fence and each hand-off record (see `stored`). Not packed, as messages are: messages are acknowledged
//! in about the order in which they came, so neighbours change together; locks are taken and given back in any order, and a packed record would be written
//! whole for each. Most locks are held for less than the time between two checkpoints and so are never written at all.
//!
//! # Invariants
//!
//! Checked by [`State::check_invariants`]: those who hold a lock together may; every grant has one deadline or one session; every waiter stands in the line of
//! each of its locks, has a deadline, and is not there for nothing: the first of a line cannot have what it wants; no client waits for itself.
//!
//! # Caveats
//!
//! * A holder's name is what the client says it is. The search for deadlocks believes it.
//! * Who waits for several locks holds up everybody behind it in each of their lines: the price for never being overtaken.
//! * A wait costs an entry of the log at its beginning, one at its end, and one each few seconds between.

mod deadlock;
mod explain;
mod fence;
mod grant;
mod hold;
mod past;
mod release;
mod state;
mod stored;
#[cfg(test)]
mod tests;
mod wait;

use serde::{Deserialize, Serialize};
use trine_protocol::Error;
use trine_protocol::lock::{
    Acquire, Cancel, Cancelled, Fence, Fenced, ForceRelease, ForceReleased, Granted, Release, Released, Renew,
};

pub use hold::Held;
pub use state::State;

/// Locks of one group that are held, waited for or delayed at a time; one more gets `Overloaded`. With names of usual length they take 580 MB.
pub const LOCKS_MAX: usize = 1_000_000;
/// Waiters of one group; one more gets `Overloaded`. Each costs about 600 bytes, and an entry of the log each few seconds.
pub const WAITERS_MAX: usize = 100_000;
/// Waiters of one lock; one more gets `Overloaded`: the search for deadlocks walks a line.
pub const LINE_MAX: usize = 10_000;
/// Resources of one group whose highest token is kept; one more gets `Overloaded`.
pub const FENCES_MAX: usize = 100_000;
/// Hand-off records of one group; where there is one more, the oldest goes. With all that can be left they take 15 MB.
pub const PAST_MAX: usize = 10_000;
/// A waiter that nobody has asked about for the lease that it asks for is gone; but not sooner than this: a failover takes up to 3 s.
pub const ALIVE_MS_MIN: u32 = 5_000;
/// And not later than this: who asks for a lease of a day is not waited for so long.
pub const ALIVE_MS_MAX: u32 = 20_000;

/// Notes on grants that ended, and on waits, kept until the shell takes them, which it does many times a second. Beyond it a measurement
/// is lost, and nothing else.
pub const ENDED_MAX: usize = 4_096;

/// How much of everything a state takes. A value, so that tests need not fill a million places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// See [`LOCKS_MAX`].
    pub locks_max: usize,
    /// See [`WAITERS_MAX`].
    pub waiters_max: usize,
    /// See [`LINE_MAX`].
    pub line_max: usize,
    /// See [`FENCES_MAX`].
    pub fences_max: usize,
    /// See [`PAST_MAX`].
    pub past_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            locks_max: LOCKS_MAX,
            waiters_max: WAITERS_MAX,
            line_max: LINE_MAX,
            fences_max: FENCES_MAX,
            past_max: PAST_MAX,
        }
    }
}

/// A command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Takes a lock, or waits for it.
    Acquire(Acquire),
    /// Gives it back.
    Release(Release),
    /// Starts its lease anew.
    Renew(Renew),
    /// Ends a wait.
    Cancel(Cancel),
    /// Ends every grant of a lock.
    ForceRelease(ForceRelease),
    /// Shows a token for a resource.
    Fence(Fence),
}

/// Whose command it is: an acquire that waits is known by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The session.
    pub session: u64,
    /// The command's number in it.
    pub sequence: u64,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The client holds the lock: answer to `Acquire` and `Renew`.
    Granted(Granted),
    /// The client does not hold the lock any more.
    Released(Released),
    /// The client waits. Another answer takes the place of this one.
    Waiting,
    /// The acquire does not wait.
    Cancelled(Cancelled),
    /// Nobody holds the lock any more.
    Forced(ForceReleased),
    /// No lower token passes.
    Fenced(Fenced),
}

/// A wait is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The session of the acquire that waited.
    pub session: u64,
    /// Its number in it.
    pub sequence: u64,
    /// What it came to.
    pub result: Result<Answer, Error>,
}

/// All locks of a group, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Locks that are held; one that is held under several tokens counts once for each.
    pub held: u64,
    /// Acquires that wait.
    pub waiting: u64,
    /// Resources whose highest token is kept.
    pub fences: u64,
    /// Log time in milliseconds at which the one was granted that is held for longest.
    pub oldest_granted_ms: Option<u64>,
    /// Log time in milliseconds since which the one waits that has waited for longest.
    pub oldest_waiting_ms: Option<u64>,
}

/// What was done to the locks of a group since this state was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Locks granted.
    pub granted: u64,
    /// Leases begun anew.
    pub renewed: u64,
    /// Grants entered once more.
    pub reentered: u64,
    /// Locks given back by their holders.
    pub released: u64,
    /// Grants whose lease or session ran out.
    pub expired: u64,
    /// Grants ended by force.
    pub forced: u64,
    /// Requests for a lock that could not be had at once.
    pub contended: u64,
    /// Of those, the ones that waited.
    pub waited: u64,
    /// Waits whose time was over.
    pub timeouts: u64,
    /// Waits that were cancelled.
    pub cancelled: u64,
    /// Waits whose client or session was gone.
    pub abandoned: u64,
    /// Acquires refused because their client would have waited for itself.
    pub deadlocks: u64,
}

/// A grant that holds no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How long it was held, in milliseconds of log time.
    pub held_ms: u64,
    /// Whether its lease or session ran out.
    pub expired: bool,
}
