//! One task per replica: takes inputs, and performs their effects in the order of the fields.
//!
//! ```text
//!   inbox --> up to 256 inputs --> handle_all --> retract, persist, publish, send, reply; checkpoint, fetch
//!     ^                                            |
//!     |   tick every 20 ms                         v
//!     +------ Persisted, Checkpointed, Fetched -- disk
//! ```
//!
//! What comes together is one write, one message to each peer, and one answer to it. With that, the news of a commit travelling with the next
//! entries, and a task that waits for company where it had some lately, 32 clients move 1.46 times as many messages and take 1.27 times as
//! many locks a second as before; one client alone waits no longer (`queue-32`, `lock-own-32`, `commit-1` of `trine-loadgen compare`,
//! pairs in turn on two cores, medians of four).
//!
//! # Invariants
//! - The inputs of a turn are handled together, and their effects performed completely before the next ones are handled.
//! - A replica that cannot go on stops the node before any effect of the same step is performed.
//!
//! # Caveats
//! - Where the disk's queue is full the task waits for it, and with it this group's heartbeats. A disk that is
//!   slower than an election timeout costs the leadership, which is what it should.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use trine_protocol::cluster::{GroupStatus, Role};

use crate::clock;
use crate::ids::{GroupId, Index, Now};
use crate::lock::Ended;
use crate::node::behind::MainMemory;
use crate::node::effect::{Checkpoint, Effects, Fetch, Input, Write};
use crate::node::{Replica, Roster};
use crate::raft::{self, Raft};
use crate::rules::Faithful;
use crate::transport::Outbox;

use super::inbox::Inbox;
use super::lines::SharedLines;
use super::measure::{Meter, Sample};
use super::pending::Pending;
use super::watch::Watch;

/// Time between two ticks: half of what a replica must have at least.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between two looks at the gauges: about a second.
const TICKS_PER_MEASURE: u64 = 50;
/// Inputs of recent turns, each turn with half the weight of the one after it, from which on the task waits for company when it is woken:
/// more than one in most turns. A single client that waits for each answer stays below.
const SHARED_RECENT_MIN: usize = 3;
/// Inputs handled before the task lets others run.
const INPUTS_PER_TURN_MAX: usize = 256;

/// What the task needs of a replica. A trait, so that the order of effects is tested with a scripted one.
pub(super) trait Replicated: Send + 'static {
    fn handle_all(&mut self, inputs: &mut dyn Iterator<Item = (Now, Input)>) -> Effects;
    fn status(&self, now: Now) -> GroupStatus;
    fn is_drained(&self, now: Now) -> bool;
    /// Whether it owns no line, and its home knows it.
    fn is_released(&self) -> bool;
    fn sample(&self, now: Now) -> Sample;
    /// How far the group's log is committed, where this node leads.
    fn commit_of_leader(&self) -> Option<Index>;
    /// The locks that ended since the last call.
    fn take_ended_locks(&mut self) -> Vec<Ended>;
    /// How long each lock granted since the last call was waited for, in milliseconds.
    fn take_waited(&mut self) -> Vec<u64>;
}

impl Replicated for Replica<Faithful> {
    fn handle_all(&mut self, inputs: &mut dyn Iterator<Item = (Now, Input)>) -> Effects {
        Replica::handle_all(self, inputs)
    }

    fn status(&self, now: Now) -> GroupStatus {
        Replica::status(self, now)
    }

    fn is_drained(&self, now: Now) -> bool {
        Replica::is_drained(self, now)
    }

    fn is_released(&self) -> bool {
        self.agent().is_released()
    }

    fn sample(&self, now: Now) -> Sample {
        Sample::of(self, now)
    }

    fn commit_of_leader(&self) -> Option<Index> {
        self.raft().filter(|raft| raft.role() == raft::Role::Leader).map(Raft::commit)
    }

    fn take_ended_locks(&mut self) -> Vec<Ended> {
        Replica::take_ended_locks(self)
    }

    fn take_waited(&mut self) -> Vec<u64> {
        Replica::take_waited(self)
    }
}

/// Where writes, checkpoints and fetches go. Each keeps the order of one group's calls, and waits where its queue is full.
pub(super) trait Disk: Send + Sync + 'static {
    fn persist(&self, write: Write) -> impl Future<Output = ()> + Send;
    fn checkpoint(&self, checkpoint: Checkpoint) -> impl Future<Output = ()> + Send;
    fn fetch(&self, fetch: Fetch) -> impl Future<Output = ()> + Send;
}

