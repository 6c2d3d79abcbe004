//! One run: nodes start, clients work while things go wrong, everything heals, and what must be true is looked at.
//!
//! Simulated time goes on by [`STEP_MS`] at a time: first messages that are due are delivered, then each node runs up to
//! the end of the step, then the clients do. All of it on one thread, in this order, with random numbers of one seed, so
//! that the seed is the run.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio_util::task::TaskTracker;
use trolley::raft::LogId;
use trolley::torture::linearizability::{self, Verdict};

use crate::bugs::Bug;
use crate::clients::{self, Shop};
use crate::ledger::Violation;
use crate::network::STEP_MS;
use crate::node::SimNode;
use crate::plan::Plan;
use crate::world::World;

/// The first leader is elected by then.
const FOUNDING_MS: u64 = 5_000;
/// Everything has recovered so long after the heal.
const RECOVERY_MS: u64 = 8_000;
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

/// Runs it. A panic is a violation like any other.
pub fn run(config: Config) -> Report {
    let world = World::new(config.seed, config.bug, config.is_told);
    // What openraft and the node themselves draw.
    fastrand::seed(config.seed);
    let mut run = Run::new(Arc::clone(&world), config);
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| run.go()));
    if ended.is_err() {
        world.ledger.fail("panic", "see the output");
    }
    let (hash, events) = world.trace.digest();
    Report {
        seed: config.seed,
        nodes: run.shop.nodes,
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
    nodes: Vec<SimNode>,
    plan: Plan,
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
        let nodes = (1..=count).map(|id| SimNode::new(Arc::clone(&world), id, count));
        let nodes = nodes.collect();
        let plan = Plan::new(Arc::clone(&world), 1_000);
        let shop = Shop::new(Arc::clone(&world), count);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O");
        let began = runtime.block_on(async { tokio::time::Instant::now() });
        Self {
            world,
            config,
            nodes,
            plan,
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
        let are_equal = |run: &Self| {
            let last = run.world.ledger.last_applied().map_or(0, |id| id.index);
            let are_there = run.nodes.iter().all(|node| node.applied() == last);
            are_there && run.nodes.iter().all(SimNode::knows_leader)
        };
        self.until(RECOVERY_MS, "equal nodes and a leader", are_equal)?;
        self.judge();
        Ok(())
    }

    fn open_shop(&self) {
        let _inside = self.runtime.enter();
        for process in 0..4 {
            self.tasks
                .spawn(clients::registers(Arc::clone(&self.shop), process));
        }
        for number in 1..=2 {
            self.tasks
                .spawn(clients::cart(Arc::clone(&self.shop), number));
        }
        self.tasks.spawn(clients::sessions(Arc::clone(&self.shop)));
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
            self.world.net.flush(&self.world);
        }
        let until_at = self.began + Duration::from_millis(until);
        self.runtime
            .block_on(async { tokio::time::sleep_until(until_at).await });
        self.world.net.flush(&self.world);
        self.check_durability();
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
        let holders = self.nodes.iter().filter(|node| node.holds(id)).count();
        if holders * 2 <= self.nodes.len() {
            let detail = format!("{id} is applied, and synced on {holders} nodes");
            self.world.ledger.fail("durability", detail);
        }
    }

    /// What can only be judged at the end.
    fn judge(&self) {
        let states: Vec<_> = self.nodes.iter().filter_map(SimNode::state).collect();
        for (node, pair) in (1..).zip(states.windows(2)) {
            if pair[0] != pair[1] {
                let detail = format!("nodes {node} and {} differ byte for byte", node + 1);
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
                    self.world.trace.note(format_args!("{key} was not judged"));
                }
            },
        }
    }
}
