//! What the records of one write-ahead log file are, and where they end.
//!
//! # The format
//! A file is a sequence of blocks of 32 KiB. A block holds fragments: masked CRC-32C of all that follows (4 bytes), length
//! of the data (2, little-endian), type (1), the file's number (4, its low bits), data. A record, which is one write batch and so
//! one commit group, is one fragment of type `FULL`, or a `FIRST`, any number of `MIDDLE` and a `LAST`. What remains of a block
//! stays unused if no header fits. Fragments of files that are never used again have types of their own and no number;
//! logs that earlier versions wrote have them.
//!
//! A file that is used again still holds the records of its earlier life behind those of its present one. The number tells
//! them apart; it is never given twice.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::proto::internal as pb;
use crate::storage::wire::{self, Key};

const BLOCK_BYTES: usize = 32 << 10;
/// Of a fragment without a number.
const SHORT_HEADER_BYTES: usize = 7;
const HEADER_BYTES: usize = 11;
/// Checksum and length.
const TYPE_AT: usize = 6;

/// A part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    First,
    Middle,
    Last,
    /// Whatever else RocksDB writes. It stands between records.
    Other,
}

impl Kind {
    fn begins(self) -> bool {
        matches!(self, Self::Full | Self::First)
    }
}

/// What a type byte says: what it is, and whether a number follows.
fn kind(byte: u8) -> (Kind, bool) {
    match byte {
        1 => (Kind::Full, false),
        2 => (Kind::First, false),
        3 => (Kind::Middle, false),
        4 => (Kind::Last, false),
        5 => (Kind::Full, true),
        6 => (Kind::First, true),
        7 => (Kind::Middle, true),
        8 => (Kind::Last, true),
        // Beyond the ninth, which is compression, odd types have a number.
        other => (Kind::Other, other > 10 && other & 1 == 1),
    }
}

/// What one file holds.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) path: PathBuf,
    /// The file's, which grows from file to file.
    pub(super) number: u64,
    /// How long the file is.
    pub(super) bytes: u64,
    /// The groups of the whole records before the first damage.
    pub(super) groups: Option<RangeInclusive<u64>>,
    /// Where the records of the file end, if anything stands there: a damaged record, an incomplete one, or what was left of
    /// an earlier life of the file.
    pub(super) end: Option<u64>,
    /// A record of the file begins behind that end, so what stands there was a record that was synced.
    pub(super) followed: bool,
}

impl Records {
    /// Reads a file, `path`, of a number.
    pub(super) fn read(path: PathBuf, number: u64) -> io::Result<Self> {
        let mut file = File::open(&path)?;
        let mut scan = Scan::new(number);
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut offset = 0;
        loop {
            block.clear();
            (&mut file)
                .take(BLOCK_BYTES as u64)
                .read_to_end(&mut block)?;
            if block.is_empty() || scan.followed {
                break;
            }
            scan.block(offset, &block);
            offset += block.len() as u64;
        }
        if let Some((start, _)) = scan.open.take() {
            scan.end.get_or_insert(start);
        }
        Ok(Self {
            path,
            number,
            bytes: offset,
            groups: scan.groups,
            end: scan.end,
            followed: scan.followed,
        })
    }
}

struct Scan {
    /// Of the file, as fragments have it.
    number: u32,
    /// Whether the file may hold fragments without a number: not, once one with a number was seen.
    may_be_unnumbered: bool,
    groups: Option<RangeInclusive<u64>>,
    end: Option<u64>,
    followed: bool,
    /// Where the record being put together began, and its bytes so far.
    open: Option<(u64, Vec<u8>)>,
}

impl Scan {
    fn new(number: u64) -> Self {
        let [a, b, c, d, ..] = number.to_le_bytes();
        Self {
            number: u32::from_le_bytes([a, b, c, d]),
            may_be_unnumbered: true,
            groups: None,
            end: None,
            followed: false,
            open: None,
        }
    }

    fn block(&mut self, offset: u64, block: &[u8]) {
        let mut at = 0;
        while let Some(rest) = block.get(at..).filter(|rest| !rest.is_empty()) {
            let here = offset + at as u64;
            match fragment(rest) {
                Some(fragment) => {
                    self.may_be_unnumbered &= fragment.number.is_none();
                    if self.is_own(&fragment) {
                        self.fragment(here, &fragment);
                    } else {
                        self.break_off(here);
                    }
                    at += fragment.bytes;
                }
                None if rest.len() < self.header_bytes() && block.len() == BLOCK_BYTES => break,
                None => {
                    self.break_off(here);
                    self.followed |= (1..rest.len()).any(|skip| self.begins(&rest[skip..]));
                    break;
                }
            }
            if self.followed {
                break;
            }
        }
    }

