//! When the state follows newer rules: as soon as every member's program knows them.
//!
//! Programs are replaced one node after the other, and until the last one is, all apply entries by the rules that all know. The
//! leader asks every member, learners too, which is the newest version that its program knows; one that does not answer counts as
//! one that knows no more than the first. Why nothing is lost where an answer is outdated is [`crate::state::version`]'s business.

use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver as _;
use tokio_util::sync::CancellationToken;

use super::periodic::Periodic;
use super::{Base, Node};
use crate::raft::Member;
use crate::state::{Command, Identity, Operation};
use crate::types::{Namespace, StateVersion};

/// How often a leader asks that knows a newer version than the state follows. Others ask nobody.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl<B: Base> Node<B> {
    /// The version that the state follows.
    pub(super) fn state_version(&self) -> StateVersion {
        StateVersion::new(self.shared.base.header().version)
    }

    /// The newest that each member's program knows; `None` of one that does not say so.
    async fn known_versions(&self) -> Vec<Option<StateVersion>> {
        let members: Vec<(u64, Member)> = {
            let metrics = self.shared.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let members = metrics.membership_config.membership().nodes();
            members.map(|(id, it)| (*id, it.clone())).collect()
        };
        let (own, base) = (self.leadership().node.get(), &self.shared.base);
        join_all(members.into_iter().map(|(id, member)| async move {
            if id == own {
                return Some(base.newest_state_version());
            }
            let answer = base.greet(&member.address, self.greeting(), PATIENCE);
            let answer = answer.await.ok()?;
            let is_meant =
                answer.node_id == id && answer.instance == member.instance.as_bytes()[..];
            is_meant.then(|| StateVersion::new(answer.newest_state_version))
        }))
        .await
    }
}

/// Runs on every node, acts on the leader.
pub(super) async fn run<B: Base>(node: Node<B>, stop: CancellationToken) {
    let mut turns = Periodic::new(PERIOD, stop);
    while turns.turn().await {
        let known = node.shared.base.newest_state_version();
        let follows = node.state_version();
        if known <= follows || !node.leadership().is_leader() {
            continue;
        }
        let Some(version) = common(&node.known_versions().await).filter(|it| *it > follows) else {
            continue;
        };
        tracing::info!(%follows, %version, "every member knows newer rules: the state follows them from now on");
        let raise = Command::new(
            Namespace::default(),
            Identity::Anonymous,
            Operation::RaiseVersion(version),
        );
        if let Err(error) = node.propose(raise).await {
            tracing::debug!(%error, "the version was not raised; whoever leads tries again");
        }
    }
}

/// The newest version that all of them know.
fn common(known: &[Option<StateVersion>]) -> Option<StateVersion> {
    let known = known.iter().map(|it| it.unwrap_or(StateVersion::FIRST));
    known.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_oldest_program_knows() {
        let knows = |version| Some(StateVersion::new(version));
        let version = StateVersion::new;
        assert_eq!(common(&[]), None);
        assert_eq!(common(&[knows(3), knows(2), knows(4)]), Some(version(2)));
        assert_eq!(common(&[knows(3), knows(3)]), Some(version(3)));
        let before_there_were_any = knows(0);
        assert_eq!(common(&[knows(3), before_there_were_any]), Some(version(1)));
        assert_eq!(common(&[knows(3), None]), Some(version(1)));
    }
}
