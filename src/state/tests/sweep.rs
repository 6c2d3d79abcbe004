//! Expiry: invisible at once, swept a little at a time, and never early.

use super::{Machine, command, name, put, rejection, tick, token};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::{
    Batch, CartOperation, CartOwner, Fault, Fields, Key, MemoryStore, Operation, Rejection,
    SessionOperation, Store, SweepHorizon, apply, query,
};
use crate::types::{
    Attributes, ClientAttributes, KeyPrefix, LogTime, Namespace, Quantity, Sku, Ttl,
};

fn is_kv(key: &Key) -> bool {
    matches!(key, Key::Kv(..))
}

fn create(idle: u64, absolute: u64) -> SessionOperation {
    SessionOperation::Create {
        token: token(1),
        sealed_token: bytes::Bytes::new(),
        user: None,
        fields: Fields::default(),
        client: ClientAttributes::default(),
        idle_ttl: Some(Ttl::from_millis(idle)),
        absolute_ttl: Some(Ttl::from_millis(absolute)),
    }
}

fn add_to_session_cart() -> Operation {
    Operation::Cart(CartOperation::Add {
        owner: CartOwner::Session(token(1)),
        sku: Sku::parse("sku").expect("a short sku"),
        quantity: Quantity::parse(1).expect("in range"),
        unit_price: None,
        attributes: Attributes::default(),
        if_revision: None,
    })
}

#[test]
fn one_entry_sweeps_a_bounded_number() {
    const ONE: usize = limits::SWEEP_PER_ENTRY;
    let mut machine = Machine::default();
    let total = ONE * 3 + 5;
    for nth in 0..total {
        machine.run(1, put(&format!("k{nth:04}"), "v", Some(10)));
    }
    let mut revision = machine.revision();
    for left in [total, total - ONE, total - 2 * ONE, total - 3 * ONE, 0, 0] {
        assert_eq!(machine.count(is_kv), left);
        assert_eq!(machine.revision(), revision);
        let at = if left == total { 11 } else { 12 };
        machine.run(at, tick());
        revision += u64::from(left > 0);
        let page = query::list(
            &machine.store,
            &Namespace::default(),
            &KeyPrefix::default(),
            9,
            None,
        );
        assert_eq!(
            page.expect("no fault"),
            query::KeyPage::default(),
            "due keys are invisible"
        );
        machine.check_invariants();
    }
    assert_eq!(machine.horizon.next_deadline(), None);
}

/// However many commands it has: a thousand sweeps in one entry would hold up the node until its leader is given up.
#[test]
fn one_entry_of_many_commands_sweeps_no_more() {
    let mut machine = Machine::default();
    let total = limits::SWEEP_PER_ENTRY * 3;
    for nth in 0..total {
        machine.run(1, put(&format!("k{nth:04}"), "v", Some(10)));
    }
    machine.run(11, tick());
    let commands = vec![command(tick()); 100];
    let applied = machine.apply_entry(12, &commands);
    assert_eq!(applied.len(), commands.len());
    // The tick that found them due swept the first.
    assert_eq!(machine.count(is_kv), total - 2 * limits::SWEEP_PER_ENTRY);
    machine.check_invariants();
}

/// However many are due and whatever the load is, the sweep comes to an end.
#[test]
fn a_late_sweep_takes_larger_steps() {
    let mut machine = Machine::default();
    let total = limits::SWEEP_PER_ENTRY_LATE + 2 * limits::SWEEP_PER_ENTRY;
    for nth in 0..total {
        machine.run(1, put(&format!("k{nth:04}"), "v", Some(10)));
    }
    machine.run(10 + limits::SWEEP_LATE_MS, tick());
    assert_eq!(machine.count(is_kv), total - limits::SWEEP_PER_ENTRY);
    machine.run(11 + limits::SWEEP_LATE_MS, tick());
    assert_eq!(machine.count(is_kv), limits::SWEEP_PER_ENTRY);
    machine.check_invariants();
}

