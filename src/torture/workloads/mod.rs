//! What clients do while harm is done: each workload notes what it asked and what it was told, and judges nothing.
//!
//! All of them go through the public client, over the fronts of the nodes, with little patience, so that calls are given up in
//! the middle. They stop when they are told to; whatever is under way then comes to its end.

pub mod bank;
pub mod board;
pub mod carts;
pub mod leases;
pub mod lists;
pub mod locks;
pub mod probes;
pub mod registers;
pub mod sessions;
pub mod watchers;

use std::time::Duration;

use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, ClientConfig, Error, Transport};
use crate::torture::tape::Stopwatch;

/// Of what must outlive the run.
pub const LONG_TTL_MS: u64 = 3_600_000;
/// Of what has an end that is waited for.
pub const SHORT_TTL_MS: u64 = 2_500;
/// Longest pause between two calls in the life of the latter: so long that a touch is stored, which is a tenth of the TTL.
const LINGER_MS: u64 = 600;

/// What all workloads are given.
#[derive(Debug, Clone)]
pub struct Context {
    /// The fronts of all nodes.
    pub endpoints: Vec<String>,
    /// The run's.
    pub stopwatch: Stopwatch,
    /// When to stop.
    pub stop: CancellationToken,
    /// The run's.
    pub seed: u64,
    /// Which one it is: what it writes has other names than what the rounds before have written.
    pub round: u32,
    /// The store's revision when it began.
    pub begins_at: u64,
    /// How many clients each workload has, in quarters: 4 is what a machine with two cores takes.
    pub clients: u32,
}

impl Context {
    /// A client with connections of its own: every other one sends unary calls, as other languages do.
    pub fn client(&self, number: u32, patience: Duration) -> Result<Client, Error> {
        let transport = if number.is_multiple_of(2) {
            Transport::Exchange
        } else {
            Transport::Unary
        };
        let config = ClientConfig::new(&self.endpoints)?;
        Client::connect(config.timeout(patience).transport(transport))
    }

    /// Random choices of one of its clients.
    #[must_use]
    pub fn random(&self, workload: &str, number: u32) -> Rng {
        let salt = workload.bytes().fold(u64::from(number), |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        let seed = self.seed.wrapping_add(u64::from(self.round) << 32);
        Rng::with_seed(seed.wrapping_mul(0x9e37_79b9).wrapping_add(salt))
    }

    /// So many, adjusted to the machine.
    #[must_use]
    pub fn count(&self, count: u32) -> u32 {
        (count * self.clients / 4).max(1)
    }

    /// Waits a moment, so that a client leaves time to others. `false` once it should stop.
    pub async fn pause(&self, random: &mut Rng, up_to_ms: u64) -> bool {
        let pause = Duration::from_micros(random.u64(0..=up_to_ms * 1000));
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(pause) => !self.stop.is_cancelled(),
        }
    }
}
