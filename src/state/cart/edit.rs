//! Changes of one cart, as functions over its lines and its record.
//!
//! Invariant: what is refused has changed nothing. A single operation plans over the lines that are there, then changes
//! them in place; an update of several actions changes a copy.

use crate::limits;
use crate::proto::{internal as pb, v1};
use crate::state::Rejection;
use crate::state::command::LineRef;
use crate::types::{Attributes, CouponCode, Money, Quantity, Sku, TextMap};

use super::operation::CartAction;
use super::totals;

/// What an addition asks for.
pub(super) struct Addition<'a> {
    pub sku: &'a Sku,
    pub quantity: Quantity,
    pub unit_price: Option<Money>,
    pub attributes: &'a Attributes,
}

/// What an addition will do: the line that it sums with, if any, and the line's quantity.
pub(super) struct PlannedAddition {
    at: Option<usize>,
    quantity: Quantity,
}

/// Checks an addition.
pub(super) fn plan_addition(
    lines: &[v1::CartLine],
    addition: &Addition<'_>,
) -> Result<PlannedAddition, Rejection> {
    if let (Some(price), Some(currency)) = (addition.unit_price, totals::currency(lines))
        && price.currency().as_str() != currency
    {
        return Err(Rejection::CurrencyMismatch);
    }
    let same = |line: &v1::CartLine| {
        line.sku == addition.sku.as_str() && line.attributes == *addition.attributes.as_map()
    };
    let at = lines.iter().position(same);
    let quantity = match at.and_then(|at| lines.get(at)) {
        Some(line) => sum(line.quantity, addition.quantity.get())?,
        None if lines.len() < limits::CART_LINES => addition.quantity,
        None => return Err(Rejection::CartLinesLimit),
    };
    let price = addition.unit_price.map(Money::minor_units);
    let price = price.or_else(|| unit_price(lines, at));
    if let Some(price) = price {
        totals::check_change(lines, at, quantity.get(), price)?;
    }
    Ok(PlannedAddition { at, quantity })
}

/// Two quantities of one line together.
pub(super) fn sum(a: u32, b: u32) -> Result<Quantity, Rejection> {
    let sum = u64::from(a).saturating_add(u64::from(b));
    Quantity::parse(sum.cast_signed()).map_err(|_| Rejection::QuantityLimit)
}

fn unit_price(lines: &[v1::CartLine], at: Option<usize>) -> Option<i64> {
    let price = lines.get(at?)?.unit_price.as_ref()?;
    Some(price.minor_units)
}

/// Does what was planned over the same lines, and returns the line.
pub(super) fn add<'c>(
    cart: &'c mut pb::CartRecord,
    addition: &Addition<'_>,
    planned: &PlannedAddition,
) -> &'c v1::CartLine {
    let line = if let Some(at) = planned.at {
        cart.lines
            .get_mut(at)
            .expect("the plan names a line of the cart")
    } else {
        let line_id = take_line_id(cart);
        cart.lines.push(v1::CartLine {
            line_id,
            sku: addition.sku.as_str().to_owned(),
            attributes: addition.attributes.as_map().clone(),
            ..v1::CartLine::default()
        });
        cart.lines.last_mut().expect("a line was just pushed")
    };
    line.quantity = planned.quantity.get();
    if let Some(price) = addition.unit_price {
        line.unit_price = Some(price.into());
    }
    line
}

/// The id of a new line.
pub(super) fn take_line_id(cart: &mut pb::CartRecord) -> u64 {
    let id = cart.next_line_id;
    cart.next_line_id = id.saturating_add(1);
    id
}

