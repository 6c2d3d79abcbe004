//! Group commit: one thread per node that makes the log durable.
//!
//! The thread takes everything that waits in its queue, writes it as one batch with one fsync, and then completes
//! the callbacks in the order in which they were queued. While it waits for the disk, the next group gathers, so
//! that the number of fsyncs adapts to the load by itself.
//!
//! Invariants:
//! - Votes, appends, truncations and purges of all shards go through this one queue, so none overtakes another.
//! - A callback is told of success only after the fsync of its group has returned.
//! - After one failed write nothing is written again: RocksDB may or may not have kept it, so this group and all
//!   later ones fail, [`CommitQueue::poisoned`] says why, and the node must stop. A write that RocksDB refused to begin has
//!   not failed.
//!
//! Deliberately absent: retries of what failed, and a timer that would wait for a group to fill.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use rocksdb::{DB, WriteBatch, WriteOptions};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::Error;
use super::db::META;
use super::high_water::HighWater;
use super::wire::{self, Key, Record, Table};
use crate::limits;
use crate::planted::{self, Bug};
use crate::raft::TypeConfig;
use crate::types::ShardId;

/// How long writes wait while `RocksDB` has no room for a table. It looks again every five seconds.
const FLUSH_PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts.
const FLUSH_PAUSE: Duration = Duration::from_millis(50);

/// Whether a group is durable before it is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every group is synced.
    #[default]
    Synced,
    /// Nothing is synced: a power cut loses acknowledged writes. For the test that shows it, and for no one else.
    UnsafeUnsynced,
}

/// One change to the log database.
#[derive(Debug)]
pub(super) enum Change {
    /// Writes a record.
    Put(Record),
    /// Deletes the entries of a range.
    Delete {
        /// First entry.
        from: Key,
        /// After the last entry.
        to: Key,
    },
}

impl Change {
    /// What it takes in a batch: a little more than it does.
    fn bytes(&self) -> usize {
        /// Lengths, a tag, and the keys of a range.
        const FRAMING: usize = 64;
        match self {
            Self::Put(record) => record.key().len() + record.value().len() + FRAMING,
            Self::Delete { .. } => FRAMING,
        }
    }
}

/// Changes that belong together, and who waits for them.
#[derive(Debug)]
pub(super) struct Request {
    /// In order.
    pub(super) changes: Vec<Change>,
    /// The shard's head after them. Of a group only the last head of each shard is written.
    pub(super) head: Option<(ShardId, Record)>,
    /// Entries that nobody reads any more, whose files may be deleted once the new head is durable.
    pub(super) reclaim: Option<RangeInclusive<Key>>,
    /// Who is told.
    pub(super) done: Done,
}

/// Who is told that a request is durable, or that it failed.
pub(super) enum Done {
    /// Nobody: whatever depends on it is queued behind it.
    Nobody,
    /// A waiting task.
    Signal(oneshot::Sender<Result<(), Error>>),
    /// openraft, about an append, and the log's tail, which may let go of entries up to the ticket.
    Appended {
        /// openraft's callback.
        callback: IOFlushed<TypeConfig>,
        /// The tail's counter.
        written: Arc<AtomicU64>,
        /// This append's number.
        ticket: u64,
    },
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Signal(_) => "Signal",
            Self::Appended { .. } => "Appended",
        })
    }
}

impl Done {
    fn complete(self, result: Result<(), Error>) {
        match self {
            Self::Nobody => {}
            // A task that no longer waits does not want to know.
            Self::Signal(waiting) => drop(waiting.send(result)),
            Self::Appended {
                callback,
                written,
                ticket,
            } => {
                if result.is_ok() {
                    written.store(ticket, Ordering::Release);
                }
                callback.io_completed(result.map_err(Into::into));
            }
        }
    }
}

/// What the commit thread writes to. RocksDB; tests put a power cut or a failing disk in between.
pub(super) trait Sink: Send + 'static {
    /// Writes all changes or none, and with [`Durability::Synced`] returns after they are on disk.
    fn write(&mut self, changes: &[Change], durability: Durability) -> Result<(), Error>;

    /// The group's fsync has returned.
    fn synced(&mut self, group: u64) -> Result<(), Error>;

    /// Gives the space of purged entries back to the file system. The last one counts, as `RocksDB` has it: a range without its
    /// end would delete the file that ends with the first entry which is still needed.
    fn reclaim(&mut self, entries: &RangeInclusive<Key>) -> Result<(), Error>;
}

