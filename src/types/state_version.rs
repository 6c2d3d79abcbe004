//! Which meaning log entries have.

use std::fmt;

/// The rules by which the state machine applies entries. Raised by an entry of the log, never lowered, see
/// [`crate::state::version`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateVersion(u32);

impl StateVersion {
    /// What every state begins with.
    pub const FIRST: Self = Self(1);
    /// From here on:
    /// - a rotation that stays with its user adds no session, and no limit on sessions is asked;
    /// - a late order takes along no note, coupon or address that came after its freeze, see `state::cart::checkout`;
    /// - a holder that names another freeze than its own running one is told that there is none, not that it holds the cart itself;
    /// - a rotation tells the revision of the cart that the owner fills, also where a merged cart moves along.
    pub const SECOND: Self = Self(2);
    /// The newest that this program knows. It knows all before it as well.
    pub const NEWEST: Self = Self::SECOND;

    /// From a message's field, in which 0 stands for the first: it is what was written before there were versions.
    #[must_use]
    pub const fn new(version: u32) -> Self {
        if version < Self::FIRST.0 {
            Self::FIRST
        } else {
            Self(version)
        }
    }

    /// For a stored field: 0 for the first, so that what follows it is stored as it was before there were versions.
    #[must_use]
    pub fn to_stored(self) -> u32 {
        if self == Self::FIRST { 0 } else { self.0 }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StateVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
