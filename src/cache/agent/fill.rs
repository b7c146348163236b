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

/// Rights to fill that clients of this node were handed, the last so many: a late copy of the home's answer is known by them.
const HANDED_MAX: usize = 1_024;

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
            // Who asked has gone; or it is a copy of an answer that a client has.
            if let (FillAnswer::Yours { token }, Some(tag)) = (answer, self.valid_tag(turn.now_us))
                && !self.handed_fills.contains(&token)
            {
                turn.out.to_home.push(ToHome::FillReturn { key: key.to_owned(), token, tag });
            }
            return;
        };
        fill.asked = None;
        match answer {
            FillAnswer::Yours { token } => {
                if let Some((caller, _)) = fill.callers.pop_front() {
                    if self.handed_fills.len() == HANDED_MAX {
                        self.handed_fills.pop_front();
                    }
                    self.handed_fills.push_back(token);
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, TAG};
    use super::*;
    use crate::cache::{AgentOut, Config, ToNode};

    /// A client asks, and the home says that there is nothing: the request for the right is out.
    fn asks(scene: &mut Scene, caller: u64) -> Option<u64> {
        let out = scene.act(|agent, turn| agent.operation(turn, caller, "k", Operation::GetOrFill(1_000)));
        let read = out.to_home.iter().find_map(|message| match message {
            ToHome::BusRd { request, .. } => Some(*request),
            _ => None,
        });
        let Some(request) = read else { return asked(&out) };
        let state = trine_protocol::cache::LineState::S;
        let value = crate::cache::Versioned::new(Default::default(), None);
        let filled = ToNode::Filled { request, key: "k".into(), tag: TAG, state, value, writer: None };
        asked(&scene.act(|agent, turn| agent.handle(turn, filled)))
    }

    fn asked(out: &AgentOut) -> Option<u64> {
        out.to_home.iter().find_map(|message| match message {
            ToHome::FillLease { request, .. } => Some(*request),
            _ => None,
        })
    }

    fn answers(scene: &mut Scene, request: u64, answer: FillAnswer) -> AgentOut {
        let message = ToNode::FillAnswered { request, key: "k".into(), answer };
        scene.act(|agent, turn| agent.handle(turn, message))
    }

    fn returned(out: &AgentOut) -> bool {
        out.to_home.iter().any(|message| matches!(message, ToHome::FillReturn { .. }))
    }

    #[test]
    fn one_client_after_the_other_asks_and_a_late_copy_of_an_answer_takes_no_right_away() {
        let mut scene = Scene::new(Config::default());
        let first = asks(&mut scene, 1).expect("it asks");
        assert_eq!(asks(&mut scene, 2), None, "one at a time");
        let out = answers(&mut scene, first, FillAnswer::Yours { token: 9 });
        assert_eq!(out.reply, [(1, Ok(Response::GetOrFill(Filling::yours(9))))]);
        let second = asked(&out).expect("the next one asks");
        assert!(!returned(&answers(&mut scene, first, FillAnswer::Yours { token: 9 })), "a client has it");
        assert!(returned(&answers(&mut scene, 77, FillAnswer::Yours { token: 10 })), "nobody has that one");
        // Who has gone is asked for no more; a right that comes all the same is returned.
        scene.act(|agent, turn| agent.expire(turn, 2));
        assert!(returned(&answers(&mut scene, second, FillAnswer::Yours { token: 11 })));
    }

    #[test]
    fn who_waits_reads_what_was_written_and_asks_again_where_no_answer_comes() {
        let mut scene = Scene::new(Config::default());
        let request = asks(&mut scene, 1).expect("it asks");
        scene.now_us += 5 * Config::default().retry_us;
        assert_eq!(asked(&scene.act(|agent, turn| agent.tick(turn))), Some(request), "the same request");
        let invalidate = ToNode::SnoopInv { transaction: 3, key: "k".into(), owner: None };
        scene.act(|agent, turn| agent.handle(turn, invalidate));
        let out = answers(&mut scene, request, FillAnswer::Written);
        assert!(matches!(&out.to_home[..], [ToHome::BusRd { .. }]), "{out:?}");
    }
}
