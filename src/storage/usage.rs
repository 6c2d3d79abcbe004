//! How much of the disk a data directory takes.
//!
//! Snapshots share their files with the state database by hard links, so a file counts once however many names it
//! has. What counts is what the file system has set aside, as `du` does it: a write-ahead log is longer or shorter
//! than its content.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The unit of `st_blocks`, whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;

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
