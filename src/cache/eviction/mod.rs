//! Which line goes when others need its room: S3-FIFO by bytes.
//!
//! ```text
//!   new key ──▶ small queue ──────── 2 visits or more ───────▶ main queue ──▶ no visit: it goes
//!               10 % of the bytes                                ▲      │
//!                    │ fewer                                     │      └─▶ visited: round again, one visit less
//!                    ▼                                           │
//!                 it goes ──▶ ghost queue ── it comes back ──────┘
//!                             fingerprints
//! ```
//!
//! Most keys of most traces are wanted once. An LRU lets each of them travel through the whole cache before it goes; here it goes
//! after a tenth of that, and a scan has a tenth of the room to destroy. A hit counts a visit, up to 3, and moves nothing: so
//! readers need no lock on the queues, which is why this and no LRU or ARC. The algorithm is that of *FIFO queues are all you need
//! for cache eviction* (Yang, Zhang, Qiu, Yue and Rashmi, SOSP 2023).
//!
//! # What it misses
//!
//! Zipf's law of 0.9 over 100,000 keys, and sweeps over keys that never come again, half of all requests. Misses per
//! request for a key that comes again, after a warm-up; printed by the tests `fewer_misses_than_lru_by_zipf`,
//! `a_scan_costs_less_than_with_lru` and `a_scan_costs_less_than_with_lru_whatever_the_sizes`:
//!
//! | trace | room | LRU | S3-FIFO | ratio |
//! | --- | --- | --- | --- | --- |
//! | Zipf | 1 % | 0.657 | 0.549 | 0.835 |
//! | Zipf | 10 % | 0.394 | 0.348 | 0.885 |
//! | Zipf, sweeps of 1,000 keys | 1 % | 0.759 | 0.591 | 0.778 |
//! | Zipf, sweeps of 10,000 keys | 10 % | 0.566 | 0.426 | 0.753 |
//! | the same, 50 to 6,400 bytes each | 10 % | 0.565 | 0.428 | 0.757 |
//!
//! What a sweep asks for once is missed by every cache: of all requests of the last three traces LRU misses 0.879, 0.798 and 0.797, S3-FIFO
//! 0.795, 0.732 and 0.733.
//!
//! # Invariants
//!
//! - Each line is in one of two queues; their bytes are the sum of their lines' bytes ([`S3Fifo::check`]).
//! - What is done to one line takes a bounded number of steps, but for the ghosts' two ordered maps. The search for a victim looks at
//!   [`LOOKS_MAX`] lines at most; in the main queue the last one that it looks at goes, visited or not.
//! - What was inserted and removed leaves a place that another line takes, and at most a fingerprint. Whenever one is noted, the oldest are
//!   forgotten beyond nine for ten lines, which is what the main queue has when it is full, and beyond [`GHOSTS_MAX`].
//! - It is a function of its calls and of the visits: no clock, no randomness.
//!
//! # Departures from the paper
//!
//! - A line that other nodes' writes invalidate, or that is upgraded, leaves without having been evicted. One of the main queue
//!   is noted as a ghost, so that it comes back there.
//! - A line larger than all the room is the next to go: it could stay only where everything else went.
//! - The search in the main queue has an end, see above. On these traces that changes the third digit.
//!
//! # Caveats
//!
//! - A line that cannot go yet, because main memory lacks its value, goes once more round its queue. While nothing but
//!   such lines are looked at, the bytes are above the bound, and while such a line is larger than the bound, others go for nothing.
//! - Two readers at once may count as one visit.
//! - Where all lines go at once, with their lease, the ghosts go too: the queues begin anew with the next home.
//! - The key is there once more in its queue, and a line costs about 100 bytes besides, a ghost about 50: none of that counts as bytes. The table of
//!   places keeps the size that it had with the most lines until there are none.
//! - Two keys with one fingerprint of 64 bits are taken for each other: one of them goes to the wrong queue.

mod ghosts;
mod queues;
mod visits;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace_tests;

use ghosts::Ghosts;
pub(crate) use queues::Place;
use queues::{End, Queues, Which};
pub use visits::Visits;

/// The small queue's part of the bytes is one in so many.
const SMALL_PART: usize = 10;
/// A line with so many visits goes from the small queue to the main queue.
const VISITS_TO_STAY: u8 = 2;
/// Ghosts that are remembered however many lines there are: about 25 MB.
const GHOSTS_MAX: usize = 500_000;
/// Lines that are looked at in one step to make room: so a step takes a bounded time.
pub(crate) const LOOKS_MAX: usize = 16;

/// As many ghosts as the main queue would have lines, were it full. Not by those that it has: a young cache would forget whatever could fill it.
fn ghosts_max(lines: usize) -> usize {
    (lines - lines.div_ceil(SMALL_PART)).min(GHOSTS_MAX)
}

