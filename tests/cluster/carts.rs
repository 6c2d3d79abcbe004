//! Carts that are merged, frozen and ordered while leaders die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trolley::client::{CartOwner, Client, MergePolicy};
use trolley::proto::v1::{Cart, CartState};
use trolley::types::Revision;

use crate::harness::{Cluster, Storm, eventually};

/// How often the leader is killed.
const KILLS: u64 = 4;

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

/// What a shopper did, and was told.
struct Shopper {
    user: CartOwner,
    guest: CartOwner,
    frozen: Revision,
    order: String,
}

/// A guest's cart becomes a user's, which is frozen, ordered, and filled again.
async fn shop(storm: &Storm, client: &Client, number: u64) -> Shopper {
    let id = |verb: &str| format!("{number}/{verb}");
    let carts = || client.carts();
    let create = || client.sessions().create().request_id(id("create")).send();
    let session = storm.ask("create", create).await;
    let guest = CartOwner::Session(session.expect("it can be created").value.token);
    let user = CartOwner::User(format!("user-{number}"));
    for (owner, sku, quantity) in [(&guest, "tea", 2), (&guest, "mug", 1), (&user, "tea", 3)] {
        let id = id(&format!("add {quantity} {sku}"));
        let add = storm.ask("add", || {
            let add = carts().add(owner, sku, quantity).unit_price(350, "EUR");
            add.request_id(&id).send()
        });
        add.await.expect("it can be added");
    }

    let merge = storm.ask("merge", || {
        let merge = carts().merge(&guest, &user, MergePolicy::Sum);
        merge.request_id(id("merge")).send()
    });
    let merged = merge.await.expect("it can be merged").value;
    assert_eq!((merged.already_merged, merged.taken_lines), (false, 2));
    let freeze = storm.ask("freeze", || {
        let freeze = carts().freeze(&user, "till");
        freeze.request_id(id("freeze")).send()
    });
    let frozen = freeze.await.expect("it has lines").value;
    let all = expected(&[("tea", 5), ("mug", 1)]);
    assert_eq!(pieces(&frozen.snapshot), all);
    let subtotal = frozen.snapshot.subtotal.expect("it has prices");
    assert_eq!(subtotal.minor_units, 6 * 350);

    let refused = storm.ask("add", || {
        let add = carts().add(&guest, "pen", 1);
        add.request_id(id("too early")).send()
    });
    let refused = refused.await.expect_err("the till has it");
    assert_eq!(refused.reason(), Some("CART_FROZEN"));
    let metadata = &refused.rejected().expect("a node refused it").metadata;
    assert_eq!(metadata["holder"], "till");

    let order = format!("order {number}");
    let complete = storm.ask("complete-order", || {
        let complete = carts().complete_order(&user, "till", frozen.freeze_revision, &order);
        complete.request_id(id("complete")).send()
    });
    let completed = complete.await.expect("it was frozen").value;
    assert_eq!(
        (completed.already_completed, completed.remaining_lines),
        (false, 0)
    );
    Shopper {
        user,
        guest,
        frozen: frozen.freeze_revision,
        order,
    }
}

/// No line is lost, doubled or brought back, and each order is completed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_and_an_order_count_once_through_failover() {
    let mut cluster = Cluster::start(3, &[]).await;
    let story = |storm: Arc<Storm>, client: Client, number| async move {
        shop(&storm, &client, number).await
    };
    let kinds = ["merge", "freeze", "complete-order"];
    let shoppers = Storm::rage(&mut cluster, KILLS, &kinds, story).await;
    let client = cluster.client();
    for it in &shoppers {
        // Another client, with another identity, asks for the same order.
        let carts = client.carts();
        let again = carts.complete_order(&it.user, "till", it.frozen, &it.order);
        let again = again.send().await.expect("it is answered again");
        assert!(again.already_completed);
        assert_eq!(read(&client, &it.user).await.state(), CartState::Ordered);
        let added = carts.add(&it.guest, "pen", 1).send().await;
        added.expect("the cart is open");
        assert_eq!(
            pieces(&read(&client, &it.user).await),
            expected(&[("pen", 1)])
        );
        assert_eq!(
            read(&client, &it.guest).await,
            read(&client, &it.user).await
        );
    }
    cluster.wait_for_agreement().await;
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
    let story = {
        let ann = ann.clone();
        move |storm: Arc<Storm>, client: Client, number| {
            let ann = ann.clone();
            async move {
                let add = storm.ask("add", || {
                    let add = client.carts().add(&ann, "mug", 1);
                    add.request_id(format!("add {number}")).send()
                });
                let refused = add.await.expect_err("the till has it");
                assert_eq!(refused.reason(), Some("CART_FROZEN"), "{refused}");
            }
        }
    };
    Storm::rage(&mut cluster, 1, &["add"], story).await;

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
        .complete_order(&ann, "till", frozen.freeze_revision, "order 1");
    let completed = completed.send().await.expect("a late payment counts");
    assert_eq!(completed.remaining_lines, 1);
    assert_eq!(pieces(&read(&client, &ann).await), expected(&[("mug", 1)]));
    cluster.wait_for_agreement().await;
    client.close().await;
}
