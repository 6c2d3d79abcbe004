//! What one node says, asked past its front and past the client library, which would ask another one instead.
//!
//! Plain calls of the public API, each bounded in time.

use std::collections::BTreeMap;
use std::time::Duration;

use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::proto::v1;
use crate::proto::v1::cart_service_client::CartServiceClient;
use crate::proto::v1::cluster_service_client::ClusterServiceClient;
use crate::proto::v1::kv_service_client::KvServiceClient;
use crate::proto::v1::session_service_client::SessionServiceClient;

/// Keys of one page.
const PAGE: u32 = 1000;

/// One node.
#[derive(Debug, Clone)]
pub struct View {
    channel: Channel,
    patience: Duration,
}

/// A key's value and revision.
pub type Stored = (String, u64);

impl View {
    /// Of the node that listens there, whether it does yet or not. Each call may take so long.
    pub fn of(listening: &str, patience: Duration) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{listening}"))?
            .tcp_nodelay(true)
            .connect_timeout(patience);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            patience,
        })
    }

    /// Whom it takes for the leader, in which term, at which revision. No other node is asked.
    pub async fn header(&self) -> Option<v1::ResponseHeader> {
        let mut client = ClusterServiceClient::new(self.channel.clone());
        let answer = self.bound(client.members(v1::MembersRequest {})).await;
        answer.ok()?.header
    }

    /// Its own figures.
    pub async fn status(&self) -> Option<v1::NodeStatus> {
        let mut client = ClusterServiceClient::new(self.channel.clone());
        let answer = self.bound(client.status(v1::StatusRequest {})).await.ok()?;
        let id = answer.header?.node_id;
        let mut nodes = answer.nodes.into_iter();
        nodes.find(|node| node.node_id == id && node.error.is_empty())
    }

    /// Has it take a snapshot: the last log index in it.
    pub async fn snapshot(&self) -> Result<u64, Status> {
        let mut client = ClusterServiceClient::new(self.channel.clone());
        let taken = self.bound(client.snapshot(v1::SnapshotRequest {})).await?;
        Ok(taken.snapshot_index)
    }

    /// Reads a key, linearizable.
    pub async fn key(&self, key: &str) -> Result<Option<Stored>, Status> {
        let request = v1::GetKeyRequest {
            key: key.to_owned(),
            ..v1::GetKeyRequest::default()
        };
        let mut client = KvServiceClient::new(self.channel.clone());
        let found = found(self.bound(client.get(request)).await)?;
        Ok(found.and_then(|found| found.item).as_ref().map(stored))
    }

    /// All keys of the default namespace, as this node has them.
    pub async fn keys(&self) -> Result<BTreeMap<String, Stored>, Status> {
        let mut client = KvServiceClient::new(self.channel.clone());
        let mut keys = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let request = v1::ListKeysRequest {
                read: Some(stale()),
                limit: PAGE,
                cursor,
                ..v1::ListKeysRequest::default()
            };
            let page = self.bound(client.list(request)).await?;
            let items = page.items.into_iter();
            keys.extend(items.map(|item| (item.key.clone(), stored(&item))));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                return Ok(keys);
            }
        }
    }

    /// How many pieces of each SKU are in a user's cart, as this node has it.
    pub async fn cart(&self, user: &str) -> Result<BTreeMap<String, u64>, Status> {
        let owner = v1::cart_owner::Owner::UserId(user.to_owned());
        let request = v1::GetCartRequest {
            read: Some(stale()),
            owner: Some(v1::CartOwner { owner: Some(owner) }),
            ..v1::GetCartRequest::default()
        };
        let mut client = CartServiceClient::new(self.channel.clone());
        let answer = self.bound(client.get(request)).await?;
        let lines = answer.cart.unwrap_or_default().lines.into_iter();
        Ok(lines
            .map(|line| (line.sku, u64::from(line.quantity)))
            .collect())
    }

    /// Whether it reads a session by its token, as it has it or linearizable.
    pub async fn session(&self, token: &str, is_stale: bool) -> Result<bool, Status> {
        let request = v1::GetSessionRequest {
            read: is_stale.then(stale),
            token: token.to_owned(),
            ..v1::GetSessionRequest::default()
        };
        let mut client = SessionServiceClient::new(self.channel.clone());
        Ok(found(self.bound(client.get(request)).await)?.is_some())
    }

    async fn bound<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let answer = tokio::time::timeout(self.patience, call).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))?;
        answer.map(tonic::Response::into_inner)
    }
}

fn stale() -> v1::ReadOptions {
    v1::ReadOptions {
        consistency: v1::Consistency::Stale.into(),
        min_revision: 0,
    }
}

fn stored(item: &v1::KeyValue) -> Stored {
    let value = String::from_utf8_lossy(&item.value).into_owned();
    (value, item.mod_revision)
}

/// An answer, or that there is none to be had; everything else is no answer.
fn found<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}
