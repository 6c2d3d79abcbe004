//! One shard's Raft log: openraft's view of the log database.
//!
//! Writes change the state in memory first, so that entries are readable when `append` returns, and are queued for
//! the commit thread in the same order. Only a vote is waited for: everything else that depends on a write is
//! queued behind it. Reads take what the tail has and fetch the rest from RocksDB, off the runtime's threads.
//!
//! Invariants:
//! - The log is contiguous from the purge point to its end, on disk after every commit group and in memory always.
//! - Purge point, vote and last entry are written in the batch that changes them, in one record, the head. At the
//!   start every entry is read and checked, and the log must end where the head says.
//! - One task writes, openraft's core; readers are clones.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::{Stream, TryStreamExt as _, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::Error;
use super::commit::{Change, CommitQueue, Done, Request};
use super::log_db::Reader;
use super::scan;
use super::tail::{Tail, Volume};
use super::wire::{Key, Record};
use crate::limits;
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::raft::{Entry, LogId, TypeConfig, Vote};
use crate::types::ShardId;

/// A shard's log. Clones are the same log.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    shard: ShardId,
    reader: Reader,
    queue: CommitQueue,
    state: RwLock<State>,
    /// The append that RocksDB has written last; the tail may let go of entries up to it.
    written: Arc<AtomicU64>,
}

/// The log as its readers see it: ahead of the disk by what is queued.
struct State {
    vote: Option<Vote>,
    last_purged: Option<LogId>,
    /// The first index that is not purged.
    first: u64,
    last: Option<LogId>,
    tail: Tail,
    volume: Volume,
    /// Numbers the appends.
    ticket: u64,
    /// Counts truncations and purges, so that a reader notices one that happened while it was at the disk.
    epoch: u64,
}

impl State {
    /// The index after the last entry.
    fn next(&self) -> u64 {
        self.last.map_or(self.first, |last| last.index + 1)
    }

    fn head(&self, shard: ShardId) -> (ShardId, Record) {
        let head = pb::LogHead {
            vote: self.vote.map(Into::into),
            last_purged: self.last_purged.map(Into::into),
            last: self.last.map(Into::into),
            first: self.first,
        };
        (shard, Record::seal(Key::Head(shard), &head))
    }
}

