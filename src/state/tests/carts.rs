//! Carts at their limits, and what other operations may do with them inside one entry.

use bytes::Bytes;
use prost::Message as _;

use super::{Machine, hex, rejection, tick, token};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::state::cart::merge::{self, MergeOutcome};
use crate::state::query::{self, CartRead};
use crate::state::{
    Batch, CartAction, CartOperation, CartOwner, Key, MergePolicy, Operation, Record, Rejection,
    record,
};
use crate::types::{
    Attributes, CouponCode, Fields, HolderId, LogTime, Namespace, Quantity, Sku, TextMap, Ttl,
    UserId,
};

fn user(name: &str) -> CartOwner {
    CartOwner::User(UserId::parse(name).expect("short"))
}

fn ns() -> Namespace {
    Namespace::default()
}

fn add(owner: &CartOwner, sku: &str, attribute: &str) -> Operation {
    let attributes = (!attribute.is_empty()).then(|| ("a".to_owned(), attribute.to_owned()));
    Operation::Cart(CartOperation::Add {
        owner: owner.clone(),
        sku: Sku::parse(sku).expect("short"),
        quantity: Quantity::parse(1).expect("in range"),
        unit_price: None,
        attributes: Attributes::parse(attributes.into_iter().collect()).expect("small"),
        if_revision: None,
    })
}

fn update(owner: &CartOwner, actions: Vec<CartAction>) -> Operation {
    Operation::Cart(CartOperation::Update {
        owner: owner.clone(),
        actions,
        if_revision: None,
    })
}

fn freeze(owner: &CartOwner, holder: &str, lease: u64) -> Operation {
    Operation::Cart(CartOperation::Freeze {
        owner: owner.clone(),
        holder: HolderId::parse(holder).expect("short"),
        lease: Ttl::from_millis(lease),
        if_revision: None,
    })
}

fn merge(source: &CartOwner, target: &CartOwner, policy: MergePolicy) -> Operation {
    Operation::Cart(CartOperation::Merge {
        source: source.clone(),
        target: target.clone(),
        policy,
        if_source_revision: None,
        if_target_revision: None,
    })
}

fn create(nth: u8) -> Operation {
    Operation::SessionCreate {
        token: token(nth),
        sealed_token: Bytes::new(),
        user: None,
        fields: Fields::default(),
        idle_ttl: Ttl::from_millis(1000),
        absolute_ttl: Ttl::from_millis(1000),
    }
}

fn cart(machine: &Machine, owner: &CartOwner) -> Option<pb::CartRecord> {
    match query::cart(&machine.store, &ns(), owner).expect("no fault") {
        CartRead::Cart(cart) => Some((*cart).clone()),
        CartRead::Absent | CartRead::SessionNotFound => None,
    }
}

fn skus(machine: &Machine, owner: &CartOwner) -> Vec<String> {
    let cart = cart(machine, owner).unwrap_or_default();
    cart.lines.into_iter().map(|line| line.sku).collect()
}

fn fill(machine: &mut Machine, owner: &CartOwner, prefix: &str, lines: usize) {
    for nth in 0..lines {
        machine.run(1, add(owner, &format!("{prefix}{nth}"), ""));
    }
}

fn refused(machine: &mut Machine, operation: Operation) -> Option<Rejection> {
    let before = machine.store.snapshot();
    let revision = machine.revision();
    let reply = machine.run(1, operation);
    assert_eq!(machine.revision(), revision);
    assert_eq!(
        machine.store.snapshot(),
        before,
        "a refusal changed something"
    );
    rejection(&reply)
}

#[test]
fn a_merge_that_would_pass_a_limit_leaves_both_carts_as_they_are() {
    let mut machine = Machine::default();
    let (ann, bob) = (user("ann"), user("bob"));
    fill(&mut machine, &ann, "a", limits::CART_LINES);
    fill(&mut machine, &bob, "b", 1);
    for policy in [MergePolicy::Sum, MergePolicy::Max] {
        let found = refused(&mut machine, merge(&bob, &ann, policy));
        assert_eq!(found, Some(Rejection::CartLinesLimit));
    }
    let coupons = |prefix: &str| {
        let codes = (0..limits::CART_COUPONS).map(|n| format!("{prefix}{n}"));
        codes
            .map(|code| CartAction::AddCouponCode(CouponCode::parse(code).expect("short")))
            .collect()
    };
    let (eve, zoe) = (user("eve"), user("zoe"));
    machine.run(1, update(&eve, coupons("e")));
    machine.run(1, update(&zoe, coupons("z")));
    let found = refused(&mut machine, merge(&eve, &zoe, MergePolicy::Sum));
    assert_eq!(found, Some(Rejection::CartCouponsLimit));
    machine.run(1, merge(&bob, &ann, MergePolicy::KeepTarget));
    assert_eq!(skus(&machine, &bob).len(), limits::CART_LINES);
    machine.check_invariants();
}

