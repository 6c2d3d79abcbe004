//! Records and fields: what stands in a session for a record, and what a record changes of it.
//!
//! A name that begins with `$` belongs to the store: `$expiry` is the record's expiry, and an entry whose own name begins so,
//! or is empty, stands under `$$` and its name. So every name that a program chooses has a field of its own.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result};

use crate::proto::v1;

/// A record's entries.
pub(super) type Data = HashMap<String, Value>;

/// Begins the names that are the store's own.
const OWN: char = '$';
/// Nanoseconds since 1970, as a decimal number: more than JSON's numbers can be trusted with.
const EXPIRY: &str = "$expiry";

/// What happens to one field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Set(String, Bytes),
    Remove(String),
}

fn field_of(name: &str) -> String {
    if name.is_empty() || name.starts_with(OWN) {
        format!("{OWN}{OWN}{name}")
    } else {
        name.to_owned()
    }
}

/// `None` for a field that is no entry.
fn entry_of(field: &str) -> Option<&str> {
    match field.strip_prefix(OWN) {
        None => Some(field),
        Some(own) => own.strip_prefix(OWN),
    }
}

/// Every field of a new session.
pub(super) fn encode_all(record: &Record) -> Result<Vec<(String, Bytes)>> {
    let entries = record.data.iter();
    let fields = entries.map(|(name, value)| Ok((field_of(name), encode(value)?)));
    fields
        .chain([Ok((EXPIRY.to_owned(), expiry(record)))])
        .collect()
}

fn encode(value: &Value) -> Result<Bytes> {
    let json = serde_json::to_vec(value).map_err(|error| Error::Encode(error.to_string()))?;
    Ok(json.into())
}

fn expiry(record: &Record) -> Bytes {
    let nanos = record.expiry_date.unix_timestamp_nanos();
    nanos.to_string().into()
}

/// What a record changes of the entries that it began with. Its expiry is set each time: nearly always it is another.
pub(super) fn changes(base: &Data, record: &Record) -> Result<Vec<Change>> {
    let mut changes = vec![Change::Set(EXPIRY.to_owned(), expiry(record))];
    for (name, value) in &record.data {
        if base.get(name) != Some(value) {
            changes.push(Change::Set(field_of(name), encode(value)?));
        }
    }
    let gone = base.keys().filter(|name| !record.data.contains_key(*name));
    changes.extend(gone.map(|name| Change::Remove(field_of(name))));
    Ok(changes)
}

/// The record that a session holds. Fields that are not JSON are not the store's, and no part of it.
pub(super) fn decode(id: Id, session: &v1::Session) -> Record {
    let entries = session.fields.iter().filter_map(|(field, value)| {
        let name = entry_of(field)?;
        let value = serde_json::from_slice(value).ok()?;
        Some((name.to_owned(), value))
    });
    Record {
        id,
        data: entries.collect(),
        expiry_date: expiry_of(session),
    }
}

/// As it was saved; a session that another program made has its deadline.
fn expiry_of(session: &v1::Session) -> OffsetDateTime {
    let saved = session.fields.get(EXPIRY).and_then(|nanos| {
        let nanos = std::str::from_utf8(nanos).ok()?.parse().ok()?;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
    });
    saved.unwrap_or_else(|| {
        let nanos = i128::from(session.idle_deadline_ms).saturating_mul(1_000_000);
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    })
}
