//! How a cluster is born, and how a node finds out whether it belongs to one.
//!
//! Every data directory has an instance id, drawn when it is created. The membership that Raft replicates holds
//! each member's instance, and every peer RPC carries the instances of both ends. So a node whose directory
//! was wiped is a stranger under a known number: no peer takes its votes or its acknowledgements, which could
//! otherwise lose committed entries without anyone noticing.
//!
//! Birth, with `--initial-cluster` of n nodes:
//! 1. A new node tells every other its node id, instance and initial cluster (`Hello`) until it knows more.
//! 2. The node with the smallest id, the founder, waits until all n have said that they are new, draws the
//!    cluster id, stamps its own directory with it, and initialises Raft with all n members and instances.
//! 3. The others learn from any member's answer that they are in, stamp their directories, and serve.
//!
//! Crashes: before the founder's stamp nothing happened. Between stamp and initialisation the founder
//! repeats step 2 under the same cluster id. A joiner that crashes before its stamp is still listed under its
//! instance and repeats step 3. All n are needed once, for the birth; from then on a majority is enough.
//!
//! With `--join`, a node is added to a cluster that was born long ago, see [`super::membership`]: it greets members as in
//! step 1, the leader is told to add it and asks it for its instance, and from the membership on that lists it it goes on
//! with step 3.
//!
//! A new node that is listed under *another* instance refuses to start: its directory was lost or replaced. A node that
//! was stamped before goes on asking for a while beside its work, see [`super::recognition`].

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use crate::network::{Error as PeerError, Pool};
use crate::proto::internal as pb;
use crate::raft::Member;
use crate::types::{ClusterId, InstanceId, Invalid, NodeId};

/// Between two rounds of greetings.
const ROUND: Duration = Duration::from_millis(100);
/// How long a greeted node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a node cannot belong to its cluster.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The members list this node id with another data directory.
    #[error(
        "node id {node} belongs to another data directory (instance {listed}; this one is {own}): if that directory \
         is lost, add this node under an id that was never used"
    )]
    ForeignInstance {
        /// This node's id.
        node: NodeId,
        /// The instance that the members list.
        listed: InstanceId,
        /// This directory's.
        own: InstanceId,
    },
    /// The members do not list this node.
    #[error(
        "cluster {cluster} has no member {node}: it was removed, or was never added; a new node, with an empty directory and an id that \
         was never used, is started with --join and added by `trolley cluster add-member`"
    )]
    NotAMember {
        /// The cluster that answered.
        cluster: ClusterId,
        /// This node's id.
        node: NodeId,
    },
    /// Most of the configured nodes belong to another cluster than the data directory.
    #[error(
        "the data directory belongs to cluster {own}, but most nodes of --initial-cluster belong to cluster {theirs}: \
         use this node's own directory, or name the nodes of the directory's cluster"
    )]
    ForeignCluster {
        /// The data directory's.
        own: ClusterId,
        /// The one that answered.
        theirs: ClusterId,
    },
    /// Another new node was started with another `--initial-cluster`.
    #[error("{peer} was started with another --initial-cluster; start all nodes with the same one")]
    InitialClusterDiffers {
        /// The peer's address.
        peer: String,
    },
    /// Another process answers under this address.
    #[error("{address} answered as node {actual}, --initial-cluster says {expected}")]
    WrongNode {
        /// The address that was dialled.
        address: String,
        /// Who should be there.
        expected: NodeId,
        /// Who answered.
        actual: u64,
    },
    /// A peer's answer does not parse.
    #[error("{peer} sent a malformed answer: {detail}")]
    Malformed {
        /// The peer's address.
        peer: String,
        /// What is wrong.
        detail: String,
    },
}

/// What a new node knows of itself.
#[derive(Debug, Clone)]
pub struct Newborn {
    /// Its number.
    pub node: NodeId,
    /// Its data directory.
    pub instance: InstanceId,
    /// Every node's address, this one's included.
    pub initial_cluster: BTreeMap<NodeId, String>,
    /// It waits to be added to a cluster that exists, and founds none.
    pub joins: bool,
}

/// How the question was settled.
#[derive(Debug)]
pub enum Settled {
    /// This node found the cluster: it must initialise Raft with these members.
    Found(BTreeMap<u64, Member>),
    /// This node is a member of a cluster that exists.
    Join(ClusterId),
}

impl Newborn {
    /// The node with the smallest id founds the cluster.
    #[must_use]
    pub fn is_founder(&self) -> bool {
        !self.joins && self.initial_cluster.keys().next() == Some(&self.node)
    }

    /// The greeting, and the part of it that all new nodes must agree on.
    #[must_use]
    pub fn hello(&self) -> pb::HelloRequest {
        let initial_cluster = self
            .initial_cluster
            .iter()
            .map(|(node, address)| pb::Member {
                node_id: node.get(),
                address: address.clone(),
                instance: bytes::Bytes::new(),
            });
        pb::HelloRequest {
            node_id: self.node.get(),
            instance: bytes::Bytes::copy_from_slice(self.instance.as_bytes()),
            initial_cluster: initial_cluster.collect(),
        }
    }

