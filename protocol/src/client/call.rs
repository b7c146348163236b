//! One call: attempts, and what is concluded from each that fails.
//!
//! ```text
//!            +--------------------- wait a little, choose where ---------------------+
//!            v                                                                       |
//!   --> [attempt] -- answer ------------------------------------------> done         |
//!            |                                                                       |
//!            +-- not sent, or an error that says NotDone ----------------------------+
//!            +-- an error that says Refused --------------------------> that error   |
//!            +-- cut off, or OutcomeUnknown                                          |
//!            |      repeatable freely, or in a session -------------- same number ---+
//!            |      otherwise ----------------------------------> its outcome is unknown
//!            +-- SessionExpired                                                      |
//!                   sent once ------------------- new session, new number -----------+
//!                   sent before with an unknown outcome ----------> SessionExpired
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::command::{Repeat, Request, RequestHeader, Response};
use crate::error::{Error, ErrorCode, Outcome};

use super::backoff::Backoff;
use super::clock;
use super::connection::{Connection, Failure};
use super::endpoint::Endpoint;
use super::route;
use super::session::Sequenced;
use super::shared::Shared;

pub(super) mod wait;

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    GiveUp,
    Again,
    AgainInNewSession,
}

/// What a verdict depends on, beside the failure.
#[derive(Clone, Copy, Debug)]
struct Case {
    repeat: Repeat,
    in_session: bool,
    /// An earlier attempt may have been executed.
    maybe_done: bool,
}

fn judge(case: Case, failure: &Failure) -> Verdict {
    let if_repeatable = match (case.repeat, case.in_session) {
        (Repeat::Freely, _) | (Repeat::InSession, true) => Verdict::Again,
        (Repeat::InSession, false) | (Repeat::Never, _) => Verdict::GiveUp,
    };
    match failure {
        Failure::CutOff(error) if error.code == ErrorCode::DeadlineExceeded => Verdict::GiveUp,
        Failure::CutOff(_) => if_repeatable,
        Failure::NotSent(error) | Failure::Node(error) => match (error.code.outcome(), error.code) {
            (Outcome::Refused, _) => Verdict::GiveUp,
            (Outcome::NotDone, _) => Verdict::Again,
            (Outcome::Unknown, ErrorCode::OutcomeUnknown) => if_repeatable,
            (Outcome::Unknown, ErrorCode::SessionExpired) if case.in_session && !case.maybe_done => {
                Verdict::AgainInNewSession
            }
            (Outcome::Unknown, _) => Verdict::GiveUp,
        },
    }
}

/// Whether the request may have been executed in spite of the failure.
fn may_be_done(failure: &Failure) -> bool {
    match failure {
        Failure::CutOff(_) => true,
        Failure::NotSent(_) => false,
        Failure::Node(error) => error.code == ErrorCode::OutcomeUnknown,
    }
}

/// Whether the failure says something against the endpoint rather than about the request.
fn is_of_endpoint(failure: &Failure) -> bool {
    match failure {
        Failure::CutOff(_) => true,
        Failure::NotSent(error) => error.code != ErrorCode::TooManyInFlight,
        Failure::Node(error) => matches!(
            error.code,
            ErrorCode::NotLeader | ErrorCode::NoLeader | ErrorCode::NotReady | ErrorCode::ShuttingDown
        ),
    }
}

/// One request on its way.
pub(super) struct Call<'a> {
    shared: &'a Arc<Shared>,
    request: &'a Request,
    group: Option<u32>,
    /// Where a cache request goes; otherwise None.
    cache: Option<Arc<Endpoint>>,
    until: Instant,
    sequenced: Option<Sequenced>,
    maybe_done: bool,
    backoff: Backoff,
    /// Endpoints tried one after the other without a wait.
    hops: usize,
}

