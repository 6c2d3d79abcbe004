//! Bad input to whole carts, told by its reason, and good input that survives the log.

use super::{Origin, Parsed, operation};
use crate::limits;
use crate::proto::v1::cart_action::Action;
use crate::proto::v1::cart_owner::Owner;
use crate::proto::v1::operation::Request;
use crate::proto::v1::{self, CartLineRef, cart_line_ref::Line};
use crate::state::Command;

fn reason(request: Request) -> String {
    match operation(request, Origin::Unary) {
        Ok(_) => "OK".to_owned(),
        Err(error) => v1::Failure::from(&error).reason,
    }
}

fn user(id: &str) -> v1::CartOwner {
    v1::CartOwner {
        owner: Some(Owner::UserId(id.to_owned())),
    }
}

fn session(token: &str) -> v1::CartOwner {
    v1::CartOwner {
        owner: Some(Owner::SessionToken(token.to_owned())),
    }
}

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn map(entries: usize, value: &str) -> v1::StringMap {
    let entries = (0..entries).map(|n| (format!("n{n:02}"), value.to_owned()));
    v1::StringMap {
        entries: entries.collect(),
    }
}

fn line(sku: &str) -> CartLineRef {
    CartLineRef {
        line: Some(Line::Sku(sku.to_owned())),
    }
}

fn update(actions: Vec<Option<Action>>) -> Request {
    let actions = actions.into_iter();
    Request::UpdateCart(v1::UpdateCartRequest {
        owner: Some(user("u")),
        actions: actions.map(|action| v1::CartAction { action }).collect(),
        ..Default::default()
    })
}

fn add(sku: &str, quantity: i64) -> Action {
    Action::Add(v1::AddLineAction {
        sku: sku.to_owned(),
        quantity,
        ..Default::default()
    })
}

fn valid_actions() -> Vec<Action> {
    let names = vec!["a".to_owned()];
    vec![
        add("s", 1),
        Action::SetQuantity(v1::SetLineQuantityAction {
            line: Some(line("s")),
            quantity: 2,
        }),
        Action::Move(v1::MoveLineAction {
            line: Some(line("s")),
            index: u32::MAX,
        }),
        Action::Remove(v1::RemoveLineAction {
            line: Some(line("s")),
        }),
        Action::Clear(v1::ClearLinesAction {}),
        Action::SetNote(text(limits::CART_NOTE_BYTES)),
        Action::AddCouponCode("c".to_owned()),
        Action::RemoveCouponCode("c".to_owned()),
        Action::SetAttributes(map(limits::CART_ATTRIBUTES, "v")),
        Action::RemoveAttributes(v1::StringList { values: names }),
        Action::SetShippingAddress(map(1, "v")),
        Action::SetBillingAddress(map(0, "")),
    ]
}

#[test]
fn actions_are_checked() {
    let price = |minor_units: i64, currency: &str| {
        Action::Add(v1::AddLineAction {
            sku: "s".to_owned(),
            quantity: 1,
            unit_price: Some(v1::Money {
                minor_units,
                currency: currency.to_owned(),
            }),
            ..Default::default()
        })
    };
    let names = |values| Action::RemoveAttributes(v1::StringList { values });
    let bad = [
        (None, "EMPTY_FIELD"),
        (Some(add("", 1)), "EMPTY_FIELD"),
        (Some(add("s", 0)), "OUT_OF_RANGE"),
        (Some(add("s", i64::MAX)), "OUT_OF_RANGE"),
        (Some(price(-1, "EUR")), "OUT_OF_RANGE"),
        (Some(price(1, "eur")), "MALFORMED"),
        (
            Some(Action::Remove(v1::RemoveLineAction { line: None })),
            "EMPTY_FIELD",
        ),
        (
            Some(Action::SetNote(text(limits::CART_NOTE_BYTES + 1))),
            "FIELD_TOO_LONG",
        ),
        (Some(Action::AddCouponCode(String::new())), "EMPTY_FIELD"),
        (
            Some(Action::AddCouponCode(text(limits::COUPON_CODE_BYTES + 1))),
            "FIELD_TOO_LONG",
        ),
        (
            Some(Action::SetAttributes(map(limits::CART_ATTRIBUTES + 1, ""))),
            "TOO_MANY",
        ),
        (
            Some(Action::SetShippingAddress(map(
                1,
                &text(limits::CART_ATTRIBUTE_BYTES),
            ))),
            "FIELD_TOO_LONG",
        ),
        (Some(names(vec![String::new()])), "EMPTY_FIELD"),
        (
            Some(names(vec!["a".to_owned(); limits::CART_ATTRIBUTES + 1])),
            "TOO_MANY",
        ),
    ];
    for (action, expected) in bad {
        // Behind one that is good: every action is looked at.
        let request = update(vec![Some(add("s", 1)), action.clone()]);
        assert_eq!(reason(request), expected, "{action:?}");
    }
    assert_eq!(reason(update(vec![])), "EMPTY_FIELD");
    let most = vec![Some(add("s", 1)); limits::CART_ACTIONS];
    assert_eq!(reason(update(most.clone())), "OK");
    let more = [most, vec![Some(add("s", 1))]].concat();
    assert_eq!(reason(update(more)), "TOO_MANY");
}

