//! Receives a request's body, within its limits of bytes and time, and takes it apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trine_protocol::{Error, ErrorCode};

use super::problem::{Part, Problem};
use super::reply::Failure;
use super::{BODIES_BYTES_MAX, BODY_BYTES_MAX};

/// Bytes that are received and thrown away of a body over the limit, so that a client that sends before it listens
/// hears its 413 instead of a broken connection. Beyond that it does not.
const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A body, and its share of the memory that all bodies may take.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// The memory that all bodies of the node share; one permit is one byte.
pub(crate) fn memory() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BODIES_BYTES_MAX))
}

/// Receives a whole body.
///
/// # Errors
/// `TooLarge`, `BodyTimeout`, or `Overloaded` where the memory of all bodies is taken.
pub(crate) async fn receive(
    mut body: Incoming,
    expects_continue: bool,
    time: Duration,
    memory: &Arc<Semaphore>,
) -> Result<Received, Failure> {
    if body.is_end_stream() {
        return Ok(Received { bytes: Bytes::new(), _share: None });
    }
    let too_large = body.size_hint().lower() > BODY_BYTES_MAX as u64;
    if too_large && expects_continue {
        // The client asked before it sent: not reading is the answer.
        return Err(Failure::TooLarge { bytes_max: BODY_BYTES_MAX });
    }
    match tokio::time::timeout(time, collect(&mut body, memory)).await {
        Ok(received) => received,
        Err(_) => Err(Failure::BodyTimeout),
    }
}

async fn collect(body: &mut Incoming, memory: &Arc<Semaphore>) -> Result<Received, Failure> {
    let mut bytes = BytesMut::new();
    let mut share: Option<OwnedSemaphorePermit> = None;
    let mut total = 0;
    let mut failure = None;
    while let Some(frame) = body.frame().await {
        let Some(data) = frame.map_err(|_| Failure::BodyCut)?.into_data().ok() else { continue };
        total += data.len();
        if total > BODY_BYTES_MAX {
            failure = Some(Failure::TooLarge { bytes_max: BODY_BYTES_MAX });
        }
        if total > DISCARDED_BYTES_MAX {
            break;
        }
        if failure.is_some() {
            continue;
        }
        // A frame is at most what hyper reads at once, far below 2^32 bytes.
        match memory.clone().try_acquire_many_owned(data.len() as u32) {
            Ok(more) => match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            },
            Err(_) => {
                failure = Some(Failure::Node(Error::new(
                    ErrorCode::Overloaded,
                    format!("the bodies of all requests take more than {BODIES_BYTES_MAX} bytes"),
                )));
                continue;
            }
        }
        bytes.extend_from_slice(&data);
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(Received { bytes: bytes.freeze(), _share: share }),
    }
}

/// The members of a JSON object, each as it was written. Of a member that stands twice the last one counts.
///
/// # Errors
/// What the body is instead.
pub(crate) fn members(body: &[u8]) -> Result<BTreeMap<String, Box<RawValue>>, Problem> {
    if body.is_empty() {
        return Err(Problem::missing(&[Part::Name("body")]));
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| Problem::json_invalid(error.valid_up_to(), "the bytes are no UTF-8"))?;
    serde_json::from_str(text).map_err(|error| match serde_json::from_str::<&RawValue>(text) {
        Ok(value) if !value.get().starts_with('{') => Problem::not_an_object(),
        Ok(_) => invalid(text, &error),
        Err(error) => invalid(text, &error),
    })
}

fn invalid(text: &str, error: &serde_json::Error) -> Problem {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    // The library ends its sentence with line and column; the byte says the same.
    let sentence = error.to_string();
    let why = sentence.split(" at line ").next().unwrap_or_default();
    Problem::json_invalid((before + error.column().saturating_sub(1)).min(text.len()), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_says_what_it_is_instead() {
        for (body, kind) in [
            (&b""[..], "missing"),
            (b" ", "json_invalid"),
            (b"{", "json_invalid"),
            (b"{\"a\":1,}", "json_invalid"),
            (b"{\"a\":1} x", "json_invalid"),
            (b"{'a':1}", "json_invalid"),
            (b"{\"a\":\"\xff\"}", "json_invalid"),
            (b"{\"\\ud800\":1}", "json_invalid"),
            (b"[1]", "model_attributes_type"),
            (b"\"text\"", "model_attributes_type"),
            (b"null", "model_attributes_type"),
        ] {
            assert_eq!(members(body).unwrap_err().kind, kind, "{}", String::from_utf8_lossy(body));
        }
        let problem = members(b"{\n \"a\": nope}").unwrap_err();
        assert_eq!(problem.loc, [Part::Name("body"), Part::Byte(9)]);
    }

    #[test]
    fn members_keep_their_bytes_however_deep_they_are() {
        let body = r#"{"data": {"b": 1.50, "a": 12345678901234567890123}, "data2": null}"#;
        let found = members(body.as_bytes()).unwrap();
        assert_eq!(found["data"].get(), r#"{"b": 1.50, "a": 12345678901234567890123}"#);
        assert_eq!(found["data2"].get(), "null");
        let deep = format!("{{\"data\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
        assert_eq!(members(deep.as_bytes()).unwrap()["data"].get().len(), 800_000);
    }
}
