//! Carts: ordered lines, changed by deltas.
//!
//! Invariants:
//! 1. Line ids start at 1 and are never used twice: a cart that was emptied keeps its record.
//! 2. All prices of a cart are in one currency.
//! 3. A session's own cart has a record only while its session has one, and is readable only while that is live.

mod operation;
mod wire;

pub use operation::CartOperation;

use super::apply::{Outcome, Stop};
use super::batch::{Batch, SlotId};
use super::command::{CartOwner, LineRef};
use super::keys::Key;
use super::{Fault, Rejection, Store, session};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::types::{Attributes, Money, Namespace, Quantity, Revision, Sku, TokenHash};

/// A cart that a caller may change.
struct Open {
    cart: SlotId,
    /// Of the session that owns it.
    session: Option<SlotId>,
}

/// What an add asks for.
struct Addition<'a> {
    sku: &'a Sku,
    quantity: Quantity,
    unit_price: Option<Money>,
    attributes: &'a Attributes,
}

/// Executes a cart operation.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    operation: &CartOperation,
) -> Outcome {
    match operation {
        CartOperation::Add {
            owner,
            sku,
            quantity,
            unit_price,
            attributes,
            if_revision,
        } => {
            let addition = Addition {
                sku,
                quantity: *quantity,
                unit_price: *unit_price,
                attributes,
            };
            let open = open(batch, namespace, owner, *if_revision)?;
            add(batch, &open, &addition)
        }
        CartOperation::SetQuantity {
            owner,
            line,
            quantity,
            if_revision,
        } => {
            let open = open(batch, namespace, owner, *if_revision)?;
            set_quantity(batch, &open, line, *quantity)
        }
        CartOperation::Remove {
            owner,
            line,
            if_revision,
        } => {
            let open = open(batch, namespace, owner, *if_revision)?;
            remove(batch, &open, line)
        }
        CartOperation::Clear { owner, if_revision } => {
            let open = open(batch, namespace, owner, *if_revision)?;
            Ok(clear(batch, &open))
        }
    }
}

/// Deletes the cart of a session that ends.
pub(super) fn delete_with_session<S: Store>(
    batch: &mut Batch<'_, S>,
    session: SlotId,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<(), Fault> {
    let has_cart = batch
        .read::<pb::SessionRecord>(session)
        .is_some_and(|session| session.has_cart);
    if has_cart {
        let cart = batch.load(&Key::SessionCart(namespace.clone(), *token))?;
        batch.delete(cart);
    }
    Ok(())
}

/// Finds the cart, there or not, and checks what the caller knows of it.
fn open<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    owner: &CartOwner,
    if_revision: Option<Revision>,
) -> Result<Open, Stop> {
    let open = match owner {
        CartOwner::User(user) => Open {
            cart: batch.load(&Key::UserCart(namespace.clone(), user.clone()))?,
            session: None,
        },
        CartOwner::Session(token) => Open {
            session: Some(session::live(batch, namespace, token)?),
            cart: batch.load(&Key::SessionCart(namespace.clone(), *token))?,
        },
    };
    let cart = batch.read::<pb::CartRecord>(open.cart);
    let actual = Revision::new(cart.map_or(0, |cart| cart.mod_revision));
    if if_revision.is_some_and(|asked| asked != actual) {
        return Err(Rejection::RevisionMismatch { actual }.into());
    }
    Ok(open)
}

fn lines<'b, S: Store>(batch: &'b Batch<'_, S>, open: &Open) -> &'b [v1::CartLine] {
    batch
        .read::<pb::CartRecord>(open.cart)
        .map_or(&[], |cart| &cart.lines)
}

fn add<S: Store>(batch: &mut Batch<'_, S>, open: &Open, addition: &Addition<'_>) -> Outcome {
    let found = plan(lines(batch, open), addition)?;
    let revision = batch.next_revision();
    if batch.read::<pb::CartRecord>(open.cart).is_none() {
        begin(batch, open, revision);
    }
    let cart = changed(batch, open, revision);
    let line = if let Some((at, quantity)) = found {
        let line = cart
            .lines
            .get_mut(at)
            .expect("the plan names a line of the cart");
        line.quantity = quantity.get();
        line
    } else {
        cart.lines.push(new_line(cart.next_line_id, addition));
        cart.next_line_id = cart.next_line_id.saturating_add(1);
        cart.lines.last_mut().expect("a line was just pushed")
    };
    if let Some(price) = addition.unit_price {
        line.unit_price = Some(price.into());
    }
    let line = line.clone();
    Ok(line_changed(line, revision))
}

