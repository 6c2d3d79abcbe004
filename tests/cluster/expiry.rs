//! Deadlines in log time, through a fail-over.

use std::time::Duration;

use trolley::client::{CartOwner, Client};

use crate::harness::{Cluster, eventually};

/// Longer than an election and a few calls take on a machine that is busy.
const IDLE_TTL: Duration = Duration::from_secs(10);

/// Log time as the leader has it.
async fn log_time(cluster: &Cluster) -> u64 {
    let nodes = cluster.status().await;
    nodes.iter().map(|node| node.log_time_ms).max().unwrap_or(0)
}

async fn is_there(client: &Client, token: &str) -> bool {
    match client.sessions().get(token).send().await {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => panic!("a read failed: {error}"),
    }
}

/// The new leader neither resets a deadline nor forgets it, and nothing that is touched dies early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_survives_failover_unchanged() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let created = client.sessions().create().idle_ttl(IDLE_TTL).send().await;
    let created = created.expect("a session can be created");
    let token = created.token.clone();
    let owner = CartOwner::Session(token.clone());
    let added = client.carts().add(&owner, "mug", 1).send().await;
    added.expect("a live session has a cart");

    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
    cluster.wait_for_leader_beside(leader).await;
    let touched = client.sessions().touch(&token).send().await;
    let deadline = touched.expect("it lives still").idle_deadline_ms;
    let reached = log_time(&cluster).await;
    let most = u64::try_from(IDLE_TTL.as_millis()).expect("a few seconds");
    // The deadline counts from the end of the touch interval, a tenth of the TTL.
    let most = reached + most + most / 10;
    assert!(deadline <= most, "{deadline} is later than {most}");

    let mut last_seen_alive = 0;
    eventually("the end of the session", async || {
        let before = log_time(&cluster).await;
        let alive = is_there(&client, &token).await;
        if alive {
            last_seen_alive = before;
        }
        !alive
    })
    .await;
    // It was read as alive only before its deadline, and as gone only after.
    assert!(last_seen_alive < deadline, "{last_seen_alive} {deadline}");
    assert!(log_time(&cluster).await >= deadline);
    let cart = client.carts().get(&owner).send().await;
    let gone = cart.expect_err("its cart went with it");
    assert_eq!(gone.reason(), Some("SESSION_NOT_FOUND"));

    cluster.node(leader).start();
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// Reads a session, and checks that it is there if and only if its deadline has not come. Says whether it is.
async fn there_until(cluster: &Cluster, client: &Client, token: &str, deadline_ms: u64) -> bool {
    let before = log_time(cluster).await;
    let read = client.sessions().get(token).send().await;
    let after = log_time(cluster).await;
    match read {
        Ok(_) => {
            assert!(before < deadline_ms, "read at {before}, due {deadline_ms}");
            true
        }
        Err(error) => {
            assert!(error.is_not_found(), "{error}");
            assert!(after >= deadline_ms, "gone by {after}, due {deadline_ms}");
            false
        }
    }
}

/// Nobody touches it, so it ends when its creator was told, whoever leads by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_that_the_creator_was_told_survives_the_leader() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let leader = cluster.wait_for_leader().await;
    let ttl = Duration::from_secs(10);
    let created = client.sessions().create().idle_ttl(ttl).send().await;
    let created = created.expect("a session can be created").value;
    let deadline = created.session.idle_deadline_ms;
    cluster.node(leader).kill();
    cluster.wait_for_leader_beside(leader).await;

    let mut alive = 0;
    eventually("the end of the session", async || {
        let there = there_until(&cluster, &client, &created.token, deadline).await;
        alive += u32::from(there);
        !there
    })
    .await;
    assert!(alive > 0, "an election took as long as a session's life");
    cluster.node(leader).start();
    cluster.wait_for_agreement().await;
    client.close().await;
}
