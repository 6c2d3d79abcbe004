//! Yesterday's disk opens today: bytes of everything that is stored, as versions of this program wrote them.
//!
//! `golden/formats.txt` has them. A line that begins with `>` is a record: which code opens it, its key, its value. Below stands
//! what it says, for people. Each is opened by the code that opens it on a disk, means what stands there, and is written
//! with the same bytes again. Together they have every field of every stored message, so that a field that is added is
//! found to be missing here: `TROLLEY_GOLDEN=write` adds a record that has it, and never takes one away.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_reflect::Value as Field;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _};

use super::equal::over_memory;
use super::telling::{Pace, history_at};
use super::*;
use crate::proto::v1;
use crate::raft::StoredMembership;
use crate::state::{CartOperation, CartOwner, MergePolicy, NamespaceOperation, Settings, record};
use crate::storage::high_water::HighWater;
use crate::storage::identity::Identity as NodeIdentity;
use crate::storage::snapshot::read_contents;
use crate::storage::state_db::meta_of;
use crate::storage::wire::{self, Record};
use crate::types::UserId;

const PACKAGE: &str = "trolley.internal.v1";

/// Longer ones say nothing that a shorter one could not.
const LONGEST: usize = 600;

/// Entries of a history that records are taken from.
const LIFE: u64 = 400;

/// Fields of the public API's messages that stand in records and never have a value there.
const NEVER_STORED: [(&str, &str); 1] = [("trolley.v1.CartLine", "total_minor_units")];

/// What opens a record on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opener {
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

impl Opener {
    fn name(self) -> &'static str {
        let listed = OPENERS.iter().find(|(_, opener)| *opener == self);
        listed.expect("all are listed").0
    }
}

/// One stored record.
#[derive(Debug, Clone)]
struct Fixture {
    opener: Opener,
    key: Vec<u8>,
    value: Vec<u8>,
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

    fn line(&self) -> String {
        let name = self.opener.name();
        format!("> {name} {} {}", hex(&self.key), hex(&self.value))
    }

    /// What is in it. Panics if it does not open, or would be written otherwise.
    fn open(&self) -> Vec<Content> {
        match self.opener {
            Opener::State => open_state(&self.key, &self.value),
            Opener::Log => open_log(&self.key, &self.value),
            Opener::Contents => open_contents(&self.value),
            Opener::Mark => open_mark(&self.value),
            Opener::Command => {
                let bytes = Bytes::copy_from_slice(&self.value);
                let command = Command::decode(bytes).expect("it opens");
                assert_eq!(command.encode(), self.value, "{command:?}");
                vec![("Command", self.value.clone())]
            }
            Opener::Reply => vec![again::<pb::Reply>("Reply", &self.value)],
        }
    }
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
    use crate::state::Key as K;
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
            let stored = pb::StoredMembership::decode(value).expect("it opens");
            let membership = StoredMembership::try_from(stored).expect("it means something");
            let stored = pb::StoredMembership::from(&membership);
            assert_eq!(stored.encode_to_vec(), value);
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
        K::EventMarks => "EventMarks",
        K::UserSession(..) | K::Deadline(..) => {
            assert!(value.is_empty());
            return Vec::new();
        }
    };
    let stored = record::decode(&key, Bytes::copy_from_slice(value)).expect("it opens");
    assert_eq!(record::encode(&stored.record), value, "{key:?}");
    vec![(name, value.to_vec())]
}