/// Checks an addition, and names the line that it sums with, if any, and that line's new quantity.
fn plan(
    lines: &[v1::CartLine],
    addition: &Addition<'_>,
) -> Result<Option<(usize, Quantity)>, Rejection> {
    let currency = lines.iter().find_map(|line| line.unit_price.as_ref());
    if let (Some(price), Some(currency)) = (addition.unit_price, currency)
        && price.currency().as_str() != currency.currency
    {
        return Err(Rejection::CurrencyMismatch);
    }
    let same = |line: &v1::CartLine| {
        line.sku == addition.sku.as_str() && line.attributes == *addition.attributes.as_map()
    };
    let found = lines.iter().enumerate().find(|(_, line)| same(line));
    let Some((at, line)) = found else {
        return if lines.len() < limits::CART_LINES {
            Ok(None)
        } else {
            Err(Rejection::CartLinesLimit)
        };
    };
    let sum = u64::from(line.quantity).saturating_add(u64::from(addition.quantity.get()));
    let sum = Quantity::parse(sum.cast_signed()).map_err(|_| Rejection::QuantityLimit)?;
    Ok(Some((at, sum)))
}

/// Makes the cart's record, and lets its session know.
fn begin<S: Store>(batch: &mut Batch<'_, S>, open: &Open, revision: Revision) {
    let cart = pb::CartRecord {
        create_revision: revision.get(),
        next_line_id: 1,
        ..pb::CartRecord::default()
    };
    batch.put(open.cart, cart);
    let session = open
        .session
        .and_then(|id| batch.change::<pb::SessionRecord>(id));
    if let Some(session) = session {
        session.has_cart = true;
    }
}

/// The cart's record, at a new revision. Only where it is known to be there.
fn changed<'b, S: Store>(
    batch: &'b mut Batch<'_, S>,
    open: &Open,
    revision: Revision,
) -> &'b mut pb::CartRecord {
    let cart = batch
        .change::<pb::CartRecord>(open.cart)
        .expect("the caller found it or made it");
    cart.mod_revision = revision.get();
    cart
}

fn new_line(line_id: u64, addition: &Addition<'_>) -> v1::CartLine {
    v1::CartLine {
        line_id,
        sku: addition.sku.as_str().to_owned(),
        quantity: addition.quantity.get(),
        unit_price: None,
        attributes: addition.attributes.as_map().clone(),
    }
}

fn line_changed(line: v1::CartLine, revision: Revision) -> Body {
    Body::CartLineChanged(pb::CartLineChanged {
        line: Some(line),
        mod_revision: revision.get(),
    })
}

/// Where the line is that a caller names.
fn find(lines: &[v1::CartLine], wanted: &LineRef) -> Result<usize, Rejection> {
    let matches = |line: &v1::CartLine| match wanted {
        LineRef::Id(id) => line.line_id == id.get(),
        LineRef::Sku(sku) => line.sku == sku.as_str(),
    };
    let mut found = lines.iter().enumerate().filter(|(_, line)| matches(line));
    match (found.next(), found.next()) {
        (None, _) => Err(Rejection::CartLineNotFound),
        (Some((at, _)), None) => Ok(at),
        (Some(_), Some(_)) => Err(Rejection::AmbiguousLine),
    }
}

fn set_quantity<S: Store>(
    batch: &mut Batch<'_, S>,
    open: &Open,
    line: &LineRef,
    quantity: Quantity,
) -> Outcome {
    let at = find(lines(batch, open), line)?;
    let revision = batch.next_revision();
    let cart = changed(batch, open, revision);
    let line = cart
        .lines
        .get_mut(at)
        .expect("the line was found in this cart");
    line.quantity = quantity.get();
    let line = line.clone();
    Ok(line_changed(line, revision))
}

fn remove<S: Store>(batch: &mut Batch<'_, S>, open: &Open, line: &LineRef) -> Outcome {
    let at = find(lines(batch, open), line)?;
    let revision = batch.next_revision();
    let line = changed(batch, open, revision).lines.remove(at);
    Ok(line_changed(line, revision))
}

/// Clearing a cart without lines, or one that does not exist, changes nothing.
fn clear<S: Store>(batch: &mut Batch<'_, S>, open: &Open) -> Body {
    let removed_lines = lines(batch, open).len();
    if removed_lines > 0 {
        let revision = batch.next_revision();
        changed(batch, open, revision).lines.clear();
    }
    let cart = batch.read::<pb::CartRecord>(open.cart);
    Body::CartCleared(pb::CartCleared {
        removed_lines: u32::try_from(removed_lines).expect("limits::CART_LINES is far below"),
        mod_revision: cart.map_or(0, |cart| cart.mod_revision),
    })
}
