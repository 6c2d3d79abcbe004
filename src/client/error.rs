//! Why a call failed, and what a write that failed must assume.

use std::collections::BTreeMap;

use tonic::Code;

use crate::proto::v1;
use crate::transport::said;

/// What is known about a write that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Certain: it was not applied and never will be.
    NotApplied,
    /// It may have been applied, and the answer was lost.
    Unknown,
}

/// A request that a node refused, for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", bracketed(.reason))]
pub struct Rejected {
    /// The gRPC status code.
    pub code: Code,
    /// The stable reason, for programs; empty if something else than a node answered.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Details, by name: limits, the actual revision.
    pub metadata: BTreeMap<String, String>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node refused the request, and would again.
    #[error(transparent)]
    Rejected(Box<Rejected>),
    /// No node could take the request before the deadline passed.
    #[error("no node could serve the request in time: {problem}")]
    Unavailable {
        /// What a write must assume.
        outcome: Outcome,
        /// What was in the way last.
        problem: String,
    },
    /// The deadline passed while a node worked on the request.
    #[error("the deadline passed before the answer came: {problem}")]
    Deadline {
        /// What a write must assume.
        outcome: Outcome,
        /// Which node it was, and what was in the way before.
        problem: String,
    },
    /// An endpoint is malformed.
    #[error("endpoint {endpoint:?}: {problem}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A node answered something else than it was asked.
    #[error("a node answered with another message than the one that was asked for")]
    Protocol,
    /// The system has no randomness to draw an identity from.
    #[error("the system has no randomness")]
    Randomness(#[from] getrandom::Error),
    /// The client was closed.
    #[error("the client is closed")]
    Closed {
        /// What a write must assume.
        outcome: Outcome,
    },
}

impl Error {
    /// The same call may succeed later. Whether it is *safe* to repeat a write, [`Error::outcome`] tells: a repeated call
    /// is a new write.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Deadline { .. } => true,
            Self::Rejected(rejected) => matches!(
                rejected.code,
                Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted
            ),
            Self::Endpoint { .. } | Self::Protocol | Self::Randomness(_) | Self::Closed { .. } => {
                false
            }
        }
    }

    /// What a write that failed so must assume. A read changes nothing, and none is said to have.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Rejected(rejected) => rejected.outcome(),
            Self::Unavailable { outcome, .. }
            | Self::Deadline { outcome, .. }
            | Self::Closed { outcome } => *outcome,
            Self::Protocol => Outcome::Unknown,
            Self::Endpoint { .. } | Self::Randomness(_) => Outcome::NotApplied,
        }
    }

    /// The node's refusal, if it is one.
    #[must_use]
    pub fn rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Rejected(rejected) => Some(rejected),
            _ => None,
        }
    }

    /// The stable reason of a refusal.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        Some(&self.rejected()?.reason)
    }

    /// What was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.has_code(&[Code::NotFound])
    }

    /// The request contradicts what is stored: it exists already, or is at another revision.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.has_code(&[Code::AlreadyExists, Code::Aborted, Code::FailedPrecondition])
    }

    /// The request is malformed or beyond a limit.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Endpoint { .. }) || self.has_code(&[Code::InvalidArgument])
    }

    fn has_code(&self, codes: &[Code]) -> bool {
        self.rejected()
            .is_some_and(|rejected| codes.contains(&rejected.code))
    }
}

fn bracketed(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

impl Rejected {
    /// What a write that was refused so must assume.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.metadata.get("outcome").map(String::as_str) {
            Some("not_applied") => Outcome::NotApplied,
            Some(_) => Outcome::Unknown,
            None => outcome_of_code(self.code),
        }
    }

    /// What a node would say of a request that is too large to be sent.
    pub(super) fn too_large(actual: usize, limit: usize) -> Self {
        let message = format!("the request is {actual} bytes long, at most {limit} are allowed");
        Self::beyond("FIELD_TOO_LONG", limit, message)
    }

    /// What a node would say of a request with too many actions or operations.
    pub(super) fn too_many(actual: usize, limit: usize) -> Self {
        let message = format!("the request has {actual} parts, at most {limit} are allowed");
        Self::beyond("TOO_MANY", limit, message)
    }

    fn beyond(reason: &str, limit: usize, message: String) -> Self {
        let metadata = [
            ("field", "request".to_owned()),
            ("limit", limit.to_string()),
            ("outcome", "not_applied".to_owned()),
        ];
        Self {
            code: Code::InvalidArgument,
            reason: reason.to_owned(),
            message,
            metadata: metadata.map(|(k, v)| (k.to_owned(), v)).into(),
        }
    }

    /// The refusal of one attempt, after others that left this outcome. A node's own refusal of a write holds for all
    /// attempts, because it is the stored reply or would be everywhere the same. One that came from elsewhere, without
    /// a reason, says nothing about earlier attempts, nor does one for want of room: an earlier attempt may be on its way.
    pub(super) fn after(mut self, earlier: Outcome) -> Self {
        let of_this_attempt = self.reason.is_empty() || self.reason == "NO_SPACE";
        if earlier == Outcome::Unknown && of_this_attempt {
            let unknown = "unknown".to_owned();
            self.metadata.insert("outcome".to_owned(), unknown);
        }
        self
    }

    /// Another attempt of the same request, perhaps on another node, may fare better.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::DeadlineExceeded)
            || matches!(
                self.reason.as_str(),
                "CLIENT_WINDOW_FULL" | "FAULT" | "NO_RANDOMNESS"
            )
    }

    /// Of the state that a look led to this, as far as a unary call's refusal says; otherwise 0.
    pub(super) fn revision(&self) -> u64 {
        let revision = self.metadata.get("revision");
        revision.and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    /// The leader that the node named.
    pub(super) fn leader(&self) -> Option<(u64, &str)> {
        let id = self.metadata.get("leader_id")?.parse().ok()?;
        Some((id, self.metadata.get("leader_address")?))
    }
}

