//! Carts at their limits, and what other operations may do with them inside one entry.

use bytes::Bytes;
use prost::Message as _;

use super::{Machine, rejection, tick, token};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::state::query::{self, CartRead};
use crate::state::{
    Batch, CartAction, CartOperation, CartOwner, Fields, Key, MergePolicy, NamespaceOperation,
    Operation, Record, Rejection, Rotation, SessionOperation, Settings, record,
};
use crate::types::{
    Attributes, ClientAttributes, CouponCode, HolderId, LogTime, Namespace, Quantity, Sku, TextMap,
    Ttl, UserId,
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

fn create(nth: u8, user: Option<&str>) -> Operation {
    let ttl = Some(Ttl::from_millis(1000));
    let create = SessionOperation::Create {
        token: token(nth),
        sealed_token: Bytes::new(),
        user: user.map(|user| UserId::parse(user).expect("short")),
        fields: Fields::default(),
        client: ClientAttributes::default(),
        idle_ttl: ttl,
        absolute_ttl: ttl,
    };
    create.into()
}

fn rotate(from: u8, to: u8, user: Option<&str>) -> Operation {
    let rotation = Rotation {
        token: token(from),
        new_token: token(to),
        sealed_token: Bytes::new(),
        user: user.map(|user| UserId::parse(user).expect("short")),
        set: Fields::default(),
        remove: Vec::new(),
        idle_ttl: None,
        absolute_ttl: None,
        client: ClientAttributes::default(),
        cart_merge: MergePolicy::Sum,
    };
    SessionOperation::Rotate(Box::new(rotation)).into()
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
fn a_rotation_without_a_user_takes_a_frozen_cart_along() {
    let mut machine = Machine::default();
    let (old, new) = (CartOwner::Session(token(1)), CartOwner::Session(token(2)));
    machine.run(1, create(1, None));
    machine.run(1, add(&old, "tea", ""));
    machine.run(1, freeze(&old, "till", 100));
    let before = cart(&machine, &old).expect("it has a line");
    machine.run(1, rotate(1, 2, None));
    machine.check_invariants();
    assert_eq!(cart(&machine, &old), None);
    assert_eq!(cart(&machine, &new), Some(before));
    let found = refused(&mut machine, add(&new, "mug", ""));
    assert!(
        matches!(found, Some(Rejection::CartFrozen { .. })),
        "{found:?}"
    );
    let found = refused(&mut machine, rotate(2, 3, Some("ann")));
    assert!(
        matches!(found, Some(Rejection::CartFrozen { .. })),
        "{found:?}"
    );
    machine.run(2, SessionOperation::Destroy { token: token(2) });
    assert_eq!(session_carts(&machine), 0);
    machine.check_invariants();
}

/// Sessions that end at the login take along what their carts hold. What the new one brings must not go the same way,
/// although the user's cart points there.
#[test]
fn a_login_merges_into_a_cart_that_stays() {
    let one_session = v1::SessionSettings {
        max_per_user: Some(1),
        ..v1::SessionSettings::default()
    };
    let settings = v1::NamespaceSettings {
        session: Some(one_session),
        ..v1::NamespaceSettings::default()
    };
    let set = NamespaceOperation::Set {
        settings: Settings::parse(Some(settings)).expect("valid"),
        if_revision: None,
    };
    let ann = user("ann");
    let (device, guest) = (CartOwner::Session(token(1)), CartOwner::Session(token(2)));
    let mut machine = Machine::default();
    machine.run(1, set);
    machine.run(1, create(1, Some("ann")));
    machine.run(1, add(&ann, "tea", ""));
    machine.run(1, merge(&ann, &device, MergePolicy::Sum));
    machine.run(1, create(2, None));
    machine.run(1, add(&guest, "mug", ""));
    assert_eq!(skus(&machine, &ann), ["tea"]);
    let revision = machine.revision();
    let reply = machine.run(1, rotate(2, 3, Some("ann")));
    machine.check_invariants();
    let Some(Body::SessionRotated(rotated)) = reply.body else {
        panic!("not rotated: {reply:?}");
    };
    assert_eq!(rotated.created.expect("it tells").ended.len(), 1);
    assert_eq!(rotated.cart.expect("there was one").taken_lines, 1);
    assert_eq!(skus(&machine, &ann), ["mug"]);
    assert_eq!(machine.revision(), revision + 1);
    assert_eq!(session_carts(&machine), 0);
    // The other way round: her cart is the one of the session that logs in.
    machine.run(2, create(4, None));
    machine.run(
        2,
        merge(&ann, &CartOwner::Session(token(4)), MergePolicy::Sum),
    );
    machine.run(2, rotate(4, 5, Some("ann")));
    assert_eq!(skus(&machine, &ann), ["mug"]);
    machine.check_invariants();
}

/// A namespace whose guests' carts are kept this long, where a session of a second has a cart that would be kept beyond it.
fn guest_with_cart(machine: &mut Machine, kept: u64) -> CartOwner {
    let carts = v1::CartSettings {
        guest_ttl_ms: Some(kept.cast_signed()),
        ..v1::CartSettings::default()
    };
    let settings = v1::NamespaceSettings {
        cart: Some(carts),
        ..v1::NamespaceSettings::default()
    };
    let set = NamespaceOperation::Set {
        settings: Settings::parse(Some(settings)).expect("valid"),
        if_revision: None,
    };
    let guest = CartOwner::Session(token(1));
    machine.run(1, set);
    machine.run(1, create(1, None));
    machine.run(600, add(&guest, "tea", ""));
    guest
}

fn end_session_at(machine: &mut Machine, now: u64, end: u64) {
    let ttl = Some(Ttl::from_millis(end - now));
    let update = SessionOperation::Update {
        token: token(1),
        set: Fields::default(),
        remove: Vec::new(),
        idle_ttl: ttl,
        absolute_ttl: ttl,
        if_revision: None,
    };
    machine.run(now, update);
    machine.check_invariants();
}

fn session_carts(machine: &Machine) -> usize {
    machine.count(|key| matches!(key, Key::SessionCart(..)))
}

#[test]
fn a_cart_does_not_live_longer_because_its_session_does() {
    let mut machine = Machine::default();
    let guest = guest_with_cart(&mut machine, 500);
    assert!(
        machine.deadlines_of_carts().is_empty(),
        "its session ends first"
    );
    end_session_at(&mut machine, 700, 9000);
    assert_eq!(machine.deadlines_of_carts(), [1100]);
    machine.run(1099, tick());
    assert_eq!(skus(&machine, &guest), ["tea"]);
    let revision = machine.revision();
    machine.run(1100, tick());
    assert_eq!((cart(&machine, &guest), session_carts(&machine)), (None, 0));
    assert_eq!(machine.revision(), revision + 1, "watchers are told");
    machine.check_invariants();

    // The session is there, and its next cart is a new one.
    machine.run(1200, add(&guest, "mug", ""));
    assert_eq!(skus(&machine, &guest), ["mug"]);
    machine.check_invariants();
}

#[test]
fn a_cart_whose_session_ends_sooner_after_all_goes_with_it() {
    let mut machine = Machine::default();
    let guest = guest_with_cart(&mut machine, 500);
    end_session_at(&mut machine, 700, 9000);
    end_session_at(&mut machine, 710, 1000);
    assert!(machine.deadlines_of_carts().is_empty());
    machine.run(1000, tick());
    assert_eq!((cart(&machine, &guest), session_carts(&machine)), (None, 0));
    machine.check_invariants();
}

/// An earlier version gave no deadline to a cart whose session was to end first.
#[test]
fn a_stored_cart_without_a_deadline_gets_one_when_its_session_is_prolonged() {
    let mut machine = Machine::default();
    let guest = guest_with_cart(&mut machine, 500);
    let mut batch = Batch::new(&machine.store, machine.horizon);
    let key = Key::SessionCart(ns(), token(1));
    let id = batch.load(&key).expect("no fault");
    let old = batch.change_unseen::<pb::CartRecord>(id);
    old.expect("it was begun").deadline = 0;
    let (changes, horizon) = batch.finish();
    machine.store.commit(changes);
    machine.horizon = horizon;

    machine.run(650, tick());
    assert_eq!(skus(&machine, &guest), ["tea"]);
    machine.check_invariants();
    end_session_at(&mut machine, 700, 9000);
    let found = cart(&machine, &guest).expect("it is there");
    assert_eq!((found.deadline, found.mod_revision), (1200, 3));
    machine.run(1200, tick());
    assert_eq!((cart(&machine, &guest), session_carts(&machine)), (None, 0));
}

/// A cart that is due and not yet swept is no cart: its successor begins anew.
#[test]
fn an_add_to_an_unswept_cart_begins_anew() {
    let mut machine = Machine::default();
    for nth in 0..=limits::SWEEP_PER_ENTRY {
        machine.run(
            1,
            super::put(
                &format!("k{nth:03}"),
                "v",
                Some(limits::CART_TTL_USER_DEFAULT_MS),
            ),
        );
    }
    let ann = user("ann");
    machine.run(1, add(&ann, "tea", ""));
    let reply = machine.run(1 + limits::CART_TTL_USER_DEFAULT_MS, add(&ann, "mug", ""));
    let found = cart(&machine, &ann).expect("it was just begun");
    assert_eq!(found.create_revision, reply.revision);
    assert_eq!(found.lines.len(), 1);
    assert_eq!(found.lines[0].line_id, 1);
    machine.check_invariants();
    machine.run(2 + limits::CART_TTL_USER_DEFAULT_MS, tick());
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
        assert_eq!(hex::encode(&bytes), fixture);
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
    let old = Record::Cart(old.into());
    let bytes = record::encode(&old);
    assert_eq!(hex::encode(&bytes), OLD_CART);
    let opened = record::decode(&cart_key, bytes).expect("old bytes");
    assert_eq!(opened.record, old);
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
