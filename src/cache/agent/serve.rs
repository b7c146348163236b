//! What clients of this node ask, and what the node does of its own accord: local writes, write-back, eviction.

use bytes::Bytes;
use trine_protocol::cache::{Got, LineState, Source, Version, Written, WrittenBack};
use trine_protocol::{Error, ErrorCode, Response};

use crate::cache::journal::JournalRecord;
use crate::cache::line::Line;
use crate::cache::message::{Snooped, ToHome, Versioned, WriteId};
use crate::ids::NodeId;
use crate::rules::{Rule, Rules};

use super::slot::{Clean, Leaving, Operation, Owned, Pending, Reading, State, Writing};
use super::{Agent, Turn};

impl<R: Rules> Agent<R> {
    /// A client asks. Answered in [`super::AgentOut::reply`], now or later.
    pub fn operation(&mut self, turn: &mut Turn<'_>, caller: u64, key: &str, operation: Operation) {
        self.check_lapse(turn);
        if self.valid_tag(turn.now_us).is_none() {
            let error = self.no_lease();
            return turn.out.reply.push((caller, Err(error)));
        }
        if self.draining && operation != Operation::Get {
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
        self.forget_flush(caller);
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

    /// The journal is durable up to this ticket: what it has becomes visible, if the lease, looked at again, holds.
    pub fn flushed(&mut self, turn: &mut Turn<'_>, ticket: u64) {
        if !R::without(Rule::GrantWithoutLeaseCheck) {
            self.check_lapse(turn);
        }
        while self.flushing.front().is_some_and(|(flushed, _)| *flushed <= ticket) {
            let (ticket, key) = self.flushing.pop_front().expect("looked at above");
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let before = slot.state.dirty_value();
            let State::Owned(owned) = &mut slot.state else { continue };
            if owned.pending.front().is_none_or(|pending| pending.ticket != ticket) {
                continue;
            }
            let pending = owned.pending.pop_front().expect("looked at above");
            let length = |value: &Versioned| value.value.as_ref().map_or(0, Bytes::len);
            self.bytes = self.bytes + length(&pending.value) - length(&owned.value);
            if !owned.dirty() {
                owned.dirty_since_us = turn.now_us;
            }
            owned.value = pending.value;
            let (version, leave) = (owned.value.version, owned.leave.filter(|_| owned.pending.is_empty()));
            self.dirty.change(before, slot.state.dirty_value());
            self.publish(turn, &key);
            self.reply(turn, pending.caller, Ok(Response::Put(Written { version })));
            if let Some(transaction) = leave {
                self.hand_over(turn, &key, transaction);
            }
            self.pump(turn, &key);
        }
    }

    /// Does what the line's state allows for the operations that wait for it, in order.
    pub(super) fn pump(&mut self, turn: &mut Turn<'_>, key: &str) {
        while let Some(slot) = self.slots.get_mut(key) {
            let Some((caller, operation)) = slot.waiting.front().cloned() else { break };
            let done = match (&slot.state, &operation) {
                (State::Reading(_) | State::Writing(_) | State::Leaving(_), _) => break,
                (State::Owned(owned), Operation::Get) => {
                    let answer = got(&owned.value, LineState::M, Source::LocalCache);
                    self.reply(turn, caller, Ok(answer));
                    true
                }
                (State::Clean(clean), Operation::Get) => {
                    let answer = got(&clean.value, clean.state, Source::LocalCache);
                    self.reply(turn, caller, Ok(answer));
                    true
                }
                (State::Clean(clean), Operation::WriteBack) => {
                    let (writer, state) = (clean.writer, clean.state);
                    let answer = self.written_last(key, writer, state);
                    self.reply(turn, caller, answer);
                    true
                }
                (State::Owned(owned), Operation::Put(_)) if owned.leave.is_some() => break,
                (State::Owned(_), Operation::Put(value)) => {
                    self.write_locally(turn, key, caller, value.clone());
                    true
                }
                (State::Owned(_), Operation::WriteBack) => {
                    self.leave(turn, key, None);
                    false
                }
                (State::Invalid | State::Clean(_), Operation::Put(value)) => {
                    let value = value.clone();
                    self.ask_to_write(turn, key, caller, value)
                }
                (State::Invalid, Operation::Get | Operation::WriteBack) => {
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

    fn write_locally(&mut self, turn: &mut Turn<'_>, key: &str, caller: u64, value: Option<Bytes>) {
        self.journaled += 1;
        let ticket = self.journaled;
        let Some(State::Owned(owned)) = self.slots.get_mut(key).map(|slot| &mut slot.state) else { return };
        let newest = owned.newest().version;
        let version = Version { epoch: newest.epoch, count: newest.count + 1 };
        let value = Versioned { version, value };
        owned.written_us = turn.now_us;
        owned.pending.push_back(Pending { ticket, value: value.clone(), caller });
        self.flushing.push_back((ticket, key.to_owned()));
        if R::without(Rule::ShownBeforeJournal) {
            turn.out.publish(
                key,
                Line { state: LineState::M, value: value.clone(), tag: self.lease.tag().unwrap_or_default() },
            );
        }
        turn.out.journal.push(JournalRecord::Written { key: key.to_owned(), dirty: value });
        let due_us = turn.now_us + self.config.dirty_us_max / 2;
        if self.slots.get(key).is_some_and(|slot| slot.due_us.is_none()) {
            self.schedule(key, Some(due_us));
        }
    }

    /// Sends a `BusRdX` with what is to be written. False where the node has no session yet.
    fn ask_to_write(&mut self, turn: &mut Turn<'_>, key: &str, caller: u64, value: Option<Bytes>) -> bool {
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
        self.set(key, State::Writing(Writing { write, value, held, caller, sends: 0 }));
        self.send_write(turn, key);
        true
    }

    fn send_write(&mut self, turn: &mut Turn<'_>, key: &str) {
        let Some(tag) = self.valid_tag(turn.now_us) else { return };
        let request = self.request();
        let Some(State::Writing(writing)) = self.slots.get_mut(key).map(|slot| &mut slot.state) else { return };
        writing.sends += 1;
        turn.out.to_home.push(ToHome::BusRdX {
            request,
            write: writing.write,
            acked_below: turn.sequences.acked_below(),
            key: key.to_owned(),
            value: writing.value.clone(),
            held: writing.held,
            tag,
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
        let State::Owned(owned) = self.set(key, State::Invalid) else { return };
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
        let tag = self.tag();
        let line = match self.slots.get(key).map(|slot| &slot.state) {
            Some(State::Owned(owned)) => tag.map(|tag| Line { state: LineState::M, value: owned.value.clone(), tag }),
            Some(State::Clean(clean)) => tag.map(|tag| Line { state: clean.state, value: clean.value.clone(), tag }),
            _ => None,
        };
        if let Some(line) = line {
            turn.out.publish(key, line);
        }
    }

    /// Makes room: the line that has been here longest goes, a dirty one by way of its write-back.
    pub(super) fn evict(&mut self, turn: &mut Turn<'_>) {
        let mut looked_at = 0;
        while self.bytes > self.config.lines_bytes_max && looked_at < 16 {
            looked_at += 1;
            let Some((order, key)) = self.order.pop_first() else { return };
            let slot = self.slots.get_mut(&key).expect("every line in the order has a slot");
            let goes = matches!(slot.state, State::Clean(_)) || R::without(Rule::DirtyLineEvicted);
            if goes {
                self.counts.evictions += 1;
                turn.out.retract(&key);
                self.set(&key, State::Invalid);
                self.pump(turn, &key);
                continue;
            }
            // Back to the end of the order: it goes when its write-back is done.
            slot.order = Some(self.next_order);
            self.order.insert(self.next_order, key.clone());
            self.next_order += 1;
            debug_assert!(order < self.next_order);
            self.leave(turn, &key, None);
        }
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

/// The answer to a read.
pub(super) fn got(value: &Versioned, state: LineState, source: Source) -> Response {
    Response::Get(Got { value: value.value.clone(), version: value.version, state, source })
}
