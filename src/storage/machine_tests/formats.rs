//! Yesterday's disk opens today: bytes of everything that is stored, as versions of this program wrote them.
//!
//! `golden/formats.txt` has them. A line that begins with `>` is a record: which code opens it, its key, its value. Below stands
//! what it says, for people. Each is opened by the code that opens it on a disk, means what stands there, and is written
//! with the same bytes again by the code that writes it. Together they have every field of every stored message, so that a
//! field that is added is found to be missing here: `TROLLEY_GOLDEN=write` adds a record that has it, and never takes one away.
//!
//! Deliberately absent: bytes that are put together here. What is added comes from databases, histories and files that the
//! product wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use prost_reflect::Value as Field;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _};

use super::equal::watched_over_memory;
use super::telling::{Pace, history_at};
use super::versions::{KNOWN, raise};
use super::*;
use crate::raft::TypeConfig;
use crate::state::record;
use crate::storage::high_water::HighWater;
use crate::storage::identity::Identity as NodeIdentity;
use crate::storage::position::decode_position;
use crate::storage::snapshot::{CONTENTS, write_contents};
use crate::storage::wire::{self, Record};

const PACKAGE: &str = "trolley.internal.v1";

/// In front of a snapshot's table of contents.
const CHECKSUM_BYTES: usize = 16;

/// Longer ones say nothing that a shorter one could not.
const LONGEST: usize = 600;

/// Entries of a history that records are taken from.
const LIFE: u64 = 400;

/// Fields of stored messages that never have a value: a total is computed, and there is no other shard than 0.
const NEVER_STORED: [(&str, &str); 2] = [
    ("trolley.v1.CartLine", "total_minor_units"),
    ("trolley.internal.v1.SnapshotManifest", "shard_id"),
];

/// Messages that nodes say to each other and store as well. All others that no service speaks of are stored.
const SPOKEN_AND_STORED: [&str; 2] = ["Entry", "SnapshotManifest"];

/// What opens a record on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opener {
    /// The state machine, by the record's key.
    State,
    /// The log, by the record's key.
    Log,
    /// A snapshot's table of contents.
    Contents,
    /// The high-water mark.
    Mark,
    /// The log and the state machine, for what stands within records as bytes.
    Command,
    Reply,
}

const OPENERS: [(&str, Opener); 6] = [
    ("state", Opener::State),
    ("log", Opener::Log),
    ("contents", Opener::Contents),
    ("mark", Opener::Mark),
    ("command", Opener::Command),
    ("reply", Opener::Reply),
];

/// The kinds of keys that the state database has.
const STATE_KEYS: [&str; 18] = [
    "Header",
    "RaftApplied",
    "RaftMembership",
    "Settings",
    "Session",
    "SessionCart",
    "UserCart",
    "User",
    "UserSession",
    "Order",
    "Kv",
    "Lease",
    "Client",
    "Request",
    "RequestGroup",
    "Deadline",
    "Events",
    "EventMarks",
];

/// Those of the log database.
const LOG_KEYS: [&str; 7] = [
    "Group",
    "Identity",
    "Generation",
    "Head",
    "Committed",
    "LogTime",
    "Entry",
];

impl Opener {
    /// The kinds of keys that it opens; none where what it opens has no key.
    fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::State => &STATE_KEYS,
            Self::Log => &LOG_KEYS,
            Self::Contents | Self::Mark | Self::Command | Self::Reply => &[""],
        }
    }

    fn name(self) -> &'static str {
        let listed = OPENERS.iter().find(|(_, opener)| *opener == self);
        listed.expect("all are listed").0
    }
}

