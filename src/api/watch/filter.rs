//! Which events a watch is about.

use crate::api::parse::{Filter, Kind, Watch};
use crate::state::events::Event;
use crate::state::{CartOwner, Key};
use crate::types::Namespace;

impl Watch {
    /// The event is to be sent.
    pub fn matches(&self, event: &Event) -> bool {
        let Some(namespace) = namespace(&event.key) else {
            return false;
        };
        let is_named = self.namespace.as_ref().is_none_or(|own| own == namespace);
        let is_any = || self.filters.iter().any(|filter| filter.matches(event));
        is_named && (self.filters.is_empty() || is_any())
    }
}

impl Filter {
    fn matches(&self, event: &Event) -> bool {
        match (self, &event.key) {
            (Self::Kind(kind), key) => kind_of(key) == Some(*kind),
            (Self::KeyPrefix(prefix), Key::Kv(_, key)) => key.as_str().starts_with(prefix.as_str()),
            (Self::User(user), _) => event.user() == Some(user.as_str()),
            (Self::Cart(CartOwner::User(user)), Key::UserCart(_, owner)) => user == owner,
            (Self::Cart(CartOwner::Session(token)), Key::SessionCart(_, owner)) => token == owner,
            (Self::KeyPrefix(_) | Self::Cart(_), _) => false,
        }
    }
}

fn kind_of(key: &Key) -> Option<Kind> {
    match key {
        Key::Session(..) | Key::User(..) => Some(Kind::Session),
        Key::SessionCart(..) | Key::UserCart(..) => Some(Kind::Cart),
        Key::Kv(..) => Some(Kind::Key),
        _ => None,
    }
}

/// Of a record that has events.
pub(super) fn namespace(key: &Key) -> Option<&Namespace> {
    match key {
        Key::Session(namespace, _)
        | Key::SessionCart(namespace, _)
        | Key::UserCart(namespace, _)
        | Key::User(namespace, _)
        | Key::Kv(namespace, _) => Some(namespace),
        _ => None,
    }
}
