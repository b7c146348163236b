//! Bodies: how a message becomes MessagePack and comes back.
//!
//! A struct is an array of its fields in their order; an enum is the name of its case, or a map from that name to
//! what the case holds; bytes are `bin`, text is `str`, nothing is `nil`; integers take their shortest form.
//!
//! # How messages grow
//! New fields come at the end only, and each has a default.
//! - An **old reader** skips elements behind the fields that it knows (rmp-serde by itself refuses them; the `lenient`
//!   layer between it and serde is what skips). So an array that is longer than expected is no error.
//! - A **new reader** gives fields that are missing at the end their default. Fields of the first version have none
//!   unless the contract says so, so an array that is too short for them is `MalformedBody`.
//!
//! What can be said in two ways is refused in all but one where that costs nothing: a struct as a map is `MalformedBody`.
//!
//! # Invariants
//! - No input makes a decoder panic, recurse deeper than [`BODY_DEPTH_MAX`], or allocate more than it has bytes for: no
//!   collection is given room from its claimed length.
//! - All bytes of a body belong to its message; one more is `MalformedBody`.
//!
//! # Caveats
//! - Values are copied out of the frame. Borrowing would save one copy of at most 1 MiB and tie every message to a
//!   lifetime or to its frame's buffer.

mod lenient;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::{Command, Request, RequestHeader, Response};
use crate::error::{Error, ErrorCode};
use crate::limits::BODY_DEPTH_MAX;

use lenient::{Lenient, Trace};

/// Characters of a decoder's complaint that travel back; it may quote what it complains about.
const COMPLAINT_CHARACTERS_MAX: usize = 200;

/// A message as MessagePack.
///
/// # Panics
/// Never for the messages of this crate: they hold nothing that MessagePack has no form for.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    Bytes::from(rmp_serde::to_vec(message).expect("our own messages have a MessagePack form"))
}

/// Reads back what [`encode`] made; `what` names it in the error.
///
/// # Errors
/// `MalformedBody`, saying in which field and what was wrong.
pub fn decode<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Error> {
    let trace = Trace::default();
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    // rmp-serde refuses the level at which its counter reaches zero.
    deserializer.set_max_depth(BODY_DEPTH_MAX + 1);
    let malformed = |complaint: String| {
        let complaint: String = complaint.chars().take(COMPLAINT_CHARACTERS_MAX).collect();
        let place = trace.field().map(|(name, field)| format!(" in {name}.{field}")).unwrap_or_default();
        Error::new(ErrorCode::MalformedBody, format!("{what}{place}: {complaint}"))
    };
    let message =
        T::deserialize(Lenient::new(&mut deserializer, &trace)).map_err(|error| malformed(complaint(&error)))?;
    // A one-byte number is asked for: only where no byte is left does reading its marker fail.
    match u8::deserialize(&mut deserializer) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(message),
        _ => Err(malformed("bytes follow the message".into())),
    }
}

/// The complaint in words that fit somebody who does not know the library.
fn complaint(error: &rmp_serde::decode::Error) -> String {
    use rmp_serde::decode::Error as Cause;
    match error {
        Cause::InvalidMarkerRead(_) | Cause::InvalidDataRead(_) => "the body ends too early".into(),
        Cause::TypeMismatch(marker) => format!("unexpected MessagePack type {marker:?}"),
        Cause::LengthMismatch(length) => format!("an array of {length} elements was expected"),
        Cause::DepthLimitExceeded => format!("nested deeper than {BODY_DEPTH_MAX} levels"),
        other => other.to_string(),
    }
}

/// Reads a request's body, `[header, message]`, by the code of its command.
///
/// # Errors
/// `UnknownCommand`, `MalformedBody`.
pub fn decode_request(code: u16, body: &[u8]) -> Result<(RequestHeader, Request), Error> {
    Request::decode(known(code)?, body)
}

/// Reads an answer's body by the code of its command.
///
/// # Errors
/// `UnknownCommand`, `MalformedBody`.
pub fn decode_response(code: u16, body: &[u8]) -> Result<Response, Error> {
    Response::decode(known(code)?, body)
}

fn known(code: u16) -> Result<Command, Error> {
    Command::from_code(code)
        .ok_or_else(|| Error::new(ErrorCode::UnknownCommand, format!("{code:#06x} is no command of this version")))
}

#[cfg(test)]
mod tests;
