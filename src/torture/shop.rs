//! A shop that knows nothing of Trolley but `hipstershop.CartService`: one gRPC call per operation, to one node.

use std::time::Duration;

use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::proto::hipstershop::cart_service_client::CartServiceClient;
use crate::proto::hipstershop::{AddItemRequest, CartItem};

/// Longest wait for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections to one node's cart service.
pub struct Shop {
    connections: Vec<CartServiceClient<Channel>>,
}

impl Shop {
    /// Connections to `host:port`, at least one. A call may take a while, and not for ever.
    pub fn connect(address: &str, connections: usize) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .tcp_nodelay(true)
            .connect_timeout(CALL_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        let connect = |_| CartServiceClient::new(endpoint.connect_lazy());
        Ok(Self {
            connections: (0..connections.max(1)).map(connect).collect(),
        })
    }

    /// Adds one piece to a user's cart, over the connection of this worker.
    pub async fn add_item(
        &self,
        worker: usize,
        user: String,
        product: String,
    ) -> Result<(), Status> {
        let mut client = self.connections[worker % self.connections.len()].clone();
        let item = CartItem {
            product_id: product,
            quantity: 1,
        };
        let request = AddItemRequest {
            user_id: user,
            item: Some(item),
        };
        client.add_item(request).await.map(drop)
    }
}
