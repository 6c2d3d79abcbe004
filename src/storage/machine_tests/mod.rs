//! The state machine over real files: equal to memory, exact to read, and whole after every crash.

mod equal;
mod event_history;
mod foreign;
mod formats;
mod full_disk;
mod install;
mod lives;
mod raft;
mod reads;
mod snapshots;
mod telling;
mod versions;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use openraft::{EntryPayload, RaftSnapshotBuilder as _};
use prost::Message as _;
use tempfile::TempDir;

use self::telling::{Random, history};
use super::*;
use crate::proto::internal as pb;
use crate::raft::{Entry, Member, Membership, Proposal};
use crate::state::{
    Command, Identity, KeyOperation, KeyRange, Operation, PutCondition, Store as _,
};
use crate::state::{events, history as chunks_of};
use crate::storage::LogConfig;
use crate::types::{InstanceId, Key, LogTime, Namespace, NodeId, Revision, StateVersion, Value};

/// Tries to copy a directory that changes.
const COPIES: usize = 1000;

const CLUSTER: [u8; 16] = [7; 16];

fn cluster() -> ClusterId {
    ClusterId::new(CLUSTER)
}

/// A node's directory with its log and its state machine.
struct Node {
    machine: Machine,
    log: Arc<LogDb>,
    data: TempDir,
}

impl Node {
    fn new() -> Self {
        Self::at(tempfile::tempdir().expect("a temporary directory")).expect("a new node")
    }

    fn at(data: TempDir) -> Result<Self, Error> {
        let log = open_log(data.path());
        let machine = open(data.path(), &log)?;
        Ok(Self { machine, log, data })
    }

    /// Closes everything; the directory stays.
    async fn close(mut self) -> TempDir {
        // Whoever writes a layer has the database open.
        if let Some(flush) = self.machine.flush.take() {
            flush.await.expect("it ended").expect("written");
        }
        drop(self.machine);
        self.log.shutdown().await;
        self.data
    }

    /// What a power cut leaves, in a directory of its own. The databases here stay open, so nothing of them is
    /// flushed on the way.
    fn crashed(&self) -> TempDir {
        // What the database writes or removes behind our back makes a copy one of no single moment.
        for _ in 0..COPIES {
            let copy = tempfile::tempdir().expect("a temporary directory");
            let before = list_tree(self.data.path());
            let copied = copy_tree(self.data.path(), copy.path());
            let after = list_tree(self.data.path());
            match (before, copied, after) {
                (Ok(before), Ok(()), Ok(after)) if before == after => return copy,
                _ => std::thread::yield_now(),
            }
        }
        panic!("the directory never stood still");
    }

    fn shard_dir(&self) -> ShardDir {
        self.machine.dir()
    }
}

fn open_log(data: &Path) -> Arc<LogDb> {
    let node = NodeId::new(1).expect("not 0");
    Arc::new(LogDb::open(data, node, LogConfig::default()).expect("the log opens"))
}

/// As a program that knows one version more than there is.
fn open(data: &Path, log: &Arc<LogDb>) -> Result<Machine, Error> {
    open_with(data, log, StateVersion::new(versions::KNOWN))
}

/// With layers so small that they are written all the time.
fn open_with(
    data: &Path,
    log: &Arc<LogDb>,
    newest_version: StateVersion,
) -> Result<Machine, Error> {
    let config = StateConfig {
        layer_bytes: 32 << 10,
        unwritten_bytes: 32 << 10,
        newest_version,
        ..StateConfig::default()
    };
    Machine::open(data, cluster(), ShardId::ZERO, log.clone(), config)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Each file with its length, and when it was written last in seconds and nanoseconds.
fn list_tree(directory: &Path) -> io::Result<BTreeMap<PathBuf, (u64, i64, i64)>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.append(&mut list_tree(&entry.path())?);
        } else {
            let it = entry.metadata()?;
            files.insert(entry.path(), (it.len(), it.mtime(), it.mtime_nsec()));
        }
    }
    Ok(files)
}

fn log_id(index: u64) -> LogId {
    pb::LogId {
        term: 1,
        node_id: 1,
        index,
    }
    .into()
}

