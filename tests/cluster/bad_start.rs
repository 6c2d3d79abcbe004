//! Nodes that must not start: each says why by its exit code and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::harness::{Cluster, eventually, unused_port};

/// Runs `trolley serve` to its end, which must come by itself.
fn serve(flags: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_trolley"))
        .arg("serve")
        .args(flags)
        .output()
        .expect("the binary is there");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    (status.code().unwrap_or(-1), said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.is_file()).collect()
}

#[test]
fn settings_that_make_no_sense_touch_nothing() {
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
        let (code, said) = serve(flags);
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
    let (code, said) = serve(&in_use);
    assert_eq!(code, 3, "in use: {said}");

    let address = cluster.node(2).address().to_owned();
    let fresh = TempDir::new().expect("a folder");
    let taken = [
        "--data-dir",
        text(fresh.path()),
        "--single",
        "--listen",
        &address,
    ];
    let (code, said) = serve(&taken);
    assert_eq!(code, 4, "port in use: {said}");

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
    let (code, said) = serve(&foreign);
    assert_eq!(code, 3, "another node's: {said}");

    let kept = own.with_extension("kept");
    fs::rename(&own, &kept).expect("the node is dead");
    cluster.node(1).start();
    let exit = cluster.node(1).wait_for_exit().await;
    assert_eq!(exit.code(), Some(6), "{}", cluster.node(1).log_end());
    let put = client.keys().put("k", "w").send().await;
    put.expect("two nodes take a write");

    fs::remove_dir_all(&own).expect("what the refused node left");
    fs::rename(&kept, &own).expect("the old directory is back");
    cluster.node(1).start();
    cluster.wait_until_caught_up(1).await;
    cluster.wait_for_agreement().await;
    client.close().await;
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

/// One byte of the write-ahead log is another: the node refuses and names the log, and serves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_refuses_to_start() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    for number in 0..200 {
        let put = client
            .keys()
            .put(format!("k-{number}"), "v".repeat(300))
            .send()
            .await;
        put.expect("three nodes take a write");
    }
    eventually("all nodes at one revision", async || {
        let nodes = cluster.status().await;
        nodes.len() == 3
            && nodes
                .iter()
                .all(|node| node.applied_index == nodes[0].applied_index)
    })
    .await;
    cluster.node(2).kill();
    let log = cluster.node(2).data_dir().join("log");
    let wal = files(&log)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "log"));
    let wal = wal.max_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
    let wal = wal.expect("a write-ahead log");
    let mut bytes = fs::read(&wal).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&wal, bytes).expect("it can be written");

    cluster.node(2).start();
    let exit = cluster.node(2).wait_for_exit().await;
    let said = cluster.node(2).log_end();
    assert_eq!(exit.code(), Some(3), "{said}");
    assert!(said.contains("log"), "{said}");
    let got = client.keys().get("k-7").send().await;
    got.expect("the others go on");
    client.close().await;
}
