//! From a checkpoint to another node's state, with everything that can go wrong between.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::limits;
use crate::storage::receive::{self, Receiver};
use crate::storage::snapshot::CONTENTS;

const CHUNK: usize = 1000;

/// Sends what the receiver lacks, in small chunks, up to `limit` bytes. Returns whether all of it was sent.
fn send(snapshot: &SnapshotDir, receiver: &mut Receiver, mut limit: usize) -> bool {
    let held = receiver.held();
    for (index, file) in snapshot.manifest().files.iter().enumerate() {
        let content = fs::read(snapshot.path().join(&file.name)).expect("readable");
        let mut offset = usize::try_from(held[index]).expect("small");
        while offset < content.len() {
            let end = content.len().min(offset + CHUNK);
            if limit < end - offset {
                return false;
            }
            limit -= end - offset;
            receiver
                .write(small(index), offset as u64, &content[offset..end])
                .expect("accepted");
            offset = end;
        }
    }
    true
}

fn small(index: usize) -> u32 {
    u32::try_from(index).expect("few files")
}

pub(super) fn receive(snapshot: &SnapshotDir, dir: &ShardDir) -> SnapshotDir {
    let mut receiver = Receiver::begin(dir, snapshot.manifest().clone()).expect("accepted");
    assert!(send(snapshot, &mut receiver, usize::MAX));
    receiver.finish().expect("complete")
}

async fn current(machine: &mut Machine) -> Snapshot {
    let current = machine.get_current_snapshot().await.expect("readable");
    current.expect("there is one")
}

/// Some table of the snapshot, which is the bulk of it.
fn a_table(snapshot: &SnapshotDir) -> PathBuf {
    let mut files = snapshot.manifest().files.iter();
    let table = files.find(|file| generation::is_table(&file.name));
    snapshot.path().join(&table.expect("there is data").name)
}

fn flip_a_byte(path: &Path) {
    let mut content = fs::read(path).expect("readable");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    // A new file: the old one's inode is shared with the state database.
    fs::remove_file(path).expect("removed");
    fs::write(path, content).expect("written");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("readable");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("plain")
        })
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_taken_and_installed_under_load_gives_equal_state() {
    let seed = 21;
    let mut leader = Node::new();
    apply(&mut leader.machine, (1..=500).map(|i| history(seed, i))).await;
    let mut builder = leader.machine.get_snapshot_builder().await;
    let mut building = tokio::task::JoinSet::new();
    building.spawn(async move { builder.build_snapshot().await });
    for index in 501..=2500 {
        apply(&mut leader.machine, [history(seed, index)]).await;
    }
    let built = building.join_next().await.expect("one task");
    let built = built.expect("no panic").expect("a snapshot");
    let at = built.meta.last_log_id.expect("of something").index;
    assert!((500..=2500).contains(&at), "at {at}");

    let mut follower = Node::new();
    apply(&mut follower.machine, (1..=50).map(|i| history(seed, i))).await;
    let received = receive(&built.snapshot, &follower.shard_dir());
    let state = follower.machine.state();
    follower
        .machine
        .install_snapshot(&built.meta, received)
        .await
        .expect("installed");
    let expected = (built.meta.last_log_id, built.meta.last_membership.clone());
    assert_eq!(
        follower.machine.applied_state().await.expect("readable"),
        expected
    );
    assert_eq!(state.header().digest, recomputed(&state));
    assert_eq!(state.applied().borrow().log_index, at);
    assert_eq!(current(&mut follower.machine).await.meta, built.meta);

    let rest = at + 1..=2500;
    apply(&mut follower.machine, rest.map(|i| history(seed, i))).await;
    assert_eq!(dump(&state), dump(&leader.machine.state()));
    // And so it stays, once nobody has it open any more.
    drop(state);
    let again = Node::at(follower.close().await).expect("it opens");
    assert_eq!(dump(&again.machine.state()), dump(&leader.machine.state()));
}

