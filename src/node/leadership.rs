//! Who leads, as this node knows it: a small copy that every request can look at without touching openraft.
//!
//! openraft publishes its metrics through a lock that its core takes too, so a borrow held by a request would
//! stop the core. One task copies what requests need into a channel of our own.

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::storage::RaftStateMachine;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{LeaderHint, Raft};
use crate::proto::v1;
use crate::raft::TypeConfig;
use crate::types::{ClusterId, NodeId};

/// Who leads, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This node's term.
    pub term: u64,
    /// The leader, this node included.
    pub leader: Option<LeaderHint>,
    /// What this node is.
    pub role: v1::Role,
}

impl Leadership {
    /// This node leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == v1::Role::Leader
    }

    pub(super) fn read<M: RaftStateMachine<TypeConfig>>(
        raft: &Raft<M>,
        cluster: ClusterId,
        node: NodeId,
    ) -> Self {
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.and_then(|id| {
            let member = metrics.membership_config.membership().get_node(&id)?;
            Some(LeaderHint {
                node: NodeId::new(id).ok()?,
                address: member.address.clone(),
            })
        });
        Self {
            cluster,
            node,
            term: metrics.vote.leader_id().term,
            leader,
            role: role(metrics.state),
        }
    }
}

fn role(state: ServerState) -> v1::Role {
    match state {
        ServerState::Leader => v1::Role::Leader,
        ServerState::Follower => v1::Role::Follower,
        ServerState::Candidate => v1::Role::Candidate,
        ServerState::Learner => v1::Role::Learner,
        ServerState::Shutdown => v1::Role::Unspecified,
    }
}

/// Copies every change until told to stop or openraft ends.
pub(super) async fn follow<M: RaftStateMachine<TypeConfig>>(
    raft: Raft<M>,
    published: watch::Sender<Leadership>,
    stop: CancellationToken,
) {
    let (cluster, node) = {
        let now = published.borrow();
        (now.cluster, now.node)
    };
    let mut metrics = raft.server_metrics();
    loop {
        let now = Leadership::read(&raft, cluster, node);
        published.send_if_modified(|old| {
            let changed = *old != now;
            if changed {
                tracing::info!(role = ?now.role, term = now.term, leader = ?now.leader.as_ref().map(|l| l.node.get()), "leadership");
                *old = now;
            }
            changed
        });
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}
