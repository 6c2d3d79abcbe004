//! The closed-loop benchmark: a fixed number of clients, each sending its next operation when the last one was answered.
//!
//! The same loop drives Trolley, etcd and Redis, so that they differ in nothing but the system. Latency is what a
//! client waited. A closed loop hides queueing that an open one would show: it answers "how much can these clients
//! get", not "how long does a request wait at a given rate".
//!
//! Deliberately absent: comparing. `scripts/bench.sh` interleaves runs and prints ratios.

mod cpu;
pub mod fan_out;
pub mod outage;
mod report;
pub mod trolley;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

pub use cpu::{CpuError, cpu_time};
pub use report::Report;

/// Longest latency that is told apart, in microseconds: a minute.
const MAX_MICROS: u64 = 60_000_000;
/// Significant digits of the histogram.
const DIGITS: u8 = 3;

/// What one client does, again and again.
pub trait Target: Send + Sync + 'static {
    /// What has to be there before the operation of the same number, made outside its latency. False if it needs nothing.
    fn prepare(
        &self,
        worker: usize,
        step: u64,
    ) -> impl Future<Output = Result<bool, String>> + Send {
        let _ = (worker, step);
        async { Ok(false) }
    }

    /// Operation number `step` of client `worker`. The error is a text because it is only counted and shown.
    fn operate(&self, worker: usize, step: u64) -> impl Future<Output = Result<(), String>> + Send;
}

/// How long and with how many clients.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Clients, each with one operation under way.
    pub clients: usize,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub duration: Duration,
    /// Processes whose CPU time is charged to the operations.
    pub server_pids: Vec<u32>,
}

/// A benchmark could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not one operation succeeded.
    #[error("no operation succeeded; the last error was: {0}")]
    Nothing(String),
    /// The servers' CPU time cannot be read.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The command that should cause an outage failed.
    #[error("the command failed: {0}")]
    Command(String),
    /// A watcher was not told what it should have been.
    #[error("a watch failed: {0}")]
    Watch(String),
    /// A client's task failed.
    #[error("a client's task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// What one client measured.
struct Tally {
    latencies: Latencies,
    errors: u64,
    last_error: String,
}

/// The latencies of all clients. A histogram for each would be a tenth of a megabyte for each, touched all over: many
/// clients would drive out of the caches what the systems under test have there.
struct Latencies {
    all: Arc<Mutex<Histogram<u64>>>,
    /// Of one client, in microseconds.
    fresh: Vec<u64>,
}

/// How many latencies a client gathers before it adds them to the others'.
const FRESH_LATENCIES: usize = 512;

/// The three phases, as every client sees them.
#[derive(Default)]
struct Phase {
    measuring: AtomicBool,
    over: AtomicBool,
}

/// Runs a plan against a target.
pub async fn run<T: Target>(plan: &Plan, target: Arc<T>) -> Result<Report, Error> {
    let phase = Arc::new(Phase::default());
    let histogram = Histogram::new_with_max(MAX_MICROS, DIGITS)
        .expect("the bounds are constants within its range");
    let latencies = Arc::new(Mutex::new(histogram));
    let mut clients = JoinSet::new();
    for worker in 0..plan.clients {
        let tally = Tally::new(Latencies::new(&latencies));
        clients.spawn(client(
            worker,
            Arc::clone(&target),
            Arc::clone(&phase),
            tally,
        ));
    }
    tokio::time::sleep(plan.warm_up).await;
    let cpu_before = cpu_time(&plan.server_pids)?;
    let begun = Instant::now();
    phase.measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(plan.duration).await;
    phase.over.store(true, Ordering::Relaxed);
    let elapsed = begun.elapsed();
    let cpu = cpu_time(&plan.server_pids)?.saturating_sub(cpu_before);

    let mut total = Tally::new(Latencies::new(&latencies));
    while let Some(tally) = clients.join_next().await {
        total.add(tally?);
    }
    let latency = lock(&latencies);
    if latency.is_empty() {
        return Err(Error::Nothing(total.last_error));
    }
    Ok(Report::new(plan, &total, &latency, elapsed, cpu))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counting does not panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn client<T: Target>(
    worker: usize,
    target: Arc<T>,
    phase: Arc<Phase>,
    mut tally: Tally,
) -> Tally {
    let mut step = 0;
    // The end of an operation is the beginning of the next: looking at the clock is a part of what a load generator costs.
    let mut free = Instant::now();
    while !phase.over.load(Ordering::Relaxed) {
        let (begun, outcome) = match target.prepare(worker, step).await {
            Ok(false) => (free, target.operate(worker, step).await),
            Ok(true) => (Instant::now(), target.operate(worker, step).await),
            Err(error) => (free, Err(error)),
        };
        free = Instant::now();
        step += 1;
        let in_time =
            phase.measuring.load(Ordering::Relaxed) && !phase.over.load(Ordering::Relaxed);
        match outcome {
            Ok(()) if in_time => tally.latencies.record(free - begun),
            Ok(()) => {}
            Err(error) => tally.fail(error),
        }
    }
    tally
}

impl Latencies {
    fn new(all: &Arc<Mutex<Histogram<u64>>>) -> Self {
        Self {
            all: Arc::clone(all),
            fresh: Vec::with_capacity(FRESH_LATENCIES),
        }
    }

    fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.fresh.push(micros);
        if self.fresh.len() == FRESH_LATENCIES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut all = lock(&self.all);
        for micros in self.fresh.drain(..) {
            all.saturating_record(micros);
        }
    }
}

impl Drop for Latencies {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Tally {
    fn new(latencies: Latencies) -> Self {
        Self {
            latencies,
            errors: 0,
            last_error: String::new(),
        }
    }

    fn fail(&mut self, error: String) {
        self.errors += 1;
        self.last_error = error;
    }

    fn add(&mut self, other: Self) {
        self.errors += other.errors;
        if !other.last_error.is_empty() {
            self.last_error = other.last_error;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers at once, and fails every third time.
    struct Thirds;

    impl Target for Thirds {
        async fn operate(&self, _: usize, step: u64) -> Result<(), String> {
            tokio::task::yield_now().await;
            if step % 3 == 2 {
                Err("a third".to_owned())
            } else {
                Ok(())
            }
        }
    }

    fn plan() -> Plan {
        Plan {
            clients: 4,
            warm_up: Duration::from_millis(10),
            duration: Duration::from_millis(50),
            server_pids: vec![std::process::id()],
        }
    }

    #[tokio::test]
    async fn successes_and_failures_are_told_apart() {
        let report = run(&plan(), Arc::new(Thirds)).await.expect("some succeed");
        assert!(report.operations > 0);
        assert!(report.errors > 0);
        assert!(report.p50_us <= report.p99_us && report.p99_us <= report.max_us);
    }

    /// Never succeeds.
    struct Broken;

    impl Target for Broken {
        async fn operate(&self, _: usize, _: u64) -> Result<(), String> {
            tokio::task::yield_now().await;
            Err("broken".to_owned())
        }
    }

    #[tokio::test]
    async fn a_run_without_a_success_is_an_error() {
        let error = run(&plan(), Arc::new(Broken))
            .await
            .expect_err("nothing succeeds");
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
