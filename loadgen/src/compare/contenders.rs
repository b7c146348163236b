//! Who is put beside whom: for each row Trine and its peers, each ready to be run once.

use std::future::Future;
use std::pin::Pin;

use crate::workload::Failure;

use super::Arguments;
use super::figures::Sample;
use super::meter::Meter;
use super::peers::etcd::Etcd;
use super::peers::nats::{Nats, Pull};
use super::peers::rabbit::Rabbit;
use super::peers::redis::{Persistence, Redis};
use super::peers::trine::Trine;
use super::rows::{Kind, Row};
use super::systems::{Locks, Queues, Store};
use super::work::{self, BatchWork, CommitQueueWork, HitWork, LockWork, PipelineWork, SharedWriteWork, WriteWork};

/// One run of one row on one system, under way.
pub(super) type Trial = Pin<Box<dyn Future<Output = Result<Sample, Failure>> + Send>>;

/// A system that is ready to run a row.
pub(super) struct Contender {
    /// What it is called, with how many nodes it has.
    pub(super) name: &'static str,
    /// What its answer means: who has it, and whether on disk.
    pub(super) keeps: &'static str,
    /// Runs the row once, under a run number that names what it makes.
    pub(super) trial: Box<dyn Fn(Meter, u64) -> Trial + Send>,
}

/// Name of a system, and what its answer means.
type Title = (&'static str, &'static str);

const TRINE: Title = ("Trine x3", "majority, flushed");
const ETCD: Title = ("etcd x3", "majority, flushed");
const NATS: Title = ("NATS JetStream x3", "majority, not flushed");
const RABBIT: Title = ("RabbitMQ quorum x3", "majority, flushed");
const REDIS: Title = ("Redis x1, in memory", "one process, not on disk");
const REDIS_ALWAYS: Title = ("Redis x1, fsync always", "one process, flushed");

impl Contender {
    fn new(title: Title, trial: impl Fn(Meter, u64) -> Trial + Send + 'static) -> Self {
        Self { name: title.0, keeps: title.1, trial: Box::new(trial) }
    }

    fn locks<S: Locks + Clone>(title: Title, system: S, row: &'static Row) -> Self {
        let is_hot = row.kind == Kind::HotLock;
        Self::new(title, move |meter, run| Box::pin(work::run(LockWork::new(system.clone(), meter, run, is_hot), row)))
    }

    fn queues<S: Queues + Clone>(title: Title, system: S, row: &'static Row) -> Self {
        Self::new(title, move |meter, run| {
            let system = system.clone();
            match row.kind {
                Kind::Queue { batch } => Box::pin(work::run(BatchWork::new(system, meter, run, batch), row)),
                Kind::Pipeline => Box::pin(work::run(PipelineWork::new(system, meter, run, row.clients), row)),
                _ => Box::pin(work::run(CommitQueueWork::new(system, meter, run), row)),
            }
        })
    }

    pub(super) fn store<S: Store + Clone>(title: Title, system: S, row: &'static Row) -> Self {
        Self::new(title, move |meter, run| {
            let system = system.clone();
            match row.kind {
                Kind::Hit => Box::pin(work::run(HitWork::new(system, meter, run), row)),
                Kind::SharedWrite => Box::pin(work::run(SharedWriteWork::new(system, meter, run), row)),
                _ => Box::pin(work::run(WriteWork::new(system, meter, run, row.clients), row)),
            }
        })
    }
}

/// Trine and the peers of a row.
pub(super) fn of(row: &'static Row, arguments: &Arguments) -> (Contender, Vec<Contender>) {
    let trine = Trine::new(&arguments.endpoints);
    let etcd = Etcd::new(&arguments.etcd);
    let redis = Redis::new(&arguments.redis, Persistence::None);
    let always = Redis::new(&arguments.redis_aof, Persistence::Always);
    let pull = if matches!(row.kind, Kind::Queue { batch } if batch > 1) { Pull::Batch } else { Pull::Stream };
    let nats = Nats::new(&arguments.nats, pull);
    match row.kind {
        Kind::OwnLock | Kind::HotLock => (
            Contender::locks(TRINE, trine, row),
            vec![
                Contender::locks(ETCD, etcd, row),
                Contender::locks(REDIS, redis, row),
                Contender::locks(REDIS_ALWAYS, always, row),
            ],
        ),
        Kind::Queue { .. } | Kind::Pipeline => (
            Contender::queues(TRINE, trine, row),
            vec![
                Contender::queues(NATS, nats, row),
                Contender::queues(RABBIT, Rabbit::new(&arguments.rabbit), row),
                Contender::queues(REDIS, redis, row),
                Contender::queues(REDIS_ALWAYS, always, row),
            ],
        ),
        Kind::Hit => (Contender::store(TRINE, trine, row), vec![Contender::store(REDIS, redis, row)]),
        Kind::OwnedWrite | Kind::SharedWrite => (
            Contender::store(TRINE, trine, row),
            vec![Contender::store(REDIS, redis, row), Contender::store(REDIS_ALWAYS, always, row)],
        ),
        Kind::Commit => (
            Contender::queues(TRINE, trine, row),
            vec![
                Contender::store(ETCD, etcd, row),
                Contender::store(REDIS_ALWAYS, always, row),
                Contender::queues(NATS, nats, row),
            ],
        ),
    }
}
