//! The frame: what everything on a connection is cut into.
//!
//! ```text
//!  0        4      5                       13      15
//! +--------+------+-----------------------+-------+------------- - -
//! | length | kind |          id           |command| body
//! |  u32   |  u8  |          u64          |  u16  | MessagePack
//! +--------+------+-----------------------+-------+------------- - -
//!          |<------------------ length bytes ------------------- - ->|
//! ```
//!
//! Numbers are big-endian. `length` counts what follows it, so it is 11 for an empty body and at most
//! [`FRAME_BYTES_MAX`]. `id` is the request's, chosen by who asks and returned by who answers; `command` is a code of
//! [`crate::Command`], 0 where the kind has none.
//!
//! # Invariants
//! - A length is compared with its limit before anything is made room for, and room is made in steps of
//!   [`READ_STEP_BYTES`]: a peer that claims 4 MiB and sends nothing costs one step.
//! - The first frame of a connection is part of the handshake and has a smaller limit of its own.
//! - After an error nothing more is read from the connection: where one frame's end is unknown, so is the next one's start.
//!
//! # Caveats
//! - There is no checksum: TCP's is weak, but TLS underneath brings a strong one, and the log has its own.
//! - A large frame holds up the small ones behind it. Bulk between nodes is therefore cut into chunks of 1 MiB.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::codec;
use crate::command::{Request, RequestHeader, Response};
use crate::error::{Error, ErrorCode};
use crate::limits::{FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX};

/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;
/// Bytes of kind, id and command: the least that a length can say.
pub const HEADER_BYTES: usize = 11;
/// Bytes that room is made for at a time while a frame arrives.
pub const READ_STEP_BYTES: usize = 64 * 1024;

macro_rules! kinds {
    ($($code:literal $name:ident $meaning:literal;)*) => {
        /// What a frame is; the numbers are wire contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind { $(#[doc = $meaning] $name = $code,)* }

        impl Kind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// The kind of a number.
            pub const fn from_code(code: u8) -> Option<Self> { match code { $($code => Some(Self::$name),)* _ => None } }

            /// The name that the documentation uses.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name)),* } }

            /// What it is, in a few words.
            pub const fn meaning(self) -> &'static str { match self { $(Self::$name => $meaning),* } }
        }
    };
}

kinds! {
    1 Hello "The first frame of who connects. Body: `Hello`.";
    2 Welcome "The answer to a hello that was accepted. Body: `Welcome`.";
    3 Request "A command. Body: `[header, message]`.";
    4 Response "The answer to the request with the same id. Body: the command's answer.";
    5 Error "The error to the request with the same id. Body: `Error`.";
    6 Push "Something the node says unasked; its command says what. One that is not known is skipped.";
    7 Ping "Asks whether the other side is there. Either side may send it; no body.";
    8 Pong "The answer to the ping with the same id; no body.";
    9 Goodbye "The last frame before the sender closes the connection. Body: `Error`, the reason.";
    10 Peer "From one node to another; the body is opaque to this crate.";
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The request that it belongs to, 0 where there is none.
    pub id: u64,
    /// The code of its command, 0 where there is none. Not checked here: an unknown one is an answerable error.
    pub command: u16,
    /// MessagePack, or whatever the peers agree on.
    pub body: Bytes,
}

impl Frame {
    /// A frame that belongs to no request.
    pub fn new(kind: Kind, body: Bytes) -> Self {
        Self { kind, id: 0, command: 0, body }
    }

    /// A command under an id that no request in flight on the same connection has.
    pub fn request(id: u64, header: &RequestHeader, request: &Request) -> Self {
        Self { kind: Kind::Request, id, command: request.command().code(), body: request.encode_body(header) }
    }

    /// The answer to a request.
    pub fn response(id: u64, response: &Response) -> Self {
        Self { kind: Kind::Response, id, command: response.command().code(), body: response.encode_body() }
    }

    /// The error to a request; `command` as it came, known or not.
    pub fn error(id: u64, command: u16, error: &Error) -> Self {
        Self { kind: Kind::Error, id, command, body: codec::encode(error) }
    }

    /// The last frame before the sender closes the connection, with the reason.
    pub fn goodbye(error: &Error) -> Self {
        Self::new(Kind::Goodbye, codec::encode(error))
    }

    /// Asks whether the other side is there.
    pub fn ping(id: u64) -> Self {
        Self { kind: Kind::Ping, id, command: 0, body: Bytes::new() }
    }

    /// The answer to [`Frame::ping`].
    pub fn pong(id: u64) -> Self {
        Self { kind: Kind::Pong, id, command: 0, body: Bytes::new() }
    }

    /// What one node sends another.
    pub fn peer(body: Bytes) -> Self {
        Self::new(Kind::Peer, body)
    }

    /// Bytes that it takes on the wire, its length field included.
    pub fn wire_bytes(&self) -> usize {
        LENGTH_BYTES + HEADER_BYTES + self.body.len()
    }

    /// The error that a frame of kind [`Kind::Error`] or [`Kind::Goodbye`] carries.
    ///
    /// # Errors
    /// `MalformedBody` where it carries none.
    pub fn decode_error(&self) -> Result<Error, Error> {
        codec::decode("Error", &self.body)
    }

