//! How the records of a group lie in sled: keys, chunks of large values, staged changes.
//!
//! ```text
//!   group u32 | 0 u32                                       pointer: generation, applied meta, chunks staged
//!   group u32 | 0 u32 | 1 | number u32                      a chunk of staged changes
//!   group u32 | generation u32 | 0 | key                    a record: tag, and the value or its length
//!   group u32 | generation u32 | 1 | length u32 | key | number u32    a chunk of a large value
//! ```
//! Numbers are big-endian, so that keys sort by group, generation, and then as the records' own keys do. A value of sled is
//! never above [`STORED_BYTES_MAX`]: sled puts larger pages into files that it does not sync (`safety.md`, 4.1).

use crate::ids::GroupId;
use crate::record::{Change, prefix};

/// Bytes of a value in sled: 16 of them make a leaf, which must stay below a quarter of sled's segment.
pub(super) const STORED_BYTES_MAX: usize = 64 * 1024;
/// Bytes that tell a record's value from a reference to chunks.
const TAG_INLINE: u8 = 0;
const TAG_CHUNKED: u8 = 1;

/// Generation under which a group's pointer and staged changes are; those of records begin at 1.
const POINTER_GENERATION: u32 = 0;
const AREA_RECORDS: u8 = 0;
const AREA_CHUNKS: u8 = 1;

fn generation_prefix(group: GroupId, generation: u32) -> Vec<u8> {
    [group.0.to_be_bytes(), generation.to_be_bytes()].concat()
}

/// The key of a group's pointer.
pub(super) fn pointer(group: GroupId) -> Vec<u8> {
    generation_prefix(group, POINTER_GENERATION)
}

/// The key of a chunk of staged changes.
pub(super) fn staged(group: GroupId, number: u32) -> Vec<u8> {
    let mut key = pointer(group);
    key.push(AREA_CHUNKS);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Everything of one generation of a group.
pub(super) fn generation(group: GroupId, generation: u32) -> std::ops::Range<Vec<u8>> {
    generation_prefix(group, generation)..after(generation_prefix(group, generation))
}

/// All staged changes of a group.
pub(super) fn all_staged(group: GroupId) -> std::ops::Range<Vec<u8>> {
    staged(group, 0)..after(pointer(group))
}

/// All records of bodies of one generation of a group.
pub(super) fn bodies(group: GroupId, generation: u32) -> std::ops::Range<Vec<u8>> {
    record(group, generation, &[prefix::BODY])..record(group, generation, &[prefix::BODY + 1])
}

/// The key of a record.
pub(super) fn record(group: GroupId, generation: u32, key: &[u8]) -> Vec<u8> {
    let mut full = generation_prefix(group, generation);
    full.push(AREA_RECORDS);
    full.extend_from_slice(key);
    full
}

/// Bytes before a record's own key.
pub(super) const RECORD_KEY_OFFSET: usize = 9;

/// The keys of all records of a generation.
pub(super) fn records(group: GroupId, generation: u32) -> std::ops::Range<Vec<u8>> {
    record(group, generation, &[])..chunk_area(group, generation)
}

fn chunk_area(group: GroupId, generation: u32) -> Vec<u8> {
    let mut key = generation_prefix(group, generation);
    key.push(AREA_CHUNKS);
    key
}

/// The key of a chunk of a record's value.
pub(super) fn chunk(group: GroupId, generation: u32, key: &[u8], number: u32) -> Vec<u8> {
    let mut full = chunk_area(group, generation);
    full.extend_from_slice(&u32::try_from(key.len()).expect("a key is far below 4 GiB").to_be_bytes());
    full.extend_from_slice(key);
    full.extend_from_slice(&number.to_be_bytes());
    full
}

/// Group and generation that a key of sled belongs to.
pub(super) fn owner(key: &[u8]) -> Option<(GroupId, u32)> {
    let number = |range: std::ops::Range<usize>| Some(u32::from_be_bytes(key.get(range)?.try_into().ok()?));
    Some((GroupId(number(0..4)?), number(4..8)?))
}

/// The first key after all that begin with `prefix`.
fn after(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    // Nothing but 0xff: group and generation would have to be the last ones of 32 bits.
    vec![u8::MAX; RECORD_KEY_OFFSET]
}

/// What is stored under a record's key: the value itself, or how many bytes there are in chunks.
#[derive(Debug, PartialEq)]
pub(super) enum Stored<'a> {
    /// The value.
    Inline(&'a [u8]),
    /// Bytes of the value; they are in chunks of [`STORED_BYTES_MAX`].
    Chunked(u64),
}

impl<'a> Stored<'a> {
    /// Reads what is stored under a record's key.
    pub(super) fn decode(stored: &'a [u8]) -> Option<Self> {
        match stored.split_first()? {
            (&TAG_INLINE, value) => Some(Self::Inline(value)),
            (&TAG_CHUNKED, length) => Some(Self::Chunked(u64::from_be_bytes(length.try_into().ok()?))),
            _ => None,
        }
    }

    /// How many chunks there are.
    pub(super) fn chunks(&self) -> u32 {
        match self {
            Self::Inline(_) => 0,
            Self::Chunked(bytes) => u32::try_from(bytes.div_ceil(STORED_BYTES_MAX as u64)).unwrap_or(u32::MAX),
        }
    }
}

/// What a value is stored as: what goes under the record's key, and the chunks.
pub(super) fn split(value: &[u8]) -> (Vec<u8>, std::slice::Chunks<'_, u8>) {
    if value.len() < STORED_BYTES_MAX {
        return ([&[TAG_INLINE], value].concat(), [].chunks(1));
    }
    let mut stored = vec![TAG_CHUNKED];
    stored.extend_from_slice(&(value.len() as u64).to_be_bytes());
    (stored, value.chunks(STORED_BYTES_MAX))
}

/// Changes as bytes, to be staged: a MessagePack array of (key, value or nil).
pub(super) fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let pairs: Vec<_> = changes
        .iter()
        .map(|change| (bytes::Bytes::copy_from_slice(&change.key), change.value.clone().map(bytes::Bytes::from)))
        .collect();
    crate::record::encode(&pairs)
}

