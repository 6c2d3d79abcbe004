//! One shard's state: committed records in memory over a database, and the lock that makes every read exact.
//!
//! A commit puts a batch's records into the active [`Layer`]. [`StateDb::flush`] freezes that layer and writes it to
//! the database, on a thread of its own and while later batches are committed. What the database itself keeps in its
//! write buffers is older still; a checkpoint flushes both.
//!
//! Invariants:
//! 1. One layer is one atomic write: records, indexes, replies, the header, where the log was applied up to, and the
//!    membership, all as the layer's last batch left them, and events up to there. Its write-ahead log is off, because
//!    the Raft log is one. So a crash returns the database to an earlier point where all of these agree, but for events
//!    that were ahead and are removed, and the log replays the rest.
//! 2. A commit holds the write lock from its first record to the published header, and a reader holds the read lock
//!    for as long as it looks. Hence a view has exactly one revision.
//! 3. There is one writer, [`super::machine::Machine`], which prepares its batches under the read lock.
//! 4. A directory with a final name holds a header. One without is damaged, and so is one that lost a file.
//! 5. At most one layer is frozen, and the next is frozen only after it is in the database.
//!
//! The handle outlives the database: installing a snapshot puts another generation behind it, see
//! [`super::generation`]. Whoever reads without the lock meanwhile holds the [`Database`], and with it its files.
//!
//! Deliberately absent: transactions and database snapshots. The lock gives the same view for less.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use prost::Message as _;
use rocksdb::{
    Cache, DB, DEFAULT_COLUMN_FAMILY_NAME, FlushOptions, Options, ReadOptions, WriteBatch,
    WriteOptions,
};
use tokio::sync::watch;

use super::cache::RecordCache;
use super::db::{self, DbConfig, state_options};
use super::feed::Feed;
use super::generation::{self, Directory};
use super::layer::{Entry, Layer};
use super::state_view::StateView;
use super::unwritten::Unwritten;
use super::{Error, event_db, sabotage};
use crate::limits;
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::raft::{LogId, Membership, SnapshotMeta, StoredMembership};
use crate::state::events::{self, Page};
use crate::state::history::Chunk;
use crate::state::{Changes, Fault, Key, Stored, SweepHorizon, record};
use crate::types::{LogTime, Revision, StateVersion};

/// Share of a write buffer that its bloom filter takes.
const MEMTABLE_BLOOM_RATIO: f64 = 0.05;

/// Sizes of a shard's state.
#[derive(Debug, Clone)]
pub struct StateConfig {
    /// The database's own.
    pub database: DbConfig,
    /// Decoded records kept in memory, in bytes.
    pub record_cache_bytes: usize,
    /// Changed records that are gathered in memory before they are written to the database, in bytes. There may be three
    /// times as much for a moment.
    pub layer_bytes: usize,
    /// The same of events.
    pub unwritten_bytes: usize,
    /// The newest version of the state's rules that the program knows.
    pub newest_version: StateVersion,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            database: DbConfig::default(),
            record_cache_bytes: 64 << 20,
            layer_bytes: limits::STATE_LAYER_BYTES,
            unwritten_bytes: limits::UNWRITTEN_EVENT_BYTES,
            newest_version: StateVersion::NEWEST,
        }
    }
}

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

/// What storage keeps beside the records.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Position {
    /// The last log id applied.
    pub applied: Option<LogId>,
    /// The last membership applied.
    pub membership: StoredMembership,
    /// The highest node id that any membership up to there had.
    pub highest_node_id: u64,
}

impl Position {
    /// The membership as it is stored.
    pub(super) fn stored_membership(&self) -> pb::StoredMembership {
        let members = highest_node_id(self.membership.membership());
        let is_removed = self.highest_node_id > members;
        pb::StoredMembership {
            highest_removed_id: if is_removed { self.highest_node_id } else { 0 },
            ..pb::StoredMembership::from(&self.membership)
        }
    }
}

/// What is in memory and not in the database, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unflushed {
    /// Of the active layer.
    pub record_bytes: usize,
    /// Of events.
    pub event_bytes: usize,
}

/// What a batch of entries adds to the position.
#[derive(Debug, Default)]
pub(super) struct Advance {
    /// The last log id of the batch.
    pub applied: Option<LogId>,
    /// Its last membership, if it had one.
    pub membership: Option<StoredMembership>,
    /// The highest node id of all its memberships, or 0.
    pub highest_node_id: u64,
}

