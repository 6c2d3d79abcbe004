//! Order, durability of single writes, identity, and space.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use openraft::storage::RaftLogReader as _;

use super::*;
use crate::storage::commit::{Change, Durability, RocksSink, Sink};
use crate::storage::db::{Replay, open_log};
use crate::storage::{disk_bytes, wire};
use crate::types::ClusterId;

/// After a restart, the log holds this entry behind what was purged, and nothing else.
async fn assert_holds_one_behind(data: &Path, purged: LogId, only: Entry) {
    let db = open(data, node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    let state = log.get_log_state().await.expect("readable");
    assert_eq!(state.last_purged_log_id, Some(purged));
    assert_eq!(state.last_log_id, Some(only.log_id));
    assert_eq!(read_all(&mut log).await, [encoded(&only)]);
    close(db, log).await;
}

/// openraft asks for that where a power cut took the end of the log, and the state is further.
#[tokio::test]
async fn a_purge_beyond_the_end_is_where_the_log_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    let entries: Vec<_> = (0..5).map(|index| entry(1, index, 20)).collect();
    append(&mut log, entries).await.expect("durable");
    log.purge(log_id(1, 9)).await.expect("queued");
    append(&mut log, vec![entry(2, 10, 20)])
        .await
        .expect("durable");
    close(db, log).await;

    assert_holds_one_behind(dir.path(), log_id(1, 9), entry(2, 10, 20)).await;
}

/// The state is further than the log, which holds entries of an earlier leader where the state has others.
#[tokio::test]
async fn a_log_that_is_dropped_up_to_what_is_applied_goes_on_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    let entries: Vec<_> = (0..=20).map(|index| entry(1, index, 20)).collect();
    append(&mut log, entries).await.expect("durable");
    log.purge(log_id(1, 4)).await.expect("queued");
    close(db, log).await;

    let db = open(dir.path(), node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    log.truncate_after(Some(log_id(1, 4)))
        .await
        .expect("queued");
    log.purge(log_id(2, 12)).await.expect("queued");
    append(&mut log, vec![entry(3, 13, 20)])
        .await
        .expect("durable");
    close(db, log).await;

    assert_holds_one_behind(dir.path(), log_id(2, 12), entry(3, 13, 20)).await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let instance = db.identity().instance;
    let mut log = db.log(ShardId::ZERO).expect("empty");
    log.save_vote(&vote(3)).await.expect("saved");
    let entries: Vec<_> = (0..100).map(|index| entry(3, index, 200)).collect();
    append(&mut log, entries.clone()).await.expect("durable");
    log.save_committed(Some(log_id(3, 500)))
        .await
        .expect("noted");
    log.truncate_after(Some(log_id(3, 79)))
        .await
        .expect("queued");
    log.purge(log_id(3, 9)).await.expect("queued");
    close(db, log).await;

    let db = open(dir.path(), node(1)).expect("opens");
    assert_eq!(db.identity().instance, instance);
    let mut log = db.log(ShardId::ZERO).expect("whole");
    assert_eq!(log.read_vote().await.expect("readable"), Some(vote(3)));
    let state = log.get_log_state().await.expect("readable");
    assert_eq!(state.last_purged_log_id, Some(log_id(3, 9)));
    assert_eq!(state.last_log_id, Some(log_id(3, 79)));
    // The hint ran ahead of the log and is held back.
    let committed = log.read_committed().await.expect("readable");
    assert_eq!(committed, Some(log_id(3, 79)));
    let expected: Vec<_> = entries[10..80].iter().map(encoded).collect();
    assert_eq!(read_all(&mut log).await, expected);
    append(&mut log, vec![entry(4, 80, 10)])
        .await
        .expect("goes on");
    close(db, log).await;
}

