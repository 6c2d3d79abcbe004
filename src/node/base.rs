//! What a node stands on: a state machine and its storage, and the peers that it asks.
//!
//! Writes, reads, rounds, ticks and changes of the members are the same whatever that is. [`Disks`] is what ships; the
//! simulation of `tests/` stands on disks and a network that it makes up, and runs the same code.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftStateMachine;
use tokio::sync::watch;

use super::peers::Peers;
use super::watch::Beat;
use super::{LeaderHint, Unconfirmed, confirm};
use crate::config::NodeConfig;
use crate::network::{Error as NetworkError, PeerRooms};
use crate::proto::internal as pb;
use crate::raft::{TypeConfig, Vote};
use crate::state::{Fault, Store};
use crate::storage::machine::{Machine, StateDb, StateView};
use crate::storage::snapshot::Builder;
use crate::storage::{LogDb, LogStore};
use crate::types::{DiskSpace, InstanceId, LogTime, Revision, Room, StateVersion};

/// What a node stands on: a state machine and its storage, and the peers that it asks.
pub trait Base: Send + Sync + Sized + 'static {
    /// What openraft applies entries to.
    type Machine: RaftStateMachine<TypeConfig>;
    /// A consistent view of what is applied.
    type View<'a>: Store;

    /// Looks at one consistent view, whose exact revision comes with the result.
    fn view<T>(
        &self,
        look: impl FnOnce(&Self::View<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Fault>;

    /// Revision, log time and digest of what is applied.
    fn header(&self) -> pb::StateHeader;

    /// Nothing is due before this time; `None` when there are no deadlines.
    fn next_deadline(&self) -> Option<LogTime>;

    /// The highest id of all nodes that were ever members, up to what is applied; 0 before there were any.
    fn highest_node_id(&self) -> u64;

    /// This node's data directory.
    fn instance(&self) -> InstanceId;

    /// The newest rules that this node's program knows.
    fn newest_state_version(&self) -> StateVersion;

    /// What another voter said, in this term, of the room on its disk.
    fn room_of(&self, term: u64, node: u64) -> Option<Room>;

    /// Asks whoever listens at an address who it is.
    fn greet(
        &self,
        address: &str,
        greeting: pb::HelloRequest,
        patience: Duration,
    ) -> impl Future<Output = Result<pb::HelloResponse, NetworkError>> + Send;

    /// Asks the leader for the log index that a linearizable read which begins now must have applied.
    fn ask_read_index(
        &self,
        leader: &LeaderHint,
    ) -> impl Future<Output = Result<u64, Unconfirmed>> + Send;

    /// The vote that another node holds after this was called, if it says so soon.
    fn ask_vote(&self, node: u64) -> impl Future<Output = Option<Vote>> + Send;

    /// Whether the process of another node has ended for certain: nobody listens at its address.
    fn is_gone(&self, node: u64) -> impl Future<Output = bool> + Send;

    /// Resolves with the reason when the storage cannot go on.
    fn broken(&self) -> impl Future<Output = String> + Send;

    /// Closes the storage, when nothing uses it any more.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// `RocksDB` databases, and peers over gRPC.
pub struct Disks {
    pub(super) state: StateDb,
    /// Makes snapshots.
    pub(super) builder: Builder,
    pub(super) log: LogStore,
    pub(super) log_db: Arc<LogDb>,
    /// This node's disk as it last looked.
    pub(super) disk: watch::Receiver<DiskSpace>,
    /// What the others said of theirs.
    pub(super) peer_rooms: PeerRooms,
    pub(super) peers: Peers,
    /// Wakes watchers.
    pub(super) beats: watch::Sender<Beat>,
    pub(super) instance: InstanceId,
    pub(super) config: Arc<NodeConfig>,
}

impl Base for Disks {
    type Machine = Machine;
    type View<'a> = StateView<'a>;

    fn view<T>(
        &self,
        look: impl FnOnce(&StateView<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Fault> {
        self.state.view(look)
    }

    fn header(&self) -> pb::StateHeader {
        self.state.header()
    }

    fn next_deadline(&self) -> Option<LogTime> {
        self.state.next_deadline()
    }

    fn highest_node_id(&self) -> u64 {
        self.state.highest_node_id()
    }

    fn instance(&self) -> InstanceId {
        self.instance
    }

    fn newest_state_version(&self) -> StateVersion {
        self.config.newest_state_version
    }

    fn room_of(&self, term: u64, node: u64) -> Option<Room> {
        let heard = self.peer_rooms.in_term(term);
        heard.get(&node).filter(|heard| heard.answers)?.room
    }

    async fn greet(
        &self,
        address: &str,
        greeting: pb::HelloRequest,
        patience: Duration,
    ) -> Result<pb::HelloResponse, NetworkError> {
        self.peers.greet(greeting, address, patience).await
    }

    async fn ask_read_index(&self, leader: &LeaderHint) -> Result<u64, Unconfirmed> {
        self.peers.read_index(leader).await
    }

    async fn ask_vote(&self, node: u64) -> Option<Vote> {
        self.peers.held_vote(node, confirm::PATIENCE).await
    }

    async fn is_gone(&self, node: u64) -> bool {
        self.peers.is_gone(node).await
    }

    async fn broken(&self) -> String {
        let mut poisoned = self.log_db.poisoned();
        match poisoned.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(error)) => error.to_string(),
            _ => "the commit thread ended".to_owned(),
        }
    }

    async fn close(&self) {
        self.log_db.shutdown().await;
    }
}
