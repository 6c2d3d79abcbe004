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
    "trolley.v1.NamespaceService",
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::DescriptorPool;

    use super::SERVICES;
    use crate::proto;

    #[test]
    fn every_public_service_has_a_health() {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("our own descriptors");
        let public = pool
            .services()
            .filter(|service| !service.package_name().contains("internal"));
        let public: BTreeSet<String> = public.map(|it| it.full_name().to_owned()).collect();
        let listed = SERVICES.iter().filter(|name| !name.is_empty());
        let listed: BTreeSet<String> = listed.map(ToString::to_string).collect();
        assert_eq!(listed, public);
    }
}