/// One stored record.
#[derive(Debug, Clone)]
pub(super) struct Fixture {
    pub opener: Opener,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// A message of a record, by its name.
type Content = (&'static str, Vec<u8>);

impl Fixture {
    fn of(opener: Opener, key: &[u8], value: &[u8]) -> Self {
        Self {
            opener,
            key: key.to_vec(),
            value: value.to_vec(),
        }
    }

    /// Under its key in the log.
    fn in_log(key: wire::Key, message: &impl prost::Message) -> Self {
        let record = Record::seal(key, message);
        Self::of(Opener::Log, record.key(), record.value())
    }

    /// From a line.
    fn parse(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let [opener, key, value] = words[..] else {
            panic!("three words: {line}");
        };
        let opener = OPENERS.iter().find(|(name, _)| *name == opener);
        Self {
            opener: opener.expect("a known opener").1,
            key: unhex(key),
            value: unhex(value),
        }
    }

    /// The value without its checksum.
    pub fn message(&self) -> &[u8] {
        match self.opener {
            Opener::Log => &self.value[..self.value.len() - wire::CHECKSUM_BYTES],
            Opener::Contents => &self.value[CHECKSUM_BYTES..],
            _ => &self.value,
        }
    }

    fn line(&self) -> String {
        let name = self.opener.name();
        format!("> {name} {} {}", hex(&self.key), hex(&self.value))
    }

    /// Which kind of key it has.
    fn kind(&self) -> String {
        let key = match self.opener {
            Opener::State => format!("{:?}", crate::state::Key::decode(&self.key)),
            Opener::Log => format!("{:?}", Ok::<_, ()>(log_key(&self.key))),
            _ => return String::new(),
        };
        let kind = key.strip_prefix("Ok(").expect("it opens").chars();
        kind.take_while(char::is_ascii_alphabetic).collect()
    }

    /// What is in it. Panics if it does not open, or would be written otherwise.
    fn open(&self) -> Vec<Content> {
        match self.opener {
            Opener::State => open_state(&self.key, &self.value),
            Opener::Log => open_log(&self.key, &self.value),
            Opener::Contents => open_contents(&self.value),
            Opener::Mark => open_mark(&self.value),
            Opener::Command => open_command(&self.value),
            Opener::Reply => vec![again::<pb::Reply>("Reply", &self.value)],
        }
    }
}

/// A command keeps the bytes that it was read from, so that it is made anew from what they mean.
fn open_command(value: &[u8]) -> Vec<Content> {
    let command = Command::decode(Bytes::copy_from_slice(value)).expect("it opens");
    let again = Command::with_fingerprint(
        command.namespace.clone(),
        command.identity,
        command.fingerprint,
        command.operation.clone(),
    );
    assert_eq!(again.encode(), value, "{command:?}");
    vec![("Command", value.to_vec())]
}

/// A message that is written as it was read.
fn again<M: prost::Message + Default + std::fmt::Debug>(
    name: &'static str,
    value: &[u8],
) -> Content {
    let message = M::decode(value).expect("it opens");
    assert_eq!(message.encode_to_vec(), value, "{message:?}");
    (name, value.to_vec())
}

fn open_state(key_bytes: &[u8], value: &[u8]) -> Vec<Content> {
    use crate::state::{Key as K, Record as StateRecord};
    let key = K::decode(key_bytes).expect("it opens");
    assert_eq!(key.encode(), key_bytes, "{key:?}");
    let name = match &key {
        K::Header => {
            let header = record::decode_header(Bytes::copy_from_slice(value)).expect("it opens");
            assert_eq!(header.encode_to_vec(), value);
            return vec![("StateHeader", value.to_vec())];
        }
        K::RaftApplied => {
            let (name, value) = again::<pb::LogId>("LogId", value);
            let id = pb::LogId::decode(&value[..]).expect("it opens");
            assert_eq!(pb::LogId::from(LogId::from(id)), id);
            return vec![(name, value)];
        }
        K::RaftMembership => {
            let stored = Bytes::copy_from_slice(value);
            let position = decode_position(None, Some(stored)).expect("it means something");
            assert_eq!(position.stored_membership().encode_to_vec(), value);
            return vec![("StoredMembership", value.to_vec())];
        }
        K::Events(_) => return open_events(key_bytes, value),
        K::Settings(_) => "NamespaceRecord",
        K::Session(..) => "SessionRecord",
        K::SessionCart(..) | K::UserCart(..) => "CartRecord",
        K::User(..) => "UserRecord",
        K::Order(..) => "OrderRecord",
        K::Kv(..) => "KvRecord",
        K::Lease(..) => "LeaseRecord",
        K::Client(_) => "ClientWindow",
        K::Request(..) => "RequestRecord",
        K::RequestGroup(..) => "RequestGroupRecord",
        K::EventMarks => "EventMarks",
        K::UserSession(..) | K::Deadline(..) => "",
    };
    let stored = record::decode(&key, Bytes::copy_from_slice(value)).expect("it opens");
    assert_eq!(record::encode(&stored.record), value, "{key:?}");
    let replies = match &stored.record {
        StateRecord::Index => return Vec::new(),
        StateRecord::Client(_) => {
            let window = pb::ClientWindow::decode(value).expect("it was decoded");
            window.replies
        }
        StateRecord::Request(request) => request.reply.iter().cloned().collect(),
        _ => Vec::new(),
    };
    let mut contents = vec![(name, value.to_vec())];
    let replies = replies.iter();
    contents.extend(replies.map(|stored| again::<pb::Reply>("Reply", &stored.reply)));
    contents
}

fn open_events(key: &[u8], value: &[u8]) -> Vec<Content> {
    let mut contents = vec![again::<pb::EventChunk>("EventChunk", value)];
    let mut revisions = Vec::new();
    let chunk = Bytes::copy_from_slice(value);
    let from = Revision::default();
    chunks_of::unpack(key, chunk, from, &mut |revision, value| {
        revisions.push(chunks_of::alone(revision, &value));
        events::decode(revision, value.clone())?;
        contents.push(again::<pb::RevisionEvents>("RevisionEvents", &value));
        let stored = pb::RevisionEvents::decode(value).expect("it was just decoded");
        for event in stored.events.iter().filter(|event| event.gone == 0) {
            if !event.record.is_empty() {
                contents.extend(open_state(&event.key, &event.record));
            }
        }
        Ok(())
    })
    .expect("it opens");
    let packed = chunks_of::pack(&revisions, usize::MAX);
    let [(last, again)] = &packed[..] else {
        panic!("one chunk became {}", packed.len());
    };
    assert_eq!(crate::state::Key::encode_events(*last)[..], *key);
    assert_eq!(again, value);
    contents
}

fn open_log(key: &[u8], value: &[u8]) -> Vec<Content> {
    fn unseal<M: prost::Message + Default + std::fmt::Debug>(
        name: &'static str,
        key: wire::Key,
        value: &[u8],
    ) -> (M, Content) {
        let message: M = wire::unseal(key, value).expect("it opens");
        assert_eq!(Record::seal(key, &message).value(), value, "{message:?}");
        let bytes = message.encode_to_vec();
        (message, (name, bytes))
    }
    use wire::Key as K;
    let key = log_key(key);
    match key {
        K::Group | K::Generation(_) => {
            let (_, content) = unseal::<pb::StoredNumber>("StoredNumber", key, value);
            vec![content]
        }
        K::Identity => {
            let (stored, content) = unseal::<pb::StoredIdentity>("StoredIdentity", key, value);
            let node = NodeId::new(stored.node_id).expect("not 0");
            let identity = NodeIdentity::parse(&stored, node, Path::new("data"));
            let identity = identity.expect("it opens");
            assert_eq!(pb::StoredIdentity::from(identity), stored);
            vec![content]
        }
        K::Head(_) => {
            let (head, content) = unseal::<pb::LogHead>("LogHead", key, value);
            let vote = head.vote.map(crate::raft::Vote::from);
            assert_eq!(vote.map(pb::Vote::from), head.vote);
            vec![content]
        }
        K::Committed(_) => vec![unseal::<pb::LogId>("LogId", key, value).1],
        K::LogTime => vec![unseal::<pb::StoredLogTime>("StoredLogTime", key, value).1],
        K::Entry(..) => {
            let (stored, content) = unseal::<pb::Entry>("Entry", key, value);
            let mut entry = Entry::try_from(stored.clone()).expect("it opens");
            if let EntryPayload::Normal(proposal) = &mut entry.payload {
                // It keeps the bytes that it was read from.
                *proposal = Proposal::new(proposal.stamp, proposal.commands.to_vec());
            }
            assert_eq!(pb::Entry::from(&entry), stored);
            let mut contents = vec![content];
            if let Some(pb::entry::Payload::Proposal(bytes)) = &stored.payload {
                contents.push(again::<pb::Proposal>("Proposal", bytes));
                let proposal = pb::Proposal::decode(bytes.clone()).expect("it was decoded");
                for command in proposal.commands {
                    contents.extend(open_command(&command));
                }
            }
            contents
        }
    }
}

/// The log's keys are never decoded but here.
fn log_key(key: &[u8]) -> wire::Key {
    use wire::Key as K;
    let shard = ShardId::ZERO;
    let index = u64::from_be_bytes(key[3..].try_into().expect("eight bytes"));
    let all = [
        K::Group,
        K::Identity,
        K::Generation(shard),
        K::Head(shard),
        K::Committed(shard),
        K::LogTime,
        K::Entry(shard, index),
    ];
    let known = all.into_iter().find(|known| known.encode() == *key);
    known.expect("a known key")
}

/// Its files are all zeros, see [`snapshot_contents`].
fn open_contents(value: &[u8]) -> Vec<Content> {
    let data = tempfile::tempdir().expect("a temporary directory");
    let path = data.path().join("snapshot");
    std::fs::create_dir(&path).expect("created");
    std::fs::write(path.join(CONTENTS), value).expect("written");
    let message = &value[CHECKSUM_BYTES..];
    let manifest = pb::SnapshotManifest::decode(message).expect("it opens");
    for file in &manifest.files {
        let zeros = vec![0; usize::try_from(file.size).expect("small")];
        std::fs::write(path.join(&file.name), zeros).expect("written");
    }
    let owner = ShardDir::new(data.path(), cluster(), ShardId::ZERO);
    let snapshot = SnapshotDir::open(path.clone(), &owner).expect("it opens");
    assert_eq!(*snapshot.manifest(), manifest);
    snapshot.meta().expect("it means something");
    write_contents(&path, snapshot.manifest()).expect("written");
    let again = std::fs::read(path.join(CONTENTS)).expect("readable");
    assert_eq!(again, value);
    vec![("SnapshotManifest", message.to_vec())]
}

fn open_mark(value: &[u8]) -> Vec<Content> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("HIGH_WATER"), value).expect("written");
    let opened = HighWater::open(directory.path()).expect("it opens");
    let (mark, group) = opened.expect("it is there");
    mark.advance(group).expect("written");
    let again = std::fs::read(directory.path().join("HIGH_WATER")).expect("readable");
    assert_eq!(again, value);
    let number = pb::StoredNumber { number: group };
    vec![("StoredNumber", number.encode_to_vec())]
}

