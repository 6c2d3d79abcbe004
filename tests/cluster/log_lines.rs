//! What a node says in its log, for whoever runs it: what it is, whom it does not hear, when it serves and when not. And nothing
//! over and over.

use crate::harness::{Cluster, eventually};

/// Lines of a node through all that this test does to it, at most. Failed heartbeats are ten a second.
const MOST_LINES: usize = 50;

/// How often a log has a line with all of these.
fn count(log: &str, parts: &[&str]) -> usize {
    let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
    log.lines().filter(has_all).count()
}

/// Waits until a node has said this so many times in all.
async fn wait_until_said(cluster: &mut Cluster, id: u64, parts: &[&str], times: usize) {
    let node = cluster.node(id);
    eventually(&format!("{parts:?} in a log"), async || {
        count(&node.said(), parts) >= times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_must_know_is_said_in_few_lines() {
    const SERVES: [&str; 2] = [" INFO ", ": serving"];
    const SERVES_NOT: [&str; 2] = [" WARN ", ": not serving"];
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let others = cluster.others(leader);
    let address = cluster.node(leader).address().to_owned();
    let data = cluster.node(leader).data_dir().display().to_string();
    let said = cluster.node(leader).said();
    let first = said.lines().next().unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    for part in [
        "starting",
        version,
        &format!("node={leader}"),
        &address,
        &data,
    ] {
        assert!(first.contains(part), "{part} is not in {first}");
    }
    wait_until_said(&mut cluster, leader, &SERVES, 1).await;

    let one = format!("node={}", others[0]);
    let silent = [" WARN ", "a member does not answer", &one];
    let heard = [" INFO ", "a member answers again", &one];
    cluster.node(others[0]).kill();
    wait_until_said(&mut cluster, leader, &silent, 1).await;
    cluster.node(others[0]).start();
    wait_until_said(&mut cluster, leader, &heard, 1).await;

    let before = count(&cluster.node(leader).said(), &SERVES_NOT);
    for id in &others {
        cluster.node(*id).kill();
    }
    wait_until_said(&mut cluster, leader, &SERVES_NOT, before + 1).await;
    let before = count(&cluster.node(leader).said(), &SERVES);
    for id in &others {
        cluster.node(*id).start();
    }
    wait_until_said(&mut cluster, leader, &SERVES, before + 1).await;

    for node in cluster.nodes() {
        let said = node.said();
        assert!(said.lines().count() < MOST_LINES, "{said}");
        assert_eq!(count(&said, &[" WARN openraft"]), 0, "{said}");
    }
}
