//! What clients of this node ask, and what the node does of its own accord: local writes, write-back, eviction.

use trine_protocol::cache::{Added, Got, LineState, Source, Version, Written, WrittenBack};
use trine_protocol::{Error, ErrorCode, Response};

use crate::cache::change::{Change, New};
use crate::cache::eviction::Visits;
use crate::cache::journal::JournalRecord;
use crate::cache::line::Line;
use crate::cache::message::{Snooped, ToHome, Versioned, WriteId};
use crate::ids::NodeId;
use crate::rules::{Rule, Rules};

use super::slot::{Clean, Leaving, Operation, Owned, Pending, Reading, State, Writing};
use super::{Agent, Turn};

impl<R: Rules> Agent<R> {
    /// A client asks. Answered in [`super::AgentOut::reply`], now or later.
    pub fn operation(&mut self, turn: &mut Turn<'_>, caller: u64, key: &str, mut operation: Operation) {
        if let Operation::Write(change) = &mut operation {
            change.through |= self.config.through.iter().any(|prefix| key.starts_with(prefix.as_str()));
        }
        self.check_lapse(turn);
        self.because(turn, operation.name());
        if self.valid_tag(turn.now_us).is_none() {
            let error = self.no_lease();
            return turn.out.reply.push((caller, Err(error)));
        }
        if self.draining && !matches!(operation, Operation::Get | Operation::GetOrFill(_)) {
            let error = Error::new(ErrorCode::ShuttingDown, format!("{} is about to stop", self.node));
            return turn.out.reply.push((caller, Err(error)));
        }
        let waiting = &mut self.slots.entry(key.to_owned()).or_default().waiting;
        if waiting.len() >= self.config.waiting_max {
            let what = format!("{} requests wait for key '{key}' on {} already", waiting.len(), self.node);
            return turn.out.reply.push((caller, Err(Error::new(ErrorCode::Overloaded, what).retry_after(100))));
        }
        waiting.push_back((caller, operation));
        self.callers.insert(caller, key.to_owned());
        self.pump(turn, key);
        if R::without(Rule::WriteBeforeJournal) {
            self.flushed(turn, self.journaled);
        }
    }

    /// Nobody waits for this answer any more.
    pub fn expire(&mut self, turn: &mut Turn<'_>, caller: u64) {
        self.because(turn, "nobody waits any more");
        self.forget_flush(caller);
        self.forget_fill(caller);
        let Some(key) = self.callers.remove(&caller) else { return };
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if let Some(place) = slot.waiting.iter().position(|(other, _)| *other == caller) {
            slot.waiting.remove(place);
            if let State::Reading(reading) = &mut slot.state {
                reading.usable -= usize::from(place < reading.usable);
            }
        }
        if let State::Writing(writing) = &slot.state
            && writing.caller == caller
        {
            // The write may still happen; its answer will find nobody, and this node takes no ownership from it.
            turn.sequences.done(writing.write.session, writing.write.sequence);
            self.set(&key, State::Invalid);
        }
        self.pump(turn, &key);
    }

