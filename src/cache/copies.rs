//! Copies in clients: who has one, and what must wait until they are gone.
//!
//! A client may keep what it read from this node, and read it again without asking. The node answers for such a copy as for its own
//! line: to the home a client's copy *is* a copy of this node. So the node's promises to the home reach as far as those of its clients to it:
//!
//! ```text
//!   home -- SnoopInv --> agent -- SnoopAck --> [ copies ] ........ held ........ --> home
//!                                                 | CopiesGone        ^
//!                                                 v                   | DropCopies, or the lease of the copies ran out
//!                                               client ---------------'
//! ```
//!
//! To the bus a message that is held is one that was slow, and the bus counts on none to be fast: neither the node's side nor the
//! home's knows of this.
//!
//! # Invariants
//! - A copy hangs on its client's lease, which ends within this node's bus lease, in the node's own count of both. What has lapsed for
//!   the home has lapsed for the clients.
//! - While a client may have a copy of a key, nothing leaves for the home that says that this node's line is gone or changed, and no
//!   client of this node writes the key.
//! - While any client may have any copy, this node asks for no new bus lease and does not leave the bus. One that starts does not know
//!   what clients of its earlier life still have, and waits for as long as a lease of theirs can last; until then it says of no line that it
//!   is gone.
//! - A copy is given only of a line that is there, with nothing on its way that would change it; so whatever changes it later comes by here.
//! - While a notice is out, the lease of its client is not prolonged: a client that does not answer holds a write up for one lease.
//!
//! # Caveats
//! - A client that vanishes costs the next write of a key that it had a copy of up to [`COPY_LEASE_MS`].
//! - A line that goes for want of room takes its clients' copies along when it is asked for again.
//! - A restart costs one lease of copies before the cache serves, whether there were any or not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::marker::PhantomData;

use trine_protocol::cache::{CopiesGone, CopyLease};
use trine_protocol::limits::{CONNECTIONS_MAX, COPIES_MAX, COPY_LEASE_MS};

use crate::ids::GroupId;
use crate::rules::{Rule, Rules};

use super::agent::Operation;
use super::message::ToHome;

/// Messages held; one more is lost, as the bus allows, and sent again by whoever needs an answer.
const HELD_MAX: usize = 4_096;
/// A lease shorter than this is not worth the copy.
const LEASE_US_MIN: u64 = 20_000;

/// What follows from an input.
#[derive(Debug, Default)]
pub struct CopiesOut {
    /// To be pushed to the clients with these numbers.
    pub tell: Vec<(u64, CopiesGone)>,
    /// Messages that may leave now.
    pub to_home: Vec<ToHome>,
    /// Writes of this node's clients that may begin now: who asks, for which key, and for what.
    pub operations: Vec<(u64, String, Operation)>,
}

/// One client with copies.
#[derive(Clone, Debug)]
struct Holder {
    number: u64,
    /// Its lease ends here, as this node counts.
    until_us: u64,
    keys: BTreeSet<String>,
    /// What it was told and has not answered: the keys, or none for all.
    notices: BTreeMap<u64, Vec<String>>,
}

impl Holder {
    /// It was told that all is gone.
    fn leaves(&self) -> bool {
        self.notices.values().any(Vec::is_empty)
    }

    fn is_told(&self, key: &str) -> bool {
        self.notices.values().any(|keys| keys.is_empty() || keys.iter().any(|told| told == key))
    }
}

/// The clients' copies of one group on one node.
#[derive(Clone, Debug)]
pub struct Copies<R> {
    group: GroupId,
    drift_ppm: u64,
    holders: BTreeMap<u64, Holder>,
    keys: BTreeMap<String, BTreeSet<u64>>,
    held: VecDeque<ToHome>,
    /// Writes that wait for a key's copies to go.
    waiting: BTreeMap<String, VecDeque<(u64, Operation)>>,
    callers: BTreeMap<u64, String>,
    last_number: u64,
    last_notice: u64,
    unknown_until_us: u64,
    /// No lease ends before this.
    look_us: u64,
    rules: PhantomData<R>,
}

/// What a message to the home waits for.
enum Gate<'a> {
    Open,
    Key(&'a str),
    All,
}

fn gate(message: &ToHome) -> Gate<'_> {
    match message {
        ToHome::Register { .. } | ToHome::Release { .. } | ToHome::Leave { .. } => Gate::All,
        ToHome::BusRd { key, .. } | ToHome::BusRdX { key, .. } | ToHome::SnoopAck { key, .. } => Gate::Key(key),
        ToHome::WriteBack { key, end: true, .. } => Gate::Key(key),
        ToHome::WriteBack { .. } | ToHome::Renew { .. } | ToHome::Audit { .. } => Gate::Open,
        ToHome::FillLease { .. } | ToHome::FillReturn { .. } => Gate::Open,
    }
}

