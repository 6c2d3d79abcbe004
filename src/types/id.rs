//! Identifiers: small copyable numbers and UUIDs.

use std::fmt;

use super::Invalid;

/// A member's number, chosen by its operator, never 0 and never used for a second data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// A node id; 0 is no node.
    pub fn new(id: u64) -> Result<Self, Invalid> {
        match id {
            0 => Err(Invalid::OutOfRange {
                field: "node_id",
                min: 1,
                max: i64::MAX,
                actual: 0,
            }),
            id => Ok(Self(id)),
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One Raft group. Today there is only [`ShardId::ZERO`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u16);

impl ShardId {
    /// The only shard there is.
    pub const ZERO: Self = Self(0);

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

/// The state machine's counter: +1 for each command that changes something. 0 is the empty store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// A revision as it was stored or sent.
    #[must_use]
    pub fn new(revision: u64) -> Self {
        Self(revision)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after this. It cannot overflow: at a million writes a second u64 lasts 500,000 years.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease's number: the revision that granted it, so that no two have the same. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(u64);

impl LeaseId {
    /// From a message's field.
    pub fn parse(id: u64) -> Result<Self, Invalid> {
        Self::optional(id).ok_or(Invalid::Empty { field: "lease_id" })
    }

    /// From a field in which 0 stands for no lease.
    #[must_use]
    pub fn optional(id: u64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! sixteen_bytes {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// From its bytes.
            #[must_use]
            pub fn new(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// From a message: exactly 16 bytes.
            pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
                let bytes = bytes
                    .try_into()
                    .map_err(|_| Invalid::Malformed { field: $field, expected: "16 bytes" })?;
                Ok(Self(bytes))
            }

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

sixteen_bytes!(
    /// A cluster's UUID, drawn once when it is born.
    ClusterId,
    "cluster_id"
);
sixteen_bytes!(
    /// A data directory's UUID, drawn when the directory is created. A node whose directory was lost is
    /// another instance, even under the same node id, and its peers refuse it.
    InstanceId,
    "instance"
);
sixteen_bytes!(
    /// A client of the exchange stream; its retries are recognised by it.
    ClientId,
    "client_id"
);
