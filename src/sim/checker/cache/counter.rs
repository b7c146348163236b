//! Keys that clients add 1 to and do nothing else with: each addition counts once, and the sums grow with the versions.

use std::collections::BTreeMap;

use bytes::Bytes;
use trine_protocol::cache::Version;

use crate::sim::checker::Check;

/// One such key.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// Additions that were sent, less those that were refused.
    possible: i64,
    /// Additions that were acknowledged.
    done: i64,
    /// Of each operation without a verdict: how many were acknowledged when it was sent.
    starts: BTreeMap<u64, i64>,
    /// The sum at each version that was seen.
    sums: BTreeMap<Version, i64>,
    /// The sums that additions were told.
    told: BTreeMap<i64, Version>,
}

impl Counter {
    /// Something was sent under that number: an addition, or a read.
    pub(super) fn sent(&mut self, number: u64, adds: bool) {
        self.starts.insert(number, self.done);
        self.possible += i64::from(adds);
    }

    /// It was refused; or nobody knows.
    pub(super) fn gave_up(&mut self, number: u64, adds: bool, refused: bool) {
        self.starts.remove(&number);
        self.possible -= i64::from(adds && refused);
    }

    /// An addition was done.
    pub(super) fn added(&mut self, number: u64, sum: i64, version: Version) -> Check {
        let start = self.starts.remove(&number).unwrap_or_default();
        self.done += 1;
        if let Some(other) = self.told.insert(sum, version) {
            return Err(format!("two additions came to {sum}, as {other:?} and as {version:?}"));
        }
        if sum <= start {
            return Err(format!("an addition came to {sum} after {start} others"));
        }
        self.seen(version, sum)
    }

    /// A read was answered.
    pub(super) fn read(&mut self, number: u64, value: Option<&Bytes>, version: Version) -> Check {
        let start = self.starts.remove(&number).unwrap_or_default();
        let text = value.map_or(Ok("0"), |value| std::str::from_utf8(value));
        let Some(sum) = text.ok().and_then(|text| text.parse().ok()) else {
            return Err(format!("{value:?} is no number"));
        };
        if sum < start {
            return Err(format!("{sum} was read after {start} additions"));
        }
        // An absence has another version each time, and says no more than that there was none.
        if value.is_none() { Ok(()) } else { self.seen(version, sum) }
    }

    fn seen(&mut self, version: Version, sum: i64) -> Check {
        if sum > self.possible {
            return Err(format!("{version:?} is {sum}, and {} additions were sent", self.possible));
        }
        let below = self.sums.range(..version).next_back();
        let above = self.sums.range(version..).next();
        match (below, above) {
            (Some((other, lower)), _) if *lower >= sum => {
                Err(format!("{version:?} is {sum}, and {other:?} before it {lower}"))
            }
            (_, Some((other, same))) if *other == version && *same != sum => {
                Err(format!("{version:?} is both {same} and {sum}"))
            }
            (_, Some((other, higher))) if *other > version && *higher <= sum => {
                Err(format!("{version:?} is {sum}, and {other:?} after it {higher}"))
            }
            _ => {
                self.sums.insert(version, sum);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u64) -> Version {
        Version { epoch, count: 0 }
    }

    #[test]
    fn each_addition_counts_once() {
        let mut counter = Counter::default();
        (1..=3).for_each(|number| counter.sent(number, true));
        counter.added(1, 1, version(5)).unwrap();
        assert!(counter.added(2, 1, version(6)).unwrap_err().contains("two additions"));
        assert!(counter.added(3, 4, version(9)).unwrap_err().contains("3 additions were sent"));
        counter.sent(4, false);
        assert!(counter.read(4, Some(&"1".into()), version(7)).unwrap_err().contains("after 3 additions"));
    }

    #[test]
    fn sums_grow_with_the_versions() {
        let mut counter = Counter::default();
        (1..=4).for_each(|number| counter.sent(number, true));
        counter.added(1, 2, version(5)).unwrap();
        counter.sent(10, false);
        assert!(counter.read(10, Some(&"2".into()), version(6)).unwrap_err().contains("before it 2"));
        counter.sent(11, false);
        assert!(counter.read(11, Some(&"3".into()), version(4)).unwrap_err().contains("after it 2"));
        counter.gave_up(2, true, true);
        counter.sent(12, false);
        assert!(counter.read(12, Some(&"4".into()), version(9)).unwrap_err().contains("3 additions were sent"));
        counter.gave_up(3, true, false);
        counter.sent(13, false);
        counter.read(13, Some(&"3".into()), version(9)).unwrap();
    }
}
