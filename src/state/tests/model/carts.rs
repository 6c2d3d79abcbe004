//! The naive model's carts: every operation works on a copy, which is put back whole if it was not refused.

use super::{Model, check};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::state::{CartAction, CartOperation, CartOwner, LineRef, Rejection};
use crate::types::{HolderId, LogTime, Money, Namespace, OrderId, Revision, TokenHash};

#[derive(Clone, Default, PartialEq)]
pub struct Cart {
    pub lines: Vec<v1::CartLine>,
    pub last_line: u64,
    pub created: u64,
    pub modified: u64,
    pub details: v1::CartDetails,
    pub freeze: Option<Freeze>,
    pub merged_into: Option<CartOwner>,
    pub order: String,
    pub deadline: u64,
}

#[derive(Clone, PartialEq)]
pub struct Freeze {
    pub holder: HolderId,
    pub revision: u64,
    pub until: u64,
    lines: Vec<(u64, u32)>,
}

#[derive(Clone)]
pub struct Order {
    pub holder: HolderId,
    pub revision: u64,
    answer: pb::OrderCompleted,
    pub until: u64,
}

impl Cart {
    /// Nobody ever began it, or nobody can tell.
    fn is_absent(&self) -> bool {
        self.modified == 0
    }

    /// As a transaction reads it.
    pub fn record(&self, now: u64) -> pb::CartRecord {
        let details = self.details.clone();
        pb::CartRecord {
            lines: self.lines.clone(),
            create_revision: self.created,
            mod_revision: self.modified,
            next_line_id: self.last_line + 1,
            deadline: self.deadline,
            indexed_deadline: 0,
            details: (details != v1::CartDetails::default()).then_some(details),
            freeze: self.held(now).map(|freeze| pb::StoredFreeze {
                holder: freeze.holder.as_str().to_owned(),
                revision: freeze.revision,
                deadline: freeze.until,
                lines: freeze
                    .lines
                    .iter()
                    .map(|(line_id, quantity)| pb::FrozenLine {
                        line_id: *line_id,
                        quantity: *quantity,
                    })
                    .collect(),
            }),
            merged_into: self.merged_into.as_ref().map(Into::into),
            order_id: self.order.clone(),
        }
    }

    fn held(&self, now: u64) -> Option<&Freeze> {
        self.freeze.as_ref().filter(|freeze| freeze.until > now)
    }
}

impl Model {
    /// What an owner reads.
    pub fn cart(&self, ns: &Namespace, owner: &CartOwner) -> Option<Cart> {
        let (_, cart) = self.find_cart(ns, owner).ok()?;
        (!cart.is_absent()).then_some(cart)
    }

    pub fn cart_revision(&self, ns: &Namespace, owner: &CartOwner) -> u64 {
        self.cart(ns, owner).map_or(0, |cart| cart.modified)
    }

    pub fn own_cart(&self, ns: &Namespace, owner: &CartOwner) -> Option<&Cart> {
        match owner {
            CartOwner::User(user) => self.carts.get(&(ns.clone(), user.to_string())),
            CartOwner::Session(hash) => self.sessions.get(&(ns.clone(), *hash))?.cart.as_ref(),
        }
    }

    fn has_owner(&self, ns: &Namespace, owner: &CartOwner) -> bool {
        match owner {
            CartOwner::User(_) => true,
            CartOwner::Session(hash) => self.sessions.contains_key(&(ns.clone(), *hash)),
        }
    }

    /// The cart that an owner fills, and whose it is.
    pub fn find_cart(
        &self,
        ns: &Namespace,
        owner: &CartOwner,
    ) -> Result<(CartOwner, Cart), Rejection> {
        self.find_cart_without(ns, owner, &[])
    }

