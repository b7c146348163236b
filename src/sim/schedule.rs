//! What happens when: events in the order of their virtual time, and of their making where two fall together.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Events yet to come, and the virtual time.
#[derive(Debug)]
pub(crate) struct Schedule<E> {
    heap: BinaryHeap<Reverse<Due<E>>>,
    made: u64,
    now_us: u64,
}

#[derive(Debug)]
struct Due<E> {
    at_us: u64,
    number: u64,
    event: E,
}

impl<E> Due<E> {
    fn rank(&self) -> (u64, u64) {
        (self.at_us, self.number)
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<E> Schedule<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), made: 0, now_us: 0 }
    }

    /// The virtual time: that of the event taken last.
    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Lets an event happen at that instant, at the earliest now.
    pub(crate) fn at(&mut self, at_us: u64, event: E) {
        self.made += 1;
        self.heap.push(Reverse(Due { at_us: at_us.max(self.now_us), number: self.made, event }));
    }

    /// Lets an event happen after that time.
    pub(crate) fn after(&mut self, delay_us: u64, event: E) {
        self.at(self.now_us + delay_us, event);
    }

    /// Goes on to the next event.
    pub(crate) fn next(&mut self) -> Option<E> {
        let Reverse(due) = self.heap.pop()?;
        self.now_us = due.at_us;
        Some(due.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_their_making() {
        let mut schedule = Schedule::new();
        for (at_us, name) in [(5, "c"), (1, "a"), (5, "d"), (3, "b")] {
            schedule.at(at_us, name);
        }
        assert_eq!(schedule.next(), Some("a"));
        schedule.at(0, "late, so now");
        assert_eq!(std::iter::from_fn(|| schedule.next()).collect::<Vec<_>>(), ["late, so now", "b", "c", "d"]);
        assert_eq!(schedule.now_us(), 5);
    }
}
