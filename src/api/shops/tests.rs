//! Both shops against a node in memory.

use tonic::metadata::MetadataValue;
use tonic_types::ErrorInfo;

use super::*;
use crate::api::testing::MemoryNode;
use crate::limits;

type Shop = Api<MemoryNode>;

fn item(user: &str, product: &str, quantity: i32) -> AddItemRequest {
    AddItemRequest {
        user_id: user.to_owned(),
        item: Some(CartItem {
            product_id: product.to_owned(),
            quantity,
        }),
    }
}

fn with<T>(message: T, name: &'static str, value: &[u8]) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(value).expect("HTTP allows it");
    request.metadata_mut().insert(name, value);
    request
}

async fn add(shop: &Shop, user: &str, product: &str, quantity: i32) {
    let added = HipsterShop::add_item(shop, Request::new(item(user, product, quantity))).await;
    added.expect("it can be added");
}

async fn add_under(shop: &Shop, key: &str, message: AddItemRequest) -> Result<(), Status> {
    let request = with(message, IDEMPOTENCY_KEY, key.as_bytes());
    HipsterShop::add_item(shop, request).await.map(drop)
}

async fn empty_under(shop: &Shop, key: &str, user: &str) -> Result<(), Status> {
    let user_id = user.to_owned();
    let request = with(
        EmptyCartRequest { user_id },
        IDEMPOTENCY_KEY,
        key.as_bytes(),
    );
    HipsterShop::empty_cart(shop, request).await.map(drop)
}

async fn items_of(shop: &Shop, user: &str) -> Vec<(String, i32)> {
    let user_id = user.to_owned();
    let cart = HipsterShop::get_cart(shop, Request::new(GetCartRequest { user_id })).await;
    let cart = cart.expect("it can be read").into_inner();
    assert_eq!(cart.user_id, user);
    let items = cart.items.into_iter();
    items.map(|item| (item.product_id, item.quantity)).collect()
}

fn info(status: &Status) -> ErrorInfo {
    let info = status.get_details_error_info();
    info.expect("every failure has a reason")
}

#[track_caller]
fn assert_invalid(status: &Status, reason: &str, field: &str) {
    let info = info(status);
    let told = (status.code(), &info.reason[..], &info.metadata["field"][..]);
    assert_eq!(told, (Code::InvalidArgument, reason, field));
}

#[tokio::test]
async fn what_is_added_sums_up_until_the_cart_is_emptied() {
    let shop = Api::new(MemoryNode::leader());
    assert_eq!(items_of(&shop, "nobody").await, []);
    add(&shop, "ann", "mug", 1).await;
    add(&shop, "ann", "tea", 2).await;
    add(&shop, "ann", "mug", 3).await;
    add(&shop, "bob", "mug", 9).await;
    let expected = [("mug".to_owned(), 4), ("tea".to_owned(), 2)];
    assert_eq!(items_of(&shop, "ann").await, expected);

    let user_id = "ann".to_owned();
    let emptied = HipsterShop::empty_cart(&shop, Request::new(EmptyCartRequest { user_id }));
    emptied.await.expect("it can be emptied");
    assert_eq!(items_of(&shop, "ann").await, []);
    assert_eq!(items_of(&shop, "bob").await, [("mug".to_owned(), 9)]);
    // As often as a shop likes.
    let user_id = "nobody".to_owned();
    let emptied = HipsterShop::empty_cart(&shop, Request::new(EmptyCartRequest { user_id }));
    emptied.await.expect("there is nothing to do");
}

#[tokio::test]
async fn both_shops_and_the_cart_service_have_the_same_carts() {
    let shop = Api::new(MemoryNode::leader());
    add(&shop, "ann", "mug", 1).await;
    OtelDemo::add_item(&shop, Request::new(item("ann", "mug", 2)))
        .await
        .expect("it can be added");
    let engraved = v1::AddCartLineRequest {
        owner: owner("ann".to_owned()).expect("not empty"),
        sku: "mug".to_owned(),
        quantity: 4,
        attributes: BTreeMap::from([("engraving".to_owned(), "A.".to_owned())]),
        ..v1::AddCartLineRequest::default()
    };
    let added = shop.unary(Request::new(engraved)).await;
    added.expect("it can be added");
    let user_id = "ann".to_owned();
    let cart = OtelDemo::get_cart(&shop, Request::new(GetCartRequest { user_id })).await;
    let cart = cart.expect("it can be read").into_inner();
    assert_eq!(cart.items, [item("", "mug", 7).item.expect("given")]);
    let user_id = "ann".to_owned();
    let emptied = OtelDemo::empty_cart(&shop, Request::new(EmptyCartRequest { user_id })).await;
    emptied.expect("it can be emptied");
    assert_eq!(items_of(&shop, "ann").await, []);
}

#[tokio::test]
async fn a_retry_under_its_key_counts_once() {
    let shop = Api::new(MemoryNode::leader());
    for _ in 0..3 {
        let added = add_under(&shop, "add 1", item("ann", "mug", 2)).await;
        added.expect("the first answer");
    }
    assert_eq!(items_of(&shop, "ann").await, [("mug".to_owned(), 2)]);
    empty_under(&shop, "empty 1", "ann").await.expect("emptied");
    add(&shop, "ann", "tea", 1).await;
    // Late: what came since stays.
    empty_under(&shop, "empty 1", "ann")
        .await
        .expect("the first answer");
    assert_eq!(items_of(&shop, "ann").await, [("tea".to_owned(), 1)]);

    let other = add_under(&shop, "add 1", item("ann", "mug", 3)).await;
    let other = other.expect_err("another request under the same key");
    assert_eq!(other.code(), Code::FailedPrecondition);
    assert_eq!(info(&other).reason, "REQUEST_ID_REUSED");
    assert_eq!(items_of(&shop, "ann").await, [("tea".to_owned(), 1)]);
}

