//! The ledger of values: each key is a register, and every read must return a write that may be its newest.
//!
//! Judged in three ways, each on its own, so that a cluster whose versions lie is found by the values, and the other way round:
//!
//! - **by version**: a read's version is not below the highest one that was known (from a write's answer or a read's) before
//!   the read was sent;
//! - **by the value's own version**, which its writer was told: the same;
//! - **by time**: the value's write did not end before another write began which had itself ended before the read was sent.
//!
//! ```text
//!     write a |-----|                          a read that is sent here and returns a is stale:
//!                      write b |-----|         b began after a had ended, and ended before the read
//!                                       read |-----|
//! ```
//!
//! The same rules, applied to a last read of each key through every node, find **lost writes**. A value that nobody wrote to the
//! key, or whose write was refused, is **out of nothing**. A write of unknown outcome has no end, so it is never too old by time; once a read
//! has returned it, what that read knew counts like any other read's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use trine_protocol::cache::{Got, Version};

use super::{ENTRIES_MAX, Fate, Origin};
use crate::clock;
use crate::tag::Tag;
use crate::workload::{Checks, Failure};

#[derive(Debug)]
struct Write {
    fate: Fate,
    began_us: u64,
    /// When its answer was read, and the version that it said; only where it is confirmed.
    ended_us: u64,
    version: Version,
    seen: bool,
}

#[derive(Debug, Default)]
struct Key {
    /// The highest version that any answer has named.
    floor: Version,
    /// The latest beginning of a write that has ended.
    began_us: u64,
    writes: HashMap<Tag, Write>,
    reads: u64,
    found: Checks,
}

/// What is known of a key before a read of it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    floor: Version,
    began_us: u64,
}

/// What is known of each key of a run.
#[derive(Debug)]
pub(crate) struct CacheLedger {
    origin: Origin,
    keys: Vec<Mutex<Key>>,
    entries: AtomicU64,
    unchecked: AtomicU64,
}

