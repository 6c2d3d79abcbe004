//! What nodes ask each other beside Raft: who are you, what is the read index, how are you.
//!
//! The answers are the node's; this is only their transport. A node that does not belong to a cluster yet answers
//! nothing but greetings.

use std::future::Future;

use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::Gate;
use super::envelope::initial_cluster_differs;
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::peer_service_server::{PeerService, PeerServiceServer};
use crate::raft::{LogId, Vote};

/// Two new nodes were started with different initial clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitialClusterDiffers;

/// Whoever can greet: a node, or one that waits to be born.
pub trait Greeter: Send + Sync + 'static {
    /// Answers another node's greeting.
    fn hello(&self, request: &pb::HelloRequest)
    -> Result<pb::HelloResponse, InitialClusterDiffers>;
}

/// A member of a cluster, as its peers question it.
pub trait PeerHandler: Greeter {
    /// The log id that a linearizable read on another node must wait for. Leaders only; otherwise why not.
    fn read_index(&self) -> impl Future<Output = Result<LogId, String>> + Send;

    /// The vote that this node holds.
    fn held_vote(&self) -> Option<Vote>;

    /// This node's figures, an encoded `trolley.v1.NodeStatus`.
    fn status(&self) -> Bytes;
}

/// The peer service of a node that is born: greetings and no more.
#[derive(Debug)]
pub struct GreetingEndpoint<G>(G);

impl<G: Greeter> GreetingEndpoint<G> {
    /// Answers greetings as `greeter` does.
    pub fn new(greeter: G) -> Self {
        Self(greeter)
    }

    /// The gRPC service.
    pub fn service(self) -> PeerServiceServer<Self> {
        limited(self)
    }
}

/// The peer service of a member.
#[derive(Debug)]
pub struct PeerEndpoint<H> {
    handler: H,
    gate: Gate,
}

impl<H: PeerHandler> PeerEndpoint<H> {
    /// Answers, as `handler` does, whom `gate` lets in.
    pub fn new(handler: H, gate: Gate) -> Self {
        Self { handler, gate }
    }

    /// The gRPC service.
    pub fn service(self) -> PeerServiceServer<Self> {
        limited(self)
    }
}

fn limited<T: PeerService>(service: T) -> PeerServiceServer<T> {
    PeerServiceServer::new(service)
        .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
        .max_encoding_message_size(limits::PEER_MESSAGE_BYTES)
}

fn greet(
    greeter: &impl Greeter,
    request: &Request<pb::HelloRequest>,
) -> Result<Response<pb::HelloResponse>, Status> {
    match greeter.hello(request.get_ref()) {
        Ok(answer) => Ok(Response::new(answer)),
        Err(InitialClusterDiffers) => Err(initial_cluster_differs()),
    }
}

#[tonic::async_trait]
impl<G: Greeter> PeerService for GreetingEndpoint<G> {
    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        greet(&self.0, &request)
    }

    async fn read_index(
        &self,
        _: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        Err(unborn())
    }

    async fn held_vote(
        &self,
        _: Request<pb::HeldVoteRequest>,
    ) -> Result<Response<pb::HeldVoteResponse>, Status> {
        Err(unborn())
    }

    async fn node_status(
        &self,
        _: Request<pb::NodeStatusRequest>,
    ) -> Result<Response<pb::NodeStatusResponse>, Status> {
        Err(unborn())
    }
}

fn unborn() -> Status {
    Status::unavailable("this node does not belong to a cluster yet")
}

#[tonic::async_trait]
impl<H: PeerHandler> PeerService for PeerEndpoint<H> {
    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        greet(&self.handler, &request)
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.gate.check(request.get_ref().envelope.as_ref())?;
        let log_id = self
            .handler
            .read_index()
            .await
            .map_err(Status::unavailable)?;
        Ok(Response::new(pb::ReadIndexResponse {
            read_log_id: Some(log_id.into()),
        }))
    }

    async fn held_vote(
        &self,
        request: Request<pb::HeldVoteRequest>,
    ) -> Result<Response<pb::HeldVoteResponse>, Status> {
        self.gate.check(request.get_ref().envelope.as_ref())?;
        Ok(Response::new(pb::HeldVoteResponse {
            vote: self.handler.held_vote().map(Into::into),
        }))
    }

    async fn node_status(
        &self,
        request: Request<pb::NodeStatusRequest>,
    ) -> Result<Response<pb::NodeStatusResponse>, Status> {
        self.gate.check(request.get_ref().envelope.as_ref())?;
        Ok(Response::new(pb::NodeStatusResponse {
            status: self.handler.status(),
        }))
    }
}
