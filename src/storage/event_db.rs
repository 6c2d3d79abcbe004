//! Events in the state database: their column family, how they are written, read, and taken back.

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, ReadOptions, WriteBatch};

use super::Error;
use super::committed::unlogged;
use super::db::EVENTS;
use crate::limits;
use crate::state::history::{self, Chunk};
use crate::state::{Fault, Key, KeyRange};
use crate::types::Revision;

/// Their column family.
pub(super) fn family(db: &DB) -> &ColumnFamily {
    db.cf_handle(EVENTS)
        .expect("it was opened with the database")
}

/// What a record of a batch takes beside its value: more than it ever does.
const RECORD_BYTES: usize = 64;

/// A batch of events, packed, with room for so many bytes of other records.
pub(super) fn batch(db: &DB, chunks: &[Chunk], others: usize) -> WriteBatch {
    let packed = history::pack(chunks, limits::EVENT_CHUNK_BYTES);
    let sizes = packed.iter().map(|(_, value)| value.len() + RECORD_BYTES);
    // A batch that outgrows its room is copied as a whole.
    let mut batch = WriteBatch::with_capacity_bytes(others + RECORD_BYTES + sizes.sum::<usize>());
    let events = family(db);
    for (last, value) in packed {
        batch.put_cf(events, Key::encode_events(last), value);
    }
    batch
}

/// Events that were written before a crash, of revisions that the records had not come to. The log makes them again, maybe
/// in other chunks.
pub(super) fn remove_ahead(db: &DB, revision: Revision) -> Result<(), Error> {
    let failed = |e| Error::database("write to", db.path(), e);
    let events = family(db);
    let range = KeyRange::events(revision.next(), Revision::new(u64::MAX));
    let mut ahead = db.raw_iterator_cf(events);
    ahead.seek(&range.start);
    let found = ahead.valid();
    ahead.status().map_err(failed)?;
    if found {
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(events, &range.start, &range.end);
        db.write_opt(batch, &unlogged()).map_err(failed)?;
    }
    Ok(())
}

/// Visits the events that the database has from a revision on, up to the chunk that crosses `budget` bytes.
pub(super) fn scan(
    db: &DB,
    mut options: ReadOptions,
    from: Revision,
    range: &KeyRange,
    visit: &mut dyn FnMut(Revision, Bytes) -> Result<(), Fault>,
    budget: usize,
) -> Result<(), Fault> {
    options.set_iterate_upper_bound(range.end.clone());
    let mut at = db.raw_iterator_cf_opt(family(db), options);
    at.seek(&range.start);
    let mut bytes = 0;
    while let Some((key, value)) = at.item() {
        history::unpack(key, Bytes::copy_from_slice(value), from, visit)?;
        bytes += value.len();
        if bytes >= budget {
            return Ok(());
        }
        at.next();
    }
    // An iterator also ends where a block is damaged.
    at.status()
        .map_err(|e| Fault::Io(Error::database("read", db.path(), e).into()))
}
