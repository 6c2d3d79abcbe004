//! The only reader of wall time. Everything else gets its time from here or from the log.
//!
//! [`Clock`] is a node's own wall clock. [`LogClock`] is what a leader stamps proposals with, and it must
//! not be a wall clock: a leader whose clock is an hour ahead would end every session an hour early, for good,
//! since log time never goes back. So the time is handed from leader to leader:
//!
//! 1. A leader's heartbeats carry its log clock; each follower notes it beside a monotonic instant.
//! 2. A node that becomes leader goes on from there by its monotonic clock. Wall-clock jumps on any node
//!    change nothing.
//! 3. Only a node that leads and has heard no leader since it started asks the wall clock, once: the first leader after the
//!    whole cluster was down, or all of it but nodes that were too far behind to lead. Time that passed while nobody led
//!    cannot be known otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::types::LogTime;

/// Wall time, or a hand that a test moves.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's wall clock.
    System,
    /// Shows what the test last set, in Unix milliseconds.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A manual clock that shows `millis`.
    #[must_use]
    pub fn manual(millis: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(millis)))
    }

    /// Now. A system clock set before 1970 reads as 0; log time never goes back whatever it reads.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where wall time is read"
    )]
    pub fn now(&self) -> LogTime {
        let millis = match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
            Self::Manual(hand) => hand.load(Ordering::Relaxed),
        };
        LogTime::from_millis(millis)
    }
}

/// What this node believes log time to be, between the entries that carry it.
#[derive(Debug)]
pub struct LogClock {
    wall: Clock,
    anchor: Mutex<Option<Anchor>>,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    time: LogTime,
    at: Instant,
}

impl LogClock {
    /// A clock that has heard nothing yet.
    #[must_use]
    pub fn new(wall: Clock) -> Self {
        Self {
            wall,
            anchor: Mutex::new(None),
        }
    }

    /// A leader's heartbeat said that it is `time`. Call it only for the leader that this node follows:
    /// a deposed one may be behind.
    pub fn observe(&self, time: LogTime) {
        *self.lock() = Some(Anchor {
            time,
            at: Instant::now(),
        });
    }

    /// Log time now, never before `floor`, the newest that this node applied. Leaders only: the first call on
    /// a node that has heard no leader anchors the clock to wall time.
    #[must_use]
    pub fn now(&self, floor: LogTime) -> LogTime {
        let mut anchor = self.lock();
        let at = Instant::now();
        let Anchor { time, at: since } = *anchor.get_or_insert_with(|| Anchor {
            time: self.wall.now().max(floor),
            at,
        });
        let elapsed = u64::try_from(at.duration_since(since).as_millis()).unwrap_or(u64::MAX);
        LogTime::from_millis(time.as_millis().saturating_add(elapsed)).max(floor)
    }

    /// Log time now for a heartbeat: `None` while this node has nothing to tell.
    #[must_use]
    pub fn peek(&self) -> Option<LogTime> {
        let anchor = (*self.lock())?;
        let elapsed = u64::try_from(anchor.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(LogTime::from_millis(
            anchor.time.as_millis().saturating_add(elapsed),
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Anchor>> {
        // The guarded value is one plain copy: a panic elsewhere cannot have left it half-written.
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_does_not_move_an_anchored_clock() {
        let hand = Arc::new(AtomicU64::new(1_000_000));
        let clock = LogClock::new(Clock::Manual(Arc::clone(&hand)));
        let before = clock.now(LogTime::default());
        hand.store(5_000_000, Ordering::Relaxed);
        let after = clock.now(LogTime::default());
        assert!(after >= before);
        assert!(after.as_millis() < 4_000_000, "{after}");
    }

    #[test]
    fn a_new_leader_goes_on_from_the_old_ones_time() {
        let clock = LogClock::new(Clock::manual(9_000_000));
        assert_eq!(clock.peek(), None);
        clock.observe(LogTime::from_millis(1_000));
        assert!((1_000..500_000).contains(&clock.now(LogTime::default()).as_millis()));
    }

    #[test]
    fn a_wall_clock_that_is_behind_does_not_stop_time() {
        let clock = LogClock::new(Clock::manual(5));
        let floor = LogTime::from_millis(1_000_000);
        assert!(clock.now(floor) >= floor);
        let shown = clock.peek().expect("it was anchored");
        assert!(shown >= floor, "{shown}");
    }

    #[test]
    fn it_is_never_earlier_than_what_was_applied() {
        let clock = LogClock::new(Clock::manual(5));
        assert!(clock.now(LogTime::from_millis(777)).as_millis() >= 777);
    }
}
