//! Log time over a restart: what a node writes down of it, and goes on from. Why that is right is [`crate::clock`]'s business.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::periodic::Periodic;
use crate::clock::{BootId, LogClock, MachineTime, Note};
use crate::planted::{self, Bug};
use crate::proto::internal as pb;
use crate::storage::{self, LogDb};
use crate::types::LogTime;

/// How often it is written down anew. An old note is as good as long as the clocks of the cluster's machines go alike; they may drift
/// by some tens of microseconds a second.
const PERIOD: Duration = Duration::from_secs(1);

/// Before the node takes part in anything.
pub(super) fn recall(clock: &LogClock, log_db: &LogDb) -> Result<(), storage::Error> {
    let noted = log_db.log_time()?;
    let Some(note) = noted.as_ref().and_then(read) else {
        return Ok(());
    };
    if planted::has(Bug::ForgottenTime) {
        return Ok(());
    }
    if let Some(time) = clock.recall(note) {
        tracing::debug!(%time, "log time goes on by the clock of the machine");
    } else {
        tracing::info!("the machine was restarted: log time is what others know of it");
    }
    Ok(())
}

/// Runs on every node.
pub(super) async fn run(clock: Arc<LogClock>, log_db: Arc<LogDb>, stop: CancellationToken) {
    let mut turns = Periodic::new(PERIOD, stop);
    while turns.turn().await {
        if let Some(note) = clock.note() {
            log_db.note_log_time(&write(note));
        }
    }
}

fn write(note: Note) -> pb::StoredLogTime {
    pb::StoredLogTime {
        log_time: note.log_time.as_millis(),
        boot: Bytes::copy_from_slice(note.at.boot.as_bytes()),
        machine_time: note.at.millis,
    }
}

/// `None` where another version said by something else which start of the machine it was.
fn read(stored: &pb::StoredLogTime) -> Option<Note> {
    let boot = <[u8; BootId::BYTES]>::try_from(&stored.boot[..]).ok()?;
    Some(Note {
        log_time: LogTime::from_millis(stored.log_time),
        at: MachineTime {
            boot: BootId::new(boot),
            millis: stored.machine_time,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::storage::LogConfig;
    use crate::types::NodeId;

    fn open(path: &std::path::Path) -> LogDb {
        let node = NodeId::new(1).expect("not 0");
        LogDb::open(path, node, LogConfig::default()).expect("it opens")
    }

    #[tokio::test]
    async fn what_is_written_down_goes_with_the_next_group_and_is_recalled() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let clock = LogClock::new(Clock::System);
        {
            let db = open(folder.path());
            recall(&clock, &db).expect("there is nothing");
            assert_eq!(clock.peek(), None);
            clock.observe(LogTime::from_millis(5_000_000));
            let note = clock.note().expect("it was told");
            db.note_log_time(&write(note));
            assert_eq!(db.log_time().expect("readable"), None, "no group came");
            let shard = crate::types::ShardId::ZERO;
            db.set_generation(shard, 1).await.expect("written");
            assert_eq!(db.log_time().expect("readable"), Some(write(note)));
            db.shutdown().await;
        }
        let db = open(folder.path());
        let after = LogClock::new(Clock::System);
        recall(&after, &db).expect("it is readable");
        let (before, time) = (clock.peek(), after.peek());
        let passed = before.zip(time).expect("both know it");
        assert!(passed.0.as_millis().abs_diff(passed.1.as_millis()) < 1_000);
        // A machine that was restarted.
        let rebooted = LogClock::new(Clock::manual(5));
        recall(&rebooted, &db).expect("it is readable");
        assert_eq!(rebooted.peek(), None);
        db.shutdown().await;
    }

    #[test]
    fn a_note_of_another_version_is_no_note() {
        let stored = pb::StoredLogTime {
            log_time: 5,
            boot: Bytes::from_static(b"short"),
            machine_time: 7,
        };
        assert_eq!(read(&stored), None);
    }
}
