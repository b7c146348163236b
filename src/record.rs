//! Records: how a state machine's state looks on disk and in a snapshot.
//!
//! Each machine is a set of records, key to value, and tells after each batch of commands which of them changed. The
//! state store writes the changes together with the index they stand at; a snapshot is all records in key order.
//! So neither a checkpoint nor a snapshot needs to know what a lock or a queue is.

use bytes::Bytes;

/// First byte of a key: whose record it is.
pub mod prefix {
    /// The replica's own: members of the bus, counters.
    pub const META: u8 = b'a';
    /// A message body that compaction overtook.
    pub const BODY: u8 = b'b';
    /// A key of the cache's main memory, with its owner.
    pub const CACHE: u8 = b'c';
    /// A lock.
    pub const LOCK: u8 = b'l';
    /// The list of nodes.
    pub const NODES: u8 = b'n';
    /// A queue or one of its messages.
    pub const QUEUE: u8 = b'q';
    /// A session.
    pub const SESSION: u8 = b's';
}

/// One record that changed: its new value, or None where it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; its first byte is one of [`prefix`].
    pub key: Vec<u8>,
    /// The value, MessagePack.
    pub value: Option<Vec<u8>>,
}

/// A record that cannot be read back: the disk or the snapshot is not ours, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {key:?} cannot be read: {why}")]
pub struct BadRecord {
    /// The key, as it stood.
    pub key: Vec<u8>,
    /// What was wrong.
    pub why: String,
}

/// The value as MessagePack.
///
/// # Panics
/// Never for our own types: they hold nothing that MessagePack has no form for.
pub fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("our own types have a MessagePack form")
}

/// Reads back what [`encode`] made.
///
/// # Errors
/// Where the bytes are no such value.
pub fn decode<T: serde::de::DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, BadRecord> {
    rmp_serde::from_slice(value).map_err(|error| BadRecord { key: key.to_vec(), why: error.to_string() })
}

/// The records of a state as the bytes of a snapshot: a MessagePack array of (key, value), both as `bin`.
///
/// It is written by hand, one pair after the other, into room that is measured first: a snapshot may have the bodies of a deep queue,
/// and no second copy of them is made on the way.
pub fn encode_records<'a>(records: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Bytes {
    let length: usize = records.clone().map(|(key, value)| key.len() + value.len() + PAIR_BYTES).sum();
    let mut pairs = Vec::with_capacity(length + HEAD_BYTES);
    pairs.extend_from_slice(&[ARRAY_32, 0, 0, 0, 0]);
    let mut count = 0u32;
    for (key, value) in records {
        pairs.push(PAIR);
        put_bin(&mut pairs, key);
        put_bin(&mut pairs, value);
        count = count.checked_add(1).expect("4 billion records do not fit a snapshot's bytes");
    }
    pairs[1..HEAD_BYTES].copy_from_slice(&count.to_be_bytes());
    Bytes::from(pairs)
}

/// Reads back what [`encode_records`] made; values are parts of `bytes`, not copies. Nothing at all is no records: a group that has never
/// had any.
///
/// # Errors
/// Where the bytes are no such array, keys are not in strictly rising order, or bytes are left over.
pub fn decode_records(bytes: &Bytes) -> Result<Vec<(Vec<u8>, Bytes)>, BadRecord> {
    let mut records: Vec<(Vec<u8>, Bytes)> = Vec::new();
    let mut rest = bytes.as_ref();
    if rest.is_empty() {
        return Ok(records);
    }
    let bad = |key: &[u8], why: &str| BadRecord { key: key.to_vec(), why: why.to_owned() };
    if take(&mut rest, 1) != Some(&[ARRAY_32]) {
        return Err(bad(&[], "a snapshot begins with an array"));
    }
    let count = take_u32(&mut rest).ok_or_else(|| bad(&[], "a snapshot ends in its count"))?;
    for _ in 0..count {
        let last = records.last().map_or(&[][..], |(key, _)| key.as_slice());
        let cut = || bad(last, "the snapshot ends, or is no array of pairs, after this key");
        if take(&mut rest, 1) != Some(&[PAIR]) {
            return Err(cut());
        }
        let key = take_bin(&mut rest).ok_or_else(cut)?;
        let value = take_bin(&mut rest).ok_or_else(cut)?;
        if !records.is_empty() && key <= last {
            return Err(bad(key, "the key is not above the one before it"));
        }
        records.push((key.to_vec(), bytes.slice_ref(value)));
    }
    match rest {
        [] => Ok(records),
        _ => Err(bad(&[], "bytes follow the last record of the snapshot")),
    }
}

/// Bytes of a pair beside its key and value: three markers and two lengths.
const PAIR_BYTES: usize = 11;
/// Bytes before the first pair.
const HEAD_BYTES: usize = 5;
/// MessagePack's marker of an array with a length of 32 bits.
const ARRAY_32: u8 = 0xdd;
/// MessagePack's marker of an array of two.
const PAIR: u8 = 0x92;
/// MessagePack's marker of bytes with a length of 32 bits.
const BIN_32: u8 = 0xc6;

fn put_bin(bytes: &mut Vec<u8>, value: &[u8]) {
    let length = u32::try_from(value.len()).expect("a record is far below 4 GiB");
    bytes.push(BIN_32);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take_bin<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if take(rest, 1)? != [BIN_32] {
        return None;
    }
    let length = take_u32(rest)?;
    take(rest, usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<(Vec<u8>, Bytes)> {
        let pair = |key: &[u8], value: &'static [u8]| (key.to_vec(), Bytes::from_static(value));
        vec![pair(b"", b"empty key"), pair(b"a", b""), pair(b"aa", b"\x00\xff"), pair(b"q", b"body")]
    }

    fn encoded(records: &[(Vec<u8>, Bytes)]) -> Bytes {
        encode_records(records.iter().map(|(key, value)| (key.as_slice(), value.as_ref())))
    }

    #[test]
    fn records_come_back_and_any_cut_is_noticed() {
        let bytes = encoded(&sample());
        assert_eq!(decode_records(&bytes).unwrap(), sample());
        for length in 1..bytes.len() {
            assert!(decode_records(&bytes.slice(..length)).is_err(), "cut to {length} bytes");
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(decode_records(&longer).is_err());
        assert_eq!(decode_records(&Bytes::new()).unwrap(), []);
    }

    #[test]
    fn records_are_messagepack_pairs() {
        let bytes = encoded(&sample()[1..2]);
        assert_eq!(bytes.as_ref(), b"\xdd\x00\x00\x00\x01\x92\xc6\x00\x00\x00\x01a\xc6\x00\x00\x00\x00");
        let all: Vec<(Bytes, Bytes)> = rmp_serde::from_slice(&encoded(&sample())).unwrap();
        assert_eq!(all.into_iter().map(|(key, value)| (key.to_vec(), value)).collect::<Vec<_>>(), sample());
    }

    #[test]
    fn keys_must_rise_and_counts_are_not_believed() {
        let mut twice = sample();
        twice.swap(1, 2);
        assert!(decode_records(&encoded(&twice)).is_err());
        assert!(decode_records(&Bytes::from_static(b"\xdd\xff\xff\xff\xff")).is_err());
    }
}
