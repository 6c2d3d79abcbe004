//! Events as they are sent.

use bytes::Bytes;

use super::filter::namespace;
use crate::api::encode;
use crate::proto::v1::{self, EventType, cart_event::Owner, event::Record as Sent};
use crate::state::events::{Change, Event, Gone};
use crate::state::{Key, Record, query};
use crate::types::{LogTime, TokenHash};

/// An event of a record that has events.
pub(super) fn event(event: &Event) -> v1::Event {
    let namespace = namespace(&event.key).map(|namespace| namespace.as_str().to_owned());
    v1::Event {
        revision: event.revision.get(),
        position: event.position,
        log_time_ms: event.log_time.as_millis(),
        namespace: namespace.unwrap_or_default(),
        r#type: event_type(&event.change).into(),
        record: record(event),
    }
}

fn event_type(change: &Change) -> EventType {
    match change {
        Change::Created(_) => EventType::Created,
        Change::Updated(_) => EventType::Updated,
        Change::Gone { why, .. } => match why {
            Gone::Deleted => EventType::Deleted,
            Gone::Expired => EventType::Expired,
            Gone::Revoked => EventType::Revoked,
        },
        Change::SessionsRevoked { .. } => EventType::Revoked,
    }
}

fn record(event: &Event) -> Option<Sent> {
    let record = match &event.change {
        Change::Created(record) | Change::Updated(record) => Some(record),
        Change::Gone { .. } | Change::SessionsRevoked { .. } => None,
    };
    let cart = |record: Option<&Record>| record.and_then(|record| cart(record, event.log_time));
    Some(match &event.key {
        Key::Session(_, token) => Sent::Session(v1::SessionEvent {
            token_hash: bytes(token),
            user_id: event.user().unwrap_or_default().to_owned(),
            session: record.and_then(session),
        }),
        Key::SessionCart(_, token) => Sent::Cart(v1::CartEvent {
            owner: Some(Owner::TokenHash(bytes(token))),
            cart: cart(record),
        }),
        Key::UserCart(_, user) => Sent::Cart(v1::CartEvent {
            owner: Some(Owner::UserId(user.to_string())),
            cart: cart(record),
        }),
        Key::Kv(_, key) => Sent::Key(v1::KeyEvent {
            key: key.to_string(),
            item: record.and_then(|record| match record {
                Record::Kv(kv) => Some(encode::key_value(key.as_str(), kv)),
                _ => None,
            }),
        }),
        Key::User(_, user) => {
            let spared = match &event.change {
                Change::SessionsRevoked { except } => except.as_ref().map(bytes),
                _ => None,
            };
            Sent::User(v1::UserEvent {
                user_id: user.to_string(),
                spared_token_hash: spared.unwrap_or_default(),
            })
        }
        _ => return None,
    })
}

fn bytes(token: &TokenHash) -> Bytes {
    Bytes::copy_from_slice(token.as_bytes())
}

fn session(record: &Record) -> Option<v1::Session> {
    match record {
        Record::Session(session) => Some(encode::session(session)),
        _ => None,
    }
}

/// A cart as it was at a time: frozen, if it was then.
fn cart(record: &Record, now: LogTime) -> Option<v1::Cart> {
    match record {
        Record::Cart(cart) => Some(encode::cart(cart, query::freeze_at(cart, now))),
        _ => None,
    }
}
