//! Requests of this node's clients, from their arrival to their one answer.
//!
//! A request that goes through the log is sent to the leader, wherever it is, under (session, sequence): the client's own, or
//! one of this node's session in the group. It is sent again when the leader changes or an answer is overdue, which
//! is safe, because the log executes a (session, sequence) once. A request of the cache goes to this node's agent.

use std::collections::{BTreeMap, BTreeSet};

use trine_protocol::cluster::{OpenSession, SessionOpened};
use trine_protocol::error::Outcome;
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::ids::{NodeId, Term};
use crate::marks::{Rare, mark};
use crate::raft::{self, ProposeError};
use crate::record;
use crate::rules::{Rule, Rules};

use super::apply::Waiter;
use super::bus::operation_of;
use super::effect::{RequestId, SessionRef};
use super::lead;
use super::look::no_quorum;
use super::machine::{Command, Once, Operation};
use super::message::{Answer, Forward, GroupMessage, Position};
use super::park::{self, without_session};
use super::stream::Outgoing;
use super::{Replica, Step};

mod waits;

/// The requests of one node in one group that are not answered.
#[derive(Debug, Default)]
pub(super) struct Pending {
    table: BTreeMap<u64, Entry>,
    by_deadline: BTreeSet<(u64, u64)>,
    /// Commands by when they are to be sent (again).
    to_send: BTreeSet<(u64, u64)>,
    next_id: u64,
    guess: usize,
    /// The leader that the last commands went to.
    leader: Option<(NodeId, Term)>,
    /// The order in which they went there.
    stream: Outgoing,
    /// The request that opens this node's own session, and when it was last heard of.
    opening: Option<u64>,
    session_used_us: u64,
}

#[derive(Debug)]
struct Entry {
    /// None where the node itself asked.
    client: Option<RequestId>,
    deadline_us: u64,
    kind: Kind,
}