/// Header and position of a database.
#[derive(Debug)]
pub(super) struct Content {
    pub header: pb::StateHeader,
    pub position: Position,
}

/// What a generation is opened with, again for each.
pub(super) struct Opener {
    config: StateConfig,
    blocks: Cache,
}

impl Opener {
    pub fn new(config: StateConfig) -> Self {
        let blocks = db::block_cache(&config.database);
        Self { config, blocks }
    }

    /// Makes an empty database under its final name.
    pub fn create(&self, unfinished: &Path, complete: &Path) -> Result<(), Error> {
        generation::remove(unfinished)?;
        let mut options = self.options();
        options.create_if_missing(true);
        let failed = |e| Error::database("create", unfinished, e);
        let db = self.open_families(&options, unfinished).map_err(failed)?;
        let header = pb::StateHeader {
            digest: Bytes::from_static(&[0; 16]),
            ..pb::StateHeader::default()
        };
        let mut batch = WriteBatch::new();
        batch.put(Key::Header.encode(), header.encode_to_vec());
        db.write_opt(batch, &unlogged()).map_err(failed)?;
        db.flush().map_err(failed)?;
        drop(db);
        generation::sync_all_in(unfinished)?;
        generation::publish(unfinished, complete)
    }

    /// Opens a complete generation.
    pub fn open(&self, generation: u64, path: &Path) -> Result<Committed, Error> {
        let db = self
            .open_families(&self.options(), path)
            .map_err(|e| db::opening(path, e))?;
        let content = read_content(&db)?;
        let newest_version = self.config.newest_version;
        check_version(&content.header, newest_version, path)?;
        event_db::remove_ahead(&db, Revision::new(content.header.revision))?;
        let directory = Directory::new(path.to_owned());
        Ok(Committed {
            db: Arc::new(Database { db, directory }),
            generation,
            header: content.header,
            position: content.position,
            newest_version,
            horizon: SweepHorizon::default(),
            active: Layer::default(),
            frozen: None,
            unwritten: Unwritten::default(),
            is_dirty: false,
            cache: RecordCache::new(self.config.record_cache_bytes),
            read_options: ReadOptions::default(),
        })
    }

    fn open_families(&self, options: &Options, path: &Path) -> Result<DB, rocksdb::Error> {
        let families = db::state_families(options.clone(), &self.config.database, &self.blocks);
        DB::open_cf_descriptors(options, path, families)
    }

