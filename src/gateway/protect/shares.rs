//! How much of what all share one party may hold at a time.
//!
//! Rates do not bound that: whoever sends a body slowly, or follows events, holds a place for long with one request. So
//! nobody holds more than a part of them, and it takes several to shut out everybody else. What is remembered is what is held.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Party;
use crate::limits;

/// What each party holds.
pub struct Shares {
    most: usize,
    held: Mutex<HashMap<Arc<Party>, usize>>,
}

/// One of them, until it is dropped.
pub struct Share {
    shares: Arc<Shares>,
    party: Arc<Party>,
}

impl Shares {
    /// Of so many places.
    pub fn of(places: usize) -> Arc<Self> {
        Arc::new(Self {
            most: (places / limits::SHARE_PARTS).max(1),
            held: Mutex::default(),
        })
    }

    /// One more for this party, unless it holds all that it may.
    pub fn take(self: &Arc<Self>, party: Arc<Party>) -> Option<Share> {
        let mut held = self.lock();
        let count = held.entry(Arc::clone(&party)).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(held);
        let shares = Arc::clone(self);
        Some(Share { shares, party })
    }

    fn give_back(&self, party: &Arc<Party>) {
        if let Entry::Occupied(mut held) = self.lock().entry(Arc::clone(party)) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Party>, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.give_back(&self.party);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> Arc<Party> {
        Arc::new(Party::Network(name.to_owned()))
    }

    #[test]
    fn nobody_holds_more_than_a_part() {
        let shares = Shares::of(2 * limits::SHARE_PARTS + 1);
        let take = |name| shares.take(network(name));
        let (one, two) = (take("a"), take("a"));
        assert!(one.is_some() && two.is_some());
        assert!(take("a").is_none());
        assert!(take("b").is_some(), "another has a share of its own");
        drop(one);
        assert!(take("a").is_some());
        drop(two);
        assert!(shares.lock().is_empty(), "who holds nothing is forgotten");
    }

    #[test]
    fn of_few_places_everybody_may_hold_one() {
        let shares = Shares::of(1);
        let one = shares.take(network("a"));
        assert!(one.is_some() && shares.take(network("a")).is_none());
    }
}
