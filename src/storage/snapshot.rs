//! Snapshots: checkpoints of the state database with a table of contents.
//!
//! A snapshot is a directory of the database's own files, tables as hard links, and of one more, `CONTENTS`:
//!
//! ```text
//! CONTENTS   XXH3-128 of the rest (16 bytes, little-endian) | SnapshotManifest
//! ```
//!
//! Invariants:
//! 1. Making one flushes the state database first, so that whatever a snapshot covers is durable in the state
//!    database too. openraft purges the log only up to the newest snapshot's last log id; hence nothing is purged
//!    that the state database could lose. Opening checks it: a state database behind its snapshot is damaged.
//! 2. What the manifest says was read from the checkpoint itself. Entries that are applied meanwhile cannot come
//!    between the two.
//! 3. A snapshot with a final name is complete and synced. One that does not match its manifest is damage, named
//!    and never taken for "no snapshot".
//! 4. A directory is removed when it is no longer the current snapshot and the last [`SnapshotDir`] of it is
//!    dropped: a transfer that is under way keeps its files. It loses its name first, so that 3 holds after a crash in the
//!    middle of that. Earlier versions let it keep its name: a received snapshot that lacks files is what they left.
//!
//! Making or adopting one also removes what was being received of older ones.
//!
//! A table that is the same inode as in the previous snapshot keeps its checksum and is not read again. If it rots, that is
//! found when the node starts, or when the snapshot is sent.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use openraft::RaftSnapshotBuilder;
use prost::Message as _;
use rocksdb::checkpoint::Checkpoint;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::Error;
use super::generation::{self, Directory, Name, ShardDir};
use super::state_db::StateDb;
use super::{opener, position};
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::raft::{SnapshotMeta, TypeConfig};

/// A snapshot in openraft's form.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>;

/// The only format there is.
pub(super) const FORMAT: u32 = 1;
/// The table of contents.
pub(super) const CONTENTS: &str = "CONTENTS";
/// The same while it is written.
const UNFINISHED_CONTENTS: &str = "CONTENTS.tmp";
/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 16;
/// A snapshot is not made anew for less.
const STALE_BYTES: u64 = 1 << 20;
/// Read at a time when a file is summed.
const READ_BYTES: usize = 256 << 10;

/// A complete snapshot on disk. Cloning shares it, and holding a clone keeps its files.
#[derive(Debug, Clone)]
pub struct SnapshotDir {
    manifest: Arc<pb::SnapshotManifest>,
    directory: Arc<Directory>,
}

impl SnapshotDir {
    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its table of contents.
    #[must_use]
    pub fn manifest(&self) -> &pb::SnapshotManifest {
        &self.manifest
    }

    /// Reads a file of it and checks that it is what the manifest says. A mismatch is [`Error::Corrupt`] and names the file.
    pub fn check(&self, file: &pb::SnapshotFile) -> Result<(), Error> {
        verify_file(self.path(), file)
    }

    /// What openraft knows of it.
    pub fn meta(&self) -> Result<SnapshotMeta, Error> {
        position::meta_of(&self.manifest)
            .map_err(|e| Error::corrupt(self.path(), CONTENTS, e.to_string()))
    }

    /// The last log index that it covers; 0 for none.
    pub(super) fn index(&self) -> u64 {
        index_of(&self.manifest)
    }

    /// A directory that was just filled and synced, and is removed when it is dropped.
    pub(super) fn temporary(path: PathBuf, manifest: Arc<pb::SnapshotManifest>) -> Self {
        let snapshot = Self::lasting(path, manifest);
        snapshot.directory.abandon();
        snapshot
    }

    fn lasting(path: PathBuf, manifest: Arc<pb::SnapshotManifest>) -> Self {
        Self {
            manifest,
            directory: Arc::new(Directory::new(path)),
        }
    }

    /// Opens a snapshot with a final name and checks every byte of it.
    pub(super) fn open(path: PathBuf, dir: &ShardDir) -> Result<Self, Error> {
        let manifest = read_contents(&path)?;
        check_owner(&manifest, dir).map_err(|detail| Error::corrupt(&path, CONTENTS, detail))?;
        for file in &manifest.files {
            verify_file(&path, file)?;
        }
        Ok(Self::lasting(path, Arc::new(manifest)))
    }

    /// Bytes of tables that are the state's no more.
    fn stale_bytes(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for name in self.names().filter(|name| generation::is_table(name)) {
            let path = self.path().join(name);
            let found = fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?;
            if found.nlink() == 1 {
                bytes += found.len();
            }
        }
        Ok(bytes)
    }

    /// The names of all its files.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.manifest.files.iter().map(|file| file.name.as_str())
    }
}

