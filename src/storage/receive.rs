//! Receiving a snapshot, in chunks and resumable.
//!
//! The files gather in a directory named after the manifest, so that a transfer that broke off goes on where it
//! stopped, after a restart too, and another snapshot never mixes with it. Nothing in the directory is trusted
//! before [`Receiver::finish`] has summed every file; chunks may carry checksums of their own on the wire.
//!
//! Invariants:
//! 1. A file name from a peer is a plain name, and the sizes add up: no peer writes outside the directory or more
//!    than it announced.
//! 2. Each file is written from its beginning, without gaps. So its length says how much of it is there.
//!
//! Deliberately absent: choosing between snapshots. A new manifest discards every other unfinished transfer, and
//! leaves alone what was received completely. A transfer that the log has overtaken is removed by `snapshot`, under the
//! receiver's feet if it comes to that.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error as StorageError;
use super::generation::{self, Name, ShardDir};
use super::position;
use super::snapshot::{self, CONTENTS, SnapshotDir};
use crate::limits;
use crate::proto::internal as pb;

/// Longest name of a file in a snapshot.
const NAME_BYTES: usize = 64;
/// Bytes of XXH3-128.
const CHECKSUM_BYTES: usize = 16;

/// Why a snapshot is not received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sender broke the rules; nothing was written.
    #[error("the snapshot is refused: {0}")]
    Refused(String),
    /// A file arrived damaged. It was discarded and has to be sent again; [`Receiver::held`] says so.
    #[error("{file} arrived damaged and has to be sent again")]
    Damaged {
        /// The file's name.
        file: String,
    },
    /// The disk failed here.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A snapshot that is being received.
#[derive(Debug)]
pub struct Receiver {
    dir: ShardDir,
    path: PathBuf,
    manifest: Arc<pb::SnapshotManifest>,
    held: Vec<u64>,
}

