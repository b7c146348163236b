//! Every command, in one table: code, name, request and answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::{cache, cluster, codec, lock, queue};

/// What goes before the message in every request's body. Every field has a default, so a header may be cut after any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHeader {
    /// Milliseconds that the request has from its arrival; 0 means [`crate::limits::DEADLINE_MS_DEFAULT`], and more than
    /// [`crate::limits::DEADLINE_MS_MAX`] means that.
    #[serde(default)]
    pub remaining_ms: u32,
    /// The session in the request's group; 0 for none.
    #[serde(default)]
    pub session: u64,
    /// The request's number in the session, from 1, each used for one request only. A repeated request has its first number.
    #[serde(default)]
    pub sequence: u64,
    /// Every answer of the session below this number has arrived, so the cluster may forget them.
    #[serde(default)]
    pub acked_below: u64,
}

impl Request {
    /// The grant that must hold for a write to be done, where it names one.
    pub fn demands(&self) -> Option<&lock::IfToken> {
        match self {
            Self::Enqueue(enqueue) => enqueue.if_token.as_ref(),
            Self::Ack(ack) => ack.if_token.as_ref(),
            Self::AckMany(ack) => ack.if_token.as_ref(),
            Self::Nack(nack) => nack.if_token.as_ref(),
            Self::HandOff(hand_off) => hand_off.enqueue.as_ref()?.if_token.as_ref(),
            Self::Put(put) => put.if_token.as_ref(),
            Self::Delete(delete) => delete.if_token.as_ref(),
            Self::Add(add) => add.if_token.as_ref(),
            _ => None,
        }
    }

    /// Whether it may be sent again when its outcome is unknown. As its command says; but a dequeue that waits has no session, for it
    /// would hold up the session's window, and what a lost answer had comes back after its visibility timeout.
    pub fn repeat(&self) -> Repeat {
        match self {
            Self::Dequeue(dequeue) if dequeue.wait_ms > 0 => Repeat::Freely,
            other => other.command().repeat(),
        }
    }
}

/// What a client may do about a command of which it does not know whether it was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Send it again, also under another request id and over another connection: twice does what once does.
    Freely,
    /// Send it again under the same (session, sequence): then it is executed once and answered the same. Without a
    /// session, say that its outcome is unknown.
    InSession,
    /// Say that its outcome is unknown: the same write later may undo somebody else's.
    Never,
}

macro_rules! commands {
    ($($code:literal $name:ident: $module:ident -> $answer:ident, $repeat:ident;)*) => {
        /// The commands of a client; their codes are wire contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Command { $(#[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`]")] $name = $code,)* }

        impl Command {
            /// Every command, in the order of the codes.
            pub const ALL: &'static [Command] = &[$(Command::$name),*];

            /// The command of a code.
            pub const fn from_code(code: u16) -> Option<Self> { match code { $($code => Some(Self::$name),)* _ => None } }

            /// Its code, as a frame carries it.
            pub const fn code(self) -> u16 { self as u16 }

            /// The name that the documentation uses.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name)),* } }

            /// What it is about: `cluster`, `queue`, `lock` or `cache`.
            pub const fn module(self) -> &'static str { match self { $(Self::$name => stringify!($module)),* } }

            /// The name of its answer's type.
            pub const fn answer_name(self) -> &'static str { match self { $(Self::$name => stringify!($answer)),* } }

            /// Whether it may be sent again when its outcome is unknown.
            pub const fn repeat(self) -> Repeat { match self { $(Self::$name => Repeat::$repeat),* } }
        }

        /// A request of a client.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Request { $(#[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`]")] $name($module::$name),)* }

        impl Request {
            /// Its command.
            pub const fn command(&self) -> Command { match self { $(Self::$name(_) => Command::$name),* } }

            /// The body of its frame: `[header, message]`.
            pub fn encode_body(&self, header: &RequestHeader) -> Bytes {
                match self { $(Self::$name(message) => codec::encode(&(header, message))),* }
            }

            /// Reads back what [`Request::encode_body`] made.
            ///
            /// # Errors
            /// `MalformedBody`.
            pub fn decode(command: Command, body: &[u8]) -> Result<(RequestHeader, Self), Error> {
                match command { $(Command::$name => {
                    let (header, message) = codec::decode(stringify!($name), body)?;
                    Ok((header, Self::$name(message)))
                })* }
            }
        }

        /// An answer to a client.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Response { $(#[doc = concat!("Answer to [`", stringify!($module), "::", stringify!($name), "`].")] $name($module::$answer),)* }

        impl Response {
            /// The command that it answers.
            pub const fn command(&self) -> Command { match self { $(Self::$name(_) => Command::$name),* } }

            /// The body of its frame.
            pub fn encode_body(&self) -> Bytes {
                match self { $(Self::$name(message) => codec::encode(message)),* }
            }

            /// Reads back what [`Response::encode_body`] made.
            ///
            /// # Errors
            /// `MalformedBody`.
            pub fn decode(command: Command, body: &[u8]) -> Result<Self, Error> {
                match command { $(Command::$name => {
                    codec::decode(concat!("answer to ", stringify!($name)), body).map(Self::$name)
                })* }
            }
        }

        $(impl From<$module::$name> for Request { fn from(request: $module::$name) -> Self { Self::$name(request) } })*
    };
}

