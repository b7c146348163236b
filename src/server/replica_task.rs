//! One task per replica: takes inputs, and performs their effects in the order of the fields.
//!
//! ```text
//!   inbox --> up to 256 inputs --> handle --> retract, persist, publish, send, reply; checkpoint, fetch
//!     ^                                            |
//!     |   tick every 20 ms                         v
//!     +------ Persisted, Checkpointed, Fetched -- disk
//! ```
//!
//! # Invariants
//! - The effects of an input are performed completely before the next input is handled.
//! - A replica that cannot go on stops the node before any effect of the same step is performed.
//!
//! # Caveats
//! - Where the disk's queue is full the task waits for it, and with it this group's heartbeats. A disk that is
//!   slower than an election timeout costs the leadership, which is what it should.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use trine_protocol::cluster::{GroupStatus, Role};

use crate::clock;
use crate::ids::{GroupId, Now};
use crate::metrics;
use crate::node::Replica;
use crate::node::effect::{Checkpoint, Effects, Fetch, Input, Write};
use crate::rules::Faithful;
use crate::transport::Outbox;

use super::inbox::Inbox;
use super::lines::SharedLines;
use super::pending::Pending;

/// Time between two ticks: half of what a replica must have at least.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between two looks at the gauges: about a second.
const TICKS_PER_MEASURE: u64 = 50;
/// Inputs handled before the task lets others run.
const INPUTS_PER_TURN_MAX: usize = 256;

/// What the task needs of a replica. A trait, so that the order of effects is tested with a scripted one.
pub(super) trait Replicated: Send + 'static {
    fn handle(&mut self, now: Now, input: Input) -> Effects;
    fn status(&self, now: Now) -> GroupStatus;
    fn is_drained(&self, now: Now) -> bool;
    fn counts(&self) -> Counts;
}

impl Replicated for Replica<Faithful> {
    fn handle(&mut self, now: Now, input: Input) -> Effects {
        Replica::handle(self, now, input)
    }

    fn status(&self, now: Now) -> GroupStatus {
        Replica::status(self, now)
    }

    fn is_drained(&self, now: Now) -> bool {
        Replica::is_drained(self, now)
    }

    fn counts(&self) -> Counts {
        let Some(machine) = self.machine() else { return Counts::default() };
        let mut counts = Counts { locks_held: machine.lock().stats().held, ..Counts::default() };
        for queue in machine.queue().stats() {
            counts.queue_ready += queue.ready;
            counts.queue_in_flight += queue.in_flight;
        }
        counts
    }
}

/// Where writes, checkpoints and fetches go. Each keeps the order of one group's calls, and waits where its queue is full.
pub(super) trait Disk: Send + Sync + 'static {
    fn persist(&self, write: Write) -> impl Future<Output = ()> + Send;
    fn checkpoint(&self, checkpoint: Checkpoint) -> impl Future<Output = ()> + Send;
    fn fetch(&self, fetch: Fetch) -> impl Future<Output = ()> + Send;
}

/// What a group holds, as this node has applied it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) queue_ready: u64,
    pub(super) queue_in_flight: u64,
    pub(super) locks_held: u64,
}

/// How a replica stands, as of its last tick.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standing {
    pub(super) status: GroupStatus,
    pub(super) drained: bool,
}

/// Everything that effects are performed on.
pub(super) struct Shell<D> {
    pub(super) group: GroupId,
    pub(super) inbox: Arc<Inbox>,
    pub(super) lines: Arc<SharedLines>,
    pub(super) pending: Arc<Pending>,
    pub(super) outbox: Outbox,
    pub(super) disk: Arc<D>,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) gauges: metrics::Group,
    /// Stops the node: called with the reason, at most once.
    pub(super) fatal: fn(&str),
}

/// Runs a replica until `stop`.
pub(super) async fn run<R: Replicated, D: Disk>(mut replica: R, shell: Shell<D>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut inputs = Vec::with_capacity(INPUTS_PER_TURN_MAX + 8);
    let (mut ticks, mut more) = (0_u64, false);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {
                inputs.push(Input::Tick);
                ticks += 1;
            }
            () = tokio::task::yield_now(), if more => {}
            () = shell.inbox.filled() => {}
        }
        let ticked = !inputs.is_empty();
        more = shell.inbox.take(INPUTS_PER_TURN_MAX, &mut inputs);
        for input in inputs.drain(..) {
            let effects = replica.handle(clock::now(), input);
            if let Some(reason) = &effects.fatal {
                return (shell.fatal)(&format!("{}: {reason}", shell.group));
            }
            shell.perform(effects).await;
        }
        if ticked {
            let now = clock::now();
            shell.publish_standing(Standing { status: replica.status(now), drained: replica.is_drained(now) });
            if ticks % TICKS_PER_MEASURE == 1 {
                shell.measure(replica.counts());
            }
        }
    }
}

impl<D: Disk> Shell<D> {
    /// Performs effects in the order of their fields.
    async fn perform(&self, effects: Effects) {
        let Effects { retract, persist, publish, send, reply, checkpoint, fetch, fatal: _ } = effects;
        self.lines.apply(self.group, retract);
        for write in persist {
            self.disk.persist(write).await;
        }
        self.lines.apply(self.group, publish);
        for (to, message) in send {
            self.outbox.send(to, self.group, message);
        }
        for (id, outcome) in reply {
            self.pending.answer(id, outcome);
        }
        for checkpoint in checkpoint {
            self.disk.checkpoint(checkpoint).await;
        }
        for fetch in fetch {
            self.disk.fetch(fetch).await;
        }
    }

    fn publish_standing(&self, standing: Standing) {
        self.standing.send_if_modified(|known| {
            let news = *known != standing;
            if news {
                *known = standing;
            }
            news
        });
    }

    fn measure(&self, counts: Counts) {
        let (gauges, standing) = (&self.gauges, self.standing.borrow());
        let status = &standing.status;
        gauges.leader.set(f64::from(u8::from(status.role == Role::Leader)));
        gauges.term.set(status.term as f64);
        gauges.commit_index.set(status.commit_index as f64);
        gauges.applied_index.set(status.applied_index as f64);
        gauges.bus_lease.set(f64::from(u8::from(status.bus_lease)));
        gauges.cache_lines.set(self.lines.count(self.group) as f64);
        gauges.queue_ready.set(counts.queue_ready as f64);
        gauges.queue_in_flight.set(counts.queue_in_flight as f64);
        gauges.locks_held.set(counts.locks_held as f64);
    }
}

/// How a group stands before its replica has had its first tick.
pub(super) fn not_started(group: GroupId) -> Standing {
    let status = GroupStatus {
        group: group.0,
        role: Role::Outside,
        term: 0,
        voted_for: None,
        leader: None,
        last_index: 0,
        commit_index: 0,
        applied_index: 0,
        bus_lease: false,
        ready: false,
        why_not_ready: format!("{group} is starting"),
    };
    Standing { status, drained: false }
}

#[cfg(test)]
mod tests;
