//! Sessions beyond what the transcripts tell: costs, bounds, and what an earlier version stored.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::{Machine, command, rejection, tick};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::state::{
    Batch, Fields, Key, MemoryStore, NamespaceOperation, Record, Rejection, SessionOperation,
    Settings, apply, query, record,
};
use crate::types::{ClientAttributes, LogTime, Namespace, SessionHandle, TokenHash, Ttl, UserId};

fn ns() -> Namespace {
    Namespace::default()
}

fn user() -> UserId {
    UserId::parse("ann").expect("short")
}

fn token(nth: u64) -> TokenHash {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&nth.to_be_bytes());
    TokenHash::new(bytes)
}

fn login(nth: u64, idle: u64, absolute: u64) -> SessionOperation {
    SessionOperation::Create {
        token: token(nth),
        sealed_token: Bytes::new(),
        user: Some(user()),
        fields: Fields::default(),
        client: ClientAttributes::default(),
        idle_ttl: Some(Ttl::from_millis(idle)),
        absolute_ttl: Some(Ttl::from_millis(absolute)),
    }
}

fn revoke_all(except: Option<u64>) -> SessionOperation {
    SessionOperation::RevokeAll {
        user: user(),
        except: except.map(token),
    }
}

fn is_there(machine: &Machine, nth: u64) -> bool {
    let found = query::session(&machine.store, &ns(), &token(nth));
    found.expect("no fault").is_some()
}

fn listed(machine: &Machine) -> usize {
    let page = query::user_sessions(&machine.store, &ns(), &user(), limits::LIST_MAX, 0);
    page.expect("no fault").items.len()
}

fn limit_to(sessions: u32, policy: v1::SessionLimitPolicy) -> NamespaceOperation {
    let session = v1::SessionSettings {
        max_per_user: Some(sessions),
        limit_policy: policy.into(),
        ..v1::SessionSettings::default()
    };
    let settings = v1::NamespaceSettings {
        session: Some(session),
        ..v1::NamespaceSettings::default()
    };
    NamespaceOperation::Set {
        settings: Settings::parse(Some(settings)).expect("valid"),
        if_revision: None,
    }
}

#[test]
fn a_touch_within_the_interval_changes_no_byte() {
    let mut machine = Machine::default();
    machine.run(1000, login(1, 100, 10_000));
    machine.run(1009, tick());
    let before = machine.store.snapshot();
    let reply = machine.run(1009, SessionOperation::Touch { token: token(1) });
    let changed = pb::SessionChanged {
        mod_revision: 1,
        idle_deadline: 1110,
    };
    assert_eq!(reply.body, Some(Body::SessionChanged(changed)));
    assert_eq!(machine.store.snapshot(), before);
    // At the end of the interval it is stored.
    machine.run(1010, SessionOperation::Touch { token: token(1) });
    assert_eq!(machine.revision(), 2);
}

proptest! {
    /// Whenever somebody was there, the session lives for its idle TTL at least, and for one interval more at most.
    #[test]
    fn no_session_dies_early_or_lives_much_longer(
        idle in 1u64..2000,
        visits in prop::collection::vec(0u64..600, 1..30),
    ) {
        let mut machine = Machine::default();
        let (mut now, interval) = (1000, idle / 10);
        machine.run(now, login(1, idle, 1_000_000));
        let mut seen = now;
        for pause in visits {
            now += pause;
            let alive = rejection(&machine.run(now, SessionOperation::Touch { token: token(1) })).is_none();
            prop_assert!(alive || now >= seen + idle, "it died at {} of {}", now, seen + idle);
            prop_assert!(!alive || now < seen + idle + interval, "it lives at {}", now);
            if !alive {
                break;
            }
            seen = now;
        }
    }
}