#[test]
fn details_have_limits_of_the_whole_cart() {
    let mut machine = Machine::default();
    let ann = user("ann");
    let one = |name: String, value: &str| {
        let entries = [(name, value.to_owned())];
        CartAction::SetAttributes(TextMap::parse("attributes", entries.into()).expect("small"))
    };
    let most = (0..limits::CART_ATTRIBUTES).map(|n| one(format!("n{n}"), "v"));
    machine.run(1, update(&ann, most.collect()));
    let too_many = update(&ann, vec![one("one more".to_owned(), "v")]);
    let found = refused(&mut machine, too_many);
    assert_eq!(found, Some(Rejection::CartAttributesLimit));
    let large = "v".repeat(limits::CART_ATTRIBUTE_BYTES - 10);
    let too_large = update(&ann, vec![one("n0".to_owned(), &large)]);
    let found = refused(&mut machine, too_large);
    assert_eq!(found, Some(Rejection::CartAttributesLimit));
    let codes = (0..=limits::CART_COUPONS).map(|n| format!("c{n}"));
    let codes =
        codes.map(|code| CartAction::AddCouponCode(CouponCode::parse(code).expect("short")));
    let found = refused(&mut machine, update(&ann, codes.collect()));
    assert_eq!(found, Some(Rejection::CartCouponsLimit));
}

#[test]
fn the_answer_to_a_freeze_repeats_small_carts_only() {
    let mut machine = Machine::default();
    let ann = user("ann");
    let text = "x".repeat(limits::LINE_ATTRIBUTE_BYTES - 1);
    let snapshot = |reply: pb::Reply| match reply.body {
        Some(Body::CartFrozen(frozen)) => frozen.snapshot,
        other => panic!("not frozen: {other:?}"),
    };
    for nth in 0..20 {
        machine.run(1, add(&ann, &format!("s{nth}"), &text));
        let reply = machine.run(2, freeze(&ann, "till", 1));
        assert!(reply.encoded_len() < limits::CART_SNAPSHOT_BYTES + 200);
        let is_small = nth < 7;
        assert_eq!(snapshot(reply).is_some(), is_small, "{nth}");
        machine.run(3 + nth, tick());
    }
}

#[test]
fn a_long_chain_of_merges_is_cut() {
    let mut machine = Machine::default();
    let users: Vec<_> = (0..=limits::CART_POINTERS + 1)
        .map(|n| user(&format!("u{n}")))
        .collect();
    machine.run(1, add(&users[0], "tea", ""));
    for pair in users.windows(2) {
        machine.run(1, merge(&pair[0], &pair[1], MergePolicy::Sum));
    }
    // The second still finds the end of the chain, the first has begun anew.
    assert_eq!(skus(&machine, &users[1]), ["tea"]);
    assert_eq!(cart(&machine, &users[0]), None);
    machine.run(1, add(&users[0], "mug", ""));
    assert_eq!(skus(&machine, &users[0]), ["mug"]);
    assert_eq!(skus(&machine, &users[1]), ["tea"]);
    machine.check_invariants();
}

/// A session that is replaced takes its cart along as it is, held by whoever holds it.
#[test]
fn a_cart_can_be_handed_over_while_it_is_frozen() {
    let mut machine = Machine::default();
    let (old, new) = (CartOwner::Session(token(1)), CartOwner::Session(token(2)));
    machine.run(1, create(1));
    machine.run(1, add(&old, "tea", ""));
    machine.run(1, freeze(&old, "till", 100));
    machine.run(1, create(2));
    let before = cart(&machine, &old).expect("it has a line");
    let mut batch = Batch::new(&machine.store, machine.horizon);
    merge::hand_over(&mut batch, &ns(), &token(1), &token(2)).expect("no fault");
    let (changes, horizon) = batch.finish();
    machine.store.commit(changes);
    machine.horizon = horizon;
    machine.check_invariants();
    assert_eq!(cart(&machine, &old), None);
    assert_eq!(cart(&machine, &new), Some(before));
    let found = refused(&mut machine, add(&new, "mug", ""));
    assert!(
        matches!(found, Some(Rejection::CartFrozen { .. })),
        "{found:?}"
    );
    machine.run(2, Operation::SessionDestroy { token: token(2) });
    assert_eq!(machine.count(|key| matches!(key, Key::SessionCart(..))), 0);
    machine.check_invariants();
}

/// A login merges among other things, under the revision of all of them.
#[test]
fn a_merge_can_be_part_of_another_operation() {
    let mut machine = Machine::default();
    let (guest, ann) = (CartOwner::Session(token(1)), user("ann"));
    machine.run(1, create(1));
    machine.run(1, add(&guest, "tea", ""));
    machine.run(1, add(&ann, "mug", ""));
    let revision = machine.revision();
    let mut batch = Batch::new(&machine.store, machine.horizon);
    let plan = merge::plan(&mut batch, &ns(), &guest, &ann, MergePolicy::Sum);
    let plan = plan.expect("nothing refuses it");
    let expected = MergeOutcome::Merged {
        taken_lines: 1,
        dropped_lines: 0,
    };
    assert_eq!(plan.outcome(), expected);
    let next = batch.next_revision();
    plan.carry_out(&mut batch, next);
    let policy = MergePolicy::Sum;
    let again = merge::merge(&mut batch, &ns(), &guest, &ann, policy).expect("no fault");
    assert_eq!(again, MergeOutcome::AlreadyMerged);
    let elsewhere = merge::merge(&mut batch, &ns(), &guest, &user("bob"), policy);
    assert_eq!(elsewhere.expect("no fault"), MergeOutcome::MergedElsewhere);
    let (changes, horizon) = batch.finish();
    machine.store.commit(changes);
    machine.horizon = horizon;
    assert_eq!(machine.revision(), revision + 1);
    assert_eq!(skus(&machine, &ann), ["mug", "tea"]);
    assert_eq!(skus(&machine, &guest), ["mug", "tea"]);
    machine.check_invariants();
}

