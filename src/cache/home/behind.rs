//! The home of a group whose values lie in Redis.
//!
//! What the log has of a key counts; where it has nothing, Redis does. So a read of such a key waits in its transaction until Redis has
//! answered, and what is written goes into the log first, as ever, and then to Redis, oldest first. A key that Redis has is forgotten here.
//!
//! ```text
//!   read, or a write that looks  ─▶ Fetch ─▶ Redis' answer ─▶ as if main memory had that
//!   unflushed in the log         ─▶ Store ─▶ Redis has it ─▶ Flushed in the log
//!   somebody else wrote          ─▶ Fetch ─▶ another value than the copies have ─▶ SnoopInv to all of them
//!   the connection is lost       ─▶ SnoopInv to all copies of all keys that Redis alone has
//! ```
//!
//! Redis' word on somebody else's write is a hint: it also tells of our own, and it may overtake or be overtaken by an answer. So it
//! makes a fetch that is under way begin anew, and copies are dropped only if Redis has something else than they.
//!
//! # Caveats
//! - Who writes to Redis directly is not linearizable with the others: a hit may have the older value until the invalidation has arrived.
//! - Where the log has a newer value of the key, or an owner, the outside write is overwritten.

use std::collections::{BTreeMap, BTreeSet};

use trine_protocol::cache::Version;
use trine_protocol::{Error, ErrorCode};

use crate::cache::agent::checksum;
use crate::cache::memory::{Command, Memory, Remove};
use crate::cache::message::{LeaseTag, Versioned};
use crate::marks::{Rare, mark};
use crate::rules::Rules;

use super::{Done, Home, HomeOut, Job, Phase, Proposal, Standing, Transaction, Want};

/// Values on their way to Redis at once.
const STORES_MAX: usize = 64;
/// Keys that are looked up in Redis at once.
const FETCHES_MAX: usize = 4_096;

/// What the home asks of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryCall {
    /// What it has of a key; for the transaction of that number.
    Fetch {
        /// Comes back with the answer.
        ticket: u64,
        /// The key.
        key: String,
    },
    /// To have this of a key.
    Store {
        /// The key.
        key: String,
        /// The value, or the absence.
        value: Versioned,
    },
}

/// What Redis has of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The value; its version is of no meaning where somebody else wrote it.
    pub value: Versioned,
    /// Whether a home wrote it.
    pub ours: bool,
}

/// What Redis says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryAnswer {
    /// Answer to a `Fetch`.
    Fetched {
        /// Its number.
        ticket: u64,
        /// The key.
        key: String,
        /// What it has, or why that cannot be said.
        result: Result<Fetched, String>,
    },
    /// Answer to a `Store`.
    Stored {
        /// The key.
        key: String,
        /// The version of the value.
        version: Version,
        /// Or why it does not have it.
        result: Result<(), String>,
    },
    /// Somebody else, or this home, has written these keys.
    Outside(Vec<String>),
    /// Every key may have been written.
    All,
}

/// Whether Redis can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Redis {
    /// There is none: main memory is all here.
    None,
    /// It cannot be reached, or the fence is not raised.
    Away,
    /// It answers.
    Ready,
}

/// What is on its way to and from Redis.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Traffic {
    /// Values that Redis is being told, by key: of each key one at a time, until it has answered, so that no older one lands after a newer one.
    storing: BTreeMap<String, Version>,
    /// Values that Redis has, and of which the log is being told so.
    flushing: BTreeMap<String, Version>,
    /// Values that it refused, and when to tell it again.
    refused: BTreeMap<String, u64>,
    /// Keys of which a copy may differ from what Redis has, when the log forgets them.
    suspects: BTreeSet<String>,
    fetches: usize,
    /// The command that says that there is a Redis is on its way into the log.
    declaring: bool,
}

/// What the copies of a key are of, where Redis may have something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Given {
    pub(super) version: Version,
    pub(super) checksum: u64,
}

impl Given {
    pub(super) fn of(value: &Versioned) -> Self {
        Self { version: value.version, checksum: checksum(value) }
    }
}

impl<R: Rules> Home<R> {
    /// Whether the log and this node agree on where values lie.
    pub(super) fn knows_where_values_lie(&self, memory: &Memory, standing: Standing) -> bool {
        memory.is_behind() == (standing.redis != Redis::None)
    }

    /// Time has passed: the log is told that there is a Redis, and Redis what it lacks.
    pub(super) fn tend_redis(&mut self, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        if standing.redis == Redis::None || !self.may_act(standing) || !standing.settled {
            return;
        }
        if !memory.is_behind() {
            if !std::mem::replace(&mut self.traffic.declaring, true) {
                let command = Command::Behind;
                out.propose.push(Proposal { key: String::new(), transaction: 0, command, write: None });
            }
            return;
        }
        self.flush(memory, standing, out);
    }