#[test]
fn nothing_dies_early_and_log_time_never_goes_back() {
    let mut machine = Machine::default();
    machine.run(1000, put("k", "v", Some(10)));
    let key = |machine: &Machine| {
        query::key(&machine.store, &Namespace::default(), &name("k")).expect("no fault")
    };
    machine.run(1009, tick());
    machine.run(5, tick());
    assert_eq!(machine.store.header().log_time, 1009);
    assert!(key(&machine).is_some());
    machine.run(1010, tick());
    assert!(key(&machine).is_none());
    assert_eq!(machine.count(is_kv), 0);
}

#[test]
fn a_touched_session_keeps_its_index_entry_until_the_sweep_meets_it() {
    let mut machine = Machine::default();
    machine.run(0, create(100, 1000));
    machine.run(60, SessionOperation::Touch { token: token(1) });
    let key = Key::Session(Namespace::default(), token(1));
    // A tenth of the idle TTL is the touch interval, from whose end it counts.
    assert_eq!(machine.deadline(&key), Some((110, 170)));
    let revision = machine.revision();
    machine.run(110, tick());
    assert_eq!(machine.deadline(&key), Some((170, 170)));
    assert_eq!(
        machine.revision(),
        revision,
        "moving an index entry is no change"
    );
    assert_eq!(
        machine.horizon.next_deadline(),
        Some(LogTime::from_millis(170))
    );
    machine.run(170, tick());
    assert_eq!(machine.deadline(&key), None);
    assert_eq!(machine.revision(), revision + 1);
    machine.check_invariants();
}

#[test]
fn the_absolute_deadline_wins_over_any_number_of_touches() {
    let mut machine = Machine::default();
    machine.run(0, create(100, 250));
    for at in [90, 180, 249] {
        machine.run(at, SessionOperation::Touch { token: token(1) });
    }
    let reply = machine.run(250, SessionOperation::Touch { token: token(1) });
    assert_eq!(rejection(&reply), Some(Rejection::SessionNotFound));
}

#[test]
fn a_session_and_its_cart_end_together_and_are_not_inherited() {
    let ends: [fn(&mut Machine); 3] = [
        // Its tombstone is gone after the absolute TTL, and was not swept either.
        |machine| {
            machine.run(5, SessionOperation::Destroy { token: token(1) });
            for nth in 0..limits::SWEEP_PER_ENTRY {
                machine.run(5, put(&format!("k{nth}"), "v", Some(1)));
            }
        },
        |machine| drop(machine.run(100, tick())),
        // So much is due before the session that one entry does not reach it: its successor finds it unswept.
        |machine| {
            for nth in 0..limits::SWEEP_PER_ENTRY {
                machine.run(1, put(&format!("k{nth}"), "v", Some(1)));
            }
        },
    ];
    for end in ends {
        let mut machine = Machine::default();
        machine.run(0, create(50, 100));
        machine.run(1, add_to_session_cart());
        end(&mut machine);
        let reply = machine.run(100, create(50, 1000));
        assert!(
            matches!(reply.body, Some(Body::SessionCreated(_))),
            "{reply:?}"
        );
        let owner = CartOwner::Session(token(1));
        let cart = query::cart(&machine.store, &Namespace::default(), &owner);
        assert_eq!(cart.expect("no fault"), query::CartRead::Absent);
        assert_eq!(machine.count(|key| matches!(key, Key::SessionCart(..))), 0);
        machine.check_invariants();
    }
}

#[test]
fn a_put_over_an_unswept_key_begins_anew() {
    let mut machine = Machine::default();
    for nth in 0..=limits::SWEEP_PER_ENTRY {
        machine.run(1, put(&format!("k{nth:03}"), "v", Some(1)));
    }
    let last = format!("k{:03}", limits::SWEEP_PER_ENTRY);
    let reply = machine.run(2, put(&last, "v", None));
    let revision = reply.revision;
    let expected = pb::KeyPut {
        create_revision: revision,
        mod_revision: revision,
        deadline: 0,
    };
    assert_eq!(reply.body, Some(Body::KeyPut(expected)));
    machine.run(3, tick());
    assert_eq!(machine.count(is_kv), 1);
    machine.check_invariants();
}

