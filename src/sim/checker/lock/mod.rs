//! What a lock promises: those who hold it together may, as clients count it; tokens grow from grant to grant; nobody is overtaken; and
//! what is done under a token is not done after a later one.
//!
//! A client holds a lock from the answer until the lease, counted from *before its first send* (of a wait: before the last send that
//! was answered `StillWaiting`), has run out on a clock that may be slow by the drift bound; or until it sends a release. So a client's own view of
//! its hold must always be inside the cluster's: two such views that exclude each other never overlap.

mod grant;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use trine_protocol::lock::{Acquire, Inspected};
use trine_protocol::{Request, Response};

use super::{Check, Operation, Verdict};
use crate::ids::GroupId;

use grant::Grant;

/// Every lock of the cluster, as its clients saw it.
#[derive(Debug, Default)]
pub(crate) struct LockChecker {
    locks: BTreeMap<(GroupId, String), Lock>,
    /// The highest token that each resource has let pass, and by operation what it was when that was sent.
    fences: BTreeMap<(GroupId, String), u64>,
    fenced: BTreeMap<u64, u64>,
}

#[derive(Debug, Default)]
struct Lock {
    /// The highest token of an answered grant.
    highest_token: u64,
    /// Of each operation without a verdict: what was known when it was sent.
    floors: BTreeMap<u64, Floor>,
    /// By the acquire that got it.
    grants: BTreeMap<u64, Grant>,
    /// Forced releases that may end any grant, also one that is made only now.
    forcing: BTreeSet<u64>,
    /// When the last of them was answered.
    forced_us: Option<u64>,
    /// The same of releases that name no token, and the clients whose grants they end.
    leaving: BTreeMap<u64, String>,
    left_us: BTreeMap<String, u64>,
}

/// What was known when an operation was sent.
#[derive(Clone, Debug, Default)]
struct Floor {
    /// The highest token of an answered grant.
    token: u64,
    /// Why the grant that it names was over by then, where it was.
    over: Option<String>,
}

/// The locks that a request names.
fn names(request: &Request) -> Vec<&String> {
    let several = |first, also| std::iter::once(first).chain(also).collect();
    match request {
        Request::Acquire(acquire) => several(&acquire.lock, &acquire.also),
        Request::Renew(renew) => several(&renew.lock, &renew.also),
        Request::Release(release) => several(&release.lock, &release.also),
        Request::Inspect(inspect) => vec![&inspect.lock],
        Request::ForceRelease(force) => vec![&force.lock],
        other => other.demands().map(|of| &of.lock).into_iter().collect(),
    }
}

/// The token that a request counts on.
fn token_of(request: &Request) -> u64 {
    match request {
        Request::Renew(renew) => renew.token,
        Request::Acquire(acquire) => acquire.reenter,
        other => other.demands().map_or(0, |of| of.token),
    }
}

impl LockChecker {
    /// A client has sent an operation.
    pub(crate) fn sent(&mut self, operation: &Operation) {
        if let Request::Fence(fence) = &operation.request {
            let highest = self.fences.get(&(operation.group, fence.resource.clone())).copied().unwrap_or(0);
            self.fenced.insert(operation.number, highest);
        }
        for name in names(&operation.request) {
            let lock = self.locks.entry((operation.group, name.clone())).or_default();
            lock.sent(operation);
        }
    }

    /// A client knows what became of an operation.
    pub(crate) fn ended(&mut self, now_us: u64, operation: &Operation, verdict: &Verdict) -> Check {
        if let (Request::Fence(fence), Some(highest)) = (&operation.request, self.fenced.remove(&operation.number)) {
            let passed = matches!(verdict, Verdict::Answered(_));
            if passed && fence.token < highest {
                return Err(format!("'{}' let token {} pass after {highest}", fence.resource, fence.token));
            }
            if passed {
                let kept = self.fences.entry((operation.group, fence.resource.clone())).or_default();
                *kept = fence.token.max(*kept);
            }
        }
        for name in names(&operation.request) {
            let lock = self.locks.entry((operation.group, name.clone())).or_default();
            let checked = lock.ended(now_us, operation, verdict);
            checked.map_err(|what| format!("lock {name} of {}: {what}", operation.group))?;
        }
        Ok(())
    }
}

