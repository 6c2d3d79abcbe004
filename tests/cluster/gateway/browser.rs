//! The pages in a real browser, while fronts and leaders die. Pictures of what it shows are kept.

use serde_json::json;

use crate::harness::Cluster;
use crate::harness::balancer::Balancer;
use crate::harness::browser::SHOP;
use crate::harness::driver::{self, Driver, ENTER, TAB, Window, pictures};
use crate::harness::gateway::{Gateway, token};
use crate::harness::process::say_skipped;

const ADA: &str = "ada@example.com";
const PASSWORD: &str = "tea at half past four";

fn skipped(test: &str) -> bool {
    if driver::is_installed() {
        return false;
    }
    let why = "chromium and chromedriver are not installed, see scripts/setup.sh --browser";
    say_skipped(test, why);
    true
}

async fn fronts(cluster: &Cluster, names: &[&str]) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for name in names {
        let flags = [&SHOP[..], &["--name", name]].concat();
        gateways.push(Gateway::start(cluster, &flags).await);
    }
    gateways
}

async fn add(window: &Window, sku: &str, total: u32) {
    window.click(&format!("#add-{sku}")).await;
    window.wait_for("#count", &total.to_string()).await;
}

async fn enter(window: &Window, way: &str) {
    window.click(&format!("#open-{way}")).await;
    window.type_into("#address", ADA).await;
    window.type_into("#password", PASSWORD).await;
    window.click("#submit").await;
    window.wait_for("#who", ADA).await;
}

