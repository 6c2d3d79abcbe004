//! The state machine under openraft: entries in, one atomic commit per batch, replies out.
//!
//! Invariants:
//! 1. A batch is what is ready, until it holds [`limits::APPLY_BATCH`] commands: nobody waits for a batch to fill.
//! 2. Writers are answered after the commit of their batch, in log order, every one of them.
//! 3. A fault drops the batch whole and stops openraft. Nothing is half-committed, nobody is answered.
//! 4. What is committed gathers in memory and is written to the database beside the next batches; a batch waits only
//!    while memory holds twice a layer. On a disk without room, memory holds up to [`limits::LAYERS_WITHOUT_ROOM`] layers
//!    before the machine stops.
//! 5. How entries are cut into batches shows in no byte, see [`crate::state`].

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Error;
use super::generation::{self, Shard, ShardDir};
use super::log_db::LogDb;
use super::opener::Opener;
use super::position::{Advance, highest_node_id};
use super::snapshot::{self, Builder, Snapshot, SnapshotDir, Snapshots};
use crate::limits;
use crate::raft::{
    LogId, Proposal, Replies, Reply, SnapshotMeta, StoredMembership, TypeConfig, bytes_in,
    commands_in,
};
use crate::state::{self, Batch, Fault};
use crate::types::{ClusterId, ShardId};

pub use super::committed::AppliedAt;
pub use super::opener::StateConfig;
pub use super::state_db::StateDb;
pub use super::state_view::StateView;

/// One shard's state machine.
pub struct Machine {
    shard: Arc<Shard>,
    /// Reused from batch to batch.
    batch: Vec<EntryResponder<TypeConfig>>,
    replies: Vec<Replies>,
    layer_bytes: usize,
    unwritten_bytes: usize,
    /// The last layer on its way into the database.
    flush: Option<JoinHandle<Result<(), Error>>>,
    /// The disk had no room for a layer: when to try again.
    retry_at: Option<Instant>,
}

