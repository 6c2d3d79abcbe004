//! Whose records a caller may see: its own, unless an `:admin` scope says otherwise.
//!
//! Nothing here tells whether what is somebody else's exists. A foreign *user* is refused before the store is asked. A
//! foreign *session* is looked for under a token that no session has, so that the store's own answer is the one that it
//! gives for a session that never was.
//!
//! A session's cart may have been merged into a user's, and whatever is asked of it from then on is done to that one. A guest's
//! session is anybody's who has its token, also of whoever planted it in the user's browser: so such a cart is the caller's
//! only if the user is the caller. Reads follow the pointer here, where it is looked at. Changes follow it in the store, behind a
//! look at it: one that is under way at the very moment of the merge counts as one that came just before.

use serde::Deserialize;
use utoipa::ToSchema;

use super::call::{Call, SESSION};
use crate::client::{CartOwner, Consistency, Reply};
use crate::gateway::auth::Scope;
use crate::gateway::problem::Problem;
use crate::proto::v1::{self, merged_into::Target};

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
        if self.is_session() {
            return session_cart(call).await;
        }
        self.resolve_user(call)
    }

    /// The cart, if the caller may read it.
    pub async fn read(&self, call: &Call) -> Result<Reply<v1::Cart>, Problem> {
        let carts = call.client.carts();
        if !self.is_session() || call.caller.scopes.has(Scope::CartAdmin) {
            let owner = self.resolve(call).await?;
            return Ok(carts.get(&owner).send().await?);
        }
        let owner = CartOwner::Session(session(call, Scope::CartAdmin).await?);
        let own = carts.get(&owner).own().send().await?;
        let owner = match target(&own) {
            None => return Ok(own),
            Some(target) if is_callers(target, call) => {
                CartOwner::User(call.caller.user.as_str().to_owned())
            }
            Some(_) => no_session(),
        };
        Ok(carts.get(&owner).send().await?)
    }

    fn is_session(&self) -> bool {
        self.0 == "session"
    }

    fn resolve_user(&self, call: &Call) -> Result<CartOwner, Problem> {
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

/// The cart of the session that the request names, or of none.
async fn session_cart(call: &Call) -> Result<CartOwner, Problem> {
    let (token, leads_away) = tokio::try_join!(session(call, Scope::CartAdmin), leads_away(call))?;
    Ok(if leads_away {
        no_session()
    } else {
        CartOwner::Session(token)
    })
}

/// A cart that nobody has.
fn no_session() -> CartOwner {
    CartOwner::Session(NO_SESSION.to_owned())
}

/// Where a cart leads that was merged.
fn target(cart: &v1::Cart) -> Option<&Target> {
    cart.merged_into.as_ref()?.target.as_ref()
}

/// It is the caller's own. Whose a session's cart is, the store does not say.
fn is_callers(target: &Target, call: &Call) -> bool {
    match target {
        Target::UserId(user) => user == call.caller.user.as_str(),
        Target::Session(_) => false,
    }
}

/// The cart of the session that the request names was merged into one that is not the caller's to see.
async fn leads_away(call: &Call) -> Result<bool, Problem> {
    let Some(token) = &call.session else {
        return Ok(false);
    };
    if call.caller.scopes.has(Scope::CartAdmin) {
        return Ok(false);
    }
    let carts = call.client.carts();
    let own = carts.get(&CartOwner::Session(token.clone())).own();
    match own.consistency(Consistency::Linearizable).send().await {
        Ok(own) => Ok(target(&own).is_some_and(|target| !is_callers(target, call))),
        // Its session is not there: whatever is asked of it is told that.
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
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
