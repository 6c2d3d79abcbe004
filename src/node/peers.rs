//! What this node asks its peers beside Raft: a read index, and their status.

use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;

use super::membership::is_committed;
use super::rounds::{PATIENCE, Unconfirmed};
use super::{Base, LeaderHint, Leadership, Node, Raft};
use crate::network::{
    self, Dialer, Error as NetworkError, Greeter, InitialClusterDiffers, PeerHandler, Pool,
};
use crate::proto::internal as pb;
use crate::raft::{LogId, Member, Vote};
use crate::storage::snapshot::SnapshotDir;
use prost::Message as _;

/// How long another node's figures are waited for: less than callers wait for those of all.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// The members of this node's cluster, and the way to them.
#[derive(Clone)]
pub(super) struct Peers {
    raft: Raft,
    dialer: Dialer<SnapshotDir>,
    pool: Pool,
}

impl Peers {
    pub(super) fn new(raft: Raft, dialer: Dialer<SnapshotDir>, pool: Pool) -> Self {
        Self { raft, dialer, pool }
    }

    /// Asks whoever listens at `address` who it is.
    pub(super) async fn greet(
        &self,
        greeting: pb::HelloRequest,
        address: &str,
        patience: Duration,
    ) -> Result<pb::HelloResponse, NetworkError> {
        self.pool.hello(address, greeting, patience).await
    }

    fn member(&self, id: u64) -> Option<Member> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .membership()
            .get_node(&id)
            .cloned()
    }

    /// The log index that a linearizable read on this node must wait for.
    pub(super) async fn read_index(&self, leader: &LeaderHint) -> Result<u64, Unconfirmed> {
        let id = leader.node.get();
        let member = self.member(id).ok_or(Unconfirmed::NoLeader)?;
        let log_id = self
            .dialer
            .read_index(id, &member, PATIENCE)
            .await
            .map_err(|error| match error {
                NetworkError::Timeout(_) => Unconfirmed::Late,
                error => {
                    tracing::debug!(%error, leader = id, "the leader gave no read index");
                    Unconfirmed::NoLeader
                }
            })?;
        Ok(log_id.map_or(0, |log_id| log_id.index))
    }

    /// The vote that another node holds, if it says so before the deadline.
    pub(super) async fn held_vote(&self, id: u64, patience: Duration) -> Option<Vote> {
        let member = self.member(id)?;
        match self.dialer.held_vote(id, &member, patience).await {
            Ok(vote) => vote,
            Err(error) => {
                tracing::debug!(%error, node = id, "it does not say for whom it votes");
                None
            }
        }
    }

    /// Whether nobody listens at another node's address.
    pub(super) async fn is_gone(&self, id: u64) -> bool {
        match self.member(id) {
            Some(member) => network::refuses_connections(&member.address).await,
            None => false,
        }
    }

    /// Another node's figures.
    pub(super) async fn node_status(&self, id: u64) -> Result<Bytes, NetworkError> {
        let member = self
            .member(id)
            .ok_or_else(|| NetworkError::Failed(format!("node {id} is not a member")))?;
        self.dialer.node_status(id, &member, STATUS_PATIENCE).await
    }
}

impl Greeter for Node {
    fn hello(&self, _: &pb::HelloRequest) -> Result<pb::HelloResponse, InitialClusterDiffers> {
        Ok(self.introduction())
    }
}

impl PeerHandler for Node {
    async fn read_index(&self) -> Result<LogId, String> {
        Node::read_index(self)
            .await
            .map_err(|error| error.to_string())
    }

    fn held_vote(&self) -> Option<Vote> {
        self.shared.base.log.vote()
    }

    fn status(&self) -> Bytes {
        Node::status(self).encode_to_vec().into()
    }
}

impl<B: Base> Node<B> {
    /// How this node greets another, which may belong to no cluster yet: it asks for no initial cluster.
    pub(super) fn greeting(&self) -> pb::HelloRequest {
        pb::HelloRequest {
            node_id: self.leadership().node.get(),
            instance: Bytes::copy_from_slice(self.shared.base.instance().as_bytes()),
            initial_cluster: Vec::new(),
        }
    }

    /// How this node answers a greeting. It names its cluster only once it knows the members: whoever reads the
    /// answer takes both or neither.
    #[must_use]
    pub fn introduction(&self) -> pb::HelloResponse {
        let Leadership { cluster, node, .. } = self.leadership();
        let shared = &self.shared;
        let metrics = shared.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let known = &metrics.membership_config;
        let members_at = known.log_id().filter(|_| is_committed(&metrics));
        let members: Vec<pb::Member> = known
            .membership()
            .nodes()
            .map(|(id, member)| pb::Member {
                node_id: *id,
                address: member.address.clone(),
                instance: Bytes::copy_from_slice(member.instance.as_bytes()),
            })
            .collect();
        let cluster_id = if members.is_empty() {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(cluster.as_bytes())
        };
        pb::HelloResponse {
            node_id: node.get(),
            instance: Bytes::copy_from_slice(shared.base.instance().as_bytes()),
            cluster_id,
            members,
            members_at: members_at.map(Into::into),
            newest_state_version: shared.base.newest_state_version().get(),
        }
    }
}
