//! Fronts behind a real load balancer, while everything behind it dies in turn.

use crate::harness::gateway::Gateway;
use crate::harness::haproxy::{self, Haproxy};
use crate::harness::process::say_skipped;
use crate::harness::shoppers::{self, Shoppers};
use crate::harness::{Cluster, eventually};

/// Rounds of deaths at least, and until a front has died with a write that it had done.
const ROUNDS: usize = 2;
const PERSEVERANCE: usize = 4;
/// Writes that are answered between a death and what comes next.
const MEANWHILE: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn fronts_leaders_and_targets_die_in_turn_and_each_write_is_done_once() {
    if !haproxy::is_installed() {
        let why = "haproxy is not installed, see scripts/setup.sh --web";
        say_skipped(
            "fronts_leaders_and_targets_die_in_turn_and_each_write_is_done_once",
            why,
        );
        return;
    }
    let mut cluster = Cluster::start(3, &[]).await;
    let mut fronts = [
        Gateway::start(&cluster, &[]).await,
        Gateway::start(&cluster, &[]).await,
    ];
    let addresses = [fronts[0].address(), fronts[1].address()];
    let balancer = Haproxy::start(cluster.folder(), addresses).await;
    let shoppers = Shoppers::start(balancer.address());
    shoppers.wait_for(MEANWHILE).await;
    let mut rounds = 0;
    while rounds < ROUNDS || (shoppers.saved_on_the_way() == 0 && rounds < ROUNDS * PERSEVERANCE) {
        let (one, other) = (rounds % 2, (rounds + 1) % 2);
        rounds += 1;

        // It dies with what it had done and not said, and with a request of every shopper: also those that must not be sent again.
        fronts[one].pause();
        eventually("everybody who waits for the front", async || {
            balancer.under_way(one).await == shoppers::ALL || balancer.status(one).await == "DOWN"
        })
        .await;
        fronts[one].kill();
        balancer.wait_for_status(one, "DOWN").await;
        shoppers.wait_for(MEANWHILE).await;
        fronts[one].start_again().await;
        balancer.wait_for_status(one, "UP").await;

        fronts[other].ask_to_stop();
        assert!(fronts[other].wait_for_exit().await.success());
        balancer.wait_for_status(other, "DOWN").await;
        shoppers.wait_for(MEANWHILE).await;
        fronts[other].start_again().await;
        balancer.wait_for_status(other, "UP").await;

        let leader = cluster.wait_for_leader().await;
        cluster.node(leader).kill();
        cluster.wait_for_leader_beside(leader).await;
        shoppers.wait_for(MEANWHILE).await;
        cluster.node(leader).start();
        cluster.wait_until_caught_up(leader).await;

        // Taken out of the balancer's hands, as one is before it is replaced.
        balancer.set_state(one, "maint").await;
        balancer.wait_for_status(one, "MAINT").await;
        shoppers.wait_for(MEANWHILE).await;
        balancer.set_state(one, "ready").await;
        balancer.wait_for_status(one, "UP").await;
    }
    let (saved, cut_off) = (shoppers.saved_on_the_way(), shoppers.cut_off());
    let account = shoppers.stop_and_check().await;
    let (retried, redispatched) = balancer.retries().await;
    println!("{rounds} rounds; {account}; haproxy sent {retried} again, {redispatched} elsewhere");
    cluster.wait_for_agreement().await;
    for front in 0..fronts.len() {
        let deaths = balancer.deaths(front).await;
        assert!(deaths >= 2, "front {front} died {deaths} times");
        assert!(balancer.requests(front).await > 0, "front {front} was idle");
    }
    assert!(retried > 0 && redispatched > 0, "nothing was sent again");
    assert!(
        saved > 0,
        "no front died after a write and before its answer"
    );
    assert!(
        cut_off > 0,
        "no front died with a write that may not be sent again"
    );
}