    /// The whole frame as bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub fn to_bytes(&self) -> Result<Bytes, FrameError> {
        let mut bytes = BytesMut::new();
        write(self, &mut bytes)?;
        Ok(bytes.freeze())
    }
}

/// Why bytes are no frame. The connection they came on is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame, {0} bytes after its start")]
    CutOff(usize),
    /// The length is over the limit.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// As claimed.
        bytes: usize,
        /// As allowed.
        bytes_max: usize,
    },
    /// The length is less than the header's.
    #[error("a frame's length of {0} is less than the 11 bytes of its header")]
    TooShort(usize),
    /// The kind is none of [`Kind`].
    #[error("{0} is no kind of a frame")]
    UnknownKind(u8),
    /// The connection does not start with a handshake.
    #[error("the first frame is a {0:?} and not a handshake")]
    NoHandshake(Kind),
    /// Somebody speaks another protocol.
    #[error("a handshake of Trine's binary protocol was expected, but the other side starts like {0}")]
    Foreign(&'static str),
}

impl FrameError {
    /// What the other side is told before its connection is closed.
    pub fn to_error(&self) -> Error {
        let code = match self {
            Self::TooLarge { .. } => ErrorCode::FrameTooLarge,
            _ => ErrorCode::BadFrame,
        };
        Error::new(code, self.to_string())
    }
}

/// Cuts a connection into frames.
#[derive(Debug)]
pub struct FrameCodec {
    handshake: bool,
}

impl FrameCodec {
    /// For a fresh connection: the first frame that it reads must belong to a handshake and be small.
    pub fn new() -> Self {
        Self { handshake: true }
    }

    /// For a connection whose handshake has been read.
    pub fn after_handshake() -> Self {
        Self { handshake: false }
    }

    fn check_length(&self, source: &[u8], length: usize) -> Result<(), FrameError> {
        let bytes_max = if self.handshake { HANDSHAKE_BYTES_MAX } else { FRAME_BYTES_MAX };
        if self.handshake {
            if let Some(what) = foreign(source) {
                return Err(FrameError::Foreign(what));
            }
        }
        if length > bytes_max {
            return Err(FrameError::TooLarge { bytes: length, bytes_max });
        }
        if length < HEADER_BYTES {
            return Err(FrameError::TooShort(length));
        }
        Ok(())
    }
}

impl Default for FrameCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = source.first_chunk::<LENGTH_BYTES>() else {
            source.reserve(LENGTH_BYTES + HEADER_BYTES);
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        self.check_length(source, length)?;
        // The kind is looked at as soon as it is there: four random megabytes are not waited for.
        let kind = match source.get(LENGTH_BYTES) {
            Some(code) => Kind::from_code(*code).ok_or(FrameError::UnknownKind(*code))?,
            None => return Ok(None),
        };
        if self.handshake && !matches!(kind, Kind::Hello | Kind::Welcome | Kind::Goodbye) {
            return Err(FrameError::NoHandshake(kind));
        }
        let missing = (LENGTH_BYTES + length).saturating_sub(source.len());
        if missing > 0 {
            source.reserve(missing.min(READ_STEP_BYTES));
            return Ok(None);
        }
        let mut bytes = source.split_to(LENGTH_BYTES + length).freeze();
        bytes.advance(LENGTH_BYTES + 1);
        let (id, command) = (bytes.get_u64(), bytes.get_u16());
        self.handshake = false;
        Ok(Some(Frame { kind, id, command, body: bytes }))
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(source)? {
            Some(frame) => Ok(Some(frame)),
            None if source.is_empty() => Ok(None),
            None => Err(FrameError::CutOff(source.len())),
        }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, target: &mut BytesMut) -> Result<(), FrameError> {
        write(&frame, target)
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: &Frame, target: &mut BytesMut) -> Result<(), FrameError> {
        write(frame, target)
    }
}

fn write(frame: &Frame, target: &mut BytesMut) -> Result<(), FrameError> {
    let length = HEADER_BYTES + frame.body.len();
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: length, bytes_max: FRAME_BYTES_MAX });
    }
    target.reserve(LENGTH_BYTES + length);
    target.put_u32(u32::try_from(length).expect("a frame's limit fits its length field"));
    target.put_u8(frame.kind as u8);
    target.put_u64(frame.id);
    target.put_u16(frame.command);
    target.put_slice(&frame.body);
    Ok(())
}

/// Recognises who speaks to the wrong port, from the first bytes. Read as a length, each of these is far over the
/// limit of a handshake; saying what it is spares somebody an hour.
fn foreign(source: &[u8]) -> Option<&'static str> {
    const HTTP: [&[u8]; 11] =
        [b"HTTP", b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI "];
    let start = source.get(..4)?;
    match start {
        _ if HTTP.contains(&start) => Some("HTTP; Trine's HTTP service listens on ports of its own"),
        [0x16, 0x03, ..] => Some("TLS; this port was not told to use it"),
        b"SSH-" => Some("SSH"),
        [b'*', b'1'..=b'9', ..] => Some("Redis (RESP)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
