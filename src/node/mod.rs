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

mod base;
mod bootstrap;
mod confirm;
mod error;
mod incoming;
mod leadership;
mod membership;
mod open;
mod overtaken;
mod peers;
mod periodic;
mod propose;
mod read;
mod recognition;
mod roll_call;
mod rounds;
mod snapshot;
mod space;
mod status;
mod tick;
mod timekeeping;
mod transfer;
mod versions;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use base::{Base, Disks};
pub use bootstrap::{BootstrapError, Newborn, Settled};
pub use error::{Error, LeaderHint, Outcome, Stopped};
pub use leadership::Leadership;
pub use membership::MembershipError;
pub use open::{OpenError, Prepared, Started, election_timers, raft_config};
pub use overtaken::drop_overtaken;
pub use read::ReadMode;
pub use rounds::Unconfirmed;
pub use space::Shortage;
pub use watch::{Beat, Source, Told, Watcher};

use crate::clock::LogClock;
use crate::limits;
use crate::network::{self, ElectionTimers, LeaderContact};
use crate::raft::TypeConfig;
use crate::state::Fault;
use crate::storage::machine::{AppliedAt, Machine};
use crate::types::{ClusterId, NodeId};

use self::space::Admission;

/// openraft over this storage.
pub type Raft<M = Machine> = openraft::Raft<TypeConfig, M>;

/// One member of the cluster. Cloning shares it.
pub struct Node<B: Base = Disks> {
    shared: Arc<Shared<B>>,
}

impl<B: Base> Clone for Node<B> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<B: Base = Disks> {
    raft: Raft<B::Machine>,
    base: B,
    /// How far the state is; looking at it never waits for a commit.
    applied: channel::Receiver<AppliedAt>,
    log_clock: Arc<LogClock>,
    leadership: channel::Sender<Leadership>,
    /// What is taken because of the disks that there are.
    admission: channel::Sender<Admission>,
    /// To the task that proposes.
    proposals: mpsc::Sender<propose::Request>,
    /// To the task that confirms reads.
    reads: mpsc::Sender<rounds::Waiter>,
    /// Which voter confirms reads.
    preference: confirm::Preference,
    draining: AtomicBool,
    /// Why this node cannot go on, where neither openraft nor the log says so. The first reason stands.
    ended: channel::Sender<Option<Stopped>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What a node is started with.
pub struct Parts<B: Base> {
    /// openraft, running.
    pub raft: Raft<B::Machine>,
    /// What it stands on.
    pub base: B,
    /// How far the state is, published after each batch.
    pub applied: channel::Receiver<AppliedAt>,
    /// What a leader stamps with.
    pub log_clock: Arc<LogClock>,
    /// When a leader was last heard of.
    pub contact: LeaderContact,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub id: NodeId,
    /// When its leader is missed.
    pub timers: ElectionTimers,
}

impl<B: Base> Node<B> {
    /// Starts what every node does: follow leadership, propose, confirm reads, tick, raise the state's version, and ask for
    /// votes when the leader is missed.
    #[must_use]
    pub fn start(parts: Parts<B>) -> Self {
        let (proposals, proposed) = mpsc::channel(limits::PROPOSAL_QUEUE);
        let (reads, reading) = mpsc::channel(limits::READ_QUEUE);
        let now = Leadership::read(&parts.raft, parts.cluster, parts.id);
        let node = Self {
            shared: Arc::new(Shared {
                raft: parts.raft,
                base: parts.base,
                applied: parts.applied,
                log_clock: parts.log_clock,
                leadership: channel::Sender::new(now),
                admission: channel::Sender::default(),
                proposals,
                reads,
                preference: confirm::Preference::default(),
                draining: AtomicBool::new(false),
                ended: channel::Sender::default(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        };
        let shared = &node.shared;
        let (raft, published) = (shared.raft.clone(), shared.leadership.clone());
        node.spawn(|stop| leadership::follow(raft, published, stop));
        node.spawn(|stop| propose::run(Arc::clone(shared), proposed, stop));
        node.spawn(|stop| rounds::run(Arc::clone(shared), reading, stop));
        node.spawn(|stop| tick::run(node.clone(), stop));
        node.spawn(|stop| versions::run(node.clone(), stop));
        let (raft, peers) = (shared.raft.clone(), Arc::clone(shared));
        node.spawn(|stop| async move {
            let is_gone = |id| peers.base.is_gone(id);
            let campaign = network::campaign(raft, parts.contact, parts.timers, is_gone);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = campaign => {}
            }
        });
        node
    }

    /// Runs a task of the node's, which ends when it is told to stop.
    fn spawn<F>(&self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared.tasks.spawn(task(self.shared.stop.clone()));
    }

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
            biased;
            reason = self.shared.base.broken() => Stopped::met(reason),
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
        // First: a task that stops drops what it asks, see `raft::ask`.
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(%error, "openraft did not end cleanly");
        }
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.base.close().await;
    }
}

impl<B: Base> Shared<B> {
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

    /// Lets what was met be the end of the node.
    fn halt(&self, fault: Fault) -> Fault {
        self.end(Stopped::Fault(fault.to_string()));
        fault
    }
}
