//! What can go wrong on the way to a peer, and what openraft is told of it.

use std::error::Error as _;
use std::time::Duration;

use openraft::RPCTypes;
use openraft::errors::{NetworkError, RPCError, Timeout, Unreachable};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::envelope::{INITIAL_CLUSTER_DIFFERS, WRONG_CLUSTER, WRONG_NODE, WRONG_SHARD};
use crate::raft::TypeConfig;
use crate::transport::{root_cause, said};

/// A call to a peer failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or the peer is shutting down. Asking again at once is of no use.
    #[error("the peer is unreachable: {}", cause(.0))]
    Unreachable(#[source] Box<Status>),
    /// The connection broke in the middle of the call.
    #[error("the connection to the peer broke: {}", cause(.0))]
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
                None => Self::Failed(cause(&status)),
            },
            // What h2 and hyper report when a connection or stream ends before the answer. Nothing here sends
            // these codes on purpose.
            Code::Unknown | Code::Cancelled | Code::Internal | Code::Aborted => {
                Self::Broken(Box::new(status))
            }
            _ => Self::Failed(cause(&status)),
        }
    }
}

/// What a person wants to know of a status: what the system said where the transport failed, or else what the peer said. All that is
/// between is how the transport is built.
fn cause(status: &Status) -> String {
    match status.source() {
        Some(source) => root_cause(source),
        None => said(status),
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
    use std::io;

    use super::*;
    use crate::network::{Pool, Timing};
    use crate::proto::internal as pb;

    #[tokio::test]
    async fn nobody_listens_is_said_in_a_few_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let pool = Pool::new(Timing::default());
        let deadline = Duration::from_secs(30);
        let answer = pool
            .hello(&address, pb::HelloRequest::default(), deadline)
            .await;
        let error = answer.expect_err("nobody is there");
        let refused = "the peer is unreachable: Connection refused (os error 111)";
        assert_eq!(error.to_string(), refused);
    }

    #[test]
    fn the_root_of_a_failure_is_told() {
        let told = |status| Error::from(status).to_string();
        let broken = io::Error::new(io::ErrorKind::ConnectionReset, "reset");
        let outer = Status::from_error(Box::new(io::Error::other(broken)));
        assert_eq!(told(outer), "the connection to the peer broke: reset");
        let said = Status::unavailable("this node is shutting down");
        assert_eq!(
            told(said),
            "the peer is unreachable: this node is shutting down"
        );
        let silent = told(Status::unimplemented(""));
        assert!(silent.starts_with("the peer failed: "), "{silent}");
        assert!(silent.len() > "the peer failed: ".len(), "{silent}");
    }

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
