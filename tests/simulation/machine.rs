//! openraft's state machine over the real state in memory, and snapshots of it.
//!
//! It does what `storage::machine` does: batches of what is ready, one commit each, replies after it. How many entries
//! a batch holds is drawn, and so is when the state is flushed; a crash returns it to the last flush.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;
use trolley::proto::internal as pb;
use trolley::raft::{
    Entry, LogId, Proposal, Replies, Reply, SnapshotMeta, StoredMembership, TypeConfig,
};
use trolley::state::{self, Batch, Fault, Key, KeyRange, MemoryStore, Store, Stored, SweepHorizon};
use trolley::storage::machine::AppliedAt;
use trolley::types::{LogTime, Revision, StateVersion};

use crate::bugs::Bug;
use crate::disk::{Applied, Disk, Snapshot, encode};
use crate::world::World;

type SnapshotOf = openraft::alias::SnapshotOf<TypeConfig, Snapshot>;

/// The state that a node serves from.
#[derive(Default)]
pub struct Live {
    pub applied: Applied,
    pub horizon: SweepHorizon,
}

/// The state as a program sees it that knows the rules up to this version.
struct Known<'a> {
    store: &'a MemoryStore,
    newest: StateVersion,
}

impl Store for Known<'_> {
    fn header(&self) -> pb::StateHeader {
        self.store.header()
    }

    fn newest_version(&self) -> StateVersion {
        self.newest
    }

    fn get(&self, key: &Key) -> Result<Option<Stored>, Fault> {
        self.store.get(key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        self.store.scan(range, visit)
    }
}

/// See the module. Clones are the same machine.
#[derive(Clone)]
pub struct SimMachine {
    world: Arc<World>,
    node: u64,
    /// What the node's program knows.
    newest: StateVersion,
    disk: Arc<Mutex<Disk>>,
    pub live: Arc<Mutex<Live>>,
    random: Arc<Mutex<fastrand::Rng>>,
    /// Held while a snapshot is made or installed, so that an older one never takes the place of a newer.
    busy: Arc<tokio::sync::Mutex<()>>,
    /// The last snapshot, where a bug keeps it off the disk.
    unkept: Arc<Mutex<Option<Snapshot>>>,
    pub published: Arc<watch::Sender<AppliedAt>>,
}

fn at(applied: &Applied) -> AppliedAt {
    let header = applied.store.header();
    AppliedAt {
        revision: Revision::new(header.revision),
        log_index: applied.last.map_or(0, |id| id.index),
        log_time: LogTime::from_millis(header.log_time),
    }
}

impl SimMachine {
    /// Comes up with what the disk has.
    pub fn open(
        world: Arc<World>,
        node: u64,
        newest: StateVersion,
        disk: Arc<Mutex<Disk>>,
    ) -> Self {
        let applied = disk.lock().expect("no panic").state.clone();
        let published = Arc::new(watch::Sender::new(at(&applied)));
        let live = Live {
            applied,
            horizon: SweepHorizon::default(),
        };
        let random = Arc::new(world.random_of(node, 1));
        Self {
            random,
            world,
            node,
            newest,
            disk,
            live: Arc::new(Mutex::new(live)),
            busy: Arc::default(),
            unkept: Arc::default(),
            published,
        }
    }

    fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.lock().expect("no panic").u64(range)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live
            .lock()
            .expect("nothing panics while it holds the state")
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk
            .lock()
            .expect("nothing panics while it holds a disk")
    }

    fn commit(&self, entries: &[EntryResponder<TypeConfig>]) -> Result<Vec<Replies>, Fault> {
        let mut live = self.live();
        let live = &mut *live;
        let before = live.applied.store.header();
        let known = Known {
            store: &live.applied.store,
            newest: self.newest,
        };
        let mut batch = Batch::new(&known, live.horizon);
        let mut replies = Vec::new();
        let mut last = live.applied.last;
        let mut membership = None;
        let mut highest_id = live.applied.highest_id;
        for (entry, _) in entries {
            self.world
                .ledger
                .applied(self.node, entry.log_id, &encode(entry));
            last = Some(entry.log_id);
            replies.push(match &entry.payload {
                EntryPayload::Normal(proposal) => self.apply_one(&mut batch, entry, proposal)?,
                EntryPayload::Membership(it) => {
                    let highest = it.nodes().map(|(id, _)| *id).max();
                    highest_id = highest_id.max(highest.unwrap_or(0));
                    membership = Some(StoredMembership::new(Some(entry.log_id), it.clone()));
                    Replies::default()
                }
                EntryPayload::Blank => Replies::default(),
            });
        }
        let (changes, horizon) = batch.finish();
        let after = changes.header.clone();
        live.applied.store.commit(changes);
        live.horizon = horizon;
        live.applied.last = last;
        live.applied.highest_id = highest_id;
        if let Some(membership) = membership {
            live.applied.membership = membership;
        }
        self.note(last, &before, &after);
        Ok(replies)
    }

    fn apply_one(
        &self,
        batch: &mut Batch<'_, Known<'_>>,
        entry: &Entry,
        proposal: &Proposal,
    ) -> Result<Replies, Fault> {
        let mut commands = proposal.commands.to_vec();
        let turns = self.world.has(Bug::ReorderedApply) && self.node == 1;
        if turns && entry.log_id.index > 3 {
            commands.reverse();
        }
        let applied = state::apply_all(batch, proposal.stamp, &commands)?;
        let mut replies: Vec<Reply> = applied
            .into_iter()
            .map(|applied| Reply {
                reply: applied.reply,
                replayed: applied.replayed,
            })
            .collect();
        if turns && entry.log_id.index > 3 {
            replies.reverse();
        }
        Ok(Replies(replies))
    }

    fn note(&self, last: Option<LogId>, before: &pb::StateHeader, after: &pb::StateHeader) {
        let (node, index) = (self.node, last.map_or(0, |id| id.index));
        self.world.ledger.advanced(node, before, after);
        self.world.ledger.stands(node, index, after);
        self.world.trace.note(format_args!(
            "n{node} applied {index}, revision {}, time {}, digest {:02x?}",
            after.revision,
            after.log_time,
            &after.digest[..]
        ));
    }

    /// Makes the state durable as it is.
    fn flush(&self) {
        let applied = self.live().applied.clone();
        let mut disk = self.disk();
        let last = disk.state.last;
        disk.state = applied;
        if self.world.has(Bug::AppliedApart) {
            disk.state.last = last;
        }
    }
}

