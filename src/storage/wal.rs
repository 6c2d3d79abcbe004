//! Tells a torn tail from damage in RocksDB's write-ahead log, before RocksDB reads it.
//!
//! A power cut may leave the last group, which was not acknowledged yet, in any condition: cut short, partly zeros,
//! or with later pages written and earlier ones not. A damaged disk or a careless hand may do the same to any group.
//! RocksDB cannot always tell the two apart: zeros in the middle make it skip to the next block without a word, a
//! damaged length can end the log early, and a torn last group whose pages came out of order keeps it from starting.
//! Three facts tell them apart:
//! - a group is written only after the one before it was synced, so damage that another group follows is damage;
//! - the high-water mark names the last group known to be synced, so damage to that group or an earlier one is damage;
//! - groups are numbered one by one, so a file whose last group comes right before the first of the next one has lost nothing.
//!
//! What remains is a torn tail. It is cut off, which leaves what RocksDB would have found had the power failed a
//! moment earlier.
//!
//! # Files that are used again
//! A sync of a file that grows writes where it ends now, too: with a journal, or beside the data as another write. So RocksDB
//! renames files that it needs no more and writes over them ([`super::db`]). Behind the records of such a file are those of
//! its earlier life, which [`records`] tells apart. They are cut off like a torn tail. RocksDB's own recovery for such files
//! takes damage for their end and is silent about it; here it meets nothing that it might take for an end, and
//! what it recovers is compared with what was found here.
//!
//! A power cut in the moment in which a file is used again may leave it with its old name and some of the new pages, which looks
//! like damage. RocksDB does not read it then, and is asked whether it would ([`super::db::peek_log`]).

mod records;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::DBRecoveryMode;

use self::records::Records;
use super::Error;
use super::db::peek_log;
use super::log_db::Reader;
use super::wire::Key;
use crate::proto::internal as pb;

/// Refuses damage in the write-ahead logs of a directory and cuts off what stands behind their records. `mark` is the last group
/// known to be synced. The caller holds the data directory's lock. Returns the last group found, which RocksDB has to
/// recover; 0 if there is none.
pub(super) fn verify(directory: &Path, mark: u64) -> Result<u64, Error> {
    let mut files = Vec::new();
    for (number, path) in list(directory)? {
        let found = Records::read(path.clone(), number);
        files.push(found.map_err(|e| Error::io("read the write-ahead log", &path, e))?);
    }
    let mut doubtful = Vec::new();
    let mut group = None;
    for (at, file) in files.iter().enumerate() {
        group = file.groups.as_ref().map(|groups| *groups.end()).or(group);
        let Some(end) = file.end else { continue };
        let mut later = files[at + 1..].iter();
        match later.find_map(|file| file.groups.as_ref().map(|groups| *groups.start())) {
            None if file.followed => {
                return Err(damaged(
                    &file.path,
                    end,
                    "it was synced, for intact records follow",
                ));
            }
            None => {
                let group = match group {
                    Some(group) => group,
                    // Nothing intact stands before it, so tables have what came before.
                    None => group_in_tables(directory)?,
                };
                if group < mark {
                    let why = format!(
                        "it was synced, for group {mark} was, and the records before it end at group {group}"
                    );
                    return Err(damaged(&file.path, end, &why));
                }
                cut(&file.path, end)?;
            }
            Some(next) if !file.followed && group.is_some_and(|group| group + 1 == next) => {
                cut(&file.path, end)?;
            }
            Some(_) => doubtful.push((&file.path, end)),
        }
    }
    if let Some((path, end)) = doubtful.first()
        && let Err(error) = peek_log(directory, DBRecoveryMode::AbsoluteConsistency)
    {
        let why = format!("a later file continues the log, and RocksDB needs this one: {error}");
        return Err(damaged(path, *end, &why));
    }
    Ok(group.unwrap_or(0))
}

fn damaged(path: &Path, offset: u64, why: &str) -> Error {
    Error::corrupt(path, format!("the record at byte {offset}"), why)
}

/// The last group that RocksDB would recover.
fn group_in_tables(directory: &Path) -> Result<u64, Error> {
    let reader = Reader {
        db: peek_log(directory, DBRecoveryMode::PointInTime)?.into(),
        directory: directory.into(),
    };
    let stored: Option<pb::StoredNumber> = reader.get(Key::Group)?;
    Ok(stored.map_or(0, |group| group.number))
}

fn cut(path: &Path, offset: u64) -> Result<(), Error> {
    tracing::info!(path = %path.display(), offset, "cutting off what was never acknowledged or is no more needed");
    let cut = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(offset)?;
        file.sync_all()
    };
    cut().map_err(|e| Error::io("cut the torn tail of", path, e))
}

/// The length of all write-ahead logs of a directory: tables of their entries are about as large.
pub(super) fn bytes(directory: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for (_, path) in list(directory)? {
        let found = std::fs::metadata(&path);
        bytes += found.map_err(|e| Error::io("read", &path, e))?.len();
    }
    Ok(bytes)
}

/// The write-ahead logs of a directory, oldest first.
fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let list = || -> io::Result<Vec<(u64, PathBuf)>> {
        let mut files = Vec::new();
        for file in std::fs::read_dir(directory)? {
            let path = file?.path();
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let (true, Some(Ok(number))) = (is_log, stem.map(str::parse)) {
                files.push((number, path));
            }
        }
        files.sort_unstable();
        Ok(files)
    };
    match list() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|e| Error::io("list", directory, e)),
    }
}
