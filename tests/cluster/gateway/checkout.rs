//! Orders of a shop's visitors: once, whatever is sent twice or dies meanwhile.

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::browser::{Browser, SHOP};
use crate::harness::gateway::{Answer, Gateway, token};
use crate::harness::{Cluster, eventually};

const PASSWORD: &str = "tea at half past four";
const ADA: &str = "ada@example.com";

async fn start(nodes: usize, fronts: usize) -> (Cluster, Vec<Gateway>) {
    let cluster = Cluster::start(nodes, &[]).await;
    let mut gateways = Vec::new();
    for _ in 0..fronts {
        gateways.push(Gateway::start(&cluster, &SHOP).await);
    }
    (cluster, gateways)
}

/// Ada, logged in.
async fn ada(gateway: &Gateway) -> Browser {
    let mut browser = Browser::guest(gateway).await;
    browser.enter("/register", ADA, PASSWORD).await.ok();
    browser
}

/// Puts pieces into the cart; its revision.
async fn add(browser: &mut Browser, sku: &str, quantity: u32) -> Value {
    let pieces = json!({ "sku": sku, "quantity": quantity });
    let added = browser.post("/cart/lines", pieces).await.ok();
    added.body["cart"]["mod_revision"].clone()
}

async fn order(browser: &mut Browser, nonce: &str, revision: &Value) -> Answer {
    let form = json!({ "mod_revision": revision });
    browser.form("/orders", nonce, form).await
}

async fn orders(browser: &mut Browser) -> Vec<Value> {
    let listed = browser.get("/orders").await.ok();
    listed.body["orders"].as_array().expect("a list").clone()
}

async fn pieces(browser: &mut Browser) -> Value {
    let seen = browser.get("/session").await.ok();
    seen.body["cart"]["total_quantity"].clone()
}

