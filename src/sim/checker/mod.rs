//! Checks that run beside the cluster and know everything.
//!
//! The checkers of the three services judge what *clients* saw: when an operation was first sent, when its verdict came,
//! and what that was. They know nothing of the implementation. [`raft`] and [`bus`] look inside the replicas after each
//! step. Each is fed as things happen and says at once what is wrong, so that a trace ends where the bug shows.
//!
//! Values are unique: each enqueue and each put writes a number that no other writes. That makes most of the search of a
//! general linearizability checker needless: who wrote what is known, and the versions of the cache and the log indexes of
//! queue and lock name the order that the implementation claims. The checkers verify the claim: it must agree with real time.

pub(crate) mod bus;
pub(crate) mod cache;
pub(crate) mod jobs;
pub(crate) mod lock;
pub(crate) mod managed;
pub(crate) mod order;
pub(crate) mod queue;
pub(crate) mod raft;

use trine_protocol::{ErrorCode, Request, Response};

use crate::ids::GroupId;
use trine_protocol::lock::{Granted, Released};
use trine_protocol::queue::{HandOff, LockStep};

/// What is wrong, for a person.
pub(crate) type Check = Result<(), String>;

/// Something a client wants done.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// Unique in the run.
    pub(crate) number: u64,
    /// Whose.
    pub(crate) client: usize,
    pub(crate) group: GroupId,
    pub(crate) request: Request,
    /// When it was first sent.
    pub(crate) sent_us: u64,
    /// When its last send went out that was answered `StillWaiting`, else its first: a grant was made after that.
    pub(crate) from_us: u64,
    /// When its client heard for the first time that it waits.
    pub(crate) waiting_us: Option<u64>,
}

/// What the client knows at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was executed, and this is the answer.
    Answered(Response),
    /// It was not executed and never will be.
    NotExecuted(ErrorCode),
    /// It may have been executed, or may yet be at any time.
    Unknown,
}

/// How much faster log time may run than the true one, and a client's clock slower, in parts per million.
const DRIFT_PPM: u64 = 10_000;

/// The entry that made a token; above it stands the cluster's generation.
fn index_of(token: u64) -> u64 {
    token & ((1 << 48) - 1)
}

/// The true time that a lease of so many milliseconds of log time lasts at the very least.
fn lasts_us(lease_ms: u32) -> u64 {
    (u64::from(lease_ms) * 1_000).saturating_sub(1_000) * (1_000_000 - DRIFT_PPM) / 1_000_000
}

/// The three services' checkers.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) queue: queue::QueueChecker,
    pub(crate) jobs: jobs::JobsChecker,
    pub(crate) managed: managed::ManagedChecker,
    pub(crate) order: order::OrderChecker,
    pub(crate) lock: lock::LockChecker,
    pub(crate) cache: cache::CacheChecker,
}

impl Services {
    /// Of a cluster whose wall clocks are wrong by so much at most.
    pub(crate) fn new(wall_error_us: u64) -> Self {
        Self { managed: managed::ManagedChecker::new(wall_error_us), ..Self::default() }
    }

    /// A client has sent this for the first time.
    pub(crate) fn sent(&mut self, operation: &Operation) {
        match managed::queue_of(&operation.request) {
            Some(queue) => self.managed.sent(operation, queue),
            None if jobs::is_about_jobs(&operation.request) => self.jobs.sent(operation),
            None => self.queue.sent(operation),
        }
        match lock_step(operation, &Verdict::Unknown) {
            Some((step, _)) => self.lock.sent(&step),
            None => self.lock.sent(operation),
        }
        self.cache.sent(operation);
    }

    /// A client knows what became of it.
    pub(crate) fn ended(&mut self, now_us: u64, operation: &Operation, verdict: &Verdict) -> Check {
        if let Verdict::Answered(response) = verdict {
            if response.command() != operation.request.command() {
                return Err(format!("{:?} was answered by {response:?}", operation.request));
            }
        }
        match managed::queue_of(&operation.request) {
            Some(queue) => {
                self.managed.ended(now_us, operation, queue, verdict)?;
                self.order.ended(operation, verdict)?;
            }
            None if jobs::is_about_jobs(&operation.request) => self.jobs.ended(now_us, operation, verdict)?,
            None => {
                self.queue.ended(now_us, operation, verdict)?;
                self.order.ended(operation, verdict)?;
            }
        }
        match lock_step(operation, verdict) {
            Some((step, verdict)) => self.lock.ended(now_us, &step, &verdict)?,
            None => self.lock.ended(now_us, operation, verdict)?,
        }
        self.cache.ended(operation, verdict)
    }
}

/// What a hand-off does with a lock, as the command that it is by itself. Whether a grant that was entered several times is over is
/// not told, so its release counts as one of many.
fn lock_step(operation: &Operation, verdict: &Verdict) -> Option<(Operation, Verdict)> {
    let Request::HandOff(HandOff { lock: Some(step), .. }) = &operation.request else { return None };
    let (request, answer) = match step {
        LockStep::Release(release) => {
            (release.clone().into(), Response::Release(Released { was_held: true, depth: 0 }))
        }
        LockStep::Renew(renew) => {
            let granted = Granted { token: renew.token, lease_ms: renew.lease_ms, ..Granted::default() };
            (renew.clone().into(), Response::Renew(granted))
        }
    };
    let verdict = match verdict {
        Verdict::Answered(_) => Verdict::Answered(answer),
        other => other.clone(),
    };
    Some((Operation { request, ..operation.clone() }, verdict))
}

/// Hand-made histories for the checkers' own tests.
#[cfg(test)]
pub(crate) mod history {
    use super::*;

    /// Feeds operations to one checker.
    pub(crate) struct History {
        pub(crate) services: Services,
        next: u64,
    }

    impl History {
        pub(crate) fn new() -> Self {
            Self { services: Services::default(), next: 0 }
        }

        /// Sends it at that millisecond.
        pub(crate) fn send(&mut self, at_ms: u64, request: impl Into<Request>) -> Operation {
            self.next += 1;
            let request = request.into();
            let (number, group, sent_us) = (self.next, GroupId(0), at_ms * 1_000);
            let operation =
                Operation { number, client: 0, group, request, sent_us, from_us: sent_us, waiting_us: None };
            self.services.sent(&operation);
            operation
        }

        pub(crate) fn end(&mut self, at_ms: u64, operation: &Operation, verdict: Verdict) -> Check {
            self.services.ended(at_ms * 1_000, operation, &verdict)
        }

        /// Sends it at that millisecond and gets the answer one later.
        pub(crate) fn run(&mut self, at_ms: u64, request: impl Into<Request>, response: Response) -> Check {
            let operation = self.send(at_ms, request);
            self.end(at_ms + 1, &operation, Verdict::Answered(response))
        }
    }

    #[test]
    fn an_answer_of_another_command_is_rejected() {
        use trine_protocol::{cache::Get, cluster::Kept};
        let wrong = History::new().run(0, Get { key: "k".into() }, Response::KeepAlive(Kept {}));
        assert!(wrong.unwrap_err().contains("was answered by"));
    }
}
