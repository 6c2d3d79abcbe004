//! Browsers at a shop: accounts, cookies, carts that go along, and ways out.

use http::Method;
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::harness::browser::{Browser, SHOP};
use crate::harness::gateway::{Answer, EVERYTHING, Gateway, token};

const PASSWORD: &str = "tea at half past four";
const ADA: &str = "ada@example.com";

async fn start(fronts: usize) -> (Cluster, Vec<Gateway>) {
    let cluster = Cluster::start(1, &[]).await;
    let mut gateways = Vec::new();
    for _ in 0..fronts {
        gateways.push(Gateway::start(&cluster, &SHOP).await);
    }
    (cluster, gateways)
}

async fn add(browser: &mut Browser, sku: &str, quantity: u32) -> Answer {
    let pieces = json!({ "sku": sku, "quantity": quantity });
    browser.post("/cart/lines", pieces).await.ok()
}

/// SKU and quantity of each line of the answer's cart.
fn lines(answer: &Answer) -> Vec<(&str, u64)> {
    let lines = answer.body["cart"]["lines"].as_array();
    let lines = lines
        .unwrap_or_else(|| panic!("no cart in {answer:?}"))
        .iter();
    lines
        .map(|line| (line["sku"].as_str(), line["quantity"].as_u64()))
        .map(|(sku, quantity)| (sku.expect("a SKU"), quantity.expect("a quantity")))
        .collect()
}

