//! The ledger of grants.
//!
//! A hold, by its client's own clock, goes from the moment at which the grant's answer was read to the moment at which the release
//! is sent, and never beyond the lease counted from before the acquire was first sent. The cluster's own hold is longer on both
//! sides, so two holds that overlap here overlapped there.
//!
//! - **two holders**: a grant was read while another hold of the same lock was open.
//! - **token inversion**: a grant whose token is not above every token that was known of the lock before it was asked for.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::workload::Checks;

#[derive(Clone, Copy, Debug)]
struct Hold {
    worker: u64,
    token: u64,
    ends: Instant,
}

#[derive(Debug, Default)]
struct Lock {
    highest: u64,
    /// Holds that are not over: one, where the service does what it promises.
    open: Vec<Hold>,
    grants: u64,
    found: Checks,
}

/// What is known of each lock of a run.
#[derive(Debug)]
pub(crate) struct LockLedger {
    locks: Vec<Mutex<Lock>>,
}

impl LockLedger {
    /// For so many locks.
    pub(crate) fn new(locks: usize) -> Self {
        Self { locks: (0..locks).map(|_| Mutex::default()).collect() }
    }

    fn lock(&self, lock: usize) -> MutexGuard<'_, Lock> {
        self.locks[lock].lock().expect("nobody panics with it held")
    }

    /// The highest token that is known now; taken before an acquire is sent.
    pub(crate) fn known(&self, lock: usize) -> u64 {
        self.lock(lock).highest
    }

    /// The answer of a granted acquire was read at `now`; `known` and `asked` are of before it was sent.
    pub(crate) fn granted(&self, lock: usize, grant: Grant, now: Instant) {
        let mut state = self.lock(lock);
        let Lock { highest, open, grants, found } = &mut *state;
        *grants += 1;
        let Grant { worker, token, known, asked, lease } = grant;
        if token <= known {
            let say = || format!("lock {lock}: token {token} for worker {worker}, after {known} was known");
            found.violation("token_inversions", say);
        }
        *highest = token.max(*highest);
        open.retain(|hold| hold.ends > now);
        if let Some(other) = open.first() {
            let left = other.ends - now;
            let say = || {
                let Hold { worker: holder, token: held, .. } = other;
                format!(
                    "lock {lock}: worker {worker} with token {token}, while {holder} holds {held} for {left:?} more"
                )
            };
            found.violation("two_holders", say);
        }
        open.push(Hold { worker, token, ends: asked + lease });
    }

    /// A release is about to be sent. To be called before it is.
    pub(crate) fn releasing(&self, lock: usize, worker: u64, token: u64) {
        self.lock(lock).open.retain(|hold| (hold.worker, hold.token) != (worker, token));
    }

    /// Everything that was found, once.
    pub(crate) fn checks(&self) -> Checks {
        let mut checks = Checks::default();
        checks.looked_for(&["two_holders", "token_inversions"]);
        let mut grants = 0;
        for lock in &self.locks {
            let mut lock = lock.lock().expect("nobody panics with it held");
            grants += lock.grants;
            checks.merge(std::mem::take(&mut lock.found));
        }
        checks.notes.insert("grants", grants);
        checks
    }
}

/// A grant, as its client saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    /// Who has it.
    pub(crate) worker: u64,
    /// Its token.
    pub(crate) token: u64,
    /// The highest token that was known before it was asked for.
    pub(crate) known: u64,
    /// Before it was first asked for.
    pub(crate) asked: Instant,
    /// For how long it was granted.
    pub(crate) lease: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const LEASE: Duration = Duration::from_secs(10);

    struct Case {
        ledger: LockLedger,
        start: Instant,
    }

    impl Case {
        fn new() -> Self {
            Self { ledger: LockLedger::new(2), start: clock::now() }
        }

        /// Asked for one second before it is granted.
        fn grant(&self, lock: usize, worker: u64, token: u64, second: u64) {
            let known = self.ledger.known(lock);
            let now = self.start + Duration::from_secs(second);
            let asked = now - Duration::from_secs(1);
            self.ledger.granted(lock, Grant { worker, token, known, asked, lease: LEASE }, now);
        }

        fn found(&self) -> [u64; 2] {
            let checks = self.ledger.checks();
            ["two_holders", "token_inversions"].map(|name| checks.violations[name])
        }
    }

    #[test]
    fn a_lock_changes_hands_by_release_or_by_the_end_of_its_lease() {
        let case = Case::new();
        case.grant(0, 1, 5, 1);
        case.ledger.releasing(0, 1, 5);
        case.grant(0, 2, 6, 1);
        case.grant(1, 3, 7, 1);
        // Asked for at second 0 with a lease of 10: over at second 10.
        case.grant(0, 4, 8, 10);
        assert_eq!(case.found(), [0, 0]);
    }

    #[test]
    fn two_holds_that_overlap_are_found() {
        let case = Case::new();
        case.grant(0, 1, 5, 1);
        case.grant(0, 2, 6, 9);
        assert_eq!(case.found(), [1, 0]);
        let same = Case::new();
        same.grant(0, 1, 5, 1);
        same.grant(0, 1, 6, 2);
        assert_eq!(same.found(), [1, 0], "the same client may not have it twice either");
    }

    #[test]
    fn a_token_that_does_not_rise_is_found() {
        let case = Case::new();
        for (worker, token) in [(1, 5), (2, 5), (3, 4)] {
            case.grant(0, worker, token, 1);
            case.ledger.releasing(0, worker, token);
        }
        assert_eq!(case.found(), [0, 2]);
        // Two that were under way together may come in any order.
        let grant = Grant { worker: 1, token: 3, known: 2, asked: case.start, lease: LEASE };
        case.ledger.granted(0, grant, case.start);
        assert_eq!(case.found(), [0, 0]);
    }
}
