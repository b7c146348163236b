//! The leader: takes proposals, decides what is committed, and knows until when it is the only one.
//!
//! **The lease.** Each heartbeat broadcast has a round number, and the leader remembers when it sent it. A follower that answers round
//! *r* refuses votes for an election timeout from then on. So when a majority has answered *r*, no other
//! leader can be elected before *send time of r* + lease: any majority that could elect one contains one of
//! them. The time of sending, not of the answer, because a follower counts from somewhere between the two.
//!
//! **Handing over** breaks that promise on purpose: the chosen follower's votes override the refusal. So the lease is dropped first, and once
//! the follower was told to campaign this leader never holds one in this term again: the order may be
//! delayed for as long as it likes. If nothing comes of it, the leader elects itself anew, in a term in which that order is void.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Index, NodeId, Now, ReplicaId, Term};
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::ProposeError;
use super::log::entry_bytes;
use super::membership::Membership;
use super::message::{Entry, SnapshotMeta};
use super::node::{Node, RoleState};
use super::progress::{Progress, State};
use super::reads::Reads;
use super::ready::Snapshot;

/// Rounds whose send time is remembered. At ten heartbeats a second these are six seconds, many times any lease; the answer to an
/// older round gives none.
const ROUNDS_MAX: usize = 64;

/// A leader's term of office.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// The others who take part, and those who are to hear that they do no more.
    pub(super) followers: BTreeMap<ReplicaId, Progress>,
    /// The newest round, from 1; never used twice in a term.
    pub(super) round: u64,
    /// When the last rounds were sent; the last is that of `round`.
    sent_us: VecDeque<u64>,
    next_heartbeat_us: u64,
    /// The send time of the newest round that a majority acknowledged.
    lease_from_us: Option<u64>,
    pub(super) reads: Reads,
    /// Bytes of own entries that are not committed.
    pub(super) uncommitted_bytes: usize,
    pub(super) transfer: Option<Transfer>,
    /// The state for followers that need it; forgotten when none does.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) snapshot_asked: bool,
}

/// Leadership on its way to another replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) target: ReplicaId,
    deadline_us: u64,
    /// It was told to campaign, which cannot be taken back.
    pub(super) told: bool,
}

impl Leader {
    pub(super) fn begin_round(&mut self, now_us: u64, heartbeat_us: u64, election_us: u64) {
        self.round += 1;
        if self.sent_us.len() == ROUNDS_MAX {
            self.sent_us.pop_front();
        }
        self.sent_us.push_back(now_us);
        // On the node's common grid: the heartbeats of all groups that it leads fall into one tick, and share the frames to each peer.
        self.next_heartbeat_us = (now_us / heartbeat_us).saturating_add(1).saturating_mul(heartbeat_us);
        for progress in self.followers.values_mut() {
            progress.round_due = true;
            if now_us.saturating_sub(progress.heard_us) > election_us {
                progress.unreachable();
            }
        }
    }

    /// A majority has acknowledged `round`.
    fn renew_lease(&mut self, round: u64) {
        let age = (self.round - round) as usize;
        if round > 0 && age < self.sent_us.len() {
            let sent_us = self.sent_us[self.sent_us.len() - 1 - age];
            self.lease_from_us = self.lease_from_us.max(Some(sent_us));
        }
    }

    /// Whether a follower is there, so that it pays to do something for it.
    pub(super) fn is_active(progress: &Progress, now_us: u64, election_us: u64) -> bool {
        progress.acknowledged_round > 0 && now_us.saturating_sub(progress.heard_us) <= election_us
    }
}

impl<R: Rules> Node<R> {
    pub(super) fn become_leader(&mut self) {
        let now_us = self.now.mono_us;
        let mut leader = Leader {
            followers: BTreeMap::new(),
            round: 0,
            sent_us: VecDeque::new(),
            next_heartbeat_us: 0,
            lease_from_us: None,
            reads: Reads::default(),
            uncommitted_bytes: 0,
            transfer: None,
            snapshot: None,
            snapshot_asked: false,
        };
        leader.begin_round(now_us, self.config.heartbeat_us, self.config.election_us_max);
        self.role = RoleState::Leader(leader);
        self.follow_membership();
        self.leader = Some(self.id);
        self.stats.led(self.hard_state.term);
        self.clock.lead(self.now, self.hard_state.term, self.log.last_stamp_ms());
        // The no-op: what earlier terms left can only be committed by an entry of this one.
        self.append_entry(Bytes::new(), None);
    }

    pub(super) fn propose(&mut self, now: Now, data: Bytes) -> Result<Index, ProposeError> {
        self.advance(now);
        self.check_proposal(data.len()).inspect_err(|error| self.stats.refused(*error))?;
        Ok(self.append_entry(data, None))
    }

