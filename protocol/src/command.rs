//! Every command, in one table: code, name, request and answer.

use serde::{Deserialize, Serialize};

use crate::{cache, cluster, lock, queue};

macro_rules! commands {
    ($($code:literal $name:ident: $module:ident -> $answer:ident;)*) => {
        /// The commands of a client; their codes are wire contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Command { $(#[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`]")] $name = $code,)* }

        impl Command {
            /// Every command, in the order of the codes.
            pub const ALL: &'static [Command] = &[$(Command::$name),*];

            /// The command of a code.
            pub const fn from_code(code: u16) -> Option<Self> { match code { $($code => Some(Self::$name),)* _ => None } }

            /// The name that the documentation uses.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name)),* } }
        }

        /// A request of a client.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Request { $(#[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`]")] $name($module::$name),)* }

        impl Request {
            /// Its command.
            pub const fn command(&self) -> Command { match self { $(Self::$name(_) => Command::$name),* } }
        }

        /// An answer to a client.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Response { $(#[doc = concat!("Answer to [`", stringify!($module), "::", stringify!($name), "`].")] $name($module::$answer),)* }

        impl Response {
            /// The command that it answers.
            pub const fn command(&self) -> Command { match self { $(Self::$name(_) => Command::$name),* } }
        }

        $(impl From<$module::$name> for Request { fn from(request: $module::$name) -> Self { Self::$name(request) } })*
    };
}

commands! {
    0x0101 Status: cluster -> NodeStatus;
    0x0102 OpenSession: cluster -> SessionOpened;
    0x0103 KeepAlive: cluster -> Kept;
    0x0201 Enqueue: queue -> Enqueued;
    0x0202 Dequeue: queue -> Dequeued;
    0x0203 Ack: queue -> Acked;
    0x0301 Acquire: lock -> Granted;
    0x0302 Release: lock -> Released;
    0x0303 Renew: lock -> Granted;
    0x0401 Get: cache -> Got;
    0x0402 Put: cache -> Written;
    0x0403 Delete: cache -> Written;
    0x0404 WriteBack: cache -> WrittenBack;
}