/// Passwords that a front has hashed.
async fn hashed(gateway: &Gateway) -> u64 {
    let metrics = gateway.caller("").get("/metrics", &[]).await.ok().text;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("trolley_gateway_passwords_hashed_total "));
    let count = line.unwrap_or_else(|| panic!("no such counter in {metrics}"));
    count.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_who_registers_keeps_the_cart_and_gets_another_token() {
    let (_cluster, gateways) = start(2).await;
    let mut guest = Browser::guest(&gateways[0]).await;
    let filled = add(&mut guest, "MUG-01", 2).await;
    let line = &filled.body["cart"]["lines"][0];
    assert_eq!(line["unit_price"]["minor_units"], 1290, "the catalogue's");

    let mut user = guest.at(&gateways[1]);
    let registered = user
        .enter("/register", "Ada@Example.com", PASSWORD)
        .await
        .ok();
    assert_eq!(registered.body["user"], ADA);
    assert_eq!(lines(&registered), [("MUG-01", 2)]);
    assert_ne!(user.cookie, guest.cookie, "the token was rotated");
    assert_ne!(user.csrf, guest.csrf);
    let cookie = registered.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"));
    let old = guest.get("/session").await;
    assert_eq!((old.status.as_u16(), old.reason()), (409, "SESSION_ENDED"));

    // Somewhere else: what the guest of this device had comes in addition.
    let mut other = Browser::guest(&gateways[1]).await;
    add(&mut other, "MUG-01", 1).await;
    add(&mut other, "TEA-02", 5).await;
    let merged = other.enter("/log-in", ADA, PASSWORD).await.ok();
    assert_eq!(lines(&merged), [("MUG-01", 3), ("TEA-02", 5)]);
    assert_eq!(lines(&user.get("/session").await.ok()), lines(&merged));
    let devices = user.get("/devices").await.ok();
    let devices = devices.body["sessions"].as_array().expect("a list");
    let current: Vec<_> = devices.iter().map(|device| &device["current"]).collect();
    assert_eq!(current, [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_whose_answer_was_lost_is_sent_again_and_answered_alike() {
    let (_cluster, gateways) = start(2).await;
    let mut guest = Browser::guest(&gateways[0]).await;
    add(&mut guest, "MUG-01", 2).await;
    let (mut first, mut again) = (guest.clone(), guest.at(&gateways[1]));
    let credentials = json!({ "address": ADA, "password": PASSWORD });
    let nonce = Browser::nonce();
    let answered = first
        .form("/register", &nonce, credentials.clone())
        .await
        .ok();
    add(&mut first, "TEA-02", 1).await;
    let repeated = again.form("/register", &nonce, credentials).await.ok();
    assert_eq!(first.cookie, again.cookie, "the same session");
    assert_eq!(repeated.body["user"], answered.body["user"]);
    assert_eq!(lines(&repeated), [("MUG-01", 2), ("TEA-02", 1)]);

    let other = json!({ "address": ADA, "password": "another good password" });
    let differs = guest.form("/register", &nonce, other.clone()).await;
    assert_eq!(
        (differs.status.as_u16(), differs.reason()),
        (422, "REQUEST_ID_REUSED")
    );
    let mut stranger = Browser::guest(&gateways[1]).await;
    let taken = stranger.post("/register", other).await;
    assert_eq!(
        (taken.status.as_u16(), taken.reason()),
        (409, "ACCOUNT_EXISTS")
    );
    assert_eq!(
        stranger.get("/session").await.ok().body["user"],
        Value::Null
    );

    // So is a log-in.
    let mut guest = Browser::guest(&gateways[0]).await;
    add(&mut guest, "PEN-06", 1).await;
    let (mut first, mut again) = (guest.clone(), guest.at(&gateways[1]));
    let credentials = json!({ "address": ADA, "password": PASSWORD });
    let nonce = Browser::nonce();
    let answered = first
        .form("/log-in", &nonce, credentials.clone())
        .await
        .ok();
    let repeated = again.form("/log-in", &nonce, credentials).await.ok();
    assert_eq!(first.cookie, again.cookie, "the same session");
    assert_eq!(lines(&answered), lines(&repeated), "merged once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_and_a_wrong_password_are_the_same_work_and_the_same_words() {
    let (_cluster, gateways) = start(1).await;
    let mut ada = Browser::guest(&gateways[0]).await;
    ada.enter("/register", ADA, PASSWORD).await.ok();
    let mut answers = Vec::new();
    for address in [ADA, "nobody@example.com"] {
        let mut guest = Browser::guest(&gateways[0]).await;
        let before = hashed(&gateways[0]).await;
        let refused = guest.enter("/log-in", address, "not this password").await;
        assert_eq!(hashed(&gateways[0]).await, before + 1, "{address}");
        answers.push((refused.status.as_u16(), refused.text));
        let session = guest.get("/session").await.ok();
        assert_eq!(session.body["user"], Value::Null);
    }
    assert_eq!(answers[0].0, 403);
    assert!(answers[0].1.contains("WRONG_CREDENTIALS"), "{answers:?}");
    assert_eq!(answers[0], answers[1]);
    for (address, password, reason) in [
        ("nobody", PASSWORD, "INVALID_ADDRESS"),
        ("eve@example.com", "short", "WEAK_PASSWORD"),
        ("eve@example.com", "eve@example.com", "WEAK_PASSWORD"),
    ] {
        let before = hashed(&gateways[0]).await;
        let mut guest = Browser::guest(&gateways[0]).await;
        let refused = guest.enter("/register", address, password).await;
        assert_eq!((refused.status.as_u16(), refused.reason()), (422, reason));
        assert_eq!(hashed(&gateways[0]).await, before, "nothing was hashed");
    }
    for secret in [
        "not this password",
        PASSWORD,
        &ada.cookie["trolley=".len()..],
    ] {
        assert!(!gateways[0].log().contains(secret), "a secret in the log");
    }
}

/// It is one attempt, and each time the work of one.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_sent_again_and_again_is_not_hashed_without_end() {
    const AGAIN: usize = 16;
    let (_cluster, gateways) = start(2).await;
    let guest = Browser::guest(&gateways[0]).await;
    let nonce = Browser::nonce();
    let wrong = json!({ "address": ADA, "password": "not this password" });
    let mut answers = Vec::new();
    for time in 0..2 * AGAIN {
        let front = &gateways[time % 2];
        let refused = guest.at(front).form("/log-in", &nonce, wrong.clone()).await;
        answers.push(refused.reason().to_owned());
    }
    let (looked_at, passed_over) = answers.split_at(AGAIN + 1);
    assert!(looked_at.iter().all(|reason| reason == "WRONG_CREDENTIALS"));
    assert!(
        passed_over
            .iter()
            .all(|reason| reason == "TOO_MANY_ATTEMPTS")
    );
    let all = hashed(&gateways[0]).await + hashed(&gateways[1]).await;
    assert_eq!(all, AGAIN as u64 + 1);
    // Other forms of the same network are.
    let mut other = Browser::guest(&gateways[0]).await;
    other.enter("/register", ADA, PASSWORD).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_limited_across_fronts() {
    const ATTEMPTS: usize = 10;
    let (_cluster, gateways) = start(2).await;
    let mut ada = Browser::guest(&gateways[0]).await;
    let nonce = Browser::nonce();
    let credentials = json!({ "address": ADA, "password": PASSWORD });
    // A form that is sent again is one attempt.
    let mut again = ada.at(&gateways[1]);
    ada.form("/register", &nonce, credentials.clone())
        .await
        .ok();
    again.form("/register", &nonce, credentials).await.ok();

    let mut guest = Browser::guest(&gateways[0]).await;
    let nonce = Browser::nonce();
    for attempt in 1..ATTEMPTS {
        let mut here = guest.at(&gateways[attempt % 2]);
        // Under one name, too: each password is another attempt.
        let wrong = json!({ "address": ADA, "password": format!("guess number {attempt}") });
        let refused = here.form("/log-in", &nonce, wrong).await;
        assert_eq!(
            refused.reason(),
            "WRONG_CREDENTIALS",
            "{attempt}: {refused:?}"
        );
    }
    for gateway in &gateways {
        let before = hashed(gateway).await;
        let refused = guest.at(gateway).enter("/log-in", ADA, PASSWORD).await;
        assert_eq!(
            (refused.status.as_u16(), refused.reason()),
            (429, "TOO_MANY_ATTEMPTS")
        );
        assert_eq!(hashed(gateway).await, before, "nothing was hashed");
    }
    let other = guest.enter("/register", "bob@example.com", PASSWORD).await;
    assert_eq!(other.ok().body["user"], "bob@example.com");
}

/// Tries to log in from a network address. Gives the status and the reason.
async fn try_from(browser: &mut Browser, network: &str, address: &str, password: &str) -> String {
    let credentials = json!({ "address": address, "password": password });
    let nonce = Browser::nonce();
    let headers = [
        ("idempotency-key", nonce.as_str()),
        ("x-forwarded-for", network),
    ];
    let answer = browser.send(Method::POST, "/log-in", &headers, credentials);
    let answer = answer.await;
    format!("{} {}", answer.status.as_u16(), answer.reason())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_guesses_does_not_keep_the_owner_out() {
    const WRONG: &str = "403 WRONG_CREDENTIALS";
    const TOO_MANY: &str = "429 TOO_MANY_ATTEMPTS";
    const FROM_ONE_NETWORK: u64 = 10;
    const FROM_ANYWHERE: u64 = 50;
    let cluster = Cluster::start(1, &[]).await;
    let flags = [&SHOP[..], &["--forwarded-for"]].concat();
    let gateways = [
        Gateway::start(&cluster, &flags).await,
        Gateway::start(&cluster, &flags).await,
    ];
    let mut ada = Browser::guest(&gateways[0]).await;
    ada.enter("/register", ADA, PASSWORD).await.ok();
    let secret = ada.device.clone();
    assert!(secret.len() > "trolley-device=".len() + 40, "{secret}");
    ada.post("/log-out", json!({})).await.ok();
    let mut eve = Browser::guest(&gateways[0]).await;
    eve.enter("/register", "eve@example.com", PASSWORD)
        .await
        .ok();

    // From each network some, and from all of them no more than the account bears. Her own mark is of no use there.
    let mut guesses = 0;
    let mut networks = 0;
    let ada_is_closed = loop {
        networks += 1;
        let network = format!("10.0.0.{networks}");
        let mut stranger = eve.at(&gateways[networks % 2]);
        let mut here = 0;
        let last = loop {
            let guess = format!("guess number {guesses}");
            let answer = try_from(&mut stranger, &network, ADA, &guess).await;
            if answer != WRONG {
                break answer;
            }
            here += 1;
            guesses += 1;
            assert!(
                here <= FROM_ONE_NETWORK && guesses < FROM_ANYWHERE,
                "{here} guesses from {network}, {guesses} altogether"
            );
        };
        assert_eq!(last, TOO_MANY);
        if here == 0 {
            break guesses;
        }
    };
    // The account's own registration was one of them.
    assert_eq!(ada_is_closed, FROM_ANYWHERE - 1);

    // From the stranger's network, too.
    let network = "10.0.0.1";
    let mut new = Browser::guest(&gateways[0]).await;
    assert_eq!(
        try_from(&mut new, network, ADA, PASSWORD).await,
        TOO_MANY,
        "a browser that nobody knows waits"
    );
    for front in &gateways {
        let mut ada = Browser::guest(front).await.with_device(&secret);
        assert_eq!(try_from(&mut ada, network, ADA, PASSWORD).await, "200 ");
        assert_eq!(ada.device, secret, "it is known");
    }
    // Whoever took it away can guess as often, and no more.
    let thief = Browser::guest(&gateways[1]).await;
    let mut thief = thief.with_device(&secret);
    for guess in 2..FROM_ONE_NETWORK {
        let guess = format!("guess of a thief, {guess}");
        assert_eq!(try_from(&mut thief, network, ADA, &guess).await, WRONG);
    }
    assert_eq!(try_from(&mut thief, network, ADA, PASSWORD).await, TOO_MANY);
    // Only what was made of it is kept.
    let keys = cluster.client().namespace("shop");
    let keys = keys.keys().list().prefix("").send().await;
    let keys = format!("{:?}", keys.expect("keys can be listed").items);
    assert!(keys.contains(&format!("devices/{ADA}/")), "{keys}");
    assert!(!keys.contains(&secret["trolley-device=".len()..]), "{keys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_asks_too_often_waits_and_no_other_does() {
    let cluster = Cluster::start(1, &[]).await;
    let flags = [&SHOP[..], &["--forwarded-for", "--rate-per-user", "5"]].concat();
    let gateway = Gateway::start(&cluster, &flags).await;
    let ask = async |network: &str| {
        // Another visitor each time: who has no session yet is counted as well.
        let mut browser = Browser::default().at(&gateway);
        let headers = [("x-forwarded-for", network)];
        let answer = browser.send(Method::GET, "/catalogue", &headers, Value::Null);
        answer.await
    };
    let mut limited = None;
    for _ in 0..50 {
        let answer = ask("10.0.0.1").await;
        if answer.status == 429 {
            limited = Some(answer);
        }
    }
    let limited = limited.expect("fifty are more than five");
    assert_eq!(limited.reason(), "RATE_LIMITED");
    ask("10.0.0.2").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_page_of_the_shop_has_sent_changes_nothing() {
    let (_cluster, gateways) = start(1).await;
    let mut guest = Browser::guest(&gateways[0]).await;
    let own = format!("http://{}", gateways[0].address());
    let csrf = guest.csrf.clone();
    let pieces = json!({ "sku": "MUG-01", "quantity": 1 });
    let foreign: [&[(&str, &str)]; 6] = [
        &[("x-csrf-token", &csrf)],
        &[("origin", "https://evil.example"), ("x-csrf-token", &csrf)],
        &[("origin", "null"), ("x-csrf-token", &csrf)],
        &[
            ("origin", &own),
            ("sec-fetch-site", "cross-site"),
            ("x-csrf-token", &csrf),
        ],
        &[("origin", &own)],
        &[("origin", &own), ("x-csrf-token", "AAAA")],
    ];
    for headers in foreign {
        let refused = guest
            .send_bare(Method::POST, "/cart/lines", headers, pieces.clone())
            .await;
        assert_eq!(refused.status, 403, "{headers:?}: {refused:?}");
    }
    let session = guest.get("/session").await.ok();
    assert!(lines(&session).is_empty(), "{session:?}");
    let good = [("origin", own.as_str()), ("x-csrf-token", &csrf)];
    let added = guest
        .send_bare(Method::POST, "/cart/lines", &good, pieces)
        .await;
    assert_eq!(lines(&added.ok()), [("MUG-01", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_windows_see_one_cart_and_everywhere_is_everywhere() {
    let (_cluster, mut gateways) = start(2).await;
    let mut here = Browser::guest(&gateways[0]).await;
    here.enter("/register", ADA, PASSWORD).await.ok();
    let mut there = Browser::guest(&gateways[1]).await;
    there.enter("/log-in", ADA, PASSWORD).await.ok();
    let mut third = Browser::guest(&gateways[1]).await;
    third.enter("/log-in", ADA, PASSWORD).await.ok();
    let mut events = there.follow().await;
    events.wait_for("cart", r#""lines":[]"#).await;
    let nonce = Browser::nonce();
    for front in &gateways {
        // Sent again, as a page does whose front was killed.
        let pieces = json!({ "sku": "LAMP-04", "quantity": 2 });
        let added = here.at(front).form("/cart/lines", &nonce, pieces).await;
        assert_eq!(lines(&added.ok()), [("LAMP-04", 2)], "added once");
    }
    events.wait_for("cart", "LAMP-04").await;

    // One device, by its name in the list.
    let devices = here.get("/devices").await.ok().body;
    assert_eq!(devices["sessions"].as_array().map(Vec::len), Some(3));
    let handle = devices["sessions"][2]["handle"].as_str().expect("a name");
    let path = format!("/devices/{handle}");
    let ended = here.send(Method::DELETE, &path, &[], Value::Null).await;
    assert_eq!(ended.ok().status, 204);
    assert_eq!(third.get("/session").await.reason(), "SESSION_ENDED");
    there.get("/session").await.ok();

    let mut old = here.clone();
    here.post("/log-out-everywhere", json!({})).await.ok();
    events.wait_for("ended", "").await;
    events.wait_for_end().await;
    assert_eq!(there.get("/session").await.reason(), "SESSION_ENDED");
    assert_eq!(old.get("/session").await.reason(), "SESSION_ENDED");
    assert!(here.cookie.ends_with('='), "the cookie is gone");

    // A guest's session begins, and ends with the front's streams open.
    let mut guest = Browser::guest(&gateways[0]).await;
    let mut events = guest.follow().await;
    events.wait_for("cart", "").await;
    gateways[0].ask_to_stop();
    events.wait_for_end().await;
    assert!(gateways[0].wait_for_exit().await.success());
    assert_eq!(
        guest.at(&gateways[1]).get("/session").await.ok().status,
        200
    );
    let out = guest.at(&gateways[1]).post("/log-out", json!({})).await;
    assert_eq!(out.ok().status, 204);
    guest = guest.at(&gateways[1]);
    assert_eq!(guest.get("/session").await.reason(), "SESSION_ENDED");
}

/// Accounts are keys, and hashes of passwords their values.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_reads_or_writes_accounts_as_keys() {
    let (_cluster, gateways) = start(1).await;
    let mut user = Browser::guest(&gateways[0]).await;
    user.enter("/register", ADA, PASSWORD).await.ok();
    let of = |namespace: &str| {
        let claims = json!({ "scope": EVERYTHING, "namespace": namespace });
        gateways[0].caller(&token(claims))
    };
    let (insider, stranger) = (of("shop"), of("default"));
    let account = format!("/v1/keys/accounts%2F{ADA}");
    let key = format!("accounts/{ADA}");
    let read = json!({ "then": [{ "get_key": { "key": key } }] });
    let compared =
        json!({ "compare": [{ "target": { "key": key }, "operand": { "exists": true } }] });
    let value = json!({ "value": "x" });
    for answer in [
        insider.get("/v1/keys", &[]).await,
        insider.get(&account, &[]).await,
        insider.put(&account, &[], value).await,
        insider.delete(&account, &[]).await,
        insider.post("/v1/transactions", &[], read.clone()).await,
        insider.post("/v1/transactions", &[], compared).await,
        insider.get("/v1/watch?keys=", &[]).await,
    ] {
        assert_eq!(answer.reason(), "KEYS_OF_THE_SHOP", "{answer:?}");
    }
    // What else is the shop's they may see, and elsewhere keys are theirs.
    insider
        .get("/v1/users/user:ada@example.com/sessions", &[])
        .await
        .ok();
    stranger.get("/v1/keys", &[]).await.ok();
    stranger.post("/v1/transactions", &[], read).await.ok();
    user.enter("/log-in", ADA, PASSWORD).await.ok();
}
