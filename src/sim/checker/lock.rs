//! What a lock promises: one holder at a time as clients count it, and tokens that grow from grant to grant.
//!
//! A client holds a lock from the answer until the lease, counted from *before its first send*, has run out on a clock
//! that may be slow by the drift bound; or until it sends a release. Two such times never overlap.

use std::collections::BTreeMap;

use trine_protocol::lock::{Granted, Inspected};
use trine_protocol::{Request, Response};

use super::{Check, Operation, Verdict, lasts_us};
use crate::ids::GroupId;

/// Every lock of the cluster, as its clients saw it.
#[derive(Debug, Default)]
pub(crate) struct LockChecker {
    locks: BTreeMap<(GroupId, String), Lock>,
}

#[derive(Debug, Default)]
struct Lock {
    /// The highest token of an answered grant.
    highest_token: u64,
    /// Of each acquire or renewal without a verdict: the highest token when it was sent.
    floors: BTreeMap<u64, u64>,
    grants: BTreeMap<u64, Grant>,
}

/// A grant as its client holds it.
#[derive(Debug)]
struct Grant {
    /// The acquire that got it.
    operation: u64,
    client: String,
    /// By operation: the leases that may be the one that holds. A renewal replaces the lease before it, also by a shorter one.
    leases: BTreeMap<u64, Lease>,
    /// When the first release of this token was sent.
    releasing_us: Option<u64>,
    /// When the first release of this token was answered.
    released_us: Option<u64>,
}

/// The lease of an acquire or a renewal that may have been executed.
#[derive(Clone, Copy, Debug)]
struct Lease {
    answered_us: Option<u64>,
    until_us: u64,
}

impl Grant {
    fn held_until_us(&self) -> u64 {
        let leases = self.leases.values().map(|lease| lease.until_us);
        leases.chain(self.releasing_us).min().expect("a grant has a lease")
    }

    /// An answer came: what was answered before its request was sent is replaced for certain.
    fn answered(&mut self, operation: &Operation, answered_us: u64, lease_ms: u32) {
        let replaced = |lease: &Lease| lease.answered_us.is_some_and(|earlier_us| earlier_us <= operation.sent_us);
        self.leases.retain(|_, lease| !replaced(lease));
        let until_us = operation.sent_us + lasts_us(lease_ms);
        self.leases.insert(operation.number, Lease { answered_us: Some(answered_us), until_us });
    }
}

impl LockChecker {
    /// A client has sent an operation.
    pub(crate) fn sent(&mut self, operation: &Operation) {
        let Some(name) = lock_name(&operation.request) else { return };
        let lock = self.locks.entry((operation.group, name.clone())).or_default();
        match &operation.request {
            Request::Release(release) => {
                let tokens = if release.token == 0 { 0..=u64::MAX } else { release.token..=release.token };
                let of_client = lock.grants.range_mut(tokens).filter(|(_, grant)| grant.client == release.client);
                for (_, grant) in of_client {
                    grant.releasing_us.get_or_insert(operation.sent_us);
                }
            }
            Request::Renew(renew) => {
                lock.floors.insert(operation.number, lock.highest_token);
                if let Some(grant) = lock.grants.get_mut(&renew.token) {
                    let until_us = operation.sent_us + lasts_us(renew.lease_ms);
                    grant.leases.insert(operation.number, Lease { answered_us: None, until_us });
                }
            }
            _ => {
                lock.floors.insert(operation.number, lock.highest_token);
            }
        }
    }

