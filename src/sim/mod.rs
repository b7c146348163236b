//! The simulator.
mod audit;
pub(crate) mod checker;
mod clients;
mod cluster;
mod disk;
mod faults;
mod flights;
mod network;
mod node;
mod phases;
mod random;
mod schedule;
mod swarm;
mod trace;
mod workload;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cluster::Cluster;
pub use random::Random;
pub use swarm::{Bounds, DiskFaults, Every, NetworkFaults, Options, ProcessFaults, RATE_PPM_MAX, Swarm};

use crate::rules::{Faithful, Rules};

/// A run of a whole cluster under one seed, with the rules that its replicas keep.
#[derive(Debug)]
pub struct Sim<R: Rules = Faithful>(PhantomData<R>);

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Events that happened.
    pub events: u64,
    /// Operations of clients that were answered.
    pub answered: u64,
    /// Operations of clients that were not, by what the client knows: the error, or `unknown`.
    pub failed: BTreeMap<&'static str, u64>,
    /// Times that another node came to lead a group while clients waited for answers.
    pub leader_changes_under_load: u64,
    /// Terms that had a leader, over all groups.
    pub elections: u64,
    /// Reads that a node answered from its own lines.
    pub read_hits: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Virtual time that passed, in microseconds.
    pub virtual_us: u64,
    /// The first thing that was wrong.
    pub violation: Option<Violation>,
    /// Of all events: two runs of one seed have the same.
    pub trace_hash: u64,
    /// One line per event, where [`Options::trace`] asked for it.
    pub trace: Vec<String>,
}

/// Something that must not happen did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The number of the event.
    pub step: u64,
    /// What is wrong.
    pub what: String,
}

impl<R: Rules> Sim<R> {
    /// Runs one seed to its end, or to the first violation. A panic of a replica is one too.
    pub fn run(seed: u64, options: &Options) -> Report {
        let mut cluster = Cluster::<R>::new(seed, options);
        // The cluster is looked at, never run, after a panic.
        let checked = catch_unwind(AssertUnwindSafe(|| cluster.run())).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        });
        let step = cluster.trace.events();
        Report {
            seed,
            events: step,
            answered: cluster.counts.answered,
            failed: cluster.counts.failed.clone(),
            leader_changes_under_load: cluster.counts.leader_changes_under_load,
            elections: cluster.consensus.elections(),
            read_hits: cluster.counts.read_hits,
            faults: cluster.counts.faults.clone(),
            virtual_us: cluster.now_us(),
            violation: checked.err().map(|what| Violation { step, what }),
            trace_hash: cluster.trace.hash(),
            trace: cluster.trace.into_lines(),
        }
    }
}
