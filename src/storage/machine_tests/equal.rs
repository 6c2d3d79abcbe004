//! The same entries over memory and over RocksDB: equal replies, bytes and digests, however they are cut, and however often
//! the state is moved by a snapshot meanwhile.

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};

use super::*;
use crate::state::{Batch, Key as StateKey, MemoryStore, SweepHorizon};

pub(super) const ENTRIES: u64 = 6000;

/// Entries after which the state in memory is made anew from its snapshot.
const RESTORE_LAST: usize = 700;

/// Entries after which another node goes on from a snapshot.
const MOVE_LAST: u64 = 1500;

/// A history over memory.
#[derive(Default)]
pub(super) struct Memory {
    pub store: MemoryStore,
    /// Of each entry.
    pub replies: Vec<Replies>,
    /// Behind each entry.
    pub digests: Vec<Bytes>,
}

/// Applies one entry at a time.
pub(super) fn over_memory(entries: impl IntoIterator<Item = Entry>) -> Memory {
    watched_over_memory(entries, &mut |_| {})
}

/// The same, and shows the store behind each entry.
pub(super) fn watched_over_memory(
    entries: impl IntoIterator<Item = Entry>,
    watch: &mut dyn FnMut(&MemoryStore),
) -> Memory {
    let mut memory = Memory::default();
    let mut horizon = SweepHorizon::default();
    for entry in entries {
        let mut own = Vec::new();
        if let EntryPayload::Normal(proposal) = entry.payload {
            let mut batch = Batch::new(&memory.store, horizon);
            let applied = state::apply_all(&mut batch, proposal.stamp, &proposal.commands);
            own.extend(applied.expect("no fault").into_iter().map(|applied| Reply {
                reply: applied.reply,
                replayed: applied.replayed,
            }));
            let (changes, next) = batch.finish();
            horizon = next;
            memory.store.commit(changes);
        }
        watch(&memory.store);
        memory.replies.push(Replies(own));
        memory.digests.push(memory.store.header().digest);
        if memory.digests.len().is_multiple_of(RESTORE_LAST) {
            let snapshot = memory.store.snapshot();
            memory.store = MemoryStore::restore(&snapshot).expect("own snapshot");
            horizon = SweepHorizon::default();
        }
    }
    memory
}

/// Applies in batches of random size, and moves to another node between some of them.
async fn over_rocksdb(node: &mut Node, seed: u64) -> Vec<Replies> {
    let mut random = Random::new(seed);
    let mut replies = Vec::new();
    let (mut index, mut next_move) = (1, MOVE_LAST);
    while index <= ENTRIES {
        let machine = &mut node.machine;
        let end = (index + 1 + random.below(200)).min(ENTRIES + 1);
        machine
            .batch
            .extend((index..end).map(|index| (history(seed, index), None)));
        machine.commit_batch().expect("no fault");
        replies.append(&mut machine.replies.clone());
        machine.answer();
        machine.relieve().await.expect("written");
        index = end;
        if index > next_move {
            next_move += MOVE_LAST;
            *node = moved(node).await;
        }
    }
    replies
}

/// A new node that has installed a snapshot of another.
async fn moved(from: &mut Node) -> Node {
    let built = build(&mut from.machine).await;
    let mut to = Node::new();
    let received = super::snapshots::receive(&built.snapshot, &to.shard_dir());
    let installed = to.machine.install_snapshot(&built.meta, received).await;
    installed.expect("installed");
    to
}

#[tokio::test]
async fn equal_entries_give_equal_replies_bytes_and_digests() {
    let (mut met, reply_type) = (BTreeSet::new(), reply_type());
    for seed in 1..=4 {
        let memory = over_memory((1..=ENTRIES).map(|index| history(seed, index)));
        let mut node = Node::new();
        let replies = over_rocksdb(&mut node, seed).await;
        for (nth, (reply, expected)) in replies.iter().zip(&memory.replies).enumerate() {
            assert_eq!(reply, expected, "seed {seed}, entry {}", nth + 1);
        }
        assert_eq!(replies.len(), memory.replies.len(), "seed {seed}");
        let state = node.machine.state();
        assert_equal(&state, &memory.store);
        assert_eq!(state.header().digest, recomputed(&state), "seed {seed}");
        for reply in replies.iter().flat_map(|it| &it.0) {
            meet(reply, &reply_type, &mut met);
        }
    }
    let wanted = outcomes(&reply_type);
    let missing: Vec<_> = wanted.difference(&met).collect();
    assert!(missing.is_empty(), "nothing was answered {missing:?}");
}