#[tokio::test]
async fn carts_of_another_namespace_are_reached_by_metadata() {
    let shop = Api::new(MemoryNode::leader());
    let request = with(item("ann", "mug", 2), NAMESPACE_METADATA, b"outlet");
    HipsterShop::add_item(&shop, request).await.expect("added");
    assert_eq!(items_of(&shop, "ann").await, []);
    let user_id = "ann".to_owned();
    let request = with(GetCartRequest { user_id }, NAMESPACE_METADATA, b"outlet");
    let cart = HipsterShop::get_cart(&shop, request).await.expect("read");
    assert_eq!(cart.into_inner().items.len(), 1);
}

#[tokio::test]
async fn bad_requests_are_named() {
    let shop = Api::new(MemoryNode::leader());
    let nothing = AddItemRequest {
        user_id: "ann".to_owned(),
        item: None,
    };
    let most = i32::try_from(limits::QUANTITY_MAX).expect("it fits");
    let long = "x".repeat(limits::SKU_BYTES + 1);
    for (message, reason, field) in [
        (item("", "mug", 1), "EMPTY_FIELD", "user_id"),
        (nothing, "EMPTY_FIELD", "item"),
        (item("ann", "", 1), "EMPTY_FIELD", "product_id"),
        (item("ann", &long, 1), "FIELD_TOO_LONG", "sku"),
        (item("ann", "mug", 0), "OUT_OF_RANGE", "quantity"),
        (item("ann", "mug", -1), "OUT_OF_RANGE", "quantity"),
        (item("ann", "mug", i32::MIN), "OUT_OF_RANGE", "quantity"),
        (item("ann", "mug", most + 1), "OUT_OF_RANGE", "quantity"),
    ] {
        let refused = HipsterShop::add_item(&shop, Request::new(message)).await;
        assert_invalid(&refused.expect_err("it is not valid"), reason, field);
    }
    let read = HipsterShop::get_cart(&shop, Request::new(GetCartRequest::default())).await;
    assert_invalid(&read.expect_err("whose?"), "EMPTY_FIELD", "user_id");
    let emptied = HipsterShop::empty_cart(&shop, Request::new(EmptyCartRequest::default())).await;
    assert_invalid(&emptied.expect_err("whose?"), "EMPTY_FIELD", "user_id");

    let long = "k".repeat(limits::REQUEST_ID_BYTES + 1);
    for (name, value, reason, field) in [
        (IDEMPOTENCY_KEY, &b""[..], "EMPTY_FIELD", "idempotency-key"),
        (IDEMPOTENCY_KEY, b"\xff", "MALFORMED", "idempotency-key"),
        (
            IDEMPOTENCY_KEY,
            long.as_bytes(),
            "FIELD_TOO_LONG",
            "request_id",
        ),
        (
            NAMESPACE_METADATA,
            b"\xff",
            "MALFORMED",
            "trolley-namespace",
        ),
        (NAMESPACE_METADATA, b"No Such", "MALFORMED", "namespace"),
    ] {
        let request = with(item("ann", "mug", 1), name, value);
        let refused = HipsterShop::add_item(&shop, request).await;
        assert_invalid(&refused.expect_err("it is not valid"), reason, field);
    }
    assert_eq!(items_of(&shop, "ann").await, []);
}

/// Programs that know the reference services wait for this code, and those that know Trolley find its reason.
#[tokio::test]
async fn whatever_else_fails_is_a_failed_precondition() {
    let shop = Api::new(MemoryNode::follower(None));
    let add = HipsterShop::add_item(&shop, Request::new(item("ann", "mug", 1))).await;
    let failed = add.expect_err("there is no leader");
    assert_eq!(failed.code(), Code::FailedPrecondition);
    assert_eq!(info(&failed).reason, "NO_LEADER");
    assert_eq!(info(&failed).metadata["outcome"], "not_applied");
    assert!(!failed.message().is_empty());

    let node = MemoryNode::leader();
    let shop = Api::new(node.clone());
    let full = item(
        "ann",
        "mug",
        i32::try_from(limits::QUANTITY_MAX).expect("it fits"),
    );
    add_under(&shop, "1", full).await.expect("it just fits");
    let more = add_under(&shop, "2", item("ann", "mug", 1)).await;
    let more = more.expect_err("too many");
    assert_eq!(
        (more.code(), &info(&more).reason[..]),
        (Code::FailedPrecondition, "QUANTITY_LIMIT")
    );

    node.hold(true);
    let user_id = "ann".to_owned();
    let mut slow = Request::new(EmptyCartRequest { user_id });
    slow.set_timeout(std::time::Duration::from_millis(200));
    let slow = HipsterShop::empty_cart(&shop, slow)
        .await
        .expect_err("no reply comes");
    assert_eq!(slow.code(), Code::FailedPrecondition);
    assert_eq!(info(&slow).reason, "DEADLINE_EXCEEDED");
    assert_eq!(info(&slow).metadata["outcome"], "unknown");
}
