//! Everything that happens, in its order, as a running hash: two runs of a seed are the same run if their hashes are.
//!
//! The text is kept only for a replay, and costs more than the rest of a run.

use std::fmt;
use std::sync::{Mutex, MutexGuard};

use xxhash_rust::xxh3::Xxh3;

/// What happened so far.
pub struct Trace(Mutex<Inner>);

struct Inner {
    now_ms: u64,
    hash: Xxh3,
    events: u64,
    is_told: bool,
}

impl Trace {
    /// An empty one; with `is_told` each event is a line for a person as well.
    pub fn new(is_told: bool) -> Self {
        Self(Mutex::new(Inner {
            now_ms: 0,
            hash: Xxh3::new(),
            events: 0,
            is_told,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0
            .lock()
            .expect("nothing panics while it notes an event")
    }

    /// The simulation is this far.
    pub fn set_now(&self, now_ms: u64) {
        self.lock().now_ms = now_ms;
    }

    /// Simulated time in milliseconds.
    pub fn now(&self) -> u64 {
        self.lock().now_ms
    }

    /// Something happened.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        let mut inner = self.lock();
        let line = format!("{:>6} {event}", inner.now_ms);
        inner.hash.update(line.as_bytes());
        inner.events += 1;
        if inner.is_told {
            println!("{line}");
        }
    }

    /// Hash and number of the events.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.hash.digest(), inner.events)
    }
}
