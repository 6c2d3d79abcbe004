//! Sessions.

use std::time::Duration;

use bytes::Bytes;

use super::builder::{in_txn, millis, pick, read_options, write_options};
use super::call::Options;
use super::{Client, Consistency, Error, InTxn, Reply};
use crate::proto::v1;
use crate::proto::v1::operation::Request;
use crate::types::{Revision, SessionToken};

/// Requests about sessions. Tokens are given as the browser's cookie holds them.
#[derive(Debug)]
pub struct Sessions<'a> {
    pub(super) client: &'a Client,
}

impl<'a> Sessions<'a> {
    /// A new session, with a token drawn here, so that a retry brings the same one.
    pub fn create(&self) -> CreateSession<'a> {
        let request = v1::CreateSessionRequest {
            namespace: self.client.namespace_field(),
            ..Default::default()
        };
        CreateSession {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Reads a session.
    pub fn get(&self, token: &str) -> GetSession<'a> {
        GetSession {
            client: self.client,
            options: Options::default(),
            consistency: None,
            touch: false,
            token: token.to_owned(),
        }
    }

    /// Sets and removes named fields.
    pub fn update(&self, token: &str) -> UpdateSession<'a> {
        let request = v1::UpdateSessionRequest {
            namespace: self.client.namespace_field(),
            token: token.to_owned(),
            ..Default::default()
        };
        UpdateSession {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Moves the idle deadline. A touch within the session's touch interval of the last stored one writes nothing.
    pub fn touch(&self, token: &str) -> TouchSession<'a> {
        let request = v1::TouchSessionRequest {
            namespace: self.client.namespace_field(),
            token: token.to_owned(),
            ..Default::default()
        };
        TouchSession {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Logs out.
    pub fn destroy(&self, token: &str) -> DestroySession<'a> {
        let request = v1::DestroySessionRequest {
            namespace: self.client.namespace_field(),
            token: token.to_owned(),
            ..Default::default()
        };
        DestroySession {
            client: self.client,
            options: Options::default(),
            request,
        }
    }
}

/// A session that was just created.
#[derive(Clone, PartialEq)]
pub struct CreatedSession {
    /// What the browser's cookie should hold. A secret: it cannot be asked for again.
    pub token: String,
    /// The session.
    pub session: v1::Session,
    /// Handles of older sessions of the user that were ended to make room.
    pub ended: Vec<String>,
}

/// Without the token, which belongs in no log.
impl std::fmt::Debug for CreatedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedSession")
            .field("session", &self.session)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// See [`Sessions::create`].
#[must_use]
pub struct CreateSession<'a> {
    client: &'a Client,
    options: Options,
    request: v1::CreateSessionRequest,
}

in_txn!(CreateSession);

impl CreateSession<'_> {
    write_options!();

    /// Whose session it is; a guest's without.
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.request.user_id = user_id.into();
        self
    }

    /// A token of the caller's own, base64url of at least 16 bytes.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.request.token = token.into();
        self
    }

    /// A field to begin with.
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.request.fields.insert(name.into(), value.into());
        self
    }

    /// Something about the client, for listings of the user's sessions.
    pub fn client(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.client.insert(name.into(), value.into());
        self
    }

    /// How long it lives without being touched or updated.
    pub fn idle_ttl(mut self, ttl: Duration) -> Self {
        self.request.idle_ttl_ms = millis(ttl);
        self
    }

    /// How long it lives whatever happens.
    pub fn absolute_ttl(mut self, ttl: Duration) -> Self {
        self.request.absolute_ttl_ms = millis(ttl);
        self
    }

    /// Sends the request.
    pub async fn send(mut self) -> Result<Reply<CreatedSession>, Error> {
        // Under a request id of the caller's own the node draws it: a later call with that id must be the same request.
        if self.request.token.is_empty() && !self.options.identity.is_named() {
            self.request.token = SessionToken::draw(0)?.expose();
        }
        let token = self.request.token.clone();
        let request = Request::CreateSession(self.request);
        let reply: Reply<v1::CreateSessionResponse> = self
            .client
            .call(request, self.options, pick!(CreateSession))
            .await?;
        Ok(reply.map(|created| CreatedSession {
            // A replay of somebody else's request id brings the token of the first.
            token: if created.token.is_empty() {
                token
            } else {
                created.token
            },
            session: created.session.unwrap_or_default(),
            ended: created.ended,
        }))
    }
}

