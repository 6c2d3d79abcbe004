//! Nodes of one process that speak over loopback, each behind a proxy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Config, Raft, RaftMetrics, SnapshotPolicy};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpIncoming;

use super::proxy::Proxy;
use super::store::{Files, Inbox, MemoryLog, MemoryMachine};
use crate::clock::{Clock, LogClock};
use crate::limits;
use crate::network::{Dialer, Gate, LeaderContact, Local, PeerRooms, Pool, RaftEndpoint, Timing};
use crate::raft::{Member, Proposal, TypeConfig};
use crate::state::{Command, Identity, KeyOperation, Operation, PutCondition};
use crate::types::{
    ClusterId, DiskSpace, InstanceId, Key, LogTime, Namespace, NodeId, Room, Value,
};

/// Longest wait for anything. Generous, because machines that run tests are busy.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// openraft's lease.
pub(super) const LEASE: Duration = Duration::from_millis(1500);
const CLUSTER: [u8; 16] = [7; 16];

/// Waits until `condition` holds; `what` says what never came.
pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let came = tokio::time::timeout(DEADLINE, waiting).await;
    assert!(came.is_ok(), "never came: {what}");
}

pub(super) struct Node {
    pub(super) id: u64,
    pub(super) raft: Raft<TypeConfig, MemoryMachine>,
    pub(super) machine: MemoryMachine,
    pub(super) log: MemoryLog,
    pub(super) proxy: Proxy,
    pub(super) inbox: Inbox,
    pub(super) contact: LeaderContact,
    pub(super) disk: watch::Sender<DiskSpace>,
    /// What it heard as a leader.
    pub(super) rooms: PeerRooms,
    pub(super) clock: Arc<LogClock>,
    shutdown: CancellationToken,
    serving: JoinSet<()>,
}

pub(super) fn local(id: u64) -> Local {
    Local {
        cluster: ClusterId::new(CLUSTER),
        node: NodeId::new(id).expect("not 0"),
        instance: InstanceId::new([u8::try_from(id).expect("small"); 16]),
    }
}

/// A disk with so much room.
pub(super) fn disk(room: Room) -> DiskSpace {
    DiskSpace {
        room,
        free: 0,
        floor: 0,
        ballast: 0,
    }
}

/// Bytes of padding in every snapshot.
pub(super) const PADDING: usize = 12 << 20;

fn config(lease: Duration) -> Arc<Config> {
    let config = Config {
        heartbeat_interval: 100,
        election_timeout_min: 600,
        election_timeout_max: u64::try_from(lease.as_millis()).expect("small"),
        max_payload_entries: 64,
        enable_pre_vote: Some(true),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        install_snapshot_timeout: 10_000,
        ..Config::default()
    };
    Arc::new(config.validate().expect("valid"))
}

impl Node {
    pub(super) async fn start(id: u64) -> Self {
        Self::start_as(local(id), LEASE).await
    }

    /// A node that claims to be `local`.
    pub(super) async fn start_as(local: Local, lease: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let proxy = Proxy::start(listener.local_addr().expect("bound")).await;
        let clock = Arc::new(LogClock::new(Clock::System));
        let (pool, rooms) = (Pool::new(Timing::default()), PeerRooms::default());
        let network = Dialer::<Files>::new(local, pool, clock.clone(), rooms.clone());
        let machine = MemoryMachine::new(CLUSTER, PADDING);
        let id = local.node.get();
        let log = MemoryLog::default();
        let raft = Raft::new(id, config(lease), network, log.clone(), machine.clone());
        let raft = raft.await.expect("starts");
        let mut node = Self {
            id,
            raft,
            machine,
            log,
            proxy,
            inbox: Inbox::default(),
            contact: LeaderContact::new(clock.clone()),
            clock,
            disk: watch::Sender::new(disk(Room::Ample)),
            rooms,
            shutdown: CancellationToken::new(),
            serving: JoinSet::new(),
        };
        node.serve(local, listener);
        node
    }

    /// What its peers reach.
    pub(super) fn endpoint(&self, local: Local) -> RaftEndpoint<MemoryMachine, Inbox> {
        let metrics = self.raft.metrics();
        let gate = Gate::new(local, move |id| {
            let metrics = metrics.borrow_watched();
            metrics
                .membership_config
                .membership()
                .get_node(&id)
                .cloned()
        });
        RaftEndpoint::new(
            self.raft.clone(),
            gate,
            self.contact.clone(),
            self.disk.subscribe(),
            self.inbox.clone(),
            self.shutdown.clone(),
            TaskTracker::new(),
        )
    }

