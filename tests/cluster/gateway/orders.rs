//! Orders and transactions over HTTP, and what they take.

use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::harness::gateway::{EVERYTHING, Gateway};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_logs_in_and_orders() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", "cart:read cart:write session:read session:write");
    let created = ada
        .post("/v1/sessions", &[], json!({"client": {"device": "phone"}}))
        .await
        .ok();
    let guest = created.body["token"].as_str().expect("a token").to_owned();
    let guest = [("x-trolley-session", guest.as_str())];
    let actions = json!({"actions": [
        {"add": {"sku": "tea", "quantity": 2, "unit_price": {"minor_units": 350, "currency": "EUR"}}},
        {"add": {"sku": "mug", "quantity": 1}},
        {"set_note": "ring twice"},
        {"add_coupon_code": "SPRING"},
        {"move": {"line": "sku:mug", "index": 0}},
    ]});
    let changed = ada
        .post("/v1/carts/session/actions", &guest, actions)
        .await
        .ok();
    assert_eq!(changed.body["total_quantity"], 3);
    assert_eq!(changed.body["results"].as_array().map(Vec::len), Some(5));
    let refused = json!({"actions": [{"set_note": ""}, {"remove": {"line": "sku:pen"}}]});
    let refused = ada.post("/v1/carts/session/actions", &guest, refused).await;
    assert_eq!(refused.reason(), "CART_LINE_NOT_FOUND");
    assert_eq!(refused.body["metadata"]["action"], "1");

    let login = json!({"user": "me", "set": {"theme": "dark"}, "cart_merge": "sum"});
    let login = ada
        .post("/v1/sessions/current/rotate", &guest, login)
        .await
        .ok();
    assert_eq!(login.body["user_id"], "ada");
    assert_eq!(login.body["cart"]["taken_lines"], 2);
    let token = login.body["token"].as_str().expect("a token").to_owned();
    let session = [("x-trolley-session", token.as_str())];
    let current = ada
        .get("/v1/sessions/current?touch=true", &session)
        .await
        .ok();
    assert_eq!(current.body["fields"]["theme"], "dark");
    let devices = ada.get("/v1/users/me/sessions", &session).await.ok();
    assert_eq!(devices.body["sessions"][0]["client"]["device"], "phone");
    assert_eq!(devices.body["sessions"][0]["current"], true);
    let cart = ada.get("/v1/carts/me", &[]).await.ok();
    assert_eq!(cart.body["details"]["note"], "ring twice");

    let frozen = ada
        .post("/v1/carts/me/freeze", &[], json!({"holder": "till"}))
        .await
        .ok();
    assert_eq!(frozen.body["cart"]["state"], "frozen");
    let late = ada
        .post(
            "/v1/carts/me/lines",
            &[],
            json!({"sku": "pen", "quantity": 1}),
        )
        .await;
    assert_eq!((late.status.as_u16(), late.reason()), (409, "CART_FROZEN"));
    let revision = &frozen.body["revision"];
    let order = json!({"holder": "till", "revision": revision, "order_id": "order-1"});
    let ordered = ada
        .post("/v1/carts/me/orders", &[], order.clone())
        .await
        .ok();
    assert_eq!(ordered.body["remaining_lines"], 0);
    let again = ada.post("/v1/carts/me/orders", &[], order).await.ok();
    assert_eq!(again.body["already_completed"], true);

    let handle = devices.body["sessions"][0]["handle"]
        .as_str()
        .expect("a handle");
    ada.delete(&format!("/v1/users/me/sessions/{handle}"), &[])
        .await
        .ok();
    let gone = ada.get("/v1/sessions/current", &session).await;
    assert_eq!(gone.reason(), "SESSION_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_changed_saved_and_ended() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", "session:read session:write");
    let begin = async || {
        let created = ada.post(
            "/v1/sessions",
            &[],
            json!({"user": "me", "fields": {"a": "1"}}),
        );
        created.await.ok().body["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    };
    let (one, two) = (begin().await, begin().await);
    let session = [("x-trolley-session", one.as_str())];
    let loaded = ada.get("/v1/sessions/current", &session).await.ok();
    let conditional = [session[0], ("if-match", loaded.header("etag"))];
    let change = json!({"set": {"b": {"base64": "/wD+"}}, "remove": ["nothing"]});
    let method = http::Method::PATCH;
    let path = "/v1/sessions/current";
    ada.send(method.clone(), path, &conditional, Some(change.clone()))
        .await
        .ok();
    let stale = ada.send(method, path, &conditional, Some(change)).await;
    assert_eq!(
        (stale.status.as_u16(), stale.reason()),
        (412, "REVISION_MISMATCH")
    );

    let revision = &loaded.body["mod_revision"];
    let save = |fields: Value| json!({"fields": fields, "base": loaded.body["fields"], "loaded_revision": revision});
    let saved = ada
        .post(
            "/v1/sessions/current/save",
            &session,
            save(json!({"a": "2"})),
        )
        .await
        .ok();
    assert_eq!(saved.body["merged"], true);
    let conflict = ada
        .post(
            "/v1/sessions/current/save",
            &session,
            save(json!({"a": "3"})),
        )
        .await;
    assert_eq!(
        (conflict.status.as_u16(), conflict.reason()),
        (409, "SAVE_CONFLICT")
    );
    let read = ada.get(path, &session).await.ok();
    assert_eq!(
        read.body["fields"],
        json!({"a": "2", "b": {"base64": "/wD+"}})
    );
    let touched = ada
        .send(
            http::Method::POST,
            "/v1/sessions/current/touch",
            &session,
            None,
        )
        .await;
    assert!(touched.ok().body["idle_deadline_ms"].as_u64() > Some(0));

    let others = ada
        .delete("/v1/users/me/sessions?except_current=true", &session)
        .await
        .ok();
    assert_eq!(others.body["ended"], 1);
    ada.get(path, &session).await.ok();
    let ended = ada.get(path, &[("x-trolley-session", two.as_str())]).await;
    assert_eq!(ended.reason(), "SESSION_NOT_FOUND");
    assert_eq!(ada.delete(path, &session).await.ok().status, 204);
    assert_eq!(ada.get(path, &session).await.reason(), "SESSION_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_all_or_nothing() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", EVERYTHING);
    ada.post("/v1/keys/stock/increment", &[], json!({"delta": 3}))
        .await
        .ok();
    let buy = |pieces: i64| {
        json!({
            "compare": [{"target": {"key": "stock"}, "relation": "greater", "operand": {"counter": 0}}],
            "then": [
                {"increment_key": {"key": "stock", "body": {"delta": -pieces, "min": 0}}},
                {"add_cart_line": {"owner": "me", "body": {"sku": "tea", "quantity": pieces}}},
                {"get_cart": {"owner": "me"}},
            ],
            "otherwise": [{"get_key": {"key": "stock"}}],
        })
    };
    let key = [("idempotency-key", "buy-1")];
    let bought = ada.post("/v1/transactions", &key, buy(2)).await.ok();
    assert_eq!(bought.body["succeeded"], true);
    assert_eq!(bought.body["results"][0]["increment_key"]["value"], 1);
    assert_eq!(bought.body["results"][2]["get_cart"]["total_quantity"], 2);
    let again = ada.post("/v1/transactions", &key, buy(2)).await.ok();
    assert_eq!(again.body, bought.body);
    let refused = ada.post("/v1/transactions", &[], buy(2)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason()),
        (409, "COUNTER_BELOW_MIN")
    );
    let place = &refused.body["metadata"];
    assert_eq!(
        (&place["branch"], &place["operation_index"]),
        (&json!("then"), &json!("0"))
    );
    assert_eq!(
        ada.get("/v1/carts/me", &[]).await.ok().body["total_quantity"],
        2
    );
    ada.post("/v1/transactions", &[], buy(1)).await.ok();
    let sold_out = ada.post("/v1/transactions", &[], buy(1)).await.ok();
    assert_eq!(sold_out.body["succeeded"], false);
    assert_eq!(sold_out.body["results"][0]["get_key"]["counter"], 0);
}

