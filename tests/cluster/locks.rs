//! Counters, leases, locks and transactions on real processes, through the death of the leader.

use std::sync::Arc;
use std::time::Duration;

use trolley::client::{CartOwner, Client, Compare, Outcome};
use trolley::proto::v1::Relation;

use crate::harness::{Cluster, Storm, eventually};

/// Pieces that come at once when there are none.
const DELIVERY: i64 = 20;
/// How often the leader is killed while they are sold.
const KILLS: u64 = 3;
/// A lock's TTL, long enough that a busy machine keeps it alive.
const TTL: Duration = Duration::from_secs(3);

fn buyer(number: u64) -> CartOwner {
    CartOwner::User(format!("buyer-{number}"))
}

/// Takes one piece and puts it into the buyer's cart. Whether there was one.
async fn buy(storm: &Storm, client: &Client, number: u64) -> bool {
    let bought = storm.ask("txn", || {
        client
            .txn()
            .then(client.keys().increment("stock/mug", -1).min(0))
            .then(client.carts().add(&buyer(number), "mug", 1))
            .request_id(format!("{number}/buy"))
            .send()
    });
    match bought.await {
        Ok(done) => done.value.succeeded,
        Err(error) => {
            assert_eq!(error.reason(), Some("COUNTER_BELOW_MIN"), "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied);
            false
        }
    }
}

/// Leaders die among the buyers, who are often too many: each piece is sold once, into one cart, and none that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_is_sold_exactly_once_through_a_failover() {
    let mut cluster = Cluster::start(3, &[]).await;
    let story = |storm: Arc<Storm>, client: Client, number| async move {
        let sold = buy(&storm, &client, number).await;
        if !sold {
            let delivered = storm.ask("increment", || {
                let more = client.keys().increment("stock/mug", DELIVERY);
                more.request_id(format!("{number}/deliver")).send()
            });
            delivered.await.expect("a counter takes it");
        }
        (number, sold)
    };
    let sales = Storm::rage(&mut cluster, KILLS, &["txn"], story).await;
    let client = cluster.client();
    for (number, sold) in &sales {
        let cart = client.carts().get(&buyer(*number)).send().await;
        let cart = cart.expect("a cart can be read");
        let pieces: u32 = cart.lines.iter().map(|line| line.quantity).sum();
        assert_eq!(pieces, u32::from(*sold), "buyer {number}");
    }
    let count = |was: bool| sales.iter().filter(|(_, sold)| *sold == was).count();
    let count = |was| i64::try_from(count(was)).expect("few sales");
    let left = count(false) * DELIVERY - count(true);
    let stock = client.keys().get("stock/mug").send().await;
    let stock = stock.expect("it was delivered");
    assert_eq!(stock.counter, Some(left));
    assert_eq!(&stock.value.value[..], left.to_string().as_bytes());
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// A holder that dies loses the lock, the next has a greater token, and who still believes to hold it is fenced off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_passes_on_and_the_old_token_is_refused() {
    let mut cluster = Cluster::start(3, &[]).await;
    let (first, second) = (cluster.client(), cluster.client());
    let held = first.keys().lock("report").ttl(TTL).holder("first");
    let held = held.acquire().await.expect("nobody has it");
    assert!(held.is_held());
    let taken = second.keys().lock("report").ttl(TTL).try_acquire().await;
    assert!(taken.expect("answered").is_none());

    let story = |storm: Arc<Storm>, client: Client, number| async move {
        let put = storm.ask("put", || {
            let put = client.keys().put("report", "mine").if_absent();
            put.request_id(format!("{number}")).send()
        });
        let refused = put.await.expect_err("somebody has the lock");
        assert_eq!(refused.reason(), Some("KEY_EXISTS"), "{refused}");
    };
    Storm::rage(&mut cluster, 1, &["put"], story).await;
    // Longer than the TTL: it is kept alive across the fail-over.
    let lease = held.lease_id();
    let begun = tokio::time::Instant::now();
    eventually("more than a TTL", async || {
        assert!(
            second.leases().get(lease).send().await.is_ok(),
            "it was lost"
        );
        begun.elapsed() > TTL + TTL / 2
    })
    .await;

    let old = held.token();
    // Dropped without a release, as by a crash: the lease runs out by itself.
    drop(held);
    let next = second.keys().lock("report").ttl(TTL).wait(4 * TTL);
    let next = next.acquire().await.expect("it runs out");
    assert!(next.token() > old, "{} {old}", next.token());
    for (token, may) in [(old, false), (next.token(), true)] {
        let fence = Compare::key("report").create_revision(Relation::Equal, token);
        let write = first.keys().put("written", token.to_string());
        let done = first.txn().compare(fence).then(write).send().await;
        assert_eq!(done.expect("answered").succeeded, may, "token {token}");
    }
    let lease = next.lease_id();
    next.release().await.expect("released");
    let gone = first.leases().get(lease).send().await.expect_err("revoked");
    assert_eq!(gone.reason(), Some("LEASE_NOT_FOUND"));
    let free = first.keys().lock("report").try_acquire().await;
    assert!(free.expect("answered").is_some());
}

/// A lock whose lease is revoked under its holder's feet says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lock_is_noticed() {
    let cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let lock = client.keys().lock("report").ttl(TTL).acquire().await;
    let lock = lock.expect("nobody has it");
    client
        .leases()
        .revoke(lock.lease_id())
        .send()
        .await
        .expect("it is there");
    tokio::time::timeout(2 * TTL, lock.lost())
        .await
        .expect("it is told in time");
    assert!(!lock.is_held());
    lock.release().await.expect("no error");
}
