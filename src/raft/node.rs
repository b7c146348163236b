//! What a replica has in every role: its term, its log, its clock, and the way in and out.
//!
//! Every message passes `Node::admit` first, which alone decides what a term does to this replica. The roles never look at terms.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::ids::{Index, NodeId, Now, ReplicaId, Term};
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::candidate::Ballot;
use super::config::Config;
use super::follower::Follower;
use super::leader::Leader;
use super::log::Log;
use super::log_clock::LogClock;
use super::membership::Membership;
use super::message::{Body, HardState, Message};
use super::random::Random;
use super::ready::{Persist, Ready, Snapshot};
use super::snapshot::Assembly;
use super::stats::Stats;
use super::writes::Writes;
use super::{Restart, Role};

/// The role with what belongs to it; a change of role forgets it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum RoleState {
    Follower(Follower),
    PreCandidate(Ballot),
    Candidate(Ballot),
    Leader(Leader),
}

impl RoleState {
    pub(super) fn kind(&self) -> Role {
        match self {
            RoleState::Follower(_) => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node<R> {
    pub(super) rules: PhantomData<R>,
    pub(super) config: Config,
    /// This replica as others know it.
    pub(super) id: ReplicaId,
    /// The latest instant of any input.
    pub(super) now: Now,
    pub(super) hard_state: HardState,
    pub(super) role: RoleState,
    /// Who leads `hard_state.term`.
    pub(super) leader: Option<ReplicaId>,
    pub(super) log: Log,
    pub(super) commit: Index,
    pub(super) applied: Index,
    pub(super) clock: LogClock,
    pub(super) random: Random,
    /// Who is asked besides the voters whether an election could be won.
    pub(super) acquaintances: Vec<ReplicaId>,
    /// When this replica campaigns, unless a leader is heard.
    pub(super) election_deadline_us: u64,
    /// Until when it helps nobody to depose a leader: it heard one, or may have forgotten that it did.
    pub(super) refuse_votes_until_us: u64,
    pub(super) writes: Writes,
    pub(super) outbox: Vec<(ReplicaId, Message)>,
    /// A snapshot's chunks so far.
    pub(super) assembly: Option<Assembly>,
    /// A snapshot that is complete and was not handed out yet.
    pub(super) restore: Option<Snapshot>,
    /// Index of the snapshot that is being made durable; entries wait until it is.
    pub(super) installing: Option<Index>,
    pub(super) stats: Stats,
}

impl<R: Rules> Node<R> {
    pub(super) fn new(config: Config, restart: Restart, now: Now) -> Self {
        config.check();
        let Restart { hard_state, base, entries, applied } = restart;
        let (stamp_ms, wall_ms) = entries.last().map_or((base.stamp_ms, base.wall_ms), |e| (e.stamp_ms, e.wall_ms));
        let founders = Arc::new(Membership::founders(&config.voters));
        let log = Log::new(base, entries, founders);
        let (base, last) = (log.base().index, log.last_index());
        assert!(base <= applied && applied <= last, "applied {applied} is outside {base}..={last}");
        assert!(log.last_term() <= hard_state.term, "term {} on disk, {} in the log", hard_state.term, log.last_term());
        // Replicas that were given one seed must not campaign in step for ever.
        let seed = config
            .id
            .as_str()
            .bytes()
            .fold(config.seed, |seed, byte| seed.wrapping_mul(0x100_0000_01b3).wrapping_add(u64::from(byte)));
        let mut node = Self {
            rules: PhantomData,
            id: config.replica(),
            now,
            hard_state,
            role: RoleState::Follower(Follower::default()),
            leader: None,
            log,
            commit: applied,
            applied,
            clock: LogClock::new(now, stamp_ms, wall_ms),
            random: Random::new(seed),
            acquaintances: Vec::new(),
            election_deadline_us: now.mono_us,
            refuse_votes_until_us: now.mono_us.saturating_add(config.election_us_min),
            writes: Writes::new(hard_state),
            outbox: Vec::new(),
            assembly: None,
            restore: None,
            installing: None,
            stats: Stats::default(),
            config,
        };
        if R::without(Rule::VoteRightAfterRestart) {
            node.refuse_votes_until_us = now.mono_us;
        }
        // A group of one has nobody to wait for.
        if node.log.membership().1.all_voters().len() > 1 {
            node.start_election_timer();
        }
        node
    }

    /// The first timeout after a start. All voters refuse votes for `election_us_min` then, so the first one waits a little
    /// longer than that, for those that started after it.
    fn start_election_timer(&mut self) {
        self.restart_election_timer();
        let (min_us, now_us) = (self.config.election_us_min, self.now.mono_us);
        self.election_deadline_us = match self.config.first {
            Some(first) if first == self.config.id => now_us.saturating_add(min_us + min_us / 4),
            Some(_) => self.election_deadline_us.saturating_add(min_us * 2 / 3),
            None => self.election_deadline_us,
        };
    }

    pub(super) fn term(&self) -> Term {
        self.hard_state.term
    }

    pub(super) fn advance(&mut self, now: Now) {
        self.now = Now { mono_us: self.now.mono_us.max(now.mono_us), wall_ms: now.wall_ms };
    }

    pub(super) fn tick(&mut self, now: Now) {
        self.advance(now);
        match self.role {
            RoleState::Leader(_) => self.tick_leader(),
            _ if self.now.mono_us < self.election_deadline_us => {}
            _ if self.votes() => self.pre_campaign(),
            _ if self.learns() => self.ask_in_vain(),
            _ => {}
        }
    }

    pub(super) fn step(&mut self, now: Now, from: NodeId, message: Message) {
        self.advance(now);
        // What is meant for another life of this node is none of this one's business. Who sends it may be a stranger: the one
        // who knows better who takes part.
        let ours = from != self.id.node && message.to == self.id.incarnation;
        let from = ReplicaId { node: from, incarnation: message.from };
        if !ours || !message.is_well_formed() || !self.admit(from, &message) {
            return;
        }
        match message.body {
            Body::PreVote { last_index, last_term } => {
                self.tell_the_removed(from);
                self.on_pre_vote(from, message.term, (last_term, last_index));
            }
            Body::PreVoteReply { granted } => self.on_pre_vote_reply(from, granted),
            Body::Vote { last_index, last_term, .. } => self.on_vote(from, (last_term, last_index)),
            Body::VoteReply { granted } => self.on_vote_reply(from, granted),
            Body::Append { prev_index, prev_term, entries, commit, round, log_time_ms } => {
                if self.follow(from) {
                    self.clock.observe(self.now, self.hard_state.term, log_time_ms);
                    self.on_append(from, (prev_index, prev_term), entries, commit, round);
                }
            }
            Body::Snapshot { meta, offset, data, last } => {
                if self.follow(from) {
                    self.on_snapshot(from, meta, offset, data, last);
                }
            }
            Body::Appended { index, round } => self.on_appended(from, index, round),
            Body::Rejected { prev_index, hint_index, hint_term, round } => {
                self.on_rejected(from, prev_index, (hint_index, hint_term), round);
            }
            Body::SnapshotReply { index, next_offset, installed } => {
                self.on_snapshot_reply(from, index, next_offset, installed);
            }
            Body::TimeoutNow => self.on_timeout_now(from),
        }
    }

    /// What the message's term does to this replica; false where the message ends here.
    fn admit(&mut self, from: ReplicaId, message: &Message) -> bool {
        let own = self.term();
        match message.body {
            // A question about a term to come, and its answers, move nobody there.
            Body::PreVote { .. } => return true,
            Body::PreVoteReply { granted: true } => return message.term == own + 1,
            Body::PreVoteReply { granted: false } if message.term <= own => return true,
            // A candidate that does not hear the leader must not depose it: not even its term is looked at.
            Body::Vote { transfer: false, .. } if self.refuses_votes() => {
                mark(Rare::VoteRefusedUnderLease);
                return false;
            }
            _ => {}
        }
        if message.term > own {
            self.become_follower(message.term);
        } else if message.term < own
            && !(R::without(Rule::DeposedLeaderFollowed) && matches!(message.body, Body::Append { .. }))
        {
            self.correct(from, &message.body);
            return false;
        }
        true
    }

    /// Tells a leader or a candidate of an earlier term that it is one. Without this, a replica that reached a higher term in an
    /// election it lost would be cut off for ever: it ignores the leader, and everyone else ignores it.
    fn correct(&mut self, from: ReplicaId, body: &Body) {
        match body {
            Body::Append { .. } | Body::Snapshot { .. } => {
                mark(Rare::OldLeaderCorrected);
                self.send(from, Body::Rejected { prev_index: 0, hint_index: 0, hint_term: 0, round: 0 });
            }
            Body::Vote { .. } => self.send(from, Body::VoteReply { granted: false }),
            _ => {}
        }
    }

    /// Follows `term`, whose leader is not known yet.
    pub(super) fn become_follower(&mut self, term: Term) {
        assert!(term >= self.term(), "term {} after {}", term, self.term());
        if term > self.term() {
            self.hard_state = HardState { term, vote: None };
            self.writes.drop_held();
            self.assembly = None;
        }
        if matches!(self.role, RoleState::Leader(_)) {
            // What its lease promised to readers holds until the lease ends, whoever leads then.
            let promised_us = self.lease_until_us().unwrap_or(0);
            self.refuse_votes_until_us = self.refuse_votes_until_us.max(promised_us);
            self.restart_election_timer();
        }
        self.leader = None;
        self.role = RoleState::Follower(Follower::default());
    }

    pub(super) fn refuses_votes(&self) -> bool {
        matches!(self.role, RoleState::Leader(_)) || self.now.mono_us < self.refuse_votes_until_us
    }

    pub(super) fn restart_election_timer(&mut self) {
        let timeout_us = self.random.between(self.config.election_us_min, self.config.election_us_max);
        self.election_deadline_us = self.now.mono_us.saturating_add(timeout_us);
    }

    /// The other voters.
    pub(super) fn others(&self) -> Vec<ReplicaId> {
        self.log.membership().1.all_voters().into_iter().filter(|voter| *voter != self.id).collect()
    }

    /// Whether this replica votes for its own part: only then it campaigns. (It answers who asks for its vote all the same:
    /// the candidate may know better.) One that an entry removes goes on until that entry is committed: it may be the only one
    /// that has it, and without its part the majority before could not decide anything.
    pub(super) fn votes(&self) -> bool {
        self.log.is_voter(self.id, self.commit)
    }

    /// Whether this replica takes part without a vote, as far as it knows.
    fn learns(&self) -> bool {
        self.log.membership().1.learners.contains(&self.id)
    }

    /// Sends what promises nothing, or promises what is durable.
    pub(super) fn send(&mut self, to: ReplicaId, body: Body) {
        self.outbox.push((to, Message::new(self.term(), body)));
    }

    /// Sends what speaks for this term and vote: not before they are durable.
    pub(super) fn promise(&mut self, to: ReplicaId, body: Body) {
        if self.persistent_state() == self.writes.durable() {
            self.send(to, body);
        } else {
            self.writes.hold(to, Message::new(self.term(), body));
        }
    }

    /// Term and vote as they are to be on disk.
    pub(super) fn persistent_state(&self) -> HardState {
        let vote = if R::without(Rule::VoteNotPersisted) { None } else { self.hard_state.vote };
        HardState { term: self.term(), vote }
    }

    pub(super) fn persisted(&mut self, now: Now, sequence: u64) {
        self.advance(now);
        let completed = self.writes.complete(sequence);
        self.log.made_durable(completed.last);
        self.outbox.extend(completed.released);
        if completed.snapshot.is_some() && completed.snapshot == self.installing {
            self.installing = None;
            self.snapshot_installed();
        }
        match self.role {
            RoleState::Follower(_) => self.acknowledge_durable(),
            RoleState::Candidate(_) => self.count_own_vote(),
            RoleState::Leader(_) => self.advance_commit(),
            RoleState::PreCandidate(_) => {}
        }
    }

    pub(super) fn ready(&mut self, now: Now) -> Ready {
        self.advance(now);
        let snapshot_wanted = self.replicate();
        let restore = self.restore.take();
        let persist = self.take_persist(restore.as_ref());
        if persist.is_none() {
            let durable = self.writes.settle_held();
            self.outbox.extend(durable);
        }
        let from = self.id.incarnation;
        let address = |(to, message): (ReplicaId, Message)| (to.node, Message { from, to: to.incarnation, ..message });
        // An earlier life of this node may still be a member. It is gone, and can be told nothing.
        let own = self.id.node;
        let outbox = std::mem::take(&mut self.outbox).into_iter().filter(|(to, _)| to.node != own);
        let messages = outbox.map(address).collect();
        let last = self.commit.min(self.log.stable());
        let committed = self.log.range(self.applied + 1, last).cloned().collect();
        self.applied = last;
        let reads = self.take_reads();
        Ready { persist, messages, restore, committed, reads, snapshot_wanted }
    }

    fn take_persist(&mut self, snapshot: Option<&Snapshot>) -> Option<Persist> {
        let state = self.persistent_state();
        let hard_state = (state != self.writes.handed()).then_some(state);
        let unhanded = self.log.take_unhanded();
        let (truncate_from, entries) = (unhanded.truncate_from, unhanded.entries);
        if hard_state.is_none() && truncate_from.is_none() && entries.is_empty() && snapshot.is_none() {
            return None;
        }
        let last = entries.last().map_or(0, |entry| entry.index);
        let snapshot_index = snapshot.map(|snapshot| snapshot.meta.index);
        let sequence = self.writes.begin(self.now.mono_us, last, hard_state, snapshot_index);
        Some(Persist { sequence, hard_state, truncate_from, entries, snapshot: snapshot.cloned() })
    }
}
