//! Clients that want to fill keys which do not exist: one of them in the cluster may, the others wait.
//!
//! A node asks for one of its clients at a time, and again until the home answers. The home's answer is that the right is this node's, or that somebody
//! has written the key: then all who wait here read it.

use std::collections::VecDeque;

use trine_protocol::Response;
use trine_protocol::cache::{Filling, Got};

use crate::cache::message::{FillAnswer, ToHome};
use crate::rules::Rules;

use super::slot::Operation;
use super::{Agent, Turn};

/// The clients of this node that wait to fill one key, oldest first.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Fill {
    callers: VecDeque<(u64, u32)>,
    /// The number of the request that is out, and when it was sent last.
    asked: Option<(u64, u64)>,
}

impl<R: Rules> Agent<R> {
    /// Answers an operation that reads by what was found.
    pub(super) fn reads(&mut self, turn: &mut Turn<'_>, key: &str, caller: u64, operation: &Operation, got: Got) {
        match operation {
            Operation::GetOrFill(lease_ms) if got.value.is_none() => {
                self.callers.remove(&caller);
                self.fills.entry(key.to_owned()).or_default().callers.push_back((caller, *lease_ms));
                self.ask_to_fill(turn, key);
            }
            Operation::GetOrFill(_) => self.reply(turn, caller, Ok(Response::GetOrFill(Filling::found(got)))),
            _ => self.reply(turn, caller, Ok(Response::Get(got))),
        }
    }

    /// How many wait here to fill that key.
    pub(super) fn filling(&self, key: &str) -> usize {
        self.fills.get(key).map_or(0, |fill| fill.callers.len())
    }

    /// Asks for the right, for the client that has waited longest; again where an answer is overdue.
    fn ask_to_fill(&mut self, turn: &mut Turn<'_>, key: &str) {
        let Some(tag) = self.valid_tag(turn.now_us) else { return };
        let again_us = 5 * self.config.retry_us;
        let number = self.next_request + 1;
        let Some(fill) = self.fills.get_mut(key) else { return };
        let Some((_, lease_ms)) = fill.callers.front().copied() else { return };
        let request = match fill.asked {
            Some((_, sent_us)) if turn.now_us < sent_us + again_us => return,
            Some((request, _)) => request,
            None => number,
        };
        fill.asked = Some((request, turn.now_us));
        self.next_request = self.next_request.max(request);
        turn.out.to_home.push(ToHome::FillLease { request, key: key.to_owned(), lease_ms, tag });
    }

    /// What the home says of it.
    pub(super) fn fill_answered(&mut self, turn: &mut Turn<'_>, request: u64, key: &str, answer: FillAnswer) {
        let Some(fill) = self.fills.get_mut(key).filter(|fill| fill.asked.is_some_and(|(number, _)| number == request))
        else {
            // Who asked has gone.
            if let (FillAnswer::Yours { token }, Some(tag)) = (answer, self.valid_tag(turn.now_us)) {
                turn.out.to_home.push(ToHome::FillReturn { key: key.to_owned(), token, tag });
            }
            return;
        };
        fill.asked = None;
        match answer {
            FillAnswer::Yours { token } => {
                if let Some((caller, _)) = fill.callers.pop_front() {
                    self.reply(turn, caller, Ok(Response::GetOrFill(Filling::yours(token))));
                }
                self.ask_to_fill(turn, key);
                self.tidy_fill(key);
            }
            FillAnswer::Written => {
                let fill = self.fills.remove(key).unwrap_or_default();
                for (caller, lease_ms) in fill.callers {
                    self.operation(turn, caller, key, Operation::GetOrFill(lease_ms));
                }
            }
            FillAnswer::Refused(error) => {
                let fill = self.fills.remove(key).unwrap_or_default();
                for (caller, _) in fill.callers {
                    self.reply(turn, caller, Err(error.clone()));
                }
            }
        }
    }

    /// Nobody waits for that answer any more. A right that comes for it is returned.
    pub(super) fn forget_fill(&mut self, caller: u64) {
        let holds = |fill: &Fill| fill.callers.iter().any(|(other, _)| *other == caller);
        let Some(key) = self.fills.iter().find(|(_, fill)| holds(fill)).map(|(key, _)| key.clone()) else { return };
        if let Some(fill) = self.fills.get_mut(&key) {
            fill.callers.retain(|(other, _)| *other != caller);
        }
        self.tidy_fill(&key);
    }

    fn tidy_fill(&mut self, key: &str) {
        if self.fills.get(key).is_some_and(|fill| fill.callers.is_empty()) {
            self.fills.remove(key);
        }
    }

    /// Asks again for what is overdue.
    pub(super) fn tend_fills(&mut self, turn: &mut Turn<'_>) {
        let keys: Vec<String> = self.fills.keys().cloned().collect();
        for key in keys {
            self.ask_to_fill(turn, &key);
        }
    }
}
