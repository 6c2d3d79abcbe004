//! Logging in, and logging out devices.

use std::time::Duration;

use bytes::Bytes;

use super::builder::{in_txn, millis, pick, read_options, write_options};
use super::call::Options;
use super::sessions::Sessions;
use super::{Client, Consistency, Error, MergePolicy, Reply};
use crate::proto::v1;
use crate::proto::v1::operation::Request;
use crate::types::SessionToken;

impl<'a> Sessions<'a> {
    /// Ends a session's token and gives the session a new one, drawn here: at login, together with all that a login means.
    pub fn rotate(&self, token: &str) -> RotateSession<'a> {
        let request = v1::RotateSessionRequest {
            namespace: self.client.namespace_field(),
            token: token.to_owned(),
            ..Default::default()
        };
        RotateSession {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// A user's live sessions, oldest first.
    pub fn list(&self, user_id: impl Into<String>) -> ListSessions<'a> {
        let request = v1::ListSessionsRequest {
            namespace: self.client.namespace_field(),
            user_id: user_id.into(),
            ..Default::default()
        };
        ListSessions {
            client: self.client,
            options: Options::default(),
            consistency: None,
            request,
        }
    }

    /// Logs out one of a user's devices, by its handle.
    pub fn end(&self, user_id: impl Into<String>, handle: impl Into<String>) -> EndSession<'a> {
        let request = v1::EndSessionRequest {
            namespace: self.client.namespace_field(),
            user_id: user_id.into(),
            handle: handle.into(),
            ..Default::default()
        };
        EndSession {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Logs out all of a user's devices.
    pub fn revoke_all(&self, user_id: impl Into<String>) -> RevokeAllSessions<'a> {
        let request = v1::RevokeAllSessionsRequest {
            namespace: self.client.namespace_field(),
            user_id: user_id.into(),
            ..Default::default()
        };
        RevokeAllSessions {
            client: self.client,
            options: Options::default(),
            request,
        }
    }
}

/// What a rotation made of a session. Its token is a secret that cannot be asked for again.
#[derive(Clone, PartialEq)]
pub struct RotatedSession(v1::RotateSessionResponse);

impl std::ops::Deref for RotatedSession {
    type Target = v1::RotateSessionResponse;

    fn deref(&self) -> &v1::RotateSessionResponse {
        &self.0
    }
}

/// Without the token, which belongs in no log.
impl std::fmt::Debug for RotatedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotatedSession")
            .field("user_id", &self.user_id)
            .field("handle", &self.handle)
            .field("cart", &self.cart)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// See [`Sessions::rotate`].
#[must_use]
pub struct RotateSession<'a> {
    client: &'a Client,
    options: Options,
    request: v1::RotateSessionRequest,
}

in_txn!(RotateSession);

impl RotateSession<'_> {
    write_options!();

    /// Who logs in. Without, the session stays whose it is.
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.request.user_id = user_id.into();
        self
    }

    /// A new token of the caller's own, base64url of at least 16 bytes.
    pub fn new_token(mut self, token: impl Into<String>) -> Self {
        self.request.new_token = token.into();
        self
    }

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

    /// Something about the client. What was said before is forgotten then.
    pub fn client(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.client.insert(name.into(), value.into());
        self
    }

    /// How long it lives without being touched or updated; as before without.
    pub fn idle_ttl(mut self, ttl: Duration) -> Self {
        self.request.idle_ttl_ms = millis(ttl);
        self
    }

    /// How long it lives from now on whatever happens.
    pub fn absolute_ttl(mut self, ttl: Duration) -> Self {
        self.request.absolute_ttl_ms = millis(ttl);
        self
    }

    /// How the session's own cart becomes part of the user's; quantities add up without.
    pub fn cart_merge(mut self, policy: MergePolicy) -> Self {
        self.request.set_cart_merge(policy.into());
        self
    }

    /// Sends the request.
    pub async fn send(mut self) -> Result<Reply<RotatedSession>, Error> {
        // As for a creation: under a request id of the caller's own the node draws it.
        if self.request.new_token.is_empty() && !self.options.identity.is_named() {
            self.request.new_token = SessionToken::draw(0)?.expose();
        }
        let token = self.request.new_token.clone();
        let request = Request::RotateSession(self.request.into());
        let reply = self
            .client
            .call(request, self.options, pick!(RotateSession))
            .await?;
        Ok(reply.map(|mut rotated| {
            // A replay of somebody else's request id brings the token of the first.
            if rotated.token.is_empty() {
                rotated.token = token;
            }
            RotatedSession(rotated)
        }))
    }
}

/// See [`Sessions::list`].
#[must_use]
pub struct ListSessions<'a> {
    client: &'a Client,
    options: Options,
    consistency: Option<Consistency>,
    request: v1::ListSessionsRequest,
}

impl ListSessions<'_> {
    read_options!();

    /// The caller's own session, which the listing marks as current.
    pub fn current(mut self, token: impl Into<String>) -> Self {
        self.request.current_token = token.into();
        self
    }

    /// The most sessions of one page.
    pub fn limit(mut self, limit: u32) -> Self {
        self.request.limit = limit;
        self
    }

    /// Where the page begins: the `next_cursor` of the one before.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.request.cursor = cursor.into();
        self
    }

    /// Sends the request.
    pub async fn send(mut self) -> Result<Reply<v1::ListSessionsResponse>, Error> {
        self.request.read = self.client.read_options(self.consistency);
        let request = Request::ListSessions(self.request);
        self.client
            .call(request, self.options, pick!(ListSessions))
            .await
    }
}

/// See [`Sessions::end`].
#[must_use]
pub struct EndSession<'a> {
    client: &'a Client,
    options: Options,
    request: v1::EndSessionRequest,
}

in_txn!(EndSession);

impl EndSession<'_> {
    write_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<()>, Error> {
        let request = Request::EndSession(self.request);
        let reply = self
            .client
            .call(request, self.options, pick!(EndSession))
            .await?;
        Ok(reply.map(|_| ()))
    }
}

/// See [`Sessions::revoke_all`].
#[must_use]
pub struct RevokeAllSessions<'a> {
    client: &'a Client,
    options: Options,
    request: v1::RevokeAllSessionsRequest,
}

in_txn!(RevokeAllSessions);

impl RevokeAllSessions<'_> {
    write_options!();

    /// A session of the user that stays: the caller's own.
    pub fn except(mut self, token: impl Into<String>) -> Self {
        self.request.except_token = token.into();
        self
    }

    /// Sends the request. The answer is the number of sessions that ended.
    pub async fn send(self) -> Result<Reply<u64>, Error> {
        let request = Request::RevokeAllSessions(self.request);
        let reply = self
            .client
            .call(request, self.options, pick!(RevokeAllSessions))
            .await?;
        Ok(reply.map(|revoked| revoked.ended))
    }
}
