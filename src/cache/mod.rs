//! MESI on a snoop bus between nodes.

mod agent;
mod config;
mod home;
mod journal;
mod line;
mod memory;
mod message;

pub use agent::{Agent, AgentOut, Operation, Turn};
pub use config::Config;
pub use home::{Committed, Home, HomeOut, Proposal, Standing};
pub use journal::JournalRecord;
pub use line::{Found, Line, LineChange, Lines};
pub use memory::{Applied, Cell, Command, Memory, Own, Owner, WriteBack};
pub use message::{BusMessage, LeaseTag, OwnerMark, Snooped, ToHome, ToNode, Versioned, WriteId};