/// The snapshots of one shard: the current one, and the making of the next.
#[derive(Debug)]
pub(super) struct Snapshots {
    dir: ShardDir,
    current: Mutex<Option<SnapshotDir>>,
    /// Made, and not yet asked for.
    prepared: Mutex<Option<SnapshotDir>>,
    /// Held while a snapshot is made or installed: installing removes the database that a checkpoint is taken of.
    busy: tokio::sync::Mutex<()>,
    next: AtomicU64,
}

impl Snapshots {
    /// Finds the newest snapshot, finishes what a crash left of an installation, and removes the rest.
    pub fn open(dir: ShardDir, applied: Option<u64>) -> Result<Self, Error> {
        let mut newest = None;
        let mut next = 0;
        for (name, path) in dir.list()? {
            if let Name::Snapshot { number, .. } = name {
                next = next.max(number.saturating_add(1));
                // The list ascends, so the one before is older.
                if let Some(older) = newest.replace(path) {
                    generation::discard(&older)?;
                }
            }
        }
        let current = newest
            .map(|path| SnapshotDir::open(path, &dir))
            .transpose()?;
        let snapshots = Self {
            dir,
            current: Mutex::new(current),
            prepared: Mutex::new(None),
            busy: tokio::sync::Mutex::new(()),
            next: AtomicU64::new(next),
        };
        snapshots.settle_received(applied)?;
        if let Some(applied) = applied {
            snapshots.discard_overtaken(applied)?;
        }
        snapshots.check_not_ahead(applied)?;
        Ok(snapshots)
    }

    /// The current snapshot.
    pub fn current(&self) -> Option<SnapshotDir> {
        unpoisoned(&self.current).clone()
    }

    /// No snapshot is made or installed while the guard lives.
    pub async fn exclusive(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.busy.lock().await
    }

    /// A received snapshot that the state database already covers was installed, and a crash came before it became
    /// the current one. Any other was not, and waits for its transfer to be resumed. One that lacks files was on its way out;
    /// where it was installed, the state has it, and the next snapshot is made of that.
    fn settle_received(&self, applied: Option<u64>) -> Result<(), Error> {
        for (name, path) in self.dir.list()? {
            if name != Name::Received {
                continue;
            }
            let Some(manifest) = manifest_of_whole(&path)? else {
                generation::discard(&path)?;
                continue;
            };
            let index = index_of(&manifest);
            let known = self.current().map(|current| current.index());
            if applied.is_none_or(|applied| index > applied) {
                let incoming = self.dir.incoming(&manifest);
                generation::remove(&incoming)?;
                generation::publish(&path, &incoming)?;
            } else if known.is_none_or(|known| known < index) {
                let received = SnapshotDir::open(path, &self.dir)?;
                received.directory.abandon();
                self.adopt(&received)?;
            } else {
                generation::discard(&path)?;
            }
        }
        Ok(())
    }

    /// Removes what was being received of snapshots that end at or before a log index that is applied here. Nobody offers
    /// them any more, and on a full disk nothing else would free what they take. A transfer that goes on all the same fails.
    fn discard_overtaken(&self, applied: u64) -> Result<(), Error> {
        for (name, path) in self.dir.list()? {
            if matches!(name, Name::Incoming { index } if index <= applied) {
                generation::discard(&path)?;
            }
        }
        Ok(())
    }

    fn check_not_ahead(&self, applied: Option<u64>) -> Result<(), Error> {
        let Some(current) = self.current() else {
            return Ok(());
        };
        if current.index() <= applied.unwrap_or(0) {
            return Ok(());
        }
        let detail = format!(
            "it ends at log index {}, but its snapshot {} covers {}",
            applied.unwrap_or(0),
            current.path().display(),
            current.index(),
        );
        Err(Error::corrupt(
            self.dir.path(),
            "the state database",
            detail,
        ))
    }

    /// Makes a snapshot of what is applied. Blocks on the disk; entries may be applied meanwhile.
    pub fn build(&self, state: &StateDb) -> Result<SnapshotDir, Error> {
        let _busy = self.busy.blocking_lock();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.dir.unfinished_snapshot(state.applied_index(), number);
        let built = self.build_at(state, &unfinished, number);
        if built.is_err() {
            // It keeps tables alive that are in nobody's way otherwise; what stays is removed at the next start.
            if let Err(error) = generation::remove(&unfinished) {
                tracing::warn!(%error, "an unfinished snapshot was not removed");
            }
        }
        built
    }

    fn build_at(
        &self,
        state: &StateDb,
        unfinished: &Path,
        number: u64,
    ) -> Result<SnapshotDir, Error> {
        let previous = self.current();
        generation::remove(unfinished)?;
        // The checkpoint takes what is in the database.
        if !planted::has(Bug::EarlyPurge) {
            state.persist()?;
        }
        let database = state.database();
        Checkpoint::new(&database)
            .and_then(|checkpoint| checkpoint.create_checkpoint(unfinished))
            .map_err(|e| Error::database("make a checkpoint of", database.path(), e))?;
        let mut manifest = describe(&self.dir, unfinished, previous.as_ref())?;
        if planted::has(Bug::EarlyPurge) {
            manifest.last_log_id = state.position().applied.map(Into::into);
        }
        self.finish(unfinished, manifest, number)
    }