impl CacheLedger {
    /// For so many keys, none of them written yet.
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            origin: Origin(clock::now()),
            keys: (0..keys).map(|_| Mutex::default()).collect(),
            entries: AtomicU64::new(0),
            unchecked: AtomicU64::new(0),
        }
    }

    fn key(&self, key: usize) -> MutexGuard<'_, Key> {
        self.keys[key].lock().expect("nobody panics with it held")
    }

    /// A value is about to be written.
    pub(crate) fn writing(&self, key: usize, tag: Tag) {
        if self.entries.fetch_add(1, Ordering::Relaxed) >= ENTRIES_MAX {
            self.unchecked.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let began_us = self.origin.us(clock::now());
        let write = Write { fate: Fate::Pending, began_us, ended_us: 0, version: Version::default(), seen: false };
        let before = self.key(key).writes.insert(tag, write);
        assert!(before.is_none(), "a worker counts: {tag:?} is written once");
    }

    /// What came of writing it.
    pub(crate) fn wrote(&self, key: usize, tag: Tag, result: Result<Version, &Failure>) {
        let ended_us = self.origin.us(clock::now());
        let mut state = self.key(key);
        let Key { floor, began_us, writes, .. } = &mut *state;
        let Some(write) = writes.get_mut(&tag) else { return };
        write.fate = Fate::of(&result);
        if let Ok(version) = result {
            (write.ended_us, write.version) = (ended_us, version);
            *floor = version.max(*floor);
            *began_us = write.began_us.max(*began_us);
        }
    }

    /// To be taken before a read is sent.
    pub(crate) fn known(&self, key: usize) -> Known {
        let state = self.key(key);
        Known { floor: state.floor, began_us: state.began_us }
    }

    /// A read's answer. `tag` is what its value says, None where the value is none of this run's or there is none.
    pub(crate) fn read(&self, key: usize, known: Known, got: &Got, tag: Option<Tag>) {
        self.judge("stale_reads", key, known, got, tag);
    }

    /// The answer of a read after all writes.
    pub(crate) fn last_read(&self, key: usize, known: Known, got: &Got, tag: Option<Tag>) {
        self.judge("lost_writes", key, known, got, tag);
    }

    fn judge(&self, violation: &'static str, key: usize, known: Known, got: &Got, tag: Option<Tag>) {
        let mut state = self.key(key);
        let Key { floor, writes, reads, found, .. } = &mut *state;
        *reads += 1;
        *floor = got.version.max(*floor);
        let version = got.version;
        if got.value.is_none() {
            if known.floor > Version::default() {
                found.violation(violation, || format!("key {key}: no value, but {known:?}"));
            }
            return;
        }
        let Some((tag, write)) = tag.and_then(|tag| Some((tag, writes.get_mut(&tag)?))) else {
            if self.unchecked.load(Ordering::Relaxed) == 0 {
                let say = || format!("key {key}: a value that nobody wrote, {tag:?} with {version:?}");
                found.violation("out_of_nothing", say);
            }
            return;
        };
        write.seen = true;
        let ended = write.fate == Fate::Confirmed;
        let by_version = version < known.floor;
        let by_value = ended && write.version < known.floor;
        let by_time = ended && write.ended_us < known.began_us;
        if by_version || by_value || by_time {
            let say = || format!("key {key}: {tag:?} with {version:?}, {write:?}, but {known:?}");
            found.violation(violation, say);
        }
    }

    /// Everything that was found. After the last reads, once.
    pub(crate) fn checks(&self) -> Checks {
        let mut checks = Checks::default();
        checks.looked_for(&["stale_reads", "lost_writes", "out_of_nothing"]);
        let (mut confirmed, mut unknown, mut reads) = (0, 0, 0);
        for (place, key) in self.keys.iter().enumerate() {
            let mut key = key.lock().expect("nobody panics with it held");
            checks.merge(std::mem::take(&mut key.found));
            reads += key.reads;
            for (tag, write) in &key.writes {
                confirmed += u64::from(write.fate == Fate::Confirmed);
                unknown += u64::from(write.fate == Fate::Unknown);
                if write.fate == Fate::Refused && write.seen {
                    checks.violation("out_of_nothing", || format!("key {place}: {tag:?} was refused and read"));
                }
            }
        }
        checks.notes.insert("writes_confirmed", confirmed);
        checks.notes.insert("writes_unknown", unknown);
        checks.notes.insert("reads_checked", reads);
        checks.notes.insert("unchecked", self.unchecked.load(Ordering::Relaxed));
        checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use trine_protocol::cache::{LineState, Source};

    fn tag(number: u64) -> Tag {
        Tag { writer: 1, number }
    }

    fn version(count: u64) -> Version {
        Version { epoch: 1, count }
    }

    fn got(count: u64) -> Got {
        let value = Some("bytes".into());
        Got {
            value,
            version: version(count),
            state: LineState::S,
            source: Source::LocalCache,
            content_type: String::new(),
        }
    }

    fn failure(unknown: bool) -> Failure {
        Failure { name: "test", unknown, text: String::new() }
    }

    /// A ledger with the writes 1, 2, 3 of one key, one after the other, at versions of the same numbers.
    fn three_writes() -> CacheLedger {
        let ledger = CacheLedger::new(1);
        for number in 1..=3 {
            // The clock of the ledger counts microseconds; writes that touch would be concurrent.
            std::thread::sleep(Duration::from_millis(1));
            ledger.writing(0, tag(number));
            std::thread::sleep(Duration::from_millis(1));
            ledger.wrote(0, tag(number), Ok(version(number)));
        }
        ledger
    }

    fn found(ledger: &CacheLedger) -> [u64; 3] {
        let checks = ledger.checks();
        ["stale_reads", "lost_writes", "out_of_nothing"].map(|name| checks.violations[name])
    }

    #[test]
    fn the_newest_write_is_no_stale_read() {
        let ledger = three_writes();
        let known = ledger.known(0);
        ledger.read(0, known, &got(3), Some(tag(3)));
        ledger.last_read(0, known, &got(3), Some(tag(3)));
        assert_eq!(found(&ledger), [0, 0, 0]);
    }

    #[test]
    fn what_was_sent_before_a_write_ended_may_miss_it() {
        let ledger = three_writes();
        let known = ledger.known(0);
        ledger.writing(0, tag(4));
        ledger.wrote(0, tag(4), Ok(version(4)));
        ledger.read(0, known, &got(3), Some(tag(3)));
        assert_eq!(found(&ledger), [0, 0, 0]);
        ledger.read(0, ledger.known(0), &got(3), Some(tag(3)));
        assert_eq!(found(&ledger), [1, 0, 0]);
    }

    #[test]
    fn a_version_that_lies_does_not_hide_an_old_value() {
        let ledger = three_writes();
        ledger.read(0, ledger.known(0), &got(3), Some(tag(2)));
        assert_eq!(found(&ledger), [1, 0, 0]);
        // Where all versions are the same, time still tells.
        let flat = CacheLedger::new(1);
        for number in 1..=2 {
            flat.writing(0, tag(number));
            std::thread::sleep(Duration::from_millis(1));
            flat.wrote(0, tag(number), Ok(version(1)));
            std::thread::sleep(Duration::from_millis(1));
        }
        flat.read(0, flat.known(0), &got(1), Some(tag(1)));
        assert_eq!(found(&flat), [1, 0, 0]);
    }

    #[test]
    fn reads_do_not_go_back() {
        let ledger = three_writes();
        ledger.writing(0, tag(4));
        ledger.read(0, ledger.known(0), &got(4), Some(tag(4)));
        ledger.read(0, ledger.known(0), &got(3), Some(tag(3)));
        assert_eq!(found(&ledger), [1, 0, 0], "although the write has no answer yet");
    }

    #[test]
    fn a_write_of_unknown_outcome_may_take_effect_at_any_later_time_or_never() {
        let ledger = three_writes();
        ledger.writing(0, tag(4));
        ledger.wrote(0, tag(4), Err(&failure(true)));
        ledger.read(0, ledger.known(0), &got(3), Some(tag(3)));
        ledger.writing(0, tag(5));
        ledger.wrote(0, tag(5), Ok(version(5)));
        ledger.read(0, ledger.known(0), &got(6), Some(tag(4)));
        assert_eq!(found(&ledger), [0, 0, 0]);
    }

    #[test]
    fn a_value_that_nobody_wrote_is_found() {
        let ledger = three_writes();
        ledger.read(0, ledger.known(0), &got(3), None);
        ledger.read(0, ledger.known(0), &got(3), Some(tag(99)));
        ledger.writing(0, tag(4));
        ledger.read(0, ledger.known(0), &got(4), Some(tag(4)));
        ledger.wrote(0, tag(4), Err(&failure(false)));
        assert_eq!(found(&ledger), [0, 0, 3]);
    }

    #[test]
    fn a_last_read_that_is_old_or_empty_is_a_lost_write() {
        let ledger = three_writes();
        ledger.last_read(0, ledger.known(0), &got(2), Some(tag(2)));
        ledger.last_read(0, ledger.known(0), &Got { value: None, ..got(0) }, None);
        assert_eq!(found(&ledger), [0, 2, 0]);
    }
}
