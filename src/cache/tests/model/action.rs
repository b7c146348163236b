//! What can happen in a state, and what follows from it.
//!
//! An action that changes nothing leads nowhere, so that it makes no state: a message that is ignored is as good as lost.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::digest;
use super::log::Entry;
use super::world::{Budget, Flight, KEYS, LEADER_US, LEASE_US, Limits, Place, RETRY_US, Want, World};
use crate::cache::{BusMessage, Home, LeaseTag, ToHome, ToNode};
use crate::rules::Rules;

/// Something that can happen.
#[derive(Clone, PartialEq)]
pub(super) enum Action {
    /// A message arrives.
    Deliver(u64, Arc<Flight>),
    /// A message arrives, and will once more.
    Repeat(u64, Arc<Flight>),
    /// What a node has journaled is on its disk.
    Flush(usize),
    /// The next entry is committed, and applied at the home.
    Commit,
    /// A home that was deposed, and does not know, hears that an entry of its own is committed.
    Learn,
    /// The last entry does not get into the log.
    Refuse,
    /// A node looks at the clock.
    Tick(usize),
    /// It is this late.
    Advance(u64),
    /// That node is elected; so many entries of the home before it are in its log.
    Elect(usize, usize),
    /// A node hears of the present home.
    Hear(usize),
    /// A client asks.
    Ask(usize, usize, Want),
    /// A client waits no longer.
    Expire(u64),
    /// A node stops and starts again; whether what it had journaled was on its disk.
    Crash(usize, bool),
    /// A node loses its disk and starts again.
    Wipe(usize),
    /// A node is told to go.
    Drain(usize),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flight = |flight: &Flight| match &flight.message {
            BusMessage::ToHome(message) => format!("n{} → n{} {message:?}", flight.from, flight.to),
            BusMessage::ToNode(message) => format!("n{} → n{} {message:?}", flight.from, flight.to),
        };
        match self {
            Action::Deliver(_, message) => write!(f, "{}", flight(message)),
            Action::Repeat(_, message) => write!(f, "{}, and again", flight(message)),
            Action::Flush(at) => write!(f, "n{at} its journal is flushed"),
            Action::Commit => write!(f, "the next entry is committed"),
            Action::Learn => write!(f, "the deposed home hears that an entry is committed"),
            Action::Refuse => write!(f, "the last entry is refused"),
            Action::Tick(at) => write!(f, "n{at} looks at the clock"),
            Action::Advance(now_us) => write!(f, "it is {now_us}"),
            Action::Elect(at, survive) => {
                write!(f, "n{at} is elected, and has {survive} entries of the home before it")
            }
            Action::Hear(at) => write!(f, "n{at} hears of the new home"),
            Action::Ask(at, key, want) => write!(f, "n{at} is asked: {want:?} {}", KEYS[*key]),
            Action::Expire(caller) => write!(f, "client {caller} waits no longer"),
            Action::Crash(at, flushed) => write!(f, "n{at} crashes and starts, journal flushed: {flushed}"),
            Action::Wipe(at) => write!(f, "n{at} loses its disk and starts"),
            Action::Drain(at) => write!(f, "n{at} is told to go"),
        }
    }
}

impl<R: Rules> World<R> {
    /// What follows, or None where nothing does.
    pub(super) fn after(&self, limits: &Limits, action: &Action) -> Option<Self> {
        let mut world = self.clone();
        let budget = &mut world.budget;
        match action {
            Action::Deliver(digest, _) => drop(world.flights.remove(digest)),
            Action::Repeat(..) => budget.repeats -= 1,
            Action::Refuse => budget.refusals -= 1,
            Action::Advance(_) => budget.advances -= 1,
            Action::Elect(..) => budget.failovers -= 1,
            Action::Ask(_, _, Want::Read) => budget.reads -= 1,
            Action::Ask(_, _, Want::Write(Some(_))) => budget.writes -= 1,
            Action::Ask(_, _, Want::Write(None)) => budget.deletes -= 1,
            Action::Ask(_, _, Want::WriteBack) => budget.write_backs -= 1,
            Action::Expire(_) => budget.expires -= 1,
            Action::Crash(..) => budget.crashes -= 1,
            Action::Wipe(_) => budget.wipes -= 1,
            Action::Drain(_) => budget.drains -= 1,
            Action::Flush(_) | Action::Commit | Action::Learn | Action::Tick(_) | Action::Hear(_) => {}
        }
        let before = digest(&world);
        world.take(limits, action);
        world.lose(limits);
        (digest(&world) != before).then_some(world)
    }

    /// Does it, whatever the budget says.
    pub(super) fn take(&mut self, limits: &Limits, action: &Action) {
        match action {
            Action::Deliver(_, flight) | Action::Repeat(_, flight) => self.deliver(flight),
            Action::Flush(at) => self.flush(*at),
            Action::Commit => self.commit(limits),
            Action::Learn => self.learn(),
            Action::Refuse => self.refuse(),
            Action::Tick(at) => self.tick(*at),
            Action::Advance(now_us) => self.advance(*now_us),
            Action::Elect(at, survive) => self.elect(limits, *at, *survive),
            Action::Hear(at) => self.hear(*at),
            Action::Ask(at, key, want) => self.ask(*at, *key, want.clone()),
            Action::Expire(caller) => self.expire(*caller),
            Action::Crash(at, flushed) => self.crash(limits, *at, *flushed),
            Action::Wipe(at) => self.wipe(limits, *at),
            Action::Drain(at) => self.drain(*at),
        }
    }

