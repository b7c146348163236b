//! The locks of one group: what a command does to them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trine_protocol::limits::{LEASE_MS_MAX, NAME_BYTES_MAX};
use trine_protocol::lock::{Acquire, Granted, Release, Released, Renew};
use trine_protocol::{Error, ErrorCode};

use super::{Answer, Command, ENDED_MAX, LOCKS_MAX};
use crate::ids::At;
use crate::record::{self, BadRecord, Change};

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who holds it.
    pub client: Box<str>,
    /// The fencing token of the grant.
    pub token: u64,
    /// Log time of the grant, in milliseconds. A renewal leaves it.
    pub granted_ms: u64,
    /// Log time at which the lease ends, in milliseconds.
    pub deadline_ms: u64,
}

/// [`Held`] as it stands in a record.
#[derive(Serialize, Deserialize)]
struct StoredLock {
    client: String,
    token: u64,
    granted_ms: u64,
    deadline_ms: u64,
}

/// All locks of a group, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Locks that are held.
    pub held: u64,
    /// Log time in milliseconds at which the one was granted that is held for longest.
    pub oldest_granted_ms: Option<u64>,
}

/// What was done to the locks of a group since this state was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Locks granted.
    pub granted: u64,
    /// Leases begun anew.
    pub renewed: u64,
    /// Locks given back by their holders.
    pub released: u64,
    /// Locks whose lease ran out.
    pub expired: u64,
    /// Requests for a lock that was held.
    pub contended: u64,
}

/// A lock that is held no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How long it was held, in milliseconds of log time.
    pub held_ms: u64,
    /// Whether its lease ran out.
    pub expired: bool,
}

/// All locks of one group. Every replica applies the same commands to it and gets the same answers.
#[derive(Clone, Debug)]
pub struct State {
    /// How many it takes. A field only so that tests need not fill a million places.
    pub(super) locks_max: usize,
    locks: BTreeMap<Arc<str>, Held>,
    /// The locks in the order of their grants: a token belongs to one entry and an entry grants one lock.
    by_token: BTreeMap<u64, Arc<str>>,
    /// (deadline, token) of each lock.
    deadlines: BTreeSet<(u64, u64)>,
    /// Locks that were touched since [`State::take_changes`], and whether each has a record.
    dirty: BTreeMap<Arc<str>, bool>,
    counts: Counts,
    /// The locks that ended since [`State::take_ended`], at most [`ENDED_MAX`] of them.
    ended: Vec<Ended>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            locks_max: LOCKS_MAX,
            locks: BTreeMap::new(),
            by_token: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            dirty: BTreeMap::new(),
            counts: Counts::default(),
            ended: Vec::new(),
        }
    }
}

impl State {
    /// Applies one command. [`State::expire`] must have seen the entry's stamp before.
    ///
    /// # Errors
    /// Every one is an answer, the same on each replica: `InvalidArgument`, `TooLarge`, `Overloaded`, `LockHeld` with the
    /// holder as its hint, `LockNotHeld`, `LockHeldByOther`, `StaleToken`.
    pub fn apply(&mut self, at: At, command: &Command) -> Result<Answer, Error> {
        match command {
            Command::Acquire(acquire) => self.acquire(at, acquire).map(Answer::Granted),
            Command::Release(release) => self.release(at, release).map(Answer::Released),
            Command::Renew(renew) => self.renew(at, renew).map(Answer::Granted),
        }
    }

    fn acquire(&mut self, at: At, acquire: &Acquire) -> Result<Granted, Error> {
        check_names(&acquire.lock, &acquire.client)?;
        check_lease(acquire.lease_ms)?;
        if let Some(held) = self.locks.get(acquire.lock.as_str()) {
            self.counts.contended += 1;
            let message = format!("lock '{}' is held by '{}'", acquire.lock, held.client);
            return Err(Error::new(ErrorCode::LockHeld, message).with_hint(&*held.client));
        }
        if self.locks.len() >= self.locks_max {
            let message = format!("the group has {} locks held, as many as it may", self.locks_max);
            return Err(Error::new(ErrorCode::Overloaded, message));
        }
        let token = at.token();
        let last_token = self.by_token.last_key_value().map_or(0, |(token, _)| *token);
        assert!(token > last_token, "token {token} after {last_token}");
        let (client, lock) = (acquire.client.as_str().into(), Arc::from(acquire.lock.as_str()));
        let deadline_ms = at.stamp_ms.saturating_add(u64::from(acquire.lease_ms));
        self.touch(&lock);
        self.put(lock, Held { client, token, granted_ms: at.stamp_ms, deadline_ms });
        self.counts.granted += 1;
        Ok(Granted { token, lease_ms: acquire.lease_ms })
    }

