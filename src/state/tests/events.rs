//! Events: applied to an empty map they rebuild the store, however entries are cut, and the history stays bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::Machine;
use super::steps::{Script, steps};
use crate::limits;
use crate::state::events::{self, Change, Event, Gone, Page};
use crate::state::session::is_revoked;
use crate::state::{Command, Key, MemoryStore, Record, Store};
use crate::types::{Namespace, Revision, TokenHash, UserId};

/// What a consumer of all events holds.
#[derive(Default, Debug, PartialEq)]
struct Mirror(BTreeMap<Vec<u8>, Record>);

impl Mirror {
    fn apply(&mut self, event: Event) {
        let key = event.key.encode().to_vec();
        match event.change {
            Change::Created(record) => {
                // What was there had expired, and was replaced before it was swept.
                self.0.insert(key, record);
            }
            Change::Updated(record) => {
                let before = self.0.insert(key, record);
                assert!(before.is_some(), "it was updated before it was created");
            }
            Change::SessionsRevoked { except } => {
                let Key::User(namespace, user) = event.key else {
                    panic!("only a user's sessions are revoked at once");
                };
                self.revoke(&namespace, &user, except);
            }
            Change::Gone { user, .. } => {
                let before = self.0.remove(&key).expect("it ended before it was created");
                if let Record::Session(session) = before {
                    assert_eq!(
                        user.map_or(String::new(), |u| u.to_string()),
                        session.user_id
                    );
                }
            }
        }
    }

    /// All of a user's sessions are gone, and their carts, but for one.
    fn revoke(&mut self, namespace: &Namespace, user: &UserId, except: Option<TokenHash>) {
        let is_theirs =
            |record: &Record| matches!(record, Record::Session(it) if it.user_id == user.as_str());
        let theirs = self.0.iter().filter(|(_, record)| is_theirs(record));
        let revoked = theirs.filter_map(|(key, _)| match Key::decode(key) {
            Ok(Key::Session(within, token)) if within == *namespace => Some(token),
            _ => None,
        });
        for token in revoked.collect::<Vec<_>>() {
            if Some(token) != except {
                let cart = Key::SessionCart(namespace.clone(), token);
                self.0.remove(&cart.encode()[..]);
                let session = Key::Session(namespace.clone(), token);
                self.0.remove(&session.encode()[..]);
            }
        }
    }

    /// What the store holds, as far as events tell of it.
    fn of(store: &MemoryStore) -> Self {
        let records = store.iter().filter_map(|(bytes, _)| {
            let key = Key::decode(bytes).expect("a stored key");
            (key.has_events() && is_told(store, &key))
                .then(|| (bytes.to_vec(), record(store, &key)))
        });
        Self(records.collect())
    }

    /// Without what no caller can read: the store's own notes.
    fn readable(mut self) -> Self {
        for record in self.0.values_mut() {
            match record {
                Record::Session(session) => {
                    let session = Arc::make_mut(session);
                    session.indexed_deadline = 0;
                    session.has_cart = false;
                }
                Record::Cart(cart) => Arc::make_mut(cart).indexed_deadline = 0,
                Record::Kv(kv) => Arc::make_mut(kv).indexed_deadline = 0,
                _ => {}
            }
        }
        self
    }
}

fn record(store: &MemoryStore, key: &Key) -> Record {
    let stored = store.get(key).expect("no fault");
    stored.expect("it is there").record
}

/// Neither a tombstone, nor of a session that its user's epoch has ended and no sweep has met yet.
fn is_told(store: &MemoryStore, key: &Key) -> bool {
    let (Key::Session(namespace, token) | Key::SessionCart(namespace, token)) = key else {
        return true;
    };
    let session = store
        .get(&Key::Session(namespace.clone(), *token))
        .expect("no fault");
    let Some(Record::Session(session)) = session.map(|stored| stored.record) else {
        panic!("a cart without its session");
    };
    if session.user_id.is_empty() {
        return session.tombstone_until == 0;
    }
    let user = UserId::parse(session.user_id.clone()).expect("a stored id");
    let user = store
        .get(&Key::User(namespace.clone(), user))
        .expect("no fault");
    !user.is_some_and(
        |stored| matches!(stored.record, Record::User(user) if is_revoked(&user, session.birth)),
    )
}

/// Every event from a revision on, read in pages.
fn read_all(store: &MemoryStore, from: Revision, budget: usize) -> Vec<Event> {
    let (mut all, mut next) = (Vec::new(), from);
    loop {
        match store.events(next, budget).expect("no fault") {
            Page::Events { events, through } => {
                assert!(through >= next);
                all.extend(events);
                next = through.next();
            }
            Page::CaughtUp { at, .. } => {
                assert_eq!(at.next(), next);
                return all;
            }
            Page::Forgotten { oldest } => panic!("{next} is forgotten up to {oldest}"),
        }
    }
}

