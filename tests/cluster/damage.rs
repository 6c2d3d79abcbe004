//! Damage to any one file of the log: the node refuses to start, or has lost nothing. Damage that comes while it runs: it stops.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Cluster, LeftBehind, eventually};

const KEYS: usize = 50;

/// A byte is flipped in each file of the log in turn. The node refuses to start, or has lost nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_or_did_not_matter() {
    let mut cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    for key in 0..KEYS {
        let put = client.keys().put(format!("key-{key}"), "v").send().await;
        put.expect("one node takes a write");
    }
    client.close().await;
    cluster.node(1).kill();
    let data = cluster.node(1).data_dir().to_owned();
    let whole = data.with_extension("whole");
    fs::rename(&data, &whole).expect("nobody uses it");

    let (mut refused, mut harmless) = (Vec::new(), Vec::new());
    for name in files_of_log(&whole) {
        fs::remove_dir_all(&data).ok();
        copy(&whole, &data);
        flip(&data.join(&name));
        cluster.node(1).start();
        let mut code = None;
        eventually("a node that serves or refuses", async || {
            code = cluster.node(1).exit_code();
            code.is_some() || cluster.leader().await.is_some()
        })
        .await;
        match code {
            Some(3) => refused.push(name),
            Some(code) => panic!("{} damaged: exit code {code}", name.display()),
            None => {
                let client = cluster.client();
                for key in 0..KEYS {
                    let got = client.keys().get(format!("key-{key}")).send().await;
                    got.unwrap_or_else(|e| panic!("{} damaged: key-{key}: {e}", name.display()));
                }
                client.close().await;
                harmless.push(name);
            }
        }
        cluster.node(1).kill();
    }
    println!("refused: {refused:?}; harmless: {harmless:?}");
    let entries = |name: &PathBuf| name.extension().is_some_and(|e| e == "log");
    assert!(refused.iter().any(entries), "damaged entries were accepted");
}

/// A table rots that is open already. It is found when a follower needs the snapshot that has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_snapshot_rots_stops_and_names_the_file() {
    let mut cluster = Cluster::start(3, &["--snapshot-keep-entries", "100"]).await;
    let client = cluster.client();
    let LeftBehind {
        leader, away, load, ..
    } = cluster.leave_behind(&client).await;
    load.stop_and_check().await;
    let table = largest_table(cluster.node(leader).data_dir());
    flip(&table);
    cluster.node(away).start();
    let exit = cluster.node(leader).wait_for_exit().await;
    assert_eq!(exit.code(), Some(5));
    let name = table.file_name().expect("it has one").to_string_lossy();
    let end = cluster.node(leader).log_end();
    assert!(end.contains(&*name), "{end}");
    cluster.wait_for_leader_beside(leader).await;
    cluster.wait_until_caught_up(away).await;
    client.close().await;
}

/// Of the snapshots of a node.
fn largest_table(data: &Path) -> PathBuf {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("it can be listed");
        let paths = entries.map(|entry| entry.expect("it can be listed").path());
        paths.collect::<Vec<_>>()
    };
    let is_snapshot = |path: &PathBuf| path.to_string_lossy().contains("/snapshot-");
    let snapshots = list(&data.join("shards/0")).into_iter().filter(is_snapshot);
    let files = snapshots.flat_map(|snapshot| list(&snapshot));
    let tables = files.filter(|file| file.extension().is_some_and(|e| e == "sst"));
    let size = |file: &PathBuf| fs::metadata(file).map_or(0, |found| found.len());
    tables.max_by_key(size).expect("there is data")
}

/// Files of the log that are not empty, relative to the data directory.
fn files_of_log(data: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data.join("log")).expect("the log is a folder");
    let files = files.map(|file| file.expect("it can be listed").path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| fs::metadata(file).is_ok_and(|m| m.is_file() && m.len() > 0))
        .map(|file| {
            file.strip_prefix(data)
                .expect("it lies under it")
                .to_owned()
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "a log without files");
    files
}

/// In the middle: what a crash can tear is the end.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(file, bytes).expect("it can be written");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}
