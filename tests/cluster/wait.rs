//! Waiting for something that can be seen, with a deadline; and the tests' only look at a clock.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The tests' clock.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test of real processes measures real time")]
    Instant::now()
}

/// Looks until `look` sees something.
///
/// # Panics
/// After `within`, with `what` was awaited.
pub(crate) fn blocking<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < within, "waited {within:?} for {what}");
        std::thread::sleep(PAUSE);
    }
}

/// The same, in an asynchronous test.
pub(crate) async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < within, "waited {within:?} for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
