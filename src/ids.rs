//! The names of things: nodes, groups, incarnations, and the instant at which something happens.
//! The bottom of the house: everything may import this, and this imports nothing of ours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Number of a term of a Raft group.
pub type Term = u64;
/// Position in the log of a Raft group; the first entry has index 1.
pub type Index = u64;

/// Bytes of the longest node name. Sixteen keep [`NodeId`] `Copy` and ordered without an allocation.
pub const NODE_NAME_BYTES_MAX: usize = 16;

/// A node's short name, such as `node1`: 1 to 16 of `a-z`, `0-9` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; NODE_NAME_BYTES_MAX]);

impl NodeId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|b| *b == 0).unwrap_or(NODE_NAME_BYTES_MAX);
        std::str::from_utf8(&self.0[..length]).expect("made from ASCII only")
    }

    /// `node1`, `node2`...: the names that `trine up` and the simulator give.
    pub fn numbered(number: usize) -> Self {
        format!("node{number}").parse().expect("a short ASCII name")
    }
}

impl FromStr for NodeId {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > NODE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(format!("'{name}' is no node name: 1 to {NODE_NAME_BYTES_MAX} of a-z, 0-9 and '-' are"));
        }
        let mut bytes = [0; NODE_NAME_BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self(bytes))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

/// Number of a Raft group, 0 to groups - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// Random, new with each data directory: tells a node that lost its disk from the one it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// A replica of a group: a node in one of its lives. Text is `node1` for a node of the cluster's beginning, whose groups knew it
/// before it had a data directory, and `node1.00000000000000af` for one that joined later, with its incarnation.
///
/// A node that lost its disk comes back as another replica: what the first one promised does not bind it, and what it
/// says does not count as the first one's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The node.
    pub node: NodeId,
    /// Its data directory; 0 for a node of the cluster's beginning.
    pub incarnation: Incarnation,
}

impl ReplicaId {
    /// The replica of a node of the cluster's beginning.
    pub fn founder(node: NodeId) -> Self {
        Self { node, incarnation: Incarnation(0) }
    }

    /// The replica of a node with that data directory; `joins` where the node was not there at the beginning, or not with it.
    pub fn of(node: NodeId, incarnation: Incarnation, joins: bool) -> Self {
        if joins { Self { node, incarnation } } else { Self::founder(node) }
    }
}

impl FromStr for ReplicaId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((node, life)) = text.split_once('.') else { return Ok(Self::founder(text.parse()?)) };
        let incarnation = u64::from_str_radix(life, 16).ok().filter(|life| *life > 0);
        let incarnation = incarnation.ok_or_else(|| format!("'{text}' is no replica: NAME or NAME.HEX is"))?;
        Ok(Self { node: node.parse()?, incarnation: Incarnation(incarnation) })
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.incarnation {
            Incarnation(0) => f.pad(self.node.as_str()),
            Incarnation(life) => write!(f, "{}.{life:016x}", self.node),
        }
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ReplicaId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReplicaId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An instant as a pure module gets to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Microseconds on the node's monotonic clock, which goes on while the machine sleeps. Only durations mean anything.
    pub mono_us: u64,
    /// Milliseconds since 1970 on the node's wall clock, which may be wrong. Serves schedules, never a lease.
    pub wall_ms: u64,
}

/// Where in a group's log a command is applied. All that a state machine may know of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Index of the entry.
    pub index: Index,
    /// Log time of the entry: leases and visibility timeouts count in it.
    pub stamp_ms: u64,
    /// Wall stamp of the entry: serves schedules, never a lease.
    pub wall_ms: u64,
    /// The cluster's generation, raised by a restore from a backup.
    pub generation: u16,
}

impl At {
    /// The fencing token of a grant that this entry makes: the generation in the top 16 bits, the index below.
    pub fn token(&self) -> u64 {
        assert!(self.index < 1 << 48, "index {} does not fit a token", self.index);
        u64::from(self.generation) << 48 | self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lower_case_ascii() {
        for name in ["node1", "a", "sixteen-letters1"] {
            assert_eq!(name.parse::<NodeId>().unwrap().as_str(), name);
        }
        for name in ["", "seventeen-letters", "Node1", "nöde", "a b"] {
            assert!(name.parse::<NodeId>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_replica_is_a_name_and_perhaps_a_life() {
        for text in ["node1", "node1.00000000000000af", "a.ffffffffffffffff"] {
            let id: ReplicaId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
        }
        assert_eq!("node1".parse(), Ok(ReplicaId::founder(NodeId::numbered(1))));
        for text in ["", ".1", "node1.", "node1.0", "node1.xyz", "node1.1.2"] {
            assert!(text.parse::<ReplicaId>().is_err(), "{text}");
        }
    }
}
