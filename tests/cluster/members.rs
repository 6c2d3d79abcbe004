//! Nodes that join and nodes that leave, under load, and what cannot be done to a cluster's members.

use std::fs;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use trolley::client::{Client, Error};
use trolley::network::{Greeter, GreetingEndpoint, InitialClusterDiffers};
use trolley::proto::internal::{HelloRequest, HelloResponse};
use trolley::types::NodeId;

use crate::harness::{Cluster, LeftBehind, Load, unused_port};

/// Of a node that its cluster does not know.
const DISOWNED: i32 = 6;

fn id(number: u64) -> NodeId {
    NodeId::new(number).expect("ids begin at 1")
}

async fn members(client: &Client) -> Vec<(u64, bool)> {
    let members = client.cluster().members().await;
    let members = members.expect("a node answers").members;
    let mut members: Vec<_> = members.iter().map(|it| (it.node_id, it.voter)).collect();
    members.sort_unstable();
    members
}

/// A disk is gone for good. A new node takes its place from a snapshot and the log, writes go on all the time, and then the
/// cluster bears the loss of another of its first nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_replaced_under_load() {
    let flags = ["--snapshot-keep-entries", "100"];
    let mut cluster = Cluster::start(3, &flags).await;
    let client = cluster.client();
    let LeftBehind {
        away: gone,
        last,
        load,
        ..
    } = cluster.leave_behind(&client).await;
    let data = cluster.node(gone).data_dir().to_owned();
    fs::remove_dir_all(data).expect("it was there");
    let new = cluster.start_newcomer(&flags);
    cluster.add(&client, new).await;
    cluster.remove(&client, gone).await;
    let mut expected = cluster.others(gone);
    expected.sort_unstable();
    let expected: Vec<_> = expected.into_iter().map(|id| (id, true)).collect();
    assert_eq!(members(&client).await, expected);
    load.wait_for(500).await;

    // Two of three remain, and one of them is the new one.
    let leader = cluster.wait_for_leader().await;
    let first = if leader == new {
        cluster.others(gone)[0]
    } else {
        leader
    };
    cluster.node(first).kill();
    load.wait_for(500).await;
    cluster.node(first).start();
    cluster.wait_until_caught_up(first).await;
    load.stop_and_check().await;

    // What the members are is on their disks, whatever `--initial-cluster` says.
    for node in cluster.nodes().iter_mut().filter(|node| node.id() != gone) {
        node.kill();
        node.start();
    }
    cluster.wait_for_leader().await;
    let nodes = cluster.wait_for_agreement().await;
    let newcomer = nodes.iter().find(|node| node.node_id == new);
    let snapshot = newcomer.expect("it answers").snapshot_index;
    assert!(
        snapshot > last,
        "it was meant to come through a snapshot: {nodes:#?}"
    );
    assert_eq!(members(&client).await, expected);
    client.close().await;
}

/// A cluster of one becomes one of three and one of one again, and every node that was removed ends by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_and_shrinks_and_loses_nothing() {
    let mut cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let load = Load::start(&client, "guest", 8);
    for _ in 0..2 {
        let new = cluster.start_newcomer(&[]);
        cluster.add(&client, new).await;
        load.wait_for(200).await;
    }
    assert_eq!(members(&client).await, [(1, true), (2, true), (3, true)]);
    cluster.wait_until_caught_up(3).await;

    // A follower, and then whoever leads of the two that remain.
    let leader = cluster.wait_for_leader().await;
    let follower = cluster.others(leader)[0];
    cluster.remove(&client, follower).await;
    let left = cluster.node(follower).wait_for_exit().await;
    assert_eq!(left.code(), Some(DISOWNED), "a follower that was removed");
    cluster.node(follower).start();
    let left = cluster.node(follower).wait_for_exit().await;
    assert_eq!(left.code(), Some(DISOWNED), "and that came back");
    load.wait_for(200).await;
    let leader = cluster.wait_for_leader().await;
    cluster.remove(&client, leader).await;
    let left = cluster.node(leader).wait_for_exit().await;
    assert_eq!(left.code(), Some(DISOWNED), "a leader that was removed");
    load.wait_for(200).await;
    load.stop_and_check().await;

    let last = members(&client).await[0].0;
    assert_eq!(members(&client).await, [(last, true)]);
    let again = client.cluster().remove_member(id(leader)).await;
    assert!(again.is_ok(), "it was removed before: {again:?}");
    let all = client.cluster().remove_member(id(last)).await;
    assert_eq!(reason(all), "REMOVAL_UNSAFE");
    let never = client.cluster().remove_member(id(99)).await;
    assert_eq!(reason(never), "UNKNOWN_MEMBER");
    let used = client.cluster().add_member(id(3), "127.0.0.1:1").await;
    assert_eq!(reason(used), "MEMBER_ID_USED");
    // That it was used is known after a restart, too.
    cluster.node(last).kill();
    cluster.node(last).start();
    cluster.wait_for_leader().await;
    let used = client.cluster().add_member(id(3), "127.0.0.1:1").await;
    assert_eq!(reason(used), "MEMBER_ID_USED");
    client.close().await;
}

/// Answers greetings as a new node, and does nothing else.
struct Impostor(u64);

impl Greeter for Impostor {
    fn hello(&self, _: &HelloRequest) -> Result<HelloResponse, InitialClusterDiffers> {
        Ok(HelloResponse {
            node_id: self.0,
            instance: vec![7; 16].into(),
            ..HelloResponse::default()
        })
    }
}

/// Whatever is wrong with a new node, the members stay as they were or have a learner more, which can be removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_member_is_refused() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let voters = [(1, true), (2, true), (3, true)];
    let own = cluster.node(2).address().to_owned();
    let nobody = format!("127.0.0.1:{}", unused_port());
    let add = async |number, address: &str| {
        reason(client.cluster().add_member(id(number), address).await)
    };
    assert_eq!(add(4, "0.0.0.0:1").await, "MALFORMED");
    assert_eq!(add(3, &own).await, "MEMBER_ID_USED");
    assert_eq!(add(4, &own).await, "MEMBER_ADDRESS_USED");
    assert_eq!(add(4, &nobody).await, "MEMBER_UNREACHABLE");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let mut serving = JoinSet::new();
    let greeting = GreetingEndpoint::new(Impostor(4)).service();
    let server = tonic::transport::Server::builder().add_service(greeting);
    serving.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    assert_eq!(add(5, &address).await, "MEMBER_DIFFERS");
    assert_eq!(members(&client).await, voters);

    // It is added, and never takes what it is sent, however little that is.
    assert_eq!(add(4, &address).await, "MEMBER_BEHIND");
    let learner = [&voters[..], &[(4, false)]].concat();
    assert_eq!(members(&client).await, learner);
    assert_eq!(add(4, &address).await, "MEMBER_BEHIND");
    let removed = client.cluster().remove_member(id(4)).await;
    removed.expect("a learner can go at any time");
    assert_eq!(members(&client).await, voters);
    assert_eq!(add(4, &address).await, "MEMBER_ID_USED");

    // Of the two that would stay the leader must hear both.
    let leader = cluster.wait_for_leader().await;
    let others = cluster.others(leader);
    cluster.node(others[0]).kill();
    let removed = client.cluster().remove_member(id(others[1])).await;
    assert_eq!(reason(removed), "REMOVAL_UNSAFE");
    // The dead one can go.
    cluster.remove(&client, others[0]).await;
    client.close().await;
}

/// The reason, or what the client says if there is none.
fn reason<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error
            .reason()
            .map_or_else(|| error.to_string(), str::to_owned),
    }
}
