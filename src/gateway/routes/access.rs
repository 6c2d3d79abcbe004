//! Whose records a caller may see: its own, unless an `:admin` scope says otherwise.
//!
//! Nothing here tells whether what is somebody else's exists. A foreign *user* is refused before the store is asked. A
//! foreign *session* is looked for under a token that no session has, so that the store's own answer is the one that it
//! gives for a session that never was.

use serde::Deserialize;
use utoipa::ToSchema;

use super::call::{Call, SESSION};
use crate::client::{CartOwner, Consistency};
use crate::gateway::auth::Scope;
use crate::gateway::problem::Problem;

/// Too short to be a token: no session can have it.
const NO_SESSION: &str = "none";

/// A user: `me`, or `user:` and an id.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(example = "me", pattern = "^(me|user:.+)$")]
pub struct User(String);

/// Whose cart: `me`, `user:` and an id, or `session` for that of the header `X-Trolley-Session`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(example = "me", pattern = "^(me|session|user:.+)$")]
pub struct Owner(String);

/// Everybody's, of a watch.
const ALL: &str = "all";

impl User {
    /// Everybody's sessions are asked for.
    pub fn is_all(&self) -> bool {
        self.0 == ALL
    }

    /// The user's id, if the caller may ask for it.
    pub fn resolve(&self, call: &Call, admin: Scope) -> Result<String, Problem> {
        if self.0 == "me" {
            return Ok(call.caller.user.as_str().to_owned());
        }
        let named = self.0.strip_prefix("user:").filter(|user| !user.is_empty());
        let user =
            named.ok_or_else(|| Problem::malformed("a user is \"me\", or \"user:\" and an id"))?;
        if user != call.caller.user.as_str() {
            call.allow(admin)?;
        }
        Ok(user.to_owned())
    }
}

impl Owner {
    /// Everybody's carts are asked for.
    pub fn is_all(&self) -> bool {
        self.0 == ALL
    }

    /// The cart's owner, if the caller may ask for it.
    pub async fn resolve(&self, call: &Call) -> Result<CartOwner, Problem> {
        if self.0 == "session" {
            let token = session(call, Scope::CartAdmin).await?;
            return Ok(CartOwner::Session(token));
        }
        let is_user = self.0 == "me" || self.0.starts_with("user:");
        if !is_user {
            return Err(Problem::malformed(
                "a cart's owner is \"me\", \"session\", or \"user:\" and an id",
            ));
        }
        let user = User(self.0.clone()).resolve(call, Scope::CartAdmin)?;
        Ok(CartOwner::User(user))
    }
}

/// The token to use for the session that the request names: its own if the session is the caller's or a guest's, or is
/// not there at all.
///
/// A session never changes hands under one token, so the answer holds for whatever is asked next. One that is not there
/// may have been ended by this very request, which is sent again: the store knows that by its request id.
pub async fn session(call: &Call, admin: Scope) -> Result<String, Problem> {
    let token = call.session.as_deref();
    let token = token
        .ok_or_else(|| Problem::malformed(format!("the header {SESSION} names no session")))?;
    if call.caller.scopes.has(admin) {
        return Ok(token.to_owned());
    }
    let is_own = call.session_is_own.get_or_try_init(|| is_own(call, token));
    let token = if *is_own.await? { token } else { NO_SESSION };
    Ok(token.to_owned())
}

async fn is_own(call: &Call, token: &str) -> Result<bool, Problem> {
    // However fresh the caller wants its answer: a node that is behind would take a new session for one that is not there.
    let get = call
        .client
        .sessions()
        .get(token)
        .consistency(Consistency::Linearizable);
    match get.send().await {
        Ok(session) => {
            let user = session.user_id.as_str();
            Ok(user.is_empty() || user == call.caller.user.as_str())
        }
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) => Err(error.into()),
    }
}
