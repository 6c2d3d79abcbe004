//! What a caller is told about a failure: one exhaustive mapping from [`Error`] to a [`Reason`].
//!
//! A reason is stable: programs compare it, messages are for people and may change. The same reason goes into
//! `google.rpc.ErrorInfo` of a unary call and into `Failure` of the exchange stream. [`REASONS`] is the table
//! that the README prints; a test keeps it complete.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Error, Refused};
use crate::limits;
use crate::node::{self, LeaderHint, MembershipError, Outcome};
use crate::proto::v1;
use crate::state::Rejection;
use crate::types::{Invalid, Revision};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "trolley";

/// One row of the table of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// What programs compare.
    pub name: &'static str,
    /// The gRPC status code.
    pub code: Code,
    /// The same request may succeed later or on another node.
    pub retryable: bool,
    /// What a write that failed so must assume.
    pub outcome: OutcomeRule,
    /// When it is raised.
    pub meaning: &'static str,
}

/// Whether a failed write was applied, as far as the reason alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeRule {
    /// Certainly not applied.
    NotApplied,
    /// It may be applied, now or later: retry only under the same request id.
    Unknown,
    /// The failure's metadata `outcome` says which of the two.
    InMetadata,
}

impl OutcomeRule {
    /// The word for tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
            Self::InMetadata => "see metadata",
        }
    }
}

macro_rules! reasons {
    ($($name:ident: $code:ident, $retry:ident, $outcome:ident, $meaning:literal;)*) => {
        $(const $name: Reason = Reason {
            name: stringify!($name),
            code: Code::$code,
            retryable: reasons!(@ $retry),
            outcome: OutcomeRule::$outcome,
            meaning: $meaning,
        };)*
        /// Every reason that a caller can meet.
        pub const REASONS: &[Reason] = &[$($name),*];
    };
    (@ retry) => { true };
    (@ final) => { false };
}

