//! What the services need of a node. `node::Node` is the one that ships; tests stand a state machine behind it.

use std::future::Future;
use std::ops::ControlFlow;

use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::node::{Error, Leadership, Node, ReadMode, Watcher};
use crate::proto::internal as pb;
use crate::proto::v1;
use crate::raft::Reply;
use crate::state::{Command, Fault, Key, KeyRange, Store, Stored};
use crate::types::{LogTime, NodeId, Revision};

/// The replies to commands that were proposed together, in their order.
pub type Replies = BoxStream<'static, Result<Reply, Error>>;

/// One consistent look at the state.
pub struct View<'a>(pub &'a dyn Store);

impl Store for View<'_> {
    fn header(&self) -> pb::StateHeader {
        self.0.header()
    }

    fn get(&self, key: &Key) -> Result<Option<Stored>, Fault> {
        self.0.get(key)
    }

    fn scan(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        self.0.scan(range, visit)
    }
}

/// A node, as the services see it.
pub trait Backend: Clone + Send + Sync + Unpin + 'static {
    /// Replicates one command.
    fn propose(&self, command: Command) -> impl Future<Output = Result<Reply, Error>> + Send;

    /// Replicates commands that arrived together.
    fn propose_many(
        &self,
        commands: Vec<Command>,
    ) -> impl Future<Output = Result<Replies, Error>> + Send;

    /// Waits until a look at the state satisfies `mode`.
    fn read_barrier(
        &self,
        mode: ReadMode,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Looks at one consistent view, whose revision it returns too. Short: writers wait meanwhile.
    fn view<T>(
        &self,
        look: impl FnOnce(&View<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Error>;

    /// Log time as a command would be stamped with it now. What is stored may lie behind where nothing was written.
    fn log_now(&self) -> LogTime;
    /// Begins to watch.
    fn watch(&self) -> Result<Watcher, Error>;

    /// Who leads. Cheap.
    fn leadership(&self) -> Leadership;

    /// Wakes when leadership changes.
    fn leadership_changes(&self) -> watch::Receiver<Leadership>;

    /// The members as this node knows them.
    fn members(&self) -> Vec<v1::Member>;

    /// This node's own figures.
    fn status(&self) -> v1::NodeStatus;

    /// Every member's figures.
    fn cluster_status(&self) -> impl Future<Output = Vec<v1::NodeStatus>> + Send;

    /// Hands leadership over and waits for the new leader.
    fn transfer_leader(
        &self,
        target: Option<NodeId>,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes a new node a voter.
    fn add_member(
        &self,
        id: NodeId,
        address: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes a node out of the cluster.
    fn remove_member(
        &self,
        id: NodeId,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Builds a snapshot and returns its log index.
    fn snapshot(&self, deadline: Instant) -> impl Future<Output = Result<u64, Error>> + Send;
}

impl Backend for Node {
    fn propose(&self, command: Command) -> impl Future<Output = Result<Reply, Error>> + Send {
        Node::propose(self, command)
    }

    fn propose_many(
        &self,
        commands: Vec<Command>,
    ) -> impl Future<Output = Result<Replies, Error>> + Send {
        Node::propose_many(self, commands)
    }

    fn read_barrier(
        &self,
        mode: ReadMode,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        Node::read_barrier(self, mode, deadline)
    }

    fn view<T>(
        &self,
        look: impl FnOnce(&View<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Error> {
        Node::view(self, |state| look(&View(state)))
    }

    fn log_now(&self) -> LogTime {
        Node::log_now(self)
    }

    fn watch(&self) -> Result<Watcher, Error> {
        Node::watch(self)
    }

    fn leadership(&self) -> Leadership {
        Node::leadership(self)
    }

    fn leadership_changes(&self) -> watch::Receiver<Leadership> {
        Node::leadership_changes(self)
    }

    fn members(&self) -> Vec<v1::Member> {
        Node::members(self)
    }

    fn status(&self) -> v1::NodeStatus {
        Node::status(self)
    }

    fn cluster_status(&self) -> impl Future<Output = Vec<v1::NodeStatus>> + Send {
        Node::cluster_status(self)
    }

    fn transfer_leader(
        &self,
        target: Option<NodeId>,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        Node::transfer_leader(self, target, deadline)
    }

    fn add_member(
        &self,
        id: NodeId,
        address: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        Node::add_member(self, id, address, deadline)
    }

    fn remove_member(
        &self,
        id: NodeId,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        Node::remove_member(self, id, deadline)
    }

    fn snapshot(&self, deadline: Instant) -> impl Future<Output = Result<u64, Error>> + Send {
        Node::snapshot(self, deadline)
    }
}
