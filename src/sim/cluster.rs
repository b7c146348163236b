//! The cluster itself: the loop that takes one event after the other, drives the replicas, and does what they ask for.

use std::sync::Arc;

use trine_protocol::{Error, Response};

use super::audit::Audit;
use super::checker::raft::{NewLeader, RaftChecker};
use super::checker::{Check, Services};
use super::counts::Counts;
use super::disk::{Finished, NodeDisk, Thread};
use super::faults::Fault;
use super::flights::{Flights, Sending};
use super::kinds;
use super::near::{Near, NearEvent};
use super::network::{Network, Passage, Place};
use super::node::{Clock, Node};
use super::random::{Random, split_mix};
use super::redis::{Redis, RedisEvent};
use super::swarm::{Options, Swarm};
use super::trace::Trace;
use super::turns::Turns;
use super::workload::Workload;
use crate::cache::Found;
use crate::ids::{GroupId, NodeId, Now};
use crate::node::effect::{Effects, Input, RequestId};
use crate::node::message::GroupMessage;
use crate::node::{Replica, Setup, Timing};
use crate::raft::{Body, Raft, Role};
use crate::rules::Rules;

/// Shortest and longest time between two ticks of a node.
const TICK_US: (u64, u64) = (20_000, 50_000);
/// Shortest and longest way between a client and its node.
pub(crate) const CLIENT_US: (u64, u64) = (50, 500);

/// What can happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message arrives.
    Deliver { from: Place, to: Place, group: GroupId, message: Arc<GroupMessage>, passage: Passage },
    /// Time has passed on a node.
    Tick { place: Place, boot: u64 },
    /// A storage thread has finished what it began.
    Disk { place: Place, boot: u64, thread: Thread },
    /// A replica's task runs.
    Turn { place: Place, boot: u64, group: GroupId },
    /// An input that came while its process had stopped.
    Input { place: Place, boot: u64, group: GroupId, input: Input },
    /// A request arrives at its node.
    Request { boot: u64, sending: Sending },
    /// A reader that had found a line looks at the clock.
    Reader { boot: u64, sending: Sending, found: Found },
    /// An answer arrives at its client.
    Reply { id: RequestId, result: Result<Response, Error> },
    /// A client has waited long enough, or its connection is gone.
    GiveUp { id: RequestId, sent_us: u64 },
    /// An operation is sent again.
    Again { number: u64 },
    /// A client does something new.
    Wake { client: usize },
    /// Something happens to copies in clients.
    Near(NearEvent),
    /// Something happens to Redis, or on the way to it.
    Redis(RedisEvent),
    /// Something breaks.
    Fault(Fault),
    /// The operator looks at what it has in hand.
    Operator,
    /// A process dies at a chosen moment.
    Strike { place: Place, boot: u64 },
    /// Something is whole again.
    Repair(Repair),
    /// The faults end.
    Heal,
    /// Everything must be well by now.
    Leaders,
    /// The audit goes on, or the run ends.
    Judge,
}

/// What ends a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Repair {
    Partition(u64),
    Start {
        place: Place,
    },
    /// There is room on a disk again.
    Room {
        place: Place,
    },
    Resume {
        place: Place,
        boot: u64,
    },
    Feed {
        place: Place,
        boot: u64,
        group: GroupId,
    },
    /// A draining node may be ready to stop.
    Drained {
        place: Place,
        boot: u64,
        tries: u32,
    },
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Clients work and things break.
    Faulty,
    /// Nothing breaks any more, and no client begins anything new.
    Healing,
    /// What was promised is asked for.
    Auditing,
    Done,
}

/// Events of a run for each of its groups, and for four groups where it has fewer: a few times what the busiest seeds take.
const EVENTS_PER_GROUP_MAX: u64 = 300_000;

pub(crate) struct Cluster<R: Rules> {
    pub(crate) swarm: Swarm,
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) schedule: super::schedule::Schedule<Event>,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node<R, Event>>,
    pub(crate) flights: Flights,
    pub(crate) workload: Workload,
    pub(crate) audit: Option<Audit>,
    pub(crate) services: Services,
    pub(crate) consensus: RaftChecker,
    pub(crate) phase: Phase,
    pub(crate) counts: Counts,
    pub(crate) operator: super::churn::Operator,
    pub(crate) redis: Redis,
    pub(crate) near: Near,
    pub(crate) turns: Turns,
    seed: u64,
}

