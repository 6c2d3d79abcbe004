//! What was committed and is not in the state database yet: records in memory, over the tables.
//!
//! The Raft log is the state's write-ahead log, so a commit need not touch the database at all. It goes into the
//! *active* layer; when that is large enough it is *frozen*, and written to the database in one atomic batch while the
//! next one fills, see [`super::state_db`]. A record that changes often, as a client's replies do with every batch, is
//! written once per layer.
//!
//! Invariants:
//! 1. A newer layer hides an older one, and any layer hides the database.
//! 2. A layer is written whole, with the header and the log position that belong to its last batch.
//! 3. Entries are kept in order where somebody scans them. Who walks over everything, to compute a digest anew, has the
//!    others put in order for that.
//!
//! Deliberately absent: any decision about when a layer is full.

use std::collections::{BTreeSet, HashMap, btree_set, hash_map};
use std::iter::Peekable;
use std::ops::Bound;
use std::vec;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::state::{Change, Key, KeyRange, Stored, record};

/// What an entry takes beside its encoded key and the bytes of its value: the record around these, and its places in two tables.
const ENTRY_OVERHEAD_BYTES: usize = 320;

/// Changed records, by key and in order.
#[derive(Debug, Default)]
pub(super) struct Layer {
    entries: HashMap<Key, Entry, RandomState>,
    /// The encoded keys of those entries that are scanned.
    order: BTreeSet<Bytes>,
    bytes: usize,
}

/// The newest state of one record.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its key, encoded.
    pub key_bytes: Bytes,
    /// The record; `None` when it is deleted.
    pub value: Option<Stored>,
}

impl Entry {
    fn bytes(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |stored| stored.bytes);
        self.key_bytes.len() + value + ENTRY_OVERHEAD_BYTES
    }
}

impl Layer {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A record was committed.
    pub fn put(&mut self, change: Change) {
        match self.entries.entry(change.key) {
            hash_map::Entry::Occupied(mut place) => {
                let known = place.get_mut();
                self.bytes -= known.bytes();
                // Its key stays: the new one was just used, and is freed sooner than memory that was not.
                known.value = change.value;
                self.bytes += known.bytes();
            }
            hash_map::Entry::Vacant(place) => {
                let entry = Entry {
                    key_bytes: place.key().encode(),
                    value: change.value,
                };
                self.bytes += entry.bytes();
                if Key::is_scanned(&entry.key_bytes) {
                    self.order.insert(entry.key_bytes.clone());
                }
                place.insert(entry);
            }
        }
    }

    /// What the layer knows of a record, if anything.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// An empty layer with room for as many entries as this one has, and for some more, lest the table grow at the end.
    pub fn successor(&self) -> Self {
        let room = self.entries.len().saturating_add(self.entries.len() / 8);
        Self {
            entries: HashMap::with_capacity_and_hasher(room, RandomState::default()),
            ..Self::default()
        }
    }

    /// The encoded keys of a range, ascending.
    fn range(&self, range: &KeyRange) -> Keys<'_> {
        if range.is_empty() {
            return Keys::Sorted(Vec::new().into_iter());
        }
        if !range.is_scanned() {
            let inside = range.start.as_slice()..range.end.as_slice();
            let keys = self.entries.values().map(|entry| &entry.key_bytes);
            let mut keys: Vec<_> = keys.filter(|key| inside.contains(&&key[..])).collect();
            keys.sort_unstable();
            return Keys::Sorted(keys.into_iter());
        }
        let bounds = (
            Bound::Included(range.start.as_slice()),
            Bound::Excluded(range.end.as_slice()),
        );
        Keys::Kept(self.order.range::<[u8], _>(bounds))
    }

    /// The value under an encoded key that the layer has, encoded anew; `None` when it is deleted.
    fn value(&self, key_bytes: &[u8]) -> Option<Bytes> {
        let key = Key::decode(key_bytes).expect("it was encoded from a key");
        let entry = self.entries.get(&key);
        let value = &entry.expect("what is in order is an entry").value;
        value.as_ref().map(|stored| record::encode(&stored.record))
    }
}

/// A layer's keys, ascending.
enum Keys<'a> {
    /// As they are kept.
    Kept(btree_set::Range<'a, Bytes>),
    /// Put in order for one scan.
    Sorted(vec::IntoIter<&'a Bytes>),
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a Bytes;

    fn next(&mut self) -> Option<&'a Bytes> {
        match self {
            Self::Kept(keys) => keys.next(),
            Self::Sorted(keys) => keys.next(),
        }
    }
}

