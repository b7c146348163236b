//! The rows' work, each written once for every system.
//!
//! A piece of work is a [`Workload`](crate::workload::Workload) over one of the traits of [`systems`](super::systems): the
//! generator drives it, the [`Meter`](super::meter::Meter) counts.
//!
//! # Invariants
//! - What is measured contains no more than what the row's note says; preparation and removal are not in it.
//! - No worker waits for another one without an end: whatever waits ends with the measured seconds or a time limit.
//! - A pause is the same on every system, and nobody pauses where the system can wait by itself.

mod lock;
mod queue;
mod store;

pub(super) use lock::LockWork;
pub(super) use queue::{BatchWork, CommitQueueWork, PipelineWork};
pub(super) use store::{HitWork, SharedWriteWork, WriteWork};

use std::sync::Arc;

use bytes::Bytes;

use crate::schedule;
use crate::workload::{Checks, Failure, Workload};

use super::figures::Sample;
use super::meter::Meter;
use super::rows::Row;

/// Bytes of every body and value.
const VALUE_BYTES: usize = 256;

/// A body or value. Its first bytes tell it from the others: a Redis list removes what equals it.
fn value(worker: u64, round: u64) -> Bytes {
    let mut value = vec![b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&worker.to_be_bytes());
    value[8..16].copy_from_slice(&round.to_be_bytes());
    value.into()
}

/// Runs a piece of work once.
pub(super) async fn run<W: Workload + Metered>(work: W, row: &Row) -> Result<Sample, Failure> {
    let work = Arc::new(work);
    let plan = work.meter().plan(row);
    let outcome = schedule::run(Arc::clone(&work), &plan).await?;
    let mut sample = work.meter().sample();
    sample.errors.extend(outcome.checks.into_iter().flat_map(|checks| checks.evidence));
    Ok(sample)
}

/// What the removal of what a run made comes to. Where it failed, the next run is not disturbed, because its names are new.
fn removed(result: Result<(), Failure>) -> Checks {
    let mut checks = Checks::default();
    if let Err(failure) = result {
        checks.violation("left_behind", || failure.to_string());
    }
    checks
}

/// Who counts with a meter.
pub(super) trait Metered {
    fn meter(&self) -> &Meter;
}
