//! `/v1/cluster`: the nodes as they are now, and what went through the gateway that answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::call::Call;
use super::documented::ReadProblems;
use crate::gateway::App;
use crate::gateway::auth::Scope;
use crate::gateway::problem::Problem;
use crate::gateway::traffic::TrafficSeen;
use crate::proto::v1;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(get))
}

/// The cluster, and the gateway that was asked.
#[derive(Debug, Serialize, ToSchema)]
struct Cluster {
    nodes: Vec<Node>,
    front: Front,
}

/// A gateway.
#[derive(Debug, Serialize, ToSchema)]
struct Front {
    name: String,
    /// The process: counters begin at 0 in each.
    process: u32,
    traffic: TrafficSeen,
}

/// What a node says of itself. Of one that does not answer, only its id, its address, and why.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Node {
    Here(Box<Figures>),
    Silent {
        node_id: u64,
        address: String,
        error: String,
    },
}

#[derive(Debug, Serialize, ToSchema)]
struct Figures {
    node_id: u64,
    address: String,
    role: Role,
    /// 0: it knows of none.
    leader_id: u64,
    term: u64,
    /// Indexes of the log.
    last_log_index: u64,
    committed_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    revision: u64,
    /// Of the state at the revision: two nodes at one revision have the same.
    digest: String,
    /// Unix milliseconds.
    log_time_ms: u64,
    disk_bytes: u64,
    disk_free_bytes: u64,
    version: String,
}

/// What a node is in its term.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Role {
    Unknown,
    Leader,
    Follower,
    Candidate,
    Learner,
}

impl From<v1::Role> for Role {
    fn from(role: v1::Role) -> Self {
        match role {
            v1::Role::Unspecified => Self::Unknown,
            v1::Role::Leader => Self::Leader,
            v1::Role::Follower => Self::Follower,
            v1::Role::Candidate => Self::Candidate,
            v1::Role::Learner => Self::Learner,
        }
    }
}

impl From<v1::NodeStatus> for Node {
    fn from(node: v1::NodeStatus) -> Self {
        let role = node.role().into();
        if !node.error.is_empty() {
            return Self::Silent {
                node_id: node.node_id,
                address: node.address,
                error: node.error,
            };
        }
        Self::Here(Box::new(Figures {
            node_id: node.node_id,
            address: node.address,
            role,
            leader_id: node.leader_id,
            term: node.term,
            last_log_index: node.last_log_index,
            committed_index: node.committed_index,
            applied_index: node.applied_index,
            snapshot_index: node.snapshot_index,
            revision: node.revision,
            digest: node.digest,
            log_time_ms: node.log_time_ms,
            disk_bytes: node.disk_bytes,
            disk_free_bytes: node.disk_free_bytes,
            version: node.version,
        }))
    }
}

/// See the cluster. Scope `cluster:read`.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", operation_id = "get_cluster",
    responses((status = 200, body = Cluster), ReadProblems))]
async fn get(State(app): State<Arc<App>>, call: Call) -> Result<Json<Cluster>, Problem> {
    call.allow(Scope::ClusterRead)?;
    call.no_condition()?;
    let status = call.client.cluster().status().await?;
    Ok(Json(Cluster {
        nodes: status.nodes.into_iter().map(Node::from).collect(),
        front: Front {
            name: String::from_utf8_lossy(app.name.as_bytes()).into_owned(),
            process: std::process::id(),
            traffic: app.metrics.traffic.seen(),
        },
    }))
}
