//! Nodes that must not start: each says why by its exit code and changes nothing.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::harness::{Cluster, copy, eventually, unused_port};

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs `trolley serve` to its end, which must come by itself: its exit code, and what it said.
async fn serve(flags: &[&str]) -> (i32, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_trolley"))
        .arg("serve")
        .args(flags)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is there");
    let mut running = Running(child);
    let mut status = None;
    eventually("a node that ends by itself", async || {
        status = running.0.try_wait().expect("it is our own process");
        status.is_some()
    })
    .await;
    let mut said = String::new();
    let mut errors = running.0.stderr.take().expect("it is piped");
    errors.read_to_string(&mut said).expect("it is text");
    let code = status.and_then(|status| status.code());
    (code.expect("it was not killed"), said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// The one line in which a node says why it does not run.
fn complaint(said: &str) -> &str {
    let mut errors = said.lines().filter(|line| line.contains(" ERROR "));
    let complaint = errors.next().unwrap_or_else(|| panic!("no error: {said}"));
    assert_eq!(errors.next(), None, "more than one: {said}");
    complaint
}

/// Refused, with this exit code, which the line tells as well, and for a reason that names this.
fn expect_refusal((code, said): &(i32, String), expected: i32, names: &[&str]) {
    assert_eq!(*code, expected, "{said}");
    let complaint = complaint(said);
    assert!(
        complaint.contains(&format!("exit_code={expected}")),
        "{complaint}"
    );
    for name in names {
        assert!(complaint.contains(name), "{name} is not named: {complaint}");
    }
}

#[tokio::test]
async fn settings_that_make_no_sense_touch_nothing() {
    let folder = TempDir::new().expect("a folder");
    let data = folder.path().join("data");
    let cases: [&[&str]; 4] = [
        &["--data-dir", text(&data)],
        &[
            "--data-dir",
            text(&data),
            "--node-id",
            "0",
            "--initial-cluster",
            "1=127.0.0.1:1",
        ],
        &[
            "--data-dir",
            text(&data),
            "--node-id",
            "2",
            "--initial-cluster",
            "1=127.0.0.1:1",
        ],
        &[
            "--data-dir",
            text(&data),
            "--single",
            "--heartbeat-interval-ms",
            "900",
        ],
    ];
    for flags in cases {
        let (code, said) = serve(flags).await;
        assert_eq!(code, 2, "{flags:?}: {said}");
        assert!(
            said.contains("--"),
            "{flags:?} is not told what to do: {said}"
        );
    }
    assert!(!data.exists());
}

/// A data directory in use, another node's, and a wiped one under a known id; meanwhile the cluster goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_not_this_nodes_is_refused() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let put = client.keys().put("k", "v").send().await;
    put.expect("three nodes take a write");
    let own = cluster.node(1).data_dir().to_owned();

    let spare = format!("127.0.0.1:{}", unused_port());
    let in_use = ["--data-dir", text(&own), "--single", "--listen", &spare];
    expect_refusal(&serve(&in_use).await, 3, &["in use", text(&own)]);

    let address = cluster.node(2).address().to_owned();
    let fresh = TempDir::new().expect("a folder");
    let taken = [
        "--data-dir",
        text(fresh.path()),
        "--single",
        "--listen",
        &address,
    ];
    expect_refusal(
        &serve(&taken).await,
        4,
        &["another process listens", &address],
    );

    cluster.node(1).kill();
    cluster.wait_for_leader_beside(1).await;
    let foreign = [
        "--data-dir",
        text(&own),
        "--node-id",
        "7",
        "--listen",
        &spare,
    ];
    let mut foreign = foreign.to_vec();
    let initial = format!("7={spare}");
    foreign.extend(["--advertise", &spare, "--initial-cluster", &initial]);
    let names = ["belongs to node 1, not to node 7", text(&own)];
    expect_refusal(&serve(&foreign).await, 3, &names);

    let kept = own.with_extension("kept");
    fs::rename(&own, &kept).expect("the node is dead");
    cluster.node(1).start();
    let exit = cluster.node(1).wait_for_exit().await;
    let said = cluster.node(1).log_end();
    let code = exit.code().expect("it ended by itself");
    expect_refusal(
        &(code, said),
        6,
        &["node id 1 belongs to another data directory"],
    );
    let put = client.keys().put("k", "w").send().await;
    put.expect("two nodes take a write");

    fs::remove_dir_all(&own).expect("what the refused node left");
    fs::rename(&kept, &own).expect("the old directory is back");
    cluster.node(1).start();
    cluster.wait_until_caught_up(1).await;
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// A node that nobody would hear, because its peers dial another address, says so instead of looking well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_under_another_address_is_refused() {
    let mut cluster = Cluster::start(3, &[]).await;
    let own = cluster.node(2).data_dir().to_owned();
    let (one, two, three) = {
        let mut all = cluster.endpoints().into_iter();
        let mut next = || all.next().expect("there are three");
        (next(), next(), next())
    };
    assert!(cluster.node(2).stop().await.success());
    let moved = format!("127.0.0.1:{}", unused_port());
    let initial = format!("1={one},2={moved},3={three}");
    let flags = ["--node-id", "2", "--data-dir", text(&own)];
    let flags = [&flags[..], &["--initial-cluster", &initial]].concat();
    expect_refusal(&serve(&flags).await, 2, &["node 2", &two, &moved]);
    // Nothing was changed.
    cluster.node(2).start();
    cluster.wait_until_caught_up(2).await;
    cluster.wait_for_agreement().await;
}

/// What a node of another cluster, which is gone, has left.
async fn foreign_directory(size: usize, id: u64) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(size, &[]).await;
    cluster.node(id).kill();
    let data = cluster.node(id).data_dir();
    fs::rename(data, folder.path().join("data")).expect("the node is dead");
    folder
}

