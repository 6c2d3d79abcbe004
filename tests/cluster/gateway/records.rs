//! Sessions, carts and keys over HTTP: what is written is read, by whichever gateway.

use serde_json::json;

use crate::harness::gateway::{EVERYTHING, Gateway};
use crate::harness::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_written_read_counted_and_listed() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", EVERYTHING);

    let put = ada
        .put("/v1/keys/a%2Fb", &[], json!({"value": "hi"}))
        .await
        .ok();
    let read = ada.get("/v1/keys/a%2Fb", &[]).await.ok();
    assert_eq!(read.body["key"], "a/b");
    assert_eq!(read.body["value"], "hi");
    assert_eq!(read.header("etag"), put.header("etag"));
    assert_eq!(
        read.header("etag"),
        format!("\"{}\"", put.body["mod_revision"])
    );

    let bytes = json!({"value": {"base64": "/wD+"}});
    ada.put("/v1/keys/bytes", &[], bytes.clone()).await.ok();
    let read = ada.get("/v1/keys/bytes", &[]).await.ok();
    assert_eq!(read.body["value"], bytes["value"]);

    for sum in [3, 6] {
        let delta = json!({"delta": 3, "max": 8});
        let added = ada.post("/v1/keys/stock/increment", &[], delta).await.ok();
        assert_eq!(added.body["value"], sum);
    }
    let beyond = ada
        .post(
            "/v1/keys/stock/increment",
            &[],
            json!({"delta": 3, "max": 8}),
        )
        .await;
    assert_eq!(
        (beyond.status.as_u16(), beyond.reason()),
        (409, "COUNTER_ABOVE_MAX")
    );
    assert_eq!(ada.get("/v1/keys/stock", &[]).await.ok().body["counter"], 6);

    let page = ada.get("/v1/keys?limit=2", &[]).await.ok();
    assert_eq!(page.body["items"].as_array().expect("a list").len(), 2);
    let cursor = page.body["next_cursor"].as_str().expect("there is more");
    let rest = ada
        .get(&format!("/v1/keys?limit=2&cursor={cursor}"), &[])
        .await
        .ok();
    assert_eq!(rest.body["items"][0]["key"], "stock");
    assert!(rest.body["next_cursor"].is_null());

    assert_eq!(ada.delete("/v1/keys/bytes", &[]).await.ok().status, 204);
    let gone = ada.get("/v1/keys/bytes", &[]).await;
    assert_eq!(
        (gone.status.as_u16(), gone.reason()),
        (404, "KEY_NOT_FOUND")
    );
    assert_eq!(gone.header("content-type"), "application/problem+json");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_or_nothing_happens() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", EVERYTHING);
    let value = |text| json!({ "value": text });
    let status = async |headers: &[(&str, &str)], text| {
        let put = ada.put("/v1/keys/k", headers, value(text)).await;
        (put.status.as_u16(), put.reason().to_owned())
    };

    let first = ada
        .put("/v1/keys/k", &[("if-none-match", "*")], value("one"))
        .await
        .ok();
    let again = status(&[("if-none-match", "*")], "two").await;
    assert_eq!(again, (412, "KEY_EXISTS".to_owned()));
    let tag = first.header("etag");
    let second = ada
        .put("/v1/keys/k", &[("if-match", tag)], value("two"))
        .await
        .ok();
    let stale = ada
        .put("/v1/keys/k", &[("if-match", tag)], value("three"))
        .await;
    assert_eq!(
        (stale.status.as_u16(), stale.reason()),
        (412, "REVISION_MISMATCH")
    );
    let actual = stale.body["metadata"]["actual_revision"].as_str();
    assert_eq!(
        actual.map(str::to_owned),
        Some(second.body["mod_revision"].to_string())
    );
    let deleted = ada.delete("/v1/keys/k", &[("if-match", tag)]).await;
    assert_eq!(deleted.status, 412);
    let read = ada.get("/v1/keys/k", &[]).await.ok();
    assert_eq!(read.body["value"], "two");
    let seen = ada
        .get("/v1/keys/k", &[("if-none-match", read.header("etag"))])
        .await;
    assert_eq!((seen.status.as_u16(), seen.text.as_str()), (304, ""));

    // What cannot be checked is refused, and not ignored.
    for headers in [
        [("if-match", "*")],
        [("if-match", "7")],
        [("if-none-match", "\"7\"")],
    ] {
        assert_eq!(
            status(&headers, "x").await,
            (400, "MALFORMED".to_owned()),
            "{headers:?}"
        );
    }
    let increment = "/v1/keys/n/increment";
    let conditional = ada
        .post(increment, &[("if-match", tag)], json!({"delta": 1}))
        .await;
    assert_eq!(conditional.status, 400);

    // A cart that is not there yet is at revision 0.
    let line = json!({"sku": "tea", "quantity": 1});
    let new = [("if-none-match", "*")];
    let cart = ada
        .post("/v1/carts/me/lines", &new, line.clone())
        .await
        .ok();
    let late = ada.post("/v1/carts/me/lines", &new, line.clone()).await;
    assert_eq!(
        (late.status.as_u16(), late.reason()),
        (412, "REVISION_MISMATCH")
    );
    let tag = cart.header("etag");
    assert_eq!(ada.get("/v1/carts/me", &[]).await.ok().header("etag"), tag);
    ada.post("/v1/carts/me/lines", &[("if-match", tag)], line)
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_a_cart_frozen_is_told_when_it_is_not() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", EVERYTHING);
    let line = json!({"sku": "tea", "quantity": 1});
    let lines = "/v1/carts/me/lines";
    ada.post(lines, &[], line.clone()).await.ok();
    let freeze = json!({"holder": "till", "lease_ms": 5000});
    ada.post("/v1/carts/me/freeze", &[], freeze).await.ok();
    let frozen = ada.get("/v1/carts/me", &[]).await.ok();
    assert_eq!(frozen.body["state"], "frozen");
    let seen = [("if-none-match", frozen.header("etag"))];
    assert_eq!(ada.get("/v1/carts/me", &seen).await.status, 304);
    let mut open = None;
    eventually("a cart whose freeze is over", async || {
        let read = ada.get("/v1/carts/me", &seen).await;
        open = (read.status == 200).then_some(read);
        open.is_some()
    })
    .await;
    let open = open.expect("it was read");
    assert_eq!(open.body["state"], "open");
    assert_eq!(open.body["mod_revision"], frozen.body["mod_revision"]);
    assert_ne!(open.header("etag"), frozen.header("etag"));
    // For a write it is the same revision.
    let condition = [("if-match", frozen.header("etag"))];
    ada.post(lines, &condition, line).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn carts_are_filled_and_emptied() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", "cart:read cart:write");

    let empty = ada.get("/v1/carts/me", &[]).await.ok();
    assert_eq!(
        (&empty.body["mod_revision"], &empty.body["state"]),
        (&json!(0), &json!("open"))
    );
    let tea = json!({
        "sku": "tea", "quantity": 2, "unit_price": {"minor_units": 350, "currency": "EUR"},
        "attributes": {"size": "small"},
    });
    let added = ada.post("/v1/carts/me/lines", &[], tea).await.ok();
    assert_eq!(added.body["line"]["total_minor_units"], 700);
    ada.post(
        "/v1/carts/user:ada/lines",
        &[],
        json!({"sku": "mug", "quantity": 1}),
    )
    .await
    .ok();
    let cart = ada.get("/v1/carts/me", &[]).await.ok().body;
    assert_eq!(cart["total_quantity"], 3);
    assert_eq!(
        cart["subtotal"],
        json!({"minor_units": 700, "currency": "EUR"})
    );
    assert_eq!(cart["lines"][0]["attributes"]["size"], "small");

    let line = format!("/v1/carts/me/lines/{}", cart["lines"][0]["line_id"]);
    let patch = http::Method::PATCH;
    ada.send(patch, &line, &[], Some(json!({"quantity": 5})))
        .await
        .ok();
    let removed = ada.delete("/v1/carts/me/lines/sku:mug", &[]).await.ok();
    assert_eq!(removed.body["line"]["sku"], "mug");
    let cart = ada.get("/v1/carts/me", &[]).await.ok().body;
    assert_eq!(
        (
            cart["total_quantity"].as_u64(),
            cart["lines"].as_array().map(Vec::len)
        ),
        (Some(5), Some(1))
    );
    let cleared = ada.delete("/v1/carts/me", &[]).await.ok();
    assert_eq!(cleared.body["removed_lines"], 1);
    let absent = ada.delete("/v1/carts/me/lines/99", &[]).await;
    assert_eq!(
        (absent.status.as_u16(), absent.reason()),
        (404, "CART_LINE_NOT_FOUND")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_first_answer_from_whichever_gateway() {
    let cluster = Cluster::start(3, &[]).await;
    let (one, two) = (
        Gateway::start(&cluster, &[]).await,
        Gateway::start(&cluster, &[]).await,
    );
    let ada = one.user("ada", EVERYTHING);
    let key = [("idempotency-key", "add-1")];
    let line = json!({"sku": "tea", "quantity": 2});
    let first = ada
        .post("/v1/carts/me/lines", &key, line.clone())
        .await
        .ok();
    let again = ada
        .at(&two)
        .post("/v1/carts/me/lines", &key, line.clone())
        .await
        .ok();
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("x-trolley-replayed"), "true");
    assert!(first.headers.get("x-trolley-replayed").is_none());
    let cart = ada.get("/v1/carts/me", &[]).await.ok();
    assert_eq!(cart.body["total_quantity"], 2, "it was added once");
    let other = json!({"sku": "tea", "quantity": 3});
    let reused = ada.post("/v1/carts/me/lines", &key, other).await;
    assert_eq!(
        (reused.status.as_u16(), reused.reason()),
        (422, "REQUEST_ID_REUSED")
    );
    // Another user's key is another one.
    let bob = one.user("bob", EVERYTHING);
    let bobs = bob.post("/v1/carts/me/lines", &key, line).await.ok();
    assert!(bobs.headers.get("x-trolley-replayed").is_none());

    // A session that was created is created once, and its token is told again.
    let key = [("idempotency-key", "login")];
    let created = ada.post("/v1/sessions", &key, json!({})).await.ok();
    let again = ada
        .at(&two)
        .post("/v1/sessions", &key, json!({}))
        .await
        .ok();
    assert_eq!(created.status, 201);
    assert_eq!(again.body["token"], created.body["token"]);
    let bobs = bob.post("/v1/sessions", &key, json!({})).await.ok();
    assert_ne!(bobs.body["token"], created.body["token"]);

    // What ended the session is repeated after its end.
    let session = (
        "x-trolley-session",
        created.body["token"].as_str().expect("a token"),
    );
    let headers = [session, ("idempotency-key", "rotate")];
    let rotate = "/v1/sessions/current/rotate";
    let rotated = ada.post(rotate, &headers, json!({"user": "me"})).await.ok();
    let again = ada
        .at(&two)
        .post(rotate, &headers, json!({"user": "me"}))
        .await
        .ok();
    assert_eq!(again.body, rotated.body);
    let old = ada.get("/v1/sessions/current", &[session]).await;
    assert_eq!(
        (old.status.as_u16(), old.reason()),
        (404, "SESSION_NOT_FOUND")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_read_each_others_writes() {
    let cluster = Cluster::start(3, &[]).await;
    let (one, two) = (
        Gateway::start(&cluster, &[]).await,
        Gateway::start(&cluster, &[]).await,
    );
    let ada = one.user("ada", EVERYTHING);
    for number in 0..200 {
        let value = json!({ "value": number.to_string() });
        let put = ada.put("/v1/keys/k", &[], value).await.ok();
        let revision = [("x-trolley-revision", put.header("x-trolley-revision"))];
        let read = ada.at(&two).get("/v1/keys/k", &revision).await.ok();
        assert_eq!(read.body["value"], number.to_string());
    }
    let nodes: std::collections::BTreeSet<String> = {
        let mut nodes = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let read = ada
                .get("/v1/keys/k", &[("x-trolley-revision", "1")])
                .await
                .ok();
            nodes.insert(read.header("x-trolley-node").to_owned());
        }
        nodes
    };
    assert!(nodes.len() > 1, "only node {nodes:?} answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_cluster_is_not_ready_and_says_so() {
    let mut cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &["--request-timeout", "1s"]).await;
    let ada = gateway.user("ada", EVERYTHING);
    cluster.node(1).kill();
    let refused = ada.put("/v1/keys/k", &[], json!({"value": ""})).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(!refused.text.contains("127.0.0.1"), "{refused:?}");
    crate::harness::eventually("a gateway that is not ready", async || {
        ada.get("/readyz", &[]).await.status == 503
    })
    .await;
    assert_eq!(ada.get("/livez", &[]).await.status, 200);
    cluster.node(1).start();
    crate::harness::eventually("a gateway that is ready again", async || {
        ada.get("/readyz", &[]).await.status == 200
    })
    .await;
    ada.put("/v1/keys/k", &[], json!({"value": ""})).await.ok();
}
