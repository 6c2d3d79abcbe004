//! One shard's state: committed records in memory over a database, and the lock that makes every read exact.
//!
//! A commit puts a batch's records into the active [layer](super::layer). [`StateDb::flush`] freezes that layer and writes it to
//! the database, on a thread of its own and while later batches are committed. What the database itself keeps in its
//! write buffers is older still; a checkpoint flushes both.
//!
//! Invariants:
//! 1. One layer is one atomic write: records, indexes, replies, the header, where the log was applied up to, and the
//!    membership, all as the layer's last batch left them, and events up to there. Its write-ahead log is off, because
//!    the Raft log is one. So a crash returns the database to an earlier point where all of these agree, but for events
//!    that were ahead and are removed, and the log replays the rest.
//! 2. A commit holds the write lock from its first record to the published header, and a reader holds the read lock
//!    for as long as it looks. Hence a view has exactly one revision.
//! 3. There is one writer, [`super::machine::Machine`], which prepares its batches under the read lock.
//! 4. A directory with a final name holds a header. One without is damaged, and so is one that lost a file.
//! 5. At most one layer is frozen, and the next is frozen only after it is in the database.
//!
//! The handle outlives the database: installing a snapshot puts another generation behind it, see
//! [`super::generation`]. Whoever reads without the lock meanwhile holds the [`Database`], and with it its files.
//!
//! Deliberately absent: transactions and database snapshots. The lock gives the same view for less.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, FlushOptions, ReadOptions};
use tokio::sync::watch;

use super::committed::{AppliedAt, Committed, Database, Frozen, Unflushed, unlogged};
use super::feed::Feed;
use super::position::{Advance, Position};
use super::state_view::StateView;
use super::{Error, db, event_db, sabotage};
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::state::events::{self, Page};
use crate::state::{Changes, Fault, Key, SweepHorizon};
use crate::types::{LogTime, Revision};

/// Shared handle of one shard's state; cloning shares it.
#[derive(Clone)]
pub struct StateDb {
    shared: Arc<Shared>,
}

struct Shared {
    committed: RwLock<Committed>,
    applied: watch::Sender<AppliedAt>,
    feed: Arc<Feed>,
    /// Held while a layer is written, and while another generation takes the place of the database.
    flush: Mutex<()>,
    /// No compaction may begin.
    resting: Mutex<bool>,
}

impl StateDb {
    pub(super) fn new(committed: Committed) -> Self {
        let (applied, _) = watch::channel(committed.applied_at());
        Self {
            shared: Arc::new(Shared {
                committed: RwLock::new(committed),
                applied,
                feed: Arc::default(),
                flush: Mutex::new(()),
                resting: Mutex::new(false),
            }),
        }
    }

    /// Looks at one consistent view, whose exact revision comes with the result. Blocks commits meanwhile.
    pub fn view<T>(
        &self,
        look: impl FnOnce(&StateView<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Fault> {
        let committed = self.read()?;
        let seen = look(&StateView::new(&committed))?;
        Ok((Revision::new(committed.header.revision), seen))
    }

    /// The newest events, in memory.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.shared.feed
    }

    /// Events from a revision on, about `budget` bytes of them. No commit waits while the database is read.
    pub fn events(&self, from: Revision, budget: usize) -> Result<Page, Fault> {
        let committed = self.read()?;
        let header = committed.header.clone();
        let gathered = committed.gather(from, budget)?;
        let db = Arc::clone(&committed.db);
        let snapshot = db.snapshot();
        drop(committed);
        events::read(&header, from, |range, visit| {
            if gathered.is_empty() {
                let mut options = ReadOptions::default();
                options.set_snapshot(&snapshot);
                // Old events would push out what the cache is for.
                options.fill_cache(false);
                return event_db::scan(&db, options, from, range, visit, budget);
            }
            for (revision, value) in &gathered {
                visit(*revision, value.clone())?;
            }
            Ok(())
        })
    }

    /// Revision, log time and digest, as published.
    #[must_use]
    pub fn header(&self) -> pb::StateHeader {
        self.shared.read_anyway().header.clone()
    }

    /// The highest node id that any membership up to here had.
    #[must_use]
    pub fn highest_node_id(&self) -> u64 {
        self.shared.read_anyway().position.highest_node_id
    }

    /// How far the state is; changes after each batch, before the batch's writers are answered.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<AppliedAt> {
        self.shared.applied.subscribe()
    }

