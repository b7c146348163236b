//! What clients keep of this node's lines: between the agent, which knows nothing of it, and whoever it speaks to.

use trine_protocol::cache::{CopiesDropped, CopiesKept, CopyGot, Got, LineState};
use trine_protocol::{Request, Response};

use crate::cache::{CopiesOut, Operation, ToHome};
use crate::rules::Rules;

use super::{Replica, Step};

impl<R: Rules> Replica<R> {
    /// How many copies clients of this node may have, and how many notices they were given.
    pub fn copies(&self) -> (usize, u64) {
        (self.copies.count(), self.copies.notices())
    }

    /// A client's operation goes to the agent, as soon as no client has a copy that it would change.
    pub(super) fn begin_operation(&mut self, step: &mut Step, caller: u64, key: &str, operation: Operation) {
        let mut out = CopiesOut::default();
        let operation = self.copies.admit(step.now.mono_us, caller, key, operation, &mut out);
        self.take_copies(step, out);
        if let Some(operation) = operation {
            self.with_agent(step, |agent, turn| agent.operation(turn, caller, key, operation));
        }
    }

    /// What the agent says to the home leaves as soon as it is true of the clients' copies, too.
    pub(super) fn pass_copies(&mut self, step: &mut Step, message: ToHome) -> Option<ToHome> {
        let mut out = CopiesOut::default();
        let message = self.copies.pass(step.now.mono_us, message, &mut out);
        self.take_copies(step, out);
        message
    }

    pub(super) fn tick_copies(&mut self, step: &mut Step) {
        let mut out = CopiesOut::default();
        self.copies.tend(step.now.mono_us, &mut out);
        self.take_copies(step, out);
    }

    /// A client speaks of its copies. None where it is about something else.
    pub(super) fn copies_request(&mut self, step: &mut Step, request: &Request) -> Option<Response> {
        let now_us = step.now.mono_us;
        match request {
            Request::KeepCopies(keep) => {
                let left_us = self.agent.lease_left_us(now_us);
                let lease = self.copies.keep(now_us, keep.copies, keep.number, left_us);
                Some(Response::KeepCopies(CopiesKept { lease }))
            }
            Request::DropCopies(drop) => {
                let mut out = CopiesOut::default();
                self.copies.dropped(now_us, drop.copies, drop.notice, &mut out);
                self.take_copies(step, out);
                Some(Response::DropCopies(CopiesDropped {}))
            }
            _ => None,
        }
    }

    /// The answer to a client that wants to keep what it read.
    pub(super) fn got_copy(&mut self, step: &Step, client: u64, key: &str, got: Got) -> Response {
        let now_us = step.now.mono_us;
        let kept = got.state != LineState::I && self.agent.is_quiet(key, got.version);
        let left_us = self.agent.lease_left_us(now_us);
        let lease = kept.then(|| self.copies.grant(now_us, client, key, left_us)).flatten();
        Response::GetCopy(CopyGot { got, lease })
    }

    fn take_copies(&mut self, step: &mut Step, out: CopiesOut) {
        step.effects.push.extend(out.tell.into_iter().map(|(client, gone)| (client, gone.into())));
        step.to_home.extend(out.to_home);
        for (caller, key, operation) in out.operations {
            self.with_agent(step, |agent, turn| agent.operation(turn, caller, &key, operation));
        }
    }
}
