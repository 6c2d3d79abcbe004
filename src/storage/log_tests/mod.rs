//! The log as a whole: openraft's rules, power cuts, damage, failing disks, space.

mod conformance;
mod crash;
mod damage;
mod ordering;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use openraft::{EntryPayload, alias};

use super::{Error, LogConfig, LogDb, LogStore};
use crate::proto::internal as pb;
use crate::raft::{Entry, LogId, Proposal, TypeConfig, Vote};
use crate::state::{Command, Identity, KeyOperation, Operation, PutCondition};
use crate::types::{Key, LogTime, Namespace, NodeId, ShardId, Value};

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("not 0")
}

fn open(data_dir: &Path, node: NodeId) -> Result<LogDb, Error> {
    LogDb::open(data_dir, node, LogConfig::default())
}

fn log_id(term: u64, index: u64) -> LogId {
    pb::LogId {
        term,
        node_id: 1,
        index,
    }
    .into()
}

fn vote(term: u64) -> Vote {
    pb::Vote {
        term,
        node_id: 1,
        committed: true,
    }
    .into()
}

/// A put of `bytes` pseudo-random bytes that differ from index to index.
fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let mut random = Random(index ^ (term << 32));
    let value: Vec<u8> = std::iter::repeat_with(|| random.next().to_le_bytes())
        .flatten()
        .take(bytes)
        .collect();
    let operation = Operation::Key(KeyOperation::Put {
        key: Key::parse(format!("key-{index}")).expect("short"),
        value: Value::parse(Bytes::from(value)).expect("small"),
        ttl: None,
        lease: None,
        condition: PutCondition::Always,
    });
    let command = Command::new(Namespace::default(), Identity::Anonymous, operation);
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Proposal::new(LogTime::from_millis(index), vec![command])),
    }
}

fn encoded(entry: &Entry) -> pb::Entry {
    pb::Entry::from(entry)
}

/// Appends and returns what tells when it is durable.
async fn append_later(
    log: &mut LogStore,
    entries: Vec<Entry>,
) -> alias::OneshotReceiverOf<TypeConfig, Result<(), std::io::Error>> {
    let (sender, receiver) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(sender))
        .await
        .expect("queued");
    receiver
}

/// Appends and waits until it is durable.
async fn append(log: &mut LogStore, entries: Vec<Entry>) -> Result<(), std::io::Error> {
    append_later(log, entries).await.await.expect("answered")
}

async fn read_all(log: &mut LogStore) -> Vec<pb::Entry> {
    let entries = log.try_get_log_entries(..).await.expect("readable");
    entries.iter().map(encoded).collect()
}

/// Ends the log and waits until its directory is free.
async fn close(db: LogDb, log: LogStore) {
    db.shutdown().await;
    drop(log);
    drop(db);
}

/// A file tree, copied.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for file in std::fs::read_dir(from).expect("readable") {
        let file = file.expect("readable").path();
        let target = to.join(file.file_name().expect("a file has a name"));
        if file.is_dir() {
            copy(&file, &target);
        } else {
            std::fs::copy(&file, &target).expect("copied");
        }
    }
}

/// `SplitMix64`: a seed gives the same test again.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Drawn anew for every run, and printed by a test that fails.
fn fresh_seed() -> u64 {
    let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
    seed
}
