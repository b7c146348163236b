//! The follower: takes entries, votes, and waits for silence.
//!
//! It acknowledges an entry when the entry is durable, not when it arrives. So an append with entries is not answered at once: the next
//! completed write answers all that came before it with one message. An append without entries (a heartbeat) is
//! answered at once with what is durable so far, because the leader lease counts these answers and must not wait for a disk.

use crate::ids::{Index, ReplicaId, Term};
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::message::{Body, Entry};
use super::node::{Node, RoleState};

/// What a follower knows of the leader of its term.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Follower {
    /// Up to here, its messages have proven the logs to agree.
    pub(super) matched: Index,
    /// The newest round of it.
    round: u64,
    /// The last acknowledgement sent, to send it once.
    replied_index: Index,
    replied_round: u64,
}

impl<R: Rules> Node<R> {
    /// A message of the current term that only a leader sends. False where it is not from the leader that this replica follows:
    /// two leaders in one term cannot be, and a forged one must not shake the true one.
    pub(super) fn follow(&mut self, from: ReplicaId) -> bool {
        let other = self.leader.is_some_and(|leader| leader != from);
        if other || matches!(self.role, RoleState::Leader(_)) {
            return false;
        }
        if !matches!(self.role, RoleState::Follower(_)) {
            self.become_follower(self.term());
        }
        self.leader = Some(from);
        self.stats.led(self.hard_state.term);
        self.refuse_votes_until_us = self.now.mono_us.saturating_add(self.config.election_us_min);
        self.restart_election_timer();
        true
    }

    pub(super) fn on_append(
        &mut self,
        from: ReplicaId,
        previous: (Index, Term),
        mut entries: Vec<Entry>,
        leader_commit: Index,
        round: u64,
    ) {
        let RoleState::Follower(follower) = &mut self.role else { return };
        follower.round = follower.round.max(round);
        let round = follower.round;
        if self.installing.is_some() {
            // The log begins anew when the snapshot is durable. Until then: alive, and nothing agreed.
            mark(Rare::AppendDuringInstall);
            self.promise(from, Body::Appended { index: 0, round });
            return;
        }
        let is_empty = entries.is_empty();
        let (mut prev_index, prev_term) = previous;
        if prev_index < self.commit {
            // What is committed here is in every later leader's log: it agrees, and an old message cannot take it back.
            mark(Rare::AppendBelowCommit);
            let known = (self.commit - prev_index).min(entries.len() as u64);
            entries.drain(..known as usize);
            prev_index = self.commit;
        } else if self.log.term_at(prev_index) != Some(prev_term) {
            self.reject(from, previous, round);
            return;
        }
        let proven = prev_index + entries.len() as u64;
        if let Some(entry) = entries.last() {
            self.clock.observe_entry(self.now, self.hard_state.term, entry);
        }
        let kept = R::without(Rule::MembershipKeptWhenCut).then(|| self.log.clone());
        let cut = self.log.merge(entries, self.commit);
        if cut.is_some() {
            mark(Rare::SuffixCut);
        }
        if let (Some(kept), Some(_)) = (kept, cut) {
            self.log.keep_memberships_of(kept);
        }
        let cut =
            if R::without(Rule::AppendCutsWithoutConflict) && !is_empty { self.log.cut_after(proven) } else { cut };
        if let Some(cut) = cut.filter(|_| !R::without(Rule::CompletionSpeaksForLaterEntries)) {
            self.writes.cut(cut);
        }
        let RoleState::Follower(follower) = &mut self.role else { return };
        follower.matched = follower.matched.max(proven);
        // Not the end of this log: what lies beyond `proven` may be a former leader's, and was never committed.
        let known = if R::without(Rule::CommitBeyondWhatIsProven) { self.log.last_index() } else { proven };
        self.commit = self.commit.max(leader_commit.min(known));
        self.acknowledge(from, proven, is_empty);
    }

