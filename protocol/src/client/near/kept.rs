//! What a client keeps, without a socket and without a clock: which copies it has, and whether they may be read.
//!
//! # Invariants
//! - A copy is read only before its group's lease ends, counted from before the request was sent that the lease came with.
//! - A value is kept only if no notice about its key, or about all of its group, came between the request and now.
//! - All copies have at most the bytes that were asked for; the ones that were read longest ago go first.

use std::collections::{BTreeMap, BTreeSet};

use lru::LruCache;

use crate::cache::{CopiesGone, CopyGot, CopyLease, Got, Version};

/// Bytes that a copy takes beside its key and value.
const COPY_BYTES: usize = 200;

/// A read that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Clone, Copy, Debug)]
struct Lease {
    number: u64,
    until_us: u64,
    used: bool,
}

#[derive(Debug)]
struct Copy {
    group: u32,
    number: u64,
    got: Got,
    bytes: usize,
}

#[derive(Debug)]
struct Fetching {
    key: String,
    spoilt: bool,
}

/// The copies of one connection.
#[derive(Debug)]
pub struct Kept {
    bytes_max: usize,
    bytes: usize,
    leases: BTreeMap<u32, Lease>,
    copies: LruCache<String, Copy>,
    fetching: BTreeMap<Ticket, Fetching>,
    last_ticket: u64,
}

