//! Tells a torn tail from damage in RocksDB's write-ahead log, before RocksDB reads it.
//!
//! A power cut may leave the last group, which was not acknowledged yet, in any condition: cut short, partly zeros,
//! or with later pages written and earlier ones not. A damaged disk or a careless hand may do the same to any group.
//! RocksDB cannot always tell the two apart: zeros in the middle make it skip to the next block without a word, a
//! damaged length can end the log early, and a torn last group whose pages came out of order keeps it from starting.
//! Two facts tell them apart:
//! - a group is written only after the one before it was synced, so damage that another group follows is damage;
//! - the high-water mark names the last group known to be synced, so damage to that group or an earlier one is damage.
//!
//! What remains is a torn tail. It is cut off, which leaves what RocksDB would have found had the power failed a
//! moment earlier.
//!
//! # The format
//! A file is a sequence of blocks of 32 KiB. A block holds fragments: masked CRC-32C of type and data (4 bytes),
//! length (2, little-endian), type (1), data. A record, which is one write batch and so one commit group, is one
//! fragment of type `FULL`, or a `FIRST`, any number of `MIDDLE` and a `LAST`. Fewer than seven bytes at the end of a
//! block stay unused. Recycled and compressed files have other types; the log uses neither.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::Error;
use super::wire::{self, Key};
use crate::proto::internal as pb;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Refuses damage in the write-ahead logs of a directory and cuts off a torn tail. `mark` is the last group known to
/// be synced. The caller holds the data
/// directory's lock.
pub(super) fn verify(directory: &Path, mark: u64) -> Result<(), Error> {
    let mut open_end: Option<(PathBuf, Scan)> = None;
    let mut group = None;
    for path in files(directory)? {
        let mut scan = Scan {
            group,
            ..Scan::default()
        };
        scan.read(&path)
            .map_err(|e| Error::io("read the write-ahead log", &path, e))?;
        group = scan.group;
        if let Some((torn, end)) = &open_end
            && scan.records > 0
        {
            return Err(damaged(torn, end, "a later file continues the log"));
        }
        if scan.followed {
            return Err(damaged(&path, &scan, "intact records follow"));
        }
        if scan.damage.is_some() {
            open_end = Some((path, scan));
        }
    }
    match open_end {
        Some((path, scan)) => cut(&path, &scan, mark),
        None => Ok(()),
    }
}

fn damaged(path: &Path, scan: &Scan, why: &str) -> Error {
    let offset = scan.damage.unwrap_or_default();
    let record = format!("the record at byte {offset}");
    Error::corrupt(path, record, format!("it was synced, for {why}"))
}

/// Cuts off a torn tail if it may be one.
fn cut(path: &Path, scan: &Scan, mark: u64) -> Result<(), Error> {
    let (Some(offset), Some(group)) = (scan.damage, scan.group) else {
        // Nothing intact stands before it, so its group is unknown here; the mark is compared once RocksDB is open.
        return Ok(());
    };
    if group < mark {
        let why = format!("group {mark} was, and the records before it end at group {group}");
        return Err(damaged(path, scan, &why));
    }
    tracing::warn!(path = %path.display(), offset, "cutting off a torn tail that was never acknowledged");
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
    for path in files(directory)? {
        let found = std::fs::metadata(&path);
        bytes += found.map_err(|e| Error::io("read", &path, e))?.len();
    }
    Ok(bytes)
}

/// The write-ahead logs of a directory, oldest first.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
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
        Ok(files) => Ok(files.into_iter().map(|(_, path)| path).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("list", directory, e)),
    }
}

/// What one file holds.
#[derive(Default)]
struct Scan {
    /// Whole records before the first damage.
    records: u64,
    /// The group of the last of them that names one.
    group: Option<u64>,
    /// Where the first damaged or incomplete record begins.
    damage: Option<u64>,
    /// A record begins after the damage, so the damaged one was synced.
    followed: bool,
    /// Where the record being put together began, and its bytes so far.
    open: Option<(u64, Vec<u8>)>,
}

impl Scan {
    fn read(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut offset = 0;
        loop {
            block.clear();
            (&mut file)
                .take(BLOCK_BYTES as u64)
                .read_to_end(&mut block)?;
            if block.is_empty() || self.followed {
                break;
            }
            self.block(offset, &block);
            offset += block.len() as u64;
        }
        if let Some((start, _)) = self.open.take() {
            self.damage.get_or_insert(start);
        }
        Ok(())
    }

    fn block(&mut self, offset: u64, block: &[u8]) {
        let mut at = 0;
        while let Some(rest) = block.get(at..).filter(|rest| !rest.is_empty()) {
            let here = offset + at as u64;
            match fragment(rest) {
                Some((kind, data)) => {
                    self.fragment(here, kind, data);
                    at += HEADER_BYTES + data.len();
                }
                None if rest.len() < HEADER_BYTES && block.len() == BLOCK_BYTES => break,
                None => {
                    self.break_off(here);
                    self.followed |= (1..rest.len()).any(|skip| begins(&rest[skip..]));
                    break;
                }
            }
            if self.followed {
                break;
            }
        }
    }

