//! The records of the locks: what is written of them, and how it is read back.
//!
//! ```text
//! key    'l'  bytes of the name, u16 big-endian  the name        value  [ [grant...], free_ms ]    a lock that is held or delayed
//! key    'l'  255 'f'  the resource                              value  its highest token
//! key    'l'  255 'p'  the lock                                  value  [ ending, client, token, left, ended_ms ]
//! key    'l'  255 'w'  ticket, u64 big-endian                    value  [ session, sequence, acquire, since, gives up, alive ]
//! ```
//!
//! A name has at most 512 bytes, so the length of no name begins with 255. The lines follow from the waiters.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hold::{Held, Lock, NEVER_MS, StoredHold};
use super::past::Past;
use super::release::check_name;
use super::state::{Due, State};
use super::wait::Waiter;
use crate::record::{self, BadRecord, Change, prefix};

/// A record of this module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Record {
    Lock(Arc<str>),
    Fence(Arc<str>),
    Past(Arc<str>),
    Waiter(u64),
}

/// What stands where the length of a name would, and tells that it is no lock's key.
const OTHER: u8 = 255;

/// A [`Lock`] as it stands in a record.
#[derive(Serialize, Deserialize)]
struct StoredLock {
    holds: Vec<StoredHold>,
    free_ms: u64,
}

impl Record {
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Lock(name) => {
                let name_bytes = u16::try_from(name.len()).expect("the length of a name is bounded");
                [&[prefix::LOCK], name_bytes.to_be_bytes().as_slice(), name.as_bytes()].concat()
            }
            Self::Fence(resource) => [&[prefix::LOCK, OTHER, b'f'], resource.as_bytes()].concat(),
            Self::Past(lock) => [&[prefix::LOCK, OTHER, b'p'], lock.as_bytes()].concat(),
            Self::Waiter(ticket) => [&[prefix::LOCK, OTHER, b'w'], ticket.to_be_bytes().as_slice()].concat(),
        }
    }

    fn of(key: &[u8]) -> Result<Self, String> {
        let name = |bytes: &[u8]| std::str::from_utf8(bytes).map(Arc::from).map_err(|error| error.to_string());
        match key {
            [prefix::LOCK, OTHER, b'f', resource @ ..] => name(resource).map(Self::Fence),
            [prefix::LOCK, OTHER, b'p', lock @ ..] => name(lock).map(Self::Past),
            [prefix::LOCK, OTHER, b'w', ticket @ ..] => {
                let ticket = ticket.try_into().map_err(|_| format!("a ticket has 8 bytes, not {}", ticket.len()))?;
                Ok(Self::Waiter(u64::from_be_bytes(ticket)))
            }
            [prefix::LOCK, high, low, lock @ ..] => {
                let name_bytes = usize::from(u16::from_be_bytes([*high, *low]));
                match name_bytes == lock.len() {
                    true => name(lock).map(Self::Lock),
                    false => Err(format!("the key says {name_bytes} bytes of a name and has {}", lock.len())),
                }
            }
            _ => Err("the key is not 'l', a length and a name".into()),
        }
    }
}

impl State {
    /// Notes that a record is about to change. To be called before it does.
    pub(super) fn touch(&mut self, record: Record) {
        if !self.dirty.contains_key(&record) {
            let stored = self.value(&record).is_some();
            self.dirty.insert(record, stored);
        }
    }

    /// The value of a record; None where there is none.
    fn value(&self, record: &Record) -> Option<Vec<u8>> {
        match record {
            Record::Lock(name) => {
                let lock = self.locks.get(name)?;
                let is_there = !lock.holds.is_empty() || lock.free_ms != 0;
                let holds = lock.holds.iter().map(Held::stored).collect();
                is_there.then(|| record::encode(&StoredLock { holds, free_ms: lock.free_ms }))
            }
            Record::Fence(resource) => self.fences.get(resource).map(record::encode),
            Record::Past(lock) => self.past.get(lock).map(record::encode),
            Record::Waiter(ticket) => self.waiters.find(*ticket).map(record::encode),
        }
    }

