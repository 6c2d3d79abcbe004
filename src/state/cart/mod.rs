//! Carts: ordered lines, changed by deltas.
//!
//! | module | owns |
//! |---|---|
//! | `operation`, `wire` | what can be asked, and its bytes |
//! | `edit`, `totals` | pure functions over lines and records |
//! | `merge` | one cart into another, and pointers |
//! | `checkout` | freeze, release, completed orders |
//! | `life` | TTLs, and who may change a cart |
//!
//! Invariants:
//! 1. Line ids start at 1 and are never used twice: a cart that was emptied keeps its record until its TTL is over.
//! 2. All prices of a cart are in one currency, and its subtotal fits.
//! 3. A session's own cart has a record only while its session has one, and is readable only while that is live.
//! 4. A merged cart holds nothing but a pointer. Operations follow it, at most [`limits::CART_POINTERS`] times; where
//!    that leads nowhere (a chain that is longer, a session that has ended), the owner has an empty cart again.
//! 5. While a freeze's lease runs nothing in the cart changes but the lease.

mod checkout;
mod edit;
mod life;
pub(super) mod merge;
mod operation;
mod totals;
mod wire;

pub use operation::{CartAction, CartOperation, MergePolicy};
pub use totals::{line_total, subtotal, total_quantity};

pub(super) use life::{is_live, note_indexed, running_freeze};

use super::apply::{Outcome, Stop};
use super::batch::{Batch, SlotId};
use super::command::{CartOwner, LineRef};
use super::keys::Key;
use super::namespace::{CartPolicy, cart_policy};
use super::{Fault, Rejection, Store, command_wire, session};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::types::{LogTime, Namespace, Quantity, Revision, TokenHash};

use edit::Addition;

/// A cart that was found, there or not.
#[derive(Debug, Clone)]
struct Open {
    key: Key,
    cart: SlotId,
    /// Of the session that owns it.
    session: Option<SlotId>,
    /// It has no record that counts: none, one that is due, or a pointer that leads nowhere.
    is_new: bool,
    /// How long the carts of its namespace are kept.
    ttls: CartPolicy,
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
            let open = open_to_change(batch, namespace, owner, *if_revision)?;
            add(batch, &open, &addition)
        }
        CartOperation::SetQuantity {
            owner,
            line,
            quantity,
            if_revision,
        } => {
            let open = open_to_change(batch, namespace, owner, *if_revision)?;
            set_quantity(batch, &open, line, *quantity)
        }
        CartOperation::Remove {
            owner,
            line,
            if_revision,
        } => {
            let open = open_to_change(batch, namespace, owner, *if_revision)?;
            remove(batch, &open, line)
        }
        CartOperation::Clear { owner, if_revision } => {
            let open = open_to_change(batch, namespace, owner, *if_revision)?;
            Ok(clear(batch, &open))
        }
        CartOperation::Update {
            owner,
            actions,
            if_revision,
        } => {
            let open = open_to_change(batch, namespace, owner, *if_revision)?;
            update(batch, &open, actions)
        }
        CartOperation::Merge {
            source,
            target,
            policy,
            if_source_revision,
            if_target_revision,
        } => {
            let conditions = (*if_source_revision, *if_target_revision);
            merge::operate(batch, namespace, (source, target), *policy, conditions)
        }
        CartOperation::Freeze {
            owner,
            holder,
            lease,
            if_revision,
        } => {
            let open = open(batch, namespace, owner)?;
            checkout::freeze(batch, &open, *holder, *lease, *if_revision)
        }
        CartOperation::Release { owner, holder } => {
            let open = open(batch, namespace, owner)?;
            checkout::release(batch, &open, *holder)
        }
        CartOperation::CompleteOrder {
            owner,
            holder,
            revision,
            order,
        } => {
            let freeze = (*holder, *revision);
            checkout::complete(batch, namespace, owner, freeze, order)
        }
    }
}

// ---- finding ------------------------------------------------------------------------------------------------

