//! Committed entries: into the machine, and the results to whoever waits for them.

use std::collections::BTreeMap;

use bytes::Bytes;
use trine_protocol::queue::{
    Acked, AckedMany, Declared, Delivery, Dequeued, Durability, Enqueued, Extended, FlowSet, HandedOff, Nacked,
    PeekedMessage, Purged, Redriven, Undeclared,
};
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::cache::{self, Committed, Proposal};
use crate::ids::{Index, NodeId};
use crate::marks::{Rare, mark};
use crate::raft::Entry;
use crate::rules::Rules;
use crate::{lock, queue, record};

use super::effect::Fetch;
use super::forward::session_opened;
use super::machine::{Answer, Command, Outcome, body_key, body_of};
use super::session::Stored;
use super::{Replica, Step};

/// Who waits for an entry to be applied.
#[derive(Clone, Debug)]
pub(super) enum Waiter {
    /// A client's command: of this node, or of that one.
    Client { node: Option<NodeId>, id: u64 },
    /// The home.
    Home(Box<Proposal>),
    /// A dequeue that waited.
    Poll { ticket: u64 },
}

/// A read that waits for the word of a majority.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// The node whose client asked; None where it is this one.
    pub(super) node: Option<NodeId>,
    pub(super) id: u64,
    pub(super) request: Request,
}

/// What a read from the state store is for.
#[derive(Clone, Debug)]
pub(super) enum FetchFor {
    /// Bodies that compaction overtook, for one dequeue; and the others, which it may overtake before these come.
    Delivery { node: Option<NodeId>, id: u64, handed: Vec<queue::Handed>, found: BTreeMap<Index, Bytes> },
    /// The same, for a peek.
    Peek { node: Option<NodeId>, id: u64, messages: Vec<PeekedMessage>, more: bool, found: BTreeMap<Index, Bytes> },
    /// The same, for a snapshot.
    Snapshot,
}

impl<R: Rules> Replica<R> {
    /// Applies one committed entry.
    pub(super) fn apply(&mut self, step: &mut Step, entry: &Entry) {
        let member = &mut self.member;
        let (command, outcome) = member.machine.apply::<R>(entry);
        member.checkpoints.applied(entry);
        if member.tick_index.is_some_and(|index| index <= entry.index) {
            member.tick_index = None;
        }
        for id in member.machine.take_gone_messages() {
            member.checkpoints.acknowledged(id);
        }
        self.tell_parked(step);
        match self.member.waiting.remove(&entry.index) {
            Some(Waiter::Client { node, id }) => match (command, &outcome) {
                (Some(Command::Once(once)), Outcome::Once { result: Ok(Answer::Lock(lock::Answer::Waiting)), .. }) => {
                    self.park(step, (node, id), once.session, once.sequence);
                }
                _ => self.client_applied(step, node, id, outcome),
            },
            Some(Waiter::Home(proposal)) => {
                let committed = home_result(outcome);
                self.home_committed(step, &proposal, committed);
            }
            Some(Waiter::Poll { ticket }) => match outcome {
                Outcome::Polled(result) => self.polled(step, ticket, result),
                _ => self.polled(step, ticket, Ok(Vec::new())),
            },
            None => {}
        }
        if self.setup.group.0 == 0 && self.member.machine.roster().version > self.roster.version {
            let roster = self.member.machine.roster().clone();
            self.hear_roster(step, roster);
        }
    }

    fn client_applied(&mut self, step: &mut Step, node: Option<NodeId>, id: u64, outcome: Outcome) {
        let result = match outcome {
            Outcome::Session(result) => result.map(|session| {
                let timeout_ms = self.member.machine.sessions().timeout_ms(session).unwrap_or_default();
                session_opened(session, timeout_ms)
            }),
            Outcome::Once { result: Ok(Answer::Queue(queue::Answer::Delivered(handed))), .. } => {
                return self.deliver(step, node, id, handed, &BTreeMap::new());
            }
            Outcome::Once { result, .. } => self.response(result),
            Outcome::Nothing | Outcome::Bus(_) | Outcome::Polled(_) | Outcome::Unreadable => {
                Err(Error::new(ErrorCode::Internal, "the entry is no command of a client"))
            }
        };
        self.answer(step, node, id, result);
    }

