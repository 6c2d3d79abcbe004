//! A leader that sleeps through its own deposition.

use std::time::Duration;

use tokio::task::JoinSet;
use trolley::proto::v1::GetKeyRequest;
use trolley::proto::v1::kv_service_client::KvServiceClient;

use crate::harness::Cluster;

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

        let mut reads = JoinSet::new();
        for _ in 0..50 {
            let mut direct = direct.clone();
            let request = GetKeyRequest {
                key: "k".to_owned(),
                ..GetKeyRequest::default()
            };
            let read = async move { direct.get(request).await };
            reads.spawn(tokio::time::timeout(Duration::from_secs(20), read));
        }
        // The reads are in its socket by the time that the others have answered a write.
        let put = client.keys().put("other", "x").send().await;
        put.expect("two nodes take a write");
        cluster.node(leader).resume();

        let mut answers = 0;
        while let Some(read) = reads.join_next().await {
            // A refusal is no stale answer; an answer must be the new value.
            if let Ok(Ok(answer)) = read.expect("a read does not panic") {
                let item = answer.into_inner().item.expect("the key exists");
                assert_eq!(item.value, new, "round {round}: a stale read");
                answers += 1;
            }
        }
        println!("round {round}: {answers} of 50 reads were answered");
        cluster.wait_for_agreement().await;
    }
    client.close().await;
}
