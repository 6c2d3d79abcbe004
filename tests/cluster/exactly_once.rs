//! Retries that arrive twice, on other nodes, after fail-over, restart and snapshot.

use futures::future::join_all;
use tonic::Code;
use tonic_types::StatusExt as _;
use trolley::limits;
use trolley::proto::v1::kv_service_client::KvServiceClient;
use trolley::proto::v1::session_service_client::SessionServiceClient;
use trolley::proto::v1::{CreateSessionRequest, PutKeyRequest, PutKeyResponse};

use trolley::types::NodeId;

use crate::harness::{Cluster, Load, eventually};

fn request(value: &str) -> PutKeyRequest {
    PutKeyRequest {
        request_id: "the one and only".to_owned(),
        key: "k".to_owned(),
        value: value.to_owned().into(),
        ..PutKeyRequest::default()
    }
}

/// Puts through one node until it answers: an election may be under way.
async fn put(cluster: &mut Cluster, id: u64) -> PutKeyResponse {
    let client = KvServiceClient::new(cluster.channel(id).await);
    let mut answer = None;
    eventually("an answer to a put", async || {
        let response = client.clone().put(request("v")).await;
        answer = response.ok().map(tonic::Response::into_inner);
        answer.is_some()
    })
    .await;
    answer.expect("it was just there")
}

/// The same request id is applied once, whichever node is asked and whatever happened in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_counts_once_through_failover_snapshot_and_restart() {
    let mut cluster = Cluster::start(3, &["--snapshot-keep-entries", "1"]).await;
    let first = put(&mut cluster, 1).await;
    assert!(!first.header.as_ref().expect("a header").replayed);

    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
    cluster.wait_for_leader_beside(leader).await;
    for id in cluster.others(leader) {
        expect_replay(&first, &put(&mut cluster, id).await);
    }
    cluster.node(leader).start();
    cluster.wait_until_caught_up(leader).await;
    let client = cluster.client();
    for id in [1, 2, 3] {
        let id = NodeId::new(id).expect("not zero");
        let built = client.cluster().snapshot(Some(id)).await;
        built.expect("a snapshot is taken");
    }
    client.close().await;
    for node in cluster.nodes() {
        node.kill();
    }
    for node in cluster.nodes() {
        node.start();
    }
    cluster.wait_for_leader().await;
    for id in [1, 2, 3] {
        expect_replay(&first, &put(&mut cluster, id).await);
    }

    let mut other = KvServiceClient::new(cluster.channel(1).await);
    let refused = other.put(request("another body")).await;
    let refused = refused.expect_err("the id was used with another body");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let info = refused.get_details_error_info().expect("a reason");
    assert_eq!(info.reason, "REQUEST_ID_REUSED");
}

fn expect_replay(first: &PutKeyResponse, replay: &PutKeyResponse) {
    let (before, after) = (&first.header, &replay.header);
    let (before, after) = (
        before.as_ref().expect("a header"),
        after.as_ref().expect("a header"),
    );
    assert!(after.replayed, "{replay:?}");
    assert_eq!(before.revision, after.revision);
    assert_eq!(first.mod_revision, replay.mod_revision);
}

/// A node that was away while the request was answered knows the answer from the snapshot that brought it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_came_back_through_a_snapshot_knows_earlier_replies() {
    let mut cluster = Cluster::start(3, &["--snapshot-keep-entries", "10"]).await;
    let leader = cluster.wait_for_leader().await;
    let away = cluster.others(leader)[0];
    let last = cluster.figures(away).await.last_log_index;
    cluster.node(away).kill();
    let first = put(&mut cluster, leader).await;

    let client = cluster.client();
    let load = Load::start(&client, "guest", 16);
    cluster.purge_beyond(&client, leader, last, &load).await;
    cluster.node(away).start();
    cluster.wait_until_caught_up(away).await;
    load.stop_and_check().await;
    assert!(cluster.figures(away).await.snapshot_index > last);

    let target = NodeId::new(away).expect("node ids begin at 1");
    eventually("the node that was away leads", async || {
        // A transfer may fail while the target is a little behind.
        drop(client.cluster().transfer_leader(Some(target)).await);
        cluster.leader().await == Some(away)
    })
    .await;
    expect_replay(&first, &put(&mut cluster, away).await);
    client.close().await;
}

/// The server draws the token and stores only its hash; the retry gets the same token all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_login_gets_the_same_token_from_the_next_leader() {
    let mut cluster = Cluster::start(3, &[]).await;
    let request = CreateSessionRequest {
        request_id: "log in, take one".to_owned(),
        user_id: "ada".to_owned(),
        ..CreateSessionRequest::default()
    };
    let mut sessions = SessionServiceClient::new(cluster.channel(1).await);
    let first = sessions.create(request.clone()).await;
    let first = first.expect("a leader is there").into_inner();

    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
    let next = cluster.wait_for_leader_beside(leader).await;
    let sessions = SessionServiceClient::new(cluster.channel(next).await);
    let mut token = String::new();
    eventually("an answer to the retry", async || {
        let answer = sessions.clone().create(request.clone()).await;
        token = answer.map_or_else(|_| String::new(), |answer| answer.into_inner().token);
        !token.is_empty()
    })
    .await;
    assert!(token == first.token, "the retry got another token");
}

/// The same through the client library: a request id of the caller's own makes one session, and one login of it, from whichever
/// process it is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_request_id_gets_the_same_token_from_another_client() {
    let cluster = Cluster::start(3, &[]).await;
    let clients = [cluster.client(), cluster.client()];
    let mut tokens = Vec::new();
    for client in &clients {
        let create = client.sessions().create().request_id("begin");
        let guest = create.send().await.expect("the same request").value.token;
        let rotate = client.sessions().rotate(&guest).user("ada");
        let login = rotate.request_id("log in").send().await;
        tokens.push((guest, login.expect("the same request").value.token.clone()));
    }
    assert!(tokens[0] == tokens[1], "the second client got other tokens");
    for client in clients {
        client.close().await;
    }
}

/// Replies so large that few of them fill the client's window: its calls wait for their turn, and each counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_replies_make_a_client_wait_and_nothing_else() {
    const CALLS: usize = 120;
    let large = "v".repeat(limits::TXN_RESULT_BYTES - 1000);
    assert!(CALLS * large.len() > 2 * limits::CLIENT_WINDOW_BYTES);
    let cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let put = client.keys().put("large", large).send().await;
    put.expect("a small enough value");
    let keys = client.keys();
    let calls = (0..CALLS).map(|_| {
        let txn = client.txn().then(keys.increment("calls", 1));
        txn.then(keys.get("large")).send()
    });
    for done in join_all(calls).await {
        let done = done.expect("there is time enough for all of them");
        assert_eq!(done.results.len(), 2);
    }
    let counted = client.keys().get("calls").send().await;
    let counted = counted.expect("it was incremented").value;
    assert_eq!(counted.counter, i64::try_from(CALLS).ok());
    client.close().await;
}
