//! What a command may be refused for: a replicated value, the same on every replica and in every replay.

use super::TtlKind;
use crate::limits;
use crate::proto::internal as pb;
use crate::types::{HolderId, LogTime, Revision};

/// Why a valid command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No live session has this token.
    #[error("there is no such session; it may have expired or been destroyed")]
    SessionNotFound,
    /// The token that the caller brought is in use.
    #[error("a session with this token exists already; draw another")]
    SessionExists,
    /// The session would have too many fields.
    #[error("the session would have more than {limit} fields")]
    SessionFieldsLimit {
        /// What the namespace allows.
        limit: u64,
    },
    /// The session would be too large.
    #[error("the session would be larger than {limit} bytes")]
    SessionBytesLimit {
        /// What the namespace allows.
        limit: u64,
    },
    /// The token that the caller brought belonged to a session that was ended, and could still live.
    #[error("a session with this token was ended; a token is good for one session, draw another")]
    SessionEnded,
    /// The user has as many sessions as the namespace allows.
    #[error("the user has {limit} sessions already; one of them has to end first")]
    SessionsLimit {
        /// What the namespace allows.
        limit: u64,
    },
    /// A TTL is shorter than the namespace allows.
    #[error("{} must be at least {min} in this namespace", ttl.field())]
    TtlTooShort {
        /// Which one.
        ttl: TtlKind,
        /// What the namespace allows, in milliseconds.
        min: u64,
    },
    /// A TTL is longer than the namespace allows.
    #[error("{} must be at most {max} in this namespace", ttl.field())]
    TtlTooLong {
        /// Which one.
        ttl: TtlKind,
        /// What the namespace allows, in milliseconds.
        max: u64,
    },
    /// The cart has no such line.
    #[error("the cart has no such line")]
    CartLineNotFound,
    /// Several lines have the SKU that was given.
    #[error("several lines have this SKU; name the line by its line_id")]
    AmbiguousLine,
    /// The cart is full.
    #[error("the cart would have more than {} lines", limits::CART_LINES)]
    CartLinesLimit,
    /// The line's sum would pass the limit.
    #[error("the line would have more than {} pieces", limits::QUANTITY_MAX)]
    QuantityLimit,
    /// The cart's prices are in another currency.
    #[error("the cart's prices are in another currency")]
    CurrencyMismatch,
    /// No live key has this name.
    #[error("there is no such key")]
    KeyNotFound,
    /// `if_absent` was asked for and the key exists.
    #[error("the key exists already, at revision {actual}")]
    KeyExists {
        /// The key's mod revision.
        actual: Revision,
    },
    /// `if_revision` was asked for and the record is at another.
    #[error("the record is at revision {actual}, not at the one that was asked for; read it again")]
    RevisionMismatch {
        /// The record's mod revision; 0 when there is no record.
        actual: Revision,
    },
    /// The sum would be below the lower bound.
    #[error("the counter would fall below its bound; it is at {actual}")]
    CounterBelowMin {
        /// What the counter holds.
        actual: i64,
    },
    /// The sum would be above the upper bound.
    #[error("the counter would rise above its bound; it is at {actual}")]
    CounterAboveMax {
        /// What the counter holds.
        actual: i64,
    },
    /// The key is a plain one.
    #[error("the key holds a value that is not a counter's")]
    NotACounter,
    /// No live lease has this id.
    #[error("there is no such lease; it may have run out or been revoked")]
    LeaseNotFound,
    /// The lease is full.
    #[error("the lease would have more than {} keys", limits::LEASE_KEYS)]
    LeaseKeysLimit,
    /// What the transaction's operations answer would be too large to be kept for replays.
    #[error(
        "the transaction would answer with more than {} bytes; read what is large outside of it",
        limits::TXN_RESULT_BYTES
    )]
    TxnResultLimit,
    /// The request id was used before with another body.
    #[error("this request id was used before with another request; use a new id for a new request")]
    RequestIdReused,
    /// The client asks again for what it had confirmed.
    #[error("this sequence was confirmed by the client before; its reply is forgotten")]
    SequenceConfirmed,
    /// The client confirms nothing.
    #[error(
        "the client has {} unconfirmed replies, or {} bytes of them; confirm some first",
        limits::CLIENT_WINDOW,
        limits::CLIENT_WINDOW_BYTES
    )]
    ClientWindowFull,
    /// Somebody takes an order from the cart.
    #[error("the cart is frozen by {:?} until log time {until}", holder.as_str())]
    CartFrozen {
        /// Who.
        holder: HolderId,
        /// When the lease ends.
        until: LogTime,
    },
    /// There is no freeze of this holder and revision.
    #[error(
        "the cart is not frozen by this holder, or was frozen again, released, merged or ordered"
    )]
    CartNotFrozen,
    /// An order needs lines.
    #[error("the cart has no lines to take an order from")]
    CartEmpty,
    /// The subtotal would not fit.
    #[error("the cart's subtotal would be more than {} minor units", i64::MAX)]
    CartTotalLimit,
    /// The cart has as many coupon codes as it may.
    #[error("the cart would have more than {} coupon codes", limits::CART_COUPONS)]
    CartCouponsLimit,
    /// The cart's attributes would be too many or too large.
    #[error(
        "the cart would have more than {} attributes, or more than {} bytes of them",
        limits::CART_ATTRIBUTES,
        limits::CART_ATTRIBUTE_BYTES
    )]
    CartAttributesLimit,
    /// The cart was merged into another than the one that was asked for.
    #[error("the cart was merged into another one before")]
    CartMergedElsewhere,
    /// The order id was used for another freeze.
    #[error("an order with this id was completed before, from another freeze")]
    OrderExists,
}

