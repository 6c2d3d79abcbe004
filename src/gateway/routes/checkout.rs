//! `/v1/carts/…`: several actions at once, merges, and orders.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Owner;
use super::answer::Answer;
use super::call::{At, Body, Call, with};
use super::cart_views::{Cart, Merge, Money};
use super::carts::LineName;
use super::documented::{Absence, Condition, SessionHeader, WriteHeaders, WriteProblems};
use super::keys::{some, ttl};
use crate::client::{
    CartOwner, CompleteOrder, FreezeCart, FrozenCart, LineRef, MergeCarts, UpdateCart,
};
use crate::gateway::App;
use crate::gateway::auth::Scope;
use crate::gateway::problem::Problem;
use crate::proto::v1;
use crate::proto::v1::cart_action::Action as Message;
use crate::types::Revision;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(update))
        .routes(routes!(merge))
        .routes(routes!(freeze))
        .routes(routes!(release))
        .routes(routes!(complete_order))
}

/// One change of a cart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Action {
    /// Adds pieces of a SKU.
    Add(super::carts::AddLine),
    /// Sets a line's quantity.
    SetQuantity(ActionQuantity),
    /// Removes a line.
    Remove(ActionLine),
    /// Moves a line to a place, counted from 0; beyond the end is the end.
    Move(ActionMove),
    /// Removes every line.
    Clear(Nothing),
    /// Empty removes it.
    SetNote(String),
    AddCouponCode(String),
    RemoveCouponCode(String),
    /// Those that are not named stay as they are.
    SetAttributes(BTreeMap<String, String>),
    RemoveAttributes(Vec<String>),
    /// The whole address; empty removes it.
    SetShippingAddress(BTreeMap<String, String>),
    SetBillingAddress(BTreeMap<String, String>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ActionQuantity {
    line: LineName,
    quantity: i64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ActionLine {
    line: LineName,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ActionMove {
    line: LineName,
    index: u32,
}

/// `{}`
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn line(name: LineName) -> Result<Option<v1::CartLineRef>, Problem> {
    Ok(Some(LineRef::try_from(name)?.into()))
}

impl TryFrom<Action> for Message {
    type Error = Problem;

    fn try_from(action: Action) -> Result<Self, Problem> {
        let map = |entries: BTreeMap<String, String>| v1::StringMap { entries };
        Ok(match action {
            Action::Add(add) => Self::Add(v1::AddLineAction {
                sku: add.sku,
                quantity: add.quantity,
                unit_price: add.unit_price.map(v1::Money::from),
                attributes: add.attributes,
            }),
            Action::SetQuantity(set) => Self::SetQuantity(v1::SetLineQuantityAction {
                line: line(set.line)?,
                quantity: set.quantity,
            }),
            Action::Remove(remove) => Self::Remove(v1::RemoveLineAction {
                line: line(remove.line)?,
            }),
            Action::Move(to) => Self::Move(v1::MoveLineAction {
                line: line(to.line)?,
                index: to.index,
            }),
            Action::Clear(Nothing {}) => Self::Clear(v1::ClearLinesAction {}),
            Action::SetNote(note) => Self::SetNote(note),
            Action::AddCouponCode(code) => Self::AddCouponCode(code),
            Action::RemoveCouponCode(code) => Self::RemoveCouponCode(code),
            Action::SetAttributes(entries) => Self::SetAttributes(map(entries)),
            Action::RemoveAttributes(values) => Self::RemoveAttributes(v1::StringList { values }),
            Action::SetShippingAddress(entries) => Self::SetShippingAddress(map(entries)),
            Action::SetBillingAddress(entries) => Self::SetBillingAddress(map(entries)),
        })
    }
}

/// Several actions, in their order: all of them or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CartChange {
    #[schema(min_items = 1, max_items = 100)]
    actions: Vec<Action>,
}

impl CartChange {
    /// The request that it stands for.
    pub fn build<'c>(self, call: &'c Call, owner: &CartOwner) -> Result<UpdateCart<'c>, Problem> {
        let mut update = call.client.carts().update(owner);
        for action in self.actions {
            update = update.action(action.try_into()?);
        }
        Ok(update)
    }
}

/// What actions left.
#[derive(Debug, Serialize, ToSchema)]
pub struct CartChanged {
    /// The cart's revision, as in `ETag`.
    mod_revision: u64,
    /// One for each action, in their order.
    results: Vec<ActionResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtotal: Option<Money>,
    total_quantity: u64,
}

/// What an action did to a line; nothing for an action that is not about one line.
#[derive(Debug, Serialize, ToSchema)]
struct ActionResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    line_id: Option<u64>,
    /// 0 for a line that was removed.
    quantity: u32,
}