    /// Greets until it is settled what this node belongs to.
    pub async fn settle(&self, pool: &Pool) -> Result<Settled, BootstrapError> {
        let mut waiting = None;
        loop {
            let answers = self.greet_all(pool).await?;
            if let Some(cluster) = self.find_cluster(&answers)? {
                return Ok(Settled::Join(cluster));
            }
            if self.is_founder() && answers.len() + 1 == self.initial_cluster.len() {
                return Ok(Settled::Found(self.members(&answers)?));
            }
            if waiting != Some(answers.len()) {
                waiting = Some(answers.len());
                let what = if self.joins {
                    "waiting for a leader that was told to add this node"
                } else {
                    "waiting for the initial cluster to come up"
                };
                let (heard, of) = (answers.len() + 1, self.initial_cluster.len());
                tracing::info!(heard, of, "{what}");
            }
            sleep(ROUND).await;
        }
    }

    async fn greet_all(
        &self,
        pool: &Pool,
    ) -> Result<BTreeMap<NodeId, pb::HelloResponse>, BootstrapError> {
        let answers: Result<Vec<_>, _> = self.greet_each(pool).await.into_iter().collect();
        Ok(answers?.into_iter().flatten().collect())
    }

    /// Greets every other node once: who answered what, nothing from those that are not up, or what is wrong there.
    pub(super) async fn greet_each(
        &self,
        pool: &Pool,
    ) -> Vec<Result<Option<(NodeId, pb::HelloResponse)>, BootstrapError>> {
        let others = self
            .initial_cluster
            .iter()
            .filter(|(node, _)| **node != self.node);
        let greetings = others.map(|(node, address)| async move {
            let answer = match pool.hello(address, self.hello(), PATIENCE).await {
                Ok(answer) => answer,
                Err(error) if PeerError::is_initial_cluster_differs(&error) => {
                    return Err(BootstrapError::InitialClusterDiffers {
                        peer: address.clone(),
                    });
                }
                // Not up yet, or not reachable yet: the next round asks again.
                Err(error) => {
                    tracing::debug!(%address, %error, "no answer to a greeting");
                    return Ok(None);
                }
            };
            if answer.node_id != node.get() {
                return Err(BootstrapError::WrongNode {
                    address: address.clone(),
                    expected: *node,
                    actual: answer.node_id,
                });
            }
            Ok(Some((*node, answer)))
        });
        join_all(greetings).await
    }

    /// The cluster that any answer tells of; an error if this node has no place in it.
    fn find_cluster(
        &self,
        answers: &BTreeMap<NodeId, pb::HelloResponse>,
    ) -> Result<Option<ClusterId>, BootstrapError> {
        for (node, answer) in answers {
            let cluster = self.cluster_of(*node, answer)?;
            let Some(cluster) = cluster else { continue };
            match self.find_place(*node, cluster, answer) {
                Ok(()) => return Ok(Some(cluster)),
                // Not yet, or the answer is of one that has not heard of it.
                Err(BootstrapError::NotAMember { .. }) if self.joins => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The cluster of a node that was greeted, if it has one yet.
    pub(super) fn cluster_of(
        &self,
        node: NodeId,
        answer: &pb::HelloResponse,
    ) -> Result<Option<ClusterId>, BootstrapError> {
        if answer.cluster_id.is_empty() {
            return Ok(None);
        }
        let cluster = ClusterId::parse(&answer.cluster_id);
        cluster.map(Some).map_err(|e| self.malformed(node, &e))
    }

    /// Checks that the members of a greeted node's cluster list this node and its directory.
    pub(super) fn find_place(
        &self,
        node: NodeId,
        cluster: ClusterId,
        answer: &pb::HelloResponse,
    ) -> Result<(), BootstrapError> {
        let Some(listed) = answer.members.iter().find(|m| m.node_id == self.node.get()) else {
            return Err(BootstrapError::NotAMember {
                cluster,
                node: self.node,
            });
        };
        let listed = InstanceId::parse(&listed.instance).map_err(|e| self.malformed(node, &e))?;
        if listed == self.instance {
            return Ok(());
        }
        Err(BootstrapError::ForeignInstance {
            node: self.node,
            listed,
            own: self.instance,
        })
    }

    fn malformed(&self, node: NodeId, error: &Invalid) -> BootstrapError {
        BootstrapError::Malformed {
            peer: self.initial_cluster.get(&node).cloned().unwrap_or_default(),
            detail: error.to_string(),
        }
    }

    fn members(
        &self,
        answers: &BTreeMap<NodeId, pb::HelloResponse>,
    ) -> Result<BTreeMap<u64, Member>, BootstrapError> {
        let mut members = BTreeMap::new();
        for (node, address) in &self.initial_cluster {
            let instance = match answers.get(node) {
                Some(answer) => {
                    InstanceId::parse(&answer.instance).map_err(|e| self.malformed(*node, &e))?
                }
                None => self.instance,
            };
            members.insert(
                node.get(),
                Member {
                    address: address.clone(),
                    instance,
                },
            );
        }
        Ok(members)
    }
}
