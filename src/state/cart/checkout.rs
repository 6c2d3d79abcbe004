//! Taking an order from a cart.
//!
//! A holder freezes the cart, takes payment for what was frozen, and completes the order. While its lease runs, nobody
//! changes the cart. A lease that runs out reopens the cart without a write, and what was frozen stays known: a payment
//! that comes late completes its order all the same, and takes out of the cart what was paid, not what was added since.
//! Only another freeze, a release or a merge ends that.
//!
//! Invariants:
//! 1. A freeze is named by its holder and the revision at which it was made. A revision is used once, so that no other
//!    freeze of any cart has the name.
//! 2. A freeze ends in at most one order, and an order id ends at most one freeze for as long as it is remembered.

use prost::Message as _;

use super::{Open, change, check_revision, count, life, open, record};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::apply::Outcome;
use crate::state::batch::{Batch, SlotId};
use crate::state::command::CartOwner;
use crate::state::{Key, Rejection, Store};
use crate::types::{HolderId, Namespace, OrderId, Revision, StateVersion, Ttl};

/// Freezes a cart, or renews the lease of its holder's freeze if nothing has changed since.
pub(super) fn freeze<S: Store>(
    batch: &mut Batch<'_, S>,
    open: &Open,
    holder: HolderId,
    lease: Ttl,
    if_revision: Option<Revision>,
) -> Outcome {
    let now = batch.now();
    let cart = record(batch, open);
    let running = cart.and_then(|cart| life::running_freeze(cart, now));
    if let Some(freeze) = running.filter(|freeze| freeze.holder != holder.as_str()) {
        return Err(life::frozen(freeze).into());
    }
    check_revision(batch, open, if_revision)?;
    let Some(cart) = cart.filter(|cart| !cart.lines.is_empty()) else {
        return Err(Rejection::CartEmpty.into());
    };
    let deadline = now.after(lease).as_millis();
    let known = cart
        .freeze
        .as_ref()
        .filter(|freeze| freeze.holder == holder.as_str() && freeze.revision == cart.mod_revision);
    let known = known.map(|freeze| freeze.deadline);
    match known {
        // Asked for twice in a millisecond, a renewal changes nothing.
        Some(before) if before == deadline => {}
        Some(_) => renew(batch, open, deadline),
        None => begin(batch, open, holder, deadline),
    }
    Ok(frozen(batch, open))
}

fn renew<S: Store>(batch: &mut Batch<'_, S>, open: &Open, deadline: u64) {
    batch.next_revision();
    let cart = batch.change::<pb::CartRecord>(open.cart);
    if let Some(freeze) = cart.and_then(|cart| cart.freeze.as_mut()) {
        freeze.deadline = deadline;
    }
    life::renew(batch, open);
}

fn begin<S: Store>(batch: &mut Batch<'_, S>, open: &Open, holder: HolderId, deadline: u64) {
    let revision = batch.next_revision();
    let cart = change(batch, open, revision);
    let lines = cart.lines.iter().map(|line| pb::FrozenLine {
        line_id: line.line_id,
        quantity: line.quantity,
    });
    cart.freeze = Some(pb::StoredFreeze {
        holder: holder.as_str().to_owned(),
        revision: revision.get(),
        deadline,
        lines: lines.collect(),
    });
    life::renew(batch, open);
}

fn frozen<S: Store>(batch: &Batch<'_, S>, open: &Open) -> Body {
    let cart = record(batch, open);
    let freeze = cart.and_then(|cart| cart.freeze.as_ref());
    let small = cart.filter(|cart| cart.encoded_len() <= limits::CART_SNAPSHOT_BYTES);
    let frozen = pb::CartFrozen {
        holder: freeze.map_or(String::new(), |freeze| freeze.holder.clone()),
        revision: freeze.map_or(0, |freeze| freeze.revision),
        deadline: freeze.map_or(0, |freeze| freeze.deadline),
        // The freeze is told by the fields above, and its lines are the cart's.
        snapshot: small.map(|cart| pb::CartRecord {
            freeze: None,
            indexed_deadline: 0,
            ..cart.clone()
        }),
    };
    Body::CartFrozen(Box::new(frozen))
}

/// Ends a freeze without an order.
pub(super) fn release<S: Store>(
    batch: &mut Batch<'_, S>,
    open: &Open,
    holder: HolderId,
) -> Outcome {
    check_held(batch, open, &holder, |_| true)?;
    let revision = batch.next_revision();
    change(batch, open, revision).freeze = None;
    life::renew(batch, open);
    Ok(Body::CartReleased(pb::CartReleased {
        mod_revision: revision.get(),
    }))
}

