//! One run: nodes start, clients work while things go wrong, everything heals, and what must be true is looked at.
//!
//! Simulated time goes on by [`STEP_MS`] at a time: first messages that are due are delivered, then each node runs up to
//! the end of the step, then the clients do. All of it on one thread, in this order, with random numbers of one seed, so
//! that the seed is the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio_util::task::TaskTracker;
use trolley::raft::LogId;
use trolley::torture::linearizability::{self, Verdict};
use trolley::types::StateVersion;

use crate::bugs::Bug;
use crate::clients::{self, Shop};
use crate::ledger::Violation;
use crate::network::STEP_MS;
use crate::node::{NEXT, SimNode};
use crate::operators::{Works, operator};
use crate::panics;
use crate::plan::Plan;
use crate::roster::Changes;
use crate::world::World;

/// The first leader is elected by then.
const FOUNDING_MS: u64 = 5_000;
/// Everything has recovered so long after the heal.
const RECOVERY_MS: u64 = 8_000;
/// How often nodes look whether they need a snapshot.
const LOOK_MS: u64 = 1_000;
/// Steps of a search for an order of a register's operations.
const SEARCH_BUDGET: u64 = 200_000;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub seed: u64,
    pub bug: Option<Bug>,
    /// How long things go wrong.
    pub faults_ms: u64,
    /// Tell every event.
    pub is_told: bool,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// That founded the cluster.
    pub nodes: u64,
    pub violation: Option<Violation>,
    /// Of the trace.
    pub hash: u64,
    pub events: u64,
    pub ended_ms: u64,
    pub applied: u64,
    /// What happened, and how often.
    pub counts: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} nodes, {} ms, {} events, hash {:016x}, {} entries, {:?}",
            self.seed, self.nodes, self.ended_ms, self.events, self.hash, self.applied, self.counts
        )?;
        match &self.violation {
            None => Ok(()),
            Some(violation) => write!(f, "\n{violation}"),
        }
    }
}

/// Runs it, on a thread of its own. A panic is a violation like any other.
pub fn run(config: Config) -> Report {
    panics::note();
    let world = World::new(config.seed, config.bug, config.is_told);
    // What openraft and the node themselves draw.
    fastrand::seed(config.seed);
    let mut run = Run::new(Arc::clone(&world), config);
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| run.go()));
    if let Some(text) = panics::first() {
        world.ledger.fail("panic", text);
    } else if ended.is_err() {
        world.ledger.fail("panic", "see the output");
    }
    let (hash, events) = world.trace.digest();
    Report {
        seed: config.seed,
        nodes: run.founders,
        violation: world.ledger.violation(),
        hash,
        events,
        ended_ms: world.trace.now(),
        applied: world.ledger.last_applied().map_or(0, |id| id.index),
        counts: world.ledger.counts(),
    }
}

struct Run {
    world: Arc<World>,
    config: Config,
    founders: u64,
    nodes: Vec<SimNode>,
    plan: Plan,
    /// In the end every program is the newer one.
    upgrades: bool,
    shop: Arc<Shop>,
    tasks: TaskTracker,
    runtime: tokio::runtime::Runtime,
    began: tokio::time::Instant,
    /// The last entry whose durability was looked at.
    checked: Option<LogId>,
}

/// A check failed.
struct Failed;

impl Run {
    fn new(world: Arc<World>, config: Config) -> Self {
        let count = if world.chance(25) { 5 } else { 3 };
        world.roster.found(count);
        let nodes = (1..=count).map(|id| SimNode::new(Arc::clone(&world), id, count));
        let nodes = nodes.collect();
        let upgrades = world.chance(50);
        let plan = Plan::new(Arc::clone(&world), 1_000, upgrades);
        let shop = Shop::new(Arc::clone(&world));
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O");
        let began = runtime.block_on(async { tokio::time::Instant::now() });
        Self {
            world,
            config,
            founders: count,
            nodes,
            plan,
            upgrades,
            shop,
            tasks: TaskTracker::new(),
            runtime,
            began,
            checked: None,
        }
    }

    fn go(&mut self) {
        // The ledger has what failed.
        drop(self.try_go());
    }

    fn try_go(&mut self) -> Result<(), Failed> {
        for node in &mut self.nodes {
            node.start();
        }
        let has_leader = |run: &Self| run.nodes.iter().any(SimNode::leads);
        self.until(FOUNDING_MS, "a first leader", has_leader)?;
        self.open_shop();
        let end = self.world.trace.now() + self.config.faults_ms;
        while self.world.trace.now() < end {
            self.plan.act(&mut self.nodes);
            self.step()?;
        }
        self.plan.heal(&mut self.nodes);
        self.shop.healed.store(true, Ordering::Relaxed);
        self.tasks.close();
        let are_done = |run: &Self| run.tasks.is_empty();
        self.until(RECOVERY_MS, "the end of every operation", are_done)?;
        self.finish_upgrade()?;
        let are_equal = |run: &Self| {
            let last = run.world.ledger.last_applied().map_or(0, |id| id.index);
            let follows = if run.upgrades {
                NEXT
            } else {
                StateVersion::FIRST
            };
            run.members().all(|node| {
                let is_there = node.applied() == last && node.follows() == Some(follows);
                is_there && node.knows_leader()
            })
        };
        self.until(RECOVERY_MS, "equal nodes and a leader", are_equal)?;
        self.judge();
        Ok(())
    }