fn entry(index: u64, payload: EntryPayload<crate::raft::Proposal, u64, Member>) -> Entry {
    Entry {
        log_id: log_id(index),
        payload,
    }
}

fn membership(index: u64) -> Membership {
    let member = Member {
        address: format!("host:{index}"),
        instance: InstanceId::new([1; 16]),
    };
    Membership::new(
        vec![[1].into()],
        [(1, member)].into_iter().collect::<BTreeMap<_, _>>(),
    )
    .expect("the voter is a node")
}

/// Node 1 and these.
fn membership_with(learners: &[u64]) -> Membership {
    let member = |id: u64| Member {
        address: format!("host-{id}:1"),
        instance: InstanceId::new([1; 16]),
    };
    let members = learners.iter().chain([&1]).map(|id| (*id, member(*id)));
    Membership::new(vec![[1].into()], members.collect::<BTreeMap<_, _>>())
        .expect("the voter is a node")
}

fn put(index: u64, key: &str, value: Bytes) -> Entry {
    let operation = Operation::Key(KeyOperation::Put {
        key: Key::parse(key).expect("short"),
        value: Value::parse(value).expect("small"),
        ttl: None,
        lease: None,
        condition: PutCondition::Always,
    });
    let command = Command::new(Namespace::default(), Identity::Anonymous, operation);
    let stamp = LogTime::from_millis(1_000_000 + index);
    entry(
        index,
        EntryPayload::Normal(Proposal::new(stamp, vec![command])),
    )
}

async fn apply(machine: &mut Machine, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    machine
        .apply(stream::iter(entries))
        .await
        .expect("the entries apply");
}

/// Every key and value. Header and position as they are published: the database has those of its last layer. Events that are
/// forgotten are gone when their files are, and so they are not content.
fn dump(state: &StateDb) -> Vec<(Vec<u8>, Vec<u8>)> {
    use crate::state::Key as StateKey;
    let position = state.position();
    let applied = position.applied.map(pb::LogId::from).unwrap_or_default();
    let membership = position.stored_membership();
    let own = [
        (StateKey::Header, state.header().encode_to_vec()),
        (StateKey::RaftApplied, applied.encode_to_vec()),
        (StateKey::RaftMembership, membership.encode_to_vec()),
    ];
    let mut all: Vec<_> = own
        .map(|(key, value)| (key.encode().to_vec(), value))
        .into();
    state
        .view(|view| {
            view.scan(&KeyRange::records(), &mut |key, value| {
                all.push((key.to_vec(), value.to_vec()));
                Ok(ControlFlow::Continue(()))
            })
        })
        .expect("readable");
    // One by one: how they are packed depends on the layers.
    let oldest = events::oldest(&state.header());
    for (key, chunk) in chunks(state) {
        chunks_of::unpack(&key, chunk, oldest, &mut |revision, value| {
            let alone = chunks_of::pack(&[chunks_of::alone(revision, &value)], 1);
            let keyed = |(last, chunk): (_, Bytes)| {
                (StateKey::encode_events(last).to_vec(), chunk.to_vec())
            };
            all.extend(alone.into_iter().map(keyed));
            Ok(())
        })
        .expect("whole");
    }
    all.sort_unstable();
    all
}

fn recomputed(state: &StateDb) -> Bytes {
    let (_, digest) = state
        .view(|view| crate::state::digest::recompute(view))
        .expect("readable");
    crate::state::digest::to_bytes(digest)
}

async fn build(machine: &mut Machine) -> Snapshot {
    let mut builder = machine.get_snapshot_builder().await;
    builder.build_snapshot().await.expect("a snapshot")
}

/// The events that are in the database once everything is written there, as they are stored.
fn chunks(state: &StateDb) -> Vec<(Vec<u8>, Bytes)> {
    state.flush().expect("the disk works");
    stored_chunks(state)
}

/// Those that are there already.
fn stored_chunks(state: &StateDb) -> Vec<(Vec<u8>, Bytes)> {
    let db = state.database();
    let history = db.cf_handle(crate::storage::db::EVENTS).expect("opened");
    db.iterator_cf(history, rocksdb::IteratorMode::Start)
        .map(|item| item.expect("readable"))
        .map(|(key, chunk)| (key.into_vec(), chunk.into_vec().into()))
        .collect()
}
