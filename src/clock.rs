//! The only reader of wall time. Everything else gets its time from here or from the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

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
