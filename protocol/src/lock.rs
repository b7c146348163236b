//! Messages of the lock manager. A lock's namespace is the part of its name before the first `/`
//! (without one, `default`) and decides its group.

use serde::{Deserialize, Serialize};

/// Takes a lock, or refuses with `LockHeld` where anyone holds it, the same client included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// Name of the lock, 1 to [`crate::limits::NAME_BYTES_MAX`] bytes.
    pub lock: String,
    /// Who takes it, 1 to [`crate::limits::NAME_BYTES_MAX`] bytes.
    pub client: String,
    /// Lease in milliseconds of log time, 1 to [`crate::limits::LEASE_MS_MAX`].
    pub lease_ms: u32,
}

/// Answer to [`Acquire`] and [`Renew`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The fencing token: strictly greater than that of every earlier grant of this lock. A renewal keeps it.
    pub token: u64,
    /// The lease as granted, in milliseconds. The client counts it from before its first send.
    pub lease_ms: u32,
}

/// Gives a lock back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Name of the lock.
    pub lock: String,
    /// Who holds it.
    pub client: String,
    /// The token of the grant; 0 releases whatever this client holds (the REST contract's form).
    #[serde(default)]
    pub token: u64,
}

/// Answer to [`Release`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// False where nobody held the lock.
    pub was_held: bool,
}

/// Starts the lease of a held lock anew. Refused as `LockNotHeld` after it ran out, `StaleToken` where another grant followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// Name of the lock.
    pub lock: String,
    /// Who holds it.
    pub client: String,
    /// The token of the grant.
    pub token: u64,
    /// The new lease in milliseconds, 1 to [`crate::limits::LEASE_MS_MAX`].
    pub lease_ms: u32,
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
    /// Who holds it; empty where nobody does.
    pub client: String,
    /// The holder's fencing token; 0 where nobody holds it.
    pub token: u64,
}
