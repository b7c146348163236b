//! A map whose entries are records, and which knows what of them changed since they were written.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::record::Change;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Tracked<K, V> {
    map: BTreeMap<K, V>,
    /// What was touched, and whether it has a record on disk.
    dirty: BTreeMap<K, bool>,
}

impl<K, V> Default for Tracked<K, V> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), dirty: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V> Tracked<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter()
    }

    pub(super) fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        self.map.range(range)
    }

    /// The entry, to be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if self.map.contains_key(key) {
            self.touch(key);
        }
        self.map.get_mut(key)
    }

    /// The entry, made where there is none, to be changed.
    pub(super) fn or_default(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        self.touch(key);
        self.map.entry(key.clone()).or_default()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.touch(&key);
        self.map.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        if self.map.contains_key(key) {
            self.touch(key);
        }
        self.map.remove(key)
    }

    /// Puts back what was read from its record. False where it is there already.
    pub(super) fn put_back(&mut self, key: K, value: V) -> bool {
        self.map.insert(key, value).is_none()
    }

    fn touch(&mut self, key: &K) {
        if !self.dirty.contains_key(key) {
            self.dirty.insert(key.clone(), self.map.contains_key(key));
        }
    }

    /// The records that changed since the last call, in the order of the entries.
    pub(super) fn take_changes(&mut self, key: impl Fn(&K) -> Vec<u8>, value: impl Fn(&V) -> Vec<u8>) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = dirty.into_iter().filter_map(|(entry, stored)| {
            let present = self.map.get(&entry).map(&value);
            (stored || present.is_some()).then(|| Change { key: key(&entry), value: present })
        });
        changed.collect()
    }

    /// All records, in the order of the entries.
    pub(super) fn records(
        &self,
        key: impl Fn(&K) -> Vec<u8>,
        value: impl Fn(&V) -> Vec<u8>,
    ) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.map.iter().map(move |(entry, kept)| (key(entry), value(kept)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(map: &mut Tracked<u8, u8>) -> Vec<(u8, Option<u8>)> {
        let changes = map.take_changes(|key| vec![*key], |value| vec![*value]);
        changes.into_iter().map(|change| (change.key[0], change.value.map(|value| value[0]))).collect()
    }

    #[test]
    fn what_came_and_went_between_two_checkpoints_leaves_no_trace() {
        let mut map = Tracked::default();
        map.insert(1, 10);
        map.insert(2, 20);
        map.remove(&2);
        assert_eq!(changes(&mut map), [(1, Some(10))]);
        assert_eq!(changes(&mut map), []);
        *map.get_mut(&1).unwrap() = 11;
        map.remove(&9);
        assert!(map.get_mut(&9).is_none());
        assert_eq!(changes(&mut map), [(1, Some(11))]);
        map.remove(&1);
        assert_eq!(changes(&mut map), [(1, None)]);
    }

    #[test]
    fn what_was_read_needs_no_writing() {
        let mut map = Tracked::default();
        assert!(map.put_back(1, 10) && !map.put_back(1, 11));
        assert_eq!(changes(&mut map), []);
        *map.or_default(&2) += 1;
        assert_eq!(changes(&mut map), [(2, Some(1))]);
    }
}
