//! What stops a node.

use crate::types::StateVersion;

/// The state machine cannot go on: a disk failed, bytes are damaged, or this replica differs from its leader.
/// Never a reply: the node stops and says so.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Stored or replicated bytes do not decode.
    #[error("{what} is damaged: {detail}")]
    Corrupt {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The store below failed.
    #[error("the state database failed: {0}")]
    Io(#[source] std::io::Error),
    /// The leader's digest differs from this replica's at the same place in the log.
    #[error(
        "this replica diverged: digest checkpoint {number} is {own:032x} here and {leader:032x} on the leader"
    )]
    Diverged {
        /// The checkpoint's number.
        number: u64,
        /// This replica's digest.
        own: u128,
        /// The leader's.
        leader: u128,
    },
    /// The state follows rules that this program does not know.
    #[error(
        "the state follows version {version}, and this program knows {newest} at most: run a newer trolley here, nothing is damaged"
    )]
    UnknownVersion {
        /// What it follows, or is about to.
        version: StateVersion,
        /// The newest that is known.
        newest: StateVersion,
    },
}

impl Fault {
    /// Damage.
    #[must_use]
    pub fn corrupt(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Corrupt {
            what,
            detail: detail.into(),
        }
    }
}