commands! {
    0x0101 Status: cluster -> NodeStatus, Freely;
    0x0102 OpenSession: cluster -> SessionOpened, Freely;
    0x0103 KeepAlive: cluster -> Kept, Freely;
    0x0104 Reshape: cluster -> Reshaped, InSession;
    0x0105 Transfer: cluster -> Transferring, Freely;
    0x0106 Backup: cluster -> BackupBegun, Freely;
    0x0107 BackupRead: cluster -> BackupPart, Freely;
    0x0201 Enqueue: queue -> Enqueued, InSession;
    0x0202 Dequeue: queue -> Dequeued, InSession;
    0x0203 Ack: queue -> Acked, InSession;
    0x0204 Extend: queue -> Extended, InSession;
    0x0205 Nack: queue -> Nacked, InSession;
    0x0206 AckMany: queue -> AckedMany, InSession;
    0x0207 Declare: queue -> Declared, InSession;
    0x0208 Undeclare: queue -> Undeclared, InSession;
    0x0209 SetFlow: queue -> FlowSet, InSession;
    0x020a Purge: queue -> Purged, InSession;
    0x020b Redrive: queue -> Redriven, InSession;
    0x020c Peek: queue -> Peeked, Freely;
    0x020d ListQueues: queue -> Queues, Freely;
    0x020e ShowQueue: queue -> QueueShown, Freely;
    0x020f ExplainQueue: queue -> ExplainedQueue, Freely;
    0x0210 HandOff: queue -> HandedOff, InSession;
    0x0211 Subscribe: queue -> Subscribed, Never;
    0x0212 Credit: queue -> Credited, Never;
    0x0213 Unsubscribe: queue -> Unsubscribed, Never;
    0x0301 Acquire: lock -> Granted, InSession;
    0x0302 Release: lock -> Released, InSession;
    0x0303 Renew: lock -> Granted, InSession;
    0x0304 Inspect: lock -> Inspected, Freely;
    0x0305 Cancel: lock -> Cancelled, InSession;
    0x0306 ForceRelease: lock -> ForceReleased, InSession;
    0x0307 Fence: lock -> Fenced, Freely;
    0x0308 ExplainLock: lock -> LockExplained, Freely;
    0x0309 ExplainClient: lock -> ClientExplained, Freely;
    0x030a ListLocks: lock -> LockPage, Freely;
    0x030b Observe: lock -> Observed, Freely;
    0x0401 Get: cache -> Got, Freely;
    0x0402 Put: cache -> Written, Never;
    0x0403 Delete: cache -> Written, Never;
    0x0404 WriteBack: cache -> WrittenBack, Freely;
    0x0405 WriteBackAll: cache -> AllWrittenBack, Freely;
    0x0406 Add: cache -> Added, Never;
    0x0407 GetOrFill: cache -> Filling, Freely;
    0x0408 MultiGet: cache -> MultiGot, Freely;
    0x0409 MultiPut: cache -> MultiWritten, Never;
    0x040a ListKeys: cache -> Keys, Freely;
    0x040b DeletePrefix: cache -> DeletedPrefix, Never;
    0x040c Explain: cache -> Explained, Freely;
    0x040d Evacuate: cache -> Evacuated, Freely;
    0x040e GetCopy: cache -> CopyGot, Freely;
    0x040f KeepCopies: cache -> CopiesKept, Freely;
    0x0410 DropCopies: cache -> CopiesDropped, Freely;
}
