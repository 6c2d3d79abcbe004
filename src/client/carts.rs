//! Carts.

use super::builder::{in_txn, pick, read_options, write_options};
use super::call::Options;
use super::{Client, Consistency, Error, InTxn, Reply};
use crate::proto::v1;
use crate::proto::v1::cart_line_ref::Line;
use crate::proto::v1::cart_owner::Owner;
use crate::proto::v1::operation::Request;
use crate::types::Revision;

/// Whose cart.
#[derive(Clone, PartialEq, Eq)]
pub enum CartOwner {
    /// A user's, by id.
    User(String),
    /// A session's, by its token. It goes with the session.
    Session(String),
}

/// Without the token, which belongs in no log.
impl std::fmt::Debug for CartOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => f.debug_tuple("User").field(user).finish(),
            Self::Session(_) => f.write_str("Session(…)"),
        }
    }
}

impl From<&CartOwner> for v1::CartOwner {
    fn from(owner: &CartOwner) -> Self {
        let owner = match owner {
            CartOwner::User(user) => Owner::UserId(user.clone()),
            CartOwner::Session(token) => Owner::SessionToken(token.clone()),
        };
        Self { owner: Some(owner) }
    }
}

/// One line of a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineRef {
    /// By its number in the cart.
    Id(u64),
    /// By its SKU, where only one line has it.
    Sku(String),
}

impl From<LineRef> for v1::CartLineRef {
    fn from(line: LineRef) -> Self {
        let line = match line {
            LineRef::Id(id) => Line::LineId(id),
            LineRef::Sku(sku) => Line::Sku(sku),
        };
        Self { line: Some(line) }
    }
}

/// Requests about carts.
#[derive(Debug)]
pub struct Carts<'a> {
    pub(super) client: &'a Client,
}

impl<'a> Carts<'a> {
    /// Adds pieces of a SKU: to the line that has it, or to a new one.
    pub fn add(&self, owner: &CartOwner, sku: impl Into<String>, quantity: i64) -> AddLine<'a> {
        let request = v1::AddCartLineRequest {
            namespace: self.client.namespace_field(),
            owner: Some(owner.into()),
            sku: sku.into(),
            quantity,
            ..Default::default()
        };
        AddLine {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Sets a line's quantity.
    pub fn set_quantity(&self, owner: &CartOwner, line: LineRef, quantity: i64) -> SetQuantity<'a> {
        let request = v1::SetCartLineQuantityRequest {
            namespace: self.client.namespace_field(),
            owner: Some(owner.into()),
            line: Some(line.into()),
            quantity,
            ..Default::default()
        };
        SetQuantity {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Removes a line.
    pub fn remove(&self, owner: &CartOwner, line: LineRef) -> RemoveLine<'a> {
        let request = v1::RemoveCartLineRequest {
            namespace: self.client.namespace_field(),
            owner: Some(owner.into()),
            line: Some(line.into()),
            ..Default::default()
        };
        RemoveLine {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Removes every line.
    pub fn clear(&self, owner: &CartOwner) -> ClearCart<'a> {
        let request = v1::ClearCartRequest {
            namespace: self.client.namespace_field(),
            owner: Some(owner.into()),
            ..Default::default()
        };
        ClearCart {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Reads a cart. One that nothing was added to is empty.
    pub fn get(&self, owner: &CartOwner) -> GetCart<'a> {
        GetCart {
            client: self.client,
            options: Options::default(),
            consistency: None,
            owner: owner.into(),
            own: false,
        }
    }
}

/// A condition on the cart.
macro_rules! if_revision {
    () => {
        /// Only if the cart is at this revision; 0 means that there is none yet.
        pub fn if_revision(mut self, revision: Revision) -> Self {
            self.request.if_revision = Some(revision.get());
            self
        }
    };
}

/// See [`Carts::add`].
#[must_use]
pub struct AddLine<'a> {
    client: &'a Client,
    options: Options,
    request: v1::AddCartLineRequest,
}

in_txn!(AddLine as AddCartLine);

impl AddLine<'_> {
    write_options!();
    if_revision!();

    /// The price of one piece, in minor units (cents, for EUR) of a currency.
    pub fn unit_price(mut self, minor_units: i64, currency: impl Into<String>) -> Self {
        self.request.unit_price = Some(v1::Money {
            minor_units,
            currency: currency.into(),
        });
        self
    }

    /// Tells lines of the same SKU apart: size, colour, engraving.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.attributes.insert(name.into(), value.into());
        self
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::AddCartLineResponse>, Error> {
        let request = Request::AddCartLine(self.request);
        self.client
            .call(request, self.options, pick!(AddCartLine))
            .await
    }
}

/// See [`Carts::set_quantity`].
#[must_use]
pub struct SetQuantity<'a> {
    client: &'a Client,
    options: Options,
    request: v1::SetCartLineQuantityRequest,
}

in_txn!(SetQuantity as SetCartLineQuantity);

impl SetQuantity<'_> {
    write_options!();
    if_revision!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::SetCartLineQuantityResponse>, Error> {
        let request = Request::SetCartLineQuantity(self.request);
        self.client
            .call(request, self.options, pick!(SetCartLineQuantity))
            .await
    }
}

/// See [`Carts::remove`].
#[must_use]
pub struct RemoveLine<'a> {
    client: &'a Client,
    options: Options,
    request: v1::RemoveCartLineRequest,
}

in_txn!(RemoveLine as RemoveCartLine);

impl RemoveLine<'_> {
    write_options!();
    if_revision!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::RemoveCartLineResponse>, Error> {
        let request = Request::RemoveCartLine(self.request);
        self.client
            .call(request, self.options, pick!(RemoveCartLine))
            .await
    }
}

/// See [`Carts::clear`].
#[must_use]
pub struct ClearCart<'a> {
    client: &'a Client,
    options: Options,
    request: v1::ClearCartRequest,
}

in_txn!(ClearCart);

impl ClearCart<'_> {
    write_options!();
    if_revision!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::ClearCartResponse>, Error> {
        let request = Request::ClearCart(self.request);
        self.client
            .call(request, self.options, pick!(ClearCart))
            .await
    }
}

/// See [`Carts::get`].
#[must_use]
pub struct GetCart<'a> {
    client: &'a Client,
    options: Options,
    consistency: Option<Consistency>,
    owner: v1::CartOwner,
    own: bool,
}

impl InTxn for GetCart<'_> {
    fn into_request(self) -> Request {
        Request::GetCart(v1::GetCartRequest {
            namespace: self.client.namespace_field(),
            read: self.consistency.and_then(Consistency::to_options),
            owner: Some(self.owner),
            own: self.own,
        })
    }
}

impl GetCart<'_> {
    read_options!();

    /// The owner's own cart, even if it was merged; otherwise the cart that it was merged into is read.
    pub fn own(mut self) -> Self {
        self.own = true;
        self
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::Cart>, Error> {
        let request = Request::GetCart(v1::GetCartRequest {
            namespace: self.client.namespace_field(),
            read: self.client.read_options(self.consistency),
            owner: Some(self.owner),
            own: self.own,
        });
        let reply: Reply<v1::GetCartResponse> = self
            .client
            .call(request, self.options, pick!(GetCart))
            .await?;
        Ok(reply.map(|get| get.cart.unwrap_or_default()))
    }
}
