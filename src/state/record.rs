//! Records to bytes and back. The key says which message a value is.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost::encoding;

use super::keys::Key;
use super::store::{Record, Stored};
use super::window::ClientWindow;
use super::{Fault, digest};
use crate::proto::internal as pb;
use crate::proto::wire::{put_bytes, put_uint};

/// Field numbers of [`pb::KvRecord`].
mod kv_tag {
    pub(super) const VALUE: u32 = 1;
    pub(super) const CREATE_REVISION: u32 = 2;
    pub(super) const MOD_REVISION: u32 = 3;
    pub(super) const DEADLINE: u32 = 4;
    pub(super) const COUNTER: u32 = 5;
    pub(super) const LEASE: u32 = 6;
    pub(super) const INDEXED_DEADLINE: u32 = 7;
}

/// The record under a key, from its stored value. A value that does not decode is damage.
pub fn decode(key: &Key, value: Bytes) -> Result<Stored, Fault> {
    let bytes = value.len();
    let hash = if key.in_digest() {
        digest::hash(&key.encode(), &value)
    } else {
        0
    };
    let record = match key {
        Key::Session(..) => Record::Session(message("a session", value)?),
        Key::User(..) => Record::User(message("a user", value)?),
        Key::Settings(_) => Record::Settings(message("a namespace's settings", value)?),
        Key::SessionCart(..) | Key::UserCart(..) => Record::Cart(message("a cart", value)?),
        Key::Order(..) => Record::Order(message("an order", value)?),
        Key::Kv(..) => Record::Kv(message("a key's value", value)?),
        Key::Lease(..) => Record::Lease(message("a lease", value)?),
        Key::Client(..) => Record::Client(window(value)?),
        Key::Request(..) => Record::Request(message("a request's reply", value)?),
        Key::RequestGroup(..) => Record::RequestGroup(message("a group of requests", value)?),
        Key::Deadline(..) | Key::UserSession(..) if value.is_empty() => Record::Index,
        Key::Deadline(..) => return Err(Fault::corrupt("a deadline", "its value is not empty")),
        Key::UserSession(..) => {
            return Err(Fault::corrupt(
                "the index of a user's sessions",
                "a value is not empty",
            ));
        }
        Key::EventMarks => Record::EventMarks(message("the marks of the events", value)?),
        Key::Header | Key::RaftApplied | Key::RaftMembership | Key::Events(_) => {
            return Err(Fault::corrupt("a record", "its key is not a record's"));
        }
    };
    Ok(Stored {
        record,
        hash,
        bytes,
    })
}

/// The value to store.
#[must_use]
pub fn encode(record: &Record) -> Bytes {
    let mut out = Vec::with_capacity(encoded_len(record));
    encode_to(record, &mut out);
    out.into()
}

/// Bytes of the value to store.
#[must_use]
pub fn encoded_len(record: &Record) -> usize {
    match record {
        Record::Session(session) => session.encoded_len(),
        Record::User(user) => user.encoded_len(),
        Record::Settings(settings) => settings.encoded_len(),
        Record::Cart(cart) => cart.encoded_len(),
        Record::Order(order) => order.encoded_len(),
        Record::Kv(kv) => kv.encoded_len(),
        Record::Lease(lease) => lease.encoded_len(),
        Record::Client(window) => window.encoded_len(),
        Record::Request(request) => request.encoded_len(),
        Record::RequestGroup(group) => group.encoded_len(),
        Record::Index => 0,
        Record::EventMarks(marks) => marks.encoded_len(),
    }
}

/// Appends the value to store.
pub fn encode_to(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Session(session) => session.encode_raw(out),
        Record::User(user) => user.encode_raw(out),
        Record::Settings(settings) => settings.encode_raw(out),
        Record::Cart(cart) => cart.encode_raw(out),
        Record::Order(order) => order.encode_raw(out),
        Record::Kv(kv) => encode_kv(kv, out),
        Record::Lease(lease) => lease.encode_raw(out),
        Record::Client(window) => window.encode_to(out),
        Record::Request(request) => request.encode_raw(out),
        Record::RequestGroup(group) => group.encode_raw(out),
        Record::Index => {}
        Record::EventMarks(marks) => marks.encode_raw(out),
    }
}

