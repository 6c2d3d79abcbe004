//! Carts: several actions at once, merges, and orders.

use std::time::Duration;

use tokio::time::Instant;

use super::builder::{in_txn, millis, pick, write_options};
use super::call::Options;
use super::carts::{CartOwner, Carts, LineRef};
use super::{Client, Consistency, Error, Outcome, Reply};
use crate::proto::v1;
use crate::proto::v1::cart_action::Action;
use crate::proto::v1::operation::Request;
use crate::types::Revision;

/// What becomes of two carts that are merged. Lines are the same where SKU and attributes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergePolicy {
    /// All lines of both; the quantities of the same line are added up.
    Sum,
    /// All lines of both; of the same line the greater quantity.
    Max,
    /// The target stays as it is.
    KeepTarget,
    /// What the source held, unless it has no lines.
    KeepSource,
    /// What the source held, where the target has no lines.
    SourceIfTargetEmpty,
}

impl From<MergePolicy> for v1::CartMergePolicy {
    fn from(policy: MergePolicy) -> Self {
        match policy {
            MergePolicy::Sum => Self::Sum,
            MergePolicy::Max => Self::Max,
            MergePolicy::KeepTarget => Self::KeepTarget,
            MergePolicy::KeepSource => Self::KeepSource,
            MergePolicy::SourceIfTargetEmpty => Self::SourceIfTargetEmpty,
        }
    }
}

impl<'a> Carts<'a> {
    /// Several actions, in the order in which the builder is told them: all of them, under one revision, or none. The
    /// failure of one says which it was, see [`super::Rejected::metadata`]: `action`, counted from 0.
    pub fn update(&self, owner: &CartOwner) -> UpdateCart<'a> {
        let request = v1::UpdateCartRequest {
            namespace: self.client.namespace_field(),
            owner: Some(owner.into()),
            ..Default::default()
        };
        UpdateCart {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Moves what one cart holds into another. From then on the source's owner fills the target. Merging again what was
    /// merged changes nothing.
    pub fn merge(
        &self,
        source: &CartOwner,
        target: &CartOwner,
        policy: MergePolicy,
    ) -> MergeCarts<'a> {
        let request = v1::MergeCartsRequest {
            namespace: self.client.namespace_field(),
            source: Some(source.into()),
            target: Some(target.into()),
            policy: v1::CartMergePolicy::from(policy).into(),
            ..Default::default()
        };
        MergeCarts {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Keeps a cart as it is while the holder takes an order from it. The answer has the cart as it was frozen, and the
    /// revision that names the freeze. Freezing again as the same holder renews the lease.
    pub fn freeze(&self, owner: &CartOwner, holder: impl Into<String>) -> FreezeCart<'a> {
        let request = v1::FreezeCartRequest {
            namespace: self.client.namespace_field(),
            owner: Some(owner.into()),
            holder: holder.into(),
            ..Default::default()
        };
        FreezeCart {
            client: self.client,
            options: Options::default(),
            owner: owner.clone(),
            request,
        }
    }

    /// Ends the holder's freeze without an order.
    pub fn release(&self, owner: &CartOwner, holder: impl Into<String>) -> ReleaseCart<'a> {
        let request = v1::ReleaseCartRequest {
            namespace: self.client.namespace_field(),
            owner: Some(owner.into()),
            holder: holder.into(),
            ..Default::default()
        };
        ReleaseCart {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Ends the holder's freeze with an order: takes what was frozen out of the cart, even after the lease. The same
    /// order is completed once, however often this is called.
    pub fn complete_order(
        &self,
        owner: &CartOwner,
        holder: impl Into<String>,
        revision: Revision,
        order_id: impl Into<String>,
    ) -> CompleteOrder<'a> {
        let request = v1::CompleteOrderRequest {
            namespace: self.client.namespace_field(),
            owner: Some(owner.into()),
            holder: holder.into(),
            revision: revision.get(),
            order_id: order_id.into(),
            ..Default::default()
        };
        CompleteOrder {
            client: self.client,
            options: Options::default(),
            request,
        }
    }
}

/// See [`Carts::update`].
#[must_use]
pub struct UpdateCart<'a> {
    client: &'a Client,
    options: Options,
    request: v1::UpdateCartRequest,
}

