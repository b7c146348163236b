//! What a replica has done since it was made, as plain numbers that the shell turns into metrics. Nothing here decides anything.

use crate::ids::{Index, NodeId, ReplicaId, Term};
use crate::rules::Rules;

use super::leader::Leader;
use super::node::{Node, RoleState};
use super::progress::Progress;
use super::{Following, ProposeError};

/// Running counts of one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Elections that it stood in: it asked for votes in a term of its own.
    pub elections: u64,
    /// Leaders that it has come to know, itself included; one for each term that had one.
    pub leader_changes: u64,
    /// Proposals refused because another leads, or nobody.
    pub refused_not_leader: u64,
    /// Proposals refused because too many bytes wait for their commit.
    pub refused_overloaded: u64,
    /// Proposals refused because leadership is being handed over.
    pub refused_transferring: u64,
    /// The newest term whose leader was counted.
    pub(super) led_term: Term,
}

impl Stats {
    /// This term has a leader.
    pub(super) fn led(&mut self, term: Term) {
        if term > self.led_term {
            self.led_term = term;
            self.leader_changes += 1;
        }
    }

    pub(super) fn refused(&mut self, error: ProposeError) {
        match error {
            ProposeError::NotLeader { .. } => self.refused_not_leader += 1,
            ProposeError::Overloaded => self.refused_overloaded += 1,
            ProposeError::Transferring => self.refused_transferring += 1,
        }
    }
}

impl<R: Rules> Node<R> {
    /// What this leader knows of the others; nothing where this is no leader.
    pub(super) fn followers(&self) -> Vec<Following> {
        let RoleState::Leader(leader) = &self.role else { return Vec::new() };
        let (now_us, election_us) = (self.now.mono_us, self.config.election_us_max);
        let of = |(id, progress): (&ReplicaId, &Progress)| Following {
            replica: *id,
            matched: progress.matched,
            active: Leader::is_active(progress, now_us, election_us),
        };
        leader.followers.iter().map(of).collect()
    }

    /// How many of the voters are known to have an entry on disk, the leader included, and how many voters there are; nothing where this
    /// is no leader.
    pub(super) fn flushed(&self, index: Index) -> Option<(u32, u32)> {
        let RoleState::Leader(leader) = &self.role else { return None };
        let (_, membership) = self.log.membership();
        let is_voter = |id: &ReplicaId| membership.is_voter(*id);
        let others = leader.followers.iter().filter(|(id, progress)| is_voter(id) && progress.matched >= index).count();
        let own = is_voter(&self.config.replica()) && self.log.stable() >= index;
        // Asked for every enqueue, so no set is made where there is one already.
        let voters = if membership.is_joint() { membership.all_voters().len() } else { membership.voters.len() };
        Some((others as u32 + u32::from(own), voters as u32))
    }

    /// How many entries of this leader's log each follower is not known to hold; nothing where this is no leader. One that has
    /// not answered in this term is not known to hold more than what is compacted here.
    pub(super) fn lags(&self) -> Vec<(NodeId, u64)> {
        let RoleState::Leader(leader) = &self.role else { return Vec::new() };
        let (base, last) = (self.log.base().index, self.log.last_index());
        leader.followers.iter().map(|(id, progress)| (id.node, last - progress.matched.max(base))).collect()
    }
}