/// Lines in the order in which they are to go. It decides; whoever asks it drops the line.
#[derive(Clone, Debug)]
pub(crate) struct S3Fifo {
    bytes_max: usize,
    queues: Queues,
    ghosts: Ghosts,
}

impl S3Fifo {
    /// For lines that have room up to `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, queues: Queues::default(), ghosts: Ghosts::default() }
    }

    /// A line comes.
    pub(crate) fn insert(&mut self, key: &str, bytes: usize) -> Place {
        let which = if self.ghosts.take(key) { Which::Main } else { Which::Small };
        let place = self.queues.push(which, key, bytes);
        self.goes_first_if_oversize(place);
        place
    }

    /// A line has another size now.
    pub(crate) fn resize(&mut self, place: Place, bytes: usize) {
        self.queues.resize(place, bytes);
        self.goes_first_if_oversize(place);
    }

    /// For a line that has no room even where it is alone, nothing else need go.
    fn goes_first_if_oversize(&mut self, place: Place) {
        if self.is_oversize(place) {
            self.queues.shift(place, Which::Small, End::Oldest);
        }
    }

    fn is_oversize(&self, place: Place) -> bool {
        self.queues.entry(place).bytes > self.bytes_max
    }

    /// A line is no more, for another reason than want of room. One of the main queue comes back into it.
    pub(crate) fn remove(&mut self, place: Place) {
        let entry = self.queues.remove(place);
        if entry.which == Which::Main {
            self.note(&entry.key);
        }
    }

    /// The line that [`S3Fifo::victim`] named goes.
    pub(crate) fn evict(&mut self, place: Place) {
        let entry = self.queues.remove(place);
        if entry.which == Which::Small {
            self.note(&entry.key);
        }
    }

    fn note(&mut self, key: &str) {
        self.ghosts.note(key, ghosts_max(self.lines()));
    }

    /// The line that [`S3Fifo::victim`] named cannot go yet: it is looked at again after all others of its queue.
    pub(crate) fn spare(&mut self, place: Place) {
        let which = self.queues.entry(place).which;
        self.queues.shift(place, which, End::Youngest);
    }

    /// The line to go next. Each line that it looks at takes one from `looks`; none where they are used up.
    pub(crate) fn victim(&mut self, looks: &mut usize) -> Option<(Place, &str)> {
        while *looks > 0 {
            *looks -= 1;
            let (small, main) = (self.queues.queue(Which::Small), self.queues.queue(Which::Main));
            let from_main = small.bytes <= self.bytes_max / SMALL_PART && main.lines > 0;
            let place = if from_main { main.oldest } else { small.oldest }?;
            let visits = &self.queues.entry(place).visits;
            if from_main && visits.get() > 0 && *looks > 0 {
                visits.lower();
                self.queues.shift(place, Which::Main, End::Youngest);
            } else if !from_main && visits.get() >= VISITS_TO_STAY && !self.is_oversize(place) {
                visits.clear();
                self.queues.shift(place, Which::Main, End::Youngest);
            } else {
                return Some((place, &self.queues.entry(place).key));
            }
        }
        None
    }

    /// Where the visits of a line are counted.
    pub(crate) fn visits(&self, place: Place) -> &Visits {
        &self.queues.entry(place).visits
    }

    /// Key and bytes of a line.
    pub(crate) fn line(&self, place: Place) -> (&str, usize) {
        let entry = self.queues.entry(place);
        (&entry.key, entry.bytes)
    }

    /// How many lines there are.
    pub(crate) fn lines(&self) -> usize {
        self.queues.queue(Which::Small).lines + self.queues.queue(Which::Main).lines
    }

    /// Bytes of all lines.
    pub(crate) fn bytes(&self) -> usize {
        self.queues.queue(Which::Small).bytes + self.queues.queue(Which::Main).bytes
    }

    /// Checks the queues against what each line says of itself. Takes time in proportion to the lines.
    ///
    /// # Panics
    /// Where they differ: that is a bug of this module.
    pub(crate) fn check(&self) {
        for which in [Which::Small, Which::Main] {
            let queue = self.queues.queue(which);
            let (mut lines, mut bytes) = (0, 0);
            for entry in self.queues.iter(which) {
                assert_eq!(entry.which, which, "{} stands where it says", entry.key);
                (lines, bytes) = (lines + 1, bytes + entry.bytes);
            }
            assert_eq!((queue.lines, queue.bytes), (lines, bytes), "lines and bytes of {which:?}");
        }
        assert!(self.ghosts.len() <= GHOSTS_MAX, "{} ghosts", self.ghosts.len());
    }
}