    fn release(&mut self, at: At, release: &Release) -> Result<Released, Error> {
        check_names(&release.lock, &release.client)?;
        let Some(held) = self.locks.get(release.lock.as_str()) else {
            return Ok(Released { was_held: false });
        };
        check_holder(held, &release.lock, &release.client)?;
        if release.token != 0 {
            check_token(held, release.token)?;
        }
        let (token, held_ms) = (held.token, at.stamp_ms.saturating_sub(held.granted_ms));
        self.remove(token);
        self.counts.released += 1;
        self.end(Ended { held_ms, expired: false });
        Ok(Released { was_held: true })
    }

    fn renew(&mut self, at: At, renew: &Renew) -> Result<Granted, Error> {
        check_names(&renew.lock, &renew.client)?;
        check_lease(renew.lease_ms)?;
        let Some((lock, held)) = self.locks.get_key_value(renew.lock.as_str()) else {
            return Err(Error::new(ErrorCode::LockNotHeld, format!("nobody holds lock '{}'", renew.lock)));
        };
        check_holder(held, &renew.lock, &renew.client)?;
        check_token(held, renew.token)?;
        let lock = Arc::clone(lock);
        self.touch(&lock);
        let held = self.locks.get_mut(&lock).expect("looked up above");
        self.deadlines.remove(&(held.deadline_ms, held.token));
        held.deadline_ms = at.stamp_ms.saturating_add(u64::from(renew.lease_ms));
        self.deadlines.insert((held.deadline_ms, held.token));
        self.counts.renewed += 1;
        Ok(Granted { token: held.token, lease_ms: renew.lease_ms })
    }

    /// Whether exactly this grant holds a lock.
    ///
    /// # Errors
    /// `LockNotHeld`, `LockHeldByOther`, `StaleToken`.
    pub fn check_held(&self, lock: &str, client: &str, token: u64) -> Result<(), Error> {
        let Some(held) = self.locks.get(lock) else {
            return Err(Error::new(ErrorCode::LockNotHeld, format!("nobody holds lock '{lock}'")));
        };
        check_holder(held, lock, client)?;
        check_token(held, token)
    }

    /// Does what is due at this log time: a lock whose lease ran out is free. To be called with the stamp of every entry
    /// before the entry is applied. Says how many leases ran out.
    pub fn expire(&mut self, stamp_ms: u64) -> usize {
        let mut expired = 0;
        while let Some(&(deadline_ms, token)) = self.deadlines.first() {
            if deadline_ms > stamp_ms {
                break;
            }
            // Held until its deadline, whenever that is noticed.
            let held_ms = deadline_ms.saturating_sub(self.remove(token).granted_ms);
            self.end(Ended { held_ms, expired: true });
            expired += 1;
        }
        self.counts.expired += expired as u64;
        expired
    }

    /// The log time in milliseconds at which [`State::expire`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Who holds a lock, as of the last command and stamp.
    pub fn holder(&self, lock: &str) -> Option<&Held> {
        self.locks.get(lock)
    }

    /// All locks that are held, those granted first first.
    pub fn held(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.by_token.values().map(|lock| (&**lock, &self.locks[lock]))
    }

    /// All locks summed up.
    pub fn stats(&self) -> Stats {
        let oldest = self.by_token.values().next().and_then(|lock| self.locks.get(lock));
        Stats { held: self.locks.len() as u64, oldest_granted_ms: oldest.map(|held| held.granted_ms) }
    }

    fn put(&mut self, lock: Arc<str>, held: Held) {
        self.by_token.insert(held.token, Arc::clone(&lock));
        self.deadlines.insert((held.deadline_ms, held.token));
        self.locks.insert(lock, held);
    }

