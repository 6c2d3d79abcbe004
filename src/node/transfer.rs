//! Handing leadership over.
//!
//! A transfer that fails leaves the leader unable to write until another election, so a target that lags is
//! refused before openraft is asked.

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{Instant, timeout_at};

use super::propose::stopped;
use super::{Base, Error, Leadership, Node};
use crate::raft;
use crate::types::NodeId;

/// A target may lack this many entries: it gets them within the transfer.
const LAG_ALLOWED: u64 = 10_000;

impl<B: Base> Node<B> {
    /// Hands leadership to `wanted` and waits until it leads; or, of the voters with most room on their disks, to the one whose log is
    /// most complete, and waits until any other node leads.
    pub async fn transfer_leader(
        &self,
        wanted: Option<NodeId>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let leadership = shared.leadership.borrow().clone();
        if !leadership.is_leader() {
            return Err(leadership.leader.map_or(Error::NoLeader, Error::NotLeader));
        }
        let own = leadership.node;
        let target = self.transfer_target(own, wanted)?;
        if target == own {
            return Ok(());
        }
        let core = shared.raft.clone();
        raft::ask(&self.shared.tasks, async move {
            core.trigger().transfer_leader(target.get()).await
        })
        .await
        .map_err(|fatal| stopped(&fatal))?;
        let mut changes = shared.leadership.subscribe();
        let leader = |now: &Leadership| now.leader.as_ref().map(|leader| leader.node);
        let led = changes.wait_for(|now| is_handed_over(own, wanted, leader(now)));
        match timeout_at(deadline, led).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped("openraft ended".to_owned())),
            Err(_) => Err(Error::TransferFailed(format!(
                "node {target} does not lead after the deadline"
            ))),
        }
    }

    fn transfer_target(&self, own: NodeId, wanted: Option<NodeId>) -> Result<NodeId, Error> {
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        if wanted == Some(own) {
            return Ok(own);
        }
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        if let Some(wanted) = wanted.filter(|wanted| !voters.contains(&wanted.get())) {
            return Err(Error::UnknownMember(wanted.get()));
        }
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = |id: u64| {
            let replication = metrics.replication.as_ref()?;
            replication.get(&id)?.as_ref().map(|log_id| log_id.index)
        };
        let candidates = voters.iter().copied().filter(|id| *id != own.get());
        let candidates = candidates.filter(|id| wanted.is_none_or(|wanted| wanted.get() == *id));
        let term = metrics.vote.leader_id().term;
        // A voter that is far behind cannot lead, whatever room it has.
        let is_near = |index: u64| index.saturating_add(LAG_ALLOWED) >= last;
        let room = |id| self.shared.base.room_of(term, id);
        let best = candidates
            .filter_map(|id| Some((matched(id)?, id)))
            .max_by_key(|(index, id)| (is_near(*index), room(*id), *index, *id));
        match best {
            Some((index, id)) if is_near(index) => {
                NodeId::new(id).map_err(|e| Error::TransferFailed(e.to_string()))
            }
            Some((index, id)) => Err(Error::TransferFailed(format!(
                "node {id} is {} entries behind",
                last.saturating_sub(index)
            ))),
            None => Err(Error::TransferFailed(match wanted {
                Some(wanted) => format!("node {wanted} has not answered this leader yet"),
                None => "no other voter has answered this leader yet".to_owned(),
            })),
        }
    }
}

/// Whether it is done when this node sees that leader. One that nobody asked for by name may come second: another node may hear of
/// its votes too late, and be elected after it.
fn is_handed_over(own: NodeId, wanted: Option<NodeId>, leader: Option<NodeId>) -> bool {
    match wanted {
        Some(_) => leader == wanted,
        None => leader.is_some_and(|leader| leader != own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_leader_will_do_where_none_is_named() {
        let node = |id| NodeId::new(id).ok();
        let done = |wanted, leader| is_handed_over(node(1).expect("not 0"), wanted, leader);
        for (wanted, leader, expected) in [
            (None, None, false),
            (None, node(1), false),
            (None, node(2), true),
            (None, node(3), true),
            (node(2), None, false),
            (node(2), node(1), false),
            (node(2), node(2), true),
            (node(2), node(3), false),
        ] {
            assert_eq!(done(wanted, leader), expected, "{wanted:?} {leader:?}");
        }
    }
}