in_txn!(UpdateCart);

impl UpdateCart<'_> {
    write_options!();

    /// Only if the cart is at this revision; 0 means that there is none yet.
    pub fn if_revision(mut self, revision: Revision) -> Self {
        self.request.if_revision = Some(revision.get());
        self
    }

    /// Any action, as the protos have it.
    pub fn action(mut self, action: Action) -> Self {
        self.request.actions.push(v1::CartAction {
            action: Some(action),
        });
        self
    }

    /// Adds pieces of a SKU, without a price or attributes; with them, see [`UpdateCart::action`].
    pub fn add(self, sku: impl Into<String>, quantity: i64) -> Self {
        self.action(Action::Add(v1::AddLineAction {
            sku: sku.into(),
            quantity,
            ..Default::default()
        }))
    }

    /// Sets a line's quantity.
    pub fn set_quantity(self, line: LineRef, quantity: i64) -> Self {
        let line = Some(line.into());
        self.action(Action::SetQuantity(v1::SetLineQuantityAction {
            line,
            quantity,
        }))
    }

    /// Removes a line.
    pub fn remove(self, line: LineRef) -> Self {
        let line = Some(line.into());
        self.action(Action::Remove(v1::RemoveLineAction { line }))
    }

    /// Moves a line to a place, counted from 0; beyond the end is the end.
    pub fn move_to(self, line: LineRef, index: u32) -> Self {
        let line = Some(line.into());
        self.action(Action::Move(v1::MoveLineAction { line, index }))
    }

    /// Removes every line.
    pub fn clear(self) -> Self {
        self.action(Action::Clear(v1::ClearLinesAction {}))
    }

    /// Sets the note; empty removes it.
    pub fn note(self, note: impl Into<String>) -> Self {
        self.action(Action::SetNote(note.into()))
    }

    /// Adds a coupon code, unless it is there.
    pub fn add_coupon_code(self, code: impl Into<String>) -> Self {
        self.action(Action::AddCouponCode(code.into()))
    }

    /// Removes a coupon code, if it is there.
    pub fn remove_coupon_code(self, code: impl Into<String>) -> Self {
        self.action(Action::RemoveCouponCode(code.into()))
    }

    /// Sets an attribute of the cart itself.
    pub fn attribute(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let entries = [(name.into(), value.into())].into();
        self.action(Action::SetAttributes(v1::StringMap { entries }))
    }

    /// Removes an attribute of the cart itself, if it is there.
    pub fn remove_attribute(self, name: impl Into<String>) -> Self {
        let values = vec![name.into()];
        self.action(Action::RemoveAttributes(v1::StringList { values }))
    }

    /// Sets the whole shipping address; none removes it.
    pub fn shipping_address<N, V>(self, fields: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        self.action(Action::SetShippingAddress(string_map(fields)))
    }

    /// Sets the whole billing address; none removes it.
    pub fn billing_address<N, V>(self, fields: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        self.action(Action::SetBillingAddress(string_map(fields)))
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::UpdateCartResponse>, Error> {
        let request = Request::UpdateCart(self.request);
        self.client
            .call(request, self.options, pick!(UpdateCart))
            .await
    }
}

fn string_map<N, V>(fields: impl IntoIterator<Item = (N, V)>) -> v1::StringMap
where
    N: Into<String>,
    V: Into<String>,
{
    let fields = fields.into_iter();
    v1::StringMap {
        entries: fields
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
    }
}

/// See [`Carts::merge`].
#[must_use]
pub struct MergeCarts<'a> {
    client: &'a Client,
    options: Options,
    request: v1::MergeCartsRequest,
}

in_txn!(MergeCarts);

