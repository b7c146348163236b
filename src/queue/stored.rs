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
//! delivery [ token, deadline_ms or nil, deliveries ]  nil deadline: timed out, and ready again
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
