//! The log database of a node: opened and verified as a whole, closed as a whole.
//!
//! One per node, in `log/` of the data directory, for all shards: they share its write-ahead log and so its fsyncs.
//! Opening compares the log's last commit group with the high-water mark and reads who the directory belongs to;
//! [`LogDb::log`] then verifies every entry of a shard before the first one is used.
//!
//! Invariant: the commit thread is the only writer from the moment it is started.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use prost::Message;
use rocksdb::DB;
use tokio::sync::watch;

use super::ballast::Ballast;
use super::commit::{self, Change, CommitQueue, Durability, RocksSink, Sink};
use super::db::{META, Replay, open_log};
use super::high_water::HighWater;
use super::identity::Identity;
use super::log::LogStore;
use super::wire::{self, Key, Record};
use super::{Error, wal};
use crate::limits;
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::types::{ClusterId, NodeId, ShardId};

const DIRECTORY: &str = "log";

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Recent entries kept in memory, in bytes.
    pub tail_bytes: usize,
    /// Writes that are collected before they are sorted into a table of about this size, in bytes.
    pub write_buffer_bytes: usize,
    /// Disk space that opening may take, in bytes. Where there is less, the ballast gives what is missing, and what is in
    /// write-ahead logs stays there.
    pub opening_bytes: u64,
    /// Whether acknowledged means durable.
    pub durability: Durability,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            tail_bytes: limits::LOG_TAIL_BYTES,
            write_buffer_bytes: limits::LOG_WRITE_BUFFER_BYTES,
            opening_bytes: limits::OPENING_BYTES,
            durability: Durability::Synced,
        }
    }
}

/// The open log database.
pub struct LogDb {
    reader: Reader,
    queue: CommitQueue,
    thread: Mutex<Option<JoinHandle<()>>>,
    identity: Mutex<Identity>,
    data_dir: PathBuf,
    config: LogConfig,
}

/// Reads single records; shared with the logs of the shards.
#[derive(Clone)]
pub(super) struct Reader {
    /// The log database.
    pub(super) db: Arc<DB>,
    /// Its directory, for messages.
    pub(super) directory: Arc<Path>,
}

impl Reader {
    /// The record under a key, checked.
    pub(super) fn get<M: Message + Default>(&self, key: Key) -> Result<Option<M>, Error> {
        let meta = self
            .db
            .cf_handle(META)
            .expect("it was opened with the database");
        let stored = self
            .db
            .get_pinned_cf(meta, key.encode())
            .map_err(|e| self.failed(e))?;
        let Some(value) = stored else {
            return Ok(None);
        };
        wire::unseal(key, &value)
            .map(Some)
            .map_err(|damage| self.damaged(key, damage.to_string()))
    }

    /// A failed read.
    pub(super) fn failed(&self, error: rocksdb::Error) -> Error {
        Error::database("read", &self.directory, error)
    }

    /// A damaged record.
    pub(super) fn damaged(&self, key: Key, detail: impl Into<String>) -> Error {
        Error::corrupt(&self.directory, key.to_string(), detail)
    }
}

impl LogDb {
    /// Opens the log of a data directory that belongs to `node`, or makes a new or empty directory its own.
    pub fn open(data_dir: &Path, node: NodeId, config: LogConfig) -> Result<Self, Error> {
        Self::open_with(data_dir, node, config, |sink| sink)
    }

    /// As [`LogDb::open`], with something of the caller's between the commit thread and the database.
    pub(super) fn open_with<S: Sink>(
        data_dir: &Path,
        node: NodeId,
        config: LogConfig,
        wrap: impl FnOnce(RocksSink) -> S,
    ) -> Result<Self, Error> {
        create_directory(data_dir)?;
        let directory = data_dir.join(DIRECTORY);
        let mut mark = HighWater::open(data_dir)?;
        let mut logged = 0;
        if let Some((_, marked)) = &mut mark
            && planted::has(Bug::DefaultRecovery)
        {
            *marked = 0;
        }
        if let Some((_, marked)) = &mark {
            if *marked > 0 && !directory.join("CURRENT").exists() {
                return Err(Error::corrupt(&directory, "CURRENT", "it is missing"));
            }
            // The mark is locked by now. A directory without one is new, or refused below.
            if !planted::has(Bug::DefaultRecovery) {
                logged = wal::verify(&directory, *marked)?;
            }
        }
        let free = Ballast::new(data_dir).make_room(config.opening_bytes)?;
        let tables = config.opening_bytes.saturating_add(wal::bytes(&directory)?);
        let replay = if free < tables {
            Replay::IntoMemory
        } else {
            Replay::IntoTables
        };
        let reader = Reader {
            db: Arc::new(open_log(&directory, config.write_buffer_bytes, replay)?),
            directory: directory.clone().into(),
        };
        let marked = mark.as_ref().map(|(_, group)| *group);
        let group = verify_group(&reader, data_dir, marked, logged)?;
        let high_water = match mark {
            Some((high_water, _)) => high_water,
            None => HighWater::create(data_dir)?,
        };
        let mut sink = RocksSink {
            db: Arc::clone(&reader.db),
            directory,
            high_water,
        };
        let (identity, group) = match reader.get::<pb::StoredIdentity>(Key::Identity)? {
            Some(stored) => (Identity::parse(&stored, node, data_dir)?, group),
            None if group > 0 => return Err(reader.damaged(Key::Identity, "it is missing")),
            None => (found(&mut sink, node)?, 1),
        };
        let (queue, thread) = commit::spawn(wrap(sink), group, config.durability)
            .map_err(|e| Error::io("start the commit thread of", data_dir, e))?;
        Ok(Self {
            reader,
            queue,
            thread: Mutex::new(Some(thread)),
            identity: Mutex::new(identity),
            data_dir: data_dir.to_owned(),
            config,
        })
    }

