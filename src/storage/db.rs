//! How RocksDB is opened: options, locks, and what a damaged or foreign directory says.
//!
//! The log and the state are opened differently, because they fail differently. The log's write-ahead log is synced
//! with every commit group, so all of it must come back. Its files are used again when RocksDB needs them no more, so that most
//! syncs write data and nothing about the file; only point-in-time recovery can do that, which drops every entry
//! behind a damaged one in silence. So [`super::wal`] refuses damage, cuts off what ends a log, and says what has to come
//! back, before RocksDB sees it. The state has no write-ahead log at all; the Raft log is it.
//!
//! Invariant: nothing here creates, repairs or skips anything in order to be able to start.

use std::fs;
use std::io;
use std::path::Path;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, InfoLogger, LogLevel, Options,
};

use super::Error;
use crate::limits;
use crate::planted::{self, Bug};

/// The log's column family beside the default one, which holds the entries.
pub(super) const META: &str = "meta";

/// The state's column family beside the default one, which holds the records: the history of events. Its keys only
/// ascend, so that its files never overlap and move down the levels as they are; among the records they would be
/// merged with those again and again.
pub(super) const EVENTS: &str = "events";

const MIB: usize = 1 << 20;
/// Of the log's entries. Most reads are served from memory before they reach RocksDB at all.
const LOG_BLOCK_CACHE_BYTES: usize = 4 * MIB;
const LOG_WRITE_BUFFERS: i32 = 3;
const META_WRITE_BUFFER_BYTES: usize = MIB;
/// All write-ahead logs together, in write buffers. A start without room for tables adds one.
const LOG_WAL_BUFFERS: u64 = 4;
/// Write-ahead logs that RocksDB needs no more and keeps, to write over them.
const LOG_WALS_KEPT: usize = 2;
/// Tables of records in one compaction, about, and in the first level.
const COMPACTION_TABLES: u64 = 4;
const OPEN_FILES: i32 = 256;
const INFO_LOG_BYTES: usize = MIB;
const INFO_LOG_FILES: usize = 2;
const MANIFEST_BLOCK_BYTES: usize = 64 << 10;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const METADATA_BLOCK_BYTES: usize = 4096;

/// Sizes of the state database, which an operator may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbConfig {
    /// Uncompressed blocks of the state database kept in memory, in bytes.
    pub block_cache_bytes: usize,
    /// Size of one write buffer of the state database, in bytes.
    pub state_write_buffer_bytes: usize,
    /// Write buffers of the state database: one being filled, the others being flushed.
    pub state_write_buffers: i32,
    /// Size of a table of records, in bytes. A compaction takes several of them, and as much room again until it is done.
    pub state_table_bytes: usize,
}

impl Default for DbConfig {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 * MIB,
            // Small ones: an insert walks fewer levels, and a flush that lags behind stops nobody so soon.
            state_write_buffer_bytes: 16 * MIB,
            state_write_buffers: 4,
            state_table_bytes: limits::STATE_TABLE_BYTES,
        }
    }
}

/// The cache that [`state_options`] asks for. Its readers take no lock, and it is not cut into parts, of which each would be
/// too small for a large block.
pub(super) fn block_cache(config: &DbConfig) -> Cache {
    /// `RocksDB` finds out itself how large an entry is.
    const ENTRY_CHARGE: usize = 0;
    Cache::new_hyper_clock_cache(config.block_cache_bytes, ENTRY_CHARGE)
}

/// Options of a state database. `cache` is shared by all shards of a node. Writes to it must say that they take no
/// write-ahead log: RocksDB has no option for that.
#[must_use]
pub fn state_options(config: &DbConfig, cache: &Cache) -> Options {
    // Blocks in advance are of no use to tables, which are written at once, and missing elsewhere on a full disk.
    let mut options = with(common_options(), "allow_fallocate=false");
    options.set_write_buffer_size(config.state_write_buffer_bytes);
    options.set_max_write_buffer_number(config.state_write_buffers);
    let mut table = table_options(cache);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    // A file's index and filter in pages, like its data: as one block each, which a large file has, they may not
    // fit into the cache, and then every lookup reads and checks them whole.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BLOCK_BYTES);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_pin_top_level_index_and_filter(true);
    options.set_block_based_table_factory(&table);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(config.state_table_bytes as u64);
    let compaction_bytes = COMPACTION_TABLES * config.state_table_bytes as u64;
    options.set_max_bytes_for_level_base(compaction_bytes);
    options.set_max_compaction_bytes(compaction_bytes);
    options
}

/// The column families of a state database. One of an earlier version has no events yet.
pub(super) fn state_families(
    records: Options,
    config: &DbConfig,
    cache: &Cache,
) -> [ColumnFamilyDescriptor; 2] {
    let mut events = common_options();
    events.set_write_buffer_size(config.state_write_buffer_bytes);
    events.set_max_write_buffer_number(config.state_write_buffers);
    events.set_level_compaction_dynamic_level_bytes(true);
    // Forgetting deletes whole files, but never those of level 0.
    events.set_target_file_size_base(config.state_write_buffer_bytes as u64);
    events.set_level_zero_file_num_compaction_trigger(2);
    events.set_block_based_table_factory(&table_options(cache));
    [
        ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, records),
        ColumnFamilyDescriptor::new(EVENTS, events),
    ]
}