/// Whoever was once a member is none a second time: its id is known after it was removed, after a restart, and where a snapshot
/// brought the state.
#[tokio::test]
async fn the_id_of_a_removed_node_stays_known() {
    let changes = |first: u64, all: &[&[u64]]| {
        let entries = (first..).zip(all);
        let entries = entries.map(|(index, learners)| {
            entry(index, EntryPayload::Membership(membership_with(learners)))
        });
        entries.collect::<Vec<_>>()
    };
    let mut leader = Node::new();
    let highest = |node: &Node| node.machine.state().highest_node_id();
    assert_eq!(highest(&leader), 0);
    apply(&mut leader.machine, changes(1, &[&[], &[2]])).await;
    assert_eq!(highest(&leader), 2);
    // Added and removed within one batch.
    apply(&mut leader.machine, changes(3, &[&[2, 9], &[2, 3]])).await;
    assert_eq!(highest(&leader), 9);
    let built = build(&mut leader.machine).await;

    let mut follower = Node::new();
    let received = receive(&built.snapshot, &follower.shard_dir());
    let installed = follower.machine.install_snapshot(&built.meta, received);
    installed.await.expect("installed");
    for node in [leader, follower] {
        assert_eq!(highest(&node), 9);
        let mut node = Node::at(node.close().await).expect("it opens");
        assert_eq!(highest(&node), 9);
        apply(&mut node.machine, changes(5, &[&[]])).await;
        assert_eq!(highest(&node), 9, "of a membership that has only node 1");
    }
}

#[tokio::test]
async fn only_the_current_snapshot_and_those_in_use_stay() {
    let mut node = Node::new();
    apply(&mut node.machine, (1..=100).map(|i| history(3, i))).await;
    let first = build(&mut node.machine).await;
    apply(&mut node.machine, (101..=200).map(|i| history(3, i))).await;
    let second = build(&mut node.machine).await;
    assert!(first.snapshot.path().exists(), "it is in use");
    let path = first.snapshot.path().to_owned();
    drop(first);
    assert!(!path.exists());
    assert_eq!(current(&mut node.machine).await.meta, second.meta);
    let path = second.snapshot.path().to_owned();
    drop(second);
    assert!(path.exists());
    let mut node = Node::at(node.close().await).expect("it opens");
    let reopened = current(&mut node.machine).await;
    assert_eq!(reopened.snapshot.path(), path);
    assert_eq!(reopened.meta.last_log_id, Some(log_id(200)));
}

#[tokio::test]
async fn looking_into_a_checkpoint_leaves_nothing_in_it() {
    let mut node = Node::new();
    apply(&mut node.machine, (1..=100).map(|i| history(3, i))).await;
    let built = build(&mut node.machine).await;
    let mut listed: Vec<_> = built.snapshot.names().map(str::to_owned).collect();
    listed.push(CONTENTS.to_owned());
    listed.sort();
    assert_eq!(names(built.snapshot.path()), listed);
}

#[tokio::test]
async fn a_flipped_byte_in_a_snapshot_is_named_and_not_served() {
    for of_contents in [false, true] {
        let mut node = Node::new();
        apply(&mut node.machine, (1..=300).map(|i| history(3, i))).await;
        let built = build(&mut node.machine).await;
        let damaged = if of_contents {
            built.snapshot.path().join(CONTENTS)
        } else {
            a_table(&built.snapshot)
        };
        drop(built);
        let data = node.close().await;
        flip_a_byte(&damaged);
        let refused = Node::at(data).err().expect("damage").to_string();
        let name = damaged
            .file_name()
            .expect("a file")
            .to_str()
            .expect("plain");
        assert!(refused.contains(name), "{refused}");
    }
}

#[tokio::test]
async fn a_state_behind_its_snapshot_is_damage() {
    let mut node = Node::new();
    apply(&mut node.machine, (1..=100).map(|i| history(3, i))).await;
    let before = Node::at(node.crashed()).expect("it opens").close().await;
    let built = build(&mut node.machine).await;
    // A snapshot from the future of that crash.
    let name = built.snapshot.path().file_name().expect("named").to_owned();
    let target = before.path().join("shards/0").join(name);
    copy_tree(built.snapshot.path(), &target).expect("copied");
    let refused = Node::at(before).err().expect("damage").to_string();
    assert!(refused.contains("the state database"), "{refused}");
}

#[tokio::test]
async fn a_broken_transfer_resumes_where_it_stopped() {
    let mut leader = Node::new();
    apply(&mut leader.machine, (1..=500).map(|i| history(9, i))).await;
    let built = build(&mut leader.machine).await;
    let manifest = built.snapshot.manifest().clone();
    let follower = Node::new();
    let dir = follower.shard_dir();
    let mut receiver = Receiver::begin(&dir, manifest.clone()).expect("accepted");
    assert!(!send(&built.snapshot, &mut receiver, 10_000));
    let held = receiver.held();
    assert!(held.iter().sum::<u64>() > 5000, "{held:?}");
    let early = receiver.finish().expect_err("not complete");
    assert!(matches!(early, receive::Error::Refused(_)), "{early}");
    drop(receiver);
    // A restart does not lose it either.
    let mut follower = Node::at(follower.close().await).expect("it opens");
    let mut receiver = Receiver::begin(&dir, manifest).expect("accepted");
    assert_eq!(receiver.held(), held);
    assert!(send(&built.snapshot, &mut receiver, usize::MAX));
    let complete = receiver.finish().expect("complete");
    let machine = &mut follower.machine;
    machine
        .install_snapshot(&built.meta, complete)
        .await
        .expect("installed");
    assert_eq!(dump(&machine.state()), dump(&leader.machine.state()));
}

