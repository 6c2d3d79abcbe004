//! The end of a log in memory, and how many bytes its entries take on disk.
//!
//! Replication and apply both read again what was just appended. The tail serves them decoded entries that share
//! their bytes with the commands that were proposed; RocksDB is read only by a follower that is far behind, and
//! after a start.
//!
//! Invariants: the tail is contiguous and ends where the log ends; an entry leaves it at the front, only when the
//! bound is crossed, and never before RocksDB has it.

use std::collections::VecDeque;
use std::ops::Range;

use crate::raft::{Entry, commands_in};

/// What a decoded entry weighs beside its encoded bytes, for each of its commands: their own structures.
const OVERHEAD_BYTES: usize = 512;

struct Slot {
    entry: Entry,
    /// Its encoded length.
    encoded: usize,
    /// The append that brought it.
    ticket: u64,
}

impl Slot {
    fn weight(&self) -> usize {
        self.encoded + OVERHEAD_BYTES * commands_in(&self.entry)
    }
}

/// The entries from some index to the end of the log.
pub(super) struct Tail {
    slots: VecDeque<Slot>,
    /// Index of the first slot, or of the next entry while there is none.
    first: u64,
    bytes: usize,
    limit: usize,
}

impl Tail {
    /// An empty tail of a log whose next entry is `next`.
    pub(super) fn new(next: u64, limit: usize) -> Self {
        Self {
            slots: VecDeque::new(),
            first: next,
            bytes: 0,
            limit,
        }
    }

    /// First index that it holds.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The index after the last entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Adds the next entry, of an encoded length.
    pub(super) fn push(&mut self, entry: Entry, encoded: usize, ticket: u64) {
        let slot = Slot {
            entry,
            encoded,
            ticket,
        };
        self.bytes += slot.weight();
        self.slots.push_back(slot);
    }

    /// Lets go of the oldest entries beyond the bound, up to those of the append `written`, which RocksDB has.
    pub(super) fn evict(&mut self, written: u64) {
        while self.bytes > self.limit {
            match self.slots.front() {
                Some(slot) if slot.ticket <= written => self.pop_front(),
                _ => break,
            }
        }
    }

    /// Drops the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        while self.next() > index {
            match self.slots.pop_back() {
                Some(slot) => self.bytes -= slot.weight(),
                None => self.first = index,
            }
        }
    }

    /// Drops the entries below `index`. A log that is purged beyond its end goes on there.
    pub(super) fn purge(&mut self, index: u64) {
        while self.first < index && !self.slots.is_empty() {
            self.pop_front();
        }
        self.first = self.first.max(index);
    }

    fn pop_front(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.bytes -= slot.weight();
            self.first += 1;
        }
    }

    /// The entries of a range that it holds, up to the one that crosses `budget` encoded bytes.
    pub(super) fn copy(&self, range: Range<u64>, budget: usize) -> Vec<Entry> {
        let place = |index: u64| {
            let offset = index.saturating_sub(self.first);
            usize::try_from(offset).map_or(self.slots.len(), |at| at.min(self.slots.len()))
        };
        let (from, to) = (place(range.start), place(range.end));
        let mut found = Vec::with_capacity(to.saturating_sub(from));
        let mut bytes = 0;
        for slot in self.slots.range(from..to.max(from)) {
            if bytes >= budget {
                break;
            }
            bytes += slot.encoded;
            found.push(slot.entry.clone());
        }
        found
    }
}

/// Bytes between two entries of the log, to within [`Volume::STEP`].
pub(super) struct Volume {
    /// All bytes ever counted.
    total: u64,
    /// Index of an entry, and the total before it; ascending, a step apart.
    marks: VecDeque<(u64, u64)>,
}

impl Volume {
    /// How far apart its marks are, in bytes.
    const STEP: u64 = 256 << 10;

    /// Of an empty log.
    pub(super) fn new() -> Self {
        Self {
            total: 0,
            marks: VecDeque::new(),
        }
    }

    /// Counts an entry.
    pub(super) fn push(&mut self, index: u64, bytes: usize) {
        let due = self
            .marks
            .back()
            .is_none_or(|(_, before)| self.total - before >= Self::STEP);
        if due {
            self.marks.push_back((index, self.total));
        }
        self.total += bytes as u64;
    }

    /// Forgets the entries from `index` on; those since the mark before it stay counted.
    pub(super) fn truncate(&mut self, index: u64) {
        while let Some(&(at, before)) = self.marks.back() {
            if at < index {
                break;
            }
            self.total = before;
            self.marks.pop_back();
        }
    }

    /// Forgets the entries below `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while self.marks.get(1).is_some_and(|(at, _)| *at <= index) {
            self.marks.pop_front();
        }
    }

    /// Bytes of the entries from `index` on.
    pub(super) fn since(&self, index: u64) -> u64 {
        let behind = self.marks.partition_point(|(at, _)| *at <= index);
        let mark = self.marks.get(behind.saturating_sub(1));
        mark.map_or(0, |(_, before)| self.total - before)
    }
}