    /// Tells Redis what it lacks, as much at once as may be.
    pub(super) fn flush(&mut self, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        if standing.redis != Redis::Ready || !self.may_act(standing) {
            return;
        }
        for (key, cell) in memory.unflushed().take(2 * STORES_MAX) {
            if self.traffic.storing.len() + self.traffic.flushing.len() >= STORES_MAX {
                return;
            }
            let waits = self.traffic.refused.get(key).is_some_and(|until_us| standing.now_us < *until_us);
            if waits || self.traffic.storing.contains_key(key) || self.traffic.flushing.contains_key(key) {
                continue;
            }
            self.traffic.refused.remove(key);
            self.traffic.storing.insert(key.clone(), cell.stored.version);
            out.memory.push(MemoryCall::Store { key: key.clone(), value: cell.stored.clone() });
        }
    }

    /// A command about Redis is through, or did not get into the log.
    pub(super) fn is_about_redis(&mut self, command: &Command) -> bool {
        match command {
            Command::Behind => self.traffic.declaring = false,
            Command::Flushed(flushed) => {
                self.traffic.flushing.remove(&flushed.key);
                if self.traffic.suspects.remove(&flushed.key) {
                    self.refresh(&flushed.key);
                }
            }
            _ => return false,
        }
        true
    }

    /// What Redis says.
    pub fn hear(&mut self, answer: MemoryAnswer, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        match answer {
            MemoryAnswer::Fetched { ticket, key, result } => self.fetched(ticket, &key, result, memory, standing, out),
            MemoryAnswer::Stored { key, version, result } => {
                if self.traffic.storing.get(&key) != Some(&version) {
                    return;
                }
                self.traffic.storing.remove(&key);
                if result.is_err() {
                    self.traffic.refused.insert(key, standing.now_us + 5 * self.config.retry_us);
                    return;
                }
                self.traffic.flushing.insert(key.clone(), version);
                let command = Command::Flushed(Remove { key, version });
                out.propose.push(Proposal { key: String::new(), transaction: 0, command, write: None });
                self.flush(memory, standing, out);
            }
            MemoryAnswer::Outside(keys) => {
                for key in keys {
                    self.doubt(&key, memory);
                    self.advance(&key, memory, standing, out);
                }
            }
            MemoryAnswer::All => self.doubt_all(memory, standing, out),
        }
    }

    /// The connection is lost, or new: nobody can say what was written meanwhile.
    pub fn doubt_all(&mut self, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        self.traffic.storing.clear();
        self.traffic.fetches = 0;
        let keys: Vec<String> = self.directory.keys().cloned().collect();
        for key in keys {
            self.fetch_again(&key, memory, standing, out);
            self.doubt(&key, memory);
            self.advance(&key, memory, standing, out);
        }
    }

    /// A fetch whose connection is gone gets no answer: its job begins anew.
    fn fetch_again(&mut self, key: &str, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        let Some(entry) = self.directory.get_mut(key) else { return };
        let fetches = |transaction: &mut Transaction| matches!(transaction.phase, Phase::Fetch { .. });
        if let Some(transaction) = entry.transaction.take_if(fetches) {
            entry.waiting.push_front(transaction.job);
            self.advance(key, memory, standing, out);
        }
    }

    /// Somebody may have written that key in Redis.
    fn doubt(&mut self, key: &str, memory: &Memory) {
        let Some(entry) = self.directory.get_mut(key) else { return };
        if let Some(Transaction { phase: Phase::Fetch { poisoned, .. }, .. }) = &mut entry.transaction {
            mark(Rare::FetchPoisoned);
            *poisoned = true;
        }
        if entry.sharers.is_empty() {
            return;
        }
        match memory.cell(key) {
            // What the log has goes to Redis, whatever is there. What is there afterwards is looked at then.
            Some(_) => drop(self.traffic.suspects.insert(key.to_owned())),
            None => self.refresh(key),
        }
    }

    /// Has the copies of a key compared with what Redis has.
    fn refresh(&mut self, key: &str) {
        let Some(entry) = self.directory.get_mut(key).filter(|entry| !entry.sharers.is_empty()) else { return };
        let job = Job { node: self.node, request: 0, tag: LeaseTag::default(), want: Want::Refresh };
        if !entry.waiting.iter().any(|other| other.repeats(&job)) {
            entry.waiting.push_back(job);
            self.busy.insert(key.to_owned());
        }
    }