impl From<v1::UpdateCartResponse> for CartChanged {
    fn from(changed: v1::UpdateCartResponse) -> Self {
        let results = changed.results.into_iter();
        Self {
            mod_revision: changed.mod_revision,
            results: results
                .map(|result| ActionResult {
                    line_id: some(result.line_id),
                    quantity: result.quantity,
                })
                .collect(),
            subtotal: changed.subtotal.map(Money::from),
            total_quantity: changed.total_quantity,
        }
    }
}

/// Where a cart goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeInto {
    into: Owner,
    policy: Merge,
}

impl MergeInto {
    /// The request that it stands for.
    pub async fn build<'c>(
        self,
        call: &'c Call,
        source: &CartOwner,
    ) -> Result<MergeCarts<'c>, Problem> {
        let target = self.into.resolve(call).await?;
        Ok(call
            .client
            .carts()
            .merge(source, &target, self.policy.into()))
    }
}

/// What a merge did.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the name is the one over gRPC")]
pub struct Merged {
    /// It had been merged into this cart before: nothing was changed.
    already_merged: bool,
    /// Of the cart that was merged into.
    mod_revision: u64,
    taken_lines: u32,
    /// Lines, of either cart, that the policy dropped.
    dropped_lines: u32,
}

impl From<v1::MergeCartsResponse> for Merged {
    fn from(merged: v1::MergeCartsResponse) -> Self {
        Self {
            already_merged: merged.already_merged,
            mod_revision: merged.mod_revision,
            taken_lines: merged.taken_lines,
            dropped_lines: merged.dropped_lines,
        }
    }
}

/// Who takes an order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeBy {
    /// Up to 64 bytes, told to everybody whose change is refused.
    #[schema(min_length = 1, max_length = 64)]
    holder: String,
    /// How long; ten minutes without, at most a day.
    #[schema(value_type = Option<u64>, minimum = 1)]
    lease_ms: Option<NonZeroU64>,
}

impl FreezeBy {
    /// The request that it stands for.
    pub fn build<'c>(self, call: &'c Call, owner: &CartOwner) -> FreezeCart<'c> {
        let freeze = call.client.carts().freeze(owner, self.holder);
        with!(freeze, lease(ttl(self.lease_ms)))
    }
}

/// A cart as it was frozen.
#[derive(Debug, Serialize, ToSchema)]
pub struct Frozen {
    /// Names the freeze when the order is completed.
    revision: u64,
    /// When it ends, in Unix milliseconds.
    deadline_ms: u64,
    cart: Cart,
}

/// The same in a transaction.
#[derive(Debug, Serialize, ToSchema)]
pub struct TxnFrozen {
    /// Names the freeze when the order is completed.
    revision: u64,
    /// When it ends, in Unix milliseconds.
    deadline_ms: u64,
    /// Absent if it is large: then read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cart: Option<Cart>,
}

impl From<v1::FreezeCartResponse> for TxnFrozen {
    fn from(frozen: v1::FreezeCartResponse) -> Self {
        let freeze = frozen.freeze.unwrap_or_default();
        Self {
            revision: freeze.revision,
            deadline_ms: freeze.deadline_ms,
            cart: frozen.snapshot.map(Cart::from),
        }
    }
}

impl From<FrozenCart> for Frozen {
    fn from(frozen: FrozenCart) -> Self {
        Self {
            revision: frozen.freeze_revision.get(),
            deadline_ms: frozen.deadline_ms,
            cart: frozen.snapshot.into(),
        }
    }
}

/// Who gives a cart back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBy {
    #[schema(min_length = 1, max_length = 64)]
    pub holder: String,
}

/// A cart that can be changed again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Released {
    /// The cart's revision, as in `ETag`.
    mod_revision: u64,
}

impl From<v1::ReleaseCartResponse> for Released {
    fn from(released: v1::ReleaseCartResponse) -> Self {
        Self {
            mod_revision: released.mod_revision,
        }
    }
}

/// An order, of what was frozen.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the name is the one over gRPC")]
pub struct Order {
    #[schema(min_length = 1, max_length = 64)]
    holder: String,
    /// As freezing answered it.
    revision: u64,
    /// Unique in the namespace, and remembered for 90 days.
    #[schema(min_length = 1, max_length = 64)]
    order_id: String,
}

impl Order {
    /// The request that it stands for.
    pub fn build<'c>(self, call: &'c Call, owner: &CartOwner) -> CompleteOrder<'c> {
        let (carts, revision) = (call.client.carts(), Revision::new(self.revision));
        carts.complete_order(owner, self.holder, revision, self.order_id)
    }
}

/// What an order left.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ordered {
    /// It had been completed before: nothing was changed.
    already_completed: bool,
    /// The cart's revision, as in `ETag`.
    mod_revision: u64,
    /// What is left in the cart.
    remaining_lines: u32,
}