/// A cart that is due and not yet swept is no cart: its successor begins anew.
#[test]
fn an_add_to_an_unswept_cart_begins_anew() {
    let mut machine = Machine::default();
    for nth in 0..=limits::SWEEP_PER_ENTRY {
        machine.run(
            1,
            super::put(&format!("k{nth:03}"), "v", Some(limits::CART_TTL_USER_MS)),
        );
    }
    let ann = user("ann");
    machine.run(1, add(&ann, "tea", ""));
    let reply = machine.run(1 + limits::CART_TTL_USER_MS, add(&ann, "mug", ""));
    let found = cart(&machine, &ann).expect("it was just begun");
    assert_eq!(found.create_revision, reply.revision);
    assert_eq!(found.lines.len(), 1);
    assert_eq!(found.lines[0].line_id, 1);
    machine.check_invariants();
    machine.run(2 + limits::CART_TTL_USER_MS, tick());
    machine.check_invariants();
    assert_eq!(skus(&machine, &ann), ["mug"]);
}

fn full_cart() -> pb::CartRecord {
    let map = |name: &str| [(name.to_owned(), "v".to_owned())].into();
    pb::CartRecord {
        lines: vec![v1::CartLine {
            line_id: 1,
            sku: "s".to_owned(),
            quantity: 2,
            ..v1::CartLine::default()
        }],
        create_revision: 3,
        mod_revision: 4,
        next_line_id: 5,
        deadline: 6,
        indexed_deadline: 7,
        details: Some(v1::CartDetails {
            note: "n".to_owned(),
            coupon_codes: vec!["c".to_owned()],
            attributes: map("a"),
            shipping_address: map("s"),
            billing_address: map("b"),
        }),
        freeze: Some(pb::StoredFreeze {
            holder: "h".to_owned(),
            revision: 8,
            deadline: 9,
            lines: vec![pb::FrozenLine {
                line_id: 1,
                quantity: 2,
            }],
        }),
        merged_into: Some((&user("u")).into()),
        order_id: "o".to_owned(),
    }
}

#[test]
fn records_on_disk_stay_what_they_are() {
    let name = |name: &str| UserId::parse(name).expect("short");
    let cart_key = Key::UserCart(ns(), name("ann"));
    let order_key = Key::Order(ns(), crate::types::OrderId::parse("o").expect("short"));
    let order = pb::OrderRecord {
        holder: "h".to_owned(),
        revision: 1,
        answer: Some(pb::OrderCompleted {
            already_completed: false,
            mod_revision: 2,
            remaining_lines: 3,
        }),
        deadline: 4,
    };
    let fixtures = [
        (&cart_key, Record::Cart(full_cart().into()), CART),
        (&order_key, Record::Order(order.into()), ORDER),
    ];
    for (key, expected, fixture) in fixtures {
        let bytes = record::encode(&expected);
        assert_eq!(hex(&bytes), fixture);
        let stored = record::decode(key, bytes).expect("own bytes");
        assert_eq!(stored.record, expected);
    }
    // A cart as it was written before carts had deadlines and states: it is open, and lives until it is changed.
    let old = full_cart();
    let old = pb::CartRecord {
        lines: old.lines,
        create_revision: 3,
        mod_revision: 4,
        next_line_id: 5,
        ..pb::CartRecord::default()
    };
    let bytes = record::encode(&Record::Cart(old.into()));
    assert_eq!(hex(&bytes), OLD_CART);
}

const OLD_CART: &str = "0a0708011201731802100318042005";
const CART: &str = "0a0708011201731802100318042005280630073a1e0a016e1201631a060a01611201762206\
    0a01731201762a060a0162120176420d0a0168100818092204080110024a030a017552016f";
const ORDER: &str = "0a016810011a04100218032004";

/// Whoever is refused is told the same by a replay.
#[test]
fn refusals_survive_their_stored_form() {
    let all = [
        Rejection::CartFrozen {
            holder: HolderId::parse("till").expect("short"),
            until: LogTime::from_millis(7),
        },
        Rejection::CartNotFrozen,
        Rejection::CartEmpty,
        Rejection::CartTotalLimit,
        Rejection::CartCouponsLimit,
        Rejection::CartAttributesLimit,
        Rejection::CartMergedElsewhere,
        Rejection::OrderExists,
    ];
    for (code, rejection) in (40..).zip(all) {
        let stored = rejection.to_stored();
        assert_eq!(stored.code, code);
        assert_eq!(Rejection::from_stored(&stored), Some(rejection));
    }
}