    /// Whether a job needs what Redis alone has.
    pub(super) fn must_fetch(&self, key: &str, job: &Job, memory: &Memory) -> bool {
        let looks = match &job.want {
            Want::Read | Want::Fill { .. } | Want::Refresh => true,
            Want::Write { change, .. } => change.looks(),
            Want::WriteBack { .. } | Want::Expire(_) => false,
        };
        looks && !memory.knows(key) && self.directory.get(key).is_none_or(|entry| entry.fetched.is_none())
    }

    /// Looks the key up in Redis, for this job.
    pub(super) fn fetch(&mut self, key: &str, job: Job, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        if standing.redis != Redis::Ready {
            if let Want::Refresh = job.want {
                // Nobody can say what Redis has: the copies go.
                return self.drop_copies(key, job, memory, standing, out);
            }
            let what = format!("key '{key}' is in Redis alone, which cannot be reached from here");
            let error = Error::new(ErrorCode::MainMemoryAway, what).retry_after(500);
            return self.refuse(key, &job, error, out);
        }
        if self.traffic.fetches >= FETCHES_MAX {
            let error = Error::new(ErrorCode::Overloaded, format!("{FETCHES_MAX} keys are looked up in Redis already"));
            return self.refuse(key, &job, error.retry_after(50), out);
        }
        self.traffic.fetches += 1;
        let ticket = self.begin(key, job, Phase::Fetch { poisoned: false }, standing);
        out.memory.push(MemoryCall::Fetch { ticket, key: key.to_owned() });
    }

    fn fetched(
        &mut self,
        ticket: u64,
        key: &str,
        result: Result<Fetched, String>,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        self.traffic.fetches = self.traffic.fetches.saturating_sub(1);
        let Some(entry) = self.directory.get_mut(key) else { return };
        let its = |it: &mut Transaction| it.id == ticket && matches!(it.phase, Phase::Fetch { .. });
        let Some(Transaction { job, phase, .. }) = entry.transaction.take_if(its) else { return };
        match (result, phase) {
            // Somebody has written it since it was asked for.
            (_, Phase::Fetch { poisoned: true }) => self.fetch(key, job, memory, standing, out),
            (Err(why), _) => {
                if let Want::Refresh = job.want {
                    self.drop_copies(key, job, memory, standing, out);
                } else {
                    let what = format!("Redis does not give key '{key}': {why}");
                    self.refuse(key, &job, Error::new(ErrorCode::MainMemoryAway, what).retry_after(500), out);
                }
            }
            (Ok(fetched), _) => {
                entry.fetched = Some(named(fetched, entry.given, memory));
                match job.want {
                    Want::Refresh => self.compare(key, job, memory, standing, out),
                    _ => self.start(key, job, memory, standing, out),
                }
                if let Some(entry) = self.directory.get_mut(key) {
                    entry.fetched = None;
                }
            }
        }
        self.advance(key, memory, standing, out);
    }

    /// Drops the copies where Redis has something else.
    fn compare(&mut self, key: &str, job: Job, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        let Some(entry) = self.directory.get(key) else { return };
        let (Some(fetched), given) = (&entry.fetched, entry.given) else { return };
        if given != Some(Given::of(fetched)) {
            mark(Rare::OutsideWriteSeen);
            self.drop_copies(key, job, memory, standing, out);
        }
    }

    /// Has every copy dropped. The transaction is over when all of them are.
    fn drop_copies(&mut self, key: &str, job: Job, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        self.invalidate(key, job, None, standing, out);
        if let Some(Transaction { phase: Phase::Commit { done, .. }, .. }) =
            self.directory.get_mut(key).and_then(|entry| entry.transaction.as_mut())
        {
            *done = Some(Done::Dropped);
        }
        self.finish_write(key, memory, standing, out);
    }

    /// What main memory has of a key: the log, or else Redis.
    pub(super) fn newest(&self, key: &str, memory: &Memory) -> Versioned {
        let fetched = self.directory.get(key).and_then(|entry| entry.fetched.as_ref());
        fetched.filter(|_| !memory.knows(key)).cloned().unwrap_or_else(|| memory.stored(key))
    }
}

/// A value that no home wrote has no version: it gets that of the log, or the one under which there are copies of it already.
fn named(fetched: Fetched, given: Option<Given>, memory: &Memory) -> Versioned {
    let Fetched { value, ours } = fetched;
    if ours {
        return value;
    }
    let version = given.filter(|given| given.checksum == checksum(&value)).map(|given| given.version);
    let version = version.unwrap_or_else(|| memory.stored("").version);
    Versioned { version, ..value }
}
