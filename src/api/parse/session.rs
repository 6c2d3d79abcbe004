//! The session service's requests.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::{Echo, Origin, Query, Read, Write, identity, read_mode, request_id, revision};
use crate::api::Error;
use crate::limits;
use crate::proto::v1;
use crate::state::{Command, Operation, Rejection, seal};
use crate::types::{Fields, Invalid, Namespace, RequestId, SessionToken, TokenHash, Ttl, UserId};

/// The only shard's slot.
const SLOT: u16 = 0;

/// What the response to a creation repeats. It holds the token itself, so it has no derived `Debug`.
pub(crate) struct CreateEcho {
    pub namespace: Namespace,
    pub request_id: Option<RequestId>,
    /// The caller's, or the one drawn for this attempt: a replay may have to tell another.
    pub token: SessionToken,
    pub user_id: String,
    pub fields: BTreeMap<String, Bytes>,
}

impl fmt::Debug for CreateEcho {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreateEcho({:?})", self.token.hash())
    }
}

/// A token that names a session: one that does not decode is one that no session has.
pub(super) fn lookup_token(text: &str) -> Result<TokenHash, Error> {
    SessionToken::parse(text)
        .map(|token| token.hash())
        .map_err(|_| Error::Rejected(Rejection::SessionNotFound))
}

pub(super) fn create(r: v1::CreateSessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let own = own_token(&r.token, origin)?;
    // Over Exchange `identity` refuses a request id, so that only unary calls seal.
    let request_id = request_id(r.request_id)?;
    let identity = identity(
        request_id
            .as_ref()
            .map_or(String::new(), RequestId::to_string),
        origin,
    )?;
    let user_id = r.user_id.clone();
    let fields = Fields::parse(r.fields)?;
    let echo_fields = fields.as_map().clone();
    // The fingerprint is taken with the caller's token or with none: what the server draws differs between
    // a request and its retry.
    let command = Command::new(
        namespace.clone(),
        identity,
        Operation::SessionCreate {
            token: own
                .as_ref()
                .map_or(TokenHash::new([0; 32]), SessionToken::hash),
            sealed_token: Bytes::new(),
            user: optional_user(r.user_id)?,
            fields,
            idle_ttl: ttl(
                "idle_ttl_ms",
                r.idle_ttl_ms,
                limits::SESSION_IDLE_TTL_DEFAULT_MS,
            )?,
            absolute_ttl: ttl(
                "absolute_ttl_ms",
                r.absolute_ttl_ms,
                limits::SESSION_ABSOLUTE_TTL_DEFAULT_MS,
            )?,
        },
    );
    let (command, token) = match own {
        Some(token) => (command, token),
        None => draw_into(command, request_id.as_ref())?,
    };
    Ok(Write {
        command,
        echo: Echo::SessionCreate(Box::new(CreateEcho {
            namespace,
            request_id,
            token,
            user_id,
            fields: echo_fields,
        })),
    })
}

fn own_token(text: &str, origin: Origin) -> Result<Option<SessionToken>, Error> {
    match (text.is_empty(), origin) {
        (false, _) => Ok(Some(SessionToken::parse(text)?)),
        (true, Origin::Unary) => Ok(None),
        // The sequence cannot unseal a drawn token for a replay, unlike a request id.
        (true, Origin::Exchange { .. } | Origin::Txn) => Err(Error::TokenRequired),
    }
}

/// Draws the token, and seals it if a retry may ask for it again.
fn draw_into(
    command: Command,
    request_id: Option<&RequestId>,
) -> Result<(Command, SessionToken), Error> {
    let drawn = SessionToken::draw(SLOT).map_err(Error::NoRandomness)?;
    let Command {
        namespace,
        identity,
        fingerprint,
        mut operation,
        ..
    } = command;
    if let Operation::SessionCreate {
        token,
        sealed_token,
        ..
    } = &mut operation
    {
        *token = drawn.hash();
        if let Some(id) = request_id {
            *sealed_token = seal::seal(&namespace, id, &drawn);
        }
    }
    let command = Command::with_fingerprint(namespace, identity, fingerprint, operation);
    Ok((command, drawn))
}

fn optional_user(text: String) -> Result<Option<UserId>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    UserId::parse(text).map(Some)
}

fn ttl(field: &'static str, millis: i64, default_ms: u64) -> Result<Ttl, Invalid> {
    Ok(Ttl::parse(field, millis)?.unwrap_or(Ttl::from_millis(default_ms)))
}

pub(super) fn get(r: v1::GetSessionRequest) -> Result<Read, Error> {
    Ok(Read {
        mode: read_mode(r.read)?,
        query: Query::Session {
            namespace: Namespace::parse(r.namespace)?,
            token: lookup_token(&r.token)?,
        },
    })
}

pub(super) fn update(r: v1::UpdateSessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let set = Fields::parse(r.set)?;
    let remove = Fields::parse_names(r.remove)?;
    if remove.iter().any(|name| set.as_map().contains_key(name)) {
        return Err(Error::Invalid(Invalid::Exclusive {
            first: "a name in set",
            second: "the same name in remove",
        }));
    }
    let operation = Operation::SessionUpdate {
        set,
        remove,
        if_revision: revision(r.if_revision),
        token: lookup_token(&r.token)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::SessionUpdate,
    })
}

pub(super) fn touch(r: v1::TouchSessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let token = lookup_token(&r.token)?;
    Ok(Write {
        command: Command::new(namespace, identity, Operation::SessionTouch { token }),
        echo: Echo::SessionTouch,
    })
}

pub(super) fn destroy(r: v1::DestroySessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let token = lookup_token(&r.token)?;
    Ok(Write {
        command: Command::new(namespace, identity, Operation::SessionDestroy { token }),
        echo: Echo::SessionDestroy,
    })
}