/// What a client's request to the agent is answered as.
#[derive(Debug)]
pub(super) enum Asked {
    /// As the agent does.
    Plain,
    /// A deletion, which is a write to the agent.
    Delete,
    /// A read whose value the client with this number wants to keep.
    Copy { client: u64, key: String },
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every one is the large one, and a box costs each an allocation")]
enum Kind {
    /// The agent has it.
    Cache { asked: Asked },
    /// For the log.
    Log {
        request: Request,
        place: Option<Place>,
        at: Option<Position>,
        client_session: bool,
        sends: u32,
        send_us: u64,
        /// The leader has said that it waits, and will answer by itself.
        waits: bool,
    },
}

/// Where a command stands in a session.
#[derive(Clone, Copy, Debug)]
struct Place {
    session: u64,
    sequence: u64,
    /// What the client said; this node's own is looked up at each send.
    acked_below: u64,
}

impl Pending {
    /// Numbers grow over restarts of the node: a late answer to a request of an earlier life finds nobody.
    pub(super) fn new(now_us: u64) -> Self {
        Self { next_id: now_us, stream: Outgoing::new(now_us), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.values().all(|entry| entry.client.is_none())
    }

    pub(super) fn next_guess(&mut self) -> usize {
        self.guess = self.guess.wrapping_add(1);
        self.guess
    }

    /// Nobody leads, or what was proposed here may not be in the log: everything is sent again, to whoever leads then.
    pub(super) fn lost_leader(&mut self) {
        self.leader = None;
    }

    fn insert(&mut self, entry: Entry) -> u64 {
        self.next_id += 1;
        self.by_deadline.insert((entry.deadline_us, self.next_id));
        if let Kind::Log { send_us, .. } = &entry.kind {
            self.to_send.insert((*send_us, self.next_id));
        }
        self.table.insert(self.next_id, entry);
        self.next_id
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.table.remove(&id)?;
        self.by_deadline.remove(&(entry.deadline_us, id));
        if let Kind::Log { send_us, .. } = &entry.kind {
            self.to_send.remove(&(*send_us, id));
        }
        if self.opening == Some(id) {
            self.opening = None;
        }
        Some(entry)
    }

    /// Whether somebody asks to copy this node's state.
    fn is_copy(&self, id: u64) -> bool {
        let entry = self.table.get(&id);
        entry.is_some_and(|entry| matches!(entry.kind, Kind::Log { request: Request::Backup(_), .. }))
    }

    fn send_at(&mut self, id: u64, at_us: u64) {
        if let Some(Entry { kind: Kind::Log { send_us, .. }, .. }) = self.table.get_mut(&id) {
            self.to_send.remove(&(*send_us, id));
            *send_us = at_us;
            self.to_send.insert((at_us, id));
        }
    }
}

impl<R: Rules> Replica<R> {
    /// A client of this node asks.
    pub(super) fn request(
        &mut self,
        step: &mut Step,
        id: RequestId,
        session: Option<SessionRef>,
        deadline_us: u64,
        mut request: Request,
    ) {
        let refusal = if self.draining_since_us.is_some() {
            Some(Error::new(ErrorCode::ShuttingDown, format!("{} is about to stop", self.setup.node)))
        } else if self.pending.table.len() >= self.setup.timing.pending_max {
            mark(Rare::NodeOverloaded);
            let what = format!("{} requests of {} wait already", self.pending.table.len(), self.setup.group);
            Some(Error::new(ErrorCode::Overloaded, what).retry_after(100))
        } else {
            None
        };
        if let Some(error) = refusal {
            return step.effects.reply.push((id, Err(error)));
        }
        let client = Some(id);
        waits::bound(&mut request, deadline_us.saturating_sub(step.now.mono_us));
        if matches!(request, Request::Backup(_)) && !self.leads() {
            let error = self.not_leader();
            return step.effects.reply.push((id, Err(error)));
        }
        if let Request::WriteBackAll(_) = request {
            let caller = self.pending.insert(Entry { client, deadline_us, kind: Kind::Cache { asked: Asked::Plain } });
            return self.with_agent(step, |agent, turn| agent.write_back_all(turn, caller));
        }
        if let Some(answer) = self.copies_request(step, &request) {
            return step.effects.reply.push((id, Ok(answer)));
        }
        if let Request::Explain(explain) = &request {
            let explained = self.explain(step, &explain.key);
            return step.effects.reply.push((id, Ok(Response::Explain(explained))));
        }
        if let Some((key, operation)) = operation_of(&request) {
            let asked = match request {
                Request::Delete(_) => Asked::Delete,
                Request::GetCopy(get) => Asked::Copy { client: get.copies, key: get.key },
                _ => Asked::Plain,
            };
            let caller = self.pending.insert(Entry { client, deadline_us, kind: Kind::Cache { asked } });
            return self.begin_operation(step, caller, &key, operation);
        }
        let remaining_us = deadline_us.saturating_sub(step.now.mono_us);
        if session.is_none()
            && let Err(error) = without_session(&mut request, remaining_us)
        {
            return step.effects.reply.push((id, Err(error)));
        }
        let client_session =
            session.is_some() || matches!(request, Request::OpenSession(_)) || waits::milliseconds(&request) > 0;
        let place = match (&request, session) {
            (request, _) if matches!(request, Request::OpenSession(_)) || waits::milliseconds(request) > 0 => {
                Some(Place { session: 0, sequence: 0, acked_below: 0 })
            }
            (_, Some(SessionRef { session, sequence, acked_below })) => Some(Place { session, sequence, acked_below }),
            (_, None) => self.take_place(),
        };
        let send_us = step.now.mono_us;
        let kind = Kind::Log { request, place, at: None, client_session, sends: 0, send_us, waits: false };
        let id = self.pending.insert(Entry { client, deadline_us, kind });
        self.dispatch(step, id);
    }

    fn take_place(&mut self) -> Option<Place> {
        self.sequences.take().map(|(session, sequence)| Place { session, sequence, acked_below: 0 })
    }

    /// Sends one command to the leader, if one is known, and if the session that it needs is open.
    fn dispatch(&mut self, step: &mut Step, id: u64) {
        let again_us = step.now.mono_us + self.setup.timing.resend_us;
        let Some((leader, _)) = self.leader() else { return };
        if leader != self.setup.node && self.pending.is_copy(id) {
            // What is copied is this node's own state store, and it led when it was asked.
            let error = self.not_leader();
            return self.reply(step, id, Err(error));
        }
        let needs_place =
            matches!(self.pending.table.get(&id), Some(Entry { kind: Kind::Log { place: None, .. }, .. }));
        let again = |entry: &Entry| matches!(entry.kind, Kind::Log { sends: 1.., client_session: false, .. });
        let renumbered = R::without(Rule::RepeatedUnderANewNumber) && self.pending.table.get(&id).is_some_and(again);
        let fresh = if needs_place || renumbered { self.take_place() } else { None };
        let acked_below = self.sequences.acked_below();
        let Pending { table, stream, .. } = &mut self.pending;
        let Some(Entry { kind: Kind::Log { request, place, at, client_session, sends, .. }, .. }) = table.get_mut(&id)
        else {
            return;
        };
        *place = fresh.or(*place);
        let Some(place) = *place else { return };
        *at = at.filter(|at| stream.is_current(*at)).or_else(|| stream.next());
        let Some(at) = *at else { return };
        *sends += 1;
        let forward = Forward {
            id,
            session: place.session,
            sequence: place.sequence,
            acked_below: if *client_session { place.acked_below } else { acked_below },
            request: request.clone(),
            at,
        };
        self.pending.send_at(id, again_us);
        if leader == self.setup.node {
            self.propose(step, forward, None);
        } else {
            step.send(leader, GroupMessage::Forward(forward));
        }
    }

