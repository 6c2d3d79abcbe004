//! Where in the log a state is, stored beside its records, and what membership it has there.

use bytes::Bytes;
use prost::Message as _;

use crate::proto::internal as pb;
use crate::raft::{LogId, Membership, SnapshotMeta, StoredMembership};
use crate::state::Fault;

/// What storage keeps beside the records.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Position {
    /// The last log id applied.
    pub applied: Option<LogId>,
    /// The last membership applied.
    pub membership: StoredMembership,
    /// The highest node id that any membership up to there had.
    pub highest_node_id: u64,
}

impl Position {
    /// Moves on.
    pub(super) fn advance(&mut self, by: Advance) {
        if by.applied.is_some() {
            self.applied = by.applied;
        }
        if let Some(membership) = by.membership {
            self.membership = membership;
        }
        self.highest_node_id = self.highest_node_id.max(by.highest_node_id);
    }

    /// The membership as it is stored.
    pub(super) fn stored_membership(&self) -> pb::StoredMembership {
        let members = highest_node_id(self.membership.membership());
        let is_removed = self.highest_node_id > members;
        pb::StoredMembership {
            highest_removed_id: if is_removed { self.highest_node_id } else { 0 },
            ..pb::StoredMembership::from(&self.membership)
        }
    }
}

/// What a batch of entries adds to the position.
#[derive(Debug, Default)]
pub(super) struct Advance {
    /// The last log id of the batch.
    pub applied: Option<LogId>,
    /// Its last membership, if it had one.
    pub membership: Option<StoredMembership>,
    /// The highest node id of all its memberships, or 0.
    pub highest_node_id: u64,
}

/// From what a database holds under [`Key::RaftApplied`](crate::state::Key) and [`Key::RaftMembership`](crate::state::Key).
pub(super) fn decode_position(
    applied: Option<Bytes>,
    membership: Option<Bytes>,
) -> Result<Position, Fault> {
    let damaged = |e: prost::DecodeError| Fault::corrupt("the applied position", e.to_string());
    let applied = applied
        .map(pb::LogId::decode)
        .transpose()
        .map_err(damaged)?;
    let membership = membership
        .map(pb::StoredMembership::decode)
        .transpose()
        .map_err(damaged)?
        .unwrap_or_default();
    let removed = membership.highest_removed_id;
    let membership: StoredMembership = membership.try_into()?;
    Ok(Position {
        applied: applied.map(Into::into),
        highest_node_id: removed.max(highest_node_id(membership.membership())),
        membership,
    })
}

/// 0 if there is none.
pub(super) fn highest_node_id(membership: &Membership) -> u64 {
    let ids = membership.nodes().map(|(id, _)| *id);
    ids.max().unwrap_or(0)
}

/// A manifest's position, in openraft's form.
pub(super) fn meta_of(manifest: &pb::SnapshotManifest) -> Result<SnapshotMeta, Fault> {
    Ok(SnapshotMeta {
        last_log_id: manifest.last_log_id.map(Into::into),
        last_membership: manifest.membership.clone().unwrap_or_default().try_into()?,
    })
}
