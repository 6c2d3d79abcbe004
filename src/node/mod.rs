//! One shard's life without transport: open, ready, drain; propose, read, status.
#![allow(missing_docs, unused)]
mod error;
use crate::proto::v1;
use crate::state::*;
use crate::types::*;
pub use error::{Error, LeaderHint, Outcome};
use futures::stream::BoxStream;
use tokio::time::Instant;
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadMode {
    Linearizable,
    AtLeast(Revision),
    Stale,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub term: u64,
    pub leader: Option<LeaderHint>,
    pub role: v1::Role,
}
impl Leadership {
    pub fn is_leader(&self) -> bool {
        self.role == v1::Role::Leader
    }
}
#[derive(Clone)]
pub struct Node;
pub struct StateView<'a>(&'a MemoryStore);
impl Store for StateView<'_> {
    fn header(&self) -> crate::proto::internal::StateHeader {
        self.0.header()
    }
    fn get(&self, key: &crate::state::Key) -> Result<Option<Stored>, Fault> {
        self.0.get(key)
    }
    fn scan(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<std::ops::ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        self.0.scan(range, visit)
    }
}
impl Node {
    pub async fn propose(&self, command: Command) -> Result<crate::raft::Reply, Error> {
        unreachable!()
    }
    pub async fn propose_many(
        &self,
        commands: Vec<Command>,
    ) -> Result<BoxStream<'static, Result<crate::raft::Reply, Error>>, Error> {
        unreachable!()
    }
    pub async fn read_barrier(&self, mode: ReadMode, deadline: Instant) -> Result<(), Error> {
        unreachable!()
    }
    pub fn view<T>(
        &self,
        look: impl FnOnce(&StateView<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Error> {
        unreachable!()
    }
    pub fn leadership(&self) -> Leadership {
        unreachable!()
    }
    pub fn leadership_changes(&self) -> tokio::sync::watch::Receiver<Leadership> {
        unreachable!()
    }
    pub fn members(&self) -> Vec<v1::Member> {
        unreachable!()
    }
    pub async fn cluster_status(&self) -> Vec<v1::NodeStatus> {
        unreachable!()
    }
    pub fn status(&self) -> v1::NodeStatus {
        unreachable!()
    }
    pub async fn transfer_leader(
        &self,
        target: Option<NodeId>,
        deadline: Instant,
    ) -> Result<(), Error> {
        unreachable!()
    }
    pub async fn snapshot(&self, deadline: Instant) -> Result<u64, Error> {
        unreachable!()
    }
    pub fn start_drain(&self) {}
    pub async fn stopped(&self) -> String {
        String::new()
    }
    pub async fn close(&self) {}
}