#[test]
fn merges_and_orders_are_checked() {
    let merge = |source, target, policy: v1::CartMergePolicy| {
        Request::MergeCarts(v1::MergeCartsRequest {
            source,
            target,
            policy: policy.into(),
            ..Default::default()
        })
    };
    let sum = v1::CartMergePolicy::Sum;
    let unspecified = v1::CartMergePolicy::Unspecified;
    let freeze = |holder: String, lease_ms| {
        Request::FreezeCart(v1::FreezeCartRequest {
            owner: Some(user("u")),
            holder,
            lease_ms,
            ..Default::default()
        })
    };
    let complete = |revision, order_id: String| {
        Request::CompleteOrder(v1::CompleteOrderRequest {
            owner: Some(user("u")),
            holder: "h".to_owned(),
            revision,
            order_id,
            ..Default::default()
        })
    };
    let release = |owner| {
        Request::ReleaseCart(v1::ReleaseCartRequest {
            owner,
            holder: "h".to_owned(),
            ..Default::default()
        })
    };
    let longest_lease = limits::CART_LEASE_MAX_MS.cast_signed();
    let cases = [
        (merge(Some(user("a")), Some(user("b")), sum), "OK"),
        (
            merge(Some(user("a")), Some(user("a")), sum),
            "EXCLUSIVE_FIELDS",
        ),
        (merge(None, Some(user("a")), sum), "EMPTY_FIELD"),
        (merge(Some(user("a")), None, sum), "EMPTY_FIELD"),
        (merge(None, None, sum), "EMPTY_FIELD"),
        (
            merge(Some(user("a")), Some(user("b")), unspecified),
            "MALFORMED",
        ),
        (merge(Some(session("x")), Some(user("b")), sum), "OK"),
        (merge(Some(user("b")), Some(session("x")), sum), "OK"),
        (freeze(text(64), 0), "OK"),
        (freeze("h".to_owned(), longest_lease), "OK"),
        (freeze(String::new(), 0), "EMPTY_FIELD"),
        (freeze(text(65), 0), "FIELD_TOO_LONG"),
        (freeze("h".to_owned(), -1), "OUT_OF_RANGE"),
        (freeze("h".to_owned(), longest_lease + 1), "OUT_OF_RANGE"),
        (complete(1, text(64)), "OK"),
        (complete(0, text(64)), "EMPTY_FIELD"),
        (complete(1, String::new()), "EMPTY_FIELD"),
        (complete(1, text(65)), "FIELD_TOO_LONG"),
        (release(Some(user("u"))), "OK"),
        (release(None), "EMPTY_FIELD"),
        (release(Some(session("x"))), "OK"),
    ];
    for (request, expected) in cases {
        assert_eq!(reason(request.clone()), expected, "{request:?}");
    }
}

#[test]
fn every_action_survives_the_log() {
    for action in valid_actions() {
        let request = update(vec![Some(action.clone())]);
        let Ok(Parsed::Write(write)) = operation(request, Origin::Unary) else {
            panic!("it is valid: {action:?}");
        };
        let decoded = Command::decode(write.command.encode()).expect("own bytes");
        assert_eq!(decoded, write.command, "{action:?}");
    }
}
