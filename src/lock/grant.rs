//! Taking a lock: at once, behind others, or once more.
//!
//! Whoever asks comes after those who wait already, also where the lock would admit it: so a stream of readers does not keep a writer
//! out, and who asks for many permits is not overtaken for ever by those who ask for one.

use std::sync::Arc;

use trine_protocol::lock::{Acquire, Granted, Mode, Previous};
use trine_protocol::{Error, ErrorCode};

use super::hold::{Held, NEVER_MS, Rest};
use super::state::{State, granted};
use super::stored::Record;
use super::{Answer, Caller};
use crate::ids::At;
use crate::rules::{Rule, Rules};

impl State {
    pub(super) fn acquire<R: Rules>(&mut self, at: At, by: Caller, acquire: &Acquire) -> Result<Answer, Error> {
        acquire.check()?;
        if acquire.reenter != 0 {
            return self.reenter(at, acquire).map(Answer::Granted);
        }
        for name in acquire.locks() {
            self.check_size(name, acquire.mode)?;
        }
        let refusal = acquire.locks().find_map(|name| self.refusal::<R>(at, name, acquire));
        let Some(refusal) = refusal else {
            self.check_room(acquire)?;
            return Ok(Answer::Granted(self.grant(at, by, acquire)));
        };
        self.counts.contended += 1;
        if acquire.wait_ms == 0 {
            return Err(refusal);
        }
        self.check_room(acquire)?;
        self.wait::<R>(at, by, acquire)
    }

    /// Why this client cannot have this lock at once; None where it can.
    fn refusal<R: Rules>(&self, at: At, name: &str, acquire: &Acquire) -> Option<Error> {
        let lock = self.locks.get(name)?;
        if self.is_spent(at, name, &acquire.client) {
            let message = format!("'{}' was granted '{name}' in this very instant", acquire.client);
            return Some(Error::new(ErrorCode::LockHeld, message).with_hint(acquire.client.as_str()));
        }
        let held = |message: String, hint: &str| Some(Error::new(ErrorCode::LockHeld, message).with_hint(hint));
        if !lock.admits(acquire.mode, &acquire.client) {
            let first = &lock.holds.first()?.client;
            let message = match acquire.mode {
                Mode::Permits { count, of } => format!("of the {of} permits of '{name}' fewer than {count} are left"),
                Mode::Exclusive | Mode::Shared => format!("lock '{name}' is held by '{first}'"),
            };
            return held(message, first);
        }
        if lock.free_ms > at.stamp_ms {
            return held(
                format!("lock '{name}' is kept for a while, because its last holder did not give it back"),
                "",
            );
        }
        if !R::without(Rule::LineJumped) && !lock.line.is_empty() {
            let first = lock.line.first().map(|ticket| self.waiters.get(*ticket).acquire.client.as_str());
            let message = format!("lock '{name}' is waited for by {} others", lock.line.len());
            return held(message, first.unwrap_or_default());
        }
        None
    }

    /// A semaphore has one size as long as anybody has to do with it.
    fn check_size(&self, name: &str, mode: Mode) -> Result<(), Error> {
        let (Mode::Permits { of, .. }, Some(lock)) = (mode, self.locks.get(name)) else { return Ok(()) };
        let of_waiter = |ticket: &u64| self.waiters.get(*ticket).acquire.mode;
        let mut modes = lock.holds.iter().map(|held| held.mode).chain(lock.line.iter().map(of_waiter));
        let other = modes.find_map(|other| match other {
            Mode::Permits { of: other, .. } if other != of => Some(other),
            _ => None,
        });
        match other {
            None => Ok(()),
            Some(other) => {
                let message = format!("'{name}' has {other} permits as long as any is held or waited for, not {of}");
                Err(Error::new(ErrorCode::InvalidArgument, message).with_hint(other.to_string()))
            }
        }
    }

    /// Whether there is room for the names of this acquire that are not there yet.
    fn check_room(&self, acquire: &Acquire) -> Result<(), Error> {
        let new = acquire.locks().filter(|name| !self.locks.contains_key(*name)).count();
        let locks_max = self.bounds.locks_max;
        match self.locks.len() + new > locks_max {
            true => {
                let message = format!(
                    "the group has {} locks of {locks_max} that it may have, and {new} more are asked for",
                    self.locks.len()
                );
                Err(Error::new(ErrorCode::Overloaded, message))
            }
            false => Ok(()),
        }
    }

    /// Makes the grant of all locks of an acquire. That nothing is in the way was looked at in this very entry.
    pub(super) fn grant(&mut self, at: At, by: Caller, acquire: &Acquire) -> Granted {
        let client: Arc<str> = acquire.client.as_str().into();
        let rest = Rest::of(acquire, by.session);
        let deadline_ms = match acquire.through_session {
            true => NEVER_MS,
            false => at.stamp_ms.saturating_add(u64::from(acquire.lease_ms)),
        };
        let held = Held { client, token: at.token(), granted_ms: at.stamp_ms, deadline_ms, mode: acquire.mode, rest };
        let mut answer = granted(&held, acquire.lease_ms);
        for name in acquire.locks() {
            let name = self.locks.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
            answer.previous.extend(self.previous(&name));
            self.put(&name, held.clone());
            self.counts.granted += 1;
        }
        answer
    }

