//! A grant as its client holds it.

use std::collections::BTreeMap;

use trine_protocol::lock::{Acquire, Mode};

use crate::sim::checker::{Operation, lasts_us};

/// A grant as its client holds it.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) token: u64,
    pub(super) mode: Mode,
    /// When the acquire was sent for the first time.
    pub(super) sent_us: u64,
    /// By operation: the leases that may be the one that holds. A renewal replaces the lease before it, also by a shorter one.
    pub(super) leases: BTreeMap<u64, Lease>,
    /// When the first release of it was sent.
    pub(super) releasing_us: Option<u64>,
    /// When the first release of it was answered.
    pub(super) released_us: Option<u64>,
}

/// The lease of an acquire or a renewal that may have been executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    sent_us: u64,
    answered_us: Option<u64>,
    until_us: u64,
}

impl Grant {
    pub(super) fn of(now_us: u64, operation: &Operation, acquire: &Acquire, token: u64) -> Self {
        let mut grant = Self {
            client: acquire.client.clone(),
            token,
            mode: acquire.mode,
            sent_us: operation.sent_us,
            leases: BTreeMap::new(),
            releasing_us: None,
            released_us: None,
        };
        // A client that holds through its session asks for a lease that is as long as that.
        grant.answered(operation.number, operation.from_us, now_us, acquire.lease_ms);
        grant
    }

    pub(super) fn held_until_us(&self) -> u64 {
        let leases = self.leases.values().map(|lease| lease.until_us);
        leases.chain(self.releasing_us).min().expect("a grant has a lease")
    }

    pub(super) fn holds_for_certain(&self, now_us: u64) -> bool {
        self.held_until_us() > now_us && self.releasing_us.is_none()
    }

    pub(super) fn was_answered_before(&self, at_us: u64) -> bool {
        self.leases.values().filter_map(|lease| lease.answered_us).any(|answered_us| answered_us < at_us)
    }

    /// A renewal is on its way.
    pub(super) fn renewing(&mut self, operation: &Operation, lease_ms: u32) {
        let (sent_us, until_us) = (operation.sent_us, operation.sent_us + lasts_us(lease_ms));
        self.leases.insert(operation.number, Lease { sent_us, answered_us: None, until_us });
    }

    /// An answer came: what was answered before its request was sent is replaced for certain.
    pub(super) fn answered(&mut self, operation: u64, sent_us: u64, answered_us: u64, lease_ms: u32) {
        let replaced = |lease: &Lease| lease.answered_us.is_some_and(|earlier_us| earlier_us <= sent_us);
        self.leases.retain(|_, lease| !replaced(lease));
        let sent_us = self.leases.get(&operation).map_or(sent_us, |lease| lease.sent_us);
        let until_us = sent_us + lasts_us(lease_ms);
        self.leases.insert(operation, Lease { sent_us, answered_us: Some(answered_us), until_us });
    }

    /// Whether it cannot hold beside one of that mode, permits apart.
    pub(super) fn excludes(&self, mode: Mode) -> bool {
        !matches!((self.mode, mode), (Mode::Shared, Mode::Shared))
    }

    /// Whether both are permits of one semaphore, so that their number decides.
    pub(super) fn counts(&self, mode: Mode) -> bool {
        matches!((self.mode, mode), (Mode::Permits { .. }, Mode::Permits { .. }))
    }

    /// Whether nobody holds beside it.
    pub(super) fn is_alone(&self) -> bool {
        self.mode == Mode::Exclusive
    }

    pub(super) fn permits(&self) -> u32 {
        match self.mode {
            Mode::Permits { count, .. } => count,
            Mode::Exclusive | Mode::Shared => 0,
        }
    }

    pub(super) fn permits_of(&self) -> Option<u32> {
        match self.mode {
            Mode::Permits { of, .. } => Some(of),
            Mode::Exclusive | Mode::Shared => None,
        }
    }
}