/// What stands in the database is what stands in memory, but for the place in the log, which memory has none of.
pub(super) fn assert_equal(state: &StateDb, memory: &MemoryStore) {
    let own = [
        StateKey::RaftApplied.encode(),
        StateKey::RaftMembership.encode(),
    ];
    let stored: Vec<_> = dump(state)
        .into_iter()
        .filter(|(key, _)| own.iter().all(|own| own != key))
        .collect();
    let expected: Vec<_> = memory
        .iter()
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    assert_eq!(stored, expected);
}

/// Notes what a command was answered, and what the answer says.
fn meet(reply: &Reply, reply_type: &MessageDescriptor, met: &mut BTreeSet<String>) {
    let message = DynamicMessage::decode(reply_type.clone(), &reply.reply.encode_to_vec()[..]);
    let message = message.expect("it was just encoded");
    let mut bodies = message.fields().filter(|(field, _)| in_body(field));
    let (body, value) = bodies.next().expect("every reply has a body");
    met.insert(body.name().to_owned());
    let value = value.as_message().expect("every body is a message");
    for (field, _) in value.fields() {
        met.insert(format!("{}.{}", body.name(), field.name()));
    }
}

/// Everything that a command can be answered, and whatever such an answer can say: a cart that went along with its session, a
/// conflict that aborted a transaction.
fn outcomes(reply_type: &MessageDescriptor) -> BTreeSet<String> {
    let mut outcomes = BTreeSet::new();
    for body in reply_type.fields().filter(in_body) {
        outcomes.insert(body.name().to_owned());
        let Kind::Message(answer) = body.kind() else {
            panic!("{} is no message", body.name());
        };
        let fields = answer.fields();
        outcomes.extend(fields.map(|field| format!("{}.{}", body.name(), field.name())));
    }
    outcomes
}

fn in_body(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some()
}

fn reply_type() -> MessageDescriptor {
    let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).expect("they were built");
    let reply = pool.get_message_by_name("trolley.internal.v1.Reply");
    reply.expect("it is a message")
}

#[tokio::test]
async fn a_crash_returns_to_an_earlier_point_from_which_the_log_goes_on() {
    let seed = 11;
    let mut whole = Node::new();
    apply(&mut whole.machine, (1..=2000).map(|i| history(seed, i))).await;
    // Some of it reaches the tables for certain; of what comes after, some layers may.
    let mut node = Node::new();
    apply(&mut node.machine, (1..=900).map(|i| history(seed, i))).await;
    build(&mut node.machine).await;
    apply(&mut node.machine, (901..=2000).map(|i| history(seed, i))).await;

    let mut after = Node::at(node.crashed()).expect("it opens");
    let (applied, _) = after.machine.applied_state().await.expect("readable");
    let applied = applied.expect("a flush came before").index;
    assert!((900..=2000).contains(&applied), "applied {applied}");
    let state = after.machine.state();
    assert_eq!(state.header().digest, recomputed(&state));
    apply(
        &mut after.machine,
        (applied + 1..=2000).map(|i| history(seed, i)),
    )
    .await;
    assert_eq!(dump(&state), dump(&whole.machine.state()));
}

#[tokio::test]
async fn a_clean_stop_keeps_everything() {
    let mut node = Node::new();
    apply(&mut node.machine, (1..=500).map(|i| history(5, i))).await;
    let before = dump(&node.machine.state());
    let mut again = Node::at(node.close().await).expect("it opens");
    assert_eq!(dump(&again.machine.state()), before);
    let (applied, _) = again.machine.applied_state().await.expect("readable");
    assert_eq!(applied, Some(log_id(500)));
}

#[tokio::test]
async fn a_fault_commits_nothing_of_its_batch() {
    let mut node = Node::new();
    apply(&mut node.machine, (1..=100).map(|i| history(5, i))).await;
    let tick = |checkpoint, expect| {
        let operation = Operation::Tick { checkpoint, expect };
        let command = Command::new(Namespace::default(), Identity::Anonymous, operation);
        EntryPayload::Normal(Proposal::new(
            LogTime::from_millis(2_000_000),
            vec![command],
        ))
    };
    apply(&mut node.machine, [entry(101, tick(true, None))]).await;
    let before = dump(&node.machine.state());
    let number = node
        .machine
        .state()
        .header()
        .checkpoint
        .expect("made")
        .number;
    let foreign = pb::DigestCheckpoint {
        number,
        digest: Bytes::from_static(&[9; 16]),
    };
    let entries = [
        put(102, "a", Bytes::from_static(b"1")),
        entry(103, tick(false, Some(foreign))),
    ];
    let entries = entries.map(|entry| Ok((entry, None)));
    let stopped = node.machine.apply(stream::iter(entries)).await;
    let message = stopped.expect_err("it diverged").to_string();
    assert!(message.contains("diverged"), "{message}");
    assert_eq!(dump(&node.machine.state()), before);
}