// ---- what all of them have together ------------------------------------------------------------------------

/// What was met: fields, as message and field, and kinds of keys, as who opens them and kind.
type Met = BTreeSet<(String, String)>;

fn pool() -> DescriptorPool {
    DescriptorPool::decode(crate::proto::DESCRIPTORS).expect("they were built")
}

fn described(pool: &DescriptorPool, content: &Content) -> DynamicMessage {
    let message = pool.get_message_by_name(&format!("{PACKAGE}.{}", content.0));
    let message = message.unwrap_or_else(|| panic!("there is no {}", content.0));
    DynamicMessage::decode(message, &content.1[..]).expect("it opens")
}

/// Notes who opens a record, and each field in it that has a value.
fn meet(pool: &DescriptorPool, fixture: &Fixture, met: &mut Met) {
    let opener = fixture.opener;
    let kind = fixture.kind();
    assert!(opener.kinds().contains(&&*kind), "{kind} is not listed");
    met.insert((opener.name().to_owned(), kind));
    for content in fixture.open() {
        walk(&described(pool, &content), met);
    }
}

/// Notes each field that has a value, here and below.
fn walk(message: &DynamicMessage, met: &mut Met) {
    let name = message.descriptor().full_name().to_owned();
    assert_eq!(message.unknown_fields().count(), 0, "{name}: {message:?}");
    met.insert((name.clone(), String::new()));
    for (field, value) in message.fields() {
        met.insert((name.clone(), field.name().to_owned()));
        walk_value(value, met);
    }
}

