//! What a leader does without an entry of the log: reads that are as new as if they had gone through it, dequeues that wait, and handing its
//! office over.
//!
//! A read waits for the word of a majority that this node still leads ([`crate::raft`]), and is answered from the state as it is then. It keeps its
//! place among the commands of its node, so that whoever writes and then asks finds what was written.
//!
//! # Invariants
//! - Who does not lead answers no read: it says who does.

use trine_protocol::cache::Keys;
use trine_protocol::cluster::{BackupBegun, Transferring};
use trine_protocol::limits::KEYS_MAX;
use trine_protocol::lock::Inspected;
use trine_protocol::{Error, ErrorCode, Request, Response};

use crate::ids::NodeId;
use crate::rules::Rules;

use super::apply::Read;
use super::look::reads_queue;
use super::message::{Forward, GroupMessage};
use super::{Replica, Step};

/// Whether a request makes no entry of the log, or none before there is something for it.
pub(super) fn without_entry(request: &Request) -> bool {
    matches!(
        request,
        Request::Inspect(_)
            | Request::Backup(_)
            | Request::ListKeys(_)
            | Request::ListLocks(_)
            | Request::ExplainLock(_)
            | Request::ExplainClient(_)
            | Request::Observe(_)
            | Request::Transfer(_)
            | Request::Evacuate(_)
    ) || reads_queue(request)
        || matches!(request, Request::Dequeue(dequeue) if dequeue.wait_ms > 0)
}

impl<R: Rules> Replica<R> {
    /// What the leader does without an entry of the log: linearizable reads, and handing over.
    pub(super) fn lead_without_entry(&mut self, step: &mut Step, forward: Forward, from: Option<NodeId>) {
        let Forward { id, request, at, .. } = forward;
        let sender = from.unwrap_or(self.setup.node);
        if !self.leads() {
            let error = self.not_leader();
            return self.answer(step, from, id, Err(error));
        }
        let member = &mut self.member;
        if !member.streams.admits::<R>(sender, at) {
            return match from {
                None => self.out_of_order(step, at.stream),
                Some(node) => step.send(node, GroupMessage::OutOfOrder(at.stream)),
            };
        }
        member.streams.take(sender, at);
        if let Request::Transfer(transfer) = request {
            let result = self.hand_over(step, &transfer.node);
            return self.answer(step, from, id, result);
        }
        if let Request::Dequeue(dequeue) = request {
            return self.park_poll(step, from, id, dequeue);
        }
        if let Request::Evacuate(evacuate) = request {
            let result = self.evacuate(step, &evacuate.node);
            return self.answer(step, from, id, result);
        }
        member.next_ticket += 1;
        let ticket = member.next_ticket;
        match member.raft.read(step.now, ticket) {
            Ok(()) => drop(member.reads.insert(ticket, Read { node: from, id, request })),
            Err(refusal) => {
                let error = Error::new(ErrorCode::Overloaded, refusal.to_string()).retry_after(50);
                self.answer(step, from, id, Err(error));
            }
        }
    }

    fn hand_over(&mut self, step: &Step, node: &str) -> Result<Response, Error> {
        let group = self.setup.group;
        let refused = |what: String| Err(Error::new(ErrorCode::InvalidArgument, what));
        let raft = &mut self.member.raft;
        if node == self.setup.node.as_str() {
            return Ok(Response::Transfer(Transferring {}));
        }
        let Some(target) = raft.membership().voters.iter().find(|id| id.node.as_str() == node).copied() else {
            let voters: Vec<String> = raft.membership().voters.iter().map(|id| id.node.to_string()).collect();
            return refused(format!("{node} is no voter of {group}: {} are", voters.join(", ")));
        };
        if !raft.followers().iter().any(|follower| follower.replica == target && follower.active) {
            return refused(format!("{node} does not answer the leader of {group}"));
        }
        raft.transfer_to(step.now, target.node);
        Ok(Response::Transfer(Transferring {}))
    }

    /// A read may be answered from the state as it is now.
    pub(super) fn answer_read(&mut self, step: &mut Step, ticket: u64) {
        let Some(read) = self.member.reads.remove(&ticket) else { return };
        if self.read_locks(step, &read).is_some() {
            return;
        }
        let Read { node, id, request } = read;
        if let Request::Backup(_) = request {
            let index = self.member.machine.applied().index;
            self.member.checkpoints.want_whole();
            return self.answer(step, node, id, Ok(Response::Backup(BackupBegun { backup: 0, index })));
        }
        if let Request::ListKeys(list) = request {
            let keys = self.member.machine.memory().keys(&list.prefix, &list.after).take(KEYS_MAX + 1).cloned();
            let mut keys: Vec<String> = keys.collect();
            let more = keys.len() > KEYS_MAX;
            keys.truncate(KEYS_MAX);
            return self.answer(step, node, id, Ok(Response::ListKeys(Keys { keys, more })));
        }
        if reads_queue(&request) {
            return self.answer_queue_read(step, node, id, &request);
        }
        let Request::Inspect(inspect) = request else { return };
        let holder = self.member.machine.lock().holder(&inspect.lock);
        let inspected = match holder {
            Some(held) => Inspected { client: held.client.to_string(), token: held.token },
            None => Inspected { client: String::new(), token: 0 },
        };
        self.answer(step, node, id, Ok(Response::Inspect(inspected)));
    }
}