/// Pieces of each line, as the page shows them.
async fn lines(window: &Window) -> serde_json::Value {
    let lines = "return Object.fromEntries([...document.querySelectorAll('#lines tr')]\
        .map((line) => [line.dataset.sku, Number(line.querySelector('output').textContent)]))";
    window.evaluate(lines).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shopper_notices_neither_a_dead_front_nor_a_dead_leader() {
    if skipped("a_shopper_notices_neither_a_dead_front_nor_a_dead_leader") {
        return;
    }
    let mut cluster = Cluster::start(3, &[]).await;
    let mut gateways = fronts(&cluster, &["front-a", "front-b"]).await;
    let addresses = gateways.iter().map(|gateway| gateway.address().to_owned());
    let balancer = Balancer::start(addresses.collect());
    let shop = format!("http://{}/shop", balancer.address());
    let driver = Driver::start().await;
    let window = driver.open("first").await;

    // A guest, who then registers.
    window.visit(&shop).await;
    window.wait_for("#who", "Guest").await;
    add(&window, "MUG-01", 1).await;
    add(&window, "MUG-01", 2).await;
    window.photograph("1-guest").await;
    enter(&window, "register").await;
    window.wait_for("#count", "2").await;
    assert_eq!(lines(&window).await, json!({ "MUG-01": 2 }));
    window.photograph("2-registered").await;

    // Another device, with something in the cart already.
    let other = driver.open("second").await;
    other.visit(&shop).await;
    other.wait_for("#who", "Guest").await;
    add(&other, "TEA-02", 1).await;
    enter(&other, "log-in").await;
    other.wait_for("#count", "3").await;
    window.wait_for("#count", "3").await;
    assert_eq!(lines(&window).await, json!({ "MUG-01": 2, "TEA-02": 1 }));

    // The front that has answered dies, then the leader.
    add(&window, "PEN-06", 4).await;
    let answered = window.text("#front").await;
    let index = usize::from(answered == "front-b");
    gateways.remove(index).kill();
    add(&window, "PEN-06", 5).await;
    window.wait_for("#who", ADA).await;
    assert_ne!(window.text("#front").await, answered);
    other.wait_for("#count", "5").await;
    window.photograph("3-front-killed").await;
    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
    add(&window, "LAMP-04", 6).await;
    window.wait_for("#who", ADA).await;
    let whole = json!({ "MUG-01": 2, "TEA-02": 1, "PEN-06": 2, "LAMP-04": 1 });
    assert_eq!(lines(&window).await, whole);
    other.wait_for("#count", "6").await;
    assert_eq!(lines(&other).await, whole);
    window.photograph("4-leader-killed").await;

    // What is in the cart is ordered, once; the other device sees it go, and the order.
    window.click("#order").await;
    window.wait_for("#message", "is placed").await;
    window.wait_for("#count", "0").await;
    other.wait_for("#count", "0").await;
    other.visit(&format!("{shop}/orders")).await;
    other.wait_for("#orders .order", "Fountain pen").await;
    assert_eq!(
        other
            .evaluate("return document.querySelectorAll('.order').length")
            .await,
        1
    );
    other.photograph("4-orders").await;
    other.visit(&shop).await;
    other.wait_for("#who", ADA).await;

    // Everywhere is there, too.
    window.click("#open-devices").await;
    window.wait_for("#device-list", "Another browser").await;
    window.photograph("5-devices").await;
    window.click("#everywhere").await;
    window.wait_for("#who", "Guest").await;
    other.wait_for("#who", "Guest").await;
    other.wait_for("#message", "You were logged out.").await;
    other.wait_for("#count", "0").await;
    other.photograph("6-logged-out").await;
    println!("pictures are kept in {}", pictures().display());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_used_without_a_mouse_on_a_phone_in_the_dark() {
    if skipped("pages_are_used_without_a_mouse_on_a_phone_in_the_dark") {
        return;
    }
    let cluster = Cluster::start(1, &[]).await;
    let gateways = fronts(&cluster, &["front-a"]).await;
    let driver = Driver::start().await;
    let window = driver.open("phone").await;
    window.pretend(390, 844, "dark").await;
    window
        .visit(&format!("http://{}/shop", gateways[0].address()))
        .await;
    window.wait_for("#who", "Guest").await;
    press_until(&window, TAB, "add-TEA-02").await;
    window.press(ENTER).await;
    window.wait_for("#count", "1").await;
    press_until(&window, TAB, "more-TEA-02").await;
    for total in ["2", "3"] {
        // The button keeps the focus.
        window.press(ENTER).await;
        window.wait_for("#count", total).await;
    }
    window.photograph("7-phone-dark").await;

    // An order is somebody's: the guest is asked who that is, and comes back to the button.
    press_until(&window, TAB, "order").await;
    window.press(ENTER).await;
    window.wait_for("#enter-title", "Log in").await;
    press_until(&window, TAB, "cancel").await;
    window.press(ENTER).await;
    enter(&window, "register").await;
    press_until(&window, TAB, "order").await;
    window.press(ENTER).await;
    window.wait_for("#message", "is placed").await;
    for page in ["shop/orders", "shop", "console"] {
        window
            .visit(&format!("http://{}/{page}", gateways[0].address()))
            .await;
        if page == "shop/orders" {
            window.wait_for("#orders .order", "Black tea").await;
            window.photograph("7-phone-orders").await;
        }
        let overflow = "return document.documentElement.scrollWidth - window.innerWidth";
        let overflow = window.evaluate(overflow).await;
        assert!(
            overflow.as_i64() <= Some(0),
            "{page} is {overflow} too wide"
        );
        let paper = "return getComputedStyle(document.body).backgroundColor";
        let dark = window.evaluate(paper).await;
        window.pretend(390, 844, "light").await;
        assert_ne!(window.evaluate(paper).await, dark, "{page}");
        window.pretend(390, 844, "dark").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_windows_of_one_browser_are_one_visitor() {
    if skipped("two_windows_of_one_browser_are_one_visitor") {
        return;
    }
    let cluster = Cluster::start(1, &[]).await;
    let gateways = fronts(&cluster, &["front-a", "front-b"]).await;
    let addresses = gateways.iter().map(|gateway| gateway.address().to_owned());
    let balancer = Balancer::start(addresses.collect());
    let shop = format!("http://{}/shop", balancer.address());
    let driver = Driver::start().await;
    let left = driver.open("both").await;
    let right = left.beside().await;
    for window in [&left, &right] {
        window.visit(&shop).await;
        window.wait_for("#who", "Guest").await;
    }
    // They have one cookie, and so one cart.
    add(&left, "MUG-01", 1).await;
    right.wait_for("#count", "1").await;
    enter(&left, "register").await;
    right.wait_for("#who", ADA).await;
    add(&right, "TEA-02", 2).await;
    left.wait_for("#count", "2").await;

    right.click("#log-out").await;
    right.wait_for("#who", "Guest").await;
    left.wait_for("#who", "Guest").await;
    left.wait_for("#message", "You were logged out.").await;
    left.wait_for("#count", "0").await;
    // The guest after her is one visitor again.
    add(&left, "PEN-06", 1).await;
    right.wait_for("#count", "1").await;
    enter(&right, "log-in").await;
    left.wait_for("#who", ADA).await;
    let both = json!({ "MUG-01": 1, "TEA-02": 1, "PEN-06": 1 });
    for window in [&left, &right] {
        window.wait_for("#count", "3").await;
        assert_eq!(lines(window).await, both);
    }
    left.photograph("10-two-windows").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_a_failover_and_ends_a_session() {
    if skipped("the_console_shows_a_failover_and_ends_a_session") {
        return;
    }
    let mut cluster = Cluster::start(3, &[]).await;
    let gateways = fronts(&cluster, &["front-a"]).await;
    let driver = Driver::start().await;
    let (shop, console) = (driver.open("shop").await, driver.open("console").await);
    let address = gateways[0].address();
    shop.visit(&format!("http://{address}/shop")).await;
    shop.wait_for("#who", "Guest").await;
    enter(&shop, "register").await;
    add(&shop, "CLOCK-08", 1).await;

    console.visit(&format!("http://{address}/console")).await;
    let scopes = "cluster:read session:admin cart:admin";
    let operator = json!({ "sub": "op", "namespace": "shop", "scope": scopes });
    console.type_into("#token", "no token").await;
    console.press(ENTER).await;
    console.wait_for("#message", "bearer token").await;
    console.type_into("#token", &token(operator)).await;
    console.press(ENTER).await;
    let leader = cluster.wait_for_leader().await;
    console
        .wait_for("#story", &format!("Node {leader} leads"))
        .await;
    console
        .wait_for("#nodes .leader", &leader.to_string())
        .await;
    // Two looks make a rate.
    console.wait_for("#requests output", "/").await;
    console.photograph("8-console").await;

    cluster.node(leader).kill();
    let next = cluster.wait_for_leader_beside(leader).await;
    console
        .wait_for("#story", &format!("Node {next} leads"))
        .await;
    console.wait_for("#nodes .silent", "no answer").await;
    console.type_into("#user", ADA).await;
    console.press(ENTER).await;
    console.wait_for("#user-cart", "1 × CLOCK-08").await;
    console.photograph("9-console-failover").await;
    console.click("#sessions button").await;
    console.wait_for("#sessions", "none").await;
    shop.wait_for("#who", "Guest").await;
    shop.wait_for("#message", "You were logged out.").await;
}

/// Presses a key until an element has the focus.
async fn press_until(window: &Window, key: &str, id: &str) {
    const MOST: usize = 60;
    for _ in 0..MOST {
        window.press(key).await;
        let focused = window.evaluate("return document.activeElement.id").await;
        if focused == id {
            return;
        }
    }
    panic!("{id} is not reached");
}
