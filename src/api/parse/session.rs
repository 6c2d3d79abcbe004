//! The session service's requests.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::{Echo, Origin, Query, Read, Write, identity, page_size, read_mode, revision};
use crate::api::{Error, cursor};
use crate::proto::v1;
use crate::state::{
    Command, Fields, Identity, MergePolicy, Operation, Rotation, SavePolicy, SessionOperation, seal,
};
use crate::types::{
    ClientAttributes, Invalid, Namespace, RequestId, Revision, SessionHandle, SessionToken,
    TokenHash, Ttl, UserId,
};

/// The only shard's slot.
const SLOT: u16 = 0;

/// What tells the new token to the one who asked for it. It holds the token itself, so it has no derived `Debug`.
pub(crate) struct TokenEcho {
    pub namespace: Namespace,
    pub request_id: Option<RequestId>,
    /// The caller's, or the one drawn for this attempt: a replay may have to tell another.
    pub token: SessionToken,
}

impl fmt::Debug for TokenEcho {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenEcho({:?})", self.token.hash())
    }
}

/// What the response to a creation repeats.
#[derive(Debug)]
pub(crate) struct CreateEcho {
    pub token: TokenEcho,
    pub user_id: String,
    pub fields: BTreeMap<String, Bytes>,
    pub client: BTreeMap<String, String>,
}

pub(super) fn create(r: v1::CreateSessionRequest, origin: Origin) -> Result<Write, Error> {
    let birth = Birth::of(r.namespace, r.request_id, &r.token, origin)?;
    let user_id = r.user_id.clone();
    let fields = Fields::parse(&r.fields)?;
    let client = ClientAttributes::parse(r.client)?;
    let echo_client = client.as_map().clone();
    let operation = SessionOperation::Create {
        token: birth.hash(),
        sealed_token: Bytes::new(),
        user: optional_user(r.user_id)?,
        fields,
        client,
        idle_ttl: Ttl::parse("idle_ttl_ms", r.idle_ttl_ms)?,
        absolute_ttl: Ttl::parse("absolute_ttl_ms", r.absolute_ttl_ms)?,
    };
    let (command, token) = birth.command(operation)?;
    let echo = CreateEcho {
        token,
        user_id,
        fields: r.fields,
        client: echo_client,
    };
    Ok(Write {
        command,
        echo: Echo::SessionCreate(Box::new(echo)),
    })
}

pub(super) fn rotate(r: v1::RotateSessionRequest, origin: Origin) -> Result<Write, Error> {
    let birth = Birth::of(r.namespace, r.request_id, &r.new_token, origin)?;
    let (set, remove) = changes(&r.set, r.remove)?;
    let rotation = Rotation {
        new_token: birth.hash(),
        sealed_token: Bytes::new(),
        user: optional_user(r.user_id)?,
        set,
        remove,
        idle_ttl: Ttl::parse("idle_ttl_ms", r.idle_ttl_ms)?,
        absolute_ttl: Ttl::parse("absolute_ttl_ms", r.absolute_ttl_ms)?,
        client: ClientAttributes::parse(r.client)?,
        cart_merge: MergePolicy::optional("cart_merge", r.cart_merge)?.unwrap_or(MergePolicy::Sum),
        token: TokenHash::of_text(&r.token),
    };
    let (command, token) = birth.command(SessionOperation::Rotate(Box::new(rotation)))?;
    Ok(Write {
        command,
        echo: Echo::SessionRotate(Box::new(token)),
    })
}

/// A request that brings a token into the world.
struct Birth {
    namespace: Namespace,
    request_id: Option<RequestId>,
    identity: Identity,
    /// The caller's own.
    token: Option<SessionToken>,
}

impl Birth {
    fn of(
        namespace: String,
        request_id: String,
        token: &str,
        origin: Origin,
    ) -> Result<Self, Error> {
        let namespace = Namespace::parse(namespace)?;
        let token = own_token(token, origin)?;
        // Over Exchange `identity` refuses a request id, so that only unary calls seal.
        let request_id = super::request_id(request_id)?;
        let text = request_id.as_ref();
        let identity = identity(text.map_or(String::new(), RequestId::to_string), origin)?;
        Ok(Self {
            namespace,
            request_id,
            identity,
            token,
        })
    }

    /// The fingerprint is taken with the caller's token or with none: what the server draws differs between a request
    /// and its retry.
    fn hash(&self) -> TokenHash {
        let own = self.token.as_ref();
        own.map_or(TokenHash::OF_NONE, SessionToken::hash)
    }