    fn header_bytes(&self) -> usize {
        if self.may_be_unnumbered {
            SHORT_HEADER_BYTES
        } else {
            HEADER_BYTES
        }
    }

    /// Whether a fragment is of this file and of its present life.
    fn is_own(&self, fragment: &Fragment<'_>) -> bool {
        match fragment.number {
            Some(number) => number == self.number,
            None => self.may_be_unnumbered,
        }
    }

    /// Whether the bytes begin with an intact fragment of this file that begins a record.
    fn begins(&self, bytes: &[u8]) -> bool {
        let Some(&byte) = bytes.get(TYPE_AT) else {
            return false;
        };
        // Most positions are ruled out before their checksum is computed.
        let (kind, is_numbered) = kind(byte);
        let is_own = if is_numbered {
            number_of(bytes) == Some(self.number)
        } else {
            self.may_be_unnumbered
        };
        kind.begins() && is_own && fragment(bytes).is_some()
    }

    fn fragment(&mut self, here: u64, fragment: &Fragment<'_>) {
        if self.end.is_some() {
            self.followed |= fragment.kind.begins();
            return;
        }
        let data = fragment.data;
        match (fragment.kind, self.open.take()) {
            (Kind::Full, None) => self.record(data),
            (Kind::First, None) => self.open = Some((here, data.to_vec())),
            (Kind::Middle, Some((start, mut bytes))) => {
                bytes.extend_from_slice(data);
                self.open = Some((start, bytes));
            }
            (Kind::Last, Some((_, mut bytes))) => {
                bytes.extend_from_slice(data);
                self.record(&bytes);
            }
            (Kind::Full | Kind::First, Some((start, _))) => {
                self.end = Some(start);
                self.followed = true;
            }
            (Kind::Middle | Kind::Last, None) => self.end = Some(here),
            (Kind::Other, open) => self.open = open,
        }
    }

    fn record(&mut self, batch: &[u8]) {
        if let Some(group) = group_of(batch) {
            let first = self.groups.as_ref().map_or(group, |groups| *groups.start());
            self.groups = Some(first..=group);
        }
    }

    fn break_off(&mut self, here: u64) {
        let start = self.open.take().map_or(here, |(start, _)| start);
        self.end.get_or_insert(start);
    }
}

struct Fragment<'a> {
    kind: Kind,
    number: Option<u32>,
    data: &'a [u8],
    /// With its header.
    bytes: usize,
}

/// The intact fragment that the bytes begin with.
fn fragment(bytes: &[u8]) -> Option<Fragment<'_>> {
    let (header, checked) = bytes.split_at_checked(TYPE_AT)?;
    let byte = *checked.first()?;
    if byte == 0 {
        // Zeros are no fragment, though they might look like an empty one.
        return None;
    }
    let (kind, is_numbered) = kind(byte);
    let header_bytes = if is_numbered {
        HEADER_BYTES
    } else {
        SHORT_HEADER_BYTES
    };
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let bytes_of_it = header_bytes + length;
    let data = bytes.get(header_bytes..bytes_of_it)?;
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    (stored == mask(crc32c(&bytes[TYPE_AT..bytes_of_it]))).then_some(Fragment {
        kind,
        number: is_numbered.then(|| number_of(bytes)).flatten(),
        data,
        bytes: bytes_of_it,
    })
}

