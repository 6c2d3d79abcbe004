//! Whose session it is, as the gateway finds out before it does anything with it.

use serde_json::json;
use trolley::proto::v1::session_service_client::SessionServiceClient;
use trolley::proto::v1::{Consistency, GetSessionRequest, ReadOptions};

use crate::harness::gateway::{Answer, Caller, Gateway};
use crate::harness::{Cluster, eventually};

const SCOPES: &str = "session:read session:write cart:read cart:write";
/// Reads that any node may answer go to another one each time.
const TURNS: usize = 12;

/// What it says of a session to somebody who is content with old answers.
async fn ask(caller: &Caller, token: &str) -> Answer {
    let headers = [("x-trolley-session", token), ("x-trolley-revision", "1")];
    caller.get("/v1/sessions/current", &headers).await
}

fn token(answer: &Answer) -> String {
    answer.body["token"].as_str().expect("a token").to_owned()
}

/// A node that is behind knows of no new session. Whoever asked it whose that is would take it for nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn whose_a_session_is_no_node_that_is_behind_decides() {
    let mut cluster = Cluster::start_linked(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let behind = cluster.others(leader)[0];
    let address = cluster.node(behind).listening().to_owned();
    let one = Gateway::start(&cluster, &[]).await;
    // It reaches the node by the way that is not cut.
    let other = Gateway::start(&cluster, &["--endpoints", &address]).await;
    let (bob, ada) = (one.user("bob", SCOPES), other.user("ada", SCOPES));
    let guest = bob.post("/v1/sessions", &[], json!({})).await.ok();
    let guest = token(&guest);
    ask(&ada, &guest).await.ok();

    cluster.link(behind).cut();
    let begun = json!({ "user": "me", "fields": { "secret": "bob's" } });
    let begun = token(&bob.post("/v1/sessions", &[], begun).await.ok());
    let in_guest = [("x-trolley-session", guest.as_str())];
    let rotated = json!({ "user": "me" });
    let rotated = bob.post("/v1/sessions/current/rotate", &in_guest, rotated);
    let rotated = token(&rotated.await.ok());

    // The node does not know of it, and is asked by this gateway.
    let stale = ReadOptions {
        consistency: Consistency::Stale.into(),
        ..ReadOptions::default()
    };
    let request = GetSessionRequest {
        token: begun.clone(),
        read: Some(stale),
        ..GetSessionRequest::default()
    };
    let mut direct = SessionServiceClient::new(cluster.channel(behind).await);
    let refused = direct.get(request).await.expect_err("it is behind");
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused:?}");
    let behind = behind.to_string();
    eventually("an answer of the node that is behind", async || {
        let headers = [("x-trolley-revision", "1")];
        let answer = ada.get("/v1/carts/me", &headers).await.ok();
        answer.header("x-trolley-node") == behind
    })
    .await;
    for _ in 0..TURNS {
        for owned in [&begun, &rotated] {
            let refused = ask(&ada, owned).await;
            assert_eq!(refused.reason(), "SESSION_NOT_FOUND", "{refused:?}");
            let headers = [("x-trolley-session", owned.as_str())];
            let refused = ada.get("/v1/carts/session", &headers).await;
            assert_eq!(refused.reason(), "SESSION_NOT_FOUND", "{refused:?}");
        }
    }
    // Its owner is not kept from it, wherever the answer comes from.
    let own = [("x-trolley-session", begun.as_str())];
    for gateway in [&one, &other] {
        let read = bob.at(gateway).get("/v1/sessions/current", &own).await.ok();
        assert_eq!(read.body["fields"]["secret"], "bob's");
    }
}