#[test]
fn an_index_entry_without_its_record_is_a_fault() {
    let mut machine = Machine::default();
    machine.run(1, put("k", "v", Some(10)));
    // The same snapshot without the record under the key: 4 bytes of length before key and value each.
    let mut damaged = Vec::new();
    for (key, value) in machine.store.iter() {
        if !is_kv(&Key::decode(key).expect("a stored key")) {
            for bytes in [key, value] {
                damaged
                    .extend_from_slice(&u32::try_from(bytes.len()).expect("short").to_be_bytes());
                damaged.extend_from_slice(bytes);
            }
        }
    }
    let store = MemoryStore::restore(&damaged).expect("each record by itself is sound");
    let mut batch = Batch::new(&store, SweepHorizon::default());
    let applied = apply(&mut batch, LogTime::from_millis(11), &command(tick()));
    assert!(matches!(applied, Err(Fault::Corrupt { .. })));
}

#[test]
fn a_replica_that_differs_from_the_leader_stops() {
    let mut machine = Machine::default();
    machine.run(1, put("k", "v", None));
    let tick = |checkpoint, expect| command(Operation::Tick { checkpoint, expect });
    machine.apply(2, &tick(true, None));
    let own = machine
        .store
        .header()
        .checkpoint
        .expect("a checkpoint was made");
    assert_eq!(own.number, 1);
    // Later changes do not matter: what is compared is the digest at the checkpoint.
    machine.run(3, put("k", "w", None));
    machine.apply(4, &tick(true, Some(own.clone())));
    let second = machine
        .store
        .header()
        .checkpoint
        .expect("a checkpoint was made");
    assert_eq!(second.number, 2);
    assert_ne!(second.digest, own.digest);
    let other = |number| pb::DigestCheckpoint {
        number,
        digest: own.digest.clone(),
    };
    machine.apply(5, &tick(false, Some(other(1))));
    machine.apply(5, &tick(false, Some(other(3))));
    let mut batch = Batch::new(&machine.store, machine.horizon);
    let fault = apply(
        &mut batch,
        LogTime::from_millis(6),
        &tick(true, Some(other(2))),
    );
    assert!(
        matches!(fault, Err(Fault::Diverged { number: 2, .. })),
        "{fault:?}"
    );
}

#[test]
fn a_listing_pages_through_expired_keys() {
    let mut machine = Machine::default();
    for nth in 0..30 {
        let ttl = (nth % 3 == 0).then_some(5);
        machine.run(1, put(&format!("k{nth:02}"), "v", ttl));
    }
    machine.run(2, put("other", "v", None));
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let prefix = KeyPrefix::parse("k").expect("short");
        let page = query::list(
            &machine.store,
            &Namespace::default(),
            &prefix,
            7,
            after.as_ref(),
        );
        let page = page.expect("no fault");
        assert!(page.items.len() <= 7);
        listed.extend(page.items.into_iter().map(|(key, _)| key.into_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..30).map(|nth| format!("k{nth:02}")).collect();
    assert_eq!(listed, expected);
}

#[test]
fn a_page_ends_with_the_item_that_crosses_its_bytes() {
    let mut machine = Machine::default();
    let value = "v".repeat(limits::VALUE_BYTES);
    for key in ["a", "b", "c", "d"] {
        machine.run(1, put(key, &value, None));
    }
    let page = query::list(
        &machine.store,
        &Namespace::default(),
        &KeyPrefix::default(),
        10,
        None,
    );
    let page = page.expect("no fault");
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.next, Some(name("b")));
}
