//! When a snapshot is taken: by the log's size and age, not by its number of entries.
//!
//! A snapshot is a checkpoint and costs milliseconds; what costs is the log that piles up without one, on disk
//! and at the next start. openraft's own policy counts entries, which would mean ten a second under load.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;

use super::propose::stopped;
use super::{Error, Node, Outcome};
use crate::config::Snapshots;
use crate::raft::LogId;

/// How often size and age are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How long one snapshot may take; the disk is in trouble when it takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

impl Node {
    /// Takes a snapshot now and returns the log index that it reaches.
    pub async fn snapshot(&self, deadline: Instant) -> Result<u64, Error> {
        let raft = &self.shared.raft;
        let applied = self.shared.state.applied().borrow().log_index;
        let mut metrics = raft.data_metrics();
        if metrics
            .borrow_watched()
            .snapshot
            .as_ref()
            .map(|id| id.index)
            >= Some(applied)
        {
            return Ok(applied);
        }
        raft.trigger()
            .snapshot()
            .await
            .map_err(|fatal| stopped(&fatal))?;
        loop {
            let built = metrics
                .borrow_watched()
                .snapshot
                .as_ref()
                .map(|id| id.index);
            if let Some(index) = built.filter(|index| *index >= applied) {
                return Ok(index);
            }
            timeout_at(deadline, metrics.changed())
                .await
                .map_err(|_| Error::Deadline {
                    outcome: Outcome::Unknown,
                })?
                .map_err(|_| Error::Stopped("openraft ended".to_owned()))?;
        }
    }
}

/// Takes snapshots until told to stop.
pub(super) async fn run(node: Node, trigger: Snapshots, stop: CancellationToken) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = period.tick() => {}
        }
        let (applied, snapshot) = node.shared.applied_and_snapshot();
        let unsaved = applied > snapshot;
        let large = node.shared.log.bytes_since(snapshot) >= trigger.log_bytes;
        let old = last.elapsed() >= trigger.interval;
        if unsaved && (large || old) {
            last = Instant::now();
            if let Err(error) = node.snapshot(last + PATIENCE).await {
                tracing::warn!(%error, "a snapshot was not taken; the next look tries again");
            }
        }
    }
}

impl super::Shared {
    fn applied_and_snapshot(&self) -> (Option<LogId>, Option<LogId>) {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.last_applied, metrics.snapshot)
    }
}