/// Ascending, without a gap in the positions of a revision.
fn check_order(events: &[Event]) {
    for pair in events.windows(2) {
        let follows = if pair[0].revision == pair[1].revision {
            pair[0].position + 1 == pair[1].position && pair[0].key != pair[1].key
        } else {
            pair[0].revision < pair[1].revision && pair[1].position == 0
        };
        assert!(follows, "{pair:?}");
    }
}

/// How many entries come before log time jumps by more than the history keeps: whoever has not read them by then is late.
fn before_a_lull(entries: &[(u64, Command)]) -> usize {
    let lull = entries
        .windows(2)
        .position(|pair| pair[0].0 + limits::EVENT_HISTORY_MS <= pair[1].0);
    lull.map_or(entries.len(), |at| at + 1)
}

proptest! {
    #[test]
    fn events_rebuild_the_store(
        steps in steps(1..200),
        lengths in prop::collection::vec(1usize..30, 1..4),
        budget in prop::sample::select(vec![1usize, 100, usize::MAX]),
    ) {
        let mut script = Script::default();
        let entries: Vec<_> = steps.into_iter().map(|step| script.next(step)).collect();
        let mut machine = Machine::default();
        let mut mirror = Mirror::default();
        let mut next = Revision::new(1);
        let mut rest = &entries[..];
        for length in lengths.iter().cycle() {
            let (batch, after) = rest.split_at((*length).min(before_a_lull(rest)));
            machine.apply_batch(batch);
            let events = read_all(&machine.store, next, budget);
            check_order(&events);
            for event in events {
                mirror.apply(event);
            }
            next = Revision::new(machine.revision()).next();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(mirror.readable(), Mirror::of(&machine.store).readable());
    }

    #[test]
    fn each_revision_is_told_of_once_and_at_its_own(steps in steps(1..100)) {
        let mut script = Script::default();
        let mut machine = Machine::default();
        for step in steps {
            let (stamp, command) = script.next(step);
            let before = Mirror::of(&machine.store).readable();
            let revision = machine.revision();
            machine.apply(stamp, &command);
            let after = Mirror::of(&machine.store).readable();
            let told = read_all(&machine.store, Revision::new(revision).next(), usize::MAX);
            // Whatever differs is told of, and nothing else is.
            let differs = |key: &&Vec<u8>| before.0.get(*key) != after.0.get(*key);
            let changed: BTreeSet<_> = before.0.keys().chain(after.0.keys()).filter(differs).cloned().collect();
            let mut named: BTreeSet<_> = told.iter().map(|event| event.key.encode().to_vec()).collect();
            let mut silent = changed.difference(&named);
            let is_revocation = |event: &Event| matches!(event.change, Change::SessionsRevoked { .. });
            if told.iter().any(is_revocation) {
                prop_assert!(silent.all(|key| !after.0.contains_key(key)));
                named.retain(|key| !matches!(Key::decode(key), Ok(Key::User(..))));
            } else {
                prop_assert_eq!(silent.next(), None);
            }
            for same in named.difference(&changed) {
                prop_assert!(was_seen_now(after.0.get(same), &machine), "{:?}", Key::decode(same));
            }
        }
    }
}

/// A second touch within a millisecond leaves a session as it is, and makes a revision.
fn was_seen_now(record: Option<&Record>, machine: &Machine) -> bool {
    let now = machine.store.header().log_time;
    matches!(record, Some(Record::Session(session)) if session.last_seen == now)
}

fn put(nth: u64, bytes: usize) -> Command {
    super::command(super::put(
        &format!("k{}", nth % 10),
        &"v".repeat(bytes),
        None,
    ))
}

fn oldest(machine: &Machine) -> u64 {
    events::oldest(&machine.store.header()).get()
}

/// The kept bytes, counted anew.
fn kept(machine: &Machine) -> (u64, u64) {
    let events = machine.store.iter();
    let events = events.filter(|(key, _)| matches!(Key::decode(key), Ok(Key::Events(_))));
    let values = events.map(|(key, value)| (key.len() + value.len()) as u64);
    values.fold((0, 0), |(count, bytes), more| (count + 1, bytes + more))
}

#[test]
fn the_history_is_bounded_in_bytes() {
    let mut machine = Machine::default();
    let size = limits::VALUE_BYTES;
    let part = limits::EVENT_HISTORY_BYTES / limits::EVENT_HISTORY_PARTS;
    let entries: Vec<_> = (0..400).map(|nth| (1000, put(nth, size))).collect();
    for batch in entries.chunks(7) {
        machine.apply_batch(batch);
        let (count, bytes) = kept(&machine);
        assert_eq!(count, machine.revision() + 1 - oldest(&machine));
        // One revision may cross a part's end.
        let most = limits::EVENT_HISTORY_BYTES + part + 2 * size as u64;
        assert!(bytes <= most, "{bytes}");
    }
    assert!(oldest(&machine) > 100, "{}", oldest(&machine));
    let (_, bytes) = kept(&machine);
    assert!(bytes > limits::EVENT_HISTORY_BYTES - 2 * part, "{bytes}");
    machine.check_invariants();
}

#[test]
fn the_history_is_bounded_in_age() {
    let mut machine = Machine::default();
    let part = limits::EVENT_HISTORY_MS / limits::EVENT_HISTORY_PARTS;
    for nth in 0..200 {
        machine.apply(nth * part / 2, &put(nth, 1));
    }
    let first = read_all(&machine.store, Revision::new(oldest(&machine)), usize::MAX);
    let age = 199 * part / 2 - first[0].log_time.as_millis();
    assert!(age <= limits::EVENT_HISTORY_MS + part, "{age}");
    assert!(age >= limits::EVENT_HISTORY_MS - 2 * part, "{age}");
    // A lull longer than the history leaves its last part, and that goes with the next mark: even in one batch.
    let later = 200 * part + 2 * limits::EVENT_HISTORY_MS;
    let entries = [200 * part, later, later, later + part, later + 2 * part];
    let entries = entries.map(|stamp| (stamp, put(stamp, 1)));
    let last_before = machine.revision() + 1;
    machine.apply_batch(&entries[..3]);
    assert_eq!(oldest(&machine), last_before);
    machine.apply_batch(&entries[3..]);
    assert_eq!(oldest(&machine), last_before);
    let end = later + limits::EVENT_HISTORY_MS;
    machine.apply_batch(&[(end, put(1, 1)), (end + part, put(2, 1))]);
    assert_eq!(oldest(&machine), last_before + 3);
    assert_eq!(kept(&machine).0, machine.revision() + 1 - oldest(&machine));
    machine.check_invariants();
}

#[test]
fn the_history_is_bounded_in_events_and_in_marks() {
    let mut machine = Machine::default();
    let rounds = limits::EVENT_HISTORY * 3 / 2;
    let entries: Vec<_> = (0..1000).map(|nth| (1000, put(nth, 1))).collect();
    for _ in 0..rounds / 1000 {
        machine.apply_batch(&entries);
    }
    let part = limits::EVENT_HISTORY / limits::EVENT_HISTORY_PARTS;
    let count = machine.revision() + 1 - oldest(&machine);
    assert!(count <= limits::EVENT_HISTORY + part, "{count}");
    assert!(count >= limits::EVENT_HISTORY - part, "{count}");
    let marks = machine.store.get(&Key::EventMarks).expect("no fault");
    let Some(Record::EventMarks(marks)) = marks.map(|stored| stored.record) else {
        panic!("there are marks");
    };
    assert!(marks.marks.len() <= 34, "{}", marks.marks.len());
}

#[test]
fn a_store_of_before_there_were_events_begins_its_history_now() {
    let mut machine = Machine::default();
    machine.apply_batch(&[(1000, put(0, 1)), (1000, put(1, 1))]);
    // As an older version left it.
    let bytes = machine.store.snapshot();
    let mut old = Machine {
        store: MemoryStore::restore(&bytes).expect("own snapshot"),
        ..Machine::default()
    };
    old.store.forget_events();
    assert_eq!(oldest(&old), 3);
    let page = old
        .store
        .events(Revision::new(1), usize::MAX)
        .expect("no fault");
    assert_eq!(
        page,
        Page::Forgotten {
            oldest: Revision::new(3)
        }
    );
    old.apply(1001, &put(2, 1));
    assert_eq!(oldest(&old), 3);
    assert_eq!(read_all(&old.store, Revision::new(3), 1).len(), 1);
    old.check_invariants();
}

#[test]
fn what_is_missing_is_damage() {
    let mut machine = Machine::default();
    machine.apply_batch(&[(1000, put(0, 1)), (1000, put(1, 1)), (1000, put(2, 1))]);
    machine.store.remove(&Key::Events(Revision::new(2)));
    let found = machine.store.events(Revision::new(2), usize::MAX);
    assert!(found.is_err(), "{found:?}");
}

#[test]
fn ends_have_reasons_that_survive_storage() {
    for why in [Gone::Deleted, Gone::Expired, Gone::Revoked] {
        assert_eq!(Gone::from_stored(why.to_stored()), Some(why));
    }
    assert_eq!(Gone::from_stored(0), None);
}

#[test]
fn bytes_on_disk_stay_what_they_are() {
    let mut machine = Machine::default();
    machine.apply(1000, &super::command(super::put("k", "v", None)));
    let value = machine.store.iter().find_map(|(key, value)| {
        (Key::decode(key).ok()? == Key::Events(Revision::new(1))).then(|| hex::encode(value))
    });
    let expected = "0801121e08e80712190a0c2064656661756c74006b000012070a0176100118013001";
    assert_eq!(value.as_deref(), Some(expected));
}