    /// How the last grant of a lock ended, where that is known.
    pub(super) fn previous(&self, name: &str) -> Option<Previous> {
        let past = self.past.get(name)?;
        Some(Previous {
            lock: name.to_owned(),
            ending: past.ending,
            client: past.client.clone(),
            token: past.token,
            left: past.left.clone().into(),
        })
    }

    /// A holder enters its grant once more. The lease begins anew, and is never shortened.
    fn reenter(&mut self, at: At, acquire: &Acquire) -> Result<Granted, Error> {
        let Acquire { lock: name, client, reenter: token, lease_ms, mode, .. } = acquire;
        let held = self.mine(name, client, *token)?;
        if held.mode != *mode {
            let message = format!(
                "lock '{name}' is held as {:?} and is not entered again as {mode:?}: release it first",
                held.mode
            );
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        if held.depth() == u32::MAX {
            return Err(Error::new(
                ErrorCode::Overloaded,
                format!("lock '{name}' was entered as often as can be counted"),
            ));
        }
        let deadline_ms = match held.deadline_ms {
            NEVER_MS => NEVER_MS,
            deadline_ms => deadline_ms.max(at.stamp_ms.saturating_add(u64::from(*lease_ms))),
        };
        let held = self.change(name, client, *token, |held| {
            held.rest.get_or_insert_default().reentered += 1;
            held.deadline_ms = deadline_ms;
        });
        let answer = granted(held, *lease_ms);
        self.counts.reentered += 1;
        Ok(answer)
    }

    /// Changes a grant that was looked up before, and keeps the indexes.
    pub(super) fn change(&mut self, name: &str, client: &str, token: u64, change: impl FnOnce(&mut Held)) -> &Held {
        let (name, _) = self.locks.get_key_value(name).expect("looked up before");
        let name = Arc::clone(name);
        self.touch(Record::Lock(Arc::clone(&name)));
        let lock = self.locks.get_mut(&name).expect("looked up before");
        let this = |held: &Held| held.token == token && *held.client == *client;
        let place = lock.holds.iter().position(this).expect("looked up before");
        let old_ms = lock.holds[place].deadline_ms;
        change(&mut lock.holds[place]);
        let shared = |held: &Held| held.token == token && held.deadline_ms == old_ms;
        if !lock.holds.iter().any(shared) {
            self.deadlines.remove(&(old_ms, super::state::Due::Hold(Arc::clone(&name), token)));
        }
        let held = lock.holds[place].clone();
        self.list(&name, &held);
        &self.locks[&name].holds[place]
    }

    /// The grant that a client means.
    ///
    /// # Errors
    /// `LockNotHeld`, `LockHeldByOther`, `StaleToken`; `InvalidArgument` where no grant can have had that token.
    pub(super) fn mine(&self, name: &str, client: &str, token: u64) -> Result<&Held, Error> {
        let holds = self.locks.get(name).map(|lock| lock.holds.as_slice()).unwrap_or_default();
        let Some(first) = holds.first() else {
            return Err(Error::new(ErrorCode::LockNotHeld, format!("nobody holds lock '{name}'")));
        };
        let mut own = holds.iter().filter(|held| *held.client == *client);
        let Some(newest) = own.clone().map(|held| held.token).max() else {
            let message = format!("lock '{name}' is held by '{}'", first.client);
            return Err(Error::new(ErrorCode::LockHeldByOther, message));
        };
        own.find(|held| held.token == token).ok_or_else(|| match token < newest {
            true => {
                let message = format!("token {token} is older than that of the grant, {newest}");
                Error::new(ErrorCode::StaleToken, message)
            }
            false => {
                let message = format!("token {token} was never given out, that of the grant is {newest}");
                Error::new(ErrorCode::InvalidArgument, message)
            }
        })
    }

    /// Whether the first in a line may have all that it waits for.
    pub(super) fn may_have(&mut self, at: At, ticket: u64) -> bool {
        let acquire = self.waiters.get(ticket).acquire.clone();
        let first = |name: &str| self.locks.get(name).is_some_and(|lock| lock.line.first() == Some(&ticket));
        let free = acquire.locks().all(|name| first(name) && self.is_free(at, name, acquire.mode, &acquire.client));
        self.put_off(at, &acquire);
        free
    }

    /// Where a grant by this entry would have a token that is used up, the line is looked at by the next one, which has another.
    pub(super) fn put_off(&mut self, at: At, acquire: &Acquire) {
        let spent = |name: &&str| self.is_spent(at, name, &acquire.client);
        let names: Vec<Arc<str>> = acquire.locks().filter(spent).map(Arc::from).collect();
        self.deadlines.extend(names.into_iter().map(|name| (at.stamp_ms, super::state::Due::Line(name))));
    }
}