/// Why a state database does not open. One with a final name was complete, so a file that is not there was lost. Whatever else
/// it does not open for, be it rights, too many open files or a disk that does not answer, says nothing of what is in it.
pub(super) fn opening(path: &Path, source: rocksdb::Error) -> Error {
    let message = source.to_string();
    if is_missing(path, &message) {
        return Error::corrupt(path, "the state database", message);
    }
    if message.contains("IO error") {
        // RocksDB calls some of them a corruption: it could not look at a table.
        return Error::undamaged("open", path, source);
    }
    Error::database("open", path, source)
}

/// Whether a message of `RocksDB` is about a file that is not there. It has no kind of error for that, and says of the file
/// which names the others that it does not exist when it cannot look.
fn is_missing(path: &Path, message: &str) -> bool {
    let is_not_found = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
    message.contains("No such file or directory")
        || message.contains("does not exist")
            && fs::symlink_metadata(path.join("CURRENT")).is_err_and(is_not_found)
}

/// What becomes of the write-ahead logs that are found when the log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// Their entries are written to a table, and they are gone.
    IntoTables,
    /// They stay until a table is written anyway. This needs hardly any room; but each start adds another.
    IntoMemory,
}

/// Opens the log database, creating it in an empty directory only.
pub(super) fn open_log(
    directory: &Path,
    write_buffer_bytes: usize,
    replay: Replay,
) -> Result<DB, Error> {
    let mut options = common_options();
    if replay == Replay::IntoMemory {
        // A write-ahead log is given blocks in advance; on some file systems it would get the last ones there are.
        options = with(
            options,
            "avoid_flush_during_recovery=true;allow_fallocate=false",
        );
    }
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A full write buffer takes the other family's with it, so that the write-ahead log behind both is needed no more,
    // and all of them are about as long.
    options.set_atomic_flush(true);
    if !planted::has(Bug::DefaultRecovery) {
        options.set_recycle_log_file_num(LOG_WALS_KEPT);
        options.set_track_and_verify_wals_in_manifest(true);
    }
    options.set_max_total_wal_size(LOG_WAL_BUFFERS * write_buffer_bytes as u64);
    let families = log_families(write_buffer_bytes);
    DB::open_cf_descriptors(&options, directory, families)
        .map_err(|e| Error::database("open", directory, e))
}

/// Opens the log database to look at it: no data on disk changes, and write-ahead logs are read into memory, up to the first
/// damage.
pub(super) fn peek_log(directory: &Path) -> Result<DB, Error> {
    let mut options = common_options();
    options.create_if_missing(false);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    let families = log_families(limits::LOG_WRITE_BUFFER_BYTES);
    DB::open_cf_descriptors_read_only(&options, directory, families, false)
        .map_err(|e| Error::database("open", directory, e))
}

fn log_families(write_buffer_bytes: usize) -> [ColumnFamilyDescriptor; 2] {
    let cache = Cache::new_lru_cache(LOG_BLOCK_CACHE_BYTES);
    let entries = log_family(&cache, write_buffer_bytes, LOG_WRITE_BUFFERS);
    let meta = log_family(&cache, META_WRITE_BUFFER_BYTES, 2);
    [
        ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, entries),
        ColumnFamilyDescriptor::new(META, meta),
    ]
}

/// No bloom filters: entries are read in ranges, and a damaged filter could hide a record.
fn log_family(cache: &Cache, write_buffer_bytes: usize, write_buffers: i32) -> Options {
    let mut options = common_options();
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(write_buffers);
    options.set_target_file_size_base(write_buffer_bytes as u64);
    // Purging deletes whole files, but never those of level 0: do not let them gather there.
    options.set_level_zero_file_num_compaction_trigger(2);
    options.set_block_based_table_factory(&table_options(cache));
    options
}

/// Options that there are no functions for.
fn with(mut options: Options, more: &str) -> Options {
    options
        .get_options_from_string(more)
        .expect("RocksDB knows these options")
}

/// What all databases of a node have in common: they check what they read, and stay small while they are idle.
fn common_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_open_files(OPEN_FILES);
    options.set_max_background_jobs(2);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOG_FILES);
    // Four mebibytes by default, of which hardly anything is used.
    options.set_manifest_preallocation_size(MANIFEST_BLOCK_BYTES);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // One thread writes to each database.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options
}

fn table_options(cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_format_version(5);
    table
}

/// The database's own messages go where ours go, and no file of its own lies among a snapshot's.
pub(super) fn info_logger() -> InfoLogger {
    InfoLogger::new_callback_logger(LogLevel::Warn, |level, message| match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!("rocksdb: {}", message.trim_end()),
        LogLevel::Warn => tracing::warn!("rocksdb: {}", message.trim_end()),
        // The options of every database: hundreds of lines that it prints whatever its level.
        LogLevel::Debug | LogLevel::Info | LogLevel::Header => {
            tracing::trace!("rocksdb: {}", message.trim_end());
        }
    })
}

/// Has a database begin no compaction, or go on as usual. Events are never merged, so that theirs take no room.
pub(super) fn rest(db: &DB, rest: bool) -> Result<(), Error> {
    let rest = if rest { "true" } else { "false" };
    db.set_options(&[("disable_auto_compactions", rest)])
        .map_err(|e| Error::database("set the options of", db.path(), e))
}
