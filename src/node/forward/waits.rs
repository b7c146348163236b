//! Requests of this node's clients that wait at the leader: dequeues for messages, acquires for locks, observers for another holder.

use trine_protocol::queue::Dequeued;
use trine_protocol::{Error, ErrorCode, Request, Response};

use super::{Entry, Kind, Pending};
use crate::node::{Replica, Step};
use crate::rules::Rules;

/// By how much the wait of a dequeue ends before the request's time.
const MARGIN_US: u64 = 200_000;

/// How long a request waits for messages.
pub(super) fn milliseconds(request: &Request) -> u32 {
    match request {
        Request::Dequeue(dequeue) => dequeue.wait_ms,
        _ => 0,
    }
}

/// Has the wait of a request end before its time does: the leader is to answer before this node gives the request up.
pub(super) fn bound(request: &mut Request, left_us: u64) {
    if let Request::Dequeue(dequeue) = request {
        let left_ms = left_us.saturating_sub(MARGIN_US) / 1_000;
        dequeue.wait_ms = dequeue.wait_ms.min(u32::try_from(left_ms).unwrap_or(u32::MAX));
    }
}

impl Pending {
    /// The dequeues of this node's clients that wait for messages.
    fn polls(&self) -> Vec<u64> {
        let waits = |entry: &Entry| matches!(&entry.kind, Kind::Log { request, .. } if milliseconds(request) > 0);
        self.table.iter().filter(|(_, entry)| waits(entry)).map(|(id, _)| *id).collect()
    }
}

impl Pending {
    /// The requests of this node's clients that would be answered `StillWaiting` at their deadline.
    fn waiting(&self) -> Vec<u64> {
        let goes_on = |entry: &Entry| match &entry.kind {
            Kind::Log { request, client_session, waits: true, .. } => {
                *client_session || matches!(request, Request::Observe(_))
            }
            _ => false,
        };
        self.table.iter().filter(|(_, entry)| goes_on(entry)).map(|(id, _)| *id).collect()
    }
}

impl<R: Rules> Replica<R> {
    /// This node is about to stop: its clients' dequeues wait no more, and what else waits goes on through another node.
    pub(in crate::node) fn end_polls(&mut self, step: &mut Step) {
        for id in self.pending.waiting() {
            let what = "this node is about to stop; send the same (session, sequence) to another one";
            self.reply(step, id, Err(Error::new(ErrorCode::StillWaiting, what)));
        }
        for id in self.pending.polls() {
            self.reply(step, id, Ok(Response::Dequeue(Dequeued { deliveries: Vec::new() })));
        }
    }
}