/// As its message would be, see [`crate::proto::wire`].
fn encode_kv(kv: &pb::KvRecord, out: &mut Vec<u8>) {
    if !kv.value.is_empty() {
        put_bytes(kv_tag::VALUE, &kv.value, out);
    }
    put_uint(kv_tag::CREATE_REVISION, kv.create_revision, out);
    put_uint(kv_tag::MOD_REVISION, kv.mod_revision, out);
    put_uint(kv_tag::DEADLINE, kv.deadline, out);
    if let Some(counter) = &kv.counter {
        encoding::sint64::encode(kv_tag::COUNTER, counter, out);
    }
    put_uint(kv_tag::LEASE, kv.lease, out);
    put_uint(kv_tag::INDEXED_DEADLINE, kv.indexed_deadline, out);
}

/// The header from its stored value, checked as far as [`super::Batch`] relies on it.
pub fn decode_header(value: Bytes) -> Result<pb::StateHeader, Fault> {
    let header = pb::StateHeader::decode(value)
        .map_err(|e| Fault::corrupt("the state header", e.to_string()))?;
    digest::from_bytes(&header.digest)?;
    if let Some(checkpoint) = &header.checkpoint {
        digest::from_bytes(&checkpoint.digest)?;
    }
    Ok(header)
}

fn message<M: Message + Default>(what: &'static str, value: Bytes) -> Result<Arc<M>, Fault> {
    M::decode(value)
        .map(Arc::new)
        .map_err(|e| Fault::corrupt(what, e.to_string()))
}

fn window(value: Bytes) -> Result<Arc<ClientWindow>, Fault> {
    ClientWindow::decode(value)
        .map(Arc::new)
        .map_err(|e| Fault::corrupt("a client's replies", e.to_string()))
}

/// What a [`Record`] holds.
pub(super) trait Content: Clone + Sized {
    /// As a record.
    fn into_record(self) -> Record;
    /// The content, when the record is of this kind. Its key decides that it is.
    fn of(record: &Record) -> Option<&Arc<Self>>;
    /// The same, to change.
    fn of_mut(record: &mut Record) -> Option<&mut Arc<Self>>;
}

macro_rules! content {
    ($($message:ty => $kind:ident),+ $(,)?) => {$(
        impl Content for $message {
            fn into_record(self) -> Record {
                Record::$kind(Arc::new(self))
            }
            fn of(record: &Record) -> Option<&Arc<Self>> {
                match record {
                    Record::$kind(content) => Some(content),
                    _ => None,
                }
            }
            fn of_mut(record: &mut Record) -> Option<&mut Arc<Self>> {
                match record {
                    Record::$kind(content) => Some(content),
                    _ => None,
                }
            }
        }
    )+};
}

content!(
    pb::SessionRecord => Session,
    pb::UserRecord => User,
    pb::NamespaceRecord => Settings,
    pb::CartRecord => Cart,
    pb::OrderRecord => Order,
    pb::KvRecord => Kv,
    pb::LeaseRecord => Lease,
    ClientWindow => Client,
    pb::RequestRecord => Request,
    pb::RequestGroupRecord => RequestGroup,
    pb::EventMarks => EventMarks,
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kv() -> impl Strategy<Value = pb::KvRecord> {
        let value = prop::collection::vec(any::<u8>(), 0..300);
        (value, any::<[Option<u64>; 5]>(), any::<Option<i64>>()).prop_map(
            |(value, numbers, counter)| {
                let mut numbers = numbers.into_iter();
                let mut number = || numbers.next().flatten().unwrap_or_default();
                pb::KvRecord {
                    value: value.into(),
                    create_revision: number(),
                    mod_revision: number(),
                    deadline: number(),
                    counter,
                    lease: number(),
                    indexed_deadline: number(),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_by_hand_is_what_its_message_would_be(kv in kv()) {
            let record = Record::Kv(Arc::new(kv.clone()));
            prop_assert_eq!(encode(&record), kv.encode_to_vec());
            prop_assert_eq!(encoded_len(&record), kv.encoded_len());
        }
    }
}
