//! A disk without room: what waits in memory, and what snapshots give back.

use std::io;

use super::reads::delete;
use super::*;
use crate::storage::disk_bytes;

/// The layers of these nodes.
const LAYER_BYTES: usize = 32 << 10;

/// A layer on its way to a disk that takes nothing.
async fn failed_flush(kind: io::ErrorKind) -> JoinHandle<Result<(), Error>> {
    let error = Error::io("write", Path::new("state"), kind.into());
    let flush = tokio::task::spawn_blocking(|| Err(error));
    while !flush.is_finished() {
        tokio::task::yield_now().await;
    }
    flush
}

async fn finished(machine: &mut Machine) {
    let flush = machine.flush.as_mut().expect("one was begun");
    flush.await.expect("no panic").expect("there is room");
    machine.flush = None;
}

#[tokio::test]
async fn a_layer_waits_in_memory_until_there_is_room() {
    let mut node = Node::new();
    let machine = &mut node.machine;
    machine.flush = Some(failed_flush(io::ErrorKind::StorageFull).await);
    let value = Random(1).bytes(LAYER_BYTES);
    apply(machine, [put(1, "a", value.clone())]).await;
    let retry_at = machine.retry_at.expect("it waits");
    assert!(retry_at > Instant::now());
    apply(machine, [put(2, "b", value.clone())]).await;
    assert!(machine.flush.is_none(), "not yet");
    assert!(machine.state().unflushed().record_bytes > 2 * LAYER_BYTES);

    machine.retry_at = Some(Instant::now());
    apply(machine, [put(3, "c", value)]).await;
    finished(machine).await;
    assert_eq!(machine.state().unflushed().record_bytes, 0);
    let before = dump(&machine.state());
    let data = node.close().await;
    let node = Node::at(data).expect("it opens");
    assert_eq!(dump(&node.machine.state()), before);
}

#[tokio::test]
async fn memory_has_an_end_and_other_failures_do_not_wait() {
    let large = Random(2).bytes(limits::LAYERS_WITHOUT_ROOM * LAYER_BYTES);
    let small = Random(3).bytes(LAYER_BYTES);
    let cases = [
        (io::ErrorKind::StorageFull, large),
        (io::ErrorKind::Other, small),
    ];
    for (kind, value) in cases {
        let mut node = Node::new();
        node.machine.flush = Some(failed_flush(kind).await);
        let entries = [Ok((put(1, "a", value), None))];
        let applied = node.machine.apply(stream::iter(entries)).await;
        applied.expect_err("it stops");
    }
}

/// The state has left tables behind since the last snapshot, which keeps them, and nothing comes that would make another due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_keeps_what_nobody_needs_is_made_anew() {
    let mut node = Node::new();
    let machine = &mut node.machine;
    let mut random = Random(4);
    let puts = (1..=64).map(|index| put(index, &format!("k{index}"), random.bytes(64 << 10)));
    apply(machine, puts).await;
    machine.state().persist().expect("the disk works");
    apply(machine, (1..=64).map(|index| delete(64 + index, index))).await;
    build(machine).await;
    let builder = machine.builder();
    let renew = || {
        let builder = builder.clone();
        async move {
            let renewed = tokio::task::spawn_blocking(move || builder.renew()).await;
            renewed.expect("no panic").expect("the disk works")
        }
    };
    let state = machine.state();
    let before = dump(&state);
    let used = || disk_bytes(node.data.path()).expect("readable");
    state.database().compact_range(None::<&[u8]>, None::<&[u8]>);
    let (kept, given_back) = (used(), renew().await);
    assert!(given_back > 3 << 20, "{given_back} bytes");
    assert!(used() + (3 << 20) < kept, "{} of {kept} bytes", used());
    assert_eq!(renew().await, 0, "once");
    assert_eq!(dump(&state), before);
    let snapshot = node.machine.get_current_snapshot().await;
    let snapshot = snapshot.expect("readable").expect("there is one");
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(128)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactions_rest_while_they_may_not_begin() {
    let mut node = Node::new();
    let state = node.machine.state();
    let tables = || {
        let level_0 = "rocksdb.num-files-at-level0";
        let count = state.database().property_int_value(level_0);
        count.expect("RocksDB knows").expect("RocksDB knows")
    };
    state.allow_compactions(false).expect("RocksDB does");
    for index in 1..=8 {
        let value = Random(index).bytes(1000);
        apply(&mut node.machine, [put(index, "the same", value)]).await;
        state.persist().expect("the disk works");
    }
    assert!(tables() >= 8, "{} tables", tables());
    state.allow_compactions(true).expect("RocksDB does");
    let compacted = async {
        while tables() > 4 {
            tokio::task::yield_now().await;
        }
    };
    let compacted = tokio::time::timeout(Duration::from_secs(30), compacted).await;
    compacted.expect("they go on");
}