    /// The records that changed since the last call, in key order. A lock that was taken and given back in between leaves no trace.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = dirty.into_iter().filter_map(|(record, stored)| {
            let value = self.value(&record);
            (stored || value.is_some()).then(|| Change { key: record.key(), value })
        });
        let mut changes: Vec<Change> = changed.collect();
        changes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        changes
    }

    /// All records, in key order.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let locks = self.locks.keys().cloned().map(Record::Lock);
        let fences = self.fences.keys().cloned().map(Record::Fence);
        let past = self.past.iter().map(|(lock, _)| Record::Past(Arc::clone(lock)));
        let waiters = self.waiters.iter().map(|(ticket, _)| Record::Waiter(*ticket));
        let all = locks.chain(fences).chain(past).chain(waiters);
        let mut records: Vec<_> = all.filter_map(|record| Some((record.key(), self.value(&record)?))).collect();
        records.sort_unstable();
        records
    }

    /// Puts back one record of [`State::records`]. Into a fresh state, each once, in any order.
    ///
    /// # Errors
    /// Where the record is none that this module writes. The state is then to be thrown away.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRecord> {
        let bad = |why: String| BadRecord { key: key.to_vec(), why };
        match Record::of(key).map_err(bad)? {
            Record::Lock(name) => self.restore_lock(name, record::decode(key, value)?).map_err(bad)?,
            Record::Fence(resource) => {
                check_name("resource", &resource).map_err(|error| bad(error.message))?;
                if self.fences.insert(resource, record::decode(key, value)?).is_some() {
                    return Err(bad("the resource is there twice".into()));
                }
            }
            Record::Past(lock) => {
                check_name("lock", &lock).map_err(|error| bad(error.message))?;
                self.past.insert(lock, record::decode::<Past>(key, value)?);
            }
            Record::Waiter(ticket) => {
                let waiter: Waiter = record::decode(key, value)?;
                waiter.acquire.check().map_err(|error| bad(error.message))?;
                let twice = self.waiters.find(ticket).is_some();
                if twice || ticket == 0 || self.waiters.of_command(waiter.session, waiter.sequence).is_some() {
                    return Err(bad(format!("ticket {ticket} is no waiter's, or another one's")));
                }
                // Where the last entry put the next grant off, the line is to be looked at by the next one.
                for name in waiter.acquire.locks() {
                    self.deadlines.insert((0, Due::Line(Arc::from(name))));
                }
                self.line_up(ticket, waiter);
                self.dirty.clear();
            }
        }
        Ok(())
    }

    fn restore_lock(&mut self, name: Arc<str>, stored: StoredLock) -> Result<(), String> {
        check_name("lock", &name).map_err(|error| error.message)?;
        if self.locks.get(&name).is_some_and(|lock| !lock.holds.is_empty() || lock.free_ms != 0) {
            return Err("the lock is there twice".into());
        }
        if stored.holds.is_empty() && stored.free_ms == 0 {
            return Err("nobody holds the lock".into());
        }
        if stored.free_ms != 0 {
            self.deadlines.insert((stored.free_ms, Due::Line(Arc::clone(&name))));
        }
        let mut lock = Lock { free_ms: stored.free_ms, ..Lock::default() };
        for hold in stored.holds {
            check_name("client", &hold.client).map_err(|error| error.message)?;
            let StoredHold { client, token, granted_ms, deadline_ms, mode, rest } = hold;
            let rest = rest.map(Box::new);
            let held = Held { client: client.into(), token, granted_ms, deadline_ms, mode, rest };
            let endless = held.deadline_ms == NEVER_MS;
            if token == 0
                || endless != (held.session() != 0)
                || lock.holds.last().is_some_and(|last| last.token > token)
            {
                return Err(format!("token {token} is no grant's, or out of order"));
            }
            if !lock.admits(mode, &held.client) {
                return Err(format!("'{}' cannot hold the lock together with the others", held.client));
            }
            self.list(&name, &held);
            lock.holds.push(held);
        }
        self.locks.entry(name).or_default().merge(lock);
        Ok(())
    }

    /// Checks every invariant.
    ///
    /// # Panics
    /// Where one does not hold: that is a bug of this module. Takes time in proportion to the locks, and more with waiters; for tests and the
    /// simulator.
    pub fn check_invariants(&self) {
        let bounds = &self.bounds;
        assert!(self.locks.len() <= bounds.locks_max, "{} locks", self.locks.len());
        assert!(self.waiters.len() <= bounds.waiters_max && self.fences.len() <= bounds.fences_max);
        assert!(self.past.len() <= bounds.past_max, "{} hand-off records", self.past.len());
        let mut grants = 0;
        for (name, lock) in &self.locks {
            assert!(!lock.is_idle(), "lock {name} is there for nothing");
            let mut others = Lock::default();
            for held in &lock.holds {
                assert!(held.token > 0 && !held.client.is_empty(), "lock {name}: {held:?}");
                assert!(others.admits(held.mode, &held.client), "lock {name}: {held:?} beside {:?}", others.holds);
                assert!(others.holds.last().is_none_or(|last| last.token <= held.token), "lock {name}: order");
                assert!(self.by_token.contains(&(held.token, Arc::clone(name))), "lock {name} by its token");
                assert!(self.by_client.contains(&(Arc::clone(&held.client), Arc::clone(name))), "{name} by client");
                let due = (held.deadline_ms, Due::Hold(Arc::clone(name), held.token));
                assert_eq!(held.deadline_ms == NEVER_MS, held.session() != 0, "lock {name}: a lease or a session");
                assert!(held.session() != 0 || self.deadlines.contains(&due), "lock {name} never runs out");
                grants += usize::from(others.holds.last().is_none_or(|last| last.token != held.token));
                others.holds.push(held.clone());
            }
            if lock.free_ms != 0 {
                assert!(self.deadlines.contains(&(lock.free_ms, Due::Line(Arc::clone(name)))), "{name} is never free");
            }
        }
        assert_eq!(grants, self.by_token.len(), "locks by their tokens");
        let of_lock =
            |client: &Arc<str>, name: &Arc<str>| self.locks[name].holds.iter().any(|held| held.client == *client);
        assert!(self.by_client.iter().all(|(client, name)| of_lock(client, name)), "a client is listed as a holder");
        self.check_waiters();
    }

    fn check_waiters(&self) {
        for (ticket, waiter) in self.waiters.iter() {
            let due = (waiter.gives_up_ms.min(waiter.alive_ms), Due::Wait(*ticket));
            assert!(self.deadlines.contains(&due), "waiter {ticket} never gives up");
            assert!(waiter.alive_ms < NEVER_MS, "waiter {ticket} stays, although nobody asks about it any more");
            for name in waiter.acquire.locks() {
                assert!(self.locks[name].line.contains(ticket), "waiter {ticket} is not in the line of {name}");
            }
        }
        for (ticket, waiter) in self.waiters.iter() {
            let looked_at = |name: &str| self.deadlines.iter().any(|(_, due)| *due == Due::Line(Arc::from(name)));
            let free = |name: &str| {
                let lock = &self.locks[name];
                let first = lock.line.first() == Some(ticket);
                first && lock.free_ms == 0 && lock.admits(waiter.acquire.mode, &waiter.acquire.client)
            };
            let idle = waiter.acquire.locks().all(free) && !waiter.acquire.locks().any(looked_at);
            assert!(!idle, "waiter {ticket} waits for nothing: {waiter:?}");
        }
        let in_line: usize = self.locks.values().map(|lock| lock.line.len()).sum();
        let waiting: usize = self.waiters.iter().map(|(_, waiter)| 1 + waiter.acquire.also.len()).sum();
        assert_eq!(in_line, waiting, "who stands in a line waits");
        let cycle = self.waiters.iter().find_map(|(ticket, _)| self.deadlock(*ticket));
        assert!(cycle.is_none(), "clients wait for each other: {cycle:?}");
    }
}

impl Lock {
    /// Takes what a record says into what its waiters have made already.
    fn merge(&mut self, stored: Self) {
        (self.holds, self.free_ms) = (stored.holds, stored.free_ms);
    }
}