    /// Answers a dequeue with the bodies, which stand in the log, or in the state store where compaction overtook them.
    pub(super) fn deliver(
        &mut self,
        step: &mut Step,
        node: Option<NodeId>,
        id: u64,
        handed: Vec<queue::Handed>,
        fetched: &BTreeMap<Index, Bytes>,
    ) {
        let member = &mut self.member;
        let body = |id: Index| fetched.get(&id).cloned().or_else(|| member.raft.entry(id).and_then(body_of));
        let base = member.raft.base().index;
        let missing: Vec<Index> =
            handed.iter().map(|handed| handed.id).filter(|id| *id <= base && !fetched.contains_key(id)).collect();
        if !missing.is_empty() && fetched.is_empty() {
            mark(Rare::BodyFetched);
            member.next_ticket += 1;
            let ticket = member.next_ticket;
            let keys = missing.iter().map(|id| body_key(*id)).collect();
            let found = handed.iter().filter_map(|handed| Some((handed.id, body(handed.id)?))).collect();
            member.fetches.insert(ticket, FetchFor::Delivery { node, id, handed, found });
            step.effects.fetch.push(Fetch { group: self.setup.group, ticket, keys });
            return;
        }
        // A body that is nowhere belongs to a message that was acknowledged since: a repeated dequeue may meet one.
        let deliveries = handed
            .iter()
            .filter_map(|handed| {
                let queue::Handed { id, token, deliveries, attributes } = handed;
                let (id, token, deliveries, attributes) = (*id, *token, *deliveries, attributes.clone());
                body(id).map(|body| Delivery { id, token, deliveries, body, attributes })
            })
            .collect();
        self.answer(step, node, id, Ok(Response::Dequeue(Dequeued { deliveries })));
    }

    /// Records from the state store.
    pub(super) fn fetched(&mut self, step: &mut Step, ticket: u64, records: &[(Vec<u8>, Option<Bytes>)]) {
        let member = &mut self.member;
        let index = |key: &[u8]| key.get(1..).and_then(|index| index.try_into().ok()).map(u64::from_be_bytes);
        let bodies: BTreeMap<Index, Bytes> =
            records.iter().filter_map(|(key, value)| Some((index(key)?, value.clone()?))).collect();
        match member.fetches.remove(&ticket) {
            Some(FetchFor::Delivery { node, id, handed, found }) => {
                let bodies: BTreeMap<Index, Bytes> = found.into_iter().chain(bodies).collect();
                if bodies.is_empty() {
                    let what = "the message's body is gone: it was acknowledged while it was looked up";
                    return self.answer(step, node, id, Err(Error::new(ErrorCode::OutcomeUnknown, what)));
                }
                self.deliver(step, node, id, handed, &bodies);
            }
            Some(FetchFor::Peek { node, id, messages, more, found }) => {
                let bodies: BTreeMap<Index, Bytes> = found.into_iter().chain(bodies).collect();
                if bodies.is_empty() {
                    let what = "the messages' bodies are gone: they were acknowledged while they were looked up";
                    return self.answer(step, node, id, Err(Error::new(ErrorCode::Overloaded, what)));
                }
                self.show_bodies(step, node, id, messages, more, &bodies);
            }
            Some(FetchFor::Snapshot) => self.build_snapshot(step, &bodies),
            None => {}
        }
    }

