//! Nodes that stop, all at once or one after another, and come back over their data.

use std::fs;

use crate::harness::{Cluster, Load, copy, eventually};

/// A power cut of the whole cluster, as far as processes go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_killed_at_once_forget_nothing() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    for guest in ["first", "second"] {
        let load = Load::start(&client, guest, 16);
        load.wait_for(500).await;
        let told = client.revision();
        for node in cluster.nodes() {
            node.kill();
        }
        for node in cluster.nodes() {
            node.start();
        }
        cluster.wait_for_leader().await;
        // A client of its own, which no earlier answer has told a revision.
        let late = cluster.client();
        let put = late.keys().put("late", "x").send().await;
        let revision = put.expect("three nodes take a write").revision;
        assert!(
            revision > told,
            "the revision went back from {told:?} to {revision:?}"
        );
        late.close().await;
        load.wait_for(100).await;
        load.stop_and_check().await;
    }
    client.close().await;
}

/// Each node in turn is asked to stop, and started again, and no client's call fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_call() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let load = Load::start(&client, "guest", 16);
    for id in [1, 2, 3] {
        load.wait_for(200).await;
        let status = cluster.node(id).stop().await;
        assert!(status.success(), "node {id} left with {status}");
        cluster.node(id).start();
        cluster.node(id).wait_until_listening().await;
        // The next one may stop only once this one counts again.
        cluster.wait_until_caught_up(id).await;
    }
    load.wait_for(200).await;
    load.stop_and_check().await;
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// A terminal that is closed, or a script that asks for settings to be read again, ends no node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_up_ends_nothing() {
    let mut cluster = Cluster::start(1, &[]).await;
    cluster.node(1).hang_up();
    eventually("a node that has seen the signal", async || {
        let node = cluster.node(1);
        assert_eq!(node.exit_code(), None);
        node.said().contains("SIGHUP changes nothing")
    })
    .await;
    let client = cluster.client();
    let put = client.keys().put("k", "v").send().await;
    put.expect("it serves");
    client.close().await;
    let left = cluster.node(1).stop().await;
    assert!(left.success(), "SIGTERM ends it as always: {left}");
}

/// The whole data directory of a node that was stopped, copied with no more than its files' contents, is the node: so a cluster
/// can be put away and brought back, if all of it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_cluster_goes_on_from_copies_of_its_directories() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let put = client.keys().put("before", "1").send().await;
    put.expect("three nodes take a write");
    let taken = client.cluster().snapshot(None).await;
    taken.expect("a snapshot is taken");
    let put = client.keys().put("behind", "2").send().await;
    put.expect("three nodes take a write");
    for node in cluster.nodes() {
        assert!(node.stop().await.success());
        let data = node.data_dir().to_owned();
        let elsewhere = data.with_extension("copy");
        copy(&data, &elsewhere);
        fs::remove_dir_all(&data).expect("nobody uses it");
        fs::rename(&elsewhere, &data).expect("nobody uses it");
    }
    for node in cluster.nodes() {
        node.start();
    }
    cluster.wait_for_leader().await;
    cluster.wait_for_agreement().await;
    for (key, value) in [("before", "1"), ("behind", "2")] {
        let got = client.keys().get(key).send().await.expect("it is there");
        assert_eq!(got.value.value, value);
    }
    client.close().await;
}
