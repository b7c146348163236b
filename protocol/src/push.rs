//! What a node says unasked on a client's connection, in one table: code, name, message.
//!
//! A push belongs to no request: its frame's id is 0. A client skips one whose code it does not know.

use bytes::Bytes;

use crate::error::Error;
use crate::frame::{Frame, Kind};
use crate::{cache, codec, queue};

macro_rules! pushes {
    ($($code:literal $name:ident: $module:ident;)*) => {
        /// Something that a node says unasked.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Push { $(#[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`]")] $name($module::$name),)* }

        impl Push {
            /// Every push: its code, its name and what it is about.
            pub const ALL: &'static [(u16, &'static str, &'static str)] = &[$(($code, stringify!($name), stringify!($module))),*];

            /// Its code, as a frame carries it.
            pub const fn code(&self) -> u16 { match self { $(Self::$name(_) => $code),* } }

            /// The body of its frame.
            pub fn encode_body(&self) -> Bytes { match self { $(Self::$name(message) => codec::encode(message)),* } }

            /// Reads back what [`Push::encode_body`] made. None where the code is not known, and the frame is to be skipped.
            ///
            /// # Errors
            /// `MalformedBody`.
            pub fn decode(code: u16, body: &[u8]) -> Result<Option<Self>, Error> {
                match code {
                    $($code => codec::decode(stringify!($name), body).map(|message| Some(Self::$name(message))),)*
                    _ => Ok(None),
                }
            }
        }

        $(impl From<$module::$name> for Push { fn from(message: $module::$name) -> Self { Self::$name(message) } })*
    };
}

pushes! {
    0x8201 Pushed: queue;
    0x8401 CopiesGone: cache;
}

impl Push {
    /// The frame that carries it.
    pub fn to_frame(&self) -> Frame {
        Frame { kind: Kind::Push, id: 0, command: self.code(), body: self.encode_body() }
    }
}
