//! How long a cluster takes no writes after something was done to it.
//!
//! A probe begins every few milliseconds, whatever became of those before it, as the clients of a busy service would. The
//! outage lasts from the moment the command is run to the first success of a probe that began after it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Error, Target};

/// Between two probes: the resolution of the result.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);
/// Probes under way; those of a long outage wait for each other.
const PROBES: usize = 2048;
/// A cluster that does not come back in this time does not come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Outage {
    /// From the command to the next success, in milliseconds.
    pub outage_ms: u64,
}

/// Runs a command by the shell, and measures the outage that it causes. The command should do its harm at once: what it
/// does before counts as outage.
pub async fn measure<T: Target>(target: Arc<T>, command: &str) -> Result<Outage, Error> {
    // The target works, and its connections are made.
    target.operate(0, 0).await.map_err(Error::Nothing)?;
    let begun = Instant::now();
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null());
    let status = shell.status().await;
    let status = status.map_err(|e| Error::Command(e.to_string()))?;
    if !status.success() {
        return Err(Error::Command(status.to_string()));
    }
    let first = first_success(target);
    let ended = tokio::time::timeout(PATIENCE, first)
        .await
        .map_err(|_| Error::Nothing(format!("{PATIENCE:?} passed after the command")))??;
    let outage = ended.saturating_duration_since(begun);
    Ok(Outage {
        outage_ms: u64::try_from(outage.as_millis()).unwrap_or(u64::MAX),
    })
}

async fn first_success<T: Target>(target: Arc<T>) -> Result<Instant, Error> {
    let mut probes = JoinSet::new();
    let mut interval = tokio::time::interval(PROBE_INTERVAL);
    let mut step = 1;
    loop {
        tokio::select! {
            _ = interval.tick(), if probes.len() < PROBES => {
                let target = Arc::clone(&target);
                probes.spawn(async move {
                    let outcome = target.operate(0, step).await;
                    outcome.is_ok().then(Instant::now)
                });
                step += 1;
            }
            Some(ended) = probes.join_next() => {
                if let Some(success) = ended? {
                    return Ok(success);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails for a while after its first operation.
    struct Restarting {
        until: Instant,
    }

    impl Target for Restarting {
        async fn operate(&self, _: usize, step: u64) -> Result<(), String> {
            if step == 0 || Instant::now() >= self.until {
                Ok(())
            } else {
                Err("restarting".to_owned())
            }
        }
    }

    #[tokio::test]
    async fn an_outage_lasts_until_the_next_success() {
        let length = Duration::from_millis(50);
        let target = Restarting {
            until: Instant::now() + length,
        };
        let outage = measure(Arc::new(target), "true").await.expect("it returns");
        assert!(outage.outage_ms >= 20, "{outage:?}");
    }

    #[tokio::test]
    async fn a_command_that_fails_is_an_error() {
        let target = Restarting {
            until: Instant::now(),
        };
        assert!(measure(Arc::new(target), "false").await.is_err());
    }
}
