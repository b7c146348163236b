//! What the home answers: leases, fills, ownership, the end of it.

use trine_protocol::cache::{LineState, Source, Version};
use trine_protocol::error::Outcome;
use trine_protocol::{Error, ErrorCode, Response};

use crate::cache::change::{What, digits};
use crate::cache::journal::JournalRecord;
use crate::cache::message::{LeaseTag, ToNode, Versioned, WriteId};
use crate::ids::{Index, NodeId};
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::serve::{got, written};
use super::slot::{Clean, Operation, State};
use super::{Agent, Turn};

/// A fill, as it came.
struct Fill {
    request: u64,
    key: String,
    tag: LeaseTag,
    state: LineState,
    value: Versioned,
    writer: Option<NodeId>,
}

impl<R: Rules> Agent<R> {
    /// A message of a home. Any message may come at any time, twice, or never.
    pub fn handle(&mut self, turn: &mut Turn<'_>, message: ToNode) {
        self.because(turn, message.name());
        self.check_lapse(turn);
        self.because(turn, message.name());
        match message {
            ToNode::NotHome { .. } => {}
            ToNode::Registered { tag, round } => self.registered(turn, tag, round),
            ToNode::Renewed { tag, round } => self.renewed(turn, tag, round),
            ToNode::Lapsed { tag } => self.lapsed_at_home(turn, tag),
            ToNode::Filled { request, key, tag, state, value, writer } => {
                self.filled(turn, Fill { request, key, tag, state, value, writer });
            }
            ToNode::Owned { write, key, tag, epoch, owns, sum } => {
                self.owned(turn, write, &key, owns.then_some(tag), epoch, sum);
            }
            ToNode::FillAnswered { request, key, answer } => self.fill_answered(turn, request, &key, answer),
            ToNode::ReadFailed { request, key, error } => self.read_failed(turn, request, &key, &error),
            ToNode::WriteFailed { request, write, key, error } => {
                self.write_failed(turn, request, write, &key, error);
            }
            ToNode::WrittenBack { key, epoch, version, ended: true, state, tag } => {
                self.ended(turn, &key, epoch, version, state, tag);
            }
            ToNode::WrittenBack { key, epoch, version, .. } => self.stored(turn, &key, epoch, version),
            ToNode::Audited { request, tag, newest, checksum } => {
                self.audited(turn, request, tag, newest, checksum);
            }
            ToNode::Released { tag } => self.leave_the_bus(turn, tag),
            ToNode::SnoopRd { transaction, key, owner } => self.snoop_read(turn, transaction, &key, owner),
            ToNode::SnoopInv { transaction, key, owner } => self.snoop_invalidate(turn, transaction, &key, owner),
        }
    }

    pub(super) fn tag(&self) -> Option<LeaseTag> {
        self.lease.tag()
    }

    fn filled(&mut self, turn: &mut Turn<'_>, fill: Fill) {
        let Some(State::Reading(reading)) = self.slots.get(&fill.key).map(|slot| &slot.state) else { return };
        let other = reading.request != fill.request && !R::without(Rule::FillForAnyRequest);
        if other || self.tag() != Some(fill.tag) {
            return;
        }
        let reading = reading.clone();
        self.set(&fill.key, State::Invalid);
        self.schedule(&fill.key, None);
        let poisoned = reading.poisoned && !R::without(Rule::FillInstalledAfterInvalidation);
        if poisoned {
            mark(Rare::FillPoisoned);
        }
        let kept = if poisoned { LineState::I } else { fill.state };
        let mut usable = reading.usable;
        // A line that is kept is answered for by every later invalidation, so whoever waits may have it.
        let usable = if kept == LineState::I { &mut usable } else { &mut usize::MAX.clone() };
        while *usable > 0 {
            let Some(slot) = self.slots.get_mut(&fill.key) else { break };
            let Some((caller, operation)) = slot.waiting.front().cloned() else { break };
            if !operation.reads() {
                break;
            }
            *usable -= 1;
            self.slots.get_mut(&fill.key).and_then(|slot| slot.waiting.pop_front());
            match operation {
                Operation::WriteBack => {
                    let answer = self.written_last(&fill.key, fill.writer, kept);
                    self.reply(turn, caller, answer);
                }
                operation => {
                    self.reads(turn, &fill.key, caller, &operation, got(&fill.value, kept, Source::MainMemory))
                }
            }
        }
        if kept != LineState::I {
            self.keep(turn, &fill.key, Clean { state: kept, value: fill.value, writer: fill.writer });
        }
        self.pump(turn, &fill.key);
    }

