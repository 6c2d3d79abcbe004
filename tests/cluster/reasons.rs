//! Requests that make no sense: each has its stable reason, and changes nothing.

use trolley::client::{CartOwner, Client, Error, LineRef, Rejected};
use trolley::limits;
use trolley::proto::v1::PutKeyRequest;
use trolley::proto::v1::kv_service_client::KvServiceClient;

use crate::harness::Cluster;

/// Well formed, and no session's.
const ABSENT_TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn reason<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.reason().unwrap_or("no reason").to_owned(),
    }
}

async fn revision(client: &Client) -> u64 {
    let status = client.cluster().status().await.expect("a node answers");
    let revisions = status.nodes.iter().map(|node| node.revision);
    revisions.max().unwrap_or_default()
}

/// What is refused, and why.
async fn refusals(client: &Client) -> Vec<(&'static str, String, &'static str)> {
    let keys = client.keys();
    let carts = client.carts();
    let user = CartOwner::User("alice".to_owned());
    let full = CartOwner::User("full".to_owned());
    let add = |quantity| carts.add(&user, "sku", quantity).send();
    let priced = |currency: &str| carts.add(&user, "sku", 1).unit_price(100, currency).send();
    let line = || LineRef::Sku("sku".to_owned());
    let long_key = "k".repeat(limits::KEY_BYTES + 1);
    let long_value = vec![0_u8; limits::VALUE_BYTES + 1];
    vec![
        (
            "no key",
            reason(keys.put("", "v").send().await),
            "EMPTY_FIELD",
        ),
        (
            "no key to read",
            reason(keys.get("").send().await),
            "EMPTY_FIELD",
        ),
        (
            "a long key",
            reason(keys.put(long_key, "v").send().await),
            "FIELD_TOO_LONG",
        ),
        (
            "a large value",
            reason(keys.put("k", long_value).send().await),
            "FIELD_TOO_LONG",
        ),
        ("no pieces", reason(add(0).await), "OUT_OF_RANGE"),
        ("minus one piece", reason(add(-1).await), "OUT_OF_RANGE"),
        (
            "the fewest pieces",
            reason(add(i64::MIN).await),
            "OUT_OF_RANGE",
        ),
        (
            "the most pieces",
            reason(add(i64::MAX).await),
            "OUT_OF_RANGE",
        ),
        (
            "2^32 + 1 pieces",
            reason(add((1 << 32) + 1).await),
            "OUT_OF_RANGE",
        ),
        (
            "a sum too large",
            reason(carts.add(&full, "sku", 1).send().await),
            "QUANTITY_LIMIT",
        ),
        (
            "a quantity of zero",
            reason(carts.set_quantity(&full, line(), 0).send().await),
            "OUT_OF_RANGE",
        ),
        (
            "a line that is not there",
            reason(carts.remove(&user, line()).send().await),
            "CART_LINE_NOT_FOUND",
        ),
        (
            "an unknown currency",
            reason(priced("ZZZ").await),
            "MALFORMED",
        ),
        (
            "a currency in small letters",
            reason(priced("eur").await),
            "MALFORMED",
        ),
        (
            "a bad cursor",
            reason(keys.list().cursor("not a cursor").send().await),
            "BAD_CURSOR",
        ),
        (
            "no SKU",
            reason(carts.add(&user, "", 1).send().await),
            "EMPTY_FIELD",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_have_stable_reasons_and_change_nothing() {
    let mut cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let full = CartOwner::User("full".to_owned());
    let most = i64::from(limits::QUANTITY_MAX);
    let added = client.carts().add(&full, "sku", most).send().await;
    added.expect("as many as are allowed");
    let before = revision(&client).await;

    for (what, found, expected) in refusals(&client).await {
        assert_eq!(found, expected, "{what}");
    }
    // The client library has no negative durations.
    let address = format!("http://{}", cluster.node(1).address());
    let mut direct = KvServiceClient::connect(address)
        .await
        .expect("the node listens");
    let request = PutKeyRequest {
        key: "k".to_owned(),
        ttl_ms: -1,
        ..PutKeyRequest::default()
    };
    let refused = direct
        .put(request)
        .await
        .expect_err("time does not run back");
    let refused = Rejected::from(refused);
    assert_eq!(refused.reason, "OUT_OF_RANGE");

    assert_eq!(revision(&client).await, before, "something was changed");
    let cart = client.carts().get(&full).send().await;
    let cart = cart.expect("a cart can be read").value;
    assert_eq!(cart.lines[0].quantity, limits::QUANTITY_MAX);
    client.close().await;
}

/// An answer that told malformed tokens from unknown ones would help those who guess.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_answers_a_malformed_token_like_an_absent_one() {
    let cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let absent = told_of(&client, ABSENT_TOKEN).await;
    for refused in &absent {
        assert_eq!(refused.reason, "SESSION_NOT_FOUND");
    }
    let long = "A".repeat(4000);
    for malformed in ["", "x", "!!!!", "\u{fc}", long.as_str()] {
        assert_eq!(told_of(&client, malformed).await, absent, "{malformed:?}");
    }
    client.close().await;
}

/// What each verb says of a token that names no session.
async fn told_of(client: &Client, token: &str) -> Vec<Rejected> {
    let sessions = client.sessions();
    let answers = [
        sessions.get(token).send().await.map(drop),
        sessions.touch(token).send().await.map(drop),
        sessions.destroy(token).send().await.map(drop),
        sessions.update(token).set("a", "b").send().await.map(drop),
    ];
    answers
        .into_iter()
        .map(|answer| {
            let error = answer.expect_err("it names no session");
            error.rejected().expect("a node refused it").clone()
        })
        .collect()
}
