//! Where messages stand in memory: packed into buckets of 64 consecutive log indices.
//!
//! A bucket is a 64-bit map of the ids that live in it and a vector of just those, in order; the place of an id in
//! the vector is the number of bits below its own. So a waiting message costs its 32 bytes and about two more, the
//! question whether an id lives is one look into a map, and a bucket is what becomes one record on disk.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::ids::Index;

/// Consecutive log indices of one bucket: the bits of a word.
pub(super) const BUCKET_INDICES: u64 = 64;

/// The bucket that an id belongs to.
pub(super) const fn bucket_of(id: Index) -> u64 {
    id / BUCKET_INDICES
}

/// The bit of an id in its bucket's word.
pub(super) const fn bit_of(id: Index) -> u64 {
    1 << (id % BUCKET_INDICES)
}

/// The ids of a bucket whose bits are set, in order.
pub(super) fn ids_of(bucket: u64, bits: u64) -> impl Iterator<Item = Index> {
    (0..BUCKET_INDICES)
        .filter(move |offset| bits & (1 << offset) != 0)
        .map(move |offset| bucket * BUCKET_INDICES + offset)
}

/// What is kept of a body: enough to tell whether another is the same. XXH3, 128 bits, high word first.
///
/// Not a `u128`, whose alignment would cost each message up to eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest(pub [u64; 2]);

impl Digest {
    /// The digest of a body.
    pub(super) fn of(body: &[u8]) -> Self {
        let digest = xxh3_128(body);
        Self([(digest >> 64) as u64, digest as u64])
    }
}

/// Number of a queue in this process's memory. Never on disk, never in an answer.
pub(super) type Slot = u32;

/// What is kept of every live message. What its deliveries add is kept apart, for most messages wait for their first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Digest of the body.
    pub digest: Digest,
    /// Log time at which it was enqueued.
    pub enqueued_ms: u64,
    /// Bytes of the body.
    pub bytes: u32,
    /// Its queue.
    pub slot: Slot,
}

/// The live messages of 64 consecutive indices.
#[derive(Clone, Debug, Default)]
struct Bucket {
    /// Bit i: index `bucket * 64 + i` lives.
    live: u64,
    /// Those messages, in the order of their ids.
    messages: Vec<Message>,
}

impl Bucket {
    fn place(&self, id: Index) -> usize {
        (self.live & (bit_of(id) - 1)).count_ones() as usize
    }
}

/// All live messages of a group, by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    buckets: BTreeMap<u64, Bucket>,
    count: usize,
}

impl Table {
    /// Number of live messages.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The message with this id.
    pub(super) fn get(&self, id: Index) -> Option<&Message> {
        let bucket = self.buckets.get(&bucket_of(id))?;
        (bucket.live & bit_of(id) != 0).then(|| &bucket.messages[bucket.place(id)])
    }

    /// Which ids of a bucket live.
    pub(super) fn live_bits(&self, bucket: u64) -> u64 {
        self.buckets.get(&bucket).map_or(0, |bucket| bucket.live)
    }

    /// Adds a message.
    ///
    /// # Panics
    /// Where the id lives already: one command is one log index.
    pub(super) fn insert(&mut self, id: Index, message: Message) {
        let number = bucket_of(id);
        if !self.buckets.contains_key(&number) {
            // Ids come in order, so the bucket before is complete: give back what its vector grew too far.
            if let Some(mut last) = self.buckets.last_entry() {
                last.get_mut().messages.shrink_to_fit();
            }
        }
        let bucket = self.buckets.entry(number).or_default();
        assert!(bucket.live & bit_of(id) == 0, "message {id} is there twice");
        let place = bucket.place(id);
        bucket.messages.insert(place, message);
        bucket.live |= bit_of(id);
        self.count += 1;
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, id: Index) -> Option<Message> {
        let number = bucket_of(id);
        let bucket = self.buckets.get_mut(&number)?;
        if bucket.live & bit_of(id) == 0 {
            return None;
        }
        let place = bucket.place(id);
        let message = bucket.messages.remove(place);
        bucket.live &= !bit_of(id);
        self.count -= 1;
        if bucket.live == 0 {
            self.buckets.remove(&number);
        } else if bucket.messages.len() * 2 < bucket.messages.capacity() {
            // One message that nobody acknowledges must not hold the memory of its 63 neighbours.
            bucket.messages.shrink_to_fit();
        }
        Some(message)
    }

    /// The buckets that hold anything, in order.
    pub(super) fn buckets(&self) -> impl Iterator<Item = u64> {
        self.buckets.keys().copied()
    }