impl Receiver {
    /// Begins, or resumes, the transfer of the snapshot that the manifest describes.
    pub fn begin(dir: &ShardDir, manifest: pb::SnapshotManifest) -> Result<Self, Error> {
        check(&manifest, dir).map_err(Error::Refused)?;
        let path = dir.incoming(&manifest);
        for (name, other) in dir.list()? {
            if matches!(name, Name::Incoming { .. }) && other != path {
                generation::discard(&other)?;
            }
        }
        fs::create_dir_all(&path).map_err(|e| StorageError::io("create", &path, e))?;
        // What is received again is not complete any more.
        match fs::remove_file(path.join(CONTENTS)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::io("remove", &path, e).into());
            }
            _ => generation::sync(dir.path())?,
        }
        let mut receiver = Self {
            dir: dir.clone(),
            path,
            held: Vec::new(),
            manifest: Arc::new(manifest),
        };
        receiver.held = (0..receiver.manifest.files.len())
            .map(|file| receiver.measure(file))
            .collect::<Result<_, _>>()?;
        Ok(receiver)
    }

    /// Bytes held of each of the manifest's files, in its order.
    #[must_use]
    pub fn held(&self) -> Vec<u64> {
        self.held.clone()
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let files = self.manifest.files.iter().zip(&self.held);
        files
            .map(|(file, held)| file.size.saturating_sub(*held))
            .fold(0, u64::saturating_add)
    }

    /// Writes the next piece of a file: `offset` is where the last one ended.
    pub fn write(&mut self, file: u32, offset: u64, data: &[u8]) -> Result<(), Error> {
        let index = usize::try_from(file).unwrap_or(usize::MAX);
        let (Some(expected), Some(held)) = (self.manifest.files.get(index), self.held.get(index))
        else {
            return Err(Error::Refused(format!("there is no file {file}")));
        };
        let held = *held;
        if offset != held {
            let detail = format!("{} goes on at {held}, not at {offset}", expected.name);
            return Err(Error::Refused(detail));
        }
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= expected.size)
            .ok_or_else(|| Error::Refused(format!("{} is longer than announced", expected.name)))?;
        let path = self.path.join(&expected.name);
        open(&path)?
            .write_all_at(data, offset)
            .map_err(|e| StorageError::io("write", &path, e))?;
        self.held[index] = end;
        Ok(())
    }

    /// Verifies and syncs everything. After [`Error::Damaged`] the transfer can go on; after success this receiver
    /// has nothing more to do. The snapshot is removed when it is dropped without having been installed.
    pub fn finish(&mut self) -> Result<SnapshotDir, Error> {
        let manifest = self.manifest.clone();
        for (index, file) in manifest.files.iter().enumerate() {
            if self.held[index] < file.size {
                let detail = format!("{} is not complete", file.name);
                return Err(Error::Refused(detail));
            }
            if file.size == 0 {
                open(&self.path.join(&file.name))?;
            }
            match snapshot::verify_file(&self.path, file) {
                Err(StorageError::Corrupt { .. }) => return Err(self.discard(index)),
                verified => verified?,
            }
        }
        generation::sync_all_in(&self.path)?;
        snapshot::write_contents(&self.path, &manifest)?;
        // Out of the way of the next transfer, which may begin before this snapshot is installed.
        let complete = self.dir.received();
        generation::publish(&self.path, &complete)?;
        Ok(SnapshotDir::temporary(complete, manifest))
    }

    fn discard(&mut self, index: usize) -> Error {
        let file = self.manifest.files[index].name.clone();
        let path = self.path.join(&file);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                StorageError::io("remove", &path, e).into()
            }
            _ => {
                self.held[index] = 0;
                Error::Damaged { file }
            }
        }
    }

    /// How much of a file is there. One that is longer than announced is not what was announced.
    fn measure(&mut self, index: usize) -> Result<u64, Error> {
        let file = &self.manifest.files[index];
        let path = self.path.join(&file.name);
        match fs::metadata(&path) {
            Ok(found) if found.len() <= file.size => Ok(found.len()),
            Ok(_) => {
                fs::remove_file(&path).map_err(|e| StorageError::io("remove", &path, e))?;
                Ok(0)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(StorageError::io("read", &path, e).into()),
        }
    }
}

/// Opens a file for a chunk, and not for longer: of a directory that was removed meanwhile nothing stays, and the next chunk
/// says so.
fn open(path: &Path) -> Result<File, StorageError> {
    let mut options = OpenOptions::new();
    let opened = options.create(true).write(true).truncate(false).open(path);
    opened.map_err(|e| StorageError::io("create", path, e))
}

/// Whether a peer's manifest can be received at all.
fn check(manifest: &pb::SnapshotManifest, dir: &ShardDir) -> Result<(), String> {
    snapshot::check_owner(manifest, dir)?;
    position::meta_of(manifest).map_err(|e| e.to_string())?;
    if manifest.last_log_id.is_none() {
        return Err("it covers no log entry".to_owned());
    }
    if manifest.files.len() > limits::SNAPSHOT_FILES {
        let (count, limit) = (manifest.files.len(), limits::SNAPSHOT_FILES);
        return Err(format!("it has {count} files, the limit is {limit}"));
    }
    let mut names = HashSet::new();
    let mut total = 0u64;
    for file in &manifest.files {
        check_name(&file.name)?;
        if !names.insert(file.name.as_str()) {
            return Err(format!("{} appears twice", file.name));
        }
        if file.checksum.len() != CHECKSUM_BYTES {
            return Err(format!("{} has no checksum", file.name));
        }
        total = total.checked_add(file.size).ok_or("its sizes overflow")?;
    }
    Ok(())
}

/// A plain name: neither a path nor hidden, and not the table of contents.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let fits = !name.is_empty() && name.len() <= NAME_BYTES && !name.starts_with('.');
    if fits && name.bytes().all(plain) && !name.starts_with(CONTENTS) {
        return Ok(());
    }
    Err(format!("{name:?} is not the name of a snapshot's file"))
}
