//! openraft's type configuration and its aliases, and their messages; nothing else.

mod wire;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::proto::internal as pb;
use crate::state::{Command, Fault};
use crate::types::{InstanceId, LogTime};

openraft::declare_raft_types!(
    /// Trolley's choice of types.
    pub TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = Member,
);

/// A command on its way through the log: decoded for apply, encoded for disk and wire. Cloning shares both.
#[derive(Clone)]
pub struct Proposal {
    /// The leader's wall time when it proposed.
    pub stamp: LogTime,
    /// The command.
    pub command: Arc<Command>,
    /// The same command, encoded once.
    pub encoded: Bytes,
}

impl Proposal {
    /// A new command, stamped by the leader.
    #[must_use]
    pub fn new(stamp: LogTime, command: Command) -> Self {
        let encoded = command.encode();
        Self {
            stamp,
            command: Arc::new(command),
            encoded,
        }
    }

    /// Back from disk or wire.
    pub fn decode(stored: pb::Proposal) -> Result<Self, Fault> {
        let command = Command::decode(stored.command.clone())?;
        Ok(Self {
            stamp: LogTime::from_millis(stored.stamp),
            command: Arc::new(command),
            encoded: stored.command,
        })
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.encoded.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a command answered, and whether it had been answered before. Blank and membership entries answer the
/// default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// The reply, stored or new.
    pub reply: pb::Reply,
    /// It is the first reply to an earlier request of the same id.
    pub replayed: bool,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply(revision {})", self.reply.revision)
    }
}

/// A member of the cluster, as the replicated membership holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Host and port that its peers and clients dial.
    pub address: String,
    /// Its data directory. An RPC to or from another instance of the same node id is refused.
    pub instance: InstanceId,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            address: String::new(),
            instance: InstanceId::new([0; 16]),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A log entry.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// A log id.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// A membership with the log id that set it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// A snapshot's log position and membership.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// Who votes and who learns.
pub type Membership = openraft::Membership<u64, Member>;
