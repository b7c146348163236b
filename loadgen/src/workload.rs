//! What every workload has: connections, preparation, rounds of operations by many workers, and a check afterwards.
//!
//! The generator knows nothing of what it drives: a workload says what one of its connections is, so that Trine's client,
//! a plain HTTP connection and the client of any other system are driven by the same code.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use trine_protocol::Error;
use trine_protocol::error::Outcome;

use crate::clock;
use crate::live::Gauge;
use crate::report::Report;

/// Examples that are kept of what a check found: enough to see the pattern, and a broken server does not fill the memory.
const EVIDENCE_MAX: usize = 20;

/// Why an operation did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name}: {text}")]
pub(crate) struct Failure {
    /// What the report counts it under.
    pub(crate) name: &'static str,
    /// Whether it may have happened all the same.
    pub(crate) unknown: bool,
    /// For a person.
    pub(crate) text: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let unknown = error.code.outcome() == Outcome::Unknown;
        Self { name: error.code.name(), unknown, text: error.to_string() }
    }
}

/// Something to put load with.
pub(crate) trait Workload: Send + Sync + 'static {
    /// One TCP connection. The workers on it each have a clone, and their requests share it.
    type Connection: Clone + Send + Sync + 'static;

    /// Opens the `number`th connection of the run.
    fn connect(&self, number: usize) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;
    /// Makes what the rounds need. By one worker, before any round, and not measured.
    fn prepare(&self, worker: &mut Worker<Self::Connection>) -> impl Future<Output = Result<(), Failure>> + Send;
    /// One round of one worker. False where an operation failed, so that the worker pauses.
    fn round(&self, worker: &mut Worker<Self::Connection>) -> impl Future<Output = bool> + Send;
    /// Looks for what must not have happened. By one worker, after all rounds, and not measured.
    fn verify(&self, worker: &mut Worker<Self::Connection>) -> impl Future<Output = Checks> + Send;
}

/// What the checks of a run say.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// What must never happen, and how often it did: any count above 0 fails the run.
    pub(crate) violations: BTreeMap<&'static str, u64>,
    /// What may happen and is good to know, such as operations of unknown outcome.
    pub(crate) notes: BTreeMap<&'static str, u64>,
    /// The first few violations, one sentence each.
    pub(crate) evidence: Vec<String>,
}

impl Checks {
    /// Counts a violation and keeps what `say` tells of it while there is room.
    pub(crate) fn violation(&mut self, name: &'static str, say: impl FnOnce() -> String) {
        *self.violations.entry(name).or_default() += 1;
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(format!("{name}: {}", say()));
        }
    }

    /// Names a check, so that it is shown where it found nothing.
    pub(crate) fn looked_for(&mut self, names: &[&'static str]) {
        for name in names {
            self.violations.entry(name).or_default();
        }
    }

    /// Adds what another part of the run found.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, count) in other.violations {
            *self.violations.entry(name).or_default() += count;
        }
        for (name, count) in other.notes {
            *self.notes.entry(name).or_default() += count;
        }
        let room = EVIDENCE_MAX.saturating_sub(self.evidence.len());
        self.evidence.extend(other.evidence.into_iter().take(room));
    }

    /// Whether nothing was found that must not be.
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.values().all(|count| *count == 0)
    }
}

/// One of the requests in flight: it sends the next one when it has the answer to the last.
#[derive(Debug)]
pub(crate) struct Worker<C> {
    /// Its number in the run, from 0.
    pub(crate) number: u64,
    /// Rounds it has made.
    pub(crate) rounds: u64,
    /// What it counted.
    pub(crate) report: Report,
    /// What it sends on.
    pub(crate) connection: C,
    /// Its part in the line that is shown while the run goes on.
    pub(crate) gauge: Arc<Gauge>,
    /// When the round was to begin, until its first operation has taken it: that one's latency counts from here.
    pub(crate) intended: Option<Instant>,
    /// Operations that were to begin earlier are warm-up, and not recorded.
    pub(crate) measure_from: Instant,
    random: Xoshiro256PlusPlus,
}

impl<C> Worker<C> {
    /// A worker whose choices follow from the seed and its number alone.
    pub(crate) fn new(number: u64, connection: C, seed: u64) -> Self {
        // The seeding runs this through splitmix64, so neighbouring numbers give unrelated sequences.
        let random = Xoshiro256PlusPlus::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            number,
            rounds: 0,
            report: Report::default(),
            connection,
            gauge: Arc::default(),
            intended: None,
            measure_from: clock::now(),
            random,
        }
    }

    /// Awaits an operation and counts it under `name`.
    pub(crate) async fn measured<T, E: Into<Failure>>(
        &mut self,
        name: &'static str,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        self.measured_as(|_| name, operation).await
    }

    /// Awaits an operation and counts it under a name that depends on what came of it.
    pub(crate) async fn measured_as<T, E: Into<Failure>>(
        &mut self,
        name: impl Fn(&Result<T, Failure>) -> &'static str,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let started = self.intended.take().unwrap_or_else(clock::now);
        let result = operation.await.map_err(Into::into);
        self.record(name(&result), started, result.as_ref().map(|_| ()));
        result
    }

    /// Counts something that began at `started` and has just ended.
    pub(crate) fn record(&mut self, name: &'static str, started: Instant, result: Result<(), &Failure>) {
        let took = started.elapsed();
        self.gauge.add(took, result);
        if started >= self.measure_from {
            self.report.record(name, took, result);
        }
    }

    /// A number below `below`, in a sequence of this worker's own that is the same in every run with the same seed.
    pub(crate) fn chance(&mut self, below: u64) -> u64 {
        self.random.random_range(0..below.max(1))
    }

    /// A duration between the two, each as likely as any other.
    pub(crate) fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let span = micros(longest.saturating_sub(shortest));
        shortest + Duration::from_micros(self.chance(span.saturating_add(1)))
    }

    /// The worker's own sequence, for what draws from it by itself.
    pub(crate) fn random(&mut self) -> &mut Xoshiro256PlusPlus {
        &mut self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_choices_and_another_one_others() {
        let draw = |number, seed| {
            let mut worker = Worker::new(number, (), seed);
            (0..32).map(|_| worker.chance(1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(3, 1), draw(3, 1));
        assert_ne!(draw(3, 1), draw(4, 1));
        assert_ne!(draw(3, 1), draw(3, 2));
    }

    #[test]
    fn warm_up_is_not_recorded() {
        let mut worker = Worker::new(0, (), 1);
        let begun = clock::now();
        worker.measure_from = begun + Duration::from_millis(1);
        worker.record("enqueue", begun, Ok(()));
        assert_eq!(worker.report.done(), 0);
        worker.record("enqueue", begun + Duration::from_millis(1), Ok(()));
        assert_eq!(worker.report.done(), 1);
    }

    #[test]
    fn evidence_is_bounded_and_counts_are_not() {
        let mut checks = Checks::default();
        checks.looked_for(&["lost", "duplicated"]);
        assert!(checks.is_clean());
        for number in 0..100 {
            checks.violation("lost", || format!("message {number}"));
        }
        let mut both = Checks::default();
        both.violation("lost", || "another".into());
        both.merge(checks);
        assert_eq!(both.violations, [("duplicated", 0), ("lost", 101)].into());
        assert_eq!(both.evidence.len(), EVIDENCE_MAX);
        assert!(!both.is_clean());
    }
}
