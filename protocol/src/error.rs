//! Every error of Trine, in one table: code, name, what a caller may conclude from it.

use serde::{Deserialize, Serialize};

/// What a caller may conclude from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request was not executed and will not be, unless it is changed or the world is: do not repeat it as it is.
    Refused,
    /// The request was not executed; the same request may be sent again.
    NotDone,
    /// The request may have been executed, or may yet be. Only the same (session, sequence) is safe to send again.
    Unknown,
}

macro_rules! errors {
    ($($code:literal $name:ident $outcome:ident $meaning:literal;)*) => {
        /// The errors; their numbers are wire contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "u16", from = "u16")]
        #[repr(u16)]
        pub enum ErrorCode { $(#[doc = $meaning] $name = $code,)* }

        impl ErrorCode {
            /// Every error, in the order of the numbers.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The name that the documentation uses.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name)),* } }

            /// What a caller may conclude.
            pub const fn outcome(self) -> Outcome { match self { $(Self::$name => Outcome::$outcome),* } }

            /// What it means, in one sentence.
            pub const fn meaning(self) -> &'static str { match self { $(Self::$name => $meaning),* } }
        }

        impl From<u16> for ErrorCode {
            /// A number of a newer version reads as [`ErrorCode::Internal`]: the outcome is then unknown.
            fn from(code: u16) -> Self { match code { $($code => Self::$name,)* _ => Self::Internal } }
        }
    };
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> u16 {
        code as u16
    }
}

errors! {
    1 BadFrame Refused "The bytes are no frame of this protocol; the connection is closed.";
    2 FrameTooLarge Refused "The frame's length is over the limit; the connection is closed.";
    3 UnsupportedVersion Refused "No protocol version is common to both sides; the connection is closed.";
    4 UnknownCommand Refused "This node does not know the command code.";
    5 MalformedBody Refused "The body is not the MessagePack form of this command.";
    6 Unauthenticated Refused "The credentials are missing or wrong; the connection is closed.";
    7 WrongCluster Refused "The other side belongs to another cluster, or is another incarnation of a known node.";
    8 TooManyConnections NotDone "The node has as many connections as it takes.";
    9 TooManyInFlight NotDone "The connection has as many unanswered requests as it may have.";
    10 Unreachable NotDone "No connection to a node: the request did not leave the client. Only clients say this.";
    11 LostData Refused "The node was known with another data directory: what it promised is lost with that one, and it must be let in anew.";
    20 InvalidArgument Refused "A field is outside its range.";
    21 TooLarge Refused "A name, key or value is over its limit.";
    22 NotColocated Refused "The names belong to different groups and one command cannot span them.";
    23 VersionMismatch Refused "What the request counts on has changed meanwhile; the hint has the present version.";
    30 NotLeader NotDone "This node does not lead the group; the hint names the node that does.";
    31 NoLeader NotDone "The group has no leader now.";
    32 DeadlineExceeded Unknown "No answer within the request's time; it may have been executed.";
    33 Overloaded NotDone "A bounded buffer is full; try again later.";
    34 ShuttingDown NotDone "The node is about to stop.";
    35 NotReady NotDone "The node is still starting.";
    36 SessionExpired Unknown "The session has ended: what was sent under it for the first time was not executed, what was repeated may have been before.";
    37 OutcomeUnknown Unknown "The request was cut off half-way; it may take effect.";
    40 QueueFull NotDone "The queue holds as many messages as it may.";
    41 NotInFlight Refused "No such delivery is being processed.";
    42 StaleReceipt Refused "The message was handed out again after this delivery.";
    43 QueueDraining NotDone "The queue is being drained and takes nothing in.";
    44 QueuePartitioned Refused "The queue is declared in partitions: the command must name one of them.";
    50 LockHeld Refused "Another grant of the lock holds.";
    51 LockNotHeld Refused "Nobody holds the lock.";
    52 LockHeldByOther Refused "Another client holds the lock.";
    53 StaleToken Refused "A later grant of the lock exists.";
    54 LockTimeout Refused "The lock could not be had within the time that the request was to wait; it does not wait any more.";
    55 StillWaiting Unknown "Nothing to tell yet, and the request's own time is over: the same (session, sequence) goes on waiting, in the same place.";
    56 Deadlock Refused "The client would wait for itself; the hint names the cycle of clients and locks.";
    57 WaitCancelled Refused "The wait was ended by a cancellation, or because its sender was silent for too long.";
    60 BusLeaseLapsed NotDone "This node has no valid lease on the snoop bus of the key's group, so it serves no copy.";
    61 OwnerAway NotDone "The node that has the newest value of this key is away.";
    62 NotWrittenHere Refused "This node is not the one that wrote the line last.";
    63 ConditionFailed Refused "The key is not as the write demands; the hint has its present version.";
    64 NotANumber Refused "The key's value is no decimal number of 64 bits, or the sum would be none.";
    65 StaleFill Refused "The right to fill this key is over: its time has passed, or somebody has written the key.";
    66 MainMemoryAway NotDone "Redis, where values lie, cannot be reached or does not give the key; what is cached is served, and what is written is kept.";
    99 Internal Unknown "A fault of the node; its log says more.";
}

/// An error as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Error {
    /// Which.
    pub code: ErrorCode,
    /// What was wrong and what would be right, for a person.
    pub message: String,
    /// When it makes sense to try again, in milliseconds; 0 says nothing.
    #[serde(default)]
    pub retry_after_ms: u32,
    /// With `NotLeader` the leader's client address, empty where it is not known; with `LockHeld` the holder; with `OwnerAway` and
    /// `NotWrittenHere` the node that has or wrote the value; with `VersionMismatch` and `ConditionFailed` the present version, where there is one; otherwise empty.
    #[serde(default)]
    pub hint: String,
}

impl Error {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: 0, hint: String::new() }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with the time after which to try again.
    #[must_use]
    pub fn retry_after(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = retry_after_ms;
        self
    }
}
