//! A limit for log lines that the network can trigger.
//!
//! Whoever can make a node write a line can fill its disk. Each such line has a key; of each key at most
//! [`LINES_MAX`] lines are written per [`INTERVAL_US`], and the first one of the next interval says how many were left out.
//!
//! # Invariants
//! - Keys are string literals, so there are as many as there are places in the code.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock;

/// Lines of one key in one interval: enough to see what happens, too few to fill a disk.
pub const LINES_MAX: u32 = 5;
/// Microseconds of an interval.
pub const INTERVAL_US: u64 = 10_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    start_us: u64,
    lines: u32,
    suppressed: u64,
}

impl Window {
    fn allow(&mut self, now_us: u64) -> Option<u64> {
        if self.lines == 0 || now_us.saturating_sub(self.start_us) >= INTERVAL_US {
            let suppressed = self.suppressed;
            *self = Self { start_us: now_us, lines: 1, suppressed: 0 };
            return Some(suppressed);
        }
        if self.lines < LINES_MAX {
            self.lines += 1;
            return Some(0);
        }
        self.suppressed += 1;
        None
    }
}

static WINDOWS: Mutex<BTreeMap<&'static str, Window>> = Mutex::new(BTreeMap::new());

/// Whether a line of this key may be written now, and if so, how many were left out before it.
pub fn allow(key: &'static str) -> Option<u64> {
    let mut windows = WINDOWS.lock().unwrap_or_else(PoisonError::into_inner);
    windows.entry(key).or_default().allow(clock::mono_us())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_so_many_lines_and_the_next_one_counts_the_rest() {
        let mut window = Window::default();
        let written = (0..100).filter(|n| window.allow(1_000 + n).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(window.allow(1_000 + INTERVAL_US - 1), None);
        assert_eq!(window.allow(1_000 + INTERVAL_US), Some(96));
        assert_eq!(window.allow(1_001 + INTERVAL_US), Some(0));
    }
}
