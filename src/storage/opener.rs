//! How a generation's database is made, opened, and looked into.
//!
//! Invariant: a database with a final name holds a header, because it gets one before it gets that name; and it follows rules that the
//! program knows, or it is not opened.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use rocksdb::{Cache, DB, Options, WriteBatch};

use super::cache::RecordCache;
use super::committed::{Committed, Database, unlogged};
use super::db::{self, DbConfig, state_options};
use super::generation::{self, Directory};
use super::position::{Position, decode_position};
use super::{Error, event_db};
use crate::limits;
use crate::proto::internal as pb;
use crate::state::{Fault, Key, record};
use crate::types::{Revision, StateVersion};

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
        let cache = RecordCache::new(self.config.record_cache_bytes);
        let database = Database::new(db, directory);
        Ok(Committed::new(
            database,
            generation,
            content,
            newest_version,
            cache,
        ))
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