impl Rejection {
    /// The stored form. Codes are never reused.
    #[must_use]
    pub fn to_stored(self) -> pb::Rejected {
        let (code, detail) = match self {
            Self::SessionNotFound => (1, 0),
            Self::SessionExists => (2, 0),
            Self::SessionFieldsLimit { limit } => (3, limit),
            Self::SessionBytesLimit { limit } => (4, limit),
            Self::CartLineNotFound => (5, 0),
            Self::AmbiguousLine => (6, 0),
            Self::CartLinesLimit => (7, 0),
            Self::QuantityLimit => (8, 0),
            Self::CurrencyMismatch => (9, 0),
            Self::KeyNotFound => (10, 0),
            Self::KeyExists { actual } => (11, actual.get()),
            Self::RevisionMismatch { actual } => (12, actual.get()),
            Self::RequestIdReused => (13, 0),
            Self::SequenceConfirmed => (14, 0),
            Self::ClientWindowFull => (15, 0),
            Self::SessionEnded => (20, 0),
            Self::SessionsLimit { limit } => (21, limit),
            Self::TtlTooShort { ttl, min } => match ttl {
                TtlKind::Idle => (22, min),
                TtlKind::Absolute => (24, min),
            },
            Self::TtlTooLong { ttl, max } => match ttl {
                TtlKind::Idle => (23, max),
                TtlKind::Absolute => (25, max),
            },
            Self::CartFrozen { until, .. } => (40, until.as_millis()),
            Self::CartNotFrozen => (41, 0),
            Self::CartEmpty => (42, 0),
            Self::CartTotalLimit => (43, 0),
            Self::CartCouponsLimit => (44, 0),
            Self::CartAttributesLimit => (45, 0),
            Self::CartMergedElsewhere => (46, 0),
            Self::OrderExists => (47, 0),
            Self::CounterBelowMin { actual } => (60, actual.cast_unsigned()),
            Self::CounterAboveMax { actual } => (61, actual.cast_unsigned()),
            Self::NotACounter => (62, 0),
            Self::LeaseNotFound => (63, 0),
            Self::LeaseKeysLimit => (64, 0),
            Self::TxnResultLimit => (65, 0),
        };
        let holder = match self {
            Self::CartFrozen { holder, .. } => holder.as_str().to_owned(),
            _ => String::new(),
        };
        pb::Rejected {
            code,
            detail,
            holder,
            action: None,
        }
    }

    /// Back from the stored form; `None` for a code that this version does not know.
    #[must_use]
    pub fn from_stored(stored: &pb::Rejected) -> Option<Self> {
        let actual = Revision::new(stored.detail);
        let detail_or = |otherwise: usize| match stored.detail {
            0 => otherwise as u64,
            detail => detail,
        };
        let ttl_kind = |is_idle| {
            if is_idle {
                TtlKind::Idle
            } else {
                TtlKind::Absolute
            }
        };
        Some(match stored.code {
            1 => Self::SessionNotFound,
            2 => Self::SessionExists,
            // Before namespaces had limits of their own, none was stored.
            3 => Self::SessionFieldsLimit {
                limit: detail_or(limits::SESSION_FIELDS),
            },
            4 => Self::SessionBytesLimit {
                limit: detail_or(limits::SESSION_BYTES),
            },
            5 => Self::CartLineNotFound,
            6 => Self::AmbiguousLine,
            7 => Self::CartLinesLimit,
            8 => Self::QuantityLimit,
            9 => Self::CurrencyMismatch,
            10 => Self::KeyNotFound,
            11 => Self::KeyExists { actual },
            12 => Self::RevisionMismatch { actual },
            13 => Self::RequestIdReused,
            14 => Self::SequenceConfirmed,
            15 => Self::ClientWindowFull,
            20 => Self::SessionEnded,
            21 => Self::SessionsLimit {
                limit: stored.detail,
            },
            22 | 24 => Self::TtlTooShort {
                ttl: ttl_kind(stored.code == 22),
                min: stored.detail,
            },
            23 | 25 => Self::TtlTooLong {
                ttl: ttl_kind(stored.code == 23),
                max: stored.detail,
            },
            40 => Self::CartFrozen {
                holder: HolderId::parse(&stored.holder).ok()?,
                until: LogTime::from_millis(stored.detail),
            },
            41 => Self::CartNotFrozen,
            42 => Self::CartEmpty,
            43 => Self::CartTotalLimit,
            44 => Self::CartCouponsLimit,
            45 => Self::CartAttributesLimit,
            46 => Self::CartMergedElsewhere,
            47 => Self::OrderExists,
            60 => Self::CounterBelowMin {
                actual: stored.detail.cast_signed(),
            },
            61 => Self::CounterAboveMax {
                actual: stored.detail.cast_signed(),
            },
            62 => Self::NotACounter,
            63 => Self::LeaseNotFound,
            64 => Self::LeaseKeysLimit,
            65 => Self::TxnResultLimit,
            _ => return None,
        })
    }
}
