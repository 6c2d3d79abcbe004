//! Carts that are merged, frozen and ordered while leaders die.

use std::collections::BTreeMap;
use std::time::Duration;

use trolley::client::{CartOwner, Client, MergePolicy};
use trolley::proto::v1::{Cart, CartState};

use crate::harness::{Cluster, eventually};

async fn read(client: &Client, owner: &CartOwner) -> Cart {
    let cart = client.carts().get(owner).send().await;
    cart.expect("a cart can be read").value
}

fn pieces(cart: &Cart) -> BTreeMap<String, u32> {
    let lines = cart.lines.iter();
    lines
        .map(|line| (line.sku.clone(), line.quantity))
        .collect()
}

fn expected(lines: &[(&str, u32)]) -> BTreeMap<String, u32> {
    let lines = lines.iter();
    lines.map(|(sku, n)| ((*sku).to_owned(), *n)).collect()
}

/// Kills the leader while the call is under way; the client retries until the next one answers. Brings the node back.
async fn through_failover<T>(cluster: &mut Cluster, call: impl Future<Output = T>) -> T {
    let leader = cluster.wait_for_leader().await;
    let (answer, ()) = tokio::join!(call, async { cluster.node(leader).kill() });
    cluster.wait_for_leader_beside(leader).await;
    cluster.node(leader).start();
    cluster.wait_until_caught_up(leader).await;
    answer
}

/// No line is lost, doubled or brought back, and the order is completed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_and_an_order_count_once_through_failover() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let session = client.sessions().create().send().await;
    let guest = CartOwner::Session(session.expect("a session can be created").token.clone());
    let ann = CartOwner::User("ann".to_owned());
    let carts = client.carts();
    for (owner, sku, quantity) in [(&guest, "tea", 2), (&guest, "mug", 1), (&ann, "tea", 3)] {
        let added = carts.add(owner, sku, quantity).unit_price(350, "EUR");
        added.send().await.expect("it can be added");
    }

    let merge = carts.merge(&guest, &ann, MergePolicy::Sum).send();
    let merged = through_failover(&mut cluster, merge).await;
    merged.expect("the next leader answers");
    let cart = read(&client, &ann).await;
    assert_eq!(pieces(&cart), expected(&[("tea", 5), ("mug", 1)]));
    assert_eq!(cart.subtotal.expect("it has prices").minor_units, 6 * 350);
    assert_eq!(read(&client, &guest).await, read(&client, &ann).await);

    let freeze = carts.freeze(&ann, "till").send();
    let frozen = through_failover(&mut cluster, freeze).await;
    let frozen = frozen.expect("the next leader answers").value;
    assert_eq!(
        pieces(&frozen.snapshot),
        expected(&[("tea", 5), ("mug", 1)])
    );
    let refused = carts.add(&guest, "pen", 1).send().await;
    let refused = refused.expect_err("the till has it");
    assert_eq!(refused.reason(), Some("CART_FROZEN"));
    let metadata = &refused.rejected().expect("a node refused it").metadata;
    assert_eq!(metadata["holder"], "till");

    let complete = carts.complete_order(&ann, "till", frozen.revision, "order 1");
    let completed = through_failover(&mut cluster, complete.send()).await;
    completed.expect("the next leader answers");
    // Another client, with another identity, asks for the same order.
    let other = cluster.client();
    let again = other
        .carts()
        .complete_order(&ann, "till", frozen.revision, "order 1");
    let again = again.send().await.expect("it is answered again");
    assert!(again.already_completed);
    assert_eq!(read(&client, &ann).await.state(), CartState::Ordered);
    let added = carts.add(&guest, "pen", 1).send().await;
    added.expect("the cart is open");
    assert_eq!(pieces(&read(&client, &ann).await), expected(&[("pen", 1)]));
    cluster.wait_for_agreement().await;
    other.close().await;
    client.close().await;
}

/// The lease that was promised holds under the next leader, and ends without anybody's doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_survives_the_leader_and_ends_by_log_time() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let ann = CartOwner::User("ann".to_owned());
    let added = client.carts().add(&ann, "tea", 1).send().await;
    added.expect("it can be added");
    let lease = Duration::from_secs(10);
    let frozen = client
        .carts()
        .freeze(&ann, "till")
        .lease(lease)
        .send()
        .await;
    let frozen = frozen.expect("it has a line").value;
    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
    cluster.wait_for_leader_beside(leader).await;

    let mut refusals = 0;
    eventually("the end of the lease", async || {
        let added = client.carts().add(&ann, "mug", 1).send().await;
        let nodes = cluster.status().await;
        let reached = nodes.iter().map(|node| node.log_time_ms).max();
        match added {
            Ok(_) => {
                assert!(
                    reached >= Some(frozen.deadline_ms),
                    "too early: {reached:?}"
                );
                true
            }
            Err(error) => {
                assert_eq!(error.reason(), Some("CART_FROZEN"), "{error}");
                refusals += 1;
                false
            }
        }
    })
    .await;
    assert!(refusals > 0, "an election took as long as the lease");
    let completed = client
        .carts()
        .complete_order(&ann, "till", frozen.revision, "order 1");
    let completed = completed.send().await.expect("a late payment counts");
    assert_eq!(completed.remaining_lines, 1);
    assert_eq!(pieces(&read(&client, &ann).await), expected(&[("mug", 1)]));
    cluster.node(leader).start();
    cluster.wait_for_agreement().await;
    client.close().await;
}
