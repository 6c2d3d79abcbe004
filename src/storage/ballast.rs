//! The ballast: blocks of the disk that are set aside while there is room, and given back when there is none.
//!
//! A file `BALLAST` in the data directory, of zeros that nobody reads. What it holds is taken from nobody's data, and no other
//! program can take it either: it is what a node deletes, flushes and starts on while its disk is full. How much it
//! holds, and when, is the node's to decide; see there for the rest.
//!
//! RocksDB cannot open the log on a disk without a free block, so opening a data directory comes first: see
//! [`Ballast::make_room`].
//!
//! Invariant: what is said to be held has blocks of its own. A sparse file, such as a copy may be, holds nothing.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::Error;
use super::usage::{BLOCK_BYTES, capacity};

const NAME: &str = "BALLAST";

/// The ballast of one data directory.
#[derive(Debug, Clone)]
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// Of a data directory; it may hold nothing yet.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join(NAME),
        }
    }

    /// Bytes that are set aside.
    pub fn held(&self) -> Result<u64, Error> {
        match fs::metadata(&self.path) {
            Ok(found) => Ok(found.len().min(found.blocks() * BLOCK_BYTES)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::io("read", &self.path, error)),
        }
    }

    /// Sets aside so many bytes, or gives back what is more. Where there is no room for them, it holds what it held.
    pub fn hold(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return self.remove();
        }
        let held = self.held().map_err(io::Error::from)?;
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)?;
        if bytes < held {
            return file.set_len(bytes);
        }
        let grown = fallocate(&file, FallocateFlags::empty(), 0, bytes);
        if let Err(error) = grown {
            // A part of it may have been set aside.
            file.set_len(held)?;
            return Err(error.into());
        }
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives back what is missing for so many bytes to be free, and says how many are then.
    pub(super) fn make_room(&self, bytes: u64) -> Result<u64, Error> {
        let data_dir = self.path.parent().expect("it is in a data directory");
        let missing = bytes.saturating_sub(capacity(data_dir)?.free);
        let held = self.held()?;
        if missing > 0 && held > 0 {
            tracing::warn!(
                missing,
                ballast = held,
                "the disk is full: opening on the ballast"
            );
            self.hold(held.saturating_sub(missing))
                .map_err(|e| Error::io("give back space of", &self.path, e))?;
        }
        Ok(capacity(data_dir)?.free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk_bytes;

    #[test]
    fn what_is_held_has_blocks_and_is_given_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ballast = Ballast::new(dir.path());
        let blocks = || disk_bytes(dir.path()).expect("readable");
        assert_eq!(ballast.held().expect("readable"), 0);
        for bytes in [8 << 20, 2 << 20, 4 << 20, 0, 1 << 20] {
            ballast.hold(bytes).expect("there is room");
            assert_eq!(ballast.held().expect("readable"), bytes);
            assert!(blocks().abs_diff(bytes) < 64 << 10, "{}", blocks());
        }
    }

    #[test]
    fn holes_are_not_held() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ballast = Ballast::new(dir.path());
        let sparse = fs::File::create(dir.path().join(NAME)).expect("writable");
        sparse.set_len(1 << 30).expect("writable");
        assert!(ballast.held().expect("readable") < 64 << 10);
        ballast.hold(1 << 20).expect("there is room");
        assert_eq!(ballast.held().expect("readable"), 1 << 20);
    }

    #[test]
    fn more_than_there_is_leaves_it_as_it_was() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ballast = Ballast::new(dir.path());
        ballast.hold(1 << 20).expect("there is room");
        let error = ballast.hold(1 << 60).expect_err("no disk has so much");
        assert!(
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge
            ),
            "{error}"
        );
        assert_eq!(ballast.held().expect("readable"), 1 << 20);
    }

    #[test]
    fn room_is_made_only_where_there_is_none() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ballast = Ballast::new(dir.path());
        ballast.hold(1 << 20).expect("there is room");
        assert!(ballast.make_room(1).expect("readable") > 0);
        assert_eq!(ballast.held().expect("readable"), 1 << 20);
        ballast.make_room(u64::MAX).expect("writable");
        assert_eq!(ballast.held().expect("readable"), 0, "all that it had");
    }
}
