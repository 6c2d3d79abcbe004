//! What a node stands on that leads alone: a state in which nothing happens, and nobody to ask.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::cluster::{Node, local};
use super::store::MemoryMachine;
use crate::network::{ElectionTimers, Error as NetworkError};
use crate::node::{self, Base, LeaderHint, Parts, Unconfirmed};
use crate::proto::internal as pb;
use crate::raft::Vote;
use crate::state::{Fault, MemoryStore};
use crate::storage::machine::AppliedAt;
use crate::types::{InstanceId, LogTime, Revision, Room, StateVersion};

/// See the module.
#[derive(Default)]
pub(super) struct Alone(MemoryStore);

/// The node over the Raft of `cluster`'s.
pub(super) fn alone(cluster: &Node) -> node::Node<Alone> {
    let hour = Duration::from_secs(3600);
    node::Node::start(Parts {
        raft: cluster.raft.clone(),
        base: Alone::default(),
        applied: watch::Sender::new(AppliedAt::default()).subscribe(),
        log_clock: Arc::clone(&cluster.clock),
        contact: cluster.contact.clone(),
        cluster: local(cluster.id).cluster,
        id: local(cluster.id).node,
        timers: ElectionTimers {
            lease: hour,
            silence: hour,
        },
    })
}

impl Base for Alone {
    type Machine = MemoryMachine;
    type View<'a> = MemoryStore;

    fn view<T>(
        &self,
        look: impl FnOnce(&MemoryStore) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Fault> {
        Ok((Revision::default(), look(&self.0)?))
    }

    fn header(&self) -> pb::StateHeader {
        pb::StateHeader::default()
    }

    fn next_deadline(&self) -> Option<LogTime> {
        None
    }

    fn highest_node_id(&self) -> u64 {
        1
    }

    fn instance(&self) -> InstanceId {
        local(1).instance
    }

    fn newest_state_version(&self) -> StateVersion {
        StateVersion::FIRST
    }

    fn room_of(&self, _: u64, _: u64) -> Option<Room> {
        None
    }

    async fn greet(
        &self,
        _: &str,
        _: pb::HelloRequest,
        patience: Duration,
    ) -> Result<pb::HelloResponse, NetworkError> {
        Err(NetworkError::Timeout(patience))
    }

    async fn ask_read_index(&self, _: &LeaderHint) -> Result<u64, Unconfirmed> {
        Err(Unconfirmed::NoLeader)
    }

    async fn ask_vote(&self, _: u64) -> Option<Vote> {
        None
    }

    async fn is_gone(&self, _: u64) -> bool {
        false
    }

    async fn broken(&self) -> String {
        pending().await
    }

    async fn close(&self) {}
}