/// The writes of one entry.
fn writes(machine: &mut Machine, stamp: u64, operation: SessionOperation) -> usize {
    let mut batch = Batch::new(&machine.store, machine.horizon);
    apply(&mut batch, LogTime::from_millis(stamp), &command(operation)).expect("no fault");
    let (changes, horizon) = batch.finish();
    let count = changes.writes.len();
    machine.store.commit(changes);
    machine.horizon = horizon;
    count
}

#[test]
fn revoking_many_costs_what_revoking_one_does() {
    let cost = |sessions: u64| {
        let mut machine = Machine::default();
        for nth in 0..sessions {
            machine.run(1000, login(nth, 1_000_000, 1_000_000));
        }
        let cost = writes(&mut machine, 2000, revoke_all(Some(sessions - 1)));
        assert!((0..sessions - 1).all(|nth| !is_there(&machine, nth)));
        assert!(is_there(&machine, sessions - 1));
        assert_eq!(listed(&machine), 1);
        cost
    };
    assert_eq!(cost(3), cost(1000));
}

#[test]
fn revoked_sessions_are_swept_a_bounded_number_per_entry() {
    let mut machine = Machine::default();
    let total = limits::SWEEP_PER_ENTRY as u64 * 3 + 5;
    for nth in 0..total {
        machine.run(1000, login(nth, 1_000_000, 2_000_000));
    }
    // One in the middle stays, so that the sweep has to pass it.
    let kept = total / 2;
    let reply = machine.run(1001, revoke_all(Some(kept)));
    assert_eq!(rejection(&reply), None);
    let left = |machine: &Machine| machine.count(|key| matches!(key, Key::UserSession(..)));
    let revision = machine.revision();
    let mut before = left(&machine);
    for _ in 0..4 {
        machine.run(1002, tick());
        machine.check_invariants();
        assert!(before - left(&machine) <= limits::SWEEP_PER_ENTRY);
        before = left(&machine);
    }
    assert_eq!(before, 1);
    assert_eq!(
        machine.revision(),
        revision,
        "nobody could read them any more"
    );
    // Revoked again, it is the first that the sweep has passed already.
    machine.run(1003, login(total, 1_000_000, 2_000_000));
    machine.run(1004, revoke_all(None));
    machine.run(1005, tick());
    machine.check_invariants();
    assert_eq!(left(&machine), 0);
    assert_eq!(machine.count(|key| matches!(key, Key::User(..))), 0);
    // Every one of them left a tombstone, and nobody gets its token.
    let reply = machine.run(1006, login(kept, 10, 10));
    assert_eq!(rejection(&reply), Some(Rejection::SessionEnded));
    machine.run(2_100_000, tick());
    let mut ticks = 0;
    while machine.count(|key| matches!(key, Key::Session(..))) > 0 {
        machine.run(2_100_000, tick());
        ticks += 1;
        assert!(ticks < 20, "tombstones stay");
    }
    assert_eq!(machine.count(Key::in_digest), 0, "nothing else is left");
}

/// Time 0 is a time like any other: no field that holds it says "none".
#[test]
fn a_revocation_at_the_start_of_time_is_swept() {
    let mut machine = Machine::default();
    machine.run(0, login(0, 1000, 1000));
    machine.run(0, revoke_all(None));
    machine.check_invariants();
    machine.run(0, tick());
    machine.check_invariants();
    assert_eq!(machine.count(|key| matches!(key, Key::User(..))), 0);
}

#[test]
fn a_revoked_session_that_expires_unswept_leaves_a_tombstone_too() {
    let mut machine = Machine::default();
    for nth in 0..=limits::SWEEP_PER_ENTRY as u64 {
        machine.run(1000, login(nth, 100, 5000));
    }
    let last = limits::SWEEP_PER_ENTRY as u64;
    machine.run(1109, revoke_all(None));
    // All of them are due now as well; the entry sweeps as many as it may, in whichever role.
    for _ in 0..4 {
        machine.run(1200, tick());
        machine.check_invariants();
    }
    let reply = machine.run(1201, login(last, 10, 10));
    assert_eq!(rejection(&reply), Some(Rejection::SessionEnded));
    let reply = machine.run(6000, login(last, 10, 10));
    assert_eq!(rejection(&reply), None);
}

