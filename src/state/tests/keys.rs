//! Keys round-trip, keep order, and no key begins another.

use proptest::prelude::*;

use crate::state::{Key, KeyRange, RequestHash};
use crate::types::{
    self, ClientId, KeyPrefix, LeaseId, LogTime, Namespace, OrderId, Revision, TokenHash, UserId,
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
            .prop_map(|(ns, t)| Key::User(ns, UserId::parse(t).expect("a short id"))),
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
        (time(), namespace(), hash()).prop_map(|(time, ns, h)| Key::RequestGroup(
            time,
            ns,
            RequestHash::new([h; 16])
        )),
    ]
}

fn time() -> impl Strategy<Value = LogTime> {
    prop::sample::select(vec![0, 1, 255, 256, u64::MAX]).prop_map(LogTime::from_millis)
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        1 => prop::sample::select(vec![
            Key::Header,
            Key::RaftApplied,
            Key::RaftMembership,
            Key::EventMarks,
        ]),
        1 => prop::sample::select(vec![0, 1, 255, 256, u64::MAX])
            .prop_map(|revision| Key::Events(Revision::new(revision))),
        1 => namespace().prop_map(Key::Settings),
        3 => (namespace(), text(), prop::sample::select(vec![0, 1, 255, 256, u64::MAX]), 0u8..3)
            .prop_map(|(ns, t, birth, h)| {
                let user = UserId::parse(t).expect("a short id");
                Key::UserSession(ns, user, birth, TokenHash::new([h; 32]))
            }),
        6 => record_key(),
        3 => (time(), record_key())
            .prop_map(|(time, target)| Key::Deadline(time, target.encode())),
    ]
}

/// The order that the encoding must have, from the typed parts and not from the bytes.
fn rank(key: &Key) -> (u8, u64, String, Vec<u8>, u64, Vec<u8>) {
    let plain =
        |tag, ns: &Namespace, rest: Vec<u8>| (tag, 0, ns.as_str().to_owned(), rest, 0, Vec::new());
    let unnamed = |tag, time, rest| (tag, time, String::new(), rest, 0, Vec::new());
    match key {
        Key::Header => unnamed(0, 0, vec![]),
        Key::RaftApplied => unnamed(1, 0, vec![]),
        Key::RaftMembership => unnamed(2, 0, vec![]),
        Key::Settings(ns) => plain(3, ns, vec![]),
        Key::Session(ns, hash) => plain(4, ns, hash.as_bytes().to_vec()),
        Key::SessionCart(ns, hash) => plain(5, ns, hash.as_bytes().to_vec()),
        Key::UserCart(ns, user) => plain(6, ns, user.as_str().into()),
        Key::User(ns, user) => plain(7, ns, user.as_str().into()),
        Key::UserSession(ns, user, birth, hash) => {
            let (ns, user) = (ns.as_str().to_owned(), user.as_str().into());
            (8, 0, ns, user, *birth, hash.as_bytes().to_vec())
        }
        Key::Order(ns, order) => plain(9, ns, order.as_str().into()),
        Key::Kv(ns, key) => plain(10, ns, key.as_str().into()),
        Key::Lease(ns, id) => plain(11, ns, id.get().to_be_bytes().into()),
        Key::Client(id) => unnamed(12, 0, id.as_bytes().to_vec()),
        Key::Request(ns, hash) => plain(13, ns, hash.as_bytes().to_vec()),
        Key::RequestGroup(time, ns, hash) => {
            let (ns, hash) = (ns.as_str().to_owned(), hash.as_bytes().to_vec());
            (14, time.as_millis(), ns, hash, 0, Vec::new())
        }
        Key::Deadline(time, target) => unnamed(15, time.as_millis(), target.to_vec()),
        Key::Events(revision) => unnamed(16, revision.get(), vec![]),
        Key::EventMarks => unnamed(17, 0, vec![]),
    }
}

proptest! {
    #[test]
    fn round_trip(key in any_key()) {
        let bytes = key.encode();
        prop_assert_eq!(Key::decode(&bytes).expect("own bytes"), key.clone());
        if let Key::UserSession(ns, user, birth, token) = &key {
            prop_assert_eq!(&Key::encode_user_session(ns, user, *birth, token), &bytes);
        }
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

    #[test]
    fn a_range_of_births_holds_exactly_the_sessions_of_its_user(
        ns in namespace(),
        user in text(),
        births in (0u64..300, 0u64..300),
        key in any_key(),
    ) {
        let user = UserId::parse(user).expect("a short id");
        let births = births.0..births.1;
        let range = KeyRange::user_sessions(&ns, &user, births.clone());
        let bytes = key.encode();
        let inside = range.start.as_slice() <= &bytes[..] && &bytes[..] < range.end.as_slice();
        let expected = matches!(&key, Key::UserSession(other, whose, birth, _)
            if *other == ns && *whose == user && births.contains(birth));
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
        (Key::Settings(ns()), "036e00".to_owned()),
        (
            Key::User(ns(), UserId::parse("u").expect("short")),
            "136e00750000".to_owned(),
        ),
        (
            Key::UserSession(ns(), UserId::parse("u").expect("short"), 258, hash),
            format!("146e007500000000000000000102{}", ab(32)),
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
            Key::RequestGroup(
                LogTime::from_millis(258),
                ns(),
                RequestHash::new([0xab; 16]),
            ),
            format!("3200000000000001026e00{}", ab(16)),
        ),
        (
            Key::Deadline(LogTime::from_millis(258), kv.encode()),
            "400000000000000102206e006b00ff0000".to_owned(),
        ),
        (kv, "206e006b00ff0000".to_owned()),
        (
            Key::Events(Revision::new(258)),
            "500000000000000102".to_owned(),
        ),
        (Key::EventMarks, "51".to_owned()),
    ];
    for (key, bytes) in expected {
        assert_eq!(hex::encode(key.encode()), bytes, "{key:?}");
    }
}