reasons! {
    EMPTY_FIELD: InvalidArgument, final, NotApplied, "A field that must not be empty is empty.";
    FIELD_TOO_LONG: InvalidArgument, final, NotApplied, "A field is longer than its limit; metadata `limit`.";
    TOO_MANY: InvalidArgument, final, NotApplied, "A collection has too many members; metadata `limit`.";
    OUT_OF_RANGE: InvalidArgument, final, NotApplied, "A number is outside its range; metadata `min`, `max`.";
    MALFORMED: InvalidArgument, final, NotApplied, "A field has the wrong form, or an unknown value.";
    EXCLUSIVE_FIELDS: InvalidArgument, final, NotApplied, "Two fields that exclude each other were both given.";
    BAD_CURSOR: InvalidArgument, final, NotApplied, "The cursor is not one that this listing returned.";
    SESSION_NOT_FOUND: NotFound, final, NotApplied, "No live session has this token, or the token is malformed.";
    CART_LINE_NOT_FOUND: NotFound, final, NotApplied, "The cart has no such line.";
    KEY_NOT_FOUND: NotFound, final, NotApplied, "No live key has this name.";
    LEASE_NOT_FOUND: NotFound, final, NotApplied, "No live lease has this id: it ran out or was revoked.";
    SESSION_EXISTS: AlreadyExists, final, NotApplied, "The token that the caller brought is in use.";
    SESSION_ENDED: AlreadyExists, final, NotApplied, "The token that the caller brought was a session's that has been ended: draw another.";
    KEY_EXISTS: AlreadyExists, final, NotApplied, "`if_absent` was asked for; metadata `actual_revision`.";
    REVISION_MISMATCH: Aborted, final, NotApplied, "`if_revision` does not hold: read again, then decide; metadata `actual_revision`.";
    SAVE_CONFLICT: Aborted, final, NotApplied, "Others changed fields that the save changes: load again; metadata \
        `fields` (a JSON array of their names, the first of them), `conflicts`, `actual_revision`.";
    AMBIGUOUS_LINE: FailedPrecondition, final, NotApplied, "Several lines have the SKU: name the line by its id.";
    CURRENCY_MISMATCH: FailedPrecondition, final, NotApplied, "The cart's prices are in another currency.";
    SESSION_FIELDS_LIMIT: FailedPrecondition, final, NotApplied, "The session would have too many fields; metadata `limit`.";
    SESSION_BYTES_LIMIT: FailedPrecondition, final, NotApplied, "The session would be too large; metadata `limit`.";
    SESSIONS_LIMIT: FailedPrecondition, final, NotApplied, "The user has as many sessions as the namespace allows; metadata `limit`.";
    SESSION_TTL_LIMIT: FailedPrecondition, final, NotApplied, "The namespace allows no such TTL; metadata `field` and `min` or `max`.";
    CART_LINES_LIMIT: FailedPrecondition, final, NotApplied, "The cart would have too many lines; metadata `limit`.";
    QUANTITY_LIMIT: FailedPrecondition, final, NotApplied, "The line would have too many pieces; metadata `limit`.";
    CART_FROZEN: FailedPrecondition, final, NotApplied, "Somebody takes an order from the cart; metadata `holder`, `frozen_until_ms`.";
    CART_NOT_FROZEN: FailedPrecondition, final, NotApplied, "There is no freeze of this holder and revision: it was \
        released, replaced, merged or ordered.";
    CART_EMPTY: FailedPrecondition, final, NotApplied, "A cart without lines cannot be frozen.";
    CART_TOTAL_LIMIT: FailedPrecondition, final, NotApplied, "The cart's subtotal would not fit 64 bits.";
    CART_COUPONS_LIMIT: FailedPrecondition, final, NotApplied, "The cart would have too many coupon codes; metadata `limit`.";
    CART_ATTRIBUTES_LIMIT: FailedPrecondition, final, NotApplied, "The cart would have too many attributes of its \
        own, or too large ones; metadata `limit`.";
    CART_MERGED_ELSEWHERE: FailedPrecondition, final, NotApplied, "The source was merged into another cart before.";
    ORDER_EXISTS: AlreadyExists, final, NotApplied, "The order id was used for another freeze.";
    COUNTER_BELOW_MIN: FailedPrecondition, final, NotApplied, "The counter would fall below `min`; metadata `actual_value`.";
    COUNTER_ABOVE_MAX: FailedPrecondition, final, NotApplied, "The counter would rise above `max`; metadata `actual_value`.";
    NOT_A_COUNTER: FailedPrecondition, final, NotApplied, "The key holds a plain value, to which nothing can be added.";
    LEASE_KEYS_LIMIT: FailedPrecondition, final, NotApplied, "The lease would have too many keys; metadata `limit`.";
    TXN_RESULT_LIMIT: FailedPrecondition, final, NotApplied, "The transaction would answer with too many bytes; metadata `limit`.";
    REQUEST_ID_REUSED: FailedPrecondition, final, NotApplied, "The request id was used before with another request.";
    SEQUENCE_CONFIRMED: FailedPrecondition, final, Unknown, "The client had confirmed this sequence: the first reply is forgotten.";
    CLIENT_WINDOW_FULL: ResourceExhausted, retry, NotApplied, "The client confirms too little: raise \
        `confirmed_below`; metadata `limit`, `limit_bytes`.";
    NOT_LEADER: Unavailable, retry, NotApplied, "Another node leads; metadata `leader_id`, `leader_address`.";
    NO_LEADER: Unavailable, retry, NotApplied, "No leader is known; an election may be under way, or a leader with a full disk hands over.";
    NO_QUORUM: Unavailable, retry, NotApplied, "The leader could not confirm a read with a quorum.";
    LEADERSHIP_LOST: Unavailable, retry, Unknown, "Leadership was lost while the write was under way; metadata as for \
        NOT_LEADER, where known.";
    DRAINING: Unavailable, retry, NotApplied, "The node is shutting down: use another.";
    NO_SPACE: ResourceExhausted, retry, NotApplied, "The disks of too many nodes are nearly full: free space there, or \
        delete; metadata `node_ids`, and `refused`, which is `growth` or `all`.";
    LEADER_UNREACHABLE: Unavailable, retry, NotApplied, "This follower could not dial the leader; metadata `leader_address`.";
    FORWARD_INTERRUPTED: Unavailable, retry, Unknown, "The connection to the leader failed after the request was sent.";
    BEHIND_REVISION: Unavailable, retry, NotApplied, "The node did not reach `min_revision` in time; metadata `actual_revision`.";
    DEADLINE_EXCEEDED: DeadlineExceeded, retry, InMetadata, "The caller's deadline passed.";
    TRANSFER_FAILED: Unavailable, retry, Unknown, "The transfer was not seen to happen in time: `cluster status` tells who leads.";
    UNKNOWN_MEMBER: InvalidArgument, final, NotApplied, "The request names a node that is not a voting member.";
    MEMBER_ID_USED: AlreadyExists, final, NotApplied, "The id is or was another node's, and none is used twice; metadata `next_node_id`.";
    MEMBER_ADDRESS_USED: AlreadyExists, final, NotApplied, "Another member has the address; metadata `node_id`.";
    MEMBER_UNREACHABLE: FailedPrecondition, retry, NotApplied, "No new node answers at the address: start it with `--join`.";
    MEMBER_DIFFERS: FailedPrecondition, final, NotApplied, "Another node answers there than was named, or one \
        with the data of another node or cluster.";
    MEMBER_TOO_OLD: FailedPrecondition, final, NotApplied, "The new node's program does not know the state version that the \
        cluster follows: start it with a newer one; metadata `newest_state_version`, `state_version`.";
    MEMBER_BEHIND: FailedPrecondition, retry, Unknown, "The node was added as a learner and lacks too much of the \
        log to vote: add it again; metadata `behind`, in log entries.";
    MEMBERS_CHANGING: Unavailable, retry, NotApplied, "Another change of the members is not finished.";
    REMOVAL_UNSAFE: FailedPrecondition, retry, NotApplied, "No majority of the voters that would stay answers the \
        leader and has nearly all of its log.";
    COMPACTED: OutOfRange, final, NotApplied, "The events of `start_revision` are no longer kept: read the state, \
        then watch from there; metadata `oldest_revision`.";
    WATCHER_TOO_SLOW: ResourceExhausted, retry, NotApplied, "The watcher read too slowly: go on from metadata \
        `resume_revision`; also `oldest_revision`.";
    WATCHERS_LIMIT: ResourceExhausted, retry, NotApplied, "The node has as many watchers as it takes: use another; metadata `limit`.";
    STOPPED: Unavailable, retry, Unknown, "The node stopped: use another.";
    FAULT: Internal, retry, Unknown, "The node met damage and stops: use another, and see its log.";
    NO_RANDOMNESS: Internal, retry, NotApplied, "The node has no randomness to draw a token from.";
    FOREIGN_REPLY: Internal, final, Unknown, "The stored reply does not fit the request: the node may be too old for it.";
}

