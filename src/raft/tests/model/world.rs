//! One state of the model, and what can happen to it next.
//!
//! Replicas are those of the server; around each stand a disk that forgets what was not synced and a clock, and between them a network
//! that is a set of messages. It delivers in any order, or never, and with a budget for it more than once. A message that would
//! change nothing is as good as lost, and so is what a replica of a higher term only ignores.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::digest;
use crate::ids::{Index, NodeId, Now, ReplicaId, Term};
use crate::raft::tests::cluster::{Disk, Flight};
use crate::raft::tests::trace;
use crate::raft::{Body, Config, Entry, Persist, Raft, Restart, Role};
use crate::rules::Rules;

/// So short that a whole path through the model takes less than a millisecond: stamps are milliseconds, so all of them are 0. The two
/// election timeouts are equal, so there is nothing to draw.
pub(super) const ELECTION_US: u64 = 20;
pub(super) const HEARTBEAT_US: u64 = 1;

/// Settings under which time is no part of a state. An append carries one entry, so that each may be lost by itself.
pub(super) fn configure(number: usize, voters: usize) -> Config {
    let voters = (1..=voters).map(NodeId::numbered).collect();
    let mut config = Config::new(NodeId::numbered(number), voters, 0);
    config.heartbeat_us = HEARTBEAT_US;
    (config.election_us_min, config.election_us_max) = (ELECTION_US, ELECTION_US);
    (config.lease_us, config.drift_ppm) = (ELECTION_US, 0);
    config.append_bytes_max = 1;
    config
}

/// How often something may still happen. Each is a small number: their product is what makes the space large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Election timeouts.
    pub(super) timeouts: u8,
    /// Leaders that hear nobody for too long.
    pub(super) silences: u8,
    pub(super) heartbeats: u8,
    pub(super) proposals: u8,
    /// Crashes, each followed by a restart.
    pub(super) crashes: u8,
    /// Messages that arrive and stay on their way.
    pub(super) repeats: u8,
    pub(super) transfers: u8,
    /// Memberships of the start that were not asked for yet.
    pub(super) changes: u8,
}

/// What holds for all states of a start.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Nodes whose election timeout may run out.
    pub(super) campaigners: &'static [usize],
    /// Nodes that may crash.
    pub(super) crashers: &'static [usize],
    /// Nodes whose writes wait for an action of their own; those of others are durable at once.
    pub(super) slow_disks: &'static [usize],
    /// Nodes that are down, or cut off, as long as the model runs.
    pub(super) absent: &'static [usize],
    /// Whether the question before an election travels as messages of their own. Else whoever is there answers it at once.
    pub(super) pre_votes_travel: bool,
    /// Voters and learners that a leader may be asked for, the last first.
    pub(super) changes: &'static [(&'static [usize], &'static [usize])],
}

impl Limits {
    pub(super) const NONE: Self =
        Self { campaigners: &[], crashers: &[], slow_disks: &[], absent: &[], pre_votes_travel: false, changes: &[] };
}

/// One replica, with what it runs on.
#[derive(Clone, Debug)]
pub(super) struct Member<R: Rules> {
    pub(super) raft: Raft<R>,
    pub(super) disk: Disk,
    /// Handed out, not durable.
    pub(super) writes: VecDeque<Persist>,
    pub(super) now_us: u64,
    /// Of all of the above.
    pub(super) digest: u64,
}

/// What only someone who sees everything remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// Who led each term first.
    pub(super) leaders: BTreeMap<Term, NodeId>,
    /// A term that had a second leader.
    pub(super) second_leader: Option<(Term, NodeId)>,
    /// The entries that anyone took for committed, and the term of who did so first.
    pub(super) committed: Vec<(Entry, Term)>,
    /// An assertion of the code that failed.
    pub(super) failed: Option<String>,
}

/// A state.
#[derive(Clone, Debug)]
pub(super) struct World<R: Rules> {
    pub(super) members: Vec<Arc<Member<R>>>,
    /// On their way, ordered by digest.
    pub(super) flights: BTreeMap<u64, Arc<Flight>>,
    pub(super) seen: Arc<Seen>,
    pub(super) budget: Budget,
}

impl<R: Rules> PartialEq for World<R> {
    fn eq(&self, other: &Self) -> bool {
        digest::digest(self) == digest::digest(other)
    }
}

