//! What a command asks of sessions.

use bytes::Bytes;

use super::given::Fields;
use crate::state::cart::MergePolicy;
use crate::types::{ClientAttributes, Revision, SessionHandle, TokenHash, Ttl, UserId};

/// An operation on the sessions of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields say what the messages of the same names document"
)]
pub enum SessionOperation {
    Create {
        token: TokenHash,
        /// The token under a key that only the request id gives; empty when the caller brought its own.
        sealed_token: Bytes,
        user: Option<UserId>,
        fields: Fields,
        client: ClientAttributes,
        /// `None`: the namespace's default.
        idle_ttl: Option<Ttl>,
        absolute_ttl: Option<Ttl>,
    },
    Update {
        token: TokenHash,
        set: Fields,
        remove: Vec<String>,
        /// `None`: as before.
        idle_ttl: Option<Ttl>,
        /// `None`: the deadline stays where it is.
        absolute_ttl: Option<Ttl>,
        if_revision: Option<Revision>,
    },
    Save {
        token: TokenHash,
        loaded: Revision,
        /// The fields that the caller changed, as they were loaded; `None`: the caller does not know, and
        /// `fields` are all of them.
        base: Option<Fields>,
        fields: Fields,
        policy: SavePolicy,
    },
    Touch {
        token: TokenHash,
    },
    /// In a box, because it is far larger and far rarer than the others.
    Rotate(Box<Rotation>),
    Destroy {
        token: TokenHash,
    },
    /// Ends one session of a user's.
    End {
        user: UserId,
        handle: SessionHandle,
    },
    /// Ends all sessions of a user, or all but one.
    RevokeAll {
        user: UserId,
        except: Option<TokenHash>,
    },
}

impl SessionOperation {
    /// The session that is changed.
    pub(in crate::state) fn subject(&self) -> Option<&TokenHash> {
        match self {
            Self::Update { token, .. }
            | Self::Save { token, .. }
            | Self::Touch { token }
            | Self::Destroy { token } => Some(token),
            Self::Rotate(rotation) => Some(&rotation.token),
            Self::Create { .. } | Self::End { .. } | Self::RevokeAll { .. } => None,
        }
    }
}

/// A login, or another time at which a session gets a new token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields say what the message of the same name documents"
)]
pub struct Rotation {
    pub token: TokenHash,
    pub new_token: TokenHash,
    /// As for a creation.
    pub sealed_token: Bytes,
    /// `None`: whoever the session belongs to.
    pub user: Option<UserId>,
    pub set: Fields,
    pub remove: Vec<String>,
    /// `None`: as before.
    pub idle_ttl: Option<Ttl>,
    pub absolute_ttl: Option<Ttl>,
    pub client: ClientAttributes,
    pub cart_merge: MergePolicy,
}

/// What a save does where the session and its caller changed the same field differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavePolicy {
    /// Nothing is saved.
    FailOnConflict,
    /// The caller's value is the newer one, and wins.
    LastWriterWins,
}
