//! Elections: first ask whether one could be won, then ask for votes.
//!
//! The first question (pre-vote) changes nothing at anyone. A replica that was cut off asks it in vain, and so does not come back
//! with a high term that deposes a leader whom all others hear.

use std::collections::BTreeSet;

use crate::ids::NodeId;
use crate::marks::{Rare, mark};
use crate::rules::Rules;

use super::message::{Body, HardState, Message, TERM_MAX};
use super::node::{Node, RoleState};
use super::quorum::{Tally, tally};

/// The answers to one question.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballot {
    granted: BTreeSet<NodeId>,
    refused: BTreeSet<NodeId>,
}

impl Ballot {
    /// The first answer of a voter counts; it cannot be taken back.
    fn count(&mut self, voter: NodeId, granted: bool, voters: usize) -> Tally {
        if !self.granted.contains(&voter) && !self.refused.contains(&voter) {
            if granted {
                self.granted.insert(voter)
            } else {
                self.refused.insert(voter)
            };
        }
        tally(voters, self.granted.len(), self.refused.len())
    }
}

impl<R: Rules> Node<R> {
    /// The leader is silent: would the others vote for this replica?
    pub(super) fn pre_campaign(&mut self) {
        self.restart_election_timer();
        if self.config.voters.len() == 1 {
            self.campaign(false);
            return;
        }
        let mut ballot = Ballot::default();
        ballot.count(self.config.id, true, self.config.voters.len());
        self.role = RoleState::PreCandidate(ballot);
        self.leader = None;
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        for voter in self.others() {
            let message = Message { term: self.term() + 1, body: Body::PreVote { last_index, last_term } };
            self.outbox.push((voter, message));
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
        self.hard_state = HardState { term, vote: Some(self.config.id) };
        self.role = RoleState::Candidate(Ballot::default());
        self.stats.elections += 1;
        self.restart_election_timer();
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        for voter in self.others() {
            let body = Body::Vote { last_index, last_term, transfer };
            self.writes.hold(voter, Message { term, body });
        }
    }

    /// The own vote counts when it is durable, as everyone else's.
    pub(super) fn count_own_vote(&mut self) {
        if self.persistent_state() == self.writes.durable() {
            self.on_vote_reply(self.config.id, true);
        }
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: NodeId, granted: bool) {
        let RoleState::PreCandidate(ballot) = &mut self.role else { return };
        match ballot.count(from, granted, self.config.voters.len()) {
            Tally::Won => self.campaign(false),
            Tally::Lost => self.become_follower(self.term()),
            Tally::Open => {}
        }
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        let RoleState::Candidate(ballot) = &mut self.role else { return };
        match ballot.count(from, granted, self.config.voters.len()) {
            Tally::Won => self.become_leader(),
            Tally::Lost => {
                mark(Rare::ElectionLost);
                self.become_follower(self.term());
            }
            Tally::Open => {}
        }
    }
}
