//! openraft's own suite for log stores, over the real one and the simplest state machine that satisfies it.

use std::io;

use futures::{Stream, StreamExt as _};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use tempfile::TempDir;

use super::{node, open};
use crate::raft::{LogId, Replies, SnapshotMeta, StoredMembership, TypeConfig};
use crate::storage::{LogDb, LogStore};
use crate::types::ShardId;

type Snap = openraft::alias::SnapshotOf<TypeConfig, SnapshotMeta>;

/// Remembers how far it was applied, and nothing of what.
#[derive(Clone, Default)]
struct Counting {
    last_applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl Counting {
    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        }
    }
}

fn snapshot(meta: SnapshotMeta) -> Snap {
    Snapshot {
        meta: meta.clone(),
        snapshot: meta,
    }
}

/// Shared with the builders it hands out, so that a built snapshot becomes the current one.
#[derive(Clone, Default)]
struct Machine(std::sync::Arc<std::sync::Mutex<Counting>>);

impl Machine {
    fn lock(&self) -> std::sync::MutexGuard<'_, Counting> {
        self.0.lock().expect("no test panics while it holds it")
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = SnapshotMeta;

    async fn build_snapshot(&mut self) -> Result<Snap, io::Error> {
        let mut machine = self.lock();
        let meta = machine.meta();
        machine.snapshot = Some(meta.clone());
        Ok(snapshot(meta))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotMeta;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let machine = self.lock();
        Ok((machine.last_applied, machine.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let mut machine = self.lock();
            machine.last_applied = Some(entry.log_id());
            if let EntryPayload::Membership(membership) = entry.payload {
                machine.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            drop(machine);
            if let Some(responder) = responder {
                responder.send(Replies::default());
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
        data: SnapshotMeta,
    ) -> Result<(), io::Error> {
        let mut machine = self.lock();
        machine.last_applied = meta.last_log_id;
        machine.membership = meta.last_membership.clone();
        machine.snapshot = Some(data);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snap>, io::Error> {
        Ok(self.lock().snapshot.clone().map(snapshot))
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, (LogDb, TempDir)> for Builder {
    async fn build(
        &self,
    ) -> Result<((LogDb, TempDir), LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = open(dir.path(), node(1)).expect("a new log");
        let log = db.log(ShardId::ZERO).expect("an empty log");
        Ok(((db, dir), log, Machine::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_passes_openrafts_suite() {
    if let Err(error) = Suite::test_all(Builder).await {
        panic!("{error}");
    }
}
