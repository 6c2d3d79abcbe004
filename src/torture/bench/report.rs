//! What a benchmark run found.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Plan, Tally};

/// The figures of one run. Times are microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Clients, each with one operation under way.
    pub clients: usize,
    /// Operations that succeeded while it was measured.
    pub operations: u64,
    /// Operations that failed, warm-up included.
    pub errors: u64,
    /// The last failure; empty if there was none.
    pub last_error: String,
    /// Measured time.
    pub seconds: f64,
    /// Successful operations a second.
    pub operations_per_second: f64,
    /// Median latency.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
    /// CPU time of all servers together for one operation; absent when no server was named.
    pub server_cpu_us_per_operation: Option<f64>,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        tally: &Tally,
        latency: &Histogram<u64>,
        elapsed: Duration,
        cpu: Duration,
    ) -> Self {
        let operations = latency.len();
        let count = as_float(operations);
        let cpu_per_operation = cpu.as_secs_f64() * 1e6 / count;
        Self {
            clients: plan.clients,
            operations,
            errors: tally.errors,
            last_error: tally.last_error.clone(),
            seconds: elapsed.as_secs_f64(),
            operations_per_second: count / elapsed.as_secs_f64(),
            p50_us: latency.value_at_quantile(0.5),
            p99_us: latency.value_at_quantile(0.99),
            p999_us: latency.value_at_quantile(0.999),
            max_us: latency.max(),
            server_cpu_us_per_operation: (!plan.server_pids.is_empty())
                .then_some(cpu_per_operation),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than 52 bits of a count"
)]
pub(super) fn as_float(count: u64) -> f64 {
    count as f64
}
