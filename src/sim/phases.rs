//! After the faults: is there a leader, is everything answered, is everything there that was promised?

use super::audit::Audit;
use super::checker::{Check, Operation, Verdict};
use super::cluster::{Cluster, Event, Phase, debug_short};
use super::network::Place;
use crate::ids::GroupId;
use crate::node::Replica;
use crate::raft::Role;
use crate::rules::Rules;
use trine_protocol::ErrorCode;

/// Every group has a leader after so much healing: a voter's refusal after its restart, then five elections.
pub(crate) const LEADER_US_MAX: u64 = 8_000_000;
/// Time between two looks at whether the run is through.
pub(crate) const JUDGE_US: u64 = 50_000;
/// Longest pause of the audit between two questions of one task.
const QUESTION_US_MAX: u64 = 20_000;

impl<R: Rules> Cluster<R> {
    pub(crate) fn demand_leaders(&mut self) -> Check {
        let leads = |replica: &Replica<R>| replica.raft().is_some_and(|raft| raft.role() == Role::Leader);
        for group in (0..self.swarm.groups).map(GroupId) {
            if !self.nodes.iter().any(|node| node.replicas.get(&group).is_some_and(leads)) {
                return Err(format!("{group} has no leader {LEADER_US_MAX} us after everything healed"));
            }
        }
        Ok(())
    }

    /// Goes on to the next phase where this one is through, and finds the run guilty where that takes too long.
    pub(crate) fn judge(&mut self) -> Check {
        let late = self.now_us() > self.options.faulty_us + self.options.healing_us_max;
        match self.phase {
            Phase::Healing if self.flights.is_empty() && self.operator.is_idle() => self.begin_audit(),
            Phase::Auditing if self.audit.as_ref().is_some_and(Audit::is_done) && self.are_level()? => {
                self.phase = Phase::Done;
            }
            _ if late => return Err(self.what_is_open()),
            _ => {}
        }
        self.schedule.after(JUDGE_US, Event::Judge);
        Ok(())
    }

    fn begin_audit(&mut self) {
        self.phase = Phase::Auditing;
        self.note(|| "the audit begins".to_owned());
        let gone = |place: &Place| self.nodes[*place].is_gone() || self.is_stranded(*place);
        let up: Vec<Place> = (0..self.nodes.len()).filter(|place| !gone(place)).collect();
        let audit = Audit::new(&self.swarm, &up, self.now_us());
        for task in 0..audit.tasks() {
            self.schedule.after(0, Event::Wake { client: self.workload.clients() + task });
        }
        self.audit = Some(audit);
    }

    /// A task of the audit has an answer.
    pub(crate) fn audited(&mut self, client: usize, operation: &Operation, verdict: &Verdict) -> Check {
        let in_vain = *verdict == Verdict::NotExecuted(ErrorCode::OwnerAway) && self.owner_is_lost(operation);
        let now_us = self.now_us();
        let audit = self.audit.as_mut().expect("only an audit asks as one");
        audit.ended(now_us, client - self.workload.clients(), operation, verdict, in_vain, &self.services);
        let delay_us = self.random.between(1_000, QUESTION_US_MAX);
        self.schedule.after(delay_us, Event::Wake { client });
        Ok(())
    }

    /// Whether every voter has applied everything that is committed.
    fn are_level(&self) -> Result<bool, String> {
        for group in (0..self.swarm.groups).map(GroupId) {
            let committed = self.consensus.committed(group);
            let heard = (0..self.nodes.len()).filter(|place| !self.is_stranded(*place));
            let machines = heard.filter_map(|place| self.nodes[place].replicas.get(&group)?.machine());
            if machines.into_iter().any(|machine| machine.applied().index != committed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn what_is_open(&self) -> String {
        let mut open: Vec<String> = self.flights.open().map(debug_short).collect();
        if let Some(audit) = &self.audit {
            open.extend(audit.open());
        }
        for (place, node) in self.nodes.iter().enumerate() {
            let now = node.clock.at(self.now_us());
            open.extend(node.replicas.values().map(|replica| format!("n{place}: {:?}", replica.status(now))));
        }
        format!("not through {} us after everything healed: {open:#?}", self.options.healing_us_max)
    }
}