    /// Whom the directory belongs to.
    #[must_use]
    pub fn identity(&self) -> Identity {
        *lock(&self.identity)
    }

    /// Makes the node a member of a cluster for good. Durable when it returns; another cluster is refused.
    pub async fn adopt_cluster(&self, cluster: ClusterId) -> Result<(), Error> {
        let identity = self.identity();
        match identity.cluster {
            Some(owner) if owner == cluster => return Ok(()),
            Some(owner) => {
                return Err(Error::ForeignCluster {
                    directory: self.data_dir.clone(),
                    owner,
                    cluster,
                });
            }
            None => {}
        }
        let identity = Identity {
            cluster: Some(cluster),
            ..identity
        };
        self.put(Key::Identity, &pb::StoredIdentity::from(identity))
            .await?;
        *lock(&self.identity) = identity;
        Ok(())
    }

    /// Which generation of a shard's state is the current one; 0 in a new directory.
    pub fn generation(&self, shard: ShardId) -> Result<u64, Error> {
        let stored: Option<pb::StoredNumber> = self.reader.get(Key::Generation(shard))?;
        Ok(stored.map_or(0, |generation| generation.number))
    }

    /// Switches a shard to another generation of its state. Durable when it returns.
    pub async fn set_generation(&self, shard: ShardId, generation: u64) -> Result<(), Error> {
        self.put(Key::Generation(shard), &wire::number(generation))
            .await
    }

    /// What [`LogDb::note_log_time`] was last told, as far as the log goes.
    pub fn log_time(&self) -> Result<Option<pb::StoredLogTime>, Error> {
        self.reader.get(Key::LogTime)
    }

    /// Leaves it to the next commit group: durable when that is, and costs no sync of its own.
    pub fn note_log_time(&self, log_time: &pb::StoredLogTime) {
        self.queue.hint(Key::LogTime, log_time);
    }

    /// Opens a shard's log after verifying all of it.
    pub fn log(&self, shard: ShardId) -> Result<LogStore, Error> {
        LogStore::open(
            shard,
            self.reader.clone(),
            self.queue.clone(),
            self.config.tail_bytes,
        )
    }

    /// Becomes `Some` with the cause when the log cannot be written any more. The process must end then.
    #[must_use]
    pub fn poisoned(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.queue.poisoned()
    }

    /// Commits what is queued and ends the commit thread; later writes fail. The directory is free for another
    /// process once every [`LogStore`] is dropped as well.
    pub async fn shutdown(&self) {
        self.queue.stop().await;
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // The thread ends after at most two groups; waiting for it must not hold up the runtime.
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the commit thread panicked");
            }
        }
    }

    async fn put(&self, key: Key, message: &impl Message) -> Result<(), Error> {
        let change = Change::Put(Record::seal(key, message));
        self.queue.write(vec![change], None).await
    }
}

/// A database that is dropped without [`LogDb::shutdown`] waits for its thread all the same: one that outlived `main`
/// would still be in RocksDB while the process takes RocksDB's statics down, which aborts it.
impl Drop for LogDb {
    fn drop(&mut self) {
        if let Some(thread) = lock(&self.thread).take() {
            self.queue.stop_now();
            if thread.join().is_err() {
                tracing::error!("the commit thread panicked");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new directory's name is durable before anything in it is.
fn create_directory(data_dir: &Path) -> Result<(), Error> {
    let create = || {
        std::fs::create_dir_all(data_dir)?;
        if let Some(parent) = data_dir.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    create().map_err(|e| Error::io("create the data directory", data_dir, e))
}

/// The number of the log's last commit group, which must not be below the mark, nor below what was found in write-ahead logs.
fn verify_group(
    reader: &Reader,
    data_dir: &Path,
    mark: Option<u64>,
    logged: u64,
) -> Result<u64, Error> {
    let stored: Option<pb::StoredNumber> = reader.get(Key::Group)?;
    let group = stored.map_or(0, |group| group.number);
    match mark {
        None if group > 0 => Err(Error::corrupt(
            data_dir,
            "the high-water mark HIGH_WATER",
            "it is missing",
        )),
        Some(marked) if marked > group => Err(Error::corrupt(
            &reader.directory,
            format!("commit group {marked}"),
            format!(
                "it was synced, yet the log ends at group {group}: its write-ahead log was cut short or a file is missing"
            ),
        )),
        _ if logged > group => Err(Error::corrupt(
            &reader.directory,
            format!("commit group {logged}"),
            format!("it was whole, yet RocksDB recovered no group beyond {group}"),
        )),
        _ => Ok(group),
    }
}

/// The first write to a new directory: who it is. Its instance id is drawn here and never again.
fn found(sink: &mut RocksSink, node: NodeId) -> Result<Identity, Error> {
    let identity = Identity::draw(node);
    let changes = [
        Change::Put(Record::seal(
            Key::Identity,
            &pb::StoredIdentity::from(identity),
        )),
        Change::Put(Record::seal(Key::Group, &wire::number(1))),
    ];
    sink.write(&changes, Durability::Synced)?;
    sink.synced(1)?;
    Ok(identity)
}
