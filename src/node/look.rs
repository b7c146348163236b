//! Looking at queues: what a majority has confirmed is read from the applied state, and bodies from wherever they are.

use std::collections::BTreeMap;

use bytes::Bytes;
use trine_protocol::limits::QUEUES_LISTED_MAX;
use trine_protocol::queue::{About, Cause, ExplainedQueue, Peeked, PeekedMessage, QueueLine, Queues};
use trine_protocol::{Error, Request, Response};

use crate::ids::{GroupId, Index, NodeId};
use crate::queue::Instants;
use crate::rules::Rules;

use super::apply::FetchFor;
use super::effect::Fetch;
use super::machine::{body_key, body_of};
use super::{Replica, Step};

/// Whether a request is answered from the state that a majority confirms, without an entry of the log.
pub(super) fn reads_queue(request: &Request) -> bool {
    matches!(request, Request::Peek(_) | Request::ListQueues(_) | Request::ShowQueue(_) | Request::ExplainQueue(_))
}

/// The explanation of a queue whose group does not answer.
pub(super) fn no_quorum(group: GroupId) -> Response {
    let cause = Cause::NoQuorum { group: group.0 };
    Response::ExplainQueue(ExplainedQueue { summary: cause.to_string(), causes: vec![cause] })
}

impl<R: Rules> Replica<R> {
    fn instants(&self, step: &Step) -> Instants {
        let wall_ms = step.now.wall_ms.max(self.member.machine.applied().wall_ms);
        Instants { stamp_ms: self.member.raft.log_time_ms(step.now), wall_ms }
    }

    /// Answers a read of queues from the state as it is now.
    pub(super) fn answer_queue_read(&mut self, step: &mut Step, node: Option<NodeId>, id: u64, request: &Request) {
        let now = self.instants(step);
        let queues = self.member.machine.queue();
        let polls = &self.member.polls;
        let now_us = step.now.mono_us;
        let with_askers = |line: QueueLine| {
            let waiting = polls.askers(&line.queue, "", now_us).waiting;
            QueueLine { waiting: u32::try_from(waiting).unwrap_or(u32::MAX), ..line }
        };
        let result = match request {
            Request::ListQueues(list) => {
                let mut lines = queues.lines(now, &list.after, QUEUES_LISTED_MAX + 1);
                let more = lines.len() > QUEUES_LISTED_MAX;
                lines.truncate(QUEUES_LISTED_MAX);
                Ok(Response::ListQueues(Queues { queues: lines.into_iter().map(with_askers).collect(), more }))
            }
            Request::ShowQueue(show) => {
                let mut shown = queues.show(now, &show.queue);
                shown.line = with_askers(shown.line);
                shown.group = self.setup.group.0;
                Ok(Response::ShowQueue(shown))
            }
            Request::ExplainQueue(explain) => {
                let consumer = match &explain.about {
                    About::Consumer(consumer) => consumer.as_str(),
                    About::Queue | About::Message(_) => "",
                };
                let askers = polls.askers(&explain.queue, consumer, now_us);
                Ok(Response::ExplainQueue(queues.explain(now, &explain.queue, &explain.about, askers)))
            }
            Request::Peek(peek) => match queues.peek(now, peek) {
                Ok((messages, more)) => return self.show_bodies(step, node, id, messages, more, &BTreeMap::new()),
                Err(error) => Err(error),
            },
            _ => return,
        };
        self.answer(step, node, id, result);
    }

    /// Answers a peek with the bodies, as a dequeue is answered.
    pub(super) fn show_bodies(
        &mut self,
        step: &mut Step,
        node: Option<NodeId>,
        id: u64,
        messages: Vec<PeekedMessage>,
        more: bool,
        fetched: &BTreeMap<Index, Bytes>,
    ) {
        let member = &mut self.member;
        let base = member.raft.base().index;
        let missing: Vec<Index> = messages.iter().map(|message| message.id).filter(|id| *id <= base).collect();
        if fetched.is_empty() && !missing.is_empty() {
            member.next_ticket += 1;
            let ticket = member.next_ticket;
            let in_log = |message: &PeekedMessage| Some((message.id, member.raft.entry(message.id).and_then(body_of)?));
            let found = messages.iter().filter_map(in_log).collect();
            member.fetches.insert(ticket, FetchFor::Peek { node, id, messages, more, found });
            let keys = missing.into_iter().map(body_key).collect();
            step.effects.fetch.push(Fetch { group: self.setup.group, ticket, keys });
            return;
        }
        // One that is nowhere was acknowledged meanwhile.
        let with_body = |message: PeekedMessage| {
            let body = fetched.get(&message.id).cloned().or_else(|| member.raft.entry(message.id).and_then(body_of))?;
            Some(PeekedMessage { body, ..message })
        };
        let messages = messages.into_iter().filter_map(with_body).collect();
        self.answer(step, node, id, Ok::<_, Error>(Response::Peek(Peeked { messages, more })));
    }
}