impl<R: Rules> std::hash::Hash for World<R> {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        let Self { members, flights, seen, budget } = self;
        for member in members {
            hasher.write_u64(member.digest);
        }
        for flight in flights.keys() {
            hasher.write_u64(*flight);
        }
        (flights.len(), seen, budget).hash(hasher);
    }
}

/// Nodes as a membership names them.
pub(super) fn replicas(numbers: &[usize]) -> BTreeSet<ReplicaId> {
    numbers.iter().map(|number| ReplicaId::founder(NodeId::numbered(*number))).collect()
}

impl<R: Rules> World<R> {
    /// Nodes that have just started with empty disks, the first `voters` of them a group. Nobody remembers a leader.
    pub(super) fn new(nodes: usize, voters: usize) -> Self {
        let member = |number| {
            let raft = Raft::new(configure(number, voters), Restart::default(), Now::default());
            let mut member =
                Member { raft, disk: Disk::default(), writes: VecDeque::new(), now_us: ELECTION_US, digest: 0 };
            member.digest = digest::of_member(&member);
            Arc::new(member)
        };
        let members = (1..=nodes).map(member).collect();
        Self { members, flights: BTreeMap::new(), seen: Arc::default(), budget: Budget::default() }
    }

    pub(super) fn raft(&self, number: usize) -> &Raft<R> {
        &self.members[number - 1].raft
    }

    /// Gives a node an input, does what follows, and returns the messages it sends.
    fn input<T>(
        &mut self,
        limits: &Limits,
        number: usize,
        act: impl FnOnce(&mut Raft<R>, Now) -> T,
    ) -> (T, Vec<Flight>) {
        let member = Arc::make_mut(&mut self.members[number - 1]);
        let mut sent = Vec::new();
        let now = Now { mono_us: member.now_us, wall_ms: 0 };
        assert!(now.mono_us < 1_000, "a stamp would be part of the state");
        let result = act(&mut member.raft, now);
        loop {
            member.raft.check_invariants();
            let ready = member.raft.ready(now);
            member.raft.check_invariants();
            assert!(ready.restore.is_none() && !ready.snapshot_wanted, "no log is compacted here");
            let from = member.raft.id();
            sent.extend(ready.messages.into_iter().map(|(to, message)| Flight { from, to, message }));
            member.writes.extend(ready.persist);
            if limits.slow_disks.contains(&number) || !member.sync(now) {
                break;
            }
        }
        member.digest = digest::of_member(member);
        self.remember(number);
        (result, sent)
    }

    /// What a node believes now that is news.
    fn remember(&mut self, number: usize) {
        let raft = &self.members[number - 1].raft;
        let (id, term, commit) = (raft.id(), raft.term(), raft.commit());
        if raft.role() == Role::Leader && self.seen.leaders.get(&term) != Some(&id) {
            let seen = Arc::make_mut(&mut self.seen);
            if *seen.leaders.entry(term).or_insert(id) != id {
                seen.second_leader = Some((term, id));
            }
        }
        let known = self.seen.committed.len() as Index;
        for index in known + 1..=commit {
            let entry = raft.entry(index).expect("what is committed is in the log").clone();
            Arc::make_mut(&mut self.seen).committed.push((entry, term));
        }
    }

    fn send(&mut self, limits: &Limits, sent: Vec<Flight>) {
        for flight in sent {
            let to = (1..=self.members.len()).find(|number| NodeId::numbered(*number) == flight.to);
            if to.is_some_and(|to| !limits.absent.contains(&to)) {
                self.flights.insert(digest::of_flight(&flight), Arc::new(flight));
            }
        }
    }

    /// Loses answers that whom they go to is past: it would only look at their term.
    pub(super) fn lose_stale(&mut self) {
        let members = &self.members;
        self.flights.retain(|_, flight| {
            let answers = matches!(
                flight.message.body,
                Body::Appended { .. } | Body::Rejected { .. } | Body::VoteReply { .. } | Body::PreVoteReply { .. }
            );
            let to = members.iter().find(|member| member.raft.id() == flight.to);
            !answers || to.is_none_or(|member| flight.message.term >= member.raft.term())
        });
    }

    /// An input, and its messages go on their way.
    pub(super) fn act<T>(&mut self, limits: &Limits, number: usize, act: impl FnOnce(&mut Raft<R>, Now) -> T) -> T {
        let (result, sent) = self.input(limits, number, act);
        self.send(limits, sent);
        result
    }

