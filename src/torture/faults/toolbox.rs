//! Faults that take tools of the machine: disks of their own, `strace` for syncs, a C compiler for clocks; and damage to files.
//!
//! What is missing is found out before the run, and such faults are skipped with the reason.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::chronicle::Chronicle;
use super::clocks::Clocks;
use super::damage::Damage;
use super::disks::Disks;
use super::syncs::{Failing, Tracer};
use super::{Kind, Proof};
use crate::torture::cluster::Cluster;

/// The exit codes of a node that found damage: at its start, and later.
const FOUND_AT_START: i32 = 3;
const FOUND_LATER: i32 = 5;
/// That of one whose disk fails.
const NO_DISK: i32 = 8;

/// What this machine can do, and what is under way.
#[derive(Debug, Default)]
pub struct Toolbox {
    lacks: BTreeMap<Kind, String>,
    disks: Option<Disks>,
    clocks: Option<Clocks>,
    tracers: BTreeMap<u64, Tracer>,
    damage: BTreeMap<u64, Damage>,
    /// How often a node had looked at its clock before that jumped.
    looks_before: BTreeMap<u64, u64>,
    folder: PathBuf,
}

/// What a fault does to nodes beside its own harm.
#[derive(Debug, Default)]
pub(super) struct Doom {
    /// They are down while it lasts.
    pub down: Vec<u64>,
    /// They may end by themselves while it lasts.
    pub may_die: Vec<u64>,
    /// What was seen at once.
    pub proof: Option<Proof>,
}

impl Toolbox {
    /// What it takes for these kinds.
    pub fn find(kinds: &[Kind], folder: &Path, nodes: u64) -> io::Result<Self> {
        let mut toolbox = Self {
            folder: folder.to_owned(),
            ..Self::default()
        };
        let wants = |kind: &Kind| kinds.contains(kind);
        if kinds.iter().any(|kind| kind.needs_disks()) {
            match Disks::make(folder, nodes) {
                Ok(disks) => toolbox.disks = Some(disks),
                Err(error) => {
                    let why = format!("it takes root and loop devices: {error}");
                    let on_disks = Kind::ALL.into_iter().filter(|kind| kind.needs_disks());
                    toolbox
                        .lacks
                        .extend(on_disks.map(|kind| (kind, why.clone())));
                }
            }
        }
        if (wants(&Kind::SlowSync) || wants(&Kind::FailedSync))
            && let Err(error) = Tracer::is_there()
        {
            let why = format!("it takes strace and the right to use it: {error}");
            toolbox.lacks.insert(Kind::SlowSync, why.clone());
            toolbox.lacks.insert(Kind::FailedSync, why);
        }
        if wants(&Kind::ClockJump) {
            match Clocks::make(folder, nodes) {
                Ok(clocks) => toolbox.clocks = Some(clocks),
                Err(error) => {
                    let why = format!("it takes a C compiler: {error}");
                    toolbox.lacks.insert(Kind::ClockJump, why);
                }
            }
        }
        Ok(toolbox)
    }

    /// Where nodes must keep their data; nowhere in particular if it is empty.
    #[must_use]
    pub fn places(&self) -> Vec<PathBuf> {
        self.disks.as_ref().map(Disks::places).unwrap_or_default()
    }

    /// What nodes must have in their environment.
    #[must_use]
    pub fn environment(&self) -> Vec<Vec<(String, String)>> {
        let clocks = self.clocks.as_ref();
        clocks.map(Clocks::environment).unwrap_or_default()
    }

    /// Why a kind cannot be carried out here, if it cannot.
    #[must_use]
    pub fn lacks(&self, kind: Kind) -> Option<String> {
        self.lacks.get(&kind).cloned()
    }

    /// Nothing of it is needed any more.
    pub(super) async fn put_away(&mut self) -> io::Result<()> {
        for (_, mut tracer) in std::mem::take(&mut self.tracers) {
            tracer.stop().await?;
        }
        Ok(())
    }

    /// Its disks: whoever looks at the data of the nodes in the end has to have them.
    pub(super) fn into_disks(self) -> Option<Disks> {
        self.disks
    }

    pub(super) async fn begin(
        &mut self,
        kind: Kind,
        nodes: &[u64],
        cluster: &mut Cluster,
        random: &mut Rng,
    ) -> io::Result<Doom> {
        if let Some(why) = self.lacks(kind) {
            return Ok(Doom {
                proof: Some(Proof::Skipped(why)),
                ..Doom::default()
            });
        }
        let Some(node) = nodes.first().copied() else {
            return Ok(Doom::default());
        };
        match kind {
            Kind::PowerCut | Kind::PowerCutAll => {
                let proof = self.cut(nodes, cluster).await?;
                Ok(Doom {
                    down: nodes.to_vec(),
                    proof,
                    ..Doom::default()
                })
            }
            Kind::FullDisk => self.fill(node),
            Kind::SlowSync => {
                self.trace(node, cluster, Failing::Slow(random.u64(5..40)))
                    .await
            }
            Kind::FailedSync => self.trace(node, cluster, Failing::Error).await,
            Kind::ClockJump => self.jump(node, random),
            Kind::Damage => self.damage(node, cluster, random).await,
            _ => Ok(Doom::default()),
        }
    }

