//! How messages look as records: one record for each bucket of 64 consecutive log indices.
//!
//! **Why packed.** sled takes 40,000 to 115,000 single keys a second and 350,000 entries packed into larger values;
//! one record for each message would make it the slowest part of an enqueue. **Why 64, and by log index** and not 256 of
//! one queue: whoever enqueues, what is written together is acknowledged in about the same order, so a checkpoint
//! touches a run of neighbours; and the bucket of a message follows from its id alone, so a replica that was restored from
//! a snapshot packs exactly as one that saw every command. A message that changes takes its bucket along, 2.5 KiB where
//! all 64 live: 256 would cost 10 KiB for the one straggler of ten thousand thin queues and win nothing that
//! 64 have not won.
//!
//! ```text
//! key    'q'  bucket, u64 big-endian                  64 * bucket is the first index
//! value  [ [queue name, ...], [message, ...] ]        MessagePack, messages in the order of their ids
//! message  [ offset in the bucket, place of the name, digest high, digest low, bytes, enqueued_ms, delivery or nil ]
//! delivery [ token, deadline_ms or nil, deliveries, more ]  nil deadline: timed out and ready again, or dead
//! more     [ void, consumer, since_ms ]                     only where there is more to say
//! ```
//!
//! Beside the buckets, which have a zero after the `q` as no log is that long:
//!
//! ```text
//! 'q' 'a'  id, u64 big-endian                         what is special about a message
//! 'q' 'd'  id, u64 big-endian                         the id under which a message was enqueued, and until when it counts
//! 'q' 'f'  length of the name, u16 big-endian, name, tenant   the pass of a tenant in a queue with a fair share
//! 'q' 'p'  name                                       a declaration: policy and flow
//! ```
//!
//! A record names its queues itself, once each, so that none depends on another, no order of restoring matters and no
//! queue can be left behind without messages. With 64 names of 512 bytes it has 36 KiB, under the 64 KiB that sled keeps out
//! of its unsynced blob files.

use serde::{Deserialize, Serialize};
use trine_protocol::limits::{NAME_BYTES_MAX, VALUE_BYTES_MAX};

use super::state::Delivery;
use super::table::{BUCKET_INDICES, Digest};
use crate::ids::Index;
use crate::record::{self, BadRecord};

/// Bytes of a record's key: the prefix and the bucket.
const KEY_BYTES: usize = 9;

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// 64 neighbours.
    Bucket,
    /// What is special about one message.
    Attributes,
    /// An id that is remembered.
    Dedup,
    /// A tenant's pass.
    Pass,
    /// A declaration.
    Queue,
}

impl Kind {
    const fn letter(self) -> u8 {
        match self {
            Self::Bucket => 0,
            Self::Attributes => b'a',
            Self::Dedup => b'd',
            Self::Pass => b'f',
            Self::Queue => b'p',
        }
    }
}

/// What the record of that key is of.
pub(super) fn kind_of(key: &[u8]) -> Result<Kind, BadRecord> {
    let letter = match key {
        [record::prefix::QUEUE, letter, ..] => *letter,
        // Too short for any: the bucket's error says what a key looks like.
        _ => return Ok(Kind::Bucket),
    };
    let all = [Kind::Bucket, Kind::Attributes, Kind::Dedup, Kind::Pass, Kind::Queue];
    let known = all.into_iter().find(|kind| kind.letter() == letter);
    known.ok_or_else(|| BadRecord { key: key.to_vec(), why: format!("no record of a queue begins with {letter}") })
}

/// The key of a record that one message has beside its bucket.
pub(super) fn side_key(kind: Kind, id: Index) -> Vec<u8> {
    [&[record::prefix::QUEUE, kind.letter()], id.to_be_bytes().as_slice()].concat()
}

/// The message of such a key.
pub(super) fn side_id(key: &[u8]) -> Result<Index, BadRecord> {
    let id = key.get(2..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
    id.filter(|id| *id > 0 && *id < 1 << 48)
        .ok_or_else(|| BadRecord { key: key.to_vec(), why: "no message's id".into() })
}

/// The key of a declaration.
pub(super) fn queue_key(name: &str) -> Vec<u8> {
    [&[record::prefix::QUEUE, Kind::Queue.letter()], name.as_bytes()].concat()
}

/// The queue of such a key.
pub(super) fn queue_name(key: &[u8]) -> Result<&str, BadRecord> {
    let name = std::str::from_utf8(&key[2..]).ok().filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()));
    name.ok_or_else(|| BadRecord { key: key.to_vec(), why: "no queue's name".into() })
}

