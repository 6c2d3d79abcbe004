//! The cart service's requests.

use super::session::lookup_token;
use super::{Echo, Origin, Query, Read, Write, identity, read_mode, revision};
use crate::api::Error;
use crate::proto::v1::{self, cart_line_ref::Line, cart_owner::Owner};
use crate::state::{CartOwner, Command, LineRef, Operation};
use crate::types::{Attributes, Invalid, LineId, Money, Namespace, Quantity, Sku, UserId};

/// Last of a request's fields to be checked, because it may hold a token.
pub(super) fn owner(owner: Option<v1::CartOwner>) -> Result<CartOwner, Error> {
    match owner.and_then(|owner| owner.owner) {
        None => Err(Error::Invalid(Invalid::Empty { field: "owner" })),
        Some(Owner::UserId(user)) => Ok(CartOwner::User(UserId::parse(user)?)),
        Some(Owner::SessionToken(token)) => Ok(CartOwner::Session(lookup_token(&token)?)),
    }
}

fn line(line: Option<v1::CartLineRef>) -> Result<LineRef, Invalid> {
    match line.and_then(|line| line.line) {
        None => Err(Invalid::Empty { field: "line" }),
        Some(Line::LineId(id)) => Ok(LineRef::Id(LineId::new(id))),
        Some(Line::Sku(sku)) => Ok(LineRef::Sku(Sku::parse(sku)?)),
    }
}

fn price(price: Option<v1::Money>) -> Result<Option<Money>, Invalid> {
    price
        .map(|money| Money::parse(money.minor_units, &money.currency))
        .transpose()
}

pub(super) fn add(r: v1::AddCartLineRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = Operation::CartAdd {
        sku: Sku::parse(r.sku)?,
        quantity: Quantity::parse(r.quantity)?,
        unit_price: price(r.unit_price)?,
        attributes: Attributes::parse(r.attributes)?,
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::CartAdd,
    })
}

pub(super) fn set_quantity(
    r: v1::SetCartLineQuantityRequest,
    origin: Origin,
) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = Operation::CartSetQuantity {
        line: line(r.line)?,
        quantity: Quantity::parse(r.quantity)?,
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::CartSetQuantity,
    })
}

pub(super) fn remove(r: v1::RemoveCartLineRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = Operation::CartRemove {
        line: line(r.line)?,
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::CartRemove,
    })
}

pub(super) fn clear(r: v1::ClearCartRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = Operation::CartClear {
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::CartClear,
    })
}

pub(super) fn get(r: v1::GetCartRequest) -> Result<Read, Error> {
    Ok(Read {
        mode: read_mode(r.read)?,
        query: Query::Cart {
            namespace: Namespace::parse(r.namespace)?,
            owner: owner(r.owner)?,
        },
    })
}
