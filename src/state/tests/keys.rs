//! Keys round-trip, keep order, and no key begins another.

use proptest::prelude::*;

use crate::state::{Key, KeyRange, RequestHash};
use crate::types::{
    self, ClientId, KeyPrefix, LeaseId, LogTime, Namespace, OrderId, TokenHash, UserId,
};

fn namespace() -> impl Strategy<Value = Namespace> {
    "[a-c._-]{1,3}".prop_map(|text| Namespace::parse(text).expect("a valid name"))
}

/// Few characters, zero and the greatest among them, so that texts are often each other's beginnings.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!['\0', '\u{1}', 'a', 'é', '\u{10FFFF}']),
        1..5,
    )
    .prop_map(String::from_iter)
}

fn record_key() -> impl Strategy<Value = Key> {
    let hash = || prop::sample::select(vec![0u8, 1, 255]);
    prop_oneof![
        (namespace(), hash()).prop_map(|(ns, h)| Key::Session(ns, TokenHash::new([h; 32]))),
        (namespace(), hash()).prop_map(|(ns, h)| Key::SessionCart(ns, TokenHash::new([h; 32]))),
        (namespace(), text())
            .prop_map(|(ns, t)| Key::UserCart(ns, UserId::parse(t).expect("a short id"))),
        (namespace(), text())
            .prop_map(|(ns, t)| Key::Order(ns, OrderId::parse(t).expect("a short id"))),
        (namespace(), text())
            .prop_map(|(ns, t)| Key::Kv(ns, types::Key::parse(t).expect("a short key"))),
        (
            namespace(),
            prop::sample::select(vec![1, 255, 256, u64::MAX])
        )
            .prop_map(|(ns, id)| { Key::Lease(ns, LeaseId::parse(id).expect("not 0")) }),
        hash().prop_map(|h| Key::Client(ClientId::new([h; 16]))),
        (namespace(), hash()).prop_map(|(ns, h)| Key::Request(ns, RequestHash::new([h; 16]))),
    ]
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        1 => prop::sample::select(vec![Key::Header, Key::RaftApplied, Key::RaftMembership]),
        6 => record_key(),
        3 => (prop::sample::select(vec![0, 1, 255, 256, u64::MAX]), record_key())
            .prop_map(|(time, target)| Key::Deadline(LogTime::from_millis(time), target.encode())),
    ]
}

/// The order that the encoding must have, from the typed parts and not from the bytes.
fn rank(key: &Key) -> (u8, u64, String, Vec<u8>) {
    match key {
        Key::Header => (0, 0, String::new(), vec![]),
        Key::RaftApplied => (1, 0, String::new(), vec![]),
        Key::RaftMembership => (2, 0, String::new(), vec![]),
        Key::Session(ns, hash) => (3, 0, ns.as_str().to_owned(), hash.as_bytes().to_vec()),
        Key::SessionCart(ns, hash) => (4, 0, ns.as_str().to_owned(), hash.as_bytes().to_vec()),
        Key::UserCart(ns, user) => (5, 0, ns.as_str().to_owned(), user.as_str().into()),
        Key::Order(ns, order) => (6, 0, ns.as_str().to_owned(), order.as_str().into()),
        Key::Kv(ns, key) => (7, 0, ns.as_str().to_owned(), key.as_str().into()),
        Key::Lease(ns, id) => (8, 0, ns.as_str().to_owned(), id.get().to_be_bytes().into()),
        Key::Client(id) => (9, 0, String::new(), id.as_bytes().to_vec()),
        Key::Request(ns, hash) => (10, 0, ns.as_str().to_owned(), hash.as_bytes().to_vec()),
        Key::Deadline(time, target) => (11, time.as_millis(), String::new(), target.to_vec()),
    }
}

proptest! {
    #[test]
    fn round_trip(key in any_key()) {
        let bytes = key.encode();
        prop_assert_eq!(Key::decode(&bytes).expect("own bytes"), key.clone());
        if let Key::Deadline(time, target) = key {
            let target = Key::decode(&target).expect("own bytes");
            prop_assert_eq!(Key::encode_deadline(time, &target), bytes);
        }
    }

    #[test]
    fn order_and_prefix_freeness(a in any_key(), b in any_key()) {
        let (x, y) = (a.encode(), b.encode());
        prop_assert_eq!(x.cmp(&y), rank(&a).cmp(&rank(&b)));
        prop_assert!(a == b || !x.starts_with(&y));
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(key) = Key::decode(&bytes) {
            prop_assert_eq!(key.encode(), bytes);
        }
    }

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_with_the_prefix(
        ns in namespace(),
        prefix in prop_oneof![Just(String::new()), text()],
        after in prop::option::of(text()),
        key in any_key(),
    ) {
        let after = after.map(|text| types::Key::parse(text).expect("a short key"));
        let range = KeyRange::kv(&ns, &KeyPrefix::parse(prefix.clone()).expect("short"), after.as_ref());
        let bytes = key.encode();
        let inside = range.start.as_slice() <= &bytes[..] && &bytes[..] < range.end.as_slice();
        let expected = matches!(&key, Key::Kv(other, name)
            if *other == ns && name.as_str().starts_with(&prefix) && after.as_ref().is_none_or(|a| name > a));
        prop_assert_eq!(inside, expected);
    }
}

#[test]
fn bytes_on_disk_stay_what_they_are() {
    let ns = || Namespace::parse("n").expect("a valid name");
    let hash = TokenHash::new([0xab; 32]);
    let ab = |times: usize| "ab".repeat(times);
    let kv = Key::Kv(ns(), types::Key::parse("k\0").expect("a short key"));
    let expected = [
        (Key::Header, "00".to_owned()),
        (Key::RaftApplied, "01".to_owned()),
        (Key::RaftMembership, "02".to_owned()),
        (Key::Session(ns(), hash), format!("106e00{}", ab(32))),
        (Key::SessionCart(ns(), hash), format!("116e00{}", ab(32))),
        (
            Key::UserCart(ns(), UserId::parse("u").expect("short")),
            "126e00750000".to_owned(),
        ),
        (
            Key::Order(ns(), OrderId::parse("o").expect("short")),
            "186e006f0000".to_owned(),
        ),
        (
            Key::Lease(ns(), LeaseId::parse(258).expect("not 0")),
            "216e000000000000000102".to_owned(),
        ),
        (
            Key::Client(ClientId::new([0xab; 16])),
            format!("30{}", ab(16)),
        ),
        (
            Key::Request(ns(), RequestHash::new([0xab; 16])),
            format!("316e00{}", ab(16)),
        ),
        (
            Key::Deadline(LogTime::from_millis(258), kv.encode()),
            "400000000000000102206e006b00ff0000".to_owned(),
        ),
        (kv, "206e006b00ff0000".to_owned()),
    ];
    for (key, bytes) in expected {
        assert_eq!(super::hex(&key.encode()), bytes, "{key:?}");
    }
}
