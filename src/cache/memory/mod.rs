//! The replicated half of the cache: main memory, who owns which key, and who is on the bus.
//!
//! A deterministic state machine: every replica of the group applies the same [`Command`]s. Only the group's home
//! proposes them, but a command of a deposed home may still be committed after its successor's election; so each one is
//! conditional on what its proposer saw, and void where that has changed.
//!
//! Where values lie in Redis this has what Redis may lack, and no more: see [`Memory::is_behind`].

mod behind;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trine_protocol::cache::Version;
use trine_protocol::lock::IfToken;

use crate::ids::{At, Incarnation, Index, NodeId};
use crate::record::{self, BadRecord, Change, prefix};

use behind::{BEHIND_KEY, Behind};

use super::change::Expires;
use super::message::{OwnerMark, Versioned, WriteId};

/// A command of the cache in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// This node is on the bus: a new home waits for it.
    Join {
        /// The node.
        node: NodeId,
        /// Its data directory.
        incarnation: Incarnation,
    },
    /// That life of the node is on the bus no more: a new home does not wait for it.
    Leave {
        /// The node.
        node: NodeId,
        /// Its data directory.
        incarnation: Incarnation,
    },
    /// This node owns the key from here on, and this is what it writes first.
    Own(Own),
    /// The owner's newest value; with `end` nobody owns the key any more. Void unless owner, incarnation and epoch match.
    WriteBack(WriteBack),
    /// That life of the node owns nothing any more, and main memory has all that it wrote. Ends up to a thousand ownerships.
    Release {
        /// The node.
        node: NodeId,
        /// Its data directory.
        incarnation: Incarnation,
    },
    /// That value of a key is gone, its time is over. Void where the key has another one, or an owner.
    Remove(Remove),
    /// What is here lies in front of Redis from here on.
    Behind,
    /// Redis has that value of a key, or that absence. Void where the key has another one, or an owner.
    Flushed(Remove),
}

/// Ownerships that one `Release` ends.
const RELEASED_MAX: usize = 1_000;

/// See [`Command::Own`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Own {
    /// The key.
    pub key: String,
    /// The new owner.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// The write that is carried.
    pub write: WriteId,
    /// What it writes; None deletes.
    pub value: Option<Bytes>,
    /// Epoch of the ownership that this replaces: void where another one holds.
    pub replaces: Option<Index>,
    /// What the value is.
    #[serde(default)]
    pub content_type: String,
    /// When it goes by itself. Nobody owns a key that does.
    #[serde(default)]
    pub expires: Expires,
    /// Nobody owns the key afterwards.
    #[serde(default)]
    pub through: bool,
    /// What an addition came to.
    #[serde(default)]
    pub sum: Option<i64>,
    /// Nothing is written, for the key is not as the write demands: it was sent before, so only the log can tell whether it was done then.
    #[serde(default)]
    pub refused: bool,
    /// The grant of a lock that must hold for it, looked at in the same entry before this is applied.
    #[serde(default)]
    pub if_token: Option<IfToken>,
}

/// See [`Command::WriteBack`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WriteBack {
    /// The key.
    pub key: String,
    /// The owner.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// The ownership.
    pub epoch: Index,
    /// The newest value, unless main memory has it.
    pub dirty: Option<Versioned>,
    /// Whether the ownership ends.
    pub end: bool,
}

/// See [`Command::Remove`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Remove {
    /// The key.
    pub key: String,
    /// Which value of it.
    pub version: Version,
}

/// Who may write a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// The data directory that its journal is in.
    pub incarnation: Incarnation,
    /// Index of the entry that made it the owner.
    pub epoch: Index,
    /// The write that the entry carried.
    pub write: WriteId,
    /// Its sum, where it was an addition.
    #[serde(default)]
    pub sum: Option<i64>,
}

impl Own {
    /// Says that a write is refused, unless it was done before.
    pub fn refusal(key: String, node: NodeId, incarnation: Incarnation, write: WriteId) -> Self {
        Self {
            key,
            node,
            incarnation,
            write,
            value: None,
            replaces: None,
            content_type: String::new(),
            expires: Expires::Never,
            through: false,
            sum: None,
            refused: true,
            if_token: None,
        }
    }
}

impl Owner {
    /// What a snoop calls it.
    pub fn mark(&self) -> OwnerMark {
        OwnerMark { epoch: self.epoch, write: self.write, sum: self.sum }
    }
}

/// A key of main memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// The last value written back; older than the owner's where there is one.
    pub stored: Versioned,
    /// The node that wrote it.
    pub writer: NodeId,
    /// Who may write it.
    pub owner: Option<Owner>,
    /// Redis has it, where main memory lies in front of one. It is here because it goes by itself.
    #[serde(default)]
    pub flushed: bool,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Applied {
    /// The node is on the bus.
    Joined,
    /// The node is not on the bus any more.
    Left,
    /// The ownership began, with this epoch.
    Owned(Index),
    /// The value is stored, and the ownership over where the command said so.
    WrittenBack,
    /// Some ownerships of that life are over; all of them, where there were no more than one command ends.
    Released,
    /// What the command counted on had changed: nothing happened.
    Void,
    /// The value is stored, and nobody owns the key; or the ownership began, with the sum that its write came to.
    Wrote {
        /// Index of the entry: the value's epoch.
        index: Index,
        /// The sum, where it was an addition.
        sum: Option<i64>,
    },
    /// The write was refused: the key was not as it demanded.
    Refused,
    /// The value is gone.
    Removed,
    /// It is noted.
    Noted,
}