    /// Everything that can happen next.
    pub(super) fn actions(&self, limits: &Limits, actions: &mut Vec<Action>) {
        for (digest, flight) in &self.flights {
            actions.push(Action::Deliver(*digest, Arc::clone(flight)));
            if self.budget.repeats > 0 {
                actions.push(Action::Repeat(*digest, Arc::clone(flight)));
            }
        }
        self.steps(actions);
        actions.retain(|action| !matches!(action, Action::Hear(at) | Action::Tick(at) if limits.is_idle(*at)));
        self.asked(limits, actions);
        self.mishaps(limits, actions);
    }

    /// What goes on by itself.
    pub(super) fn steps(&self, actions: &mut Vec<Action>) {
        let present = self.present();
        if !present.log.is_empty() {
            actions.push(Action::Commit);
        }
        for (at, node) in (1..).zip(&self.nodes) {
            if !node.writes.is_empty() {
                actions.push(Action::Flush(at));
            }
            if node.heard < present.term {
                actions.push(Action::Hear(at));
            }
            actions.push(Action::Tick(at));
        }
    }

    /// What clients want.
    fn asked(&self, limits: &Limits, actions: &mut Vec<Action>) {
        let Budget { reads, writes, deletes, write_backs, expires, .. } = self.budget;
        for key in 0..limits.keys {
            let mut allow = |allowed: bool, nodes: &[usize], want: Want| {
                actions.extend(nodes.iter().filter(|_| allowed).map(|at| Action::Ask(*at, key, want.clone())));
            };
            allow(reads > 0, limits.readers, Want::Read);
            allow(writes > 0, limits.writers, Want::Write(Some(self.value())));
            allow(deletes > 0, limits.writers, Want::Write(None));
            allow(write_backs > 0, limits.writers, Want::WriteBack);
        }
        actions.extend(self.waits.keys().filter(|_| expires > 0).map(|caller| Action::Expire(*caller)));
    }

    /// What nobody wants.
    fn mishaps(&self, limits: &Limits, actions: &mut Vec<Action>) {
        let Budget { advances, failovers, crashes, wipes, refusals, drains, .. } = self.budget;
        let present = self.present();
        if advances > 0 {
            actions.extend(self.instants().into_iter().map(Action::Advance));
        }
        if failovers > 0 {
            for at in limits.electable {
                actions.extend((0..=present.log.len()).map(|survive| Action::Elect(*at, survive)));
            }
        }
        if refusals > 0 && present.log.iter().any(|entry| entry.proposal.is_some()) {
            actions.push(Action::Refuse);
        }
        if let [.., old, _] = &self.places[..]
            && old.home.is_some()
            && !old.log.is_empty()
        {
            actions.push(Action::Learn);
        }
        for at in limits.crashers.iter().filter(|at| **at != present.node) {
            if crashes > 0 {
                actions.push(Action::Crash(*at, false));
                if !self.nodes[at - 1].writes.is_empty() {
                    actions.push(Action::Crash(*at, true));
                }
            }
            if wipes > 0 {
                actions.push(Action::Wipe(*at));
            }
            if drains > 0 {
                actions.push(Action::Drain(*at));
            }
        }
    }

    /// The instants at which something is different: a retry is due, a lease has run out here or there, a new home has waited enough.
    fn instants(&self) -> BTreeSet<u64> {
        let ends = self.nodes.iter().map(|node| node.lease_us);
        let at_homes = self.places.iter().flat_map(|place| place.ends_us.values().copied());
        let waited =
            self.places.iter().filter_map(|place| place.home.as_ref()).map(|home| home.elected_us() + LEASE_US);
        let all = ends.chain(at_homes).chain(waited).chain([self.now_us + RETRY_US]);
        all.filter(|instant| *instant > self.now_us).collect()
    }

    /// Loses what goes to nodes that are cut off, and what whom it goes to would only ignore: answers under a home that its node knows to be over,
    /// and words of such nodes to that home, where it is no more.
    fn lose(&mut self, limits: &Limits) {
        let present = self.present().term;
        let (nodes, places) = (&self.nodes, &self.places);
        let is_home = |at: usize| places.iter().any(|place| place.node == at && place.home.is_some());
        self.flights.retain(|_, flight| {
            let heard = |at: usize, tag: &LeaseTag| tag.term == 0 || tag.term >= nodes[at - 1].heard;
            let cut = [flight.from, flight.to].iter().any(|at| limits.absent.contains(at));
            let listens = match &flight.message {
                BusMessage::ToHome(_) if !is_home(flight.to) => false,
                BusMessage::ToHome(
                    ToHome::BusRd { tag, .. } | ToHome::WriteBack { tag, .. } | ToHome::Renew { tag, .. },
                ) => nodes[flight.from - 1].heard < present || tag.term == present,
                BusMessage::ToNode(
                    ToNode::Registered { tag, .. }
                    | ToNode::Renewed { tag, .. }
                    | ToNode::Filled { tag, .. }
                    | ToNode::Lapsed { tag },
                ) => heard(flight.to, tag),
                // Who has a log does not learn from this.
                BusMessage::ToNode(ToNode::NotHome { .. }) => false,
                _ => true,
            };
            !cut && listens
        });
    }

