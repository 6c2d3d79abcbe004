//! Leaders that die under load.

use trolley::proto::v1::TransferLeaderRequest;
use trolley::proto::v1::cluster_service_client::ClusterServiceClient;
use trolley::types::NodeId;

use crate::harness::{Cluster, Load, connect};

/// The leader is killed four times while 32 clients add to a cart: every add is in it exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_add_is_lost_or_doubled_when_leaders_are_killed() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let load = Load::start(&client, "guest", 32);
    for _ in 0..4 {
        load.wait_for(300).await;
        let leader = cluster.wait_for_leader().await;
        cluster.node(leader).kill();
        cluster.wait_for_leader_beside(leader).await;
        load.wait_for(300).await;
        cluster.node(leader).start();
        cluster.node(leader).wait_until_listening().await;
    }
    let total = load.stop_and_check().await;
    assert!(total >= 2_400, "only {total} adds");
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// A client that was given one member that is down, and one that is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_is_no_obstacle() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let others = cluster.others(leader);
    cluster.node(others[0]).kill();
    let endpoints = [others[0], others[1]].map(|id| cluster.node(id).address().to_owned());

    let client = connect(&endpoints);
    let put = client.keys().put("greeting", "hello").send().await;
    put.expect("the client finds the leader, which it was not told of");
    let got = client.keys().get("greeting").send().await;
    assert_eq!(got.expect("it was written").value.value, "hello");
    client.close().await;
}

/// A transfer that cannot be names the node that is in the way, and not the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_to_a_node_that_is_down_names_it() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let leader = cluster.wait_for_leader().await;
    let others = cluster.others(leader);
    let id = |number| NodeId::new(number).expect("ids begin at 1");
    cluster.node(others[0]).kill();
    let transferred = client.cluster().transfer_leader(Some(id(others[1]))).await;
    transferred.expect("it is well");
    // Who leads now has never heard it.
    let leader = cluster.channel(others[1]).await;
    let request = TransferLeaderRequest {
        target_node_id: others[0],
    };
    let mut leader = ClusterServiceClient::new(leader);
    let failed = leader.transfer_leader(request).await;
    let failed = failed.expect_err("nobody is there");
    let named = format!("node {} has not answered", others[0]);
    assert!(failed.message().contains(&named), "{failed}");
    client.close().await;
}