impl<R: Rules> Cluster<R> {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut random = Random::new(seed);
        let mut swarm = Swarm::draw(&mut random);
        swarm.choose_managed(seed);
        if let Some(adjust) = options.adjust {
            adjust(&mut swarm);
        }
        let node = |place: usize, random: &mut Random| {
            let rate_ppm = swarm.rates_ppm.get(place).copied().unwrap_or(0);
            let clock = Clock::new(random, rate_ppm, swarm.wall_error_ms);
            let roster = super::node::founding_roster(swarm.nodes, swarm.replicas);
            Node::new(NodeId::numbered(place), random, clock, NodeDisk::new(swarm.disk.clone()), roster)
        };
        let (places, clients) = (swarm.nodes + swarm.spares, swarm.clients);
        let mut nodes: Vec<_> = (0..places).map(|place| node(place, &mut random)).collect();
        nodes[swarm.nodes..].iter_mut().for_each(|spare| spare.absent = true);
        Self {
            network: Network::new(places, swarm.network.clone()),
            workload: Workload::new(&swarm),
            services: Services::new(swarm.wall_error_ms * 1_000),
            swarm,
            options: options.clone(),
            random,
            schedule: super::schedule::Schedule::new(),
            trace: Trace::new(options.trace),
            nodes,
            flights: Flights::default(),
            audit: None,
            consensus: RaftChecker::default(),
            phase: Phase::Faulty,
            counts: Counts::default(),
            operator: super::churn::Operator::default(),
            redis: Redis::default(),
            near: Near::new(seed, clients),
            turns: Turns::new(seed),
            seed,
        }
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) -> Check {
        let swarm = self.swarm.clone();
        self.trace.note(0, || format!("{swarm:?}"));
        for place in 0..self.swarm.nodes {
            self.start(place)?;
        }
        for client in 0..self.workload.clients() {
            for _ in 0..self.swarm.lanes {
                let at_us = self.random.below(self.swarm.think_us_max.max(1));
                self.schedule.at(at_us, Event::Wake { client });
            }
        }
        self.schedule_faults();
        self.schedule_redis();
        self.schedule_near();
        self.schedule_operator();
        self.schedule.at(self.options.faulty_us, Event::Heal);
        let events_max = u64::from(self.swarm.groups.max(4)) * EVENTS_PER_GROUP_MAX;
        while self.phase != Phase::Done {
            let event = self.schedule.next().expect("ticks never end");
            self.happen(event)?;
            if self.trace.events() > events_max {
                return Err(format!("more than {events_max} events: somebody answers without end"));
            }
        }
        Ok(())
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.schedule.now_us()
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.note(self.schedule.now_us(), line);
    }

    pub(crate) fn record(&mut self, numbers: &[u64], line: impl FnOnce() -> String) {
        self.trace.event(self.schedule.now_us(), numbers, line);
    }

    pub(crate) fn happen(&mut self, event: Event) -> Check {
        if let Some(place) = self.place_of(&event)
            && let Some(halt) = &mut self.nodes[place].paused
        {
            halt.came.push_back(event);
            return Ok(());
        }
        match event {
            Event::Deliver { from, to, group, message, passage } => self.deliver(from, to, group, &message, passage),
            Event::Tick { place, boot } => self.tick(place, boot),
            Event::Disk { place, boot, thread } => self.disk(place, boot, thread),
            Event::Turn { place, boot, group } if self.is_up(place, boot) => self.turn(place, group),
            Event::Turn { .. } => Ok(()),
            Event::Input { place, boot, group, input } if self.is_up(place, boot) => self.handle(place, group, input),
            Event::Input { .. } => Ok(()),
            Event::Request { boot, sending } => self.request(boot, sending),
            Event::Reader { boot, sending, found } => self.reader(boot, sending, &found),
            Event::Reply { id, result } => self.replied(id, result),
            Event::GiveUp { id, sent_us } => self.give_up(id, sent_us),
            Event::Again { number } => {
                self.send(number);
                Ok(())
            }
            Event::Wake { client } => {
                self.wake(client);
                Ok(())
            }
            Event::Near(event) => self.near(event),
            Event::Redis(event) => self.redis(event),
            Event::Fault(fault) => self.break_something(fault),
            Event::Operator => self.operate(),
            Event::Strike { place, boot } => {
                self.strike(place, boot);
                Ok(())
            }
            Event::Repair(repair) => self.repair(repair),
            Event::Heal => self.heal(),
            Event::Leaders => self.demand_leaders(),
            Event::Judge => self.judge(),
        }
    }

    /// The node whose process has to run for that to happen.
    fn place_of(&self, event: &Event) -> Option<Place> {
        match event {
            Event::Deliver { to, .. } => Some(*to),
            Event::Tick { place, .. } | Event::Disk { place, .. } => Some(*place),
            Event::Turn { place, .. } | Event::Input { place, .. } => Some(*place),
            Event::Request { sending, .. } | Event::Reader { sending, .. } => Some(sending.place),
            Event::Near(NearEvent::Request { place, .. }) => Some(*place),
            _ => None,
        }
    }

    pub(crate) fn is_up(&self, place: Place, boot: u64) -> bool {
        self.nodes[place].is_up() && self.nodes[place].boots == boot
    }

    /// Starts a node's process on its disk.
    pub(crate) fn start(&mut self, place: Place) -> Check {
        self.nodes[place].boots += 1;
        self.turns.forget(place);
        let Some(recovered) = self.recover(place)? else { return Ok(()) };
        for (group, recovered) in recovered {
            self.consensus.restarted(group, place, recovered.hard_state)?;
            let (setup, node) = (self.setup(place, group), &mut self.nodes[place]);
            let now = node.clock.at(self.schedule.now_us());
            let made = Replica::new(setup, recovered, now).map_err(|error| format!("node {place}: {error}"))?;
            node.replicas.insert(group, made);
            node.lines.insert(group, crate::cache::Lines::default());
        }
        let boot = self.nodes[place].boots;
        self.record(&[1, place as u64, boot], || format!("n{place} starts for the {boot}. time"));
        self.schedule.after(0, Event::Tick { place, boot });
        Ok(())
    }

    fn setup(&self, place: Place, group: GroupId) -> Setup {
        let founding = super::node::founding_roster(self.swarm.nodes, self.swarm.replicas);
        let founders = founding.placement(group, false).iter().map(|replica| replica.node).collect();
        let node = &self.nodes[place];
        let boot = node.boots;
        let mut state = self.seed ^ (place as u64) << 32 ^ u64::from(group.0) << 40 ^ boot << 48;
        Setup {
            redis: self.swarm.redis.is_some(),
            group,
            node: node.id,
            incarnation: node.incarnation,
            joins: node.joins,
            lived_before: boot > 1 || node.joins,
            roster: node.roster.clone(),
            founders: if node.joins { Vec::new() } else { founders },
            generation: 1,
            seed: split_mix(&mut state),
            timing: self.timing(),
        }
    }

    fn timing(&self) -> Timing {
        let commit_news_us = if self.turns.are_shared() { Timing::default().commit_news_us } else { 0 };
        Timing { commit_news_us, ..self.swarm.bounds.timing() }
    }

    fn deliver(&mut self, from: Place, to: Place, group: GroupId, message: &GroupMessage, passage: Passage) -> Check {
        let arrives = self.network.arrives(from, to, passage);
        if !self.nodes[to].is_up() || !arrives || !self.lets_in(to, from) {
            return Ok(());
        }
        let kind = kinds::number(message);
        self.counts.delivered(kind);
        self.record(&[2, from as u64, to as u64, u64::from(group.0), kind as u64, kinds::detail(message)], || {
            format!("n{from} → n{to} {group} {} {}", kinds::name(message), short(message))
        });
        let from = self.nodes[from].id;
        self.handle(to, group, Input::Peer { from, message: message.clone() })
    }

    fn tick(&mut self, place: Place, boot: u64) -> Check {
        if !self.is_up(place, boot) {
            return Ok(());
        }
        self.record(&[3, place as u64], || format!("n{place} tick"));
        self.schedule.after(self.random.between(TICK_US.0, TICK_US.1), Event::Tick { place, boot });
        for group in (0..self.swarm.groups).map(GroupId) {
            if !self.nodes[place].starved.contains_key(&group) {
                self.handle(place, group, Input::Tick)?;
            }
        }
        Ok(())
    }

    fn disk(&mut self, place: Place, boot: u64, thread: Thread) -> Check {
        if !self.is_up(place, boot) {
            return Ok(());
        }
        self.record(&[4, place as u64, thread as u64], || format!("n{place} {thread:?} thread finished"));
        let Finished { inputs, hard_states } = match self.nodes[place].disk.finish(thread) {
            Ok(finished) => finished,
            Err(error) => return self.disk_failed(place, &error),
        };
        for (group, hard_state) in hard_states {
            self.consensus.made_durable(group, place, hard_state);
        }
        for (group, input) in inputs {
            self.handle(place, group, input)?;
        }
        self.begin_storage(place)
    }

    fn begin_storage(&mut self, place: Place) -> Check {
        let (now_us, node) = (self.schedule.now_us(), &mut self.nodes[place]);
        if !node.is_up() {
            return Ok(());
        }
        let boot = node.boots;
        let log = node.disk.begin_log(&mut self.random, now_us);
        let begun = log.and_then(|log| Ok([log, node.disk.begin_state(&mut self.random, now_us)?]));
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => return self.disk_failed(place, &error),
        };
        for (thread, at_us) in begun.into_iter().flatten() {
            self.schedule.at(at_us, Event::Disk { place, boot, thread });
        }
        Ok(())
    }

    /// Gives one input to one replica, at once or when its task has its turn, unless that gets no processor.
    pub(crate) fn handle(&mut self, place: Place, group: GroupId, input: Input) -> Check {
        let (now_us, node) = (self.schedule.now_us(), &mut self.nodes[place]);
        if let Some(halt) = &mut node.paused {
            halt.came.push_back(Event::Input { place, boot: node.boots, group, input });
            return Ok(());
        }
        if let Some(halt) = node.starved.get_mut(&group) {
            // What a peer sent is dropped where the inbox is full; the rest has room of its own.
            let room = halt.came.len() < self.swarm.network.inbox_messages_max;
            if room || !matches!(input, Input::Peer { .. }) {
                halt.came.push_back(input);
            }
            return Ok(());
        }
        let (now, boot) = (node.clock.at(now_us), node.boots);
        if !self.turns.are_shared() {
            return self.handle_all(place, group, &mut std::iter::once((now, input)));
        }
        if let Some(after_us) = self.turns.wait(place, group, input) {
            self.schedule.after(after_us, Event::Turn { place, boot, group });
        }
        Ok(())
    }

    /// Gives a replica inputs, as many as it takes together.
    pub(crate) fn handle_all(
        &mut self,
        place: Place,
        group: GroupId,
        inputs: &mut dyn Iterator<Item = (Now, Input)>,
    ) -> Check {
        let now = self.nodes[place].clock.at(self.schedule.now_us());
        let node = &mut self.nodes[place];
        let Some(replica) = node.replicas.get_mut(&group) else {
            inputs.for_each(drop);
            return Ok(());
        };
        let was_changing = replica.raft().is_some_and(Raft::change_under_way);
        let applied = replica.machine().map_or(0, |machine| machine.applied().index);
        let effects = replica.handle_all(inputs);
        let begins_a_change = !was_changing && replica.raft().is_some_and(Raft::change_under_way);
        replica.agent().check_stats();
        if let Some(machine) = replica.machine().filter(|machine| machine.applied().index != applied) {
            machine.check_invariants();
        }
        if let Some(raft) = replica.raft() {
            raft.check_invariants();
            let new_leader = self.consensus.observe(group, place, raft)?;
            let deposed = raft.role() == Role::Leader && self.consensus.newest_term(group) > raft.term();
            if deposed && raft.lease_until_us().is_some_and(|until_us| now.mono_us < until_us) {
                return Err(format!(
                    "{group}: node {place} holds the lease of term {} after a later election",
                    raft.term()
                ));
            }
            if let Some(leader) = new_leader {
                self.no_other_lease(group, leader)?;
                self.led(group, leader);
            }
        }
        if let Some(why) = &effects.fatal {
            return Err(format!("node {place} {group} cannot go on: {why}"));
        }
        if begins_a_change {
            self.cut_change(place, group);
        }
        if std::mem::take(&mut self.nodes[place].pause_armed) {
            self.pause(place, vec![(group, effects)]);
            return Ok(());
        }
        self.perform(place, group, effects)
    }

    /// While a leader's lease lasts, nobody is elected in a later term: not even where that leader hears of nothing any more.
    /// (Late votes may still make a leader of an earlier term, which commits nothing and gets no lease.)
    fn no_other_lease(&self, group: GroupId, leader: NewLeader) -> Check {
        for (place, node) in self.nodes.iter().enumerate().filter(|(place, _)| *place != leader.place) {
            let raft = node.replicas.get(&group).and_then(Replica::raft).filter(|raft| raft.term() < leader.term);
            let until_us = raft.and_then(Raft::lease_until_us);
            let now_us = node.clock.at(self.schedule.now_us()).mono_us;
            if node.is_up() && until_us.is_some_and(|until_us| now_us < until_us) {
                let NewLeader { place: elected, term, .. } = leader;
                return Err(format!(
                    "{group}: node {elected} leads term {term} while node {place} holds the leader lease"
                ));
            }
        }
        Ok(())
    }

    fn led(&mut self, group: GroupId, leader: NewLeader) {
        let (place, boot) = (leader.place, self.nodes[leader.place].boots);
        self.note(|| format!("n{place} leads {group} in term {}", leader.term));
        if self.phase != Phase::Faulty {
            return;
        }
        self.counts.leader_changes_under_load += u64::from(leader.changed && !self.flights.is_empty());
        if self.random.chance(self.swarm.process.new_leader_dies_per_mille) {
            let delay_us = self.random.below(30_000);
            self.schedule.after(delay_us, Event::Strike { place, boot });
        }
    }

    /// Does what a replica asks for, in the order of the fields.
    pub(crate) fn perform(&mut self, place: Place, group: GroupId, effects: Effects) -> Check {
        if !self.nodes[place].is_up() {
            return Ok(());
        }
        let Effects { retract, persist, publish, send, push, reply, checkpoint, fetch, main_memory, roster, fatal: _ } =
            effects;
        for change in retract {
            self.change_lines(place, group, change)?;
        }
        for write in persist {
            if let Some(raft) = &write.raft {
                self.consensus.wrote(group, place, &raft.entries)?;
            }
            self.nodes[place].disk.write(write);
        }
        for change in publish {
            self.change_lines(place, group, change)?;
        }
        for (to, message) in send {
            self.post(place, to, group, &message)?;
        }
        push.into_iter().for_each(|(number, push)| self.push_to_client(number, push));
        for (id, result) in reply {
            if !self.nodes[place].unanswered.remove(&id) {
                return Err(format!("node {place} {group} answered {id:?} twice, or unasked: {result:?}"));
            }
            let delay_us = self.random.between(CLIENT_US.0, CLIENT_US.1);
            self.schedule.after(delay_us, Event::Reply { id, result });
        }
        for checkpoint in checkpoint {
            self.nodes[place].disk.checkpoint(checkpoint);
        }
        for fetch in fetch {
            self.nodes[place].disk.fetch(fetch);
        }
        if let Some(roster) = roster {
            self.keep_roster(place, roster)?;
        }
        self.ask_redis(place, group, main_memory);
        self.compare_states(place, group)?;
        self.begin_storage(place)
    }

    fn post(&mut self, from: Place, to: NodeId, group: GroupId, message: &Arc<GroupMessage>) -> Check {
        let Some(to) = self.nodes.iter().position(|node| node.id == to) else {
            return Err(format!("node {from} sends to {to}, which is no node"));
        };
        if from == to {
            return Err(format!("node {from} sends to itself: {}", short(message)));
        }
        if let GroupMessage::Raft(raft) = &**message
            && raft.body == (Body::VoteReply { granted: true })
        {
            self.consensus.voted(group, from, raft.term, to)?;
        }
        let now_us = self.schedule.now_us();
        for passage in self.network.send(&mut self.random, now_us, from, to).into_iter().flatten() {
            let message = Arc::clone(message);
            self.schedule.at(passage.at_us, Event::Deliver { from, to, group, message, passage });
        }
        Ok(())
    }

    /// Replicas at the same index have the same state. Looked at where the index is a multiple, and at the end.
    fn compare_states(&mut self, place: Place, group: GroupId) -> Check {
        let Some(machine) = self.nodes[place].replicas.get(&group).and_then(Replica::machine) else { return Ok(()) };
        let index = machine.applied().index;
        if index == 0 || (self.phase == Phase::Faulty && index % 16 != 0) {
            return Ok(());
        }
        let mut hash = xxhash_rust::xxh64::Xxh64::new(index);
        for (key, value) in machine.records() {
            hash.update(&(key.len() as u64).to_le_bytes());
            hash.update(&key);
            hash.update(&value);
        }
        self.consensus.state(group, place, index, hash.digest())
    }
}

/// Characters of a value in the trace.
const SHORT: usize = 360;

pub(crate) fn debug_short(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    while text.contains("......") {
        text = text.replace("......", ".");
    }
    if let Some((end, _)) = text.char_indices().nth(SHORT) {
        text.truncate(end);
    }
    text
}

fn short(message: &GroupMessage) -> String {
    debug_short(message)
}
