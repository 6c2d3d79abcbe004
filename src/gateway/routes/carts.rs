//! `/v1/carts`: carts of users and of sessions, changed by deltas.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Owner;
use super::answer::Answer;
use super::call::{At, Body, Call, with};
use super::cart_views::{Cart, Line, Money};
use super::documented::{
    Absence, Condition, ReadHeaders, ReadProblems, Seen, SessionHeader, WriteHeaders, WriteProblems,
};
use super::tag::Tag;
use crate::client::{self, CartOwner, LineRef};
use crate::gateway::App;
use crate::gateway::auth::Scope;
use crate::gateway::problem::Problem;
use crate::proto::v1;
use crate::types::Revision;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(get, clear))
        .routes(routes!(add))
        .routes(routes!(set_quantity, remove))
}

/// Pieces to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddLine {
    #[schema(min_length = 1, max_length = 128)]
    pub sku: String,
    /// Added to what the line has.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub quantity: i64,
    /// Takes the place of the line's price.
    pub unit_price: Option<Money>,
    /// Tell lines of the same SKU apart.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

impl AddLine {
    /// The request that it stands for.
    pub fn build<'c>(self, call: &'c Call, owner: &CartOwner) -> client::AddLine<'c> {
        let mut add = call.client.carts().add(owner, self.sku, self.quantity);
        if let Some(price) = self.unit_price {
            add = add.unit_price(price.minor_units, price.currency);
        }
        for (name, value) in self.attributes {
            add = add.attribute(name, value);
        }
        add
    }
}

/// A line's new quantity.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetQuantity {
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub quantity: i64,
}

/// What became of a line.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineChanged {
    /// As it is now; a line that was removed, as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<Line>,
    /// The cart's revision, as in `ETag`.
    mod_revision: u64,
}

impl LineChanged {
    pub fn new(line: Option<v1::CartLine>, mod_revision: u64) -> Self {
        Self {
            line: line.map(Line::from),
            mod_revision,
        }
    }
}

/// What became of all lines.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cleared {
    removed_lines: u32,
    /// The cart's revision, as in `ETag`.
    mod_revision: u64,
}

impl From<v1::ClearCartResponse> for Cleared {
    fn from(cleared: v1::ClearCartResponse) -> Self {
        Self {
            removed_lines: cleared.removed_lines,
            mod_revision: cleared.mod_revision,
        }
    }
}

/// A line: its number, or `sku:` and a SKU that one line has.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(example = "1", pattern = "^([0-9]{1,19}|sku:.+)$")]
pub struct LineName(String);

impl TryFrom<LineName> for LineRef {
    type Error = Problem;

    fn try_from(name: LineName) -> Result<Self, Problem> {
        if let Some(sku) = name.0.strip_prefix("sku:") {
            return Ok(Self::Sku(sku.to_owned()));
        }
        let id = name.0.parse().ok();
        let malformed = || Problem::malformed("a line is a number, or \"sku:\" and a SKU");
        id.map(Self::Id).ok_or_else(malformed)
    }
}

/// Read a cart. One that nothing was added to is empty, at revision 0. Scope `cart:read`.
#[utoipa::path(get, path = "/v1/carts/{owner}", tag = "carts", operation_id = "get_cart",
    params(("owner" = Owner, Path), SessionHeader, Seen, ReadHeaders),
    responses((status = 200, body = Cart), (status = 304, description = "The caller has it."), ReadProblems))]
async fn get(call: Call, At(owner): At<Owner>) -> Result<Answer<Cart>, Problem> {
    call.allow(Scope::CartRead)?;
    let seen = call.seen()?;
    let cart = owner.read(&call).await?;
    let tag = Tag::of_cart(&cart);
    Ok(Answer::of(cart, Cart::from).unless_seen(seen, tag))
}

/// Remove every line. Scope `cart:write`.
#[utoipa::path(delete, path = "/v1/carts/{owner}", tag = "carts", operation_id = "clear_cart",
    params(("owner" = Owner, Path), SessionHeader, Condition, Absence, WriteHeaders),
    responses((status = 200, body = Cleared), WriteProblems))]