    /// A leader is known: whatever went to another one, or to none, is sent to it.
    pub(super) fn dispatch_to(&mut self, step: &mut Step, leader: NodeId, term: Term) {
        if self.pending.leader == Some((leader, term)) {
            return;
        }
        self.pending.leader = Some((leader, term));
        self.send_all(step);
    }

    /// The leader lacks something of that stream. The pause lets what it has too much of go through.
    pub(super) fn out_of_order(&mut self, step: &Step, stream: u64) {
        self.pending.stream.lost(stream, step.now.mono_us + self.setup.timing.resend_us / 50);
    }

    /// Sends everything that has no answer, in the order in which it came.
    fn send_all(&mut self, step: &mut Step) {
        // Without a leader nothing would be sent, and what comes next would begin the stream in its place.
        if self.leader().is_none() {
            return;
        }
        self.pending.stream.begin();
        self.dispatch_each(step, |kind| matches!(kind, Kind::Log { .. }));
    }

    /// Dispatches the requests of that kind, in the order in which they came.
    fn dispatch_each(&mut self, step: &mut Step, which: fn(&Kind) -> bool) {
        let chosen = self.pending.table.iter().filter(|(_, entry)| which(&entry.kind));
        let ids: Vec<u64> = chosen.map(|(id, _)| *id).collect();
        for id in ids {
            self.dispatch(step, id);
        }
    }

    pub(super) fn tick_pending(&mut self, step: &mut Step) {
        let now_us = step.now.mono_us;
        while let Some((deadline_us, id)) = self.pending.by_deadline.first().copied() {
            if deadline_us > now_us {
                break;
            }
            self.give_up(step, id);
        }
        if self.pending.stream.is_due(now_us) {
            self.send_all(step);
        }
        let mut due: Vec<u64> =
            self.pending.to_send.iter().take_while(|(send_us, _)| *send_us <= now_us).map(|(_, id)| *id).collect();
        // In the order in which they came, not in that of their last sends.
        due.sort_unstable();
        for id in due {
            self.dispatch(step, id);
        }
        self.keep_session(step);
    }

    /// Opens this node's own session, and keeps it alive.
    fn keep_session(&mut self, step: &mut Step) {
        let now_us = step.now.mono_us;
        let idle = now_us >= self.pending.session_used_us + self.setup.timing.keep_alive_us;
        if self.pending.opening.is_some() || (self.sequences.session().is_some() && !idle) {
            return;
        }
        let group = self.setup.group.0;
        let (request, place) = match self.sequences.session() {
            None => {
                let place = Place { session: 0, sequence: 0, acked_below: 0 };
                (Request::OpenSession(OpenSession { group, timeout_ms: 0 }), Some(place))
            }
            Some(_) => {
                self.pending.session_used_us = now_us;
                (Request::KeepAlive(trine_protocol::cluster::KeepAlive { group }), self.take_place())
            }
        };
        let opens = matches!(request, Request::OpenSession(_));
        let kind =
            Kind::Log { request, place, at: None, client_session: false, sends: 0, send_us: now_us, waits: false };
        let deadline_us = now_us + 4 * self.setup.timing.resend_us;
        let id = self.pending.insert(Entry { client: None, deadline_us, kind });
        if opens {
            self.pending.opening = Some(id);
        }
        self.dispatch(step, id);
    }