/// How a replica stands, as of its last tick.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standing {
    pub(super) status: GroupStatus,
    pub(super) drained: bool,
    /// As far as this group is concerned, the node may go for good.
    pub(super) released: bool,
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
    /// The newest list of nodes that any replica of this node has heard of.
    pub(super) heard: watch::Sender<Roster>,
    /// The connection to Redis, where values lie there.
    pub(super) main_memory: Option<mpsc::UnboundedSender<MainMemory>>,
    pub(super) meter: Meter,
    pub(super) watch: Watch,
    /// Stops the node: called with the reason, at most once.
    pub(super) fatal: fn(&str),
}

/// Runs a replica until `stop`.
pub(super) async fn run<R: Replicated, D: Disk>(mut replica: R, mut shell: Shell<D>, stop: CancellationToken) {
    // All replicas of a node tick at the same instants, so what they say to a peer then shares its frames.
    let past = Duration::from_micros(clock::mono_us() % TICK.as_micros() as u64);
    tokio::time::sleep(TICK - past).await;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut inputs = Vec::with_capacity(INPUTS_PER_TURN_MAX + 8);
    let (mut ticks, mut more, mut recent) = (0_u64, false, 0);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {
                inputs.push(Input::Tick);
                ticks += 1;
            }
            () = tokio::task::yield_now(), if more => {}
            () = shell.inbox.filled() => {
                // While much happens, whoever woke this task is not alone: others that can run put in what they have first, and it is
                // handled together.
                if recent >= SHARED_RECENT_MIN {
                    tokio::task::yield_now().await;
                }
            }
        }
        let ticked = !inputs.is_empty();
        more = shell.inbox.take(INPUTS_PER_TURN_MAX, &mut inputs);
        recent = recent / 2 + inputs.len() - usize::from(ticked);
        let mut coming = inputs.drain(..).peekable();
        while coming.peek().is_some() {
            let (watch, handles) = (&mut shell.watch, &shell.meter.handles);
            let effects = replica.handle_all(&mut coming.by_ref().map(|input| {
                let now = clock::now();
                watch.heard(now.mono_us, handles, &input);
                (now, input)
            }));
            if let Some(reason) = &effects.fatal {
                return (shell.fatal)(&format!("{}: {reason}", shell.group));
            }
            shell.watch.done(clock::mono_us(), &shell.meter.handles, &effects, replica.commit_of_leader());
            shell.perform(effects).await;
        }
        drop(coming);
        shell.meter.ended(replica.take_ended_locks());
        shell.meter.waited(replica.take_waited());
        if ticked {
            let now = clock::now();
            let (drained, released) = (replica.is_drained(now), replica.is_released());
            shell.publish_standing(Standing { status: replica.status(now), drained, released });
            if ticks % TICKS_PER_MEASURE == 1 {
                shell.measure(now, &replica.sample(now));
            }
        }
    }
}

impl<D: Disk> Shell<D> {
    /// Performs effects in the order of their fields.
    async fn perform(&self, effects: Effects) {
        let Effects { retract, persist, publish, send, push, reply, checkpoint, fetch, main_memory, roster, fatal: _ } =
            effects;
        self.lines.apply(self.group, retract);
        for write in persist {
            self.disk.persist(write).await;
        }
        self.lines.apply(self.group, publish);
        for (to, message) in send {
            self.outbox.send(to, self.group, message);
        }
        for (client, push) in push {
            self.pending.listeners.tell(client, push);
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
        if let Some(redis) = &self.main_memory {
            // Where its task has ended, so has the node.
            main_memory.into_iter().for_each(|order| drop(redis.send(order)));
        }
        if let Some(roster) = roster {
            self.heard.send_if_modified(|known| {
                let news = known.version < roster.version;
                if news {
                    *known = roster;
                }
                news
            });
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

    fn measure(&mut self, now: Now, sample: &Sample) {
        let lines = self.lines.by_state(self.group);
        self.meter.measure(now, &self.standing.borrow().status, lines, sample);
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
        voters: Vec::new(),
        learners: Vec::new(),
        change: String::new(),
    };
    Standing { status, drained: false, released: false }
}

#[cfg(test)]
mod tests;