    /// Nothing is due before this time; `None` when there are no deadlines.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LogTime> {
        self.shared.read_anyway().horizon.next_deadline()
    }

    /// The database itself; whoever holds it keeps it open.
    pub(super) fn database(&self) -> Arc<Database> {
        self.shared.read_anyway().db.clone()
    }

    pub(super) fn applied_index(&self) -> u64 {
        self.shared.applied.borrow().log_index
    }

    pub(super) fn position(&self) -> Position {
        self.shared.read_anyway().position.clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.shared.read_anyway().generation
    }

    /// The committed state, for the one writer to prepare a batch over.
    pub(super) fn read(&self) -> Result<RwLockReadGuard<'_, Committed>, Fault> {
        // A commit that panicked may have left a database and a header that differ.
        let poisoned = |_| Fault::Io(std::io::Error::other("a commit to the state panicked"));
        self.shared.committed.read().map_err(poisoned)
    }

    /// Commits what a batch of entries changed, in one step, and publishes it.
    pub(super) fn commit(
        &self,
        changes: Changes,
        advance: Advance,
        horizon: SweepHorizon,
    ) -> Result<(), Fault> {
        let mut committed = self
            .shared
            .committed
            .write()
            .map_err(|_| Fault::Io(std::io::Error::other("a commit to the state panicked")))?;
        let events = committed.take(changes, advance, horizon);
        let applied = committed.applied_at();
        drop(committed);
        // Whoever is woken finds its events.
        if let Some(chunk) = events {
            self.shared.feed.push(chunk);
        }
        self.shared.applied.send_replace(applied);
        Ok(())
    }

    /// How full memory is: what the active layer takes, and the events that are not written.
    pub(super) fn unflushed(&self) -> Unflushed {
        self.shared.read_anyway().unflushed()
    }

    /// Writes everything that was committed before the call to the database. Blocks on the disk; batches may be
    /// committed meanwhile. After a failure the database is behind, and reads are still exact.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.shared.flush()
    }

    /// The same for events alone.
    pub(super) fn flush_events(&self) -> Result<(), Error> {
        self.shared.flush_events()
    }

    /// Makes everything that was committed before the call durable in tables, and removes the files that hold nothing but
    /// events which were forgotten. Only then: a crash before would return to a header that still counts on them.
    pub(super) fn persist(&self) -> Result<(), Error> {
        let oldest = events::oldest(&self.header());
        self.flush()?;
        let db = self.database();
        let failed = |e| Error::database("flush", db.path(), e);
        let history = event_db::family(&db);
        let records = db
            .cf_handle(DEFAULT_COLUMN_FAMILY_NAME)
            .expect("every database has it");
        db.flush_cfs_opt(&[records, history], &FlushOptions::default())
            .map_err(failed)?;
        let before = Revision::new(oldest.get().saturating_sub(1));
        let (from, to) = (Revision::default(), before);
        db.delete_file_in_range_cf(history, Key::encode_events(from), Key::encode_events(to))
            .map_err(failed)
    }

    /// Whether compactions may begin. Those that have begun go on.
    pub fn allow_compactions(&self, allow: bool) -> Result<(), Error> {
        let mut resting = self.shared.lock_resting();
        *resting = !allow;
        db::rest(&self.database(), *resting)
    }

    /// Puts another generation behind the handle, and returns the database of the one before. Readers may have it open.
    pub(super) fn switch(&self, next: Committed) -> Arc<Database> {
        // Whoever writes a layer has the database open.
        let flushing = self.shared.lock_flush();
        let resting = self.shared.lock_resting();
        if *resting && let Err(error) = db::rest(&next.db, true) {
            tracing::warn!(%error, "the new database compacts as it likes");
        }
        let mut committed = self.shared.write_anyway();
        let applied = next.applied_at();
        let previous = std::mem::replace(&mut *committed, next);
        drop(committed);
        drop((resting, flushing));
        self.shared.feed.jump();
        self.shared.applied.send_replace(applied);
        previous.db
    }
}

impl Shared {
    fn lock_flush(&self) -> MutexGuard<'_, ()> {
        // It guards nothing that a panic could leave half changed.
        self.flush.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_resting(&self) -> MutexGuard<'_, bool> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush(&self) -> Result<(), Error> {
        let flushing = self.lock_flush();
        // A layer whose writing failed goes first, and then the one that filled behind it.
        while let Some((db, frozen)) = self.freeze() {
            if planted::has(Bug::AppliedApart) {
                sabotage::write_applied(&db, frozen.position.applied)?;
            }
            db.write_opt(frozen.batch(&db), &unlogged())
                .map_err(|e| Error::database("write to", db.path(), e))?;
            self.settle();
        }
        drop(flushing);
        Ok(())
    }

    fn flush_events(&self) -> Result<(), Error> {
        let flushing = self.lock_flush();
        let committed = self.read_anyway();
        let Some(chunks) = committed.events_to_write() else {
            // The writing of a layer failed, which goes first.
            drop((committed, flushing));
            return self.flush();
        };
        let db = committed.db.clone();
        drop(committed);
        db.write_opt(event_db::batch(&db, &chunks, 0), &unlogged())
            .map_err(|e| Error::database("write to", db.path(), e))?;
        self.write_anyway().forget_written(&chunks);
        drop(flushing);
        Ok(())
    }

    fn freeze(&self) -> Option<(Arc<Database>, Arc<Frozen>)> {
        let mut committed = self.write_anyway();
        let frozen = committed.freeze()?;
        Some((committed.db.clone(), frozen))
    }

    /// The frozen layer is in the database.
    fn settle(&self) {
        // Readers go on while its records go to the cache.
        self.read_anyway().cache_frozen();
        self.write_anyway().drop_frozen();
    }

    /// For what is worth knowing even of a broken state.
    fn read_anyway(&self) -> RwLockReadGuard<'_, Committed> {
        self.committed
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for the one who writes: a commit that panicked is told by [`StateDb::read`] and [`StateDb::commit`].
    fn write_anyway(&self) -> RwLockWriteGuard<'_, Committed> {
        self.committed
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node that ends well need not apply its log again.
impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the state was not written at the end; the log has it");
        }
    }
}

impl fmt::Debug for StateDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDb")
            .field("applied", &*self.shared.applied.borrow())
            .finish_non_exhaustive()
    }
}
