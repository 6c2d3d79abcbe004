//! `grpc.health.v1`: serving while the node can answer a linearizable read, so that a load balancer leaves out a node
//! that is cut off. Such a node still knows who led: only a question to the others tells.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::api::Backend;
use crate::node::{Error, ReadMode};

/// How often the node asks.
pub(super) const PROBE_PERIOD: Duration = Duration::from_secs(1);
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

    /// Asks, once in each period and whenever leadership changes, whether the node can serve, until the node is gone.
    pub async fn follow(self, node: impl Backend, period: Duration) {
        let mut leadership = node.leadership_changes();
        let mut probes = interval(period);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = None;
        loop {
            let knows_leader = leadership.borrow_and_update().leader.is_some();
            let can_serve = tokio::select! {
                can_serve = can_serve(&node), if knows_leader => can_serve,
                // Whatever the answer would be, it is about another leader.
                changed = leadership.changed(), if knows_leader => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
                else => Err(Error::NoLeader),
            };
            // Who watches, or reads the log, is told of changes only.
            if said != Some(can_serve.is_ok()) {
                let is_start = said.replace(can_serve.is_ok()).is_none();
                log(&can_serve, is_start);
                self.set(match can_serve {
                    Ok(()) => ServingStatus::Serving,
                    Err(_) => ServingStatus::NotServing,
                })
                .await;
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

/// Tells an operator; that a node which has just started does not serve at once is usual.
fn log(can_serve: &Result<(), Error>, is_start: bool) {
    match can_serve {
        Ok(()) => tracing::info!("serving"),
        Err(error) if is_start => tracing::info!(%error, "not serving yet"),
        Err(error) => {
            tracing::warn!(%error, "not serving: no majority confirms what this node would read");
        }
    }
}

/// Whether the node can answer a linearizable read.
async fn can_serve(node: &impl Backend) -> Result<(), Error> {
    let deadline = Instant::now() + PROBE_PATIENCE;
    node.read_barrier(ReadMode::Linearizable, deadline).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::{FutureExt as _, StreamExt as _};
    use prost_reflect::DescriptorPool;
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Said;
    use tonic_health::server::HealthService as Service;

    use super::*;
    use crate::api::testing::MemoryNode;
    use crate::proto;

    #[tokio::test]
    async fn who_watches_is_told_of_changes_only() {
        let (health, _) = Health::new().await;
        let service = Service::from_health_reporter(health.reporter.clone());
        let request = Request::new(HealthCheckRequest::default());
        let watched = service.watch(request).await.expect("it is known");
        let mut statuses = watched
            .into_inner()
            .map(|status| status.expect("no error").status());
        let node = MemoryNode::leader();
        let mut following = tokio::task::JoinSet::new();
        following.spawn(health.follow(node.clone(), Duration::from_millis(1)));
        while statuses.next().await != Some(Said::Serving) {}
        for _ in 0..10 {
            let before = node.confirmed();
            while node.confirmed() == before {
                tokio::task::yield_now().await;
            }
            assert_eq!(statuses.next().now_or_never(), None, "nothing changed");
        }
        node.follow(None);
        assert_eq!(statuses.next().await, Some(Said::NotServing));
        following.abort_all();
    }

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