impl<R: Rules> Copies<R> {
    /// No client has a copy; where the node lived before, none that it knows of. Numbers grow over restarts with the clock.
    pub fn new(group: GroupId, drift_ppm: u64, now_us: u64, lived_before: bool) -> Self {
        let careful = lived_before && !R::without(Rule::CopiesOfAnEarlierLife);
        let lease_us = u64::from(COPY_LEASE_MS) * 1_000;
        Self {
            group,
            drift_ppm,
            holders: BTreeMap::new(),
            keys: BTreeMap::new(),
            held: VecDeque::new(),
            waiting: BTreeMap::new(),
            callers: BTreeMap::new(),
            last_number: now_us,
            last_notice: 0,
            unknown_until_us: if careful { now_us + lease_us + lease_us * drift_ppm / 1_000_000 } else { 0 },
            look_us: u64::MAX,
            rules: PhantomData,
        }
    }

    /// Copies that clients may have.
    pub fn count(&self) -> usize {
        self.holders.values().map(|holder| holder.keys.len()).sum()
    }

    /// Clients that may have copies.
    pub fn clients(&self) -> usize {
        self.holders.len()
    }

    /// Notices given so far.
    pub fn notices(&self) -> u64 {
        self.last_notice
    }

    /// A client read a line that is there, with nothing on its way that would change it, and asks to keep a copy. `bus_lease_us`
    /// is what is left of the node's bus lease.
    pub fn grant(&mut self, now_us: u64, client: u64, key: &str, bus_lease_us: u64) -> Option<CopyLease> {
        self.expire(now_us);
        let closing = self.held.iter().any(|message| matches!(gate(message), Gate::All));
        if closing || self.waiting.contains_key(key) {
            return None;
        }
        let new = !self.holders.contains_key(&client);
        if new {
            if self.holders.len() >= CONNECTIONS_MAX || self.lease_us(bus_lease_us).is_none() {
                return None;
            }
            self.last_number += 1;
            let (number, keys, notices) = (self.last_number, BTreeSet::new(), BTreeMap::new());
            self.holders.insert(client, Holder { number, until_us: now_us, keys, notices });
            self.look_us = self.look_us.min(now_us);
        }
        let lease = self.prolong(now_us, client, bus_lease_us)?;
        let holder = self.holders.get_mut(&client)?;
        if holder.is_told(key) || (holder.keys.len() >= COPIES_MAX && !holder.keys.contains(key)) {
            return None;
        }
        holder.keys.insert(key.to_owned());
        self.keys.entry(key.to_owned()).or_default().insert(client);
        Some(lease)
    }

    /// A client asks that its lease begin anew. None where it is over, and its copies are none.
    pub fn keep(&mut self, now_us: u64, client: u64, number: u64, bus_lease_us: u64) -> Option<CopyLease> {
        self.expire(now_us);
        let holder = self.holders.get(&client)?;
        if holder.number != number || holder.leaves() {
            return None;
        }
        self.prolong(now_us, client, bus_lease_us)
    }

    fn lease_us(&self, bus_lease_us: u64) -> Option<u64> {
        let longest_us = u64::from(COPY_LEASE_MS) * 1_000;
        let lease_us = if R::without(Rule::CopyOutlivesBusLease) { longest_us } else { longest_us.min(bus_lease_us) };
        (lease_us >= LEASE_US_MIN).then_some(lease_us)
    }

    /// The client's lease from now on, where it may be longer than it is; and what is left of it, as the client is to count it.
    fn prolong(&mut self, now_us: u64, client: u64, bus_lease_us: u64) -> Option<CopyLease> {
        let lease_us = self.lease_us(bus_lease_us);
        let holder = self.holders.get_mut(&client)?;
        if let (true, Some(lease_us)) = (holder.notices.is_empty(), lease_us) {
            holder.until_us = holder.until_us.max(now_us + lease_us);
        }
        let left_us = holder.until_us.saturating_sub(now_us);
        let lease_ms = left_us.saturating_sub(left_us * self.drift_ppm / 1_000_000) / 1_000;
        Some(CopyLease { group: self.group.0, number: holder.number, lease_ms: lease_ms as u32 })
    }

    /// A client has dropped what that notice named.
    pub fn dropped(&mut self, now_us: u64, client: u64, notice: u64, out: &mut CopiesOut) {
        let Some(holder) = self.holders.get_mut(&client) else { return };
        let Some(keys) = holder.notices.remove(&notice) else { return };
        if keys.is_empty() {
            self.remove(client);
        } else {
            for key in keys {
                holder.keys.remove(&key);
                forget(&mut self.keys, &key, client);
            }
        }
        self.tend(now_us, out);
    }