fn refusal(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.reason())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_showed_is_ordered_and_kept() {
    let (_cluster, gateways) = start(1, 2).await;
    let mut first = ada(&gateways[0]).await;
    let mut second = first.at(&gateways[1]);
    add(&mut first, "MUG-01", 2).await;
    let shown = add(&mut second, "TEA-02", 1).await;
    let nonce = Browser::nonce();
    let placed = order(&mut first, &nonce, &shown).await.ok();
    assert_eq!(placed.status, 201);
    assert_eq!(
        placed.body["lines"],
        json!([
            { "sku": "MUG-01", "quantity": 2, "total_minor_units": 2580 },
            { "sku": "TEA-02", "quantity": 1, "total_minor_units": 890 },
        ])
    );
    let total = (&placed.body["total_minor_units"], &placed.body["currency"]);
    assert_eq!(total, (&json!(3470), &json!("EUR")));
    assert_eq!(pieces(&mut second).await, 0);

    // The answer was lost: the same form, at another front, when the cart is another already.
    add(&mut second, "PEN-06", 1).await;
    let again = order(&mut second, &nonce, &shown).await.ok();
    assert_eq!(again.body, placed.body);
    assert_eq!(pieces(&mut second).await, 1, "the pen stays");
    assert_eq!(orders(&mut first).await, std::slice::from_ref(&placed.body));

    let later = second.get("/session").await.ok().body["cart"]["mod_revision"].clone();
    let later = order(&mut second, &Browser::nonce(), &later).await.ok();
    let newest_first = [later.body, placed.body];
    assert_eq!(orders(&mut first).await, newest_first);

    let mut bob = Browser::guest(&gateways[0]).await;
    bob.enter("/register", "bob@example.com", PASSWORD)
        .await
        .ok();
    assert_eq!(orders(&mut bob).await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_seen_or_asked_for_is_not_ordered() {
    let (_cluster, gateways) = start(1, 1).await;
    let mut guest = Browser::guest(&gateways[0]).await;
    let shown = add(&mut guest, "MUG-01", 2).await;
    let nonce = Browser::nonce();
    let anonymous = order(&mut guest, &nonce, &shown).await;
    assert_eq!(refusal(&anonymous), (403, "NOT_LOGGED_IN"));
    let anonymous = guest.get("/orders").await;
    assert_eq!(refusal(&anonymous), (403, "NOT_LOGGED_IN"));

    let mut ada = guest;
    let entered = ada.enter("/register", ADA, PASSWORD).await.ok();
    let shown = entered.body["cart"]["mod_revision"].clone();
    let form = json!({ "mod_revision": shown });
    let origin = format!("http://{}", gateways[0].address());
    let foreign = [
        ("origin", origin.as_str()),
        ("idempotency-key", nonce.as_str()),
    ];
    let foreign = ada.send_bare(Method::POST, "/orders", &foreign, form.clone());
    assert_eq!(refusal(&foreign.await), (403, "CSRF_TOKEN"));
    let nameless = ada.send(Method::POST, "/orders", &[], form).await;
    assert_eq!(refusal(&nameless), (400, "MALFORMED"));

    // Another window has changed the cart.
    add(&mut ada, "TEA-02", 1).await;
    let stale = order(&mut ada, &nonce, &shown).await;
    assert_eq!(refusal(&stale), (409, "CART_CHANGED"));
    assert_eq!(pieces(&mut ada).await, 3);
    assert_eq!(orders(&mut ada).await, [] as [Value; 0]);

    let mut bob = Browser::guest(&gateways[0]).await;
    bob.enter("/register", "bob@example.com", PASSWORD)
        .await
        .ok();
    let empty = order(&mut bob, &Browser::nonce(), &json!(0)).await;
    assert_eq!(refusal(&empty), (409, "CART_EMPTY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clicks_make_one_order() {
    let (_cluster, gateways) = start(1, 2).await;
    let mut ada = ada(&gateways[0]).await;
    let shown = add(&mut ada, "MUG-01", 2).await;
    let form = Browser::nonce();
    let mut clicks = JoinSet::new();
    for click in 0..16 {
        let mut window = ada.at(&gateways[click % 2]);
        // Every other click is the form of the first window, sent again.
        let nonce = if click % 4 < 2 {
            form.clone()
        } else {
            Browser::nonce()
        };
        let shown = shown.clone();
        clicks.spawn(async move { order(&mut window, &nonce, &shown).await });
    }
    let mut placed = Vec::new();
    for answer in clicks.join_all().await {
        if answer.status == 201 {
            placed.push(answer.body);
        } else {
            assert_eq!(refusal(&answer), (409, "CART_CHANGED"), "{answer:?}");
        }
    }
    let kept = orders(&mut ada).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(!placed.is_empty() && placed.iter().all(|order| *order == kept[0]));
    assert_eq!(pieces(&mut ada).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_that_dies_between_freeze_and_order_loses_neither() {
    let (_cluster, gateways) = start(1, 2).await;
    let mut ada = ada(&gateways[0]).await;
    let shown = add(&mut ada, "MUG-01", 2).await;
    // What that front has done.
    let claims = json!({ "sub": ADA, "namespace": "shop", "scope": "cart:write" });
    let dead = gateways[0].caller(&token(claims));
    let freeze = json!({ "holder": "shop", "lease_ms": 60_000 });
    let frozen = dead.post("/v1/carts/me/freeze", &[], freeze).await.ok();

    let mut window = ada.at(&gateways[1]);
    let stale = order(&mut window, &Browser::nonce(), &shown).await;
    assert_eq!(refusal(&stale), (409, "CART_CHANGED"));
    let seen = window.get("/session").await.ok();
    let shown = seen.body["cart"]["mod_revision"].clone();
    let placed = order(&mut window, &Browser::nonce(), &shown).await.ok();
    assert_eq!(placed.body["number"], frozen.body["revision"]);
    assert_eq!(orders(&mut ada).await, [placed.body]);
    assert_eq!(pieces(&mut ada).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_once_while_leaders_die() {
    const ORDERS: usize = 4;
    let (mut cluster, gateways) = start(3, 2).await;
    let mut ada = ada(&gateways[0]).await;
    for number in 1..=ORDERS {
        let shown = add(&mut ada, "MUG-01", 1).await;
        let nonce = Browser::nonce();
        let leader = cluster.wait_for_leader().await;
        let (mut window, form) = (ada.clone(), nonce.clone());
        let sent = shown.clone();
        let mut clicked = JoinSet::new();
        clicked.spawn(async move { order(&mut window, &form, &sent).await });
        cluster.node(leader).kill();
        let clicked = clicked.join_all().await.remove(0);
        // As the page does: until it is answered, wherever, under the same name.
        let mut other = ada.at(&gateways[1]);
        let mut placed = None;
        eventually("an order that is placed", async || {
            let answer = order(&mut other, &nonce, &shown).await;
            placed = (answer.status == 201).then_some(answer.body);
            placed.is_some()
        })
        .await;
        let placed = placed.expect("it was placed");
        if clicked.status == 201 {
            assert_eq!(clicked.body, placed);
        }
        let kept = orders(&mut ada).await;
        assert_eq!(kept.len(), number, "{kept:?}");
        assert_eq!(kept[0], placed);
        assert_eq!(pieces(&mut ada).await, 0);
        cluster.node(leader).start();
    }
}
