//! Every error, what it becomes, and that the table has no rows that nothing raises.

use std::collections::BTreeSet;

use super::*;
use crate::node::{MembershipError, Shortage};
use crate::state::{Fault, TtlKind};
use crate::types::{HolderId, LogTime, NodeId, Revision, StateVersion};

fn leader() -> LeaderHint {
    LeaderHint {
        node: NodeId::new(2).expect("not 0"),
        address: "host:7400".to_owned(),
    }
}

/// An error, its reason, code and outcome, and some of its metadata.
type Row = (
    Error,
    &'static str,
    Code,
    &'static str,
    &'static [(&'static str, &'static str)],
);

#[expect(clippy::too_many_lines, reason = "a table")]
fn every_error() -> Vec<Row> {
    let field = "key";
    let invalid = |invalid: Invalid| Error::Invalid(invalid);
    let refused = |rejection: Rejection| Error::Rejected(rejection);
    let actual = Revision::new(9);
    let node = NodeId::new(4).expect("not 0");
    let (no, unknown) = ("not_applied", "unknown");
    vec![
        (
            invalid(Invalid::Empty { field }),
            "EMPTY_FIELD",
            Code::InvalidArgument,
            no,
            &[("field", "key")],
        ),
        (
            invalid(Invalid::TooLong {
                field,
                limit: 5,
                actual: 6,
            }),
            "FIELD_TOO_LONG",
            Code::InvalidArgument,
            no,
            &[("limit", "5")],
        ),
        (
            invalid(Invalid::TooMany {
                field,
                limit: 5,
                actual: 6,
            }),
            "TOO_MANY",
            Code::InvalidArgument,
            no,
            &[("limit", "5")],
        ),
        (
            invalid(Invalid::OutOfRange {
                field,
                min: 1,
                max: 2,
                actual: 3,
            }),
            "OUT_OF_RANGE",
            Code::InvalidArgument,
            no,
            &[("min", "1"), ("max", "2")],
        ),
        (
            invalid(Invalid::Malformed {
                field,
                expected: "x",
            }),
            "MALFORMED",
            Code::InvalidArgument,
            no,
            &[("field", "key")],
        ),
        (
            invalid(Invalid::Exclusive {
                first: "a",
                second: "b",
            }),
            "EXCLUSIVE_FIELDS",
            Code::InvalidArgument,
            no,
            &[("field", "a")],
        ),
        (
            Error::BadCursor,
            "BAD_CURSOR",
            Code::InvalidArgument,
            no,
            &[],
        ),
        (
            Error::TokenRequired,
            "EMPTY_FIELD",
            Code::InvalidArgument,
            no,
            &[],
        ),
        (
            refused(Rejection::SessionNotFound),
            "SESSION_NOT_FOUND",
            Code::NotFound,
            no,
            &[],
        ),
        (
            refused(Rejection::SessionExists),
            "SESSION_EXISTS",
            Code::AlreadyExists,
            no,
            &[],
        ),
        (
            refused(Rejection::SessionFieldsLimit { limit: 256 }),
            "SESSION_FIELDS_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "256")],
        ),
        (
            refused(Rejection::SessionBytesLimit { limit: 262_144 }),
            "SESSION_BYTES_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "262144")],
        ),
        (
            refused(Rejection::SessionEnded),
            "SESSION_ENDED",
            Code::AlreadyExists,
            no,
            &[],
        ),
        (
            refused(Rejection::SessionsLimit { limit: 3 }),
            "SESSIONS_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "3")],
        ),
        (
            refused(Rejection::TtlTooShort {
                ttl: TtlKind::Idle,
                min: 5,
            }),
            "SESSION_TTL_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("field", "idle_ttl_ms"), ("min", "5")],
        ),
        (
            refused(Rejection::TtlTooLong {
                ttl: TtlKind::Absolute,
                max: 9,
            }),
            "SESSION_TTL_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("field", "absolute_ttl_ms"), ("max", "9")],
        ),
        (
            Error::SaveConflict {
                fields: vec!["a\"b".to_owned(), "c".repeat(2048)],
                actual,
            },
            "SAVE_CONFLICT",
            Code::Aborted,
            no,
            &[
                ("fields", r#"["a\"b"]"#),
                ("conflicts", "2"),
                ("actual_revision", "9"),
            ],
        ),
        (
            refused(Rejection::CartLineNotFound),
            "CART_LINE_NOT_FOUND",
            Code::NotFound,
            no,
            &[],
        ),
        (
            refused(Rejection::AmbiguousLine),
            "AMBIGUOUS_LINE",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            refused(Rejection::CartLinesLimit),
            "CART_LINES_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "500")],
        ),
        (
            refused(Rejection::QuantityLimit),
            "QUANTITY_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "1000000")],
        ),
        (
            refused(Rejection::CurrencyMismatch),
            "CURRENCY_MISMATCH",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            refused(Rejection::CartFrozen {
                holder: HolderId::parse("till").expect("short"),
                until: LogTime::from_millis(7),
            }),
            "CART_FROZEN",
            Code::FailedPrecondition,
            no,
            &[("holder", "till"), ("frozen_until_ms", "7")],
        ),
        (
            refused(Rejection::CartNotFrozen),
            "CART_NOT_FROZEN",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            refused(Rejection::CartEmpty),
            "CART_EMPTY",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            Error::RejectedAction {
                action: 3,
                rejection: Rejection::CartTotalLimit,
            },
            "CART_TOTAL_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("action", "3")],
        ),
        (
            refused(Rejection::CartCouponsLimit),
            "CART_COUPONS_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "16")],
        ),
        (
            refused(Rejection::CartAttributesLimit),
            "CART_ATTRIBUTES_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "32")],
        ),
        (
            refused(Rejection::CartMergedElsewhere),
            "CART_MERGED_ELSEWHERE",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            refused(Rejection::OrderExists),
            "ORDER_EXISTS",
            Code::AlreadyExists,
            no,
            &[],
        ),
        (
            refused(Rejection::KeyNotFound),
            "KEY_NOT_FOUND",
            Code::NotFound,
            no,
            &[],
        ),
        (
            refused(Rejection::KeyExists { actual }),
            "KEY_EXISTS",
            Code::AlreadyExists,
            no,
            &[("actual_revision", "9")],
        ),
        (
            refused(Rejection::RevisionMismatch { actual }),
            "REVISION_MISMATCH",
            Code::Aborted,
            no,
            &[("actual_revision", "9")],
        ),
        (
            refused(Rejection::CounterBelowMin { actual: -3 }),
            "COUNTER_BELOW_MIN",
            Code::FailedPrecondition,
            no,
            &[("actual_value", "-3")],
        ),
        (
            refused(Rejection::CounterAboveMax { actual: 7 }),
            "COUNTER_ABOVE_MAX",
            Code::FailedPrecondition,
            no,
            &[("actual_value", "7")],
        ),
        (
            refused(Rejection::NotACounter),
            "NOT_A_COUNTER",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            refused(Rejection::LeaseNotFound),
            "LEASE_NOT_FOUND",
            Code::NotFound,
            no,
            &[],
        ),
        (
            refused(Rejection::LeaseKeysLimit),
            "LEASE_KEYS_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "128")],
        ),
        (
            refused(Rejection::TxnResultLimit),
            "TXN_RESULT_LIMIT",
            Code::FailedPrecondition,
            no,
            &[("limit", "65536")],
        ),
        (
            Error::InTxn {
                branch: "then",
                index: 3,
                source: Box::new(refused(Rejection::KeyExists { actual })),
            },
            "KEY_EXISTS",
            Code::AlreadyExists,
            no,
            &[
                ("branch", "then"),
                ("operation_index", "3"),
                ("actual_revision", "9"),
            ],
        ),
        (
            refused(Rejection::RequestIdReused),
            "REQUEST_ID_REUSED",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            refused(Rejection::SequenceConfirmed),
            "SEQUENCE_CONFIRMED",
            Code::FailedPrecondition,
            unknown,
            &[],
        ),
        (
            refused(Rejection::ClientWindowFull),
            "CLIENT_WINDOW_FULL",
            Code::ResourceExhausted,
            no,
            &[("limit", "4096"), ("limit_bytes", "2097152")],
        ),
        (
            node::Error::NotLeader(leader()).into(),
            "NOT_LEADER",
            Code::Unavailable,
            no,
            &[("leader_id", "2"), ("leader_address", "host:7400")],
        ),
        (
            node::Error::NoLeader.into(),
            "NO_LEADER",
            Code::Unavailable,
            no,
            &[],
        ),
        (
            node::Error::NoQuorum.into(),
            "NO_QUORUM",
            Code::Unavailable,
            no,
            &[],
        ),
        (
            node::Error::LeadershipLost(None).into(),
            "LEADERSHIP_LOST",
            Code::Unavailable,
            unknown,
            &[],
        ),
        (
            node::Error::LeadershipLost(Some(leader())).into(),
            "LEADERSHIP_LOST",
            Code::Unavailable,
            unknown,
            &[("leader_id", "2")],
        ),
        (
            node::Error::Draining.into(),
            "DRAINING",
            Code::Unavailable,
            no,
            &[],
        ),
        (
            node::Error::HandsOver.into(),
            "NO_LEADER",
            Code::Unavailable,
            no,
            &[],
        ),
        (
            node::Error::NoSpace(Shortage {
                nodes: vec![2, 3],
                only_growth: true,
            })
            .into(),
            "NO_SPACE",
            Code::ResourceExhausted,
            no,
            &[("node_ids", "2,3"), ("refused", "growth")],
        ),
        (
            Error::LeaderUnreachable {
                address: "a:1".to_owned(),
            },
            "LEADER_UNREACHABLE",
            Code::Unavailable,
            no,
            &[("leader_address", "a:1")],
        ),
        (
            Error::ForwardInterrupted {
                address: "a:1".to_owned(),
            },
            "FORWARD_INTERRUPTED",
            Code::Unavailable,
            unknown,
            &[("leader_address", "a:1")],
        ),
        (
            node::Error::Behind {
                have: actual,
                want: Revision::new(10),
            }
            .into(),
            "BEHIND_REVISION",
            Code::Unavailable,
            no,
            &[("actual_revision", "9")],
        ),
        (
            node::Error::Deadline {
                outcome: Outcome::Unknown,
            }
            .into(),
            "DEADLINE_EXCEEDED",
            Code::DeadlineExceeded,
            unknown,
            &[],
        ),
        (
            node::Error::Deadline {
                outcome: Outcome::NotApplied,
            }
            .into(),
            "DEADLINE_EXCEEDED",
            Code::DeadlineExceeded,
            no,
            &[],
        ),
        (
            node::Error::TransferFailed("x".to_owned()).into(),
            "TRANSFER_FAILED",
            Code::Unavailable,
            unknown,
            &[],
        ),
        (
            node::Error::UnknownMember(9).into(),
            "UNKNOWN_MEMBER",
            Code::InvalidArgument,
            no,
            &[],
        ),
        (
            node::Error::from(MembershipError::IdUsed { id: node, next: 5 }).into(),
            "MEMBER_ID_USED",
            Code::AlreadyExists,
            no,
            &[("next_node_id", "5")],
        ),
        (
            node::Error::from(MembershipError::AddressUsed {
                address: "a:1".to_owned(),
                node: 3,
            })
            .into(),
            "MEMBER_ADDRESS_USED",
            Code::AlreadyExists,
            no,
            &[("node_id", "3")],
        ),
        (
            node::Error::from(MembershipError::Unreachable {
                address: "a:1".to_owned(),
                problem: "x".to_owned(),
            })
            .into(),
            "MEMBER_UNREACHABLE",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            node::Error::from(MembershipError::OtherNode {
                address: "a:1".to_owned(),
                expected: node,
                actual: 5,
            })
            .into(),
            "MEMBER_DIFFERS",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            node::Error::from(MembershipError::Foreign {
                address: "a:1".to_owned(),
            })
            .into(),
            "MEMBER_DIFFERS",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            node::Error::from(MembershipError::TooOld {
                address: "a:1".to_owned(),
                newest: StateVersion::FIRST,
                follows: StateVersion::new(2),
            })
            .into(),
            "MEMBER_TOO_OLD",
            Code::FailedPrecondition,
            no,
            &[("newest_state_version", "1"), ("state_version", "2")],
        ),
        (
            node::Error::from(MembershipError::UnderWay).into(),
            "MEMBERS_CHANGING",
            Code::Unavailable,
            no,
            &[],
        ),
        (
            node::Error::from(MembershipError::Learning { node, behind: 2000 }).into(),
            "MEMBER_BEHIND",
            Code::FailedPrecondition,
            unknown,
            &[("behind", "2000")],
        ),
        (
            node::Error::from(MembershipError::NoMajority {
                node,
                voters: 2,
                heard: 1,
            })
            .into(),
            "REMOVAL_UNSAFE",
            Code::FailedPrecondition,
            no,
            &[],
        ),
        (
            node::Error::EventsForgotten {
                asked: Revision::new(1),
                oldest: Revision::new(7),
            }
            .into(),
            "COMPACTED",
            Code::OutOfRange,
            no,
            &[("oldest_revision", "7")],
        ),
        (
            node::Error::WatcherTooSlow {
                resume: Revision::new(8),
                oldest: Revision::new(7),
            }
            .into(),
            "WATCHER_TOO_SLOW",
            Code::ResourceExhausted,
            no,
            &[("resume_revision", "8"), ("oldest_revision", "7")],
        ),
        (
            node::Error::TooManyWatchers.into(),
            "WATCHERS_LIMIT",
            Code::ResourceExhausted,
            no,
            &[("limit", "2048")],
        ),
        (
            node::Error::Stopped("x".to_owned()).into(),
            "STOPPED",
            Code::Unavailable,
            unknown,
            &[],
        ),
        (
            Fault::corrupt("x", "y").into(),
            "FAULT",
            Code::Internal,
            unknown,
            &[],
        ),
        (
            Error::NoRandomness(getrandom::Error::UNSUPPORTED),
            "NO_RANDOMNESS",
            Code::Internal,
            no,
            &[],
        ),
        (
            Error::ForeignReply("x"),
            "FOREIGN_REPLY",
            Code::Internal,
            unknown,
            &[],
        ),
    ]
}

#[test]
fn each_error_is_told_alike_in_both_forms() {
    for (error, name, code, outcome, metadata) in every_error() {
        let failure = v1::Failure::from(&error);
        let message = error.to_string();
        let status = Status::from(error);
        let info = status
            .get_details_error_info()
            .expect("every status has an ErrorInfo");
        assert_eq!(
            (failure.reason.as_str(), failure.code),
            (name, i32::from(code)),
            "{message}"
        );
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str(), status.code()),
            (name, DOMAIN, code)
        );
        assert_eq!(
            (failure.message.as_str(), status.message()),
            (message.as_str(), message.as_str())
        );
        assert_eq!(failure.metadata, info.metadata.into_iter().collect());
        assert_eq!(failure.metadata["outcome"], outcome, "{name}");
        for (key, value) in metadata {
            assert_eq!(failure.metadata[*key], *value, "{name}");
        }
    }
}