fn walk_value(value: &Field, met: &mut Met) {
    match value {
        Field::Message(message) => walk(message, met),
        Field::List(values) => values.iter().for_each(|value| walk_value(value, met)),
        Field::Map(values) => values.values().for_each(|value| walk_value(value, met)),
        _ => {}
    }
}

/// Every kind of key, and every field of every message that is stored: of those that no service speaks of, and of those that
/// they consist of.
fn wanted(pool: &DescriptorPool) -> Met {
    let mut spoken = BTreeSet::new();
    for service in pool.services() {
        for method in service.methods() {
            reach(&method.input(), &mut spoken);
            reach(&method.output(), &mut spoken);
        }
    }
    let mut stored = BTreeSet::new();
    for message in pool.all_messages() {
        let name = message.full_name().to_owned();
        let is_ours = message.package_name() == PACKAGE && !message.is_map_entry();
        let is_both = SPOKEN_AND_STORED.contains(&message.name());
        if is_ours && (is_both || !spoken.contains(&name)) {
            reach(&message, &mut stored);
        }
    }
    let mut wanted = Met::new();
    for (name, opener) in OPENERS {
        let kinds = opener.kinds().iter();
        wanted.extend(kinds.map(|kind| (name.to_owned(), (*kind).to_owned())));
    }
    for name in stored {
        let message = pool.get_message_by_name(&name).expect("it was just seen");
        wanted.insert((name.clone(), String::new()));
        wanted.extend(
            message
                .fields()
                .map(|field| (name.clone(), field.name().to_owned())),
        );
    }
    wanted
}