    /// The same as if some sessions had ended.
    pub fn find_cart_without(
        &self,
        ns: &Namespace,
        owner: &CartOwner,
        gone: &[TokenHash],
    ) -> Result<(CartOwner, Cart), Rejection> {
        let is_gone =
            |owner: &CartOwner| matches!(owner, CartOwner::Session(token) if gone.contains(token));
        if !self.has_owner(ns, owner) {
            return Err(Rejection::SessionNotFound);
        }
        let mut at = owner.clone();
        for _ in 0..=limits::CART_POINTERS {
            let cart = self.own_cart(ns, &at).cloned().unwrap_or_default();
            match cart.merged_into.clone() {
                None => return Ok((at, cart)),
                Some(next) if self.has_owner(ns, &next) && !is_gone(&next) => at = next,
                Some(_) => return Ok((at, Cart::default())),
            }
        }
        Ok((owner.clone(), Cart::default()))
    }

    /// The same, to be changed.
    fn open_cart(
        &self,
        ns: &Namespace,
        owner: &CartOwner,
        if_revision: Option<Revision>,
    ) -> Result<(CartOwner, Cart), Rejection> {
        let (at, cart) = self.find_cart(ns, owner)?;
        thawed(&cart, self.now)?;
        check(if_revision, cart.modified)?;
        Ok((at, cart))
    }