impl LogStore {
    /// The vote that this node holds. A new one is held before it is on the disk, and so before anybody is told of it.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.state().vote
    }

    /// The last entry that is no more needed, if any was purged.
    #[must_use]
    pub fn purged(&self) -> Option<LogId> {
        self.state().last_purged
    }

    /// Reads and verifies all of a shard's log.
    pub(super) fn open(
        shard: ShardId,
        reader: Reader,
        queue: CommitQueue,
        tail_bytes: usize,
    ) -> Result<Self, Error> {
        let head: pb::LogHead = reader.get(Key::Head(shard))?.unwrap_or_default();
        let last: Option<LogId> = head.last.map(Into::into);
        let volume = scan::verify(&reader, shard, head.first, last)?;
        let next = last.map_or(head.first, |last| last.index + 1);
        let state = State {
            vote: head.vote.map(Into::into),
            last_purged: head.last_purged.map(Into::into),
            first: head.first,
            last,
            tail: Tail::new(next, tail_bytes),
            volume,
            ticket: 0,
            epoch: 0,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                shard,
                reader,
                queue,
                state: RwLock::new(state),
                written: Arc::new(AtomicU64::new(0)),
            }),
        })
    }

    /// Bytes that the entries after a log id take on disk, or all entries where there is none; good to within a
    /// fraction of a mebibyte. For deciding when a snapshot is due.
    #[must_use]
    pub fn bytes_since(&self, after: Option<LogId>) -> u64 {
        let state = self.state();
        let index = after.map_or(0, |id| id.index + 1);
        if index >= state.next() {
            return 0;
        }
        state.volume.since(index)
    }

    // No code panics while it holds the lock, and the state is only replaced by whole values.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.shared
            .state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.shared
            .state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes new entries, which continue the log, into memory and makes the request that writes them.
    fn accept(&self, entries: Vec<(Entry, Record)>, callback: IOFlushed<TypeConfig>) -> Request {
        let mut state = self.state_mut();
        if state.last.is_none()
            && let Some((entry, _)) = entries.first()
        {
            state.first = entry.log_id.index;
            let first = state.first;
            state.tail.purge(first);
        }
        state.ticket += 1;
        let ticket = state.ticket;
        let mut changes = Vec::with_capacity(entries.len());
        for (entry, record) in entries {
            let log_id = entry.log_id;
            state.last = Some(log_id);
            state.volume.push(log_id.index, record.len());
            state.tail.push(entry, record.len(), ticket);
            changes.push(Change::Put(record));
        }
        state
            .tail
            .evict(self.shared.written.load(Ordering::Acquire));
        Request {
            changes,
            head: Some(state.head(self.shared.shard)),
            reclaim: None,
            done: Done::Appended {
                callback,
                written: Arc::clone(&self.shared.written),
                ticket,
            },
        }
    }

    /// The entries of a range that the log has, up to the one that crosses `budget` bytes.
    async fn read(&self, range: Range<u64>, budget: usize) -> Result<Vec<Entry>, Error> {
        // A truncation or purge while the disk is read makes what was found mean nothing: begin again. Only a
        // follower truncates and purging is rare, so this ends.
        loop {
            let mut found = Vec::new();
            let epoch = self.state().epoch;
            if self
                .collect(range.clone(), budget, epoch, &mut found)
                .await?
            {
                return Ok(found);
            }
        }
    }

    /// Returns whether the log stayed as it was.
    async fn collect(
        &self,
        range: Range<u64>,
        budget: usize,
        epoch: u64,
        found: &mut Vec<Entry>,
    ) -> Result<bool, Error> {
        let mut next = range.start;
        loop {
            let below = {
                let state = self.state();
                if state.epoch != epoch {
                    return Ok(false);
                }
                let end = range.end.min(state.next());
                next = next.max(state.first);
                if next >= end {
                    return Ok(true);
                }
                if next >= state.tail.first() {
                    found.append(&mut state.tail.copy(next..end, budget));
                    return Ok(true);
                }
                next..end.min(state.tail.first())
            };
            let end = below.end;
            let mut stored = self.read_stored(below, budget).await?;
            if self.state().epoch != epoch {
                return Ok(false);
            }
            next += stored.len() as u64;
            let missing = next < end && (budget == usize::MAX || stored.is_empty());
            found.append(&mut stored);
            if missing {
                let place = Key::Entry(self.shared.shard, next);
                return Err(self.shared.reader.damaged(place, "it is missing"));
            }
            if budget != usize::MAX {
                return Ok(true);
            }
        }
    }

    async fn read_stored(&self, range: Range<u64>, budget: usize) -> Result<Vec<Entry>, Error> {
        let shared = Arc::clone(&self.shared);
        let read = move || scan::read(&shared.reader, shared.shard, range, budget);
        match tokio::task::spawn_blocking(read).await {
            Ok(entries) => entries,
            // The runtime is shutting down, or the read panicked, which it reports itself.
            Err(_) => Err(Error::Stopped),
        }
    }
}

/// What of a log is committed for certain, when a hint says that `committed` was, and the log ends with `last`. Commits can run ahead
/// of the local disk, and openraft does not start with one that is beyond the last entry.
///
/// A leader's log begins with all that was committed before it and is never cut, so that a log which ends with an entry of that
/// leader, or of a later one, agrees with its. One that ends with an entry of an earlier leader may hold what was
/// truncated: the hint goes with whatever group is written next, and may be on the disk before the truncation is.
#[must_use]
pub fn committed_in(last: Option<LogId>, committed: Option<LogId>) -> Option<LogId> {
    let (last, committed) = (last?, committed?);
    (committed.leader_id <= last.leader_id).then(|| committed.min(last))
}

