//! What the home asks of a node: to drop a copy, or to hand an owned line over.

use trine_protocol::cache::{LineState, Version};

use crate::cache::message::{OwnerMark, Snooped, ToHome};
use crate::marks::{Rare, mark};
use crate::rules::{Rule, Rules};

use super::serve::written;
use super::slot::State;
use super::{Agent, Turn};

impl<R: Rules> Agent<R> {
    /// Another node reads.
    pub(super) fn snoop_read(&mut self, turn: &mut Turn<'_>, transaction: u64, key: &str, owner: Option<OwnerMark>) {
        if let Some(owner) = owner {
            return self.snoop_owner(turn, transaction, key, owner);
        }
        if let Some(State::Clean(clean)) = self.slots.get_mut(key).map(|slot| &mut slot.state)
            && clean.state == LineState::E
        {
            clean.state = LineState::S;
            self.history.note(key, "E", "S");
            self.publish(turn, key);
        }
    }

    /// Another node writes.
    pub(super) fn snoop_invalidate(
        &mut self,
        turn: &mut Turn<'_>,
        transaction: u64,
        key: &str,
        owner: Option<OwnerMark>,
    ) {
        if let Some(owner) = owner {
            return self.snoop_owner(turn, transaction, key, owner);
        }
        if let Some(slot) = self.slots.get_mut(key) {
            match &mut slot.state {
                State::Clean(_) if R::without(Rule::InvalidationOnlyAcknowledged) => {}
                State::Clean(_) => {
                    turn.out.retract(key);
                    self.set(key, State::Invalid);
                }
                State::Reading(reading) => {
                    // The fill that is on its way may be older than this: whoever asks from here on may not have it.
                    if !reading.poisoned {
                        reading.usable = reading.usable.max(slot.waiting.len());
                    }
                    reading.poisoned = true;
                }
                State::Leaving(leaving) => {
                    mark(Rare::CopyPoisoned);
                    leaving.poisoned = true;
                }
                State::Invalid | State::Writing(_) | State::Owned(_) => {}
            }
        }
        self.acknowledge(turn, transaction, key, Snooped::Gone);
        self.pump(turn, key);
    }

    /// The home believes that this node owns the key since `owner`.
    fn snoop_owner(&mut self, turn: &mut Turn<'_>, transaction: u64, key: &str, owner: OwnerMark) {
        match self.slots.get(key).map(|slot| &slot.state) {
            Some(State::Owned(owned)) if owned.epoch == owner.epoch => self.leave(turn, key, Some(transaction)),
            Some(State::Leaving(leaving)) if leaving.epoch == owner.epoch => {
                mark(Rare::WriteBackCrossesSnoop);
                self.answer_snoop(turn, key, transaction);
            }
            Some(State::Writing(writing)) if writing.write == owner.write => {
                // The grant was lost or is late: the write is done, and somebody else already wants the line.
                mark(Rare::GrantCrossesSnoop);
                let version = Version { epoch: owner.epoch, count: 0 };
                self.finish_write(turn, key, Ok(written(version, owner.sum)));
                self.acknowledge(turn, transaction, key, Snooped::Clean);
                self.pump(turn, key);
            }
            // Nothing newer than the entry that began the ownership: main memory has that.
            _ => self.acknowledge(turn, transaction, key, Snooped::Clean),
        }
    }

    fn acknowledge(&mut self, turn: &mut Turn<'_>, transaction: u64, key: &str, snooped: Snooped) {
        let request = self.request();
        let tag = self.valid_tag(turn.now_us).unwrap_or_default();
        let (key, incarnation) = (key.to_owned(), self.incarnation);
        turn.out.to_home.push(ToHome::SnoopAck { request, transaction, key, tag, snooped, incarnation });
    }
}
