//! Who sends a call and whom it is meant for: the one place that builds envelopes and the one that checks them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::proto::internal as pb;
use crate::raft::Member;
use crate::types::{ClusterId, InstanceId, NodeId, ShardId};

/// The domain of every `ErrorInfo`.
const DOMAIN: &str = "trolley";
/// The peer belongs to another cluster.
pub(super) const WRONG_CLUSTER: &str = "WRONG_CLUSTER";
/// The peer is another node, or the same node with another data directory.
pub(super) const WRONG_NODE: &str = "WRONG_NODE";
/// The peer asked for a shard that is not here.
pub(super) const WRONG_SHARD: &str = "WRONG_SHARD";
/// A message that no correct peer sends.
pub(super) const BAD_PEER_MESSAGE: &str = "BAD_PEER_MESSAGE";
/// Two new nodes were started with different initial clusters.
pub(super) const INITIAL_CLUSTER_DIFFERS: &str = "INITIAL_CLUSTER_DIFFERS";

/// Who this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// Its data directory.
    pub instance: InstanceId,
}

impl Local {
    /// The envelope of a call to another node.
    pub(super) fn envelope(&self, target: u64, target_instance: InstanceId) -> pb::Envelope {
        pb::Envelope {
            cluster_id: Bytes::copy_from_slice(self.cluster.as_bytes()),
            source_node_id: self.node.get(),
            source_instance: Bytes::copy_from_slice(self.instance.as_bytes()),
            target_node_id: target,
            target_instance: Bytes::copy_from_slice(target_instance.as_bytes()),
            shard_id: u32::from(ShardId::ZERO.get()),
        }
    }
}

/// Looks a node id up in the membership that this node knows.
type Members = Arc<dyn Fn(u64) -> Option<Member> + Send + Sync>;

/// Checks what comes in. Cloning shares it.
#[derive(Clone)]
pub struct Gate {
    local: Local,
    members: Members,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.local.fmt(f)
    }
}

impl Gate {
    /// `members` answers from the membership as this node knows it, without waiting. A source that it does not
    /// know is let in: a new learner knows nobody, and a leader that it was never told of may speak to it.
    pub fn new(
        local: Local,
        members: impl Fn(u64) -> Option<Member> + Send + Sync + 'static,
    ) -> Self {
        Self {
            local,
            members: Arc::new(members),
        }
    }

    /// The cluster that this node belongs to.
    pub(super) fn cluster(&self) -> ClusterId {
        self.local.cluster
    }

    /// Answers the source's node id, or the refusal to send back. Nothing may be done for a call that it refuses.
    pub fn check(&self, envelope: Option<&pb::Envelope>) -> Result<NodeId, Status> {
        let envelope = envelope.ok_or_else(|| bad_message("the envelope is missing"))?;
        let cluster = ClusterId::parse(&envelope.cluster_id).map_err(bad_message)?;
        let source = NodeId::new(envelope.source_node_id).map_err(bad_message)?;
        let source_instance = InstanceId::parse(&envelope.source_instance).map_err(bad_message)?;
        let target = NodeId::new(envelope.target_node_id).map_err(bad_message)?;
        let target_instance = InstanceId::parse(&envelope.target_instance).map_err(bad_message)?;

        if cluster != self.local.cluster {
            return Err(wrong_cluster(self.local.cluster, cluster));
        }
        if (target, target_instance) != (self.local.node, self.local.instance) {
            let Local { node, instance, .. } = self.local;
            return Err(wrong_node(format!(
                "this is node {node} with data directory {instance}, not node {target} with {target_instance}"
            )));
        }
        self.check_source(source, source_instance)?;
        if envelope.shard_id != u32::from(ShardId::ZERO.get()) {
            return Err(refusal(
                WRONG_SHARD,
                format!("there is no shard {} here", envelope.shard_id),
                [("shard", envelope.shard_id.to_string())],
            ));
        }
        Ok(source)
    }

