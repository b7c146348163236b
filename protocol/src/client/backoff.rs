//! How long to wait before the next try: twice as long each time, up to a limit, and never exactly as long as others wait.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait in milliseconds: about a round trip and a commit.
pub(super) const BACKOFF_MS_MIN: u64 = 10;
/// The longest wait in milliseconds. A takeover takes up to 3 s; a client then notices within a third of that.
pub(super) const BACKOFF_MS_MAX: u64 = 1_000;

/// Waits of one caller, longer each time.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait: between half of a step and the whole of it, where steps double.
    pub(super) fn next(&mut self) -> Duration {
        let step_ms = step_ms(self.tries);
        self.tries = self.tries.saturating_add(1);
        // A hasher of the standard library starts from random keys: enough to keep clients apart, and no dependency.
        let random = RandomState::new().hash_one(self.tries);
        Duration::from_millis(step_ms / 2 + random % (step_ms - step_ms / 2 + 1))
    }
}

fn step_ms(tries: u32) -> u64 {
    BACKOFF_MS_MIN.saturating_mul(1_u64.checked_shl(tries).unwrap_or(u64::MAX)).min(BACKOFF_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_up_to_the_limit() {
        let steps: Vec<_> = (0..8).map(step_ms).collect();
        assert_eq!(steps, [10, 20, 40, 80, 160, 320, 640, 1000]);
        assert_eq!(step_ms(u32::MAX), BACKOFF_MS_MAX);
    }

    #[test]
    fn waits_lie_in_the_upper_half_of_their_step_and_differ() {
        let mut first_waits: Vec<_> = (0..200).map(|_| Backoff { tries: 7 }.next().as_millis() as u64).collect();
        assert!(first_waits.iter().all(|ms| (500..=1000).contains(ms)), "{first_waits:?}");
        first_waits.sort_unstable();
        first_waits.dedup();
        assert!(first_waits.len() > 50, "{} different waits of 200", first_waits.len());
    }
}
