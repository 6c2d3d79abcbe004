//! What any operator may ask of a cluster, at a bad moment.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Nemesis, PATIENCE};
use crate::torture::faults::Proof;
use crate::torture::faults::acts::TICK;
use crate::types::NodeId;

impl Nemesis {
    pub(super) async fn transfer(&self, nodes: &[u64]) -> Proof {
        let begun = Instant::now();
        let mut problem = String::from("there is no other node");
        let Some(target) = nodes.first().and_then(|id| NodeId::new(*id).ok()) else {
            return Proof::Unproven(problem);
        };
        while begun.elapsed() < PATIENCE {
            let client = self.client.timeout(Duration::from_secs(2));
            match client.cluster().transfer_leader(Some(target)).await {
                Ok(_) => return Proof::Proven(format!("node {target} answered that it leads")),
                Err(error) => problem = error.to_string(),
            }
        }
        Proof::Unproven(problem)
    }

    pub(super) async fn snapshot(&self, nodes: &[u64]) -> Proof {
        let begun = Instant::now();
        let mut problem = String::from("no node runs");
        while begun.elapsed() < PATIENCE {
            for id in nodes {
                match self.view(*id).snapshot().await {
                    Ok(last) => {
                        return Proof::Proven(format!("node {id} has one up to index {last}"));
                    }
                    Err(status) => status.message().clone_into(&mut problem),
                }
            }
            sleep(TICK).await;
        }
        Proof::Unproven(problem)
    }

    pub(super) async fn restart_all(&mut self) -> io::Result<Proof> {
        let mut left = Vec::new();
        for id in self.world.ids() {
            let mut cluster = self.cluster.lock().await;
            if cluster.node(id).is_running() {
                let status = cluster.stop(id).await?;
                if status.is_some_and(|status| status.success()) {
                    left.push(id);
                } else {
                    let death = self.death(cluster.node(id), status.and_then(|it| it.code()));
                    self.chronicle.deaths.push(death);
                }
            }
            cluster.start(id)?;
            drop(cluster);
            self.wait_for_leader_at(id).await;
        }
        let all = left.len() as u64 == self.world.nodes;
        Ok(Proof::of(
            all,
            format!("nodes {left:?} left with exit code 0"),
        ))
    }

    async fn wait_for_leader_at(&self, id: u64) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let header = self.view(id).header().await;
            if header.is_some_and(|header| header.leader_id != 0) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
