//! Carries a plan out, one act after the other, and notes what was seen of it.
//!
//! Whom a fault hits is decided when it begins: the leader is whoever leads then. At the end of each phase everything is
//! mended, every node is started, and the next one begins once they all follow one leader again and a write is acknowledged.
//!
//! `targets` decides whom a fault hits, `harm`, `links`, `operator` and `voter` what is done.

mod harm;
mod links;
mod operator;
mod targets;
mod voter;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::targets::Choice;
use super::acts::{Act, acts};
use super::chronicle::Chronicle;
use super::disks::Disks;
use super::plan::{Phase, Planned, QUIET};
use super::toolbox::Toolbox;
use super::world::{Reason, World};
use super::{Death, Episode, Kind, Proof, Transition};
use crate::client::Client;
use crate::torture::cluster::Cluster;
use crate::torture::cluster::network::{Direction, Effects};
use crate::torture::cluster::view::View;
use crate::torture::tape::Stopwatch;

/// How long nodes may take to follow one leader after everything was mended.
const RECOVERY: Duration = Duration::from_secs(60);
/// How often nodes that end by themselves are started again meanwhile.
const RESTARTS: usize = 12;
/// How long a node whose disk has failed may take to find out that it cannot go on.
const AFTERMATH: Duration = Duration::from_secs(15);
/// How long a fault's target is looked for, and its effect waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is written to see whether a write is acknowledged, and how long that may take.
const SIGN: &str = "nemesis";
const SIGN_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// Who led when it began.
    leader: u64,
    begun_us: u64,
    directions: Vec<Direction>,
    before: Vec<Effects>,
    proof: Option<Proof>,
    /// Of a fault that goes on acting.
    random: Rng,
}

impl Nemesis {
    /// Over this cluster. The client is for what is asked of the cluster as any operator would.
    pub async fn over(
        cluster: Arc<Mutex<Cluster>>,
        client: Client,
        toolbox: Toolbox,
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
            stopwatch: Stopwatch::start(),
            toolbox,
            world: World::of(nodes),
            active: BTreeMap::new(),
            doomed: BTreeSet::new(),
            pardoned: BTreeMap::new(),
            reasons: 0,
            chronicle: Chronicle::default(),
        })
    }

    /// From now on, times are by this.
    pub fn begin_round(&mut self, stopwatch: Stopwatch) {
        self.stopwatch = stopwatch;
    }

    /// Mends everything: what was done and seen since the beginning of the round.
    pub async fn end_round(&mut self) -> io::Result<Chronicle> {
        self.recover().await?;
        Ok(std::mem::take(&mut self.chronicle))
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

    /// Puts its tools away. Whoever looks at the data of the nodes in the end has to have their disks.
    pub async fn finish(mut self) -> io::Result<Option<Disks>> {
        self.toolbox.put_away().await?;
        self.client.close().await;
        Ok(self.toolbox.into_disks())
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
        // Whoever has ended before this fault has not ended of it.
        self.bury().await;
        let mut random = Rng::with_seed(planned.dice);
        let leader = self.leader(&mut random).await;
        let choice = Choice {
            world: &self.world,
            leader,
            troubled: self.troubled(),
        };
        let nodes = choice.of(planned.kind, &mut random);
        let mut active = Active {
            planned: planned.clone(),
            nodes: nodes.clone(),
            leader,
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
            leader: active.leader,
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
        while begun.elapsed() < RECOVERY && cluster.node(id).is_running() {
            // It listens before it has looked at its data, and answers afterwards.
            if self.view(id).header().await.is_some() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
            self.bury_in(&mut cluster);
        }
        Ok(())
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

    /// Mends everything and waits until all nodes follow one leader and take a write.
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
        // The end of the last fault came before its nodes had their pardon.
        if self
            .chronicle
            .transitions
            .last()
            .is_some_and(|it| !it.can_serve)
        {
            self.note("all was mended".to_owned());
        }
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
        let follow_one = leaders.is_some_and(|leaders| leaders.len() == 1 && !leaders.contains(&0));
        follow_one && self.takes_a_write().await
    }

    /// A leader is one whom the others let commit.
    async fn takes_a_write(&self) -> bool {
        let client = self.client.timeout(SIGN_TIMEOUT);
        client.keys().put(SIGN, "").send().await.is_ok()
    }

    /// Who leads now; somebody who could, if nobody says that it does.
    async fn leader(&self, random: &mut Rng) -> u64 {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && self.world.can_serve() {
            let headers = self.views.iter().map(View::header);
            let headers = futures::future::join_all(headers).await;
            let found = self.world.ids().zip(headers);
            let leading = found.filter_map(|(id, header)| Some((id, header?)));
            let leading = leading.filter(|(_, header)| header.leader_id == header.node_id);
            let newest = leading.max_by_key(|(_, header)| header.term);
            if let Some((id, _)) = newest {
                return id;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let awake = self.world.awake();
        random.choice(&awake).copied().unwrap_or(1)
    }

    /// Those that a fault of links was aimed at.
    fn troubled(&self) -> BTreeSet<u64> {
        let of_links = self.active.values().filter(|it| !it.directions.is_empty());
        of_links
            .filter_map(|it| it.nodes.first().copied())
            .collect()
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
