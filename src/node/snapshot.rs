//! When a snapshot is taken: by the log's size and age, not by its number of entries.
//!
//! A snapshot is a checkpoint and costs milliseconds; what costs is the log that piles up without one, on disk
//! and at the next start. openraft's own policy counts entries, which would mean ten a second under load.
//!
//! A node that lost power may start with a state that is ahead of its log: it had applied what others had synced. openraft purges its log
//! up to there, and between its last snapshot and its log there is a gap, over which it could help nobody who is behind. So it
//! takes a snapshot at once.
//!
//! Where there is little room on the disk, snapshots are how it is given back: the log is purged up to them, none of it kept
//! for followers that are behind, and each lets go of tables that the state has left behind and only the one before
//! still held. That begins before the room is short, so that a log that could have been dropped is no reason to refuse.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftDataMetrics;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::periodic::Periodic;
use super::propose::stopped;
use super::{Base, Error, Node, Outcome, Shortage};
use crate::config::Snapshots;
use crate::raft::{self, TypeConfig};
use crate::state::Fault;
use crate::storage;
use crate::storage::snapshot::Builder;
use crate::types::{DiskSpace, Room};

/// How often size and age are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// While the disk is short of room: how often what was applied, or left behind, is worth a snapshot.
const RELIEF_PERIOD: Duration = Duration::from_secs(10);
/// On a disk with little room, the log is worth a snapshot when it is this part of what must be free.
const RELIEF_PARTS: u64 = 8;
/// After a snapshot that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long one snapshot may take; the disk is in trouble when it takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

impl Node {
    /// Takes a snapshot now and returns the log index that it reaches.
    pub async fn snapshot(&self, deadline: Instant) -> Result<u64, Error> {
        let taken = timeout_at(deadline, self.take_snapshot()).await;
        taken.unwrap_or(Err(Error::Deadline {
            outcome: Outcome::Unknown,
        }))
    }

    async fn take_snapshot(&self) -> Result<u64, Error> {
        let core = &self.shared.raft;
        let applied = self.shared.base.state.applied().borrow().log_index;
        let mut metrics = core.data_metrics();
        if metrics
            .borrow_watched()
            .snapshot
            .as_ref()
            .map(|id| id.index)
            >= Some(applied)
        {
            return Ok(applied);
        }
        self.on_builder(Builder::prepare).await?;
        let asked = core.clone();
        let begun = raft::ask(&self.shared.tasks, async move {
            asked.trigger().snapshot().await
        });
        begun.await.map_err(|fatal| stopped(&fatal))?;
        loop {
            let built = metrics
                .borrow_watched()
                .snapshot
                .as_ref()
                .map(|id| id.index);
            if let Some(index) = built.filter(|index| *index >= applied) {
                return Ok(index);
            }
            let ended = |_| Error::Stopped("openraft ended".to_owned());
            metrics.changed().await.map_err(ended)?;
        }
    }

    /// Works on this node's snapshots where that holds up nobody. It is seen through, however long whoever asked for it waits.
    async fn on_builder<T: Send + 'static>(
        &self,
        work: fn(&Builder) -> Result<T, storage::Error>,
    ) -> Result<T, Error> {
        let node = self.clone();
        let work = move || {
            let done = work(&node.shared.base.builder);
            done.map_err(|error| node.not_built(error))
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|stopped| Error::Stopped(stopped.to_string()))?
    }

    /// What fails for another reason than room is the end of the node: RocksDB refuses every later write, and what else the disk
    /// has lost nobody knows.
    fn not_built(&self, error: storage::Error) -> Error {
        if error.is_no_space() {
            let nodes = vec![self.shared.leadership.borrow().node.get()];
            let only_growth = false;
            Error::NoSpace(Shortage { nodes, only_growth })
        } else {
            Error::Fault(self.shared.halt(Fault::Io(error.into())))
        }
    }
}

/// When the next snapshot is due.
struct Schedule {
    trigger: Snapshots,
    last: Instant,
    /// The last one failed: when to try again.
    retry_at: Option<Instant>,
    /// Whether the disk was short of room at the last look.
    was_short: bool,
}

/// What a look at log and disk says.
struct Look {
    /// Something was applied since the last snapshot.
    unsaved: bool,
    /// The log was purged beyond the last snapshot.
    gap: bool,
    /// Growth of the log since then.
    grown: u64,
    /// All of the log.
    log: u64,
    disk: DiskSpace,
}

impl Schedule {
    fn is_due(&mut self, look: &Look) -> bool {
        let is_short = look.disk.room < Room::Ample;
        let was_short = std::mem::replace(&mut self.was_short, is_short);
        let began = is_short && !was_short;
        let age = self.last.elapsed();
        let large = look.grown >= self.trigger.log_bytes;
        let old = age >= self.trigger.interval;
        // A snapshot lets go of what the last one kept, and of the log.
        let relieves = look.disk.is_tight() && look.log >= look.disk.floor / RELIEF_PARTS;
        let presses = is_short && age >= RELIEF_PERIOD;
        look.unsaved && (large || old || relieves || presses || began || look.gap)
    }