impl From<v1::CompleteOrderResponse> for Ordered {
    fn from(ordered: v1::CompleteOrderResponse) -> Self {
        Self {
            already_completed: ordered.already_completed,
            mod_revision: ordered.mod_revision,
            remaining_lines: ordered.remaining_lines,
        }
    }
}

/// Change a cart by several actions, all of them or none. Scope `cart:write`.
#[utoipa::path(post, path = "/v1/carts/{owner}/actions", tag = "carts", operation_id = "update_cart",
    params(("owner" = Owner, Path), SessionHeader, Condition, Absence, WriteHeaders), request_body = CartChange,
    responses((status = 200, body = CartChanged), WriteProblems))]
async fn update(
    call: Call,
    At(owner): At<Owner>,
    Body(body): Body<CartChange>,
) -> Result<Answer<CartChanged>, Problem> {
    call.allow(Scope::CartWrite)?;
    let owner = owner.resolve(&call).await?;
    let update = with!(
        body.build(&call, &owner)?,
        if_revision(call.cart_condition()?),
        request_id(call.request_id.clone())
    );
    let changed = update.send().await?;
    let revision = Revision::new(changed.mod_revision);
    Ok(Answer::of(changed, CartChanged::from).tagged(revision))
}

/// Merge a cart into another. From then on its owner fills that one. Scope `cart:write`.
#[utoipa::path(post, path = "/v1/carts/{owner}/merge", tag = "carts", operation_id = "merge_carts",
    params(("owner" = Owner, Path), SessionHeader, WriteHeaders), request_body = MergeInto,
    responses((status = 200, body = Merged), WriteProblems))]
async fn merge(
    call: Call,
    At(owner): At<Owner>,
    Body(body): Body<MergeInto>,
) -> Result<Answer<Merged>, Problem> {
    call.allow(Scope::CartWrite)?;
    call.no_condition()?;
    let source = owner.resolve(&call).await?;
    let merge = body.build(&call, &source).await?;
    let merge = with!(merge, request_id(call.request_id.clone()));
    Ok(Answer::of(merge.send().await?, Merged::from))
}

/// Keep a cart as it is while an order is taken from it. Scope `cart:write`.
#[utoipa::path(post, path = "/v1/carts/{owner}/freeze", tag = "carts", operation_id = "freeze_cart",
    params(("owner" = Owner, Path), SessionHeader, Condition, Absence, WriteHeaders), request_body = FreezeBy,
    responses((status = 200, body = Frozen), WriteProblems))]
async fn freeze(
    call: Call,
    At(owner): At<Owner>,
    Body(body): Body<FreezeBy>,
) -> Result<Answer<Frozen>, Problem> {
    call.allow(Scope::CartWrite)?;
    let owner = owner.resolve(&call).await?;
    let freeze = with!(
        body.build(&call, &owner),
        if_revision(call.cart_condition()?),
        request_id(call.request_id.clone())
    );
    Ok(Answer::of(freeze.send().await?, Frozen::from))
}

/// End a freeze without an order. Scope `cart:write`.
#[utoipa::path(post, path = "/v1/carts/{owner}/release", tag = "carts", operation_id = "release_cart",
    params(("owner" = Owner, Path), SessionHeader, WriteHeaders), request_body = ReleaseBy,
    responses((status = 200, body = Released), WriteProblems))]
async fn release(
    call: Call,
    At(owner): At<Owner>,
    Body(body): Body<ReleaseBy>,
) -> Result<Answer<Released>, Problem> {
    call.allow(Scope::CartWrite)?;
    call.no_condition()?;
    let owner = owner.resolve(&call).await?;
    let release = call.client.carts().release(&owner, body.holder);
    let release = with!(release, request_id(call.request_id));
    let released = release.send().await?;
    let revision = Revision::new(released.mod_revision);
    Ok(Answer::of(released, Released::from).tagged(revision))
}

/// End a freeze with an order: what was frozen is taken out of the cart, once, however often it is asked for.
/// Scope `cart:write`.
#[utoipa::path(post, path = "/v1/carts/{owner}/orders", tag = "carts", operation_id = "complete_order",
    params(("owner" = Owner, Path), SessionHeader, WriteHeaders), request_body = Order,
    responses((status = 200, body = Ordered), WriteProblems))]
async fn complete_order(
    call: Call,
    At(owner): At<Owner>,
    Body(body): Body<Order>,
) -> Result<Answer<Ordered>, Problem> {
    call.allow(Scope::CartWrite)?;
    call.no_condition()?;
    let owner = owner.resolve(&call).await?;
    let order = with!(
        body.build(&call, &owner),
        request_id(call.request_id.clone())
    );
    let ordered = order.send().await?;
    let revision = Revision::new(ordered.mod_revision);
    Ok(Answer::of(ordered, Ordered::from).tagged(revision))
}
