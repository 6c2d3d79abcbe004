//! What a save compares a record with: the entries that its request began with.
//!
//! The trait tells neither that a load and a save belong together nor what a record was before. Two things are known of a
//! request. It loads and saves in one task, as servers run them. And its record stays at one place in memory from its first
//! save to its last, because it lives inside its `Session`. So a base is noted for the task at each load, and for the record's place
//! at each save; a save takes the later of the two.
//!
//! ```text
//! one task        load → v1                save (base v1) → v2 at A        save at A (base v2)
//! two sessions    load → v1, load → v1     save at A (base v1) → v2        save at B (base v1): nothing known of B
//! in one task
//! ```
//!
//! The notes are a bounded cache. Where there is none, because it was displaced or because a record was loaded in one task and
//! saved in another, a save replaces the session whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::task;
use tower_sessions_core::session::{Id, Record};

use super::entries::Data;
use crate::limits;

/// For the cache's first allocation only.
const TYPICAL_BYTES: usize = 1024;
/// What a note costs beside its entries.
const OVERHEAD_BYTES: usize = 128;
/// What an entry costs beside its name and its value's text.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Where a base is known to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// A task; none outside of any.
    Task(Option<task::Id>),
    /// A record's address, which is compared and never followed.
    Record(usize),
}

impl Place {
    fn of(record: &Record) -> Self {
        Self::Record(std::ptr::from_ref(record).addr())
    }

    fn here() -> Self {
        Self::Task(task::try_id())
    }
}

#[derive(Clone)]
struct Note {
    /// Later ones have greater numbers.
    number: u64,
    bytes: u64,
    data: Arc<Data>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<(Id, Place), Note> for ByBytes {
    fn weight(&self, _: &(Id, Place), note: &Note) -> u64 {
        note.bytes
    }
}

/// The bases that are remembered. Clones share them.
#[derive(Clone)]
pub(super) struct Bases {
    notes: Arc<Cache<(Id, Place), Note, ByBytes>>,
    taken: Arc<AtomicU64>,
}

impl std::fmt::Debug for Bases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bases").finish_non_exhaustive()
    }
}

impl Bases {
    pub fn new() -> Self {
        let bytes = limits::TOWER_SESSIONS_BASE_BYTES;
        let weight = u64::try_from(bytes).expect("a usize fits into 64 bits");
        Self {
            notes: Arc::new(Cache::with_weighter(bytes / TYPICAL_BYTES, weight, ByBytes)),
            taken: Arc::default(),
        }
    }

    /// This task has loaded the record.
    pub fn loaded(&self, record: &Record) {
        self.note(record, Place::here());
    }

    /// The session is what the record is.
    pub fn saved(&self, record: &Record) {
        self.note(record, Place::of(record));
    }

    /// What the record began with, as far as is known.
    pub fn of(&self, record: &Record) -> Option<Arc<Data>> {
        let at = |place| self.notes.get(&(record.id, place));
        let notes = [at(Place::of(record)), at(Place::here())];
        let last = notes.into_iter().flatten().max_by_key(|note| note.number);
        last.map(|note| note.data)
    }

    fn note(&self, record: &Record, place: Place) {
        let note = Note {
            number: self.taken.fetch_add(1, Ordering::Relaxed),
            bytes: size(&record.data),
            data: Arc::new(record.data.clone()),
        };
        self.notes.insert((record.id, place), note);
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
