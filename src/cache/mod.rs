//! MESI on a snoop bus between nodes.

mod journal;
mod line;
mod message;

pub use journal::JournalRecord;
pub use line::{Found, Line, LineChange, Lines};
pub use message::{BusMessage, LeaseTag, OwnerMark, Snooped, ToHome, ToNode, Versioned, WriteId};
