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
//! like damage, and files that are kept for that need not be neighbours. RocksDB reads neither, and is asked from which file on
//! it would ([`super::db::peek_log`]).

mod records;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use self::records::Records;
use super::Error;
use super::db::peek_log;
use super::log_db::Reader;
use super::wire::Key;
use crate::proto::internal as pb;

/// RocksDB's name for the number of the first file that it would read.
const OLDEST_NEEDED: &str = "rocksdb.min-log-number-to-keep";

/// Refuses damage in the write-ahead logs of a directory and cuts off what stands behind their records. `mark` is the last group
/// known to be synced. The caller holds the data directory's lock. Returns the last group found, which RocksDB has to
/// recover; 0 if there is none.
pub(super) fn verify(directory: &Path, mark: u64) -> Result<u64, Error> {
    let mut files = Vec::new();
    for (number, path) in list(directory)? {
        let found = Records::read(path.clone(), number);
        files.push(found.map_err(|e| Error::io("read the write-ahead log", &path, e))?);
    }
    let mut lost = Vec::new();
    let mut group = None;
    for (at, file) in files.iter().enumerate() {
        if file.groups.is_none() && file.end.is_none() {
            continue;
        }
        group = file.groups.as_ref().map(|groups| *groups.end()).or(group);
        let mut later = files[at + 1..].iter();
        match later.find_map(|file| file.groups.as_ref().map(|groups| *groups.start())) {
            None => end_at(directory, file, group, mark)?,
            Some(next) if !file.followed && group.is_some_and(|group| group + 1 == next) => {
                cut(file)?;
            }
            Some(next) => lost.push((file, next)),
        }
    }
    if let Some((file, next)) = lost.last() {
        let needed_from = peek_log(directory)?
            .property_int_value(OLDEST_NEEDED)
            .map_err(|e| Error::database("ask", directory, e))?;
        // What RocksDB does not say it may need.
        if file.number >= needed_from.unwrap_or(0) {
            let why = format!("it was synced, for a later file goes on with group {next}");
            return Err(damaged(file, &why));
        }
    }
    Ok(group.unwrap_or(0))
}

/// The log ends in this file.
fn end_at(directory: &Path, file: &Records, group: Option<u64>, mark: u64) -> Result<(), Error> {
    if file.followed {
        return Err(damaged(file, "it was synced, for intact records follow"));
    }
    if file.end.is_none() {
        return Ok(());
    }
    let group = match group {
        Some(group) => group,
        // Nothing intact stands before it, so tables have what came before.
        None => group_in_tables(directory)?,
    };
    if group < mark {
        let why = format!(
            "it was synced, for group {mark} was, and the records before it end at group {group}"
        );
        return Err(damaged(file, &why));
    }
    cut(file)
}

fn damaged(file: &Records, why: &str) -> Error {
    let offset = file.end.unwrap_or(file.bytes);
    Error::corrupt(&file.path, format!("the record at byte {offset}"), why)
}

/// The last group that RocksDB would recover.
fn group_in_tables(directory: &Path) -> Result<u64, Error> {
    let reader = Reader {
        db: peek_log(directory)?.into(),
        directory: directory.into(),
    };
    let stored: Option<pb::StoredNumber> = reader.get(Key::Group)?;
    Ok(stored.map_or(0, |group| group.number))
}

/// Cuts off what stands behind the records of a file, if anything does.
fn cut(file: &Records) -> Result<(), Error> {
    let Some(offset) = file.end else {
        return Ok(());
    };
    let path = &file.path;
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
