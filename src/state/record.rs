//! Records to bytes and back. The key says which message a value is.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{self, WireType};

use super::keys::Key;
use super::store::{Record, Stored};
use super::window::ClientWindow;
use super::{Fault, digest};
use crate::proto::internal as pb;

/// Field number of [`pb::KvRecord`]'s value, the first of its fields.
const KV_VALUE: u32 = 1;

/// Field numbers of [`pb::SessionRecord`], whose other fields are numbers and stand between the second and the last, and of
/// [`pb::SessionField`].
mod session_tag {
    pub(super) const USER_ID: u32 = 1;
    pub(super) const FIELDS: u32 = 2;
    pub(super) const CLIENT: u32 = 14;

    pub(super) const FIELD_NAME: u32 = 1;
    pub(super) const FIELD_VALUE: u32 = 2;
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
        Record::Session(session) => encode_session(session),
        Record::User(user) => user.encode_to_vec(),
        Record::Settings(settings) => settings.encode_to_vec(),
        Record::Cart(cart) => cart.encode_to_vec(),
        Record::Order(order) => order.encode_to_vec(),
        Record::Kv(kv) => encode_kv(kv),
        Record::Lease(lease) => lease.encode_to_vec(),
        Record::Client(window) => window.encode(),
        Record::Request(request) => request.encode_to_vec(),
        Record::Index => Vec::new(),
        Record::EventMarks(marks) => marks.encode_to_vec(),
    }
    .into()
}

/// The value to store. The record's own values become pieces of it: what a command brought is a piece of a log entry's or
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
            let session = Arc::make_mut(session);
            let mut end = match session.user_id.len() {
                0 => 0,
                length => framed(length),
            };
            for field in &mut session.fields {
                // A field's value is the last that it has.
                end = end.saturating_add(framed(field.encoded_len()));
                let begin = end.saturating_sub(field.value.len());
                field.value = encoded.slice(begin..end);
            }
        }
        _ => {}
    }
    encoded
}

/// What so many bytes take with their length and a tag below 16.
fn framed(length: usize) -> usize {
    let length_bytes = encoding::encoded_len_varint(length as u64);
    length.saturating_add(length_bytes).saturating_add(1)
}

/// As its message would be, but for what [`put_bytes`] saves.
fn encode_session(session: &pb::SessionRecord) -> Vec<u8> {
    let pb::SessionRecord {
        user_id,
        fields,
        client,
        ..
    } = session;
    let numbers = pb::SessionRecord {
        user_id: String::new(),
        fields: Vec::new(),
        client: BTreeMap::new(),
        ..*session
    };
    let mut out = Vec::with_capacity(session.encoded_len());
    if !user_id.is_empty() {
        put_bytes(session_tag::USER_ID, user_id.as_bytes(), &mut out);
    }
    for field in fields {
        put_field(field, &mut out);
    }
    numbers
        .encode(&mut out)
        .expect("a vector has room for everything");
    encoding::btree_map::encode(
        encoding::string::encode,
        encoding::string::encoded_len,
        encoding::string::encode,
        encoding::string::encoded_len,
        session_tag::CLIENT,
        client,
        &mut out,
    );
    out
}

fn put_field(field: &pb::SessionField, out: &mut Vec<u8>) {
    encoding::encode_key(session_tag::FIELDS, WireType::LengthDelimited, out);
    encoding::encode_varint(field.encoded_len() as u64, out);
    if !field.name.is_empty() {
        put_bytes(session_tag::FIELD_NAME, field.name.as_bytes(), out);
    }
    if !field.value.is_empty() {
        put_bytes(session_tag::FIELD_VALUE, &field.value, out);
    }
}

/// As its message would be, but for what [`put_bytes`] saves.
fn encode_kv(kv: &pb::KvRecord) -> Vec<u8> {
    let numbers = pb::KvRecord {
        value: Bytes::new(),
        ..*kv
    };
    let mut out = Vec::with_capacity(kv.encoded_len());
    if !kv.value.is_empty() {
        put_bytes(KV_VALUE, &kv.value, &mut out);
    }
    numbers
        .encode(&mut out)
        .expect("a vector has room for everything");
    out
}

/// A field of bytes as prost has it. That one clones the bytes, which turns an unshared buffer into a shared one: an
/// allocation more for each record that is written.
pub(super) fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encoding::encode_key(tag, WireType::LengthDelimited, out);
    encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
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
    pb::EventMarks => EventMarks,
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session() -> impl Strategy<Value = pb::SessionRecord> {
        let fields =
            prop::collection::vec((".{0,8}", prop::collection::vec(any::<u8>(), 0..300)), 0..4);
        let client = prop::collection::btree_map(".{0,8}", ".{0,8}", 0..3);
        (
            ".{0,8}",
            fields,
            client,
            any::<[Option<u64>; 10]>(),
            any::<bool>(),
        )
            .prop_map(|(user_id, fields, client, numbers, has_cart)| {
                let mut numbers = numbers.into_iter();
                let mut number = || numbers.next().flatten().unwrap_or_default();
                let field = |(name, value): (String, Vec<u8>)| pb::SessionField {
                    name,
                    value: value.into(),
                };
                pb::SessionRecord {
                    user_id,
                    fields: fields.into_iter().map(field).collect(),
                    create_revision: number(),
                    mod_revision: number(),
                    created_at: number(),
                    last_seen: number(),
                    idle_ttl: number(),
                    absolute_deadline: number(),
                    indexed_deadline: number(),
                    has_cart,
                    tombstone_until: number(),
                    birth: number(),
                    touch_interval: number(),
                    client,
                }
            })
    }

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
        fn what_is_encoded_by_hand_is_what_its_message_would_be(session in session(), kv in kv()) {
            prop_assert_eq!(encode_session(&session), session.encode_to_vec());
            prop_assert_eq!(encode_kv(&kv), kv.encode_to_vec());
        }

        #[test]
        fn a_settled_record_is_as_it_was_and_lies_in_its_encoding(session in session(), kv in kv()) {
            let within = |part: &Bytes, whole: &Bytes| {
                part.is_empty() || whole.as_ptr_range().contains(&part.as_ptr())
            };
            let mut settled = Record::Kv(Arc::new(kv.clone()));
            let encoded = settle(&mut settled);
            prop_assert_eq!(&encoded[..], kv.encode_to_vec());
            prop_assert_eq!(&settled, &Record::Kv(Arc::new(kv)));
            let Record::Kv(kv) = &settled else { unreachable!() };
            prop_assert!(within(&kv.value, &encoded));

            let mut settled = Record::Session(Arc::new(session.clone()));
            let encoded = settle(&mut settled);
            prop_assert_eq!(&encoded[..], session.encode_to_vec());
            prop_assert_eq!(&settled, &Record::Session(Arc::new(session)));
            let Record::Session(session) = &settled else { unreachable!() };
            prop_assert!(session.fields.iter().all(|field| within(&field.value, &encoded)));
        }
    }
}
