//! Consensus over opaque bytes, by hand, without a clock, a socket or a disk.
//!
//! A group of replicas keeps one log. Each entry is a command for a state machine; every replica applies the same entries in the
//! same order, so all of them come to the same state, and a minority of them may be dead at any time.
//!
//! # From zero
//!
//! Time is cut into **terms**. In each term at most one replica **leads**: it was voted for by a majority, and nobody votes twice in a
//! term. Clients' commands go to the leader, which appends them to its log and sends them to the **followers**. An entry that
//! a majority holds durably is **committed**: any majority that elects a later leader shares a replica with the one that
//! holds the entry, and nobody votes for a candidate whose log is behind its own, so every later leader has it.
//! Followers' logs may part from the leader's (a former leader sent them what was never committed); the leader finds the place where they
//! agree, and what follows is cut off and replaced. A follower that needs what the leader has forgotten is sent the state
//! itself, a **snapshot**.
//!
//! The paper is Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm* (2014); pre-vote and handing over are from
//! Ongaro's thesis (sections 9.6 and 3.10).
//!
//! ```text
//!                  silence                  a majority would         a majority did
//!   Follower ------------------> PreCandidate --------> Candidate --------> Leader
//!     ^  ^                           |                     |                  |
//!     |  +---- refused, or a leader is heard --------------+                  |
//!     +---- a higher term, no majority heard, or a disk that hangs -----------+
//! ```
//!
//! # How it is used
//!
//! Nothing here waits, reads a clock or touches a disk. An input ([`Raft::step`], [`Raft::tick`], [`Raft::propose`],
//! [`Raft::persisted`]...) changes the state, and [`Raft::ready`] hands out what is to be done, in the order of its fields. Whatever
//! *promises* something waits inside until the write that makes it true is durable: a vote, an acknowledgement, and a candidate's own vote, without
//! which it does not even ask. What promises nothing leaves at once: a leader's entries travel while its own disk still
//! writes them, and its own copy counts like any other, when it is durable.
//!
//! # Invariants
//!
//! - One leader per term; a leader never overwrites its own log; equal (index, term) means equal logs up to there; a committed entry is
//!   in every later leader's log (figure 3 of the paper). A run of random faults watches these in `tests`.
//! - Term and vote are one record, and durable before anything that rests on them leaves.
//! - An entry is committed by counting replicas only in its leader's own term (figure 8). A new leader begins with a **no-op**
//!   so that it gets there without a client; until then it does not know what is committed ([`Raft::committed_in_term`]).
//! - A follower commits no further than an append has *proven* its log to agree, and cuts its log only at an entry that conflicts.
//! - The completion of a write speaks for the entries it carried, never for others that took their place.
//! - While [`Raft::lease_until_us`] lies in the future no other replica can be elected in a later term: whoever heard the leader (or restarted and may have
//!   forgotten it) refuses votes for the shortest election timeout, unless the leader itself asked for the
//!   election, for which it drops its lease first.
//! - Stamps never fall along the log, and log time runs no faster than the leader's monotonic clock.
//!
//! # Where things stand
//!
//! `membership` is who takes part, `change` how that changes, `reads` how a read without an entry is linearizable.
//! `node` has what all roles share, and is the only place where a term decides something; `follower`, `candidate` and `leader` are the
//! roles, `replication` is what a leader sends and `progress` what it knows of a follower; `log`, `writes`, `snapshot`,
//! `log_clock` and `quorum` can be read by themselves. The scripts in `scripts/` show behaviour, one scenario a file.
//!
//! # Caveats
//!
//! - A follower that has lost what it acknowledged is not repaired: the leader knows better than to believe that, asks again with
//!   each heartbeat, and sends it nothing. Its group goes on with the others.
//! - A partial partition in which every replica hears some other, but none a majority, has no leader, and one in which a leader hears a
//!   majority that clients cannot reach keeps it. Plain Raft does no better.
//! - Snapshots are assembled in memory, up to [`Config::snapshot_bytes_max`].
//! - Messages are neither signed nor encrypted here. [`Raft::step`] survives any message from anyone, but a voter that lies can
//!   break what the group promises: consensus of this kind assumes crashes, not treason.

mod candidate;
mod change;
mod config;
mod follower;
mod invariants;
mod leader;
mod log;
mod log_clock;
mod membership;
mod message;
mod node;
mod progress;
mod quorum;
mod random;
mod reads;
mod ready;
mod replication;
mod snapshot;
mod stats;
mod writes;

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::ids::{Index, NodeId, Now, ReplicaId, Term};
use crate::rules::{Faithful, Rules};

