//! Events that were committed and are not in the state database yet.
//!
//! They are written on their own, whenever enough have gathered, and not with the records of a [`super::layer`]: events
//! only grow, where records are overwritten in memory, and would be written far more often if they had to go along.
//!
//! Invariants:
//! 1. Revisions follow each other without a gap, and what lies before the first is in the database or forgotten.
//! 2. Events are in the database at the latest with the records that they tell of. What is ahead of the records after a
//!    crash is removed before the log is applied again, see
//!    [`super::event_db`].

use std::collections::VecDeque;

use bytes::Bytes;

use crate::state::Fault;
use crate::state::history::Chunk;
use crate::types::Revision;

/// What a chunk takes beside its bytes.
const OVERHEAD_BYTES: usize = 96;

/// Chunks by ascending revision.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl Unwritten {
    /// About how much memory they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events were committed.
    pub fn push(&mut self, chunk: Chunk) {
        self.bytes += chunk.bytes() + OVERHEAD_BYTES;
        self.chunks.push_back(chunk);
    }

    /// Drops the chunks that end before a revision.
    pub fn forget_before(&mut self, revision: Revision) {
        while let Some(chunk) = self.chunks.front()
            && chunk.last() < revision
        {
            self.bytes -= chunk.bytes() + OVERHEAD_BYTES;
            self.chunks.pop_front();
        }
    }

    /// All of them, to be written.
    pub fn chunks(&self) -> Vec<Chunk> {
        self.chunks.iter().cloned().collect()
    }

    /// Events from a revision on, up to the one that crosses `budget` bytes. Nothing, if the first of them was written.
    pub fn gather(&self, from: Revision, budget: usize) -> Result<Vec<(Revision, Bytes)>, Fault> {
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        if self.chunks.front().is_none_or(|chunk| chunk.first() > from) {
            return Ok(gathered);
        }
        let at = self.chunks.partition_point(|chunk| chunk.last() < from);
        for chunk in self.chunks.range(at..) {
            for (revision, value) in chunk.revisions()? {
                if revision < from {
                    continue;
                }
                bytes += value.len();
                gathered.push((revision, value));
                if bytes >= budget {
                    return Ok(gathered);
                }
            }
        }
        Ok(gathered)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::history;

    proptest! {
        #[test]
        fn events_are_found_from_a_revision_on(
            first in 1..50u64,
            count in 0..40u64,
            oldest in 0..100u64,
            from in 1..100u64,
            budget in 0..80usize,
        ) {
            let mut unwritten = Unwritten::default();
            let revisions = || (first..first + count).map(Revision::new);
            for revision in revisions() {
                unwritten.push(history::alone(revision, revision.to_string().as_bytes()));
            }
            let (oldest, from) = (Revision::new(oldest), Revision::new(from));
            unwritten.forget_before(oldest);
            let kept: Vec<_> = revisions().filter(|revision| *revision >= oldest).collect();
            let has = kept.first().is_some_and(|first| *first <= from);
            let (mut wanted, mut bytes) = (Vec::new(), 0);
            for revision in kept.iter().filter(|revision| has && **revision >= from) {
                wanted.push((*revision, Bytes::from(revision.to_string())));
                bytes += revision.to_string().len();
                if bytes >= budget {
                    break;
                }
            }
            prop_assert_eq!(unwritten.gather(from, budget).expect("whole"), wanted);
            let chunks: Vec<_> = unwritten.chunks().iter().map(Chunk::last).collect();
            prop_assert_eq!(chunks, kept);
            unwritten.forget_before(Revision::new(1000));
            prop_assert_eq!(unwritten.bytes(), 0);
        }
    }
}
