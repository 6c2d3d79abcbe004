//! The public gRPC services: parse, ask the node, encode.
//!
//! | module | owns |
//! |---|---|
//! | `parse` | requests → commands and queries, valid by construction |
//! | [`backend`] | what this module needs of a node, as a trait |
//! | `encode`, `read` | replies and records → responses |
//! | [`status`] | errors → reasons, codes and outcomes, in one table |
//! | [`cursor`] | where a listing goes on |
//! | `unary`, `services`, `cluster` | one call, one answer |
//! | `shops` | the cart services that existing shops call |
//! | `forward` | a write that reached a follower |
//! | `exchange` | many operations over one stream: the hot path |
//! | `watch` | events, as they happen |
//!
//! Invariants:
//! 1. A request is parsed once, here; behind it no input is invalid.
//! 2. A write fails as "not applied" only where it was provably never proposed.
//! 3. Every call has a deadline, and every stream a bound on what it has under way.
//! 4. No session token reaches a log line or an error's message.
//!
//! Deliberately absent: who may call what, and TLS.

pub mod backend;
mod cluster;
pub mod cursor;
mod deadline;
mod encode;
mod error;
mod exchange;
mod forward;
mod parse;
mod read;
mod services;
mod shops;
pub mod status;
mod unary;
mod watch;
mod weight;

#[cfg(test)]
pub(crate) mod testing;

pub use backend::Backend;
pub use error::Error;
use error::Refused;
pub use forward::NO_FORWARD;
pub use shops::{IDEMPOTENCY_KEY, NAMESPACE_METADATA};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::proto::hipstershop::cart_service_server::CartServiceServer as HipsterShopServer;
use crate::proto::oteldemo::cart_service_server::CartServiceServer as OtelDemoServer;
use crate::proto::v1::cart_service_server::CartServiceServer;
use crate::proto::v1::cluster_service_server::ClusterServiceServer;
use crate::proto::v1::exchange_service_server::ExchangeServiceServer;
use crate::proto::v1::kv_service_server::KvServiceServer;
use crate::proto::v1::lease_service_server::LeaseServiceServer;
use crate::proto::v1::namespace_service_server::NamespaceServiceServer;
use crate::proto::v1::session_service_server::SessionServiceServer;
use crate::proto::v1::txn_service_server::TxnServiceServer;
use crate::proto::v1::watch_service_server::WatchServiceServer;
use crate::transport::Places;

/// Every public service over one node. Cloning shares it.
#[derive(Clone)]
pub struct Api<B> {
    node: B,
    leaders: forward::Leaders,
    /// Cancelled when the node drains: exchange streams finish what is under way and end, watches end at once.
    drain: CancellationToken,
    /// Holds a token for each call and stream under way, so that a drain can wait for them.
    under_way: TaskTracker,
    /// For large answers that were not read yet.
    places: Places,
}

/// The public services, ready for a server.
pub struct Services<B: Backend> {
    /// Sessions.
    pub session: SessionServiceServer<Api<B>>,
    /// Carts.
    pub cart: CartServiceServer<Api<B>>,
    /// Keys.
    pub kv: KvServiceServer<Api<B>>,
    /// What keeps keys alive.
    pub lease: LeaseServiceServer<Api<B>>,
    /// Several operations as one.
    pub txn: TxnServiceServer<Api<B>>,
    /// Namespaces and their settings.
    pub namespace: NamespaceServiceServer<Api<B>>,
    /// The cluster itself.
    pub cluster: ClusterServiceServer<Api<B>>,
    /// The exchange stream.
    pub exchange: ExchangeServiceServer<Api<B>>,
    /// Carts, as the Online Boutique calls them.
    pub hipstershop: HipsterShopServer<Api<B>>,
    /// Carts, as the OpenTelemetry demo calls them.
    pub oteldemo: OtelDemoServer<Api<B>>,
    /// Events.
    pub watch: WatchServiceServer<Api<B>>,
}

impl<B: Backend> Api<B> {
    /// The services of `node`.
    #[must_use]
    pub fn new(node: B) -> Self {
        Self {
            node,
            leaders: forward::Leaders::default(),
            drain: CancellationToken::new(),
            under_way: TaskTracker::new(),
            places: Places::of_node(),
        }
    }

    /// The services, each refusing messages larger than `message_bytes`.
    #[must_use]
    pub fn services(&self, message_bytes: usize) -> Services<B> {
        Services {
            session: SessionServiceServer::new(self.clone())
                .max_decoding_message_size(message_bytes),
            cart: CartServiceServer::new(self.clone()).max_decoding_message_size(message_bytes),
            kv: KvServiceServer::new(self.clone()).max_decoding_message_size(message_bytes),
            lease: LeaseServiceServer::new(self.clone()).max_decoding_message_size(message_bytes),
            txn: TxnServiceServer::new(self.clone()).max_decoding_message_size(message_bytes),
            namespace: NamespaceServiceServer::new(self.clone())
                .max_decoding_message_size(message_bytes),
            cluster: ClusterServiceServer::new(self.clone())
                .max_decoding_message_size(message_bytes),
            exchange: ExchangeServiceServer::new(self.clone())
                .max_decoding_message_size(message_bytes),
            hipstershop: HipsterShopServer::new(self.clone())
                .max_decoding_message_size(message_bytes),
            oteldemo: OtelDemoServer::new(self.clone()).max_decoding_message_size(message_bytes),
            watch: WatchServiceServer::new(self.clone()).max_decoding_message_size(message_bytes),
        }
    }

    /// Ends exchange streams as soon as nothing is under way on them, and returns when no call is left.
    pub async fn finish(&self) {
        self.drain.cancel();
        self.under_way.close();
        self.under_way.wait().await;
    }
}
