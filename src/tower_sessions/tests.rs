//! What needs no cluster. The store itself is tried on real nodes, by the cluster tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use super::*;

fn record(entries: &[(&str, serde_json::Value)]) -> Record {
    let entries = entries.iter().cloned();
    Record {
        id: Id(7),
        data: entries
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        expiry_date: OffsetDateTime::from_unix_timestamp_nanos(1_800_000_000_123_456_789)
            .expect("it is in range"),
    }
}

fn session(fields: impl IntoIterator<Item = (String, Bytes)>) -> v1::Session {
    v1::Session {
        fields: fields.into_iter().collect(),
        idle_deadline_ms: 5_000,
        ..v1::Session::default()
    }
}

/// Programs in other languages derive the same.
#[test]
fn a_token_is_the_same_everywhere_and_tells_no_id() {
    let token = TrolleyStore::token(&Id(1));
    assert_eq!(token, "U_X1DUyL4qTYJuaafP7I6IIIu68mAB5eFUXrUUGh208");
    assert_ne!(token, TrolleyStore::token(&Id(-1)));
    let parsed = crate::types::SessionToken::parse(&token).expect("nodes take it");
    assert_eq!(parsed.expose_bytes().len(), 32);
}

#[test]
fn a_record_comes_back_as_it_was() {
    let record = record(&[
        ("theme", json!("dark")),
        ("cart", json!({"items": [1, 2.5, null]})),
        ("", json!("no name")),
        ("$expiry", json!("not that one")),
        ("$", json!(1)),
        ("$$", json!(2)),
    ]);
    let fields = entries::encode_all(&record).expect("it is JSON");
    assert_eq!(fields.len(), record.data.len() + 1, "each has a field");
    let session = session(fields);
    assert_eq!(session.fields["theme"], "\"dark\"");
    assert_eq!(entries::decode(record.id, &session), record);
}

#[test]
fn what_other_programs_wrote_is_no_obstacle() {
    let fields = [
        ("ok", "1"),
        ("not json", "dark"),
        ("$expiry", "soon"),
        ("$x", "1"),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), Bytes::from(value)));
    let decoded = entries::decode(Id(7), &session(fields));
    assert_eq!(decoded.data, record(&[("ok", json!(1))]).data);
    assert_eq!(decoded.expiry_date.unix_timestamp(), 5, "the deadline");
}

#[test]
fn only_what_differs_is_sent() {
    let base = record(&[("a", json!(1)), ("b", json!([1])), ("$c", json!(3))]);
    let mut changed = base.clone();
    changed.data.insert("b".to_owned(), json!([1, 2]));
    changed.data.insert("d".to_owned(), json!(null));
    changed.data.remove("$c");
    let mut set = BTreeMap::new();
    let mut removed = Vec::new();
    for change in entries::changes(&base.data, &changed).expect("it is JSON") {
        match change {
            Change::Set(name, value) => drop(set.insert(name, value)),
            Change::Remove(name) => removed.push(name),
        }
    }
    assert_eq!(removed, ["$$$c"]);
    let expiry = set.remove("$expiry").expect("the expiry is always sent");
    assert_eq!(expiry, "1800000000123456789");
    let expected = [("b", "[1,2]"), ("d", "null")];
    let expected = expected.map(|(name, value)| (name.to_owned(), Bytes::from(value)));
    assert_eq!(set, BTreeMap::from(expected));
}

#[test]
fn a_lifetime_ends_at_the_expiry_and_is_bounded() {
    let now = i128::from(Clock::System.now().as_millis()) * 1_000_000;
    let at = |nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("it is in range");
    let hour = lifetime(at(now + 3_600_000_000_000)).expect("it lives");
    assert!(hour <= Duration::from_secs(3600) && hour > Duration::from_secs(3500));
    assert_eq!(lifetime(at(now)), None);
    assert_eq!(lifetime(OffsetDateTime::UNIX_EPOCH), None);
    let longest = Duration::from_millis(limits::TTL_MAX_MS);
    assert_eq!(lifetime(at(253_402_300_799_000_000_000)), Some(longest));
}

fn numbered(nth: i64) -> Record {
    record(&[("nth", json!(nth))])
}

/// Whatever tasks and places in memory they are in.
#[tokio::test]
async fn a_save_finds_what_its_record_began_with() {
    let bases = Bases::new();
    let mut record = numbered(1);
    assert!(bases.of(&record).is_none(), "nobody has loaded it");
    bases.note(&record);
    change(&mut record, 2);
    assert_eq!(*bases.of(&record).expect("loaded"), numbered(1).data);
    bases.note(&record);
    change(&mut record, 3);
    assert_eq!(*bases.of(&record).expect("saved"), numbered(2).data);

    // A later request loads it in a task of its own, and its record comes to the same place.
    let others = bases.clone();
    let mut elsewhere = JoinSet::new();
    elsewhere.spawn(async move {
        let loaded = numbered(4);
        others.note(&loaded);
        loaded
    });
    record = elsewhere.join_all().await.remove(0);
    change(&mut record, 2);
    assert_eq!(*bases.of(&record).expect("loaded"), numbered(4).data);
    // One that was put together here was loaded nowhere, whatever else was.
    assert!(bases.of(&numbered(4)).is_none());
    record.id = Id(8);
    assert!(bases.of(&record).is_none(), "another session");
}

fn change(record: &mut Record, nth: i64) {
    record.data.insert("nth".to_owned(), json!(nth));
}

#[test]
fn the_memory_of_bases_is_bounded() {
    let bases = Bases::new();
    let large = json!("x".repeat(limits::TOWER_SESSIONS_BASE_BYTES / 64));
    let records: Vec<Record> = (0..256)
        .map(|nth| Record {
            id: Id(nth),
            ..record(&[("large", large.clone())])
        })
        .collect();
    for record in &records {
        bases.note(record);
    }
    let known = records.iter().filter(|record| bases.of(record).is_some());
    assert!((1..=64).contains(&known.count()));
}
