//! One generation's database with what is newer than it: layers of records, and events.
//!
//! It is a value without locks: [`super::state_db`] decides who may look at it, and who may change it. The invariants of both are there.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rocksdb::{DB, ReadOptions, WriteBatch, WriteOptions};

use super::cache::RecordCache;
use super::generation::Directory;
use super::layer::{Entry, Layer};
use super::opener::Content;
use super::position::{Advance, Position};
use super::unwritten::Unwritten;
use super::{Error, event_db, sabotage};
use crate::proto::internal as pb;
use crate::state::events;
use crate::state::history::Chunk;
use crate::state::{Changes, Fault, Key, Stored, SweepHorizon, record};
use crate::types::{LogTime, Revision, StateVersion};

/// How far the state is, published after each batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AppliedAt {
    /// The state's revision.
    pub revision: Revision,
    /// The last log index applied; 0 before the first.
    pub log_index: u64,
    /// Log time there.
    pub log_time: LogTime,
}

/// What is in memory and not in the database, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unflushed {
    /// Of the active layer.
    pub record_bytes: usize,
    /// Of events.
    pub event_bytes: usize,
}

/// One generation's database. Its files stay for as long as it is open, see [`Directory`].
pub(super) struct Database {
    /// Closed before the directory goes.
    db: DB,
    directory: Directory,
}

impl Database {
    pub fn new(db: DB, directory: Directory) -> Self {
        Self { db, directory }
    }

    /// Another generation has taken its place.
    pub fn abandon(&self) {
        self.directory.abandon();
    }
}

impl Deref for Database {
    type Target = DB;

    fn deref(&self) -> &DB {
        &self.db
    }
}

/// One generation's database with what is published of it.
pub(super) struct Committed {
    pub db: Arc<Database>,
    pub generation: u64,
    pub header: pb::StateHeader,
    pub position: Position,
    /// The newest version that its header may name.
    pub newest_version: StateVersion,
    pub horizon: SweepHorizon,
    /// What the last batches changed.
    active: Layer,
    /// What is being written to the database.
    frozen: Option<Arc<Frozen>>,
    /// The newest events.
    unwritten: Unwritten,
    /// Something was committed since a layer was last frozen, if only a place in the log.
    is_dirty: bool,
    cache: RecordCache,
    /// Of lookups; made once, because each lookup would otherwise make its own.
    read_options: ReadOptions,
}

/// A layer on its way into the database, with what belongs to its last batch.
pub(super) struct Frozen {
    layer: Layer,
    /// Those that were not written before.
    events: Vec<Chunk>,
    header: pb::StateHeader,
    pub position: Position,
}

impl Committed {
    /// What a database holds that was just opened.
    pub fn new(
        database: Database,
        generation: u64,
        content: Content,
        newest_version: StateVersion,
        cache: RecordCache,
    ) -> Self {
        Self {
            db: Arc::new(database),
            generation,
            header: content.header,
            position: content.position,
            newest_version,
            horizon: SweepHorizon::default(),
            active: Layer::default(),
            frozen: None,
            unwritten: Unwritten::default(),
            is_dirty: false,
            cache,
            read_options: ReadOptions::default(),
        }
    }

    /// What the newest layer that knows of a record has.
    pub fn in_memory(&self, key: &Key) -> Option<&Entry> {
        self.layers().find_map(|layer| layer.get(key))
    }

    /// A record that no layer has.
    pub fn get_older(&self, key: &Key) -> Result<Option<Stored>, Fault> {
        if let Some(stored) = self.cache.get(key) {
            return Ok(Some(stored));
        }
        let value = self
            .db
            .get_pinned_opt(key.encode(), &self.read_options)
            .map_err(|e| self.failed("read", e))?;
        let Some(value) = value else {
            return Ok(None);
        };
        let stored = record::decode(key, Bytes::copy_from_slice(&value))?;
        self.cache.fill(key.clone(), stored.clone());
        Ok(Some(stored))
    }