/// The file's number in a header that has one.
fn number_of(bytes: &[u8]) -> Option<u32> {
    let number = bytes.get(SHORT_HEADER_BYTES..HEADER_BYTES)?;
    number.try_into().ok().map(u32::from_le_bytes)
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

/// CRC-32C, Castagnoli's polynomial.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        TABLE[usize::from(low)] ^ (crc >> 8)
    };
    !bytes.iter().fold(!0, step)
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

    const NUMBER: u64 = 7;
    /// Of the file's earlier life.
    const EARLIER: u64 = 3;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C is that of the digits one to nine.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// A fragment of a type, 1 to 4, in a file that is used again or, without a number, in one that is not.
    fn piece(number: Option<u64>, kind: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).expect("fits a block");
        let mut checked = vec![kind + if number.is_some() { 4 } else { 0 }];
        if let Some(number) = number {
            checked.extend_from_slice(&number.to_le_bytes()[..4]);
        }
        checked.extend_from_slice(data);
        let checksum = mask(crc32c(&checked)).to_le_bytes();
        [&checksum[..], &length.to_le_bytes(), &checked].concat()
    }

    const FULL: u8 = 1;
    const FIRST: u8 = 2;
    const MIDDLE: u8 = 3;
    const LAST: u8 = 4;

    fn batch(group: u64) -> Vec<u8> {
        let record = Record::seal(Key::Group, &wire::number(group));
        let length = u8::try_from(record.value().len()).expect("short");
        [b"sequence", record.key(), &[length], record.value()].concat()
    }

    fn scan(bytes: &[u8]) -> Records {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("000007.log");
        std::fs::write(&path, bytes).expect("writable");
        Records::read(path, NUMBER).expect("readable")
    }

    /// Both formats.
    const FORMATS: [Option<u64>; 2] = [Some(NUMBER), None];

    #[test]
    fn a_record_is_found_whole_or_torn() {
        for format in FORMATS {
            let first = piece(format, FULL, &batch(7));
            let second = piece(format, FULL, &batch(8));
            let whole = [&first[..], &second].concat();
            let found = scan(&whole);
            assert_eq!((found.groups, found.end), (Some(7..=8), None));
            for length in first.len() + 1..whole.len() {
                let found = scan(&whole[..length]);
                let end = Some(first.len() as u64);
                assert_eq!(
                    (found.groups, found.end, found.followed),
                    (Some(7..=7), end, false)
                );
            }
        }
    }

    #[test]
    fn damage_that_a_record_follows_was_synced() {
        for format in FORMATS {
            let first = piece(format, FULL, &batch(7));
            let whole = [&first[..], &piece(format, FULL, &batch(8))].concat();
            for byte in 0..first.len() {
                for bit in 0..8 {
                    let mut bad = whole.clone();
                    bad[byte] ^= 1 << bit;
                    let found = scan(&bad);
                    assert_eq!(
                        (found.end, found.followed),
                        (Some(0), true),
                        "{format:?}, byte {byte}, bit {bit}"
                    );
                }
            }
            let mut bad = whole;
            bad[..first.len()].fill(0);
            assert!(scan(&bad).followed, "zeros");
        }
    }

    #[test]
    fn pieces_of_the_torn_record_do_not_count_as_what_follows() {
        for format in FORMATS {
            let header = if format.is_some() {
                HEADER_BYTES
            } else {
                SHORT_HEADER_BYTES
            };
            let first = piece(format, FIRST, &vec![1; BLOCK_BYTES - header]);
            let middle = piece(format, MIDDLE, &vec![2; BLOCK_BYTES - header]);
            let last = piece(format, LAST, &[&[3; 100][..], &batch(4)].concat());
            let whole = scan(&[&first[..], &middle, &last].concat());
            assert_eq!((whole.groups, whole.end), (Some(4..=4), None));
            let zeros = vec![0; BLOCK_BYTES];
            for torn in [[&zeros[..], &middle, &last], [&first, &zeros, &last]] {
                let found = scan(&torn.concat());
                assert_eq!((found.end, found.followed), (Some(0), false));
            }
            let next = piece(format, FULL, &batch(9));
            assert!(scan(&[&first[..], &zeros, &last, &next].concat()).followed);
        }
    }

    /// The records of an earlier life end the file, wherever they begin, and a torn record over them does, too.
    #[test]
    fn what_a_file_held_before_is_no_damage() {
        let own: Vec<u8> = [7, 8]
            .iter()
            .flat_map(|group| piece(Some(NUMBER), FULL, &batch(*group)))
            .collect();
        let stale: Vec<u8> = (1..2_000)
            .flat_map(|group| piece(Some(EARLIER), FULL, &batch(group)))
            .collect();
        let end = Some(own.len() as u64);
        for skip in 0..60 {
            let found = scan(&[&own[..], &stale[skip..]].concat());
            assert_eq!(
                (found.groups, found.end, found.followed),
                (Some(7..=8), end, false),
                "{skip} bytes of it are overwritten"
            );
        }
        let torn = piece(Some(NUMBER), FULL, &batch(9));
        for length in 1..torn.len() {
            let found = scan(&[&own[..], &torn[..length], &stale[length..]].concat());
            assert_eq!((found.end, found.followed), (end, false), "{length} bytes");
        }
        let found = scan(&stale);
        assert_eq!(
            (found.groups, found.end, found.followed),
            (None, Some(0), false)
        );
        // But a record of the present life behind them was synced, and so was what came before it.
        let found = scan(&[&own[..], &stale, &torn].concat());
        assert_eq!((found.end, found.followed), (end, true));
    }

    /// Fewer bytes than a header takes are left at the end of a block: more than a header without a number would take.
    #[test]
    fn the_end_of_a_block_may_be_unused() {
        for unused in 1..HEADER_BYTES {
            let data = [batch(7), vec![0; BLOCK_BYTES]].concat();
            let first = piece(
                Some(NUMBER),
                FULL,
                &data[..BLOCK_BYTES - HEADER_BYTES - unused],
            );
            let second = piece(Some(NUMBER), FULL, &batch(8));
            let found = scan(&[&first[..], &vec![0; unused], &second].concat());
            assert_eq!((found.groups, found.end), (Some(7..=8), None), "{unused}");
        }
    }
}