impl Applied {
    /// The epoch of a write that was done, and its sum.
    pub fn write(self) -> Option<(Index, Option<i64>)> {
        match self {
            Self::Owned(index) => Some((index, None)),
            Self::Wrote { index, sum } => Some((index, sum)),
            _ => None,
        }
    }
}

/// Main memory of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    cells: BTreeMap<String, Cell>,
    members: BTreeMap<NodeId, Incarnation>,
    bytes: usize,
    applied: Index,
    /// Which keys go by themselves, and when.
    expiring: BTreeSet<(u64, String)>,
    changed_cells: BTreeSet<String>,
    changed_members: BTreeSet<NodeId>,
    behind: Behind,
}

impl Memory {
    /// Applies one command.
    pub fn apply(&mut self, at: At, command: &Command) -> Applied {
        self.applied = at.index;
        match command {
            Command::Join { node, incarnation } => {
                self.members.insert(*node, *incarnation);
                self.changed_members.insert(*node);
                Applied::Joined
            }
            Command::Leave { node, incarnation } => {
                if self.members.get(node) != Some(incarnation) {
                    return Applied::Void;
                }
                self.members.remove(node);
                self.changed_members.insert(*node);
                Applied::Left
            }
            Command::Own(own) => self.own(at, own),
            Command::WriteBack(write_back) => self.write_back(write_back),
            Command::Release { node, incarnation } => self.release(*node, *incarnation),
            Command::Remove(remove) => {
                let its = |cell: &Cell| cell.owner.is_none() && cell.stored.version == remove.version;
                if !self.cells.get(&remove.key).is_some_and(its) {
                    return Applied::Void;
                }
                let writer = self.cells[&remove.key].writer;
                let stored = Versioned::new(Version { epoch: at.index, count: 0 }, None);
                self.put(&remove.key, Cell { stored, writer, owner: None, flushed: false });
                Applied::Removed
            }
            Command::Behind => self.begin_behind(),
            Command::Flushed(flushed) => self.flushed(flushed),
        }
    }

    /// Notes that the log has come this far.
    pub fn advance(&mut self, index: Index) {
        self.applied = index;
    }

    fn own(&mut self, at: At, own: &Own) -> Applied {
        let index = at.index;
        if own.refused {
            return Applied::Refused;
        }
        if self.owner(&own.key).map(|owner| owner.epoch) != own.replaces {
            return Applied::Void;
        }
        let expires_ms = match own.expires {
            Expires::Never => 0,
            Expires::In(ttl_ms) => at.stamp_ms.saturating_add(ttl_ms),
            Expires::At(expires_ms) => expires_ms,
        };
        let owns = !own.through && expires_ms == 0;
        let Own { node, incarnation, write, sum, .. } = *own;
        let owner = owns.then_some(Owner { node, incarnation, epoch: index, write, sum });
        let version = Version { epoch: index, count: 0 };
        let (value, content_type) = (own.value.clone(), own.content_type.clone());
        let stored = Versioned { version, value, content_type, expires_ms };
        self.put(&own.key, Cell { stored, writer: own.node, owner, flushed: false });
        if owns && sum.is_none() { Applied::Owned(index) } else { Applied::Wrote { index, sum } }
    }

    fn write_back(&mut self, write_back: &WriteBack) -> Applied {
        let Some(cell) = self.cells.get(&write_back.key) else { return Applied::Void };
        let same = |owner: &Owner| {
            (owner.node, owner.incarnation, owner.epoch) == (write_back.node, write_back.incarnation, write_back.epoch)
        };
        if !cell.owner.as_ref().is_some_and(same) {
            return Applied::Void;
        }
        let mut cell = cell.clone();
        if let Some(dirty) = &write_back.dirty
            && dirty.version > cell.stored.version
        {
            cell.stored = dirty.clone();
            cell.writer = write_back.node;
        }
        if write_back.end {
            cell.owner = None;
        }
        self.put(&write_back.key, cell);
        Applied::WrittenBack
    }

    fn release(&mut self, node: NodeId, incarnation: Incarnation) -> Applied {
        let keys: Vec<String> = self.owned_by(node, incarnation).take(RELEASED_MAX).cloned().collect();
        for key in keys {
            let cell = Cell { owner: None, ..self.cells[&key].clone() };
            self.put(&key, cell);
        }
        Applied::Released
    }

