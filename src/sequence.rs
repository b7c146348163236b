//! The numbers that a node gives its own commands in a session, so that the log tells a repeated one from a new one.

use std::collections::BTreeSet;

/// One session, from its owner's side.
#[derive(Clone, Debug, Default, Hash)]
pub struct Sequences {
    session: Option<u64>,
    next: u64,
    open: BTreeSet<u64>,
}

impl Sequences {
    /// The session is open under this id; numbers begin anew.
    pub fn opened(&mut self, session: u64) {
        *self = Self { session: Some(session), next: 1, open: BTreeSet::new() };
    }

    /// The session is no more.
    pub fn closed(&mut self) {
        *self = Self::default();
    }

    /// The session's id, where one is open.
    pub fn session(&self) -> Option<u64> {
        self.session
    }

    /// The next number, which stays open until [`Sequences::done`]. None without a session.
    pub fn take(&mut self) -> Option<(u64, u64)> {
        let session = self.session?;
        let sequence = self.next;
        self.next += 1;
        self.open.insert(sequence);
        Some((session, sequence))
    }

    /// The answer to this number has arrived, or nobody waits for it any more.
    pub fn done(&mut self, session: u64, sequence: u64) {
        if self.session == Some(session) {
            self.open.remove(&sequence);
        }
    }

    /// Every number below this one is done.
    pub fn acked_below(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_open_number_holds_the_window_back() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.take(), None);
        sequences.opened(7);
        assert_eq!([sequences.take(), sequences.take()], [Some((7, 1)), Some((7, 2))]);
        sequences.done(7, 2);
        assert_eq!(sequences.acked_below(), 1);
        sequences.done(6, 1);
        assert_eq!(sequences.acked_below(), 1, "another session's number");
        sequences.done(7, 1);
        assert_eq!(sequences.acked_below(), 3);
    }
}
