//! The bus lease: registration, renewal, lapse.
//!
//! The holder counts from before it sent: the number of a round *is* the instant at which it was sent, but for those that had to be told
//! apart from another of the same microsecond, and these are counted short. So an answer to an old round can only grant less. A lease that has run out is never renewed: the node drops every clean line,
//! stops serving the dirty ones, and registers anew.

use trine_protocol::{Error, ErrorCode};

use crate::cache::line::LineChange;
use crate::cache::message::{LeaseTag, ToHome};
use crate::ids::Term;
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::slot::{Leaving, Operation, State};
use super::{Agent, Turn};

#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Lease {
    /// Term of the newest home that this node heard of.
    home: Option<Term>,
    held: Option<Held>,
    /// The last round sent, and so when.
    round_us: u64,
    /// How far a round has been ahead of the clock at most.
    ahead_us: u64,
}

impl Lease {
    /// The tag of the lease, whether it still holds or not.
    pub(super) fn tag(&self) -> Option<LeaseTag> {
        self.held.map(|held| held.tag)
    }
}

#[derive(Clone, Copy, Debug, Hash)]
struct Held {
    tag: LeaseTag,
    until_us: u64,
}

impl<R: Rules> Agent<R> {
    /// A home of this term is there, on whichever node. A newer one means: register anew.
    pub fn home_changed(&mut self, turn: &mut Turn<'_>, term: Term) {
        if self.lease.home.is_some_and(|known| known >= term) {
            return;
        }
        self.because(turn, "a new home");
        self.lease.home = Some(term);
        if self.lease.held.is_some() {
            self.lapse(turn);
        }
        self.register(turn);
    }

    /// The tag of the lease, where one holds at this instant.
    pub fn valid_tag(&self, now_us: u64) -> Option<LeaseTag> {
        self.lease.held.filter(|held| now_us < held.until_us).map(|held| held.tag)
    }

    /// How long the lease lasts.
    pub fn lease_left_us(&self, now_us: u64) -> u64 {
        self.lease.held.map_or(0, |held| held.until_us.saturating_sub(now_us))
    }

