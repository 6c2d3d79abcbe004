//! Counters, leases, locks and transactions on real processes, through the death of the leader.

use std::time::Duration;

use trolley::client::{Client, Compare, Outcome};
use trolley::proto::v1::Relation;

use crate::harness::{Cluster, eventually};

const STOCK: i64 = 40;
const BUYERS: i64 = 60;
/// A lock's TTL, long enough that a busy machine keeps it alive.
const TTL: Duration = Duration::from_secs(3);

/// Takes one piece and puts it into the buyer's cart. Whether there was one.
async fn buy(client: &Client, buyer: i64) -> bool {
    let owner = trolley::client::CartOwner::User(format!("buyer-{buyer}"));
    let bought = client
        .txn()
        .then(client.keys().increment("stock/mug", -1).min(0))
        .then(client.carts().add(&owner, "mug", 1))
        .timeout(Duration::from_secs(60))
        .send()
        .await;
    match bought {
        Ok(done) => done.succeeded,
        Err(error) => {
            assert_eq!(error.reason(), Some("COUNTER_BELOW_MIN"), "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied);
            false
        }
    }
}

/// More buyers than pieces, and a leader that dies among them: as many are sold as there were, each into one cart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_is_sold_exactly_once_through_a_failover() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let stocked = client.keys().increment("stock/mug", STOCK).send().await;
    assert_eq!(stocked.expect("a new counter").value.value, STOCK);

    let leader = cluster.wait_for_leader().await;
    let buyers = futures::future::join_all((0..BUYERS).map(|buyer| buy(&client, buyer)));
    let kill = async {
        eventually("the first sales", async || {
            let stock = client.keys().get("stock/mug").send().await;
            stock.is_ok_and(|stock| stock.counter < Some(STOCK))
        })
        .await;
        cluster.node(leader).kill();
    };
    let (sold, ()) = tokio::join!(buyers, kill);
    let sold: Vec<i64> = (0..)
        .zip(sold)
        .filter_map(|(buyer, sold)| sold.then_some(buyer))
        .collect();
    assert_eq!(sold.len(), usize::try_from(STOCK).expect("small"));
    for buyer in 0..BUYERS {
        let owner = trolley::client::CartOwner::User(format!("buyer-{buyer}"));
        let cart = client.carts().get(&owner).send().await.expect("readable");
        let pieces: u32 = cart.lines.iter().map(|line| line.quantity).sum();
        assert_eq!(pieces, u32::from(sold.contains(&buyer)), "buyer {buyer}");
    }
    let left = client
        .keys()
        .get("stock/mug")
        .send()
        .await
        .expect("readable");
    assert_eq!((left.counter, &left.value.value[..]), (Some(0), &b"0"[..]));
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

    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
    cluster.wait_for_leader_beside(leader).await;
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