/// Between two attempts to write a layer to a disk without room.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Machine {
    /// Opens a shard's state, making it if the log database says that there was none, and finishes or undoes what a
    /// crash interrupted. Blocks on the disk.
    pub fn open(
        data_dir: &Path,
        cluster: ClusterId,
        shard: ShardId,
        log: Arc<LogDb>,
        config: StateConfig,
    ) -> Result<Self, Error> {
        let dir = ShardDir::new(data_dir, cluster, shard);
        dir.create()?;
        let (layer_bytes, unwritten_bytes) = (config.layer_bytes, config.unwritten_bytes);
        let opener = Opener::new(config);
        let current = log.generation(shard)?;
        let state = StateDb::new(generation::open(&dir, &opener, current)?);
        let applied = state.position().applied.map(|id| id.index);
        let snapshots = Arc::new(Snapshots::open(dir.clone(), applied)?);
        let shard = Shard {
            dir,
            log,
            opener,
            state,
            snapshots,
        };
        Ok(Self {
            shard: Arc::new(shard),
            batch: Vec::new(),
            replies: Vec::new(),
            layer_bytes,
            unwritten_bytes,
            flush: None,
            retry_at: None,
        })
    }

    /// Checks that no entry is missing between the state and a log that is purged up to `purged`. A state that was lost with all its
    /// snapshots cannot be told from one that never was: an empty one takes its place.
    pub fn check_reaches(&self, purged: Option<LogId>) -> Result<(), Error> {
        let applied = self.shard.state.position().applied.map(|id| id.index);
        let Some(purged) = purged.filter(|purged| applied < Some(purged.index)) else {
            return Ok(());
        };
        let ends = match applied {
            Some(index) => format!("ends at log index {index}"),
            None => "is empty".to_owned(),
        };
        let detail = format!(
            "it {ends}, and the log begins behind index {}: what was between is missing",
            purged.index
        );
        let place = self.shard.dir.path();
        Err(Error::corrupt(place, "the state database", detail))
    }

    /// The state that this machine writes.
    #[must_use]
    pub fn state(&self) -> StateDb {
        self.shard.state.clone()
    }

    /// What makes its snapshots.
    #[must_use]
    pub fn builder(&self) -> Builder {
        Builder {
            state: self.shard.state.clone(),
            snapshots: self.shard.snapshots.clone(),
        }
    }

    /// Where snapshots are received.
    #[must_use]
    pub fn dir(&self) -> ShardDir {
        self.shard.dir.clone()
    }

    /// Fills the batch with what is ready, waiting for the first entry only. Returns whether there may be more.
    async fn gather<S>(&mut self, entries: &mut S) -> io::Result<bool>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin,
    {
        let Some(first) = entries.next().await else {
            return Ok(false);
        };
        let mut next = first?;
        let mut commands = 0;
        loop {
            commands += commands_in(&next.0);
            self.batch.push(next);
            if commands >= limits::APPLY_BATCH {
                return Ok(true);
            }
            next = match entries.next().now_or_never() {
                Some(Some(entry)) => entry?,
                Some(None) => return Ok(false),
                None => return Ok(true),
            };
        }
    }

    /// Applies and commits the batch, and notes the replies.
    fn commit_batch(&mut self) -> Result<(), Fault> {
        let committed = self.shard.state.read()?;
        let view = StateView::new(&committed);
        let mut batch = Batch::new(&view, committed.horizon);
        let entries = || self.batch.iter().map(|(entry, _)| entry);
        batch.reserve(
            entries().map(commands_in).sum(),
            entries().map(bytes_in).sum(),
        );
        let mut advance = Advance::default();
        for (entry, _) in &self.batch {
            let log_id = LogId::new(entry.log_id.leader_id, entry.log_id.index);
            advance.applied = Some(log_id);
            let replies = match &entry.payload {
                EntryPayload::Normal(proposal) => apply(&mut batch, proposal)?,
                EntryPayload::Membership(membership) => {
                    let highest = highest_node_id(membership);
                    advance.highest_node_id = advance.highest_node_id.max(highest);
                    let stored = StoredMembership::new(Some(log_id), membership.clone());
                    advance.membership = Some(stored);
                    Replies::default()
                }
                EntryPayload::Blank => Replies::default(),
            };
            self.replies.push(replies);
        }
        let (changes, horizon) = batch.finish();
        drop(committed);
        tracing::trace!(
            entries = self.batch.len(),
            writes = changes.writes.len(),
            "commit"
        );
        self.shard.state.commit(changes, advance, horizon)
    }

    /// Begins to write what has gathered in memory, if it is enough, once the layer before it is in the database. Where the
    /// disk has no room for that, memory holds more for a while, and nothing is lost: the log has it all.
    async fn relieve(&mut self) -> Result<(), Error> {
        let state = &self.shard.state;
        let gathered = state.unflushed();
        let (layer_bytes, unwritten_bytes) = (self.layer_bytes, self.unwritten_bytes);
        let holds = |times: usize| {
            gathered.record_bytes >= times * layer_bytes
                || gathered.event_bytes >= times * unwritten_bytes
        };
        let too_much = holds(limits::LAYERS_WITHOUT_ROOM);
        // What became of the last one is looked at as soon as it is known: after a write that failed for another reason than room
        // the database takes none any more.
        let flush = self.flush.take_if(|it| it.is_finished() || holds(2));
        if let Some(flush) = flush {
            self.retry_at = None;
            match generation::joined(flush.await) {
                Err(error) if error.is_no_space() && !too_much => {
                    tracing::warn!(%error, "the state stays in memory until there is room");
                    self.retry_at = Some(Instant::now() + RETRY_PAUSE);
                }
                flushed => flushed?,
            }
        }
        let waits = self.retry_at.is_some_and(|at| Instant::now() < at);
        if !holds(1) || self.flush.is_some() || (waits && !too_much) {
            return Ok(());
        }
        let state = state.clone();
        let records_too = gathered.record_bytes >= layer_bytes;
        self.flush = Some(tokio::task::spawn_blocking(move || {
            if records_too {
                state.flush()
            } else {
                state.flush_events()
            }
        }));
        Ok(())
    }

    /// Answers the writers of the committed batch, and empties it.
    fn answer(&mut self) {
        for ((_, responder), replies) in self.batch.drain(..).zip(self.replies.drain(..)) {
            if let Some(responder) = responder {
                responder.send(replies);
            }
        }
    }
}

/// Applies an entry's commands, one after the other.
fn apply(batch: &mut Batch<'_, StateView<'_>>, proposal: &Proposal) -> Result<Replies, Fault> {
    let applied = state::apply_all(batch, proposal.stamp, &proposal.commands)?;
    let replies = applied.into_iter().map(|applied| Reply {
        reply: applied.reply,
        replayed: applied.replayed,
    });
    Ok(Replies(replies.collect()))
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let position = self.shard.state.position();
        Ok((position.applied, position.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        loop {
            let more = self.gather(&mut entries).await?;
            if !self.batch.is_empty() {
                self.commit_batch().map_err(io::Error::other)?;
                self.answer();
                self.relieve().await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotDir,
    ) -> io::Result<()> {
        self.shard.install(meta, snapshot).await?;
        // Rare, and of weight: what the log has up to there is not applied here. trolley-torture counts these lines.
        let index = meta.last_log_id.map(|id| id.index);
        tracing::info!(index, "a received snapshot is the state now");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.shard
            .snapshots
            .current()
            .map(snapshot::described)
            .transpose()
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("state", &self.shard.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "machine_tests/mod.rs"]
mod tests;