/// The cart that an owner fills: its own, or the one that it was merged into.
fn open<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    owner: &CartOwner,
) -> Result<Open, Stop> {
    open_beside(batch, namespace, owner, &[])
}

/// The same once some sessions have ended, which still stand.
fn open_beside<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    owner: &CartOwner,
    ending: &[TokenHash],
) -> Result<Open, Stop> {
    let own = open_own(batch, namespace, owner)?;
    if pointer(batch, &own)?.is_none() {
        return Ok(own);
    }
    follow(batch, namespace, &own, ending)
}

/// The slot of the cart that an owner fills, if there is one.
pub(super) fn live<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    owner: &CartOwner,
) -> Result<Option<SlotId>, Stop> {
    let open = open(batch, namespace, owner)?;
    Ok(record(batch, &open).map(|_| open.cart))
}

/// A cart's record as callers may see it: with its freeze only while the lease runs, and without where the index holds it,
/// which says when it was swept.
pub(super) fn shown(record: &pb::CartRecord, now: LogTime) -> pb::CartRecord {
    pb::CartRecord {
        freeze: running_freeze(record, now).cloned(),
        indexed_deadline: 0,
        ..record.clone()
    }
}

/// An owner's own cart, merged or not.
fn open_own<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    owner: &CartOwner,
) -> Result<Open, Stop> {
    let (key, session) = match owner {
        CartOwner::User(user) => (Key::UserCart(namespace.clone(), user.clone()), None),
        CartOwner::Session(token) => (
            Key::SessionCart(namespace.clone(), *token),
            Some(session::live(batch, namespace, token)?),
        ),
    };
    let cart = batch.load(&key)?;
    let record = batch.read::<pb::CartRecord>(cart);
    let is_new = !record.is_some_and(|cart| is_live(cart, batch.now()));
    Ok(Open {
        key,
        cart,
        session,
        is_new,
        ttls: cart_policy(batch, namespace)?,
    })
}

/// Where a merged cart points.
fn pointer<S: Store>(batch: &Batch<'_, S>, open: &Open) -> Result<Option<CartOwner>, Fault> {
    match record(batch, open).and_then(|cart| cart.merged_into.as_ref()) {
        Some(target) => parse_pointer(target).map(Some),
        None => Ok(None),
    }
}

/// The owner that a stored pointer names.
pub(super) fn parse_pointer(target: &pb::StoredOwner) -> Result<CartOwner, Fault> {
    command_wire::owner(Some(target.clone()))
        .map_err(|e| Fault::corrupt("a merged cart", e.to_string()))
}

fn follow<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    own: &Open,
    ending: &[TokenHash],
) -> Result<Open, Stop> {
    let mut open = own.clone();
    for _ in 0..limits::CART_POINTERS {
        let Some(target) = pointer(batch, &open)? else {
            return Ok(open);
        };
        let is_ending = matches!(&target, CartOwner::Session(session) if ending.contains(session));
        match open_own(batch, namespace, &target) {
            Ok(next) if !is_ending => open = next,
            Err(Stop::Fault(fault)) => return Err(fault.into()),
            // The session that owned the target has ended, and the lines with it.
            _ => {
                return Ok(Open {
                    is_new: true,
                    ..open
                });
            }
        }
    }
    match pointer(batch, &open)? {
        None => Ok(open),
        Some(_) => Ok(Open {
            is_new: true,
            ..own.clone()
        }),
    }
}

/// Finds the cart that an owner fills, and checks that it may be changed and what the caller knows of it.
fn open_to_change<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    owner: &CartOwner,
    if_revision: Option<Revision>,
) -> Result<Open, Stop> {
    let open = open(batch, namespace, owner)?;
    life::check_thawed(record(batch, &open), batch.now())?;
    check_revision(batch, &open, if_revision)?;
    Ok(open)
}

