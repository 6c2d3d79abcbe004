//! The state machine over real files: equal to memory, exact to read, and whole after every crash.

mod equal;
mod event_history;
mod full_disk;
mod install;
mod raft;
mod reads;
mod snapshots;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use openraft::{EntryPayload, RaftSnapshotBuilder as _};
use prost::Message as _;
use tempfile::TempDir;

use super::*;
use crate::proto::internal as pb;
use crate::raft::{Entry, Member, Membership, Proposal};
use crate::state::{
    CartOperation, CartOwner, Command, Identity, KeyOperation, KeyRange, Operation, PutCondition,
    RequestHash, SessionOperation, Store as _,
};
use crate::state::{events, history as chunks_of};
use crate::storage::LogConfig;
use crate::types::{
    Attributes, ClientAttributes, ClientId, Fields, InstanceId, Key, LogTime, Namespace, NodeId,
    Quantity, RequestId, Revision, Sku, TokenHash, Ttl, UserId, Value,
};

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
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_tree(self.data.path(), copy.path());
        copy
    }

    fn shard_dir(&self) -> ShardDir {
        self.machine.dir()
    }
}

fn open_log(data: &Path) -> Arc<LogDb> {
    let node = NodeId::new(1).expect("not 0");
    Arc::new(LogDb::open(data, node, LogConfig::default()).expect("the log opens"))
}

/// With layers so small that they are written all the time.
fn open(data: &Path, log: &Arc<LogDb>) -> Result<Machine, Error> {
    let config = StateConfig {
        layer_bytes: 32 << 10,
        unwritten_bytes: 32 << 10,
        ..StateConfig::default()
    };
    Machine::open(data, cluster(), ShardId::ZERO, log.clone(), config)
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// A small generator, so that a seed says everything.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }

    fn key(&mut self) -> Key {
        Key::parse(format!("key-{}", self.below(40))).expect("short")
    }

    fn token(&mut self) -> TokenHash {
        let number = u8::try_from(self.below(12)).expect("small");
        TokenHash::new([number; 32])
    }

    fn owner(&mut self) -> CartOwner {
        if self.below(2) == 0 {
            return CartOwner::Session(self.token());
        }
        CartOwner::User(UserId::parse(format!("user-{}", self.below(5))).expect("short"))
    }

    fn ttl(&mut self) -> Ttl {
        Ttl::from_millis(1 + self.below(3000))
    }

    fn fields(&mut self) -> Fields {
        let value = self.bytes(16);
        let name = format!("field-{}", self.below(4));
        Fields::parse([(name, value)].into()).expect("small")
    }

    fn operation(&mut self) -> Operation {
        match self.below(12) {
            0..=2 => Operation::Key(KeyOperation::Put {
                key: self.key(),
                value: Value::parse(self.bytes(64)).expect("small"),
                ttl: (self.below(3) == 0).then(|| self.ttl()),
                lease: None,
                condition: PutCondition::Always,
            }),
            3 => Operation::Key(KeyOperation::Delete {
                key: self.key(),
                if_revision: None,
            }),
            4 | 5 => SessionOperation::Create {
                token: self.token(),
                sealed_token: Bytes::new(),
                user: (self.below(3) > 0).then(|| UserId::parse("u").expect("short")),
                fields: self.fields(),
                client: ClientAttributes::default(),
                idle_ttl: Some(self.ttl()),
                absolute_ttl: Some(Ttl::from_millis(10_000)),
            }
            .into(),
            6 => SessionOperation::Update {
                token: self.token(),
                set: self.fields(),
                remove: vec!["field-0".to_owned()],
                idle_ttl: (self.below(2) > 0).then(|| self.ttl()),
                absolute_ttl: None,
                if_revision: None,
            }
            .into(),
            7 => SessionOperation::Touch {
                token: self.token(),
            }
            .into(),
            8 => SessionOperation::Destroy {
                token: self.token(),
            }
            .into(),
            9 | 10 => Operation::Cart(CartOperation::Add {
                owner: self.owner(),
                sku: Sku::parse(format!("sku-{}", self.below(6))).expect("short"),
                quantity: Quantity::parse(1).expect("small"),
                unit_price: None,
                attributes: Attributes::parse([].into()).expect("none"),
                if_revision: None,
            }),
            _ => Operation::Tick {
                checkpoint: self.below(2) == 0,
                expect: None,
            },
        }
    }

    fn identity(&mut self, nth: u64) -> Identity {
        match self.below(4) {
            0 => Identity::Anonymous,
            1 => {
                let id = RequestId::parse(format!("request-{}", self.below(200))).expect("short");
                Identity::Request(RequestHash::of(&id))
            }
            client => Identity::Client {
                client: ClientId::new([u8::try_from(client).expect("small"); 16]),
                sequence: nth + 1,
                confirmed_below: nth.saturating_sub(20),
            },
        }
    }

    fn command(&mut self, nth: u64) -> Command {
        let identity = self.identity(nth);
        let operation = match self.operation() {
            // A tick is the leader's own and has no caller.
            tick @ Operation::Tick { .. } => {
                return Command::new(Namespace::default(), Identity::Anonymous, tick);
            }
            operation => operation,
        };
        Command::new(Namespace::default(), identity, operation)
    }

    /// What was proposed together; most often a command alone.
    fn commands(&mut self, index: u64) -> Vec<Command> {
        let count = if self.below(3) == 0 {
            1 + self.below(4)
        } else {
            1
        };
        (0..count)
            .map(|nth| self.command(index * 10 + nth))
            .collect()
    }
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

/// Entry `index` of the history that a seed stands for: mostly commands, at times a blank or a membership.
fn history(seed: u64, index: u64) -> Entry {
    let mut random = Random(seed ^ index.wrapping_mul(0x0001_0000_0001_B3A7));
    let payload = match random.below(50) {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Membership(membership(index)),
        _ => {
            let stamp = LogTime::from_millis(1_000_000 + index * 20);
            EntryPayload::Normal(Proposal::new(stamp, random.commands(index)))
        }
    };
    entry(index, payload)
}

fn membership(index: u64) -> Membership {
    let member = Member {
        address: format!("host:{index}"),
        instance: InstanceId::new([1; 16]),
    };
    Membership::new(
        vec![[1].into()],
        [(1, member)]
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>(),
    )
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

/// Every key and value. Header and position as they are published: the database has those of its last layer.
fn dump(state: &StateDb) -> Vec<(Vec<u8>, Vec<u8>)> {
    use crate::state::Key as StateKey;
    let position = state.position();
    let applied = position.applied.map(pb::LogId::from).unwrap_or_default();
    let membership = pb::StoredMembership::from(&position.membership);
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
    for (key, chunk) in chunks(state) {
        chunks_of::unpack(&key, chunk, Revision::default(), &mut |revision, value| {
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
    let db = state.database();
    let history = db.cf_handle(crate::storage::db::EVENTS).expect("opened");
    db.iterator_cf(history, rocksdb::IteratorMode::Start)
        .map(|item| item.expect("readable"))
        .map(|(key, chunk)| (key.into_vec(), chunk.into_vec().into()))
        .collect()
}
