//! How much room a node has on its disk.

use std::fmt;

/// What the free space of a node's disk allows. More room is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    /// Nothing but what Raft cannot do without.
    Full,
    /// What other nodes lead to, and no proposal of its own.
    Scarce,
    /// Whatever does not make the store larger.
    Short,
    /// Everything.
    Ample,
}

impl Room {
    /// The word for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Scarce => "scarce",
            Self::Short => "short",
            Self::Ample => "ample",
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node's disk as it last looked, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What follows from the rest.
    pub room: Room,
    /// Free on the file system, the ballast not counted.
    pub free: u64,
    /// Must be free for everything to be taken.
    pub floor: u64,
    /// Set aside in the ballast.
    pub ballast: u64,
}

impl DiskSpace {
    /// It is so little that what comes in while leadership is handed over might be too much, and that a compaction might
    /// take the rest.
    #[must_use]
    pub fn is_strained(&self) -> bool {
        self.room < Room::Ample && self.free < self.floor / 2
    }

    /// It is time to give back what can be given back, lest the room become short.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.room < Room::Ample || self.free < self.floor.saturating_mul(2)
    }
}
