//! Whose session it is, as the gateway finds out before it does anything with it.

use http::Method;
use serde_json::{Value, json};
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

/// Everything that can be asked of the cart of this session.
async fn ask_all(caller: &Caller, token: &str) -> Vec<Answer> {
    let session = [("x-trolley-session", token)];
    let line = json!({"sku": "tea", "quantity": 1});
    let frozen = json!({"holder": "mallory"});
    let in_txn = |operation: Value| json!({ "then": [operation] });
    let requests = [
        (Method::GET, "/v1/carts/session", None),
        (Method::DELETE, "/v1/carts/session", None),
        (Method::POST, "/v1/carts/session/lines", Some(line.clone())),
        (Method::DELETE, "/v1/carts/session/lines/1", None),
        (Method::POST, "/v1/carts/session/freeze", Some(frozen)),
        (
            Method::POST,
            "/v1/carts/session/merge",
            Some(json!({"into": "me", "policy": "sum"})),
        ),
        (
            Method::POST,
            "/v1/transactions",
            Some(in_txn(json!({"get_cart": {"owner": "session"}}))),
        ),
        (
            Method::POST,
            "/v1/transactions",
            Some(in_txn(
                json!({"add_cart_line": {"owner": "session", "body": line}}),
            )),
        ),
    ];
    let mut answers = Vec::new();
    for (method, path, body) in requests {
        answers.push(caller.send(method, path, &session, body).await);
    }
    answers
}

/// Whoever plants a guest's session in somebody's browser keeps its token, and not the cart that it becomes part of.
#[tokio::test(flavor = "multi_thread")]
async fn a_guests_session_opens_nobodys_cart_that_its_own_was_merged_into() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let (ada, mallory) = (gateway.user("ada", SCOPES), gateway.user("mallory", SCOPES));
    let admin = gateway.user("till", "cart:admin");
    let tea = json!({"sku": "tea", "quantity": 2});
    ada.post("/v1/carts/me/lines", &[], tea.clone()).await.ok();
    let merge = "/v1/carts/session/merge";
    for (who, into) in [(&ada, "me"), (&admin, "user:ada")] {
        let planted = mallory.post("/v1/sessions", &[], json!({})).await;
        let planted = token(&planted.ok());
        let session = [("x-trolley-session", planted.as_str())];
        let lines = "/v1/carts/session/lines";
        mallory.post(lines, &session, tea.clone()).await.ok();
        let named = [session[0], ("idempotency-key", into)];
        let body = json!({"into": into, "policy": "sum"});
        let merged = who.post(merge, &named, body.clone()).await.ok();
        let before = ada.get("/v1/carts/me", &[]).await.ok();
        let never = ask_all(&mallory, &"A".repeat(planted.len())).await;
        assert_eq!(never[0].reason(), "SESSION_NOT_FOUND");
        for (answer, never) in ask_all(&mallory, &planted).await.iter().zip(&never) {
            assert_eq!(answer.status, never.status, "{answer:?}");
            assert_eq!(answer.text, never.text);
        }
        let after = ada.get("/v1/carts/me", &[]).await.ok();
        assert_eq!(before.body, after.body, "nothing was done to it");
        // Who merged it goes on with it, and so does its owner; a merge that is sent again is answered as before.
        let again = who.post(merge, &named, body).await.ok();
        assert_eq!(again.body, merged.body);
        for caller in [&ada, &admin] {
            let read = caller.get("/v1/carts/session", &session).await.ok();
            assert_eq!(read.body, after.body);
        }
        ada.post(lines, &session, tea.clone()).await.ok();
    }
    let cart = ada.get("/v1/carts/me", &[]).await.ok();
    assert_eq!(cart.body["total_quantity"], 2 + 4 * 2);
}