    /// The time of a request is over.
    fn give_up(&mut self, step: &mut Step, id: u64) {
        let Some(entry) = self.pending.remove(id) else { return };
        if let (Kind::Log { request: Request::ExplainQueue(_), .. }, Some(client)) = (&entry.kind, entry.client) {
            self.release_place(&entry);
            return step.effects.reply.push((client, Ok(no_quorum(self.setup.group))));
        }
        let mut taken_back = None;
        let error = match &entry.kind {
            Kind::Log { waits: true, client_session, request, .. }
                if *client_session || matches!(request, Request::Observe(_)) =>
            {
                Error::new(ErrorCode::StillWaiting, "it waits; send the same (session, sequence) again")
            }
            Kind::Log { sends: 0, .. } => {
                let what = format!("{} has had no leader for the whole time of the request", self.setup.group);
                Error::new(ErrorCode::NoLeader, what).retry_after(500)
            }
            kind => {
                if let Kind::Log { request, place: Some(place), client_session: false, .. } = kind {
                    taken_back = park::taken_back(request, place.sequence);
                }
                Error::new(ErrorCode::DeadlineExceeded, "no answer within the request's time; it may still be executed")
            }
        };
        if let Some(request) = taken_back {
            self.ask_for_itself(step, request);
        }
        self.release_place(&entry);
        if matches!(entry.kind, Kind::Cache { .. }) && !self.copies.forget(id) {
            self.with_agent(step, |agent, turn| agent.expire(turn, id));
        }
        if let Some(client) = entry.client {
            step.effects.reply.push((client, Err(error)));
        }
    }

    /// The node itself has something for the log.
    fn ask_for_itself(&mut self, step: &mut Step, request: Request) {
        let (place, send_us) = (self.take_place(), step.now.mono_us);
        let kind = Kind::Log { request, place, at: None, client_session: false, sends: 0, send_us, waits: false };
        let deadline_us = send_us + 4 * self.setup.timing.resend_us;
        let id = self.pending.insert(Entry { client: None, deadline_us, kind });
        self.dispatch(step, id);
    }
    fn release_place(&mut self, entry: &Entry) {
        if let Kind::Log { place: Some(place), client_session: false, .. } = &entry.kind {
            self.sequences.done(place.session, place.sequence);
        }
    }

    /// Answers a client.
    pub(super) fn reply(&mut self, step: &mut Step, id: u64, result: Result<Response, Error>) {
        let Some(entry) = self.pending.remove(id) else { return };
        self.release_place(&entry);
        let Some(client) = entry.client else { return };
        let result = match (result, &entry.kind) {
            (Ok(Response::Put(written)), Kind::Cache { asked: Asked::Delete }) => Ok(Response::Delete(written)),
            (Ok(Response::Get(got)), Kind::Cache { asked: Asked::Copy { client, key } }) => {
                Ok(self.got_copy(step, *client, key, got))
            }
            (Ok(Response::Acquire(granted)), Kind::Log { request: Request::Renew(_), .. }) => {
                Ok(Response::Renew(granted))
            }
            (result, _) => result,
        };
        step.effects.reply.push((client, result));
    }

    /// What the leader says of a command, on this node or on another.
    pub(super) fn answered(&mut self, step: &mut Step, id: u64, result: Result<Response, Error>) {
        let now_us = step.now.mono_us;
        let Some(Entry { kind: Kind::Log { sends, client_session, request, .. }, .. }) = self.pending.table.get(&id)
        else {
            return;
        };
        let (once, own, opens) = (*sends <= 1, !*client_session, matches!(request, Request::OpenSession(_)));
        let code = result.as_ref().err().map(|error| error.code);
        match code {
            Some(ErrorCode::StillWaiting) => {
                let Some(Entry { kind: Kind::Log { request, waits, .. }, .. }) = self.pending.table.get_mut(&id) else {
                    return;
                };
                *waits = true;
                let again_us = now_us + park::again_us(request);
                return self.pending.send_at(id, again_us);
            }
            Some(ErrorCode::NotLeader | ErrorCode::NoLeader) => {
                return self.pending.send_at(id, now_us + self.setup.timing.resend_us / 10);
            }
            Some(ErrorCode::SessionExpired) if own => {
                mark(Rare::SessionLostUnderCommand);
                let Some(Entry { kind: Kind::Log { place, at, .. }, .. }) = self.pending.table.get_mut(&id) else {
                    return;
                };
                let session = place.map(|place| place.session);
                // Another session may be open by now, and later commands on their way under it: this one has lost its turn.
                let overtaken = self.sequences.session().is_some_and(|current| Some(current) != session);
                if once && overtaken {
                    let what = "this node's session ended before the command was executed";
                    return self.reply(step, id, Err(Error::new(ErrorCode::NotReady, what).retry_after(50)));
                }
                if once {
                    // It was not executed under the old session, and nobody sent it but us: it gets a new place.
                    (*place, *at) = (None, None);
                    self.sequences.closed();
                    return self.pending.send_at(id, now_us);
                }
                if !overtaken {
                    self.sequences.closed();
                }
                let what = "this node's session ended while the command was on its way";
                return self.reply(step, id, Err(Error::new(ErrorCode::OutcomeUnknown, what)));
            }
            // The session may have ended after an earlier send was executed: the client must not do it anew in another one.
            Some(ErrorCode::SessionExpired) if !once => {
                let what = "the session ended while the command was on its way";
                return self.reply(step, id, Err(Error::new(ErrorCode::OutcomeUnknown, what)));
            }
            // It may have been executed by an earlier send: only its own number can tell.
            Some(code) if code.outcome() == Outcome::NotDone && !once => {
                return self.pending.send_at(id, now_us + self.setup.timing.resend_us / 2);
            }
            _ => {}
        }
        if own {
            self.pending.session_used_us = now_us;
        }
        if let (true, Ok(Response::OpenSession(opened))) = (opens && self.pending.opening == Some(id), &result) {
            self.sequences.opened(opened.session);
            self.reply(step, id, result);
            self.dispatch_each(step, |kind| matches!(kind, Kind::Log { place: None, .. }));
            return;
        }
        self.reply(step, id, result);
    }

