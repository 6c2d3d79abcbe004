//! What a node tells of itself and of its cluster.

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver as _;
use prost::Message as _;

use super::Node;
use crate::proto::v1;
use crate::storage;
use crate::types::StateVersion;

impl Node {
    /// The members as this node knows them.
    #[must_use]
    pub fn members(&self) -> Vec<v1::Member> {
        let metrics = self.shared.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, member)| v1::Member {
                node_id: *id,
                address: member.address.clone(),
                voter: voters.contains(id),
            })
            .collect()
    }

    /// Where a member is dialled; empty for a node that is none.
    pub(super) fn address_of(&self, node: u64) -> String {
        let metrics = self.shared.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let member = metrics.membership_config.membership().get_node(&node);
        member.map_or_else(String::new, |member| member.address.clone())
    }

    /// This node's figures.
    #[must_use]
    pub fn status(&self) -> v1::NodeStatus {
        let shared = &self.shared;
        let header = shared.base.state.header();
        let leadership = shared.leadership.borrow().clone();
        let disk = *shared.base.disk.borrow();
        let metrics = shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<crate::raft::LogId>| id.as_ref().map_or(0, |id| id.index);
        v1::NodeStatus {
            node_id: leadership.node.get(),
            address: shared.base.config.advertise.clone(),
            role: leadership.role.into(),
            leader_id: leadership
                .leader
                .as_ref()
                .map_or(0, |leader| leader.node.get()),
            term: leadership.term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(&metrics.local_committed),
            applied_index: index(&metrics.last_applied),
            purged_index: index(&metrics.purged),
            snapshot_index: index(&metrics.snapshot),
            revision: header.revision,
            digest: hexadecimal(&header.digest),
            log_time_ms: header.log_time,
            disk_bytes: self.disk_bytes().saturating_sub(disk.ballast),
            disk_free_bytes: disk.free,
            min_free_disk_bytes: disk.floor,
            disk_room: v1::DiskRoom::from(disk.room).into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            error: String::new(),
            state_version: StateVersion::new(header.version).get(),
            newest_state_version: shared.base.config.newest_state_version.get(),
        }
    }

    /// 0 when the directory cannot be read: whatever broke will be met by a write.
    fn disk_bytes(&self) -> u64 {
        let data_dir = &self.shared.base.config.data_dir;
        storage::disk_bytes(data_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell how much disk is used");
            0
        })
    }

    /// Every member's figures; a member that does not answer in time is listed with the reason.
    pub async fn cluster_status(&self) -> Vec<v1::NodeStatus> {
        let own = self.shared.leadership.borrow().node.get();
        let asked = self.members().into_iter().map(|member| async move {
            if member.node_id == own {
                return self.status();
            }
            let answer = self.shared.base.peers.node_status(member.node_id).await;
            let decoded = answer.map_err(|e| e.to_string()).and_then(|response| {
                v1::NodeStatus::decode(response).map_err(|e| format!("malformed answer: {e}"))
            });
            decoded.unwrap_or_else(|error| v1::NodeStatus {
                node_id: member.node_id,
                address: member.address,
                error,
                ..v1::NodeStatus::default()
            })
        });
        join_all(asked).await
    }
}

/// A little-endian number, its highest digit first.
fn hexadecimal(digest: &[u8]) -> String {
    let digits: Vec<u8> = digest.iter().rev().copied().collect();
    hex::encode(digits)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_digest_reads_as_one_number() {
        assert_eq!(
            super::hexadecimal(&0x0123_abcd_u32.to_le_bytes()),
            "0123abcd"
        );
    }
}
