//! How much of the disk a data directory takes, and how much is left.
//!
//! Snapshots share their files with the state database by hard links, so a file counts once however many names it
//! has. What counts is what the file system has set aside, as `du` does it: a write-ahead log is longer or shorter
//! than its content.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FsWord, StatVfs, statfs, statvfs};
use rustix::process::geteuid;

use super::Error;

/// The unit of `st_blocks`, whatever the file system's own blocks are.
pub(super) const BLOCK_BYTES: u64 = 512;
/// A file system that has not this many more files to give has no room, whatever it has of blocks.
const FILES: u64 = 64;
/// The type of an ext4 file system, and what it keeps for itself: so many blocks, or one part of so many.
const EXT4: FsWord = 0xef53;
const EXT4_OWN_BLOCKS: u64 = 4096;
const EXT4_OWN_PARTS: u64 = 50;
/// Directories of a data directory that somebody may keep on a disk of their own.
const PARTS: [&str; 2] = ["log", "shards"];

/// A file system in bytes, as far as this process may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Not in use.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// The file system of a data directory. Where its parts lie on several, the smallest size and the least that is free.
pub fn capacity(data_dir: &Path) -> Result<Capacity, Error> {
    let failed = |e| Error::io("tell the free space of", data_dir, e);
    let mut least = file_system(data_dir).map_err(failed)?;
    for part in PARTS {
        let found = file_system(&data_dir.join(part)).map_err(failed)?;
        least.free = least.free.min(found.free);
        least.total = least.total.min(found.total);
    }
    Ok(least)
}

/// What is not there yet will be where its parent is.
fn file_system(directory: &Path) -> io::Result<Capacity> {
    match statvfs(directory).map_err(io::Error::from) {
        Ok(found) => Ok(Capacity {
            free: free_blocks(directory, &found)?.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match directory.parent() {
            Some(parent) if parent.as_os_str().is_empty() => file_system(Path::new(".")),
            Some(parent) => file_system(parent),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The superuser has blocks that nobody else has, and whose other programs may have taken them.
fn free_blocks(directory: &Path, found: &StatVfs) -> io::Result<u64> {
    // Some file systems do not count files, and say that there can be none at all.
    if found.f_files > 0 && found.f_favail < FILES {
        return Ok(0);
    }
    if !geteuid().is_root() {
        return Ok(found.f_bavail);
    }
    // What ext4 keeps for itself it counts as free for the superuser.
    let own = if statfs(directory)?.f_type == EXT4 {
        EXT4_OWN_BLOCKS.min(found.f_blocks / EXT4_OWN_PARTS)
    } else {
        0
    };
    Ok(found.f_bfree.saturating_sub(own))
}

/// Bytes on disk of everything in a directory. Files that go while it looks do not count.
pub fn disk_bytes(directory: &Path) -> io::Result<u64> {
    let mut seen = HashSet::new();
    bytes_in(directory, &mut seen)
}

fn bytes_in(directory: &Path, seen: &mut HashSet<(u64, u64)>) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match count(&entry, seen) {
            Ok(counted) => bytes += counted,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn count(entry: &fs::DirEntry, seen: &mut HashSet<(u64, u64)>) -> io::Result<u64> {
    let found = entry.metadata()?;
    if found.is_dir() {
        return bytes_in(&entry.path(), seen);
    }
    let is_new = seen.insert((found.dev(), found.ino()));
    Ok(if is_new {
        found.blocks() * BLOCK_BYTES
    } else {
        0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_a_size_and_less_is_free() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let found = capacity(dir.path()).expect("readable");
        assert!(found.free > 0 && found.free <= found.total, "{found:?}");
        let absent = capacity(&dir.path().join("not/there/yet")).expect("its parent is");
        assert_eq!(absent.total, found.total);
        assert!(capacity(Path::new("not/there/yet")).is_ok());
        let file = dir.path().join("file");
        fs::write(&file, "").expect("writable");
        assert!(capacity(&file.join("below a file")).is_err());
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("writable");
        assert_eq!(disk_bytes(dir.path()).expect("readable"), 0);
        let (file, link) = (dir.path().join("file"), inner.join("link"));
        fs::write(&file, vec![7; 100_000]).expect("writable");
        fs::File::open(&file)
            .and_then(|file| file.sync_all())
            .expect("writable");
        let once = disk_bytes(dir.path()).expect("readable");
        assert!(once >= 100_000, "{once}");
        fs::hard_link(&file, &link).expect("writable");
        assert_eq!(disk_bytes(dir.path()).expect("readable"), once);
        assert!(disk_bytes(&dir.path().join("absent")).is_err());
    }
}