/// Reads back what [`encode_changes`] made.
pub(super) fn decode_changes(bytes: &[u8]) -> Result<Vec<Change>, crate::record::BadRecord> {
    let pairs: Vec<(bytes::Bytes, Option<bytes::Bytes>)> = crate::record::decode(b"staged", bytes)?;
    Ok(pairs.into_iter().map(|(key, value)| Change { key: key.into(), value: value.map(Into::into) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_group_generation_and_record() {
        let group = GroupId(1);
        let rising = [
            pointer(group),
            staged(group, 0),
            staged(group, 256),
            record(group, 1, b""),
            record(group, 1, b"a"),
            record(group, 1, b"\xff\xff"),
            chunk(group, 1, b"a", 0),
            chunk(group, 1, b"a", 1),
            record(group, 2, b"a"),
            pointer(GroupId(2)),
        ];
        assert!(rising.is_sorted(), "{rising:?}");
        assert!(records(group, 1).contains(&record(group, 1, b"\xff\xff")));
        assert!(!records(group, 1).contains(&chunk(group, 1, b"", 0)));
        assert!(generation(group, 1).contains(&chunk(group, 1, b"\xff", u32::MAX)));
        assert!(!generation(group, 1).contains(&record(group, 2, b"")));
        assert!(all_staged(group).contains(&staged(group, u32::MAX)) && !all_staged(group).contains(&pointer(group)));
        assert_eq!(owner(&chunk(group, 7, b"a", 1)), Some((group, 7)));
        let last = generation(GroupId(u32::MAX), u32::MAX);
        assert!(last.contains(&record(GroupId(u32::MAX), u32::MAX, b"")));
    }

    #[test]
    fn values_are_stored_in_pieces_of_at_most_the_limit() {
        for length in [0, 1, STORED_BYTES_MAX - 1, STORED_BYTES_MAX, STORED_BYTES_MAX + 1, 3 * STORED_BYTES_MAX] {
            let value = vec![7; length];
            let (stored, chunks) = split(&value);
            assert!(stored.len() <= STORED_BYTES_MAX);
            let count = chunks.len();
            let joined: Vec<u8> = chunks.flatten().copied().collect();
            let decoded = Stored::decode(&stored).unwrap();
            assert_eq!(decoded.chunks() as usize, count);
            match decoded {
                Stored::Inline(inline) => assert_eq!(inline, value),
                Stored::Chunked(bytes) => assert!(bytes == length as u64 && joined == value),
            }
        }
        assert_eq!(Stored::decode(&[]), None);
        assert_eq!(Stored::decode(&[9, 1]), None);
        assert_eq!(Stored::decode(&[TAG_CHUNKED, 1]), None);
    }

    #[test]
    fn changes_come_back() {
        let changes = vec![
            Change { key: b"a".to_vec(), value: Some(vec![0, 255]) },
            Change { key: vec![], value: None },
            Change { key: b"b".to_vec(), value: Some(vec![]) },
        ];
        let bytes = encode_changes(&changes);
        assert_eq!(decode_changes(&bytes).unwrap(), changes);
        assert!(decode_changes(&bytes[..bytes.len() - 1]).is_err());
    }
}