    /// Whether the line is there at that version, with nothing on its way that would change it.
    pub fn is_quiet(&self, key: &str, version: Version) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let here = match &slot.state {
            State::Clean(clean) => clean.value.version == version,
            State::Owned(owned) => owned.value.version == version && owned.pending.is_empty() && owned.leave.is_none(),
            State::Invalid | State::Reading(_) | State::Writing(_) | State::Leaving(_) => false,
        };
        here && slot.waiting.iter().all(|(_, operation)| !matches!(operation, Operation::Write(_)))
    }

    /// The journal is durable up to this ticket: what it has becomes visible, if the lease, looked at again, holds.
    pub fn flushed(&mut self, turn: &mut Turn<'_>, ticket: u64) {
        if !R::without(Rule::GrantWithoutLeaseCheck) {
            self.check_lapse(turn);
        }
        self.because(turn, "the journal is on disk");
        while self.flushing.front().is_some_and(|(flushed, _)| *flushed <= ticket) {
            let (ticket, key) = self.flushing.pop_front().expect("looked at above");
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let before = slot.state.dirty_value();
            let State::Owned(owned) = &mut slot.state else { continue };
            if owned.pending.front().is_none_or(|pending| pending.ticket != ticket) {
                continue;
            }
            let pending = owned.pending.pop_front().expect("looked at above");
            if !owned.dirty() {
                owned.dirty_since_us = turn.now_us;
            }
            owned.value = pending.value;
            let (version, leave) = (owned.value.version, owned.leave.filter(|_| owned.pending.is_empty()));
            self.dirty.change(before, slot.state.dirty_value());
            if let (Some(place), Some(bytes)) = (slot.place, slot.state.line_bytes(&key)) {
                self.order.resize(place, bytes);
            }
            self.publish(turn, &key);
            self.reply(turn, pending.caller, Ok(written(version, pending.sum)));
            if let Some(transaction) = leave {
                self.hand_over(turn, &key, transaction);
            }
            self.pump(turn, &key);
        }
        // What was written may take more room than what was there.
        self.evict(turn);
    }

    /// Does what the line's state allows for the operations that wait for it, in order.
    pub(super) fn pump(&mut self, turn: &mut Turn<'_>, key: &str) {
        while let Some(slot) = self.slots.get_mut(key) {
            let Some((caller, operation)) = slot.waiting.front().cloned() else { break };
            let place = slot.place;
            let done = match (&slot.state, &operation) {
                (State::Reading(_) | State::Writing(_) | State::Leaving(_), _) => break,
                (State::Owned(owned), Operation::Get | Operation::GetOrFill(_)) => {
                    let answer = got(&owned.value, LineState::M, Source::LocalCache);
                    self.visited(place);
                    self.reads(turn, key, caller, &operation, answer);
                    true
                }
                (State::Clean(clean), Operation::Get | Operation::GetOrFill(_)) => {
                    let answer = got(&clean.value, clean.state, Source::LocalCache);
                    self.visited(place);
                    self.reads(turn, key, caller, &operation, answer);
                    true
                }
                (State::Clean(clean), Operation::WriteBack) => {
                    let (writer, state) = (clean.writer, clean.state);
                    let answer = self.written_last(key, writer, state);
                    self.reply(turn, caller, answer);
                    true
                }
                (State::Owned(owned), Operation::Write(_)) if owned.leave.is_some() => break,
                (State::Owned(_), Operation::Write(change))
                    if change.is_through() || self.dirty.exceeds(self.config.dirty_bytes_max, change) =>
                {
                    self.leave(turn, key, None);
                    false
                }
                (State::Owned(owned), Operation::Write(change)) => match change.on(key, owned.newest()) {
                    Ok(new) => {
                        self.visited(place);
                        self.write_locally(turn, key, caller, new);
                        true
                    }
                    // What refuses it may be a write that is not on disk yet, and may never have been.
                    Err(_) if !owned.pending.is_empty() => break,
                    Err(error) => {
                        self.reply(turn, caller, Err(error));
                        true
                    }
                },
                (State::Owned(_), Operation::WriteBack) => {
                    self.leave(turn, key, None);
                    false
                }
                (State::Clean(clean), Operation::Write(change)) => match change.on(key, &clean.value) {
                    Ok(_) => self.ask_to_write(turn, key, caller, change.clone()),
                    Err(error) => {
                        self.reply(turn, caller, Err(error));
                        true
                    }
                },
                (State::Invalid, Operation::Write(change)) => self.ask_to_write(turn, key, caller, change.clone()),
                (State::Invalid, Operation::Get | Operation::GetOrFill(_) | Operation::WriteBack) => {
                    self.ask_to_read(turn, key);
                    false
                }
            };
            if !done {
                break;
            }
            if let Some(slot) = self.slots.get_mut(key) {
                slot.waiting.pop_front();
            }
        }
        self.tidy(key);
    }

    fn write_locally(&mut self, turn: &mut Turn<'_>, key: &str, caller: u64, new: New) {
        self.journaled += 1;
        let ticket = self.journaled;
        let Some(State::Owned(owned)) = self.slots.get_mut(key).map(|slot| &mut slot.state) else { return };
        let newest = owned.newest().version;
        let version = Version { epoch: newest.epoch, count: newest.count + 1 };
        let sum = new.sum;
        let value = new.at(version);
        owned.written_us = turn.now_us;
        owned.pending.push_back(Pending { ticket, value: value.clone(), sum, caller });
        self.flushing.push_back((ticket, key.to_owned()));
        if R::without(Rule::ShownBeforeJournal) {
            let (tag, visits) = (self.lease.tag().unwrap_or_default(), Visits::default());
            turn.out.publish(key, Line { state: LineState::M, value: value.clone(), tag, visits });
        }
        turn.out.journal.push(JournalRecord::Written { key: key.to_owned(), dirty: value });
        let due_us = turn.now_us + self.config.dirty_us_max / 2;
        if self.slots.get(key).is_some_and(|slot| slot.due_us.is_none()) {
            self.schedule(key, Some(due_us));
        }
    }

    /// Sends a `BusRdX` with what is to be written. False where the node has no session yet.
    fn ask_to_write(&mut self, turn: &mut Turn<'_>, key: &str, caller: u64, change: Change) -> bool {
        let Some((session, sequence)) = turn.sequences.take() else {
            self.schedule(key, Some(turn.now_us + self.config.retry_us));
            return false;
        };
        let held = match self.set(key, State::Invalid) {
            State::Clean(clean) => clean.state,
            _ => LineState::I,
        };
        if !R::without(Rule::UpgradeBeforeRetract) {
            turn.out.retract(key);
        }
        let write = WriteId { session, sequence };
        self.set(key, State::Writing(Writing { write, change, held, caller, sends: 0, first: 0 }));
        self.send_write(turn, key);
        true
    }

    fn send_write(&mut self, turn: &mut Turn<'_>, key: &str) {
        let Some(tag) = self.valid_tag(turn.now_us) else { return };
        let request = self.request();
        let Some(State::Writing(writing)) = self.slots.get_mut(key).map(|slot| &mut slot.state) else { return };
        writing.sends += 1;
        if writing.sends == 1 {
            writing.first = request;
        }
        turn.out.to_home.push(ToHome::BusRdX {
            request,
            write: writing.write,
            acked_below: turn.sequences.acked_below(),
            key: key.to_owned(),
            change: writing.change.clone(),
            held: writing.held,
            tag,
            again: writing.sends > 1,
        });
        self.schedule(key, Some(turn.now_us + self.config.retry_us));
    }

    fn ask_to_read(&mut self, turn: &mut Turn<'_>, key: &str) {
        let Some(tag) = self.valid_tag(turn.now_us) else { return };
        let request = self.request();
        let usable = self.slots.get(key).map_or(0, |slot| slot.waiting.len());
        self.set(key, State::Reading(Reading { request, usable, poisoned: false }));
        turn.out.to_home.push(ToHome::BusRd { request, key: key.to_owned(), tag });
        self.schedule(key, Some(turn.now_us + self.config.retry_us));
    }

    /// Gives an owned line back as soon as nothing is pending, to the transaction that asked or of its own accord.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, key: &str, transaction: Option<u64>) {
        let Some(State::Owned(owned)) = self.slots.get_mut(key).map(|slot| &mut slot.state) else { return };
        if owned.pending.is_empty() {
            return self.hand_over(turn, key, transaction);
        }
        owned.leave = Some(transaction.or(owned.leave.flatten()));
    }

    /// M becomes MI: the line is retracted, and its value is on its way.
    fn hand_over(&mut self, turn: &mut Turn<'_>, key: &str, transaction: Option<u64>) {
        let State::Owned(owned) = self.take(key) else { return };
        if !R::without(Rule::HandedOverAndShown) {
            turn.out.retract(key);
        }
        let dirty = owned.dirty();
        self.set(
            key,
            State::Leaving(Leaving {
                epoch: owned.epoch,
                value: owned.value,
                dirty,
                dirty_since_us: Some(owned.dirty_since_us),
                poisoned: false,
                callers: Vec::new(),
            }),
        );
        match transaction {
            Some(transaction) => self.answer_snoop(turn, key, transaction),
            None => self.send_write_back(turn, key),
        }
    }

    pub(super) fn answer_snoop(&mut self, turn: &mut Turn<'_>, key: &str, transaction: u64) {
        let request = self.request();
        let Some(State::Leaving(leaving)) = self.slots.get(key).map(|slot| &slot.state) else { return };
        let snooped = if leaving.dirty { Snooped::Dirty(leaving.value.clone()) } else { Snooped::Clean };
        let version = leaving.value.version;
        let tag = self.valid_tag(turn.now_us).unwrap_or_default();
        let (name, incarnation) = (key.to_owned(), self.incarnation);
        turn.out.to_home.push(ToHome::SnoopAck { request, transaction, key: name, tag, snooped, incarnation });
        self.schedule(key, Some(turn.now_us + 5 * self.config.retry_us));
        if R::without(Rule::HandedOverAndForgotten) {
            turn.out.journal.push(JournalRecord::Ended { key: key.to_owned(), version });
            self.set(key, State::Invalid);
        }
    }

    pub(super) fn send_write_back(&mut self, turn: &mut Turn<'_>, key: &str) {
        let Some(tag) = self.valid_tag(turn.now_us) else { return };
        let request = self.request();
        let (epoch, dirty, end) = match self.slots.get_mut(key).map(|slot| &mut slot.state) {
            Some(State::Leaving(leaving)) => (leaving.epoch, leaving.dirty.then(|| leaving.value.clone()), true),
            Some(State::Owned(owned)) => {
                owned.write_back_us = Some(turn.now_us);
                (owned.epoch, owned.dirty().then(|| owned.value.clone()), false)
            }
            _ => return,
        };
        turn.out.to_home.push(ToHome::WriteBack { request, key: key.to_owned(), epoch, dirty, end, tag });
        self.schedule(key, Some(turn.now_us + self.config.retry_us));
    }

    /// The slot's time has come: what was not answered is sent again, what is dirty is written back.
    pub(super) fn on_due(&mut self, turn: &mut Turn<'_>, key: &str) {
        let half_us = self.config.dirty_us_max / 2;
        match self.slots.get(key).map(|slot| &slot.state) {
            // A new number: whatever the old request still brings counts no more.
            Some(State::Reading(_)) => self.ask_to_read(turn, key),
            Some(State::Writing(_)) => self.send_write(turn, key),
            Some(State::Leaving(_)) => self.send_write_back(turn, key),
            Some(State::Invalid) => self.pump(turn, key),
            Some(State::Owned(owned)) => {
                let quiet = owned.pending.is_empty() && turn.now_us >= owned.written_us + half_us;
                let old = owned.dirty() && turn.now_us >= owned.dirty_since_us + half_us;
                let unanswered =
                    owned.write_back_us.is_none_or(|sent_us| turn.now_us >= sent_us + self.config.retry_us);
                if quiet {
                    return self.leave(turn, key, None);
                }
                if old && unanswered {
                    self.send_write_back(turn, key);
                }
                self.schedule(key, Some(turn.now_us + half_us / 4));
            }
            _ => {}
        }
    }

    /// Shows the line to readers as it is now.
    pub(super) fn publish(&mut self, turn: &mut Turn<'_>, key: &str) {
        let (Some(tag), Some(slot)) = (self.tag(), self.slots.get(key)) else { return };
        let (state, value) = match &slot.state {
            State::Owned(owned) => (LineState::M, owned.value.clone()),
            State::Clean(clean) => (clean.state, clean.value.clone()),
            _ => return,
        };
        let visits = slot.place.map(|place| self.order.visits(place).clone()).unwrap_or_default();
        turn.out.publish(key, Line { state, value, tag, visits });
    }

    /// The answer to a write-back of a line that is clean here.
    pub(super) fn written_last(&self, key: &str, writer: Option<NodeId>, state: LineState) -> Result<Response, Error> {
        if writer == Some(self.node) {
            return Ok(Response::WriteBack(WrittenBack { state }));
        }
        let who = writer.map_or("nobody".to_owned(), |writer| writer.to_string());
        let what = format!("key '{key}' was written last by {who}, not by {}", self.node);
        Err(Error::new(ErrorCode::NotWrittenHere, what).with_hint(who))
    }

    pub(super) fn own(&mut self, turn: &mut Turn<'_>, key: &str, value: Versioned) {
        self.set(key, State::Owned(Owned::new(value, turn.now_us)));
        self.publish(turn, key);
        self.schedule(key, Some(turn.now_us + self.config.dirty_us_max / 2));
        if self.draining {
            self.leave(turn, key, None);
        }
        self.evict(turn);
    }

    pub(super) fn keep(&mut self, turn: &mut Turn<'_>, key: &str, clean: Clean) {
        self.set(key, State::Clean(clean));
        self.schedule(key, None);
        self.publish(turn, key);
        self.evict(turn);
    }
}

/// What a read finds.
pub(super) fn got(value: &Versioned, state: LineState, source: Source) -> Got {
    let content_type = value.content_type.clone();
    Got { value: value.value.clone(), version: value.version, state, source, content_type }
}

/// The answer to a write; with the sum, where it was an addition.
pub(super) fn written(version: Version, sum: Option<i64>) -> Response {
    match sum {
        Some(sum) => Response::Add(Added { sum, version }),
        None => Response::Put(Written { version }),
    }
}