/// Where the line is that a caller names.
pub(super) fn find(lines: &[v1::CartLine], wanted: &LineRef) -> Result<usize, Rejection> {
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

/// Checks a new quantity of a line, and says where the line is.
pub(super) fn plan_quantity(
    lines: &[v1::CartLine],
    wanted: &LineRef,
    quantity: Quantity,
) -> Result<usize, Rejection> {
    let at = find(lines, wanted)?;
    if let Some(price) = unit_price(lines, Some(at)) {
        totals::check_change(lines, Some(at), quantity.get(), price)?;
    }
    Ok(at)
}

/// Does what was planned over the same lines, and returns the line.
pub(super) fn set_quantity(
    cart: &mut pb::CartRecord,
    at: usize,
    quantity: Quantity,
) -> &v1::CartLine {
    let line = cart
        .lines
        .get_mut(at)
        .expect("the line was found in this cart");
    line.quantity = quantity.get();
    line
}

/// One action of an update.
pub(super) fn apply(
    cart: &mut pb::CartRecord,
    action: &CartAction,
) -> Result<v1::CartActionResult, Rejection> {
    match action {
        CartAction::Add {
            sku,
            quantity,
            unit_price,
            attributes,
        } => {
            let addition = Addition {
                sku,
                quantity: *quantity,
                unit_price: *unit_price,
                attributes,
            };
            let planned = plan_addition(&cart.lines, &addition)?;
            Ok(result(add(cart, &addition, &planned)))
        }
        CartAction::SetQuantity { line, quantity } => {
            let at = plan_quantity(&cart.lines, line, *quantity)?;
            Ok(result(set_quantity(cart, at, *quantity)))
        }
        CartAction::Remove { line } => {
            let at = find(&cart.lines, line)?;
            let removed = cart.lines.remove(at);
            Ok(v1::CartActionResult {
                line_id: removed.line_id,
                quantity: 0,
            })
        }
        CartAction::Move { line, index } => {
            let at = find(&cart.lines, line)?;
            let line = cart.lines.remove(at);
            let moved = result(&line);
            let index = usize::try_from(*index).unwrap_or(usize::MAX);
            cart.lines.insert(index.min(cart.lines.len()), line);
            Ok(moved)
        }
        CartAction::Clear => {
            cart.lines.clear();
            Ok(v1::CartActionResult::default())
        }
        _ => edit_details(cart, action).map(|()| v1::CartActionResult::default()),
    }
}

fn result(line: &v1::CartLine) -> v1::CartActionResult {
    v1::CartActionResult {
        line_id: line.line_id,
        quantity: line.quantity,
    }
}

/// Details that are all empty are not stored, so that a cart which got them back has the same record as before.
fn edit_details(cart: &mut pb::CartRecord, action: &CartAction) -> Result<(), Rejection> {
    let mut details = cart.details.take().unwrap_or_default();
    let edited = edit(&mut details, action);
    cart.details = (details != v1::CartDetails::default()).then_some(details);
    edited
}

fn edit(details: &mut v1::CartDetails, action: &CartAction) -> Result<(), Rejection> {
    match action {
        CartAction::SetNote(note) => note.as_str().clone_into(&mut details.note),
        CartAction::AddCouponCode(code) => return add_coupon(details, code),
        CartAction::RemoveCouponCode(code) => {
            details.coupon_codes.retain(|other| other != code.as_str());
        }
        CartAction::SetAttributes(map) => return set_attributes(details, map),
        CartAction::RemoveAttributes(names) => {
            details.attributes.retain(|name, _| !names.contains(name));
        }
        CartAction::SetShippingAddress(map) => details.shipping_address.clone_from(map.as_map()),
        CartAction::SetBillingAddress(map) => details.billing_address.clone_from(map.as_map()),
        CartAction::Add { .. }
        | CartAction::SetQuantity { .. }
        | CartAction::Remove { .. }
        | CartAction::Move { .. }
        | CartAction::Clear => {}
    }
    Ok(())
}

fn add_coupon(details: &mut v1::CartDetails, code: &CouponCode) -> Result<(), Rejection> {
    let codes = &mut details.coupon_codes;
    if codes.iter().any(|other| other == code.as_str()) {
        return Ok(());
    }
    if codes.len() >= limits::CART_COUPONS {
        return Err(Rejection::CartCouponsLimit);
    }
    codes.push(code.as_str().to_owned());
    Ok(())
}

fn set_attributes(details: &mut v1::CartDetails, map: &TextMap) -> Result<(), Rejection> {
    let mut after = details.attributes.clone();
    let new = map.as_map().iter();
    after.extend(new.map(|(name, value)| (name.clone(), value.clone())));
    if after.len() > limits::CART_ATTRIBUTES || TextMap::size(&after) > limits::CART_ATTRIBUTE_BYTES
    {
        return Err(Rejection::CartAttributesLimit);
    }
    details.attributes = after;
    Ok(())
}