/// How long a request waits by itself before there is anything to answer.
fn waits(request: &Request) -> Duration {
    match request {
        Request::Dequeue(dequeue) => Duration::from_millis(dequeue.wait_ms.into()),
        _ => Duration::ZERO,
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, request: &'a Request, cache: &Arc<Endpoint>) -> Self {
        Self {
            shared,
            request,
            group: shared.group_of(request),
            cache: route::is_for_cache(request).then(|| cache.clone()),
            until: clock::now() + shared.config.deadline + waits(request),
            sequenced: None,
            maybe_done: false,
            backoff: Backoff::default(),
            hops: 0,
        }
    }

    /// Attempts until there is an answer, or an error that no attempt can better, or no time.
    pub(super) async fn run(mut self) -> Result<Response, Error> {
        loop {
            let target = self.target();
            self.shared.refresh_leaders(self.group);
            let failure = match self.attempt(&target).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let case = Case {
                repeat: self.request.repeat(),
                in_session: self.sequenced.is_some(),
                maybe_done: self.maybe_done,
            };
            self.maybe_done |= may_be_done(&failure);
            let verdict = if self.shared.config.retry { judge(case, &failure) } else { Verdict::GiveUp };
            if verdict == Verdict::GiveUp {
                return Err(self.last_word(failure));
            }
            if verdict == Verdict::AgainInNewSession {
                self.leave_session().await;
            }
            let wait = self.reroute(&target, &failure);
            let resume = clock::now() + wait;
            if resume >= self.until {
                return Err(self.last_word(failure));
            }
            sleep_until(resume).await;
        }
    }

    fn target(&self) -> Arc<Endpoint> {
        match &self.cache {
            Some(endpoint) => endpoint.clone(),
            None => self.shared.routes.leader_or_preferred(self.group),
        }
    }

    async fn attempt(&mut self, target: &Arc<Endpoint>) -> Result<Response, Failure> {
        let connection = self.shared.connection(target, self.until).await.map_err(Failure::NotSent)?;
        let header = self.header(&connection).await?;
        connection.call(header, self.request, self.until).await
    }

    /// The header: with a number where the command has a session, the same one at each attempt.
    async fn header(&mut self, connection: &Arc<Connection>) -> Result<RequestHeader, Failure> {
        let group = match self.group {
            Some(group) if self.shared.config.session && self.request.repeat() == Repeat::InSession => group,
            _ => return Ok(RequestHeader::default()),
        };
        if self.sequenced.is_none() {
            let session = self.shared.session(group, connection, self.until).await?;
            let begun = timeout_at(self.until, session.begin()).await;
            let full = |_| Failure::NotSent(Error::new(ErrorCode::TooManyInFlight, "the session's window is full"));
            self.sequenced = Some(begun.map_err(full)?);
        }
        Ok(self.sequenced.as_ref().map(Sequenced::header).unwrap_or_default())
    }

    async fn leave_session(&mut self) {
        if let (Some(sequenced), Some(group)) = (self.sequenced.take(), self.group) {
            self.shared.sessions.expired(group, sequenced.session()).await;
        }
    }

    /// Chooses where the next attempt goes. Returns how long to wait before: not at all on the way to an endpoint
    /// that has not been tried in this round.
    fn reroute(&mut self, target: &Arc<Endpoint>, failure: &Failure) -> Duration {
        let routes = &self.shared.routes;
        let endpoints = routes.configured();
        if is_of_endpoint(failure) {
            routes.forget(self.group, target);
            match (failure, self.group, &mut self.cache) {
                (_, _, Some(cache)) if self.shared.config.cache_any => {
                    let place = endpoints.iter().position(|endpoint| Arc::ptr_eq(endpoint, cache));
                    *cache = endpoints[place.map_or(0, |place| (place + 1) % endpoints.len())].clone();
                }
                (Failure::Node(error), Some(group), None)
                    if error.code == ErrorCode::NotLeader && !error.hint.is_empty() =>
                {
                    routes.learn(group, &error.hint);
                }
                _ => {}
            }
        }
        if !Arc::ptr_eq(&self.target(), target) && self.hops < endpoints.len() {
            self.hops += 1;
            return Duration::ZERO;
        }
        self.hops = 0;
        let retry_after_ms = match failure {
            Failure::Node(error) | Failure::NotSent(error) => error.retry_after_ms,
            Failure::CutOff(_) => 0,
        };
        self.backoff.next().max(Duration::from_millis(retry_after_ms.into()))
    }

    /// The error that the caller gets. That the last attempt was not executed says nothing where an earlier one may have been.
    fn last_word(&self, failure: Failure) -> Error {
        let answered = matches!(&failure, Failure::Node(error) if error.code.outcome() == Outcome::Refused);
        let error = failure.into_error();
        let harmless = self.request.repeat() == Repeat::Freely;
        if !self.maybe_done || answered || harmless || error.code.outcome() == Outcome::Unknown {
            return error;
        }
        let message = format!("an attempt was cut off, and the last one ended so: {error}");
        Error::new(ErrorCode::OutcomeUnknown, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_SESSION: Case = Case { repeat: Repeat::InSession, in_session: true, maybe_done: false };

    fn node(code: ErrorCode) -> Failure {
        Failure::Node(Error::new(code, ""))
    }

    fn cut_off() -> Failure {
        Failure::CutOff(Error::new(ErrorCode::OutcomeUnknown, ""))
    }

    #[test]
    fn what_was_not_done_is_done_again_and_what_was_refused_is_not() {
        for repeat in [Repeat::Freely, Repeat::InSession, Repeat::Never] {
            for code in ErrorCode::ALL {
                let verdict = judge(Case { repeat, in_session: false, maybe_done: false }, &node(*code));
                match code.outcome() {
                    Outcome::NotDone => assert_eq!(verdict, Verdict::Again, "{code:?}"),
                    Outcome::Refused => assert_eq!(verdict, Verdict::GiveUp, "{code:?}"),
                    Outcome::Unknown => {
                        let again = *code == ErrorCode::OutcomeUnknown && repeat == Repeat::Freely;
                        assert_eq!(verdict == Verdict::Again, again, "{repeat:?} {code:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_unknown_outcome_is_repeated_only_where_twice_is_once() {
        for failure in [cut_off(), node(ErrorCode::OutcomeUnknown)] {
            let verdict = |repeat, in_session| judge(Case { repeat, in_session, maybe_done: false }, &failure);
            assert_eq!(verdict(Repeat::Freely, false), Verdict::Again);
            assert_eq!(verdict(Repeat::InSession, true), Verdict::Again);
            assert_eq!(verdict(Repeat::InSession, false), Verdict::GiveUp);
            assert_eq!(verdict(Repeat::Never, false), Verdict::GiveUp);
            assert_eq!(verdict(Repeat::Never, true), Verdict::GiveUp);
        }
    }

    #[test]
    fn an_expired_session_is_left_only_by_what_was_sent_once() {
        let expired = node(ErrorCode::SessionExpired);
        assert_eq!(judge(IN_SESSION, &expired), Verdict::AgainInNewSession);
        assert_eq!(judge(Case { maybe_done: true, ..IN_SESSION }, &expired), Verdict::GiveUp);
        assert_eq!(judge(Case { in_session: false, ..IN_SESSION }, &expired), Verdict::GiveUp);
    }

    #[test]
    fn no_time_is_no_time() {
        let late = Failure::CutOff(Error::new(ErrorCode::DeadlineExceeded, ""));
        assert_eq!(judge(IN_SESSION, &late), Verdict::GiveUp);
        assert_eq!(judge(IN_SESSION, &node(ErrorCode::DeadlineExceeded)), Verdict::GiveUp);
    }
}