/// The power went between the two: the hint of what a leader committed is on the disk, and that its entries took the place of
/// an earlier leader's is not.
#[tokio::test]
async fn a_hint_of_a_leader_whose_entries_are_missing_commits_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    log.save_committed(Some(log_id(2, 12)))
        .await
        .expect("noted");
    let entries: Vec<_> = (0..=20).map(|index| entry(1, index, 20)).collect();
    append(&mut log, entries).await.expect("durable");
    close(db, log).await;

    let db = open(dir.path(), node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    assert_eq!(log.read_committed().await.expect("readable"), None);
    append(&mut log, vec![entry(2, 21, 20)])
        .await
        .expect("durable");
    let committed = log.read_committed().await.expect("readable");
    assert_eq!(committed, Some(log_id(2, 12)), "that leader's log is there");
    log.save_committed(Some(log_id(1, 7))).await.expect("noted");
    append(&mut log, vec![entry(2, 22, 20)])
        .await
        .expect("durable");
    let committed = log.read_committed().await.expect("readable");
    assert_eq!(committed, Some(log_id(1, 7)), "so is what came before it");
    close(db, log).await;
}

#[tokio::test]
async fn an_entry_that_leaves_a_hole_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    append(&mut log, vec![entry(1, 0, 10)])
        .await
        .expect("durable");
    let (sender, receiver) = TypeConfig::oneshot();
    let refused = log
        .append(vec![entry(1, 2, 10)], IOFlushed::signal(sender))
        .await;
    assert!(refused.is_err());
    assert!(receiver.await.expect("answered").is_err());
    append(&mut log, vec![entry(1, 1, 10)])
        .await
        .expect("durable");
    close(db, log).await;
}

#[tokio::test]
async fn reads_agree_wherever_the_tail_begins() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = LogConfig {
        tail_bytes: 20 << 10,
        ..LogConfig::default()
    };
    let db = LogDb::open(dir.path(), node(1), config).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    let entries: Vec<_> = (0..200).map(|index| entry(1, index, 1000)).collect();
    for piece in entries.chunks(7) {
        append(&mut log, piece.to_vec()).await.expect("durable");
    }
    for start in [0_usize, 1, 150, 180, 190, 199] {
        let found = log
            .try_get_log_entries(start as u64..)
            .await
            .expect("readable");
        assert!(
            found
                .iter()
                .map(encoded)
                .eq(entries[start..].iter().map(encoded))
        );
    }
    let limited = log.limited_get_log_entries(3, 200).await.expect("readable");
    assert_eq!(limited.first().map(|e| e.log_id.index), Some(3));
    log.purge(log_id(1, 20)).await.expect("queued");
    let purged = log.limited_get_log_entries(3, 200).await.expect("readable");
    assert!(
        purged.is_empty(),
        "a purged start must not become a later one"
    );
    let rest = log.bytes_since(Some(log_id(1, 100)));
    assert!((90_000..400_000).contains(&rest), "{rest}");
    assert_eq!(log.bytes_since(Some(log_id(1, 199))), 0);
    close(db, log).await;
}

#[tokio::test]
async fn a_directory_keeps_its_owner() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    assert!(matches!(
        open(dir.path(), node(1)),
        Err(Error::InUse { .. })
    ));
    let cluster = ClusterId::new([7; 16]);
    db.adopt_cluster(cluster).await.expect("adopted");
    db.adopt_cluster(cluster).await.expect("the same again");
    let other = db.adopt_cluster(ClusterId::new([8; 16])).await;
    assert!(matches!(other, Err(Error::ForeignCluster { .. })));
    assert_eq!(db.generation(ShardId::ZERO).expect("readable"), 0);
    db.set_generation(ShardId::ZERO, 4).await.expect("switched");
    assert_eq!(db.generation(ShardId::ZERO).expect("readable"), 4);
    db.shutdown().await;
    drop(db);

    let other = open(dir.path(), node(2));
    assert!(matches!(other, Err(Error::ForeignNode { .. })));
    drop(other);
    let db = open(dir.path(), node(1)).expect("opens");
    assert_eq!(db.identity().cluster, Some(cluster));
    assert_eq!(db.generation(ShardId::ZERO).expect("readable"), 4);
    db.shutdown().await;
    assert!(matches!(
        db.set_generation(ShardId::ZERO, 5).await,
        Err(Error::Stopped)
    ));
}