/// There is the holder's freeze, and it is the one that is meant; otherwise whoever else holds the cart is named.
fn check_held<S: Store>(
    batch: &Batch<'_, S>,
    open: &Open,
    holder: &HolderId,
    is_meant: impl Fn(&pb::StoredFreeze) -> bool,
) -> Result<(), Rejection> {
    let freeze = record(batch, open).and_then(|cart| cart.freeze.as_ref());
    let is_own = |freeze: &pb::StoredFreeze| freeze.holder == holder.as_str();
    let names_everybody = batch.version() < StateVersion::SECOND;
    match freeze {
        Some(freeze) if is_own(freeze) && is_meant(freeze) => Ok(()),
        Some(freeze)
            if freeze.deadline > batch.now().as_millis()
                && (names_everybody || !is_own(freeze)) =>
        {
            Err(life::frozen(freeze))
        }
        _ => Err(Rejection::CartNotFrozen),
    }
}

/// Ends a freeze with an order, or answers again for one that was completed. That is found out before the cart is looked
/// at, because the session that owned it may have ended since.
pub(super) fn complete<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    owner: &CartOwner,
    (holder, revision): (HolderId, Revision),
    order: &OrderId,
) -> Outcome {
    let key = Key::Order(namespace.clone(), order.clone());
    let id = batch.load(&key)?;
    let is_same = |of: &str, at: u64| of == holder.as_str() && at == revision.get();
    if let Some(known) = live_order(batch, id) {
        return match &known.answer {
            Some(answer) if is_same(&known.holder, known.revision) => {
                Ok(Body::OrderCompleted(pb::OrderCompleted {
                    already_completed: true,
                    ..*answer
                }))
            }
            _ => Err(Rejection::OrderExists.into()),
        };
    }
    let open = open(batch, namespace, owner)?;
    check_held(batch, &open, &holder, |freeze| {
        freeze.revision == revision.get()
    })?;
    let answer = take_out(batch, &open, order);
    remember(batch, id, &key, (holder, revision), answer);
    Ok(Body::OrderCompleted(answer))
}

fn live_order<'b, S: Store>(batch: &'b Batch<'_, S>, id: SlotId) -> Option<&'b pb::OrderRecord> {
    let order = batch.read::<pb::OrderRecord>(id)?;
    (order.deadline > batch.now().as_millis()).then_some(order)
}

/// Takes what was frozen out of the cart. Where nothing is left, the details went with the order; but those of a cart that was
/// changed since its lease ran out may be for the next one.
fn take_out<S: Store>(
    batch: &mut Batch<'_, S>,
    open: &Open,
    order: &OrderId,
) -> pb::OrderCompleted {
    let revision = batch.next_revision();
    let heeds_changes = batch.version() >= StateVersion::SECOND;
    let before = record(batch, open).map_or(0, |cart| cart.mod_revision);
    let cart = change(batch, open, revision);
    let bought = cart.freeze.take().unwrap_or_default();
    let was_changed = heeds_changes && before != bought.revision;
    for line in bought.lines {
        let found = cart
            .lines
            .iter_mut()
            .find(|other| other.line_id == line.line_id);
        if let Some(found) = found {
            found.quantity = found.quantity.saturating_sub(line.quantity);
        }
    }
    cart.lines.retain(|line| line.quantity > 0);
    if cart.lines.is_empty() && !was_changed {
        cart.details = None;
        order.as_str().clone_into(&mut cart.order_id);
    }
    let remaining_lines = count(cart.lines.len());
    life::renew(batch, open);
    pb::OrderCompleted {
        already_completed: false,
        mod_revision: revision.get(),
        remaining_lines,
    }
}

/// Remembers an order, in place of one that is no longer valid but was not swept yet.
fn remember<S: Store>(
    batch: &mut Batch<'_, S>,
    id: SlotId,
    key: &Key,
    (holder, revision): (HolderId, Revision),
    answer: pb::OrderCompleted,
) {
    let stale = batch.read::<pb::OrderRecord>(id);
    let indexed = stale.map_or(0, |order| order.deadline);
    life::unindex(batch, key, indexed);
    let deadline = batch.now().after(Ttl::from_millis(limits::ORDER_TTL_MS));
    batch.index(deadline, key);
    batch.put(
        id,
        pb::OrderRecord {
            holder: holder.as_str().to_owned(),
            revision: revision.get(),
            answer: Some(answer),
            deadline: deadline.as_millis(),
        },
    );
}