pub use change::ChangeError;
pub use config::Config;
pub use log::ENTRY_OVERHEAD_BYTES;
pub use membership::{LEARNERS_MAX, Membership};
pub use message::{Body, Entry, HardState, INDEX_MAX, Message, SnapshotMeta, TERM_MAX};
pub use quorum::VOTERS_MAX;
pub use reads::ReadError;
pub use ready::{Persist, Ready, Snapshot};
pub use stats::Stats;

use node::{Node, RoleState};

/// What storage found when the node started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restart {
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins: the entry before the first one.
    pub base: SnapshotMeta,
    /// The entries after `base`, without gap or overlap, terms never falling.
    pub entries: Vec<Entry>,
    /// Where the state machine stands: at or after `base`, and not after the last entry.
    pub applied: Index,
}

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes entries from a leader, or waits for one.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Takes proposals.
    Leader,
}

/// What a leader knows of another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// The replica.
    pub replica: ReplicaId,
    /// Its log agrees durably up to here.
    pub matched: Index,
    /// It has answered within the longest election timeout.
    pub active: bool,
}

/// Why a proposal was not taken. It is certain that it will never be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads, or none.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        leader: Option<NodeId>,
    },
    /// [`Config::uncommitted_bytes_max`] is reached: followers or disks do not keep up.
    #[error("too many bytes of proposals wait for their commit")]
    Overloaded,
    /// Leadership is being handed over; ask again, the new leader.
    #[error("leadership is being handed over")]
    Transferring,
}

/// One replica of one group. See the [module's essay](self).
#[derive(Clone, Debug)]
pub struct Raft<R: Rules = Faithful> {
    node: Node<R>,
}

impl<R: Rules> Raft<R> {
    /// A replica that goes on where storage says it stopped.
    ///
    /// # Panics
    /// Where the configuration cannot be safe ([`Config::check`]) or `restart` contradicts itself.
    pub fn new(config: Config, restart: Restart, now: Now) -> Self {
        Self { node: Node::new(config, restart, now) }
    }

    /// Time has passed. To be called at least a few times per heartbeat interval.
    pub fn tick(&mut self, now: Now) {
        self.node.tick(now);
    }

    /// A message arrived: any, in any order, repeated, from strangers.
    pub fn step(&mut self, now: Now, from: NodeId, message: Message) {
        self.node.step(now, from, message);
    }

    /// Appends a command to the log. It is decided when it comes out of [`Ready::committed`] with this index *and the term of
    /// now*; another entry at that index means that it never will be.
    ///
    /// # Errors
    /// [`ProposeError`], each of them certain that nothing happened.
    pub fn propose(&mut self, now: Now, data: Bytes) -> Result<Index, ProposeError> {
        self.node.propose(now, data)
    }

    /// Bytes of the entries that are kept in memory.
    pub fn log_bytes(&self) -> usize {
        self.node.log.bytes()
    }

    /// The write with this sequence, and all before it, are durable.
    ///
    /// # Panics
    /// Where no such write was handed out.
    pub fn persisted(&mut self, now: Now, sequence: u64) {
        self.node.persisted(now, sequence);
    }

    /// The applied state that [`Ready::snapshot_wanted`] asked for. Ignored where nobody needs it any more.
    pub fn provide_snapshot(&mut self, now: Now, snapshot: Snapshot) {
        self.node.provide_snapshot(now, snapshot);
    }

    /// Forgets the entries up to `index`, which the state store holds durably. Returns where the log begins now: earlier than asked
    /// for while a follower is being sent a snapshot and will need the entries after it.
    ///
    /// # Panics
    /// Where `index` is not applied.
    pub fn compact(&mut self, index: Index) -> SnapshotMeta {
        self.node.compact(index)
    }

    /// Hands leadership to the follower that is furthest. The lease is dropped at once and proposals are refused; when the follower has
    /// everything it is told to campaign. Given up after an election timeout. Nothing happens where this is no
    /// leader, is the only voter, or hears from nobody.
    pub fn transfer(&mut self, now: Now) {
        self.node.transfer(now);
    }

    /// The same for a follower of the caller's choice. Nothing happens where it is silent or lacks a committed entry.
    pub fn transfer_to(&mut self, now: Now, target: NodeId) {
        self.node.transfer_to(now, target);
    }

    /// Changes who takes part, by way of both majorities where voters change. It is over when [`Raft::membership`] is the one
    /// that was asked for and [`Raft::change_under_way`] is false; it may also be cut off with this leader.
    ///
    /// # Errors
    /// [`ChangeError`], each of them certain that nothing happened.
    pub fn change(
        &mut self,
        now: Now,
        voters: BTreeSet<ReplicaId>,
        learners: BTreeSet<ReplicaId>,
    ) -> Result<Index, ChangeError> {
        self.node.change(now, voters, learners)
    }