    fn options(&self) -> Options {
        let mut options = state_options(&self.config.database, &self.blocks);
        options.create_if_missing(false);
        // Records and events are written in one batch, and stay one although no write-ahead log ties them together.
        options.set_atomic_flush(true);
        options.create_missing_column_families(true);
        // Expired records are deleted at the front of the deadline index; without this, a scan would walk over all
        // the tombstones until a compaction came by chance.
        options.add_compact_on_deletion_collector_factory(4096, 2048, 0.5);
        // Every new session, key and request id is looked up before it is there. The filters save such a lookup its
        // walk through each write buffer.
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        options.set_memtable_whole_key_filtering(true);
        options.set_info_logger(db::info_logger());
        options
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

pub(super) fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_memtable_insert_hint_per_batch(true);
    options
}

/// Nothing is changed that follows unknown rules.
fn check_version(header: &pb::StateHeader, newest: StateVersion, path: &Path) -> Result<(), Error> {
    let found = StateVersion::new(header.version);
    if found <= newest {
        return Ok(());
    }
    Err(Error::StateVersion {
        directory: path.to_owned(),
        found,
        newest,
    })
}

/// Header and position of a checkpoint, which nothing has open and nothing writes to.
pub(super) fn inspect(checkpoint: &Path) -> Result<Content, Error> {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    // The tables need not be opened to read three keys.
    options.set_max_open_files(16);
    options.set_info_logger(db::info_logger());
    let db = DB::open_for_read_only(&options, checkpoint, false)
        .map_err(|e| db::opening(checkpoint, e))?;
    read_content(&db)
}

fn read_content(db: &DB) -> Result<Content, Error> {
    let damaged = |e: Fault| Error::corrupt(db.path(), "the state database", e.to_string());
    let header = raw(db, &Key::Header)?
        .ok_or_else(|| Error::corrupt(db.path(), "the state database", "it has no header"))?;
    let header = record::decode_header(header).map_err(damaged)?;
    let applied = raw(db, &Key::RaftApplied)?;
    let membership = raw(db, &Key::RaftMembership)?;
    let position = decode_position(applied, membership).map_err(damaged)?;
    Ok(Content { header, position })
}

fn raw(db: &DB, key: &Key) -> Result<Option<Bytes>, Error> {
    let value = db
        .get_pinned(key.encode())
        .map_err(|e| Error::database("read", db.path(), e))?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

pub(super) fn decode_position(
    applied: Option<Bytes>,
    membership: Option<Bytes>,
) -> Result<Position, Fault> {
    let damaged = |e: prost::DecodeError| Fault::corrupt("the applied position", e.to_string());
    let applied = applied
        .map(pb::LogId::decode)
        .transpose()
        .map_err(damaged)?;
    let membership = membership
        .map(pb::StoredMembership::decode)
        .transpose()
        .map_err(damaged)?
        .unwrap_or_default();
    let removed = membership.highest_removed_id;
    let membership: StoredMembership = membership.try_into()?;
    Ok(Position {
        applied: applied.map(Into::into),
        highest_node_id: removed.max(highest_node_id(membership.membership())),
        membership,
    })
}

/// 0 if there is none.
pub(super) fn highest_node_id(membership: &Membership) -> u64 {
    let ids = membership.nodes().map(|(id, _)| *id);
    ids.max().unwrap_or(0)
}

/// A manifest's position, in openraft's form.
pub(super) fn meta_of(manifest: &pb::SnapshotManifest) -> Result<SnapshotMeta, Fault> {
    Ok(SnapshotMeta {
        last_log_id: manifest.last_log_id.map(Into::into),
        last_membership: manifest.membership.clone().unwrap_or_default().try_into()?,
    })
}

/// One generation's database. Its files stay for as long as it is open, see [`Directory`].
pub(super) struct Database {
    /// Closed before the directory goes.
    db: DB,
    directory: Directory,
}

impl Database {
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
struct Frozen {
    layer: Layer,
    /// Those that were not written before.
    events: Vec<Chunk>,
    header: pb::StateHeader,
    position: Position,
}

impl Committed {
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
    fn freeze(&mut self) -> Option<Arc<Frozen>> {
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

    fn applied_at(&self) -> AppliedAt {
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

/// Shared handle of one shard's state; cloning shares it.
#[derive(Clone)]
pub struct StateDb {
    shared: Arc<Shared>,
}

struct Shared {
    committed: RwLock<Committed>,
    applied: watch::Sender<AppliedAt>,
    feed: Arc<Feed>,
    /// Held while a layer is written, and while another generation takes the place of the database.
    flush: Mutex<()>,
    /// No compaction may begin.
    resting: Mutex<bool>,
}

impl StateDb {
    pub(super) fn new(committed: Committed) -> Self {
        let (applied, _) = watch::channel(committed.applied_at());
        Self {
            shared: Arc::new(Shared {
                committed: RwLock::new(committed),
                applied,
                feed: Arc::default(),
                flush: Mutex::new(()),
                resting: Mutex::new(false),
            }),
        }
    }

    /// Looks at one consistent view, whose exact revision comes with the result. Blocks commits meanwhile.
    pub fn view<T>(
        &self,
        look: impl FnOnce(&StateView<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Fault> {
        let committed = self.read()?;
        let seen = look(&StateView::new(&committed))?;
        Ok((Revision::new(committed.header.revision), seen))
    }

    /// The newest events, in memory.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.shared.feed
    }

    /// Events from a revision on, about `budget` bytes of them. No commit waits while the database is read.
    pub fn events(&self, from: Revision, budget: usize) -> Result<Page, Fault> {
        let committed = self.read()?;
        let header = committed.header.clone();
        let gathered = committed.unwritten.gather(from, budget)?;
        let db = Arc::clone(&committed.db);
        let snapshot = db.snapshot();
        drop(committed);
        events::read(&header, from, |range, visit| {
            if gathered.is_empty() {
                let mut options = ReadOptions::default();
                options.set_snapshot(&snapshot);
                // Old events would push out what the cache is for.
                options.fill_cache(false);
                return event_db::scan(&db, options, from, range, visit, budget);
            }
            for (revision, value) in &gathered {
                visit(*revision, value.clone())?;
            }
            Ok(())
        })
    }

    /// Revision, log time and digest, as published.
    #[must_use]
    pub fn header(&self) -> pb::StateHeader {
        self.shared.read_anyway().header.clone()
    }

    /// The highest node id that any membership up to here had.
    #[must_use]
    pub fn highest_node_id(&self) -> u64 {
        self.shared.read_anyway().position.highest_node_id
    }

    /// How far the state is; changes after each batch, before the batch's writers are answered.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<AppliedAt> {
        self.shared.applied.subscribe()
    }

    /// Nothing is due before this time; `None` when there are no deadlines.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LogTime> {
        self.shared.read_anyway().horizon.next_deadline()
    }

    /// The database itself; whoever holds it keeps it open.
    pub(super) fn database(&self) -> Arc<Database> {
        self.shared.read_anyway().db.clone()
    }

    pub(super) fn applied_index(&self) -> u64 {
        self.shared.applied.borrow().log_index
    }

    pub(super) fn position(&self) -> Position {
        self.shared.read_anyway().position.clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.shared.read_anyway().generation
    }

    /// The committed state, for the one writer to prepare a batch over.
    pub(super) fn read(&self) -> Result<RwLockReadGuard<'_, Committed>, Fault> {
        // A commit that panicked may have left a database and a header that differ.
        let poisoned = |_| Fault::Io(std::io::Error::other("a commit to the state panicked"));
        self.shared.committed.read().map_err(poisoned)
    }

    /// Commits what a batch of entries changed, in one step, and publishes it.
    pub(super) fn commit(
        &self,
        changes: Changes,
        advance: Advance,
        horizon: SweepHorizon,
    ) -> Result<(), Fault> {
        let mut committed = self
            .shared
            .committed
            .write()
            .map_err(|_| Fault::Io(std::io::Error::other("a commit to the state panicked")))?;
        for change in changes.writes {
            committed.active.put(change);
        }
        if let Some(chunk) = &changes.events {
            committed.unwritten.push(chunk.clone());
            let oldest = events::oldest(&changes.header);
            committed.unwritten.forget_before(oldest);
        }
        committed.is_dirty = true;
        committed.header = changes.header;
        committed.horizon = horizon;
        if advance.applied.is_some() {
            committed.position.applied = advance.applied;
        }
        if let Some(membership) = advance.membership {
            committed.position.membership = membership;
        }
        let highest = &mut committed.position.highest_node_id;
        *highest = (*highest).max(advance.highest_node_id);
        let applied = committed.applied_at();
        drop(committed);
        // Whoever is woken finds its events.
        if let Some(chunk) = changes.events {
            self.shared.feed.push(chunk);
        }
        self.shared.applied.send_replace(applied);
        Ok(())
    }

    /// How full memory is: what the active layer takes, and the events that are not written.
    pub(super) fn unflushed(&self) -> Unflushed {
        let committed = self.shared.read_anyway();
        Unflushed {
            record_bytes: committed.active.bytes(),
            event_bytes: committed.unwritten.bytes(),
        }
    }

    /// Writes everything that was committed before the call to the database. Blocks on the disk; batches may be
    /// committed meanwhile. After a failure the database is behind, and reads are still exact.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.shared.flush()
    }

    /// The same for events alone.
    pub(super) fn flush_events(&self) -> Result<(), Error> {
        self.shared.flush_events()
    }

    /// Makes everything that was committed before the call durable in tables, and removes the files that hold nothing but
    /// events which were forgotten. Only then: a crash before would return to a header that still counts on them.
    pub(super) fn persist(&self) -> Result<(), Error> {
        let oldest = events::oldest(&self.header());
        self.flush()?;
        let db = self.database();
        let failed = |e| Error::database("flush", db.path(), e);
        let history = event_db::family(&db);
        let records = db
            .cf_handle(DEFAULT_COLUMN_FAMILY_NAME)
            .expect("every database has it");
        db.flush_cfs_opt(&[records, history], &FlushOptions::default())
            .map_err(failed)?;
        let before = Revision::new(oldest.get().saturating_sub(1));
        let (from, to) = (Revision::default(), before);
        db.delete_file_in_range_cf(history, Key::encode_events(from), Key::encode_events(to))
            .map_err(failed)
    }

    /// Whether compactions may begin. Those that have begun go on.
    pub fn allow_compactions(&self, allow: bool) -> Result<(), Error> {
        let mut resting = self.shared.lock_resting();
        *resting = !allow;
        db::rest(&self.database(), *resting)
    }

    /// Puts another generation behind the handle, and returns the database of the one before. Readers may have it open.
    pub(super) fn switch(&self, next: Committed) -> Arc<Database> {
        // Whoever writes a layer has the database open.
        let flushing = self.shared.lock_flush();
        let resting = self.shared.lock_resting();
        if *resting && let Err(error) = db::rest(&next.db, true) {
            tracing::warn!(%error, "the new database compacts as it likes");
        }
        let mut committed = self
            .shared
            .committed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let applied = next.applied_at();
        let previous = std::mem::replace(&mut *committed, next);
        drop(committed);
        drop((resting, flushing));
        self.shared.feed.jump();
        self.shared.applied.send_replace(applied);
        previous.db
    }
}

impl Shared {
    fn lock_flush(&self) -> MutexGuard<'_, ()> {
        // It guards nothing that a panic could leave half changed.
        self.flush.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_resting(&self) -> MutexGuard<'_, bool> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush(&self) -> Result<(), Error> {
        let flushing = self.lock_flush();
        // A layer whose writing failed goes first, and then the one that filled behind it.
        while let Some((db, frozen)) = self.freeze() {
            if planted::has(Bug::AppliedApart) {
                sabotage::write_applied(&db, frozen.position.applied)?;
            }
            db.write_opt(write_batch(&db, &frozen), &unlogged())
                .map_err(|e| Error::database("write to", db.path(), e))?;
            self.settle(&frozen);
        }
        drop(flushing);
        Ok(())
    }

    fn flush_events(&self) -> Result<(), Error> {
        let flushing = self.lock_flush();
        let committed = self.read_anyway();
        if committed.frozen.is_some() {
            // Its writing failed. No chunk may reach across the revision that its header names.
            drop((committed, flushing));
            return self.flush();
        }
        let (db, chunks) = (committed.db.clone(), committed.unwritten.chunks());
        drop(committed);
        db.write_opt(event_db::batch(&db, &chunks, 0), &unlogged())
            .map_err(|e| Error::database("write to", db.path(), e))?;
        self.forget_unwritten(&chunks);
        drop(flushing);
        Ok(())
    }

    /// These events are in the database.
    fn forget_unwritten(&self, written: &[Chunk]) {
        if let Some(last) = written.last() {
            let mut committed = self
                .committed
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            committed.unwritten.forget_before(last.last().next());
        }
    }

    fn freeze(&self) -> Option<(Arc<Database>, Arc<Frozen>)> {
        let mut committed = self
            .committed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let frozen = committed.freeze()?;
        Some((committed.db.clone(), frozen))
    }

    /// The layer is in the database: its records go to the cache, and then it goes. Nobody reads the cache for what
    /// the layer has until then, nor fills it with what was there before.
    fn settle(&self, frozen: &Frozen) {
        let committed = self.read_anyway();
        for (key, entry) in frozen.layer.iter() {
            committed.cache.update(key, entry.value.as_ref());
        }
        drop(committed);
        let mut committed = self
            .committed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        committed.frozen = None;
        drop(committed);
        self.forget_unwritten(&frozen.events);
    }

    /// For what is worth knowing even of a broken state.
    fn read_anyway(&self) -> RwLockReadGuard<'_, Committed> {
        self.committed
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node that ends well need not apply its log again.
impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the state was not written at the end; the log has it");
        }
    }
}

impl fmt::Debug for StateDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDb")
            .field("applied", &*self.shared.applied.borrow())
            .finish_non_exhaustive()
    }
}

/// Everything of a layer as one write, in key order.
fn write_batch(db: &DB, frozen: &Frozen) -> WriteBatch {
    let mut batch = event_db::batch(db, &frozen.events, frozen.layer.bytes());
    batch.put(Key::Header.encode(), frozen.header.encode_to_vec());
    if let Some(applied) = frozen.position.applied {
        let applied = pb::LogId::from(applied);
        batch.put(Key::RaftApplied.encode(), applied.encode_to_vec());
    }
    let membership = frozen.position.stored_membership();
    batch.put(Key::RaftMembership.encode(), membership.encode_to_vec());
    let mut entries: Vec<_> = frozen.layer.iter().map(|(_, entry)| entry).collect();
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