    /// Makes the current snapshot anew if it keeps many bytes alive that the state has left behind, and covers all that is
    /// applied: openraft would see no reason for another. Returns the bytes that this gave back. Blocks on the disk.
    pub fn renew(&self, state: &StateDb) -> Result<u64, Error> {
        let Some(current) = self.current() else {
            return Ok(0);
        };
        let left_behind = current.stale_bytes()?;
        if left_behind < STALE_BYTES || current.index() != state.applied_index() {
            return Ok(0);
        }
        drop(current);
        self.build(state)?;
        Ok(left_behind)
    }

    /// Makes a received snapshot the current one; its files are shared until the received one is dropped.
    pub fn adopt(&self, received: &SnapshotDir) -> Result<SnapshotDir, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.dir.unfinished_snapshot(received.index(), number);
        generation::link_into(received.path(), &unfinished, received.names())?;
        self.finish(&unfinished, received.manifest().clone(), number)
    }

    /// Writes the table of contents, syncs, gives the final name, and takes the place of the current snapshot.
    fn finish(
        &self,
        unfinished: &Path,
        manifest: pb::SnapshotManifest,
        number: u64,
    ) -> Result<SnapshotDir, Error> {
        write_contents(unfinished, &manifest)?;
        generation::sync_all_in(unfinished)?;
        let path = self.dir.snapshot(index_of(&manifest), number);
        generation::publish(unfinished, &path)?;
        let snapshot = SnapshotDir::lasting(path, Arc::new(manifest));
        let old = unpoisoned(&self.current).replace(snapshot.clone());
        if let Some(old) = old {
            old.directory.abandon();
        }
        if let Err(error) = self.discard_overtaken(snapshot.index()) {
            tracing::warn!(%error, "an overtaken transfer was not removed");
        }
        Ok(snapshot)
    }
}

/// Makes snapshots on a blocking thread, while entries are applied.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) state: StateDb,
    pub(super) snapshots: Arc<Snapshots>,
}

impl Builder {
    /// Makes the snapshot that openraft will ask for next. A failure here is no more than that, and a full disk is one; in
    /// the middle of what openraft has asked for, it ends openraft. Blocks on the disk.
    pub fn prepare(&self) -> Result<(), Error> {
        let snapshot = self.snapshots.build(&self.state)?;
        *unpoisoned(&self.snapshots.prepared) = Some(snapshot);
        Ok(())
    }

    /// Has the current snapshot let go of what the state has left behind, if that is much and nothing was applied since.
    /// Returns the bytes that it gave back. Blocks on the disk.
    pub fn renew(&self) -> Result<u64, Error> {
        self.snapshots.renew(&self.state)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (state, snapshots) = (self.state.clone(), self.snapshots.clone());
        let prepared = unpoisoned(&snapshots.prepared).take();
        if let Some(prepared) = prepared {
            return described(prepared);
        }
        let snapshot = tokio::task::spawn_blocking(move || snapshots.build(&state))
            .await
            .map_err(io::Error::other)??;
        described(snapshot)
    }
}

/// A snapshot in openraft's form.
pub(super) fn described(snapshot: SnapshotDir) -> io::Result<Snapshot> {
    let meta = snapshot.meta()?;
    Ok(Snapshot { meta, snapshot })
}

/// The last log index that it covers; 0 for none.
pub(super) fn index_of(manifest: &pb::SnapshotManifest) -> u64 {
    manifest.last_log_id.as_ref().map_or(0, |id| id.index)
}

/// Whether a manifest is one of this cluster, this shard, and a format that is known.
pub(super) fn check_owner(manifest: &pb::SnapshotManifest, dir: &ShardDir) -> Result<(), String> {
    if manifest.format != FORMAT {
        return Err(format!("format {} is not known", manifest.format));
    }
    if manifest.cluster_id != dir.cluster().as_bytes()[..] {
        return Err(format!("it is of another cluster than {}", dir.cluster()));
    }
    if manifest.shard_id != u32::from(dir.shard().get()) {
        return Err(format!("it is of shard {}", manifest.shard_id));
    }
    Ok(())
}