    /// Names replicas that may know the group better than this one's log does. They are asked besides the voters whether an election
    /// could be won, and their answers do not count; but a leader among them tells a replica that was taken out that it was.
    pub fn acquaint(&mut self, replicas: Vec<ReplicaId>) {
        self.node.acquaintances = replicas;
        self.node.acquaintances.retain(|replica| *replica != self.node.id);
    }

    /// Asks for a linearizable read. Its ticket comes out of [`Ready::reads`] when the state is as new as it must be; it never does
    /// where leadership ends first.
    ///
    /// # Errors
    /// [`ReadError`]; the ticket will not come out.
    pub fn read(&mut self, now: Now, ticket: u64) -> Result<(), ReadError> {
        self.node.read(now, ticket)
    }

    /// Takes what follows from the inputs so far.
    pub fn ready(&mut self, now: Now) -> Ready {
        self.node.ready(now)
    }

    /// This replica's node.
    pub fn id(&self) -> NodeId {
        self.node.config.id
    }

    /// This replica, as a membership names it.
    pub fn replica(&self) -> ReplicaId {
        self.node.id
    }

    /// Who takes part, by the newest word in its log, committed or not.
    pub fn membership(&self) -> &Membership {
        self.node.log.membership().1
    }

    /// Whether the newest membership in its log is not committed yet, or has two majorities.
    pub fn change_under_way(&self) -> bool {
        let (index, membership) = self.node.log.membership();
        index > self.node.commit || membership.is_joint()
    }

    /// What it is at the moment.
    pub fn role(&self) -> Role {
        self.node.role.kind()
    }

    /// The newest term it has seen.
    pub fn term(&self) -> Term {
        self.node.hard_state.term
    }

    /// Whom it voted for in this term.
    pub fn vote(&self) -> Option<NodeId> {
        self.node.hard_state.vote.map(|vote| vote.node)
    }

    /// Who leads this term, as far as it knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.node.leader.map(|leader| leader.node)
    }

    /// Everything up to here is committed, as far as it knows.
    pub fn commit(&self) -> Index {
        self.node.commit
    }

    /// Everything up to here was handed out in [`Ready::committed`] or [`Ready::restore`].
    pub fn applied(&self) -> Index {
        self.node.applied
    }

    /// The last entry of its log, durable or not.
    pub fn last_index(&self) -> Index {
        self.node.log.last_index()
    }

    /// The entry before the first one of its log.
    pub fn base(&self) -> &SnapshotMeta {
        self.node.log.base()
    }

    /// The entry at `index`; None where it is compacted or not there yet.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.node.log.get(index)
    }

    /// The term of the entry at `index`; [`Raft::base`] counts.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.node.log.term_at(index)
    }

    /// Bytes of the entries in memory, each with [`ENTRY_OVERHEAD_BYTES`].
    pub fn entries_bytes(&self) -> usize {
        self.node.log.bytes()
    }

    /// Whether it leads and an entry of its own term is committed: from then on `commit` is as far as any leader's ever was.
    pub fn committed_in_term(&self) -> bool {
        let own_term = self.node.log.term_at(self.node.commit) == Some(self.node.hard_state.term);
        matches!(self.node.role, RoleState::Leader(_)) && own_term
    }

    /// Until when, on this node's monotonic clock in microseconds, no other replica can be elected. None where it does not lead
    /// or is handing over. A group of one has no other: `u64::MAX`.
    pub fn lease_until_us(&self) -> Option<u64> {
        self.node.lease_until_us()
    }

    /// The group's log time in milliseconds, as far as this replica knows.
    pub fn log_time_ms(&self, now: Now) -> u64 {
        self.node.clock.now_ms(now)
    }

    /// What this replica has done since it was made.
    pub fn stats(&self) -> Stats {
        self.node.stats
    }

    /// How many entries of its log each follower is not known to hold. Empty where it does not lead.
    pub fn lags(&self) -> Vec<(NodeId, u64)> {
        self.node.lags()
    }

    /// How many voters are known to have an entry on disk, and how many there are. None where it does not lead.
    pub fn flushed(&self, index: Index) -> Option<(u32, u32)> {
        self.node.flushed(index)
    }

    /// What a leader knows of the others who take part. Empty where it does not lead.
    pub fn followers(&self) -> Vec<Following> {
        self.node.followers()
    }

    /// Asserts what must hold between any two calls.
    ///
    /// # Panics
    /// Where something of it does not, with the numbers.
    pub fn check_invariants(&self) {
        self.node.check_invariants();
    }
}

#[cfg(test)]
mod tests;