/// The log database as a sink.
pub(super) struct RocksSink {
    /// The log database.
    pub(super) db: Arc<DB>,
    /// Its directory, for messages.
    pub(super) directory: PathBuf,
    /// The mark of what is synced.
    pub(super) high_water: HighWater,
}

impl Sink for RocksSink {
    fn write(&mut self, changes: &[Change], durability: Durability) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        // Entries come in the order of their keys: each is found a place beside the one before.
        options.set_memtable_insert_hint_per_batch(true);
        let patience = Instant::now() + FLUSH_PATIENCE;
        loop {
            let written = self.db.write_opt(batch(&self.db, changes), &options);
            match written.map_err(|e| Error::database("write to", &self.directory, e)) {
                Err(error) if is_refused_for_a_flush(&error) && Instant::now() < patience => {
                    std::thread::sleep(FLUSH_PAUSE);
                }
                written => return written,
            }
        }
    }

    fn synced(&mut self, group: u64) -> Result<(), Error> {
        self.high_water.advance(group)
    }

    fn reclaim(&mut self, entries: &RangeInclusive<Key>) -> Result<(), Error> {
        self.db
            .delete_file_in_range(entries.start().encode(), entries.end().encode())
            .map_err(|e| Error::database("delete purged files of", &self.directory, e))
    }
}

/// The disk had no room for a table, and `RocksDB` refuses every write until it has room again, which it finds out by itself.
/// Unlike a failed write to the write-ahead log, such a refusal is certain: the write was not begun. (And begun again, it would
/// write the same once more.)
fn is_refused_for_a_flush(error: &Error) -> bool {
    let text = error.to_string();
    error.is_no_space() && text.contains(".sst") && !text.contains(".log")
}

/// The changes as RocksDB wants them.
pub(super) fn batch(db: &DB, changes: &[Change]) -> WriteBatch {
    let meta = db.cf_handle(META).expect("it was opened with the database");
    let sizes = changes.iter().map(Change::bytes);
    // A batch that outgrows its room is copied as a whole.
    let mut batch = WriteBatch::with_capacity_bytes(sizes.sum());
    for change in changes {
        match change {
            Change::Put(record) if record.table() == Table::Entries => {
                batch.put(record.key(), record.value());
            }
            Change::Put(record) => batch.put_cf(meta, record.key(), record.value()),
            Change::Delete { from, to } => batch.delete_range(from.encode(), to.encode()),
        }
    }
    batch
}

enum Message {
    Write(Request),
    Stop,
}

/// The newest of each. They are saved with whatever group comes next, because such a record alone is worth
/// neither an fsync nor waking the thread.
type Hints = Arc<Mutex<BTreeMap<Key, Record>>>;

/// The way to the commit thread.
#[derive(Debug, Clone)]
pub(super) struct CommitQueue {
    sender: mpsc::Sender<Message>,
    hints: Hints,
    poison: watch::Receiver<Option<Arc<Error>>>,
}

impl CommitQueue {
    /// Queues a request; waits only while the queue is full. The request's callback is told what becomes of it.
    pub(super) async fn submit(&self, request: Request) -> Result<(), Error> {
        let Err(refused) = self.sender.send(Message::Write(request)).await else {
            return Ok(());
        };
        if let Message::Write(request) = refused.0 {
            request.done.complete(Err(Error::Stopped));
        }
        Err(Error::Stopped)
    }

    /// Queues changes and waits until they are durable.
    pub(super) async fn write(
        &self,
        changes: Vec<Change>,
        head: Option<(ShardId, Record)>,
    ) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        self.submit(Request {
            changes,
            head,
            reclaim: None,
            done: Done::Signal(sender),
        })
        .await?;
        receiver.await.unwrap_or(Err(Error::Stopped))
    }

    /// Leaves a record that may be old for the next group.
    pub(super) fn hint(&self, key: Key, message: &impl prost::Message) {
        lock(&self.hints).insert(key, Record::seal(key, message));
    }

    /// Becomes `Some` when a write has failed. The node must stop then.
    pub(super) fn poisoned(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.poison.clone()
    }

    /// Lets the thread finish what is queued and end.
    pub(super) async fn stop(&self) {
        // It fails only where the thread has ended already.
        drop(self.sender.send(Message::Stop).await);
    }

    /// As [`CommitQueue::stop`], without a runtime.
    pub(super) fn stop_now(&self) {
        // A full queue is being drained, so there will be room in a moment.
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Stop) {
            std::thread::yield_now();
        }
    }
}

