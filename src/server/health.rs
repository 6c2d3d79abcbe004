//! `grpc.health.v1`: serving only while a leader is known, so that a load balancer leaves out a node that is cut off.

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::node::Leadership;

/// The empty name stands for the whole server.
const SERVICES: &[&str] = &[
    "",
    "trolley.v1.SessionService",
    "trolley.v1.CartService",
    "trolley.v1.KvService",
    "trolley.v1.LeaseService",
    "trolley.v1.TxnService",
    "trolley.v1.ClusterService",
    "trolley.v1.ExchangeService",
    "hipstershop.CartService",
    "oteldemo.CartService",
];

/// What the health service answers. Cloning shares it.
#[derive(Clone)]
pub(super) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Not serving yet, and the service that says so.
    pub async fn new() -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = health_reporter();
        let health = Self { reporter };
        health.not_serving().await;
        (health, service)
    }

    /// Says that nothing is served.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Follows the node's leadership until the node is gone.
    pub async fn follow(self, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let knows_leader = leadership.borrow_and_update().leader.is_some();
            self.set(if knows_leader {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            })
            .await;
            if leadership.changed().await.is_err() {
                self.not_serving().await;
                return;
            }
        }
    }

    async fn set(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