#[test]
fn a_limit_that_was_lowered_is_reached_a_bounded_number_at_a_time() {
    let mut machine = Machine::default();
    let total = limits::ENDED_PER_LOGIN as u64 + 20;
    for nth in 0..total {
        machine.run(1000, login(nth, 1_000_000, 2_000_000));
    }
    machine.run(1001, limit_to(2, v1::SessionLimitPolicy::EndOldest));
    machine.run(1002, login(total, 1_000_000, 2_000_000));
    assert_eq!(listed(&machine), 21);
    assert!(!is_there(&machine, limits::ENDED_PER_LOGIN as u64 - 1));
    assert!(is_there(&machine, limits::ENDED_PER_LOGIN as u64));
    machine.run(1003, login(total + 1, 1_000_000, 2_000_000));
    assert_eq!(listed(&machine), 2);
    assert!(is_there(&machine, total) && is_there(&machine, total + 1));
    machine.check_invariants();
}

#[test]
fn a_kept_session_counts_and_is_the_oldest() {
    let mut machine = Machine::default();
    for nth in 0..3 {
        machine.run(1000, login(nth, 1_000_000, 2_000_000));
    }
    machine.run(1001, revoke_all(Some(1)));
    machine.run(1002, limit_to(2, v1::SessionLimitPolicy::EndOldest));
    machine.run(1003, login(3, 1_000_000, 2_000_000));
    assert!(is_there(&machine, 1) && is_there(&machine, 3));
    machine.run(1004, login(4, 1_000_000, 2_000_000));
    assert!(!is_there(&machine, 1) && is_there(&machine, 3) && is_there(&machine, 4));
    machine.run(1005, limit_to(2, v1::SessionLimitPolicy::RejectNewest));
    let reply = machine.run(1006, login(5, 10, 10));
    assert_eq!(
        rejection(&reply),
        Some(Rejection::SessionsLimit { limit: 2 })
    );
    machine.check_invariants();
}

/// A session as the first version stored it: nine fields and a cart's flag.
const FIRST_VERSION: &str = "0a03616e6e120d0a057468656d6512046461726b1801200228e80730ea07\
                             38c0843d4080c2d72f48a88c3d5001";

