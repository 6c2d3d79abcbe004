//! Carries a plan out, one act after the other, and notes what was seen of it.
//!
//! Whom a fault hits is decided when it begins: the leader is whoever leads then. At the end of each phase everything is
//! mended, every node is started, and the next one begins once they all follow one leader again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::disks::Disks;
use super::plan::{Phase, Planned, QUIET};
use super::toolbox::Toolbox;
use super::world::{Reason, World, between, one_way};
use super::{Death, Episode, Kind, Proof, Transition};
use crate::client::Client;
use crate::torture::cluster::Cluster;
use crate::torture::cluster::network::{Direction, Effects, End};
use crate::torture::cluster::view::View;
use crate::torture::tape::Stopwatch;
use crate::types::NodeId;

/// Between two acts of a fault that goes on acting.
const TICK: Duration = Duration::from_millis(250);
/// How long nodes may take to follow one leader after everything was mended.
const RECOVERY: Duration = Duration::from_secs(60);
/// How often nodes that end by themselves are started again meanwhile.
const RESTARTS: usize = 12;
/// How long a node whose disk has failed may take to find out that it cannot go on.
const AFTERMATH: Duration = Duration::from_secs(15);
/// How long a fault's target is looked for, and its effect waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was done, and what was seen.
#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
pub struct Chronicle {
    /// Faults, in the order in which they ended.
    pub episodes: Vec<Episode>,
    /// What changed, in order.
    pub transitions: Vec<Transition>,
    /// Nodes that ended by themselves.
    pub deaths: Vec<Death>,
    /// Times at which the nodes did not follow one leader again, although everything had been mended long before.
    pub stuck_us: Vec<u64>,
}

/// Whoever does harm.
pub struct Nemesis {
    cluster: Arc<Mutex<Cluster>>,
    views: Vec<View>,
    client: Client,
    stopwatch: Stopwatch,
    toolbox: Toolbox,
    world: World,
    active: BTreeMap<Reason, Active>,
    /// Nodes that a fault may bring to an end of their own.
    doomed: BTreeSet<u64>,
    /// Until when those that were doomed may come to it.
    pardoned: BTreeMap<u64, Instant>,
    reasons: Reason,
    chronicle: Chronicle,
}

/// A fault under way.
struct Active {
    planned: Planned,
    nodes: Vec<u64>,
    begun_us: u64,
    directions: Vec<Direction>,
    before: Vec<Effects>,
    proof: Option<Proof>,
    /// Of a fault that goes on acting.
    random: Rng,
}

/// One step of a phase.
#[derive(Clone, Copy)]
enum Act {
    Begin(usize),
    Go(usize),
    End(usize),
}

impl Nemesis {
    /// Over this cluster. The client is for what is asked of the cluster as any operator would.
    pub async fn over(
        cluster: Arc<Mutex<Cluster>>,
        client: Client,
        toolbox: Toolbox,
        stopwatch: Stopwatch,
    ) -> Result<Self, tonic::transport::Error> {
        let (nodes, views) = {
            let cluster = cluster.lock().await;
            let views = cluster.nodes().iter();
            let views = views.map(|node| View::of(node.listening(), Duration::from_secs(1)));
            (
                cluster.nodes().len() as u64,
                views.collect::<Result<_, _>>()?,
            )
        };
        Ok(Self {
            cluster,
            views,
            client,
            stopwatch,
            toolbox,
            world: World::of(nodes),
            active: BTreeMap::new(),
            doomed: BTreeSet::new(),
            pardoned: BTreeMap::new(),
            reasons: 0,
            chronicle: Chronicle::default(),
        })
    }

