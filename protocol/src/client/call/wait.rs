//! A call that may wait for long: sent in slices, each under the same (session, sequence), so that nothing depends on one connection, one
//! node or one leader.
//!
//! ```text
//!   send 1 ──▶ StillWaiting ──▶ send 2 ──▶ StillWaiting ──▶ send 3 ──▶ Granted
//!   |                           '-- the grant was made after this: the lease counts from here
//! ```
//!
//! The lease of a lock begins with the grant, and the grant comes when it comes. What is certain is that the acquire still waited
//! when it was sent the last time and answered `StillWaiting`: so the client counts from that send, and a slice is a small part of the lease.
//!
//! # Invariants
//! - Who drops the future has the wait cancelled, and what was granted meanwhile given back: by a task of its own, in the same session,
//!   whose number is not let go of before.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Call, Case, Failure, Verdict, judge, may_be_done};
use crate::command::{Repeat, Request, Response};
use crate::error::{Error, ErrorCode};
use crate::lock::{Acquire, Cancel};

use crate::client::clock;
use crate::client::endpoint::Endpoint;
use crate::client::session::{Sequenced, Session};
use crate::client::shared::Shared;

/// How much longer than a slice the node's own word is waited for.
const GRACE: Duration = Duration::from_secs(1);
/// How long a cancellation is tried: by then the waiter is gone by itself.
const CANCEL_FOR: Duration = Duration::from_secs(20);

/// What came of a wait.
pub(crate) struct Waited {
    pub(crate) response: Response,
    /// The grant was certainly made after this instant.
    pub(crate) after: Instant,
    /// The session that it was made in.
    pub(crate) session: Option<Arc<Session>>,
}

/// Takes a wait back when it is dropped before it has come to anything.
struct TakeBack {
    shared: Arc<Shared>,
    group: u32,
    cancel: Option<Cancel>,
    sequenced: Option<Sequenced>,
}

impl Drop for TakeBack {
    fn drop(&mut self) {
        let (Some(cancel), Some(sequenced)) = (self.cancel.take(), self.sequenced.take()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(take_back(self.shared.clone(), self.group, cancel, sequenced));
        }
    }
}

/// Cancels the wait of that number. It is not let go of before that is done, so that the cluster still knows what became of it.
async fn take_back(shared: Arc<Shared>, group: u32, mut cancel: Cancel, sequenced: Sequenced) {
    cancel.sequence = sequenced.sequence();
    let request: Request = cancel.into();
    let number = sequenced.session().begin().await;
    let until = clock::now() + CANCEL_FOR;
    while clock::now() < until {
        let endpoint = shared.routes.leader_or_preferred(Some(group));
        let attempt_until = until.min(clock::now() + Duration::from_secs(2));
        let answer = match shared.connection(&endpoint, attempt_until).await {
            Ok(connection) => connection.call(number.header(), &request, attempt_until).await,
            Err(error) => Err(Failure::NotSent(error)),
        };
        match answer {
            Ok(_) => return,
            Err(Failure::Node(error)) if error.code == ErrorCode::SessionExpired => return,
            Err(_) => shared.routes.forget(Some(group), &endpoint),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

impl Call<'_> {
    /// Sends an acquire until it is granted or refused, `total` from now at the latest, in slices of that length.
    pub(crate) async fn run_waiting(
        mut self,
        acquire: &Acquire,
        slice: Duration,
        total: Option<Duration>,
    ) -> Result<Waited, Error> {
        let begun = clock::now();
        let far = Duration::from_secs(10 * 365 * 86_400);
        self.until = begun + total.unwrap_or(far).min(far);
        let (mut after, mut back) = (begun, None);
        loop {
            let target = self.target();
            self.shared.refresh_leaders(self.group);
            let sent = clock::now();
            let failure = match self.slice(&target, slice, acquire, &mut back).await {
                Ok(response) => {
                    let session = back.as_mut().map(|back| {
                        back.cancel = None;
                        back.sequenced.as_ref().map(|number| number.session().clone())
                    });
                    let session = session.flatten();
                    if let Some(session) = &session {
                        session.heard_of(after);
                    }
                    return Ok(Waited { response, after, session });
                }
                Err(failure) => failure,
            };
            let verdict = match &failure {
                Failure::Node(error) if error.code == ErrorCode::StillWaiting => {
                    (after, self.maybe_done) = (sent, true);
                    self.backoff = Default::default();
                    if clock::now() < self.until {
                        continue;
                    }
                    Verdict::GiveUp
                }
                Failure::CutOff(error) | Failure::Node(error) if error.code == ErrorCode::DeadlineExceeded => {
                    self.maybe_done = true;
                    // A slice is over and nothing was heard: only the same number, or what may be done twice, is sent again.
                    match back.is_some() || self.request.command().repeat() == Repeat::Freely {
                        true => Verdict::Again,
                        false => Verdict::GiveUp,
                    }
                }
                failure => {
                    let in_session = back.is_some();
                    let repeat = self.request.command().repeat();
                    let case = Case { repeat, in_session, maybe_done: self.maybe_done };
                    self.maybe_done |= may_be_done(failure);
                    if self.shared.config.retry { judge(case, failure) } else { Verdict::GiveUp }
                }
            };
            if verdict == Verdict::AgainInNewSession {
                self.leave_waiting_session(&mut back).await;
            }
            let wait = self.reroute(&target, &failure);
            let resume = clock::now() + wait;
            if verdict == Verdict::GiveUp || resume >= self.until {
                self.keep_or_drop(&failure, &mut back);
                return Err(self.last_word(failure));
            }
            sleep_until(resume).await;
        }
    }

    async fn slice(
        &mut self,
        target: &Arc<Endpoint>,
        slice: Duration,
        acquire: &Acquire,
        back: &mut Option<TakeBack>,
    ) -> Result<Response, Failure> {
        let until = self.until.min(clock::now() + slice);
        let connection = self.shared.connection(target, until).await.map_err(Failure::NotSent)?;
        if back.is_none() {
            self.header(&connection).await?;
            *back = self.sequenced.take().zip(self.group).map(|(sequenced, group)| TakeBack {
                shared: self.shared.clone(),
                group,
                cancel: Some(Cancel {
                    lock: acquire.lock.clone(),
                    client: acquire.client.clone(),
                    also: acquire.also.clone(),
                    give_back: true,
                    sequence: 0,
                }),
                sequenced: Some(sequenced),
            });
        }
        let header = back.as_ref().and_then(|back| back.sequenced.as_ref()).map(Sequenced::header);
        connection.call_patiently(header.unwrap_or_default(), self.request, until, GRACE).await
    }

    async fn leave_waiting_session(&mut self, back: &mut Option<TakeBack>) {
        if let Some(mut back) = back.take() {
            back.cancel = None;
            self.sequenced = back.sequenced.take();
        }
        self.leave_session().await;
    }

    /// Where the node's word is final, there is nothing to take back.
    fn keep_or_drop(&self, failure: &Failure, back: &mut Option<TakeBack>) {
        let refused = matches!(failure, Failure::Node(error) if error.code.outcome() == crate::error::Outcome::Refused);
        if let (true, Some(back)) = (refused, back) {
            back.cancel = None;
        }
    }
}