    fn serve(&mut self, local: Local, listener: TcpListener) {
        let service = self.endpoint(local).service();
        let shutdown = self.shutdown.clone().cancelled_owned();
        self.serving.spawn(async move {
            tonic::transport::Server::builder()
                .max_concurrent_streams(limits::HTTP2_STREAMS)
                .add_service(service)
                .serve_with_incoming_shutdown(
                    TcpIncoming::from(listener).with_nodelay(Some(true)),
                    shutdown,
                )
                .await
                .expect("serves until shut down");
        });
    }

    pub(super) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(super) fn member(&self) -> Member {
        Member {
            address: self.proxy.address.to_string(),
            instance: local(self.id).instance,
        }
    }

    /// Writes `count` keys at once; false if this node does not lead until all are
    /// committed, or leads since so recently that no quorum answered it yet.
    pub(super) async fn write(&self, count: u64) -> bool {
        let commands = (0..count).map(|n| proposal(&format!("key-{n}")));
        let Ok(results) = self.raft.client_write_many(commands).await else {
            return false;
        };
        let committed = results
            .take_while(|result| std::future::ready(matches!(result, Ok(Ok(_)))))
            .count();
        let committed = tokio::time::timeout(DEADLINE, committed).await;
        committed.expect("answered in time") as u64 == count
    }

    /// Stops serving and speaking, as if the process had ended, but in order.
    pub(super) async fn stop(mut self) {
        self.shutdown.cancel();
        self.raft.shutdown().await.expect("stops");
        while self.serving.join_next().await.is_some() {}
    }

    /// Ends at once: its connections close, its Raft does nothing more.
    pub(super) async fn kill(mut self) {
        self.proxy.isolate(true);
        self.serving.abort_all();
        while self.serving.join_next().await.is_some() {}
        self.raft.shutdown().await.expect("stops");
    }
}

pub(super) fn proposal(key: &str) -> Proposal {
    let operation = Operation::Key(KeyOperation::Put {
        key: Key::parse(key).expect("a key"),
        value: Value::parse(bytes::Bytes::from_static(&[42; 256])).expect("a value"),
        ttl: None,
        lease: None,
        condition: PutCondition::Always,
    });
    let namespace = Namespace::parse("").expect("the default");
    let command = Command::new(namespace, Identity::Anonymous, operation);
    Proposal::new(LogTime::from_millis(1), vec![command])
}

/// Starts nodes 1 to `count` as one cluster that has a leader.
pub(super) async fn start(count: u64) -> Vec<Node> {
    start_with(count, LEASE).await
}

/// The same with another lease.
pub(super) async fn start_with(count: u64, lease: Duration) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=count {
        nodes.push(Node::start_as(local(id), lease).await);
    }
    let members: BTreeMap<u64, Member> = nodes.iter().map(|n| (n.id, n.member())).collect();
    nodes[0].raft.initialize(members).await.expect("pristine");
    leader(&nodes).await;
    nodes
}

/// The position of the node that all of `nodes` follow.
pub(super) async fn leader(nodes: &[Node]) -> usize {
    let mut leads = None;
    eventually("a leader that all follow", async || {
        let mut seen = Vec::new();
        for node in nodes {
            seen.push(node.raft.current_leader().await);
        }
        seen.dedup();
        leads = match seen[..] {
            [Some(id)] => nodes.iter().position(|node| node.id == id),
            _ => None,
        };
        leads.is_some()
    })
    .await;
    leads.expect("just seen")
}

/// Writes `count` keys at once through whoever leads.
pub(super) async fn write(nodes: &[Node], count: u64) {
    eventually("a write that is committed", async || {
        nodes[leader(nodes).await].write(count).await
    })
    .await;
}

/// Waits until all of `nodes` applied the same.
pub(super) async fn converge(nodes: &[Node]) {
    eventually("the same state on every node", async || {
        let first = nodes[0].machine.state();
        nodes.iter().all(|node| node.machine.state() == first)
    })
    .await;
}
