//! What concurrent clients asked, and what they were told, with the times of both.
//!
//! One [`Stopwatch`] serves a whole run, so that entries of different tapes, faults and views can be compared. A call is noted
//! before it is sent and its outcome after it is there: one entry precedes another for certain if it returned *before* (by
//! a whole microsecond) the other was invoked.
//!
//! Deliberately absent: what calls mean. [`super::checks`] judges.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::client;

/// Microseconds since the run began.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// It begins at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// When it began.
    #[must_use]
    pub fn started(self) -> Instant {
        self.0
    }

    /// What it shows.
    #[must_use]
    pub fn at_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<A> {
    /// With this answer.
    Answered(A),
    /// The store refused it for this reason, and it changed nothing.
    Refused(String),
    /// It certainly never took effect.
    NotApplied,
    /// It may have taken effect, may still do so, or never: a timeout, a lost connection.
    Unknown,
}

impl<A> Outcome<A> {
    /// The answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&A> {
        match self {
            Self::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// It may have taken effect.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::Unknown)
    }

    /// Of the client's result.
    pub fn of<T>(result: Result<T, client::Error>, answer: impl FnOnce(T) -> A) -> Self {
        match result {
            Ok(value) => Self::Answered(answer(value)),
            Err(error) => Self::failed(&error),
        }
    }

    /// Of an error: as certain as it says.
    #[must_use]
    pub fn failed(error: &client::Error) -> Self {
        match (error.outcome(), error.reason()) {
            (client::Outcome::Unknown, _) => Self::Unknown,
            (client::Outcome::NotApplied, Some(reason))
                if !reason.is_empty() && !error.is_retryable() =>
            {
                Self::Refused(reason.to_owned())
            }
            (client::Outcome::NotApplied, _) => Self::NotApplied,
        }
    }
}

/// One call and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<C, A> {
    /// Which client.
    pub process: u32,
    /// Taken before it was sent.
    pub invoked_us: u64,
    /// Taken once the outcome was known; without one, it is unknown.
    pub returned_us: Option<u64>,
    /// What was asked.
    pub call: C,
    /// How it ended.
    pub outcome: Outcome<A>,
}

/// Shared by the clients of one workload.
#[derive(Debug)]
pub struct Tape<C, A> {
    stopwatch: Stopwatch,
    entries: Mutex<Vec<Entry<C, A>>>,
}

/// A call under way.
#[derive(Debug)]
#[must_use = "a call that is not ended has an unknown outcome"]
pub struct Open(usize);

impl<C, A> Tape<C, A> {
    /// An empty one.
    #[must_use]
    pub fn new(stopwatch: Stopwatch) -> Self {
        Self {
            stopwatch,
            entries: Mutex::default(),
        }
    }

    /// Notes a call that is about to be sent.
    pub fn begin(&self, process: u32, call: C) -> Open {
        let mut entries = self.lock();
        entries.push(Entry {
            process,
            invoked_us: self.stopwatch.at_us(),
            returned_us: None,
            call,
            outcome: Outcome::Unknown,
        });
        Open(entries.len() - 1)
    }

    /// Notes how it ended.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is used up, so that a call ends at most once"
    )]
    pub fn end(&self, open: Open, outcome: Outcome<A>) {
        let mut entries = self.lock();
        let at_us = self.stopwatch.at_us();
        if let Some(entry) = entries.get_mut(open.0) {
            entry.returned_us = Some(at_us);
            entry.outcome = outcome;
        }
    }

    /// Whether a call that was sent after this time has been answered.
    #[must_use]
    pub fn is_answered_since(&self, at_us: u64) -> bool {
        let entries = self.lock();
        let mut later = entries
            .iter()
            .rev()
            .take_while(|entry| entry.invoked_us > at_us);
        later.any(|entry| entry.outcome.answer().is_some())
    }

    /// What has been noted, once nobody writes any more.
    #[must_use]
    pub fn take(&self) -> Vec<Entry<C, A>> {
        std::mem::take(&mut self.lock())
    }

    // A panic of another client leaves the list whole: each change to it is one step.
    fn lock(&self) -> MutexGuard<'_, Vec<Entry<C, A>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_unknown() {
        let tape: Tape<&str, u8> = Tape::new(Stopwatch::start());
        let first = tape.begin(1, "a");
        let second = tape.begin(2, "b");
        tape.end(second, Outcome::Answered(7));
        assert!(!tape.is_answered_since(tape.stopwatch.at_us()));
        drop(first);
        let entries = tape.take();
        assert_eq!(entries[0].outcome, Outcome::Unknown);
        assert_eq!(entries[0].returned_us, None);
        assert_eq!(entries[1].outcome.answer(), Some(&7));
        assert!(entries[1].returned_us >= Some(entries[1].invoked_us));
    }
}