#[test]
fn the_table_holds_what_is_raised_and_nothing_else() {
    let raised: BTreeSet<_> = every_error()
        .into_iter()
        .map(|(_, name, ..)| name)
        .collect();
    let listed: BTreeSet<_> = REASONS.iter().map(|reason| reason.name).collect();
    assert_eq!(raised, listed);
    assert_eq!(listed.len(), REASONS.len(), "a reason is listed twice");
}

#[test]
fn a_row_and_its_errors_agree_on_the_outcome() {
    for (error, name, _, outcome, _) in every_error() {
        let row = REASONS
            .iter()
            .find(|row| row.name == name)
            .expect("it is listed");
        let agrees = row.outcome == OutcomeRule::InMetadata || row.outcome.as_str() == outcome;
        assert!(agrees, "{name}: {error}");
    }
}

#[test]
fn what_is_invalid_or_absent_is_not_worth_a_retry() {
    for row in REASONS {
        let hopeless = matches!(
            row.code,
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists
        );
        assert!(!(hopeless && row.retryable), "{}", row.name);
        assert!(
            row.code != Code::Unavailable || row.retryable,
            "{}",
            row.name
        );
    }
}

/// `InvalidArgument` as gRPC writes it.
fn grpc_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn the_readme_prints_this_table() {
    let readme = include_str!("../../../README.md");
    let rows = readme.lines();
    let printed: Vec<_> = rows
        .skip_while(|line| !line.starts_with("| reason |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<_> = REASONS
        .iter()
        .map(|row| {
            let retry = if row.retryable { "yes" } else { "no" };
            let applied = match row.outcome {
                OutcomeRule::NotApplied => "not applied",
                OutcomeRule::Unknown => "unknown",
                OutcomeRule::InMetadata => "metadata `outcome`",
            };
            let (name, code, meaning) = (row.name, grpc_name(row.code), row.meaning);
            format!("| `{name}` | `{code}` | {retry} | {applied} | {meaning} |")
        })
        .collect();
    for (printed, expected) in printed.iter().zip(&expected) {
        assert_eq!(printed, expected);
    }
    assert_eq!(printed.len(), expected.len());
}
