//! The table of lines that readers see: the read hit path.
//!
//! A hit takes no message and no await. It reads the value first and the clock second ([`Found::is_valid_at`]): were it
//! the other way round, a reader paused in between would serve a value after the lease had ended. The cache's logic alone
//! changes the table, by [`LineChange`]s, and always retracts before it acknowledges.

use std::collections::BTreeMap;

use trine_protocol::cache::LineState;

use super::eviction::Visits;
use super::message::{LeaseTag, Versioned};

/// A line that may be served while the lease it belongs to is valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// M, E or S.
    pub state: LineState,
    /// What a hit answers.
    pub value: Versioned,
    /// The lease it hangs on: under another one it is no line.
    pub tag: LeaseTag,
    /// Where its hits are counted, for eviction.
    pub visits: Visits,
}

impl Line {
    /// A copy without the counter: it costs a hit nothing to make, and nothing is counted in it.
    fn seen(&self) -> Self {
        Self { state: self.state, value: self.value.clone(), tag: self.tag, visits: Visits::default() }
    }
}

/// One change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineChange {
    /// This line is there now.
    Put(String, Line),
    /// This line is gone.
    Drop(String),
    /// Every line is gone, and the lease.
    DropAll,
    /// The lease of that tag lasts until this instant of the node's monotonic clock.
    Lease(LeaseTag, u64),
}

/// The lines of one group on one node, or of one shard of them.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    lease: Option<(LeaseTag, u64)>,
    lines: BTreeMap<String, Line>,
    counts: ByState,
}

/// Lines by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByState {
    /// In M.
    pub modified: usize,
    /// In E.
    pub exclusive: usize,
    /// In S.
    pub shared: usize,
}

impl ByState {
    fn of(&mut self, state: LineState) -> Option<&mut usize> {
        match state {
            LineState::M => Some(&mut self.modified),
            LineState::E => Some(&mut self.exclusive),
            LineState::S => Some(&mut self.shared),
            LineState::I => None,
        }
    }
}

/// A line that was there when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The line, as it was. Its visits are counted in the table only.
    pub line: Line,
    /// Its lease ends here, in microseconds of the node's monotonic clock.
    pub until_us: u64,
}

impl Found {
    /// Whether the value may be answered. Read the clock for `mono_us` *after* the line was looked up.
    pub fn is_valid_at(&self, mono_us: u64) -> bool {
        mono_us < self.until_us
    }
}

impl Lines {
    /// Makes one change.
    pub fn apply(&mut self, change: LineChange) {
        match change {
            LineChange::Put(key, line) => {
                if let Some(count) = self.counts.of(line.state) {
                    *count += 1;
                }
                let before = self.lines.insert(key, line);
                self.gone(before);
            }
            LineChange::Drop(key) => {
                let before = self.lines.remove(&key);
                self.gone(before);
            }
            LineChange::DropAll => *self = Self::default(),
            LineChange::Lease(tag, until_us) => self.lease = Some((tag, until_us)),
        }
    }

    fn gone(&mut self, line: Option<Line>) {
        if let Some(count) = line.and_then(|line| self.counts.of(line.state)) {
            *count -= 1;
        }
    }

    /// How many lines there are in each state.
    pub fn by_state(&self) -> ByState {
        self.counts
    }

    /// The line of a key, if it hangs on the current lease. Counts as a visit.
    pub fn find(&self, key: &str) -> Option<Found> {
        let (line, until_us) = self.current(key)?;
        line.visits.bump();
        Some(Found { line: line.seen(), until_us })
    }

    /// The same for who only looks: no visit.
    pub fn peek(&self, key: &str) -> Option<Found> {
        let (line, until_us) = self.current(key)?;
        Some(Found { line: line.seen(), until_us })
    }

    fn current(&self, key: &str) -> Option<(&Line, u64)> {
        let line = self.lines.get(key)?;
        let (tag, until_us) = self.lease?;
        (line.tag == tag).then_some((line, until_us))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Every line in key order, whether its lease lasts or not.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Line)> {
        self.lines.iter()
    }
}
