//! Limits of transactions and leases, and the bytes that they are stored as.

use prost::Message as _;

use super::{Machine, command, name, put, rejection, tick};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::command::Operation as Wire;
use crate::proto::internal::reply::Body;
use crate::proto::internal::txn_aborted::Refusal;
use crate::state::{
    CartOperation, CartOwner, Command, Compare, Fault, Key, KeyOperation, LeaseOperation, Operand,
    Operation, PutCondition, Rejection, Relation, Step, Subject, Txn, query,
};
use crate::types::{HolderId, Invalid, LeaseId, Namespace, Ttl, UserId, Value};

fn txn(steps: impl IntoIterator<Item = Step>) -> Operation {
    let txn = Txn::new(Vec::new(), steps.into_iter().collect(), Vec::new());
    Operation::Txn(Box::new(txn.expect("few")))
}

fn write(operation: Operation) -> Step {
    Step::write(operation).expect("it may stand there")
}

fn grant(machine: &mut Machine, stamp: u64, ttl: u64) -> LeaseId {
    let ttl = Ttl::from_millis(ttl);
    let reply = machine.run(stamp, Operation::Lease(LeaseOperation::Grant { ttl }));
    match reply.body {
        Some(Body::LeaseGranted(granted)) => LeaseId::parse(granted.lease).expect("not 0"),
        other => panic!("not granted: {other:?}"),
    }
}

fn frozen(user: &str) -> Operation {
    Operation::Cart(CartOperation::Freeze {
        owner: CartOwner::User(UserId::parse(user).expect("short")),
        holder: HolderId::parse("till").expect("short"),
        lease: Ttl::from_millis(10),
        if_revision: None,
    })
}

fn leased(key: &str, lease: LeaseId) -> Operation {
    Operation::Key(KeyOperation::Put {
        key: name(key),
        value: Value::default(),
        ttl: None,
        lease: Some(lease),
        condition: PutCondition::Always,
    })
}

fn live_keys(machine: &Machine) -> usize {
    let prefix = crate::types::KeyPrefix::default();
    let page = query::list(&machine.store, &Namespace::default(), &prefix, 1000, None);
    page.expect("no fault").items.len()
}

#[test]
fn what_a_transaction_answers_is_bounded() {
    let mut machine = Machine::default();
    let half = "x".repeat(limits::TXN_RESULT_BYTES / 2);
    machine.run(1, put("large", &half, None));
    let look = || Step::Get(Subject::Key(name("large")));
    let reply = machine.run(2, txn([write(put("other", "v", None)), look()]));
    assert!(matches!(reply.body, Some(Body::TxnDone(_))));
    let before = machine.store.snapshot();
    let reply = machine.run(2, txn([write(put("other", "w", None)), look(), look()]));
    let Some(Body::TxnAborted(aborted)) = reply.body else {
        panic!("not aborted: {reply:?}");
    };
    let Some(Refusal::Rejected(rejected)) = &aborted.refusal else {
        panic!("not refused: {aborted:?}");
    };
    let rejected = Rejection::from_stored(rejected);
    assert_eq!(
        (aborted.index, rejected),
        (2, Some(Rejection::TxnResultLimit))
    );
    assert_eq!(machine.store.snapshot(), before);
}

/// Else two freezes would have one name, and the order of the one would pass for the order of the other.
#[test]
fn one_cart_is_frozen_in_a_transaction() {
    let freezes = |users: &[&str]| users.iter().map(|user| write(frozen(user))).collect();
    let one = Txn::new(Vec::new(), freezes(&["ann"]), freezes(&["bob"]));
    assert!(one.is_ok(), "one of the branches is executed");
    for (then, otherwise) in [(&["ann", "bob"][..], &[][..]), (&[], &["ann", "ann"])] {
        let refused = Txn::new(Vec::new(), freezes(then), freezes(otherwise));
        let expected = Invalid::TooMany {
            field: "freeze_cart",
            limit: 1,
            actual: 2,
        };
        assert_eq!(refused, Err(expected));
    }
}

#[test]
fn a_lease_has_room_for_so_many_keys() {
    let mut machine = Machine::default();
    let lease = grant(&mut machine, 1, 1000);
    for nth in 0..limits::LEASE_KEYS {
        machine.run(2, leased(&format!("k{nth}"), lease));
    }
    let full = machine.run(3, leased("more", lease));
    assert_eq!(rejection(&full), Some(Rejection::LeaseKeysLimit));
    let again = machine.run(3, leased("k0", lease));
    assert_eq!(rejection(&again), None, "it has this one already");
    machine.run(4, put("k1", "v", None));
    let room = machine.run(5, leased("more", lease));
    assert_eq!(rejection(&room), None);
    machine.check_invariants();
}