async fn clear(call: Call, At(owner): At<Owner>) -> Result<Answer<Cleared>, Problem> {
    call.allow(Scope::CartWrite)?;
    let owner = owner.resolve(&call).await?;
    let clear = call.client.carts().clear(&owner);
    let clear = with!(
        clear,
        if_revision(call.cart_condition()?),
        request_id(call.request_id)
    );
    let cleared = clear.send().await?;
    let revision = Revision::new(cleared.mod_revision);
    Ok(Answer::of(cleared, Cleared::from).tagged(revision))
}

/// Add pieces of a SKU: to the line with the same SKU and attributes, or to a new one. Scope `cart:write`.
#[utoipa::path(post, path = "/v1/carts/{owner}/lines", tag = "carts", operation_id = "add_cart_line",
    params(("owner" = Owner, Path), SessionHeader, Condition, Absence, WriteHeaders), request_body = AddLine,
    responses((status = 200, body = LineChanged), WriteProblems))]
async fn add(
    call: Call,
    At(owner): At<Owner>,
    Body(body): Body<AddLine>,
) -> Result<Answer<LineChanged>, Problem> {
    call.allow(Scope::CartWrite)?;
    let owner = owner.resolve(&call).await?;
    let add = body.build(&call, &owner);
    let add = with!(
        add,
        if_revision(call.cart_condition()?),
        request_id(call.request_id.clone())
    );
    let added = add.send().await?;
    let revision = Revision::new(added.mod_revision);
    let answer = Answer::of(added, |added| {
        LineChanged::new(added.line, added.mod_revision)
    });
    Ok(answer.tagged(revision))
}

/// Set a line's quantity. Scope `cart:write`.
#[utoipa::path(patch, path = "/v1/carts/{owner}/lines/{line}", tag = "carts", operation_id = "set_cart_line_quantity",
    params(("owner" = Owner, Path), ("line" = LineName, Path), SessionHeader, Condition, Absence, WriteHeaders),
    request_body = SetQuantity, responses((status = 200, body = LineChanged), WriteProblems))]
async fn set_quantity(
    call: Call,
    At((owner, line)): At<(Owner, LineName)>,
    Body(body): Body<SetQuantity>,
) -> Result<Answer<LineChanged>, Problem> {
    call.allow(Scope::CartWrite)?;
    let line = line.try_into()?;
    let owner = owner.resolve(&call).await?;
    let set = call
        .client
        .carts()
        .set_quantity(&owner, line, body.quantity);
    let set = with!(
        set,
        if_revision(call.cart_condition()?),
        request_id(call.request_id)
    );
    let set = set.send().await?;
    let revision = Revision::new(set.mod_revision);
    let answer = Answer::of(set, |set| LineChanged::new(set.line, set.mod_revision));
    Ok(answer.tagged(revision))
}

/// Remove a line. Scope `cart:write`.
#[utoipa::path(delete, path = "/v1/carts/{owner}/lines/{line}", tag = "carts", operation_id = "remove_cart_line",
    params(("owner" = Owner, Path), ("line" = LineName, Path), SessionHeader, Condition, Absence, WriteHeaders),
    responses((status = 200, body = LineChanged), WriteProblems))]
async fn remove(
    call: Call,
    At((owner, line)): At<(Owner, LineName)>,
) -> Result<Answer<LineChanged>, Problem> {
    call.allow(Scope::CartWrite)?;
    let line = line.try_into()?;
    let owner = owner.resolve(&call).await?;
    let remove = call.client.carts().remove(&owner, line);
    let remove = with!(
        remove,
        if_revision(call.cart_condition()?),
        request_id(call.request_id)
    );
    let removed = remove.send().await?;
    let revision = Revision::new(removed.mod_revision);
    let answer = Answer::of(removed, |gone| {
        LineChanged::new(gone.line, gone.mod_revision)
    });
    Ok(answer.tagged(revision))
}