    fn flush(&mut self, at: usize) {
        let node = Arc::make_mut(&mut self.nodes[at - 1]);
        while let Some(record) = node.writes.pop_front() {
            node.write(record);
        }
        let ticket = node.agent.ticket();
        self.act(at, |world, step| world.with_agent(step, |agent, turn| agent.flushed(turn, ticket)));
    }

    fn commit(&mut self, limits: &Limits) {
        let place = Arc::make_mut(self.places.last_mut().expect("there is always one"));
        let Some(entry) = place.log.pop_front() else { return };
        if limits.lags {
            place.before = Some((Arc::clone(&place.machine), entry.clone()));
        }
        let committed = Arc::make_mut(&mut place.machine).apply(&entry);
        if entry.proposal.is_none() && entry.term == place.term {
            place.settled = Some(place.machine.index);
        }
        let (at, term) = (place.node, place.term);
        self.act(at, |world, step| {
            if let Some(proposal) = entry.proposal.filter(|_| entry.term == term) {
                world.with_home(step, |home, memory, standing, out| {
                    home.committed(&proposal, committed, memory, standing, out);
                });
            }
        });
    }

    fn learn(&mut self) {
        let [.., old, _] = &mut self.places[..] else { return };
        let place = Arc::make_mut(old);
        let Some(entry) = place.log.pop_front() else { return };
        let committed = Arc::make_mut(&mut place.machine).apply(&entry);
        let Some(proposal) = entry.proposal else { return };
        let at = place.node;
        self.act(at, |world, step| {
            world.with_home(step, |home, memory, standing, out| {
                home.committed(&proposal, committed, memory, standing, out);
            });
        });
    }

    fn refuse(&mut self) {
        let place = Arc::make_mut(self.places.last_mut().expect("there is always one"));
        let Some(Entry { proposal: Some(proposal), .. }) = place.log.pop_back() else { return };
        let at = place.node;
        self.act(at, |world, step| {
            world.with_home(step, |home, memory, standing, out| home.refused(&proposal, memory, standing, out));
        });
    }

    pub(super) fn tick(&mut self, at: usize) {
        self.act(at, |world, step| {
            world.with_agent(step, |agent, turn| agent.tick(turn));
            world.with_home(step, Home::tick);
        });
    }

    /// Time passes. The present home hears a majority meanwhile.
    pub(super) fn advance(&mut self, now_us: u64) {
        self.now_us = now_us;
        let place = Arc::make_mut(self.places.last_mut().expect("there is always one"));
        place.leader_until_us = now_us + LEADER_US;
        place.refresh();
        self.look();
    }

    /// Another home, when the one before it can no longer believe that it is one. What it lacks of the log, nobody has committed.
    fn elect(&mut self, limits: &Limits, at: usize, survive: usize) {
        let old = Arc::make_mut(self.places.last_mut().expect("there is always one"));
        self.now_us = self.now_us.max(old.leader_until_us);
        old.log.truncate(survive);
        let (mut log, mut machine): (VecDeque<Entry>, _) = (old.log.clone(), Arc::clone(&old.machine));
        if let Some((before, entry)) = old.before.take() {
            machine = before;
            log.push_front(entry);
        }
        if old.node == at {
            old.home = None;
        }
        old.refresh();
        let mut place = Place::new(at, old.term + 1, self.now_us, machine, limits);
        log.append(&mut place.log);
        place.log = log;
        self.places.push(Arc::new(place));
        self.hear(at);
    }

    /// A node hears of the present home; one that was the home before is it no more.
    pub(super) fn hear(&mut self, at: usize) {
        let term = self.present().term;
        Arc::make_mut(&mut self.nodes[at - 1]).heard = term;
        for place in self.places.iter_mut().filter(|place| place.node == at && place.term < term) {
            Arc::make_mut(place).home = None;
        }
        self.act(at, |world, step| world.with_agent(step, |agent, turn| agent.home_changed(turn, term)));
    }

    fn drain(&mut self, at: usize) {
        Arc::make_mut(&mut self.nodes[at - 1]).drains = true;
        self.act(at, |world, step| world.with_agent(step, |agent, turn| agent.drain(turn)));
    }

    fn expire(&mut self, caller: u64) {
        let Some(waits) = self.waits.remove(&caller) else { return };
        self.act(waits.node, |world, step| {
            world.with_agent(step, |agent, turn| agent.expire(turn, caller));
        });
    }
}