/// See [`Sessions::get`].
#[must_use]
pub struct GetSession<'a> {
    client: &'a Client,
    options: Options,
    consistency: Option<Consistency>,
    touch: bool,
    token: String,
}

impl InTxn for GetSession<'_> {
    fn into_request(self) -> Request {
        Request::GetSession(v1::GetSessionRequest {
            namespace: self.client.namespace_field(),
            read: self.consistency.and_then(Consistency::to_options),
            token: self.token,
            touch: self.touch,
        })
    }
}

impl GetSession<'_> {
    read_options!();

    /// Moves the idle deadline as well. Only a touch that is due costs a write: see [`Sessions::touch`].
    pub fn touch(mut self) -> Self {
        self.touch = true;
        self
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::Session>, Error> {
        let request = Request::GetSession(v1::GetSessionRequest {
            namespace: self.client.namespace_field(),
            read: self.client.read_options(self.consistency),
            token: self.token,
            touch: self.touch,
        });
        let reply = self
            .client
            .call(request, self.options, pick!(GetSession))
            .await?;
        Ok(reply.map(|get| get.session.unwrap_or_default()))
    }
}

/// See [`Sessions::update`].
#[must_use]
pub struct UpdateSession<'a> {
    client: &'a Client,
    options: Options,
    request: v1::UpdateSessionRequest,
}

in_txn!(UpdateSession);

impl UpdateSession<'_> {
    write_options!();

    /// Sets a field.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.request.set.insert(name.into(), value.into());
        self
    }

    /// Removes a field, if it is there.
    pub fn remove(mut self, name: impl Into<String>) -> Self {
        self.request.remove.push(name.into());
        self
    }

    /// How long it lives from now on without being touched or updated; as before without.
    pub fn idle_ttl(mut self, ttl: Duration) -> Self {
        self.request.idle_ttl_ms = millis(ttl);
        self
    }

    /// How long it lives from now on whatever happens; without, its absolute deadline stays where it is.
    pub fn absolute_ttl(mut self, ttl: Duration) -> Self {
        self.request.absolute_ttl_ms = millis(ttl);
        self
    }

    /// Only if the session is at this revision.
    pub fn if_revision(mut self, revision: Revision) -> Self {
        self.request.if_revision = Some(revision.get());
        self
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::UpdateSessionResponse>, Error> {
        let request = Request::UpdateSession(self.request);
        self.client
            .call(request, self.options, pick!(UpdateSession))
            .await
    }
}

/// See [`Sessions::touch`].
#[must_use]
pub struct TouchSession<'a> {
    client: &'a Client,
    options: Options,
    request: v1::TouchSessionRequest,
}

in_txn!(TouchSession);

impl TouchSession<'_> {
    write_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::TouchSessionResponse>, Error> {
        let request = Request::TouchSession(self.request);
        self.client
            .call(request, self.options, pick!(TouchSession))
            .await
    }
}

/// See [`Sessions::destroy`].
#[must_use]
pub struct DestroySession<'a> {
    client: &'a Client,
    options: Options,
    request: v1::DestroySessionRequest,
}

in_txn!(DestroySession);

impl DestroySession<'_> {
    write_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<()>, Error> {
        let request = Request::DestroySession(self.request);
        let reply = self
            .client
            .call(request, self.options, pick!(DestroySession))
            .await?;
        Ok(reply.map(|_| ()))
    }
}
