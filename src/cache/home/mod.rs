//! The home's side of the bus: the leader of a group orders the bus transactions of the group's keys.
//!
//! A transaction is one request of one node for one key; a key has at most one at a time, the others wait in the
//! order in which they came.
//!
//! ```text
//!   BusRd      unowned                     ─▶ Filled E or S
//!              owned    ─▶ SnoopRd owner   ─▶ its value and the end of its ownership in the log ─▶ Filled S
//!   BusRdX     unowned  ─▶ SnoopInv sharers, and beside it the ownership in the log ─▶ both done ─▶ Owned
//!              owned    ─▶ SnoopInv owner  ─▶ the ownership in the log ─▶ Owned
//!   WriteBack  ─▶ the value in the log ─▶ WrittenBack
//!   (time over) ─▶ SnoopInv sharers, and beside it the removal in the log
//!   Release    ─▶ the end of all ownerships of a node that goes, in the log ─▶ Released
//!   Leave      ─▶ its bus lease is over, and that it is not on the bus goes into the log
//! ```
//!
//! Invariants:
//!
//! - nothing is granted, filled or renewed but under the leader lease, looked at when the answer is made;
//! - a write is answered only when each node that may have a copy has acknowledged, or its bus lease has run out;
//! - who shares a key is known to the home alone and dies with it; who owns a key is in the log;
//! - a new home waits ([`Home::is_active`]) before it answers its first request.
//!
//! The home's own node is a node like any other here: its lines hang on a bus lease that it takes from itself. So no
//! rule is needed for "the home's own lines": that lease, too, was given under the leader lease, and a new home waits for its end.
//!
//! # The table
//!
//! What the code does in every state of a key with every event; a test prints it and compares.
//!
//! ```text
#![doc = include_str!("../table/home.txt")]
//! ```

mod behind;
#[cfg(test)]
mod digest;
mod expiry;
mod fill;
mod lease;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transaction;
mod view;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::marker::PhantomData;

use trine_protocol::cache::{LineState, Version};
use trine_protocol::{Error, ErrorCode};

use crate::ids::{Incarnation, Index, NodeId, Term};
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::change::Change;
use super::config::Config;
use super::memory::{Applied, Command, Memory, Owner};
use super::message::{LeaseTag, ToHome, ToNode, Versioned, WriteId};

pub use behind::{Fetched, MemoryAnswer, MemoryCall, Redis};
use behind::{Given, Traffic};
use fill::Fill;
use lease::Lease;

/// How the home's node stands as a leader, at the instant of the step.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The node's monotonic clock.
    pub now_us: u64,
    /// End of its leader lease on that clock.
    pub leader_until_us: Option<u64>,
    /// Whether the entries of earlier terms are applied: the no-op of its own is.
    pub settled: bool,
    /// Log time.
    pub log_ms: u64,
    /// Whether values lie in Redis, and whether it can be asked.
    pub redis: Redis,
}

/// What follows from a step.
#[derive(Debug, Default)]
pub struct HomeOut {
    /// Messages to nodes, this one among them.
    pub to_node: Vec<(NodeId, ToNode)>,
    /// Commands for the log; each comes back in [`Home::committed`] or [`Home::refused`].
    pub propose: Vec<Proposal>,
    /// What Redis is asked; the answers come in [`Home::hear`].
    pub memory: Vec<MemoryCall>,
}

/// A command that the home wants in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The key whose transaction it belongs to; empty with a `Join`, a `Leave` and a `Release`.
    pub key: String,
    /// The transaction; 0 with those.
    pub transaction: u64,
    /// The command.
    pub command: Command,
    /// For an ownership: the number that tells a repeated write, and the window of its session.
    pub write: Option<(WriteId, u64)>,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It was applied now.
    Applied(Applied),
    /// The same write was applied before, with this result.
    Repeated(Applied),
    /// The write's session does not take it any more.
    Refused(Error),
}

/// One home: lives as long as its term.
#[derive(Clone, Debug)]
pub struct Home<R> {
    node: NodeId,
    term: Term,
    config: Config,
    elected_us: u64,
    next_number: u64,
    next_transaction: u64,
    leases: BTreeMap<NodeId, Lease>,
    joining: BTreeMap<NodeId, Incarnation>,
    /// Nodes of which a `Release` is on its way into the log.
    releasing: BTreeSet<NodeId>,
    /// Nodes of which a `Leave` is: none gets a lease before it is through.
    leaving: BTreeSet<NodeId>,
    directory: BTreeMap<String, Entry>,
    busy: BTreeSet<String>,
    /// When which right to fill ends.
    fills: BTreeSet<(u64, String)>,
    traffic: Traffic,
    rules: PhantomData<R>,
}