impl Kept {
    /// Nothing yet.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            leases: BTreeMap::new(),
            copies: LruCache::unbounded(),
            fetching: BTreeMap::new(),
            last_ticket: 0,
        }
    }

    /// The copy of a key, if it may be read. The clock, in microseconds, is read after the copy was looked up: a reader that was stopped in
    /// between must not take what has lapsed.
    pub fn read(&mut self, key: &str, now_us: impl FnOnce() -> u64) -> Option<Got> {
        let copy = self.copies.get(key)?;
        let (group, number) = (copy.group, copy.number);
        let lease = self.leases.get_mut(&group).filter(|lease| lease.number == number);
        let Some(lease) = lease else {
            self.remove(key);
            return None;
        };
        lease.used = true;
        let (got, until_us) = (copy.got.clone(), lease.until_us);
        (now_us() < until_us).then_some(got)
    }

    /// Which version of a key could be read, and until when: a look that changes nothing.
    pub fn peek(&self, key: &str) -> Option<(Version, u64)> {
        let copy = self.copies.peek(key)?;
        let lease = self.leases.get(&copy.group).filter(|lease| lease.number == copy.number)?;
        Some((copy.got.version, lease.until_us))
    }

    /// A key is about to be asked for.
    pub fn ask(&mut self, key: &str) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.fetching.insert(ticket, Fetching { key: key.to_owned(), spoilt: false });
        ticket
    }

    /// Nothing came of it.
    pub fn give_up(&mut self, ticket: Ticket) {
        self.fetching.remove(&ticket);
    }

    /// What came of it, of a request that was sent at `sent_us` or later.
    pub fn got(&mut self, ticket: Ticket, sent_us: u64, answer: &CopyGot) {
        let Some(fetching) = self.fetching.remove(&ticket) else { return };
        let Some(lease) = answer.lease else { return };
        if fetching.spoilt || !self.take_lease(sent_us, lease) {
            return;
        }
        let bytes = fetching.key.len() + answer.got.value.as_ref().map_or(0, bytes::Bytes::len) + COPY_BYTES;
        self.remove(&fetching.key);
        if bytes > self.bytes_max {
            return;
        }
        self.bytes += bytes;
        let copy = Copy { group: lease.group, number: lease.number, got: answer.got.clone(), bytes };
        self.copies.put(fetching.key, copy);
        while self.bytes > self.bytes_max
            && let Some((_, copy)) = self.copies.pop_lru()
        {
            self.bytes -= copy.bytes;
        }
    }

    /// The leases that are to be begun anew: group and number of each that was read since the last call.
    pub fn to_keep(&mut self) -> Vec<(u32, u64)> {
        let used = self
            .leases
            .iter_mut()
            .filter_map(|(group, lease)| std::mem::take(&mut lease.used).then_some((*group, lease.number)));
        used.collect()
    }

    /// A lease was begun anew, by a request sent at `sent_us` or later; None where it is over.
    pub fn kept(&mut self, group: u32, number: u64, sent_us: u64, lease: Option<CopyLease>) {
        match lease {
            Some(lease) => drop(self.take_lease(sent_us, lease)),
            None => {
                if self.leases.get(&group).is_some_and(|lease| lease.number == number) {
                    self.leases.remove(&group);
                }
            }
        }
    }

    /// False where the lease is older than the one known.
    fn take_lease(&mut self, sent_us: u64, given: CopyLease) -> bool {
        let until_us = sent_us + u64::from(given.lease_ms) * 1_000;
        let lease = self.leases.entry(given.group).or_insert(Lease { number: given.number, until_us, used: true });
        if lease.number > given.number {
            return false;
        }
        if lease.number < given.number {
            *lease = Lease { number: given.number, until_us, used: true };
        }
        lease.until_us = lease.until_us.max(until_us);
        true
    }

    /// The node says that copies are gone. When this returns they are, and [`crate::cache::DropCopies`] is to be sent.
    pub fn gone(&mut self, gone: &CopiesGone) {
        if gone.keys.is_empty() {
            // A copy without its group's lease is none, and goes when it is looked up or for want of room.
            self.leases.remove(&gone.group);
            self.fetching.values_mut().for_each(|fetching| fetching.spoilt = true);
            return;
        }
        let keys: BTreeSet<&str> = gone.keys.iter().map(String::as_str).collect();
        for fetching in self.fetching.values_mut().filter(|fetching| keys.contains(fetching.key.as_str())) {
            fetching.spoilt = true;
        }
        keys.iter().for_each(|key| self.remove(key));
    }

    /// Copies that are kept, whether their leases still hold or not, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.copies.len(), self.bytes)
    }

    fn remove(&mut self, key: &str) {
        if let Some(copy) = self.copies.pop(key) {
            self.bytes -= copy.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{LineState, Source};

    fn answer(value: &str, number: u64, lease_ms: u32) -> CopyGot {
        let got = Got {
            value: Some(bytes::Bytes::copy_from_slice(value.as_bytes())),
            version: Version { epoch: 1, count: 0 },
            state: LineState::S,
            source: Source::LocalCache,
            content_type: String::new(),
        };
        CopyGot { got, lease: Some(CopyLease { group: 0, number, lease_ms }) }
    }

    fn notice(keys: &[&str]) -> CopiesGone {
        CopiesGone { group: 0, notice: 1, keys: keys.iter().map(|key| (*key).to_owned()).collect() }
    }

    fn fetch(kept: &mut Kept, key: &str, value: &str, number: u64, sent_us: u64) {
        let ticket = kept.ask(key);
        kept.got(ticket, sent_us, &answer(value, number, 400));
    }

    fn read(kept: &mut Kept, key: &str, now_us: u64) -> Option<String> {
        let got = kept.read(key, || now_us)?;
        got.value.map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    #[test]
    fn a_copy_is_read_until_the_lease_ends_that_counts_from_the_sending() {
        let mut kept = Kept::new(1_000_000);
        fetch(&mut kept, "k", "v", 1, 1_000);
        assert_eq!(read(&mut kept, "k", 400_999), Some("v".into()));
        assert_eq!(read(&mut kept, "k", 401_000), None);
        assert_eq!(kept.to_keep(), [(0, 1)]);
        kept.kept(0, 1, 500_000, Some(CopyLease { group: 0, number: 1, lease_ms: 400 }));
        assert_eq!(read(&mut kept, "k", 899_999), Some("v".into()), "the same copy under the lease begun anew");
    }

    #[test]
    fn what_a_notice_overtook_is_used_and_not_kept() {
        let mut kept = Kept::new(1_000_000);
        for keys in [&["k"][..], &[]] {
            let ticket = kept.ask("k");
            kept.gone(&notice(keys));
            kept.got(ticket, 1_000, &answer("old", 1, 400));
            assert_eq!(read(&mut kept, "k", 2_000), None, "{keys:?}");
        }
        let ticket = kept.ask("k");
        kept.gone(&notice(&["other"]));
        kept.got(ticket, 1_000, &answer("new", 1, 400));
        assert_eq!(
            read(&mut kept, "k", 2_000),
            Some("new".into()),
            "a notice about another key says nothing of this one"
        );
    }

    #[test]
    fn a_notice_takes_its_keys_or_all() {
        let mut kept = Kept::new(1_000_000);
        fetch(&mut kept, "a", "1", 1, 1_000);
        fetch(&mut kept, "b", "2", 1, 1_000);
        kept.gone(&notice(&["a"]));
        assert_eq!((read(&mut kept, "a", 2_000), read(&mut kept, "b", 2_000)), (None, Some("2".into())));
        kept.gone(&notice(&[]));
        assert_eq!(read(&mut kept, "b", 2_000), None);
        fetch(&mut kept, "c", "3", 2, 3_000);
        assert_eq!(
            read(&mut kept, "b", 4_000),
            None,
            "a copy of an earlier lease does not come back with the next one"
        );
    }

    #[test]
    fn a_lease_that_is_over_takes_its_copies_and_a_late_answer_does_not_bring_them_back() {
        let mut kept = Kept::new(1_000_000);
        fetch(&mut kept, "k", "old", 1, 1_000);
        let late = kept.ask("k");
        fetch(&mut kept, "other", "new", 2, 2_000);
        assert_eq!(read(&mut kept, "k", 3_000), None, "its lease was replaced");
        kept.got(late, 2_000, &answer("old", 1, 400));
        assert_eq!(read(&mut kept, "k", 3_000), None);
        kept.kept(0, 2, 3_000, None);
        assert_eq!(read(&mut kept, "other", 3_000), None);
    }

    #[test]
    fn copies_are_bounded_by_bytes_and_those_read_last_stay() {
        let mut kept = Kept::new(3 * (COPY_BYTES + 2));
        for key in ["a", "b", "c"] {
            fetch(&mut kept, key, "v", 1, 1_000);
        }
        assert_eq!(read(&mut kept, "a", 2_000), Some("v".into()));
        fetch(&mut kept, "d", "v", 1, 1_000);
        let here: Vec<bool> = ["a", "b", "c", "d"].iter().map(|key| read(&mut kept, key, 2_000).is_some()).collect();
        assert_eq!(here, [true, false, true, true]);
        assert_eq!(kept.size(), (3, 3 * (COPY_BYTES + 2)));
        fetch(&mut kept, "e", &"x".repeat(4 * COPY_BYTES), 1, 1_000);
        assert_eq!(kept.size().0, 3, "what is larger than all room is not kept, and takes nothing along");
    }
}