impl MergeCarts<'_> {
    write_options!();

    /// Only if the source is at this revision; 0 means that there is none yet.
    pub fn if_source_revision(mut self, revision: Revision) -> Self {
        self.request.if_source_revision = Some(revision.get());
        self
    }

    /// Only if the target is at this revision; 0 means that there is none yet.
    pub fn if_target_revision(mut self, revision: Revision) -> Self {
        self.request.if_target_revision = Some(revision.get());
        self
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::MergeCartsResponse>, Error> {
        let request = Request::MergeCarts(self.request);
        self.client
            .call(request, self.options, pick!(MergeCarts))
            .await
    }
}

/// A cart that was frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct FrozenCart {
    /// Names the freeze when the order is completed; a freeze that is renewed keeps it. Not the reply's own revision.
    pub freeze_revision: Revision,
    /// Log time, in Unix milliseconds, at which the lease ends.
    pub deadline_ms: u64,
    /// The cart as it was frozen.
    pub snapshot: v1::Cart,
}

/// See [`Carts::freeze`].
#[must_use]
pub struct FreezeCart<'a> {
    client: &'a Client,
    options: Options,
    owner: CartOwner,
    request: v1::FreezeCartRequest,
}

in_txn!(FreezeCart);

impl FreezeCart<'_> {
    write_options!();

    /// How long the cart stays frozen, unless the lease is renewed; ten minutes if nothing is said, at most a day.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.request.lease_ms = millis(lease);
        self
    }

    /// Only if the cart is at this revision.
    pub fn if_revision(mut self, revision: Revision) -> Self {
        self.request.if_revision = Some(revision.get());
        self
    }

    /// Sends the request. A cart that is too large for the answer is read as well: it cannot have changed, unless its
    /// lease is over, and then the freeze has failed.
    pub async fn send(self) -> Result<Reply<FrozenCart>, Error> {
        // For both.
        let timeout = self.options.timeout;
        let deadline = Instant::now() + timeout.unwrap_or(self.client.defaults.timeout);
        let request = Request::FreezeCart(self.request);
        let reply: Reply<v1::FreezeCartResponse> = self
            .client
            .call(request, self.options, pick!(FreezeCart))
            .await?;
        let freeze = reply.freeze.clone().ok_or(Error::Protocol)?;
        let snapshot = if let Some(snapshot) = reply.snapshot.clone() {
            snapshot
        } else {
            let get = self.client.carts().get(&self.owner);
            let get = get.consistency(Consistency::Linearizable);
            let get = get.timeout(deadline.saturating_duration_since(Instant::now()));
            let cart = get.send().await.map_err(|error| Error::Unavailable {
                outcome: Outcome::Unknown,
                problem: format!("the cart is frozen, and could not be read: {error}"),
            });
            let cart = cart?.value;
            if cart.freeze.as_ref().map(|now| now.revision) != Some(freeze.revision) {
                return Err(Error::Protocol);
            }
            cart
        };
        Ok(reply.map(|_| FrozenCart {
            freeze_revision: Revision::new(freeze.revision),
            deadline_ms: freeze.deadline_ms,
            snapshot,
        }))
    }
}

/// See [`Carts::release`].
#[must_use]
pub struct ReleaseCart<'a> {
    client: &'a Client,
    options: Options,
    request: v1::ReleaseCartRequest,
}

in_txn!(ReleaseCart);

impl ReleaseCart<'_> {
    write_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::ReleaseCartResponse>, Error> {
        let request = Request::ReleaseCart(self.request);
        self.client
            .call(request, self.options, pick!(ReleaseCart))
            .await
    }
}

/// See [`Carts::complete_order`].
#[must_use]
pub struct CompleteOrder<'a> {
    client: &'a Client,
    options: Options,
    request: v1::CompleteOrderRequest,
}

in_txn!(CompleteOrder);

impl CompleteOrder<'_> {
    write_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::CompleteOrderResponse>, Error> {
        let request = Request::CompleteOrder(self.request);
        self.client
            .call(request, self.options, pick!(CompleteOrder))
            .await
    }
}