    pub(super) async fn end(
        &mut self,
        kind: Kind,
        nodes: &[u64],
        cluster: &mut Cluster,
        chronicle: &Chronicle,
        begun_us: u64,
    ) -> io::Result<Proof> {
        let Some(node) = nodes.first().copied() else {
            return Ok(Proof::Unproven("no node was up".to_owned()));
        };
        let mut deaths = chronicle.deaths.iter().rev();
        let death = deaths.find(|death| death.node == node && death.at_us >= begun_us);
        let code = death.and_then(|death| death.code);
        match kind {
            Kind::FullDisk => {
                let died = death.map_or(String::new(), |_| format!("; it ended with {code:?}"));
                if let Some(disks) = &self.disks {
                    disks.empty(node);
                }
                Ok(Proof::Proven(format!("node {node} had no byte left{died}")))
            }
            Kind::SlowSync | Kind::FailedSync => match self.tracers.remove(&node) {
                None => Ok(Proof::Unproven("it was not traced".to_owned())),
                Some(mut tracer) => {
                    let count = tracer.stop().await?;
                    let seen = format!("{count} syncs of node {node}; its end: {code:?}");
                    Ok(Proof::of(count > 0, seen))
                }
            },
            Kind::ClockJump => {
                let Some(clocks) = &self.clocks else {
                    return Ok(Proof::Unproven("there are no clocks".to_owned()));
                };
                clocks.set(node, 0)?;
                let before = self.looks_before.remove(&node).unwrap_or(0);
                let looks = clocks.looks(node)? - before;
                let seen = format!("node {node} looked {looks} times at a clock that was wrong");
                Ok(Proof::of(looks > 0, seen))
            }
            Kind::Damage => self.repair(node, cluster, code).await,
            _ => Ok(Proof::Unproven("nothing was looked at".to_owned())),
        }
    }

    /// Cuts the power of these: what was seen of it. They do not run any more.
    pub(super) async fn cut(
        &self,
        nodes: &[u64],
        cluster: &mut Cluster,
    ) -> io::Result<Option<Proof>> {
        let Some(disks) = &self.disks else {
            return Ok(None);
        };
        disks.cut(nodes)?;
        for node in nodes {
            cluster.kill(*node).await?;
            // Until then it may have noticed that its disk is gone.
            cluster.excuse(*node, &[FOUND_LATER, NO_DISK]);
        }
        let is_lost = disks.restore(nodes)?;
        let seen = format!("what nodes {nodes:?} had not synced is gone");
        Ok(Some(Proof::of(is_lost, seen)))
    }

    fn fill(&mut self, node: u64) -> io::Result<Doom> {
        let Some(disks) = &self.disks else {
            return Ok(Doom::default());
        };
        let is_full = disks.fill(node)?;
        let not_full = Proof::Unproven("it still takes bytes".to_owned());
        Ok(Doom {
            may_die: vec![node],
            proof: (!is_full).then_some(not_full),
            ..Doom::default()
        })
    }

    async fn trace(&mut self, node: u64, cluster: &Cluster, how: Failing) -> io::Result<Doom> {
        let may_die = match how {
            Failing::Slow(_) => Vec::new(),
            Failing::Error => vec![node],
        };
        if let Some(pid) = cluster.node(node).pid() {
            let notes = self.folder.join(format!("strace-{node}.txt"));
            let tracer = Tracer::attach(pid, how, &notes).await?;
            self.tracers.insert(node, tracer);
        }
        Ok(Doom {
            may_die,
            ..Doom::default()
        })
    }

    fn jump(&mut self, node: u64, random: &mut Rng) -> io::Result<Doom> {
        if let Some(clocks) = &self.clocks {
            self.looks_before.insert(node, clocks.looks(node)?);
            clocks.set(node, if random.bool() { 3_600 } else { -3_600 })?;
        }
        Ok(Doom::default())
    }

    async fn damage(
        &mut self,
        node: u64,
        cluster: &mut Cluster,
        random: &mut Rng,
    ) -> io::Result<Doom> {
        cluster.kill(node).await?;
        let copy = self.folder.join(format!("undamaged-{node}"));
        let damage = Damage::inflict(cluster.node(node).data(), &copy, random)?;
        self.damage.insert(node, damage);
        cluster.start(node)?;
        Ok(Doom {
            may_die: vec![node],
            ..Doom::default()
        })
    }

    /// A node that has refused to start has done nothing since, so its data may become what it was. One that has found damage
    /// later has voted and acknowledged since: what was not damaged must stay.
    async fn repair(
        &mut self,
        node: u64,
        cluster: &mut Cluster,
        code: Option<i32>,
    ) -> io::Result<Proof> {
        let Some(damage) = self.damage.remove(&node) else {
            return Ok(Proof::Unproven("nothing was damaged".to_owned()));
        };
        let what = damage.what().to_owned();
        let seen = match code {
            Some(FOUND_AT_START) => {
                damage.undo_all()?;
                format!("{what}: refused")
            }
            Some(FOUND_LATER) => {
                cluster.kill(node).await?;
                damage.undo_state()?;
                format!("{what}: found later")
            }
            Some(code) => format!("{what}: ended with exit code {code}"),
            None => {
                damage.forget()?;
                format!("{what}: did not matter")
            }
        };
        Ok(Proof::Proven(seen))
    }
}