#[test]
fn stored_records_stay_what_they_are() {
    let session = pb::SessionRecord {
        user_id: "ann".to_owned(),
        fields: pb::PackedFields::pack([("a", &b"b"[..])].into_iter()),
        create_revision: 1,
        mod_revision: 2,
        created_at: 3,
        last_seen: 4,
        idle_ttl: 5,
        absolute_deadline: 6,
        indexed_deadline: 7,
        has_cart: true,
        tombstone_until: 0,
        birth: 8,
        touch_interval: 9,
        client: [("c".to_owned(), "d".to_owned())].into(),
    };
    let tombstone = pb::SessionRecord {
        tombstone_until: 300,
        indexed_deadline: 7,
        ..pb::SessionRecord::default()
    };
    let user = pb::UserRecord {
        epoch: 1,
        kept: 2,
        last_birth: 3,
        sessions: 4,
        revoked: 5,
        swept_below: 6,
        indexed_deadline: 7,
    };
    let ttl = v1::TtlSettings {
        min_ms: Some(1),
        default_ms: Some(2),
        max_ms: Some(3),
    };
    let settings = v1::SessionSettings {
        max_fields: Some(1),
        max_bytes: Some(2),
        max_per_user: Some(3),
        limit_policy: v1::SessionLimitPolicy::EndOldest.into(),
        idle_ttl: Some(ttl),
        absolute_ttl: Some(ttl),
        touch_interval_ms: Some(0),
    };
    let carts = v1::CartSettings {
        empty_ttl_ms: Some(1),
        guest_ttl_ms: Some(2),
        user_ttl_ms: Some(3),
    };
    let namespace = |session, cart| pb::NamespaceRecord {
        settings: Some(v1::NamespaceSettings { session, cart }),
        create_revision: 1,
        mod_revision: 2,
    };
    let user_key = Key::User(ns(), self::user());
    let expected = [
        (
            Key::Session(ns(), token(1)),
            Record::Session(session.into()),
            "0a03616e6e12060a0161120162180120022803300438054006480750016008680972060a0163120164",
        ),
        (
            Key::Session(ns(), token(1)),
            Record::Session(tombstone.into()),
            "480758ac02",
        ),
        (
            user_key,
            Record::User(user.into()),
            "0801100218032004280530063807",
        ),
        (
            Key::Settings(ns()),
            Record::Settings(namespace(Some(settings), None).into()),
            "0a1c0a1a08011002180320022a060801100218033206080110021803380010011802",
        ),
        (
            Key::Settings(ns()),
            Record::Settings(namespace(None, Some(carts)).into()),
            "0a08120608011002180310011802",
        ),
    ];
    for (key, stored, bytes) in expected {
        assert_eq!(hex::encode(record::encode(&stored)), bytes);
        let bytes = hex::decode(bytes).expect("hexadecimal");
        let decoded = record::decode(&key, bytes.into()).expect("own bytes");
        assert_eq!(decoded.record, stored);
    }
    let user_session = Key::UserSession(ns(), self::user(), 1, token(1));
    assert!(record::decode(&user_session, Bytes::new()).is_ok());
    assert!(record::decode(&user_session, Bytes::from_static(b"x")).is_err());
}

/// A machine whose store holds a session of an earlier version, which had no index of users' sessions.
fn of_an_earlier_version() -> Machine {
    let mut machine = Machine::default();
    let old = hex::decode(FIRST_VERSION).expect("hexadecimal");
    let mut old = pb::SessionRecord::decode(&old[..]).expect("old bytes");
    assert_eq!(
        (old.birth, old.touch_interval, old.tombstone_until),
        (0, 0, 0)
    );
    old.has_cart = false;
    old.indexed_deadline = old.last_seen + old.idle_ttl;
    let key = Key::Session(ns(), token(1));
    let indexed = LogTime::from_millis(old.indexed_deadline);
    let header = pb::StateHeader {
        revision: 2,
        log_time: old.last_seen,
        ..pb::StateHeader::default()
    };
    let records = [
        (Key::Header.encode(), header.encode_to_vec()),
        (key.encode(), old.encode_to_vec()),
        (Key::encode_deadline(indexed, &key), Vec::new()),
    ];
    let mut snapshot = Vec::new();
    for (key, value) in records {
        for bytes in [&key[..], &value] {
            let len = u32::try_from(bytes.len()).expect("short");
            snapshot.extend_from_slice(&len.to_be_bytes());
            snapshot.extend_from_slice(bytes);
        }
    }
    machine.store = MemoryStore::restore(&snapshot).expect("sound records");
    machine
}

#[test]
fn a_session_of_an_earlier_version_is_adopted_when_it_is_written() {
    let mut machine = of_an_earlier_version();
    assert!(is_there(&machine, 1));
    assert_eq!(listed(&machine), 0);
    machine.run(1003, SessionOperation::Touch { token: token(1) });
    machine.check_index();
    assert_eq!(listed(&machine), 1);
    machine.run(1004, revoke_all(None));
    assert!(!is_there(&machine, 1));
    machine.run(1005, tick());
    machine.check_index();
    let reply = machine.run(1006, login(1, 10, 10));
    assert_eq!(rejection(&reply), Some(Rejection::SessionEnded));
}

