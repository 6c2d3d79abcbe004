//! Reading stored entries, always checked.
//!
//! Invariant: whoever asks for entries that the log has gets all of them, or an error that names the one that is
//! damaged or missing.

use std::ops::Range;

use rocksdb::{DBIteratorWithThreadMode, Direction, IteratorMode, ReadOptions};

use super::Error;
use super::log_db::Reader;
use super::tail::Volume;
use super::wire::{self, Key};
use crate::proto::internal as pb;
use crate::raft::{Entry, LogId};
use crate::types::ShardId;

/// Read ahead of a long scan, in bytes.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// The stored entries from `first` on, checked one by one, which must end at `last`. What lies before `first` was
/// purged, and is on disk for as long as it shares a file with what was not.
pub(super) fn verify(
    reader: &Reader,
    shard: ShardId,
    first: u64,
    last: Option<LogId>,
) -> Result<Volume, Error> {
    let mut volume = Volume::new();
    let mut expected = first;
    let mut found = None;
    for item in iterate(reader, shard, first..u64::MAX) {
        let (key, value) = item.map_err(|e| reader.failed(e))?;
        let place = Key::Entry(shard, expected);
        if *key != place.encode() {
            return Err(reader.damaged(place, "it is missing"));
        }
        found = Some(log_id(reader, shard, expected, &value)?);
        volume.push(expected, key.len() + value.len());
        expected += 1;
    }
    let next = last.map_or(first, |last| last.index + 1);
    if expected != next {
        let detail = format!("the log should end before {next} and ends before {expected}");
        return Err(reader.damaged(Key::Entry(shard, expected.min(next)), detail));
    }
    if found.is_some() && found != last {
        let place = Key::Entry(shard, expected - 1);
        return Err(reader.damaged(place, "it is not the entry that the log's head names"));
    }
    Ok(volume)
}

/// The entries of a range, all of which are stored, up to the one that crosses `budget` bytes.
pub(super) fn read(
    reader: &Reader,
    shard: ShardId,
    range: Range<u64>,
    budget: usize,
) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for item in iterate(reader, shard, range.clone()) {
        let (key, value) = item.map_err(|e| reader.failed(e))?;
        let place = Key::Entry(shard, range.start + entries.len() as u64);
        if *key != place.encode() {
            // Purged or truncated meanwhile, which the caller notices, or lost.
            return Ok(entries);
        }
        entries.push(entry(reader, place, &value)?);
        bytes += value.len();
        if bytes >= budget {
            break;
        }
    }
    Ok(entries)
}

fn iterate(
    reader: &Reader,
    shard: ShardId,
    range: Range<u64>,
) -> DBIteratorWithThreadMode<'_, rocksdb::DB> {
    let from = Key::Entry(shard, range.start).encode();
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(Key::Entry(shard, range.end).encode());
    options.set_readahead_size(READ_AHEAD_BYTES);
    // A scan through the log would push out what the cache is for.
    options.fill_cache(false);
    let mode = IteratorMode::From(&from, Direction::Forward);
    reader.db.iterator_opt(mode, options)
}

fn stored(reader: &Reader, place: Key, value: &[u8]) -> Result<pb::Entry, Error> {
    wire::unseal(place, value).map_err(|damage| reader.damaged(place, damage.to_string()))
}

fn log_id(reader: &Reader, shard: ShardId, index: u64, value: &[u8]) -> Result<LogId, Error> {
    let place = Key::Entry(shard, index);
    match stored(reader, place, value)?.log_id {
        Some(id) if id.index == index => Ok(id.into()),
        _ => Err(reader.damaged(place, "it carries another log id")),
    }
}

fn entry(reader: &Reader, place: Key, value: &[u8]) -> Result<Entry, Error> {
    Entry::try_from(stored(reader, place, value)?)
        .map_err(|fault| reader.damaged(place, fault.to_string()))
}
