//! The record of a run: a line per event for a person, and a hash of all of them for the check of determinism.

use xxhash_rust::xxh64::Xxh64;

/// What happened so far.
pub(crate) struct Trace {
    hash: Xxh64,
    lines: Option<Vec<String>>,
    events: u64,
}

impl Trace {
    /// Keeps the lines only where asked to: to format them takes longer than to simulate.
    pub(crate) fn new(keep_lines: bool) -> Self {
        Self { hash: Xxh64::new(0), lines: keep_lines.then(Vec::new), events: 0 }
    }

    /// One event: the numbers that tell it from another, and its line.
    pub(crate) fn event(&mut self, at_us: u64, numbers: &[u64], line: impl FnOnce() -> String) {
        self.events += 1;
        self.hash.update(&at_us.to_le_bytes());
        for number in numbers {
            self.hash.update(&number.to_le_bytes());
        }
        self.note(at_us, line);
    }

    /// A line that is no event of its own.
    pub(crate) fn note(&mut self, at_us: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>4}.{:06} {}", at_us / 1_000_000, at_us % 1_000_000, line()));
        }
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.digest()
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
