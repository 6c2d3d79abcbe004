//! The directories of one shard, and how a received snapshot becomes its state.
//!
//! ```text
//! shards/<shard>/
//!   state-<generation>/            the state database; the generation pointer in the log database says which
//!   state-<generation>.new/        one being made
//!   snapshot-<log index>-<n>/      a snapshot, see `snapshot`
//!   snapshot-<log index>-<n>.tmp/  one being made
//!   incoming-<log index>-<hash>/   one being received, see `receive`; the hash is its manifest's
//!   received-<n>/                  a complete one, until it is installed
//!   snapshot-<name>.tmp/           one of the above on its way out
//! ```
//!
//! A directory gets its final name once its content is synced, and loses it before anything in it goes, so that a name
//! without a suffix says *complete*. A state that is not the current one needs no other name to be removed.
//! Installing a snapshot takes these steps. After a crash, opening finds what the last column says:
//!
//! | step | done to disk | a crash after it opens |
//! |---|---|---|
//! | 1 | `received-…` is complete and verified | the old generation; the files are `incoming-…` again, for a resumed transfer |
//! | 2 | `state-<g+1>.new` is filled with links | the old generation; `.new` is removed |
//! | 3 | it is synced and renamed to `state-<g+1>` | the old generation; `state-<g+1>` is removed |
//! | 4 | it was opened and holds what the snapshot's meta says | as 3 |
//! | 5 | the pointer says `g+1`, with one synced write | the new generation; the received snapshot becomes the current one |
//! | 6 | `snapshot-…` holds links to the received files | the new generation and its snapshot; `received-…` is removed |
//! | 7 | the older snapshots are removed | the new generation and its snapshot; `state-<g>` is removed |
//! | 8 | `state-<g>` and `received-…` are removed | the new generation and its snapshot |
//!
//! Whoever still reads from `state-<g>`, as a watcher does that catches up, keeps it until it is done.
//!
//! Table files are linked, because neither database ever writes to one again. What a database rewrites or appends
//! to (`CURRENT`, the manifests) is copied.
//!
//! Invariant: the pointer is written by installing alone, and only to a generation that was opened and checked.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prost::Message as _;
use tokio::task::JoinError;
use xxhash_rust::xxh3::xxh3_64;

use super::Error;
use super::committed::Committed;
use super::log_db::LogDb;
use super::opener::Opener;
use super::snapshot::{self, CONTENTS, SnapshotDir, Snapshots};
use super::state_db::StateDb;
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::raft::SnapshotMeta;
use crate::types::{ClusterId, ShardId};

/// Where one shard's files are, and whose they are.
#[derive(Debug, Clone)]
pub struct ShardDir {
    path: PathBuf,
    cluster: ClusterId,
    shard: ShardId,
}

/// What a name in the shard's directory says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// A complete state database.
    State {
        /// Its generation.
        generation: u64,
    },
    /// A complete snapshot.
    Snapshot {
        /// The last log index in it.
        index: u64,
        /// Counts the snapshots of a process, so that a name is not used twice.
        number: u64,
    },
    /// A snapshot being received.
    Incoming {
        /// The last log index in it.
        index: u64,
    },
    /// A complete one, not yet installed.
    Received,
    /// What a crash interrupted.
    Unfinished,
}

impl ShardDir {
    /// The directory of a shard under a node's data directory.
    #[must_use]
    pub fn new(data_dir: &Path, cluster: ClusterId, shard: ShardId) -> Self {
        Self {
            path: data_dir.join("shards").join(shard.get().to_string()),
            cluster,
            shard,
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Which shard's.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) fn state(&self, generation: u64) -> PathBuf {
        self.path.join(format!("state-{generation}"))
    }

    pub(super) fn new_state(&self, generation: u64) -> PathBuf {
        self.path.join(format!("state-{generation}.new"))
    }

    pub(super) fn snapshot(&self, index: u64, number: u64) -> PathBuf {
        self.path.join(format!("snapshot-{index}-{number}"))
    }

    pub(super) fn unfinished_snapshot(&self, index: u64, number: u64) -> PathBuf {
        self.path.join(format!("snapshot-{index}-{number}.tmp"))
    }

    /// Named after the manifest, so that a transfer finds what it left.
    pub(super) fn incoming(&self, manifest: &pb::SnapshotManifest) -> PathBuf {
        let index = snapshot::index_of(manifest);
        let hash = xxh3_64(&manifest.encode_to_vec());
        self.path.join(format!("incoming-{index}-{hash:016x}"))
    }

    /// A name that no other transfer has, not even one of the same snapshot.
    pub(super) fn received(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.path.join(format!("received-{number}"));
            if !path.exists() {
                return path;
            }
        }
    }

