//! Carts over the stream.

use super::*;

fn owner(user: &str) -> v1::CartOwner {
    let owner = v1::cart_owner::Owner::UserId(user.to_owned());
    v1::CartOwner { owner: Some(owner) }
}

fn add_line(sequence: u64, user: &str, sku: &str, price: i64) -> Operation {
    let request = v1::AddCartLineRequest {
        owner: Some(owner(user)),
        sku: sku.to_owned(),
        quantity: 2,
        unit_price: Some(v1::Money {
            minor_units: price,
            currency: "EUR".to_owned(),
        }),
        ..Default::default()
    };
    operation(sequence, Op::AddCartLine(request))
}

fn get_cart(sequence: u64, user: &str, own: bool) -> Operation {
    let request = v1::GetCartRequest {
        owner: Some(owner(user)),
        own,
        ..Default::default()
    };
    operation(sequence, Op::GetCart(request))
}

fn read_cart(outcome: &Outcome) -> &v1::Cart {
    match &outcome.response {
        Some(Body::GetCart(get)) => get.cart.as_ref().expect("always there"),
        other => panic!("not a cart: {other:?}"),
    }
}

/// From a guest's cart to an order, as a shop's backend does it.
#[tokio::test]
async fn a_cart_is_merged_frozen_and_ordered() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let merge = v1::MergeCartsRequest {
        source: Some(owner("guest")),
        target: Some(owner("ann")),
        policy: v1::CartMergePolicy::Sum.into(),
        ..Default::default()
    };
    let freeze = v1::FreezeCartRequest {
        owner: Some(owner("ann")),
        holder: "till".to_owned(),
        ..Default::default()
    };
    client
        .send(vec![
            add_line(1, "guest", "tea", 350),
            add_line(2, "ann", "mug", 900),
            operation(3, Op::MergeCarts(merge)),
            operation(4, Op::FreezeCart(freeze)),
            add_line(5, "guest", "pen", 100),
        ])
        .await;
    let outcomes = client.outcomes(5).await;
    let Some(Body::AddCartLine(added)) = &outcomes[0].response else {
        panic!("not added: {outcomes:?}")
    };
    let line = added.line.as_ref().expect("the line");
    assert_eq!(line.total_minor_units, 700);
    let Some(Body::FreezeCart(frozen)) = &outcomes[3].response else {
        panic!("not frozen: {outcomes:?}")
    };
    let snapshot = frozen.snapshot.clone().expect("it is small");
    let refused = failure(&outcomes[4]);
    assert_eq!(refused.reason, "CART_FROZEN");
    assert_eq!(refused.metadata["holder"], "till");

    client.send(vec![get_cart(6, "guest", false)]).await;
    let seen = client.outcomes(1).await;
    assert_eq!(read_cart(&seen[0]), &snapshot);
    assert_eq!(snapshot.state(), v1::CartState::Frozen);
    assert_eq!(snapshot.total_quantity, 4);
    let subtotal = snapshot.subtotal.expect("both lines have prices");
    assert_eq!(
        (subtotal.minor_units, subtotal.currency.as_str()),
        (2500, "EUR")
    );

    let freeze = frozen.freeze.clone().expect("always there");
    let complete = v1::CompleteOrderRequest {
        owner: Some(owner("ann")),
        holder: "till".to_owned(),
        revision: freeze.revision,
        order_id: "o1".to_owned(),
        ..Default::default()
    };
    client
        .send(vec![
            operation(7, Op::CompleteOrder(complete.clone())),
            operation(8, Op::CompleteOrder(complete)),
        ])
        .await;
    let completed = client.outcomes(2).await;
    for (outcome, before) in completed.iter().zip([false, true]) {
        let Some(Body::CompleteOrder(completed)) = &outcome.response else {
            panic!("not completed: {outcome:?}")
        };
        assert_eq!(completed.already_completed, before);
        assert_eq!(completed.remaining_lines, 0);
    }
    client
        .send(vec![get_cart(9, "ann", false), get_cart(10, "guest", true)])
        .await;
    let seen = client.outcomes(2).await;
    assert_eq!(read_cart(&seen[0]).state(), v1::CartState::Ordered);
    assert_eq!(read_cart(&seen[0]).order_id, "o1");
    let own = read_cart(&seen[1]);
    assert_eq!(own.state(), v1::CartState::Merged);
    let target = own.merged_into.clone().and_then(|merged| merged.target);
    assert_eq!(
        target,
        Some(v1::merged_into::Target::UserId("ann".to_owned()))
    );
}

#[tokio::test]
async fn the_action_that_is_refused_is_named() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let action = |action| v1::CartAction {
        action: Some(action),
    };
    let add = v1::AddLineAction {
        sku: "tea".to_owned(),
        quantity: 1,
        ..Default::default()
    };
    let line = v1::CartLineRef {
        line: Some(v1::cart_line_ref::Line::Sku("mug".to_owned())),
    };
    let remove = v1::RemoveLineAction { line: Some(line) };
    let update = v1::UpdateCartRequest {
        owner: Some(owner("ann")),
        actions: vec![
            action(v1::cart_action::Action::Add(add)),
            action(v1::cart_action::Action::Remove(remove)),
        ],
        ..Default::default()
    };
    client
        .send(vec![operation(1, Op::UpdateCart(update.clone()))])
        .await;
    let first = client.outcomes(1).await;
    assert_eq!(failure(&first[0]).reason, "CART_LINE_NOT_FOUND");
    assert_eq!(failure(&first[0]).metadata["action"], "1");
    client
        .send(vec![
            operation(1, Op::UpdateCart(update)),
            get_cart(2, "ann", false),
        ])
        .await;
    let again = client.outcomes(2).await;
    assert_eq!(failure(&again[0]), failure(&first[0]));
    assert!(read_cart(&again[1]).lines.is_empty());
}
