//! A node without Raft or disk: the real state machine behind [`Backend`], for the tests of this module and of
//! `server`.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backend::{Backend, Replies, View};
use crate::node::{Beat, Error, LeaderHint, Leadership, ReadMode, Source, Stopped, Watcher};
use crate::proto::v1;
use crate::raft::Reply;
use crate::server::Served;
use crate::state::events::Page;
use crate::state::{Batch, Command, Fault, MemoryStore, Store as _, SweepHorizon, apply};
use crate::storage::feed::Feed;
use crate::storage::machine::AppliedAt;
use crate::types::{ClusterId, LogTime, NodeId, Revision};

/// Log time of the first entry.
const NOW_MS: u64 = 1_700_000_000_000;

/// A member of a cluster of its own.
#[derive(Clone)]
pub(crate) struct MemoryNode {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<(MemoryStore, SweepHorizon)>,
    leadership: watch::Sender<Leadership>,
    /// While true, replies and linearizable barriers wait.
    held: watch::Sender<bool>,
    draining: watch::Sender<bool>,
    proposed: AtomicUsize,
    /// Linearizable reads that were let through.
    confirmed: AtomicUsize,
    clock: AtomicU64,
    feed: Arc<Feed>,
    beats: watch::Sender<Beat>,
}

pub(crate) fn node_id(id: u64) -> NodeId {
    NodeId::new(id).expect("tests use ids from 1")
}

impl MemoryNode {
    /// A node that leads.
    pub fn leader() -> Self {
        let own = LeaderHint {
            node: node_id(1),
            address: "127.0.0.1:1".to_owned(),
        };
        let leadership = Leadership {
            cluster: ClusterId::new([7; 16]),
            node: node_id(1),
            term: 3,
            leader: Some(own),
            role: v1::Role::Leader,
        };
        let shared = Shared {
            state: Mutex::new((MemoryStore::new(), SweepHorizon::default())),
            leadership: watch::Sender::new(leadership),
            held: watch::Sender::new(false),
            draining: watch::Sender::new(false),
            proposed: AtomicUsize::new(0),
            confirmed: AtomicUsize::new(0),
            clock: AtomicU64::new(NOW_MS),
            feed: Arc::default(),
            beats: watch::Sender::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A node that knows another leader, or none.
    pub fn follower(leader: Option<&str>) -> Self {
        let node = Self::leader();
        node.follow(leader);
        node
    }

    pub fn follow(&self, leader: Option<&str>) {
        self.shared.leadership.send_modify(|leadership| {
            leadership.role = v1::Role::Follower;
            leadership.leader = leader.map(|address| LeaderHint {
                node: node_id(2),
                address: address.to_owned(),
            });
        });
    }

    /// How many linearizable reads were let through.
    pub fn confirmed(&self) -> usize {
        self.shared.confirmed.load(Ordering::Relaxed)
    }

    pub fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Commands that were proposed so far.
    pub fn proposed(&self) -> usize {
        self.shared.proposed.load(Ordering::SeqCst)
    }

    /// Lets time pass.
    pub fn advance(&self, millis: u64) {
        self.shared.clock.fetch_add(millis, Ordering::SeqCst);
    }

    fn check_may_propose(&self) -> Result<(), Error> {
        if *self.shared.draining.borrow() {
            return Err(Error::Draining);
        }
        let leadership = self.leadership();
        match leadership.leader {
            _ if leadership.is_leader() => Ok(()),
            Some(leader) => Err(Error::NotLeader(leader)),
            None => Err(Error::NoLeader),
        }
    }

    /// Applies commands that were proposed together in one batch, as the state machine does.
    fn apply(&self, commands: &[Command]) -> Result<Vec<Reply>, Fault> {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (store, horizon) = &mut *state;
        let mut batch = Batch::new(&*store, *horizon);
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            let applied = apply(&mut batch, self.log_now(), command)?;
            replies.push(Reply {
                reply: applied.reply,
                replayed: applied.replayed,
            });
        }
        let (changes, next) = batch.finish();
        let written = changes.events.clone();
        store.commit(changes);
        *horizon = next;
        if let Some(chunk) = written {
            self.shared.feed.push(chunk);
        }
        self.shared.beats.send_modify(|beat| {
            beat.revision = Revision::new(store.header().revision);
        });
        Ok(replies)
    }

    /// Another state takes the place of this one, as when a snapshot is installed.
    pub fn install(&self, other: &Self) {
        let theirs = other.lock().0.clone();
        self.lock().0 = theirs;
        self.shared.feed.jump();
        self.isolate(false);
    }

    /// The node has lost its leader, or has found one.
    pub fn isolate(&self, isolated: bool) {
        self.shared
            .beats
            .send_modify(|beat| beat.isolated = isolated);
    }

    fn lock(&self) -> MutexGuard<'_, (MemoryStore, SweepHorizon)> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut held = self.shared.held.subscribe();
        async move {
            held.wait_for(|held| !held)
                .await
                .expect("the node outlives its calls");
        }
    }
}