    fn fragment(&mut self, here: u64, kind: u8, data: &[u8]) {
        if self.damage.is_some() {
            self.followed |= kind == FULL || kind == FIRST;
            return;
        }
        match (kind, self.open.take()) {
            (FULL, None) => self.record(data),
            (FIRST, None) => self.open = Some((here, data.to_vec())),
            (MIDDLE, Some((start, mut bytes))) => {
                bytes.extend_from_slice(data);
                self.open = Some((start, bytes));
            }
            (LAST, Some((_, mut bytes))) => {
                bytes.extend_from_slice(data);
                self.record(&bytes);
            }
            (FULL | FIRST, Some((start, _))) => {
                self.damage = Some(start);
                self.followed = true;
            }
            (MIDDLE | LAST, None) => self.damage = Some(here),
            // Whatever else RocksDB writes stands between records.
            (_, open) => self.open = open,
        }
    }

    fn record(&mut self, batch: &[u8]) {
        self.records += 1;
        self.group = group_of(batch).or(self.group);
    }

    fn break_off(&mut self, here: u64) {
        let start = self.open.take().map_or(here, |(start, _)| start);
        self.damage.get_or_insert(start);
    }
}

/// The intact fragment that the bytes begin with.
fn fragment(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let data = rest.get(..length)?;
    let kind = header[6];
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    // Zeros are no fragment, though of type 0 they might look like an empty one.
    (kind != 0 && stored == mask(crc32c(kind, data))).then_some((kind, data))
}

/// Whether the bytes begin with an intact fragment that begins a record.
fn begins(bytes: &[u8]) -> bool {
    // Most positions are ruled out before their checksum is computed.
    let kind = bytes.get(HEADER_BYTES - 1);
    kind.is_some_and(|kind| [FULL, FIRST].contains(kind)) && fragment(bytes).is_some()
}

/// The group number that a batch carries.
fn group_of(batch: &[u8]) -> Option<u64> {
    let key = Key::Group.encode();
    let after = |at: usize| batch.get(at + key.len()..);
    let value = |rest: &[u8]| -> Option<u64> {
        // In a write batch a value follows its key behind its length, which fits one byte here.
        let (length, rest) = rest.split_first()?;
        let value = rest.get(..usize::from(*length))?;
        let stored: pb::StoredNumber = wire::unseal(Key::Group, value).ok()?;
        Some(stored.number)
    };
    let places = batch.windows(key.len()).enumerate().rev();
    places
        .filter(|(_, window)| *window == key)
        .find_map(|(at, _)| after(at).and_then(value))
}

/// RocksDB stores checksums rotated, so that the checksum of data that holds checksums is not a special one.
fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C, Castagnoli's polynomial, of a type byte and the data behind it.
fn crc32c(kind: u8, data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        TABLE[usize::from(low)] ^ (crc >> 8)
    };
    !data.iter().fold(step(!0, &kind), step)
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            let polynomial = if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            crc = (crc >> 1) ^ polynomial;
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::wire::Record;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C is that of the digits one to nine.
        assert_eq!(crc32c(b'1', b"23456789"), 0xe306_9283);
    }

    fn piece(kind: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).expect("fits a block");
        let mut bytes = mask(crc32c(kind, data)).to_le_bytes().to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(data);
        bytes
    }

    fn batch(group: u64) -> Vec<u8> {
        let record = Record::seal(Key::Group, &wire::number(group));
        let length = u8::try_from(record.value().len()).expect("short");
        [b"sequence", record.key(), &[length], record.value()].concat()
    }

    fn scan(bytes: &[u8]) -> Scan {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("000001.log");
        std::fs::write(&path, bytes).expect("writable");
        let mut scan = Scan::default();
        scan.read(&path).expect("readable");
        scan
    }

    #[test]
    fn a_record_is_found_whole_or_torn() {
        let first = piece(FULL, &batch(7));
        let second = piece(FULL, &batch(8));
        let whole = [&first[..], &second].concat();
        let found = scan(&whole);
        assert_eq!(
            (found.records, found.group, found.damage),
            (2, Some(8), None)
        );
        for length in first.len() + 1..whole.len() {
            let found = scan(&whole[..length]);
            let start = Some(first.len() as u64);
            assert_eq!(
                (found.group, found.damage, found.followed),
                (Some(7), start, false)
            );
        }
    }

    #[test]
    fn damage_that_a_record_follows_was_synced() {
        let first = piece(FULL, &batch(7));
        let whole = [&first[..], &piece(FULL, &batch(8))].concat();
        for byte in 0..first.len() {
            let mut bad = whole.clone();
            bad[byte] ^= 1;
            let found = scan(&bad);
            assert_eq!(
                (found.damage, found.followed),
                (Some(0), true),
                "byte {byte}"
            );
            bad[..first.len()].fill(0);
            assert!(scan(&bad).followed, "zeros");
        }
    }

    #[test]
    fn pieces_of_the_torn_record_do_not_count_as_what_follows() {
        let first = piece(FIRST, &vec![1; BLOCK_BYTES - HEADER_BYTES]);
        let middle = piece(MIDDLE, &vec![2; BLOCK_BYTES - HEADER_BYTES]);
        let last = piece(LAST, &[3; 100]);
        assert_eq!(scan(&[&first[..], &middle, &last].concat()).records, 1);
        let zeros = vec![0; BLOCK_BYTES];
        for torn in [[&zeros[..], &middle, &last], [&first, &zeros, &last]] {
            let found = scan(&torn.concat());
            assert_eq!((found.damage, found.followed), (Some(0), false));
        }
        let next = piece(FULL, &batch(9));
        assert!(scan(&[&first[..], &zeros, &last, &next].concat()).followed);
    }
}