/// What the home knows of one key beyond the log.
#[derive(Clone, Debug, Default, Hash)]
struct Entry {
    sharers: BTreeMap<NodeId, Sharer>,
    /// Who was told that it has the only copy.
    exclusive: Option<NodeId>,
    transaction: Option<Transaction>,
    waiting: VecDeque<Job>,
    fill: Option<Fill>,
    /// What the copies are of: an absence, and a value of somebody else in Redis, has one version while there are any.
    given: Option<Given>,
    /// What Redis has, while the job that it was looked up for is started.
    fetched: Option<Versioned>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sharer {
    /// Number of the bus lease that the copy hangs on.
    number: u64,
    /// The node's request that the copy answered.
    request: u64,
}

/// What one node wants with a key.
#[derive(Clone, Debug, Hash)]
struct Job {
    node: NodeId,
    request: u64,
    tag: LeaseTag,
    want: Want,
}

#[derive(Clone, Debug, Hash)]
enum Want {
    Read,
    /// `again`: the write may be done already.
    Write {
        write: WriteId,
        acked_below: u64,
        change: Change,
        again: bool,
    },
    WriteBack {
        epoch: Index,
        dirty: Option<Versioned>,
        end: bool,
    },
    /// The right to fill a key that does not exist.
    Fill {
        lease_ms: u32,
    },
    /// The home's own: the time of that value is over.
    Expire(Version),
    /// The home's own: Redis may have something else than the copies.
    Refresh,
}

#[derive(Clone, Debug, Hash)]
struct Transaction {
    id: u64,
    job: Job,
    phase: Phase,
    sent_us: u64,
}

#[derive(Clone, Debug, Hash)]
enum Phase {
    /// The owner was snooped.
    Owner(Owner),
    /// A command is in the log, and copies are being invalidated.
    Commit {
        /// The ownership that ends with the command, and where the old owner may keep a copy, for which of its leases and requests.
        old_owner: Option<(Owner, Option<Sharer>)>,
        /// Copies that are not acknowledged yet.
        copies: BTreeMap<NodeId, Sharer>,
        /// What was applied.
        done: Option<Done>,
    },
    /// Redis is asked; `poisoned` where it has told since that somebody wrote the key.
    Fetch { poisoned: bool },
    /// A write that may be done already and may not be done now: the log is asked.
    Refusal(Error),
}

/// What became of a transaction's command.
#[derive(Clone, Copy, Debug, Hash)]
enum Done {
    /// The write is in the log; whether the requester owns the key under it, and its sum.
    Wrote { epoch: Index, owns: bool, sum: Option<i64> },
    /// The value whose time was over is gone.
    Removed,
    /// The copies are to go, and nothing else.
    Dropped,
}

impl<R: Rules> Home<R> {
    /// The home of a term that begins now.
    pub fn new(node: NodeId, term: Term, config: Config, now_us: u64) -> Self {
        Self {
            node,
            term,
            config,
            elected_us: now_us,
            next_number: 0,
            // Unique over all homes of the group: an answer to an older home's snoop must not pass for one to ours.
            next_transaction: term << 32,
            leases: BTreeMap::new(),
            joining: BTreeMap::new(),
            releasing: BTreeSet::new(),
            leaving: BTreeSet::new(),
            directory: BTreeMap::new(),
            busy: BTreeSet::new(),
            fills: BTreeSet::new(),
            traffic: Traffic::default(),
            rules: PhantomData,
        }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// When its term began, on the node's monotonic clock.
    pub fn elected_us(&self) -> u64 {
        self.elected_us
    }

    /// A message of a node.
    pub fn handle(&mut self, from: NodeId, message: ToHome, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        let (key, job) = match message {
            ToHome::Register { incarnation, round, home } => {
                if home != self.term && !R::without(Rule::LateRegistrationCounts) {
                    return self.meant_for_another(from, home, standing, out);
                }
                return self.register(from, incarnation, round, memory, standing, out);
            }
            ToHome::Renew { tag, round } => return self.renew(from, tag, round, standing, out),
            ToHome::Release { incarnation, tag } => {
                return self.release(from, incarnation, tag, memory, standing, out);
            }
            ToHome::Leave { incarnation, tag } => return self.left(from, incarnation, tag, standing, out),
            ToHome::SnoopAck { request, transaction, key, tag, snooped, incarnation } => {
                if !self.is_of_life(from, incarnation) {
                    return;
                }
                let sharer = Sharer { number: tag.number, request };
                let sharer = (tag.term == self.term).then_some(sharer);
                return self.snoop_acknowledged(from, transaction, &key, sharer, snooped, memory, standing, out);
            }
            ToHome::BusRd { request, key, tag } => (key, Job { node: from, request, tag, want: Want::Read }),
            ToHome::BusRdX { request, write, acked_below, key, change, tag, again, .. } => {
                (key, Job { node: from, request, tag, want: Want::Write { write, acked_below, change, again } })
            }
            ToHome::FillLease { request, key, lease_ms, tag } => (key, fill::wanted(from, request, tag, lease_ms)),
            ToHome::Audit { request, key, tag } => return self.audit(from, request, &key, tag, memory, standing, out),
            ToHome::FillReturn { key, token, .. } => return self.return_fill(&key, token, memory, standing, out),
            ToHome::WriteBack { request, key, epoch, dirty, end, tag } => {
                (key, Job { node: from, request, tag, want: Want::WriteBack { epoch, dirty, end } })
            }
        };
        // A request that is not answered comes again: nothing is lost by silence.
        if !self.may_act(standing) || !self.is_active(memory, standing) {
            return;
        }
        if !self.holds(from, job.tag, standing.now_us) {
            out.to_node.push((from, ToNode::Lapsed { tag: job.tag }));
            return;
        }
        self.enqueue(&key, job, out);
        self.advance(&key, memory, standing, out);
    }

    /// Puts a job behind the others of its key; a repeated one replaces what it repeats.
    fn enqueue(&mut self, key: &str, mut job: Job, out: &mut HomeOut) {
        // What is not newer than all that this lease brought may be a late copy of what was done.
        if let Want::Write { again, .. } = &mut job.want
            && self.leases.get(&job.node).is_some_and(|lease| job.request <= lease.taken)
        {
            *again = true;
        }
        let entry = self.directory.entry(key.to_owned()).or_default();
        if let Some(transaction) = &mut entry.transaction
            && transaction.job.repeats(&job)
        {
            if transaction.job.request < job.request {
                (transaction.job.request, transaction.job.tag) = (job.request, job.tag);
                // Its node counts on this copy now, and there are others: what becomes of it is for the log to say.
                if let (Want::Write { again, .. }, Want::Write { again: newer, .. }) =
                    (&mut transaction.job.want, &job.want)
                {
                    *again |= newer;
                }
            }
            return;
        }
        // A late copy of what was refused is not taken: its node was told that it was not done. One that is only late comes again.
        let fills = matches!(job.want, Want::Fill { .. });
        if !fills && self.leases.get(&job.node).is_some_and(|lease| job.request <= lease.refused) {
            mark(Rare::RefusedComesAgain);
            return;
        }
        let taken = self.leases.get_mut(&job.node).map(|lease| &mut lease.taken);
        if let Some(place) = entry.waiting.iter().position(|other| other.repeats(&job)) {
            entry.waiting[place] = job;
        } else if entry.waiting.len() < self.config.waiting_max {
            if let Some(taken) = taken {
                *taken = job.request.max(*taken);
            }
            entry.waiting.push_back(job);
        } else if taken.is_none_or(|taken| *taken < job.request) {
            // What was taken is not refused by a late copy of it.
            let error =
                Error::new(ErrorCode::Overloaded, format!("too many requests wait for key '{key}' at its home"));
            self.refuse(key, &job, error.retry_after(100), out);
        }
    }

    /// Time has passed: snoops are repeated, leases run out.
    pub fn tick(&mut self, memory: &Memory, standing: Standing, out: &mut HomeOut) {
        self.expire(memory, standing, out);
        self.tick_fills(memory, standing, out);
        self.tend_redis(memory, standing, out);
        for key in self.busy.clone() {
            self.repeat(&key, memory, standing, out);
            self.advance(&key, memory, standing, out);
        }
    }

    /// Nodes with a bus lease that holds.
    pub fn leases(&self, now_us: u64) -> usize {
        self.leases.keys().filter(|node| self.number(**node, now_us).is_some()).count()
    }

    /// Whether that node has a bus lease that holds.
    pub fn has_lease(&self, node: NodeId, now_us: u64) -> bool {
        self.number(node, now_us).is_some()
    }

    /// Whether it answers bus requests, and if not, why.
    ///
    /// # Errors
    /// What it waits for.
    pub fn readiness(&self, memory: &Memory, standing: Standing) -> Result<(), String> {
        if !standing.settled {
            return Err(format!("{} has not applied the entries of earlier terms", self.node));
        }
        match (memory.is_behind(), standing.redis) {
            (true, Redis::None) => {
                return Err(
                    "values of this group lie in Redis, and this node was started without --main-memory".to_owned()
                );
            }
            (_, Redis::Away) => return Err("Redis, where values lie, cannot be reached".to_owned()),
            _ => {}
        }
        if !self.is_active(memory, standing) {
            return Err(format!("{} waits for the bus leases of the home before it", self.node));
        }
        Ok(())
    }
}

impl Entry {
    /// Takes the transaction back. Copies that were to be invalidated and are not acknowledged are copies still.
    fn abort(&mut self) -> Option<Job> {
        let transaction = self.transaction.take()?;
        if let Phase::Commit { copies, .. } = transaction.phase {
            self.sharers.extend(copies);
        }
        Some(transaction.job)
    }
}

impl Job {
    fn repeats(&self, other: &Job) -> bool {
        self.node == other.node
            && match (&self.want, &other.want) {
                (Want::Fill { .. }, Want::Fill { .. }) => self.request == other.request,
                (Want::Read, Want::Read) | (Want::Expire(_), Want::Expire(_)) | (Want::Refresh, Want::Refresh) => true,
                (Want::Write { write, .. }, Want::Write { write: other, .. }) => write == other,
                (Want::WriteBack { epoch, end, .. }, Want::WriteBack { epoch: other, end: other_end, .. }) => {
                    epoch == other && end == other_end
                }
                _ => false,
            }
    }
}

/// The state that a reader gets.
fn granted(shared: bool) -> LineState {
    if shared { LineState::S } else { LineState::E }
}