    /// Phase after phase, until there is none left or it is told to stop. `progress` is told what begins.
    pub async fn carry_out(
        &mut self,
        phases: &[Phase],
        stop: &CancellationToken,
        progress: impl Fn(usize, &Phase),
    ) -> io::Result<()> {
        for (number, phase) in (0..).zip(phases) {
            // What does not come back shows nothing more.
            if stop.is_cancelled() || !self.chronicle.stuck_us.is_empty() {
                break;
            }
            progress(number, phase);
            self.phase(phase).await?;
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(QUIET) => {}
            }
        }
        Ok(())
    }

    /// What has been done and seen so far.
    #[must_use]
    pub fn chronicle(&self) -> &Chronicle {
        &self.chronicle
    }

    /// Mends everything for good. Whoever looks at the data of the nodes in the end has to have their disks.
    pub async fn finish(mut self) -> io::Result<(Chronicle, Option<Disks>)> {
        self.recover().await?;
        self.toolbox.put_away().await?;
        Ok((self.chronicle, self.toolbox.into_disks()))
    }

    async fn phase(&mut self, phase: &Phase) -> io::Result<()> {
        let begun = Instant::now();
        let first = self.reasons;
        self.reasons += phase.len();
        for (after, act) in acts(phase) {
            sleep_until(begun + after).await;
            match act {
                Act::Begin(index) => self.begin(first + index, &phase[index]).await?,
                Act::Go(index) => self.go_on(first + index),
                Act::End(index) => self.end(first + index).await?,
            }
            self.bury().await;
        }
        self.recover().await
    }

    async fn begin(&mut self, reason: Reason, planned: &Planned) -> io::Result<()> {
        let mut random = Rng::with_seed(planned.dice);
        let leader = self.leader(&mut random).await;
        let nodes = self.targets(planned.kind, leader, &mut random);
        let mut active = Active {
            planned: planned.clone(),
            nodes: nodes.clone(),
            begun_us: self.stopwatch.at_us(),
            directions: Vec::new(),
            before: Vec::new(),
            proof: None,
            random,
        };
        active.proof = self.harm(reason, &mut active).await?;
        self.watch(&mut active).await;
        let what = planned.kind.name();
        self.active.insert(reason, active);
        self.note(what);
        Ok(())
    }

    /// Does what the kind is; the proof, if it can be had at once.
    async fn harm(&mut self, reason: Reason, active: &mut Active) -> io::Result<Option<Proof>> {
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
            Kind::Stall | Kind::CutConnections => {
                active.directions = one_way(&nodes, &nodes);
                return Ok(None);
            }
            Kind::TransferLeader => return Ok(Some(self.transfer(&nodes).await)),
            Kind::Snapshot => return Ok(Some(self.snapshot(&nodes).await)),
            Kind::RollingRestart => return self.restart_all().await.map(Some),
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

    /// Remembers what the links had met before.
    async fn watch(&self, active: &mut Active) {
        let cluster = self.cluster.lock().await;
        let effects = |direction: &Direction| cluster.network().effects(*direction);
        active.before = active.directions.iter().map(effects).collect();
    }

    /// One of the acts of a fault that goes on acting.
    fn go_on(&mut self, reason: Reason) {
        let Some(active) = self.active.get_mut(&reason) else {
            return;
        };
        let Some(link) = active.random.choice(&active.directions).copied() else {
            return;
        };
        match active.planned.kind {
            Kind::Stall => {
                self.world.block(vec![link, (link.1, link.0)], reason);
            }
            Kind::CutConnections => {
                if let Ok(cluster) = self.cluster.try_lock() {
                    for direction in &active.directions {
                        cluster.network().cut(*direction);
                    }
                }
            }
            _ => {}
        }
        if let Ok(cluster) = self.cluster.try_lock() {
            cluster.network().set(self.world.rules());
        }
    }

    async fn end(&mut self, reason: Reason) -> io::Result<()> {
        let Some(active) = self.active.remove(&reason) else {
            return Ok(());
        };
        let kind = active.planned.kind;
        let proof = if kind.takes_tools() {
            let seen = self.put_right(&active).await?;
            active.proof.clone().unwrap_or(seen)
        } else if let Some(proof) = &active.proof {
            proof.clone()
        } else {
            self.traces(&active).await
        };
        self.world.forget(reason);
        self.align().await?;
        self.chronicle.episodes.push(Episode {
            kind,
            nodes: active.nodes,
            begun_us: active.begun_us,
            ended_us: self.stopwatch.at_us(),
            proof,
        });
        self.note(format!("end of {}", kind.name()));
        Ok(())
    }

    /// Ends what took tools: what was seen of it.
    async fn put_right(&mut self, active: &Active) -> io::Result<Proof> {
        if active.planned.kind == Kind::Damage {
            for id in &active.nodes {
                self.settle(*id, active.begun_us).await?;
            }
        }
        let shared = Arc::clone(&self.cluster);
        let mut cluster = shared.lock().await;
        self.bury_in(&mut cluster);
        self.toolbox
            .end(
                active.planned.kind,
                &active.nodes,
                &mut cluster,
                &self.chronicle,
                active.begun_us,
            )
            .await
    }

    /// Waits until a node serves or has ended by itself, whatever other faults have done to it meanwhile.
    async fn settle(&mut self, id: u64, since_us: u64) -> io::Result<()> {
        let begun = Instant::now();
        let shared = Arc::clone(&self.cluster);
        let mut cluster = shared.lock().await;
        self.bury_in(&mut cluster);
        let mut deaths = self.chronicle.deaths.iter();
        if deaths.any(|death| death.node == id && death.at_us >= since_us) {
            return Ok(());
        }
        cluster.start(id)?;
        cluster.set_paused(id, false)?;
        while begun.elapsed() < PATIENCE && cluster.node(id).is_running() {
            let listening = cluster.node(id).listening();
            if TcpStream::connect(listening).await.is_ok() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
            self.bury_in(&mut cluster);
        }
        Ok(())
    }

    /// What a fault of links has done to them.
    async fn traces(&self, active: &Active) -> Proof {
        let cluster = self.cluster.lock().await;
        let mut sum = Effects::default();
        for (direction, before) in active.directions.iter().zip(&active.before) {
            let now = cluster.network().effects(*direction);
            sum.held_bytes += now.held_bytes - before.held_bytes;
            sum.delayed_bytes += now.delayed_bytes - before.delayed_bytes;
            sum.cut_connections += now.cut_connections - before.cut_connections;
        }
        let (count, what) = match active.planned.kind {
            Kind::Latency => (sum.delayed_bytes, "bytes were delayed"),
            Kind::CutConnections => (sum.cut_connections, "connections were cut"),
            _ => (sum.held_bytes, "bytes were not passed on"),
        };
        Proof::of(count > 0, format!("{count} {what}"))
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
        let all = killed.len() == nodes.len();
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

    async fn transfer(&self, nodes: &[u64]) -> Proof {
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

    async fn snapshot(&self, nodes: &[u64]) -> Proof {
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

    async fn restart_all(&mut self) -> io::Result<Proof> {
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

    /// Makes processes and network what the world says.
    async fn align(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.cluster);
        let mut cluster = shared.lock().await;
        cluster.network().set(self.world.rules());
        for id in self.world.ids() {
            if self.world.is_down(id) {
                cluster.kill(id).await?;
            } else if cluster.node(id).is_running() {
                cluster.set_paused(id, self.world.is_asleep(id))?;
            } else if !self.doomed.contains(&id) {
                self.bury_in(&mut cluster);
                cluster.start(id)?;
            }
        }
        Ok(())
    }

    /// Mends everything and waits until all nodes follow one leader.
    async fn recover(&mut self) -> io::Result<()> {
        let left: Vec<_> = self.active.keys().copied().collect();
        for reason in left {
            self.end(reason).await?;
        }
        self.bury().await;
        let begun = Instant::now();
        let deaths = self.chronicle.deaths.len();
        let doomed = std::mem::take(&mut self.doomed);
        let pardoned = doomed.into_iter().map(|id| (id, begun + AFTERMATH));
        self.pardoned.extend(pardoned);
        self.align().await?;
        while !self.is_whole().await {
            let restarts = self.chronicle.deaths.len() - deaths;
            if begun.elapsed() > RECOVERY || restarts > RESTARTS {
                self.chronicle.stuck_us.push(self.stopwatch.at_us());
                break;
            }
            self.bury().await;
            self.align().await?;
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn is_whole(&self) -> bool {
        let headers = self.views.iter().map(View::header);
        let headers = futures::future::join_all(headers).await;
        let leaders: Option<BTreeSet<u64>> = headers
            .into_iter()
            .map(|header| header.map(|header| header.leader_id))
            .collect();
        leaders.is_some_and(|leaders| leaders.len() == 1 && !leaders.contains(&0))
    }

    /// Who leads now; somebody who could, if nobody says that it does.
    async fn leader(&self, random: &mut Rng) -> u64 {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && self.world.can_serve() {
            let headers = self.views.iter().map(View::header);
            let headers = futures::future::join_all(headers).await;
            let leading = headers.into_iter().flatten();
            let leading = leading.filter(|header| header.leader_id == header.node_id);
            let newest = leading.max_by_key(|header| header.term);
            if let Some(header) = newest {
                return header.node_id;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let awake = self.awake();
        random.choice(&awake).copied().unwrap_or(1)
    }

    fn awake(&self) -> Vec<u64> {
        let ids = self.world.ids();
        ids.filter(|id| !self.world.is_down(*id) && !self.world.is_asleep(*id))
            .collect()
    }

    /// The nodes that a fault is done to.
    fn targets(&self, kind: Kind, leader: u64, random: &mut Rng) -> Vec<u64> {
        let all: Vec<u64> = self.world.ids().collect();
        let mut followers: Vec<u64> = all.iter().copied().filter(|id| *id != leader).collect();
        random.shuffle(&mut followers);
        // Those that something can still be done to come first. Among them, now and then, the one that has trouble already, so
        // that the others go on serving; and now and then another one.
        let again = random.bool();
        followers.sort_by_key(|id| {
            let is_gone = self.world.is_down(*id) || self.world.is_asleep(*id);
            (is_gone, self.has_trouble(*id) != again)
        });
        let majority = all.len() / 2 + 1;
        let first = |count: usize| {
            let nodes = std::iter::once(leader).chain(followers.iter().copied());
            nodes.take(count).collect()
        };
        match kind {
            Kind::KillMajority | Kind::PauseMajority => first(majority),
            Kind::Bridge => first(2),
            Kind::KillFollower
            | Kind::PauseFollower
            | Kind::IsolateFollower
            | Kind::TransferLeader => followers.into_iter().take(1).collect(),
            Kind::KillAll
            | Kind::Ring
            | Kind::Latency
            | Kind::Stall
            | Kind::CutConnections
            | Kind::RollingRestart
            | Kind::PowerCutAll => all,
            Kind::PowerCut
            | Kind::Damage
            | Kind::FullDisk
            | Kind::SlowSync
            | Kind::FailedSync
            | Kind::ClockJump
            | Kind::Snapshot => {
                let nodes = self.awake();
                random.choice(&nodes).copied().into_iter().collect()
            }
            Kind::KillLeader
            | Kind::PauseLeader
            | Kind::IsolateLeader
            | Kind::OneWayOut
            | Kind::OneWayIn
            | Kind::ClientsLoseLeader => first(1),
        }
    }

    /// A fault of links was aimed at it.
    fn has_trouble(&self, id: u64) -> bool {
        let mut active = self.active.values();
        active.any(|it| !it.directions.is_empty() && it.nodes.first() == Some(&id))
    }

    fn view(&self, id: u64) -> &View {
        let index = usize::try_from(id - 1).unwrap_or(0);
        &self.views[index]
    }

    fn note(&mut self, what: String) {
        self.chronicle.transitions.push(Transition {
            at_us: self.stopwatch.at_us(),
            what,
            can_serve: self.world.can_serve() && self.doomed.is_empty(),
        });
    }

    /// Notes which nodes have ended by themselves.
    async fn bury(&mut self) {
        let cluster = Arc::clone(&self.cluster);
        self.bury_in(&mut *cluster.lock().await);
    }

    fn bury_in(&mut self, cluster: &mut Cluster) {
        for (id, status) in cluster.ended() {
            let death = self.death(cluster.node(id), status.code());
            self.chronicle.deaths.push(death);
        }
    }

    fn may_die(&self, id: u64) -> bool {
        let pardoned = self.pardoned.get(&id);
        self.doomed.contains(&id) || pardoned.is_some_and(|until| Instant::now() < *until)
    }

    fn death(&self, node: &crate::torture::cluster::Node, code: Option<i32>) -> Death {
        Death {
            node: node.id(),
            at_us: self.stopwatch.at_us(),
            code,
            is_expected: self.may_die(node.id()),
            said: node.log_end(),
        }
    }
}

fn ring(nodes: &[u64]) -> Vec<Direction> {
    let count = nodes.len();
    let mut directions = one_way(nodes, nodes);
    directions.retain(|(from, to)| {
        let at = |end: &End| nodes.iter().position(|id| End::Node(*id) == *end);
        match (at(from), at(to)) {
            (Some(from), Some(to)) => to != (from + 1) % count,
            _ => true,
        }
    });
    directions
}

/// The acts of a phase, in their order.
fn acts(phase: &Phase) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    for (index, planned) in phase.iter().enumerate() {
        acts.push((planned.begin, Act::Begin(index)));
        acts.push((planned.end, Act::End(index)));
        if matches!(planned.kind, Kind::Stall | Kind::CutConnections) {
            let mut at = planned.begin + Duration::from_millis(1);
            while at < planned.end {
                acts.push((at, Act::Go(index)));
                at += TICK;
            }
        }
    }
    // Stable, so that what begins at one moment does so in the order of the plan.
    acts.sort_by_key(|(at, _)| *at);
    acts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_leaves_one_direction_to_each_next_node() {
        let blocked = ring(&[1, 2, 3]);
        let link = |from, to| (End::Node(from), End::Node(to));
        assert_eq!(blocked, [link(1, 3), link(2, 1), link(3, 2)]);
        assert_eq!(ring(&[1, 2, 3, 4, 5]).len(), 15);
    }

    #[test]
    fn every_fault_begins_before_it_ends_and_some_act_in_between() {
        let kinds = [Kind::Stall, Kind::KillLeader];
        for phase in super::super::plan::plan(5, &kinds, Duration::from_secs(60)) {
            let acts = acts(&phase);
            let begins = acts.iter().filter(|(_, act)| matches!(act, Act::Begin(_)));
            let goes = acts.iter().filter(|(_, act)| matches!(act, Act::Go(_)));
            assert_eq!(begins.count(), phase.len());
            assert!(goes.count() >= 4);
            assert!(matches!(acts.first(), Some((_, Act::Begin(_)))));
            assert!(matches!(acts.last(), Some((_, Act::End(_)))));
        }
    }
}
