//! Why a node could not serve a request, and whether a write may have been applied all the same.

use std::sync::Arc;

use super::{BootstrapError, MembershipError, Shortage};
use crate::state::Fault;
use crate::storage;
use crate::types::{NodeId, Revision};

/// Why a node stopped by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Stopped {
    /// Its disk was full where it had to write. Nothing is damaged, and it can be started again at once.
    #[error("{0}")]
    NoSpace(String),
    /// openraft or the storage met another fault.
    #[error("{0}")]
    Fault(String),
    /// Its cluster does not know it.
    #[error(transparent)]
    Disowned(Arc<BootstrapError>),
}

impl Stopped {
    /// From what openraft or the storage said, which is nothing but a text.
    #[must_use]
    pub fn met(reason: String) -> Self {
        if storage::is_no_space(&reason) {
            Self::NoSpace(reason)
        } else {
            Self::Fault(reason)
        }
    }
}

/// The leader as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// Its id.
    pub node: NodeId,
    /// Where clients and peers dial it.
    pub address: String,
}

/// What is known about a write that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Certain: it was never proposed.
    NotApplied,
    /// It may be applied, now or later. Only a retry under the same request id is safe.
    Unknown,
}

/// Why a node could not serve a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another node leads. Raised before the proposal.
    #[error("node {} leads, not this one", .0.node)]
    NotLeader(LeaderHint),
    /// No node is known to lead. Raised before the proposal.
    #[error("no leader is known; an election may be under way")]
    NoLeader,
    /// Leadership was lost while the write was under way.
    #[error("leadership was lost while the write was under way; it may still be applied")]
    LeadershipLost(Option<LeaderHint>),
    /// The leader could not confirm its leadership with a quorum.
    #[error("the leader could not reach a quorum")]
    NoQuorum,
    /// The caller's deadline passed.
    #[error("the deadline passed")]
    Deadline {
        /// What a write must assume.
        outcome: Outcome,
    },
    /// The state is not as far as the read asks for, and the deadline passed.
    #[error("this node has revision {have}, the read asks for {want}")]
    Behind {
        /// What this node has.
        have: Revision,
        /// What was asked for.
        want: Revision,
    },
    /// The node is shutting down. Raised before the proposal.
    #[error("this node is shutting down")]
    Draining,
    /// The disks of too many nodes are full. Raised before the proposal.
    #[error("{0}")]
    NoSpace(Shortage),
    /// This leader's disk is full, and others' are not. Raised before the proposal.
    #[error("this leader's disk is nearly full; a node with more room is about to lead")]
    HandsOver,
    /// A leadership transfer did not take place.
    #[error("leadership was not transferred: {0}")]
    TransferFailed(String),
    /// The request names a node that is not a member.
    #[error("node {0} is not a voting member")]
    UnknownMember(u64),
    /// The members cannot be changed so.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The events that were asked for are forgotten.
    #[error(
        "the events of revision {asked} are no longer kept; the oldest are of revision {oldest}"
    )]
    EventsForgotten {
        /// What was asked for.
        asked: Revision,
        /// What is there.
        oldest: Revision,
    },
    /// A watcher fell behind what this node keeps in memory.
    #[error("the watcher reads too slowly; go on from revision {resume}")]
    WatcherTooSlow {
        /// The first revision that it was not told of.
        resume: Revision,
        /// The oldest revision whose events are kept.
        oldest: Revision,
    },
    /// This node has as many watchers as it takes.
    #[error("this node has {} watchers; use another", crate::limits::WATCHERS)]
    TooManyWatchers,
    /// The state machine or the storage stopped; the process ends with its own exit code.
    #[error("this node stopped: {0}")]
    Stopped(String),
    /// A read met damage.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Error {
    /// What a write that failed like this must assume.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            // It was added, as far as it goes.
            Self::Membership(MembershipError::Learning { .. })
            | Self::LeadershipLost(_)
            | Self::TransferFailed(_)
            | Self::Stopped(_)
            | Self::Fault(_) => Outcome::Unknown,
            Self::NotLeader(_)
            | Self::NoLeader
            | Self::NoQuorum
            | Self::Behind { .. }
            | Self::Draining
            | Self::NoSpace(_)
            | Self::HandsOver
            | Self::UnknownMember(_)
            | Self::Membership(_)
            | Self::EventsForgotten { .. }
            | Self::WatcherTooSlow { .. }
            | Self::TooManyWatchers => Outcome::NotApplied,
            Self::Deadline { outcome } => *outcome,
        }
    }
}