/// A message and all that it consists of.
fn reach(message: &MessageDescriptor, reached: &mut BTreeSet<String>) {
    if message.is_map_entry() || reached.insert(message.full_name().to_owned()) {
        for field in message.fields() {
            if let Kind::Message(below) = field.kind() {
                reach(&below, reached);
            }
        }
    }
}

// ---- the file ----------------------------------------------------------------------------------------------

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage/golden/formats.txt")
}

/// All records of the file.
pub(super) fn stored() -> Vec<Fixture> {
    let golden = std::fs::read_to_string(path()).expect("it is in the repository");
    let lines = golden.lines().filter_map(|line| line.strip_prefix("> "));
    lines.map(Fixture::parse).collect()
}

/// A record's line, and what it says.
fn show(pool: &DescriptorPool, fixture: &Fixture) -> String {
    let mut text = fixture.line() + "\n";
    for content in fixture.open() {
        let json = serde_json::to_value(described(pool, &content)).expect("it can be shown");
        writeln!(text, "  {} {json}", content.0).expect("a string takes it");
    }
    text
}

#[tokio::test]
async fn what_was_stored_once_opens_and_means_the_same() {
    let pool = pool();
    let golden = std::fs::read_to_string(path()).unwrap_or_default();
    let mut met = Met::new();
    let mut text = String::new();
    let comments = golden.lines().take_while(|line| line.starts_with('#'));
    for line in comments {
        writeln!(text, "{line}").expect("a string takes it");
    }
    let mut add = |fixture: &Fixture, met: &mut Met| {
        meet(&pool, fixture, met);
        text.push_str(&show(&pool, fixture));
    };
    for line in golden.lines().filter_map(|line| line.strip_prefix("> ")) {
        add(&Fixture::parse(line), &mut met);
    }
    let wanted = wanted(&pool);
    if std::env::var("TROLLEY_GOLDEN").is_ok_and(|mode| mode == "write") {
        let mut add_if_new = |fixture: &Fixture| {
            let mut new = Met::new();
            meet(&pool, fixture, &mut new);
            let adds = new
                .iter()
                .any(|it| wanted.contains(it) && !met.contains(it));
            if adds && fixture.value.len() <= LONGEST {
                add(fixture, &mut met);
            }
        };
        candidates(&mut add_if_new).await;
        std::fs::write(path(), &text).expect("it can be written");
    } else {
        for (nth, (got, expected)) in text.lines().zip(golden.lines()).enumerate() {
            assert_eq!(got, expected, "line {}", nth + 1);
        }
        assert_eq!(text.len(), golden.len());
    }
    let missing = missing(&wanted, &met);
    assert!(missing.is_empty(), "no stored record has {missing:?}");
}