impl Lock {
    fn sent(&mut self, operation: &Operation) {
        match &operation.request {
            Request::Release(release) => {
                if release.token == 0 {
                    self.leaving.insert(operation.number, release.client.clone());
                }
                let meant = |grant: &&mut Grant| {
                    grant.client == release.client && (release.token == 0 || release.token == grant.token)
                };
                for grant in self.grants.values_mut().filter(meant) {
                    grant.releasing_us.get_or_insert(operation.sent_us);
                }
            }
            Request::ForceRelease(_) => {
                self.forcing.insert(operation.number);
                for grant in self.grants.values_mut() {
                    grant.releasing_us.get_or_insert(operation.sent_us);
                }
            }
            request => {
                if let Request::Renew(renew) = request {
                    let of = |grant: &&mut Grant| grant.token == renew.token && grant.client == renew.client;
                    if let Some(grant) = self.grants.values_mut().find(of) {
                        grant.renewing(operation, renew.lease_ms);
                    }
                }
                let floor =
                    Floor { token: self.highest_token, over: self.why_over(token_of(request), operation.sent_us) };
                self.floors.insert(operation.number, floor);
            }
        }
    }

    /// Why every grant with this token is certainly over.
    fn why_over(&self, token: u64, now_us: u64) -> Option<String> {
        let of_token: Vec<&Grant> = self.grants.values().filter(|grant| grant.token == token).collect();
        let mode = of_token.first()?.mode;
        let later =
            self.grants.values().find(|grant| grant.token > token && grant.excludes(mode) && !grant.counts(mode));
        if let Some(later) = later {
            return Some(format!("token {} was granted to {}", later.token, later.client));
        }
        let released = |grant: &&Grant| grant.released_us.is_some_and(|released_us| released_us < now_us);
        let all = of_token.iter().all(released);
        // Others may have got the same token, and their answers may be on the way.
        (all && mode == trine_protocol::lock::Mode::Exclusive).then(|| format!("token {token} was released"))
    }

    fn ended(&mut self, now_us: u64, operation: &Operation, verdict: &Verdict) -> Check {
        let floor = self.floors.remove(&operation.number).unwrap_or_default();
        match (verdict, &operation.request) {
            (Verdict::NotExecuted(_), Request::Renew(renew)) => {
                let of = |grant: &&mut Grant| grant.token == renew.token && grant.client == renew.client;
                if let Some(grant) = self.grants.values_mut().find(of) {
                    grant.leases.remove(&operation.number);
                }
            }
            (Verdict::NotExecuted(_) | Verdict::Answered(_), Request::ForceRelease(_)) => {
                self.forcing.remove(&operation.number);
                self.forced_us = Some(now_us);
            }
            (Verdict::NotExecuted(_) | Verdict::Answered(_), Request::Release(_)) => {
                if let Some(client) = self.leaving.remove(&operation.number) {
                    self.left_us.insert(client, now_us);
                }
            }
            _ => {}
        }
        let Verdict::Answered(response) = verdict else { return Ok(()) };
        match (&operation.request, response) {
            (Request::Acquire(acquire), Response::Acquire(granted)) if acquire.reenter != 0 => {
                self.still(acquire.reenter, granted.token, &floor, "entered again")
            }
            (Request::Acquire(acquire), Response::Acquire(granted)) => {
                self.acquired(now_us, operation, acquire, granted.token, &floor)
            }
            (Request::Renew(renew), Response::Renew(granted)) => {
                self.still(renew.token, granted.token, &floor, "renewed")?;
                self.renewed(now_us, operation, renew.token, &renew.client, granted.lease_ms)
            }
            (Request::Release(release), Response::Release(released))
                if released.was_held && released.depth == 0 && release.token != 0 =>
            {
                let of = |grant: &&mut Grant| grant.token == release.token && grant.client == release.client;
                if let Some(grant) = self.grants.values_mut().find(of) {
                    grant.released_us.get_or_insert(now_us);
                }
                Ok(())
            }
            (Request::Inspect(_), Response::Inspect(inspected)) => self.inspected(now_us, operation, inspected, &floor),
            (request, _) => match (request.demands(), &floor.over) {
                (Some(of), Some(why)) => {
                    Err(format!("a write was done under token {}, but {why} before it was sent", of.token))
                }
                _ => Ok(()),
            },
        }
    }

