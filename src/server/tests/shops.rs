//! The shops' services on the same socket as all others.

use super::*;
use crate::api::IDEMPOTENCY_KEY;
use crate::proto::hipstershop::cart_service_client::CartServiceClient as HipsterShopClient;
use crate::proto::hipstershop::{AddItemRequest, CartItem, GetCartRequest};
use crate::proto::oteldemo::cart_service_client::CartServiceClient as OtelDemoClient;

fn add(key: &'static str) -> Request<AddItemRequest> {
    let mut request = Request::new(AddItemRequest {
        user_id: "ann".to_owned(),
        item: Some(CartItem {
            product_id: "mug".to_owned(),
            quantity: 2,
        }),
    });
    let metadata = request.metadata_mut();
    metadata.insert(IDEMPOTENCY_KEY, key.parse().expect("ASCII"));
    request
}

/// A shop talks to whichever node it was given, and repeats a call at another.
#[tokio::test]
async fn a_follower_forwards_a_shops_calls_and_a_retry_elsewhere_counts_once() {
    let leader = MemoryNode::leader();
    let leading = Running::start(leader.clone()).await;
    let following = Running::start(MemoryNode::follower(Some(&leading.address))).await;
    let mut shop = HipsterShopClient::new(following.channel().await);
    shop.add_item(add("1")).await.expect("forwarded");
    let mut other = OtelDemoClient::new(leading.channel().await);
    other.add_item(add("1")).await.expect("the first answer");
    other.add_item(add("2")).await.expect("another one");
    assert_eq!(leader.proposed(), 3);
    let user_id = "ann".to_owned();
    let cart = other.get_cart(GetCartRequest { user_id }).await;
    let cart = cart.expect("served").into_inner();
    assert_eq!((cart.items.len(), cart.items[0].quantity), (1, 4));

    let mut direct = add("3");
    direct
        .metadata_mut()
        .insert(NO_FORWARD, "1".parse().expect("ASCII"));
    let told = shop.add_item(direct).await;
    let told = told.expect_err("not to be forwarded");
    assert_eq!(told.code(), Code::FailedPrecondition);
    assert_eq!(info(&told).reason, "NOT_LEADER");
    assert_eq!(info(&told).metadata["leader_address"], leading.address);
}

#[tokio::test]
async fn the_shops_have_health() {
    let server = Running::start(MemoryNode::leader()).await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["hipstershop.CartService", "oteldemo.CartService"] {
        let watch = HealthCheckRequest {
            service: service.to_owned(),
        };
        let mut statuses = health.watch(watch).await.expect("known").into_inner();
        let serving = async {
            while let Some(status) = statuses.message().await.expect("the stream is open") {
                if status.status() == ServingStatus::Serving {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(10), serving)
            .await
            .expect("it is served");
    }
}
