//! Operations on their way: what was sent where, what is sent again, and what the client may conclude in the end.
//!
//! An operation under the client's own session is sent again with the same (session, sequence) when no answer came or the answer
//! leaves open what happened. Without a session it is sent once. Answers of a send that was given up are ignored: its
//! connection is closed.

use std::collections::BTreeMap;

use trine_protocol::error::Outcome;
use trine_protocol::{Error, ErrorCode, Request, Response};

use super::checker::{Operation, Verdict};
use super::network::Place;
use crate::ids::GroupId;
use crate::node::effect::{RequestId, SessionRef};

/// Sends of one operation at most; then the client gives up and knows nothing.
const SENDS_MAX: u32 = 6;

/// One request on its way to a node.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) id: RequestId,
    /// The operation's.
    pub(crate) number: u64,
    pub(crate) place: Place,
    pub(crate) group: GroupId,
    pub(crate) session: Option<SessionRef>,
    pub(crate) request: Request,
}

/// What follows from an answer, or from none.
#[derive(Debug)]
pub(crate) enum Step {
    /// The send was given up before.
    Ignored,
    /// Send the operation of that number again.
    Again(u64),
    /// The client knows what it will ever know.
    Ended(Box<Operation>, Verdict, Option<SessionRef>),
}

#[derive(Debug)]
struct Flight {
    operation: Operation,
    session: Option<SessionRef>,
    sends: u32,
    /// An earlier send may have been executed, or may yet be.
    doubtful: bool,
}

/// Every operation without a verdict.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flights: BTreeMap<u64, Flight>,
    /// The last send of each: which operation, where it went, and when.
    sends: BTreeMap<RequestId, (u64, Place, u64)>,
    operations: u64,
    requests: u64,
}

impl Flights {
    /// Begins an operation; [`Flights::send`] sends it.
    pub(crate) fn begin(
        &mut self,
        now_us: u64,
        client: usize,
        group: GroupId,
        request: Request,
        session: Option<SessionRef>,
    ) -> Operation {
        self.operations += 1;
        let operation = Operation {
            number: self.operations,
            client,
            group,
            request,
            sent_us: now_us,
            from_us: now_us,
            waiting_us: None,
        };
        let flight = Flight { operation: operation.clone(), session, sends: 0, doubtful: false };
        self.flights.insert(operation.number, flight);
        operation
    }

    /// Sends an operation, for the first time or again.
    pub(crate) fn send(&mut self, now_us: u64, number: u64, place: Place) -> Sending {
        let flight = self.flights.get_mut(&number).expect("an operation without a verdict");
        flight.sends += 1;
        self.requests += 1;
        let id = RequestId(self.requests);
        self.sends.insert(id, (number, place, now_us));
        let Operation { group, request, .. } = &flight.operation;
        Sending { id, number, place, group: *group, session: flight.session, request: request.clone() }
    }

    /// Where a request is, if its client still waits for it.
    pub(crate) fn place(&self, id: RequestId) -> Option<Place> {
        self.sends.get(&id).map(|(_, place, _)| *place)
    }

    /// The requests that wait for an answer from that node.
    pub(crate) fn waiting_for(&self, place: Place) -> Vec<RequestId> {
        self.sends.iter().filter(|(_, (_, at, _))| *at == place).map(|(id, _)| *id).collect()
    }

    /// Whose operation waits for that request.
    pub(crate) fn client(&self, id: RequestId) -> Option<usize> {
        let (number, ..) = self.sends.get(&id)?;
        self.flights.get(number).map(|flight| flight.operation.client)
    }

    /// Whose operation that is.
    pub(crate) fn client_of(&self, number: u64) -> usize {
        self.flights[&number].operation.client
    }

