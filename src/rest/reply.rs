//! Answers: how they are put together, and which HTTP status each error of the protocol becomes.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use trine_protocol::error::Outcome;
use trine_protocol::{Error, ErrorCode};

use super::problem::Problem;

/// The content type of every JSON answer. The charset is said because Windows PowerShell 5 reads Latin-1 without it.
pub(crate) const JSON: &str = "application/json; charset=utf-8";
/// Seconds in `Retry-After` where nobody knows better: a new leader is there within about that time.
const RETRY_AFTER_SECONDS_DEFAULT: u32 = 1;

/// An answer before it is a response of hyper's.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Reply {
    /// JSON with status 200.
    pub(crate) fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// JSON.
    ///
    /// # Panics
    /// Never for our own types: their keys are strings.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("our own answers have a JSON form");
        Self::text(status, JSON, body)
    }

    /// Any text of a content type.
    pub(crate) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))];
        Self { status, headers, body: body.into() }
    }

    /// No body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Not to be kept by anything on the way: the next answer differs.
    #[must_use]
    pub(crate) fn no_store(self) -> Self {
        self.header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    #[must_use]
    pub(crate) fn retry_after_seconds(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Why a request is not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The body or the query does not validate.
    Invalid(Vec<Problem>),
    /// What the node said.
    Node(Error),
    /// No route has this path.
    NotFound,
    /// Main memory has no such key.
    NoSuchKey { key: String },
    /// The path is there, but not with this method.
    MethodNotAllowed { allow: String },
    /// The body is over the limit of bytes.
    TooLarge { bytes_max: usize },
    /// The body did not arrive in time.
    BodyTimeout,
    /// The client stopped sending the body.
    BodyCut,
    /// A browser sends this for a page of another site.
    CrossSite,
    /// The leader answers it, at this address.
    Redirect { location: HeaderValue, detail: String },
}

/// The body of every error but 422. `detail` is the contract; the rest says the same to programs.
#[derive(Serialize)]
struct ErrorBody<'a> {
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// `refused`, `not_done` (send it again) or `unknown` (it may have been executed).
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

#[derive(Serialize)]
struct InvalidBody<'a> {
    detail: &'a [Problem],
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Node(error)
    }
}

impl Failure {
    pub(crate) fn into_reply(self) -> Reply {
        match self {
            Self::Invalid(problems) => {
                Reply::json(StatusCode::UNPROCESSABLE_ENTITY, &InvalidBody { detail: &problems })
            }
            Self::Node(error) => node_error(&error),
            Self::NotFound => plain(StatusCode::NOT_FOUND, "Not Found"),
            Self::NoSuchKey { key } => plain(StatusCode::NOT_FOUND, &format!("no key '{key}'")),
            Self::MethodNotAllowed { allow } => {
                let allow = HeaderValue::from_str(&allow).expect("method names are ASCII");
                plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").header(ALLOW, allow)
            }
            Self::TooLarge { bytes_max } => {
                plain(StatusCode::PAYLOAD_TOO_LARGE, &format!("the limit is {bytes_max} bytes"))
            }
            Self::BodyTimeout => plain(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
            Self::BodyCut => plain(StatusCode::BAD_REQUEST, "the body ended before its end"),
            Self::CrossSite => plain(StatusCode::FORBIDDEN, "a page of another site may not ask for this"),
            Self::Redirect { location, detail } => {
                plain(StatusCode::TEMPORARY_REDIRECT, &detail).header(LOCATION, location)
            }
        }
    }
}

fn plain(status: StatusCode, detail: &str) -> Reply {
    Reply::json(status, &ErrorBody { detail, code: None, outcome: None, hint: None })
}

fn node_error(error: &Error) -> Reply {
    let status = status_of(error.code);
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        return Failure::Invalid(vec![Problem::refused(error.message.as_str())]).into_reply();
    }
    let outcome = match error.code.outcome() {
        Outcome::Refused => "refused",
        Outcome::NotDone => "not_done",
        Outcome::Unknown => "unknown",
    };
    let reply = Reply::json(
        status,
        &ErrorBody {
            detail: if error.message.is_empty() { error.code.meaning() } else { &error.message },
            code: Some(error.code.name()),
            outcome: Some(outcome),
            hint: Some(error.hint.as_str()).filter(|hint| !hint.is_empty()),
        },
    );
    if status != StatusCode::SERVICE_UNAVAILABLE {
        return reply;
    }
    match error.retry_after_ms {
        0 => reply.retry_after_seconds(RETRY_AFTER_SECONDS_DEFAULT),
        retry_after_ms => reply.retry_after_seconds(retry_after_ms.div_ceil(1000)),
    }
}

/// The status of each error: the one table. A new error does not compile until it has its row.
///
/// What the world may get over is 503, also where the outcome is unknown: `outcome` in the body tells the two apart. The
/// protocol's own faults (a bad frame, say) cannot come from a REST request, so they are ours: 500.
pub(crate) const fn status_of(code: ErrorCode) -> StatusCode {
    use ErrorCode as E;
    match code {
        E::NotWrittenHere | E::NotColocated | E::QueuePartitioned => StatusCode::BAD_REQUEST,
        E::Unauthenticated => StatusCode::UNAUTHORIZED,
        E::LockHeldByOther => StatusCode::FORBIDDEN,
        // A stale receipt is a delivery that is not being processed any more: to the caller the same as none.
        E::NotInFlight | E::StaleReceipt => StatusCode::NOT_FOUND,
        E::LockHeld | E::LockNotHeld | E::StaleToken | E::VersionMismatch => StatusCode::CONFLICT,
        E::ConditionFailed | E::NotANumber | E::StaleFill => StatusCode::CONFLICT,
        E::LockTimeout | E::Deadlock | E::WaitCancelled => StatusCode::CONFLICT,
        E::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        E::InvalidArgument => StatusCode::UNPROCESSABLE_ENTITY,
        E::TooManyConnections
        | E::TooManyInFlight
        | E::Unreachable
        | E::NotLeader
        | E::NoLeader
        | E::DeadlineExceeded
        | E::Overloaded
        | E::ShuttingDown
        | E::NotReady
        | E::SessionExpired
        | E::OutcomeUnknown
        | E::QueueFull
        | E::QueueDraining
        | E::BusLeaseLapsed
        | E::StillWaiting
        | E::MainMemoryAway
        | E::OwnerAway => StatusCode::SERVICE_UNAVAILABLE,
        E::BadFrame
        | E::FrameTooLarge
        | E::UnsupportedVersion
        | E::UnknownCommand
        | E::MalformedBody
        | E::WrongCluster
        | E::LostData
        | E::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_status_and_only_unavailable_ones_are_to_be_repeated() {
        for code in ErrorCode::ALL {
            let error = Error::new(*code, "why").retry_after(1_500);
            let response = Failure::Node(error).into_reply().into_response();
            assert!(response.status().is_client_error() || response.status().is_server_error(), "{}", code.name());
            let retry = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
            let unavailable = response.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(retry.as_deref(), unavailable.then_some("2"), "{}", code.name());
            // What was not done and may simply be sent again must never look final.
            if code.outcome() == Outcome::NotDone {
                assert!(unavailable, "{}", code.name());
            }
        }
    }
}