/// The others refuse a node that was given another cluster's directory. It ends, and they do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_ends_its_node_and_no_other() {
    for size in [3, 1] {
        let id = u64::try_from(size).expect("small");
        let foreign = foreign_directory(size, id).await;
        let mut cluster = Cluster::start(3, &[]).await;
        let client = cluster.client();
        let put = client.keys().put("k", "v").send().await;
        put.expect("three nodes take a write");
        for node in cluster.nodes() {
            node.kill();
        }
        let own = cluster.node(id).data_dir().to_owned();
        let kept = own.with_extension("kept");
        fs::rename(&own, &kept).expect("the node is dead");
        fs::rename(foreign.path().join("data"), &own).expect("nobody uses it");

        for node in cluster.nodes() {
            node.start();
        }
        let exit = cluster.node(id).wait_for_exit().await;
        let said = cluster.node(id).log_end();
        assert_eq!(exit.code(), Some(7), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(
            last.contains("the data directory belongs to cluster"),
            "{said}"
        );
        let put = client.keys().put("k", "w").send().await;
        put.expect("the two others take a write");

        fs::remove_dir_all(&own).expect("the refused node is gone");
        fs::rename(&kept, &own).expect("its own directory is back");
        cluster.node(id).start();
        cluster.wait_until_caught_up(id).await;
        cluster.wait_for_agreement().await;
        client.close().await;
    }
}

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// A bit is another, so many percent into it.
    FlipAt(usize),
    /// A bit of the last bytes is another.
    FlipEnd,
    /// Zeros from so many percent to so many.
    Zero(usize, usize),
    /// Only so many percent are left.
    Cut(usize),
    Gone,
}

impl Harm {
    fn do_to(self, path: &Path) {
        if matches!(self, Self::Gone) {
            let removed = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
            return removed.expect("it can be removed");
        }
        let mut bytes = fs::read(path).expect("it can be read");
        let percent = |part: usize| bytes.len() * part / 100;
        match self {
            Self::FlipAt(part) => {
                let at = percent(part);
                bytes[at] ^= 0x40;
            }
            Self::FlipEnd => {
                let at = bytes.len() - 3;
                bytes[at] ^= 0x40;
            }
            Self::Zero(from, to) => {
                let range = percent(from)..percent(to);
                bytes[range].fill(0);
            }
            Self::Cut(part) => bytes.truncate(percent(part)),
            Self::Gone => {}
        }
        // A new file: others may be linked to the old one.
        fs::remove_file(path).expect("it can be removed");
        fs::write(path, bytes).expect("it can be written");
    }
}

/// The largest file of a folder whose name begins and ends so.
fn largest(folder: &Path, begins: &str, ends: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let named = paths.filter(|path| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with(begins) && name.ends_with(ends)
    });
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    named.max_by_key(size).expect("there is one")
}

