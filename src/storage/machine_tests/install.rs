//! Installing a snapshot, cut off after each step of the table in `generation`.

use std::fs;

use super::*;
use crate::storage::generation::Name;
use crate::storage::receive::Receiver;
use crate::storage::snapshot::CONTENTS;

const SEED: u64 = 33;
const OLD: u64 = 120;
const NEW: u64 = 400;

/// A follower at [`OLD`] that has completely received a snapshot at [`NEW`], and what it will be after installing.
struct Scene {
    follower: Node,
    received: SnapshotDir,
    meta: SnapshotMeta,
    old: Vec<(Vec<u8>, Vec<u8>)>,
    new: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Scene {
    async fn new() -> Self {
        let mut leader = Node::new();
        apply(&mut leader.machine, (1..=NEW).map(|i| history(SEED, i))).await;
        let built = build(&mut leader.machine).await;
        let mut follower = Node::new();
        apply(&mut follower.machine, (1..=OLD).map(|i| history(SEED, i))).await;
        // It has a snapshot of its own, which flushes its state too.
        build(&mut follower.machine).await;
        let dir = follower.shard_dir();
        let mut receiver =
            Receiver::begin(&dir, built.snapshot.manifest().clone()).expect("accepted");
        for (index, file) in built.snapshot.manifest().files.iter().enumerate() {
            let content = fs::read(built.snapshot.path().join(&file.name)).expect("readable");
            let index = u32::try_from(index).expect("few");
            receiver.write(index, 0, &content).expect("accepted");
        }
        Self {
            received: receiver.finish().expect("complete"),
            old: dump(&follower.machine.state()),
            new: dump(&leader.machine.state()),
            meta: built.meta,
            follower,
        }
    }

    fn next(&self) -> u64 {
        self.follower.machine.state().generation() + 1
    }

    /// Step 2.
    fn link(&self) {
        let to = self.follower.shard_dir().new_state(self.next());
        generation::link_into(self.received.path(), &to, self.received.names()).expect("linked");
    }

    /// Step 3.
    fn name(&self) {
        let dir = self.follower.shard_dir();
        generation::publish(&dir.new_state(self.next()), &dir.state(self.next())).expect("named");
    }

    /// Step 4.
    fn open(&self) {
        let path = self.follower.shard_dir().state(self.next());
        let opener = &self.follower.machine.shard.opener;
        drop(opener.open(self.next(), &path).expect("it opens"));
    }

    /// Step 5.
    async fn switch(&self) {
        let log = &self.follower.log;
        log.set_generation(ShardId::ZERO, self.next())
            .await
            .expect("written");
    }

    /// Step 6.
    fn adopt(&self) {
        self.follower
            .machine
            .shard
            .snapshots
            .adopt(&self.received)
            .expect("linked");
    }

    /// Opens what a crash would leave now.
    async fn after_crash(&self, step: &str, installed: bool) {
        let mut node = Node::at(self.follower.crashed()).unwrap_or_else(|e| panic!("{step}: {e}"));
        let (applied, snapshot, expected) = if installed {
            (NEW, NEW, &self.new)
        } else {
            (OLD, OLD, &self.old)
        };
        let (found, _) = node.machine.applied_state().await.expect("readable");
        assert_eq!(found, Some(log_id(applied)), "{step}");
        assert!(
            dump(&node.machine.state()) == *expected,
            "{step}: other content"
        );
        let current = node.machine.get_current_snapshot().await.expect("readable");
        let current = current.expect("there is one");
        assert_eq!(current.meta.last_log_id, Some(log_id(snapshot)), "{step}");
        only_what_belongs(&node, installed, step);
        // It goes on from there, and a restart finds the same.
        apply(
            &mut node.machine,
            (applied + 1..=NEW + 50).map(|i| history(SEED, i)),
        )
        .await;
        let state = dump(&node.machine.state());
        let node = Node::at(node.close().await).unwrap_or_else(|e| panic!("{step}: {e}"));
        assert!(
            dump(&node.machine.state()) == state,
            "{step}: lost on restart"
        );
    }
}

fn only_what_belongs(node: &Node, installed: bool, step: &str) {
    let listed = node.shard_dir().list().expect("readable");
    let count = |wanted: fn(&Name) -> bool| listed.iter().filter(|(name, _)| wanted(name)).count();
    assert_eq!(
        count(|name| matches!(name, Name::State { .. })),
        1,
        "{step}: {listed:?}"
    );
    assert_eq!(
        count(|name| matches!(name, Name::Snapshot { .. })),
        1,
        "{step}: {listed:?}"
    );
    assert_eq!(
        count(|name| matches!(name, Name::Unfinished)),
        0,
        "{step}: {listed:?}"
    );
    assert_eq!(
        count(|name| matches!(name, Name::Received)),
        0,
        "{step}: {listed:?}"
    );
    let incoming = usize::from(!installed);
    assert_eq!(
        count(|name| matches!(name, Name::Incoming { .. })),
        incoming,
        "{step}: {listed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_step_leaves_the_old_state_or_the_new_one() {
    let scene = Scene::new().await;
    scene.after_crash("1: received", false).await;
    scene.link();
    scene.after_crash("2: linked", false).await;
    scene.name();
    scene.after_crash("3: named", false).await;
    scene.open();
    scene.after_crash("4: opened", false).await;
    scene.switch().await;
    scene.after_crash("5: switched", true).await;
    scene.adopt();
    scene
        .after_crash("6 and 7: the snapshot is current", true)
        .await;
    fs::remove_dir_all(scene.received.path()).expect("removed");
    scene
        .after_crash("8, in part: nothing incoming", true)
        .await;
}

/// The names of all files of a received snapshot, in an order in which they may go.
fn files_of(received: &SnapshotDir, first: &str) -> Vec<String> {
    let all = received.names().chain([CONTENTS]).map(str::to_owned);
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|name| name != first);
    all
}

/// Earlier versions removed a received snapshot under its own name, and a crash may come after any file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_received_snapshot_that_was_on_its_way_out_is_no_damage() {
    for contents_first in [true, false] {
        let scene = Scene::new().await;
        scene.link();
        scene.name();
        scene.switch().await;
        scene.adopt();
        let table = scene.received.names().find(|it| generation::is_table(it));
        let table = table.expect("there is data").to_owned();
        let first = if contents_first { CONTENTS } else { &table };
        for name in files_of(&scene.received, first) {
            fs::remove_file(scene.received.path().join(&name)).expect("removed");
            scene.after_crash(&format!("{name} is gone"), true).await;
        }
    }
}

