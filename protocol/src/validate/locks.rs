//! The fields of the lock manager's requests.

use super::{as_u32, at_most, in_range, name};
use crate::command::Request;
use crate::error::{Error, ErrorCode};
use crate::limits::{
    LEASE_MS_MAX, LEFT_BYTES_MAX, LOCK_DELAY_MS_MAX, LOCKS_TOGETHER_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX, PERMITS_MAX,
};
use crate::lock::{Acquire, IfToken, Mode, Release, Renew};

impl Request {
    /// The part of [`Request::check`] that is about locks.
    pub(super) fn check_lock(&self) -> Result<(), Error> {
        match self {
            Self::Acquire(acquire) => acquire.check(),
            Self::Release(one) => release(one),
            Self::Renew(one) => renew(one),
            Self::Inspect(inspect) => name("lock", &inspect.lock),
            Self::Cancel(cancel) => {
                names(&cancel.lock, &cancel.also)?;
                name("client", &cancel.client)
            }
            Self::ForceRelease(force) => name("lock", &force.lock),
            Self::Fence(fence) => {
                name("resource", &fence.resource)?;
                token(fence.token)
            }
            Self::ExplainLock(explain) => name("lock", &explain.lock),
            Self::ExplainClient(explain) => name("client", &explain.client),
            Self::ListLocks(list) => {
                at_most("prefix", list.prefix.len(), NAME_BYTES_MAX)?;
                at_most("after", list.after.len(), NAME_BYTES_MAX)
            }
            Self::Observe(observe) => name("lock", &observe.lock),
            _ => Ok(()),
        }
    }
}

impl Acquire {
    /// Looks whether every field is in its range, and goes together with the others.
    ///
    /// # Errors
    /// `TooLarge` and `InvalidArgument`, which say what is wrong and what would be right.
    pub fn check(&self) -> Result<(), Error> {
        names(&self.lock, &self.also)?;
        name("client", &self.client)?;
        in_range("lease_ms", self.lease_ms, 1, LEASE_MS_MAX)?;
        in_range("delay_ms", self.delay_ms, 0, LOCK_DELAY_MS_MAX)?;
        at_most("note", self.note.len(), NOTE_BYTES_MAX)?;
        if let Mode::Permits { count, of } = self.mode {
            in_range("of", of, 1, PERMITS_MAX)?;
            in_range("count", count, 1, of)?;
        }
        if self.reenter != 0 && !self.also.is_empty() {
            return Err(wrong("a grant is entered again with one lock: `also` is to be empty".to_owned()));
        }
        if self.reenter != 0 && matches!(self.mode, Mode::Permits { .. }) {
            return Err(wrong("permits are not entered again: take more of them, or share what was taken".to_owned()));
        }
        Ok(())
    }
}

pub(super) fn release(release: &Release) -> Result<(), Error> {
    names(&release.lock, &release.also)?;
    name("client", &release.client)?;
    at_most("left", release.left.len(), LEFT_BYTES_MAX)
}

pub(super) fn renew(renew: &Renew) -> Result<(), Error> {
    names(&renew.lock, &renew.also)?;
    name("client", &renew.client)?;
    in_range("lease_ms", renew.lease_ms, 1, LEASE_MS_MAX)
}

/// A lock's name and those of the others.
fn names(lock: &str, also: &[String]) -> Result<(), Error> {
    name("lock", lock)?;
    in_range("also", as_u32(also.len()), 0, as_u32(LOCKS_TOGETHER_MAX - 1))?;
    for (place, other) in also.iter().enumerate() {
        name("lock", other)?;
        if other == lock || also[..place].contains(other) {
            return Err(wrong(format!("lock '{other}' is named twice, once is allowed")));
        }
    }
    Ok(())
}

fn token(token: u64) -> Result<(), Error> {
    match token {
        0 => Err(wrong("token is 0, that of a grant is at least 1".to_owned())),
        _ => Ok(()),
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

/// The grant that a write demands.
pub(super) fn if_token(demanded: &Option<IfToken>) -> Result<(), Error> {
    let Some(demanded) = demanded else { return Ok(()) };
    name("if_token.lock", &demanded.lock)?;
    token(demanded.token)
}
