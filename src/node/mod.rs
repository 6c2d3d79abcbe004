//! One shard's life without transport: open, ready, drain; propose, read, watch, status.
//!
//! A [`Node`] owns its openraft instance, the handles of its storage, and the tasks that run beside them. `api`
//! and `server` see nothing of openraft.
//!
//! Invariants:
//! 1. A node answers nothing before it knows its cluster: `bootstrap` settles that first.
//! 2. Whatever waits has a deadline; every task is in `tasks` and is joined by [`Node::close`].
//! 3. When openraft or the storage stops, or the cluster disowns this node, [`Node::stopped`] resolves and the process ends
//!    with an exit code of its own. Nothing is served from a node that has met a fault.
//! 4. A write is refused before there is no room for it on a quorum's disks: see `space`.
//!
//! Deliberately absent: sockets, gRPC and flags.

mod bootstrap;
mod error;
mod incoming;
mod leadership;
mod open;
mod peers;
mod propose;
mod read;
mod recognition;
mod rounds;
mod snapshot;
mod space;
mod status;
mod tick;
mod transfer;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bootstrap::{BootstrapError, Newborn, Settled};
pub use error::{Error, LeaderHint, Outcome, Stopped};
pub use leadership::Leadership;
pub use open::{OpenError, Prepared, Started};
pub use read::ReadMode;
pub use space::Shortage;
pub use watch::{Beat, Source, Told, Watcher};

use crate::clock::LogClock;
use crate::config::NodeConfig;
use crate::network::PeerRooms;
use crate::raft::TypeConfig;
use crate::state::Fault;
use crate::storage::machine::{AppliedAt, Machine, StateDb};
use crate::storage::snapshot::Builder;
use crate::storage::{LogDb, LogStore};
use crate::types::{DiskSpace, InstanceId};

use self::space::Admission;

/// openraft over this storage.
pub type Raft = openraft::Raft<TypeConfig, Machine>;

/// One member of the cluster. Cloning shares it.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    raft: Raft,
    state: StateDb,
    /// How far `state` is; looking at it never waits for a commit.
    applied: channel::Receiver<AppliedAt>,
    /// Makes snapshots.
    builder: Builder,
    log: LogStore,
    log_db: Arc<LogDb>,
    log_clock: Arc<LogClock>,
    leadership: channel::Sender<Leadership>,
    /// This node's disk as it last looked.
    disk: channel::Receiver<DiskSpace>,
    /// What the others said of theirs.
    peer_rooms: PeerRooms,
    /// What is taken because of that.
    admission: channel::Sender<Admission>,
    /// Wakes watchers.
    beats: channel::Sender<Beat>,
    /// To the task that proposes.
    proposals: mpsc::Sender<propose::Request>,
    /// To the task that confirms reads.
    reads: mpsc::Sender<rounds::Waiter>,
    peers: peers::Peers,
    instance: InstanceId,
    config: Arc<NodeConfig>,
    draining: AtomicBool,
    /// Why this node cannot go on, where neither openraft nor the log says so. The first reason stands.
    ended: channel::Sender<Option<Stopped>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    /// Who leads, as this node knows it. Cheap.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.shared.leadership.borrow().clone()
    }

    /// Wakes when leadership changes.
    #[must_use]
    pub fn leadership_changes(&self) -> channel::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// From now on writes are refused with [`Error::Draining`]; those under way are finished.
    pub fn start_drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    /// Resolves with the reason when this node cannot go on.
    pub async fn stopped(&self) -> Stopped {
        tokio::select! {
            reason = self.log_poisoned() => Stopped::met(reason),
            reason = self.raft_stopped() => Stopped::met(reason),
            reason = self.ended() => reason,
        }
    }

    async fn ended(&self) -> Stopped {
        let mut ended = self.shared.ended.subscribe();
        let reason = ended.wait_for(Option::is_some).await;
        match reason.ok().and_then(|reason| reason.clone()) {
            Some(reason) => reason,
            // The sender lives as long as this node.
            None => std::future::pending().await,
        }
    }

    async fn log_poisoned(&self) -> String {
        let mut poisoned = self.shared.log_db.poisoned();
        match poisoned.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(error)) => error.to_string(),
            _ => "the commit thread ended".to_owned(),
        }
    }

    async fn raft_stopped(&self) -> String {
        let raft = &self.shared.raft;
        // These change with leadership and close when openraft's core ends. The whole metrics change with every entry,
        // and whoever waits for them is woken as often.
        let mut until_ended = raft.server_metrics();
        while until_ended.changed().await.is_ok() {}
        match &raft.metrics().borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "openraft ended".to_owned(),
        }
    }

    /// Ends openraft and every task, and closes the log. Nothing acknowledged depends on it.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(%error, "openraft did not end cleanly");
        }
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.log_db.shutdown().await;
    }
}

impl Shared {
    /// Ends the node for this reason.
    fn end(&self, reason: Stopped) {
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            if is_first {
                *ended = Some(reason);
            }
            is_first
        });
    }

    /// Lets what a read met be the end of the node.
    fn halt(&self, fault: Fault) -> Fault {
        self.end(Stopped::Fault(fault.to_string()));
        fault
    }
}
