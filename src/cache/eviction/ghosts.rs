//! Keys that went a short while ago, as fingerprints.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

/// A queue of fingerprints without their keys. One that is taken out leaves nothing behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Ghosts {
    by_age: BTreeMap<u64, u64>,
    ages: BTreeMap<u64, u64>,
    next: u64,
}

impl Ghosts {
    /// This key goes now. The oldest are forgotten beyond `most` of them.
    pub(super) fn note(&mut self, key: &str, most: usize) {
        let fingerprint = xxh3_64(key.as_bytes());
        if let Some(before) = self.ages.insert(fingerprint, self.next) {
            self.by_age.remove(&before);
        }
        self.by_age.insert(self.next, fingerprint);
        self.next += 1;
        while self.by_age.len() > most
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.ages.remove(&oldest);
        }
    }

    /// Whether this key went a short while ago. It is forgotten then.
    pub(super) fn take(&mut self, key: &str) -> bool {
        let age = self.ages.remove(&xxh3_64(key.as_bytes()));
        age.is_some_and(|age| self.by_age.remove(&age).is_some())
    }

    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_age.len(), self.ages.len(), "every fingerprint has one age");
        self.ages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_what_is_noted_again_is_young() {
        let mut ghosts = Ghosts::default();
        for key in ["a", "b", "c", "a", "d"] {
            ghosts.note(key, 3);
        }
        let there: Vec<bool> = ["a", "b", "c", "d"].map(|key| ghosts.take(key)).into();
        assert_eq!(there, [true, false, true, true]);
        assert!(!ghosts.take("a"), "it is taken once");
        assert_eq!(ghosts.len(), 0);
    }

    #[test]
    fn more_than_one_goes_where_the_bound_has_shrunk() {
        let mut ghosts = Ghosts::default();
        (0..10).for_each(|n| ghosts.note(&n.to_string(), 10));
        ghosts.note("last", 2);
        assert_eq!(ghosts.len(), 2);
        assert!(ghosts.take("9") && ghosts.take("last"));
    }
}