fn check_revision<S: Store>(
    batch: &Batch<'_, S>,
    open: &Open,
    if_revision: Option<Revision>,
) -> Result<(), Rejection> {
    let actual = mod_revision(batch, open);
    match if_revision {
        Some(asked) if asked != actual => Err(Rejection::RevisionMismatch { actual }),
        _ => Ok(()),
    }
}

/// The cart's record, if there is one that counts.
fn record<'b, S: Store>(batch: &'b Batch<'_, S>, open: &Open) -> Option<&'b pb::CartRecord> {
    if open.is_new {
        return None;
    }
    batch.read::<pb::CartRecord>(open.cart)
}

/// 0 for a cart that is not there.
fn mod_revision<S: Store>(batch: &Batch<'_, S>, open: &Open) -> Revision {
    Revision::new(record(batch, open).map_or(0, |cart| cart.mod_revision))
}

fn lines<'b, S: Store>(batch: &'b Batch<'_, S>, open: &Open) -> &'b [v1::CartLine] {
    record(batch, open).map_or(&[], |cart| &cart.lines)
}

// ---- changing -----------------------------------------------------------------------------------------------

/// The cart's record, to change under a revision: made where there is none. Whoever changes it renews it afterwards.
fn change<'b, S: Store>(
    batch: &'b mut Batch<'_, S>,
    open: &Open,
    revision: Revision,
) -> &'b mut pb::CartRecord {
    if open.is_new {
        begin(batch, open, revision);
    }
    let cart = batch
        .change::<pb::CartRecord>(open.cart)
        .expect("it was found or has just been made");
    cart.mod_revision = revision.get();
    cart.order_id.clear();
    cart
}

/// Makes the cart's record, in place of one that no longer counts, and lets its session know.
fn begin<S: Store>(batch: &mut Batch<'_, S>, open: &Open, revision: Revision) {
    let stale = batch.read::<pb::CartRecord>(open.cart);
    let indexed = stale.map_or(0, |cart| cart.indexed_deadline);
    life::unindex(batch, &open.key, indexed);
    batch.put(
        open.cart,
        pb::CartRecord {
            create_revision: revision.get(),
            ..new_cart()
        },
    );
    let session = open
        .session
        .and_then(|id| batch.change_unseen::<pb::SessionRecord>(id));
    if let Some(session) = session {
        session.has_cart = true;
    }
}

fn new_cart() -> pb::CartRecord {
    pb::CartRecord {
        next_line_id: 1,
        ..pb::CartRecord::default()
    }
}

fn add<S: Store>(batch: &mut Batch<'_, S>, open: &Open, addition: &Addition<'_>) -> Outcome {
    let planned = edit::plan_addition(lines(batch, open), addition)?;
    let revision = batch.next_revision();
    let line = edit::add(change(batch, open, revision), addition, &planned).clone();
    life::renew(batch, open);
    Ok(line_changed(line, revision))
}

fn set_quantity<S: Store>(
    batch: &mut Batch<'_, S>,
    open: &Open,
    line: &LineRef,
    quantity: Quantity,
) -> Outcome {
    let at = edit::plan_quantity(lines(batch, open), line, quantity)?;
    let revision = batch.next_revision();
    let line = edit::set_quantity(change(batch, open, revision), at, quantity).clone();
    life::renew(batch, open);
    Ok(line_changed(line, revision))
}

fn remove<S: Store>(batch: &mut Batch<'_, S>, open: &Open, line: &LineRef) -> Outcome {
    let at = edit::find(lines(batch, open), line)?;
    let revision = batch.next_revision();
    let line = change(batch, open, revision).lines.remove(at);
    life::renew(batch, open);
    Ok(line_changed(line, revision))
}

fn line_changed(line: v1::CartLine, revision: Revision) -> Body {
    Body::CartLineChanged(pb::CartLineChanged {
        line: Some(line),
        mod_revision: revision.get(),
    })
}