    /// A client knows what became of an operation.
    pub(crate) fn ended(&mut self, now_us: u64, operation: &Operation, verdict: &Verdict) -> Check {
        let Some(name) = lock_name(&operation.request) else { return Ok(()) };
        let lock = self.locks.entry((operation.group, name.clone())).or_default();
        let floor = lock.floors.remove(&operation.number).unwrap_or(0);
        if let (Verdict::NotExecuted(_), Request::Renew(renew)) = (verdict, &operation.request)
            && let Some(grant) = lock.grants.get_mut(&renew.token)
        {
            grant.leases.remove(&operation.number);
        }
        let Verdict::Answered(response) = verdict else { return Ok(()) };
        let checked = match (&operation.request, response) {
            (Request::Acquire(acquire), Response::Acquire(granted)) => {
                lock.acquired(now_us, operation, &acquire.client, granted, floor)
            }
            (Request::Renew(renew), Response::Renew(granted)) => {
                lock.renewed(now_us, operation, renew.token, granted, floor)
            }
            (Request::Release(release), Response::Release(released)) if released.was_held && release.token != 0 => {
                if let Some(grant) = lock.grants.get_mut(&release.token) {
                    grant.released_us.get_or_insert(now_us);
                }
                Ok(())
            }
            (Request::Inspect(_), Response::Inspect(inspected)) => lock.inspected(now_us, operation, inspected, floor),
            _ => Ok(()),
        };
        checked.map_err(|what| format!("lock {name} of {}: {what}", operation.group))
    }
}

fn lock_name(request: &Request) -> Option<&String> {
    match request {
        Request::Acquire(acquire) => Some(&acquire.lock),
        Request::Renew(renew) => Some(&renew.lock),
        Request::Release(release) => Some(&release.lock),
        Request::Inspect(inspect) => Some(&inspect.lock),
        _ => None,
    }
}

impl Lock {
    /// What a read says must be as new as everything that was answered before it was sent.
    fn inspected(&self, now_us: u64, operation: &Operation, inspected: &Inspected, floor: u64) -> Check {
        let Inspected { client, token } = inspected;
        if !client.is_empty() && *token < floor {
            return Err(format!("a read says that token {token} holds, but {floor} was given before it was sent"));
        }
        let answered = |grant: &Grant| {
            let mut answered = grant.leases.values().filter_map(|lease| lease.answered_us);
            answered.any(|answered_us| answered_us < operation.sent_us)
        };
        let holds = |grant: &&Grant| answered(grant) && grant.held_until_us() > now_us && grant.releasing_us.is_none();
        match self.grants.iter().find(|(_, grant)| client.is_empty() && holds(grant)) {
            Some((token, grant)) => {
                Err(format!("a read says that nobody holds it, but {} does, with token {token}", grant.client))
            }
            None => Ok(()),
        }
    }

    fn acquired(&mut self, now_us: u64, operation: &Operation, client: &str, granted: &Granted, floor: u64) -> Check {
        let Granted { token, lease_ms, .. } = *granted;
        if token <= floor {
            return Err(format!("token {token} was granted, but {floor} was granted before it was asked for"));
        }
        if let Some(other) = self.grants.get(&token) {
            return Err(format!("token {token} went to operations {} and {}", other.operation, operation.number));
        }
        self.highest_token = self.highest_token.max(token);
        let mut grant = Grant {
            operation: operation.number,
            client: client.to_string(),
            leases: BTreeMap::new(),
            releasing_us: None,
            released_us: None,
        };
        grant.answered(operation, now_us, lease_ms);
        self.grants.insert(token, grant);
        self.alone(now_us, token)
    }

    fn renewed(&mut self, now_us: u64, operation: &Operation, token: u64, granted: &Granted, floor: u64) -> Check {
        if granted.token != token {
            return Err(format!("a renewal changed token {token} into {}", granted.token));
        }
        if floor > token {
            return Err(format!("token {token} was renewed after the grant of {floor}"));
        }
        let Some(grant) = self.grants.get_mut(&token) else { return Ok(()) };
        if let Some(released_us) = grant.released_us.filter(|released_us| *released_us < operation.sent_us) {
            return Err(format!("token {token} was renewed after its release at {released_us} us"));
        }
        grant.answered(operation, now_us, granted.lease_ms);
        self.alone(now_us, token)
    }

