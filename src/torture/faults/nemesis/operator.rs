//! What any operator may ask of a cluster, at a bad moment.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Nemesis, PATIENCE, RECOVERY};
use crate::client::{self, Client};
use crate::torture::faults::Proof;
use crate::torture::faults::acts::TICK;
use crate::types::NodeId;

impl Nemesis {
    pub(super) async fn transfer(&self, nodes: &[u64]) -> Proof {
        let begun = Instant::now();
        let mut problem = String::from("there is no other node");
        let Some(place) = nodes.first() else {
            return Proof::Unproven(problem);
        };
        let Ok(target) = NodeId::new(self.cluster.lock().await.node(*place).member()) else {
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

    /// A node is lost, with all that it stored: another one takes its place.
    pub(super) async fn replace(&mut self, nodes: &[u64]) -> io::Result<Proof> {
        let Some(place) = nodes.first().copied() else {
            return Ok(Proof::Unproven("no node is awake".to_owned()));
        };
        let (old, address) = {
            let mut cluster = self.cluster.lock().await;
            cluster.kill(place).await?;
            let node = cluster.node(place);
            (node.member(), node.advertised().to_owned())
        };
        let removed = self.persist(async |client| {
            let id = NodeId::new(old).map_err(|_| client::Error::Protocol)?;
            client.cluster().remove_member(id).await.map(drop)
        });
        if let Err(error) = removed.await {
            return Ok(Proof::Unproven(format!(
                "node {old} was not removed: {error}"
            )));
        }
        let new = {
            let mut cluster = self.cluster.lock().await;
            let new = cluster.renew(place)?;
            cluster.start(place)?;
            new
        };
        let added = self.persist(async |client| {
            let id = NodeId::new(new).map_err(|_| client::Error::Protocol)?;
            let added = client.cluster().add_member(id, &address).await;
            added.map(drop)
        });
        if let Err(error) = added.await {
            return Ok(Proof::Unproven(format!(
                "node {new} was not added: {error}"
            )));
        }
        let members = self.client.cluster().members().await;
        let voters: Vec<u64> = members.map_or_else(
            |_| Vec::new(),
            |told| {
                let voters = told.members.iter().filter(|it| it.voter);
                voters.map(|it| it.node_id).collect()
            },
        );
        Ok(Proof::of(
            voters.contains(&new) && !voters.contains(&old),
            format!("node {new} took the place of node {old}: {voters:?} vote"),
        ))
    }

    /// Asks again until it is done, for as long as nodes may take to recover.
    async fn persist(
        &self,
        ask: impl AsyncFn(&Client) -> Result<(), client::Error>,
    ) -> Result<(), client::Error> {
        let begun = Instant::now();
        let client = self.client.timeout(Duration::from_secs(5));
        loop {
            match ask(&client).await {
                Err(_) if begun.elapsed() < RECOVERY => sleep(TICK).await,
                settled => return settled,
            }
        }
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