/// The manifest of a checkpoint, from its own content.
fn describe(
    dir: &ShardDir,
    checkpoint: &Path,
    previous: Option<&SnapshotDir>,
) -> Result<pb::SnapshotManifest, Error> {
    // Before anything opens the directory, so that it lists what the checkpoint wrote and nothing else.
    let files = list_files(checkpoint, &known_checksums(previous))?;
    let content = opener::inspect(checkpoint)?;
    Ok(pb::SnapshotManifest {
        format: FORMAT,
        cluster_id: Bytes::copy_from_slice(dir.cluster().as_bytes()),
        shard_id: u32::from(dir.shard().get()),
        last_log_id: content.position.applied.map(Into::into),
        membership: Some((&content.position.membership).into()),
        revision: content.header.revision,
        files,
    })
}

/// Device and inode: two directory entries with the same ones are the same file.
type FileId = (u64, u64);

fn known_checksums(previous: Option<&SnapshotDir>) -> HashMap<FileId, Bytes> {
    let Some(previous) = previous else {
        return HashMap::new();
    };
    let files = previous.manifest().files.iter();
    files
        .filter(|file| generation::is_table(&file.name))
        .filter_map(|file| {
            let found = fs::metadata(previous.path().join(&file.name)).ok()?;
            let same_size = found.len() == file.size;
            same_size.then(|| ((found.dev(), found.ino()), file.checksum.clone()))
        })
        .collect()
}

fn list_files(
    directory: &Path,
    known: &HashMap<FileId, Bytes>,
) -> Result<Vec<pb::SnapshotFile>, Error> {
    let mut files = Vec::new();
    for entry in generation::read_dir(directory)? {
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|name| {
            Error::corrupt(directory, name.to_string_lossy(), "not a name of ours")
        })?;
        let found = entry.metadata().map_err(|e| Error::io("read", &path, e))?;
        let checksum = match known.get(&(found.dev(), found.ino())) {
            Some(checksum) => checksum.clone(),
            None => checksum(&path).map_err(|e| Error::io("read", &path, e))?,
        };
        let size = found.len();
        files.push(pb::SnapshotFile {
            name,
            size,
            checksum,
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// XXH3-128 of a file's content.
fn checksum(path: &Path) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(Bytes::copy_from_slice(&hasher.digest128().to_le_bytes()))
}

/// Checks that a file is what the manifest says. A mismatch is [`Error::Corrupt`] and names the file.
pub(super) fn verify_file(directory: &Path, file: &pb::SnapshotFile) -> Result<(), Error> {
    let path = directory.join(&file.name);
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::corrupt(&path, "a snapshot's file", "it is missing"));
        }
        Err(e) => return Err(Error::io("read", &path, e)),
    };
    if found.len() != file.size {
        let detail = format!("it has {} bytes instead of {}", found.len(), file.size);
        return Err(Error::corrupt(&path, "a snapshot's file", detail));
    }
    if checksum(&path).map_err(|e| Error::io("read", &path, e))? != file.checksum {
        let detail = "its checksum differs";
        return Err(Error::corrupt(&path, "a snapshot's file", detail));
    }
    Ok(())
}

/// Writes the table of contents, durably.
pub(super) fn write_contents(
    directory: &Path,
    manifest: &pb::SnapshotManifest,
) -> Result<(), Error> {
    let path = directory.join(CONTENTS);
    let message = manifest.encode_to_vec();
    let mut bytes = xxh3_128(&message).to_le_bytes().to_vec();
    bytes.extend_from_slice(&message);
    let unfinished = directory.join(UNFINISHED_CONTENTS);
    fs::write(&unfinished, bytes).map_err(|e| Error::io("write", &unfinished, e))?;
    generation::sync(&unfinished)?;
    generation::publish(&unfinished, &path)
}

/// The table of contents of a directory that lacks none of its files.
fn manifest_of_whole(directory: &Path) -> Result<Option<pb::SnapshotManifest>, Error> {
    let has = |name: &str| {
        let path = directory.join(name);
        path.try_exists().map_err(|e| Error::io("read", &path, e))
    };
    if !has(CONTENTS)? {
        return Ok(None);
    }
    let manifest = read_contents(directory)?;
    for file in &manifest.files {
        if !has(&file.name)? {
            return Ok(None);
        }
    }
    Ok(Some(manifest))
}

fn read_contents(directory: &Path) -> Result<pb::SnapshotManifest, Error> {
    let path = directory.join(CONTENTS);
    let bytes = fs::read(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::corrupt(directory, CONTENTS, "it is missing"),
        _ => Error::io("read", &path, e),
    })?;
    let damaged = |detail: &str| Error::corrupt(directory, CONTENTS, detail);
    let (sum, message) = bytes
        .split_first_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(|| damaged("it is too short"))?;
    if xxh3_128(message).to_le_bytes() != *sum {
        return Err(damaged("its checksum differs"));
    }
    pb::SnapshotManifest::decode(message).map_err(|e| damaged(&e.to_string()))
}

/// A panic elsewhere leaves what these locks guard as it was: whole values, replaced in one step.
fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
