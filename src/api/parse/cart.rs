//! The cart service's requests.

use super::{Echo, Origin, Query, Read, Write, identity, read_mode, revision};
use crate::api::Error;
use crate::limits;
use crate::proto::v1::{self, cart_line_ref::Line, cart_owner::Owner};
use crate::state::{
    CartAction, CartOperation, CartOwner, Command, LineRef, MergePolicy, Operation,
};
use crate::types::{
    Attributes, HolderId, Invalid, LineId, Money, Namespace, OrderId, Quantity, Revision, Sku,
    TokenHash, Ttl, UserId,
};

pub(super) fn owner(owner: Option<v1::CartOwner>) -> Result<CartOwner, Error> {
    named_owner("owner", owner)
}

fn named_owner(field: &'static str, owner: Option<v1::CartOwner>) -> Result<CartOwner, Error> {
    match owner.and_then(|owner| owner.owner) {
        None => Err(Error::Invalid(Invalid::Empty { field })),
        Some(Owner::UserId(user)) => Ok(CartOwner::User(UserId::parse(user)?)),
        Some(Owner::SessionToken(token)) => Ok(CartOwner::Session(TokenHash::of_text(&token))),
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
    let operation = CartOperation::Add {
        sku: Sku::parse(r.sku)?,
        quantity: Quantity::parse(r.quantity)?,
        unit_price: price(r.unit_price)?,
        attributes: Attributes::parse(r.attributes)?,
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CartAdd,
    })
}

pub(super) fn set_quantity(
    r: v1::SetCartLineQuantityRequest,
    origin: Origin,
) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = CartOperation::SetQuantity {
        line: line(r.line)?,
        quantity: Quantity::parse(r.quantity)?,
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CartSetQuantity,
    })
}

pub(super) fn remove(r: v1::RemoveCartLineRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = CartOperation::Remove {
        line: line(r.line)?,
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CartRemove,
    })
}

pub(super) fn clear(r: v1::ClearCartRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = CartOperation::Clear {
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CartClear,
    })
}

pub(super) fn get(r: v1::GetCartRequest) -> Result<Read, Error> {
    Ok(Read {
        mode: read_mode(r.read)?,
        query: Query::Cart {
            namespace: Namespace::parse(r.namespace)?,
            own: r.own,
            owner: owner(r.owner)?,
        },
    })
}

pub(super) fn update(r: v1::UpdateCartRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = CartOperation::Update {
        actions: CartAction::parse_all(r.actions)?,
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CartUpdate,
    })
}

pub(super) fn merge(r: v1::MergeCartsRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    if r.source.is_some() && r.source == r.target {
        return Err(Error::Invalid(Invalid::Exclusive {
            first: "source",
            second: "the same cart as target",
        }));
    }
    let operation = CartOperation::Merge {
        policy: MergePolicy::parse("policy", r.policy)?,
        if_source_revision: revision(r.if_source_revision),
        if_target_revision: revision(r.if_target_revision),
        source: named_owner("source", r.source)?,
        target: named_owner("target", r.target)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CartMerge,
    })
}

pub(super) fn freeze(r: v1::FreezeCartRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = CartOperation::Freeze {
        holder: HolderId::parse(&r.holder)?,
        lease: lease(r.lease_ms)?,
        if_revision: revision(r.if_revision),
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CartFreeze,
    })
}

fn lease(millis: i64) -> Result<Ttl, Invalid> {
    let max = limits::CART_LEASE_MAX_MS;
    match u64::try_from(millis) {
        Ok(0) => Ok(Ttl::from_millis(limits::CART_LEASE_DEFAULT_MS)),
        Ok(given) if given <= max => Ok(Ttl::from_millis(given)),
        _ => Err(Invalid::OutOfRange {
            field: "lease_ms",
            min: 0,
            max: max.cast_signed(),
            actual: millis,
        }),
    }
}

pub(super) fn release(r: v1::ReleaseCartRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = CartOperation::Release {
        holder: HolderId::parse(&r.holder)?,
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CartRelease,
    })
}

pub(super) fn complete_order(r: v1::CompleteOrderRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    if r.revision == 0 {
        return Err(Error::Invalid(Invalid::Empty { field: "revision" }));
    }
    let operation = CartOperation::CompleteOrder {
        holder: HolderId::parse(&r.holder)?,
        revision: Revision::new(r.revision),
        order: OrderId::parse(r.order_id)?,
        owner: owner(r.owner)?,
    };
    Ok(Write {
        command: Command::new(namespace, identity, Operation::Cart(operation)),
        echo: Echo::CompleteOrder,
    })
}