/// Files of a data directory, the damage that is done to each, and what the node names.
fn damages(data: &Path) -> Vec<(PathBuf, Harm, &'static str)> {
    use Harm::{Cut, FlipAt, FlipEnd, Gone, Zero};
    let log = data.join("log");
    let shard = data.join("shards/0");
    let (state, snapshot) = (
        largest(&shard, "state-", ""),
        largest(&shard, "snapshot-", ""),
    );
    let entries = largest(&log, "", ".log");
    let (current, manifest) = (log.join("CURRENT"), largest(&log, "MANIFEST-", ""));
    let mark = data.join("HIGH_WATER");
    let (state_current, state_manifest) = (state.join("CURRENT"), largest(&state, "MANIFEST-", ""));
    let (table, contents) = (largest(&state, "", ".sst"), snapshot.join("CONTENTS"));
    let copied = largest(&snapshot, "", ".sst");
    vec![
        // The head has the identity, which is written before anything else.
        (entries.clone(), FlipAt(0), ".log"),
        (entries.clone(), FlipAt(50), ".log"),
        (entries.clone(), FlipEnd, ".log"),
        (entries.clone(), Zero(0, 100), "/log"),
        (entries.clone(), Zero(40, 50), ".log"),
        (entries.clone(), Zero(90, 100), ".log"),
        (entries.clone(), Cut(50), ".log"),
        (entries.clone(), Cut(0), "/log"),
        (entries, Gone, "/log"),
        (manifest.clone(), FlipAt(50), "MANIFEST-"),
        (manifest.clone(), Cut(0), "MANIFEST-"),
        (manifest, Gone, "MANIFEST-"),
        (current.clone(), Cut(0), "CURRENT"),
        (current, Gone, "CURRENT"),
        (log, Gone, "/log"),
        (mark.clone(), FlipAt(20), "HIGH_WATER"),
        (mark.clone(), Zero(0, 100), "HIGH_WATER"),
        (mark.clone(), Cut(50), "HIGH_WATER"),
        (mark, Gone, "HIGH_WATER"),
        (state_current, Gone, "CURRENT"),
        (state_manifest.clone(), FlipAt(50), "MANIFEST-"),
        (state_manifest.clone(), Cut(70), "state"),
        (state_manifest.clone(), Zero(0, 100), "MANIFEST-"),
        (state_manifest, Gone, "MANIFEST-"),
        (table.clone(), FlipEnd, ".sst"),
        (table.clone(), Zero(0, 100), ".sst"),
        (table.clone(), Cut(50), ".sst"),
        (table, Gone, ".sst"),
        (state, Gone, "state-"),
        (contents.clone(), FlipAt(1), "CONTENTS"),
        (contents.clone(), FlipAt(50), "CONTENTS"),
        (contents.clone(), Cut(50), "CONTENTS"),
        (contents, Gone, "CONTENTS"),
        (copied.clone(), FlipAt(50), ".sst"),
        (copied, Gone, ".sst"),
    ]
}

/// Each damage is refused with exit code 3 and one line that names the file, now and when it is tried again: a start that is
/// refused repairs nothing, by dropping what it does not understand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_and_refused_for_good() {
    let mut cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    for part in ["before", "behind"] {
        for number in 0..100 {
            let key = format!("{part} {number}");
            let put = client.keys().put(key, "v".repeat(300)).send().await;
            put.expect("a node takes a write");
        }
        if part == "before" {
            let taken = client.cluster().snapshot(None).await;
            taken.expect("a snapshot is taken");
        }
    }
    client.close().await;
    cluster.node(1).kill();
    let whole = cluster.node(1).data_dir().to_owned();
    let data = whole.with_extension("damaged");
    let address = cluster.node(1).address().to_owned();
    let initial = format!("1={address}");
    let flags = [
        "--node-id",
        "1",
        "--data-dir",
        text(&data),
        "--listen",
        &address,
    ];
    let flags = [
        &flags[..],
        &["--advertise", &address, "--initial-cluster", &initial],
    ]
    .concat();
    copy(&whole, &data);
    let count = damages(&data).len();
    for nth in 0..count {
        fs::remove_dir_all(&data).expect("nobody uses it");
        copy(&whole, &data);
        let (path, harm, name) = damages(&data).swap_remove(nth);
        println!("{harm:?} to {}", path.display());
        harm.do_to(&path);
        let first = serve(&flags).await;
        expect_refusal(&first, 3, &[text(&data), name]);
        let second = serve(&flags).await;
        expect_refusal(&second, 3, &[text(&data)]);
    }
    // It was the damage that was refused.
    fs::remove_dir_all(&data).expect("nobody uses it");
    cluster.node(1).start();
    cluster.wait_for_leader().await;
}