/// For an answer without details: a proxy's, or a version's that this client does not know. Only a code that says that
/// the request itself is at fault proves anything.
fn outcome_of_code(code: Code) -> Outcome {
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Outcome::NotApplied,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Outcome::Unknown,
    }
}

impl From<v1::Failure> for Rejected {
    fn from(failure: v1::Failure) -> Self {
        Self {
            code: Code::from_i32(failure.code),
            reason: failure.reason,
            message: failure.message,
            metadata: failure.metadata,
        }
    }
}

impl From<tonic::Status> for Rejected {
    fn from(status: tonic::Status) -> Self {
        use tonic_types::StatusExt as _;
        let info = status.get_details_error_info();
        let (reason, metadata) = info.map_or_else(Default::default, |info| {
            (info.reason, info.metadata.into_iter().collect())
        });
        Self {
            code: status.code(),
            reason,
            message: said(&status),
            metadata,
        }
    }
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(Box::new(rejected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(code: Code, reason: &str, outcome: Option<&str>) -> Error {
        let metadata = outcome.map(|outcome| ("outcome".to_owned(), outcome.to_owned()));
        Error::from(Rejected {
            code,
            reason: reason.to_owned(),
            message: String::new(),
            metadata: metadata.into_iter().collect(),
        })
    }

    #[test]
    fn every_error_tells_whether_to_retry_and_what_to_assume() {
        use Outcome::{NotApplied, Unknown};
        let unavailable = |outcome| Error::Unavailable {
            outcome,
            problem: String::new(),
        };
        let table = [
            (unavailable(NotApplied), true, NotApplied),
            (unavailable(Unknown), true, Unknown),
            (
                Error::Deadline {
                    outcome: Unknown,
                    problem: String::new(),
                },
                true,
                Unknown,
            ),
            (Error::Closed { outcome: Unknown }, false, Unknown),
            (Error::Protocol, false, Unknown),
            (
                rejected(Code::NotFound, "KEY_NOT_FOUND", Some("not_applied")),
                false,
                NotApplied,
            ),
            (
                rejected(
                    Code::FailedPrecondition,
                    "SEQUENCE_CONFIRMED",
                    Some("unknown"),
                ),
                false,
                Unknown,
            ),
            (rejected(Code::InvalidArgument, "", None), false, NotApplied),
            (rejected(Code::Aborted, "", None), false, NotApplied),
            (rejected(Code::Internal, "", None), false, Unknown),
            (rejected(Code::Unavailable, "", None), true, Unknown),
            (
                rejected(Code::Unavailable, "TRANSFER_FAILED", Some("not_applied")),
                true,
                NotApplied,
            ),
            (
                rejected(Code::Unknown, "", Some("nonsense")),
                false,
                Unknown,
            ),
        ];
        for (error, retryable, outcome) in table {
            assert_eq!(error.is_retryable(), retryable, "{error:?}");
            assert_eq!(error.outcome(), outcome, "{error:?}");
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let of = |code| rejected(code, "", None);
        assert!(of(Code::NotFound).is_not_found());
        assert!(of(Code::AlreadyExists).is_conflict());
        assert!(of(Code::Aborted).is_conflict());
        assert!(of(Code::InvalidArgument).is_invalid());
        assert!(!of(Code::Internal).is_conflict());
    }

    #[test]
    fn a_failure_and_a_status_say_the_same() {
        use tonic_types::{ErrorDetails, StatusExt as _};
        let metadata = [("leader_id", "2"), ("leader_address", "b:2")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let failure = Rejected::from(v1::Failure {
            code: Code::Unavailable.into(),
            reason: "NOT_LEADER".to_owned(),
            message: "no".to_owned(),
            metadata: metadata.clone().into(),
        });
        let details = ErrorDetails::with_error_info(
            "NOT_LEADER",
            "trolley",
            std::collections::HashMap::from(metadata),
        );
        let status = tonic::Status::with_error_details(Code::Unavailable, "no", details);
        assert_eq!(Rejected::from(status), failure);
        assert_eq!(failure.leader(), Some((2, "b:2")));
        assert!(failure.is_transient());
    }
}