    /// Makes the directory, durably.
    pub(super) fn create(&self) -> Result<(), Error> {
        let shards = self
            .path
            .parent()
            .expect("it is data directory, shards, shard");
        let data_dir = shards
            .parent()
            .expect("it is data directory, shards, shard");
        fs::create_dir_all(&self.path).map_err(|e| Error::io("create", &self.path, e))?;
        for directory in [&self.path, shards, data_dir] {
            sync(directory)?;
        }
        Ok(())
    }

    /// What is in the directory and has a name that this module gives; anything else is not ours and is left alone.
    pub(super) fn list(&self) -> Result<Vec<(Name, PathBuf)>, Error> {
        let mut found = Vec::new();
        for entry in read_dir(&self.path)? {
            let name = entry.file_name();
            if let Some(name) = name.to_str().and_then(parse_name) {
                found.push((name, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }
}

fn parse_name(name: &str) -> Option<Name> {
    if let Some(rest) = name.strip_prefix("state-") {
        return match rest.parse() {
            Ok(generation) => Some(Name::State { generation }),
            Err(_) => has_suffix(rest, "new").then_some(Name::Unfinished),
        };
    }
    if let Some(rest) = name.strip_prefix("snapshot-") {
        // RocksDB adds a suffix of its own while it makes a checkpoint.
        if has_suffix(rest, "tmp") {
            return Some(Name::Unfinished);
        }
        let (index, number) = rest.split_once('-')?;
        return Some(Name::Snapshot {
            index: index.parse().ok()?,
            number: number.parse().ok()?,
        });
    }
    if name.starts_with("received-") {
        return Some(Name::Received);
    }
    let incoming = name.strip_prefix("incoming-")?;
    Some(match incoming.split_once('-') {
        Some((index, _)) => Name::Incoming {
            index: index.parse().ok()?,
        },
        // An earlier version's, which no transfer finds any more.
        None => Name::Unfinished,
    })
}

/// Opens the current generation, after removing whatever a crash left beside it.
pub(super) fn open(dir: &ShardDir, opener: &Opener, current: u64) -> Result<Committed, Error> {
    let mut is_new = current == 0;
    for (name, path) in dir.list()? {
        match name {
            Name::Unfinished => remove(&path)?,
            Name::State { generation } if generation != current => remove(&path)?,
            // A state was here: an installed one, or one that a snapshot was made of.
            Name::State { .. } | Name::Snapshot { .. } => is_new = false,
            Name::Incoming { .. } | Name::Received => {}
        }
    }
    let path = dir.state(current);
    if is_new {
        opener.create(&dir.new_state(current), &path)?;
    } else if !path.exists() {
        return Err(Error::corrupt(&path, "the state database", "it is missing"));
    }
    opener.open(current, &path)
}

/// A shard's parts that installing a snapshot moves.
pub(super) struct Shard {
    pub dir: ShardDir,
    pub log: Arc<LogDb>,
    pub opener: Opener,
    pub state: StateDb,
    pub snapshots: Arc<Snapshots>,
}

impl Shard {
    /// Makes a received snapshot the state, in the steps of the table above.
    pub async fn install(
        self: &Arc<Self>,
        meta: &SnapshotMeta,
        received: SnapshotDir,
    ) -> Result<(), Error> {
        // No checkpoint is under way while the database that it is taken of goes away.
        let _exclusive = self.snapshots.exclusive().await;
        let (shard, meta, incoming) = (self.clone(), meta.clone(), received.clone());
        let next = blocking(move || shard.prepare(&meta, &incoming)).await?;
        self.log
            .set_generation(self.dir.shard(), next.generation)
            .await?;
        let shard = self.clone();
        blocking(move || {
            let old = shard.state.switch(next);
            shard.snapshots.adopt(&received)?;
            old.abandon();
            Ok(())
        })
        .await
    }

    /// Steps 2 to 4: makes, opens and checks the next generation.
    fn prepare(&self, meta: &SnapshotMeta, received: &SnapshotDir) -> Result<Committed, Error> {
        let next = self.state.generation().saturating_add(1);
        let (unfinished, path) = (self.dir.new_state(next), self.dir.state(next));
        remove(&path)?;
        link_into(received.path(), &unfinished, received.names())?;
        publish(&unfinished, &path)?;
        let committed = self.opener.open(next, &path)?;
        if planted::has(Bug::RepliesNotInSnapshots) {
            committed.forget_replies()?;
        }
        let position = &committed.position;
        if position.applied != meta.last_log_id || position.membership != meta.last_membership {
            let detail = "the database is not at the log position that is announced";
            return Err(Error::corrupt(received.path(), CONTENTS, detail));
        }
        Ok(committed)
    }
}

/// Runs what waits for the disk where it holds up no other task.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// What such work said that was waited for.
pub(super) fn joined<T>(work: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    match work {
        Ok(done) => done,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Stopped),
        },
    }
}

/// A directory that is removed when this is dropped, if it was abandoned. Whoever needs its files shares it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    abandoned: AtomicBool,
}

impl Directory {
    /// One that is to stay for now.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            abandoned: AtomicBool::new(false),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It goes when nobody needs its files any more.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.abandoned.load(Ordering::Acquire) {
            return;
        }
        // What stays behind is removed at the next start.
        if let Err(error) = discard(&self.path) {
            tracing::warn!(%error, "a directory that is needed no more was not removed");
        }
    }
}