/// An append continues the log, and an empty log begins anywhere. openraft truncates first and never leaves a hole,
/// and a hole would only be noticed at the next start.
fn check_contiguous(state: &State, entries: &[(Entry, Record)]) -> Result<(), Error> {
    let Some((first, _)) = entries.first() else {
        return Ok(());
    };
    let expected = match state.last {
        Some(last) => last.index + 1,
        None => first.log_id.index,
    };
    for (expected, (entry, _)) in (expected..).zip(entries) {
        let index = entry.log_id.index;
        if index != expected {
            let detail = format!("entry {index} cannot follow on {}", expected - 1);
            return Err(Error::Misuse { detail });
        }
    }
    Ok(())
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(bounds(&range), usize::MAX).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.state().vote)
    }

    /// Empty where `start` has been purged in the meantime: entries from further on would leave a hole in the
    /// follower's log, and openraft takes nothing for a heartbeat and then sends a snapshot.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read(start..end, limits::APPEND_BYTES).await?;
        let continues = entries.first().is_some_and(|e| e.log_id.index == start);
        Ok(if continues { entries } else { Vec::new() })
    }

    /// In pieces, so that a start that applies the whole log again does not hold all of it in memory at once.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let log = self.clone();
        let pieces = stream::try_unfold(bounds(&range), move |rest| {
            let log = log.clone();
            async move {
                let piece = log.read(rest.clone(), limits::APPEND_BYTES).await?;
                let next = piece.last().map(|entry| entry.log_id.index + 1);
                Ok::<_, io::Error>(next.map(|next| (piece, next..rest.end)))
            }
        });
        pieces
            .map_ok(|piece| stream::iter(piece.into_iter().map(Ok)))
            .try_flatten()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.state();
        Ok(LogState {
            last_purged_log_id: state.last_purged,
            last_log_id: state.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let head = {
            let mut state = self.state_mut();
            state.vote = Some(*vote);
            state.head(self.shared.shard)
        };
        Ok(self.shared.queue.write(Vec::new(), Some(head)).await?)
    }

    /// Not durable when it returns: the hint goes with the next group.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            let key = Key::Committed(self.shared.shard);
            self.shared.queue.hint(key, &pb::LogId::from(committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let stored: Option<pb::LogId> =
            self.shared.reader.get(Key::Committed(self.shared.shard))?;
        Ok(committed_in(self.state().last, stored.map(LogId::from)))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let shard = self.shared.shard;
        let sealed = entries.into_iter().map(|entry| {
            let key = Key::Entry(shard, entry.log_id.index);
            let record = Record::seal(key, &pb::Entry::from(&entry));
            (entry, record)
        });
        let sealed: Vec<_> = sealed.collect();
        if let Err(error) = check_contiguous(&self.state(), &sealed) {
            callback.io_completed(Err(error.clone().into()));
            return Err(error.into());
        }
        let request = self.accept(sealed, callback);
        Ok(self.shared.queue.submit(request).await?)
    }

    /// Not durable when it returns, but before anything that is appended after it.
    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let request = {
            let mut state = self.state_mut();
            let from = last.map_or(0, |last| last.index + 1).max(state.first);
            let to = state.next();
            if from >= to {
                return Ok(());
            }
            state.last = last.max(state.last_purged);
            state.tail.truncate(from);
            state.volume.truncate(from);
            state.epoch += 1;
            let shard = self.shared.shard;
            let one_more = u64::from(planted::has(Bug::TruncateOffByOne));
            Request {
                changes: vec![Change::Delete {
                    from: Key::Entry(shard, from.saturating_sub(one_more)),
                    to: Key::Entry(shard, to),
                }],
                head: Some(state.head(shard)),
                reclaim: None,
                done: Done::Nobody,
            }
        };
        Ok(self.shared.queue.submit(request).await?)
    }

    /// Moves the log's beginning. Entries before it are not read any more, and their files are deleted once the whole
    /// file lies before it; single entries are not deleted, which would cost more than the rest of one file.
    /// Not durable when it returns: a crash before that leaves a longer log, which is as good.
    async fn purge(&mut self, through: LogId) -> Result<(), io::Error> {
        let request = {
            let mut state = self.state_mut();
            let to = through.index + 1;
            if state.first >= to {
                return Ok(());
            }
            state.last_purged = Some(through);
            state.first = to;
            state.last = state.last.max(Some(through));
            state.tail.purge(to);
            state.volume.purge(to);
            state.epoch += 1;
            let shard = self.shared.shard;
            Request {
                changes: Vec::new(),
                head: Some(state.head(shard)),
                reclaim: Some(Key::Entry(shard, 0)..=Key::Entry(shard, through.index)),
                done: Done::Nobody,
            }
        };
        Ok(self.shared.queue.submit(request).await?)
    }
}

/// As a half-open range.
fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