/// The key of a tenant's pass.
pub(super) fn pass_key(queue: &str, tenant: &str) -> Vec<u8> {
    let length = u16::try_from(queue.len()).expect("a name has at most 512 bytes");
    let head = [record::prefix::QUEUE, Kind::Pass.letter()];
    [head.as_slice(), &length.to_be_bytes(), queue.as_bytes(), tenant.as_bytes()].concat()
}

/// Queue and tenant of such a key.
pub(super) fn pass_entry(key: &[u8]) -> Result<(String, String), BadRecord> {
    let bad = || BadRecord { key: key.to_vec(), why: "no queue's name and tenant".into() };
    let (length, names) = key[2..].split_first_chunk::<2>().ok_or_else(bad)?;
    let (queue, tenant) = names.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(bad)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| bad());
    Ok((text(queue)?, text(tenant)?))
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredBucket {
    /// Names of the queues, in the order in which the messages mention them first.
    pub queues: Vec<String>,
    /// The live messages, in the order of their ids.
    pub messages: Vec<StoredMessage>,
}

/// One message in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredMessage {
    /// Its id less the bucket's first index.
    pub offset: u8,
    /// Place of its queue's name.
    pub queue: u8,
    /// High word of the digest.
    pub digest_high: u64,
    /// Low word of the digest.
    pub digest_low: u64,
    /// Bytes of the body.
    pub bytes: u32,
    /// Log time at which it was enqueued.
    pub enqueued_ms: u64,
    /// The newest delivery, if there was one.
    pub delivery: Option<Delivery>,
}

impl StoredMessage {
    /// The digest.
    pub(super) fn digest(&self) -> Digest {
        Digest([self.digest_high, self.digest_low])
    }
}

/// The key of a bucket's record.
pub(super) fn key(bucket: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(KEY_BYTES);
    key.push(record::prefix::QUEUE);
    key.extend_from_slice(&bucket.to_be_bytes());
    key
}

/// Reads one record back, and refuses what would break an invariant.
pub(super) fn read(key: &[u8], value: &[u8]) -> Result<(u64, StoredBucket), BadRecord> {
    let bad = |why: String| BadRecord { key: key.to_vec(), why };
    let number = match key {
        [record::prefix::QUEUE, bucket @ ..] => bucket.try_into().map(u64::from_be_bytes).ok(),
        _ => None,
    };
    let number =
        number.ok_or_else(|| bad(format!("the key is not 'q' and the {} bytes of a bucket", KEY_BYTES - 1)))?;
    // A token has 48 bits for the index, so no message is beyond.
    if number >= (1 << 48) / BUCKET_INDICES {
        return Err(bad(format!("bucket {number} lies beyond every log")));
    }
    let bucket: StoredBucket = record::decode(key, value)?;
    if bucket.messages.is_empty() {
        return Err(bad("no message in it".into()));
    }
    if let Some(name) = bucket.queues.iter().find(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        return Err(bad(format!("a queue's name has {} bytes", name.len())));
    }
    let mut free = u64::from(number == 0);
    for message in &bucket.messages {
        let offset = u64::from(message.offset);
        if offset >= BUCKET_INDICES || offset < free {
            return Err(bad(format!("a message at offset {offset} where none can be")));
        }
        if usize::from(message.queue) >= bucket.queues.len() {
            return Err(bad(format!(
                "message {} is in queue {} of {}",
                message.offset,
                message.queue,
                bucket.queues.len()
            )));
        }
        if message.bytes as usize > VALUE_BYTES_MAX {
            return Err(bad(format!("message {} has a body of {} bytes", message.offset, message.bytes)));
        }
        if message.delivery.as_ref().is_some_and(|delivery| delivery.deliveries == 0 || delivery.token == 0) {
            return Err(bad(format!("message {} has a delivery that never was", message.offset)));
        }
        free = offset + 1;
    }
    Ok((number, bucket))
}

/// Place of an id in its bucket.
pub(super) fn offset_of(id: Index) -> u8 {
    (id % BUCKET_INDICES) as u8
}

/// The id of a message at this offset.
pub(super) fn id_of(bucket: u64, offset: u8) -> Index {
    bucket * BUCKET_INDICES + u64::from(offset)
}