    fn check_proposal(&self, data_bytes: usize) -> Result<(), ProposeError> {
        let RoleState::Leader(leader) = &self.role else {
            return Err(ProposeError::NotLeader { leader: self.leader.map(|leader| leader.node) });
        };
        if leader.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        // A command larger than the limit passes when nothing else waits, or it never would.
        let bytes = leader.uncommitted_bytes.saturating_add(data_bytes);
        let full = leader.uncommitted_bytes > 0 && bytes > self.config.uncommitted_bytes_max;
        if full || self.log.last_index() >= super::INDEX_MAX {
            return Err(ProposeError::Overloaded);
        }
        Ok(())
    }

    /// Appends an entry of this leader's own.
    pub(super) fn append_entry(&mut self, data: Bytes, membership: Option<Arc<Membership>>) -> Index {
        let index = self.log.last_index() + 1;
        let (stamp_ms, wall_ms) = (self.clock.stamp(self.now), self.clock.wall(self.now));
        let entry = Entry { index, term: self.term(), stamp_ms, wall_ms, data, membership };
        if let RoleState::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes += entry_bytes(&entry);
        }
        self.log.push(entry);
        self.advance_commit();
        index
    }

    /// Commits what a majority holds durably, this replica's own disk among them and no better than the others.
    pub(super) fn advance_commit(&mut self) {
        let RoleState::Leader(leader) = &self.role else { return };
        let own = if R::without(Rule::LeaderCountsItselfEarly) { self.log.last_index() } else { self.log.stable() };
        let reached = self.reached(own, |id| leader.followers.get(&id).map_or(0, |progress| progress.matched));
        // Replicas of an earlier term's entry may be counted only along with one of this term: until then, a replica without
        // it can still be elected, and would cut it off (figure 8 of the Raft paper).
        let own_term = self.log.term_at(reached) == Some(self.hard_state.term);
        if reached > self.commit && !own_term {
            mark(Rare::EarlierTermNotCounted);
        }
        if reached > self.commit && (own_term || R::without(Rule::EarlierTermCommittedByCount)) {
            let term = self.hard_state.term;
            let own_entries = self.log.range(self.commit + 1, reached).filter(|entry| entry.term == term);
            let bytes: usize = own_entries.map(entry_bytes).sum();
            if let RoleState::Leader(leader) = &mut self.role {
                leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(bytes);
            }
            self.commit = reached;
            self.membership_committed();
        }
    }

    pub(super) fn tick_leader(&mut self) {
        let now_us = self.now.mono_us;
        let stalled = self.writes.waiting_us(now_us) > self.config.election_us_min.saturating_mul(2);
        let RoleState::Leader(leader) = &self.role else { return };
        let quorum_heard_us = self.reached(now_us, |id| leader.followers.get(&id).map_or(0, |it| it.heard_us));
        let silent = now_us.saturating_sub(quorum_heard_us) > self.config.election_us_max;
        // Cut off, or with a disk that hangs: it decides nothing, and its heartbeats keep those who could from doing it.
        if silent || stalled {
            if stalled {
                mark(Rare::LeaderStalled);
            } else {
                mark(Rare::LeaderSilent);
            }
            self.become_follower(self.term());
            return;
        }
        self.forget_the_removed();
        let RoleState::Leader(leader) = &mut self.role else { return };
        if now_us >= leader.next_heartbeat_us {
            leader.begin_round(now_us, self.config.heartbeat_us, self.config.election_us_max);
        }
        match leader.transfer {
            Some(transfer) if now_us >= transfer.deadline_us && transfer.told => {
                mark(Rare::TransferOverdue);
                self.campaign(true);
            }
            Some(transfer) if now_us >= transfer.deadline_us => {
                mark(Rare::TransferGivenUp);
                leader.transfer = None;
                self.membership_committed();
            }
            _ => {}
        }
    }

    pub(super) fn lease_until_us(&self) -> Option<u64> {
        let RoleState::Leader(leader) = &self.role else { return None };
        if leader.transfer.is_some() && !R::without(Rule::LeaderLeaseKeptInTransfer) {
            return None;
        }
        if self.others().is_empty() {
            return Some(u64::MAX);
        }
        let lease_us = u128::from(self.config.lease_us) * u128::from(1_000_000 - self.config.drift_ppm) / 1_000_000;
        Some(leader.lease_from_us?.saturating_add(lease_us as u64))
    }

    pub(super) fn transfer(&mut self, now: Now) {
        self.advance(now);
        let now_us = self.now.mono_us;
        let voters = &self.log.membership().1.voters;
        let RoleState::Leader(leader) = &mut self.role else { return };
        let active = leader.followers.iter().filter(|(id, progress)| {
            voters.contains(*id) && Leader::is_active(progress, now_us, self.config.election_us_max)
        });
        let furthest = active.max_by_key(|(id, progress)| (progress.matched, std::cmp::Reverse(**id)));
        let deadline_us = now_us.saturating_add(self.config.election_us_max);
        if let (None, Some((target, _))) = (leader.transfer, furthest) {
            leader.transfer = Some(Transfer { target: *target, deadline_us, told: false });
        }
    }

    /// Hands over to `target`, if it is there and has everything that is committed.
    pub(super) fn transfer_to(&mut self, now: Now, target: NodeId) {
        self.advance(now);
        let (now_us, commit) = (self.now.mono_us, self.commit);
        let mut voters = self.log.membership().1.voters.iter();
        let Some(target) = voters.find(|id| id.node == target).copied() else { return };
        let RoleState::Leader(leader) = &mut self.role else { return };
        let fit = leader.followers.get(&target).is_some_and(|progress| {
            Leader::is_active(progress, now_us, self.config.election_us_min) && progress.matched >= commit
        });
        if leader.transfer.is_none() && fit {
            let deadline_us = now_us.saturating_add(self.config.election_us_max);
            leader.transfer = Some(Transfer { target, deadline_us, told: false });
        }
    }

    /// What every answer of this term says, whatever else it says: the follower is there, and heard this round.
    fn heard(&mut self, from: ReplicaId, round: u64) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(&from) else { return };
        progress.heard_us = self.now.mono_us;
        // A round that was never sent was not heard.
        if round <= leader.round && progress.acknowledged_round(round) {
            let acknowledged = self.acknowledged_round();
            let RoleState::Leader(leader) = &mut self.role else { return };
            leader.renew_lease(acknowledged);
            if R::without(Rule::LeaderLeaseFromAnswer) && leader.lease_from_us.is_some() {
                leader.lease_from_us = Some(self.now.mono_us);
            }
        }
    }

    pub(super) fn on_appended(&mut self, from: ReplicaId, index: Index, round: u64) {
        self.heard(from, round);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(&from) else { return };
        if index <= self.log.last_index() && progress.acknowledged(index) {
            self.advance_commit();
        }
    }

    pub(super) fn on_rejected(&mut self, from: ReplicaId, prev_index: Index, hint: (Index, Term), round: u64) {
        self.heard(from, round);
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(&from) else { return };
        let (hint_index, hint_term) = hint;
        let agreeing = if hint_index < self.log.base().index {
            hint_index
        } else {
            self.log.last_at_or_below(hint_index, hint_term).0
        };
        progress.rejected(prev_index, agreeing);
    }

    pub(super) fn on_snapshot_reply(&mut self, from: ReplicaId, index: Index, next_offset: u64, installed: bool) {
        if installed {
            self.on_appended(from, index, 0);
            return;
        }
        self.heard(from, 0);
        let RoleState::Leader(leader) = &mut self.role else { return };
        if let Some(progress) = leader.followers.get_mut(&from) {
            let length = leader.snapshot.as_ref().map_or(0, |snapshot| snapshot.data.len() as u64);
            progress.has_chunk(index, next_offset, (next_offset >= length).then_some(leader.round));
        }
    }

    pub(super) fn provide_snapshot(&mut self, now: Now, snapshot: Snapshot) {
        self.advance(now);
        let (index, applied) = (snapshot.meta.index, self.applied);
        assert!(index <= applied, "a snapshot at {index}, but only {applied} is applied");
        let RoleState::Leader(leader) = &mut self.role else { return };
        if leader.snapshot_asked {
            leader.snapshot_asked = false;
            leader.snapshot = Some(snapshot);
        }
    }

    pub(super) fn compact(&mut self, index: Index) -> SnapshotMeta {
        assert!(index <= self.applied, "entry {index} is to be forgotten, but only {} is applied", self.applied);
        let mut index = index;
        if let RoleState::Leader(leader) = &self.role {
            let receiving = leader.followers.values().any(|progress| {
                matches!(progress.state, State::Snapshot { .. })
                    && Leader::is_active(progress, self.now.mono_us, self.config.election_us_max)
            });
            if let (true, Some(snapshot)) = (receiving, &leader.snapshot)
                && snapshot.meta.index < index
            {
                mark(Rare::CompactionHeldBack);
                index = snapshot.meta.index;
            }
        }
        self.log.compact(index);
        self.log.base().clone()
    }
}

/// What the model checker tells states by: all of it but the instants. A lease that was ever given counts as one that lasts.
#[cfg(test)]
impl std::hash::Hash for Leader {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        let Self {
            followers,
            round,
            sent_us: _,
            next_heartbeat_us: _,
            lease_from_us,
            reads,
            uncommitted_bytes,
            transfer,
            snapshot,
            snapshot_asked,
        } = self;
        let transfer = transfer.map(|Transfer { target, deadline_us: _, told }| (target, told));
        (followers, round, lease_from_us.is_some(), reads).hash(hasher);
        (uncommitted_bytes, transfer, snapshot, snapshot_asked).hash(hasher);
    }
}
