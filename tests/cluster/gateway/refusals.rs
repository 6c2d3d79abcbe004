//! Every route, with every token that must not open it.
//!
//! The routes come from the gateway's own document, so that one which is added is tested.

use http::Method;
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::harness::gateway::{
    AUDIENCE, Answer, Caller, EVERYTHING, Gateway, ISSUER, full_claims, token, token_of,
};

/// One operation of the document, with something in place of its parameters.
#[derive(Debug)]
struct Operation {
    name: String,
    method: Method,
    path: String,
    body: Option<Value>,
    /// The headers that it knows, as the document has them.
    headers: Vec<String>,
}

/// All of them, about the records of this user.
async fn operations(caller: &Caller, user: &str) -> Vec<Operation> {
    let document = caller.get("/openapi.json", &[]).await.ok().body;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("there are paths") {
        let filled = path
            .replace("{key}", "secret")
            .replace("{owner}", user)
            .replace("{user}", user)
            .replace("{handle}", "AAAA")
            .replace("{line}", "1")
            .replace("/v1/watch", "/v1/watch?keys=");
        assert!(
            !filled.contains('{'),
            "{path} has a parameter that this test does not know"
        );
        for (method, operation) in item.as_object().expect("it has methods") {
            let name = operation["operationId"].as_str().expect("it has a name");
            let method = method.to_uppercase().parse().expect("a method");
            let has_body = operation.get("requestBody").is_some();
            operations.push(Operation {
                name: name.to_owned(),
                method,
                path: filled.clone(),
                body: has_body.then(|| body(name)),
                headers: headers(operation),
            });
        }
    }
    assert!(operations.len() >= 10, "{operations:?}");
    operations
}

/// The names of its parameters that are headers.
fn headers(operation: &Value) -> Vec<String> {
    let parameters = operation["parameters"].as_array();
    let parameters = parameters.map(Vec::as_slice).unwrap_or_default().iter();
    let headers = parameters.filter(|parameter| parameter["in"] == "header");
    headers
        .filter_map(|header| header["name"].as_str())
        .map(str::to_lowercase)
        .collect()
}

/// A body that would do something.
fn body(name: &str) -> Value {
    match name {
        "create_session" => json!({"fields": {"a": "b"}}),
        "update_session" => json!({"set": {"a": "c"}}),
        "save_session" => json!({"fields": {}, "loaded_revision": 1}),
        "rotate_session" => json!({}),
        "put_key" => json!({"value": "x"}),
        "increment_key" => json!({"delta": 1}),
        "add_cart_line" => json!({"sku": "tea", "quantity": 1}),
        "set_cart_line_quantity" => json!({"quantity": 1}),
        "update_cart" => json!({"actions": [{"set_note": "x"}]}),
        "merge_carts" => json!({"into": "me", "policy": "sum"}),
        "freeze_cart" | "release_cart" => json!({"holder": "till"}),
        "complete_order" => json!({"holder": "till", "revision": 1, "order_id": "1"}),
        "transact" => json!({"then": [{"get_key": {"key": "secret"}}]}),
        other => panic!("{other} has a body that this test does not know"),
    }
}

async fn send(caller: &Caller, operation: &Operation, headers: &[(&str, &str)]) -> Answer {
    let Operation { method, path, .. } = operation;
    caller
        .send(method.clone(), path, headers, operation.body.clone())
        .await
}

