//! Nodes that sleep: a leader through its own deposition, a majority while the rest is asked how it is.

use futures::future::join_all;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use trolley::client::{Client, ClientConfig, Consistency, Transport};
use trolley::proto::v1::GetKeyRequest;
use trolley::proto::v1::kv_service_client::KvServiceClient;

use crate::harness::{Cluster, DEADLINE, eventually};

/// Reads that wait in a paused leader's sockets are the first thing that it sees when it wakes, while it still
/// believes that it leads. None may answer with the old value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_wakes_up_deposed_serves_no_stale_read() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    for round in 0..3 {
        let (old, new) = (format!("old-{round}"), format!("new-{round}"));
        let put = client.keys().put("k", old).send().await;
        put.expect("three nodes take a write");

        let leader = cluster.wait_for_leader().await;
        let address = format!("http://{}", cluster.node(leader).address());
        let direct = KvServiceClient::connect(address)
            .await
            .expect("the leader listens");
        cluster.node(leader).pause();
        let put = client.keys().put("k", new.clone()).send().await;
        put.expect("two nodes take a write");

        let reads = (0..50).map(|_| read_until_answered(direct.clone(), &new));
        let wake = async {
            // The reads are in its socket by the time that the others have answered a write.
            let put = client.keys().put("other", "x").send().await;
            put.expect("two nodes take a write");
            cluster.node(leader).resume();
        };
        let (refused, ()) = tokio::join!(join_all(reads), wake);
        let refused: u64 = refused.into_iter().sum();
        println!("round {round}: 50 reads were answered, after {refused} refusals");
        cluster.wait_for_agreement().await;
    }
    client.close().await;
}

/// Asks one node until it answers, which must be with `expected` from the first answer on. A refusal is no stale
/// answer. Gives the number of refusals.
async fn read_until_answered(direct: KvServiceClient<Channel>, expected: &str) -> u64 {
    let mut refused = 0;
    eventually("an answer of the node that was paused", async || {
        let request = GetKeyRequest {
            key: "k".to_owned(),
            ..GetKeyRequest::default()
        };
        let mut direct = direct.clone();
        let answer = timeout(DEADLINE, direct.get(request)).await;
        let Ok(answer) = answer.expect("the node answers or refuses") else {
            refused += 1;
            return false;
        };
        let item = answer.into_inner().item.expect("the key exists");
        assert_eq!(item.value, expected, "a stale read");
        true
    })
    .await;
    refused
}

/// A node that sleeps keeps its connections. Whoever has the others to ask gets an answer from them in good time, whatever is
/// asked for and however it travels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_sleeps_holds_up_no_caller() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut clients = Vec::new();
    for transport in [Transport::Exchange, Transport::Unary] {
        let config = ClientConfig::new(cluster.endpoints()).expect("addresses");
        // With the patience that a client has unless it is told otherwise.
        let client = Client::connect(config.transport(transport)).expect("a client");
        let put = client.keys().put("k", "v").send().await;
        put.expect("three nodes take a write");
        clients.push(client);
    }
    let leader = cluster.wait_for_leader().await;
    for asleep in [cluster.others(leader)[0], leader] {
        cluster.node(asleep).pause();
        for client in &clients {
            // Each node is asked first now and then.
            for _ in 0..2 {
                ask_everything(client, asleep).await;
            }
        }
        cluster.node(asleep).resume();
        cluster.wait_until_caught_up(asleep).await;
    }
    for client in clients {
        client.close().await;
    }
}

async fn ask_everything(client: &Client, asleep: u64) {
    let what = format!("while node {asleep} sleeps, by {client:?}");
    let put = client.keys().put("k", "v").send().await;
    let put = put.unwrap_or_else(|error| panic!("a put {what}: {error}"));
    for consistency in [
        Consistency::Linearizable,
        Consistency::AtLeast(put.revision),
        Consistency::Stale,
    ] {
        let get = client.keys().get("k").consistency(consistency);
        let got = get.send().await;
        got.unwrap_or_else(|error| panic!("a read, {consistency:?}, {what}: {error}"));
    }
    let members = client.cluster().members().await;
    members.unwrap_or_else(|error| panic!("members {what}: {error}"));
    let status = client.cluster().status().await;
    let status = status.unwrap_or_else(|error| panic!("status {what}: {error}"));
    let silent: Vec<_> = status
        .nodes
        .iter()
        .filter(|it| !it.error.is_empty())
        .collect();
    assert!(
        silent.len() == 1 && silent[0].node_id == asleep,
        "status {what}: {status:?}"
    );
}

/// Whether a node says that it serves.
async fn serves(health: &HealthClient<Channel>) -> bool {
    let mut health = health.clone();
    let request = HealthCheckRequest {
        service: "trolley.v1.SessionService".to_owned(),
    };
    let answer = timeout(DEADLINE, health.check(request)).await;
    let answer = answer.expect("it answers in time").expect("it answers");
    answer.into_inner().status() == ServingStatus::Serving
}

/// Nothing that a node hears tells it that the others are gone: not the leader, not a follower that knows who led. A load
/// balancer has to be told all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_majority_says_that_it_does_not_serve() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let follower = cluster.others(leader)[0];
    for alone in [leader, follower] {
        let address = format!("http://{}", cluster.node(alone).address());
        let channel = Channel::from_shared(address).expect("an address");
        let health = HealthClient::new(channel.connect().await.expect("the node listens"));
        eventually("SERVING with a majority", async || serves(&health).await).await;
        let others = cluster.others(alone);
        for other in &others {
            cluster.node(*other).pause();
        }
        eventually("NOT_SERVING alone", async || !serves(&health).await).await;
        for other in &others {
            cluster.node(*other).resume();
        }
        eventually("SERVING again", async || serves(&health).await).await;
    }
}