    /// Says from where the logs may agree: no entry here up to `prev_index` with a higher term than `prev_term` can be
    /// the leader's. What is committed is common anyway.
    fn reject(&mut self, from: ReplicaId, (prev_index, prev_term): (Index, Term), round: u64) {
        let by_term = self.log.last_at_or_below(prev_index, prev_term);
        let committed = (self.commit, self.log.term_at(self.commit).unwrap_or(0));
        let (hint_index, hint_term) = by_term.max(committed);
        self.send(from, Body::Rejected { prev_index, hint_index, hint_term, round });
    }

    fn acknowledge(&mut self, leader: ReplicaId, proven: Index, is_empty: bool) {
        let RoleState::Follower(follower) = &mut self.role else { return };
        let durable = if R::without(Rule::AppendAcknowledgedEarly) { self.log.last_index() } else { self.log.stable() };
        let index = follower.matched.min(durable);
        if index < proven && !is_empty {
            return;
        }
        let round = follower.round;
        // A commit index sent between two heartbeats needs no answer.
        if is_empty && index <= follower.replied_index && round <= follower.replied_round {
            return;
        }
        (follower.replied_index, follower.replied_round) = (index, round);
        self.promise(leader, Body::Appended { index, round });
    }

    /// A write was completed: acknowledges what it made durable.
    pub(super) fn acknowledge_durable(&mut self) {
        if self.installing.is_some() || self.persistent_state() != self.writes.durable() {
            // A later completion says it.
            return;
        }
        let (RoleState::Follower(follower), Some(leader)) = (&mut self.role, self.leader) else { return };
        let index = follower.matched.min(self.log.stable());
        if index > follower.replied_index {
            let round = follower.round;
            (follower.replied_index, follower.replied_round) = (index, round);
            self.promise(leader, Body::Appended { index, round });
        }
    }

    /// A snapshot up to `index` agrees with the leader by its nature.
    pub(super) fn matched_by_snapshot(&mut self, index: Index) {
        if let RoleState::Follower(follower) = &mut self.role {
            follower.matched = follower.matched.max(index);
        }
    }

    /// The leader is told by another message that `index` is durable here.
    pub(super) fn told_durable(&mut self, index: Index) {
        if let RoleState::Follower(follower) = &mut self.role {
            follower.replied_index = follower.replied_index.max(index);
        }
    }

    pub(super) fn on_pre_vote(&mut self, from: ReplicaId, asked: Term, last: (Term, Index)) {
        let granted = asked > self.term() && !self.refuses_votes() && self.is_up_to_date(last);
        if granted {
            // In the asked term, which this replica does not enter by saying so.
            let body = Body::PreVoteReply { granted };
            self.outbox.push((from, super::Message::new(asked, body)));
        } else {
            self.send(from, Body::PreVoteReply { granted });
        }
    }

    pub(super) fn on_vote(&mut self, from: ReplicaId, last: (Term, Index)) {
        let free = (self.hard_state.vote.is_none() || R::without(Rule::SecondVoteInATerm)) && self.leader.is_none();
        let granted = (free || self.hard_state.vote == Some(from)) && self.is_up_to_date(last);
        if !granted {
            self.send(from, Body::VoteReply { granted });
            return;
        }
        self.hard_state.vote = Some(from);
        self.restart_election_timer();
        if R::without(Rule::VoteNotPersisted) {
            self.send(from, Body::VoteReply { granted });
        } else {
            self.promise(from, Body::VoteReply { granted });
        }
    }

    /// Whether a log that ends with (term, index) has everything that may be committed (section 5.4.1 of the Raft paper).
    fn is_up_to_date(&self, last: (Term, Index)) -> bool {
        R::without(Rule::VoteWithoutLogCheck) || last >= (self.log.last_term(), self.log.last_index())
    }

    /// The leader steps down in this replica's favour.
    pub(super) fn on_timeout_now(&mut self, from: ReplicaId) {
        let follows = self.leader == Some(from) && matches!(self.role, RoleState::Follower(_));
        if follows && self.votes() {
            self.campaign(true);
        }
    }
}