/// The entries of a directory.
pub(super) fn read_dir(path: &Path) -> Result<Vec<fs::DirEntry>, Error> {
    fs::read_dir(path)
        .and_then(Iterator::collect)
        .map_err(|e| Error::io("read", path, e))
}

/// Makes a file, or a directory's entries, survive a power cut.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io("sync", path, e))
}

/// Syncs every file of a directory, and the directory.
pub(super) fn sync_all_in(directory: &Path) -> Result<(), Error> {
    for entry in read_dir(directory)? {
        sync(&entry.path())?;
    }
    sync(directory)
}

/// Gives a synced directory its final name, durably.
pub(super) fn publish(unfinished: &Path, complete: &Path) -> Result<(), Error> {
    fs::rename(unfinished, complete).map_err(|e| Error::io("rename", unfinished, e))?;
    sync(complete.parent().expect("it is in a shard's directory"))
}

/// Removes a directory whose name says that it is complete. Its first step takes the name away: a crash between two files
/// would leave what looks damaged.
pub(super) fn discard(complete: &Path) -> Result<(), Error> {
    let name = complete.file_name().expect("it is in a shard's directory");
    let name = name.to_string_lossy();
    let rest = name.trim_start_matches("snapshot-");
    let leaving = complete.with_file_name(format!("snapshot-{rest}.tmp"));
    // A crash may have left one of that name.
    remove(&leaving)?;
    match fs::rename(complete, &leaving) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("rename", complete, e)),
        Ok(()) => {
            // A power cut must not undo the one and keep the other.
            sync(leaving.parent().expect("it is in a shard's directory"))?;
            remove(&leaving)
        }
    }
}

/// Removes a directory; one that is not there is fine.
pub(super) fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", directory, e)),
        _ => Ok(()),
    }
}

/// Whether a database never writes to the file again once it is there.
pub(super) fn is_table(name: &str) -> bool {
    has_suffix(name, "sst")
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|found| found == suffix)
}

/// Puts the named files of one directory into another, new one: tables as links, or as copies where the file
/// systems differ.
pub(super) fn link_into<'a>(
    from: &Path,
    to: &Path,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), Error> {
    remove(to)?;
    fs::create_dir(to).map_err(|e| Error::io("create", to, e))?;
    for name in names {
        let (source, target) = (from.join(name), to.join(name));
        if is_table(name) && fs::hard_link(&source, &target).is_ok() {
            continue;
        }
        fs::copy(&source, &target).map_err(|e| Error::io("copy", &source, e))?;
    }
    sync_all_in(to)
}