type Metadata = BTreeMap<String, String>;

/// A failure, ready for either form.
#[derive(Debug, Clone)]
struct Told {
    reason: Reason,
    message: String,
    metadata: Metadata,
}

impl Told {
    fn of(error: &Error) -> Self {
        let mut metadata = Metadata::new();
        let reason = match error {
            Error::InTxn {
                branch,
                index,
                source,
            } => return Self::of(source).within(branch, *index, error),
            Error::Invalid(invalid) => tell_invalid(invalid, &mut metadata),
            Error::BadCursor => BAD_CURSOR,
            Error::TokenRequired => EMPTY_FIELD,
            Error::SaveConflict { fields, actual } => {
                note(&mut metadata, "fields", first_names(fields));
                note(&mut metadata, "conflicts", fields.len());
                note(&mut metadata, "actual_revision", actual);
                SAVE_CONFLICT
            }
            Error::Rejected(rejection) => tell_rejection(*rejection, &mut metadata),
            Error::RejectedAction { action, rejection } => {
                note(&mut metadata, "action", action);
                tell_rejection(*rejection, &mut metadata)
            }
            Error::Node(error) => tell_node(error, &mut metadata),
            Error::LeaderUnreachable { address } => {
                note(&mut metadata, "leader_address", address);
                LEADER_UNREACHABLE
            }
            Error::ForwardInterrupted { address } => {
                note(&mut metadata, "leader_address", address);
                FORWARD_INTERRUPTED
            }
            Error::NoRandomness(_) => NO_RANDOMNESS,
            Error::ForeignReply(_) => FOREIGN_REPLY,
        };
        note(&mut metadata, "outcome", outcome(error, reason));
        Self {
            reason,
            message: error.to_string(),
            metadata,
        }
    }