#[test]
fn a_session_of_an_earlier_version_can_be_the_one_that_stays() {
    let mut machine = of_an_earlier_version();
    machine.run(1003, login(2, 1_000_000, 2_000_000));
    let reply = machine.run(1004, revoke_all(Some(1)));
    let revoked = pb::SessionsRevoked { ended: 1 };
    assert_eq!(reply.body, Some(Body::SessionsRevoked(revoked)));
    assert!(is_there(&machine, 1) && !is_there(&machine, 2));
    machine.check_index();
}

#[test]
fn a_handle_of_another_time_ends_nobody() {
    let mut machine = Machine::default();
    machine.run(1000, login(1, 1_000_000, 2_000_000));
    for (birth, at) in [(1, 999), (0, 1000), (2, 1000), (u64::MAX, 1000)] {
        let end = SessionOperation::End {
            user: user(),
            handle: SessionHandle::new(birth, LogTime::from_millis(at)),
        };
        let reply = machine.run(1001, end);
        assert_eq!(rejection(&reply), Some(Rejection::SessionNotFound));
    }
    assert!(is_there(&machine, 1));
}

#[test]
fn settings_out_of_range_are_refused() {
    let session = v1::SessionSettings::default;
    let ttl = |min_ms, default_ms, max_ms| {
        Some(v1::TtlSettings {
            min_ms,
            default_ms,
            max_ms,
        })
    };
    let bad = [
        v1::SessionSettings {
            max_fields: Some(0),
            ..session()
        },
        v1::SessionSettings {
            max_fields: Some(257),
            ..session()
        },
        v1::SessionSettings {
            max_bytes: Some(0),
            ..session()
        },
        v1::SessionSettings {
            max_bytes: Some(u64::MAX),
            ..session()
        },
        v1::SessionSettings {
            max_per_user: Some(257),
            ..session()
        },
        v1::SessionSettings {
            limit_policy: 9,
            ..session()
        },
        v1::SessionSettings {
            touch_interval_ms: Some(-1),
            ..session()
        },
        v1::SessionSettings {
            touch_interval_ms: Some(i64::MAX),
            ..session()
        },
        v1::SessionSettings {
            idle_ttl: ttl(Some(0), None, None),
            ..session()
        },
        v1::SessionSettings {
            idle_ttl: ttl(Some(5), Some(4), None),
            ..session()
        },
        v1::SessionSettings {
            idle_ttl: ttl(None, Some(5), Some(4)),
            ..session()
        },
        v1::SessionSettings {
            absolute_ttl: ttl(Some(5), None, Some(4)),
            ..session()
        },
        v1::SessionSettings {
            absolute_ttl: ttl(None, None, Some(i64::MIN)),
            ..session()
        },
    ];
    let parse = |session| {
        Settings::parse(Some(v1::NamespaceSettings {
            session: Some(session),
            cart: None,
        }))
    };
    for session in bad {
        assert!(parse(session).is_err(), "{session:?}");
    }
    assert!(parse(session()).is_ok());
    let longest = limits::TTL_MAX_MS.cast_signed();
    let parse = |user_ttl_ms| {
        let cart = v1::CartSettings {
            user_ttl_ms: Some(user_ttl_ms),
            ..v1::CartSettings::default()
        };
        Settings::parse(Some(v1::NamespaceSettings {
            session: None,
            cart: Some(cart),
        }))
    };
    for bad in [0, -1, i64::MIN, longest + 1] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!(parse(1).is_ok() && parse(longest).is_ok());
    assert!(Settings::parse(None).is_err());
    // A range that leaves the system's default out moves it.
    let short = v1::SessionSettings {
        idle_ttl: ttl(None, None, Some(1000)),
        ..session()
    };
    let settings = v1::NamespaceSettings {
        session: Some(short),
        cart: None,
    };
    let effective = crate::state::namespace::effective(&settings);
    let idle = effective.session.and_then(|session| session.idle_ttl);
    assert_eq!(idle.and_then(|idle| idle.default_ms), Some(1000));
}
