//! What a lock consists of: those who hold it, those who wait for it, and until when nobody gets it.
//!
//! A lock costs what it uses: the usual one has one holder, no line and nothing of [`Rest`].

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trine_protocol::lock::{Acquire, Mode};

/// The deadline of what has none.
pub(super) const NEVER_MS: u64 = u64::MAX;

/// A grant that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who holds it.
    pub client: Arc<str>,
    /// The fencing token of the grant.
    pub token: u64,
    /// Log time of the grant, in milliseconds. A renewal leaves it.
    pub granted_ms: u64,
    /// Log time at which the lease ends, in milliseconds; `u64::MAX` where the grant ends with a session.
    pub deadline_ms: u64,
    /// How it is shared.
    pub mode: Mode,
    /// What most grants have nothing of.
    pub(super) rest: Option<Box<Rest>>,
}

/// What few grants have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rest {
    /// How often it was entered again.
    pub(super) reentered: u32,
    /// The session that it ends with; 0 where it has a lease.
    pub(super) session: u64,
    /// How long nobody gets the lock if the grant does not end by a release.
    pub(super) delay_ms: u32,
    /// What the holder says of itself.
    pub(super) note: Bytes,
}

/// [`Held`] as it stands in a record.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredHold {
    pub(super) client: String,
    pub(super) token: u64,
    pub(super) granted_ms: u64,
    pub(super) deadline_ms: u64,
    pub(super) mode: Mode,
    pub(super) rest: Option<Rest>,
}

/// A lock that is held, waited for, or kept from everybody for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lock {
    /// In the order of the grants.
    pub(super) holds: Vec<Held>,
    /// The tickets of those who wait, which are in the order in which they came.
    pub(super) line: BTreeSet<u64>,
    /// Nobody gets it before.
    pub(super) free_ms: u64,
}

impl Held {
    /// How often the grant is to be released.
    pub fn depth(&self) -> u32 {
        self.rest.as_ref().map_or(0, |rest| rest.reentered) + 1
    }

    /// It is to be released once less.
    ///
    /// # Panics
    /// Where it was entered once only: the caller has looked at [`Held::depth`].
    pub(super) fn leave_once(&mut self) {
        self.rest.as_mut().expect("a grant that was entered again says so there").reentered -= 1;
    }

    /// The session that it ends with; 0 where it has a lease.
    pub fn session(&self) -> u64 {
        self.rest.as_ref().map_or(0, |rest| rest.session)
    }

    /// What the holder says of itself.
    pub fn note(&self) -> Bytes {
        self.rest.as_ref().map(|rest| rest.note.clone()).unwrap_or_default()
    }

    pub(super) fn delay_ms(&self) -> u64 {
        self.rest.as_ref().map_or(0, |rest| u64::from(rest.delay_ms))
    }

    pub(super) fn stored(&self) -> StoredHold {
        let Self { client, token, granted_ms, deadline_ms, mode, rest } = self;
        StoredHold {
            client: client.to_string(),
            token: *token,
            granted_ms: *granted_ms,
            deadline_ms: *deadline_ms,
            mode: *mode,
            rest: rest.as_deref().cloned(),
        }
    }
}

impl Rest {
    /// What this acquire asks for beside the usual; None where it is nothing.
    pub(super) fn of(acquire: &Acquire, session: u64) -> Option<Box<Self>> {
        let session = if acquire.through_session { session } else { 0 };
        let rest = Self { reentered: 0, session, delay_ms: acquire.delay_ms, note: acquire.note.clone() };
        (rest != Self::default()).then(|| Box::new(rest))
    }
}

impl Lock {
    /// Whether it is there for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.holds.is_empty() && self.line.is_empty() && self.free_ms == 0
    }

    /// Whether those who hold it leave room for one more.
    pub(super) fn admits(&self, mode: Mode, client: &str) -> bool {
        // No list is made for the usual case.
        match (mode, self.holds.as_slice()) {
            (_, []) => true,
            (Mode::Exclusive, _) => false,
            (_, holds) => {
                admits(&holds.iter().map(|held| (held.mode, &*held.client)).collect::<Vec<_>>(), mode, client)
            }
        }
    }
}

/// Whether those who hold a lock leave room for one more.
pub(super) fn admits(holds: &[(Mode, &str)], mode: Mode, client: &str) -> bool {
    let permits = |(mode, _): &(Mode, &str)| match mode {
        Mode::Permits { count, .. } => u64::from(*count),
        Mode::Exclusive | Mode::Shared => u64::from(u32::MAX),
    };
    match mode {
        Mode::Exclusive => holds.is_empty(),
        Mode::Shared => holds.iter().all(|(held, holder)| *held == Mode::Shared && *holder != client),
        Mode::Permits { count, of } => {
            let taken: u64 = holds.iter().map(permits).sum();
            taken + u64::from(count) <= u64::from(of)
        }
    }
}

/// Whether one of the two is in the way of the other, if both want or have the same lock.
pub(super) fn excludes(one: Mode, other: Mode) -> bool {
    !matches!((one, other), (Mode::Shared, Mode::Shared))
}