    /// The failure of what stands in a transaction: its own reason, and where it stands.
    fn within(mut self, branch: &str, index: usize, whole: &Error) -> Self {
        note(&mut self.metadata, "branch", branch);
        note(&mut self.metadata, "operation_index", index);
        self.message = whole.to_string();
        self
    }
}

fn note(metadata: &mut Metadata, key: &str, value: impl fmt::Display) {
    metadata.insert(key.to_owned(), value.to_string());
}

/// A JSON array of as many names as fit well into the headers of a response.
fn first_names(names: &[String]) -> String {
    const ROOM_BYTES: usize = 2 << 10;
    let mut room = ROOM_BYTES;
    let fitting = names.iter().take_while(|name| {
        // With its quotes, a comma, and whatever JSON has to escape.
        let length = serde_json::Value::from(name.as_str()).to_string().len() + 1;
        let fits = length <= room;
        room = room.saturating_sub(length);
        fits
    });
    let texts: Vec<_> = fitting.map(String::as_str).collect();
    serde_json::Value::from(texts).to_string()
}

/// The node knows best; everything else has the outcome of its row.
fn outcome(error: &Error, reason: Reason) -> &'static str {
    let known = match (error, reason.outcome) {
        (Error::Node(error), _) => error.outcome(),
        (_, OutcomeRule::NotApplied) => Outcome::NotApplied,
        (_, OutcomeRule::Unknown | OutcomeRule::InMetadata) => Outcome::Unknown,
    };
    match known {
        Outcome::NotApplied => OutcomeRule::NotApplied.as_str(),
        Outcome::Unknown => OutcomeRule::Unknown.as_str(),
    }
}

fn tell_invalid(invalid: &Invalid, metadata: &mut Metadata) -> Reason {
    let (reason, field) = match invalid {
        Invalid::Empty { field } => (EMPTY_FIELD, field),
        Invalid::TooLong { field, limit, .. } => {
            note(metadata, "limit", limit);
            (FIELD_TOO_LONG, field)
        }
        Invalid::TooMany { field, limit, .. } => {
            note(metadata, "limit", limit);
            (TOO_MANY, field)
        }
        Invalid::OutOfRange {
            field, min, max, ..
        } => {
            note(metadata, "min", min);
            note(metadata, "max", max);
            (OUT_OF_RANGE, field)
        }
        Invalid::Malformed { field, .. } => (MALFORMED, field),
        Invalid::Exclusive { first, .. } => (EXCLUSIVE_FIELDS, first),
    };
    note(metadata, "field", field);
    reason
}

