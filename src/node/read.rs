//! Reads: wait until the local state is as new as the caller asks, then look at it.
//!
//! A linearizable read joins the next round of [`super::rounds`]: a `ReadIndex` round of openraft's on the leader; on a
//! follower the leader is asked for the read index, and the local state machine waits for it (Raft dissertation, §6.4).

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use tokio::time::{Instant, timeout_at};

use super::propose::hint;
use super::rounds::{PATIENCE, Unconfirmed};
use super::{Base, Error, Node, Outcome, Shared};
use crate::planted::{self, Bug};
use crate::raft::{self, LogId, TypeConfig};
use crate::state::Fault;
use crate::types::Revision;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// Sees every write acknowledged before it began.
    Linearizable,
    /// Sees at least this revision.
    AtLeast(Revision),
    /// Sees whatever this node has.
    Stale,
}

impl<B: Base> Node<B> {
    /// Waits until a look at this node's state satisfies `mode`.
    pub async fn read_barrier(&self, mode: ReadMode, deadline: Instant) -> Result<(), Error> {
        match mode {
            ReadMode::Stale => Ok(()),
            ReadMode::AtLeast(want) => self.shared.wait_for_revision(want, deadline).await,
            ReadMode::Linearizable if self.shared.asks_nobody() => Ok(()),
            ReadMode::Linearizable => {
                let read_index = self.shared.join_round(deadline).await?;
                self.shared.wait_for_applied(read_index, deadline).await
            }
        }
    }

    /// Looks at one consistent view. The revision is exactly that of the view. A fault is the end of the node.
    pub fn view<T>(
        &self,
        look: impl FnOnce(&B::View<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Error> {
        let seen = self.shared.base.view(look);
        seen.map_err(|fault| self.shared.halt(fault).into())
    }

    /// On the leader: the log id that a linearizable read must have applied. Whoever asks may hang up.
    pub async fn read_index(&self) -> Result<LogId, Error> {
        let shared = Arc::clone(&self.shared);
        let asked = async move { shared.leader_read_index().await };
        Ok(raft::ask(&self.shared.tasks, asked).await?)
    }
}

impl<B: Base> Shared<B> {
    /// One round: what a linearizable read that waits for it must have applied.
    pub(super) async fn confirm_read_index(&self) -> Result<u64, Unconfirmed> {
        let leader = {
            let leadership = self.leadership.borrow();
            if leadership.is_leader() {
                None
            } else {
                Some(leadership.leader.clone().ok_or(Unconfirmed::NoLeader)?)
            }
        };
        match leader {
            None => Ok(self.leader_read_index().await?.index),
            Some(leader) => self.base.ask_read_index(&leader).await,
        }
    }

    /// A bug that may have been planted.
    fn asks_nobody(&self) -> bool {
        let leads = self.leadership.borrow().is_leader();
        planted::has(if leads {
            Bug::LeaderReads
        } else {
            Bug::FollowerReads
        })
    }

    async fn leader_read_index(&self) -> Result<LogId, Unconfirmed> {
        // Before the index is asked for, see `confirm`.
        let ballot = self.ballot();
        // Of a leader whose heartbeats are answered, openraft says at once what it has committed.
        let index = self.raft.get_read_linearizer(ReadPolicy::LeaseRead);
        let (index, is_confirmed) = tokio::join!(index, self.holds_majority(&ballot));
        if let (Ok(linearizer), true) = (&index, is_confirmed) {
            return Ok(*linearizer.read_log_id().log_id());
        }
        let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(PATIENCE);
        let linearizer = self.raft.get_read_linearizer(option).await;
        Ok(*linearizer.map_err(unconfirmed)?.read_log_id().log_id())
    }

    async fn wait_for_applied(&self, index: u64, deadline: Instant) -> Result<(), Error> {
        let mut applied = self.applied.clone();
        match timeout_at(deadline, applied.wait_for(|at| at.log_index >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped("the state machine ended".to_owned())),
            Err(_) => Err(Error::Deadline {
                outcome: Outcome::NotApplied,
            }),
        }
    }

    async fn wait_for_revision(&self, want: Revision, deadline: Instant) -> Result<(), Error> {
        let mut applied = self.applied.clone();
        match timeout_at(deadline, applied.wait_for(|at| at.revision >= want)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped("the state machine ended".to_owned())),
            Err(_) => Err(Error::Behind {
                have: self.applied.borrow().revision,
                want,
            }),
        }
    }
}

fn unconfirmed(error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> Unconfirmed {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            hint(forward).map_or(Unconfirmed::NoLeader, Unconfirmed::NotLeader)
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => Unconfirmed::NoQuorum,
        RaftError::Fatal(fatal) => fatal.into(),
    }
}
