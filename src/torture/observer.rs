//! Looks at every node a few times a second, from outside: whom it follows, how much memory and how many files it has.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::cluster::view::View;
use super::record::Sample;
use super::tape::Stopwatch;

const PERIOD: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_millis(400);

/// Samples, as they are taken.
pub type Samples = Arc<std::sync::Mutex<Vec<Sample>>>;

/// Until it is told to stop.
pub async fn observe(
    cluster: Arc<Mutex<Cluster>>,
    stopwatch: Stopwatch,
    samples: Samples,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let views: Vec<(u64, View)> = {
        let cluster = cluster.lock().await;
        let views = cluster.nodes().iter();
        let views = views.map(|node| Ok((node.id(), View::of(node.listening(), PATIENCE)?)));
        views.collect::<Result<_, tonic::transport::Error>>()?
    };
    let mut interval = tokio::time::interval(PERIOD);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = interval.tick() => {}
        }
        let resources: Vec<_> = {
            let cluster = cluster.lock().await;
            let nodes = cluster.nodes().iter();
            let seen = nodes.map(|node| (node.member(), node.resources()));
            seen.collect()
        };
        let looks = views
            .iter()
            .zip(resources)
            .map(|((node, view), (member, resources))| {
                let (memory_kb, files) = resources.unwrap_or_default();
                async move {
                    let at_us = stopwatch.at_us();
                    let header = view.header().await;
                    Sample {
                        at_us,
                        node: *node,
                        member,
                        leader: header.as_ref().map(|header| header.leader_id),
                        term: header.map_or(0, |header| header.term),
                        memory_kb,
                        files,
                    }
                }
            });
        let looks = join_all(looks).await;
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.extend(looks);
    }
}
