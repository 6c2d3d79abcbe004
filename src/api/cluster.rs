//! The cluster service: figures, members, leadership, snapshots.

use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::forward::{self, Method};
use super::{Api, Backend, Error, deadline, encode};
use crate::node::{self, Outcome};
use crate::proto::v1::cluster_service_server::ClusterService;
use crate::proto::v1::{
    AddMemberRequest, AddMemberResponse, MembersRequest, MembersResponse, RemoveMemberRequest,
    RemoveMemberResponse, ResponseHeader, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
};
use crate::types::{Invalid, NodeId, Revision, is_dialable};

const NOT_DIALABLE: Invalid = Invalid::Malformed {
    field: "address",
    expected: "HOST:PORT that other machines can dial",
};

impl Method for TransferLeaderRequest {
    type Response = TransferLeaderResponse;
    const PATH: &'static str = "/trolley.v1.ClusterService/TransferLeader";
}

impl Method for AddMemberRequest {
    type Response = AddMemberResponse;
    const PATH: &'static str = "/trolley.v1.ClusterService/AddMember";
}

impl Method for RemoveMemberRequest {
    type Response = RemoveMemberResponse;
    const PATH: &'static str = "/trolley.v1.ClusterService/RemoveMember";
}

/// A task that is the leader's.
struct Task<M> {
    message: M,
    deadline: Instant,
    may_forward: bool,
}

impl<M: Method> Task<M> {
    fn new(request: Request<M>) -> Self {
        Self {
            deadline: deadline::of(request.metadata()),
            may_forward: forward::is_allowed(request.metadata()),
            message: request.into_inner(),
        }
    }
}

impl<B: Backend> Api<B> {
    /// Answers for the task that was tried here, or has the leader do it.
    async fn settle<M: Method>(
        &self,
        task: Task<M>,
        tried: Result<(), node::Error>,
        answer: impl FnOnce() -> M::Response,
    ) -> Result<Response<M::Response>, Status> {
        match tried {
            Ok(()) => Ok(Response::new(answer())),
            Err(node::Error::NotLeader(leader)) if task.may_forward => {
                let forwarded = self.leaders.forward(&leader, task.message, task.deadline);
                forwarded.await.map(Response::new)
            }
            Err(error) => Err(Error::Node(error).into()),
        }
    }

    fn own_header(&self) -> ResponseHeader {
        let revision = Revision::new(self.node.status().revision);
        encode::header(&self.node.leadership(), revision, false)
    }
}

#[tonic::async_trait]
impl<B: Backend> ClusterService for Api<B> {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let _under_way = self.under_way.token();
        let deadline = deadline::of(request.metadata());
        let nodes = timeout_at(deadline, self.node.cluster_status()).await;
        let nodes = nodes.map_err(|_| {
            Error::Node(node::Error::Deadline {
                outcome: Outcome::NotApplied,
            })
        })?;
        Ok(Response::new(StatusResponse {
            header: Some(self.own_header()),
            nodes,
        }))
    }

    async fn members(
        &self,
        _: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        Ok(Response::new(MembersResponse {
            header: Some(self.own_header()),
            members: self.node.members(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let _under_way = self.under_way.token();
        let task = Task::new(request);
        // 0 is no node's id: the leader chooses.
        let target = NodeId::new(task.message.target_node_id).ok();
        let tried = self.node.transfer_leader(target, task.deadline).await;
        let answer = || TransferLeaderResponse {
            header: Some(self.own_header()),
        };
        self.settle(task, tried, answer).await
    }

    async fn add_member(
        &self,
        request: Request<AddMemberRequest>,
    ) -> Result<Response<AddMemberResponse>, Status> {
        let _under_way = self.under_way.token();
        let task = Task::new(request);
        let id = NodeId::new(task.message.node_id).map_err(Error::Invalid)?;
        let address = &task.message.address;
        if !is_dialable(address) {
            return Err(Error::Invalid(NOT_DIALABLE).into());
        }
        let tried = self.node.add_member(id, address, task.deadline).await;
        let answer = || AddMemberResponse {
            header: Some(self.own_header()),
            members: self.node.members(),
        };
        self.settle(task, tried, answer).await
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        let _under_way = self.under_way.token();
        let task = Task::new(request);
        let id = NodeId::new(task.message.node_id).map_err(Error::Invalid)?;
        let tried = self.node.remove_member(id, task.deadline).await;
        let answer = || RemoveMemberResponse {
            header: Some(self.own_header()),
            members: self.node.members(),
        };
        self.settle(task, tried, answer).await
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let _under_way = self.under_way.token();
        let deadline = deadline::of(request.metadata());
        let snapshot_index = self.node.snapshot(deadline).await.map_err(Error::Node)?;
        Ok(Response::new(SnapshotResponse {
            header: Some(self.own_header()),
            snapshot_index,
        }))
    }
}