/// Tokens that are good for nothing, each for a reason of its own.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let good = token(json!({ "scope": EVERYTHING }));
    let parts: Vec<&str> = good.split('.').collect();
    let with = |name: &str, value: Value| token(json!({ "scope": EVERYTHING, name: value }));
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let other = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS512);
    let key = jsonwebtoken::EncodingKey::from_secret(crate::harness::gateway::SECRET.as_bytes());
    let hs512 = jsonwebtoken::encode(&other, &full_claims(json!({"scope": EVERYTHING})), &key);
    vec![
        ("none", String::new()),
        ("no token", "nonsense".to_owned()),
        ("expired", with("exp", json!(1_000_000_000))),
        ("without expiry", with("exp", Value::Null)),
        ("early", with("nbf", json!(3_900_000_000_u64))),
        (
            "for somebody else",
            with("aud", json!(format!("{AUDIENCE}2"))),
        ),
        (
            "from somebody else",
            with("iss", json!(format!("{ISSUER}2"))),
        ),
        ("of nobody", with("sub", Value::Null)),
        ("alg none", format!("{none}.{}.", parts[1])),
        (
            "alg none, signed",
            format!("{none}.{}.{}", parts[1], parts[2]),
        ),
        ("not signed", format!("{}.{}.", parts[0], parts[1])),
        ("another algorithm", hs512.expect("it can be signed")),
        (
            "another secret",
            token_of(json!({"scope": EVERYTHING}), &"x".repeat(40)),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_opens_to_a_bad_token_and_all_are_refused_alike() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let operations = operations(&gateway.caller(""), "me").await;
    let unknown = Operation {
        name: "no such route".to_owned(),
        method: Method::GET,
        path: "/v1/nothing/here".to_owned(),
        body: None,
        headers: Vec::new(),
    };
    let mut first: Option<Answer> = None;
    for (why, token) in bad_tokens() {
        let caller = gateway.caller(&token);
        for operation in operations.iter().chain([&unknown]) {
            let answer = send(&caller, operation, &[]).await;
            let first = first.get_or_insert_with(|| answer.clone());
            assert_eq!(answer.status, 401, "{why}: {operation:?}: {answer:?}");
            assert_eq!(answer.reason(), "UNAUTHENTICATED");
            assert_eq!(answer.text, first.text, "{why}: {operation:?}");
            let shown = |answer: &Answer| {
                let mut headers = answer.headers.clone();
                headers.remove("x-request-id");
                headers.remove("date");
                headers
            };
            assert_eq!(shown(&answer), shown(first), "{why}: {operation:?}");
        }
    }
    let ada = gateway.user("ada", EVERYTHING);
    let nowhere = send(&ada, &unknown, &[]).await;
    assert_eq!(
        (nowhere.status.as_u16(), nowhere.reason()),
        (404, "ROUTE_NOT_FOUND")
    );
    let log = gateway.log();
    for (_, token) in bad_tokens()
        .into_iter()
        .filter(|(_, token)| token.len() > 20)
    {
        assert!(!log.contains(&token), "a token is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_opens_without_its_scope() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let operations = operations(&gateway.caller(""), "me").await;
    for operation in &operations {
        let nobody = gateway.user("ada", "openid cart:other");
        let refused = send(&nobody, operation, &[]).await;
        assert_eq!(refused.status, 403, "{operation:?}: {refused:?}");
        assert_eq!(refused.reason(), "PERMISSION_DENIED");
        let needed = refused.body["metadata"]["scope"]
            .as_str()
            .expect("it is named");
        // The scope that it names is the one that opens it, and every other one does not.
        for scope in EVERYTHING.split(' ') {
            let one = send(&gateway.user("ada", scope), operation, &[]).await;
            let kind = needed.split(':').next().expect("a scope has a kind");
            let opens = scope == needed || scope == format!("{kind}:admin");
            assert_eq!(one.status != 403, opens, "{scope}: {operation:?}: {one:?}");
        }
    }
}

/// Whoever sends a condition relies on it: what would be done or told regardless of it must not be.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_a_route_does_not_know_is_refused() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let ada = gateway.user("ada", &format!("{EVERYTHING} cluster:read"));
    let put = ada.put("/v1/keys/secret", &[], json!({"value": "x"})).await;
    let tag = put.ok().header("etag").to_owned();
    let begun = ada.post("/v1/sessions", &[], json!({"user": "me"})).await;
    let token = begun.ok().body["token"].clone();
    let session = ("x-trolley-session", token.as_str().expect("a token"));
    for operation in operations(&ada, "me").await {
        let is_read = operation.method == Method::GET;
        for (name, value, kind) in [
            ("if-match", tag.as_str(), "all"),
            ("if-none-match", "*", "writes"),
            ("if-none-match", tag.as_str(), "reads"),
        ] {
            let is_known = operation.headers.iter().any(|known| known == name);
            let is_meant = kind == "all" || (kind == "reads") == is_read;
            if is_known && is_meant {
                continue;
            }
            let answer = send(&ada, &operation, &[session, (name, value)]).await;
            let told = (answer.status.as_u16(), answer.reason());
            assert_eq!(told, (400, "MALFORMED"), "{name}: {operation:?}");
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            let named = detail.to_lowercase();
            assert!(named.contains(name), "{name}: {operation:?}: {detail}");
        }
    }
    let kept = ada.get("/v1/keys/secret", &[]).await.ok();
    assert_eq!(kept.header("etag"), tag, "nothing was done to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebody_elses_is_not_there() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let scopes = "cart:read cart:write session:read session:write";
    let (ada, bob) = (gateway.user("ada", scopes), gateway.user("bob", scopes));
    let created = ada
        .post(
            "/v1/sessions",
            &[],
            json!({"user": "me", "fields": {"a": "b"}}),
        )
        .await;
    let adas = created.ok().body["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let never = "A".repeat(adas.len());
    let tea = json!({"sku": "tea", "quantity": 1});
    let in_session = [("x-trolley-session", adas.as_str())];
    ada.post("/v1/carts/session/lines", &in_session, tea.clone())
        .await
        .ok();
    ada.post("/v1/carts/me/lines", &[], tea).await.ok();

    // A user who has records and one who has none look the same to somebody else.
    for operation in operations(&bob, "user:ada").await {
        let twin = operations(&bob, "user:nobody").await;
        let twin = twin.into_iter().find(|twin| twin.name == operation.name);
        let twin = twin.expect("the document is the same");
        if operation.path.contains("user:ada") {
            let (real, absent) = (
                send(&bob, &operation, &[]).await,
                send(&bob, &twin, &[]).await,
            );
            assert_eq!(real.status, 403, "{operation:?}: {real:?}");
            assert_eq!(real.text, absent.text, "{operation:?}");
        }
    }
    // So do a session that is somebody else's and one that never was.
    for operation in operations(&bob, "session").await {
        let is_about_session =
            operation.path.contains("/session") && !operation.path.contains("/users/");
        if !is_about_session || operation.name == "create_session" {
            continue;
        }
        let absent = [("x-trolley-session", never.as_str())];
        let real = send(&bob, &operation, &in_session).await;
        let absent = send(&bob, &operation, &absent).await;
        assert_eq!(
            (real.status, &real.text),
            (absent.status, &absent.text),
            "{operation:?}"
        );
        assert_eq!(
            real.reason(),
            "SESSION_NOT_FOUND",
            "{operation:?}: {real:?}"
        );
    }
    let session = ada.get("/v1/sessions/current", &in_session).await.ok();
    assert_eq!(
        session.body["fields"],
        json!({"a": "b"}),
        "nobody changed it"
    );
    let cart = ada.get("/v1/carts/session", &in_session).await.ok();
    assert_eq!(cart.body["total_quantity"], 1);

    // Whoever may ask for everybody's does see them.
    let admin = gateway.user("root", "cart:admin session:admin");
    let cart = admin.get("/v1/carts/user:ada", &[]).await.ok();
    assert_eq!(cart.body["total_quantity"], 1);
    let devices = admin.get("/v1/users/user:ada/sessions", &[]).await.ok();
    assert_eq!(devices.body["sessions"].as_array().map(Vec::len), Some(1));
    admin.get("/v1/sessions/current", &in_session).await.ok();
    assert!(
        !gateway.log().contains(&adas),
        "a session's token is in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_one_namespace_sees_another() {
    let cluster = Cluster::start(1, &[]).await;
    let gateway = Gateway::start(&cluster, &[]).await;
    let of = |namespace: Value| {
        gateway.caller(&token(
            json!({ "scope": EVERYTHING, "namespace": namespace }),
        ))
    };
    let (eu, us) = (of(json!("eu")), of(json!("us")));
    let created = eu
        .post("/v1/sessions", &[], json!({"user": "me"}))
        .await
        .ok();
    let session = created.body["token"].as_str().expect("a token").to_owned();
    let headers = [("x-trolley-session", session.as_str())];
    eu.put("/v1/keys/secret", &[], json!({"value": "x"}))
        .await
        .ok();
    eu.post(
        "/v1/carts/me/lines",
        &[],
        json!({"sku": "tea", "quantity": 1}),
    )
    .await
    .ok();
    for other in [us, of(Value::Null)] {
        assert_eq!(
            other.get("/v1/keys/secret", &[]).await.reason(),
            "KEY_NOT_FOUND"
        );
        let current = other.get("/v1/sessions/current", &headers).await;
        assert_eq!(current.reason(), "SESSION_NOT_FOUND");
        assert_eq!(
            other.get("/v1/carts/me", &[]).await.ok().body["mod_revision"],
            0
        );
        let devices = other.get("/v1/users/me/sessions", &[]).await.ok();
        assert_eq!(devices.body["sessions"], json!([]));
        let keys = other.get("/v1/keys", &[]).await.ok();
        assert_eq!(keys.body["items"], json!([]));
    }
}