/// It was never installed: the log brought what it has. Its table of contents says that it lacks what is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_received_snapshot_that_was_overtaken_and_half_removed_is_no_damage() {
    let mut scene = Scene::new().await;
    let entries = (OLD + 1..=NEW + 10).map(|i| history(SEED, i));
    apply(&mut scene.follower.machine, entries).await;
    scene.follower.machine.state().persist().expect("written");
    let table = scene.received.names().find(|it| generation::is_table(it));
    let table = table.expect("there is data").to_owned();
    fs::remove_file(scene.received.path().join(table)).expect("removed");
    let node = Node::at(scene.follower.crashed()).expect("it opens");
    let listed = node.shard_dir().list().expect("readable");
    let received = listed.iter().filter(|(name, _)| *name == Name::Received);
    assert_eq!(received.count(), 0, "{listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_loses_its_name_before_it_loses_a_file() {
    let scene = Scene::new().await;
    let path = scene.received.path().to_owned();
    let names = files_of(&scene.received, CONTENTS);
    let name = path.file_name().and_then(|name| name.to_str());
    let leaving = path.with_file_name(format!("snapshot-{}.tmp", name.expect("plain")));
    // In the way of the new name.
    fs::write(&leaving, b"").expect("written");
    drop(scene.received);
    for name in names {
        assert!(path.join(&name).exists(), "{name} went first");
    }
    fs::remove_file(&leaving).expect("removed");
    generation::discard(&path).expect("removed");
    assert!(!path.exists() && !leaving.exists());
    // A crash in the middle leaves part of it under the new name.
    fs::create_dir(&leaving).expect("made");
    let node = Node::at(scene.follower.crashed()).expect("it opens");
    let listed = node.shard_dir().list().expect("readable");
    let unfinished = listed.iter().filter(|(name, _)| *name == Name::Unfinished);
    assert_eq!(unfinished.count(), 0, "{listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installing_does_all_steps() {
    let mut scene = Scene::new().await;
    let (meta, received) = (scene.meta.clone(), scene.received.clone());
    let incoming = received.path().to_owned();
    let machine = &mut scene.follower.machine;
    machine
        .install_snapshot(&meta, received)
        .await
        .expect("installed");
    // The scene's own clone goes too.
    scene.received = build(&mut scene.follower.machine).await.snapshot;
    assert!(!incoming.exists());
    assert_eq!(scene.follower.machine.state().generation(), 1);
    assert!(!scene.follower.shard_dir().state(0).exists());
    assert!(dump(&scene.follower.machine.state()) == scene.new);
    scene.after_crash("8: done", true).await;
}

/// A watcher that catches up reads without holding up anything, and may have to open a table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_being_read_keeps_its_files_when_another_takes_its_place() {
    let mut scene = Scene::new().await;
    let state = scene.follower.machine.state();
    let (reading, old) = (state.database(), scene.follower.shard_dir().state(0));
    let (meta, received) = (scene.meta.clone(), scene.received.clone());
    let installed = scene.follower.machine.install_snapshot(&meta, received);
    installed.await.expect("installed");
    assert_eq!(state.generation(), 1);
    let tables = reading.live_files().expect("listed");
    for table in &tables {
        let path = old.join(table.name.trim_start_matches('/'));
        assert!(path.exists(), "{} went", path.display());
    }
    drop(reading);
    assert!(!old.exists(), "nobody reads from it any more");
    scene.after_crash("8: done", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_not_what_was_announced_is_not_installed() {
    let mut scene = Scene::new().await;
    let mut meta = scene.meta.clone();
    meta.last_log_id = Some(log_id(NEW + 1));
    let refused = scene
        .follower
        .machine
        .install_snapshot(&meta, scene.received.clone())
        .await;
    assert!(refused.is_err());
    assert!(dump(&scene.follower.machine.state()) == scene.old);
    scene.after_crash("refused", false).await;
}

#[tokio::test]
async fn a_damaged_or_lost_state_does_not_open() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("a table is missing", |state| {
            fs::remove_file(a_file(state, "sst")).expect("removed");
        }),
        ("a table is cut short", |state| {
            let table = a_file(state, "sst");
            let content = fs::read(&table).expect("readable");
            fs::write(&table, &content[..content.len() / 2]).expect("written");
        }),
        ("CURRENT is missing", |state| {
            fs::remove_file(state.join("CURRENT")).expect("removed");
        }),
        ("the directory is missing", |state| {
            fs::remove_dir_all(state).expect("removed");
        }),
    ];
    for (what, damage) in damages {
        let mut node = Node::new();
        apply(&mut node.machine, (1..=100).map(|i| history(SEED, i))).await;
        build(&mut node.machine).await;
        let state = node.shard_dir().state(0);
        let data = node.close().await;
        damage(&state);
        match Node::at(data) {
            Err(Error::Corrupt { .. }) => {}
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what}: it opened"),
        }
    }
}

