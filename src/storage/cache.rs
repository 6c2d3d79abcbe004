//! A bounded cache of decoded records in front of the state database.
//!
//! Invariant: what is cached is what the database holds, or what a layer above it hides. A record is put here before
//! the layer that was written goes, and a reader fills it under the read lock of [`super::state_db::StateDb`] with what
//! no layer has, so that none puts back what was replaced. The bound is in bytes, estimated from the encoded size.
//!
//! Deliberately absent: index entries, which are scanned and never looked up; the replies to request ids, which only a
//! retry asks for and which would drive out what is read; and absent keys, which the bloom filters of the database answer
//! for.

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::state::{Key, Stored};

/// What an entry costs beside its key and encoded value: the key's enum, the hash table, the shared record.
const ENTRY_OVERHEAD_BYTES: usize = 192;
/// Names and values of a decoded map live apart from each other, so a record takes more memory than its encoding.
const DECODED_FACTOR: usize = 2;
/// For the table's first allocation only.
const TYPICAL_ENTRY_BYTES: usize = 1024;

/// Committed records, decoded.
pub(super) struct RecordCache {
    entries: Cache<Key, Cached, ByBytes>,
}

#[derive(Clone)]
struct Cached {
    stored: Stored,
    bytes: u32,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Cached> for ByBytes {
    fn weight(&self, _: &Key, cached: &Cached) -> u64 {
        u64::from(cached.bytes)
    }
}

impl RecordCache {
    /// An empty cache that holds about this many bytes.
    pub fn new(capacity_bytes: usize) -> Self {
        let items = (capacity_bytes / TYPICAL_ENTRY_BYTES).max(16);
        let bytes = u64::try_from(capacity_bytes).expect("a usize fits into 64 bits");
        Self {
            entries: Cache::with_weighter(items, bytes, ByBytes),
        }
    }

    /// The record under a key, if it is here.
    pub fn get(&self, key: &Key) -> Option<Stored> {
        if !keeps(key) {
            return None;
        }
        self.entries.get(key).map(|cached| cached.stored)
    }

    /// A record was read, or written to the database.
    pub fn fill(&self, key: Key, stored: Stored) {
        if !keeps(&key) {
            return;
        }
        let bytes = footprint(stored.bytes);
        self.entries.insert(key, Cached { stored, bytes });
    }

    /// The record's newest state went from memory to the database.
    pub fn update(&self, key: &Key, stored: Option<&Stored>) {
        match stored {
            Some(stored) => self.fill(key.clone(), stored.clone()),
            None if keeps(key) => drop(self.entries.remove(key)),
            None => {}
        }
    }
}

/// Whether a record of this kind may be here.
fn keeps(key: &Key) -> bool {
    !matches!(
        key,
        Key::Request(..) | Key::RequestGroup(..) | Key::Deadline(..) | Key::UserSession(..)
    )
}

fn footprint(value_bytes: usize) -> u32 {
    let bytes = value_bytes
        .saturating_mul(DECODED_FACTOR)
        .saturating_add(ENTRY_OVERHEAD_BYTES);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