/// Records that may be added: what a running store wrote.
async fn candidates(offer: &mut dyn FnMut(&Fixture)) {
    log_records(offer).await;
    high_water(offer);
    snapshot_contents(offer).await;
    state_records(offer).await;
    expectation(offer);
    for (seed, pace) in (1..=60).flat_map(|seed| [(seed, Pace::Steady), (seed, Pace::WithLulls)]) {
        life(seed, pace, offer);
    }
}

/// What a history brings to a disk.
fn life(seed: u64, pace: Pace, offer: &mut dyn FnMut(&Fixture)) {
    let entries = |last| (1..=last).map(move |index| history_at(pace, seed, index));
    for entry in entries(LIFE) {
        let key = wire::Key::Entry(ShardId::ZERO, entry.log_id.index);
        offer(&Fixture::in_log(key, &pb::Entry::from(&entry)));
        if let EntryPayload::Normal(proposal) = entry.payload {
            for command in proposal.commands.iter() {
                offer(&Fixture::of(Opener::Command, &[], &command.encode()));
            }
        }
    }
    let mut known = BTreeMap::new();
    let memory = watched_over_memory(entries(LIFE), &mut |store| {
        for (key, value) in store.iter() {
            if known.get(key) != Some(value) {
                offer(&Fixture::of(Opener::State, key, value));
                known.insert(key.clone(), value.clone());
            }
        }
    });
    for reply in memory.replies.iter().flat_map(|replies| &replies.0) {
        let reply = reply.reply.encode_to_vec();
        offer(&Fixture::of(Opener::Reply, &[], &reply));
    }
}

/// All that a log leaves on its disk.
async fn log_records(offer: &mut dyn FnMut(&Fixture)) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let shard = ShardId::ZERO;
    let db = super::open_log(data.path());
    db.adopt_cluster(cluster()).await.expect("adopted");
    db.set_generation(shard, 3).await.expect("switched");
    let mut log = db.log(shard).expect("it opens");
    let mut entries: Vec<_> = (1..=6)
        .map(|index| put(index, "k", Bytes::from_static(b"v")))
        .collect();
    entries.push(entry(7, EntryPayload::Membership(membership(7))));
    entries.push(entry(8, EntryPayload::Blank));
    let (sender, flushed) = TypeConfig::oneshot();
    let queued = log.append(entries, IOFlushed::signal(sender)).await;
    queued.expect("queued");
    flushed.await.expect("answered").expect("durable");
    log.purge(log_id(4)).await.expect("queued");
    let committed = log.save_committed(Some(log_id(6))).await;
    committed.expect("queued");
    db.note_log_time(&pb::StoredLogTime {
        log_time: 1_000_001,
        boot: Bytes::from_static(&[9; 16]),
        machine_time: 77_000,
    });
    let vote = pb::Vote {
        term: 3,
        node_id: 2,
        committed: true,
    };
    log.save_vote(&vote.into()).await.expect("durable");
    db.shutdown().await;
    drop((log, db));
    let families = [
        crate::storage::db::META,
        rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
    ];
    let (options, path) = (rocksdb::Options::default(), data.path().join("log"));
    let db = rocksdb::DB::open_cf_for_read_only(&options, path, families, false);
    let db = db.expect("it opens");
    for family in families {
        offer_all(&db, family, Opener::Log, offer);
    }
}

fn high_water(offer: &mut dyn FnMut(&Fixture)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mark = HighWater::create(directory.path()).expect("created");
    mark.advance(77).expect("written");
    let mark = std::fs::read(directory.path().join("HIGH_WATER")).expect("readable");
    offer(&Fixture::of(Opener::Mark, &[], &mark));
}