    fn may_try(&self) -> bool {
        self.retry_at.is_none_or(|at| Instant::now() >= at)
    }
}

/// Takes snapshots until told to stop.
pub(super) async fn run(node: Node, trigger: Snapshots, stop: CancellationToken) {
    let mut turns = Periodic::new(PERIOD, stop);
    let mut schedule = Schedule {
        trigger,
        last: Instant::now(),
        retry_at: None,
        was_short: false,
    };
    while turns.turn().await {
        let look = node.look();
        let is_due = schedule.is_due(&look);
        let is_idle = look.disk.room < Room::Ample && schedule.last.elapsed() >= RELIEF_PERIOD;
        let done = if !schedule.may_try() {
            Ok(())
        } else if is_due {
            schedule.last = Instant::now();
            node.snapshot_and_purge(&look).await
        } else if is_idle {
            schedule.last = Instant::now();
            node.on_builder(Builder::renew).await.map(drop)
        } else {
            Ok(())
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a snapshot was not taken; it will be tried again");
            schedule.retry_at = Some(Instant::now() + RETRY_PAUSE);
        }
    }
}

impl Node {
    /// Followers that are behind will need the snapshot where the disk has no room for the log that they lack.
    async fn snapshot_and_purge(&self, look: &Look) -> Result<(), Error> {
        let index = self.snapshot(Instant::now() + PATIENCE).await?;
        if look.disk.is_tight() {
            let purged = self.shared.raft.trigger().purge_log(index).await;
            purged.map_err(|fatal| stopped(&fatal))?;
        }
        Ok(())
    }
}

impl<B: Base> Node<B> {
    /// Whether the log was purged beyond the last snapshot.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        has_gap(&self.shared.raft.data_metrics().borrow_watched())
    }
}

fn has_gap(metrics: &RaftDataMetrics<TypeConfig>) -> bool {
    metrics.purged > metrics.snapshot
}

impl Node {
    fn look(&self) -> Look {
        let (applied, snapshot) = {
            let metrics = self.shared.raft.data_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.last_applied, metrics.snapshot)
        };
        let base = &self.shared.base;
        Look {
            unsaved: applied > snapshot,
            gap: self.has_gap(),
            grown: base.log.bytes_since(snapshot),
            log: base.log.bytes_since(None),
            disk: *base.disk.borrow(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{LogId, Vote};

    /// A snapshot was taken just now.
    fn schedule() -> Schedule {
        Schedule {
            trigger: Snapshots {
                log_bytes: 1 << 30,
                interval: Duration::from_secs(3600),
                keep_entries: 10_000,
            },
            last: Instant::now(),
            retry_at: None,
            was_short: false,
        }
    }

    /// There is time, and room.
    fn quiet() -> Look {
        Look {
            unsaved: true,
            gap: false,
            grown: 1,
            log: 1,
            disk: DiskSpace {
                room: Room::Ample,
                free: 1 << 40,
                floor: 1 << 30,
                ballast: 0,
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_was_purged_beyond_the_last_snapshot_makes_one_due() {
        let mut schedule = schedule();
        assert!(!schedule.is_due(&quiet()), "there is time");
        let gap = Look {
            gap: true,
            ..quiet()
        };
        assert!(schedule.is_due(&gap));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_grew_or_is_old_makes_one_due() {
        let mut schedule = schedule();
        let trigger = schedule.trigger;
        let grown = Look {
            grown: trigger.log_bytes,
            ..quiet()
        };
        assert!(schedule.is_due(&grown));
        tokio::time::advance(trigger.interval / 2).await;
        assert!(!schedule.is_due(&quiet()), "there is time");
        tokio::time::advance(trigger.interval / 2).await;
        assert!(schedule.is_due(&quiet()));
        let saved = Look {
            unsaved: false,
            ..grown
        };
        assert!(!schedule.is_due(&saved), "nothing was applied since");
    }

    #[test]
    fn a_gap_is_a_purge_beyond_the_last_snapshot() {
        let id = |index| Some(LogId::new(Vote::new_committed(1, 1).leader_id, index));
        for (purged, snapshot, expected) in [
            (None, None, false),
            (None, id(5), false),
            (id(5), id(5), false),
            (id(4), id(5), false),
            (id(6), id(5), true),
            (id(6), None, true),
        ] {
            let metrics = RaftDataMetrics {
                purged,
                snapshot,
                ..RaftDataMetrics::default()
            };
            assert_eq!(has_gap(&metrics), expected, "{purged:?} {snapshot:?}");
        }
    }
}