/// Clearing a cart without lines, or one that does not exist, changes nothing.
fn clear<S: Store>(batch: &mut Batch<'_, S>, open: &Open) -> Body {
    let removed_lines = lines(batch, open).len();
    if removed_lines > 0 {
        let revision = batch.next_revision();
        change(batch, open, revision).lines.clear();
        life::renew(batch, open);
    }
    Body::CartCleared(pb::CartCleared {
        removed_lines: count(removed_lines),
        mod_revision: mod_revision(batch, open).get(),
    })
}

fn count(lines: usize) -> u32 {
    u32::try_from(lines).expect("limits::CART_LINES is far below")
}

/// Changes a copy, action by action, and puts it in place only if none was refused. Actions that come to nothing are no
/// change.
fn update<S: Store>(batch: &mut Batch<'_, S>, open: &Open, actions: &[CartAction]) -> Outcome {
    let mut after = record(batch, open).cloned().unwrap_or_else(new_cart);
    let mut results = Vec::with_capacity(actions.len());
    for (nth, action) in (0..).zip(actions) {
        let done = edit::apply(&mut after, action);
        results.push(done.map_err(|rejection| Stop::Action(nth, rejection))?);
    }
    let changes = match record(batch, open) {
        Some(before) => after != *before,
        None => after != new_cart(),
    };
    let revision = if changes {
        batch.next_revision()
    } else {
        mod_revision(batch, open)
    };
    let updated = pb::CartUpdated {
        mod_revision: revision.get(),
        results,
        subtotal: subtotal(&after.lines),
        total_quantity: total_quantity(&after.lines),
    };
    if changes {
        replace(batch, open, revision, after);
    }
    Ok(Body::CartUpdated(updated))
}

/// Gives a cart what an edited copy holds.
fn replace<S: Store>(
    batch: &mut Batch<'_, S>,
    open: &Open,
    revision: Revision,
    edited: pb::CartRecord,
) {
    let cart = change(batch, open, revision);
    cart.lines = edited.lines;
    cart.details = edited.details;
    cart.next_line_id = edited.next_line_id;
    life::renew(batch, open);
}

/// Whether a session has a cart of its own that is live, merged or not.
pub(super) fn has_own<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<bool, Fault> {
    let id = batch.load(&Key::SessionCart(namespace.clone(), *token))?;
    let record = batch.read::<pb::CartRecord>(id);
    Ok(record.is_some_and(|cart| is_live(cart, batch.now())))
}

/// The revision of the cart that a session fills, 0 if it fills none.
pub(super) fn filled_revision<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    session: &TokenHash,
) -> Result<u64, Stop> {
    let open = open(batch, namespace, &CartOwner::Session(*session))?;
    Ok(record(batch, &open).map_or(0, |cart| cart.mod_revision))
}

/// The end of a session that goes on was moved.
pub(super) fn follow_session<S: Store>(
    batch: &mut Batch<'_, S>,
    session: SlotId,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<(), Fault> {
    let record = batch.read::<pb::SessionRecord>(session);
    if record.is_some_and(|session| session.has_cart) {
        let key = Key::SessionCart(namespace.clone(), *token);
        let open = Open {
            cart: batch.load(&key)?,
            key,
            session: Some(session),
            is_new: false,
            ttls: cart_policy(batch, namespace)?,
        };
        life::follow_session(batch, &open);
    }
    Ok(())
}

// ---- ending -------------------------------------------------------------------------------------------------

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
        let key = Key::SessionCart(namespace.clone(), *token);
        let cart = batch.load(&key)?;
        let record = batch.read::<pb::CartRecord>(cart);
        let indexed = record.map_or(0, |cart| cart.indexed_deadline);
        life::unindex(batch, &key, indexed);
        batch.delete(cart);
    }
    Ok(())
}

/// The sweep deletes the cart of a session that goes on.
pub(super) fn note_expired<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    token: &TokenHash,
) -> Result<(), Fault> {
    let session = batch.load(&Key::Session(namespace.clone(), *token))?;
    if let Some(session) = batch.change_unseen::<pb::SessionRecord>(session) {
        session.has_cart = false;
    }
    Ok(())
}
