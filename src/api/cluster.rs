//! The cluster service: figures, members, leadership, snapshots.

use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

use super::forward::{self, Method};
use super::{Api, Backend, Error, deadline, encode};
use crate::node::{self, Outcome};
use crate::proto::v1::cluster_service_server::ClusterService;
use crate::proto::v1::{
    MembersRequest, MembersResponse, ResponseHeader, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
};
use crate::types::{NodeId, Revision};

impl Method for TransferLeaderRequest {
    type Response = TransferLeaderResponse;
    const PATH: &'static str = "/trolley.v1.ClusterService/TransferLeader";
}

impl<B: Backend> Api<B> {
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
        let deadline = deadline::of(request.metadata());
        let may_forward = forward::is_allowed(request.metadata());
        let message = request.into_inner();
        // 0 is no node's id: the leader chooses.
        let target = NodeId::new(message.target_node_id).ok();
        match self.node.transfer_leader(target, deadline).await {
            Ok(()) => Ok(Response::new(TransferLeaderResponse {
                header: Some(self.own_header()),
            })),
            Err(node::Error::NotLeader(leader)) if may_forward => {
                let forwarded = self.leaders.forward(&leader, message, deadline).await;
                forwarded.map(Response::new)
            }
            Err(error) => Err(Error::Node(error).into()),
        }
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