/// Fails the write of one group and notes the others.
struct Failing {
    inner: RocksSink,
    fail: usize,
    groups: std::sync::Arc<AtomicUsize>,
}

impl Sink for Failing {
    fn write(&mut self, changes: &[Change], durability: Durability) -> Result<(), Error> {
        if self.groups.fetch_add(1, Ordering::SeqCst) == self.fail {
            let eio = std::io::Error::other("injected");
            return Err(Error::io("sync", std::path::Path::new("wal"), eio));
        }
        self.inner.write(changes, durability)
    }

    fn synced(&mut self, group: u64) -> Result<(), Error> {
        self.inner.synced(group)
    }

    fn reclaim(&mut self, entries: &RangeInclusive<wire::Key>) -> Result<(), Error> {
        self.inner.reclaim(entries)
    }
}

#[tokio::test]
async fn nothing_is_written_after_a_failed_write() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let groups = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&groups);
    let db = LogDb::open_with(dir.path(), node(1), LogConfig::default(), |inner| Failing {
        inner,
        fail: 2,
        groups: counter,
    })
    .expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    let mut poisoned = db.poisoned();
    log.save_vote(&vote(1)).await.expect("first group");
    append(&mut log, vec![entry(1, 0, 10)])
        .await
        .expect("second group");
    assert!(poisoned.borrow_and_update().is_none());
    assert!(append(&mut log, vec![entry(1, 1, 10)]).await.is_err());
    assert!(poisoned.has_changed().expect("the thread runs"));
    let after = append(&mut log, vec![entry(1, 2, 10)]).await;
    let after = after.expect_err("poisoned").to_string();
    assert!(after.contains("injected"), "{after}");
    assert!(log.save_vote(&vote(2)).await.is_err());
    assert_eq!(groups.load(Ordering::SeqCst), 3, "nothing reached the disk");
    close(db, log).await;

    let db = open(dir.path(), node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    assert_eq!(read_all(&mut log).await, [encoded(&entry(1, 0, 10))]);
    close(db, log).await;
}

/// Lets the test hold the disk while requests gather.
struct Gated {
    inner: RocksSink,
    gate: mpsc::Receiver<()>,
    groups: std::sync::Arc<std::sync::Mutex<Vec<Vec<String>>>>,
}

impl Sink for Gated {
    fn write(&mut self, changes: &[Change], durability: Durability) -> Result<(), Error> {
        // A gate that the test has dropped stays open.
        self.gate.recv().unwrap_or_default();
        let name = |change: &Change| match change {
            Change::Put(record) => format!("put {}", record.key()[10]),
            Change::Delete { from, .. } => format!("delete from {}", from.encode()[10]),
        };
        let entries = changes.iter().filter(|change| match change {
            Change::Put(record) => record.table() == wire::Table::Entries,
            Change::Delete { .. } => true,
        });
        let names = entries.map(name).collect();
        self.groups.lock().expect("not poisoned").push(names);
        self.inner.write(changes, durability)
    }

    fn synced(&mut self, group: u64) -> Result<(), Error> {
        self.inner.synced(group)
    }

    fn reclaim(&mut self, entries: &RangeInclusive<wire::Key>) -> Result<(), Error> {
        self.inner.reclaim(entries)
    }
}

#[tokio::test]
async fn what_gathers_behind_a_write_becomes_one_group_in_order() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let groups = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (open_gate, gate) = mpsc::sync_channel(4);
    let seen = Arc::clone(&groups);
    let db = LogDb::open_with(dir.path(), node(1), LogConfig::default(), |inner| Gated {
        inner,
        gate,
        groups: seen,
    })
    .expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    let first = append_later(&mut log, vec![entry(1, 0, 10)]).await;
    open_gate.send(()).expect("the thread runs");
    first.await.expect("answered").expect("durable");

    let holds = append_later(&mut log, vec![entry(1, 1, 10)]).await;
    let second = append_later(&mut log, vec![entry(1, 2, 10), entry(1, 3, 10)]).await;
    log.truncate_after(Some(log_id(1, 2)))
        .await
        .expect("queued");
    let third = append_later(&mut log, vec![entry(2, 3, 10)]).await;
    // Readable before it is written.
    let found = read_all(&mut log).await;
    assert_eq!(found.last(), Some(&encoded(&entry(2, 3, 10))));
    drop(open_gate);
    for waiting in [holds, second, third] {
        waiting.await.expect("answered").expect("durable");
    }
    let order: Vec<String> = groups.lock().expect("not poisoned").concat();
    assert_eq!(
        order,
        ["put 0", "put 1", "put 2", "put 3", "delete from 3", "put 3"]
    );
    let groups = groups.lock().expect("not poisoned").len();
    assert!(groups <= 3, "{groups} groups for what could be two");
    close(db, log).await;
}