fn open_events(key: &[u8], value: &[u8]) -> Vec<Content> {
    let mut contents = vec![again::<pb::EventChunk>("EventChunk", value)];
    let chunk = Bytes::copy_from_slice(value);
    let from = Revision::default();
    chunks_of::unpack(key, chunk, from, &mut |revision, value| {
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
    let shard = ShardId::ZERO;
    let index = u64::from_be_bytes(key[3..].try_into().expect("eight bytes"));
    let all = [
        K::Group,
        K::Identity,
        K::Generation(shard),
        K::Head(shard),
        K::Committed(shard),
        K::Entry(shard, index),
    ];
    let known = all.into_iter().find(|known| known.encode() == *key);
    let key = known.expect("a known key");
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
        K::Entry(..) => {
            let (stored, content) = unseal::<pb::Entry>("Entry", key, value);
            let entry = Entry::try_from(stored.clone()).expect("it opens");
            assert_eq!(pb::Entry::from(&entry), stored);
            let mut contents = vec![content];
            if let Some(pb::entry::Payload::Proposal(bytes)) = &stored.payload {
                contents.push(again::<pb::Proposal>("Proposal", bytes));
                let proposal = pb::Proposal::decode(bytes.clone()).expect("it was decoded");
                for command in proposal.commands {
                    contents.extend(Fixture::of(Opener::Command, &[], &command).open());
                }
            }
            contents
        }
    }
}

fn open_contents(value: &[u8]) -> Vec<Content> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(crate::storage::snapshot::CONTENTS);
    std::fs::write(path, value).expect("written");
    let manifest = read_contents(directory.path()).expect("it opens");
    meta_of(&manifest).expect("it means something");
    let message = manifest.encode_to_vec();
    assert!(value.ends_with(&message));
    vec![("SnapshotManifest", message)]
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

/// Fields that were met, as message and field.
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
    met.insert((fixture.opener.name().to_owned(), String::new()));
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

/// All openers, and every field of every message that is stored: of those that no service speaks of, and of those that they consist of.
fn wanted(pool: &DescriptorPool) -> Met {
    let mut spoken = BTreeSet::new();
    for service in pool.services() {
        for method in service.methods() {
            reach(&method.input(), &mut spoken);
            reach(&method.output(), &mut spoken);
        }
    }
    let mut stored = BTreeSet::new();
    let entries = (
        PACKAGE.to_owned() + ".Entry",
        PACKAGE.to_owned() + ".SnapshotManifest",
    );
    for message in pool.all_messages() {
        let name = message.full_name().to_owned();
        let is_ours = message.package_name() == PACKAGE && !message.is_map_entry();
        let is_both = name == entries.0 || name == entries.1;
        if is_ours && (is_both || !spoken.contains(&name)) {
            reach(&message, &mut stored);
        }
    }
    let openers = OPENERS.map(|(name, _)| (name.to_owned(), String::new()));
    let mut wanted = Met::from(openers);
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

/// A record's line, and what it says.
fn show(pool: &DescriptorPool, fixture: &Fixture) -> String {
    let mut text = fixture.line() + "\n";
    for content in fixture.open() {
        let json = serde_json::to_value(described(pool, &content)).expect("it can be shown");
        writeln!(text, "  {} {json}", content.0).expect("a string takes it");
    }
    text
}

#[test]
fn what_was_stored_once_opens_and_means_the_same() {
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
        candidates(&mut |fixture| {
            let mut new = Met::new();
            meet(&pool, fixture, &mut new);
            let adds = new
                .iter()
                .any(|it| wanted.contains(it) && !met.contains(it));
            if adds && fixture.value.len() <= LONGEST {
                add(fixture, &mut met);
            }
        });
        std::fs::write(path(), &text).expect("it can be written");
    } else {
        for (nth, (got, expected)) in text.lines().zip(golden.lines()).enumerate() {
            assert_eq!(got, expected, "line {}", nth + 1);
        }
        assert_eq!(text.len(), golden.len());
    }
    let missing = wanted.difference(&met);
    let is_stored = |(message, field): &&(String, String)| {
        !NEVER_STORED.contains(&(message.as_str(), field.as_str()))
    };
    let missing: Vec<_> = missing.filter(is_stored).collect();
    assert!(missing.is_empty(), "no stored record has {missing:?}");
}

/// Records that may be added: what a running store would write.
fn candidates(offer: &mut dyn FnMut(&Fixture)) {
    made_by_hand(offer);
    for (seed, pace) in (1..=60).flat_map(|seed| [(seed, Pace::Steady), (seed, Pace::WithLulls)]) {
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
        let replies = over_memory(entries(LIFE)).replies;
        for reply in replies.iter().flat_map(|replies| &replies.0) {
            let reply = reply.reply.encode_to_vec();
            offer(&Fixture::of(Opener::Reply, &[], &reply));
        }
        for last in (1..=LIFE).step_by(10) {
            for (key, value) in over_memory(entries(last)).store.iter() {
                offer(&Fixture::of(Opener::State, key, value));
            }
        }
    }
}

/// What no command of a script leaves behind.
fn made_by_hand(offer: &mut dyn FnMut(&Fixture)) {
    log_records(offer);
    snapshot_records(offer);
    rare_commands(offer);
    rare_replies(offer);
}

fn id(index: u64) -> pb::LogId {
    pb::LogId {
        term: 3,
        node_id: 2,
        index,
    }
}

fn log_records(offer: &mut dyn FnMut(&Fixture)) {
    use wire::Key as K;
    let shard = ShardId::ZERO;
    offer(&Fixture::in_log(K::Group, &wire::number(77)));
    let identity = NodeIdentity {
        cluster: Some(cluster()),
        node: NodeId::new(2).expect("not 0"),
        instance: InstanceId::new([9; 16]),
        format: 1,
    };
    let identity = pb::StoredIdentity::from(identity);
    offer(&Fixture::in_log(K::Identity, &identity));
    let head = pb::LogHead {
        vote: Some(pb::Vote {
            term: 3,
            node_id: 2,
            committed: true,
        }),
        last_purged: Some(id(4)),
        last: Some(id(9)),
        first: 5,
    };
    offer(&Fixture::in_log(K::Head(shard), &head));
    for payload in [EntryPayload::Membership(membership(8)), EntryPayload::Blank] {
        let entry = pb::Entry::from(&entry(8, payload));
        offer(&Fixture::in_log(K::Entry(shard, 8), &entry));
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mark = HighWater::create(directory.path()).expect("created");
    mark.advance(77).expect("written");
    let mark = std::fs::read(directory.path().join("HIGH_WATER")).expect("readable");
    offer(&Fixture::of(Opener::Mark, &[], &mark));
}

fn snapshot_records(offer: &mut dyn FnMut(&Fixture)) {
    let membership = StoredMembership::new(Some(log_id(8)), membership(8));
    let membership = pb::StoredMembership::from(&membership);
    let key = crate::state::Key::RaftMembership.encode();
    let value = membership.encode_to_vec();
    offer(&Fixture::of(Opener::State, &key, &value));
    let manifest = pb::SnapshotManifest {
        format: 1,
        cluster_id: Bytes::copy_from_slice(cluster().as_bytes()),
        shard_id: 1,
        last_log_id: Some(id(8)),
        membership: Some(membership),
        revision: 6,
        files: vec![pb::SnapshotFile {
            name: "000012.sst".to_owned(),
            size: 4096,
            checksum: Bytes::from_static(&[5; 16]),
        }],
    };
    let message = manifest.encode_to_vec();
    let mut contents = xxhash_rust::xxh3::xxh3_128(&message).to_le_bytes().to_vec();
    contents.extend_from_slice(&message);
    offer(&Fixture::of(Opener::Contents, &[], &contents));
}

fn rare_commands(offer: &mut dyn FnMut(&Fixture)) {
    let absolute = v1::TtlSettings {
        max_ms: Some(9),
        ..v1::TtlSettings::default()
    };
    let settings = v1::NamespaceSettings {
        session: Some(v1::SessionSettings {
            absolute_ttl: Some(absolute),
            ..v1::SessionSettings::default()
        }),
        cart: None,
    };
    let user = |name: &str| CartOwner::User(UserId::parse(name).expect("short"));
    let operations = [
        NamespaceOperation::Set {
            settings: Settings::parse(Some(settings)).expect("valid"),
            if_revision: None,
        }
        .into(),
        Operation::Cart(CartOperation::Merge {
            source: user("a"),
            target: user("b"),
            policy: MergePolicy::Max,
            if_source_revision: Some(Revision::new(3)),
            if_target_revision: Some(Revision::new(4)),
        }),
        Operation::Tick {
            checkpoint: true,
            expect: Some(pb::DigestCheckpoint {
                number: 4,
                digest: Bytes::from_static(&[6; 16]),
            }),
        },
    ];
    for operation in operations {
        let command = Command::new(Namespace::default(), Identity::Anonymous, operation);
        offer(&Fixture::of(Opener::Command, &[], &command.encode()));
    }
}

fn rare_replies(offer: &mut dyn FnMut(&Fixture)) {
    let rotated = pb::SessionRotated {
        cart: Some(pb::CartsMerged {
            taken_lines: 1,
            ..pb::CartsMerged::default()
        }),
        cart_moved: true,
        ..pb::SessionRotated::default()
    };
    let conflict = pb::SaveConflict {
        fields: vec!["f".to_owned()],
        actual_revision: 5,
    };
    let aborted = pb::TxnAborted {
        refusal: Some(pb::txn_aborted::Refusal::SaveConflict(conflict)),
        ..pb::TxnAborted::default()
    };
    for body in [
        pb::reply::Body::SessionRotated(rotated),
        pb::reply::Body::TxnAborted(aborted),
    ] {
        let reply = pb::Reply {
            revision: 6,
            body: Some(body),
        };
        offer(&Fixture::of(Opener::Reply, &[], &reply.encode_to_vec()));
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    crate::state::tests::hex(bytes)
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim_start_matches('-').as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    digits.map(byte).collect()
}
