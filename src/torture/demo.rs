//! What a newcomer sees first: a cart under load while the leader is killed, and an account of every write.
//!
//! Many tasks add single pieces to the lines of one guest's cart. Each add is counted by how it ended: acknowledged,
//! refused for certain, or unknown. In the end the cart must hold at least what was acknowledged, and at most that plus
//! the unknown: what is missing was lost, what is too much was applied twice.
//!
//! Deliberately absent: printing. `cli` shows the [`Report`].

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::client::{CartOwner, Client, Error, Outcome};

/// Between two probes for an acknowledged write.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// How long one add may take, retries included: longer than any election.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Tasks that add at the same time.
    pub clients: usize,
    /// Adds in all.
    pub adds: u64,
    /// Lines of the cart.
    pub skus: u64,
    /// Run by the shell when half of the adds are acknowledged.
    pub kill_command: Option<String>,
}

/// What became of the writes.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Adds that were acknowledged.
    pub acknowledged: u64,
    /// Adds that may or may not have been applied.
    pub unknown: u64,
    /// Adds that were certainly not applied.
    pub not_applied: u64,
    /// Pieces that were acknowledged and are not in the cart.
    pub lost: u64,
    /// Pieces in the cart that nobody asked for.
    pub applied_twice: u64,
    /// Longest time without an acknowledged probe, around the kill.
    pub without_leader_ms: Option<u64>,
    /// Time for all adds.
    pub elapsed_ms: u64,
    /// The leader at the end.
    pub leader: Option<String>,
}

impl Report {
    /// Nothing was lost or doubled.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.applied_twice == 0
    }
}

/// The demonstration could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The cluster refused something that cannot be done without.
    #[error("{what}: {source}")]
    Client {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: Error,
    },
    /// The command that kills the leader failed.
    #[error("the kill command failed: {0}")]
    Kill(String),
    /// A task failed.
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// How the adds of one line ended.
#[derive(Default)]
struct Line {
    acknowledged: AtomicU64,
    unknown: AtomicU64,
}

/// Shared by the tasks.
struct Load {
    client: Client,
    owner: CartOwner,
    lines: Vec<Line>,
    next: AtomicU64,
    adds: u64,
    not_applied: AtomicU64,
    acknowledged: AtomicU64,
}

/// Runs the plan. `progress` is told how many adds have ended, now and then.
pub async fn run(client: Client, plan: &Plan, progress: impl Fn(u64)) -> Result<Report, DemoError> {
    // Nobody has killed anything yet: it has the time that every call has.
    let session = client.sessions().create().send().await;
    let session = session.map_err(|source| DemoError::Client {
        what: "cannot create a guest session",
        source,
    })?;
    let load = Arc::new(Load {
        owner: CartOwner::Session(session.value.token),
        lines: (0..plan.skus).map(|_| Line::default()).collect(),
        next: AtomicU64::new(0),
        adds: plan.adds,
        not_applied: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        client,
    });
    let begun = Instant::now();
    let stop_probes = CancellationToken::new();
    let mut probes = JoinSet::new();
    probes.spawn(probe(load.client.clone(), stop_probes.clone()));
    let mut tasks = JoinSet::new();
    for _ in 0..plan.clients {
        let load = Arc::clone(&load);
        tasks.spawn(async move { load.add_all().await });
    }

    let killed = follow(&load, plan, &mut tasks, progress).await?;
    let elapsed = begun.elapsed();
    stop_probes.cancel();
    let gap = probes.join_next().await.transpose()?.unwrap_or_default();
    let mut report = load.account().await?;
    report.elapsed_ms = millis(elapsed);
    report.without_leader_ms = killed.then(|| millis(gap));
    Ok(report)
}

/// Waits for the tasks, kills the leader when half is done, and says whether it did.
async fn follow(
    load: &Load,
    plan: &Plan,
    tasks: &mut JoinSet<()>,
    progress: impl Fn(u64),
) -> Result<bool, DemoError> {
    let mut kill_command = plan.kill_command.as_deref();
    let killing = kill_command.is_some();
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while !tasks.is_empty() {
        tokio::select! {
            ended = tasks.join_next() => { ended.transpose()?; }
            _ = look.tick() => {
                let done = load.acknowledged.load(Ordering::Relaxed);
                progress(done);
                if done * 2 >= plan.adds && let Some(command) = kill_command.take() {
                    kill(command).await?;
                }
            }
        }
    }
    progress(load.acknowledged.load(Ordering::Relaxed));
    Ok(killing)
}

async fn kill(command: &str) -> Result<(), DemoError> {
    let output = tokio::process::Command::new("sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .output()
        .await;
    let output = output.map_err(|e| DemoError::Kill(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DemoError::Kill(format!("{} ({said})", output.status)))
}

/// Puts a key again and again and returns the longest time between two acknowledgements.
async fn probe(client: Client, stop: CancellationToken) -> Duration {
    let mut interval = tokio::time::interval(PROBE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return longest,
            _ = interval.tick() => {}
        }
        let put = client
            .keys()
            .put("demo-probe", "x")
            .timeout(PATIENCE)
            .send();
        tokio::select! {
            () = stop.cancelled() => return longest,
            outcome = put => if outcome.is_ok() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            },
        }
    }
}

impl Load {
    async fn add_all(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.adds {
                return;
            }
            let sku = number % self.lines.len() as u64;
            let line =
                &self.lines[usize::try_from(sku).expect("it is less than the number of lines")];
            let add = self
                .client
                .carts()
                .add(&self.owner, sku_name(sku), 1)
                .timeout(PATIENCE)
                .send();
            match add.await {
                Ok(_) => {
                    line.acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.outcome() == Outcome::NotApplied => {
                    self.not_applied.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    line.unknown.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Holds the cart against what was acknowledged, line by line.
    async fn account(&self) -> Result<Report, DemoError> {
        let cart = self
            .client
            .carts()
            .get(&self.owner)
            .timeout(PATIENCE)
            .send()
            .await;
        let cart = cart.map_err(|source| DemoError::Client {
            what: "cannot read the cart",
            source,
        })?;
        let mut report = Report {
            acknowledged: 0,
            unknown: 0,
            not_applied: self.not_applied.load(Ordering::Relaxed),
            lost: 0,
            applied_twice: 0,
            without_leader_ms: None,
            elapsed_ms: 0,
            leader: self.client.leader_address(),
        };
        for (sku, line) in (0_u64..).zip(&self.lines) {
            let found = cart
                .value
                .lines
                .iter()
                .filter(|found| found.sku == sku_name(sku));
            let found: u64 = found.map(|found| u64::from(found.quantity)).sum();
            let acknowledged = line.acknowledged.load(Ordering::Relaxed);
            let unknown = line.unknown.load(Ordering::Relaxed);
            report.acknowledged += acknowledged;
            report.unknown += unknown;
            report.lost += acknowledged.saturating_sub(found);
            report.applied_twice += found.saturating_sub(acknowledged + unknown);
        }
        Ok(report)
    }
}

fn sku_name(sku: u64) -> String {
    format!("demo-{sku}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
