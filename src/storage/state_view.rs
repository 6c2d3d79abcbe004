//! One consistent view of a shard's committed state: the layers in memory, then the record cache, then the database.

use std::hint::black_box;
use std::ops::ControlFlow;

use rocksdb::ReadOptions;

use super::committed::Committed;
use super::layer::Merged;
use crate::proto::internal as pb;
use crate::state::{Fault, Key, KeyRange, Store, Stored};
use crate::types::StateVersion;

/// Committed state at one revision, but for the events that are not in the database yet: see [`super::state_db::StateDb::events`].
#[derive(Clone, Copy)]
pub struct StateView<'a> {
    committed: &'a Committed,
}

impl<'a> StateView<'a> {
    pub(super) fn new(committed: &'a Committed) -> Self {
        Self { committed }
    }
}

impl Store for StateView<'_> {
    fn header(&self) -> pb::StateHeader {
        self.committed.header.clone()
    }

    fn newest_version(&self) -> StateVersion {
        self.committed.newest_version
    }

    fn get(&self, key: &Key) -> Result<Option<Stored>, Fault> {
        match self.committed.in_memory(key) {
            Some(found) => Ok(found.value.clone()),
            None => self.committed.get_older(key),
        }
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, Fault> {
        // What is not in the caches of the processor is waited for. In a loop that does little else, it waits for several
        // entries at a time, and then for several records.
        let found = keys.iter().map(|key| self.committed.in_memory(key));
        let found: Vec<_> = found.collect();
        let stored = found
            .iter()
            .flatten()
            .filter_map(|entry| entry.value.as_ref());
        black_box(
            stored
                .map(|stored| stored.record.prefetch())
                .fold(0, u64::wrapping_add),
        );
        keys.iter()
            .zip(found)
            .map(|(key, found)| match found {
                Some(found) => Ok(found.value.clone()),
                None => self.committed.get_older(key),
            })
            .collect()
    }

    fn scan(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(range.end.clone());
        let mut at = self.committed.db.raw_iterator_opt(options);
        at.seek(&range.start);
        let mut memory = Merged::new(self.committed.layers(), range);
        let mut has_ended = false;
        loop {
            if !has_ended && !at.valid() {
                // An iterator also ends where a block is damaged, and then what memory has further on must not be taken for all
                // there is.
                at.status().map_err(|e| self.committed.failed("read", e))?;
                has_ended = true;
            }
            let (stored, changed) = (at.key(), memory.peek());
            let Some(next) = stored.into_iter().chain(changed.map(AsRef::as_ref)).min() else {
                break;
            };
            let is_stored = stored == Some(next);
            let flow = if changed.is_some_and(|changed| changed.as_ref() == next) {
                match memory.next() {
                    Some((key, Some(value))) => visit(key, &value)?,
                    // It is deleted.
                    _ => ControlFlow::Continue(()),
                }
            } else {
                match at.item() {
                    Some((key, value)) => visit(key, value)?,
                    None => break,
                }
            };
            if flow.is_break() {
                return Ok(());
            }
            if is_stored {
                at.next();
            }
        }
        Ok(())
    }
}