    fn read_failed(&mut self, turn: &mut Turn<'_>, request: u64, key: &str, error: &Error) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if !matches!(&slot.state, State::Reading(reading) if reading.request == request) {
            return;
        }
        let failed: Vec<u64> = slot.waiting.iter().filter(|(_, o)| o.reads()).map(|(caller, _)| *caller).collect();
        slot.waiting.retain(|(_, operation)| !operation.reads());
        self.set(key, State::Invalid);
        self.schedule(key, None);
        for caller in failed {
            self.reply(turn, caller, Err(error.clone()));
        }
        self.pump(turn, key);
    }

    fn owned(
        &mut self,
        turn: &mut Turn<'_>,
        write: WriteId,
        key: &str,
        tag: Option<LeaseTag>,
        epoch: Index,
        sum: Option<i64>,
    ) {
        let Some(State::Writing(writing)) = self.slots.get(key).map(|slot| &slot.state) else { return };
        if writing.write != write {
            return;
        }
        let version = Version { epoch, count: 0 };
        let what = writing.change.what.clone();
        self.finish_write(turn, key, Ok(written(version, sum)));
        // Under a lease that is no longer, the write is done all the same; the ownership is left to the home to end.
        if tag.is_some() && tag == self.tag() {
            let (value, content_type) = match what {
                What::Put { value, content_type, .. } => (Some(value), content_type),
                What::Delete => (None, String::new()),
                What::Add(_) => (sum.map(digits), String::new()),
            };
            self.own(turn, key, Versioned { content_type, ..Versioned::new(version, value) });
        }
        self.pump(turn, key);
    }

    fn write_failed(&mut self, turn: &mut Turn<'_>, request: u64, write: WriteId, key: &str, error: Error) {
        let Some(State::Writing(writing)) = self.slots.get(key).map(|slot| &slot.state) else { return };
        if writing.write != write {
            return;
        }
        // The first copy is refused without a word in the log, and later ones may still be done. Those are refused through it, unless for want of room.
        let of_first = request == writing.first && !R::without(Rule::FirstRefusalCounts);
        if writing.sends > 1 && (of_first || error.code.outcome() == Outcome::NotDone) {
            // Another copy may be in the log, or get there. Only the write's own number can tell, so it is sent again.
            mark(Rare::RefusalInDoubt);
            return;
        }
        self.finish_write(turn, key, Err(error));
        self.pump(turn, key);
    }

    /// The write that is out has its answer: SM and IM become I.
    pub(super) fn finish_write(&mut self, turn: &mut Turn<'_>, key: &str, result: Result<Response, Error>) {
        let State::Writing(writing) = self.set(key, State::Invalid) else { return };
        turn.sequences.done(writing.write.session, writing.write.sequence);
        self.schedule(key, None);
        self.reply(turn, writing.caller, result);
    }

    /// Main memory has the line up to `version`; it stays owned.
    fn stored(&mut self, turn: &mut Turn<'_>, key: &str, epoch: Index, version: Version) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let before = slot.state.dirty_value();
        let State::Owned(owned) = &mut slot.state else { return };
        if owned.epoch != epoch || version.epoch != epoch {
            return;
        }
        self.counts.write_backs += u64::from(version.count > owned.stored_count);
        owned.stored_count = owned.stored_count.max(version.count);
        if let Some(sent_us) = owned.write_back_us.take() {
            owned.dirty_since_us = sent_us;
        }
        self.dirty.change(before, slot.state.dirty_value());
        turn.out.journal.push(JournalRecord::Ended { key: key.to_owned(), version });
        self.journaled += 1;
    }

    /// The ownership of `epoch` is over, and main memory stands at `version`.
    fn ended(
        &mut self,
        turn: &mut Turn<'_>,
        key: &str,
        epoch: Index,
        version: Version,
        state: LineState,
        tag: LeaseTag,
    ) {
        match self.slots.get(key).map(|slot| &slot.state) {
            Some(State::Leaving(leaving)) if leaving.epoch == epoch => {}
            Some(State::Owned(owned)) if owned.epoch == epoch => {
                // The home knows better than we do. Nothing of this line may be served or acknowledged any more.
                mark(Rare::OwnershipEndedByHome);
                turn.out.retract(key);
                self.lapse_line(key);
            }
            _ => return,
        }
        let State::Leaving(leaving) = self.take(key) else { return };
        self.schedule(key, None);
        turn.out.journal.push(JournalRecord::Ended { key: key.to_owned(), version: leaving.value.version });
        self.journaled += 1;
        self.counts.write_backs += u64::from(leaving.dirty && version == leaving.value.version);
        if leaving.dirty && version < leaving.value.version {
            mark(Rare::DirtyValueLost);
            self.counts.lost += 1;
        }
        for (caller, its, sum) in &leaving.callers {
            let result = if version >= *its {
                Ok(written(*its, *sum))
            } else {
                let what = format!("{} lost the ownership of key '{key}' before this write was stored", self.node);
                Err(Error::new(ErrorCode::OutcomeUnknown, what))
            };
            self.reply(turn, *caller, result);
        }
        let current = version == leaving.value.version && leaving.value.value.is_some();
        if state != LineState::I && self.tag() == Some(tag) && !leaving.poisoned && current {
            self.keep(turn, key, Clean { state, value: leaving.value, writer: Some(self.node) });
        } else {
            self.set(key, State::Invalid);
        }
        self.pump(turn, key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;
    use crate::cache::{AgentOut, Change, Config, ToHome};

    fn is_refused(scene: &mut Scene, (request, write): (u64, WriteId), code: ErrorCode) -> AgentOut {
        let error = Error::new(code, "");
        scene.act(|agent, turn| agent.handle(turn, ToNode::WriteFailed { request, write, key: "k".into(), error }))
    }

    /// The writes among what is sent, with their requests.
    fn writes(out: &AgentOut) -> Vec<(u64, WriteId)> {
        let write = |message: &ToHome| match message {
            ToHome::BusRdX { request, write, .. } => Some((*request, *write)),
            _ => None,
        };
        out.to_home.iter().filter_map(write).collect()
    }

    /// A write, and how it is sent again when its time has come.
    fn sent_twice(scene: &mut Scene) -> [(u64, WriteId); 2] {
        let first = writes(&scene.act(|agent, turn| agent.operation(turn, 7, "k", Operation::Write(Change::delete()))));
        let second = sent_again(scene);
        assert_eq!(second.1, first[0].1);
        [first[0], second]
    }

    fn sent_again(scene: &mut Scene) -> (u64, WriteId) {
        scene.now_us += Config::default().retry_us;
        writes(&scene.act(|agent, turn| agent.tick(turn)))[0]
    }

    fn is_told(out: &AgentOut, code: ErrorCode) {
        assert!(matches!(&out.reply[..], [(7, Err(error))] if error.code == code), "{:?}", out.reply);
    }

    fn is_done(scene: &mut Scene, write: WriteId) {
        let tag = LeaseTag { term: 1, number: 1 };
        let owned = ToNode::Owned { write, key: "k".into(), tag, epoch: 9, owns: true, sum: None };
        let out = scene.act(|agent, turn| agent.handle(turn, owned));
        assert!(matches!(&out.reply[..], [(7, Ok(trine_protocol::Response::Put(_)))]), "{:?}", out.reply);
    }

    #[test]
    fn a_write_that_was_sent_once_and_refused_was_not_done() {
        for code in [ErrorCode::Overloaded, ErrorCode::ConditionFailed] {
            let mut scene = Scene::new(Config::default());
            let write = Operation::Write(Change::delete());
            let sent = writes(&scene.act(|agent, turn| agent.operation(turn, 7, "k", write)));
            is_told(&is_refused(&mut scene, sent[0], code), code);
        }
    }

    #[test]
    fn a_write_that_was_sent_twice_is_not_answered_by_a_refusal_but_sent_again() {
        let mut scene = Scene::new(Config::default());
        let sent = sent_twice(&mut scene);
        assert_eq!(is_refused(&mut scene, sent[1], ErrorCode::Overloaded).reply, []);
        assert_eq!(sent_again(&mut scene).1, sent[0].1);
        is_done(&mut scene, sent[0].1);
    }

    #[test]
    fn the_refusal_of_a_first_copy_does_not_speak_for_the_second() {
        let mut scene = Scene::new(Config::default());
        let sent = sent_twice(&mut scene);
        assert_eq!(is_refused(&mut scene, sent[0], ErrorCode::ConditionFailed).reply, []);
        is_done(&mut scene, sent[0].1);
    }

    #[test]
    fn the_refusal_of_a_second_copy_speaks_for_every_one() {
        let mut scene = Scene::new(Config::default());
        let sent = sent_twice(&mut scene);
        sent_again(&mut scene);
        is_told(&is_refused(&mut scene, sent[1], ErrorCode::ConditionFailed), ErrorCode::ConditionFailed);
    }
}
