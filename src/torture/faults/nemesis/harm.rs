//! What each kind of fault does.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::targets::ring;
use super::{Active, Nemesis, PATIENCE};
use crate::torture::cluster::network::End;
use crate::torture::faults::world::{Reason, between, one_way};
use crate::torture::faults::{Kind, Proof};

/// How long a message may be kept back at most while others pass it.
const JITTER: Duration = Duration::from_millis(60);

impl Nemesis {
    /// Does what the kind is; the proof, if it can be had at once.
    pub(super) async fn harm(
        &mut self,
        reason: Reason,
        active: &mut Active,
    ) -> io::Result<Option<Proof>> {
        let nodes = active.nodes.clone();
        let others: Vec<u64> = self.world.ids().filter(|id| !nodes.contains(id)).collect();
        match active.planned.kind {
            Kind::KillLeader | Kind::KillFollower | Kind::KillMajority | Kind::KillAll => {
                return self.kill(reason, &nodes).await.map(Some);
            }
            Kind::PauseLeader | Kind::PauseFollower | Kind::PauseMajority => {
                return self.pause(reason, &nodes).await.map(Some);
            }
            Kind::IsolateLeader | Kind::IsolateFollower => {
                active.directions = between(&nodes, &others);
            }
            Kind::Bridge => active.directions = between(&nodes[..1], &nodes[1..]),
            Kind::OneWayOut => active.directions = one_way(&nodes, &others),
            Kind::OneWayIn => active.directions = one_way(&others, &nodes),
            Kind::Ring => active.directions = ring(&nodes),
            Kind::ClientsLoseLeader => {
                let links = nodes.iter().map(|id| (End::Clients, End::Node(*id)));
                active.directions = links.collect();
            }
            Kind::Latency => {
                let delay = Duration::from_millis(active.random.u64(10..60));
                active.directions = between(&nodes, &nodes);
                self.world.delay(active.directions.clone(), delay, reason);
                return self.align().await.map(|()| None);
            }
            Kind::Reorder => {
                active.directions = one_way(&nodes, &nodes);
                self.world
                    .shuffle(active.directions.clone(), JITTER, reason);
                return self.align().await.map(|()| None);
            }
            Kind::CutVoter => return self.cut_voter(reason, &nodes).await.map(Some),
            Kind::Stall | Kind::CutConnections => {
                active.directions = one_way(&nodes, &nodes);
                return Ok(None);
            }
            Kind::TransferLeader => return Ok(Some(self.transfer(&nodes).await)),
            Kind::Snapshot => return Ok(Some(self.snapshot(&nodes).await)),
            Kind::RollingRestart => return self.restart_all().await.map(Some),
            Kind::Membership => return self.replace(&nodes).await.map(Some),
            kind => {
                let mut cluster = self.cluster.lock().await;
                let doom = self
                    .toolbox
                    .begin(kind, &nodes, &mut cluster, &mut active.random);
                let doom = doom.await?;
                for node in doom.down {
                    self.world.keep_down(node, reason);
                }
                self.doomed.extend(doom.may_die);
                drop(cluster);
                self.align().await?;
                return Ok(doom.proof);
            }
        }
        self.world.block(active.directions.clone(), reason);
        self.align().await.map(|()| None)
    }

    async fn kill(&mut self, reason: Reason, nodes: &[u64]) -> io::Result<Proof> {
        let mut killed = Vec::new();
        let mut cluster = self.cluster.lock().await;
        for id in nodes {
            let pid = cluster.node(*id).pid();
            self.world.keep_down(*id, reason);
            if cluster.kill(*id).await?
                && let Some(pid) = pid
                && !std::path::Path::new(&format!("/proc/{pid}")).exists()
            {
                killed.push(*id);
            }
        }
        // Those that another fault keeps down are as down as these.
        let all = !killed.is_empty() && nodes.iter().all(|id| !cluster.node(*id).is_running());
        Ok(Proof::of(
            all,
            format!("the processes of nodes {killed:?} are gone"),
        ))
    }

    async fn pause(&mut self, reason: Reason, nodes: &[u64]) -> io::Result<Proof> {
        for id in nodes {
            self.world.keep_asleep(*id, reason);
        }
        self.align().await?;
        let begun = Instant::now();
        loop {
            let asleep: Vec<u64> = {
                let cluster = self.cluster.lock().await;
                let stopped = |id: &u64| cluster.node(*id).kernel_state() == Some('T');
                nodes.iter().copied().filter(stopped).collect()
            };
            if asleep.len() == nodes.len() || begun.elapsed() > PATIENCE {
                let all = asleep.len() == nodes.len();
                return Ok(Proof::of(all, format!("nodes {asleep:?} are in state T")));
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}
