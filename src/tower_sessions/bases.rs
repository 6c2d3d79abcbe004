//! What a save compares a record with: the entries that its request began with.
//!
//! The trait tells neither that a load and a save belong together nor what a record was before. But the map that holds a
//! record's entries is the same one from its load to its last save, whichever tasks these are in and wherever it is moved to. A map
//! has hash keys of its own, drawn when it is made, and by these it is recognised: a base is noted for the map at each load
//! and at each save.
//!
//! ```text
//! load → map k, v1        save of k (base v1) → v2        save of k (base v2) → v3
//! load → map l, v2        save of l (base v2)             whatever task or place in memory another record had before
//! ```
//!
//! Copies of a record have the same keys. They come from a cache in front of the store, and what that has is what was loaded or saved
//! last.
//!
//! The notes are a bounded cache. Where there is none, because it was displaced or because a record was put together anew, a save
//! replaces the session whole.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tower_sessions_core::session::{Id, Record};

use super::entries::Data;
use crate::limits;

/// For the cache's first allocation only.
const TYPICAL_BYTES: usize = 1024;
/// What a note costs beside its entries.
const OVERHEAD_BYTES: usize = 128;
/// What an entry costs beside its name and its value's text.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// A session, and the map that holds a record of it.
type Place = (Id, u64);

fn place_of(record: &Record) -> Place {
    // What its keys make of the same thing each time.
    (record.id, record.data.hasher().hash_one(()))
}

#[derive(Clone)]
struct Note {
    bytes: u64,
    data: Arc<Data>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Place, Note> for ByBytes {
    fn weight(&self, _: &Place, note: &Note) -> u64 {
        note.bytes
    }
}

/// The bases that are remembered. Clones share them.
#[derive(Clone)]
pub(super) struct Bases(Arc<Cache<Place, Note, ByBytes>>);

impl std::fmt::Debug for Bases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bases").finish_non_exhaustive()
    }
}

impl Bases {
    pub fn new() -> Self {
        let bytes = limits::TOWER_SESSIONS_BASE_BYTES;
        let weight = u64::try_from(bytes).expect("a usize fits into 64 bits");
        let notes = Cache::with_weighter(bytes / TYPICAL_BYTES, weight, ByBytes);
        Self(Arc::new(notes))
    }

    /// The session is what the record is: it was just loaded or saved.
    pub fn note(&self, record: &Record) {
        let note = Note {
            bytes: size(&record.data),
            data: Arc::new(record.data.clone()),
        };
        self.0.insert(place_of(record), note);
    }

    /// What the record began with, as far as is known.
    pub fn of(&self, record: &Record) -> Option<Arc<Data>> {
        self.0.get(&place_of(record)).map(|note| note.data)
    }
}

/// What a note takes, roughly.
fn size(data: &Data) -> u64 {
    let entries = data.iter();
    let entries =
        entries.map(|(name, value)| name.len() + value_size(value) + ENTRY_OVERHEAD_BYTES);
    let bytes = OVERHEAD_BYTES + entries.sum::<usize>();
    u64::try_from(bytes).expect("a usize fits into 64 bits")
}

fn value_size(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    let own = size_of::<Value>();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => own,
        Value::String(text) => own + text.len(),
        Value::Array(values) => own + values.iter().map(value_size).sum::<usize>(),
        Value::Object(members) => {
            let members = members.iter();
            let sizes = members.map(|(name, value)| name.len() + value_size(value));
            own + sizes.sum::<usize>()
        }
    }
}
