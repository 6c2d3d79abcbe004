//! What a caller is told about a failure: problem details as RFC 9457 has them, with the reasons that gRPC gives.
//!
//! [`Problem::from`] is the one mapping from the client's errors to HTTP. What the store refuses is told in its own words;
//! what went wrong between here and there is told in general, because addresses of nodes are nobody's business.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tonic::Code;
use utoipa::ToSchema;

use super::auth::Scope;
use crate::client::{Error, Outcome, Rejected};

/// Metadata of the store that names its nodes.
const INTERNAL: &[&str] = &["leader_id", "leader_address", "node_ids", "outcome"];

/// A failure of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    reason: String,
    detail: String,
    outcome: Outcome,
    retryable: bool,
    metadata: BTreeMap<String, String>,
}

/// The same as it is sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDetails {
    /// Names the reason as a URI.
    #[serde(rename = "type")]
    #[schema(example = "urn:trolley:problem:KEY_NOT_FOUND")]
    uri: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// For people.
    detail: String,
    /// For programs: stable, and the same as over gRPC.
    #[schema(example = "KEY_NOT_FOUND")]
    reason: String,
    /// The same request may succeed later.
    retryable: bool,
    /// What a write must assume: `not_applied` is certain, `unknown` calls for a retry under the same `Idempotency-Key`.
    outcome: OutcomeWord,
    /// Limits, the actual revision, and whatever else a program may need.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OutcomeWord {
    NotApplied,
    Unknown,
}

impl Problem {
    /// A request that was refused here, and went nowhere.
    pub fn new(status: StatusCode, reason: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.to_owned(),
            detail: detail.into(),
            outcome: Outcome::NotApplied,
            retryable: false,
            metadata: BTreeMap::new(),
        }
    }

    /// Whoever calls may try again.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// What a write must assume.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// The one answer to every token that is not good, and to none.
    #[must_use]
    pub fn unauthenticated() -> Self {
        let detail = "a bearer token is needed that this gateway's issuer made for it, and that is valid now";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", detail)
    }

    /// The token is good, and does not allow this.
    #[must_use]
    pub fn forbidden(needed: Scope) -> Self {
        let mut problem = Self::new(
            StatusCode::FORBIDDEN,
            "PERMISSION_DENIED",
            "the token does not allow this",
        );
        let needed = needed.name().to_owned();
        problem.metadata.insert("scope".to_owned(), needed);
        problem
    }

    /// Something in the request has the wrong form.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED", detail)
    }

    /// Nothing is here.
    #[must_use]
    pub fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ROUTE_NOT_FOUND",
            "there is no such route",
        )
    }

    /// There is, for other methods.
    #[must_use]
    pub fn no_method() -> Self {
        let detail = "the route has other methods";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
    }

    /// The request took longer than it may.
    #[must_use]
    pub fn too_slow() -> Self {
        let detail = "the request took longer than this gateway waits";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", detail)
            .retryable()
            .with_outcome(Outcome::Unknown)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn details(self) -> ProblemDetails {
        ProblemDetails {
            uri: format!("urn:trolley:problem:{}", self.reason),
            title: self
                .status
                .canonical_reason()
                .unwrap_or("Failure")
                .to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            reason: self.reason,
            retryable: self.retryable,
            outcome: match self.outcome {
                Outcome::NotApplied => OutcomeWord::NotApplied,
                Outcome::Unknown => OutcomeWord::Unknown,
            },
            metadata: self.metadata,
        }
    }

    /// As JSON, where there is no response to put it in.
    #[must_use]
    pub fn into_json(self) -> String {
        serde_json::json!(self.details()).to_string()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        const JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
        let status = self.status;
        let waits = self.retryable
            && matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            );
        let mut response = (status, Json(self.details())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if waits {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (outcome, retryable) = (error.outcome(), error.is_retryable());
        let problem = match error {
            Error::Rejected(rejected) => return Self::from(*rejected),
            Error::Unavailable { problem, .. } => {
                tracing::warn!(problem, "the store could not serve a request in time");
                let detail = "no node of the store could take the request in time";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE", detail)
            }
            Error::Deadline { .. } => Self::too_slow(),
            Error::Closed { .. } => {
                let detail = "this gateway is shutting down: use another";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "DRAINING", detail).retryable()
            }
            Error::Endpoint { .. } | Error::Protocol | Error::Randomness(_) => {
                tracing::error!(%error, "a request failed in a way that it should not");
                Self::failed()
            }
        };
        Self {
            retryable: retryable || problem.retryable,
            ..problem
        }
        .with_outcome(outcome)
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let outcome = rejected.outcome();
        let status = status(rejected.code, &rejected.reason);
        let error = Error::from(rejected.clone());
        if status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE {
            tracing::warn!(%error, "the store refused a request that it might have taken");
        }
        let is_internal = rejected.reason.is_empty() || status == StatusCode::BAD_GATEWAY;
        let mut problem = if is_internal {
            Self::failed()
        } else {
            Self::new(status, &rejected.reason, rejected.message)
        };
        problem.status = status;
        problem.retryable = error.is_retryable();
        problem.metadata = rejected.metadata;
        problem
            .metadata
            .retain(|name, _| !INTERNAL.contains(&name.as_str()));
        if matches!(
            rejected.code,
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted
        ) {
            general(status).clone_into(&mut problem.detail);
        }
        problem.with_outcome(outcome)
    }
}