/// However a file of the state is damaged: the node does not take it for trouble with the disk, and its message says what to do.
#[tokio::test]
async fn no_damage_to_a_state_is_taken_for_a_failing_disk() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 6] = [
        ("flipped at the head", |bytes| bytes[0] ^= 0x40),
        ("flipped in the middle", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
        }),
        ("flipped at the tail", |bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 0x40;
        }),
        ("zeroed", |bytes| bytes.fill(0)),
        ("cut short", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
    ];
    let whole = closed_state().await;
    let names = fs::read_dir(whole.path().join(STATE)).expect("readable");
    for name in names.map(|entry| entry.expect("readable").file_name()) {
        let content = fs::read(whole.path().join(STATE).join(&name)).expect("readable");
        for (what, damage) in damages.iter().filter(|_| !content.is_empty()) {
            let copy = copy_of(&whole);
            let mut bytes = content.clone();
            damage(&mut bytes);
            fs::write(copy.path().join(STATE).join(&name), bytes).expect("written");
            if let Err(error) = Node::at(copy) {
                let is_damage = matches!(error, Error::Corrupt { .. });
                assert!(is_damage, "{} {what}: {error}", name.display());
            }
        }
    }
}

/// A node whose disk does not let it look is not one whose disk has lost anything: it is not to be replaced.
#[tokio::test]
async fn a_state_that_cannot_be_looked_at_is_no_damage() {
    let whole = closed_state().await;
    for kind in ["CURRENT", "MANIFEST", "sst"] {
        let copy = copy_of(&whole);
        let names = fs::read_dir(copy.path().join(STATE)).expect("readable");
        let mut paths = names.map(|entry| entry.expect("readable").path());
        let path = paths.find(|path| path.to_string_lossy().contains(kind));
        let path = path.expect("there is one");
        fs::remove_file(&path).expect("removed");
        // Nobody can follow it, whatever their rights.
        std::os::unix::fs::symlink(&path, &path).expect("made");
        match Node::at(copy) {
            Err(Error::Database { .. }) => {}
            Err(other) => panic!("{kind}: {other}"),
            Ok(_) => panic!("{kind}: it opened"),
        }
    }
}

/// Of the first generation, in a data directory.
const STATE: &str = "shards/0/state-0";

async fn closed_state() -> TempDir {
    let mut node = Node::new();
    apply(&mut node.machine, (1..=100).map(|i| history(SEED, i))).await;
    build(&mut node.machine).await;
    node.close().await
}

fn copy_of(data: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().expect("a temporary directory");
    copy_tree(data.path(), copy.path()).expect("copied");
    copy
}

fn a_file(directory: &Path, extension: &str) -> std::path::PathBuf {
    let entries = fs::read_dir(directory).expect("readable");
    entries
        .map(|entry| entry.expect("readable").path())
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .expect("there is one")
}
