//! How many requests are worked on at a time, and which are refused first when there are too many.
//!
//! Nothing queues: whoever is beyond the bound is told at once, and may come back or ask another front. The last
//! places are kept for what matters most, so that a shop that is overrun still takes orders. A request has its place while its
//! body comes, too: so that slow ones leave room for others, nobody holds more than a share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;

use super::{Party, Share, Shares};

/// What a request is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Touches, and reads that keep nobody from buying: they have the first three fifths of the places.
    Touch,
    /// Carts, sessions and keys: the first four fifths.
    Cart,
    /// Orders and transactions: all of them.
    Checkout,
}

impl Class {
    /// Of a request to a route.
    pub fn of(method: &Method, route: &str) -> Self {
        let last = route.rsplit('/').next().unwrap_or_default();
        match last {
            "keys" | "sessions" | "orders" if method == Method::GET => Self::Touch,
            "freeze" | "release" | "orders" | "transactions" => Self::Checkout,
            "touch" | "watch" | "openapi.json" | "docs" | "{file}" => Self::Touch,
            _ => Self::Cart,
        }
    }

    /// Its part of the places, in fifths.
    fn fifths(self) -> usize {
        match self {
            Self::Touch => 3,
            Self::Cart => 4,
            Self::Checkout => 5,
        }
    }

    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Touch => "touch",
            Self::Cart => "cart",
            Self::Checkout => "checkout",
        }
    }
}

/// Places for requests.
pub struct Admission {
    places: usize,
    taken: Arc<AtomicUsize>,
    shares: Arc<Shares>,
}

/// A place, until it is dropped.
pub struct Place {
    taken: Arc<AtomicUsize>,
    _share: Share,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The caller has as many requests under way as one may.
    Share,
    /// All callers together have.
    All,
}

impl Admission {
    pub fn new(places: usize) -> Self {
        Self {
            places,
            taken: Arc::default(),
            shares: Shares::of(places),
        }
    }

    /// A place for a request of this class by this party, if there is one.
    pub fn admit(&self, class: Class, party: Arc<Party>) -> Result<Place, Shed> {
        let share = self.shares.take(party).ok_or(Shed::Share)?;
        // A gateway with very few places has one for everybody.
        let bound = (self.places * class.fifths() / 5).max(1);
        let more = |taken| (taken < bound).then_some(taken + 1);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| Shed::All)?;
        Ok(Place {
            taken: Arc::clone(&self.taken),
            _share: share,
        })
    }

    /// Requests under way.
    #[cfg(test)]
    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_less_is_refused_earlier() {
        let admission = Admission::new(10);
        let number = AtomicUsize::new(0);
        let admit = |class| {
            let number = number.fetch_add(1, Ordering::Relaxed);
            let party = Party::Network(number.to_string());
            admission.admit(class, Arc::new(party)).ok()
        };
        let mut places: Vec<_> = (0..6).map(|_| admit(Class::Touch).expect("room")).collect();
        assert!(admit(Class::Touch).is_none());
        places.extend((0..2).map(|_| admit(Class::Cart).expect("room")));
        assert!(admit(Class::Cart).is_none());
        places.extend((0..2).map(|_| admit(Class::Checkout).expect("room")));
        assert!(admit(Class::Checkout).is_none());
        assert_eq!(admission.taken(), 10);
        places.truncate(5);
        assert!(admit(Class::Touch).is_some());
        drop(places);
        assert_eq!(admission.taken(), 0);
    }

    #[test]
    fn whoever_holds_a_share_leaves_the_others_theirs() {
        let admission = Admission::new(2 * crate::limits::SHARE_PARTS);
        let admit = |name: &str| {
            let party = Party::Network(name.to_owned());
            admission.admit(Class::Checkout, Arc::new(party))
        };
        let held = [admit("a"), admit("a")];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(admit("a").err(), Some(Shed::Share));
        assert!(admit("b").is_ok());
        drop(held);
        assert!(admit("a").is_ok());
        assert_eq!(admission.taken(), 0);
    }

    #[test]
    fn each_route_has_its_class() {
        let table = [
            (Method::POST, "/v1/carts/{owner}/freeze", Class::Checkout),
            (Method::POST, "/v1/carts/{owner}/release", Class::Checkout),
            (Method::POST, "/v1/carts/{owner}/orders", Class::Checkout),
            (Method::POST, "/shop/api/orders", Class::Checkout),
            (Method::GET, "/shop/api/orders", Class::Touch),
            (Method::POST, "/v1/transactions", Class::Checkout),
            (Method::POST, "/v1/carts/{owner}/lines", Class::Cart),
            (Method::GET, "/v1/carts/{owner}", Class::Cart),
            (Method::POST, "/v1/sessions", Class::Cart),
            (Method::GET, "/v1/keys/{key}", Class::Cart),
            (Method::GET, "/v1/keys", Class::Touch),
            (Method::GET, "/v1/users/{user}/sessions", Class::Touch),
            (Method::POST, "/v1/sessions/current/touch", Class::Touch),
            (Method::GET, "/v1/watch", Class::Touch),
            (Method::GET, "/docs/{file}", Class::Touch),
            (Method::GET, "/openapi.json", Class::Touch),
        ];
        for (method, route, class) in table {
            assert_eq!(Class::of(&method, route), class, "{method} {route}");
        }
    }
}
