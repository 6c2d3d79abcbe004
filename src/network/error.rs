//! What can go wrong on the way to a peer, and what openraft is told of it.

use std::time::Duration;

use openraft::RPCTypes;
use openraft::errors::{NetworkError, RPCError, Timeout, Unreachable};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::envelope::{INITIAL_CLUSTER_DIFFERS, WRONG_CLUSTER, WRONG_NODE, WRONG_SHARD};
use crate::raft::TypeConfig;

/// A call to a peer failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or the peer is shutting down. Asking again at once is of no use.
    #[error("the peer is unreachable: {0}")]
    Unreachable(#[source] Box<Status>),
    /// The connection broke in the middle of the call.
    #[error("the connection to the peer broke: {0}")]
    Broken(#[source] Box<Status>),
    /// No answer in time.
    #[error("the peer did not answer within {0:?}")]
    Timeout(Duration),
    /// The peer does not accept this node, or is not the one that was meant.
    #[error("the peer refused ({reason}): {message}")]
    Refused {
        /// A stable name in capitals.
        reason: String,
        /// The peer's explanation.
        message: String,
    },
    /// The peer answered what this version does not understand, or with an error of its own.
    #[error("the peer failed: {0}")]
    Failed(String),
    /// The address of a member is not one.
    #[error("the address {0:?} cannot be dialled")]
    Address(String),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable => Self::Unreachable(Box::new(status)),
            Code::FailedPrecondition => match refusal_of(&status) {
                Some(reason) => Self::Refused {
                    reason,
                    message: status.message().to_owned(),
                },
                None => Self::Failed(status.to_string()),
            },
            // What h2 and hyper report when a connection or stream ends before the answer. Nothing here sends
            // these codes on purpose.
            Code::Unknown | Code::Cancelled | Code::Internal | Code::Aborted => {
                Self::Broken(Box::new(status))
            }
            _ => Self::Failed(status.to_string()),
        }
    }
}

fn refusal_of(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    [
        WRONG_CLUSTER,
        WRONG_NODE,
        WRONG_SHARD,
        INITIAL_CLUSTER_DIFFERS,
    ]
    .contains(&info.reason.as_str())
    .then_some(info.reason)
}

impl Error {
    /// A new node was greeted that was started with another `--initial-cluster`.
    #[must_use]
    pub fn is_initial_cluster_differs(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == INITIAL_CLUSTER_DIFFERS)
    }

    /// What openraft is told: it asks again at once after `Network` and `Timeout`, and backs off after
    /// `Unreachable`. `Failed` backs off too, since the same request would fail again.
    pub(super) fn into_rpc(
        self,
        action: RPCTypes,
        source: u64,
        target: u64,
    ) -> RPCError<TypeConfig> {
        match self {
            Self::Timeout(timeout) => RPCError::Timeout(Timeout {
                action,
                id: source,
                target,
                timeout,
            }),
            Self::Broken(_) => RPCError::Network(NetworkError::from_string(self)),
            Self::Unreachable(_) | Self::Refused { .. } | Self::Failed(_) | Self::Address(_) => {
                RPCError::Unreachable(Unreachable::from_string(self))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_backs_off_only_where_asking_again_is_of_no_use() {
        let cases = [
            (Status::unavailable(""), "unreachable"),
            (Status::failed_precondition(""), "unreachable"),
            (Status::invalid_argument(""), "unreachable"),
            (Status::resource_exhausted(""), "unreachable"),
            (Status::unimplemented(""), "unreachable"),
            (Status::unknown(""), "network"),
            (Status::cancelled(""), "network"),
            (Status::internal(""), "network"),
            (Status::aborted(""), "network"),
        ];
        for (status, expected) in cases {
            let code = status.code();
            let told = match Error::from(status).into_rpc(RPCTypes::Vote, 1, 2) {
                RPCError::Unreachable(_) => "unreachable",
                RPCError::Network(_) => "network",
                RPCError::Timeout(_) => "timeout",
                RPCError::RemoteError(_) => "remote",
            };
            assert_eq!(told, expected, "{code:?}");
        }
    }
}
