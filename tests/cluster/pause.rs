//! A leader that sleeps through its own deposition.

use futures::future::join_all;
use tokio::time::timeout;
use tonic::transport::Channel;
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