/// Every operation of a transaction, and the scope that it takes.
fn parts() -> Vec<(&'static str, Value, &'static str)> {
    let line = json!({"sku": "tea", "quantity": 1});
    let token = "A".repeat(40);
    vec![
        (
            "create_session",
            json!({"body": {"token": token}}),
            "session:write",
        ),
        ("get_session", json!({}), "session:read"),
        (
            "update_session",
            json!({"body": {"set": {"a": "b"}}}),
            "session:write",
        ),
        ("touch_session", json!({}), "session:write"),
        ("destroy_session", json!({}), "session:write"),
        (
            "rotate_session",
            json!({"body": {"new_token": token}}),
            "session:write",
        ),
        ("get_cart", json!({"owner": "me"}), "cart:read"),
        ("clear_cart", json!({"owner": "me"}), "cart:write"),
        (
            "add_cart_line",
            json!({"owner": "me", "body": line}),
            "cart:write",
        ),
        (
            "set_cart_line_quantity",
            json!({"owner": "me", "line": "1", "body": {"quantity": 1}}),
            "cart:write",
        ),
        (
            "remove_cart_line",
            json!({"owner": "me", "line": "1"}),
            "cart:write",
        ),
        (
            "update_cart",
            json!({"owner": "me", "body": {"actions": [{"clear": {}}]}}),
            "cart:write",
        ),
        (
            "merge_carts",
            json!({"owner": "session", "body": {"into": "me", "policy": "sum"}}),
            "cart:write",
        ),
        (
            "freeze_cart",
            json!({"owner": "me", "body": {"holder": "till"}}),
            "cart:write",
        ),
        (
            "release_cart",
            json!({"owner": "me", "body": {"holder": "till"}}),
            "cart:write",
        ),
        (
            "complete_order",
            json!({"owner": "me", "body": {"holder": "till", "revision": 1, "order_id": "1"}}),
            "cart:write",
        ),
        ("get_key", json!({"key": "k"}), "key:read"),
        (
            "put_key",
            json!({"key": "k", "body": {"value": "x"}}),
            "key:write",
        ),
        ("delete_key", json!({"key": "k"}), "key:write"),
        (
            "increment_key",
            json!({"key": "k", "body": {"delta": 1}}),
            "key:write",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_takes_the_scope_of_each_of_its_parts() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let everything = gateway.user("ada", EVERYTHING);
    let created = everything
        .post("/v1/sessions", &[], json!({"user": "user:bob"}))
        .await
        .ok();
    let bobs = created.body["token"].as_str().expect("a token").to_owned();
    let document = everything.get("/openapi.json", &[]).await.ok().body;
    let known = document["components"]["schemas"]["Operation"]["oneOf"].as_array();
    let known: Vec<String> = known
        .expect("it is one of several")
        .iter()
        .map(|one| {
            one["required"][0]
                .as_str()
                .expect("each has a name")
                .to_owned()
        })
        .collect();
    let parts = parts();
    let named: Vec<&str> = parts.iter().map(|(name, ..)| *name).collect();
    assert_eq!(known, named, "each operation is tested");
    let session = [("x-trolley-session", bobs.as_str())];
    for (name, part, needed) in parts {
        for place in ["then", "otherwise"] {
            let transaction = json!({ place: [{ name: part }] });
            for scope in EVERYTHING.split(' ') {
                let caller = gateway.user("ada", scope);
                let answer = caller
                    .post("/v1/transactions", &session, transaction.clone())
                    .await;
                let admin = format!("{}:admin", needed.split(':').next().unwrap_or_default());
                let opens = scope == needed || scope == admin;
                assert_eq!(answer.status != 403, opens, "{scope}: {name}: {answer:?}");
                if !opens {
                    assert_eq!(answer.body["metadata"]["scope"], needed, "{name}");
                }
            }
        }
    }
    let foreign = json!({"then": [{"get_cart": {"owner": "user:bob"}}]});
    let ada = gateway.user("ada", "cart:read");
    let refused = ada.post("/v1/transactions", &[], foreign).await;
    assert_eq!(refused.body["metadata"]["scope"], "cart:admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_comparison_looks_at_is_read() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let everything = gateway.user("ada", EVERYTHING);
    let body = json!({"user": "user:bob"});
    let created = everything.post("/v1/sessions", &[], body).await.ok();
    let bobs = created.body["token"].as_str().expect("a token").to_owned();
    let session = [("x-trolley-session", bobs.as_str())];
    for (target, needed) in [
        (json!({"key": "k"}), "key:read"),
        (json!({"cart": "me"}), "cart:read"),
        (json!("session"), "session:read"),
    ] {
        let compare = json!([{"target": target, "operand": {"exists": true}}]);
        let transaction = json!({ "compare": compare });
        for scope in ["key:read", "cart:read", "session:read"] {
            let caller = gateway.user("ada", scope);
            let answer = caller
                .post("/v1/transactions", &session, transaction.clone())
                .await;
            assert_eq!(
                answer.status != 403,
                scope == needed,
                "{scope}: {target}: {answer:?}"
            );
            // The session is bob's: to ada it is not there.
            if needed == "session:read" {
                assert_ne!(answer.body["succeeded"], true, "{scope}: {answer:?}");
            }
        }
    }
}