    /// A command of another node's client.
    pub(super) fn forwarded(&mut self, step: &mut Step, from: NodeId, forward: Forward) {
        self.propose(step, forward, Some(from));
    }

    /// Puts a client's command into the log, where this node leads.
    fn propose(&mut self, step: &mut Step, forward: Forward, from: Option<NodeId>) {
        if lead::without_entry(&forward.request) {
            return self.lead_without_entry(step, forward, from);
        }
        let Forward { id, session, sequence, acked_below, request, at } = forward;
        let sender = from.unwrap_or(self.setup.node);
        let command = match request {
            Request::OpenSession(OpenSession { timeout_ms: 0, .. }) => Some(Command::OpenSession),
            Request::OpenSession(open) => Some(Command::OpenSessionFor(open.timeout_ms)),
            request => Operation::of(request)
                .map(|operation| Command::Once(Once { session, sequence, acked_below, operation })),
        };
        let Some(command) = command else {
            let error = Error::new(ErrorCode::InvalidArgument, "this command does not go through the log");
            return self.answer(step, from, id, Err(error));
        };
        let member = &mut self.member;
        if member.raft.role() == raft::Role::Leader && !member.streams.admits::<R>(sender, at) {
            mark(Rare::StreamOutOfOrder);
            return match from {
                None => self.out_of_order(step, at.stream),
                Some(node) => step.send(node, GroupMessage::OutOfOrder(at.stream)),
            };
        }
        match member.raft.propose(step.now, record::encode(&command).into()) {
            Ok(index) => {
                member.streams.take(sender, at);
                member.waiting.insert(index, Waiter::Client { node: from, id });
            }
            Err(ProposeError::NotLeader { .. } | ProposeError::Transferring) => {
                let error = self.not_leader();
                self.answer(step, from, id, Err(error));
            }
            // It is in the log, and will be answered from there: a copy of it must not be told that nothing happened.
            Err(ProposeError::Overloaded) if member.streams.has(sender, at) => {}
            Err(ProposeError::Overloaded) => {
                mark(Rare::LeaderOverloaded);
                member.streams.close(sender, at);
                let what = format!("the leader of {} has too many bytes that are not committed", self.setup.group);
                self.answer(step, from, id, Err(Error::new(ErrorCode::Overloaded, what).retry_after(50)));
            }
        }
    }

    pub(super) fn not_leader(&self) -> Error {
        let leader = self.leader().map(|(leader, _)| leader);
        let listed = leader.and_then(|leader| self.roster.nodes.get(&leader));
        let address = listed.map(|listed| listed.client.clone()).unwrap_or_default();
        let what = format!("{} does not lead {}", self.setup.node, self.setup.group);
        Error::new(ErrorCode::NotLeader, what).with_hint(address).retry_after(50)
    }

    /// Sends a command's result to the node that sent it.
    pub(super) fn answer(&mut self, step: &mut Step, to: Option<NodeId>, id: u64, result: Result<Response, Error>) {
        match to {
            None => self.answered(step, id, result),
            Some(node) => step.send(node, GroupMessage::Answer(Answer { id, result })),
        }
    }
}

/// The answer to a request that opened a session.
pub(super) fn session_opened(session: u64, timeout_ms: u32) -> Response {
    Response::OpenSession(SessionOpened { session, timeout_ms })
}
