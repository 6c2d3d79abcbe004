//! etcd over its own gRPC API, one unary call per operation.

use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};

use crate::proto::etcd::kv_client::KvClient;
use crate::proto::etcd::{PutRequest, RangeRequest};
use crate::torture::bench::Target;

/// Clients that share one connection: HTTP/2 streams of one connection wait for its one reader and writer.
const CLIENTS_PER_CONNECTION: usize = 64;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Puts a value.
    Put,
    /// Gets a value, linearizable.
    Get,
    /// Gets a value from the member's own state.
    SerializableGet,
}

/// An etcd cluster under load.
pub struct Etcd {
    connections: Vec<KvClient<Channel>>,
    operation: Operation,
    value: Bytes,
    keys: u64,
}

impl Etcd {
    /// Connects to one member, best the leader. `endpoint` is `http://host:port`.
    pub async fn connect(
        endpoint: &str,
        operation: Operation,
        clients: usize,
        value_bytes: usize,
        keys: u64,
    ) -> Result<Self, tonic::transport::Error> {
        let mut connections = Vec::new();
        for _ in 0..clients.div_ceil(CLIENTS_PER_CONNECTION) {
            let channel = Endpoint::from_shared(endpoint.to_owned())?
                .tcp_nodelay(true)
                .connect()
                .await?;
            connections.push(KvClient::new(channel));
        }
        Ok(Self {
            connections,
            operation,
            value: vec![b'v'; value_bytes].into(),
            keys,
        })
    }
}

impl Target for Etcd {
    async fn operate(&self, worker: usize, step: u64) -> Result<(), String> {
        let mut client = self.connections[worker % self.connections.len()].clone();
        let key = super::key(worker, step, self.keys);
        let outcome = match self.operation {
            Operation::Put => {
                let request = PutRequest {
                    key: key.into(),
                    value: self.value.clone(),
                };
                client.put(request).await.map(drop)
            }
            Operation::Get | Operation::SerializableGet => {
                let serializable = self.operation == Operation::SerializableGet;
                client
                    .range(RangeRequest {
                        key: key.into(),
                        serializable,
                    })
                    .await
                    .map(drop)
            }
        };
        outcome.map_err(|status| status.to_string())
    }
}