#[tokio::test]
async fn a_damaged_file_is_sent_again_and_another_snapshot_starts_afresh() {
    let mut leader = Node::new();
    apply(&mut leader.machine, (1..=300).map(|i| history(9, i))).await;
    let built = build(&mut leader.machine).await;
    let follower = Node::new();
    let dir = follower.shard_dir();
    let mut receiver = Receiver::begin(&dir, built.snapshot.manifest().clone()).expect("accepted");
    let table = a_table(&built.snapshot);
    let content = fs::read(&table).expect("readable");
    let file = built
        .snapshot
        .names()
        .position(|name| table.ends_with(name));
    let file = file.expect("listed");
    receiver
        .write(small(file), 0, &vec![0; content.len()])
        .expect("accepted");
    assert!(send(&built.snapshot, &mut receiver, usize::MAX));
    let damaged = receiver.finish().expect_err("it differs");
    assert!(
        matches!(damaged, receive::Error::Damaged { .. }),
        "{damaged}"
    );
    assert_eq!(receiver.held()[file], 0);
    assert!(send(&built.snapshot, &mut receiver, usize::MAX));
    drop(receiver.finish().expect("complete now"));

    apply(&mut leader.machine, (301..=310).map(|i| history(9, i))).await;
    let newer = build(&mut leader.machine).await;
    let mut receiver = Receiver::begin(&dir, built.snapshot.manifest().clone()).expect("accepted");
    assert!(!send(&built.snapshot, &mut receiver, 5000));
    let other = Receiver::begin(&dir, newer.snapshot.manifest().clone()).expect("accepted");
    assert_eq!(other.held().iter().sum::<u64>(), 0);
    let incoming = names(dir.path())
        .into_iter()
        .filter(|name| name.starts_with("incoming"));
    assert_eq!(incoming.count(), 1);
}

/// Its sender is gone, and the log has brought what it has. Nobody will offer it again.
#[tokio::test]
async fn a_transfer_that_the_log_has_overtaken_takes_no_room() {
    let mut leader = Node::new();
    apply(&mut leader.machine, (1..=300).map(|i| history(9, i))).await;
    let built = build(&mut leader.machine).await;
    let manifest = built.snapshot.manifest().clone();
    let mut follower = Node::new();
    let dir = follower.shard_dir();
    let begun = || {
        let mut receiver = Receiver::begin(&dir, manifest.clone()).expect("accepted");
        assert!(!send(&built.snapshot, &mut receiver, 10_000));
        receiver
    };
    let incoming = || {
        let names = names(dir.path()).into_iter();
        names.filter(|name| name.contains("incoming")).count()
    };
    let mut receiver = begun();
    apply(&mut follower.machine, (1..=299).map(|i| history(9, i))).await;
    build(&mut follower.machine).await;
    assert_eq!(incoming(), 1, "it may be needed");
    apply(&mut follower.machine, (300..=310).map(|i| history(9, i))).await;
    build(&mut follower.machine).await;
    assert_eq!(incoming(), 0, "after a snapshot of its own");
    let held = receiver.held();
    let mut next = held.iter().zip(&manifest.files);
    let next = next.position(|(held, file)| *held < file.size);
    let next = next.expect("it is not complete");
    let written = receiver.write(small(next), held[next], b"x");
    assert!(
        matches!(written, Err(receive::Error::Storage(_))),
        "its directory is gone: {written:?}"
    );
    // It can begin anew all the same.
    drop(begun());
    assert_eq!(incoming(), 1);
    let _follower = Node::at(follower.close().await).expect("it opens");
    assert_eq!(incoming(), 0, "after a start");
}

#[tokio::test]
async fn a_transfer_under_a_name_of_an_earlier_version_is_removed_at_a_start() {
    let node = Node::new();
    let dir = node.shard_dir();
    let earlier = dir.path().join("incoming-0123456789abcdef");
    let data = node.close().await;
    fs::create_dir(&earlier).expect("made");
    let _node = Node::at(data).expect("it opens");
    assert!(!earlier.exists());
}