impl Problem {
    fn failed() -> Self {
        let detail = "the store failed; its operators find the reason in the log";
        Self::new(StatusCode::BAD_GATEWAY, "STORE_FAILED", detail)
    }
}

/// What the store's own words would say of its nodes.
fn general(status: StatusCode) -> &'static str {
    match status {
        StatusCode::INSUFFICIENT_STORAGE => "the store has no room left: deletes and reads go on",
        StatusCode::GATEWAY_TIMEOUT => "the deadline passed",
        _ => "the store cannot take the request now",
    }
}

/// The HTTP status of a refusal.
fn status(code: Code, reason: &str) -> StatusCode {
    match (code, reason) {
        // What HTTP has statuses of its own for.
        (_, "REVISION_MISMATCH" | "KEY_EXISTS") => StatusCode::PRECONDITION_FAILED,
        (_, "REQUEST_ID_REUSED") => StatusCode::UNPROCESSABLE_ENTITY,
        (_, "NO_SPACE") => StatusCode::INSUFFICIENT_STORAGE,
        (Code::InvalidArgument, _) => StatusCode::BAD_REQUEST,
        (Code::NotFound, _) => StatusCode::NOT_FOUND,
        (Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition, _) => StatusCode::CONFLICT,
        (Code::OutOfRange, _) => StatusCode::GONE,
        (Code::ResourceExhausted | Code::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Code::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
        (
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss,
            _,
        ) => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(code: Code, reason: &str) -> Problem {
        let metadata = [
            ("leader_address", "10.0.0.1:7400"),
            ("node_ids", "1,2"),
            ("outcome", "not_applied"),
            ("actual_revision", "7"),
        ];
        Problem::from(Rejected {
            code,
            reason: reason.to_owned(),
            message: "words of 10.0.0.1:7400".to_owned(),
            metadata: metadata
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
        })
    }

    #[test]
    fn every_code_has_its_status() {
        let table = [
            (Code::InvalidArgument, "FIELD_TOO_LONG", 400),
            (Code::NotFound, "KEY_NOT_FOUND", 404),
            (Code::AlreadyExists, "SESSION_EXISTS", 409),
            (Code::AlreadyExists, "KEY_EXISTS", 412),
            (Code::Aborted, "REVISION_MISMATCH", 412),
            (Code::Aborted, "SAVE_CONFLICT", 409),
            (Code::FailedPrecondition, "CART_FROZEN", 409),
            (Code::FailedPrecondition, "REQUEST_ID_REUSED", 422),
            (Code::OutOfRange, "COMPACTED", 410),
            (Code::ResourceExhausted, "NO_SPACE", 507),
            (Code::ResourceExhausted, "WATCHERS_LIMIT", 503),
            (Code::Unavailable, "NO_QUORUM", 503),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 504),
            (Code::Internal, "FAULT", 502),
            (Code::Unimplemented, "", 502),
            (Code::PermissionDenied, "", 502),
            (Code::Unauthenticated, "", 502),
            (Code::Cancelled, "", 502),
            (Code::Unknown, "", 502),
            (Code::DataLoss, "", 502),
            (Code::Ok, "", 502),
        ];
        for (code, reason, expected) in table {
            let problem = rejected(code, reason);
            assert_eq!(problem.status().as_u16(), expected, "{code:?} {reason}");
            if expected != 502 {
                assert_eq!(problem.reason(), reason);
            }
        }
    }

    #[test]
    fn nobody_is_told_where_nodes_are() {
        for code in [Code::Unavailable, Code::Internal, Code::DeadlineExceeded] {
            let json = rejected(code, "NOT_LEADER").into_json();
            assert!(!json.contains("10.0.0.1"), "{json}");
            assert!(!json.contains("node_ids"), "{json}");
        }
        let mismatch = rejected(Code::Aborted, "REVISION_MISMATCH").into_json();
        assert!(mismatch.contains(r#""actual_revision":"7""#), "{mismatch}");
    }

    #[test]
    fn errors_of_the_client_tell_what_a_write_must_assume() {
        let unknown = Outcome::Unknown;
        let unavailable = Error::Unavailable {
            outcome: unknown,
            problem: "10.0.0.1:7400: no answer".to_owned(),
        };
        let table = [
            (unavailable, 503, "STORE_UNAVAILABLE", true),
            (
                Error::Deadline {
                    outcome: unknown,
                    problem: String::new(),
                },
                504,
                "DEADLINE_EXCEEDED",
                true,
            ),
            (Error::Closed { outcome: unknown }, 503, "DRAINING", true),
            (Error::Protocol, 502, "STORE_FAILED", false),
        ];
        for (error, status, reason, retryable) in table {
            let problem = Problem::from(error);
            assert_eq!(problem.status().as_u16(), status, "{problem:?}");
            assert_eq!(problem.reason(), reason);
            assert_eq!(problem.retryable, retryable, "{problem:?}");
            let json = problem.into_json();
            assert!(json.contains(r#""outcome":"unknown""#), "{json}");
            assert!(!json.contains("10.0.0.1"), "{json}");
        }
    }

    #[test]
    fn whoever_may_come_back_is_told_when() {
        let busy = rejected(Code::Unavailable, "NO_LEADER").into_response();
        assert_eq!(busy.headers()[RETRY_AFTER], "1");
        let refused = Problem::unauthenticated().into_response();
        assert_eq!(refused.headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(refused.headers()[CONTENT_TYPE], "application/problem+json");
    }
}