    /// Newest first.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        let frozen = self.frozen.as_ref().map(|frozen| &frozen.layer);
        std::iter::once(&self.active).chain(frozen)
    }

    /// The layer that is to be written: one whose writing failed, or the active one. `None` when there is nothing to
    /// write.
    pub fn freeze(&mut self) -> Option<Arc<Frozen>> {
        if self.frozen.is_none() && self.is_dirty {
            self.is_dirty = false;
            let successor = self.active.successor();
            self.frozen = Some(Arc::new(Frozen {
                layer: std::mem::replace(&mut self.active, successor),
                events: self.unwritten.chunks(),
                header: self.header.clone(),
                position: self.position.clone(),
            }));
        }
        self.frozen.clone()
    }

    /// Takes in what a batch of entries changed. Returns what there is to be told of it.
    pub fn take(
        &mut self,
        changes: Changes,
        advance: Advance,
        horizon: SweepHorizon,
    ) -> Option<Chunk> {
        for change in changes.writes {
            self.active.put(change);
        }
        if let Some(chunk) = &changes.events {
            self.unwritten.push(chunk.clone());
            let oldest = events::oldest(&changes.header);
            self.unwritten.forget_before(oldest);
        }
        self.is_dirty = true;
        self.header = changes.header;
        self.horizon = horizon;
        self.position.advance(advance);
        changes.events
    }

    /// How full memory is.
    pub fn unflushed(&self) -> Unflushed {
        Unflushed {
            record_bytes: self.active.bytes(),
            event_bytes: self.unwritten.bytes(),
        }
    }

    /// Events that are in no database, from a revision on, about `budget` bytes of them.
    pub fn gather(&self, from: Revision, budget: usize) -> Result<Vec<(Revision, Bytes)>, Fault> {
        self.unwritten.gather(from, budget)
    }

    /// The same, all of them; `None` while a layer waits for its turn, whose header names a revision that no chunk may reach
    /// across.
    pub fn events_to_write(&self) -> Option<Vec<Chunk>> {
        let is_free = self.frozen.is_none();
        is_free.then(|| self.unwritten.chunks())
    }

    /// These events are in the database.
    pub fn forget_written(&mut self, chunks: &[Chunk]) {
        if let Some(last) = chunks.last() {
            self.unwritten.forget_before(last.last().next());
        }
    }

    /// The frozen layer is in the database: its records go to the cache. Nobody reads the cache for what the layer has until it goes,
    /// nor fills it with what was there before.
    pub fn cache_frozen(&self) {
        for (key, entry) in self.frozen.iter().flat_map(|frozen| frozen.layer.iter()) {
            self.cache.update(key, entry.value.as_ref());
        }
    }

    /// The frozen layer goes, and its events with it.
    pub fn drop_frozen(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            self.forget_written(&frozen.events);
        }
    }

    /// How far it is.
    pub fn applied_at(&self) -> AppliedAt {
        AppliedAt {
            revision: Revision::new(self.header.revision),
            log_index: self.position.applied.map_or(0, |id| id.index),
            log_time: LogTime::from_millis(self.header.log_time),
        }
    }

    /// See [`sabotage`].
    pub fn forget_replies(&self) -> Result<(), Error> {
        sabotage::forget_replies(&self.db)
    }

    /// A database that does not do as it is asked.
    pub fn failed(&self, action: &'static str, error: rocksdb::Error) -> Fault {
        Fault::Io(Error::database(action, self.db.path(), error).into())
    }
}

/// How everything is written: the Raft log is the write-ahead log.
pub(super) fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_memtable_insert_hint_per_batch(true);
    options
}

impl Frozen {
    /// Everything of it as one write, in key order.
    pub fn batch(&self, db: &DB) -> WriteBatch {
        let mut batch = event_db::batch(db, &self.events, self.layer.bytes());
        batch.put(Key::Header.encode(), self.header.encode_to_vec());
        if let Some(applied) = self.position.applied {
            let applied = pb::LogId::from(applied);
            batch.put(Key::RaftApplied.encode(), applied.encode_to_vec());
        }
        let membership = self.position.stored_membership();
        batch.put(Key::RaftMembership.encode(), membership.encode_to_vec());
        let mut entries: Vec<_> = self.layer.iter().map(|(_, entry)| entry).collect();
        entries.sort_unstable_by(|a, b| a.key_bytes.cmp(&b.key_bytes));
        let mut value = Vec::new();
        for entry in entries {
            match &entry.value {
                Some(stored) => {
                    value.clear();
                    record::encode_to(&stored.record, &mut value);
                    batch.put(&entry.key_bytes, &value);
                }
                None => batch.delete(&entry.key_bytes),
            }
        }
        batch
    }
}
