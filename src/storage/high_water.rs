//! The high-water mark: the number of the last commit group known to be synced, kept outside the log.
//!
//! # What it is for
//! A write-ahead log cannot tell by itself that its end is missing: a last file that was deleted, or a damaged
//! length field that makes the rest look like a torn record, reads like a log that simply ends earlier. Every commit
//! group therefore carries its number inside the log, and this file, `HIGH_WATER` in the data directory, holds the
//! number of the last group whose fsync has returned. A log that opens at a lower number has lost synced groups, and
//! the node refuses to start. The number counts groups, not entries, so that it covers votes, purges and truncations
//! as well, and never has to go back.
//!
//! # Why it costs nothing
//! It is overwritten in place after each group's fsync and never synced itself. So the mark is never *ahead* of what
//! is durable in the log, which would be a false alarm after a power cut, and may lag behind:
//! - after the process died, by kill or crash, it is exact, because the page cache survives the process;
//! - after a power cut it lags by what the kernel had not written back, half a minute at most by default. Lost groups
//!   younger than that go unnoticed here; [`super::wal`] still notices damage that valid records follow.
//!
//! The 16 bytes lie in one sector, which a disk writes whole or not at all.
//!
//! The open file is also the lock of the data directory: RocksDB's own comes too late, because the write-ahead log is
//! inspected, and a torn tail of it cut off, before RocksDB is opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Error;

const NAME: &str = "HIGH_WATER";
const BYTES: usize = 16;
/// Sets its checksum apart from any other eight bytes'.
const SEED: u64 = 0x5452_4f4c_4c45_5901;

/// The open mark.
#[derive(Debug)]
pub(super) struct HighWater {
    file: File,
    path: PathBuf,
}

impl HighWater {
    /// Opens the mark of a data directory, if there is one, locks it until it is dropped, and reads it.
    pub(super) fn open(data_dir: &Path) -> Result<Option<(Self, u64)>, Error> {
        let path = data_dir.join(NAME);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", &path, e)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let directory = data_dir.to_owned();
                return Err(Error::InUse { directory });
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
        }
        let mut bytes = [0; BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::corrupt(
                    &path,
                    "the high-water mark",
                    "it is cut short",
                ));
            }
            Err(e) => return Err(Error::io("read", &path, e)),
        }
        let group = decode(&bytes).ok_or_else(|| {
            Error::corrupt(&path, "the high-water mark", "its checksum does not match")
        })?;
        Ok(Some((Self { file, path }, group)))
    }

    /// Creates the mark of a new data directory, durably and whole: a crash leaves it or leaves nothing.
    pub(super) fn create(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join(NAME);
        let draft = data_dir.join("HIGH_WATER.new");
        let write = || -> io::Result<File> {
            let file = File::create(&draft)?;
            file.lock()?;
            file.write_all_at(&encode(0), 0)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            File::open(data_dir)?.sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|e| Error::io("create", &path, e))?;
        Ok(Self { file, path })
    }

    /// Says that a group is synced. Not synced itself, see the module.
    pub(super) fn advance(&self, group: u64) -> Result<(), Error> {
        self.file
            .write_all_at(&encode(group), 0)
            .map_err(|e| Error::io("write", &self.path, e))
    }
}

fn encode(group: u64) -> [u8; BYTES] {
    let number = group.to_be_bytes();
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&xxh3_64_with_seed(&number, SEED).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Option<u64> {
    let number = bytes[..8].try_into().expect("eight bytes");
    let group = u64::from_be_bytes(number);
    (encode(group) == *bytes).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_survives_and_damage_to_it_is_noticed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(HighWater::open(dir.path()).expect("absent").is_none());
        let mark = HighWater::create(dir.path()).expect("created");
        mark.advance(42).expect("written");
        drop(mark);
        let (_, group) = HighWater::open(dir.path())
            .expect("opens")
            .expect("is there");
        assert_eq!(group, 42);

        let path = dir.path().join(NAME);
        let good = std::fs::read(&path).expect("readable");
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 0x10;
            std::fs::write(&path, bad).expect("writable");
            assert!(HighWater::open(dir.path()).is_err(), "byte {byte}");
        }
        std::fs::write(&path, &good[..7]).expect("writable");
        assert!(HighWater::open(dir.path()).is_err());
    }
}
