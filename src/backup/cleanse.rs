//! What of a backup is restored: the data of clients, and nothing that the old cluster's nodes were to each other.
//!
//! | record | what becomes of it |
//! | --- | --- |
//! | a lock, a queue, a message and its body, a session | it stays: leases and timeouts go on in log time, a repeated command gets its first answer |
//! | a key of the cache | its value stays as main memory has it; nobody owns it |
//! | who was on the bus, the list of nodes | gone: the new nodes join and list themselves |
//! | the generation | one more |

use crate::cache::Cell;
use crate::node::machine::GENERATION_KEY;
use crate::record::{self, Change, prefix};

/// What a record becomes in the new cluster; None where it has no place there.
///
/// # Errors
/// Where it is a record of the cache that cannot be read, or one of a kind that this program does not know.
pub fn cleanse(change: Change) -> Result<Option<Change>, String> {
    match (change.key.first(), &change.value) {
        (Some(&(prefix::META | prefix::NODES)), _) => Ok(None),
        (Some(&prefix::CACHE), Some(value)) => {
            let cell: Cell = record::decode(&change.key, value).map_err(|bad| bad.to_string())?;
            // A key that is deleted and owned has a record for its owner's sake only.
            let value = cell.stored.value.is_some().then(|| record::encode(&Cell { owner: None, ..cell }));
            Ok(Some(Change { key: change.key, value }))
        }
        (Some(&(prefix::BODY | prefix::CACHE | prefix::LOCK | prefix::QUEUE | prefix::SESSION)), _) => Ok(Some(change)),
        _ => Err(format!("record {:?} is nobody's", change.key)),
    }
}

/// The record that raises the generation.
pub fn raise(generation: u16) -> Change {
    Change { key: GENERATION_KEY.to_vec(), value: Some(record::encode(&(generation + 1))) }
}

/// The generation, where this is the record that says it.
///
/// # Errors
/// Where it says none.
pub fn generation(change: &Change) -> Result<Option<u16>, String> {
    match &change.value {
        Some(value) if change.key == GENERATION_KEY => {
            record::decode(&change.key, value).map(Some).map_err(|bad| bad.to_string())
        }
        _ => Ok(None),
    }
}

/// The node that owns the key of the cache that this record is of, and that node's data directory.
///
/// # Errors
/// Where it cannot be read.
pub fn owner(change: &Change) -> Result<Option<(String, u64)>, String> {
    match &change.value {
        Some(value) if change.key.first() == Some(&prefix::CACHE) => {
            let cell: Cell = record::decode(&change.key, value).map_err(|bad| bad.to_string())?;
            Ok(cell.owner.map(|owner| (owner.node.to_string(), owner.incarnation.0)))
        }
        _ => Ok(None),
    }
}
