//! What a lock manager says of itself: who holds, who waits and behind whom, and who leads.
//!
//! Every answer is as new as if it had gone through the log. Times are durations, counted by the leader in log time at the
//! instant of the answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Mode, Previous};

/// Asks why a lock is as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainLock {
    /// The lock.
    pub lock: String,
}

/// Answer to [`ExplainLock`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockExplained {
    /// The lock's group.
    pub group: u32,
    /// Who holds it, granted first first; at most [`crate::limits::HOLDERS_SHOWN_MAX`].
    pub holders: Vec<HolderView>,
    /// How many hold it.
    pub holders_total: u32,
    /// Who waits for it, in their order; at most [`crate::limits::WAITERS_SHOWN_MAX`].
    pub waiters: Vec<WaiterView>,
    /// How many wait for it.
    pub waiters_total: u32,
    /// Milliseconds for which nobody gets it, because its last holder asked for a delay.
    pub delayed_ms: u64,
    /// How the last grant ended, where that is known.
    pub previous: Option<Previous>,
}

/// A grant, for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    /// Who holds it.
    pub client: String,
    /// Under which token.
    pub token: u64,
    /// How.
    pub mode: Mode,
    /// For how many milliseconds.
    pub held_ms: u64,
    /// Milliseconds until the lease ends; 0 where it ends with a session.
    pub lease_left_ms: u64,
    /// The session that it ends with; 0 where it has a lease.
    pub session: u64,
    /// How often it has been entered.
    pub depth: u32,
    /// What the holder says of itself.
    pub note: Bytes,
}

/// A waiter, for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaiterView {
    /// Who waits.
    pub client: String,
    /// How.
    pub mode: Mode,
    /// For how many milliseconds it has waited.
    pub waited_ms: u64,
    /// Milliseconds until it gives up; 0 where it never does.
    pub gives_up_in_ms: u64,
    /// All the locks that it wants together.
    pub locks: Vec<String>,
}

/// Asks what a client holds and waits for, in one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainClient {
    /// The group, 0 to groups - 1.
    pub group: u32,
    /// The client.
    pub client: String,
}

/// Answer to [`ExplainClient`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientExplained {
    /// What it holds; at most [`crate::limits::HOLDERS_SHOWN_MAX`].
    pub holds: Vec<ClientHold>,
    /// What it waits for; at most [`crate::limits::WAITERS_SHOWN_MAX`].
    pub waits: Vec<ClientWait>,
}

/// A lock that a client holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHold {
    /// The lock.
    pub lock: String,
    /// Its grant.
    pub hold: HolderView,
    /// How many wait for it.
    pub waiters: u32,
}

/// A lock that a client waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientWait {
    /// The lock.
    pub lock: String,
    /// The wait.
    pub wait: WaiterView,
    /// The clients that came before it and still wait, in their order; at most [`crate::limits::WAITERS_SHOWN_MAX`].
    pub behind: Vec<String>,
    /// Who holds it; at most [`crate::limits::HOLDERS_SHOWN_MAX`].
    pub holders: Vec<HolderView>,
    /// Milliseconds for which nobody gets it.
    pub delayed_ms: u64,
}

/// Lists the locks of one group that are held, waited for or delayed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListLocks {
    /// The group, 0 to groups - 1.
    pub group: u32,
    /// What their names begin with; empty for all. At most [`crate::limits::NAME_BYTES_MAX`] bytes.
    pub prefix: String,
    /// Only locks after this one; empty for the first ones.
    pub after: String,
}

/// Answer to [`ListLocks`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockPage {
    /// At most [`crate::limits::LOCKS_SHOWN_MAX`].
    pub locks: Vec<LockView>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// One lock of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// The lock.
    pub lock: String,
    /// The holder that was granted it first, where there is one.
    pub holder: Option<HolderView>,
    /// How many hold it.
    pub holders: u32,
    /// How many wait for it.
    pub waiters: u32,
    /// Milliseconds for which its first waiter has waited; 0 where there is none.
    pub waited_ms: u64,
}

/// Waits until another grant of a lock holds than the one that the asker has seen, and says which: so observers follow a leader.
///
/// Answered at once where the lock's grant is another one already; `StillWaiting` where the request's time ends before anything changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observe {
    /// The lock.
    pub lock: String,
    /// The token that was seen last; 0 for "nobody holds it", and [`u64::MAX`] for nothing: the answer then comes at once.
    pub seen: u64,
}

/// Answer to [`Observe`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Who holds the lock; empty where nobody does.
    pub client: String,
    /// Under which token; 0 where nobody holds it.
    pub token: u64,
    /// What it says of itself.
    pub note: Bytes,
}
