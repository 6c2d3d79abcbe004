//! Log time: the replicated clock.

use std::fmt;

use super::Invalid;
use crate::limits;

/// A point of log time, in Unix milliseconds. Every replica agrees on it; no node's clock does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTime(u64);

impl LogTime {
    /// From Unix milliseconds.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Unix milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// The later of the two: a stamp from a slow clock never moves log time back.
    #[must_use]
    pub fn advance(self, stamp: LogTime) -> Self {
        self.max(stamp)
    }

    /// This much later; the end of time if it would overflow.
    #[must_use]
    pub fn after(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.as_millis()))
    }
}

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A time to live: at least 1 ms, at most [`limits::TTL_MAX_MS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u64);

impl Ttl {
    /// From a message's field; 0 stands for "not given".
    pub fn parse(field: &'static str, millis: i64) -> Result<Option<Self>, Invalid> {
        let max = limits::TTL_MAX_MS.cast_signed();
        match millis {
            0 => Ok(None),
            1.. if millis <= max => Ok(Some(Self(millis.unsigned_abs()))),
            _ => Err(Invalid::OutOfRange {
                field,
                min: 0,
                max,
                actual: millis,
            }),
        }
    }

    /// A TTL known to be in range; clamped if it is not.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.clamp(1, limits::TTL_MAX_MS))
    }

    /// Milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0
    }
}
