//! What writers have made lately, for readers to draw from: the newest of all, and the newest of those whose end is waited for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

/// Of all, ended or not.
const NEWEST: usize = 48;
/// The same of those whose end is waited for: so many that they are looked at until it has come.
const SHORT_LIVED: usize = 24;

/// What is drawn from.
#[derive(Debug)]
pub struct Board<T> {
    newest: Mutex<VecDeque<T>>,
    short_lived: Mutex<VecDeque<T>>,
}

impl<T> Default for Board<T> {
    fn default() -> Self {
        Self {
            newest: Mutex::default(),
            short_lived: Mutex::default(),
        }
    }
}

impl<T: Clone> Board<T> {
    /// There is one more; `lasts` if nobody waits for its end.
    pub fn show(&self, what: &T, lasts: bool) {
        push(&self.newest, NEWEST, what);
        if !lasts {
            push(&self.short_lived, SHORT_LIVED, what);
        }
    }

    /// One of them, if there is one.
    #[must_use]
    pub fn draw(&self, random: &mut Rng) -> Option<T> {
        let from = if random.bool() {
            &self.newest
        } else {
            &self.short_lived
        };
        let from = lock(from);
        let at = random.usize(0..from.len().max(1));
        from.get(at).cloned()
    }
}

fn push<T: Clone>(to: &Mutex<VecDeque<T>>, most: usize, what: &T) {
    let mut to = lock(to);
    to.push_back(what.clone());
    if to.len() > most {
        to.pop_front();
    }
}

// A panic of another client leaves the list whole.
fn lock<T>(mutex: &Mutex<VecDeque<T>>) -> MutexGuard<'_, VecDeque<T>> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
