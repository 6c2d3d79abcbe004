//! Events over HTTP: in order, without gaps, and of nobody else.

use serde_json::{Value, json};
use trolley::clock::Clock;

use crate::harness::gateway::{EVERYTHING, Gateway, token};
use crate::harness::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_at_another_gateway_where_it_broke() {
    let cluster = Cluster::start(3, &[]).await;
    let (mut one, two) = (
        Gateway::start(&cluster, &[]).await,
        Gateway::start(&cluster, &[]).await,
    );
    let ada = two.user("ada", EVERYTHING);
    let put = async |number: u64| {
        let value = json!({ "value": number.to_string() });
        ada.put("/v1/keys/watched%2Fk", &[], value).await.ok();
        ada.put("/v1/keys/other", &[], json!({"value": ""}))
            .await
            .ok();
    };
    let mut events = ada.at(&one).follow("/v1/watch?keys=watched%2F", &[]).await;
    // The first progress says from where on it is told.
    let beginning = events.next_of_all().await.expect("it says where it begins");
    assert_eq!(beginning.name, "progress");
    let mut seen: Vec<Value> = Vec::new();
    let mut last = beginning.id;
    for number in 0..10 {
        put(number).await;
        let event = events.next().await.expect("it goes on");
        assert_eq!(
            (event.name.as_str(), &event.data["key"]),
            ("key", &json!("watched/k"))
        );
        seen.push(event.data["item"]["value"].clone());
        last = event.id;
    }
    one.kill();
    while events.next().await.is_some() {}
    for number in 10..20 {
        put(number).await;
    }
    let mut events = ada
        .follow("/v1/watch?keys=watched%2F", &[("last-event-id", &last)])
        .await;
    let mut revisions = Vec::new();
    while seen.last() != Some(&json!("19")) {
        let event = events.next().await.expect("it goes on");
        // An event's id is of what is complete before it, so the last one comes again.
        let value = event.data["item"]["value"].clone();
        if seen.last() != Some(&value) {
            seen.push(value);
        }
        revisions.push(event.data["revision"].as_u64().expect("a revision"));
    }
    let expected: Vec<Value> = (0..20)
        .map(|number: u64| json!(number.to_string()))
        .collect();
    assert_eq!(seen, expected);
    assert!(revisions.is_sorted(), "{revisions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_somebody_elses() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let scopes = "cart:read cart:write session:read session:write key:read key:write";
    let (ada, bob) = (gateway.user("ada", scopes), gateway.user("bob", scopes));
    let from = "from=1";
    for query in [
        "carts=user:bob",
        "carts=all",
        "sessions=user:bob",
        "sessions=all",
    ] {
        let refused = ada.get(&format!("/v1/watch?{query}"), &[]).await;
        assert_eq!(refused.status, 403, "{query}: {refused:?}");
    }
    for (query, scope) in [
        ("keys=", "key:read"),
        ("carts=me", "cart:read"),
        ("sessions=me", "session:read"),
    ] {
        let others = scopes.split(' ').filter(|other| *other != scope);
        let caller = gateway.user("ada", &others.collect::<Vec<_>>().join(" "));
        let refused = caller.get(&format!("/v1/watch?{query}"), &[]).await;
        assert_eq!(
            refused.body["metadata"]["scope"], scope,
            "{query}: {refused:?}"
        );
    }
    assert_eq!(ada.get("/v1/watch", &[]).await.status, 400);

    let line = json!({"sku": "tea", "quantity": 1});
    for caller in [&bob, &ada] {
        caller
            .post("/v1/carts/me/lines", &[], line.clone())
            .await
            .ok();
        caller
            .post("/v1/sessions", &[], json!({"user": "me"}))
            .await
            .ok();
    }
    ada.put("/v1/keys/end", &[], json!({"value": ""}))
        .await
        .ok();
    let mut events = ada
        .follow(&format!("/v1/watch?sessions=me&keys=end&{from}"), &[])
        .await;
    let session = events.next().await.expect("a session was made");
    assert_eq!(
        (session.name.as_str(), &session.data["user_id"]),
        ("session", &json!("ada"))
    );
    assert_eq!(session.data["type"], "created");
    assert_eq!(
        events.next().await.expect("a key was put").name,
        "key",
        "no cart was asked for"
    );
    let mut events = ada
        .follow(&format!("/v1/watch?carts=me&keys=end&{from}"), &[])
        .await;
    let cart = events.next().await.expect("a cart was filled");
    assert_eq!(
        (cart.name.as_str(), &cart.data["user_id"]),
        ("cart", &json!("ada"))
    );
    assert_eq!(cart.data["cart"]["total_quantity"], 1);
    assert_eq!(events.next().await.expect("a key was put").name, "key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &["--jwt-leeway", "0s", "--max-watches", "1"]).await;
    let soon = Clock::System.now().as_millis() / 1000 + 8;
    let short = gateway.caller(&token(json!({"scope": "key:read", "exp": soon})));
    let mut events = short.follow("/v1/watch?keys=", &[]).await;
    let long = gateway.user("bob", "key:read");
    let full = long.get("/v1/watch?keys=", &[]).await;
    assert_eq!(
        (full.status.as_u16(), full.reason()),
        (503, "WATCHERS_LIMIT")
    );
    while events.next().await.is_some() {}
    assert_eq!(short.get("/v1/keys", &[]).await.status, 401);
    eventually("room for another watcher", async || {
        long.get("/v1/watch?keys=", &[]).await.status == 200
    })
    .await;
}