    /// Whether every operation has its verdict.
    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// The operations without a verdict.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Operation> {
        self.flights.values().map(|flight| &flight.operation)
    }

    /// The answer to a request arrives, or the client gives it up: then it is as good as `OutcomeUnknown`.
    pub(crate) fn answered(&mut self, now_us: u64, id: RequestId, result: Result<Response, Error>) -> Step {
        let Some((number, _, sent_us)) = self.sends.remove(&id) else { return Step::Ignored };
        let flight = self.flights.get_mut(&number).expect("a request belongs to an operation");
        if result.as_ref().is_err_and(|error| error.code == ErrorCode::StillWaiting) {
            // It waited when this send came: a grant comes after that.
            flight.operation.from_us = sent_us;
            flight.operation.waiting_us.get_or_insert(now_us);
        }
        let verdict = match result {
            Ok(response) => Verdict::Answered(response),
            Err(error) => match flight.judge(error.code) {
                Some(verdict) => verdict,
                None => return Step::Again(number),
            },
        };
        let flight = self.flights.remove(&number).expect("just seen");
        Step::Ended(Box::new(flight.operation), verdict, flight.session)
    }
}

impl Flight {
    /// What an error means; None where the operation is to be sent again.
    fn judge(&mut self, code: ErrorCode) -> Option<Verdict> {
        let known = |doubtful| if doubtful { Verdict::Unknown } else { Verdict::NotExecuted(code) };
        match code.outcome() {
            // Under a session this is the one answer of the one execution, whichever send brought it.
            Outcome::Refused => return Some(known(self.doubtful && self.session.is_none())),
            Outcome::Unknown if code == ErrorCode::SessionExpired => return Some(known(self.doubtful)),
            Outcome::Unknown => self.doubtful = true,
            Outcome::NotDone => {}
        }
        let again = self.session.is_some() && self.sends < SENDS_MAX;
        (!again).then(|| known(self.doubtful))
    }
}

#[cfg(test)]
mod tests {
    use trine_protocol::cache::Get;

    use super::*;

    fn begun(session: bool) -> (Flights, u64) {
        let mut flights = Flights::default();
        let session = session.then_some(SessionRef { session: 9, sequence: 1, acked_below: 1 });
        let operation = flights.begin(0, 0, GroupId(0), Get { key: "k".into() }.into(), session);
        (flights, operation.number)
    }

    fn answer(flights: &mut Flights, number: u64, code: ErrorCode) -> Step {
        let id = flights.send(0, number, 0).id;
        flights.answered(1, id, Err(Error::new(code, "")))
    }

    fn verdict(step: Step) -> Verdict {
        match step {
            Step::Ended(_, verdict, _) => verdict,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_session_the_first_answer_decides() {
        let after = |code| {
            let (mut flights, number) = begun(false);
            verdict(answer(&mut flights, number, code))
        };
        assert_eq!(after(ErrorCode::NoLeader), Verdict::NotExecuted(ErrorCode::NoLeader));
        assert_eq!(after(ErrorCode::LockHeld), Verdict::NotExecuted(ErrorCode::LockHeld));
        assert_eq!(after(ErrorCode::DeadlineExceeded), Verdict::Unknown);
    }

    #[test]
    fn under_a_session_doubt_stays_until_an_answer_of_the_machine() {
        let (mut flights, number) = begun(true);
        assert!(matches!(answer(&mut flights, number, ErrorCode::OutcomeUnknown), Step::Again(_)));
        assert!(matches!(answer(&mut flights, number, ErrorCode::NoLeader), Step::Again(_)));
        assert_eq!(verdict(answer(&mut flights, number, ErrorCode::SessionExpired)), Verdict::Unknown);
        let (mut flights, number) = begun(true);
        assert!(matches!(answer(&mut flights, number, ErrorCode::OutcomeUnknown), Step::Again(_)));
        let refused = Verdict::NotExecuted(ErrorCode::LockHeld);
        assert_eq!(verdict(answer(&mut flights, number, ErrorCode::LockHeld)), refused);
    }

    #[test]
    fn a_client_gives_up_after_some_sends_and_ignores_what_comes_later() {
        let (mut flights, number) = begun(true);
        let mut steps = (0..SENDS_MAX).map(|_| answer(&mut flights, number, ErrorCode::NoLeader));
        let last = steps.by_ref().last().unwrap();
        assert_eq!(verdict(last), Verdict::NotExecuted(ErrorCode::NoLeader));
        assert!(flights.is_empty());
        let late = flights.answered(2, RequestId(1), Err(Error::new(ErrorCode::NoLeader, "")));
        assert!(matches!(late, Step::Ignored));
    }
}