    /// Something was done with a grant: it cannot have been over when that was sent.
    fn still(&self, token: u64, answered: u64, floor: &Floor, what: &str) -> Check {
        if answered != token {
            return Err(format!("token {token} was {what} and is {answered} now"));
        }
        match &floor.over {
            Some(why) => Err(format!("token {token} was {what}, but {why} before")),
            None => Ok(()),
        }
    }

    /// What a read says must be as new as everything that was answered before it was sent.
    fn inspected(&self, now_us: u64, operation: &Operation, inspected: &Inspected, floor: &Floor) -> Check {
        let Inspected { client, token } = inspected;
        let floor_token = floor.token;
        let later = |grant: &&Grant| grant.token == floor_token && grant.token > *token && grant.is_alone();
        if let Some(later) = self.grants.values().find(|grant| !client.is_empty() && later(grant)) {
            let later = later.token;
            return Err(format!("a read says that token {token} holds, but {later} was given before it was sent"));
        }
        let holds = |grant: &&Grant| grant.was_answered_before(operation.sent_us) && grant.holds_for_certain(now_us);
        match self.grants.values().find(|grant| client.is_empty() && holds(grant)) {
            Some(grant) => {
                let (client, token) = (&grant.client, grant.token);
                Err(format!("a read says that nobody holds it, but {client} does, with token {token}"))
            }
            None => Ok(()),
        }
    }

    fn acquired(&mut self, now_us: u64, operation: &Operation, acquire: &Acquire, token: u64, floor: &Floor) -> Check {
        if token <= floor.token {
            let floor = floor.token;
            return Err(format!("token {token} was granted, but {floor} was granted before it was asked for"));
        }
        let same =
            |other: &&Grant| other.token == token && (other.excludes(acquire.mode) || other.client == acquire.client);
        if let Some(other) = self.grants.values().find(|other| same(other) && !other.counts(acquire.mode)) {
            return Err(format!("token {token} went to {} and to {}", other.client, acquire.client));
        }
        // Who waited was in line all the time: nobody who came later was served before.
        if let Some(waiting_us) = operation.waiting_us {
            let overtook = |other: &&Grant| other.sent_us > waiting_us && other.token < token;
            if let Some(other) = self.grants.values().find(overtook) {
                let (client, its) = (&other.client, other.token);
                return Err(format!("{client} came later and got token {its}, before {} got {token}", acquire.client));
            }
        }
        self.highest_token = self.highest_token.max(token);
        let mut grant = Grant::of(now_us, operation, acquire, token);
        // A forced release that was under way at any time since, or one of this client's that names no token, may have ended this grant already.
        let since = |over_us: u64| over_us >= operation.sent_us;
        let forced = self.forced_us.is_some_and(since) || !self.forcing.is_empty();
        let left = self.left_us.get(&acquire.client).copied().is_some_and(since);
        if forced || left || self.leaving.values().any(|client| *client == acquire.client) {
            grant.releasing_us = Some(operation.from_us);
        }
        self.grants.insert(operation.number, grant);
        self.together(now_us, operation.number)
    }

    fn renewed(&mut self, now_us: u64, operation: &Operation, token: u64, client: &str, lease_ms: u32) -> Check {
        let of = |(_, grant): &(&u64, &mut Grant)| grant.token == token && grant.client == client;
        let Some((number, grant)) = self.grants.iter_mut().find(of) else { return Ok(()) };
        if let Some(released_us) = grant.released_us.filter(|released_us| *released_us < operation.sent_us) {
            return Err(format!("token {token} was renewed after its release at {released_us} us"));
        }
        grant.answered(operation.number, operation.sent_us, now_us, lease_ms);
        let number = *number;
        self.together(now_us, number)
    }

    /// If this grant holds now, all others that do may.
    fn together(&self, now_us: u64, number: u64) -> Check {
        let this = &self.grants[&number];
        if this.held_until_us() <= now_us {
            return Ok(());
        }
        let others = self.grants.iter().filter(|(other, grant)| **other != number && grant.held_until_us() > now_us);
        let mut permits = this.permits();
        for (_, other) in others {
            let (token, until_us) = (other.token, other.held_until_us());
            if this.excludes(other.mode) && !this.counts(other.mode) {
                return Err(format!("tokens {} and {token} both hold; the latter until {until_us} us", this.token));
            }
            permits += other.permits();
        }
        match this.permits_of() {
            Some(of) if permits > of => Err(format!("{permits} permits are held, of {of} that there are")),
            _ => Ok(()),
        }
    }
}