    /// The keys that a life of a node owns.
    pub fn owned_by(&self, node: NodeId, incarnation: Incarnation) -> impl Iterator<Item = &String> {
        let owns = move |cell: &Cell| cell.owner.is_some_and(|it| (it.node, it.incarnation) == (node, incarnation));
        self.cells.iter().filter(move |(_, cell)| owns(cell)).map(|(key, _)| key)
    }

    fn put(&mut self, key: &str, cell: Cell) {
        self.changed_cells.insert(key.to_owned());
        self.remove(key);
        // A deleted key that nobody owns leaves nothing behind, but where Redis has to be told: the version of its absence is the log's index.
        if cell.stored.value.is_some() || cell.owner.is_some() || self.behind.is_on() {
            self.insert(key, cell);
        }
    }

    fn insert(&mut self, key: &str, cell: Cell) {
        self.bytes += size(key, &cell);
        if cell.stored.expires_ms > 0 {
            self.expiring.insert((cell.stored.expires_ms, key.to_owned()));
        }
        self.behind.comes(key, &cell);
        self.cells.insert(key.to_owned(), cell);
    }

    fn remove(&mut self, key: &str) {
        let Some(old) = self.cells.remove(key) else { return };
        self.behind.goes(key, &old);
        self.bytes -= size(key, &old);
        if old.stored.expires_ms > 0 {
            self.expiring.remove(&(old.stored.expires_ms, key.to_owned()));
        }
    }

    /// The keys whose time is over at this instant of log time, the longest overdue first.
    pub fn expired(&self, log_ms: u64) -> impl Iterator<Item = &String> {
        self.expiring.iter().take_while(move |(expires_ms, _)| *expires_ms <= log_ms).map(|(_, key)| key)
    }

    /// The keys that begin with a prefix and come after another key, in order; those among them that exist no more but have an owner too.
    pub fn keys<'a>(&'a self, prefix: &'a str, after: &'a str) -> impl Iterator<Item = &'a String> {
        let from = after.max(prefix).to_owned();
        let behind =
            self.cells.range(from..).map(|(key, _)| key).filter(move |key| after.is_empty() || key.as_str() > after);
        behind.take_while(move |key| key.starts_with(prefix))
    }

    /// A key's cell, if it exists or is owned.
    pub fn cell(&self, key: &str) -> Option<&Cell> {
        self.cells.get(key)
    }

    /// Who owns a key.
    pub fn owner(&self, key: &str) -> Option<&Owner> {
        self.cells.get(key).and_then(|cell| cell.owner.as_ref())
    }

    /// What main memory has of a key. Absence has a version too: that of the log so far, above all earlier ones of the key.
    pub fn stored(&self, key: &str) -> Versioned {
        match self.cells.get(key) {
            Some(cell) if cell.stored.value.is_some() => cell.stored.clone(),
            _ => Versioned::new(Version { epoch: self.applied, count: 0 }, None),
        }
    }

    /// The nodes on the bus.
    pub fn members(&self) -> &BTreeMap<NodeId, Incarnation> {
        &self.members
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every key in order.
    pub fn cells(&self) -> impl Iterator<Item = (&String, &Cell)> {
        self.cells.iter()
    }

    /// The records that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let (cells, members) = (std::mem::take(&mut self.changed_cells), std::mem::take(&mut self.changed_members));
        let behind = self.behind.take_change();
        let cells = cells
            .into_iter()
            .map(|key| Change { value: self.cells.get(&key).map(record::encode), key: cell_key(&key) });
        let members = members
            .into_iter()
            .map(|node| Change { key: member_key(node), value: self.members.get(&node).map(record::encode) });
        cells.chain(members).chain(behind).collect()
    }

    /// All records.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let members = self.members.iter().map(|(node, incarnation)| (member_key(*node), record::encode(incarnation)));
        let cells = self.cells.iter().map(|(key, cell)| (cell_key(key), record::encode(cell)));
        self.behind.record().into_iter().chain(members).chain(cells).collect()
    }

    /// Takes one record back.
    ///
    /// # Errors
    /// Where it is no record of the cache.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRecord> {
        let bad = |why: &str| BadRecord { key: key.to_vec(), why: why.to_owned() };
        let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(|| bad("no UTF-8"))?;
        if key == BEHIND_KEY {
            self.begin_behind();
            self.behind.take_change();
        } else if key[0] == prefix::META {
            let name = name.strip_prefix("member/").ok_or_else(|| bad("no member"))?;
            let node = name.parse::<NodeId>().map_err(|why| bad(&why))?;
            self.members.insert(node, record::decode(key, value)?);
        } else {
            self.insert(name, record::decode(key, value)?);
        }
        Ok(())
    }
}

fn size(key: &str, cell: &Cell) -> usize {
    key.len() + cell.stored.bytes()
}

fn cell_key(key: &str) -> Vec<u8> {
    [&[prefix::CACHE], key.as_bytes()].concat()
}

fn member_key(node: NodeId) -> Vec<u8> {
    [&[prefix::META], b"member/".as_slice(), node.as_str().as_bytes()].concat()
}