/// Those of a real snapshot, but for its files: a fixture has nothing but zeros to put into them.
async fn snapshot_contents(offer: &mut dyn FnMut(&Fixture)) {
    let mut node = node_with_everything().await;
    let built = build(&mut node.machine).await;
    let mut manifest = built.snapshot.manifest().clone();
    let zeros = [0; 100];
    manifest.files = vec![pb::SnapshotFile {
        name: "000012.sst".to_owned(),
        size: zeros.len() as u64,
        checksum: Bytes::copy_from_slice(&xxhash_rust::xxh3::xxh3_128(&zeros).to_le_bytes()),
    }];
    write_contents(node.data.path(), &manifest).expect("written");
    let contents = std::fs::read(node.data.path().join(CONTENTS)).expect("readable");
    offer(&Fixture::of(Opener::Contents, &[], &contents));
}

/// What only a database has, the place in the log, and how it stores the rest.
async fn state_records(offer: &mut dyn FnMut(&Fixture)) {
    let node = node_with_everything().await;
    let state = node.machine.state();
    state.flush().expect("the disk works");
    let db = state.database();
    for family in [
        rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
        crate::storage::db::EVENTS,
    ] {
        offer_all(&db, family, Opener::State, offer);
    }
}

async fn node_with_everything() -> Node {
    let mut node = Node::new();
    let mut entries: Vec<_> = (1..LIFE - 1).map(|index| history(1, index)).collect();
    // A node comes and goes.
    let with_another = EntryPayload::Membership(membership_with(&[9]));
    entries.push(entry(LIFE - 1, with_another));
    entries.push(entry(LIFE, EntryPayload::Membership(membership(LIFE))));
    entries.push(raise(LIFE + 1, KNOWN));
    apply(&mut node.machine, entries).await;
    node
}

fn offer_all(db: &rocksdb::DB, family: &str, opener: Opener, offer: &mut dyn FnMut(&Fixture)) {
    let family = db.cf_handle(family).expect("opened");
    for item in db.iterator_cf(family, rocksdb::IteratorMode::Start) {
        let (key, value) = item.expect("readable");
        offer(&Fixture::of(opener, &key, &value));
    }
}

/// A leader's own commands, which no script has.
fn expectation(offer: &mut dyn FnMut(&Fixture)) {
    let operation = Operation::Tick {
        checkpoint: true,
        expect: Some(pb::DigestCheckpoint {
            number: 4,
            digest: Bytes::from_static(&[6; 16]),
        }),
    };
    let command = Command::new(Namespace::default(), Identity::Anonymous, operation);
    offer(&Fixture::of(Opener::Command, &[], &command.encode()));
    if let EntryPayload::Normal(proposal) = raise(LIFE + 1, KNOWN).payload {
        let command = proposal.commands.first().expect("it has one");
        offer(&Fixture::of(Opener::Command, &[], &command.encode()));
    }
}

/// Fields that have no value in what the product writes.
fn missing<'a>(wanted: &'a Met, met: &'a Met) -> Vec<&'a (String, String)> {
    let is_stored = |(message, field): &&(String, String)| {
        !NEVER_STORED.contains(&(message.as_str(), field.as_str()))
    };
    wanted.difference(met).filter(is_stored).collect()
}

/// Lives in which everything must have been written.
const LIVES: u64 = 40;

/// What some of the encoders write by hand is what its message would be, and none of them has come to leave anything out.
#[tokio::test]
async fn everything_is_still_written_and_opens() {
    let pool = pool();
    let wanted = wanted(&pool);
    let mut met = Met::new();
    // Fails on what does not open, is written otherwise, or has a field that its message does not know.
    let mut open = |fixture: &Fixture| meet(&pool, fixture, &mut met);
    log_records(&mut open).await;
    high_water(&mut open);
    snapshot_contents(&mut open).await;
    state_records(&mut open).await;
    expectation(&mut open);
    for seed in 101..=100 + LIVES {
        for pace in [Pace::Steady, Pace::WithLulls] {
            life(seed, pace, &mut |fixture| meet(&pool, fixture, &mut met));
        }
        if missing(&wanted, &met).is_empty() {
            println!("everything was written up to seed {seed}");
            return;
        }
    }
    let missing = missing(&wanted, &met);
    panic!("nothing was written that has {missing:?}");
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    hex::encode(bytes)
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.trim_start_matches('-')).expect("hexadecimal")
}