impl RaftStateMachine<TypeConfig> for SimMachine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let live = self.live();
        Ok((live.applied.last, live.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut more = true;
        while more {
            let Some(first) = entries.next().await else {
                break;
            };
            let mut batch = vec![first?];
            for _ in 0..self.draw(0..8) {
                match entries.next().now_or_never() {
                    Some(Some(entry)) => batch.push(entry?),
                    ended => {
                        more = ended.is_none();
                        break;
                    }
                }
            }
            let replies = self.commit(&batch).map_err(io::Error::other)?;
            let at = at(&self.live().applied);
            self.published.send_replace(at);
            for ((_, responder), replies) in batch.into_iter().zip(replies) {
                if let Some(responder) = responder {
                    responder.send(replies);
                }
            }
            if self.draw(0..100) < 5 {
                self.flush();
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Snapshot,
    ) -> io::Result<()> {
        let busy = Arc::clone(&self.busy);
        let _busy = busy.lock().await;
        let pause = self.draw(1..30);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let store = MemoryStore::restore(&snapshot.bytes).map_err(io::Error::other)?;
        let header = store.header();
        let applied = Applied {
            store,
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            highest_id: snapshot.highest_id,
        };
        let (node, index) = (self.node, meta.last_log_id.map_or(0, |id| id.index));
        self.world
            .trace
            .note(format_args!("n{node} installs a snapshot at {index}"));
        self.world.ledger.stands(node, index, &header);
        self.world.ledger.count("snapshot installed");
        let at = at(&applied);
        {
            let mut disk = self.disk();
            disk.state = applied.clone();
            disk.snapshot = Some(snapshot);
        }
        *self.live() = Live {
            applied,
            horizon: SweepHorizon::default(),
        };
        self.published.send_replace(at);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let unkept = self.unkept.lock().expect("no panic").clone();
        let snapshot = unkept.or_else(|| self.disk().snapshot.clone());
        Ok(snapshot.map(|snapshot| SnapshotOf {
            meta: snapshot.meta.clone(),
            snapshot,
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SimMachine {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let busy = Arc::clone(&self.busy);
        let _busy = busy.lock().await;
        let applied = self.live().applied.clone();
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership.clone(),
        };
        let forgets = self.world.has(Bug::ForgottenReplies);
        let snapshot = Snapshot {
            meta: meta.clone(),
            bytes: Arc::new(pack(&applied.store, forgets)),
            highest_id: applied.highest_id,
        };
        let pause = self.draw(1..50);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let (node, index) = (self.node, applied.last.map_or(0, |id| id.index));
        self.world
            .trace
            .note(format_args!("n{node} built a snapshot at {index}"));
        self.world.ledger.count("snapshot built");
        if self.world.has(Bug::PurgePastFlush) {
            *self.unkept.lock().expect("no panic") = Some(snapshot.clone());
        } else {
            let mut disk = self.disk();
            if disk.state.last <= applied.last {
                disk.state = applied;
            }
            disk.snapshot = Some(snapshot.clone());
        }
        Ok(SnapshotOf { meta, snapshot })
    }
}

/// All records, or all but the reply tables.
fn pack(store: &MemoryStore, forgets: bool) -> Vec<u8> {
    if !forgets {
        return store.snapshot();
    }
    let is_reply = |key: &[u8]| {
        let key = Key::decode(key);
        matches!(key, Ok(Key::Request(..) | Key::Client(_)))
    };
    let mut out = Vec::new();
    for (key, value) in store.iter().filter(|(key, _)| !is_reply(key)) {
        for bytes in [key, value] {
            let length = u32::try_from(bytes.len()).expect("records are small");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(bytes);
        }
    }
    out
}
