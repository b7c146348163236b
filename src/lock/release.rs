//! The ends of a grant that somebody asks for, and its renewal.

use std::collections::BTreeSet;
use std::sync::Arc;

use trine_protocol::limits::{LEASE_MS_MAX, LEFT_BYTES_MAX, LOCKS_TOGETHER_MAX, NAME_BYTES_MAX};
use trine_protocol::lock::{Ending, ForceRelease, ForceReleased, Granted, Release, Released, Renew};
use trine_protocol::{Error, ErrorCode};

use super::hold::{Held, NEVER_MS};
use super::past::Past;
use super::state::{State, granted};
use crate::ids::At;

impl State {
    pub(super) fn release(&mut self, at: At, release: &Release) -> Result<Released, Error> {
        check_together(&release.lock, &release.also, &release.client)?;
        if release.left.len() > LEFT_BYTES_MAX {
            let message = format!("left has {} bytes, at most {LEFT_BYTES_MAX} are allowed", release.left.len());
            return Err(Error::new(ErrorCode::TooLarge, message));
        }
        let names = || std::iter::once(&release.lock).chain(&release.also);
        let mut depths = Vec::new();
        for name in names() {
            depths.push(self.check_release(name, release)?);
        }
        let depth = depths.iter().copied().max().unwrap_or(0);
        if depth > 1 {
            for (name, _) in names().zip(&depths).filter(|(_, depth)| **depth > 1) {
                self.change(name, &release.client, release.token, Held::leave_once);
            }
            return Ok(Released { was_held: true, depth: depth - 1 });
        }
        let (mut was_held, mut changed) = (false, BTreeSet::new());
        for name in names() {
            let name: Arc<str> = name.as_str().into();
            let meant =
                |held: &Held| *held.client == *release.client && (release.token == 0 || held.token == release.token);
            let gone = self.end(at, &name, Ending::Released, meant);
            self.counts.released += gone.len() as u64;
            was_held |= !gone.is_empty();
            if let Some(held) = gone.last() {
                self.leave(at, &name, held, release);
            }
            changed.insert(name);
        }
        self.hand_on(at, changed);
        Ok(Released { was_held, depth: 0 })
    }

    /// What the next holder finds. A clean end that left nothing needs no record.
    fn leave(&mut self, at: At, name: &Arc<str>, held: &Held, release: &Release) {
        if release.left.is_empty() {
            return self.forget(name);
        }
        let past = Past {
            ending: Ending::Released,
            client: held.client.to_string(),
            token: held.token,
            left: release.left.to_vec(),
            ended_ms: at.stamp_ms,
        };
        self.remember(name, past);
    }

    /// Whether a release may be done; says how deep its grant is, 0 where nobody holds the lock.
    fn check_release(&self, name: &str, release: &Release) -> Result<u32, Error> {
        let holds = self.locks.get(name).map(|lock| lock.holds.as_slice()).unwrap_or_default();
        let Some(first) = holds.first() else { return Ok(0) };
        if release.token != 0 {
            return self.mine(name, &release.client, release.token).map(Held::depth);
        }
        if !holds.iter().any(|held| *held.client == *release.client) {
            let message = format!("lock '{name}' is held by '{}'", first.client);
            return Err(Error::new(ErrorCode::LockHeldByOther, message));
        }
        Ok(1)
    }

    pub(super) fn renew(&mut self, at: At, renew: &Renew) -> Result<Granted, Error> {
        check_together(&renew.lock, &renew.also, &renew.client)?;
        if !(1..=LEASE_MS_MAX).contains(&renew.lease_ms) {
            let message = format!("lease_ms is {}, 1 to {LEASE_MS_MAX} is allowed", renew.lease_ms);
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let names = || std::iter::once(&renew.lock).chain(&renew.also);
        for name in names() {
            let held = self.mine(name, &renew.client, renew.token)?;
            if held.deadline_ms == NEVER_MS {
                let message =
                    format!("lock '{name}' has no lease: it is held as long as session {} lives", held.session());
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
        }
        let deadline_ms = at.stamp_ms.saturating_add(u64::from(renew.lease_ms));
        let mut answer = Granted::default();
        for name in names() {
            let held = self.change(name, &renew.client, renew.token, |held| held.deadline_ms = deadline_ms);
            let of_one = granted(held, renew.lease_ms);
            if answer.token == 0 {
                answer = of_one;
            }
            self.counts.renewed += 1;
        }
        Ok(answer)
    }

    pub(super) fn force_release(&mut self, at: At, force: &ForceRelease) -> Result<ForceReleased, Error> {
        check_name("lock", &force.lock)?;
        let name: Arc<str> = force.lock.as_str().into();
        let gone = self.end(at, &name, Ending::Forced, |_| true);
        self.counts.forced += gone.len() as u64;
        self.hand_on(at, BTreeSet::from([name]));
        let holders = gone.iter().map(|held| held.client.to_string()).collect();
        Ok(ForceReleased { holders, token: at.token() })
    }
}

fn check_together(lock: &str, also: &[String], client: &str) -> Result<(), Error> {
    check_name("lock", lock)?;
    check_name("client", client)?;
    if also.len() >= LOCKS_TOGETHER_MAX {
        let message = format!("{} locks are named, at most {LOCKS_TOGETHER_MAX} are allowed", also.len() + 1);
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    also.iter().try_for_each(|name| check_name("lock", name))
}

pub(super) fn check_name(what: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, format!("the {what}'s name is empty")));
    }
    if name.len() > NAME_BYTES_MAX {
        let message = format!("the {what}'s name has {} bytes, at most {NAME_BYTES_MAX} are allowed", name.len());
        return Err(Error::new(ErrorCode::TooLarge, message));
    }
    Ok(())
}