/// More keys than one entry sweeps: they are gone at once, and deleted as much as an entry may.
#[test]
fn a_lease_that_runs_out_is_swept_in_pieces() {
    let mut machine = Machine::default();
    let lease = grant(&mut machine, 1, 100);
    for nth in 0..limits::LEASE_KEYS {
        machine.run(2, leased(&format!("k{nth}"), lease));
    }
    machine.run(50, Operation::Lease(LeaseOperation::KeepAlive { lease }));
    machine.run(149, tick());
    machine.run(149, tick());
    machine.check_invariants();
    assert_eq!(live_keys(&machine), limits::LEASE_KEYS);
    let mut stored = limits::LEASE_KEYS + 1;
    while stored > 0 {
        machine.run(150, tick());
        machine.check_invariants();
        assert_eq!(live_keys(&machine), 0);
        stored = stored.saturating_sub(limits::SWEEP_PER_ENTRY);
        let left = machine.count(|key| matches!(key, Key::Kv(..) | Key::Lease(..)));
        assert_eq!(left, stored);
    }
    let late = machine.run(151, Operation::Lease(LeaseOperation::KeepAlive { lease }));
    assert_eq!(rejection(&late), Some(Rejection::LeaseNotFound));
}

/// The sweep deletes the lease before a key that it met too early to delete: the key does not come back.
#[test]
fn a_key_of_a_lease_that_is_gone_can_be_put_anew() {
    let mut machine = Machine::default();
    let lease = grant(&mut machine, 1, 100);
    for nth in 0..limits::LEASE_KEYS {
        machine.run(2, leased(&format!("k{nth}"), lease));
    }
    // The first pieces of the sweep pass over this entry.
    let last = format!("k{}", limits::LEASE_KEYS - 1);
    let reply = machine.run(101, leased(&last, lease));
    assert_eq!(rejection(&reply), Some(Rejection::LeaseNotFound));
    let reply = machine.run(101, put("k99", "mine", None));
    assert!(
        matches!(reply.body, Some(Body::KeyPut(put)) if put.create_revision == put.mod_revision)
    );
    for _ in 0..4 {
        machine.run(101, tick());
        machine.check_invariants();
    }
    assert_eq!(live_keys(&machine), 1);
}

#[test]
fn a_log_entry_holds_no_transaction_in_another() {
    let step = |operation| pb::TxnStep {
        step: Some(pb::txn_step::Step::Write(pb::Command {
            operation: Some(operation),
            ..pb::Command::default()
        })),
    };
    let within = |operation| {
        let txn = pb::TxnCommand {
            then: vec![step(operation)],
            ..pb::TxnCommand::default()
        };
        let message = pb::Command {
            namespace: "n".to_owned(),
            operation: Some(pb::command::Operation::Txn(txn)),
            ..pb::Command::default()
        };
        Command::decode(message.encode_to_vec().into())
    };
    assert!(
        within(Wire::KeyDelete(pb::KeyDeleteCommand {
            key: "k".to_owned(),
            if_revision: None,
        }))
        .is_ok()
    );
    for bad in [
        Wire::Txn(pb::TxnCommand::default()),
        Wire::Tick(pb::Tick::default()),
        Wire::LeaseGrant(pb::LeaseGrant { ttl: 1 }),
        Wire::KeyDelete(pb::KeyDeleteCommand::default()),
    ] {
        assert!(matches!(within(bad), Err(Fault::Corrupt { .. })));
    }
}

#[test]
fn bytes_in_the_log_and_on_disk_stay_what_they_are() {
    let compare = Compare::new(
        Subject::Key(name("k")),
        Relation::Greater,
        Operand::Counter(-1),
    );
    let steps = vec![
        write(Operation::Key(KeyOperation::Delete {
            key: name("k"),
            if_revision: None,
        })),
        Step::Get(Subject::Key(name("k"))),
    ];
    let txn = Txn::new(vec![compare.expect("they fit")], steps, Vec::new()).expect("few");
    let encoded = command(Operation::Txn(Box::new(txn))).encode();
    assert_eq!(
        hex::encode(&encoded),
        "0a0764656661756c74e203170a070a016b2004480112070a0572030a016b120322016b"
    );

    let mut machine = Machine::default();
    let lease = grant(&mut machine, 1, 1000);
    machine.run(2, leased("k", lease));
    machine.run(3, put("plain", "v", None));
    let stored = |key: Key| {
        let found = machine
            .store
            .iter()
            .find(|(bytes, _)| **bytes == key.encode());
        hex::encode(found.expect("it is stored").1)
    };
    let ns = Namespace::default;
    assert_eq!(
        stored(Key::Lease(ns(), lease)),
        "08e80710e90718e90720012a016b"
    );
    assert_eq!(stored(Key::Kv(ns(), name("k"))), "10021802300138e907");
    assert_eq!(stored(Key::Kv(ns(), name("plain"))), "0a017610031803");
    let counter = pb::KvRecord {
        counter: Some(0),
        create_revision: 1,
        ..pb::KvRecord::default()
    };
    assert_eq!(hex::encode(counter.encode_to_vec()), "10012800");
}
