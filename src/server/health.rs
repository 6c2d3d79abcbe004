//! `grpc.health.v1`: serving while the node can answer a linearizable read, so that a load balancer leaves out a node
//! that is cut off. Such a node still knows who led: only a question to the others tells.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::api::Backend;
use crate::node::ReadMode;

/// How often the node asks.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How long the answer may take. Longer than an election.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// The empty name stands for the whole server.
const SERVICES: &[&str] = &[
    "",
    "trolley.v1.SessionService",
    "trolley.v1.CartService",
    "trolley.v1.KvService",
    "trolley.v1.LeaseService",
    "trolley.v1.TxnService",
    "trolley.v1.NamespaceService",
    "trolley.v1.WatchService",
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

    /// Asks, now and then and whenever leadership changes, whether the node can serve, until the node is gone.
    pub async fn follow(self, node: impl Backend) {
        let mut leadership = node.leadership_changes();
        let mut probes = interval(PROBE_PERIOD);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if leadership.borrow_and_update().leader.is_none() {
                self.not_serving().await;
                if leadership.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let deadline = Instant::now() + PROBE_PATIENCE;
            tokio::select! {
                read = node.read_barrier(ReadMode::Linearizable, deadline) => match read {
                    Ok(()) => self.set(ServingStatus::Serving).await,
                    Err(error) => {
                        tracing::debug!(%error, "not serving");
                        self.not_serving().await;
                    }
                },
                // Whatever the answer would be, it is about another leader.
                changed = leadership.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
            }
            tokio::select! {
                _ = probes.tick() => {}
                changed = leadership.changed() => if changed.is_err() { break },
            }
        }
        self.not_serving().await;
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
