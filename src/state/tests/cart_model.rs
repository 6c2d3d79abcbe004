//! The naive model's carts.

use super::model::{Model, check};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::state::{CartOperation, CartOwner, LineRef, Rejection};
use crate::types::{Money, Namespace};

#[derive(Clone, Default)]
pub struct Cart {
    pub lines: Vec<v1::CartLine>,
    last_line: u64,
    pub modified: u64,
}

impl Model {
    pub fn cart(&self, ns: &Namespace, owner: &CartOwner) -> Option<&Cart> {
        match owner {
            CartOwner::User(user) => self.carts.get(&(ns.clone(), user.to_string())),
            CartOwner::Session(hash) => self.sessions.get(&(ns.clone(), *hash))?.cart.as_ref(),
        }
    }

    /// Changes a copy and puts it back only if the operation was not refused.
    pub fn change_cart(
        &mut self,
        ns: &Namespace,
        operation: &CartOperation,
    ) -> Result<Body, Rejection> {
        let (CartOperation::Add {
            owner, if_revision, ..
        }
        | CartOperation::SetQuantity {
            owner, if_revision, ..
        }
        | CartOperation::Remove {
            owner, if_revision, ..
        }
        | CartOperation::Clear { owner, if_revision }) = operation;
        if let CartOwner::Session(token) = owner {
            self.session(ns, *token)?;
        }
        let mut cart = self.cart(ns, owner).cloned().unwrap_or_default();
        check(*if_revision, cart.modified)?;
        let next = self.revision + 1;
        let line = match operation.clone() {
            CartOperation::Clear { .. } => {
                let removed_lines = u32::try_from(cart.lines.len()).expect("few lines");
                if removed_lines > 0 {
                    cart.modified = self.bump();
                    cart.lines.clear();
                }
                let mod_revision = cart.modified;
                if removed_lines > 0 {
                    self.store_cart(ns, owner, cart);
                }
                return Ok(Body::CartCleared(pb::CartCleared {
                    removed_lines,
                    mod_revision,
                }));
            }
            CartOperation::Remove { line, .. } => cart.lines.remove(find(&cart, &line)?),
            CartOperation::SetQuantity { line, quantity, .. } => {
                let at = find(&cart, &line)?;
                cart.lines[at].quantity = quantity.get();
                cart.lines[at].clone()
            }
            CartOperation::Add {
                sku,
                quantity,
                unit_price,
                attributes,
                ..
            } => {
                let wanted = (sku.into_string(), attributes.into_map());
                let line = v1::CartLine {
                    line_id: cart.last_line + 1,
                    sku: wanted.0,
                    quantity: quantity.get(),
                    unit_price: None,
                    attributes: wanted.1,
                };
                add(&mut cart, line, unit_price)?
            }
        };
        cart.modified = next;
        self.store_cart(ns, owner, cart);
        self.bump();
        Ok(Body::CartLineChanged(pb::CartLineChanged {
            line: Some(line),
            mod_revision: next,
        }))
    }

    fn store_cart(&mut self, ns: &Namespace, owner: &CartOwner, cart: Cart) {
        match owner {
            CartOwner::User(user) => {
                self.carts.insert((ns.clone(), user.to_string()), cart);
            }
            CartOwner::Session(token) => {
                let session = self.sessions.get_mut(&(ns.clone(), *token));
                session.expect("checked before").cart = Some(cart);
            }
        }
    }
}

fn find(cart: &Cart, wanted: &LineRef) -> Result<usize, Rejection> {
    let is_wanted = |line: &v1::CartLine| match wanted {
        LineRef::Id(id) => line.line_id == id.get(),
        LineRef::Sku(sku) => line.sku == sku.as_str(),
    };
    let found: Vec<usize> = (0..cart.lines.len())
        .filter(|at| is_wanted(&cart.lines[*at]))
        .collect();
    match found[..] {
        [] => Err(Rejection::CartLineNotFound),
        [at] => Ok(at),
        _ => Err(Rejection::AmbiguousLine),
    }
}

fn add(
    cart: &mut Cart,
    new: v1::CartLine,
    price: Option<Money>,
) -> Result<v1::CartLine, Rejection> {
    let price = price.map(|price| v1::Money {
        minor_units: price.minor_units(),
        currency: price.currency().as_str().to_owned(),
    });
    let priced = cart
        .lines
        .iter()
        .filter_map(|line| line.unit_price.as_ref());
    if let Some(price) = &price
        && priced
            .into_iter()
            .any(|other| other.currency != price.currency)
    {
        return Err(Rejection::CurrencyMismatch);
    }
    let same = |line: &v1::CartLine| line.sku == new.sku && line.attributes == new.attributes;
    let line = if let Some(line) = cart.lines.iter_mut().find(|line| same(line)) {
        if line.quantity + new.quantity > limits::QUANTITY_MAX {
            return Err(Rejection::QuantityLimit);
        }
        line.quantity += new.quantity;
        line
    } else {
        if cart.lines.len() == limits::CART_LINES {
            return Err(Rejection::CartLinesLimit);
        }
        cart.last_line += 1;
        cart.lines.push(new);
        cart.lines.last_mut().expect("just pushed")
    };
    line.unit_price = price.or(line.unit_price.take());
    Ok(line.clone())
}
