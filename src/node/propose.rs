//! Writes: from a command to the reply that was applied.
//!
//! Invariants:
//! 1. An error that says [`Outcome::NotApplied`] was raised before openraft saw the command. Whatever openraft
//!    itself answers, `ForwardToLeader` included, is [`Outcome::Unknown`].
//! 2. The stamp is drawn here, once, from the log clock; it never decreases on one leader.

use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader};

use super::{Error, LeaderHint, Node, Shared};
use crate::raft::{Proposal, Reply, TypeConfig};
use crate::state::Command;
use crate::types::NodeId;

impl Node {
    /// Replicates one command and returns what it answered.
    pub async fn propose(&self, command: Command) -> Result<Reply, Error> {
        let mut replies = self.propose_many(vec![command]).await?;
        replies
            .next()
            .await
            .unwrap_or_else(|| Err(Error::Stopped("openraft dropped a write".to_owned())))
    }

    /// Replicates commands that arrived together: one message to openraft, one log batch. The replies come in
    /// the order of the commands.
    pub async fn propose_many(
        &self,
        commands: Vec<Command>,
    ) -> Result<BoxStream<'static, Result<Reply, Error>>, Error> {
        let shared = &self.shared;
        shared.check_may_propose()?;
        let stamp = shared.log_clock.now(shared.applied.borrow().log_time);
        let proposals = commands
            .into_iter()
            .map(|command| Proposal::new(stamp, command));
        let results = shared
            .raft
            .client_write_many(proposals)
            .await
            .map_err(|fatal| stopped(&fatal))?;
        Ok(results
            .map(|result| match result {
                Ok(Ok(written)) => Ok(written.response),
                Ok(Err(error)) => Err(write_error(error)),
                Err(fatal) => Err(stopped(&fatal)),
            })
            .boxed())
    }
}

impl Shared {
    /// Refuses before the proposal, so that the caller knows for certain.
    fn check_may_propose(&self) -> Result<(), Error> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Error::Draining);
        }
        let leadership = self.leadership.borrow();
        if leadership.is_leader() {
            return Ok(());
        }
        Err(leadership
            .leader
            .clone()
            .map_or(Error::NoLeader, Error::NotLeader))
    }
}

/// What openraft said of a write that it had been given.
fn write_error(error: ClientWriteError<TypeConfig>) -> Error {
    match error {
        ClientWriteError::ForwardToLeader(forward)
        | ClientWriteError::LogEntryDiscarded(forward) => Error::LeadershipLost(hint(forward)),
        other => Error::Stopped(other.to_string()),
    }
}

/// The leader that an error of openraft's names.
pub(super) fn hint(forward: ForwardToLeader<TypeConfig>) -> Option<LeaderHint> {
    let node = NodeId::new(forward.leader_id?).ok()?;
    Some(LeaderHint {
        node,
        address: forward.leader_node?.address,
    })
}

/// openraft's core ended.
pub(super) fn stopped(fatal: &Fatal<TypeConfig>) -> Error {
    Error::Stopped(fatal.to_string())
}
