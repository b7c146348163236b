//! Messages of the lock manager. A lock's namespace is the part of its name before the first `/`
//! (without one, `default`) and decides its group. What must see several locks at once, an atomic acquire and the search
//! for deadlocks, sees those of one group.
//!
//! ```text
//!   Acquire ──▶ Granted                                              nobody is in the way
//!           ──▶ LockHeld                                             wait_ms is 0
//!           ──▶ (waits) ──▶ Granted | LockTimeout | Deadlock | WaitCancelled
//!                 └──▶ StillWaiting where the request's own time ends first: send the same (session, sequence) again
//! ```

mod explain;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use explain::{
    ClientExplained, ClientHold, ClientWait, ExplainClient, ExplainLock, HolderView, ListLocks, LockExplained,
    LockPage, LockView, Observe, Observed, WaiterView,
};

/// How a lock is shared. All who hold a lock, and all who wait for it together, hold it the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// One holder.
    #[default]
    Exclusive,
    /// Any number of holders, as long as all of them share.
    Shared,
    /// A semaphore: holders have permits, which run out with their leases.
    Permits {
        /// How many this holder takes, 1 to `of`.
        count: u32,
        /// How many there are, 1 to [`crate::limits::PERMITS_MAX`]. Whoever takes the first ones decides; while any is held
        /// or waited for, another number is an `InvalidArgument`.
        of: u32,
    },
}

/// Takes a lock, several at once, or permits of a semaphore.
///
/// Where it cannot be had and `wait_ms` is 0, the answer is `LockHeld`. Otherwise it waits behind those who came before, and the grant
/// is answered the instant that it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// Name of the lock, 1 to [`crate::limits::NAME_BYTES_MAX`] bytes.
    pub lock: String,
    /// Who takes it, 1 to [`crate::limits::NAME_BYTES_MAX`] bytes. The search for deadlocks knows clients by this name.
    pub client: String,
    /// Lease in milliseconds of log time, 1 to [`crate::limits::LEASE_MS_MAX`], from the grant on.
    pub lease_ms: u32,
    /// How it is shared.
    #[serde(default)]
    pub mode: Mode,
    /// Milliseconds of log time to wait for the grant; 0 for not at all, [`crate::limits::WAIT_MS_FOREVER`] for as long as it takes.
    #[serde(default)]
    pub wait_ms: u32,
    /// Further locks, granted in the same instant or not at all: at most [`crate::limits::LOCKS_TOGETHER_MAX`] with the first one,
    /// all of one group.
    #[serde(default)]
    pub also: Vec<String>,
    /// The token of a grant that this client has: the same grant is entered once more, and is to be released once more. 0 for a new grant.
    #[serde(default)]
    pub reenter: u64,
    /// The grant ends with the request's session and has no lease of its own.
    #[serde(default)]
    pub through_session: bool,
    /// If the grant ends by its lease or by force, nobody gets the lock for so many milliseconds: time for what its holder had sent to
    /// arrive. At most [`crate::limits::LOCK_DELAY_MS_MAX`].
    #[serde(default)]
    pub delay_ms: u32,
    /// What the holder says of itself while it holds, for observers; at most [`crate::limits::NOTE_BYTES_MAX`] bytes.
    #[serde(default)]
    pub note: Bytes,
}

/// Answer to [`Acquire`] and [`Renew`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The fencing token: strictly greater than that of every earlier grant of this lock, but for those of one instant that share it.
    /// A renewal keeps it.
    pub token: u64,
    /// The lease as granted, in milliseconds. The client counts it from before its first send; where it waited, from before the last send
    /// that was answered `StillWaiting`.
    pub lease_ms: u32,
    /// How often the grant has been entered and is to be released.
    #[serde(default)]
    pub depth: u32,
    /// How the grant before this one ended, of each lock that is known to have had one that did not simply end.
    #[serde(default)]
    pub previous: Vec<Previous>,
}

/// How a grant ended, for whoever gets the lock next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The lock.
    pub lock: String,
    /// How it ended.
    pub ending: Ending,
    /// Who held it.
    pub client: String,
    /// Under which token.
    pub token: u64,
    /// What the holder left with its release.
    pub left: Bytes,
}

