//! Shops that call `hipstershop.CartService` and `oteldemo.CartService`, and know nothing of leaders.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use tokio::sync::Notify;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use trolley::api::IDEMPOTENCY_KEY;
use trolley::proto::hipstershop::cart_service_client::CartServiceClient as HipsterShop;
use trolley::proto::hipstershop::{
    AddItemRequest, Cart, CartItem, EmptyCartRequest, GetCartRequest,
};
use trolley::proto::oteldemo::cart_service_client::CartServiceClient as OtelDemo;

use crate::harness::{Cluster, eventually};

const BUYERS: u64 = 100;
/// Adds of one buyer, one after another, each of another product.
const PRODUCTS: u64 = 5;
/// Acknowledged adds at which the leader dies.
const BEFORE_KILL: u64 = 50;

fn channels(cluster: &Cluster) -> Vec<Channel> {
    let endpoints = cluster.endpoints().into_iter();
    let connect = |address| Channel::from_shared(format!("http://{address}"));
    endpoints
        .map(|address| connect(address).expect("an address").connect_lazy())
        .collect()
}

fn add(user: &str, product: &str) -> AddItemRequest {
    AddItemRequest {
        user_id: user.to_owned(),
        item: Some(CartItem {
            product_id: product.to_owned(),
            quantity: 1,
        }),
    }
}

async fn cart(channel: &Channel, user: &str) -> Result<Cart, Status> {
    let user_id = user.to_owned();
    let mut shop = HipsterShop::new(channel.clone());
    let cart = shop.get_cart(GetCartRequest { user_id }).await?;
    Ok(cart.into_inner())
}

fn pieces(cart: &Cart) -> Vec<(&str, i32)> {
    let items = cart.items.iter();
    let mut pieces: Vec<_> = items
        .map(|item| (item.product_id.as_str(), item.quantity))
        .collect();
    pieces.sort_unstable();
    pieces
}

/// Every node is asked by both kinds of shop, at the same time, for the same line of the same cart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_adds_at_once_lose_none() {
    let cluster = Cluster::start(3, &[]).await;
    let channels = channels(&cluster);
    assert_eq!(cart(&channels[1], "ann").await.expect("read").items, []);
    let adds = (0..BUYERS)
        .zip(channels.iter().cycle())
        .map(|(buyer, channel)| async move {
            let channel = channel.clone();
            if buyer % 2 == 0 {
                HipsterShop::new(channel).add_item(add("ann", "mug")).await
            } else {
                OtelDemo::new(channel).add_item(add("ann", "mug")).await
            }
        });
    for added in join_all(adds).await {
        added.expect("every node takes it");
    }
    for channel in &channels {
        let cart = cart(channel, "ann").await.expect("every node reads it");
        assert_eq!(pieces(&cart), [("mug", 100)]);
    }
    let user_id = "ann".to_owned();
    let emptied = HipsterShop::new(channels[2].clone())
        .empty_cart(EmptyCartRequest { user_id })
        .await;
    emptied.expect("every node takes it");
    assert_eq!(cart(&channels[0], "ann").await.expect("read").items, []);
    cluster.wait_for_agreement().await;
}

/// Adds until some node says that it was added. Every attempt has the same key. Returns how many failed.
async fn add_surely(channels: &[Channel], first: u64, key: &str, product: &str) -> u64 {
    let mut attempts = 0;
    eventually("an answer to an add", async || {
        let turn = usize::try_from(first + attempts).expect("small") % channels.len();
        let mut request = Request::new(add("ann", product));
        request
            .metadata_mut()
            .insert(IDEMPOTENCY_KEY, key.parse().expect("ASCII"));
        let added = HipsterShop::new(channels[turn].clone())
            .add_item(request)
            .await;
        attempts += 1;
        added.is_ok()
    })
    .await;
    attempts - 1
}

/// Each attempt may have been applied before its answer was lost. Whatever is retried under its key counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adds_retried_under_their_keys_count_once_when_the_leader_dies() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let channels = channels(&cluster);
    let (added, enough) = (AtomicU64::new(0), Notify::new());
    let buyers = (0..BUYERS).map(|buyer| {
        let (channels, added, enough) = (&channels, &added, &enough);
        async move {
            let mut failed = 0;
            for product in 0..PRODUCTS {
                let key = format!("buyer {buyer}, product {product}");
                failed += add_surely(channels, buyer, &key, &format!("product-{product}")).await;
                if added.fetch_add(1, Ordering::Relaxed) == BEFORE_KILL {
                    enough.notify_one();
                }
            }
            failed
        }
    });
    let kill = async {
        enough.notified().await;
        cluster.node(leader).kill();
    };
    let (failed, ()) = tokio::join!(join_all(buyers), kill);
    let failed: u64 = failed.into_iter().sum();
    assert!(failed > 0, "the leader died when everything was done");

    let next = cluster.wait_for_leader_beside(leader).await;
    let reader = usize::try_from(next - 1).expect("small");
    let found = cart(&channels[reader], "ann").await.expect("it leads");
    let expected: Vec<String> = (0..PRODUCTS).map(|n| format!("product-{n}")).collect();
    let expected: Vec<(&str, i32)> = expected.iter().map(|name| (name.as_str(), 100)).collect();
    assert_eq!(pieces(&found), expected);
    cluster.node(leader).start();
    cluster.wait_for_agreement().await;
}

/// What the reference services answer when their storage is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_a_shop_meets_a_failed_precondition() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let others = cluster.others(leader);
    let channel = channels(&cluster).swap_remove(usize::try_from(others[0] - 1).expect("small"));
    let mut shop = HipsterShop::new(channel.clone());
    let added = shop.add_item(add("ann", "mug")).await;
    added.expect("there is a majority");
    for id in [leader, others[1]] {
        cluster.node(id).kill();
    }
    let added = shop.add_item(add("ann", "mug")).await;
    let failed = added.expect_err("there is no majority");
    assert_eq!(failed.code(), Code::FailedPrecondition, "{failed}");
    let info = failed.get_details_error_info().expect("a reason");
    assert_eq!(info.domain, "trolley", "{info:?}");
    let read = cart(&channel, "ann").await.expect_err("not linearizable");
    assert_eq!(read.code(), Code::FailedPrecondition);
}