    /// The live ids in (after, through], in order.
    pub(super) fn ids(&self, after: Index, through: Index) -> impl Iterator<Item = Index> {
        let buckets = (after < through).then(|| self.buckets.range(bucket_of(after)..=bucket_of(through)));
        let ids = buckets.into_iter().flatten().flat_map(|(number, bucket)| ids_of(*number, bucket.live));
        ids.filter(move |id| *id > after && *id <= through)
    }
}

/// A set of log indices as words of 64 bits: the ready messages of one queue. Half a byte for each message of a queue
/// that has its group to itself; some thirty where a queue has one message in 64 entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bitmap {
    words: BTreeMap<u64, u64>,
    count: u64,
}

impl Bitmap {
    /// Number of indices.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// The lowest index.
    pub(super) fn first(&self) -> Option<Index> {
        let (bucket, word) = self.words.first_key_value()?;
        Some(bucket * BUCKET_INDICES + u64::from(word.trailing_zeros()))
    }

    /// Whether an index is in.
    pub(super) fn contains(&self, id: Index) -> bool {
        self.words.get(&bucket_of(id)).is_some_and(|word| word & bit_of(id) != 0)
    }

    /// Puts an index in. False where it was in.
    pub(super) fn insert(&mut self, id: Index) -> bool {
        let word = self.words.entry(bucket_of(id)).or_default();
        let new = *word & bit_of(id) == 0;
        *word |= bit_of(id);
        self.count += u64::from(new);
        new
    }

    /// Takes an index out. False where it was not in.
    pub(super) fn remove(&mut self, id: Index) -> bool {
        let Some(word) = self.words.get_mut(&bucket_of(id)) else { return false };
        let was_in = *word & bit_of(id) != 0;
        *word &= !bit_of(id);
        if *word == 0 {
            self.words.remove(&bucket_of(id));
        }
        self.count -= u64::from(was_in);
        was_in
    }

    /// How many indices are lower than this one. In time in proportion to the words below.
    pub(super) fn below(&self, id: Index) -> u64 {
        let whole = self.words.range(..bucket_of(id)).map(|(_, word)| u64::from(word.count_ones())).sum::<u64>();
        let own = self.words.get(&bucket_of(id)).map_or(0, |word| word & (bit_of(id) - 1));
        whole + u64::from(own.count_ones())
    }

    /// The lowest index above this one.
    pub(super) fn after(&self, id: Index) -> Option<Index> {
        let mut words = self.words.range(bucket_of(id)..);
        words.find_map(|(bucket, word)| ids_of(*bucket, *word).find(|other| *other > id))
    }

    /// The indices, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Index> {
        self.words.iter().flat_map(|(bucket, word)| ids_of(*bucket, *word))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn message(bytes: u32) -> Message {
        Message { digest: Digest::of(b""), enqueued_ms: 0, bytes, slot: 0 }
    }

    #[test]
    fn a_message_takes_32_bytes() {
        assert_eq!(size_of::<Message>(), 32);
    }

    #[test]
    fn the_digest_is_the_published_one() {
        // The digest stands in records, so it is a format: XXH3-128 of the empty input, from the specification's vectors.
        assert_eq!(Digest::of(b""), Digest([0x99aa_06d3_0147_98d8, 0x6001_c324_468d_497f]));
    }

    proptest! {
        #[test]
        fn a_table_and_a_bitmap_are_sets(steps in prop::collection::vec((any::<bool>(), 1..300_u64), 0..400), window in (0..310_u64, 0..310_u64)) {
            let (mut table, mut bitmap, mut set) = (Table::default(), Bitmap::default(), BTreeSet::new());
            for (insert, id) in steps {
                if insert {
                    if set.insert(id) {
                        table.insert(id, message(id as u32));
                        prop_assert!(bitmap.insert(id));
                    } else {
                        prop_assert!(!bitmap.insert(id));
                    }
                } else {
                    let was_in = set.remove(&id);
                    prop_assert_eq!(table.remove(id).map(|message| message.bytes), was_in.then_some(id as u32));
                    prop_assert_eq!(bitmap.remove(id), was_in);
                }
                prop_assert_eq!(table.len(), set.len());
                prop_assert_eq!(bitmap.len(), set.len() as u64);
                prop_assert_eq!(bitmap.first(), set.first().copied());
                prop_assert_eq!(table.get(id).map(|message| message.bytes), set.contains(&id).then_some(id as u32));
                prop_assert_eq!(bitmap.contains(id), set.contains(&id));
            }
            prop_assert!(bitmap.iter().eq(set.iter().copied()));
            let (after, through) = window;
            let expected: Vec<Index> = set.iter().copied().filter(|id| *id > after && *id <= through).collect();
            prop_assert_eq!(table.ids(after, through).collect::<Vec<_>>(), expected);
        }
    }
}
