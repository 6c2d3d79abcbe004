//! Programs are replaced one node after the other, by ones that know newer rules, and clients notice nothing.
//!
//! There is one program here, so what each node's knows is set, and the nodes share the test's process.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trolley::client::Client;
use trolley::clock::Clock;
use trolley::process::End as _;
use trolley::proto::v1::NodeStatus;
use trolley::server;
use trolley::types::{NodeId, StateVersion};

use crate::harness::inside::{Inside, end, leader_of, running, status};
use crate::harness::{Load, connect, eventually};

/// The version after those that there are.
const NEXT: StateVersion = StateVersion::new(StateVersion::NEWEST.get() + 1);

/// Their clocks do not matter.
fn wall(_: Arc<AtomicU64>) -> Clock {
    Clock::System
}

fn follow(nodes: &[NodeStatus], version: StateVersion) -> bool {
    nodes.iter().all(|node| node.state_version == version.get())
}

/// Waits until so many nodes follow the newer rules, and nobody follows others.
async fn follow_next(client: &Client, count: usize) {
    eventually("all follow the newer rules", async || {
        let nodes = status(client).await;
        nodes.len() == count && follow(&nodes, NEXT)
    })
    .await;
}

/// Waits until all nodes have applied what the furthest had committed at the call.
async fn catch_up(client: &Client, count: usize) {
    leader_of(client, count).await;
    let committed = status(client).await;
    let committed = committed.iter().map(|node| node.committed_index).max();
    eventually("everybody catches up", async || {
        let nodes = status(client).await;
        let near = nodes
            .iter()
            .filter(|node| Some(node.applied_index) >= committed);
        near.count() == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_are_replaced_one_after_the_other_and_no_call_fails() {
    let folder = TempDir::with_prefix("trolley-upgrade-").expect("a temporary folder can be made");
    let (mut nodes, client) = running(folder.path(), wall, [0; 3]).await;
    let load = Load::start(&client, "guest", 16);
    eventually("what all programs know", async || {
        follow(&status(&client).await, StateVersion::NEWEST)
    })
    .await;
    for (id, node) in (1..).zip(&mut nodes) {
        load.wait_for(200).await;
        if id > 1 {
            // A leader that knows more asks the others once a second, and one of them does not.
            let first = NodeId::new(1).expect("not 0");
            let led = client.cluster().transfer_leader(Some(first)).await;
            led.expect("it can lead");
            let began = Instant::now();
            eventually("a leader that has asked twice", async || {
                let known = status(&client).await;
                assert!(follow(&known, StateVersion::NEWEST), "too early: {known:?}");
                began.elapsed() > Duration::from_millis(2_500)
            })
            .await;
        }
        node.stop().await;
        node.newest_state_version = NEXT;
        node.start();
        catch_up(&client, 3).await;
    }
    follow_next(&client, 3).await;
    load.wait_for(200).await;
    load.stop_and_check().await;

    // It is part of the state: from the first moment after everybody was down.
    for node in &mut nodes {
        node.stop().await;
    }
    for node in &mut nodes {
        node.start();
    }
    leader_of(&client, 3).await;
    let known = status(&client).await;
    assert!(follow(&known, NEXT), "{known:?}");

    end(nodes, client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_too_old_is_refused_and_the_newer_one_goes_on() {
    let folder = TempDir::with_prefix("trolley-upgrade-").expect("a temporary folder can be made");
    let mut nodes = Inside::all(folder.path(), wall, &[0; 3]);
    for node in &mut nodes {
        node.newest_state_version = NEXT;
        node.start();
    }
    let endpoints: Vec<_> = nodes.iter().map(|node| node.address.clone()).collect();
    let client = connect(&endpoints);
    follow_next(&client, 3).await;

    // Its data directory says so.
    nodes[2].stop().await;
    nodes[2].newest_state_version = StateVersion::NEWEST;
    nodes[2].start();
    let refused = nodes[2].failure().await;
    assert_eq!(refused.exit_code(), 3, "{refused}");
    assert!(refused.to_string().contains("run a newer one"), "{refused}");
    let put = client.keys().put("k", "v").send().await;
    put.expect("the other two go on");
    nodes[2].newest_state_version = NEXT;
    nodes[2].start();
    follow_next(&client, 3).await;
    assert_eq!(value(&client).await, "v");

    // A new node is not taken in.
    let mut fourth = Inside::joining(folder.path(), wall, &nodes);
    fourth.start();
    let id = NodeId::new(4).expect("not 0");
    let mut answer = String::new();
    eventually("the new node says who it is", async || {
        let added = client.cluster().add_member(id, &fourth.address).await;
        let error = added.expect_err("its program is too old");
        answer = error.reason().unwrap_or("no reason").to_owned();
        answer != "MEMBER_UNREACHABLE"
    })
    .await;
    assert_eq!(answer, "MEMBER_TOO_OLD");
    let members = client
        .cluster()
        .members()
        .await
        .expect("a node answers")
        .members;
    assert_eq!(members.len(), 3);
    fourth.stop().await;
    fourth.newest_state_version = NEXT;
    fourth.start();
    nodes.push(fourth);
    eventually("the new node votes", async || {
        let added = client.cluster().add_member(id, &nodes[3].address).await;
        added.is_ok()
    })
    .await;
    follow_next(&client, 4).await;

    end(nodes, client).await;
}

/// Where the log already has the newer rules and the state on the disk does not: as after a crash at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_program_stops_where_the_log_asks_for_more() {
    let folder = TempDir::with_prefix("trolley-upgrade-").expect("a temporary folder can be made");
    let (mut nodes, client) = running(folder.path(), wall, [0; 3]).await;
    nodes[2].kill().await;
    for node in &mut nodes {
        if node.is_running() {
            node.stop().await;
        }
        node.newest_state_version = NEXT;
        node.start();
    }
    follow_next(&client, 3).await;
    // Nothing was written to its state database since: layers are, when they are full or the node stops.
    nodes[2].cut_power().await;
    nodes[2].newest_state_version = StateVersion::NEWEST;
    nodes[2].start();
    let stopped = nodes[2].failure().await;
    assert!(matches!(stopped, server::Error::Stopped(_)), "{stopped:?}");
    assert_eq!(stopped.exit_code(), 5, "{stopped}");
    let message = stopped.to_string();
    assert!(message.contains("run a newer trolley"), "{message}");
    nodes[2].newest_state_version = NEXT;
    nodes[2].start();
    catch_up(&client, 3).await;
    let put = client.keys().put("k", "v").send().await;
    put.expect("a majority is well");
    assert_eq!(value(&client).await, "v");

    end(nodes, client).await;
}

async fn value(client: &Client) -> String {
    let found = client.keys().get("k").send().await;
    let found = found.expect("a majority is well").value;
    String::from_utf8(found.value.to_vec()).expect("text")
}
