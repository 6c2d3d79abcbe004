//! When the state follows newer rules: as soon as every member's program knows them.
//!
//! Programs are replaced one node after the other, and until the last one is, all apply entries by the rules that all know. The
//! leader asks every member, learners too, which is the newest version that its program knows; one that does not answer counts as
//! one that knows no more than the first. Why nothing is lost where an answer is outdated is [`crate::state::version`]'s business.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Node;
use super::periodic::Periodic;
use crate::proto::v1;
use crate::state::{Command, Identity, Operation};
use crate::types::{Namespace, StateVersion};

/// How often a leader asks that knows a newer version than the state follows. Others ask nobody.
const PERIOD: Duration = Duration::from_secs(1);

impl Node {
    /// The version that the state follows.
    pub(super) fn state_version(&self) -> StateVersion {
        StateVersion::new(self.shared.base.state.header().version)
    }
}

/// Runs on every node, acts on the leader.
pub(super) async fn run(node: Node, stop: CancellationToken) {
    let mut turns = Periodic::new(PERIOD, stop);
    while turns.turn().await {
        let known = node.shared.base.config.newest_state_version;
        let follows = node.state_version();
        if known <= follows || !node.leadership().is_leader() {
            continue;
        }
        let Some(version) = common(&node.cluster_status().await).filter(|it| *it > follows) else {
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
fn common(members: &[v1::NodeStatus]) -> Option<StateVersion> {
    let known = members.iter().map(|member| {
        let answered = member.error.is_empty();
        StateVersion::new(if answered {
            member.newest_state_version
        } else {
            0
        })
    });
    known.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(version: u32) -> v1::NodeStatus {
        v1::NodeStatus {
            newest_state_version: version,
            ..v1::NodeStatus::default()
        }
    }

    #[test]
    fn it_is_what_the_oldest_program_knows() {
        let silent = v1::NodeStatus {
            error: "it does not answer".to_owned(),
            ..knows(9)
        };
        let version = StateVersion::new;
        assert_eq!(common(&[]), None);
        assert_eq!(common(&[knows(3), knows(2), knows(4)]), Some(version(2)));
        assert_eq!(common(&[knows(3), knows(3)]), Some(version(3)));
        let before_there_were_any = knows(0);
        assert_eq!(common(&[knows(3), before_there_were_any]), Some(version(1)));
        assert_eq!(common(&[knows(3), silent]), Some(version(1)));
    }
}