    fn check_source(&self, source: NodeId, instance: InstanceId) -> Result<(), Status> {
        if source == self.local.node {
            return Err(wrong_node(format!("node {source} is this node itself")));
        }
        match (self.members)(source.get()) {
            Some(member) if member.instance != instance => Err(wrong_node(format!(
                "node {source} is known here with data directory {}, not {instance}",
                member.instance
            ))),
            _ => Ok(()),
        }
    }
}

fn wrong_cluster(local: ClusterId, given: ClusterId) -> Status {
    refusal(
        WRONG_CLUSTER,
        format!("this node belongs to cluster {local}, not {given}"),
        [("cluster", local.to_string())],
    )
}

/// The greeting of a node that was started with another `--initial-cluster`.
pub(super) fn initial_cluster_differs() -> Status {
    let message = "this node was started with another --initial-cluster";
    refusal(INITIAL_CLUSTER_DIFFERS, message.to_owned(), [])
}

fn wrong_node(message: String) -> Status {
    refusal(WRONG_NODE, message, [])
}

fn refusal<const N: usize>(reason: &str, message: String, metadata: [(&str, String); N]) -> Status {
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// A message that no correct peer sends.
pub(super) fn bad_message(what: impl fmt::Display) -> Status {
    let details = ErrorDetails::with_error_info(BAD_PEER_MESSAGE, DOMAIN, HashMap::new());
    Status::with_error_details(
        Code::InvalidArgument,
        format!("malformed message of a peer: {what}"),
        details,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(node: u64) -> Local {
        Local {
            cluster: ClusterId::new([7; 16]),
            node: NodeId::new(node).expect("not 0"),
            instance: InstanceId::new([u8::try_from(node).expect("small"); 16]),
        }
    }

    /// Node 1, which knows node 2 and nobody else.
    fn gate() -> Gate {
        Gate::new(local(1), |id| {
            (id == 2).then(|| Member {
                address: "host-2:7000".to_owned(),
                instance: local(2).instance,
            })
        })
    }

    fn envelope(from: u64) -> pb::Envelope {
        local(from).envelope(1, local(1).instance)
    }

    #[test]
    fn each_wrong_field_has_its_reason() {
        type Change = fn(&mut pb::Envelope);
        let cases: [(&str, &str, Change); 9] = [
            ("cluster", WRONG_CLUSTER, |e| {
                e.cluster_id = vec![9; 16].into();
            }),
            ("short cluster", BAD_PEER_MESSAGE, |e| {
                e.cluster_id = vec![9; 3].into();
            }),
            ("target", WRONG_NODE, |e| e.target_node_id = 3),
            ("no target", BAD_PEER_MESSAGE, |e| e.target_node_id = 0),
            ("target instance", WRONG_NODE, |e| {
                e.target_instance = vec![9; 16].into();
            }),
            ("source instance", WRONG_NODE, |e| {
                e.source_instance = vec![9; 16].into();
            }),
            ("itself", WRONG_NODE, |e| e.source_node_id = 1),
            ("no source", BAD_PEER_MESSAGE, |e| e.source_node_id = 0),
            ("shard", WRONG_SHARD, |e| e.shard_id = 1),
        ];
        for (name, reason, change) in cases {
            let mut wrong = envelope(2);
            change(&mut wrong);
            let status = gate().check(Some(&wrong)).expect_err(name);
            let info = status.get_details_error_info().expect("has details");
            assert_eq!((info.reason.as_str(), name), (reason, name));
            assert_eq!(info.domain, DOMAIN);
            let code = if reason == BAD_PEER_MESSAGE {
                Code::InvalidArgument
            } else {
                Code::FailedPrecondition
            };
            assert_eq!(status.code(), code, "{name}");
        }
        assert!(gate().check(None).is_err());
    }

    #[test]
    fn a_member_and_an_unknown_leader_are_let_in() {
        for source in [2, 3] {
            let checked = gate().check(Some(&envelope(source))).expect("let in");
            assert_eq!(checked.get(), source);
        }
    }
}