/// A state that is gone altogether looks like that of a new node; the log, which begins behind it, knows better.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_state_is_named_where_the_log_cannot_bring_it_back() {
    let mut cluster = Cluster::start(1, &["--snapshot-keep-entries", "0"]).await;
    let client = cluster.client();
    for number in 0..10 {
        let put = client.keys().put(format!("k-{number}"), "v").send().await;
        put.expect("a node takes a write");
    }
    eventually("a log that is purged", async || {
        let put = client.keys().put("k", "v").send().await;
        put.expect("a node takes a write");
        let taken = client.cluster().snapshot(None).await;
        taken.expect("a snapshot is taken");
        cluster.figures(1).await.purged_index > 0
    })
    .await;
    client.close().await;
    cluster.node(1).kill();
    let shards = cluster.node(1).data_dir().join("shards");
    fs::remove_dir_all(&shards).expect("nobody uses it");
    for _ in 0..2 {
        cluster.node(1).start();
        let exit = cluster.node(1).wait_for_exit().await;
        let said = cluster.node(1).log_end();
        assert_eq!(exit.code(), Some(3), "{said}");
        let last = said.lines().last().unwrap_or_default();
        for name in [text(&shards), "the state database", "replace this node"] {
            assert!(last.contains(name), "{name} is not named: {last}");
        }
    }
}

/// Damage that only a read meets, for it is in the middle of a table: the node stops at once, with exit code 5 and a line that names
/// the file, and answered nothing wrong before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_a_read_meets_is_the_end_of_the_node() {
    let mut cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    // Of the kind that no compression makes small.
    let word =
        |number: usize, nth: usize| (number * 1000 + nth).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = |number: usize| -> String {
        let words = (0..40).map(|nth| format!("{:016x}", word(number, nth)));
        words.collect()
    };
    for number in 0..200 {
        let put = client.keys().put(format!("k-{number}"), value(number));
        put.send().await.expect("a node takes a write");
    }
    let taken = client.cluster().snapshot(None).await;
    taken.expect("a snapshot is taken");
    cluster.node(1).kill();
    let state = largest(&cluster.node(1).data_dir().join("shards/0"), "state-", "");
    let tables = fs::read_dir(&state).expect("a folder");
    let tables = tables.map(|entry| entry.expect("an entry").path());
    for table in tables.filter(|path| path.extension().is_some_and(|it| it == "sst")) {
        // Records lie in front, what is read when a table is opened at the end.
        for part in [10, 20, 30, 40] {
            if fs::metadata(&table).expect("a file").len() > 10_000 {
                Harm::FlipAt(part).do_to(&table);
            }
        }
    }
    cluster.node(1).start();
    cluster.wait_for_leader().await;
    let impatient = client.timeout(std::time::Duration::from_millis(500));
    for number in 0..200 {
        match impatient.keys().get(format!("k-{number}")).send().await {
            Ok(read) => assert_eq!(read.value.value, value(number)),
            Err(_) => break,
        }
    }
    let exit = cluster.node(1).wait_for_exit().await;
    let said = cluster.node(1).log_end();
    let code = exit.code().expect("it ended by itself");
    expect_refusal(&(code, said), 5, &[text(&state), ".sst"]);
    client.close().await;
}

/// A disk that no snapshot can be written to, for another reason than room, is the end of the node at once: it does not go on with
/// a database that takes no write any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_snapshot_is_the_end_of_the_node() {
    let mut cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let put = client.keys().put("k", "v").send().await;
    put.expect("a node takes a write");
    let state = largest(&cluster.node(1).data_dir().join("shards/0"), "state-", "");
    fs::remove_dir_all(&state).expect("a folder");
    let taken = client.cluster().snapshot(None).await;
    taken.expect_err("there is nowhere to write it");
    let exit = cluster.node(1).wait_for_exit().await;
    let said = cluster.node(1).log_end();
    assert_eq!(exit.code(), Some(5), "{said}");
    // RocksDB, without its directory, has more to say than this line.
    let mut lines = said.lines();
    let last = lines.find(|line| line.contains("exit_code=5"));
    assert!(
        last.is_some_and(|line| line.contains(text(&state))),
        "{said}"
    );
    client.close().await;
}
