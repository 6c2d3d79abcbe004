//! Followers that were away, and how they get what they missed.

use trolley::proto::v1::NodeStatus;
use trolley::torture::audit::INSTALLED;

use crate::harness::{Cluster, LeftBehind, Load, eventually};

/// A short absence: the leader still has the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_catches_up_through_the_log() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let leader = cluster.wait_for_leader().await;
    let away = cluster.others(leader)[0];
    cluster.node(away).kill();

    let load = Load::start(&client, "guest", 16);
    load.wait_for(500).await;
    load.stop_and_check().await;
    cluster.node(away).start();
    let nodes = cluster.wait_for_agreement().await;
    let node = nodes.iter().find(|node| node.node_id == away);
    let snapshot = node.expect("it answers").snapshot_index;
    assert_eq!(snapshot, 0, "it was meant to come through the log");
    client.close().await;
}

/// A long one: the log is purged, so only a snapshot can bring it back, and it is taken while writes go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_catches_up_through_a_snapshot_taken_under_load() {
    let mut cluster = Cluster::start(3, &["--snapshot-keep-entries", "100"]).await;
    let client = cluster.client();
    let LeftBehind {
        away, last, load, ..
    } = cluster.leave_behind(&client).await;
    cluster.node(away).start();
    cluster.wait_until_caught_up(away).await;
    load.stop_and_check().await;

    let nodes = cluster.wait_for_agreement().await;
    let node = nodes.iter().find(|node| node.node_id == away);
    let snapshot = node.expect("it answers").snapshot_index;
    assert!(
        snapshot > last,
        "it was meant to come through a snapshot: {nodes:#?}"
    );
    // trolley-torture counts snapshots by this.
    let said = cluster.node(away).said();
    assert!(said.contains(INSTALLED), "{said}");
    client.close().await;
}

/// Nobody asks for one: the log's growth is enough, on every node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_a_snapshot_and_purges_when_its_log_has_grown() {
    let flags = [
        "--snapshot-log-bytes",
        "256KiB",
        "--snapshot-keep-entries",
        "10",
    ];
    let cluster = Cluster::start(3, &flags).await;
    let client = cluster.client();
    let load = Load::start(&client, "guest", 16);
    eventually("snapshots and purged logs on all nodes", async || {
        let nodes = cluster.status().await;
        let is_done = |node: &NodeStatus| node.snapshot_index > 0 && node.purged_index > 0;
        nodes.len() == 3 && nodes.iter().all(is_done)
    })
    .await;
    load.stop_and_check().await;
    cluster.wait_for_agreement().await;
    client.close().await;
}
