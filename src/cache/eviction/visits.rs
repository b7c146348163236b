//! How often a line was used, shared between the agent that evicts and the readers that hit.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What two bits count to: more visits say nothing more.
pub(super) const VISITS_MAX: u8 = 3;

/// A counter of visits that stops at 3. A copy of it counts in the same place.
///
/// It says nothing about what a line is, so all of them are equal. The default is no counter: whatever counts there is lost.
#[derive(Clone, Debug, Default)]
pub struct Visits(Option<Arc<AtomicU8>>);

impl Visits {
    /// A counter at 0.
    pub fn counted() -> Self {
        Self(Some(Arc::default()))
    }

    /// One more visit: one load, and one store where the counter has not reached its end. Two readers at once may count as one, which is
    /// cheaper than being exact, and decides as well.
    pub fn bump(&self) {
        if let Some(counter) = &self.0 {
            let visits = counter.load(Ordering::Relaxed);
            if visits < VISITS_MAX {
                counter.store(visits + 1, Ordering::Relaxed);
            }
        }
    }

    /// How many visits it has counted, up to 3.
    pub fn get(&self) -> u8 {
        self.0.as_ref().map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// One fewer, the price of a second chance.
    pub(super) fn lower(&self) {
        if let Some(counter) = &self.0 {
            counter.store(counter.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        }
    }

    pub(super) fn clear(&self) {
        if let Some(counter) = &self.0 {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl PartialEq for Visits {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Visits {}

impl Hash for Visits {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_count_in_one_place_and_stop_at_three() {
        let visits = Visits::counted();
        let reader = visits.clone();
        let counted: Vec<u8> = (0..5)
            .map(|_| {
                reader.bump();
                visits.get()
            })
            .collect();
        assert_eq!(counted, [1, 2, 3, 3, 3]);
        visits.lower();
        assert_eq!(reader.get(), 2);
        visits.clear();
        visits.lower();
        assert_eq!(reader.get(), 0);
    }

    #[test]
    fn no_counter_counts_nothing_and_all_are_equal() {
        let (none, counter) = (Visits::default(), Visits::counted());
        none.bump();
        counter.bump();
        assert_eq!((none.get(), counter.get()), (0, 1));
        assert_eq!(none, counter);
    }
}
