//! openraft's type configuration and its aliases, their messages, and how openraft is asked; nothing else.

mod ask;
mod runtime;
mod watch;
mod wire;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use prost::Message as _;

use crate::proto::internal as pb;
use crate::state::{Command, Fault};
use crate::types::{InstanceId, LogTime};

pub use ask::{Appending, ask};
pub use runtime::Runtime;

openraft::declare_raft_types!(
    /// Trolley's choice of types.
    pub TypeConfig:
        D = Proposal,
        R = Replies,
        NodeId = u64,
        Node = Member,
        AsyncRuntime = Runtime,
);

/// Commands on their way through the log, in one entry because they were proposed together: decoded for apply, encoded
/// for disk and wire. What an entry costs on the way is shared by its commands. Cloning shares both forms.
#[derive(Clone)]
pub struct Proposal {
    /// The leader's log time when it proposed.
    pub stamp: LogTime,
    /// At least one; they are applied in this order. Not a shared slice, into which all of them would be copied.
    pub commands: Arc<Vec<Command>>,
    /// Both, encoded once: a [`pb::Proposal`].
    encoded: Bytes,
}

impl Proposal {
    /// New commands, stamped by the leader.
    #[must_use]
    pub fn new(stamp: LogTime, commands: Vec<Command>) -> Self {
        let encoded = wire::encode_proposal(stamp, &commands);
        Self {
            stamp,
            commands: Arc::new(commands),
            encoded,
        }
    }

    /// The bytes that disk and wire carry. Cheap: they were made with the proposal.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Back from disk or wire.
    pub fn decode(encoded: Bytes) -> Result<Self, Fault> {
        let message = pb::Proposal::decode(encoded.clone())
            .map_err(|e| Fault::corrupt("log proposal", e.to_string()))?;
        if message.commands.is_empty() {
            return Err(Fault::corrupt("log proposal", "it holds no command"));
        }
        let mut commands = Vec::with_capacity(message.commands.len());
        for command in message.commands {
            commands.push(Command::decode(command)?);
        }
        Ok(Self {
            stamp: LogTime::from_millis(message.stamp),
            commands: Arc::new(commands),
            encoded,
        })
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Proposal({} commands, {} bytes)",
            self.commands.len(),
            self.encoded.len()
        )
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a command answered, and whether it had been answered before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// The reply, stored or new.
    pub reply: pb::Reply,
    /// It is the first reply to an earlier request of the same id.
    pub replayed: bool,
}

/// What an entry answered: a reply to each of its commands, in their order. Blank and membership entries have none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replies(pub Vec<Reply>);

impl fmt::Display for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replies({})", self.0.len())
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

/// How many commands an entry holds. Whatever else it may hold counts as one.
#[must_use]
pub fn commands_in(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.commands.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 1,
    }
}

/// How many bytes the commands of an entry take as disk and wire carry them.
#[must_use]
pub fn bytes_in(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.encoded.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
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
