//! Elections: first ask whether one could be won, then ask for votes.
//!
//! The first question (pre-vote) changes nothing at anyone. A replica that was cut off asks it in vain, and so does not come back
//! with a high term that deposes a leader whom all others hear.
//!
//! A replica that was taken out while it was away asks it too. The leader, if it hears it, sends it the log in which it is taken
//! out; but the leader may have come after those whom the old log names. So the question goes to acquaintances as well, whose
//! answers do not count. A learner asks too, where it hears no leader: it may have been taken out as well.

use std::collections::BTreeSet;

use crate::ids::ReplicaId;
use crate::marks::{Rare, mark};
use crate::rules::Rules;

use super::membership::Membership;
use super::message::{Body, HardState, Message, TERM_MAX};
use super::node::{Node, RoleState};
use super::quorum::Tally;

/// The answers to one question.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Ballot {
    granted: BTreeSet<ReplicaId>,
    refused: BTreeSet<ReplicaId>,
}

impl Ballot {
    /// The first answer of a voter counts; it cannot be taken back.
    fn count(&mut self, voter: ReplicaId, granted: bool, membership: &Membership) -> Tally {
        if !self.granted.contains(&voter) && !self.refused.contains(&voter) {
            if granted {
                self.granted.insert(voter)
            } else {
                self.refused.insert(voter)
            };
        }
        membership.tally(&self.granted, &self.refused)
    }
}

impl<R: Rules> Node<R> {
    /// The leader is silent: would the others vote for this replica?
    pub(super) fn pre_campaign(&mut self) {
        self.restart_election_timer();
        let mut ballot = Ballot::default();
        if ballot.count(self.id, true, self.log.membership().1) == Tally::Won {
            self.campaign(false);
            return;
        }
        self.role = RoleState::PreCandidate(ballot);
        self.ask();
    }

    /// The leader is silent, and this replica learns: it cannot be elected, but a leader that hears it asking sends it what it has
    /// missed, the entry that takes it out among it.
    pub(super) fn ask_in_vain(&mut self) {
        self.restart_election_timer();
        self.ask();
    }

    fn ask(&mut self) {
        self.leader = None;
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        let others = self.others();
        let acquaintances = self.acquaintances.iter().filter(|replica| !others.contains(replica));
        for replica in others.iter().chain(acquaintances) {
            let message = Message::new(self.term() + 1, Body::PreVote { last_index, last_term });
            self.outbox.push((*replica, message));
        }
    }

    /// Asks for votes in the next term. The requests wait for the own vote to be durable: a replica that asked, won without it and
    /// crashed would ask again in the same term, and win that term twice.
    pub(super) fn campaign(&mut self, transfer: bool) {
        if self.term() >= TERM_MAX {
            // Only a peer that claims terms without end gets a group here: it elects nobody, but it does not vote twice either.
            return;
        }
        let term = self.term() + 1;
        self.become_follower(term);
        self.hard_state = HardState { term, vote: Some(self.id) };
        self.role = RoleState::Candidate(Ballot::default());
        self.stats.elections += 1;
        self.restart_election_timer();
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        for voter in self.others() {
            let body = Body::Vote { last_index, last_term, transfer };
            self.writes.hold(voter, Message::new(term, body));
        }
    }

    /// The own vote counts when it is durable, as everyone else's.
    pub(super) fn count_own_vote(&mut self) {
        if self.persistent_state() == self.writes.durable() {
            self.on_vote_reply(self.id, true);
        }
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: ReplicaId, granted: bool) {
        let RoleState::PreCandidate(ballot) = &mut self.role else { return };
        match ballot.count(from, granted, self.log.membership().1) {
            Tally::Won => self.campaign(false),
            Tally::Lost => self.become_follower(self.term()),
            Tally::Open => {}
        }
    }

    pub(super) fn on_vote_reply(&mut self, from: ReplicaId, granted: bool) {
        let RoleState::Candidate(ballot) = &mut self.role else { return };
        match ballot.count(from, granted, self.log.membership().1) {
            Tally::Won => self.become_leader(),
            Tally::Lost => {
                mark(Rare::ElectionLost);
                self.become_follower(self.term());
            }
            Tally::Open => {}
        }
    }
}
