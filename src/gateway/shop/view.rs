//! What a page shows of its visitor.

use serde::Serialize;

use super::visitor::{Shopper, csrf_token};
use crate::client::{CartOwner, Client, Consistency};
use crate::gateway::problem::Problem;
use crate::gateway::routes::{Answer, Cart};
use crate::types::Revision;

/// A visitor.
#[derive(Serialize)]
pub struct View {
    /// The address of whoever is logged in; absent for a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// To show with whatever changes something.
    csrf: String,
    cart: Cart,
}

/// As it is at a revision or later, read from any node.
pub async fn view(
    client: &Client,
    token: &str,
    user: Option<&str>,
    seen: Option<Revision>,
) -> Result<Answer<View>, Problem> {
    let owner = match user {
        Some(user) => CartOwner::User(user.to_owned()),
        None => CartOwner::Session(token.to_owned()),
    };
    let read = client.carts().get(&owner);
    let read = match seen {
        Some(revision) => read.consistency(Consistency::AtLeast(revision)),
        None => read,
    };
    let cart = read.send().await?;
    Ok(Answer::of(cart, |cart| View {
        user: user.map(str::to_owned),
        csrf: csrf_token(token),
        cart: cart.into(),
    }))
}

impl Shopper {
    /// What to show after a write that was done at a revision, or without one, now.
    pub async fn view(&self, seen: Option<Revision>) -> Result<Answer<View>, Problem> {
        view(&self.visitor.client, &self.token, self.user(), seen).await
    }
}
