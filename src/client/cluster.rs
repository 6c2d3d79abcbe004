//! The cluster itself. These calls are unary and are not repeated where that could do harm.

use std::time::Duration;

use tokio::time::Instant;

use super::call::{Journey, Kind};
use super::error::{Error, Rejected};
use super::link::Link;
use super::node::Node;
use super::unary::interpret;
use super::{Client, Outcome};
use crate::proto::v1;
use crate::proto::v1::cluster_service_client::ClusterServiceClient;
use crate::types::NodeId;

/// Requests about the cluster.
#[derive(Debug)]
pub struct Cluster<'a> {
    pub(super) client: &'a Client,
}

/// One unary call of the cluster service, to the node that the journey finds, until one answers.
macro_rules! ask {
    ($cluster:expr, $kind:expr, $method:ident, $message:expr) => {
        ask!($cluster, $cluster.deadline(), $kind, $method, $message)
    };
    ($cluster:expr, $deadline:expr, $kind:expr, $method:ident, $message:expr) => {{
        let shared = $cluster.client.core.shared();
        shared.directory.call();
        let mut journey = Journey::new(shared, $kind, $deadline);
        loop {
            let node = journey.next_node().await?;
            // Another node may do as well, but not at once: each of them asks the others.
            let patience = if $kind.is_read() {
                node.longest_attempt(true).min(journey.remaining())
            } else {
                journey.remaining()
            };
            let answer = {
                let mut client = connect(&node);
                let request = bounded($message, patience);
                let call = client.$method(request);
                tokio::time::timeout(patience, call).await
            };
            match answer {
                Ok(Ok(response)) => {
                    let answer = response.into_inner();
                    let revision = answer.header.as_ref().map(|header| header.revision);
                    shared.directory.raise_revision(revision.unwrap_or(0));
                    break Ok(answer);
                }
                Ok(Err(status)) => journey.refused(interpret(status))?,
                Err(_) => journey.unanswered()?,
            }
        }
    }};
}

impl Cluster<'_> {
    /// Of a call that begins now.
    fn deadline(&self) -> Instant {
        Instant::now() + self.client.defaults.timeout
    }

    /// What every member says of itself. One that does not answer has `error` set.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        ask!(self, Kind::AnyRead, status, v1::StatusRequest {})
    }

    /// The members.
    pub async fn members(&self) -> Result<v1::MembersResponse, Error> {
        self.members_by(self.deadline()).await
    }

    async fn members_by(&self, deadline: Instant) -> Result<v1::MembersResponse, Error> {
        let message = v1::MembersRequest {};
        ask!(self, deadline, Kind::AnyRead, members, message)
    }

    /// Moves leadership to a voter; `None`: the follower whose log is most complete.
    pub async fn transfer_leader(
        &self,
        target: Option<NodeId>,
    ) -> Result<v1::TransferLeaderResponse, Error> {
        let message = v1::TransferLeaderRequest {
            target_node_id: target.map_or(0, NodeId::get),
        };
        ask!(self, Kind::LeaderTask, transfer_leader, message)
    }

    /// Makes a new node, which was started with `--join` and listens at `address`, a voter. Until it has nearly all of the log
    /// it is a learner, and this says `MEMBER_BEHIND`: call it again.
    pub async fn add_member(
        &self,
        id: NodeId,
        address: &str,
    ) -> Result<v1::AddMemberResponse, Error> {
        let message = v1::AddMemberRequest {
            node_id: id.get(),
            address: address.to_owned(),
        };
        ask!(self, Kind::LeaderTask, add_member, message.clone())
    }

    /// Takes a node out of the cluster; its process ends by itself. One that was removed before is no error.
    pub async fn remove_member(&self, id: NodeId) -> Result<v1::RemoveMemberResponse, Error> {
        let message = v1::RemoveMemberRequest { node_id: id.get() };
        ask!(self, Kind::LeaderTask, remove_member, message)
    }

    /// Makes a node build a snapshot and purge its log; `None`: any node.
    pub async fn snapshot(&self, node: Option<NodeId>) -> Result<v1::SnapshotResponse, Error> {
        let Some(id) = node else {
            return ask!(self, Kind::AnyTask, snapshot, v1::SnapshotRequest {});
        };
        let deadline = self.deadline();
        let members = self.members_by(deadline).await?.members;
        let Some(member) = members.iter().find(|member| member.node_id == id.get()) else {
            return Err(Error::Rejected(Box::new(Rejected {
                code: tonic::Code::InvalidArgument,
                reason: "UNKNOWN_MEMBER".to_owned(),
                message: format!("node {id} is not a member"),
                metadata: std::collections::BTreeMap::new(),
            })));
        };
        let shared = self.client.core.shared();
        let Some(node) = shared.directory.node_at(id.get(), &member.address) else {
            return Err(Error::Unavailable {
                outcome: Outcome::NotApplied,
                problem: format!("{} is not reached from here", member.address),
            });
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let mut client = connect(&node);
        let request = bounded(v1::SnapshotRequest {}, left);
        let answer = tokio::time::timeout(left, client.snapshot(request)).await;
        let answer = answer.map_err(|_| Error::Deadline {
            outcome: Outcome::Unknown,
            problem: format!("{}: no answer yet", node.address()),
        })?;
        Ok(answer.map_err(interpret)?.into_inner())
    }
}

fn connect(node: &Node) -> ClusterServiceClient<Link> {
    ClusterServiceClient::new(node.link())
}

fn bounded<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}
