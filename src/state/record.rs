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
use crate::proto::wire::{framed, put_bytes, put_uint};

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
    Ok(Stored { record, hash })
}

/// The value to store.
#[must_use]
pub fn encode(record: &Record) -> Bytes {
    match record {
        Record::Session(session) => session.encode_to_vec(),
        Record::User(user) => user.encode_to_vec(),
        Record::Settings(settings) => settings.encode_to_vec(),
        Record::Cart(cart) => cart.encode_to_vec(),
        Record::Order(order) => order.encode_to_vec(),
        Record::Kv(kv) => encode_kv(kv),
        Record::Lease(lease) => lease.encode_to_vec(),
        Record::Client(window) => window.encode(),
        Record::Request(request) => request.encode_to_vec(),
        Record::RequestGroup(group) => group.encode_to_vec(),
        Record::Index => Vec::new(),
        Record::EventMarks(marks) => marks.encode_to_vec(),
    }
    .into()
}

/// The value to store. What is large in the record becomes a piece of it: what a command brought is a piece of a log entry's or
/// a message's buffer, and a small record in a cache would keep all of that alive; a copy of its own would be a second one.
pub(super) fn settle(record: &mut Record) -> Bytes {
    let encoded = encode(record);
    match record {
        Record::Kv(kv) if !kv.value.is_empty() => {
            let end = framed(kv.value.len());
            let begin = end.saturating_sub(kv.value.len());
            Arc::make_mut(kv).value = encoded.slice(begin..end);
        }
        Record::Session(session) if !session.fields.is_empty() => {
            Arc::make_mut(session).lie_in(&encoded);
        }
        _ => {}
    }
    encoded
}

/// As its message would be, see [`crate::proto::wire`].
fn encode_kv(kv: &pb::KvRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(kv.encoded_len());
    if !kv.value.is_empty() {
        put_bytes(kv_tag::VALUE, &kv.value, &mut out);
    }
    put_uint(kv_tag::CREATE_REVISION, kv.create_revision, &mut out);
    put_uint(kv_tag::MOD_REVISION, kv.mod_revision, &mut out);
    put_uint(kv_tag::DEADLINE, kv.deadline, &mut out);
    if let Some(counter) = &kv.counter {
        encoding::sint64::encode(kv_tag::COUNTER, counter, &mut out);
    }
    put_uint(kv_tag::LEASE, kv.lease, &mut out);
    put_uint(kv_tag::INDEXED_DEADLINE, kv.indexed_deadline, &mut out);
    out
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
            prop_assert_eq!(encode_kv(&kv), kv.encode_to_vec());
        }

        #[test]
        fn a_settled_session_is_as_it_was_and_its_fields_lie_in_its_encoding(
            user_id in "[a-z]{0,3}",
            fields in prop::collection::btree_map("[a-z]{0,3}", prop::collection::vec(any::<u8>(), 0..200), 0..4),
            mod_revision in any::<u64>(),
        ) {
            let fields = fields.into_iter().map(|(name, value)| pb::SessionField { name, value: value.into() });
            let session = pb::SessionRecord {
                user_id,
                fields: fields.collect(),
                mod_revision,
                ..pb::SessionRecord::default()
            };
            let mut settled = Record::Session(Arc::new(session.clone()));
            let encoded = settle(&mut settled);
            prop_assert_eq!(&encoded[..], session.encode_to_vec());
            prop_assert_eq!(&settled, &Record::Session(Arc::new(session)));
            let Record::Session(session) = &settled else { unreachable!() };
            let within = encoded.as_ptr_range();
            prop_assert!(session.fields.shared().all(|(_, value)| value.is_empty() || within.contains(&value.as_ptr())));
        }

        #[test]
        fn a_settled_record_is_as_it_was_and_lies_in_its_encoding(kv in kv()) {
            let mut settled = Record::Kv(Arc::new(kv.clone()));
            let encoded = settle(&mut settled);
            prop_assert_eq!(&encoded[..], kv.encode_to_vec());
            prop_assert_eq!(&settled, &Record::Kv(Arc::new(kv)));
            let Record::Kv(kv) = &settled else { unreachable!() };
            let is_within = encoded.as_ptr_range().contains(&kv.value.as_ptr());
            prop_assert!(kv.value.is_empty() || is_within);
        }
    }
}
