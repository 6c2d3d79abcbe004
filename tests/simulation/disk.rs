//! A node's disk: what was written, what was synced, and what a crash leaves.
//!
//! The log is a queue of changes over what is durable. A sync moves the front of the queue there, as one of the log
//! database does; a crash keeps a part of the queue that the seed chooses, from none to all of it, but never a later
//! change without an earlier one. Entries are kept as the bytes of the real record, and decoded when they are read.
//!
//! State and snapshots are replaced whole, as the real ones are by a rename.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::oneshot;
use trolley::proto::internal as pb;
use trolley::raft::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use trolley::state::MemoryStore;

use crate::bugs::Bug;

/// Shortest and longest time that a sync takes on a good day.
pub const SYNC_MS: (u64, u64) = (1, 3);

/// A change of the log.
#[derive(Debug, Clone)]
pub enum Change {
    Vote(Vote),
    Append(Vec<(u64, Bytes)>),
    /// Everything from this index on is gone.
    Truncate(u64),
    /// Everything up to here is gone.
    Purge(LogId),
    Committed(Option<LogId>),
}

/// The log as one who reads it finds it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
    entries: BTreeMap<u64, Bytes>,
}

impl Log {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Change::Truncate(from) => drop(self.entries.split_off(from)),
            Change::Purge(through) => {
                self.entries = self.entries.split_off(&(through.index + 1));
                self.purged = Some(*through);
            }
            Change::Committed(committed) => self.committed = *committed,
        }
    }

    pub fn entries(&self, from: u64, to: u64) -> Vec<Entry> {
        if from >= to {
            return Vec::new();
        }
        let range = self.entries.range(from..to);
        range.map(|(_, bytes)| decode(bytes)).collect()
    }

    pub fn last(&self) -> Option<LogId> {
        let last = self.entries.last_key_value();
        last.map(|(_, bytes)| decode(bytes).log_id).or(self.purged)
    }
}

/// A log entry as disks carry it.
pub fn encode(entry: &Entry) -> Bytes {
    pb::Entry::from(entry).encode_to_vec().into()
}

fn decode(bytes: &Bytes) -> Entry {
    let message = pb::Entry::decode(bytes.clone()).expect("it was encoded here");
    Entry::try_from(message).expect("it was a valid entry")
}

/// Who waits until a change is synced.
pub enum Waiter {
    Nobody,
    Append(openraft::storage::IOFlushed<TypeConfig>),
    Vote(oneshot::Sender<()>),
}

impl Waiter {
    fn tell(self) {
        match self {
            Self::Nobody => {}
            Self::Append(callback) => callback.io_completed(Ok(())),
            // Whoever no longer waits does not want to know.
            Self::Vote(done) => drop(done.send(())),
        }
    }
}

/// The state machine at one point of the log.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    pub store: MemoryStore,
    pub last: Option<LogId>,
    pub membership: StoredMembership,
    /// Of all nodes that were ever members.
    pub highest_id: u64,
}

/// A snapshot, immutable.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub meta: SnapshotMeta,
    pub bytes: Arc<Vec<u8>>,
    pub highest_id: u64,
}

/// One node's disk.
#[derive(Default)]
pub struct Disk {
    /// What its process reads.
    pub log: Log,
    durable: Log,
    queue: VecDeque<(Change, Waiter)>,
    /// A bug said of something in the queue that it is synced.
    lied: bool,
    /// The state as it was last flushed.
    pub state: Applied,
    pub snapshot: Option<Snapshot>,
    /// How long a sync takes, at least and at most.
    pub sync_ms: (u64, u64),
    pub bug: Option<Bug>,
}

impl Disk {
    /// An empty one.
    pub fn new(bug: Option<Bug>) -> Self {
        Self {
            sync_ms: SYNC_MS,
            bug,
            ..Self::default()
        }
    }

    /// Writes a change, which can be read at once and is durable later.
    pub fn write(&mut self, change: Change, waiter: Waiter) {
        self.log.apply(&change);
        let lies = match waiter {
            Waiter::Append(_) => self.bug == Some(Bug::UnsyncedLog),
            Waiter::Vote(_) => self.bug == Some(Bug::UnsyncedVote),
            Waiter::Nobody => false,
        };
        if lies {
            self.lied = true;
            waiter.tell();
            self.queue.push_back((change, Waiter::Nobody));
        } else {
            self.queue.push_back((change, waiter));
        }
    }

    /// How many changes are not durable yet.
    pub fn unsynced(&self) -> usize {
        self.queue.len()
    }

    /// Whether this entry would survive a crash, as such or in the state.
    pub fn holds(&self, id: LogId) -> bool {
        let stored = self.durable.entries.get(&id.index);
        let is_stored = stored.is_some_and(|bytes| decode(bytes).log_id == id);
        is_stored || self.durable.purged >= Some(id) || self.state.last >= Some(id)
    }

    /// Whether a bug leaves the queue to the operating system, since nobody waits for it.
    pub fn is_lazy(&self) -> bool {
        let waits = |waiter: &Waiter| !matches!(waiter, Waiter::Nobody);
        self.lied && !self.queue.iter().any(|(_, waiter)| waits(waiter))
    }

    /// Makes the first `count` changes durable, and tells who waits.
    pub fn sync(&mut self, count: usize) {
        for (change, waiter) in self.queue.drain(..count) {
            self.durable.apply(&change);
            waiter.tell();
        }
        self.lied &= !self.queue.is_empty();
    }

    /// The machine stops here. Of what was not synced, the first `kept` changes happen to be there afterwards.
    pub fn crash(&mut self, kept: usize) {
        for (change, _) in self.queue.drain(..).take(kept) {
            self.durable.apply(&change);
        }
        self.lied = false;
        self.log = self.durable.clone();
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use trolley::raft::{LogId, Vote};

    use super::*;

    fn id(index: u64) -> LogId {
        let vote = Vote::new_committed(1, 1);
        LogId::new(vote.leader_id, index)
    }

    fn append(index: u64) -> Change {
        let entry = Entry {
            log_id: id(index),
            payload: EntryPayload::Blank,
        };
        Change::Append(vec![(index, encode(&entry))])
    }

    /// Synced entries survive a crash, and so do those at the front of what was not.
    #[test]
    fn a_crash_takes_the_end_of_what_was_not_synced() {
        for kept in 0..=2 {
            let mut disk = Disk::new(None);
            for index in 1..=4 {
                disk.write(append(index), Waiter::Nobody);
            }
            assert_eq!(disk.log.last(), Some(id(4)), "it can be read at once");
            disk.sync(2);
            assert_eq!(disk.unsynced(), 2);
            disk.crash(kept);
            let last = 2 + u64::try_from(kept).expect("few");
            assert_eq!(disk.log.last(), Some(id(last)));
            assert_eq!(disk.unsynced(), 0);
        }
    }

    /// A later change never survives without an earlier one, of whatever kind.
    #[test]
    fn votes_and_entries_are_lost_in_order() {
        let mut disk = Disk::new(None);
        disk.write(append(1), Waiter::Nobody);
        disk.write(Change::Vote(Vote::new(2, 3)), Waiter::Nobody);
        disk.write(Change::Truncate(1), Waiter::Nobody);
        disk.crash(2);
        assert_eq!(disk.log.vote, Some(Vote::new(2, 3)));
        assert_eq!(disk.log.last(), Some(id(1)));
    }
}