    fn number(id: NodeId) -> usize {
        trace::number(id).parse().expect("a numbered node")
    }

    pub(super) fn deliver(&mut self, limits: &Limits, flight: &Flight) -> bool {
        let (to, from, message) = (Self::number(flight.to), flight.from, flight.message.clone());
        let before = self.members[to - 1].digest;
        let (_, sent) = self.input(limits, to, |raft, now| raft.step(now, from, message));
        let changed = self.members[to - 1].digest != before || !sent.is_empty();
        self.send(limits, sent);
        changed
    }

    /// Time passes for those who do not lead: they have heard nobody for so long that they refuse nobody their votes.
    fn let_promises_lapse(&mut self) {
        for member in &mut self.members {
            let node = &member.raft.node;
            if member.raft.role() != Role::Leader && node.refuse_votes_until_us > member.now_us {
                let member = Arc::make_mut(member);
                member.now_us = member.raft.node.refuse_votes_until_us;
                member.digest = digest::of_member(member);
            }
        }
    }

    pub(super) fn campaign(&mut self, limits: &Limits, number: usize) {
        self.let_promises_lapse();
        let member = Arc::make_mut(&mut self.members[number - 1]);
        member.now_us = member.now_us.max(member.raft.node.election_deadline_us);
        let (_, sent) = self.input(limits, number, |raft, now| raft.tick(now));
        if limits.pre_votes_travel {
            self.send(limits, sent);
            return;
        }
        let (questions, others): (Vec<_>, Vec<_>) =
            sent.into_iter().partition(|sent| matches!(sent.message.body, Body::PreVote { .. }));
        self.send(limits, others);
        let (mut refusals, mut grants) = (Vec::new(), Vec::new());
        for Flight { from, to, message } in questions {
            let to = Self::number(to);
            if limits.absent.contains(&to) {
                continue;
            }
            let (_, sent) = self.input(limits, to, |raft, now| raft.step(now, from, message));
            for answer in sent {
                match answer.message.body {
                    Body::PreVoteReply { granted: true } => grants.push(answer),
                    Body::PreVoteReply { granted: false } => refusals.push(answer),
                    _ => self.send(limits, vec![answer]),
                }
            }
        }
        // Who grants is heard first, and who refuses where that is not enough: then it may name a higher term.
        for Flight { from, message, .. } in grants.into_iter().chain(refusals) {
            if self.raft(number).role() == Role::PreCandidate {
                self.act(limits, number, |raft, now| raft.step(now, from, message));
            }
        }
    }

    pub(super) fn crash(&mut self, limits: &Limits, number: usize, synced: usize) {
        let member = Arc::make_mut(&mut self.members[number - 1]);
        for write in std::mem::take(&mut member.writes).into_iter().take(synced) {
            member.disk.write(&write);
        }
        let Disk { hard_state, base, entries, .. } = member.disk.clone();
        let restart = Restart { hard_state, base, entries, applied: 0 };
        let now = Now { mono_us: member.now_us, wall_ms: 0 };
        member.raft = Raft::new(member.raft.node.config.clone(), restart, now);
        // It may have promised a leader not to vote, and keeps that by being silent.
        member.now_us += ELECTION_US;
        self.act(limits, number, |_, _| ());
    }

    /// Commands are told apart by how many may still come.
    pub(super) fn propose(&mut self, limits: &Limits, at: usize) -> bool {
        const COMMANDS: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"];
        let data = Bytes::from_static(COMMANDS[usize::from(self.budget.proposals)]);
        self.act(limits, at, |raft, now| raft.propose(now, data)).is_ok()
    }

    pub(super) fn change(&mut self, limits: &Limits, at: usize, voters: &[usize], learners: &[usize]) -> bool {
        let (voters, learners) = (replicas(voters), replicas(learners));
        self.act(limits, at, |raft, now| raft.change(now, voters, learners)).is_ok()
    }
}

impl<R: Rules> Member<R> {
    /// The oldest write is durable. False where there is none.
    pub(super) fn sync(&mut self, now: Now) -> bool {
        let Some(write) = self.writes.pop_front() else { return false };
        self.disk.write(&write);
        self.raft.persisted(now, write.sequence);
        true
    }
}