    /// Puts a changed copy in place, with its deadline.
    pub fn store_cart(&mut self, ns: &Namespace, owner: &CartOwner, mut cart: Cart) {
        let is_empty = cart.lines.is_empty() && cart.merged_into.is_none();
        let settings = self.settings.get(ns).and_then(|(set, _)| set.cart);
        let settings = settings.unwrap_or_default();
        let ttl = match owner {
            _ if is_empty => (settings.empty_ttl_ms, limits::CART_TTL_EMPTY_DEFAULT_MS),
            CartOwner::User(_) => (settings.user_ttl_ms, limits::CART_TTL_USER_DEFAULT_MS),
            CartOwner::Session(_) => (settings.guest_ttl_ms, limits::CART_TTL_GUEST_DEFAULT_MS),
        };
        let ttl = ttl.0.map_or(ttl.1, i64::cast_unsigned);
        let until = cart.freeze.as_ref().map_or(0, |freeze| freeze.until);
        cart.deadline = (self.now + ttl).max(until);
        if cart.created == 0 {
            cart.created = cart.modified;
        }
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

    pub fn change_cart(
        &mut self,
        ns: &Namespace,
        operation: &CartOperation,
    ) -> Result<Body, Rejection> {
        match operation.clone() {
            CartOperation::Add {
                owner,
                sku,
                quantity,
                unit_price,
                attributes,
                if_revision,
            } => {
                let action = CartAction::Add {
                    sku,
                    quantity,
                    unit_price,
                    attributes,
                };
                self.change_line(ns, &owner, if_revision, &action)
            }
            CartOperation::SetQuantity {
                owner,
                line,
                quantity,
                if_revision,
            } => {
                let action = CartAction::SetQuantity { line, quantity };
                self.change_line(ns, &owner, if_revision, &action)
            }
            CartOperation::Remove {
                owner,
                line,
                if_revision,
            } => self.change_line(ns, &owner, if_revision, &CartAction::Remove { line }),
            CartOperation::Clear { owner, if_revision } => {
                let (at, mut cart) = self.open_cart(ns, &owner, if_revision)?;
                let removed_lines = u32::try_from(cart.lines.len()).expect("few lines");
                if removed_lines > 0 {
                    cart.lines.clear();
                    cart.order = String::new();
                    cart.modified = self.bump();
                    self.store_cart(ns, &at, cart.clone());
                }
                Ok(Body::CartCleared(pb::CartCleared {
                    removed_lines,
                    mod_revision: cart.modified,
                }))
            }
            CartOperation::Update {
                owner,
                actions,
                if_revision,
            } => self.update_cart(ns, &owner, if_revision, &actions),
            CartOperation::Merge {
                source,
                target,
                policy,
                if_source_revision,
                if_target_revision,
            } => {
                let conditions = (if_source_revision, if_target_revision);
                self.merge_carts(ns, &source, &target, policy, conditions)
            }
            CartOperation::Freeze {
                owner,
                holder,
                lease,
                if_revision,
            } => self.freeze_cart(ns, &owner, holder, lease.as_millis(), if_revision),
            CartOperation::Release { owner, holder } => {
                let (at, mut cart) = self.find_cart(ns, &owner)?;
                self.held_by(&cart, |freeze| freeze.holder == holder)?;
                cart.freeze = None;
                cart.order = String::new();
                cart.modified = self.bump();
                let mod_revision = cart.modified;
                self.store_cart(ns, &at, cart);
                Ok(Body::CartReleased(pb::CartReleased { mod_revision }))
            }
            CartOperation::CompleteOrder {
                owner,
                holder,
                revision,
                order,
            } => self.complete_order(ns, &owner, holder, revision.get(), &order),
        }
    }

    /// One action by itself, answered with the line.
    fn change_line(
        &mut self,
        ns: &Namespace,
        owner: &CartOwner,
        if_revision: Option<Revision>,
        action: &CartAction,
    ) -> Result<Body, Rejection> {
        let (at, mut cart) = self.open_cart(ns, owner, if_revision)?;
        let line = act(&mut cart, action)?.expect("it is about a line");
        cart.order = String::new();
        cart.modified = self.bump();
        let mod_revision = cart.modified;
        self.store_cart(ns, &at, cart);
        Ok(Body::CartLineChanged(pb::CartLineChanged {
            line: Some(line),
            mod_revision,
        }))
    }

    fn update_cart(
        &mut self,
        ns: &Namespace,
        owner: &CartOwner,
        if_revision: Option<Revision>,
        actions: &[CartAction],
    ) -> Result<Body, Rejection> {
        let (at, before) = self.open_cart(ns, owner, if_revision)?;
        let mut cart = before.clone();
        let mut results = Vec::new();
        for (nth, action) in actions.iter().enumerate() {
            match act(&mut cart, action) {
                Err(rejection) => {
                    return Ok(Body::Rejected(pb::Rejected {
                        action: Some(u32::try_from(nth).expect("few actions")),
                        ..rejection.to_stored()
                    }));
                }
                Ok(line) => {
                    let removed = matches!(action, CartAction::Remove { .. });
                    results.push(
                        line.map_or_else(Default::default, |line| v1::CartActionResult {
                            line_id: line.line_id,
                            quantity: if removed { 0 } else { line.quantity },
                        }),
                    );
                }
            }
        }
        if cart != before {
            cart.order = String::new();
            cart.modified = self.bump();
            self.store_cart(ns, &at, cart.clone());
        }
        let priced = cart.lines.iter().filter_map(|line| line.unit_price.clone());
        let currency = priced.map(|price| price.currency).next();
        Ok(Body::CartUpdated(pb::CartUpdated {
            mod_revision: cart.modified,
            results,
            subtotal: currency.map(|currency| v1::Money {
                minor_units: i64::try_from(total(&cart)).expect("it was checked"),
                currency,
            }),
            total_quantity: cart.lines.iter().map(|line| u64::from(line.quantity)).sum(),
        }))
    }

    fn freeze_cart(
        &mut self,
        ns: &Namespace,
        owner: &CartOwner,
        holder: HolderId,
        lease: u64,
        if_revision: Option<Revision>,
    ) -> Result<Body, Rejection> {
        let (at, mut cart) = self.find_cart(ns, owner)?;
        if cart
            .held(self.now)
            .is_none_or(|freeze| freeze.holder != holder)
        {
            thawed(&cart, self.now)?;
        }
        check(if_revision, cart.modified)?;
        if cart.lines.is_empty() {
            return Err(Rejection::CartEmpty);
        }
        let until = self.now + lease;
        let own = |freeze: &Freeze| freeze.holder == holder && freeze.revision == cart.modified;
        match cart.freeze.clone() {
            Some(freeze) if own(&freeze) => {
                if freeze.until != until {
                    self.bump();
                    cart.freeze = Some(Freeze { until, ..freeze });
                    self.store_cart(ns, &at, cart);
                }
            }
            _ => {
                let revision = self.bump();
                let lines = cart.lines.iter();
                cart.freeze = Some(Freeze {
                    holder,
                    revision,
                    until,
                    lines: lines.map(|line| (line.line_id, line.quantity)).collect(),
                });
                cart.order = String::new();
                cart.modified = revision;
                self.store_cart(ns, &at, cart);
            }
        }
        let cart = self.own_cart(ns, &at).expect("it has lines");
        let freeze = cart.freeze.as_ref().expect("it was just frozen");
        let frozen = pb::CartFrozen {
            holder: holder.as_str().to_owned(),
            revision: freeze.revision,
            deadline: until,
            snapshot: Some(pb::CartRecord {
                freeze: None,
                ..cart.record(self.now)
            }),
        };
        Ok(Body::CartFrozen(Box::new(frozen)))
    }

    fn held_by(&self, cart: &Cart, meant: impl Fn(&Freeze) -> bool) -> Result<(), Rejection> {
        match &cart.freeze {
            Some(freeze) if meant(freeze) => Ok(()),
            _ => {
                thawed(cart, self.now)?;
                Err(Rejection::CartNotFrozen)
            }
        }
    }

    fn complete_order(
        &mut self,
        ns: &Namespace,
        owner: &CartOwner,
        holder: HolderId,
        revision: u64,
        order: &OrderId,
    ) -> Result<Body, Rejection> {
        let id = (ns.clone(), order.to_string());
        if let Some(known) = self.orders.get(&id) {
            if (known.holder, known.revision) != (holder, revision) {
                return Err(Rejection::OrderExists);
            }
            return Ok(Body::OrderCompleted(pb::OrderCompleted {
                already_completed: true,
                ..known.answer
            }));
        }
        let (at, mut cart) = self.find_cart(ns, owner)?;
        let is_newer = self.version >= 2;
        let names_another =
            |freeze: &Freeze| freeze.holder == holder && freeze.revision != revision;
        if is_newer && cart.held(self.now).is_some_and(names_another) {
            return Err(Rejection::CartNotFrozen);
        }
        self.held_by(&cart, |freeze| {
            (freeze.holder, freeze.revision) == (holder, revision)
        })?;
        let freeze = cart.freeze.take().expect("it is held");
        let was_changed = cart.modified != freeze.revision;
        cart.lines = cart
            .lines
            .into_iter()
            .filter_map(|line| {
                let bought = freeze.lines.iter().find(|(id, _)| *id == line.line_id);
                let quantity = line.quantity.saturating_sub(bought.map_or(0, |(_, n)| *n));
                (quantity > 0).then_some(v1::CartLine { quantity, ..line })
            })
            .collect();
        cart.order = String::new();
        if cart.lines.is_empty() && !(is_newer && was_changed) {
            cart.details = v1::CartDetails::default();
            cart.order = order.to_string();
        }
        cart.modified = self.bump();
        let answer = pb::OrderCompleted {
            already_completed: false,
            mod_revision: cart.modified,
            remaining_lines: u32::try_from(cart.lines.len()).expect("few lines"),
        };
        self.store_cart(ns, &at, cart);
        let until = self.now + limits::ORDER_TTL_MS;
        let kept = Order {
            holder,
            revision,
            answer,
            until,
        };
        self.orders.insert(id, kept);
        Ok(Body::OrderCompleted(answer))
    }
}

pub fn thawed(cart: &Cart, now: u64) -> Result<(), Rejection> {
    match cart.held(now) {
        None => Ok(()),
        Some(freeze) => Err(Rejection::CartFrozen {
            holder: freeze.holder,
            until: LogTime::from_millis(freeze.until),
        }),
    }
}

fn total(cart: &Cart) -> i128 {
    let of = |line: &v1::CartLine| {
        let price = line
            .unit_price
            .as_ref()
            .map_or(0, |price| price.minor_units);
        i128::from(price) * i128::from(line.quantity)
    };
    cart.lines.iter().map(of).sum()
}

pub fn check_total(cart: &Cart) -> Result<(), Rejection> {
    i64::try_from(total(cart))
        .map(drop)
        .map_err(|_| Rejection::CartTotalLimit)
}

/// Does an action to a copy, and returns the line that it was about. After a refusal the copy is thrown away.
fn act(cart: &mut Cart, action: &CartAction) -> Result<Option<v1::CartLine>, Rejection> {
    let details = &mut cart.details;
    match action.clone() {
        CartAction::Add {
            sku,
            quantity,
            unit_price,
            attributes,
        } => {
            let new = v1::CartLine {
                sku: sku.into_string(),
                quantity: quantity.get(),
                attributes: attributes.into_map(),
                ..v1::CartLine::default()
            };
            let line = add(cart, &new, unit_price)?;
            check_total(cart)?;
            return Ok(Some(line));
        }
        CartAction::SetQuantity { line, quantity } => {
            let at = find(cart, &line)?;
            cart.lines[at].quantity = quantity.get();
            let line = cart.lines[at].clone();
            check_total(cart)?;
            return Ok(Some(line));
        }
        CartAction::Remove { line } => {
            let at = find(cart, &line)?;
            return Ok(Some(cart.lines.remove(at)));
        }
        CartAction::Move { line, index } => {
            let at = find(cart, &line)?;
            let line = cart.lines.remove(at);
            let index = (index as usize).min(cart.lines.len());
            cart.lines.insert(index, line.clone());
            return Ok(Some(line));
        }
        CartAction::Clear => cart.lines.clear(),
        CartAction::SetNote(note) => details.note = note.as_str().to_owned(),
        CartAction::AddCouponCode(code) => {
            if !details.coupon_codes.contains(&code.as_str().to_owned()) {
                details.coupon_codes.push(code.into_string());
            }
            if details.coupon_codes.len() > limits::CART_COUPONS {
                return Err(Rejection::CartCouponsLimit);
            }
        }
        CartAction::RemoveCouponCode(code) => {
            details.coupon_codes.retain(|other| other != code.as_str());
        }
        CartAction::SetAttributes(map) => {
            details.attributes.extend(map.as_map().clone());
            if details.attributes.len() > limits::CART_ATTRIBUTES {
                return Err(Rejection::CartAttributesLimit);
            }
        }
        CartAction::RemoveAttributes(names) => {
            for name in names {
                details.attributes.remove(&name);
            }
        }
        CartAction::SetShippingAddress(map) => details.shipping_address = map.as_map().clone(),
        CartAction::SetBillingAddress(map) => details.billing_address = map.as_map().clone(),
    }
    Ok(None)
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

pub fn push<'c>(cart: &'c mut Cart, line: &v1::CartLine) -> &'c mut v1::CartLine {
    cart.last_line += 1;
    cart.lines.push(v1::CartLine {
        line_id: cart.last_line,
        ..line.clone()
    });
    cart.lines.last_mut().expect("just pushed")
}

fn add(
    cart: &mut Cart,
    new: &v1::CartLine,
    price: Option<Money>,
) -> Result<v1::CartLine, Rejection> {
    let price = price.map(v1::Money::from);
    if let Some(price) = &price {
        same_currency(cart, &price.currency)?;
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
        push(cart, new)
    };
    line.unit_price = price.or(line.unit_price.take());
    Ok(line.clone())
}

pub fn same_currency(cart: &Cart, currency: &str) -> Result<(), Rejection> {
    let mut priced = cart
        .lines
        .iter()
        .filter_map(|line| line.unit_price.as_ref());
    if priced.any(|price| price.currency != currency) {
        return Err(Rejection::CurrencyMismatch);
    }
    Ok(())
}
