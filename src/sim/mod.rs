//! A whole cluster on a virtual clock under one seed.
//!
//! The simulator stands where the server stands: it drives the same [`Replica`](crate::node::Replica)s, for every node and
//! group, and does their effects in the order of the fields. Time, the network, the disks and the clients are its own, and
//! all of them come from one number, so that a failure is replayed by its seed:
//!
//! ```text
//!   cargo run --release --bin trine-sim -- --seeds 50000            many seeds, every promise checked in each
//!   cargo run --release --bin trine-sim -- --seed 109 --trace       one seed, a line per event
//!   cargo run --release --bin trine-sim -- --bugs                   each rule left out once: it has to be seen
//!   cargo run --release --bin trine-sim -- --world-of JointLeftEarly   all rules kept, in the worlds in which that one is looked for
//! ```
//!
//! # What a seed is like
//! Each draws its own [`Swarm`]: 1 to 7 nodes, 1 to 64 groups, clients, a few hot keys, clocks that run at different rates, small
//! bounds (some so small that whoever is behind by a few entries needs a snapshot), and some of the faults: messages lost,
//! doubled, late, overtaking, dropped by a full inbox; connections that break; links cut one way or both, in the shapes that have
//! stopped real clusters (`partitions`); processes that stand still or crash, alone or with the power; disks that are slow, stall,
//! are full, or refuse a write or a sync. In half of the seeds the log on those disks is the real one over bytes in memory
//! ([`ByteDisk`](crate::storage::ByteDisk)): any of the blocks that no sync covered is lost, one is torn, and bits flip in what is durable. A
//! node that finds such damage stays down for good. In three of ten seeds a replica's task does not run at once, and takes together what has come
//! meanwhile (`turns`); in one of three there are managed queues. A phase with faults is followed by a healthy one, in which every group must
//! have a leader and every client its answer.
//!
//! # What is checked
//! After every event: one leader per term, none elected while another holds the leader lease, log matching, nothing committed
//! changes or vanishes, no two votes in a term, single writer or many readers among the lines that are valid at that instant.
//! With every answer: no acknowledged message lost, what reaches a node in one order in the queue in that order, order of first
//! deliveries, none after its acknowledgement; in managed queues times to live, priorities, limits, pauses and purges; one holder per lock and
//! growing tokens; every read, hit or miss, against the newest version that was complete when it began; what was refused never takes effect.
//!
//! The last long run: seeds 0 to 49,999, every promise kept; about 178 simulated hours, 441 million events, 363,000 elections and 33,960,898
//! operations checked in 39 minutes on two cores (release) that ran tests beside it. In runs before it 4,299, 16,021, 17,332, 22,071 and 31,125
//! failed, and pass now: a write of the cache that its first copy was refused for was done by the second; a message that died while it waited for its
//! back-off was not written down, so that its node could not start; a write that the log knew as refused was proposed again without end; and the
//! last two were the checker's, which knew too little of answers that come late.
//!
//! # What it must reach
//! Branches that none of those seeds took: a dirty value is superseded while its owner is away, Redis has something else than the copies, the home ends
//! an ownership that its holder still believes in, a session ends while its command is on its way.
//!
//! Rare branches of the code carry marks ([`crate::marks`]). `trine-sim` prints how often each ran and which never did, and so it
//! does with the kinds of messages and of faults; `tests/seeds.rs` fails where its seeds miss more than a few.
//!
//! # The bugs that it must find
//! Each [`Rule`](crate::rules::Rule) that is left out is a bug, and each stands in the [`BANK`] with where the field has met it and a seed that finds it.
//! `tests/seeds.rs` asserts that those seeds find them, and that the same seeds pass without. `trine-sim --bugs` looks for them from seed 0 on: of 67 all
//! are found, the last after 4,300 seeds; three more are found by the model of the cache, and one by a test of its own ([`MODELLED`]). In the world of changes
//! that are cut, where two of them are found, 828 seeds pass with all rules.
//!
//! # Caveats
//! - Bits flip in fewer nodes than a majority of any group's voters, and not in the state store, which is a model of sled.
//! - Where bits flip there is no operator, so a node whose disk is damaged is never replaced.
//! - A node that was away while all that it knew were replaced hears nobody, and nothing is asked of it: it has to be replaced, too.
//! - The shell around the replicas (sockets, threads, HTTP) is tested with real processes instead.

mod audit;
mod bank;
pub(crate) mod checker;
mod churn;
mod clients;
mod cluster;
mod counts;
mod disk;
mod faults;
mod flights;
mod kinds;
mod near;
mod network;
mod node;
mod partitions;
mod phases;
mod random;
mod readers;
mod redis;
mod schedule;
mod storage;
mod swarm;
mod trace;
mod turns;
mod workload;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use bank::{BANK, Bug, MODELLED};
use cluster::Cluster;
pub use faults::fault_names;
pub use kinds::KINDS;
pub use random::Random;
pub use redis::RedisFaults;
pub use swarm::{Bounds, DiskFaults, Every, NetworkFaults, Options, ProcessFaults, RATE_PPM_MAX, Swarm};

use crate::marks::counting;
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
    /// Messages that arrived, by kind.
    pub delivered: BTreeMap<&'static str, u64>,
    /// Rare branches that ran, and how often.
    pub marks: BTreeMap<&'static str, u64>,
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
        let (checked, marks) = counting(|| catch_unwind(AssertUnwindSafe(|| cluster.run())));
        let checked = checked.unwrap_or_else(|panic| {
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
            delivered: KINDS.into_iter().zip(cluster.counts.delivered.iter().copied()).collect(),
            marks,
            virtual_us: cluster.now_us(),
            violation: checked.err().map(|what| Violation { step, what }),
            trace_hash: cluster.trace.hash(),
            trace: cluster.trace.into_lines(),
        }
    }
}