    /// Time has passed: renews, registers, repeats what was not answered.
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        self.because(turn, "time has passed");
        self.check_lapse(turn);
        let since_us = turn.now_us.saturating_sub(self.lease.round_us);
        match self.lease.held {
            Some(held) if since_us >= self.config.renew_us => {
                let round = self.next_round(turn.now_us);
                turn.out.to_home.push(ToHome::Renew { tag: held.tag, round });
            }
            None if since_us >= self.config.retry_us => self.register(turn),
            _ => {}
        }
        if let Some(tag) = self.valid_tag(turn.now_us)
            && self.owns_nothing()
            && !self.released
            && turn.now_us >= self.release_us
        {
            self.release_us = turn.now_us + self.config.retry_us;
            turn.out.to_home.push(ToHome::Release { incarnation: self.incarnation, tag });
        }
        while let Some((due_us, key)) = self.due.first().cloned() {
            if due_us > turn.now_us {
                break;
            }
            self.schedule(&key, None);
            self.on_due(turn, &key);
        }
        self.tend_flushes(turn);
        self.tend_fills(turn);
        self.tend_audit(turn);
    }

    fn next_round(&mut self, now_us: u64) -> u64 {
        self.lease.round_us = now_us.max(self.lease.round_us + 1);
        self.lease.ahead_us = self.lease.ahead_us.max(self.lease.round_us - now_us);
        self.lease.round_us
    }

    fn register(&mut self, turn: &mut Turn<'_>) {
        // Who has left the bus is not waited for, and may not come back.
        if self.released {
            return;
        }
        let round = self.next_round(turn.now_us);
        let home = self.lease.home.unwrap_or_default();
        turn.out.to_home.push(ToHome::Register { incarnation: self.incarnation, round, home });
    }

    pub(super) fn registered(&mut self, turn: &mut Turn<'_>, tag: LeaseTag, round: u64) {
        // Only the newest round counts: the home forgets the lines of an older registration when it hears a newer one.
        let until_us = round.saturating_sub(self.lease.ahead_us) + self.config.holder_lease_us();
        let stale =
            self.released || self.lease.held.is_some() || round != self.lease.round_us || turn.now_us >= until_us;
        if stale || self.lease.home.is_some_and(|known| known > tag.term) {
            return;
        }
        self.lease.home = Some(tag.term);
        self.lease.held = Some(Held { tag, until_us });
        turn.out.publish.push(LineChange::Lease(tag, until_us));
        for key in self.keys(|_| true) {
            if R::without(Rule::LinesKeptAcrossLeases) || R::without(Rule::OwnerResumes) {
                self.publish(turn, &key);
            }
            self.on_due(turn, &key);
            self.pump(turn, &key);
        }
    }

    pub(super) fn renewed(&mut self, turn: &mut Turn<'_>, tag: LeaseTag, round: u64) {
        let Some(held) = &mut self.lease.held else { return };
        if held.tag != tag
            || (turn.now_us >= held.until_us && !R::without(Rule::LapsedLeaseRenewed))
            || round > self.lease.round_us
        {
            return;
        }
        let sent_us = round.saturating_sub(self.lease.ahead_us);
        let from_us = if R::without(Rule::BusLeaseFromAnswer) { turn.now_us } else { sent_us };
        held.until_us = held.until_us.max(from_us + self.config.holder_lease_us());
        turn.out.publish.push(LineChange::Lease(tag, held.until_us));
    }

    pub(super) fn lapsed_at_home(&mut self, turn: &mut Turn<'_>, tag: LeaseTag) {
        if self.lease.held.is_some_and(|held| held.tag == tag) {
            self.lapse(turn);
            self.register(turn);
        }
    }

    /// The home says that this node owns nothing: it goes without a lease that anybody would have to wait for. Its lines are gone before it says so.
    pub(super) fn leave_the_bus(&mut self, turn: &mut Turn<'_>, tag: LeaseTag) {
        if !self.owns_nothing() || self.valid_tag(turn.now_us) != Some(tag) {
            return;
        }
        mark(Rare::BusLeft);
        self.released = true;
        self.end_lease(turn);
        turn.out.to_home.push(ToHome::Leave { incarnation: self.incarnation, tag });
    }

    /// Looks at the clock, and at the lease again.
    pub(super) fn check_lapse(&mut self, turn: &mut Turn<'_>) {
        let ended = self.lease.held.is_some_and(|held| turn.now_us >= held.until_us);
        if ended && !R::without(Rule::LapsedLeaseRenewed) {
            mark(Rare::LeaseLapsed);
            self.lapse(turn);
            self.register(turn);
        }
    }

    fn lapse(&mut self, turn: &mut Turn<'_>) {
        self.because(turn, "the bus lease ended");
        self.counts.lapses += 1;
        self.end_lease(turn);
    }

    /// Every clean line goes, every dirty one stops serving, and what waits for an answer under the old lease is told.
    fn end_lease(&mut self, turn: &mut Turn<'_>) {
        self.lease.held = None;
        turn.out.retract_all();
        for key in self.keys(|_| true) {
            self.lapse_line(&key);
            let slot = self.slots.get_mut(&key).expect("listed above");
            // A write that is out stays: the log knows it by its number. One that asked to write back waits for that.
            let stays = matches!(slot.state, State::Leaving(_));
            let refused: Vec<u64> = slot
                .waiting
                .iter()
                .filter(|(_, operation)| !(stays && *operation == Operation::WriteBack))
                .map(|(caller, _)| *caller)
                .collect();
            slot.waiting.retain(|(_, operation)| stays && *operation == Operation::WriteBack);
            for caller in refused {
                let error = self.no_lease();
                self.reply(turn, caller, Err(error));
            }
            self.schedule(&key, None);
            self.tidy(&key);
        }
    }

    pub(super) fn lapse_line(&mut self, key: &str) {
        let next = match self.take(key) {
            State::Owned(owned) => {
                let callers = owned.pending.iter().map(|p| (p.caller, p.value.version, p.sum)).collect();
                let dirty = owned.newest().version.count > owned.stored_count;
                let value = owned.newest().clone();
                let dirty_since_us = Some(owned.dirty_since_us);
                State::Leaving(Leaving { epoch: owned.epoch, value, dirty, dirty_since_us, poisoned: true, callers })
            }
            State::Leaving(leaving) => State::Leaving(Leaving { poisoned: true, ..leaving }),
            State::Writing(writing) => State::Writing(writing),
            State::Clean(clean) if R::without(Rule::LinesKeptAcrossLeases) => State::Clean(clean),
            State::Invalid | State::Clean(_) | State::Reading(_) => State::Invalid,
        };
        self.set(key, next);
    }

    pub(super) fn no_lease(&self) -> Error {
        let what = format!(
            "{} has no valid bus lease of {}: its home is away or changing. Try again, or ask another node",
            self.node, self.group
        );
        Error::new(ErrorCode::BusLeaseLapsed, what).retry_after(250)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, TAG};
    use super::*;
    use crate::cache::{Change, Config, ToNode};

    #[test]
    fn a_node_that_leaves_the_bus_drops_its_lines_first_and_never_comes_back() {
        let mut scene = Scene::new(Config::default());
        let early = scene.act(|agent, turn| agent.handle(turn, ToNode::Released { tag: TAG }));
        assert!(early.to_home.is_empty() && early.retract.is_empty(), "it did not ask: {early:?}");
        scene.act(|agent, turn| agent.drain(turn));
        let out = scene.act(|agent, turn| agent.handle(turn, ToNode::Released { tag: TAG }));
        assert_eq!(out.retract, [LineChange::DropAll]);
        assert!(matches!(&out.to_home[..], [ToHome::Leave { tag: TAG, .. }]), "{out:?}");
        scene.now_us += 10 * Config::default().lease_us;
        let mut later = scene.act(|agent, turn| agent.tick(turn)).to_home;
        later.extend(scene.act(|agent, turn| agent.home_changed(turn, 2)).to_home);
        assert!(later.is_empty(), "{later:?}");
        let round = scene.now_us;
        let tag = LeaseTag { term: 2, number: 1 };
        let given = scene.act(|agent, turn| agent.handle(turn, ToNode::Registered { tag, round }));
        assert!(given.publish.is_empty(), "{given:?}");
    }

    #[test]
    fn a_second_round_of_the_same_instant_gives_no_longer_lease() {
        let mut scene = Scene::new(Config::default());
        let out = scene.act(|agent, turn| {
            agent.home_changed(turn, 2);
            agent.home_changed(turn, 3);
        });
        let [_, ToHome::Register { round, .. }] = out.to_home[..] else { panic!("{out:?}") };
        assert!(round > scene.now_us, "rounds are told apart");
        let tag = LeaseTag { term: 3, number: 1 };
        let given = scene.act(|agent, turn| agent.handle(turn, ToNode::Registered { tag, round }));
        let until_us = scene.now_us + Config::default().holder_lease_us();
        assert_eq!(given.publish, [LineChange::Lease(tag, until_us)]);
    }

    #[test]
    fn a_write_that_was_refused_at_the_end_of_the_lease_is_not_done_afterwards() {
        let mut scene = Scene::new(Config::default());
        let out = scene.act(|agent, turn| agent.operation(turn, 1, "k", Operation::Write(Change::put("old".into()))));
        let Some(ToHome::BusRdX { write, .. }) = out.to_home.first() else { panic!("{out:?}") };
        let owned = ToNode::Owned { write: *write, key: "k".into(), tag: TAG, epoch: 9, owns: true, sum: None };
        scene.act(|agent, turn| agent.handle(turn, owned));
        // The line is on its way back: the next write waits for that.
        scene.act(|agent, turn| agent.operation(turn, 2, "k", Operation::WriteBack));
        let waits = scene.act(|agent, turn| agent.operation(turn, 3, "k", Operation::Write(Change::put("new".into()))));
        assert_eq!(waits.reply, []);
        let lapsed = scene.act(|agent, turn| agent.handle(turn, ToNode::Lapsed { tag: TAG }));
        assert!(
            matches!(&lapsed.reply[..], [(3, Err(error))] if error.code == ErrorCode::BusLeaseLapsed),
            "{lapsed:?}"
        );
        let (round, tag) = (scene.now_us + 1, LeaseTag { term: 1, number: 2 });
        scene.now_us = round;
        scene.act(|agent, turn| agent.handle(turn, ToNode::Registered { tag, round }));
        let version = trine_protocol::cache::Version { epoch: 9, count: 0 };
        let state = trine_protocol::cache::LineState::I;
        let ended = ToNode::WrittenBack { key: "k".into(), epoch: 9, version, ended: true, state, tag };
        let later = scene.act(|agent, turn| agent.handle(turn, ended));
        assert!(!later.to_home.iter().any(|message| matches!(message, ToHome::BusRdX { .. })), "{later:?}");
        assert!(!later.reply.iter().any(|(caller, _)| *caller == 3), "{later:?}");
    }
}