    /// Notes how long a lock was held. Where nobody takes the notes, as in the simulator, the first ones stay.
    fn end(&mut self, ended: Ended) {
        if self.ended.len() < ENDED_MAX {
            self.ended.push(ended);
        }
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The locks that ended since the last call.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Frees the lock that was granted with this token.
    fn remove(&mut self, token: u64) -> Held {
        let lock = self.by_token.remove(&token).expect("every grant that stands is listed");
        self.touch(&lock);
        let held = self.locks.remove(&lock).expect("a listed grant has a lock");
        self.deadlines.remove(&(held.deadline_ms, token));
        held
    }

    /// Notes that a lock is about to change. To be called before it does.
    fn touch(&mut self, lock: &Arc<str>) {
        let stored = self.locks.contains_key(lock);
        self.dirty.entry(Arc::clone(lock)).or_insert(stored);
    }

    /// The records that changed since the last call, in key order. A lock that was taken and given back in between leaves no trace.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = dirty.into_iter().filter_map(|(lock, stored)| {
            let value = self.locks.get(&lock).map(encode);
            (stored || value.is_some()).then(|| Change { key: key(&lock), value })
        });
        let mut changes: Vec<Change> = changed.collect();
        changes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        changes
    }

    /// All records, in key order.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records: Vec<_> = self.locks.iter().map(|(lock, held)| (key(lock), encode(held))).collect();
        records.sort_unstable();
        records
    }

    /// Puts back one record of [`State::records`]. Into a fresh state, each once, in any order.
    ///
    /// # Errors
    /// Where the record is none that this module writes. The state is then to be thrown away.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRecord> {
        let bad = |why: String| BadRecord { key: key.to_vec(), why };
        let lock = name_of(key).map_err(bad)?;
        let StoredLock { client, token, granted_ms, deadline_ms } = record::decode(key, value)?;
        check_names(lock, &client).map_err(|error| bad(error.message))?;
        if token == 0 || self.by_token.contains_key(&token) {
            return Err(bad(format!("token {token} is no grant's, or another lock's")));
        }
        match self.locks.entry(lock.into()) {
            Entry::Occupied(_) => return Err(bad("the lock is there twice".into())),
            Entry::Vacant(vacant) => {
                self.by_token.insert(token, Arc::clone(vacant.key()));
                self.deadlines.insert((deadline_ms, token));
                vacant.insert(Held { client: client.into(), token, granted_ms, deadline_ms });
            }
        }
        Ok(())
    }

    /// Checks every invariant.
    ///
    /// # Panics
    /// Where one does not hold: that is a bug of this module. Takes time in proportion to the locks; for tests and the simulator.
    pub fn check_invariants(&self) {
        assert!(self.locks.len() <= self.locks_max, "{} locks", self.locks.len());
        assert_eq!(self.locks.len(), self.by_token.len(), "locks by their tokens");
        assert_eq!(self.locks.len(), self.deadlines.len(), "locks by their deadlines");
        for (lock, held) in &self.locks {
            assert!(held.token > 0 && !held.client.is_empty(), "lock {lock}: {held:?}");
            assert_eq!(self.by_token.get(&held.token), Some(lock), "lock {lock} by its token");
            assert!(self.deadlines.contains(&(held.deadline_ms, held.token)), "lock {lock} never runs out");
        }
    }
}

/// The key of a lock's record.
fn key(lock: &str) -> Vec<u8> {
    let name_bytes = u16::try_from(lock.len()).expect("the length of a name is bounded");
    let mut key = Vec::with_capacity(3 + lock.len());
    key.push(record::prefix::LOCK);
    key.extend_from_slice(&name_bytes.to_be_bytes());
    key.extend_from_slice(lock.as_bytes());
    key
}

/// The lock that a key belongs to.
fn name_of(key: &[u8]) -> Result<&str, String> {
    let [record::prefix::LOCK, high, low, name @ ..] = key else {
        return Err("the key is not 'l', a length and a name".into());
    };
    let name_bytes = usize::from(u16::from_be_bytes([*high, *low]));
    if name_bytes != name.len() {
        return Err(format!("the key says {name_bytes} bytes of a name and has {}", name.len()));
    }
    std::str::from_utf8(name).map_err(|error| error.to_string())
}

fn encode(held: &Held) -> Vec<u8> {
    let Held { token, granted_ms, deadline_ms, .. } = *held;
    record::encode(&StoredLock { client: held.client.to_string(), token, granted_ms, deadline_ms })
}

fn check_names(lock: &str, client: &str) -> Result<(), Error> {
    for (what, name) in [("lock", lock), ("client", client)] {
        if name.is_empty() {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("the {what}'s name is empty")));
        }
        if name.len() > NAME_BYTES_MAX {
            let message = format!("the {what}'s name has {} bytes, at most {NAME_BYTES_MAX} are allowed", name.len());
            return Err(Error::new(ErrorCode::TooLarge, message));
        }
    }
    Ok(())
}

fn check_lease(lease_ms: u32) -> Result<(), Error> {
    if (1..=LEASE_MS_MAX).contains(&lease_ms) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidArgument, format!("lease_ms is {lease_ms}, 1 to {LEASE_MS_MAX} is allowed")))
}

fn check_holder(held: &Held, lock: &str, client: &str) -> Result<(), Error> {
    if *held.client == *client {
        return Ok(());
    }
    Err(Error::new(ErrorCode::LockHeldByOther, format!("lock '{lock}' is held by '{}'", held.client)))
}

fn check_token(held: &Held, token: u64) -> Result<(), Error> {
    if token == held.token {
        return Ok(());
    }
    if token < held.token {
        let message = format!("token {token} is older than that of the grant, {}", held.token);
        return Err(Error::new(ErrorCode::StaleToken, message));
    }
    let message = format!("token {token} was never given out, that of the grant is {}", held.token);
    Err(Error::new(ErrorCode::InvalidArgument, message))
}