fn tell_rejection(rejection: Rejection, metadata: &mut Metadata) -> Reason {
    let mut limited = |reason, limit: u64| {
        note(metadata, "limit", limit);
        reason
    };
    match rejection {
        Rejection::SessionNotFound => SESSION_NOT_FOUND,
        Rejection::SessionExists => SESSION_EXISTS,
        Rejection::SessionEnded => SESSION_ENDED,
        Rejection::SessionFieldsLimit { limit } => limited(SESSION_FIELDS_LIMIT, limit),
        Rejection::SessionBytesLimit { limit } => limited(SESSION_BYTES_LIMIT, limit),
        Rejection::SessionsLimit { limit } => limited(SESSIONS_LIMIT, limit),
        Rejection::TtlTooShort { ttl, min } => {
            note(metadata, "field", ttl.field());
            note(metadata, "min", min);
            SESSION_TTL_LIMIT
        }
        Rejection::TtlTooLong { ttl, max } => {
            note(metadata, "field", ttl.field());
            note(metadata, "max", max);
            SESSION_TTL_LIMIT
        }
        Rejection::CartLineNotFound => CART_LINE_NOT_FOUND,
        Rejection::AmbiguousLine => AMBIGUOUS_LINE,
        Rejection::CartLinesLimit => limited(CART_LINES_LIMIT, limits::CART_LINES as u64),
        Rejection::QuantityLimit => limited(QUANTITY_LIMIT, limits::QUANTITY_MAX.into()),
        Rejection::CurrencyMismatch => CURRENCY_MISMATCH,
        Rejection::CartFrozen { holder, until } => {
            note(metadata, "holder", holder);
            note(metadata, "frozen_until_ms", until);
            CART_FROZEN
        }
        Rejection::CartNotFrozen => CART_NOT_FROZEN,
        Rejection::CartEmpty => CART_EMPTY,
        Rejection::CartTotalLimit => CART_TOTAL_LIMIT,
        Rejection::CartCouponsLimit => limited(CART_COUPONS_LIMIT, limits::CART_COUPONS as u64),
        Rejection::CartAttributesLimit => {
            note(metadata, "limit_bytes", limits::CART_ATTRIBUTE_BYTES);
            note(metadata, "limit", limits::CART_ATTRIBUTES);
            CART_ATTRIBUTES_LIMIT
        }
        Rejection::CartMergedElsewhere => CART_MERGED_ELSEWHERE,
        Rejection::OrderExists => ORDER_EXISTS,
        Rejection::KeyNotFound => KEY_NOT_FOUND,
        Rejection::KeyExists { actual } => {
            note(metadata, "actual_revision", actual);
            KEY_EXISTS
        }
        Rejection::RevisionMismatch { actual } => {
            note(metadata, "actual_revision", actual);
            REVISION_MISMATCH
        }
        Rejection::CounterBelowMin { actual } => {
            note(metadata, "actual_value", actual);
            COUNTER_BELOW_MIN
        }
        Rejection::CounterAboveMax { actual } => {
            note(metadata, "actual_value", actual);
            COUNTER_ABOVE_MAX
        }
        Rejection::NotACounter => NOT_A_COUNTER,
        Rejection::LeaseNotFound => LEASE_NOT_FOUND,
        Rejection::LeaseKeysLimit => limited(LEASE_KEYS_LIMIT, limits::LEASE_KEYS as u64),
        Rejection::TxnResultLimit => limited(TXN_RESULT_LIMIT, limits::TXN_RESULT_BYTES as u64),
        Rejection::RequestIdReused => REQUEST_ID_REUSED,
        Rejection::SequenceConfirmed => SEQUENCE_CONFIRMED,
        Rejection::ClientWindowFull => {
            note(metadata, "limit_bytes", limits::CLIENT_WINDOW_BYTES);
            note(metadata, "limit", limits::CLIENT_WINDOW);
            CLIENT_WINDOW_FULL
        }
    }
}

