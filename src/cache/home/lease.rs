//! Bus leases from the home's side.

use trine_protocol::Error;

use crate::cache::memory::{Command, Memory};
use crate::cache::message::{LeaseTag, ToNode};
use crate::ids::{Incarnation, NodeId, Term};
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::{Entry, Home, HomeOut, Job, Proposal, Standing, Want, fill};

/// What a node was given last.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Lease {
    pub(super) incarnation: Incarnation,
    pub(super) number: u64,
    /// Rounds of a node grow: an older one is a late message, and must not make its newer lines forgotten.
    round: u64,
    until_us: u64,
    /// The node has given it back: no late copy of its registration brings it to life again.
    left: bool,
    /// The node's newest request that was taken under it, and the newest that was refused.
    pub(super) taken: u64,
    pub(super) refused: u64,
}

impl<R: Rules> Home<R> {
    pub(super) fn register(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        round: u64,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        if !self.may_act(standing) || !standing.settled {
            return;
        }
        if self.leaving.contains(&from)
            || self.may_be_served_by_another_life(from, incarnation, memory, standing.now_us)
        {
            return;
        }
        // Before all else: a late copy must not put a node that went back on the bus.
        let known = self.leases.get(&from).copied();
        if known.is_some_and(|lease| self.is_late(&lease, round, standing.now_us)) {
            return;
        }
        if memory.members().get(&from) != Some(&incarnation) && !R::without(Rule::LeaseBeforeJoin) {
            // The node asks again until it is on the bus.
            if self.joining.insert(from, incarnation) != Some(incarnation) {
                let command = Command::Join { node: from, incarnation };
                out.propose.push(Proposal { key: String::new(), transaction: 0, command, write: None });
            }
            return;
        }
        let number = match known {
            Some(lease) if lease.round == round || R::without(Rule::LeasesNotNumbered) => lease.number,
            _ => {
                self.next_number += 1;
                self.next_number
            }
        };
        let until_us = standing.now_us + self.config.home_lease_us();
        let same = known.filter(|lease| lease.number == number);
        let (taken, refused) = same.map_or((0, 0), |lease| (lease.taken, lease.refused));
        self.leases.insert(from, Lease { incarnation, number, round, until_us, left: false, taken, refused });
        let tag = LeaseTag { term: self.term, number };
        out.to_node.push((from, ToNode::Registered { tag, round }));
    }

    /// A registration at an earlier home, which may have given a lease since: it says nothing of the lines that hang on that. Its node hears
    /// which home there is, where it does not know.
    pub(super) fn meant_for_another(&self, from: NodeId, home: Term, standing: Standing, out: &mut HomeOut) {
        mark(Rare::RegisteredElsewhere);
        if self.may_act(standing) && home < self.term {
            out.to_node.push((from, ToNode::NotHome { leader: Some(self.node), term: self.term }));
        }
    }

    /// Whether a registration was overtaken by the one that a lease comes from. When that has run out nothing depends on it any more; and a machine that
    /// was started anew counts from the beginning.
    fn is_late(&self, lease: &Lease, round: u64, now_us: u64) -> bool {
        if lease.left {
            return round <= lease.round && now_us < lease.until_us + self.config.home_lease_us();
        }
        round < lease.round && now_us < lease.until_us
    }

    /// Whether another life of that node may still have a lease, of this home or of the one before: it may be cut off, and run.
    fn may_be_served_by_another_life(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        memory: &Memory,
        now_us: u64,
    ) -> bool {
        let leased = |lease: &Lease| lease.incarnation != incarnation && lease.until_us > now_us;
        let other_life = memory.members().get(&node).is_some_and(|life| *life != incarnation);
        self.leases.get(&node).is_some_and(leased)
            || (other_life && now_us < self.elected_us + self.config.home_lease_us())
    }

    /// Whether a word of that life of a node counts: none does of one that never had a lease here while another has.
    pub(super) fn is_of_life(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.leases.get(&node).is_none_or(|lease| lease.incarnation == incarnation)
    }

    pub(super) fn renew(&mut self, from: NodeId, tag: LeaseTag, round: u64, standing: Standing, out: &mut HomeOut) {
        if !self.may_act(standing) {
            return;
        }
        let until_us = standing.now_us + self.config.home_lease_us();
        let term = self.term;
        match self.leases.get_mut(&from) {
            Some(lease) if tag.term == term && tag.number == lease.number && !lease.left => {
                if lease.until_us > standing.now_us || R::without(Rule::LapsedLeaseRenewed) {
                    lease.until_us = until_us;
                    out.to_node.push((from, ToNode::Renewed { tag, round }));
                } else {
                    out.to_node.push((from, ToNode::Lapsed { tag }));
                }
            }
            _ => out.to_node.push((from, ToNode::Lapsed { tag })),
        }
    }