/// How a grant can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Its holder gave it back.
    Released,
    /// Its lease or its session ran out: the holder may have stopped half-way.
    Expired,
    /// A person ended it, see [`ForceRelease`].
    Forced,
}

/// Gives a lock back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Name of the lock.
    pub lock: String,
    /// Who holds it.
    pub client: String,
    /// The token of the grant; 0 releases whatever this client holds (the REST contract's form).
    #[serde(default)]
    pub token: u64,
    /// What the next holder is to find; at most [`crate::limits::LEFT_BYTES_MAX`] bytes.
    #[serde(default)]
    pub left: Bytes,
    /// Further locks of the same grant, as in [`Acquire::also`].
    #[serde(default)]
    pub also: Vec<String>,
}

/// Answer to [`Release`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// False where nobody held the lock.
    pub was_held: bool,
    /// How often the grant is still to be released; 0 where it is over.
    #[serde(default)]
    pub depth: u32,
}

/// Starts the lease of a held lock anew. Refused as `LockNotHeld` after it ran out, `StaleToken` where another grant followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// Name of the lock.
    pub lock: String,
    /// Who holds it.
    pub client: String,
    /// The token of the grant.
    pub token: u64,
    /// The new lease in milliseconds, 1 to [`crate::limits::LEASE_MS_MAX`].
    pub lease_ms: u32,
    /// Further locks of the same grant, as in [`Acquire::also`].
    #[serde(default)]
    pub also: Vec<String>,
}

/// Asks who holds a lock. The answer is as new as if it had gone through the log: whatever was acknowledged before is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspect {
    /// The lock.
    pub lock: String,
}

/// Answer to [`Inspect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Who holds it; empty where nobody does. Where several do, the one that was granted it first.
    pub client: String,
    /// The holder's fencing token; 0 where nobody holds it.
    pub token: u64,
}

/// Ends the wait of an [`Acquire`] of the same session. Afterwards it certainly does not wait, also where it arrives only later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The first lock that it waits for.
    pub lock: String,
    /// The sequence of the acquire in this request's session.
    pub sequence: u64,
    /// The client of that acquire.
    pub client: String,
    /// What was granted already is given back as well.
    pub give_back: bool,
    /// The further locks of that acquire.
    #[serde(default)]
    pub also: Vec<String>,
}

/// Answer to [`Cancel`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Whether it was waiting.
    pub was_waiting: bool,
    /// The token where it had been granted before the cancellation came, and was not given back by it; 0 where not.
    pub token: u64,
}

/// Ends every grant of a lock, whoever holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceRelease {
    /// The lock.
    pub lock: String,
}

/// Answer to [`ForceRelease`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceReleased {
    /// The clients that held it.
    pub holders: Vec<String>,
    /// Above every token that they had, below every later one: shown to what the lock protects, it shuts them out at once.
    pub token: u64,
}

/// Shows a token to a resource that cannot keep tokens itself: the cluster keeps the highest one for it. Refused as `StaleToken`, with
/// the highest as its hint, where a higher one was shown before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Name of the resource, 1 to [`crate::limits::NAME_BYTES_MAX`] bytes, placed as a lock of that name: in the namespace of the lock that
    /// protects it.
    pub resource: String,
    /// The token of the grant.
    pub token: u64,
}

/// Answer to [`Fence`]: no lower token will pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// The highest token that was shown before; 0 where none was.
    pub before: u64,
}

/// What a write of the queue or the cache demands: that this grant holds when the write is applied. Otherwise it is refused, as
/// `StaleToken` where a later grant was made, else as `LockNotHeld`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IfToken {
    /// The lock; of the same group as what is written.
    pub lock: String,
    /// The token of the grant.
    pub token: u64,
}

impl Acquire {
    /// One lock, for one holder, now or not at all.
    pub fn new(lock: impl Into<String>, client: impl Into<String>, lease_ms: u32) -> Self {
        Self { lock: lock.into(), client: client.into(), lease_ms, ..Self::default() }
    }

    /// All its locks, the first one first.
    pub fn locks(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.lock).chain(&self.also).map(String::as_str)
    }
}