impl Source for MemoryNode {
    fn feed(&self) -> &Arc<Feed> {
        &self.shared.feed
    }

    fn read(&self, from: Revision, budget: usize) -> Result<Page, Fault> {
        self.lock().0.events(from, budget)
    }

    fn applied(&self) -> AppliedAt {
        let header = self.lock().0.header();
        AppliedAt {
            revision: Revision::new(header.revision),
            log_time: LogTime::from_millis(header.log_time),
            ..AppliedAt::default()
        }
    }
}

impl Backend for MemoryNode {
    fn watch(&self) -> Result<Watcher, Error> {
        Watcher::enter(Arc::new(self.clone()), self.shared.beats.subscribe())
    }

    async fn propose(&self, command: Command) -> Result<Reply, Error> {
        let mut replies = self.propose_many(vec![command]).await?;
        replies.next().await.expect("one command, one reply")
    }

    async fn propose_many(&self, commands: Vec<Command>) -> Result<Replies, Error> {
        self.check_may_propose()?;
        self.shared
            .proposed
            .fetch_add(commands.len(), Ordering::SeqCst);
        let replies = self.apply(&commands)?.into_iter().map(Ok);
        let released = self.released();
        let replies = futures::stream::once(released)
            .flat_map(move |()| futures::stream::iter(Vec::new()))
            .chain(futures::stream::iter(replies));
        Ok(replies.boxed())
    }

    async fn read_barrier(&self, mode: ReadMode, _: Instant) -> Result<(), Error> {
        match mode {
            ReadMode::Stale => Ok(()),
            ReadMode::Linearizable => {
                self.released().await;
                self.shared.confirmed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            ReadMode::AtLeast(want) => {
                let (have, ()) = self.view(|_| Ok(()))?;
                if have >= want {
                    Ok(())
                } else {
                    Err(Error::Behind { have, want })
                }
            }
        }
    }

    fn view<T>(
        &self,
        look: impl FnOnce(&View<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Error> {
        let state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let seen = look(&View(&state.0))?;
        Ok((Revision::new(state.0.header().revision), seen))
    }

    fn log_now(&self) -> LogTime {
        LogTime::from_millis(self.shared.clock.load(Ordering::SeqCst))
    }

    fn leadership(&self) -> Leadership {
        self.shared.leadership.borrow().clone()
    }

    fn leadership_changes(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    fn members(&self) -> Vec<v1::Member> {
        vec![v1::Member {
            node_id: 1,
            address: "127.0.0.1:1".to_owned(),
            voter: true,
        }]
    }

    fn status(&self) -> v1::NodeStatus {
        v1::NodeStatus {
            node_id: 1,
            ..v1::NodeStatus::default()
        }
    }

    async fn cluster_status(&self) -> Vec<v1::NodeStatus> {
        vec![self.status()]
    }

    async fn transfer_leader(&self, _: Option<NodeId>, _: Instant) -> Result<(), Error> {
        self.check_may_propose()
    }

    async fn add_member(&self, _: NodeId, _: &str, _: Instant) -> Result<(), Error> {
        self.check_may_propose()
    }

    async fn remove_member(&self, _: NodeId, _: Instant) -> Result<(), Error> {
        self.check_may_propose()
    }

    async fn snapshot(&self, _: Instant) -> Result<u64, Error> {
        Ok(42)
    }
}

impl Served for MemoryNode {
    fn start_drain(&self) {
        self.shared.draining.send_replace(true);
    }

    async fn stopped(&self) -> Stopped {
        std::future::pending().await
    }

    async fn close(&self) {}
}