    fn command(self, operation: SessionOperation) -> Result<(Command, TokenEcho), Error> {
        let command = Command::new(self.namespace.clone(), self.identity, operation);
        let (command, token) = match self.token {
            Some(token) => (command, token),
            None => draw_into(command, self.request_id.as_ref())?,
        };
        let echo = TokenEcho {
            namespace: self.namespace,
            request_id: self.request_id,
            token,
        };
        Ok((command, echo))
    }
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
    let places = match &mut operation {
        Operation::Session(SessionOperation::Create {
            token,
            sealed_token,
            ..
        }) => Some((token, sealed_token)),
        Operation::Session(SessionOperation::Rotate(rotation)) => {
            Some((&mut rotation.new_token, &mut rotation.sealed_token))
        }
        _ => None,
    };
    if let Some((token, sealed_token)) = places {
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

pub(super) fn get(r: v1::GetSessionRequest) -> Result<Read, Error> {
    Ok(Read {
        mode: read_mode(r.read)?,
        query: Query::Session {
            namespace: Namespace::parse(r.namespace)?,
            token: TokenHash::of_text(&r.token),
            touch: r.touch,
        },
    })
}

pub(super) fn list(r: v1::ListSessionsRequest) -> Result<Read, Error> {
    let mode = read_mode(r.read)?;
    let namespace = Namespace::parse(r.namespace)?;
    let user = UserId::parse(r.user_id)?;
    let limit = page_size(r.limit)?;
    let after = match r.cursor.as_str() {
        "" => 0,
        cursor => cursor::decode_session(&namespace, &user, cursor)?,
    };
    Ok(Read {
        mode,
        query: Query::UserSessions {
            namespace,
            user,
            current: TokenHash::of_text(&r.current_token),
            after,
            limit,
        },
    })
}

pub(super) fn update(r: v1::UpdateSessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let (set, remove) = changes(&r.set, r.remove)?;
    let operation = SessionOperation::Update {
        set,
        remove,
        idle_ttl: Ttl::parse("idle_ttl_ms", r.idle_ttl_ms)?,
        absolute_ttl: Ttl::parse("absolute_ttl_ms", r.absolute_ttl_ms)?,
        if_revision: revision(r.if_revision),
        token: TokenHash::of_text(&r.token),
    };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::SessionUpdate,
    })
}

fn changes(
    set: &BTreeMap<String, Bytes>,
    remove: Vec<String>,
) -> Result<(Fields, Vec<String>), Invalid> {
    let set = Fields::parse(set)?;
    let remove = Fields::parse_names(remove)?;
    if remove.iter().any(|name| set.get(name).is_some()) {
        return Err(Invalid::Exclusive {
            first: "a name in set",
            second: "the same name in remove",
        });
    }
    Ok((set, remove))
}

pub(super) fn save(r: v1::SaveSessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let given = Fields::parse(&r.fields)?;
    let (base, fields) = match r.base {
        Some(base) => {
            let base = Fields::parse(&base.fields)?;
            // What the caller left alone is nobody's business: neither log nor state machine need it.
            (Some(base.without_equal(&given)), given.without_equal(&base))
        }
        None => (None, given),
    };
    let policy = match v1::SaveConflictPolicy::try_from(r.policy) {
        Ok(v1::SaveConflictPolicy::Unspecified | v1::SaveConflictPolicy::FailOnConflict) => {
            SavePolicy::FailOnConflict
        }
        Ok(v1::SaveConflictPolicy::LastWriterWins) => SavePolicy::LastWriterWins,
        Err(_) => {
            return Err(Error::Invalid(Invalid::Malformed {
                field: "policy",
                expected: "FAIL_ON_CONFLICT or LAST_WRITER_WINS",
            }));
        }
    };
    let operation = SessionOperation::Save {
        loaded: Revision::new(r.loaded_revision),
        base,
        fields,
        policy,
        token: TokenHash::of_text(&r.token),
    };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::SessionSave,
    })
}

pub(super) fn touch(r: v1::TouchSessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let token = TokenHash::of_text(&r.token);
    Ok(Write {
        command: Command::new(namespace, identity, SessionOperation::Touch { token }),
        echo: Echo::SessionTouch,
    })
}

pub(super) fn destroy(r: v1::DestroySessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let token = TokenHash::of_text(&r.token);
    Ok(Write {
        command: Command::new(namespace, identity, SessionOperation::Destroy { token }),
        echo: Echo::SessionDestroy,
    })
}

pub(super) fn end(r: v1::EndSessionRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let user = UserId::parse(r.user_id)?;
    let handle = SessionHandle::of_text(&r.handle);
    Ok(Write {
        command: Command::new(namespace, identity, SessionOperation::End { user, handle }),
        echo: Echo::SessionEnd,
    })
}

pub(super) fn revoke_all(r: v1::RevokeAllSessionsRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let user = UserId::parse(r.user_id)?;
    let except = match r.except_token.as_str() {
        "" => None,
        token => Some(TokenHash::of_text(token)),
    };
    let operation = SessionOperation::RevokeAll { user, except };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::SessionRevokeAll,
    })
}
