//! openraft's log over a simulated [`Disk`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::{Notify, oneshot};
use trolley::limits;
use trolley::raft::{Entry, LogId, TypeConfig, Vote};
use trolley::storage::committed_in;

use crate::bugs::Bug;
use crate::disk::{Change, Disk, Waiter, encode};
use crate::world::World;

/// How long writes that nobody waits for stay unsynced where a bug calls them synced.
const LAZY_MS: u64 = 2_000;

/// See the module. Clones are the same log.
#[derive(Clone)]
pub struct SimLog {
    world: Arc<World>,
    node: u64,
    disk: Arc<Mutex<Disk>>,
    written: Arc<Notify>,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl SimLog {
    /// The vote that the node holds, synced or not.
    pub fn vote(&self) -> Option<Vote> {
        self.disk().log.vote
    }

    pub fn new(world: Arc<World>, node: u64, disk: Arc<Mutex<Disk>>) -> Self {
        let written = Arc::new(Notify::new());
        let random = Arc::new(world.random_of(node, 0));
        Self {
            world,
            node,
            disk,
            written,
            random,
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk
            .lock()
            .expect("nothing panics while it holds a disk")
    }

    fn write(&self, change: Change, waiter: Waiter) {
        self.disk().write(change, waiter);
        self.written.notify_one();
    }

    /// Syncs what is written, a group at a time, for as long as the node lives.
    pub async fn sync(self) {
        loop {
            let (count, is_lazy, (least, most)) = {
                let disk = self.disk();
                (disk.unsynced(), disk.is_lazy(), disk.sync_ms)
            };
            if count == 0 {
                self.written.notified().await;
                continue;
            }
            if is_lazy {
                let lazy = Duration::from_millis(LAZY_MS);
                let until = tokio::time::timeout(lazy, self.written.notified());
                if until.await.is_ok() {
                    continue;
                }
            } else {
                let pause = self.random.lock().expect("no panic").u64(least..=most);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            self.disk().sync(count);
            let node = self.node;
            self.world
                .trace
                .note(format_args!("n{node} synced {count}"));
        }
    }
}

impl RaftLogReader<TypeConfig> for SimLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.disk().log.entries(from, to))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.disk().log.vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let end = end.min(start + limits::APPEND_ENTRIES);
        let entries = self.disk().log.entries(start, end);
        let continues = entries.first().is_some_and(|e| e.log_id.index == start);
        Ok(if continues { entries } else { Vec::new() })
    }
}

impl RaftLogStorage<TypeConfig> for SimLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let disk = self.disk();
        Ok(LogState {
            last_purged_log_id: disk.log.purged,
            last_log_id: disk.log.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, synced) = oneshot::channel();
        self.write(Change::Vote(*vote), Waiter::Vote(done));
        synced.await.map_err(io::Error::other)?;
        self.world.ledger.voted(self.node, *vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.write(Change::Committed(committed), Waiter::Nobody);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let disk = self.disk();
        Ok(committed_in(disk.log.last(), disk.log.committed))
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
        let mut previous = self.disk().log.last();
        let mut sealed = Vec::new();
        for entry in entries {
            let bytes = encode(&entry);
            let id = entry.log_id;
            if previous.is_some_and(|previous| previous.index + 1 != id.index) {
                let detail = format!("node {}: {id} does not follow on {previous:?}", self.node);
                self.world.ledger.fail("log contiguous", detail);
            }
            self.world.ledger.appended(self.node, id, &bytes, previous);
            if let EntryPayload::Membership(membership) = &entry.payload {
                let voters = membership.voter_ids().collect();
                self.world.ledger.configured(id, voters);
            }
            previous = Some(id);
            sealed.push((id.index, bytes));
        }
        self.write(Change::Append(sealed), Waiter::Append(callback));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let mut from = last.map_or(0, |last| last.index + 1);
        if self.world.has(Bug::TruncateOffByOne) {
            from = from.saturating_sub(1);
        }
        let node = self.node;
        self.world.ledger.count("truncation");
        self.world
            .trace
            .note(format_args!("n{node} truncates from {from}"));
        self.write(Change::Truncate(from), Waiter::Nobody);
        Ok(())
    }

    async fn purge(&mut self, through: LogId) -> Result<(), io::Error> {
        let node = self.node;
        self.world.ledger.count("purge");
        self.world
            .trace
            .note(format_args!("n{node} purges through {through}"));
        self.write(Change::Purge(through), Waiter::Nobody);
        Ok(())
    }
}
