//! The cache journal: local writes to owned lines, on disk before they are seen.

use serde::{Deserialize, Serialize};
use trine_protocol::cache::Version;

use super::message::Versioned;

/// One record of the journal. Of one key, the record with the highest version counts; `Ended` removes all of them up to its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JournalRecord {
    /// The owner wrote this.
    Written {
        /// The key.
        key: String,
        /// Version and value.
        dirty: Versioned,
    },
    /// Main memory has everything up to this version, or the ownership was lost: nothing to replay.
    Ended {
        /// The key.
        key: String,
        /// Up to and including this version.
        version: Version,
    },
}
