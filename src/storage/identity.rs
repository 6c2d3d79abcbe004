//! Whom a data directory belongs to.
//!
//! A directory is one *instance* of one node: its id is drawn when the directory is created, before anything else is
//! written, and peers refuse any other instance under the same node id. So a node whose directory was lost can never
//! pass for the one that voted and acknowledged entries, which could lose committed writes. A node adopts its
//! cluster once and keeps it.

use std::path::Path;

use bytes::Bytes;

use super::Error;
use super::wire::Key;
use crate::proto::internal as pb;
use crate::types::{ClusterId, InstanceId, NodeId};

/// The storage format of this version.
const FORMAT: u32 = 1;

/// What a data directory says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, once the node belongs to one.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// This directory.
    pub instance: InstanceId,
    /// How it is stored.
    pub format: u32,
}

impl Identity {
    /// That of a new directory.
    pub(super) fn draw(node: NodeId) -> Self {
        Self {
            cluster: None,
            node,
            instance: InstanceId::new(uuid::Uuid::new_v4().into_bytes()),
            format: FORMAT,
        }
    }

    /// As it was stored, if it is `node`'s and of a known format.
    pub(super) fn parse(
        stored: &pb::StoredIdentity,
        node: NodeId,
        data_dir: &Path,
    ) -> Result<Self, Error> {
        // The format comes first: another one may mean something else by the rest.
        if stored.format != FORMAT {
            return Err(Error::FormatVersion {
                directory: data_dir.to_owned(),
                found: stored.format,
                known: FORMAT,
            });
        }
        let damaged = |e: crate::types::Invalid| {
            Error::corrupt(data_dir, Key::Identity.to_string(), e.to_string())
        };
        let cluster = match stored.cluster_id.as_ref() {
            [] => None,
            id => Some(ClusterId::parse(id).map_err(damaged)?),
        };
        let owner = NodeId::new(stored.node_id).map_err(damaged)?;
        if owner != node {
            return Err(Error::ForeignNode {
                directory: data_dir.to_owned(),
                owner,
                node,
            });
        }
        Ok(Self {
            cluster,
            node,
            instance: InstanceId::parse(&stored.instance).map_err(damaged)?,
            format: FORMAT,
        })
    }
}

impl From<Identity> for pb::StoredIdentity {
    fn from(identity: Identity) -> Self {
        let cluster = identity.cluster.as_ref();
        Self {
            format: identity.format,
            node_id: identity.node.get(),
            instance: Bytes::copy_from_slice(identity.instance.as_bytes()),
            cluster_id: cluster.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
        }
    }
}
