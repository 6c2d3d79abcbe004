//! Records to bytes and back. The key says which message a value is.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::keys::Key;
use super::store::{Record, Stored};
use super::window::ClientWindow;
use super::{Fault, digest};
use crate::proto::internal as pb;

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
        Record::Session(session) => session.encode_to_vec(),
        Record::User(user) => user.encode_to_vec(),
        Record::Settings(settings) => settings.encode_to_vec(),
        Record::Cart(cart) => cart.encode_to_vec(),
        Record::Order(order) => order.encode_to_vec(),
        Record::Kv(kv) => kv.encode_to_vec(),
        Record::Lease(lease) => lease.encode_to_vec(),
        Record::Client(window) => window.encode(),
        Record::Request(request) => request.encode_to_vec(),
        Record::Index => Vec::new(),
        Record::EventMarks(marks) => marks.encode_to_vec(),
    }
    .into()
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