#[tokio::test]
async fn a_received_snapshot_is_safe_from_the_next_transfer() {
    let mut leader = Node::new();
    apply(&mut leader.machine, (1..=300).map(|i| history(9, i))).await;
    let built = build(&mut leader.machine).await;
    let mut follower = Node::new();
    let dir = follower.shard_dir();
    let received = receive(&built.snapshot, &dir);
    // The same snapshot once more, as from a leader that missed the answer, and then another one.
    let again = receive(&built.snapshot, &dir);
    let mut other = built.snapshot.manifest().clone();
    other.revision += 1;
    Receiver::begin(&dir, other).expect("accepted");
    let unused = again.path().to_owned();
    drop(again);
    assert!(!unused.exists());
    follower
        .machine
        .install_snapshot(&built.meta, received)
        .await
        .expect("installed");
    assert_eq!(
        dump(&follower.machine.state()),
        dump(&leader.machine.state())
    );
}

#[tokio::test]
async fn what_a_receiver_refuses() {
    let mut leader = Node::new();
    apply(&mut leader.machine, (1..=50).map(|i| history(9, i))).await;
    let built = build(&mut leader.machine).await;
    let good = built.snapshot.manifest().clone();
    let follower = Node::new();
    let dir = follower.shard_dir();
    let mut bad: Vec<(&str, pb::SnapshotManifest)> = Vec::new();
    for name in [
        "",
        ".",
        "..",
        "../state-0/CURRENT",
        "/etc/passwd",
        "a/b",
        ".x",
        "CONTENTS",
        "CONTENTS.tmp",
    ] {
        let mut manifest = good.clone();
        manifest.files[0].name = name.to_owned();
        bad.push((name, manifest));
    }
    let mut twice = good.clone();
    twice.files.push(twice.files[0].clone());
    bad.push(("a name twice", twice));
    let mut huge = good.clone();
    huge.files[0].size = u64::MAX;
    huge.files[1].size = 2;
    bad.push(("sizes overflow", huge));
    let mut many = good.clone();
    many.files = (0..=limits::SNAPSHOT_FILES)
        .map(|nth| pb::SnapshotFile {
            name: format!("{nth}.sst"),
            ..good.files[0].clone()
        })
        .collect();
    bad.push(("too many files", many));
    let mut foreign = good.clone();
    foreign.cluster_id = Bytes::from_static(&[8; 16]);
    bad.push(("another cluster", foreign));
    let shard_id = 1;
    bad.push((
        "another shard",
        pb::SnapshotManifest {
            shard_id,
            ..good.clone()
        },
    ));
    let format = 2;
    bad.push((
        "another format",
        pb::SnapshotManifest {
            format,
            ..good.clone()
        },
    ));
    let last_log_id = None;
    bad.push((
        "no log id",
        pb::SnapshotManifest {
            last_log_id,
            ..good.clone()
        },
    ));
    for (what, manifest) in bad {
        let refused = Receiver::begin(&dir, manifest);
        assert!(matches!(refused, Err(receive::Error::Refused(_))), "{what}");
    }
    let mut receiver = Receiver::begin(&dir, good.clone()).expect("accepted");
    let size = good.files[0].size;
    let beyond = vec![0; usize::try_from(size).expect("small") + 1];
    for refused in [
        receiver.write(9999, 0, b"x"),
        receiver.write(0, 1, b"x"),
        receiver.write(0, 0, &beyond),
    ] {
        assert!(matches!(refused, Err(receive::Error::Refused(_))));
    }
    assert_eq!(receiver.held()[0], 0);
}

#[tokio::test]
async fn tables_that_did_not_change_are_not_read_again() {
    let mut node = Node::new();
    apply(&mut node.machine, (1..=300).map(|i| history(3, i))).await;
    let first = build(&mut node.machine).await;
    apply(&mut node.machine, (301..=310).map(|i| history(3, i))).await;
    // If this checksum is taken over, it was not computed; the table itself stays whole.
    let second = build(&mut node.machine).await;
    let shared = |file: &&pb::SnapshotFile| generation::is_table(&file.name);
    let before: Vec<_> = first
        .snapshot
        .manifest()
        .files
        .iter()
        .filter(shared)
        .collect();
    let after: Vec<_> = second
        .snapshot
        .manifest()
        .files
        .iter()
        .filter(shared)
        .collect();
    assert!(
        before.iter().all(|file| after.contains(file)),
        "{before:?} {after:?}"
    );
}
