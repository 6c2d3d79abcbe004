//! Reads: wait until the local state is as new as the caller asks, then look at it.
//!
//! A linearizable read on the leader waits for one `ReadIndex` round of openraft's, which every read that waits at
//! the same time shares. On a follower the leader is asked for the read index, and the local state machine
//! waits for it (Raft dissertation, §6.4).

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use tokio::time::{Instant, timeout_at};

use super::propose::{hint, stopped};
use super::{Error, Node, Outcome, Shared};
use crate::raft::{LogId, TypeConfig};
use crate::state::Fault;
use crate::storage::machine::StateView;
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

impl Node {
    /// Waits until a look at this node's state satisfies `mode`.
    pub async fn read_barrier(&self, mode: ReadMode, deadline: Instant) -> Result<(), Error> {
        match mode {
            ReadMode::Stale => Ok(()),
            ReadMode::AtLeast(want) => self.shared.wait_for_revision(want, deadline).await,
            ReadMode::Linearizable => {
                let read_index = timeout_at(deadline, self.shared.confirmed_read_index(deadline))
                    .await
                    .map_err(|_| Error::Deadline {
                        outcome: Outcome::NotApplied,
                    })??;
                self.shared.wait_for_applied(read_index, deadline).await
            }
        }
    }

    /// Looks at one consistent view. The revision is exactly that of the view.
    pub fn view<T>(
        &self,
        look: impl FnOnce(&StateView<'_>) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Error> {
        Ok(self.shared.state.view(look)?)
    }

    /// On the leader: the log id that a linearizable read must have applied.
    pub async fn read_index(&self) -> Result<LogId, Error> {
        self.shared.leader_read_index(READ_INDEX_TIMEOUT).await
    }
}

/// How long the leader tries to hear from a quorum for a follower's read.
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(2);

impl Shared {
    async fn confirmed_read_index(&self, deadline: Instant) -> Result<u64, Error> {
        let leader = {
            let leadership = self.leadership.borrow();
            if leadership.is_leader() {
                None
            } else {
                Some(leadership.leader.clone().ok_or(Error::NoLeader)?)
            }
        };
        match leader {
            None => {
                let patience = deadline.saturating_duration_since(Instant::now());
                Ok(self.leader_read_index(patience).await?.index)
            }
            Some(leader) => self.peers.read_index(&leader).await,
        }
    }

    async fn leader_read_index(&self, patience: Duration) -> Result<LogId, Error> {
        let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(patience);
        let linearizer = self
            .raft
            .get_read_linearizer(option)
            .await
            .map_err(read_error)?;
        Ok(*linearizer.read_log_id().log_id())
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

fn read_error(error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> Error {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            hint(forward).map_or(Error::NoLeader, Error::NotLeader)
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => Error::NoQuorum,
        RaftError::Fatal(fatal) => stopped(&fatal),
    }
}