    /// Replaces what is left of the older programs, one after the other.
    fn finish_upgrade(&mut self) -> Result<(), Failed> {
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            if !self.upgrades || node.program == NEXT || !node.is_present() {
                continue;
            }
            self.world.ledger.count("upgrade");
            node.program = NEXT;
            node.crash();
            node.start();
            let knows_leader = |run: &Self| run.nodes[place].knows_leader();
            self.until(RECOVERY_MS, "a leader after an upgrade", knows_leader)?;
        }
        Ok(())
    }

    fn members(&self) -> impl Iterator<Item = &SimNode> {
        let members = self.world.roster.members();
        let nodes = self.nodes.iter();
        nodes.filter(move |node| members.contains(&node.id))
    }

    fn open_shop(&self) {
        let _inside = self.runtime.enter();
        for process in 0..4 {
            self.tasks
                .spawn(clients::registers(Arc::clone(&self.shop), process));
        }
        for process in 4..6 {
            self.tasks
                .spawn(clients::readers(Arc::clone(&self.shop), process));
        }
        for number in 1..=2 {
            self.tasks
                .spawn(clients::cart(Arc::clone(&self.shop), number));
        }
        self.tasks.spawn(clients::sessions(Arc::clone(&self.shop)));
        let works = Works::default();
        for _ in 0..2 {
            self.tasks
                .spawn(operator(Arc::clone(&self.shop), Arc::clone(&works)));
        }
    }

    fn until(
        &mut self,
        within_ms: u64,
        what: &str,
        is_met: impl Fn(&Self) -> bool,
    ) -> Result<(), Failed> {
        let end = self.world.trace.now() + within_ms;
        while !is_met(self) {
            if self.world.trace.now() >= end {
                let detail = format!("{what}: not after {within_ms} ms");
                self.world.ledger.fail("liveness", detail);
                return Err(Failed);
            }
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Failed> {
        let now = self.world.trace.now();
        let until = now + STEP_MS;
        self.world.net.deliver(&self.world, now);
        self.world.net.flush(&self.world);
        for node in &mut self.nodes {
            node.step(until);
            if until.is_multiple_of(LOOK_MS) {
                node.look();
            }
            self.world.net.flush(&self.world);
        }
        let until_at = self.began + Duration::from_millis(until);
        self.runtime
            .block_on(async { tokio::time::sleep_until(until_at).await });
        self.world.net.flush(&self.world);
        self.check_durability();
        self.change_roster();
        self.world.trace.set_now(until);
        match self.world.ledger.violation() {
            None => Ok(()),
            Some(_) => Err(Failed),
        }
    }

    /// What is applied survives a crash of every node.
    fn check_durability(&mut self) {
        let last = self.world.ledger.last_applied();
        let Some(id) = last.filter(|_| last != self.checked) else {
            return;
        };
        self.checked = last;
        let holders = self.nodes.iter().filter(|node| node.holds(id));
        let holders: BTreeSet<u64> = holders.map(|node| node.id).collect();
        let voters = self.world.ledger.voters_of(id);
        let is_safe =
            |voters: &BTreeSet<u64>| 2 * voters.intersection(&holders).count() > voters.len();
        if !voters.iter().any(is_safe) {
            let detail = format!("{id} is applied, synced on {holders:?}, and {voters:?} vote");
            self.world.ledger.fail("durability", detail);
        }
    }

    /// What operators want begins and ends.
    fn change_roster(&mut self) {
        let Changes {
            begun,
            ended,
            emptied,
        } = self.world.roster.take_changes();
        for id in begun {
            let mut node = SimNode::new(Arc::clone(&self.world), id, 0);
            if self.upgrades {
                node.program = NEXT;
            }
            node.start();
            self.nodes.push(node);
        }
        for node in &mut self.nodes {
            if ended.contains(&node.id) {
                node.end();
            }
            if emptied.contains(&node.id) {
                node.empty();
            }
        }
    }

    /// What can only be judged at the end.
    fn judge(&self) {
        let members = self.world.roster.members();
        for node in self.members() {
            let voters = node.voters();
            if voters.as_ref() != Some(&members) {
                let detail = format!("node {}: {voters:?} vote, not {members:?}", node.id);
                self.world.ledger.fail("members", detail);
            }
        }
        let states = self.members().map(|node| (node.id, node.state()));
        let states: Vec<_> = states.collect();
        for pair in states.windows(2) {
            let [(one, its), (other, others)] = pair else {
                continue;
            };
            if its != others {
                let detail = format!("nodes {one} and {other} differ byte for byte");
                self.world.ledger.fail("equal states", detail);
            }
        }
        match self.shop.recorder.history() {
            Err(error) => self.world.ledger.fail("history", error.to_string()),
            Ok(history) => match linearizability::check(&history, SEARCH_BUDGET) {
                Verdict::Valid => {}
                Verdict::Invalid(found) => {
                    self.world.ledger.fail("linearizability", found.to_string());
                }
                Verdict::Unknown { key, .. } => {
                    let detail = format!("{key}: the search took too long");
                    self.world.ledger.fail("not judged", detail);
                }
            },
        }
    }
}
