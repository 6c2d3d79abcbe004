//! Followers that were away, and how they get what they missed.

use trolley::types::NodeId;

use crate::harness::{Cluster, Load, eventually};

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
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let leader = cluster.wait_for_leader().await;
    let away = cluster.others(leader)[0];
    let last = cluster
        .status()
        .await
        .into_iter()
        .find(|node| node.node_id == away);
    let last = last.expect("it answers").last_log_index;
    cluster.node(away).kill();

    let load = Load::start(&client, "guest", 16);
    eventually(
        "a log that is purged beyond what the follower has",
        async || {
            load.wait_for(500).await;
            let node = NodeId::new(leader).expect("node ids begin at 1");
            let taken = client.cluster().snapshot(Some(node)).await;
            taken.expect("the leader takes a snapshot");
            let nodes = cluster.status().await;
            nodes
                .iter()
                .any(|node| node.node_id == leader && node.purged_index > last)
        },
    )
    .await;
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
    client.close().await;
}