    /// If this grant holds now, no other does.
    fn alone(&self, now_us: u64, token: u64) -> Check {
        if self.grants[&token].held_until_us() <= now_us {
            return Ok(());
        }
        let other = self.grants.iter().find(|(other, grant)| **other != token && grant.held_until_us() > now_us);
        match other {
            Some((other, grant)) => {
                Err(format!("tokens {token} and {other} both hold; the latter until {} us", grant.held_until_us()))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::lock::{Acquire, Release, Released, Renew};

    use super::super::history::History;
    use super::*;

    fn acquire(client: &str, lease_ms: u32) -> Acquire {
        Acquire { lock: "l".into(), client: client.into(), lease_ms, ..Acquire::default() }
    }

    fn granted(token: u64, lease_ms: u32) -> Response {
        Response::Acquire(Granted { token, lease_ms, ..Granted::default() })
    }

    fn release(client: &str, token: u64) -> Release {
        Release { lock: "l".into(), client: client.into(), token, ..Release::default() }
    }

    fn renew(token: u64, lease_ms: u32) -> Renew {
        Renew { lock: "l".into(), client: "a".into(), token, lease_ms, ..Renew::default() }
    }

    fn rejected(checked: Check, why: &str) {
        let what = checked.expect_err("a violation");
        assert!(what.contains(why), "{what}");
    }

    #[test]
    fn grants_after_release_and_after_the_lease_pass() {
        let mut history = History::new();
        history.run(0, acquire("a", 100), granted(5, 100)).unwrap();
        history.run(50, release("a", 5), Response::Release(Released { was_held: true, ..Released::default() })).unwrap();
        history.run(52, acquire("b", 100), granted(8, 100)).unwrap();
        history.run(152, acquire("c", 100), granted(9, 100)).unwrap();
        // Sent long ago: when its answer comes, its lease has run out.
        let early = history.send(153, acquire("d", 100));
        history.run(253, acquire("e", 100), granted(11, 100)).unwrap();
        history.end(255, &early, Verdict::Answered(granted(10, 100))).unwrap();
    }

    #[test]
    fn two_holders_are_rejected() {
        let mut history = History::new();
        history.run(0, acquire("a", 100), granted(5, 100)).unwrap();
        rejected(history.run(50, acquire("b", 100), granted(6, 100)), "both hold");
    }

    #[test]
    fn a_renewal_holds_longer() {
        let mut history = History::new();
        history.run(0, acquire("a", 100), granted(5, 100)).unwrap();
        let renewed = Response::Renew(Granted { token: 5, lease_ms: 100, ..Granted::default() });
        history.run(80, renew(5, 100), renewed).unwrap();
        rejected(history.run(150, acquire("b", 100), granted(6, 100)), "both hold");
    }

    #[test]
    fn a_renewal_may_shorten_the_lease_even_if_its_answer_is_lost() {
        let mut history = History::new();
        history.run(0, acquire("a", 1_000), granted(5, 1_000)).unwrap();
        let lost = history.send(10, renew(5, 50));
        history.end(20, &lost, Verdict::Unknown).unwrap();
        history.run(70, acquire("b", 100), granted(6, 100)).unwrap();
        let refused = history.send(80, renew(6, 10));
        history.end(81, &refused, Verdict::NotExecuted(trine_protocol::ErrorCode::NoLeader)).unwrap();
        rejected(history.run(100, acquire("c", 100), granted(7, 100)), "both hold");
    }

    #[test]
    fn tokens_grow_in_real_time_and_are_one_grants() {
        let mut history = History::new();
        history.run(0, acquire("a", 10), granted(5, 10)).unwrap();
        rejected(history.run(50, acquire("b", 10), granted(4, 10)), "before it was asked for");
        let mut history = History::new();
        let (a, b) = (history.send(0, acquire("a", 10)), history.send(0, acquire("b", 10)));
        history.end(1, &a, Verdict::Answered(granted(5, 10))).unwrap();
        rejected(history.end(40, &b, Verdict::Answered(granted(5, 10))), "went to operations");
    }

    #[test]
    fn a_late_renewal_is_rejected() {
        let renewed = Response::Renew(Granted { token: 5, lease_ms: 100, ..Granted::default() });
        let mut history = History::new();
        history.run(0, acquire("a", 10), granted(5, 10)).unwrap();
        history.run(50, acquire("b", 10), granted(6, 10)).unwrap();
        rejected(history.run(100, renew(5, 100), renewed.clone()), "after the grant of 6");
        let mut history = History::new();
        history.run(0, acquire("a", 100), granted(5, 100)).unwrap();
        history.run(10, release("a", 5), Response::Release(Released { was_held: true, ..Released::default() })).unwrap();
        rejected(history.run(20, renew(5, 100), renewed), "after its release");
    }
}