    /// A node that goes holds no ownership: neither does the log say so any more when it is answered. It asks again until then.
    pub(super) fn release(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        tag: LeaseTag,
        memory: &Memory,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        if !self.may_act(standing) || !self.is_active(memory, standing) {
            return;
        }
        if !self.holds(from, tag, standing.now_us) || !self.is_of_life(from, incarnation) {
            return out.to_node.push((from, ToNode::Lapsed { tag }));
        }
        // A write of its that is still under way here would begin an ownership afterwards.
        let wants = |job: &Job| job.node == from;
        let entries = self.busy.iter().filter_map(|key| self.directory.get(key));
        let is_busy = |entry: &Entry| {
            entry.waiting.iter().any(wants) || entry.transaction.as_ref().is_some_and(|it| wants(&it.job))
        };
        if entries.into_iter().any(is_busy) {
            return;
        }
        if memory.owned_by(from, incarnation).next().is_none() {
            return out.to_node.push((from, ToNode::Released { tag }));
        }
        if self.releasing.insert(from) {
            mark(Rare::OwnershipsReleased);
            let command = Command::Release { node: from, incarnation };
            out.propose.push(Proposal { key: String::new(), transaction: 0, command, write: None });
        }
    }

    /// A node has dropped its lines, and serves nothing until its process starts anew: its lease is over, and no later home waits for it.
    pub(super) fn left(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        tag: LeaseTag,
        standing: Standing,
        out: &mut HomeOut,
    ) {
        let term = self.term;
        let its =
            |lease: &&mut Lease| tag.term == term && lease.number == tag.number && lease.incarnation == incarnation;
        let Some(lease) = self.leases.get_mut(&from).filter(its) else { return };
        lease.until_us = lease.until_us.min(standing.now_us);
        lease.left = true;
        if self.leaving.insert(from) {
            let command = Command::Leave { node: from, incarnation };
            out.propose.push(Proposal { key: String::new(), transaction: 0, command, write: None });
        }
    }

    /// Tells a node that what it wants was not done; from then on it is not done by any copy of its request either.
    pub(super) fn refuse(&mut self, key: &str, job: &Job, error: Error, out: &mut HomeOut) {
        let key = key.to_owned();
        let message = match &job.want {
            Want::Read => ToNode::ReadFailed { request: job.request, key, error },
            Want::Write { write, .. } => ToNode::WriteFailed { request: job.request, write: *write, key, error },
            Want::Fill { .. } => return out.to_node.push((job.node, fill::refuse_fill(&key, job, error))),
            // A write-back is repeated until it is done.
            Want::WriteBack { .. } | Want::Expire(_) | Want::Refresh => return,
        };
        // Under a lease before this one nothing is taken anyway, and a process that started anew counts its requests from 1 again.
        if let Some(lease) = self.leases.get_mut(&job.node).filter(|lease| lease.number == job.tag.number) {
            lease.refused = lease.refused.max(job.request);
        }
        out.to_node.push((job.node, message));
    }

    /// Notes that a proposal which is no transaction's is through.
    pub(super) fn is_about_a_node(&mut self, command: &Command) -> bool {
        match command {
            Command::Join { node, .. } => drop(self.joining.remove(node)),
            Command::Release { node, .. } => drop(self.releasing.remove(node)),
            Command::Leave { node, .. } => drop(self.leaving.remove(node)),
            command => return self.is_about_redis(command),
        }
        true
    }

    /// Whether that node may still serve lines under that number.
    pub(super) fn may_serve(&self, node: NodeId, number: u64, now_us: u64) -> bool {
        self.leases.get(&node).is_some_and(|lease| lease.number == number && lease.until_us > now_us)
    }

    /// The number of the node's lease, where it holds.
    pub(super) fn number(&self, node: NodeId, now_us: u64) -> Option<u64> {
        self.leases.get(&node).filter(|lease| lease.until_us > now_us).map(|lease| lease.number)
    }

    /// Whether a grant under this tag would be worth something; the node is told where not.
    pub(super) fn holds(&self, node: NodeId, tag: LeaseTag, now_us: u64) -> bool {
        tag.term == self.term && self.may_serve(node, tag.number, now_us)
    }

    /// A new home answers no bus request until every node on the bus has registered with it, and so has dropped what
    /// older homes gave it, or until the longest lease of an older home has run out.
    pub(super) fn is_active(&self, memory: &Memory, standing: Standing) -> bool {
        let everybody = || {
            memory
                .members()
                .iter()
                .all(|(node, incarnation)| self.leases.get(node).is_some_and(|lease| lease.incarnation == *incarnation))
        };
        standing.settled
            && self.knows_where_values_lie(memory, standing)
            && (R::without(Rule::NewHomeNotSilent)
                || standing.now_us >= self.elected_us + self.config.home_lease_us()
                || everybody())
    }

    /// Whether this node is surely the home: only then it grants, fills, and renews.
    pub(super) fn may_act(&self, standing: Standing) -> bool {
        R::without(Rule::GrantWithoutLeaseCheck)
            || standing.leader_until_us.is_some_and(|until_us| standing.now_us < until_us)
    }
}