/// Waits until a condition holds; says what there is instead if it does not.
async fn eventually(
    what: &str,
    found: impl Fn() -> String,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(came.is_ok(), "never came: {what}; there is {}", found());
}

/// Files and their sizes, for a failure's message.
fn listing(directory: &Path) -> String {
    let list = || -> std::io::Result<Vec<String>> {
        let sized = |file: std::io::Result<std::fs::DirEntry>| {
            let file = file?;
            Ok(format!("{:?} {}", file.file_name(), file.metadata()?.len()))
        };
        std::fs::read_dir(directory)?.map(sized).collect()
    };
    list().map_or_else(|error| error.to_string(), |files| files.join(", "))
}

#[tokio::test]
async fn purging_gives_the_space_back() {
    const MOST: u64 = 160 << 20;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    let log_directory = dir.path().join("log");
    let mut next = 0;
    // 32 MiB of entries a round, all of them purged: after a few rounds the directory must not grow any more.
    for round in 0..8_u64 {
        let first = next;
        for _ in 0..32 {
            let entries = (next..next + 64).map(|index| entry(1, index, 16 << 10));
            append(&mut log, entries.collect()).await.expect("durable");
            next += 64;
        }
        // openraft purges piece by piece, and no piece covers a whole file.
        for through in (first..next).step_by(128).skip(1) {
            log.purge(log_id(1, through - 1)).await.expect("queued");
        }
        // A purge leaves alone what RocksDB is moving between levels just then. A later one finds it where it went.
        let what = format!("less than 160 MiB in round {round}");
        eventually(
            &what,
            || listing(&log_directory),
            async || {
                append(&mut log, vec![entry(1, next, 10)])
                    .await
                    .expect("durable");
                log.purge(log_id(1, next)).await.expect("queued");
                next += 1;
                log.save_vote(&vote(round))
                    .await
                    .expect("the purge is done");
                disk_bytes(&log_directory).expect("readable") < MOST
            },
        )
        .await;
    }
    close(db, log).await;
}

/// A table file may end with the very entry that a purge ends before.
#[tokio::test]
async fn purging_deletes_no_file_that_ends_with_an_entry_which_stays() {
    const LAST: u64 = 99;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    let entries = (0..=LAST).map(|index| entry(1, index, 300));
    append(&mut log, entries.collect()).await.expect("durable");
    close(db, log).await;
    // All entries are in one file now, and not in level 0, where files are never deleted whole.
    let directory = dir.path().join("log");
    let raw = open_log(&directory, 1 << 20, Replay::IntoTables).expect("nobody has it open");
    raw.compact_range(None::<&[u8]>, None::<&[u8]>);
    drop(raw);

    let db = open(dir.path(), node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    let more = (LAST + 1..LAST + 20).map(|index| entry(1, index, 300));
    append(&mut log, more.collect()).await.expect("durable");
    log.purge(log_id(1, LAST - 1)).await.expect("queued");
    // Files are deleted after the group that the purge is in, and before the next.
    log.save_vote(&vote(2)).await.expect("saved");
    log.save_vote(&vote(3)).await.expect("saved");
    let kept = read_all(&mut log).await;
    assert_eq!(kept.len(), 20, "the last of the file, and all behind it");
    close(db, log).await;
    let db = open(dir.path(), node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    assert_eq!(read_all(&mut log).await, kept);
    close(db, log).await;
}