fn tell_node(error: &node::Error, metadata: &mut Metadata) -> Reason {
    match error {
        node::Error::NotLeader(leader) => {
            note_leader(metadata, leader);
            NOT_LEADER
        }
        node::Error::NoLeader | node::Error::HandsOver => NO_LEADER,
        node::Error::LeadershipLost(leader) => {
            if let Some(leader) = leader {
                note_leader(metadata, leader);
            }
            LEADERSHIP_LOST
        }
        node::Error::NoQuorum => NO_QUORUM,
        node::Error::Deadline { .. } => DEADLINE_EXCEEDED,
        node::Error::Behind { have, .. } => {
            note(metadata, "actual_revision", have);
            BEHIND_REVISION
        }
        node::Error::Draining => DRAINING,
        node::Error::NoSpace(shortage) => {
            let ids: Vec<String> = shortage.nodes.iter().map(u64::to_string).collect();
            note(metadata, "node_ids", ids.join(","));
            let refused = if shortage.only_growth {
                "growth"
            } else {
                "all"
            };
            note(metadata, "refused", refused);
            NO_SPACE
        }
        node::Error::TransferFailed(_) => TRANSFER_FAILED,
        node::Error::UnknownMember(_) => UNKNOWN_MEMBER,
        node::Error::Membership(error) => tell_membership(error, metadata),
        node::Error::EventsForgotten { oldest, .. } => {
            note(metadata, "oldest_revision", oldest);
            COMPACTED
        }
        node::Error::WatcherTooSlow { resume, oldest } => {
            note(metadata, "resume_revision", resume);
            note(metadata, "oldest_revision", oldest);
            WATCHER_TOO_SLOW
        }
        node::Error::TooManyWatchers => {
            note(metadata, "limit", limits::WATCHERS);
            WATCHERS_LIMIT
        }
        node::Error::Stopped(_) => STOPPED,
        node::Error::Fault(_) => FAULT,
    }
}

fn tell_membership(error: &MembershipError, metadata: &mut Metadata) -> Reason {
    match error {
        MembershipError::IdUsed { next, .. } => {
            note(metadata, "next_node_id", next);
            MEMBER_ID_USED
        }
        MembershipError::AddressUsed { node, .. } => {
            note(metadata, "node_id", node);
            MEMBER_ADDRESS_USED
        }
        MembershipError::Unreachable { .. } => MEMBER_UNREACHABLE,
        MembershipError::OtherNode { .. } | MembershipError::Foreign { .. } => MEMBER_DIFFERS,
        MembershipError::TooOld {
            newest, follows, ..
        } => {
            note(metadata, "newest_state_version", newest);
            note(metadata, "state_version", follows);
            MEMBER_TOO_OLD
        }
        MembershipError::UnderWay => MEMBERS_CHANGING,
        MembershipError::Learning { behind, .. } => {
            note(metadata, "behind", behind);
            MEMBER_BEHIND
        }
        MembershipError::NoMajority { .. } => REMOVAL_UNSAFE,
    }
}

fn note_leader(metadata: &mut Metadata, leader: &LeaderHint) {
    note(metadata, "leader_id", leader.node);
    note(metadata, "leader_address", &leader.address);
}

impl From<&Error> for v1::Failure {
    fn from(error: &Error) -> Self {
        let told = Told::of(error);
        Self {
            code: told.reason.code.into(),
            reason: told.reason.name.to_owned(),
            message: told.message,
            metadata: told.metadata,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Refused::from(error).into()
    }
}

/// A status has no place for a revision but in its details; over the exchange stream the outcome has one.
impl From<Refused> for Status {
    fn from(Refused { error, revision }: Refused) -> Self {
        let mut told = Told::of(&error);
        if revision > Revision::default() {
            note(&mut told.metadata, "revision", revision);
        }
        let details = ErrorDetails::with_error_info(
            told.reason.name,
            DOMAIN,
            HashMap::from_iter(told.metadata),
        );
        Status::with_error_details(told.reason.code, told.message, details)
    }
}

#[cfg(test)]
mod tests;
