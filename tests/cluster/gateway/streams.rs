//! Events over HTTP: in order, without gaps, and of nobody else.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use trolley::clock::Clock;

use crate::harness::browser::{Browser, SHOP};
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
async fn a_stream_that_is_not_read_ends_with_its_token_too() {
    let cluster = Cluster::start(1, &[]).await;
    let flags = ["--jwt-leeway", "0s", "--max-watches", "1"];
    let patient = ["--header-timeout", "10m"];
    let gateway = Gateway::start(&cluster, &[&flags[..], &patient].concat()).await;
    let soon = Clock::System.now().as_millis() / 1000 + 8;
    let short = token(json!({"scope": "key:read", "exp": soon}));
    let unread = gateway
        .ask_and_read_nothing("/v1/watch?keys=", &short, 1)
        .await;
    let bob = gateway.user("bob", EVERYTHING);
    eventually("a place that is taken", async || {
        bob.get("/v1/watch?keys=", &[]).await.reason() == "WATCHERS_LIMIT"
    })
    .await;
    // More than stands between it and the gateway.
    let large = json!({ "value": "x".repeat(1 << 20) });
    for _ in 0..16 {
        bob.put("/v1/keys/large", &[], large.clone()).await.ok();
    }
    eventually("room for another watcher", async || {
        bob.get("/v1/watch?keys=", &[]).await.status == 200
    })
    .await;
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_an_answer_is_not_waited_for_without_end() {
    // More than there is room for in between.
    const TIMES: usize = 16;
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &["--header-timeout", "1s"]).await;
    let stranger = gateway.caller("");
    let bundle = "/docs/swagger-ui-bundle.js";
    let whole = stranger.get(bundle, &[]).await.ok().text.len();
    let mut unread = gateway.ask_and_read_nothing(bundle, "", TIMES).await;
    unread.readable().await.expect("it is answered");
    // Whoever looks holds a connection, too; those that are idle are closed as soon.
    eventually("an end of all connections but one", async || {
        let metrics = stranger.get("/metrics", &[]).await.ok().text;
        metrics.contains("trolley_gateway_connections 1\n")
    })
    .await;
    let mut rest = Vec::new();
    unread.read_to_end(&mut rest).await.ok();
    assert!(rest.len() < TIMES * whole, "{} bytes came", rest.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_follows_so_much_that_others_cannot() {
    let cluster = Cluster::start(1, &[]).await;
    let flags = [&SHOP[..], &["--max-watches", "8"]].concat();
    let gateway = Gateway::start(&cluster, &flags).await;
    let (ada, bob) = (
        gateway.user("ada", EVERYTHING),
        gateway.user("bob", EVERYTHING),
    );
    let path = "/v1/watch?keys=";
    let _adas = ada.follow(path, &[]).await;
    let refused = ada.get(path, &[]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason()),
        (429, "WATCHERS_LIMIT")
    );
    let _bobs = bob.follow(path, &[]).await;
    // Guests are as many as they like, from one place.
    let guest = Browser::guest(&gateway).await;
    let _guests = guest.follow().await;
    let mut other = Browser::guest(&gateway).await;
    let refused = other.get("/events").await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason()),
        (429, "WATCHERS_LIMIT")
    );
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
