//! What writes demand of a key: that it has a version, that it is absent, or that the right to fill it is still given.

use std::collections::BTreeMap;

use trine_protocol::cache::Version;

use crate::sim::checker::Check;

/// The demands of one key's writes that were met.
#[derive(Debug, Default)]
pub(super) struct Demands {
    /// A compare-and-swap: the version that it found, and the one that it wrote. Nothing may lie between.
    swaps: Vec<(Version, Version)>,
    /// Writes of the key that were sent so far.
    sent: u64,
    /// Of each write without a verdict: how many were sent before it.
    starts: BTreeMap<u64, u64>,
    /// How many writes had been sent when a right to fill was given.
    grants: BTreeMap<u64, u64>,
    /// Acknowledged writes: how many were sent before, and the version.
    done: Vec<(u64, Version)>,
    /// Fills: how many writes had been sent when the right was given, and the version.
    fills: Vec<(u64, Version)>,
}

impl Demands {
    /// A write was sent, under that number.
    pub(super) fn sent(&mut self, number: u64) {
        self.starts.insert(number, self.sent);
        self.sent += 1;
    }

    /// A write of that number is over; and what it wrote, where it did.
    pub(super) fn ended(&mut self, number: u64, written: Option<Version>) -> Check {
        let Some(start) = self.starts.remove(&number) else { return Ok(()) };
        let Some(version) = written else { return Ok(()) };
        self.done.push((start, version));
        let overwrote = self.fills.iter().find(|(grant, fill)| *grant <= start && version < *fill);
        match overwrote {
            Some((_, fill)) => {
                Err(format!("{version:?} was written after a right to fill was given, and filled over as {fill:?}"))
            }
            None => Ok(()),
        }
    }

    /// A right to fill was given.
    pub(super) fn granted(&mut self, token: u64) {
        self.grants.insert(token, self.sent);
    }

    /// It was used.
    pub(super) fn filled(&mut self, token: u64, version: Version) -> Check {
        let Some(grant) = self.grants.get(&token).copied() else {
            return Err(format!("a fill under {token}, which was given to nobody, is {version:?}"));
        };
        self.fills.push((grant, version));
        match self.done.iter().find(|(start, other)| grant <= *start && *other < version) {
            Some((_, other)) => {
                Err(format!("{other:?} was written after a right to fill was given, and filled over as {version:?}"))
            }
            None => Ok(()),
        }
    }

    /// A compare-and-swap was done.
    pub(super) fn swapped<'a>(
        &mut self,
        from: Version,
        to: Version,
        mut known: impl Iterator<Item = &'a Version>,
    ) -> Check {
        self.swaps.push((from, to));
        match known.find(|version| from < **version && **version < to) {
            Some(between) => Err(format!("{to:?} was written only over {from:?}, and {between:?} was between")),
            None => Ok(()),
        }
    }

    /// That version was seen.
    pub(super) fn seen(&self, version: Version) -> Check {
        match self.swaps.iter().find(|(from, to)| *from < version && version < *to) {
            Some((from, to)) => Err(format!("{to:?} was written only over {from:?}, and {version:?} was between")),
            None => Ok(()),
        }
    }
}