/// The entries of a range in all layers, the newest of each key, ascending.
pub(super) struct Merged<'a> {
    /// Newest first.
    layers: Vec<(&'a Layer, Peekable<Keys<'a>>)>,
}

impl<'a> Merged<'a> {
    /// `layers` are newest first.
    pub fn new(layers: impl Iterator<Item = &'a Layer>, range: &KeyRange) -> Self {
        let layers = layers.map(|layer| (layer, layer.range(range).peekable()));
        Self {
            layers: layers.collect(),
        }
    }

    /// The key that comes next.
    pub fn peek(&mut self) -> Option<&'a Bytes> {
        let heads = self.layers.iter_mut();
        heads.filter_map(|(_, keys)| keys.peek().copied()).min()
    }
}

impl<'a> Iterator for Merged<'a> {
    /// A key and its value; `None` when it is deleted.
    type Item = (&'a Bytes, Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.peek()?;
        let mut newest = None;
        for (layer, keys) in &mut self.layers {
            // Every layer that has the key moves on; the newest has the word.
            if keys.next_if_eq(&next).is_some() {
                newest = newest.or(Some(*layer));
            }
        }
        newest.map(|layer| (next, layer.value(next)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::*;
    use crate::proto::internal as pb;
    use crate::state::Record;
    use crate::types::{self, Namespace};

    /// The even ones are scanned, the odd ones are not.
    fn key(number: u8) -> Key {
        let name = format!("key-{number}");
        if number.is_multiple_of(2) {
            let name = types::Key::parse(name).expect("short");
            Key::Kv(Namespace::default(), name)
        } else {
            let user = types::UserId::parse(name).expect("short");
            Key::UserCart(Namespace::default(), user)
        }
    }

    fn change(number: u8, value: Option<u8>) -> Change {
        let key = key(number);
        let value = value.map(|value| {
            let kv = pb::KvRecord {
                value: vec![value].into(),
                ..pb::KvRecord::default()
            };
            let encoded = record::encode(&Record::Kv(kv.into()));
            // What is stored under a key does not matter here.
            record::decode(&self::key(0), encoded).expect("it was just encoded")
        });
        Change { key, value }
    }

    type Changes = Vec<(u8, Option<u8>)>;

    fn changes() -> impl Strategy<Value = Changes> {
        prop::collection::vec((0..16u8, prop::option::of(any::<u8>())), 0..24)
    }

    proptest! {
        #[test]
        fn the_newest_layer_has_the_word(old in changes(), new in changes(), from in 0..16u8, to in 0..16u8) {
            let (mut older, mut newer) = (Layer::default(), Layer::default());
            let mut expected = BTreeMap::new();
            for (layer, changes) in [(&mut older, old), (&mut newer, new)] {
                for (number, value) in changes {
                    let change = change(number, value);
                    expected.insert(change.key.encode(), change.value.clone());
                    layer.put(change);
                }
            }
            let range = KeyRange {
                start: key(from).encode().to_vec(),
                end: key(to).encode().to_vec(),
            };
            let inside = |bytes: &Bytes| bytes[..] >= range.start[..] && bytes[..] < range.end[..];
            let wanted: Vec<_> = expected
                .iter()
                .filter(|(bytes, _)| inside(bytes))
                .map(|(bytes, value)| {
                    let value = value.as_ref().map(|stored| record::encode(&stored.record));
                    (bytes, value)
                })
                .collect();
            let found: Vec<_> = Merged::new([&newer, &older].into_iter(), &range).collect();
            prop_assert_eq!(found, wanted);
            for number in 0..16 {
                let found = newer.get(&key(number)).or_else(|| older.get(&key(number)));
                let wanted = expected.get(&key(number).encode());
                prop_assert_eq!(found.map(|entry| &entry.value), wanted);
            }
        }

        #[test]
        fn what_was_overwritten_no_longer_counts(changes in changes()) {
            let mut layer = Layer::default();
            let mut last = BTreeMap::new();
            for (number, value) in changes {
                layer.put(change(number, value));
                last.insert(number, value);
            }
            let mut once = Layer::default();
            for (number, value) in last {
                once.put(change(number, value));
            }
            prop_assert_eq!(layer.bytes(), once.bytes());
            prop_assert_eq!(layer.iter().count(), once.iter().count());
        }
    }
}
