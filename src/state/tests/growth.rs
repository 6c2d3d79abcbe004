//! What a full store goes on taking must not fill it.

use proptest::prelude::*;

use super::steps::{Script, steps};
use super::*;
use crate::state::{
    CartAction, CartOperation, CartOwner, Fields, LineRef, SessionOperation, Step, Txn,
};
use crate::types::{Attributes, Note, Quantity, Sku, StateVersion, TextMap};

/// A tombstone, a pointer to a merged cart, an order's id, a user's epoch, settings: what something leaves behind that
/// deletes or moves, beside a few bytes of numbers.
const REMAINS_BYTES: usize = 512;

/// Bytes of what callers can read, and of what remembers that it was there. Replies and events have limits of their own.
fn bytes(store: &MemoryStore) -> usize {
    let counted = store.iter().filter(|(key, _)| {
        let key = Key::decode(key).expect("a stored key");
        !matches!(
            key,
            Key::Client(_)
                | Key::Request(..)
                | Key::RequestGroup(..)
                | Key::Deadline(..)
                | Key::Header
                | Key::Events(_)
                | Key::EventMarks
        )
    });
    counted.map(|(key, value)| key.len() + value.len()).sum()
}

proptest! {
    #[test]
    fn what_is_said_not_to_grow_the_store_does_not(steps in steps(1..120)) {
        let mut script = Script::default();
        let mut machine = Machine::default();
        for step in steps {
            let (stamp, command) = script.next(step);
            let before = bytes(&machine.store);
            machine.apply(stamp, &command);
            let after = bytes(&machine.store);
            if !command.operation.grows() {
                prop_assert!(
                    after <= before + REMAINS_BYTES,
                    "{before} bytes became {after} by {:?}",
                    command.operation
                );
            }
        }
    }
}

fn user() -> CartOwner {
    CartOwner::User(UserId::parse("ada").expect("short"))
}

fn sku() -> Sku {
    Sku::parse("sku").expect("short")
}

fn update(action: CartAction) -> Operation {
    let (owner, if_revision) = (user(), None);
    let actions = vec![CartAction::Clear, action];
    Operation::Cart(CartOperation::Update {
        owner,
        actions,
        if_revision,
    })
}

fn delete(name: &str) -> Operation {
    Operation::Key(KeyOperation::Delete {
        key: types::Key::parse(name).expect("short"),
        if_revision: None,
    })
}

fn txn(then: Vec<Operation>, otherwise: Vec<Operation>) -> Operation {
    let steps = |operations: Vec<Operation>| {
        let steps = operations.into_iter().map(Step::write);
        steps.collect::<Result<Vec<_>, _>>().expect("they may")
    };
    let txn = Txn::new(Vec::new(), steps(then), steps(otherwise));
    Operation::Txn(Box::new(txn.expect("few")))
}

#[test]
fn parts_and_branches_count() {
    let note = |text: &str| CartAction::SetNote(Note::parse(text).expect("short"));
    let map = |map: &[(&str, &str)]| {
        let map = map.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        TextMap::parse("attributes", map.collect()).expect("small")
    };
    let session_update = |set: Fields| {
        Operation::Session(SessionOperation::Update {
            token: TokenHash::new([7; 32]),
            set,
            remove: vec!["theme".to_owned()],
            idle_ttl: None,
            absolute_ttl: None,
            if_revision: None,
        })
    };
    let fields = |list: &[(&str, &str)]| {
        let list = list
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())));
        Fields::parse(&list.collect()).expect("few")
    };
    let add = CartAction::Add {
        sku: sku(),
        quantity: Quantity::parse(1).expect("one"),
        unit_price: None,
        attributes: Attributes::default(),
    };
    let remove = CartAction::Remove {
        line: LineRef::Sku(sku()),
    };
    let table = [
        (update(add), true),
        (update(remove), false),
        (update(note("ring twice")), true),
        (update(note("")), false),
        (
            update(CartAction::SetShippingAddress(map(&[("city", "Ulm")]))),
            true,
        ),
        (update(CartAction::SetShippingAddress(map(&[]))), false),
        (session_update(fields(&[("theme", "dark")])), true),
        (session_update(fields(&[])), false),
        (txn(vec![delete("a")], vec![]), false),
        (txn(vec![delete("a"), put("b", "v", None)], vec![]), true),
        (txn(vec![], vec![put("b", "v", None)]), true),
        (
            Operation::Tick {
                checkpoint: true,
                expect: None,
            },
            false,
        ),
        (Operation::RaiseVersion(StateVersion::NEWEST), false),
    ];
    for (operation, grows) in table {
        assert_eq!(operation.grows(), grows, "{operation:?}");
    }
}