/// A panic cannot leave these locks' contents half changed, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the commit thread. `group` is the last one that the log holds.
pub(super) fn spawn(
    sink: impl Sink,
    group: u64,
    durability: Durability,
) -> std::io::Result<(CommitQueue, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(limits::COMMIT_QUEUE);
    let (poisoner, poison) = watch::channel(None);
    let hints = Hints::default();
    let thread = Thread {
        sink,
        receiver,
        hints: Arc::clone(&hints),
        poisoner,
        group,
        durability,
    };
    let handle = std::thread::Builder::new()
        .name("trolley-commit".to_owned())
        .spawn(move || thread.run())?;
    let queue = CommitQueue {
        sender,
        hints,
        poison,
    };
    Ok((queue, handle))
}

struct Thread<S> {
    sink: S,
    receiver: mpsc::Receiver<Message>,
    hints: Hints,
    poisoner: watch::Sender<Option<Arc<Error>>>,
    group: u64,
    durability: Durability,
}

/// What one group gathered.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    heads: BTreeMap<ShardId, Record>,
    reclaim: Vec<RangeInclusive<Key>>,
    done: Vec<Done>,
    bytes: usize,
}

impl Group {
    fn add(&mut self, request: Request) {
        for change in &request.changes {
            if let Change::Put(record) = change {
                self.bytes += record.len();
            }
        }
        self.changes.extend(request.changes);
        self.heads.extend(request.head);
        self.reclaim.extend(request.reclaim);
        self.done.push(request.done);
    }
}

impl<S: Sink> Thread<S> {
    fn run(mut self) {
        while let Some(message) = self.receiver.blocking_recv() {
            let (group, stop) = self.gather(message);
            self.commit(group);
            if stop {
                break;
            }
        }
        self.finish();
    }

    /// Everything that waits, up to a bound, so that a long queue cannot make one endless batch.
    fn gather(&mut self, first: Message) -> (Group, bool) {
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Write(request) => group.add(request),
                Message::Stop => return (group, true),
            }
            if group.bytes >= limits::COMMIT_GROUP_BYTES {
                break;
            }
            next = self.receiver.try_recv().ok();
        }
        (group, false)
    }

    fn commit(&mut self, group: Group) {
        let Group {
            changes,
            heads,
            reclaim,
            done,
            ..
        } = group;
        if done.is_empty() {
            return;
        }
        let result = self.write(changes, heads);
        for waiting in done {
            waiting.complete(result.clone());
        }
        if result.is_ok() {
            self.reclaim(&reclaim);
        }
    }

    fn write(
        &mut self,
        mut changes: Vec<Change>,
        heads: BTreeMap<ShardId, Record>,
    ) -> Result<(), Error> {
        if let Some(first) = self.poisoner.borrow().clone() {
            return Err(Error::Poisoned { first });
        }
        let number = self.group + 1;
        let is_unsynced = planted::has(Bug::UnsyncedVote) && changes.is_empty()
            || planted::has(Bug::UnsyncedLog) && number > planted::SYNCED_GROUPS;
        let durability = if is_unsynced {
            Durability::UnsafeUnsynced
        } else {
            self.durability
        };
        changes.extend(heads.into_values().map(Change::Put));
        changes.extend(self.take_hints());
        changes.push(Change::Put(Record::seal(Key::Group, &wire::number(number))));
        self.group = number;
        let mut result = self.sink.write(&changes, durability);
        if result.is_ok() && durability == Durability::Synced {
            result = self.sink.synced(number);
        }
        if planted::has(Bug::SwallowedError) {
            return Ok(());
        }
        if let Err(error) = &result {
            self.poison(error);
        }
        result
    }

    fn take_hints(&self) -> Vec<Change> {
        let hints = std::mem::take(&mut *lock(&self.hints));
        hints.into_values().map(Change::Put).collect()
    }

    fn reclaim(&mut self, ranges: &[RangeInclusive<Key>]) {
        for range in ranges {
            if let Err(error) = self.sink.reclaim(range) {
                self.poison(&error);
                return;
            }
        }
    }

    fn poison(&self, error: &Error) {
        tracing::error!(%error, "the log cannot be written any more");
        self.poisoner.send_replace(Some(Arc::new(error.clone())));
    }

    /// The last hints, and an answer to whoever was too late.
    fn finish(mut self) {
        self.receiver.close();
        if !lock(&self.hints).is_empty() {
            // A failure has poisoned the queue and was logged; nobody waits for a hint.
            drop(self.write(Vec::new(), BTreeMap::new()));
        }
        while let Some(message) = self.receiver.blocking_recv() {
            if let Message::Write(request) = message {
                request.done.complete(Err(Error::Stopped));
            }
        }
    }
}