    /// A client of this node asks for something. Given back where it may begin at once; a write of a key that clients have copies of
    /// waits for these to go.
    pub fn admit(
        &mut self,
        now_us: u64,
        caller: u64,
        key: &str,
        operation: Operation,
        out: &mut CopiesOut,
    ) -> Option<Operation> {
        self.expire(now_us);
        let free = !self.keys.contains_key(key) && !self.waiting.contains_key(key);
        if free || !matches!(operation, Operation::Write(_)) || R::without(Rule::ClientCopiesNotWaitedFor) {
            return Some(operation);
        }
        self.tell(key, out);
        self.waiting.entry(key.to_owned()).or_default().push_back((caller, operation));
        self.callers.insert(caller, key.to_owned());
        None
    }

    /// Nobody waits for this answer any more. True where the write had not begun, and never will.
    pub fn forget(&mut self, caller: u64) -> bool {
        let Some(key) = self.callers.remove(&caller) else { return false };
        if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.retain(|(other, _)| *other != caller);
            if waiting.is_empty() {
                self.waiting.remove(&key);
            }
        }
        true
    }

    /// The agent says something to the home. Given back where it may leave at once.
    pub fn pass(&mut self, now_us: u64, message: ToHome, out: &mut CopiesOut) -> Option<ToHome> {
        if self.is_open(now_us, &message) || R::without(Rule::ClientCopiesNotWaitedFor) {
            return Some(message);
        }
        match gate(&message) {
            Gate::Open => return Some(message),
            Gate::Key(key) => self.tell(key, out),
            Gate::All => self.tell_all(out),
        }
        if matches!(message, ToHome::Register { .. }) {
            // Only the newest one counts, and its lease begins with it.
            self.held.retain(|held| !matches!(held, ToHome::Register { .. }));
        }
        if self.held.len() < HELD_MAX {
            self.held.push_back(message);
        }
        None
    }

    fn is_open(&self, now_us: u64, message: &ToHome) -> bool {
        match gate(message) {
            Gate::Open => true,
            Gate::Key(key) => !self.keys.contains_key(key) && now_us >= self.unknown_until_us,
            Gate::All => self.holders.is_empty() && now_us >= self.unknown_until_us,
        }
    }

    /// Time has passed, or copies have gone: lets go what waited for them.
    pub fn tend(&mut self, now_us: u64, out: &mut CopiesOut) {
        self.expire(now_us);
        for message in std::mem::take(&mut self.held) {
            if self.is_open(now_us, &message) {
                out.to_home.push(message);
            } else {
                self.held.push_back(message);
            }
        }
        let free: Vec<String> = self.waiting.keys().filter(|key| !self.keys.contains_key(*key)).cloned().collect();
        for key in free {
            for (caller, operation) in self.waiting.remove(&key).unwrap_or_default() {
                self.callers.remove(&caller);
                out.operations.push((caller, key.clone(), operation));
            }
        }
    }

    /// Clients whose lease is over have no copies, whatever they were told.
    fn expire(&mut self, now_us: u64) {
        if now_us < self.look_us {
            return;
        }
        let over = self.holders.iter().filter(|(_, holder)| holder.until_us <= now_us);
        let over: Vec<u64> = over.map(|(client, _)| *client).collect();
        for client in over {
            self.remove(client);
        }
        self.look_us = self.holders.values().map(|holder| holder.until_us).min().unwrap_or(u64::MAX);
    }

    fn remove(&mut self, client: u64) {
        let Some(holder) = self.holders.remove(&client) else { return };
        for key in holder.keys {
            forget(&mut self.keys, &key, client);
        }
    }

    fn tell(&mut self, key: &str, out: &mut CopiesOut) {
        for client in self.keys.get(key).into_iter().flatten() {
            let Some(holder) = self.holders.get_mut(client) else { continue };
            if !holder.is_told(key) {
                self.last_notice += 1;
                holder.notices.insert(self.last_notice, vec![key.to_owned()]);
                let (group, notice, keys) = (self.group.0, self.last_notice, vec![key.to_owned()]);
                out.tell.push((*client, CopiesGone { group, notice, keys }));
            }
        }
    }

    fn tell_all(&mut self, out: &mut CopiesOut) {
        for (client, holder) in &mut self.holders {
            if !holder.leaves() {
                self.last_notice += 1;
                holder.notices.insert(self.last_notice, Vec::new());
                let (group, notice) = (self.group.0, self.last_notice);
                out.tell.push((*client, CopiesGone { group, notice, keys: Vec::new() }));
            }
        }
    }
}

fn forget(keys: &mut BTreeMap<String, BTreeSet<u64>>, key: &str, client: u64) {
    if let Some(clients) = keys.get_mut(key) {
        clients.remove(&client);
        if clients.is_empty() {
            keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