    /// Something is due by log time: the leader puts the time into the log.
    pub(super) fn tick_log_time(&mut self, step: &mut Step) {
        if !self.leads() {
            return;
        }
        let member = &mut self.member;
        let due = member.machine.next_deadline_ms().is_some_and(|due| due <= member.raft.log_time_ms(step.now));
        let due = due || member.machine.next_wall_ms().is_some_and(|due| due <= step.now.wall_ms);
        if due && member.tick_index.is_none() {
            let command = record::encode(&Command::Tick);
            member.tick_index = member.raft.propose(step.now, command.into()).ok();
        }
    }
}

/// What the home hears of its entry.
fn home_result(outcome: Outcome) -> Committed {
    match outcome {
        Outcome::Bus(applied) => Committed::Applied(applied),
        Outcome::Once { result: Ok(Answer::Own(applied)), repeated: false } => Committed::Applied(applied),
        Outcome::Once { result: Ok(Answer::Own(applied)), repeated: true } => Committed::Repeated(applied),
        Outcome::Once { result: Err(error), .. } => Committed::Refused(error),
        _ => Committed::Applied(cache::Applied::Void),
    }
}

impl<R: Rules> Replica<R> {
    /// A result as the client gets it.
    pub(super) fn response(&self, result: Stored) -> Result<Response, Error> {
        Ok(match result? {
            Answer::Queue(answer) => self.queue_response(answer)?,
            Answer::HandedOff { acked, enqueued } => {
                let enqueued = enqueued.map(|(id, duplicate)| self.enqueued(id, duplicate));
                Response::HandOff(HandedOff { acked, enqueued })
            }
            Answer::Lock(answer) => lock_response(answer)?,
            Answer::Reshaped(version) => Response::Reshape(trine_protocol::cluster::Reshaped { version }),
            Answer::Kept => Response::KeepAlive(trine_protocol::cluster::Kept {}),
            Answer::Own(_) => return Err(Error::new(ErrorCode::Internal, "an answer that is not for clients")),
        })
    }

    fn queue_response(&self, answer: queue::Answer) -> Result<Response, Error> {
        Ok(match answer {
            queue::Answer::Enqueued { id, duplicate } => Response::Enqueue(self.enqueued(id, duplicate)),
            queue::Answer::Acked { id } => Response::Ack(Acked { id }),
            queue::Answer::Extended { id } => Response::Extend(Extended { id }),
            queue::Answer::Nacked { state } => Response::Nack(Nacked { state }),
            queue::Answer::AckedMany { refused } => Response::AckMany(AckedMany { refused }),
            queue::Answer::Declared { made } => Response::Declare(Declared { made }),
            queue::Answer::Undeclared { was_declared } => Response::Undeclare(Undeclared { was_declared }),
            queue::Answer::FlowSet { before } => Response::SetFlow(FlowSet { before }),
            queue::Answer::Purged { messages, more } => Response::Purge(Purged { messages, more }),
            queue::Answer::Redriven { messages, more } => Response::Redrive(Redriven { messages, more }),
            queue::Answer::Delivered(_) => {
                return Err(Error::new(ErrorCode::Internal, "deliveries without their bodies"));
            }
        })
    }

    /// The answer to an enqueue, with what its message has reached: as this leader knows it now.
    fn enqueued(&self, id: Index, duplicate: bool) -> Enqueued {
        let raft = &self.member.raft;
        let reached = raft.flushed(id).zip(raft.term_at(id)).map(|((replicas, voters), term)| Durability {
            term,
            index: id,
            replicas,
            voters,
            flushed: true,
        });
        Enqueued { id, duplicate, reached }
    }
}

fn lock_response(answer: lock::Answer) -> Result<Response, Error> {
    Ok(match answer {
        lock::Answer::Granted(granted) => Response::Acquire(granted),
        lock::Answer::Released(released) => Response::Release(released),
        lock::Answer::Cancelled(cancelled) => Response::Cancel(cancelled),
        lock::Answer::Forced(forced) => Response::ForceRelease(forced),
        lock::Answer::Fenced(fenced) => Response::Fence(fenced),
        lock::Answer::Waiting => return Err(Error::new(ErrorCode::Internal, "an answer that is not for clients")),
    })
}
